"""The networks of both studies: a pretrained VGG16 with a fresh head, its first blocks frozen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from pretrained import for_finetuning
from torch import Tensor, nn
from torch.nn import functional

BATCH = 24


class Finetuning:
    """A pretrained network whose last modules are fine-tuned on images, again and again.

    Each image goes through the frozen modules once, since these are the same in all networks of a study.

    Args:
        classes: the number of classes.
        frozen: the number of frozen modules of ``features``.

    Attributes:
        network: takes RGB in 0..1, in eval mode.
    """

    def __init__(self, classes: int, frozen: int) -> None:
        self._classes, self._n_frozen = classes, frozen
        self._kept: dict[bytes, Tensor] = {}
        self.start_again()

    def start_again(self) -> None:
        """Load the pretrained modules, and make a fresh head."""
        network = for_finetuning("demo", self._classes).eval()
        self.network = network.to(memory_format=torch.channels_last)
        modules = list(self.network.features.children())
        self._frozen = nn.Sequential(*modules[: self._n_frozen]).requires_grad_(False)
        self._tail = nn.Sequential(*modules[self._n_frozen :], self.network.classifier)

    def fit(self, images: Tensor, labels: Tensor, epochs: int, seed: int) -> Iterator[int]:
        """Fine-tune a fresh network on images ``(n, 3, H, W)`` in 0..1. Yield the number of each epoch after it."""
        torch.manual_seed(seed)
        self.start_again()
        features, head = self.features(images), self._tail[-1]
        convolutions = list(self._tail[:-1].parameters())
        optimizer = torch.optim.AdamW([{"params": convolutions, "lr": 1e-4}, {"params": head.parameters(), "lr": 1e-3}])
        order = torch.Generator().manual_seed(seed)
        for epoch in range(1, epochs + 1):
            for batch in torch.randperm(len(labels), generator=order).split(BATCH):
                loss = functional.cross_entropy(self._tail(features[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            yield epoch

    @torch.no_grad()
    def predict(self, images: Tensor, _: Tensor | None = None) -> Tensor:
        """Return logits ``(n, K)`` of images ``(n, 3, H, W)`` in 0..1."""
        return torch.cat([self._tail(chunk) for chunk in self.features(images).split(120)])

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Return the accuracy, 0..1."""
        return float((self.predict(images).argmax(dim=1) == labels).double().mean())

    def save(self, path: Path) -> None:
        """Save the fine-tuned modules in half precision. The evaluation reads the same file."""
        half = {name: value.half() for name, value in self._tail.state_dict().items()}
        partial = path.with_suffix(".partial")
        torch.save(half, partial)
        partial.rename(path)

    def load(self, path: Path) -> None:
        """Load fine-tuned modules."""
        self._tail.load_state_dict(torch.load(path, weights_only=True))

    def forget(self) -> None:
        """Free the memory of the images."""
        self._kept.clear()

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the output of the frozen modules for images ``(n, 3, H, W)``."""
        keys = [image.numpy().tobytes() for image in images]
        new = [i for i, key in enumerate(keys) if key not in self._kept]
        for part in torch.tensor(new, dtype=torch.long).split(120):
            chunk = (images[part] - self.network.mean) / self.network.std
            self._kept |= {keys[i]: each for i, each in zip(part.tolist(), self._frozen(chunk), strict=True)}
        return torch.stack([self._kept[key] for key in keys])
