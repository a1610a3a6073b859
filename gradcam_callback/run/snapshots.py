"""Snapshots: the maps of one logged epoch, small enough to be kept over a run and in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

# Cells a side of a kept map: as many as a strip's cell shows, and few enough for a checkpoint.
KEPT_SIDE = 32


@dataclass(frozen=True)
class Snapshot:
    """The maps of N images at one logged epoch, in 8 bits.

    Attributes:
        heading: the text above its column, such as ``"3"`` for epoch 3.
        probabilities: ``(N,)``, 0..1, of the class that each map explains.
        targets: ``(N,)``, the index of this class.
        maps: layer -> ``(N, h, w)`` uint8, each map divided by its maximum.
        vmax: layer -> ``(N,)``, the maximum of each map.

    Raises:
        TypeError, ValueError: a value is not as described. Checkpoints can be edited or damaged.
    """

    heading: str
    probabilities: Sequence[float]
    targets: Sequence[int]
    maps: Mapping[str, Tensor]
    vmax: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        n = len(self.targets)
        valid = isinstance(self.heading, str) and len(self.probabilities) == n > 0
        valid = valid and all(isinstance(target, int) for target in self.targets)
        # A probability may be NaN, as logits may be.
        valid = valid and all(isinstance(p, (int, float)) and not (p < 0 or p > 1) for p in self.probabilities)
        valid = valid and all(isinstance(by_layer, Mapping) for by_layer in (self.maps, self.vmax))
        if not valid or self.maps.keys() != self.vmax.keys():
            raise ValueError(f"The saved snapshot {self.heading!r} is damaged: its {n} images are incomplete.")
        for layer, maps in self.maps.items():
            if not (isinstance(layer, str) and _are_valid(maps, self.vmax[layer], n)):
                raise ValueError(
                    f"The saved snapshot {self.heading!r} is damaged: expected maps of {n} images at {layer!r}."
                )

    def raw(self, layer: str) -> Tensor:
        """Return the raw maps of a layer, ``(N, h, w)`` float32, exact to 1/255 of each map's maximum."""
        return self.maps[layer].float() * self.vmax[layer].float()[:, None, None] / 255

    def map_of(self, layer: str, i: int) -> np.ndarray[Any, np.dtype[Any]]:
        """Return the raw map ``(h, w)`` of an image, exact to 1/255 of its maximum."""
        values: np.ndarray[Any, np.dtype[Any]] = (self.maps[layer][i].double() * self.vmax[layer][i] / 255).numpy()
        return values

    def matches(self, other: Snapshot) -> bool:
        """Return True if both are of the same number of images and the same layers."""
        return len(self.targets) == len(other.targets) and list(self.maps) == list(other.maps)


def take_snapshot(
    heading: str,
    probabilities: Sequence[float],
    targets: Sequence[int],
    maps: Mapping[str, Tensor],
    max_side: int | None = KEPT_SIDE,
) -> Snapshot:
    """Reduce raw maps to a snapshot.

    Args:
        heading: this and the next two as in `Snapshot`.
        maps: layer -> raw maps ``(N, h, w)``.
        max_side: cells a side at most; None keeps all of them.
    """
    reduced = {layer: shrink(raw, max_side or max(raw.shape[1:])) for layer, raw in maps.items()}
    return Snapshot(
        heading,
        probabilities,
        targets,
        {layer: values for layer, (values, _) in reduced.items()},
        {layer: vmax for layer, (_, vmax) in reduced.items()},
    )


def shrink(maps: Tensor, max_side: int) -> tuple[Tensor, Tensor]:
    """Shrink raw maps by averaging cells.

    Args:
        maps: ``(N, h, w)``, raw.
        max_side: cells a side at most.

    Returns:
        The small maps as uint8, each divided by its maximum, and these maxima ``(N,)``.
    """
    factor = min(1.0, max_side / max(maps.shape[1:]))
    size = max(1, round(maps.shape[2] * factor)), max(1, round(maps.shape[1] * factor))
    values = maps.float().numpy()
    small = values
    # Most layers are as small already.
    if size != values.shape[:0:-1]:
        small = np.stack([np.asarray(Image.fromarray(raw).resize(size, Image.Resampling.BOX)) for raw in values])
    vmax = small.max(axis=(1, 2))
    scaled = small / np.where(vmax > 0, vmax, 1)[:, None, None] * 255
    return torch.from_numpy(np.rint(scaled).astype(np.uint8)), torch.from_numpy(vmax)


def _are_valid(maps: Any, vmax: Any, n: int) -> bool:
    if not (isinstance(maps, Tensor) and maps.dtype == torch.uint8 and maps.ndim == 3 and len(maps) == n):
        return False
    if not (isinstance(vmax, Tensor) and vmax.is_floating_point() and vmax.shape == (n,)):
        return False
    return maps.numel() > 0 and bool(((vmax >= 0) & vmax.isfinite()).all())
