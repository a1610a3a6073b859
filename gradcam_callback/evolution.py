"""The maps kept over a run for the strips: few, small, evenly spaced, the first and the last always among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

Kept = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Frame:
    """One logged epoch: its heading, each image's probability of the explained class, and each layer's maps.

    ``maps`` holds ``(N, h, w)`` uint8, each map divided by its largest value.
    """

    heading: str
    probabilities: Sequence[float]
    maps: Mapping[str, Kept]


class Evolution:
    """Frames of a run of any length. Memory is bounded: past twice ``columns`` every second frame is let go."""

    def __init__(self, columns: int = 12) -> None:
        self.columns = columns
        self._kept: list[Frame] = []
        self._last: Frame | None = None
        self._stride, self._seen = 1, 0

    def add(self, frame: Frame) -> None:
        if self._seen % self._stride == 0:
            self._kept.append(frame)
        if len(self._kept) > 2 * self.columns:
            self._kept = self._kept[::2]
            self._stride *= 2
        self._last = frame
        self._seen += 1

    def frames(self) -> list[Frame]:
        """At most ``columns`` frames, evenly spaced, from the first to the last."""
        frames = list(self._kept)
        if self._last is not None and frames[-1] is not self._last:
            frames.append(self._last)
        if len(frames) <= self.columns:
            return frames
        picked = np.linspace(0, len(frames) - 1, self.columns).round().astype(int)
        return [frames[i] for i in picked]


def shrink(maps: np.ndarray[Any, np.dtype[Any]], longest: int) -> Kept:
    """Raw maps ``(N, h, w)`` -> uint8 of at most ``longest`` cells a side, each divided by its largest value."""
    factor = min(1.0, longest / max(maps.shape[1:]))
    size = max(1, round(maps.shape[2] * factor)), max(1, round(maps.shape[1] * factor))
    small = np.stack(
        [np.asarray(Image.fromarray(raw.astype(np.float32)).resize(size, Image.Resampling.BOX)) for raw in maps]
    )
    largest = small.max(axis=(1, 2), keepdims=True)
    return np.rint(small / np.where(largest > 0, largest, 1) * 255).astype(np.uint8)
