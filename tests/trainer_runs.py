"""A data module of toys, a network that can be tested, and a check that two runs end alike."""

import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from toys import CLASSES, Toys


class AlsoTested(ThinVGG):
    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("test_loss", torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))


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


def assert_untouched(verb, with_callback, without):
    for (name, value), expected in zip(with_callback.items(), without.values(), strict=True):
        assert torch.equal(value, expected), (verb, name)
