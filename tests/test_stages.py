"""Validations, tests and further trainings with one callback are runs of their own."""

import copy
import gc
import json
import logging
import pickle

import pytest
import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from test_suspicion import ReadsTheGround
from torch.utils.data import DataLoader
from trainer_runs import AlsoTested, Data, assert_untouched

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning, ProbeSet, ShortcutWarning
from gradcam_callback.measures import metrics
from gradcam_callback.writers.base import verdict_text

LAYERS = ["block4_conv3", "block5_conv3"]


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_validate_and_test_alone_are_looked_at_and_leave_everything_as_it_is(
    trainer, toys, events, tmp_path, capsys, caplog, verb
):
    caplog.set_level(logging.INFO)
    ends, scores, loader = [], [], DataLoader(toys, batch_size=6)
    callback = GradCAMCallback(target_layers=LAYERS, save_dir=tmp_path / "focus")
    for watch in ([], [callback]):
        pl.seed_everything(0, verbose=False)
        module = AlsoTested()
        module.features[1].eval()
        runs = trainer(*watch)
        scores += getattr(runs, verb)(module, loader)
        flags = torch.tensor([part.training for part in module.modules()])
        ends.append({**module.state_dict(), "random": torch.get_rng_state(), "flags": flags})
    assert_untouched(verb, *reversed(ends))
    assert scores[0] == scores[1], "the table that Lightning prints has the user's own scalars alone"
    assert "gradcam" not in capsys.readouterr().out

    score = runs.callback_metrics
    prefix, folder = "gradcam", tmp_path / "focus"
    if verb == "test":
        prefix, folder = "gradcam/test", folder / "test"
    probe = callback.probe_set
    assert torch.equal(probe.images, ProbeSet.from_dataset(toys).images)
    seen = GradCAM(module.eval(), LAYERS)(probe.images, probe.labels)
    lift = metrics.lift(metrics.relevance_mass(seen.maps[LAYERS[1]], probe.masks), metrics.mask_area(probe.masks))
    assert float(score[f"{prefix}/lift/{LAYERS[1]}"]) == pytest.approx(float(lift), rel=1e-5)
    assert score[f"{prefix}/probe_accuracy"] <= 1
    found = events()
    assert found.Scalars(f"{prefix}/lift/{LAYERS[1]}")[0].value == pytest.approx(float(lift), rel=1e-5)
    for name in ("probe/star-1", "overview", "counterfactuals"):
        assert len(found.Images(f"{prefix}/{name}")) == 1
    assert {tag.rpartition("/test/")[0] for tag in found.Tags()["images"]} == {"gradcam" if verb == "test" else ""}
    said = found.Tensors(f"{prefix}/verdict")[0].tensor_proto.string_val[0].decode()
    kept = json.loads((folder / "history.json").read_text())
    assert len(kept["history"]) == 1 and verdict_text(kept["verdict"]) == said
    assert len(callback.history) == 1 and callback.verdict.text == said
    assert caplog.messages.count(f"GradCAM: {callback.verdict.headline}") == 1
    assert callback.history[0][f"{prefix}/lift/{LAYERS[1]}"] == pytest.approx(float(lift), rel=1e-5)


def test_a_test_after_the_training_is_none_of_its_entries(trainer, events, tmp_path):
    callback, data = GradCAMCallback(target_layers=LAYERS, save_dir=tmp_path / "focus", views="all"), Data()
    runs = trainer(callback)
    runs.fit(AlsoTested(), datamodule=data)
    history, state = [dict(entry) for entry in callback.history], callback.state_dict()
    frames = len(callback._memory.state.snapshots())
    written = (tmp_path / "focus" / "history.json").read_text()
    runs.test(runs.lightning_module, datamodule=data, verbose=False)
    assert callback.history == history and len(callback._memory.state.snapshots()) == frames
    assert callback.state_dict().keys() == state.keys()
    assert (tmp_path / "focus" / "history.json").read_text() == written
    own = ProbeSet.from_dataset(data.data)
    assert torch.equal(callback.probe_set.images, own.images) and callback.probe is None, "both stay what they are"
    name = "gradcam/lift/block5_conv3"
    lift = float(runs.callback_metrics["gradcam/test/lift/block5_conv3"])
    assert lift == pytest.approx(history[-1][name], rel=1e-5), "of the weights of the last epoch"
    found = events()
    assert len(found.Images("gradcam/layer/block5_conv3")) == 2
    assert len(found.Images("gradcam/test/layer/block5_conv3")) == 1
    assert not [tag for tag in found.Tags()["images"] if tag.startswith(("gradcam/test/evo", "gradcam/test/anim"))]
    runs.fit_loop.max_epochs = 3
    runs.fit(runs.lightning_module, datamodule=data)
    assert [entry["epoch"] for entry in callback.history] == [0, 1, 2], "and the training goes on as it would"


@pytest.mark.filterwarnings("ignore:.*was called without a model", "ignore:Checkpoint directory .* is not empty")
def test_nothing_after_a_fit_changes_what_it_left(trainer, tmp_path, toys):
    """Lightning restores callbacks for a test and a validation, too, here from the first epoch's checkpoint."""
    loader, folder = DataLoader(toys, batch_size=6), tmp_path / "focus"
    callback = GradCAMCallback(target_layers=LAYERS, save_dir=folder, save_maps=True)
    keep = pl.callbacks.ModelCheckpoint(tmp_path / "kept", monitor="epoch", mode="min")
    runs = trainer(callback, keep, max_epochs=3, enable_checkpointing=True)
    runs.fit(AlsoTested(), loader, loader)
    assert torch.load(keep.best_model_path, weights_only=True)["epoch"] == 0

    def left():
        files = {path: path.read_bytes() for path in folder.rglob("*.*") if not {"test", "validate"} & set(path.parts)}
        headings = [snapshot.heading for snapshot in callback._memory.state.snapshots()]
        return callback.history, callback.verdict, headings, callback.probe_set, files

    before = left()
    assert [entry["epoch"] for entry in before[0]] == [0, 1, 2] and before[2] == ["0", "1", "2"]
    for stage in ("test", "validate"):
        getattr(runs, stage)(dataloaders=loader, verbose=False)
        assert f"gradcam/{stage}/lift/block5_conv3" in runs.callback_metrics
        assert len(json.loads((folder / stage / "history.json").read_text())["history"]) == 1
        assert left() == before, stage
    runs.predict(dataloaders=DataLoader(torch.stack([image for image, _, _ in toys.items]), batch_size=6))
    assert left() == before
    runs.fit_loop.max_epochs = 5
    runs.fit(runs.lightning_module, loader, loader)
    assert [entry["epoch"] for entry in callback.history] == [0, 1, 2, 3, 4], "and the same Trainer goes on"
    assert "gradcam/drift/block5_conv3" in callback.history[3]


@pytest.mark.parametrize("stage", ["test", "validate"])
def test_in_a_new_process_the_checkpoints_history_is_there_and_stays(trainer, tmp_path, toys, stage):
    loader, folder = DataLoader(toys, batch_size=6), tmp_path / "focus"
    first = GradCAMCallback(target_layers=LAYERS, save_dir=folder)
    runs = trainer(first)
    runs.fit(AlsoTested(), loader, loader)
    runs.save_checkpoint(tmp_path / "last.ckpt")
    written = (folder / "history.json").read_bytes()
    second = GradCAMCallback(target_layers=LAYERS, save_dir=folder)
    after = trainer(second, logger=CSVLogger(tmp_path, name="second"))
    getattr(after, stage)(AlsoTested(), loader, ckpt_path=tmp_path / "last.ckpt", weights_only=True, verbose=False)
    assert second.history == first.history and (folder / "history.json").read_bytes() == written
    assert (folder / stage / "history.json").exists()


def test_folds_with_one_callback_are_runs_of_their_own(trainer, toys, tmp_path):
    """Each is watched on its own validation images, and told of its own shortcut."""
    callback = GradCAMCallback(target_layers=LAYERS[1:], save_dir=tmp_path / "focus")
    images = []
    for fold in range(2):
        validation = DataLoader(torch.utils.data.Subset(toys, range(9 * fold, 9 * fold + 9)), batch_size=9)
        logger = TensorBoardLogger(tmp_path, name=f"fold{fold}", version="")
        callback.save_dir = tmp_path / f"focus{fold}"
        with pytest.warns(ShortcutWarning):
            trainer(callback, logger=logger).fit(ReadsTheGround(toys), DataLoader(toys, batch_size=6), validation)
        own = torch.stack([toys[i][0] for i in range(9 * fold, 9 * fold + 9)])
        assert all(any(torch.equal(image, other) for other in own) for image in callback.probe_set.images)
        assert [entry["epoch"] for entry in callback.history] == [0, 1]
        assert "gradcam/drift/block5_conv3" not in callback.history[0]
        kept = json.loads((tmp_path / f"focus{fold}" / "history.json").read_text())
        assert kept["history"] == callback.history
        images.append(callback.probe_set.images)
    module = ThinVGG()
    with pytest.raises(ValueError, match="holds another run"):
        trainer(callback).fit(module, DataLoader(toys, batch_size=6), validation)
    assert module.losses == [], "a new run never writes over another's files"


@pytest.mark.parametrize("given", [False, True])
def test_two_trainers_in_turn_each_go_on_with_their_own_run(trainer, toys, tmp_path, given):
    """Also if the user loads the state that a Trainer has left."""
    callback = GradCAMCallback(target_layers=LAYERS[1:], save_dir=tmp_path / "one", views="overview")
    runs = {}
    for name, first in (("one", 0), ("other", 9)):
        loader = DataLoader(torch.utils.data.Subset(toys, range(first, first + 9)), batch_size=9)
        runs[name] = trainer(callback, max_epochs=0, logger=False), AlsoTested(), loader

    def fit_on(name):
        callback.save_dir = tmp_path / name
        made, module, loader = runs[name]
        made.fit_loop.max_epochs += 1
        made.fit(module, loader, loader)
        made.test(module, loader, verbose=False)
        kept = json.loads((tmp_path / name / "history.json").read_text())
        assert kept["history"] == callback.history, "nothing of the other's in its folder"
        return callback.history, callback.probe_set.images, callback.state_dict()

    history, images, left = fit_on("one")
    others, other_images, _ = fit_on("other")
    assert not torch.equal(images, other_images)
    if given:
        callback.load_state_dict(left)
    for name, before, own in (("one", history, images), ("other", others, other_images)):
        found, now, _ = fit_on(name)
        assert [entry["epoch"] for entry in found] == [0, 1] and found[0] == before[0]
        assert torch.equal(now, own) and "gradcam/drift/block5_conv3" in found[1]
    runs.clear()
    gc.collect()
    assert not callback._memory._others, "a Trainer that is gone leaves nothing behind"


def test_a_state_that_is_given_after_a_training_has_failed_is_that_of_the_next_one(fit, probe):
    class Fails(ThinVGG):
        def on_train_epoch_end(self):
            raise ArithmeticError("an accident")

    callback = GradCAMCallback(probe, LAYERS[1:], views="overview")
    with pytest.raises(ArithmeticError):
        fit(Fails(), callback)
    callback.load_state_dict(callback.state_dict())
    fit(ThinVGG(), callback, max_epochs=1)
    assert [entry["epoch"] for entry in callback.history] == [0, 0]


def test_memory_can_be_copied_after_a_fit(trainer, toys):
    """Processes that are spawned are given a copy of the callback."""
    callback, loader = GradCAMCallback(target_layers=LAYERS[1:], views="overview"), DataLoader(toys, batch_size=6)
    runs = trainer(callback, max_epochs=1)
    runs.fit(ThinVGG(), loader, loader)
    copied = pickle.loads(pickle.dumps(callback._memory))
    assert copied.state.history == callback._memory.state.history
    copied.begin("fit", runs, is_new=False)
    assert copied.state.history and copy.deepcopy(copied).state.history


def test_a_fit_after_a_validation_alone_starts_anew_and_a_resumed_one_goes_on(trainer, toys, tmp_path):
    loader = DataLoader(toys, batch_size=6)
    callback = GradCAMCallback(target_layers=LAYERS[1:])
    trainer(callback).validate(ThinVGG(), loader, verbose=False)
    assert len(callback.history) == 1
    runs = trainer(callback)
    runs.fit(ThinVGG(), loader, loader)
    runs.save_checkpoint(tmp_path / "last.ckpt")
    assert [entry["epoch"] for entry in callback.history] == [0, 1]
    resumed = trainer(callback, max_epochs=3, logger=CSVLogger(tmp_path, name="second"))
    resumed.fit(ThinVGG(), loader, loader, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert [entry["epoch"] for entry in callback.history] == [0, 1, 2]


def test_a_test_needs_neither_a_logger_nor_data_for_a_probe_set(trainer, toys):
    """It mostly comes after a training, which is not to be lost by an error of ours."""
    callback, loader = GradCAMCallback(target_layers=LAYERS), DataLoader(toys, batch_size=6)
    runs = trainer(callback, logger=False)
    runs.test(AlsoTested(), loader, verbose=False)
    assert 0 <= runs.callback_metrics["gradcam/test/pointing_game/block5_conv3"] <= 1
    unlabelled = DataLoader([{"pixels": image} for image, _, _ in toys.items], batch_size=6)
    with pytest.warns(GradCAMWarning, match="every map of this run lost .*batch_transform=lambda batch"):
        (score,) = trainer(GradCAMCallback()).test(Unlabelled(), unlabelled, verbose=False)
    assert list(score) == ["test_loss"]


class Unlabelled(AlsoTested):
    def test_step(self, batch, batch_idx):
        self.log("test_loss", self(batch["pixels"]).mean())
