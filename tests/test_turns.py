"""The interventions take turns: a network without a sign of a shortcut is asked a third of them, and any other all."""

import json

import pytest
import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from test_suspicion import AlwaysTheSame, ReadsTheGround
from torch import nn
from torch.utils.data import DataLoader

from gradcam_callback import GradCAM, GradCAMCallback, ProbeSet
from gradcam_callback.measures import FRAME, MASKS
from gradcam_callback.run import Evaluator, RunLogger, RunState, Tags
from gradcam_callback.run.confirmation import choose_turn, is_confirmed
from gradcam_callback.run.interventions import SETS, Interventions
from gradcam_callback.run.turns import Turn
from gradcam_callback.writers import Writer

CALM, LOUD = {"background_gap": 0.0, "frame_gap": 0.0}, {"background_gap": 0.3, "frame_gap": 0.3}


@pytest.fixture
def probe(toys):
    """Three classes of four images with masks."""
    return ProbeSet.from_dataset(toys, 4)


@pytest.fixture
def interventions(probe):
    return Interventions(probe, seed=0)


def test_three_turns_ask_about_every_image_once(interventions):
    for name in SETS:
        turns = [torch.cat(interventions.asked(name, Turn(turn))) for turn in range(3)]
        assert torch.cat(turns).sort().values.tolist() == list(range(len(interventions.numbers_of(name))))
        assert (
            torch.cat(interventions.asked(name, None)).sort().values.tolist() == torch.cat(turns).sort().values.tolist()
        )
        assert max(map(len, turns)) - min(map(len, turns)) <= 1, "each turn costs the same"


def test_each_turn_puts_each_object_on_one_background_of_each_kind(interventions):
    for name in SETS[:2]:
        for turn in range(5):
            (places,) = interventions.asked(name, Turn(turn))
            assert interventions.numbers_of(name)[places].tolist() == interventions.numbers.tolist()


def test_an_object_with_one_background_is_put_on_it_at_every_turn(toys):
    # Two images of the first class, so that each has a single control.
    images, labels, masks = zip(*(toys[i] for i in (0, 3, 1, 4, 7, 10, 2, 5, 8)), strict=True)
    interventions = Interventions(ProbeSet(torch.stack(images), labels, torch.stack(masks)), seed=0)
    rare = [i for i, label in enumerate(labels) if labels.count(label) == 2]
    assert len(rare) == 2
    for turn in range(3):
        (places,) = interventions.asked("same_class", Turn(turn))
        assert set(rare) <= set(interventions.numbers_of("same_class")[places].tolist())


def test_few_images_are_all_asked(toys):
    interventions = Interventions(ProbeSet.from_dataset(toys, 1), seed=0)
    for name in SETS:
        asked = torch.cat([torch.zeros(0, dtype=torch.long), *interventions.asked(name, Turn(1))])
        assert sorted(asked.tolist()) == list(range(len(interventions.numbers_of(name))))


@pytest.mark.parametrize("turn", [None, Turn(1), Turn(5), Turn(1, thorough=True)])
def test_more_processes_than_images_answer_as_one_does(thin, probe, turn):
    evaluator = Evaluator(GradCAM(thin, "block5_conv3"), probe)
    whole = evaluator.merge([evaluator.compute_shard(turn=turn)])
    merged = evaluator.merge([evaluator.compute_shard(rank, 14, turn) for rank in range(14)])
    assert merged.scalars == pytest.approx(whole.scalars, rel=1e-5)
    for name in SETS:
        torch.testing.assert_close(merged.answers.logits[name], whole.answers.logits[name])
        assert merged.answers.places[name].tolist() == whole.answers.places[name].tolist()


def test_a_turn_gives_the_same_answers_as_all_images_do(thin, probe):
    evaluator = Evaluator(GradCAM(thin, "block5_conv3"), probe)
    every, some = (evaluator.merge([evaluator.compute_shard(turn=turn)]).answers for turn in (None, Turn(2)))
    for name in SETS:
        assert 0 < len(some.places[name]) < len(every.places[name])
        torch.testing.assert_close(some.logits[name], every.logits[name][some.places[name]])
        assert some.correct[name].tolist() == every.correct[name][some.places[name]].tolist()


@pytest.mark.parametrize("basis", [MASKS, FRAME])
@pytest.mark.parametrize(
    ("history", "turn"),
    [
        ([], Turn(0, True)),
        ([(-1, LOUD)], Turn(0, True)),
        ([(-1, LOUD), (0, CALM)], Turn(1)),
        ([(0, CALM), (1, CALM), (2, CALM)], Turn(3)),
        ([(0, CALM), (1, LOUD)], Turn(2, True)),
        # Another validation of epoch 1 may follow, which epoch 0 would confirm.
        ([(0, LOUD), (1, CALM)], Turn(2, True)),
        ([(0, LOUD), (1, CALM), (1, CALM)], Turn(3, True)),
        ([(0, LOUD), (1, CALM), (2, CALM)], Turn(3)),
    ],
)
def test_all_are_asked_first_and_if_the_next_entry_may_confirm_a_suspicion(history, turn, basis):
    entries = [{"epoch": epoch, "step": n, **gaps} for n, (epoch, gaps) in enumerate(history)]
    assert choose_turn(entries, [False] * len(entries), basis) == turn
    assert choose_turn(entries, [False] * len(entries), basis, is_last=True) == Turn(turn.number, thorough=True)


def test_without_a_control_the_fall_decides():
    assert choose_turn([{"epoch": 0, "swap_drop": 0.1}], [False], MASKS) == Turn(1)
    assert choose_turn([{"epoch": 0, "swap_drop": 0.5}], [False], MASKS) == Turn(1, thorough=True)


def test_an_entry_that_asked_a_part_lets_the_next_one_ask_most_and_confirms_nothing():
    entries = [{"epoch": epoch, "step": epoch, **gaps} for epoch, gaps in enumerate((CALM, LOUD))]
    for in_part in (True, False):
        assert choose_turn(entries, [False, in_part], MASKS) == Turn(2, thorough=True)
        assert is_confirmed(entries, [False, in_part], 2, MASKS) is not in_part


@pytest.fixture
def turns(monkeypatch):
    """The turn of each entry of a training."""
    taken, compute = [], Evaluator.compute_shard

    def note(evaluator, rank=0, world_size=1, turn=None):
        taken.append(turn if turn is None else (turn.number, turn.thorough))
        return compute(evaluator, rank, world_size, turn)

    monkeypatch.setattr(Evaluator, "compute_shard", note)
    return taken


def test_a_network_without_a_shortcut_is_asked_by_turns(turns, fit, probe):
    callback = GradCAMCallback(probe, "block5_conv3")
    fit(AlwaysTheSame(), callback, max_epochs=5)
    # The last verdict remains, so it rests on all.
    assert turns == [(0, True), (1, False), (2, False), (3, False), (4, True)]
    # Every scalar is there at every entry, so that something may wait for it.
    assert len({frozenset(entry) for entry in callback.history[1:]}) == 1


def test_the_last_of_the_validations_that_count_batches_asks_about_all(turns, fit, probe):
    """The last epoch may have none."""
    callback = GradCAMCallback(probe, "block5_conv3")
    fit(AlwaysTheSame(), callback, max_epochs=6, check_val_every_n_epoch=None, val_check_interval=4)
    assert [entry["epoch"] for entry in callback.history] == [1, 2, 3, 5]
    assert turns == [(0, True), (1, False), (2, False), (3, True)]
    turns.clear()
    fit(AlwaysTheSame(), callback, max_epochs=6, check_val_every_n_epoch=None, val_check_interval=5)
    assert [entry["epoch"] for entry in callback.history] == [1, 3, 4]
    assert turns == [(0, True), (1, False), (2, True)]


def test_a_network_with_a_shortcut_is_asked_everything(turns, fit, toys, probe):
    torch.manual_seed(0)
    callback = GradCAMCallback(probe, "block5_conv3")
    with pytest.warns(match="a shortcut is suspected"):
        fit(ReadsTheGround(toys), callback, max_epochs=3)
    assert turns == [(0, True), (1, True), (2, True)] and callback.verdict.suspected


def test_a_resumed_training_goes_on_with_the_next_turn(turns, fit, probe, tmp_path):
    fit(AlwaysTheSame(), GradCAMCallback(probe, "block5_conv3"), max_epochs=2).save_checkpoint(tmp_path / "last.ckpt")
    fit(AlwaysTheSame(), GradCAMCallback(probe, "block5_conv3"), max_epochs=5, resume=tmp_path / "last.ckpt")
    assert turns == [(0, True), (1, True), (2, False), (3, False), (4, True)]


class SaysTheSame(ThinVGG):
    """Its answers stay the same, and its maps change."""

    def forward(self, images):
        return 0.1 * super().forward(images) + images.new_tensor([9.0, 0.0, 0.0])


def test_an_entry_that_is_asked_again_keeps_its_drift(turns, fit, probe, events):
    drift = "gradcam/drift/block5_conv3"

    class Stops(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 2

    callback = GradCAMCallback(probe, "block5_conv3", views="overview")
    fit(SaysTheSame(), callback, Stops(), max_epochs=9)
    assert turns == [(0, True), (1, False), (2, False), (3, True)], "the last entry is asked again"
    logged = [event.value for event in events().Scalars(drift)]
    assert [entry[drift] for entry in callback.history[1:]] == pytest.approx(logged) and min(logged) > 1e-4


def test_a_test_asks_everything(turns, fit, probe, toys):
    callback = GradCAMCallback(probe, "block5_conv3")
    trainer = fit(AlwaysTheSame(), callback, max_epochs=3)
    trainer.validate(trainer.lightning_module, DataLoader(toys, batch_size=6), verbose=False)
    assert turns == [(0, True), (1, False), (2, True), None]


def test_a_frozen_base_runs_once_per_turn(probe, monkeypatch):
    model = ThinVGG().eval()
    convolutions = [module for module in model.features if isinstance(module, nn.Conv2d)]
    for module in list(model.features)[:17]:
        module.requires_grad_(False)
    evaluator = Evaluator(GradCAM(model, "block5_conv3"), probe)
    evaluator.compute_shard()
    runs = []
    # A hook would keep the base from being reused, so the calls of the convolution itself are counted.
    forward = nn.Conv2d._conv_forward

    def count(module, *args):
        runs.append(module is convolutions[0])
        return forward(module, *args)

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", count)
    for turn in (Turn(1), Turn(2), Turn(3), Turn(4), Turn(5, thorough=True), None):
        evaluator.compute_shard(turn=turn)
    assert not any(runs) and runs


class Takes(Writer):
    """A writer that keeps the records and the last image of each tag."""

    keeps_panels = keeps_records = keeps_one = True
    takes_webp = False

    def __init__(self):
        self.records, self.images = [], {}

    def start(self, run, resuming):
        pass

    def write_image(self, tag, image, step):
        self.images[tag] = image

    def write_entry(self, entry):
        self.records.append(json.loads(entry.record))


def test_records_and_sheets_hold_what_was_asked(thin, probe):
    evaluator, takes = Evaluator(GradCAM(thin, "block5_conv3"), probe), Takes()

    def report(_, error):
        raise error

    log = RunLogger(evaluator, RunState(), [takes], Tags(), report=report, style=GradCAMCallback().style)
    log.start()
    widths = []
    for epoch, turn in enumerate((None, Turn(1))):
        evaluation = evaluator.merge([evaluator.compute_shard(turn=turn)])
        log.log(evaluation, epoch, epoch)
        widths.append(takes.images["gradcam/counterfactuals"].width)
        for name in SETS:
            given = takes.records[-1]["answers"][name]
            assert len(given) == len(evaluator.interventions.numbers_of(name))
            asked = evaluation.answers.places[name].tolist()
            assert [place for place, answer in enumerate(given) if answer is not None] == asked
    assert widths[1] < widths[0], "one background of each kind in place of three"
