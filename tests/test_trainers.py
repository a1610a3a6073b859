"""Ways in which people run a Trainer: loaders, data modules, probe folders and the command line of Lightning."""

import importlib
import sys

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from PIL import Image
from pytorch_lightning.callbacks import ModelSummary
from pytorch_lightning.cli import LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import DataLoader, Dataset, Subset, default_collate
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader
from toys import CLASSES, Toys
from trainer_runs import AlsoTested, Data, Pictures, assert_untouched

from gradcam_callback import GradCAMCallback, GradCAMWarning, ProbeSet, Style
from gradcam_callback.masking.mask_files import mark_automatic

LAYERS = ["block4_conv3", "block5_conv3"]


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


class OfAll(SeveralLoaders):
    """Has a hook that takes the batches of all loaders together."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return {**batch, "a": batch["a"]} if self.trainer.validating else batch


@pytest.mark.parametrize("form", ["unlabelled first", "as they pass", "hook of all", "one alone"])
def test_an_error_says_that_of_several_loaders_the_first_counts(trainer, toys, form):
    labelled, training = DataLoader(toys, batch_size=6), DataLoader(toys, batch_size=6)
    unlabelled = DataLoader([image for image, _, _ in toys], batch_size=6)
    loaders = {
        "unlabelled first": [unlabelled, labelled],
        "as they pass": [iter(unlabelled), labelled],
        "hook of all": CombinedLoader({"a": labelled, "b": unlabelled}, "min_size"),
        "one alone": [unlabelled],
    }[form]
    module = OfAll() if form == "hook of all" else SeveralLoaders()
    module.validation_step = lambda batch, batch_idx, dataloader_idx=0: None
    with pytest.raises(ValueError, match="of your validation data") as raised:
        trainer(GradCAMCallback(target_layers=LAYERS)).fit(module, training, loaders)
    told = str(raised.value).count("Of several validation loaders only the first is looked at, and its batches come")
    assert told == (form != "one alone") and module.losses == []


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


def test_dry_runs_and_runs_without_validation_write_nothing(trainer, toys, tmp_path):
    loader = DataLoader(toys, batch_size=6)
    callback = GradCAMCallback(target_layers=LAYERS, save_dir=tmp_path / "focus")
    for logger in (TensorBoardLogger(tmp_path), False):
        trainer(callback, fast_dev_run=True, logger=logger).fit(ThinVGG(), loader, loader)
        assert len(callback.history) == 1, "the whole is tried"
    with pytest.raises(ValueError, match="Expected a Trainer with a logger for images"):
        trainer(GradCAMCallback(), fast_dev_run=True, logger=False).fit(ThinVGG(), loader, loader)
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
    unseen = next(folder.glob("*/a.mask.png"))
    unseen.write_bytes(mark_automatic(unseen.read_bytes()))
    callback, data = GradCAMCallback(str(folder), LAYERS), Data("pictures")
    trainer(callback).fit(ThinVGG(), datamodule=data)
    probe = callback.probe_set
    assert len(probe.proposals) == 1 and callback.verdict.basis == "automatic masks", "a mask of --auto stays one"
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


class Standardises(Dataset):
    """Does more to its images than their transform."""

    def __init__(self, dataset, change=lambda image: (image - 0.45) / 0.1):
        self.dataset, self.change = dataset, change

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        image, label = self.dataset[index]
        return self.change(image), label


def windowed(path):
    """Read a scan of 12 bits in 16, as people do in a loader of their own."""
    return Image.fromarray((np.asarray(Image.open(path)) / 16).astype(np.uint8)).convert("RGB")


@pytest.fixture
def scans(tmp_path):
    """Scans of 12 bits, stored lying, in two classes."""
    exif = Image.Exif()
    exif[0x0112] = 8
    for i in range(8):
        levels = np.random.default_rng(i).integers(0, 4096, (40, 48)).astype(np.uint16)
        (tmp_path / "scans" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels).save(tmp_path / "scans" / "ab"[i % 2] / f"{i}.png", exif=exif)
    return tmp_path / "scans"


@pytest.mark.parametrize("loader", [windowed, default_loader])
@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: Subset(Standardises(data, lambda x: x), range(8))])
def test_a_folder_is_read_by_the_loader_of_an_image_folder(watch, scans, loader, wrap):
    data = ImageFolder(scans, transforms.ToTensor(), loader=loader)
    callback = watch(ThinVGG(2), DataLoader(wrap(data), 4), GradCAMCallback(scans, LAYERS))
    assert torch.equal(callback.probe_set.images, torch.stack([image for image, _ in data]))


class LosesTheFirst(Standardises):
    """Gives None for its first item, as for a broken file."""

    def __getitem__(self, index):
        return None if index == 0 else self.dataset[index]


def test_a_folder_is_read_even_if_the_first_item_of_the_data_is_broken(watch, scans):
    def collate(items):
        return default_collate([item for item in items if item is not None])

    data = LosesTheFirst(ImageFolder(scans, transforms.ToTensor(), loader=windowed))
    callback = watch(ThinVGG(2), DataLoader(data, 4, collate_fn=collate), GradCAMCallback(scans, LAYERS))
    assert len(callback.probe_set) == 8 and len(callback.history) == 1


def test_a_folder_unlike_the_validation_is_said_once(watch, scans):
    data, module = Standardises(ImageFolder(scans, transforms.ToTensor(), loader=windowed)), ThinVGG(2)
    with pytest.warns(GradCAMWarning, match="in the validation .* If the dataset does more to its images") as caught:
        watch(module, DataLoader(data, 4), GradCAMCallback(scans, LAYERS), max_epochs=2)
    assert sum(warning.category is GradCAMWarning for warning in caught) == 1
    with pytest.warns(GradCAMWarning, match=r"they have shape \(3, 40, 48\), those of the validation \(3, 80, 48\)"):
        data.change = lambda image: image.repeat_interleave(2, 1)
        watch(module, DataLoader(data, 4), GradCAMCallback(scans, LAYERS))


def test_a_folder_and_its_comparison_draw_no_random_number_of_the_training(watch, scans):
    weights = []
    for callback in (GradCAMCallback(scans, LAYERS), ModelSummary()):
        pl.seed_everything(1, verbose=False)
        data, module = ImageFolder(scans, transforms.ToTensor(), loader=windowed), ThinVGG(2)
        watch(module, DataLoader(data, 4), callback, training=DataLoader(data, 4, shuffle=True))
        weights.append(module.losses)
    assert weights[0] == weights[1]


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


def explained(outputs, index):
    return outputs[:, 0]


def told(verdict):
    """Does nothing with it."""


def reshaped(output):
    return output


@pytest.mark.parametrize(
    ("argument", "text", "expected"),
    [
        ("target", "1", 1),
        ("target", "contrast", "contrast"),
        ("target", "test_trainers.explained", explained),
        ("on_shortcut", "stop", "stop"),
        ("on_shortcut", "test_trainers.told", told),
        ("reshape_transform", "tokens", "tokens"),
        ("reshape_transform", "test_trainers.reshaped", reshaped),
        ("output_transform", "torch.logit", torch.logit),
        ("forward", "test_trainers.explained", explained),
        ("batch_transform", "test_trainers.reshaped", reshaped),
    ],
)
@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_the_command_line_of_each_package_takes_callables_by_their_path(
    package, argument, text, expected, monkeypatch, request
):
    monkeypatch.setitem(sys.modules, "test_trainers", sys.modules[__name__])
    monkeypatch.setattr(sys, "argv", ["train.py"])
    # Otherwise the command line warns once that it has no seed, and of its own use of jsonargparse.
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    boring = importlib.import_module(f"{package}.demos.boring_classes")
    inside = "" if package == "pytorch_lightning" else ".lightning"
    arguments = ["--trainer.callbacks+", f"gradcam_callback{inside}.GradCAMCallback"]
    arguments += [f"--trainer.callbacks.{argument}", text, "--trainer.logger", "false"]
    kinds = boring.BoringModel, boring.BoringDataModule
    cli = importlib.import_module(f"{package}.cli").LightningCLI(*kinds, args=arguments, run=False)
    (callback,) = (one for one in cli.trainer.callbacks if isinstance(one, GradCAMCallback))
    assert {**callback.options, **vars(callback)}[argument] == expected
    plain = GradCAMCallback(**{argument: expected})
    assert callback.state_key == plain.state_key, "each reads the other's checkpoints"


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
