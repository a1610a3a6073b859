"""Fixtures of all tests: the real fine-tuned VGG16, real photographs, a thin VGG16 for real Trainer runs."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from browser import start_browser
from drawn_sheets import record
from hypothesis import Phase, settings
from PIL import Image
from pretrained import Classifier, for_classifying
from pytorch_lightning.loggers import TensorBoardLogger
from skimage import data
from sklearn.datasets import load_sample_image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.models.vgg import make_layers
from toys import CLASSES, Toys

from gradcam_callback import GradCAMCallback, ProbeSet

# Their assertions say what they compare, as those of tests do.
pytest.register_assert_rewrite("focus_tab", "probe_folder", "sameness", "trainer_runs", "watched_data")

# One thread: the networks are thin, and several threads wait for each other by spinning, which beside other processes
# made the tests five times slower. Processes that tests start do the same.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

# TensorBoard computes the checksum of every event in Python, which takes 0.2 s for a megabyte, to write and to read it.
pywrap_tensorflow.crc_update = lambda crc, data: google_crc32c.extend(crc, bytes(data))

# `make fuzz` chooses the second; pytest asks for profiles before it reads the tests. The first is the same each time.
# It tells of the first failure as it came; to look for a smaller one may take minutes.
WITHOUT_SHRINKING = (Phase.explicit, Phase.generate)
settings.register_profile(
    "few", max_examples=10, deadline=None, database=None, derandomize=True, phases=WITHOUT_SHRINKING
)
settings.register_profile("fuzz", max_examples=1000, deadline=None, database=None, print_blob=True)
settings.load_profile("few")

# All 13 convolutions of a VGG16, with few channels, so that real Trainer runs are fast.
THIN = [8, 8, "M", 12, 12, "M", 16, 16, 16, "M", 24, 24, 24, "M", 24, 24, 24, "M"]


# The files with the longest tests. They come first, so that no worker is left alone with one of them at the end. The
# tests of the first three share a TensorBoard, and trainings.
LONG = tuple(
    f"test_{name}.py"
    for name in ("focus_page", "focus_tab", "report_page", "examples", "distributed", "engine", "faults", "gradcam")
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accelerator", default="cpu", help="where the Trainers of the tests run: cpu or gpu")


def pytest_configure(config: pytest.Config) -> None:
    # The tests compare what a Trainer logs with maps that they compute on the processor, which has no TF32.
    torch.backends.cudnn.allow_tf32 = config.getoption("accelerator") == "cpu"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


class ThinVGG(pl.LightningModule):
    """VGG16's structure, thin, with dropout in its head and where asked for batch norm."""

    def __init__(self, classes: int = 3, batch_norm: bool = True, channels: int = 3) -> None:
        super().__init__()
        self.features = make_layers(THIN, batch_norm=batch_norm)
        if channels != 3:
            self.features[0] = nn.Conv2d(channels, THIN[0], 3, padding=1)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, classes)
        )
        for module in self.modules():
            # As torchvision initialises its VGGs; with the default, thin deep layers would hardly see the image.
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.losses: list[float] = []

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = functional.cross_entropy(self(batch[0]), batch[1])
        self.losses.append(float(loss.detach()))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


@pytest.fixture(scope="session")
def wheel() -> Classifier:
    """The VGG16 that somebody else fine-tuned, from the wheel."""
    return for_classifying("demo")


@pytest.fixture(scope="session")
def photographs() -> Tensor:
    """Three real photographs as the wheel's network takes them: ``(3, 3, 240, 240)`` in 0..1."""
    pictures = [data.chelsea(), data.coffee(), load_sample_image("flower.jpg")]
    resized = [np.asarray(Image.fromarray(picture).resize((240, 240))) for picture in pictures]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="session")
def toys() -> Toys:
    return Toys(18, bias=1.0, seed=0, size=48)


@pytest.fixture
def probe(toys: Toys) -> ProbeSet:
    """Return a probe set of one image with a mask for each class."""
    return ProbeSet.from_dataset(toys, 1)


@pytest.fixture
def lion(tmp_path: Path) -> Path:
    """Make the folder of the only class."""
    (tmp_path / "lion").mkdir()
    return tmp_path / "lion"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start a browser for all tests of a module, since this takes seconds."""
    with start_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def runs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the runs that the tests of the page share, as their trainings take seconds."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def watched(runs_folder: Path) -> dict[str, Any]:
    """Train the demo's network on backgrounds that are random, and on backgrounds that reveal the class."""
    from focus_tab import RUNS, Watched

    return {name: Watched(runs_folder, name, bias) for name, bias in zip(RUNS, (0.0, 1.0), strict=True)}


@pytest.fixture(scope="session")
def hostile(toys: Toys, runs_folder: Path) -> GradCAMCallback:
    """Make a run whose names are code, and in many scripts."""
    from focus_tab import watch_hostile

    return watch_hostile(runs_folder, toys)


@pytest.fixture(scope="session")
def tensorboard(watched: Any, hostile: Any, runs_folder: Path) -> Iterator[str]:
    """Start a TensorBoard with these three runs, and return its address."""
    from focus_tab import read, serving, until

    with serving(runs_folder) as address:
        until(lambda: len(json.loads(read(f"{address}/data/plugin/gradcam_focus/runs"))) == 3)
        yield address


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that another user may enter, too.

    It does not lie below pytest's own: each session of pytest that starts on this machine closes that to others.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(autouse=True)
def few_images(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take 6 images of the validation data in place of 16, and of 64 for the verdict.

    This makes most tests with a Trainer several times as fast.
    """
    watches_all = request.node.get_closest_marker("sixteen_images") is not None
    judges_more = request.node.get_closest_marker("judges_more") is not None
    watched, times = 16 if watches_all else 6, 4 if judges_more else 1
    monkeypatch.setattr("gradcam_callback.trainers.data.AUTO_IMAGES", watched)
    monkeypatch.setattr("gradcam_callback.trainers.data.VERDICT_IMAGES", times * watched)
    if not judges_more:
        monkeypatch.setattr("gradcam_callback.trainers.data.VERDICT_LEAST", 1)


@pytest.fixture
def thin() -> ThinVGG:
    pl.seed_everything(0, verbose=False)
    return ThinVGG(len(CLASSES))


@pytest.fixture
def double_thin() -> ThinVGG:
    """Return a thin VGG16 in float64 and eval mode."""
    torch.manual_seed(0)
    return ThinVGG(batch_norm=True).double().eval()


@pytest.fixture
def trainer(tmp_path: Path, pytestconfig: pytest.Config) -> Callable[..., pl.Trainer]:
    """Make a real, quiet Trainer of two epochs that logs to TensorBoard in ``tmp_path``."""

    accelerator = pytestconfig.getoption("accelerator")

    def make(*callbacks: pl.Callback, **options: Any) -> pl.Trainer:
        settings = {
            "max_epochs": 2,
            "logger": TensorBoardLogger(tmp_path, name="run", version=""),
            "accelerator": accelerator,
            # A GPU adds in another order each time, unless it is told not to.
            **({} if accelerator == "cpu" else {"deterministic": True}),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
        }
        return pl.Trainer(callbacks=list(callbacks), **(settings | options))

    return make


@pytest.fixture
def fit(trainer: Callable[..., pl.Trainer], toys: Toys) -> Callable[..., pl.Trainer]:
    """Fit a module on the toys with such a Trainer."""

    def run(
        module: pl.LightningModule,
        *callbacks: pl.Callback,
        train_data: Any = None,
        val_data: Any = None,
        resume: Path | None = None,
        **options: Any,
    ) -> pl.Trainer:
        pl.seed_everything(7, verbose=False)
        made = trainer(*callbacks, **({"num_sanity_val_steps": 1} | options))
        loader = DataLoader(toys if train_data is None else train_data, batch_size=6, shuffle=True)
        validation = DataLoader(toys if val_data is None else val_data, batch_size=6)
        if resume is None:
            made.fit(module, loader, validation)
        else:
            made.fit(module, loader, validation, ckpt_path=resume, weights_only=True)
        return made

    return run


@pytest.fixture
def watch(trainer: Callable[..., pl.Trainer]) -> Callable[..., GradCAMCallback]:
    """Fit a module on a loader with a callback, which is returned. By default it watches one layer."""

    def run(
        module: pl.LightningModule,
        loader: Any,
        callback: GradCAMCallback | None = None,
        training: Any = None,
        **options: Any,
    ) -> GradCAMCallback:
        callback = callback or GradCAMCallback(target_layers="block5_conv3", views="layer")
        pl.seed_everything(0, verbose=False)
        trainer(callback, **({"max_epochs": 1} | options)).fit(module, training or loader, loader)
        return callback

    return run


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record everything that is drawn on sheets, in order."""
    return record(monkeypatch)


@pytest.fixture
def events(tmp_path: Path) -> Callable[[], EventAccumulator]:
    """Read the event files of a run, with nothing left out."""

    def read(folder: Path | None = None) -> EventAccumulator:
        everything = {"images": 0, "scalars": 0, "tensors": 0}
        accumulator = EventAccumulator(str(folder or tmp_path / "run"), size_guidance=everything)
        accumulator.Reload()
        return accumulator

    return read
