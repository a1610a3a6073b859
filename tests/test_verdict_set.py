"""The verdict rests on more images than have maps, and each of its figures says on how many."""

import json
import random
from collections import Counter
from itertools import pairwise

import pytest
import torch
from conftest import ThinVGG, Toys
from test_suspicion import AlwaysTheSame, ReadsTheGround
from test_turns import Takes
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning, ProbeSet
from gradcam_callback.probes import Quota, choose_per_class
from gradcam_callback.probes.datasets import choose_items
from gradcam_callback.probes.feed import Feed
from gradcam_callback.probes.quotas import ClassCount
from gradcam_callback.run import Evaluator, RunLogger, RunState, Tags
from gradcam_callback.run.interventions import (
    BACKGROUND,
    FOREGROUND,
    OTHER_CLASS,
    SAME_CLASS,
    SETS,
    UNCHANGED,
    Interventions,
)
from gradcam_callback.run.turns import Turn
from gradcam_callback.saliency import Proposal

MANY = 36


@pytest.fixture(scope="module")
def many():
    """36 toys of three classes with masks."""
    return Toys(MANY, bias=1.0, seed=0, size=48)


@pytest.fixture(scope="module")
def large(many):
    return ProbeSet.from_dataset(many, MANY // 3)


@pytest.fixture
def probe(large):
    """A probe set that watches nine of them."""
    return large.watch(9)


def test_a_few_images_are_watched_evenly_over_the_classes_and_all_are_judged(large, probe):
    assert probe.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 and len(probe.verdict_set) == MANY
    assert torch.equal(probe.verdict_set.images[:9], probe.images) and probe.verdict_set.names[:9] == probe.names
    assert sorted(probe.verdict_set.names) == sorted(large.names)
    for i, name in enumerate(probe.verdict_set.names):
        before = large.names.index(name)
        assert torch.equal(probe.verdict_set.images[i], large.images[before])
        assert torch.equal(probe.verdict_set.masks[i], large.masks[before])
        assert probe.verdict_set.labels[i] == large.labels[before]


def test_a_set_that_is_small_enough_is_watched_as_a_whole(large):
    assert large.verdict_set is large
    whole = large.watch(100)
    assert whole.verdict_set is whole and torch.equal(whole.images, large.images)
    again = large.watch(9).watch(6)
    assert len(again) == 6 and sorted(again.verdict_set.names) == sorted(large.names), "the others are not lost"


def test_a_photograph_of_several_classes_is_watched_once_if_others_are_left():
    labels = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
    many = ProbeSet(torch.rand(4, 3, 8, 8), labels)
    watched = many.watch(4)
    assert watched.labels.tolist() == [0, 1, 2, 3] and len({image.sum().item() for image in watched.images}) == 4


@pytest.mark.parametrize("n", [0, -3, 2.5, None])
def test_nothing_to_watch_is_an_error(large, n):
    with pytest.raises(ValueError, match=f"Expected `n` to be an integer of 1 or more, but got {n}"):
        large.watch(n)


def test_images_with_a_mask_are_watched_first():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5, 2:5] = True
    probe = ProbeSet(torch.rand(6, 3, 8, 8), [0, 0, 0, 1, 1, 1], [None, None, mask, None, mask, None])
    assert probe.watch(2).names == ["class 0-3", "class 1-2"] and probe.watch(2).has_mask.all()
    assert ProbeSet(torch.rand(2, 3, 8, 8), [0, 0], [None, mask]).watch(1).verdict_set.has_mask.tolist() == [
        True,
        False,
    ]


def test_everything_that_belongs_to_an_image_goes_with_it():
    labels = torch.tensor([[1, 0], [0, 1], [1, 1], [1, 0]])
    probe = ProbeSet(torch.rand(4, 3, 8, 8), labels, names=list("abcd"), class_names=["cat", "dog"])
    probe.rows, probe.proposals = list(range(5)), {1: "of b", 4: "of d"}
    few = probe.watch(2)
    assert few.names == ["a", "b"] and few.rows == [0, 1] and few.proposals == {1: "of b"}
    assert few.present.tolist() == [[True, False], [False, True]]
    whole = few.verdict_set
    assert whole.names == ["a", "b", "c (cat)", "c (dog)", "d"] and whole.proposals == {1: "of b", 4: "of d"}
    assert whole.rows == [0, 1, 2, 3, 4] and whole.class_names == ["cat", "dog"]


def numbered(probe):
    """Return a predict that gives the number of each image, and a list of what it was asked."""
    asked = []

    def predict(images, numbers):
        asked.append((images, numbers))
        return torch.nn.functional.one_hot(numbers, len(probe.verdict_set)).float()

    return predict, asked


def asked(interventions, name, turn):
    return torch.cat(interventions.asked(name, turn)).sort().values


@pytest.mark.parametrize("kind", [SAME_CLASS, OTHER_CLASS])
def test_a_turn_with_a_sign_puts_each_object_on_a_background_of_its_own(probe, kind):
    interventions = Interventions(probe, seed=0)
    sets, seen = interventions.counterfactuals, []
    for number in range(3):
        swaps = getattr(sets, kind)[asked(interventions, kind, Turn(number, thorough=True))]
        assert swaps.objects.tolist() == list(range(MANY))
        assert swaps.donors.bincount().max() <= 3, "hardly any background is shared"
        seen += zip(swaps.objects.tolist(), swaps.donors.tolist(), strict=True)
    assert len(set(seen)) == 3 * MANY, "three epochs see three backgrounds of each object"


@pytest.mark.parametrize(("n", "each"), [(12, 3), (16, 3), (24, 2), (36, 1)])
def test_the_swaps_of_a_turn_with_a_sign_stay_about_as_many(large, n, each):
    some = ProbeSet(large.images[:n], torch.arange(n) % 3, large.masks[:n]).watch(6)
    interventions = Interventions(some, seed=0)
    for number in range(4):
        assert len(asked(interventions, OTHER_CLASS, Turn(number, thorough=True))) == each * n
    assert len(asked(interventions, OTHER_CLASS, None)) == 3 * n


def test_without_a_verdict_set_a_sign_asks_everything(large):
    interventions = Interventions(large, seed=0)
    assert interventions.sets == SETS
    for name in SETS:
        everything = list(range(len(interventions.numbers_of(name))))
        assert asked(interventions, name, Turn(2, thorough=True)).tolist() == everything


def test_a_turn_without_a_sign_asks_about_the_watched_objects_only(probe):
    interventions = Interventions(probe, seed=0)
    for number in (1, 2, 7):
        for name in (SAME_CLASS, OTHER_CLASS):
            places = asked(interventions, name, Turn(number))
            assert interventions.numbers_of(name)[places].tolist() == list(range(9))
        assert not len(asked(interventions, UNCHANGED, Turn(number)))
    thirds = [asked(interventions, BACKGROUND, Turn(number)).tolist() for number in range(3)]
    assert sorted(sum(thirds, [])) == list(range(9))
    for turn in (None, Turn(5, thorough=True)):
        for name, count in ((UNCHANGED, MANY - 9), (BACKGROUND, 9), (FOREGROUND, 9)):
            assert asked(interventions, name, turn).tolist() == list(range(count))


@pytest.mark.parametrize(
    "labels", [[0, 1, 2] * 3, [0] * 3 + [1] * 3 + [2] * 3, [2, 2, 0, 1, 0, 2, 1, 1, 0], [0] * 6 + [1] * 3]
)
def test_a_turn_paints_out_objects_of_every_class_in_whatever_order_they_are(large, labels):
    interventions = Interventions(ProbeSet(large.images[:9], labels, large.masks[:9]), seed=0)
    for name in (BACKGROUND, FOREGROUND):
        for number in range(3):
            places = asked(interventions, name, Turn(number)).tolist()
            shown = [labels[i] for i in interventions.numbers_of(name)[places].tolist()]
            assert sorted(shown * 3) == sorted(labels), "each class has its share"


def test_an_object_with_few_backgrounds_is_never_asked_twice_at_once(large):
    labels = [0] * 2 + [1] * 20
    interventions = Interventions(ProbeSet(large.images[:22], labels, large.masks[:22]).watch(8), seed=0)
    for number in range(4):
        places = asked(interventions, SAME_CLASS, Turn(number, thorough=True)).tolist()
        assert len(set(places)) == len(places) == 2 + 2 * 20


def test_the_unchanged_images_that_are_asked_are_those_without_maps(probe):
    interventions = Interventions(probe, seed=0)
    predict, asked = numbered(probe)
    interventions.ask(predict)
    images, numbers = asked[0]
    assert numbers.tolist() == list(range(9, MANY)) and torch.equal(images, probe.verdict_set.images[9:])


def test_objects_and_backgrounds_alone_are_of_the_watched_images(probe):
    interventions = Interventions(probe, seed=0)
    sets = interventions.counterfactuals
    assert torch.equal(interventions.images_of(BACKGROUND), sets.remove(torch.arange(9)))
    assert torch.equal(interventions.images_of(FOREGROUND, torch.tensor([8])), sets.isolate(torch.tensor([8])))


def test_places_are_told_apart_if_some_images_take_no_part(large):
    masks = large.masks.clone()
    masks[torch.tensor([0, 5, 20])] = True  # fills everything
    with pytest.warns(GradCAMWarning, match="take no part in the swap test"):
        interventions = Interventions(ProbeSet(large.images, large.labels, masks).watch(9), seed=0)
    numbers = interventions.numbers
    watched = numbers[numbers < 9]
    assert len(numbers) == MANY - 3 and len(watched) < 9
    assert interventions.numbers_of(BACKGROUND).tolist() == watched.tolist()
    assert torch.equal(
        interventions.images_of(FOREGROUND)[-1],
        interventions.counterfactuals.isolate(torch.tensor([len(watched) - 1]))[0],
    )
    assert torch.equal(interventions.images_of(UNCHANGED)[0], interventions.probe.images[numbers[len(watched)]])


@pytest.mark.parametrize("labels", [[0] * 6 + [1] * 6, [0] * 7 + [1] * 5])
def test_without_watched_objects_of_two_classes_every_turn_asks_everything(large, labels):
    masks = large.masks[:12].clone()
    probe = ProbeSet(large.images[:12], labels, masks).watch(8)
    probe.verdict_set.masks[4:8] = True  # of the second class no watched image takes part
    with pytest.warns(GradCAMWarning, match="take no part"):
        interventions = Interventions(probe, seed=0)
    assert len(asked(interventions, OTHER_CLASS, Turn(1))) == len(interventions.counterfactuals.other_class)


@pytest.mark.parametrize("by_class", [False, True])
def test_scalars_of_a_class_without_a_watched_object_are_there_at_every_turn(large, by_class):
    """Something may wait for them. Otherwise a quick turn asks about the watched objects, whatever their classes."""
    probe = ProbeSet(large.images[:16], [i // 2 for i in range(16)], large.masks[:16]).watch(6)
    interventions = Interventions(probe, seed=0, by_class=by_class)
    assert len(interventions.numbers) == 16 and len(probe.labels.unique()) == 6
    objects = interventions.numbers_of(OTHER_CLASS)[asked(interventions, OTHER_CLASS, Turn(1))]
    assert len(objects.unique()) == (16 if by_class else 6)


@pytest.mark.parametrize("turn", [None, Turn(1), Turn(1, thorough=True)])
def test_many_processes_answer_as_one_does(thin, probe, turn):
    evaluator = Evaluator(GradCAM(thin, "block5_conv3"), probe)
    whole = evaluator.merge([evaluator.compute_shard(turn=turn)])
    merged = evaluator.merge([evaluator.compute_shard(rank, 11, turn) for rank in range(11)])
    assert merged.scalars == pytest.approx(whole.scalars, rel=1e-5)
    assert merged.answers.swap == pytest.approx(whole.answers.swap)


def test_all_figures_of_a_verdict_are_of_the_same_objects(probe):
    """Right on the first 20 images, wherever they are put, and on no other."""
    interventions = Interventions(probe, seed=0)
    labels = probe.verdict_set.labels

    def predict(images, numbers):
        answer = torch.where(numbers < 20, labels[numbers], (labels[numbers] + 1) % 3)
        return torch.nn.functional.one_hot(answer, 3).float()

    right = torch.nn.functional.one_hot(interventions.probe.labels[:9], 3).float()
    every = interventions.compare_with_labels(right, [interventions.ask(predict)])
    assert every.swap.n == every.swap.n_controlled == every.n_all == MANY
    assert every.swap.probe_accuracy == every.swap.swap_accuracy == pytest.approx(every.accuracy) == 20 / MANY
    assert every.swap.gap == every.swap.drop == every.swap.pasting_cost == 0
    wide = interventions.compare_with_labels(right, [interventions.ask(predict, turn=Turn(1, True))], Turn(1, True))
    assert (wide.swap.n, wide.swap.n_controlled, wide.swap.probe_accuracy) == (MANY, MANY, pytest.approx(20 / MANY))
    some = interventions.compare_with_labels(right, [interventions.ask(predict, turn=Turn(1))], Turn(1))
    assert (some.swap.n, some.swap.n_controlled, some.n_all) == (9, 9, MANY) and some.swap.probe_accuracy == 1.0
    assert some.swap.gap == some.swap.drop == 0 and some.swap.classes == 3


class Stream(IterableDataset):
    def __init__(self, items):
        self._items = items

    def __iter__(self):
        return iter(self._items)


@pytest.mark.judges_more
@pytest.mark.parametrize("streamed", [False, True])
def test_the_callback_watches_a_few_images_and_judges_four_times_as_many(fit, many, streamed):
    torch.manual_seed(0)
    callback = GradCAMCallback(target_layers="block5_conv3")
    data = Stream(many.items) if streamed else many
    with pytest.warns(match="a shortcut is suspected"):
        fit(ReadsTheGround(many), callback, val_data=data, max_epochs=2)
    assert callback.probe_set.labels.bincount().tolist() == [2, 2, 2]
    assert callback.probe_set.verdict_set.labels.bincount().tolist() == [8, 8, 8]
    assert "measured on 24 images" in callback.verdict.evidence and callback.verdict.background_gap == 1.0


@pytest.mark.judges_more
def test_without_a_sign_the_last_epoch_asks_all_images_again(fit, many):
    callback, images = GradCAMCallback(target_layers="block5_conv3"), []

    class Listens(GradCAMCallback):
        def on_train_epoch_end(self, trainer, pl_module):
            images.append(callback.verdict.evidence.split("measured on ")[1].split(" images")[0])

    fit(AlwaysTheSame(), callback, Listens(views="layer", target_layers="block5_conv3"), val_data=many, max_epochs=4)
    assert images == ["24", "6", "6", "24"]
    assert len({frozenset(entry) for entry in callback.history[1:]}) == 1, "every scalar at every entry"


@pytest.mark.judges_more
def test_a_score_without_classes_needs_no_more_images(fit, thin, many):
    callback = GradCAMCallback(target=lambda outputs, index: outputs[:, 0], target_layers="block5_conv3")
    fit(thin, callback, val_data=many)
    assert callback.probe_set.verdict_set is callback.probe_set and len(callback.probe_set) == 6


def test_of_many_classes_those_with_enough_images_are_chosen():
    labels = [0, 1, 1, 1, 1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 5]
    pairs = list(enumerate(labels))
    assert {label for _, label in choose_per_class(pairs, Quota(None, 12, least=4))} == {1, 3, 5}
    assert {label for _, label in choose_per_class(pairs, Quota(None, 3), spare=4)} == {1, 3, 5}
    assert [label for _, label in choose_per_class(pairs, Quota(None, 3))] == [0, 2, 5], "without need, evenly over all"
    assert {label for _, label in choose_per_class(pairs, Quota(None, 4), spare=4)} == {1, 2, 3, 5}, (
        "too few have enough"
    )


def test_a_class_with_too_few_images_gives_way_to_one_that_is_not_its_neighbour():
    pairs = list(enumerate([0, 1, 2, 3, 4, 4, 5, 5]))
    assert [label for _, label in choose_per_class(pairs, Quota(None, 4, least=2))] == [4, 4, 5, 5]
    assert {label for _, label in choose_per_class(pairs, Quota(None, 6, least=2))} == {2, 4, 5}, "no other has two"
    assert {label for _, label in choose_per_class(pairs, Quota(None, 2))} == {0, 5}, "one is enough"


@pytest.mark.parametrize(("n_classes", "each"), [(50, 4), (100, 3), (100, 10), (200, 3)])
def test_of_many_classes_those_that_were_read_far_enough_are_chosen(n_classes, each):
    """Reading ends once enough classes have two images, of which the others may then have one."""
    quota = Quota(None, 64, least=2)
    for seed in range(20):
        labels = [label for label in range(n_classes) for _ in range(each)]
        random.Random(seed).shuffle(labels)
        count, pairs = ClassCount(quota), []
        count.n_classes = n_classes
        while not count.is_full:
            pairs.append((len(pairs), labels[len(pairs)]))
            count.add([pairs[-1][1]])
        chosen = Counter(label for _, label in choose_per_class(pairs, quota))
        assert len(chosen) == 32 and set(chosen.values()) == {2}
        steps = [later - label for label, later in pairwise(sorted(chosen))]
        assert max(steps) <= 5 * n_classes / 32, "they are spread"


@pytest.mark.sixteen_images
@pytest.mark.judges_more
@pytest.mark.parametrize(("n_classes", "tested", "each"), [(2, 2, 32), (20, 20, 3), (60, 32, 2)])
def test_the_verdict_tests_as_many_classes_as_have_a_control(fit, n_classes, tested, each):
    """An image that is alone in its class cannot be put on a background of its own class."""
    torch.manual_seed(0)
    labels = torch.arange(max(64, 3 * n_classes)) % n_classes
    data = TensorDataset(torch.rand(len(labels), 3, 32, 32), labels)
    callback = GradCAMCallback(target_layers="block5_conv3")
    fit(ThinVGG(n_classes), callback, train_data=data, val_data=data, max_epochs=1)
    judged, watched = callback.probe_set.verdict_set.labels.tolist(), callback.probe_set.labels.tolist()
    assert Counter(judged) == dict.fromkeys(set(judged), each) and len(set(judged)) == tested
    assert len(watched) == 16 and len(set(watched)) == min(16, n_classes)


@pytest.mark.parametrize("frequent", ["first", "last"])
@pytest.mark.parametrize("stores", [True, False])
def test_classes_are_chosen_evenly_whichever_are_frequent(frequent, stores):
    """The first classes to have their images are the frequent ones."""
    n_classes = 60
    counts = [max(5, 200 // (label + 2)) for label in range(n_classes)]
    counts = counts if frequent == "first" else counts[::-1]

    class Many(Dataset):
        def __init__(self):
            self.labels = [label for label, count in enumerate(counts) for _ in range(count)]
            if stores:
                self.targets = self.labels

        def __len__(self):
            return len(self.labels)

        def __getitem__(self, index):
            read.append(index)
            return torch.zeros(3, 4, 4), self.labels[index]

    read = []
    items = choose_items(Many(), Feed(), Quota(None, 64, least=4), 0, None, lambda _: n_classes).items
    chosen = sorted({item.label for item in items})
    assert len(chosen) == 16 and all(abs(chosen[i] - i * 59 / 15) < 4 for i in range(16))
    assert stores or len(read) < sum(counts), "and no more is read than that takes"


def test_records_and_sheets_hold_as_many_objects_as_are_watched(probe, drawn):
    torch.manual_seed(0)
    network, takes = ReadsTheGround(Toys(9, bias=1.0, seed=0, size=48)), Takes()
    evaluator = Evaluator(GradCAM(network, "block5_conv3"), probe)

    def report(_, error):
        raise error

    log = RunLogger(evaluator, RunState(), [takes], Tags(), report=report, style=GradCAMCallback().style)
    log.start()
    notes = {
        Turn(0, thorough=True): "The other 27 images are not shown.",
        Turn(1): "Other backgrounds were not asked at this entry.",
    }
    for epoch, (turn, note) in enumerate(notes.items()):
        drawn.clear()
        log.log(evaluator.merge([evaluator.compute_shard(turn=turn)]), epoch, epoch)
        assert note in " ".join(thing.text for thing in drawn if thing.pixels is None)
        answers = takes.records[-1]["answers"]
        assert set(answers) == set(SETS) and all(len(answers[name]) == 9 for name in (BACKGROUND, FOREGROUND))
        for name in (SAME_CLASS, OTHER_CLASS):
            assert len(answers[name]) == 27 and answers[name].count(None) == 18, "one of three backgrounds"
    assert [record["judged"] for record in takes.records] == [MANY, 9]
    assert "gradcam/counterfactuals" in takes.images and "gradcam/counterfactuals/2" not in takes.images
    start = json.loads(log._recorder.start("gradcam", []))
    assert all(max(found["numbers"]) < 9 for found in start["sets"].values())


def test_labels_of_images_that_are_not_watched_are_checked_too(thin, large):
    labels = large.labels.clone()
    labels[-1] = 7
    probe = ProbeSet(large.images, labels).watch(1)
    assert int(probe.labels.max()) < 3
    with pytest.raises(ValueError, match="to be classes from 0 to 2"):
        Evaluator(GradCAM(thin, "block5"), probe)


def test_all_sheets_show_an_image_in_the_same_colours(large):
    """Without mean and std images are stretched, from the smallest value of all images to the largest."""
    images = large.images.clone()
    images[1::2] *= 300
    probe = ProbeSet(images, large.labels).watch(3)
    judged = probe.verdict_set
    assert (probe.display_images() == judged.display_images()[:3]).all()


def test_a_mask_of_an_image_that_takes_no_part_does_not_decide_the_basis(large):
    probe = ProbeSet(large.images, large.labels, [(0, 2, 48, 48), *large.masks[1:]])
    assert probe.has_box_masks
    with pytest.warns(GradCAMWarning, match="take no part in the swap test"):
        assert Interventions(probe, 0).basis == "masks"


def test_if_no_judged_image_takes_part_the_accuracy_is_that_of_the_watched_ones(thin, many):
    whole = torch.ones(48, 48, dtype=torch.bool)
    masks = [None] * 20 + [whole] * 16
    labels = torch.tensor([0] * 20 + [1] * 16)
    images = torch.stack([image for image, _, _ in many.items])
    with pytest.warns(GradCAMWarning, match="take no part"):
        evaluator = Evaluator(GradCAM(thin, "block5"), ProbeSet(images, labels, masks).watch(1))
    answers = evaluator.evaluate().answers
    assert answers.accuracy in (0.0, 1.0) and isinstance(answers.swap, str)


def test_the_frame_test_is_confirmed_by_the_drop_of_its_own_images(thin, many):
    """One image per class, so there is no control. The watched images alone have another accuracy."""
    probe = ProbeSet(torch.stack([image for image, _, _ in many.items[:12]]), torch.arange(12)).watch(6)
    module = type(thin)(classes=12).eval()
    scalars = Evaluator(GradCAM(module, "block5"), probe).evaluate().scalars
    assert "frame_gap" not in scalars
    with torch.no_grad():
        right = module(probe.verdict_set.images).argmax(dim=1) == probe.verdict_set.labels
    assert scalars["frame_drop"] == pytest.approx(float(right.double().mean()) - scalars["frame_accuracy"])


@pytest.mark.parametrize("n, asked", [(4, 36 + 36 + 33), (9, 9 + 9)])
def test_a_few_watched_images_cost_no_more_than_a_thorough_turn(large, n, asked):
    interventions = Interventions(large.watch(n), 0)
    quiet = {name: sum(map(len, interventions.asked(name, Turn(1)))) for name in (SAME_CLASS, OTHER_CLASS, UNCHANGED)}
    assert sum(quiet.values()) == asked


def test_a_run_with_other_images_of_the_verdict_starts_anew(fit, large, many):
    first = GradCAMCallback(large.watch(6), "block5_conv3")
    module = fit(AlwaysTheSame(), first, max_epochs=1)
    other = ProbeSet.from_dataset(Toys(MANY, bias=1.0, seed=9, size=48), MANY // 3)
    judged = large.watch(6).verdict_set
    mixed = ProbeSet(
        torch.cat([judged.images[:6], other.images[6:]]), judged.labels, torch.cat([judged.masks[:6], other.masks[6:]])
    )
    second = GradCAMCallback(mixed.watch(6), "block5_conv3")
    assert torch.equal(second.probe.images, first.probe_set.images)
    second.load_state_dict(first.state_dict())
    with pytest.warns(GradCAMWarning, match="are of other images or layers; both start anew"):
        fit(module.lightning_module, second, max_epochs=1)
    assert len(second.history) == 1


def test_a_doubtful_proposal_beside_a_box_leaves_the_basis_to_the_box(large):
    probe = ProbeSet(large.images, large.labels, [(8, 8, 24, 24)] * MANY)
    probe.proposals = {0: Proposal(large.masks[0], "doubtful")}
    assert Interventions(probe, 0).basis == "boxes"
    probe.proposals = {0: Proposal(large.masks[0], None)}
    assert Interventions(probe, 0).basis == "automatic masks"
