"""Run the Python of README.md, or of other pages, one block after the other, as a newcomer would.

    python tests/readme.py [PAGE...]

The pages assume a model, its data, a folder of photographs and saved maps. All of these are small here. The script
needs the package alone, so that it also runs if nothing but the wheel is installed.
"""

import os
import re
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models.vgg import cfgs, make_layers

import gradcam_callback
from gradcam_callback import GradCAMCallback

README = Path(__file__).parent.parent / "README.md"
GETTING_STARTED = README.parent / "docs" / "getting-started.md"
# The epochs in the history that the callbacks of these pages leave.
EPOCHS = {README: [0, 1], GETTING_STARTED: [-1, 0, 1]}
CLASSES = ("lion", "ostrich")


class Noise(Dataset):
    """Images of noise with a mask. Their brightness is their class."""

    classes = list(CLASSES)

    def __len__(self):
        return 8

    def __getitem__(self, index):
        mask = torch.zeros(64, 64, dtype=torch.bool)
        mask[16:48, 16:48] = True
        chance = torch.Generator().manual_seed(index)
        return torch.rand(3, 64, 64, generator=chance) / 2 + index % 2 / 2, index % 2, mask


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(Noise(), batch_size=4)

    val_dataloader = train_dataloader


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        # A VGG16 of an eighth of the channels, to be quick.
        self.features = make_layers([width if width == "M" else width // 8 for width in cfgs["D"]])
        self.head = torch.nn.Linear(64, len(CLASSES))

    def forward(self, images):
        return self.head(self.features(images).mean(dim=(2, 3)))

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def write_photographs(folder):
    for i, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        pixels = np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / "a.jpg")
        Image.fromarray(np.eye(64) > 0).save(folder / name / "a.mask.png")


def write_maps():
    """Train with ``save_dir="focus"`` and ``save_maps=True``."""
    watch = GradCAMCallback(target_layers="block5", save_dir="focus", save_maps=True)
    pl.Trainer(callbacks=[watch], logger=False, enable_checkpointing=False).fit(Model(), Data())


def run(page):
    """Run the blocks of a page, and raise what they raise.

    Returns:
        The number of blocks, and the variables that they leave.
    """
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
    chance = np.random.default_rng(0)
    known = {
        "model": Model(),
        "datamodule": Data(),
        "val_transform": transforms.ToTensor(),
        "dataset": Noise(),
        # Keras has the channels last.
        "x": chance.random((4, 64, 64, 3), dtype=np.float32),
        "y": np.array([0, 1, 0, 1]),
    }
    for block in blocks:
        exec(compile(block, str(page), "exec"), known)
    return len(blocks), known


def main():
    pages = [Path(name).resolve() for name in sys.argv[1:]] or [README]
    warnings.filterwarnings("ignore")
    trainer = pl.Trainer
    for page in pages:
        quick = {"max_epochs": 2 if page in EPOCHS else 1, "accelerator": "cpu", "enable_progress_bar": False}
        pl.Trainer = lambda quick=quick, **options: trainer(**(options | quick))
        # All maps of a fresh network may be empty, and then there is no lift. The seed gives a network with lift.
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            write_photographs(Path("probe"))
            if "focus/maps" in page.read_text(encoding="utf-8"):
                write_maps()
            count, known = run(page)
            if page in EPOCHS:
                history = known["watch"].history
                assert [entry["epoch"] for entry in history] == EPOCHS[page]
                assert "gradcam/lift/block5_conv3" in history[0] and list(Path("runs").rglob("events*"))
            os.chdir(README.parent)
        print(f"{count} blocks of {page.name} run with {gradcam_callback.__file__}")


if __name__ == "__main__":
    sys.exit(main())
