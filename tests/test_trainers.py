"""Every way in which people run a Trainer."""

import json
import sys

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningCLI
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from test_suspicion import ReadsTheGround
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from toys import CLASSES, Toys

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning, ProbeSet, ShortcutWarning, Style
from gradcam_callback.measures import metrics
from gradcam_callback.writers.base import verdict_text

LAYERS = ["block4_conv3", "block5_conv3"]


@pytest.fixture
def probe(toys):
    return ProbeSet.from_dataset(toys, 1)


class AlsoTested(ThinVGG):
    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("test_loss", torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))


class SeveralLoaders(AlsoTested):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))


@pytest.mark.filterwarnings("ignore:Total length of .DataLoader. across ranks is zero")
@pytest.mark.parametrize("form", ["list", "dict", "first is empty"])
def test_of_several_validation_loaders_the_first_gives_the_probe_set(trainer, toys, events, form):
    other = Toys(6, bias=0.0, seed=5, size=64)
    loaders = [DataLoader(toys, batch_size=6), DataLoader(other, batch_size=6)]
    callback = GradCAMCallback(target_layers=LAYERS)
    if form == "first is empty":
        callback = GradCAMCallback(ProbeSet.from_dataset(toys), LAYERS)
        loaders[0] = DataLoader(torch.utils.data.Subset(toys, []), batch_size=6)
    validation = {"a": loaders[0], "b": loaders[1]} if form == "dict" else loaders
    trainer(callback).fit(SeveralLoaders(), DataLoader(toys, batch_size=6), validation)
    expected = ProbeSet.from_dataset(toys)
    assert torch.equal(callback.probe_set.images, expected.images)
    steps = [int(entry["step"]) for entry in callback.history]
    assert len(steps) == 2
    for tag in ("gradcam/probe/star-1", "gradcam/overview"):
        assert [event.step for event in events().Images(tag)] == steps
    assert [event.step for event in events().Scalars("gradcam/lift/block5_conv3")] == steps


class Data(pl.LightningDataModule):
    """Makes its data in ``setup`` alone, as data modules do."""

    def __init__(self, folder: str | None = None, batch_size: int = 6) -> None:
        super().__init__()
        self.folder, self.batch_size = folder, batch_size

    def setup(self, stage: str) -> None:
        plain = Toys(12, bias=1.0, seed=0, size=64)
        self.data = Pictures(plain) if self.folder else plain

    def train_dataloader(self):
        return DataLoader(self.data, batch_size=self.batch_size)

    def val_dataloader(self):
        return DataLoader(self.data, batch_size=self.batch_size)

    def test_dataloader(self):
        return DataLoader(Toys(6, bias=0.0, seed=9, size=64), batch_size=self.batch_size)


class Pictures(Dataset):
    """Toys whose images go through a transform, as photographs do."""

    classes = list(reversed(CLASSES))

    def __init__(self, toys):
        self.toys = toys
        self.transform = transforms.Compose(
            [transforms.Resize(64), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.25] * 3)]
        )

    def __len__(self):
        return len(self.toys)

    def __getitem__(self, index):
        image, label, _ = self.toys[index]
        return self.transform(transforms.functional.to_pil_image(image)), 2 - label


def test_a_data_module_needs_no_configuration(trainer, events):
    callback, data = GradCAMCallback(), Data()
    trainer(callback).fit(ThinVGG(), datamodule=data)
    assert torch.equal(callback.probe_set.images, ProbeSet.from_dataset(data.data).images)
    assert [entry["epoch"] for entry in callback.history] == [0, 1]
    assert len(events().Images("gradcam/overview")) == 2


class Configures(ThinVGG):
    """Brings its callback itself."""

    def configure_callbacks(self):
        self.watch = GradCAMCallback(target_layers=LAYERS)
        return [self.watch]


def test_a_callback_that_the_module_configures(trainer, toys, events):
    module = Configures()
    trainer().fit(module, DataLoader(toys, batch_size=6), DataLoader(toys, batch_size=6))
    assert [entry["epoch"] for entry in module.watch.history] == [0, 1]
    assert len(events().Images("gradcam/overview")) == 2


# trainer.validate and trainer.test.


def assert_untouched(verb, with_callback, without):
    for (name, value), expected in zip(with_callback.items(), without.values(), strict=True):
        assert torch.equal(value, expected), (verb, name)


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_validate_and_test_alone_are_looked_at_and_leave_everything_as_it_is(
    trainer, toys, events, tmp_path, capsys, verb
):
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
    assert len(callback.history) == (verb == "validate")
    assert (callback.verdict and callback.verdict.text) == (said if verb == "validate" else None)


def test_a_test_after_the_training_is_none_of_its_entries(trainer, events, tmp_path):
    callback, data = GradCAMCallback(target_layers=LAYERS, save_dir=tmp_path / "focus", views="all"), Data()
    runs = trainer(callback)
    runs.fit(AlsoTested(), datamodule=data)
    history, state = [dict(entry) for entry in callback.history], callback.state_dict()
    frames = len(callback._state.snapshots())
    written = (tmp_path / "focus" / "history.json").read_text()
    runs.test(runs.lightning_module, datamodule=data, verbose=False)
    assert callback.history == history and len(callback._state.snapshots()) == frames
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
        headings = [snapshot.heading for snapshot in callback._state.snapshots()]
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


def test_dry_runs_and_runs_without_validation_write_nothing(trainer, toys, tmp_path):
    loader = DataLoader(toys, batch_size=6)
    callback = GradCAMCallback(target_layers=LAYERS, save_dir=tmp_path / "focus")
    trainer(callback, fast_dev_run=True).fit(ThinVGG(), loader, loader)
    assert len(callback.history) == 1, "the whole is tried"
    with pytest.warns(GradCAMWarning, match="this training has no validation"):
        trainer(GradCAMCallback(target_layers=LAYERS), limit_val_batches=0).fit(ThinVGG(), loader, loader)
    assert not (tmp_path / "focus").exists()


# A folder for the probe set, and the command line of Lightning.


@pytest.fixture
def folder(tmp_path):
    """A probe folder of two classes, of which one image has a mask."""
    toys = Toys(3, bias=1.0, seed=3, size=96)
    for image, label, mask in toys.items[:2]:
        place = tmp_path / "probe" / CLASSES[label]
        place.mkdir(parents=True)
        transforms.functional.to_pil_image(image).save(place / "a.png")
        Image.fromarray(mask.numpy()).save(place / "a.mask.png")
    return tmp_path / "probe"


def test_a_folder_is_read_as_the_validation_data_are(trainer, folder):
    callback, data = GradCAMCallback(str(folder), LAYERS), Data("pictures")
    trainer(callback).fit(ThinVGG(), datamodule=data)
    probe = callback.probe_set
    assert probe.names == ["heart-a", "star-a"] and probe.class_names == Pictures.classes
    assert probe.labels.tolist() == [1, 2], "by the classes of the data, not of the folder"
    assert probe.images.shape == (2, 3, 64, 64) and float(probe.images.min()) < -0.5, "through their transform"
    assert probe.mean.tolist() == [0.5] * 3 and probe.has_mask.all()
    assert np.ptp(probe.display_images()) > 200 and len(callback.history) == 2


def test_a_folder_that_cannot_be_read_as_the_data_are_is_said_before_training(trainer, folder, tmp_path):
    module = ThinVGG()
    for probe, message, data in (
        (
            folder,
            "data with a transform, .* but Toys has none. Pass GradCAMCallback.probe=ProbeSet",
            Data(),
        ),
        (tmp_path / "nowhere", "does not exist", Data("pictures")),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            trainer(GradCAMCallback(probe)).fit(module, datamodule=data)
    assert module.losses == []
    with pytest.raises(ValueError, match="Expected `probe` to be a ProbeSet, a folder or None, but got int"):
        GradCAMCallback(3)


CONFIGURATION = """
seed_everything: 0
trainer:
  max_epochs: 2
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  enable_checkpointing: false
  logger:
    class_path: pytorch_lightning.loggers.TensorBoardLogger
    init_args: {{save_dir: {save_dir}, name: run, version: ""}}
  callbacks:
    - class_path: gradcam_callback.GradCAMCallback
      init_args:
        probe: {probe}
        target_layers: [block4, block5_conv3]
        every_n_epochs: 1
        on_shortcut: warn
        save_dir: {save_dir}/focus
        method: layercam
        chunk_size: 4
        style: {{cell: 90, colormap: jet}}
model:
  classes: 3
data:
  folder: {data}
"""


@pytest.mark.filterwarnings("ignore:(?s).*(deprecated in v4|JsonargparseDeprecation)")
@pytest.mark.parametrize("source", ["folder", "datamodule"])
def test_lightning_cli_from_a_yaml_file_whose_saved_copy_does_the_same(
    source, folder, tmp_path, events, monkeypatch, request
):
    monkeypatch.syspath_prepend(str(request.path.parent))
    monkeypatch.setattr(sys, "argv", ["train.py"])
    configuration, histories = tmp_path / "config.yaml", []
    for attempt in ("first", "second"):
        values = {"save_dir": tmp_path / attempt, "probe": "null", "data": "null"}
        if source == "folder":
            values |= {"probe": folder, "data": "pictures"}
        text = CONFIGURATION.format(**values)
        if attempt == "second":  # what Lightning has written down of the first
            text = (tmp_path / "first" / "run" / "config.yaml").read_text()
            assert "gradcam_callback.GradCAMCallback" in text and "block5_conv3" in text
            text = text.replace(str(tmp_path / "first"), str(tmp_path / "second"))
        configuration.write_text(text)
        cli = LightningCLI(ThinVGG, Data, args=["fit", "--config", str(configuration)])
        (callback,) = (one for one in cli.trainer.callbacks if isinstance(one, GradCAMCallback))
        histories.append(callback.history)
        layers = [f"block4_conv{i}" for i in (1, 2, 3)] + ["block5_conv3"]
        found = events(tmp_path / attempt / "run")
        assert len(found.Images("gradcam/overview")) == 2
        for layer in layers:
            assert len(found.Scalars(f"gradcam/lift/{layer}")) == 2
        assert callback.options["method"] == "layercam" and callback.options["chunk_size"] == 4
        assert callback.style == Style(cell=90, colormap="jet"), "the others are as by default"
        assert callback.probe_set.names[0] == ("heart-a" if source == "folder" else "star-1")
    assert histories[0] == histories[1] and len(histories[0]) == 2


# Resuming with something else than before.


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
    assert [frame.heading for frame in second._state.snapshots()] == ["2", "3"]
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


@pytest.mark.filterwarnings("ignore:Be aware that when using")  # Lightning's, of keys that are in no callback
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
        frames, expected = (one._state.snapshots() for one in (again, whole))
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


# Neutrality of what test_invisible.py does not hold.


def loaders(toys):
    return DataLoader(toys, batch_size=6, shuffle=True), DataLoader(toys, batch_size=6)


class Yes(ThinVGG):
    """Several yes or no per image."""

    def training_step(self, batch, batch_idx):
        wanted = torch.nn.functional.one_hot(batch[1], 3).float()
        return torch.nn.functional.binary_cross_entropy_with_logits(self(batch[0]), wanted)


def fit_plainly(trainer, toys, module, callbacks, **options):
    trainer(*callbacks, **options).fit(module, *loaders(toys))


def fit_with_several_loaders(trainer, toys, module, callbacks):
    training, validation = loaders(toys)
    trainer(*callbacks).fit(module, training, [validation, validation])


def fit_with_a_data_module(trainer, toys, module, callbacks):
    trainer(*callbacks).fit(module, datamodule=Data())


def fit_configured(trainer, toys, module, callbacks):
    module.configure_callbacks = lambda: callbacks
    trainer().fit(module, *loaders(toys))


def fit_by_halves(trainer, toys, module, callbacks):
    fit_plainly(trainer, toys, module, callbacks, val_check_interval=0.34)


def fit_and_test(trainer, toys, module, callbacks):
    runs = trainer(*callbacks)
    training, validation = loaders(toys)
    runs.fit(module, training, validation)
    runs.validate(module, validation, verbose=False)
    runs.test(module, validation, verbose=False)


@pytest.mark.parametrize(
    ("make", "run", "watches"),
    [
        (SeveralLoaders, fit_with_several_loaders, 1),
        (ThinVGG, fit_with_a_data_module, 1),
        (ThinVGG, fit_configured, 1),
        (ThinVGG, fit_by_halves, 1),
        (AlsoTested, fit_and_test, 1),
        (Yes, fit_plainly, 1),
        (ThinVGG, fit_plainly, 2),
    ],
)
def test_the_training_is_the_same_with_the_callback(trainer, toys, tmp_path, make, run, watches):
    ends = []
    for watched in (False, True):
        pl.seed_everything(3, verbose=False)
        module = make()
        module.features[1].eval()
        both = [GradCAMCallback(target_layers=layers, views="layer") for layers in ("all", "block5")]
        callbacks = both[: watches * watched]
        run(trainer, toys, module, callbacks)
        assert all(len(callback.history) >= 2 for callback in callbacks)
        flags = torch.tensor([part.training for part in module.modules()])
        losses = torch.tensor(module.losses)
        ends.append({**module.state_dict(), "random": torch.get_rng_state(), "flags": flags, "losses": losses})
    assert_untouched(run.__name__, *reversed(ends))
