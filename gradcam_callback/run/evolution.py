"""The maps kept over a run for the strips: few, small, evenly spaced, the first and the last always among them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

# Cells a side of a kept map: as many as a strip's cell shows, and few enough for a checkpoint.
KEPT_SIDE = 32
# Up to so many entries a strip is drawn at each; then when there is half as much more to show.
ALWAYS_DRAWN, REDRAWN = 6, 1.5


@dataclass(frozen=True)
class Frame:
    """One logged epoch of N images.

    Attributes:
        heading: what stands above its column.
        probabilities: ``(N,)``, 0..1, of the class that the maps explain; targets: ``(N,)``, its index.
        maps: layer -> ``(N, h, w)`` uint8, each map divided by its largest value; largest: layer -> ``(N,)``, that.
    """

    heading: str
    probabilities: Sequence[float]
    targets: Sequence[int]
    maps: Mapping[str, Tensor]
    largest: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        """Raises: TypeError, ValueError: one of these is not as above; it comes from a checkpoint that was changed."""
        n = len(self.targets)
        fitting = isinstance(self.heading, str) and len(self.probabilities) == n > 0
        fitting = fitting and all(isinstance(target, int) for target in self.targets)
        # One may be NaN, as logits may be.
        fitting = fitting and all(isinstance(p, (int, float)) and not (p < 0 or p > 1) for p in self.probabilities)
        fitting = fitting and all(isinstance(of_layers, Mapping) for of_layers in (self.maps, self.largest))
        if not fitting or self.maps.keys() != self.largest.keys():
            raise ValueError(f"A kept entry, {self.heading!r}, does not hold what its {n} images need.")
        for layer, maps in self.maps.items():
            if not (isinstance(layer, str) and _are_maps(maps, self.largest[layer], n)):
                raise ValueError(f"A kept entry, {self.heading!r}, does not hold maps of {n} images at {layer!r}.")

    def map_of(self, layer: str, i: int) -> np.ndarray[Any, np.dtype[Any]]:
        """``(h, w)``, the raw values again."""
        values: np.ndarray[Any, np.dtype[Any]] = (self.maps[layer][i].double() * self.largest[layer][i] / 255).numpy()
        return values


class Evolution:
    """Frames of a run of any length. Memory is bounded: past twice ``columns`` every second frame is let go.

    Attributes:
        largest: layer -> the largest value of any of its maps so far.
    """

    def __init__(self, columns: int = 12) -> None:
        self.columns = columns
        self.largest: dict[str, float] = {}
        # Small maps of evenly spaced entries, and all cells of the last entry's, against which drift is measured.
        self._kept: list[Frame] = []
        self._last: Frame | None = None
        self._stride, self._seen, self._drawn = 1, 0, 0

    def add(
        self, heading: str, probabilities: Sequence[float], targets: Sequence[int], maps: Mapping[str, Tensor]
    ) -> None:
        """Keep an entry; arguments as the attributes of a `Frame`, maps raw."""
        self._last = _frame(heading, probabilities, targets, maps, None)
        for layer, raw in maps.items():
            self.largest[layer] = max(self.largest.get(layer, 0.0), float(raw.max()))
        if self._seen % self._stride == 0:
            self._kept.append(_frame(heading, probabilities, targets, maps, KEPT_SIDE))
        if len(self._kept) > 2 * self.columns:
            self._kept = self._kept[::2]
            self._stride *= 2
        self._seen += 1

    def frames(self) -> list[Frame]:
        """At most ``columns`` frames, as far apart as each other and of one size, from the first to the last."""
        if self._last is None:
            return []
        last_is_kept = (self._seen - 1) % self._stride == 0
        every = 1
        while (len(self._kept) - 1) // every + (not last_is_kept or (len(self._kept) - 1) % every > 0) >= self.columns:
            every += 1
        frames, apart = self._kept[::every], every * self._stride
        rest = self._seen - 1 - (len(frames) - 1) * apart
        if rest:
            # The last comes when it comes; where that is close behind another, it takes the place of that.
            last = self._last
            small = _frame(last.heading, last.probabilities, last.targets, self.last_maps(), KEPT_SIDE)
            frames = [*(frames[:-1] if len(frames) > 1 and rest < apart / 2 else frames), small]
        return frames

    def last_maps(self) -> dict[str, Tensor]:
        """The maps of the last entry, layer -> ``(N, h, w)``, to a step of 256 of each; empty before the first."""
        if self._last is None:
            return {}
        return {
            layer: kept.float() * self._last.largest[layer][:, None, None] / 255
            for layer, kept in self._last.maps.items()
        }

    def is_due(self, at_the_end: bool) -> bool:
        """Whether a strip is to be drawn now, and remember that it is.

        Drawn at every entry, the strips of a long run would be most of its event file, so after the first few they are
        drawn each time that half as many entries have come as were shown before, and at the end.
        """
        always = at_the_end or self._seen <= ALWAYS_DRAWN
        due = self._seen > self._drawn if always else self._seen >= REDRAWN * self._drawn
        if due:
            self._drawn = self._seen
        return due

    def fits(self, images: int, layers: Sequence[str]) -> bool:
        """Whether what is kept is of that many images and those layers."""
        last = self._last
        return last is None or (len(last.targets) == images and list(last.maps) == list(layers))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        kept = [dict(vars(frame)) for frame in self._kept]
        last = None if self._last is None else dict(vars(self._last))
        counts = self._stride, self._seen, self._drawn
        return {"kept": kept, "last": last, "largest": dict(self.largest), "counts": counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises: KeyError, TypeError, ValueError: not what `state_dict` gives."""
        if not isinstance(state, Mapping) or not isinstance(state["largest"], Mapping):
            raise TypeError("The kept entries are no mapping.")
        kept = [Frame(**frame) for frame in state["kept"]]
        last = None if state["last"] is None else Frame(**state["last"])
        stride, seen, drawn = state["counts"]
        if not all(isinstance(count, int) for count in (stride, seen, drawn)) or not 0 <= drawn <= seen or stride < 1:
            raise ValueError(f"The counts of kept entries are {state['counts']!r}.")
        if len(kept) != -(-seen // stride) or (last is None) != (seen == 0):
            raise ValueError("The counts of kept entries do not fit them.")
        if last is not None and any(not _are_alike(frame, last) for frame in kept):
            raise ValueError("The kept entries are not all of the same images and layers.")
        for layer, value in state["largest"].items():
            if not (isinstance(layer, str) and isinstance(value, (int, float)) and 0 <= value < math.inf):
                raise ValueError(f"The largest value of layer {layer!r} is {value!r}.")
        self._kept, self._last, self.largest = kept, last, dict(state["largest"])
        self._stride, self._seen, self._drawn = stride, seen, drawn


def _are_maps(maps: Any, largest: Any, n: int) -> bool:
    """Whether they are what a `Frame` holds of a layer."""
    if not (isinstance(maps, Tensor) and maps.dtype == torch.uint8 and maps.ndim == 3 and len(maps) == n):
        return False
    if not (isinstance(largest, Tensor) and largest.is_floating_point() and largest.shape == (n,)):
        return False
    return maps.numel() > 0 and bool(((largest >= 0) & largest.isfinite()).all())


def _are_alike(frame: Frame, other: Frame) -> bool:
    return len(frame.targets) == len(other.targets) and list(frame.maps) == list(other.maps)


def _frame(
    heading: str,
    probabilities: Sequence[float],
    targets: Sequence[int],
    maps: Mapping[str, Tensor],
    longest: int | None,
) -> Frame:
    """A frame of raw maps, of at most ``longest`` cells a side; None keeps them all."""
    stretched = {layer: shrink(raw, longest or max(raw.shape[1:])) for layer, raw in maps.items()}
    return Frame(
        heading,
        probabilities,
        targets,
        {layer: values for layer, (values, _) in stretched.items()},
        {layer: largest for layer, (_, largest) in stretched.items()},
    )


def shrink(maps: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Raw maps ``(N, h, w)`` -> uint8 of at most ``longest`` cells a side, each divided by its largest value: those."""
    factor = min(1.0, longest / max(maps.shape[1:]))
    size = max(1, round(maps.shape[2] * factor)), max(1, round(maps.shape[1] * factor))
    values = maps.float().numpy()
    small = np.stack([np.asarray(Image.fromarray(raw).resize(size, Image.Resampling.BOX)) for raw in values])
    largest = small.max(axis=(1, 2))
    stretched = small / np.where(largest > 0, largest, 1)[:, None, None] * 255
    return torch.from_numpy(np.rint(stretched).astype(np.uint8)), torch.from_numpy(largest)
