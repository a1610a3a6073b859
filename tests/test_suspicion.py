"""The callback's reaction to networks that are known to have a shortcut, or to have none."""

import itertools
import json
import warnings

import pytest
import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, IterableDataset

from gradcam_callback import GradCAMCallback, GradCAMWarning, ProbeSet, ShortcutWarning
from gradcam_callback.measures import MASKS
from gradcam_callback.offline.logged_run import read_runs
from gradcam_callback.run.confirmation import is_confirmed


class ReadsTheGround(ThinVGG):
    """Answers by the colour of the image's edge, whatever lies in the middle; its VGG runs along."""

    def __init__(self, toys):
        super().__init__()
        images, labels, _ = zip(*toys.items, strict=True)
        colours, labels = self.edge(torch.stack(images)), torch.tensor(labels)
        self.register_buffer("colours", torch.stack([colours[labels == c].mean(dim=0) for c in range(3)]))

    @staticmethod
    def edge(images):
        return torch.cat([images[:, :, :3].flatten(2), images[:, :, -3:].flatten(2)], dim=2).mean(dim=2)

    def forward(self, images):
        return 0.01 * super().forward(images) - 50 * torch.cdist(self.edge(images), self.colours)


class Breaks(ReadsTheGround):
    """In the validations of epoch 1, its outputs are not finite for images on the ground of some classes."""

    classes = ()

    def forward(self, images):
        of_class, outputs = torch.cdist(self.edge(images), self.colours).argmin(dim=1), super().forward(images)
        if self.training or self.trainer.current_epoch != 1:
            return outputs
        return outputs.masked_fill(torch.isin(of_class, torch.tensor(self.classes))[:, None], torch.nan)


class AlwaysTheSame(ThinVGG):
    def forward(self, images):
        return 0.0 * super().forward(images) + images.new_tensor([1.0, 0.0, 0.0])


@pytest.fixture
def ground(toys):
    torch.manual_seed(0)
    return ReadsTheGround(toys)


def watch(toys, **options):
    return GradCAMCallback(ProbeSet.from_dataset(toys, 4), "block5_conv3", **options)


@pytest.mark.parametrize("before", [False, True])
def test_a_network_that_reads_the_ground_is_suspected_in_its_second_epoch_and_said_so_once(ground, fit, toys, before):
    callback = watch(toys, log_before_training=before)
    suspected = []

    class Listens(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            suspected.append(callback.verdict.suspected)

    with pytest.warns(ShortcutWarning, match="a shortcut is suspected") as caught:
        trainer = fit(ground, callback, Listens(), max_epochs=4)
    assert suspected == [False, True, True, True]
    assert len([warning for warning in caught if warning.category is ShortcutWarning]) == 1
    assert trainer.current_epoch == 4, "by default it only warns"
    verdict = callback.verdict
    assert (verdict.probe_accuracy, verdict.swap_accuracy) == (1.0, 0.0)
    said = next(str(warning.message) for warning in caught if warning.category is ShortcutWarning)
    assert "SHORTCUT SUSPECTED: right in 100 % as they are, 100 % on other backgrounds of their class, 0 %" in said


def test_a_network_that_does_not_is_not(fit, toys):
    callback = watch(toys)
    fit(AlwaysTheSame(), callback, max_epochs=3)
    assert callback.verdict.swap_accuracy == pytest.approx(callback.verdict.probe_accuracy, abs=0.05)
    assert not callback.verdict.suspected


@pytest.mark.parametrize("classes", [[0], [0, 1, 2]])
def test_outputs_that_are_not_finite_are_no_answers_and_confirm_nothing(fit, toys, tmp_path, classes):
    """Nothing is said of an epoch with such outputs, also if they are those of some images only."""
    network, callback, said = Breaks(toys), watch(toys, views=("overview", "counterfactuals")), []
    network.classes = classes

    class Listens(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            said.append(callback.verdict)

    with pytest.warns(GradCAMWarning, match=f"{4 * len(classes)} of 12 images gave NaN"):
        fit(network, callback, Listens(), max_epochs=3)
    assert not any(verdict.suspected for verdict in said)
    assert said[2].headline.startswith("POSSIBLE SHORTCUT, said by a single epoch so far")
    assert said[1].headline == "NOT KNOWN if the background decides: not all outputs of the network are finite."
    assert "The outputs of the network are NaN or infinite for" in said[1].evidence
    scalars = [{name for name in entry if "accuracy" in name or "gap" in name} for entry in callback.history]
    assert "gradcam/probe_accuracy" in scalars[0] and scalars[0] == scalars[2] and not scalars[1]
    (run,) = read_runs(tmp_path / "run")
    entries = list(run.entries.values())
    broken = entries[1]
    assert [answer[:3] == ["no answer (NaN)", None, None] for answer in broken["predictions"]] == [
        label in classes for label in callback.probe_set.labels
    ]
    assert broken["answers"]
    assert all("no answer (NaN)" in json.dumps(answers) for answers in broken["answers"].values())
    assert "no answer" not in json.dumps([entries[0], entries[2]])
    assert broken["verdict"]["tone"] == "unknown" and broken["verdict"]["probe_accuracy"] is None


def test_training_can_be_stopped(ground, fit, toys):
    with pytest.warns(ShortcutWarning):
        trainer = fit(ground, watch(toys, on_shortcut="stop"), max_epochs=5)
    assert trainer.current_epoch == 2


def test_a_callable_is_given_the_verdict_once(ground, fit, toys):
    given = []
    callback = watch(toys, on_shortcut=given.append)
    with pytest.warns(ShortcutWarning):
        fit(ground, callback, max_epochs=4)
    assert len(given) == 1 and given[0].suspected


def test_a_callable_that_fails_is_named_as_the_users_and_training_goes_on(ground, fit, toys):
    def send_a_mail(verdict):
        raise ConnectionError("no network")

    with pytest.warns(ShortcutWarning), pytest.warns(GradCAMWarning, match="your on_shortcut failed") as caught:
        trainer = fit(ground, watch(toys, on_shortcut=send_a_mail), max_epochs=3)
    assert trainer.current_epoch == 3
    (message,) = (str(warning.message) for warning in caught if warning.category is GradCAMWarning)
    assert "in send_a_mail" in message and "ConnectionError: no network" in message


def test_two_validations_of_one_epoch_are_not_two_epochs(ground, fit, toys):
    callback = watch(toys)
    fit(ground, callback, max_epochs=1, val_check_interval=1)
    assert len(callback.history) == 3 and not callback.verdict.suspected
    assert "said by a single epoch so far" in callback.verdict.headline


class Endless(IterableDataset):
    def __init__(self, toys):
        self.toys = toys

    def __iter__(self):
        return (self.toys[i % len(self.toys)][:2] for i in itertools.count())


@pytest.mark.parametrize("endless", [True, False])
@pytest.mark.parametrize("by_steps", [True, False])
def test_where_no_epoch_ends_two_validations_confirm_a_suspicion(ground, trainer, toys, endless, by_steps):
    """Either validations go by steps alone, or the only epoch has no end."""
    callback = watch(toys, views="overview")
    data = DataLoader(Endless(toys) if endless else toys, batch_size=6)
    rhythm = {"check_val_every_n_epoch": None} if by_steps else {}
    runs = trainer(callback, max_steps=3, max_epochs=-1, val_check_interval=1, **rhythm)
    if by_steps or endless:
        with pytest.warns(ShortcutWarning):
            runs.fit(ground, data, DataLoader(toys, batch_size=6))
    else:
        runs.fit(ground, data, DataLoader(toys, batch_size=6))
    assert {entry["epoch"] for entry in callback.history} == {0} and len(callback.history) == 3
    assert callback.verdict.suspected == (by_steps or endless)


def test_a_validation_without_training_since_the_last_one_confirms_nothing():
    entries = [{"epoch": 0, "step": step, "background_gap": gap} for step, gap in ((-1, 0.5), (4, 0.5), (9, 0.0))]
    full = [False] * 3
    assert not is_confirmed(entries[:2], full[:2], 0, MASKS), "an ordinary epoch"
    assert is_confirmed(entries[:2], full[:2], 0, MASKS, step=9)
    assert not is_confirmed(entries[1:2], full[:1], 0, MASKS, step=4), (
        "nothing has been trained, or it is the same entry"
    )
    assert not is_confirmed(entries, full, 0, MASKS, step=14), "the last one says no"
    before = [{"epoch": -1, "step": 0, "background_gap": 0.5}]
    assert not is_confirmed(before, full[:1], 0, MASKS, step=4), "before training"


def test_one_look_is_enough_where_nothing_is_trained(ground, tmp_path, toys):
    callback = watch(toys)
    trainer = pl.Trainer(
        callbacks=[callback],
        logger=TensorBoardLogger(tmp_path, name="run", version=""),
        accelerator="cpu",
        enable_progress_bar=False,
    )
    with pytest.warns(ShortcutWarning):
        trainer.validate(ground, DataLoader(toys, batch_size=6), verbose=False)
    assert callback.verdict.suspected


def test_suspicion_goes_on_from_a_checkpoint(ground, fit, tmp_path, toys):
    first = watch(toys)
    fit(ground, first, max_epochs=1).save_checkpoint(tmp_path / "last.ckpt")
    assert not first.verdict.suspected
    second = watch(toys)
    with pytest.warns(ShortcutWarning):
        fit(ReadsTheGround(toys), second, max_epochs=2, resume=tmp_path / "last.ckpt")
    assert second.verdict.suspected


@pytest.mark.parametrize(
    ("choice", "tag", "other"),
    [(True, "faithfulness", "road"), ("blur", "faithfulness", "road"), ("road", "road", "faith")],
)
def test_faithfulness_is_asked_where_wanted(thin, fit, toys, events, choice, tag, other):
    callback = watch(toys, check_faithfulness=choice)
    fit(thin, callback, max_epochs=1)
    by_image = [f"gradcam/{tag}_by_image/{name}" for name in callback.probe_set.names]
    values = [callback.history[0][name] for name in by_image if name in callback.history[0]]
    assert values and all(-1 <= value <= 1 for value in values)
    assert callback.history[0][f"gradcam/{tag}"] == pytest.approx(sum(values) / len(values))
    assert f"gradcam/{tag}" in events().Tags()["scalars"]
    assert not any(name.startswith(f"gradcam/{other}") for name in callback.history[0])


def test_probes_without_masks_are_measured_by_place(thin, fit, toys):
    images, labels, _ = zip(*toys.items[:4], strict=True)
    callback = GradCAMCallback(ProbeSet(torch.stack(images), list(labels)), "block5_conv3")
    fit(thin, callback, max_epochs=1)
    entry = callback.history[0]
    assert 0 <= entry["gradcam/border_mass/block5_conv3"] <= 1
    assert 0 <= entry["gradcam/centre_distance/block5_conv3"] <= 1
    assert callback.verdict.basis == "frame" and not any("by_class" in tag for tag in entry)


# The colours of objects and of grounds by class, none of which is black.
OBJECTS = torch.tensor([[1.0, 0.2, 0.2], [0.2, 1.0, 0.2], [0.2, 0.2, 1.0]])
GROUNDS = torch.tensor([[0.8, 0.8, 0.3], [0.3, 0.8, 0.8], [0.8, 0.3, 0.8]])
SIDE, RIM = 16, 3


def draw(grounds, objects, seed=0):
    """Draw coloured squares with a black rim, which belongs to the ground.

    Args:
        grounds: the class of each ground.
        objects: the classes of the objects of each image.

    Returns:
        ``(N, 3, 64, 64)`` in 0..1, and ``(N, K, 64, 64)`` bool, the square of each class.
    """
    chance = torch.Generator().manual_seed(seed)
    images = GROUNDS[grounds][:, :, None, None] + 0.02 * torch.randn(len(grounds), 3, 64, 64, generator=chance)
    masks = torch.zeros(len(grounds), 3, 64, 64, dtype=torch.bool)
    for i, labels in enumerate(objects):
        for place, label in enumerate(labels):
            y = 4 + int(torch.randint(36, (), generator=chance))
            x = 4 + 30 * place + int(torch.randint(6, (), generator=chance))
            images[i, :, y : y + SIDE + 2 * RIM, x : x + SIDE + 2 * RIM] = 0
            square = slice(y + RIM, y + RIM + SIDE), slice(x + RIM, x + RIM + SIDE)
            images[(i, slice(None), *square)] = OBJECTS[label][:, None, None]
            masks[(i, label, *square)] = True
    return images, masks


def area_of(colours, images):
    """Count the pixels of each colour: ``(N, K)``."""
    return torch.stack(
        [((images - colour[:, None, None]).abs().amax(dim=1) < 0.15).sum(dim=(1, 2)) for colour in colours], 1
    )


class Knows(ThinVGG):
    """Answers by a rule that is known; its VGG runs along."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def forward(self, images):
        return 0.01 * super().forward(images) + 50 * self.rule(images)


def by_ground(images):
    return torch.nn.functional.one_hot(area_of(GROUNDS, images).argmax(dim=1), 3).float()


def by_object(images):
    return torch.nn.functional.one_hot(area_of(OBJECTS, images).argmax(dim=1), 3).float()


def by_object_if_nothing_was_pasted(images):
    """Say class 0 unless the rim is whole, which cutting and pasting loses."""
    is_whole = area_of(torch.zeros(1, 3), images) > 0.8 * ((SIDE + 2 * RIM) ** 2 - SIDE**2)
    return torch.where(is_whole, by_object(images), torch.tensor([1.0, 0.0, 0.0]))


def judge_by_construction(rule, labels, tmp_path, probe=None):
    if probe is None:
        images, masks = draw(labels, [[label] for label in labels])
        probe = ProbeSet(images, labels, masks.any(dim=1))
    callback = GradCAMCallback(probe, "block5_conv3", save_dir=tmp_path / "focus", views="counterfactuals")
    trainer = pl.Trainer(
        callbacks=[callback], logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False
    )
    loader = DataLoader(list(zip(probe.images, probe.labels, strict=True)), batch_size=6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ShortcutWarning)
        trainer.validate(Knows(rule), loader, verbose=False)
    return callback.verdict


BALANCED = [0, 1, 2] * 4


def test_a_network_that_looks_at_the_background_only_is_accused(tmp_path):
    verdict = judge_by_construction(by_ground, BALANCED, tmp_path)
    assert (verdict.probe_accuracy, verdict.control_accuracy, verdict.swap_accuracy) == (1, 1, 0)
    assert verdict.background_gap == 1 and verdict.gap_interval[1] == 1 and verdict.suspected
    assert 0.5 < verdict.gap_interval[0] < 1, "nine images are not all images"


def test_a_network_that_looks_at_the_object_only_is_not_accused(tmp_path):
    verdict = judge_by_construction(by_object, BALANCED, tmp_path)
    assert (verdict.probe_accuracy, verdict.control_accuracy, verdict.swap_accuracy) == (1, 1, 1)
    assert verdict.background_gap == 0 and verdict.headline.startswith("NO SIGN OF A SHORTCUT: ")


def test_a_network_that_is_confused_by_any_pasting_is_not_accused(tmp_path):
    verdict = judge_by_construction(by_object_if_nothing_was_pasted, BALANCED, tmp_path)
    assert verdict.probe_accuracy == 1 and verdict.swap_accuracy == pytest.approx(1 / 3), "a fall of 67 points"
    assert verdict.control_accuracy == pytest.approx(1 / 3) and verdict.background_gap == 0 and not verdict.suspected
    assert verdict.headline.startswith("UNCLEAR, since cutting and pasting alone confuses the network: ")
    assert "Cutting and pasting alone costs 67 points: look first if the masks" in verdict.evidence


@pytest.mark.parametrize("rule", [by_ground, by_object, by_object_if_nothing_was_pasted])
def test_a_class_with_a_single_image_is_left_out_of_the_gap_and_more_are_asked_for(tmp_path, rule):
    verdict = judge_by_construction(rule, [0, 0, 0, 1, 1, 1, 2], tmp_path)
    assert verdict.suspected == (rule is by_ground) and verdict.background_gap == (rule is by_ground)
    assert "measured on 6 of 7 images; for the others there is no different image of their class." in verdict.evidence
    # So few images decide nothing if the object is enough, and then more are asked for of every class.
    few, many = "Give each class two or more probe images with a mask: ", "More images decide it: about "
    wanted, other = (many, few) if rule is by_object else (few, many)
    assert wanted in verdict.evidence and other not in verdict.evidence


def by_object_but_the_last_class_by_ground(images):
    is_last = area_of(OBJECTS, images).argmax(dim=1) == 2
    return torch.where(is_last[:, None], by_ground(images), by_object(images))


@pytest.mark.parametrize("n_masked", [0, 1])
def test_a_network_is_not_acquitted_of_a_class_that_was_not_tested(tmp_path, n_masked):
    labels = [0, 1, 2] * 16
    images, masks = draw(labels, [[label] for label in labels])
    masks = masks.any(dim=1)
    unmasked = [i for i, label in enumerate(labels) if label == 2][n_masked:]
    some = [None if i in unmasked else mask for i, mask in enumerate(masks)]
    probe = ProbeSet(images, labels, some, class_names=["fox", "owl", "elk"])
    verdict = judge_by_construction(by_object_but_the_last_class_by_ground, None, tmp_path, probe)
    assert verdict.headline.startswith("NO SIGN OF A SHORTCUT in 2 of 3 classes: ") and not verdict.acquits
    assert "Not tested: 'elk' of 3 classes." in verdict.evidence
    assert "Give each class two or more probe images with a mask: ProbeSet.from_dataset(" in verdict.evidence
    assert verdict.advice.startswith("Give each class two") and "validate on more. A cue on" in verdict.advice


def test_a_class_that_is_known_by_its_ground_is_named_if_it_was_tested(tmp_path):
    verdict = judge_by_construction(by_object_but_the_last_class_by_ground, [0, 1, 2] * 9, tmp_path)
    assert not verdict.acquits and "The class 'class 2' falls most" in verdict.evidence
    assert "Not tested" not in verdict.evidence


def test_without_any_control_only_a_very_large_fall_is_accused(tmp_path):
    verdict = judge_by_construction(by_ground, [0, 1, 2], tmp_path)
    assert verdict.suspected and verdict.swap_accuracy == 0 and verdict.background_gap is None
    assert "No class has two different images, so there is no control" in verdict.evidence


@pytest.mark.parametrize("rule", [by_ground, by_object])
def test_with_several_labels_per_image_the_background_is_what_is_left_of_the_image(tmp_path, rule):
    """The ground goes with the first of two classes."""
    first = torch.tensor(BALANCED)
    images, masks = draw(BALANCED, [[label, (label + 1) % 3] for label in BALANCED])
    labels = torch.nn.functional.one_hot(first, 3) + torch.nn.functional.one_hot((first + 1) % 3, 3)
    probe = ProbeSet(images, labels, masks)

    def both(images):
        if rule is by_ground:
            said = by_ground(images)
            return said + said.roll(1, dims=1) - 0.5
        return (area_of(OBJECTS, images) > 0.5 * SIDE**2).float() - 0.5

    verdict = judge_by_construction(both, None, tmp_path, probe)
    assert verdict.probe_accuracy == verdict.control_accuracy == 1
    assert verdict.swap_accuracy == (rule is by_object) and verdict.suspected == (rule is by_ground)
    assert "The network says yes to 0 % of the classes that an image does not hold." in verdict.evidence


def yes_by_object(images):
    return (area_of(OBJECTS, images) > 0.5 * SIDE**2).float() - 0.5


@pytest.mark.parametrize("n_labels", [2, 4])
def test_with_several_labels_per_image_the_head_may_have_more_or_fewer_classes(tmp_path, n_labels):
    images, masks = draw(BALANCED, [[0, 1], [0], [1]] * 4)
    masks = torch.cat([masks, masks[:, 2:]], dim=1)[:, :n_labels]
    labels = masks.any(dim=(2, 3)).long()
    probe = ProbeSet(images, labels, [*masks])
    verdict = judge_by_construction(yes_by_object, None, tmp_path, probe)
    assert verdict.control_accuracy == verdict.swap_accuracy == 1
    assert "The network says yes to 0 % of the classes that an image does not hold." in verdict.evidence


@pytest.mark.parametrize("masked", [True, False])
def test_if_every_image_holds_all_classes_the_verdict_asks_for_other_images(tmp_path, masked):
    images, masks = draw(BALANCED, [[0, 1]] * 12)
    probe = ProbeSet(images, torch.ones(12, 2).long(), masks[:, :2] if masked else None)
    verdict = judge_by_construction(yes_by_object, None, tmp_path, probe)
    assert verdict.headline == "NOT KNOWN if the background decides: right in 100 % as they are."
    assert "Each image holds the classes of all objects, so no object could be put on" in verdict.evidence
    assert "have a mask" not in verdict.evidence


def test_an_object_has_no_control_if_no_object_has_backgrounds_of_both_kinds(tmp_path):
    """All images hold the first class, and each other class is that of a single image."""
    images, masks = draw([0] * 6, [[0]] * 4 + [[0, 1], [0, 2]])
    probe = ProbeSet(images, masks.any(dim=(2, 3)).long(), masks)
    verdict = judge_by_construction(yes_by_object, None, tmp_path, probe)
    assert verdict.control_accuracy is verdict.background_gap is None
    assert "The accuracy of 2 of 8 images on backgrounds of other classes falls by 0 points" in verdict.evidence
    assert "No object has backgrounds of both kinds, so there is no control" in verdict.evidence
    assert "Add images without the classes that all images hold." in verdict.evidence


def test_with_several_labels_per_image_a_network_that_says_yes_to_everything_is_not_acquitted(tmp_path):
    images, masks = draw(BALANCED, [[label, (label + 1) % 3] for label in BALANCED])
    probe = ProbeSet(images, masks.any(dim=(2, 3)).long(), masks)
    verdict = judge_by_construction(lambda images: torch.ones(len(images), 3), None, tmp_path, probe)
    assert verdict.probe_accuracy == verdict.control_accuracy == verdict.swap_accuracy == 1
    assert verdict.headline.startswith("TOO EARLY, the network hardly knows the classes yet: ")
    assert "The network says yes to 100 % of the classes that an image does not hold." in verdict.evidence


def test_images_whose_object_leaves_too_little_background_are_left_out_and_named(tmp_path):
    images, masks = draw(BALANCED, [[label] for label in BALANCED])
    masks = masks.any(dim=1)
    masks[3, :50] = True
    with pytest.warns(GradCAMWarning, match="more than 60 % of the image: class 0-2. Choose") as caught:
        verdict = judge_by_construction(by_ground, None, tmp_path, ProbeSet(images, BALANCED, masks))
    assert [warning.category for warning in caught].count(GradCAMWarning) == 1, "once per run"
    assert "measured on 11 images" in verdict.evidence and verdict.suspected
    masks[:, :50] = True
    with pytest.warns(GradCAMWarning, match="class 0-1, class 1-1"):
        verdict = judge_by_construction(by_ground, None, tmp_path / "all", ProbeSet(images, BALANCED, masks))
    assert verdict.headline.startswith("NOT KNOWN") and "All objects fill more than 60 %" in verdict.evidence
    masks[::3] = draw(BALANCED, [[label] for label in BALANCED])[1].any(dim=1)[::3]
    with pytest.warns(GradCAMWarning, match="class 1-1, class 2-1"):
        verdict = judge_by_construction(by_ground, None, tmp_path / "one", ProbeSet(images, BALANCED, masks))
    assert "Only objects of the class 'class 0' leave enough background, so no object could be put" in verdict.evidence
    assert "Choose images of other classes that show more background." in verdict.evidence
    alone = ProbeSet(images, BALANCED, [masks[0], *[None] * (len(masks) - 1)])
    verdict = judge_by_construction(by_ground, None, tmp_path / "alone", alone)
    assert verdict.headline.endswith(f"as they are, of 1 of {len(masks)} images.")
