"""A training that is resumed goes on with its history and strips, or starts anew with a warning."""

import copy
import io
import json

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from PIL import Image
from pytorch_lightning.callbacks import LearningRateFinder, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from test_models import FREE
from test_suspicion import ReadsTheGround
from torch.utils.data import DataLoader
from toys import CLASSES

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning, ProbeSet, ShortcutWarning
from gradcam_callback.measures import metrics
from gradcam_callback.offline.logged_run import read_runs
from gradcam_callback.run import RunState
from gradcam_callback.trainers import find_other_state

LAYERS = ["block4_conv3", "block5_conv3"]


# Lightning's, of keys that are in no callback. The state under them is found all the same.
other_keys = pytest.mark.filterwarnings("ignore:Be aware that when using")


@other_keys
def test_another_probe_set_of_the_same_size_starts_anew_with_a_warning(fit, toys, probe, tmp_path, events):
    first = GradCAMCallback(probe, LAYERS, save_dir=tmp_path / "focus")
    fit(ThinVGG(), first).save_checkpoint(tmp_path / "last.ckpt")
    images = probe.images.clone()
    images[0] = images[0].flip(2)
    other = ProbeSet(images, probe.labels, probe.masks, class_names=CLASSES)
    second = GradCAMCallback(other, LAYERS, save_dir=tmp_path / "focus")
    logger = TensorBoardLogger(tmp_path, name="second", version="")
    with pytest.warns(GradCAMWarning, match="are of other images or layers; both start anew"):
        fit(ThinVGG(), second, max_epochs=4, resume=tmp_path / "last.ckpt", logger=logger)
    assert [entry["epoch"] for entry in second.history] == [2, 3]
    assert "gradcam/drift/block5_conv3" not in second.history[0]
    assert [frame.heading for frame in second._memory.state.snapshots()] == ["2", "3"]
    assert json.loads((tmp_path / "focus" / "history.json").read_text())["history"] == second.history


@pytest.mark.parametrize(
    "change",
    [
        lambda p: ProbeSet(p.images, p.labels.flip(0), p.masks),
        lambda p: ProbeSet(p.images, p.labels),
        lambda p: ProbeSet(p.images, p.labels, p.masks.roll(16, dims=2)),
        lambda p: ProbeSet(p.images[:2], p.labels[:2], p.masks[:2]),
        lambda p: ProbeSet(p.images.repeat_interleave(2, 3), p.labels, p.masks.repeat_interleave(2, 2)),
    ],
)
@pytest.mark.filterwarnings("ignore:GradCAM. the probe images are unlike")
def test_any_other_probe_set_is_noticed(fit, probe, change):
    first = GradCAMCallback(probe, LAYERS)
    fit(ThinVGG(), first, max_epochs=1)
    second = GradCAMCallback(change(probe), LAYERS)
    second.load_state_dict(first.state_dict())
    with pytest.warns(GradCAMWarning, match="are of other images or layers; both start anew"):
        fit(ThinVGG(), second, max_epochs=1)
    assert len(second.history) == 1


def test_the_same_probe_set_is_known_again_by_another_reading(fit, probe):
    """Another machine's decoder, or the names alone, make no other probe set."""
    first = GradCAMCallback(probe, LAYERS)
    fit(ThinVGG(), first, max_epochs=1)
    noise = torch.randn(probe.images.shape, generator=torch.Generator().manual_seed(0)) * 0.02
    names = [f"renamed {name}" for name in probe.names]
    second = GradCAMCallback(ProbeSet(probe.images + noise, probe.labels, probe.masks, names=names), LAYERS)
    second.load_state_dict(first.state_dict())
    fit(ThinVGG(), second, max_epochs=1)
    assert len(second.history) == 2 and "gradcam/drift/block5_conv3" in second.history[1]


@other_keys
@pytest.mark.parametrize("first_layers", [LAYERS, "block5"])
def test_a_resumed_run_with_renamed_images_goes_on(fit, probe, tmp_path, first_layers):
    """Beside another callback, whose state is its own."""
    names = [f"renamed {name}" for name in probe.names]
    renamed = ProbeSet(probe.images, probe.labels, probe.masks, names=names)
    other = ProbeSet(probe.images.flip(3), probe.labels, probe.masks.flip(2), names=["a", "b", "c"])
    fit(ThinVGG(), GradCAMCallback(probe, LAYERS), GradCAMCallback(other, first_layers)).save_checkpoint(
        tmp_path / "last.ckpt"
    )
    second, third = GradCAMCallback(renamed, LAYERS), GradCAMCallback(other, first_layers)
    logger = TensorBoardLogger(tmp_path, name="second", version="")
    fit(ThinVGG(), second, third, max_epochs=3, resume=tmp_path / "last.ckpt", logger=logger)
    assert [entry["epoch"] for entry in second.history] == [entry["epoch"] for entry in third.history] == [0, 1, 2]


@pytest.mark.parametrize("given", FREE, ids=lambda given: next(iter(given)))
@pytest.mark.parametrize("has_it_before", [True, False])
def test_the_history_is_found_under_any_other_argument_and_another_reading(trainer, probe, given, has_it_before):
    """Beside the state of another callback, which is nobody's now."""
    noise = torch.randn(probe.images.shape, generator=torch.Generator().manual_seed(0)) * 0.02
    read_again = ProbeSet(probe.images + noise, probe.labels, probe.masks, names=["a", "b", "c"])
    before, now = (given, {}) if has_it_before else ({}, given)
    old, other = GradCAMCallback(probe, LAYERS, **before), GradCAMCallback(probe, "block5", **before)
    checkpoint = {"callbacks": {old.state_key: "old", other.state_key: "other"}}
    for probe_now, arguments in ((probe, now), (read_again, before), (read_again, now)):
        resumed = GradCAMCallback(probe_now, LAYERS, **arguments)
        assert resumed.state_key not in checkpoint["callbacks"]
        assert find_other_state(trainer(resumed), resumed, checkpoint) == "old"


def test_of_several_states_the_one_most_alike_is_taken(trainer, probe):
    """Each of two callbacks is known by its images, or by its other arguments."""
    other = ProbeSet(probe.images.flip(3), probe.labels, probe.masks.flip(2))
    old = [GradCAMCallback(each, LAYERS, by_class=True) for each in (probe, other)]
    now = [GradCAMCallback(each, LAYERS, views="all") for each in (probe, other)]
    checkpoint = {"callbacks": {callback.state_key: i for i, callback in enumerate(old)}}
    assert [find_other_state(trainer(*now), callback, checkpoint) for callback in now] == [0, 1]
    old = [GradCAMCallback(probe, LAYERS, views=views) for views in ("overview", "all")]
    now = [GradCAMCallback(other, LAYERS, views=views) for views in ("overview", "all")]
    checkpoint = {"callbacks": {callback.state_key: i for i, callback in enumerate(old)}}
    assert [find_other_state(trainer(*now), callback, checkpoint) for callback in now] == [0, 1]
    neither = GradCAMCallback(other, LAYERS, by_class=True)
    with pytest.warns(GradCAMWarning, match="history and strips are of other callbacks"):
        assert find_other_state(trainer(neither), neither, checkpoint) is None


@other_keys
def test_a_resumed_run_with_other_arguments_goes_on(fit, probe, tmp_path, caplog):
    fit(ThinVGG(), GradCAMCallback(probe, LAYERS, save_dir=tmp_path / "a")).save_checkpoint(tmp_path / "last.ckpt")
    second = GradCAMCallback(probe, LAYERS, save_dir=tmp_path / "b", by_class=True, views="overview")
    logger = TensorBoardLogger(tmp_path, name="second", version="")
    with caplog.at_level("INFO"):
        fit(ThinVGG(), second, max_epochs=3, resume=tmp_path / "last.ckpt", logger=logger)
    assert [entry["epoch"] for entry in second.history] == [0, 1, 2]
    assert "Lightning's warning of a callback to provide needs no action" in caplog.text


def test_other_layers_than_the_checkpoints_are_said_and_start_anew(fit, probe, tmp_path):
    fit(ThinVGG(), GradCAMCallback(probe, LAYERS)).save_checkpoint(tmp_path / "last.ckpt")
    second = GradCAMCallback(probe, "block5")
    logger = TensorBoardLogger(tmp_path, name="second", version="")
    with pytest.warns(UserWarning) as caught:
        fit(ThinVGG(), second, max_epochs=3, resume=tmp_path / "last.ckpt", logger=logger)
    (said,) = [str(one.message) for one in caught if one.category is GradCAMWarning]
    assert (
        "history and strips are of other callbacks (GradCAMCallback{'target_layers': ['block4_conv3'" in said
        and "block4_conv3" in said
    )
    assert [entry["epoch"] for entry in second.history] == [2]


def test_a_callback_that_comes_new_beside_the_old_one_says_nothing(fit, probe, tmp_path):
    old = GradCAMCallback(probe, LAYERS)
    fit(ThinVGG(), old).save_checkpoint(tmp_path / "last.ckpt")
    again, new = GradCAMCallback(probe, LAYERS), GradCAMCallback(probe, "block5")
    logger = CSVLogger(tmp_path, name="second", version="")
    fit(ThinVGG(), again, new, max_epochs=3, resume=tmp_path / "last.ckpt", logger=logger)
    assert [len(one.history) for one in (again, new)] == [3, 1]


class Predictable(ThinVGG):
    """Without chance, so that a training that is resumed is the training that was never stopped."""

    def __init__(self):
        super().__init__(3)
        self.classifier[4].p = 0.0


@pytest.mark.filterwarnings(
    "ignore:The dirpath has changed", "ignore:You.re resuming from a checkpoint that ended before"
)
@pytest.mark.parametrize("kind", ["epoch", "step"])
def test_from_any_checkpoint_all_goes_on_as_if_never_stopped(trainer, toys, probe, tmp_path, kind):
    loader = DataLoader(toys, batch_size=6)
    often = {"every_n_epochs": 1} if kind == "epoch" else {"every_n_train_steps": 2}

    def run(callback, name, resume=None):
        pl.seed_everything(0, verbose=False)
        saves = ModelCheckpoint(tmp_path / name / "kept", save_top_k=-1, filename=f"{{{kind}}}", **often)
        logger = TensorBoardLogger(tmp_path, name=name, version="")
        made = trainer(callback, saves, max_epochs=5, logger=logger, enable_checkpointing=True)
        made.fit(Predictable(), loader, loader, ckpt_path=resume, weights_only=True)
        return callback

    whole = run(GradCAMCallback(probe, LAYERS, log_before_training=True), "whole")
    assert [entry["epoch"] for entry in whole.history] == [-1, 0, 1, 2, 3, 4]
    for number in [0, 3] if kind == "epoch" else [4, 14]:
        checkpoint = tmp_path / "whole" / "kept" / f"{kind}={number}.ckpt"
        again = run(GradCAMCallback(probe, LAYERS, log_before_training=True), f"from {number}", checkpoint)
        assert [entry["epoch"] for entry in again.history] == [-1, 0, 1, 2, 3, 4], number
        frames, expected = (one._memory.state.snapshots() for one in (again, whole))
        assert [frame.heading for frame in frames] == ["start", "0", "1", "2", "3", "4"]
        if kind == "step":
            continue  # in the midst of an epoch, where Lightning begins anew with the data
        for entry, other in zip(again.history, whole.history, strict=True):
            assert entry.keys() == other.keys()
            for name, value in entry.items():
                # Drift over the gap is measured against maps that were kept in 256 steps.
                close = {"abs": 2e-3} if "/drift/" in name else {"rel": 1e-5, "abs": 1e-7}
                assert value == pytest.approx(other[name], **close), (number, name)
        assert again.verdict == whole.verdict
        for frame, other in zip(frames, expected, strict=True):
            for layer in LAYERS:
                assert (
                    np.abs(frame.map_of(layer, 0) - other.map_of(layer, 0)).max() <= other.map_of(layer, 0).max() / 100
                )


def test_history_goes_on_from_a_checkpoint(thin, fit, tmp_path):
    first = GradCAMCallback(target_layers="block5_conv3")
    fit(thin, first).save_checkpoint(tmp_path / "last.ckpt")
    second = GradCAMCallback(target_layers="block5_conv3")
    fit(ThinVGG(), second, max_epochs=3, resume=tmp_path / "last.ckpt")
    assert [entry["epoch"] for entry in second.history] == [0, 1, 2]
    assert second.history[:2] == first.history


EDITS = (
    lambda state: state.pop("history"),
    lambda state: state.update(history=5),
    lambda state: state["history"][0].pop("epoch"),
    lambda state: state["history"][0].update(step="last"),
    lambda state: state.update(in_part=[]),
    lambda state: state.update(in_part=[0]),
    lambda state: state.update(format=0),
    lambda state: state.update(snapshots=3),
    lambda state: state.update(snapshots=[]),
    lambda state: state.update(counts=(0, 1)),
    lambda state: state.update(last=None),
    lambda state: state["snapshots"][0].update(targets=[]),
    lambda state: state["snapshots"][0]["maps"].update(block5_conv3=torch.zeros(2, 2)),
    lambda state: state["previous"]["vmax"].clear(),
)


def test_a_state_that_was_edited_by_hand_cannot_be_read(thin, fit):
    callback = GradCAMCallback(target_layers="block5_conv3")
    fit(thin, callback, max_epochs=1)
    assert RunState.from_state_dict(callback.state_dict()).history == callback._memory.state.history
    for edit in EDITS:
        state = copy.deepcopy(callback.state_dict())
        edit(state)
        with pytest.raises((KeyError, TypeError, ValueError)):
            RunState.from_state_dict(state)


@pytest.mark.parametrize("edit", [EDITS[0], EDITS[-1]])
def test_a_checkpoint_edited_by_hand_starts_anew_with_a_warning(thin, fit, tmp_path, edit):
    fit(thin, GradCAMCallback(target_layers="block5_conv3"), max_epochs=1).save_checkpoint(tmp_path / "last.ckpt")
    second = GradCAMCallback(target_layers="block5_conv3")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    edit(checkpoint["callbacks"][second.state_key])
    torch.save(checkpoint, tmp_path / "edited.ckpt")
    with pytest.warns(GradCAMWarning, match="checkpoint's history and strips cannot be read; both start anew"):
        fit(ThinVGG(), second, max_epochs=2, resume=tmp_path / "edited.ckpt")
    assert [entry["epoch"] for entry in second.history] == [1]


def test_drift_goes_on_after_a_resume(thin, fit, tmp_path, probe):
    """Measured against the maps that the checkpoint keeps, it is that of the two epochs' weights."""
    fit(thin, GradCAMCallback(probe)).save_checkpoint(tmp_path / "last.ckpt")
    before = GradCAM(thin)(probe.images, probe.labels)
    resumed = GradCAMCallback(probe)
    fit(thin, resumed, max_epochs=3, resume=tmp_path / "last.ckpt")
    after = GradCAM(thin)(probe.images, probe.labels)
    for layer, maps in after.maps.items():
        expected = float(metrics.drift(maps, before.maps[layer]).mean())
        assert resumed.history[-1][f"gradcam/drift/{layer}"] == pytest.approx(expected, abs=2e-3), layer


def test_strips_go_on_after_a_resume(thin, fit, events, tmp_path, probe):
    first = GradCAMCallback(probe, LAYERS, views="all")
    fit(thin, first).save_checkpoint(tmp_path / "last.ckpt")
    resumed = GradCAMCallback(probe, LAYERS, views="all")
    logger = TensorBoardLogger(tmp_path, name="second", version="")
    fit(thin, resumed, max_epochs=4, resume=tmp_path / "last.ckpt", logger=logger)
    shown = resumed._memory.state.snapshots()
    assert [snapshot.heading for snapshot in shown] == ["0", "1", "2", "3"]
    kept, again = (run._memory.state._snapshots[1].map_of(LAYERS[1], 0) for run in (first, resumed))
    assert np.array_equal(kept, again)
    strip = events(tmp_path / "second").Images("gradcam/evolution/star-1")[-1]
    sheet = np.asarray(Image.open(io.BytesIO(strip.encoded_image_string))).astype(int)
    cells = [sheet[-60:-20, 192 + 48 * column : 236 + 48 * column] for column in range(4)]
    assert all(np.ptp(cell) > 40 for cell in cells), "four columns, the first two from before"


class FindsRates(LearningRateFinder):
    """Looks for a new rate in the midst of a fit, as in Lightning's documentation; it restores a checkpoint then."""

    def on_fit_start(self, trainer, pl_module):
        self.found = 0

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch in (0, 2):
            self.lr_find(trainer, pl_module)
            self.found += 1


def test_a_learning_rate_that_is_looked_for_in_a_fit_costs_no_entry(fit, toys, tmp_path, events):
    callback, given = GradCAMCallback(ProbeSet.from_dataset(toys, 4), LAYERS[1:], views="overview"), []
    callback.on_shortcut = given.append
    finder = FindsRates(num_training_steps=2, update_attr=False)
    with pytest.warns(ShortcutWarning):
        trainer = fit(ReadsTheGround(toys), callback, finder, max_epochs=4)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"][callback.state_key]
    assert finder.found == 2 and len(given) == 1 and callback.verdict.suspected
    assert [entry["epoch"] for entry in callback.history] == [0, 1, 2, 3] == [one["epoch"] for one in saved["history"]]
    found = events()
    assert len(found.Images("gradcam/overview")) == 4
    assert len(found.Tensors("gradcam/focus/start")) == 1, "nothing has changed, so the run was not started again"


class Rewinds(pl.Callback):
    """Goes back once, to the state that a callback had after its second epoch."""

    def __init__(self, watch, change=lambda state: state):
        self.watch, self.change, self.kept = watch, change, None

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            self.kept = self.watch.state_dict()
        if trainer.current_epoch == 3:
            self.watch.load_state_dict(self.change(self.kept))


@pytest.mark.parametrize("saved", [False, True])
def test_a_state_that_is_restored_in_a_running_fit_goes_on(thin, fit, tmp_path, probe, saved):
    """The state was kept in memory, or went through a file."""

    def change(state):
        if saved:
            torch.save(state, tmp_path / "state.pt")
            return torch.load(tmp_path / "state.pt", weights_only=True)
        return state

    callback = GradCAMCallback(probe, LAYERS, views="overview", save_dir=tmp_path / "focus")
    fit(thin, callback, Rewinds(callback, change), max_epochs=5)
    epochs = [0, 1, 3, 4]
    assert [entry["epoch"] for entry in callback.history] == epochs
    assert [frame.heading for frame in callback._memory.state.snapshots()] == [str(epoch) for epoch in epochs]
    assert "gradcam/drift/block5_conv3" in callback.history[2] and callback.verdict is not None
    kept = json.loads((tmp_path / "focus" / "history.json").read_text())
    assert kept["history"] == callback.history and kept["verdict"]["headline"] == callback.verdict.headline
    for folder in ("focus", "run"):
        (run,) = read_runs(tmp_path / folder)
        assert [entry["epoch"] for entry in run.entries.values()] == epochs, folder


def test_a_state_of_other_images_that_is_restored_in_a_running_fit_starts_anew_with_a_word(thin, fit, probe):
    other = GradCAMCallback(ProbeSet(probe.images.flip(2), probe.labels, probe.masks.flip(1)), LAYERS)
    fit(ThinVGG(), other, max_epochs=1)
    callback = GradCAMCallback(probe, LAYERS)
    with pytest.warns(GradCAMWarning, match="are of other images or layers; both start anew"):
        fit(thin, callback, Rewinds(callback, lambda _: other.state_dict()), max_epochs=4)
    assert [entry["epoch"] for entry in callback.history] == [3]


def test_strips_of_other_layers_start_anew_with_a_word(thin, fit, tmp_path, probe):
    first = GradCAMCallback(probe, LAYERS)
    fit(thin, first)
    other = GradCAMCallback(probe, LAYERS[1:])
    other.load_state_dict(first.state_dict())
    with pytest.warns(GradCAMWarning, match="history and strips are of other images or layers; both start anew"):
        fit(thin, other, logger=TensorBoardLogger(tmp_path, name="second", version=""))
    assert len(other._memory.state.snapshots()) == len(other.history) == 2
