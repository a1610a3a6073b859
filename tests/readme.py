"""Runs the Python of README.md, one block after the other, as a newcomer would: python tests/readme.py

What the README takes as given (a model, its data, a folder of photographs) is small here. Needs the package alone, so
that it can be run where nothing but the wheel is installed.
"""

import functools
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
        self.features = make_layers(cfgs["D"])
        self.head = torch.nn.Linear(512, len(CLASSES))

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


def main():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    warnings.filterwarnings("ignore")
    pl.Trainer = functools.partial(pl.Trainer, max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    known = {"model": Model(), "datamodule": Data(), "val_transform": transforms.ToTensor(), "dataset": Noise()}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        photographs(Path("probe"))
        for block in blocks:
            exec(compile(block, str(README), "exec"), known)
        # What the second block makes is used as the first uses it.
        pl.Trainer(callbacks=[known["watch"], known["stop"]], logger=pl.loggers.TensorBoardLogger("runs")).fit(
            Model(), known["datamodule"]
        )
        history = known["watch"].history
        assert [entry["epoch"] for entry in history] == [-1, 0, 1] and "gradcam/lift/block5_conv3" in history[0]
        assert list(Path("runs").rglob("events*"))
        os.chdir(README.parent)
    print(f"{len(blocks)} blocks of {README.name} run with {known['gc'].__file__}")


if __name__ == "__main__":
    sys.exit(main())
