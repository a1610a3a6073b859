"""Runs the Python of README.md, or of other pages, one block after the other, as a newcomer would.

    python tests/readme.py [PAGE...]

What the pages take as given (a model, its data, a folder of photographs, maps that were saved) is small here. Needs the
package alone, so that it can be run where nothing but the wheel is installed.
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

import gradcam_callback as gc

README = Path(__file__).parent.parent / "README.md"
CLASSES = ("lion", "ostrich")


class Noise(Dataset):
    """Pictures of noise, a mask, and the class, which is how light they are."""

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


def photographs(folder):
    for i, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        pixels = np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / "a.jpg")
        Image.fromarray(np.eye(64) > 0).save(folder / name / "a.mask.png")


def saved_maps():
    """What ``save_dir="focus"`` leaves, with maps."""
    watch = gc.GradCAMCallback(target_layers="block5", save_dir="focus", save_maps=True)
    pl.Trainer(callbacks=[watch], logger=False, enable_checkpointing=False).fit(Model(), Data())


def run(page):
    """Raises what a block raises; returns their number and what they leave."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
    chance = np.random.default_rng(0)
    known = {
        "model": Model(),
        "datamodule": Data(),
        "val_transform": transforms.ToTensor(),
        "dataset": Noise(),
        # As Keras has them.
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
        quick = {"max_epochs": 2 if page == README else 1, "accelerator": "cpu", "enable_progress_bar": False}
        pl.Trainer = lambda quick=quick, **options: trainer(**(options | quick))
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            photographs(Path("probe"))
            if "focus/maps" in page.read_text(encoding="utf-8"):
                saved_maps()
            count, known = run(page)
            if page == README:
                # What the second block makes is used as the first uses it.
                watch = known["watch"]
                logger = pl.loggers.TensorBoardLogger("runs")
                pl.Trainer(callbacks=[watch, known["stop"]], logger=logger).fit(Model(), known["datamodule"])
                assert [entry["epoch"] for entry in watch.history] == [-1, 0, 1]
                assert "gradcam/lift/block5_conv3" in watch.history[0] and list(Path("runs").rglob("events*"))
            os.chdir(README.parent)
        print(f"{count} blocks of {page.name} run with {gc.__file__}")


if __name__ == "__main__":
    sys.exit(main())
