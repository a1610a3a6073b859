"""Data as users have them, networks that read them, and a callback that watches one layer."""

import pytest
import torch
from conftest import ThinVGG
from torch.nn import functional
from torch.utils.data import Dataset, IterableDataset
from torchvision import transforms

from gradcam_callback import GradCAM, GradCAMCallback

LAYER = "block5_conv3"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
NORMALISE = transforms.Normalize(MEAN, STD)


def watching(probe=None, **options):
    return GradCAMCallback(probe, LAYER, views="layer", **options)


class Reads(ThinVGG):
    """Takes what `read` makes of a batch."""

    def __init__(self, read=lambda batch: (batch[0], batch[1]), classes=3):
        super().__init__(classes)
        self.read = read

    def loss(self, batch):
        images, labels = self.read(batch)
        return functional.cross_entropy(self(images), labels)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        images, labels = self.read(batch)
        self.log("val_acc", (self(images).argmax(dim=1) == labels).float().mean(), batch_size=len(images))
        self.log("val_loss", self.loss(batch), batch_size=len(images))


def assert_logged_of(callback, module, images):
    """Assert that the history holds what the network, as it is now, says about these images with their labels."""
    probe = callback.probe_set
    torch.testing.assert_close(probe.images, images)
    seen = GradCAM(module, LAYER)(images, probe.labels)
    right = (seen.logits.argmax(dim=1) == probe.labels).double().mean()
    assert callback.history[-1]["gradcam/probe_accuracy"] == pytest.approx(float(right))
    strength = seen.maps[LAYER].mean(dim=(1, 2)).mean()
    assert callback.history[-1][f"gradcam/strength/{LAYER}"] == pytest.approx(float(strength), rel=1e-4)


class AfterTransfer(Reads):
    def __init__(self):
        super().__init__()
        self.normalise = NORMALISE

    def on_after_batch_transfer(self, batch, dataloader_idx):
        images, *rest = batch
        if self.trainer.training:
            images = images.flip(3)  # an augmentation, which the validation does not have
        assert self.trainer.training == self.training, "the network is in the mode of the stage"
        return [self.normalise(images), *rest]


PATHS = [f"somewhere/photo_{i}.jpg" for i in range(18)]


class Stream(IterableDataset):
    def __init__(self, items, size=None):
        self.items = items

    def __iter__(self):
        return iter(self.items)


class Regrouped(Dataset):
    """Its items have other labels than its targets, as a user's own ``__getitem__`` makes them."""

    classes = ["kind a", "kind b", "kind c", "kind d", "kind e", "kind f"]

    def __init__(self, toys):
        self.toys, self.reads = toys, 0
        self.targets = [label + 3 for label in toys.targets]

    def __len__(self):
        return len(self.toys)

    def __getitem__(self, index):
        self.reads += 1
        image, label, _ = self.toys[index]
        return image, label
