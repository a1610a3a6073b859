"""What a run has seen so far, which a checkpoint carries and a resumed run goes on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from gradcam_callback.probes.probe_set import ProbeSet
from gradcam_callback.run.evolution import Evolution

# A probe set is known again by small copies of its images, which may differ by so much of their range: other machines
# decode and resize a little differently.
THUMBNAIL, TOLERANCE = 8, 0.03


class Record:
    """The history and the strips of one probe set and one choice of layers.

    Attributes:
        history: one dict per entry, ``"epoch"``, ``"step"`` and every scalar under its tag.
        evolution: the maps kept for the strips.
        said: whether it has been said that a shortcut is suspected.
    """

    def __init__(self) -> None:
        self.history: list[dict[str, float]] = []
        self.evolution = Evolution()
        self.said = False
        self._seen: dict[str, Any] | None = None

    def watch(self, probe: ProbeSet, layers: Sequence[str]) -> bool:
        """Be of these from now on. False where there are entries that are not, with which it then starts anew."""
        before, now = self._seen, _signature(probe, layers)
        same = not self.history or (before is not None and _is_same(before, now))
        if not same:
            self.history, self.evolution, self.said = [], Evolution(), False
        self._seen = now
        return same

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        return {
            "history": self.history,
            "said": self.said,
            "evolution": self.evolution.state_dict(),
            "seen": self._seen,
        }

    @classmethod
    def from_state_dict(cls, state: Any) -> Record:
        """Raises: KeyError, TypeError, ValueError: not what `state_dict` gives."""
        if not isinstance(state, Mapping):
            raise TypeError(f"the state is a {type(state).__name__}")
        record = cls()
        record.history = [dict(entry) for entry in state["history"]]
        for entry in record.history:
            numbers = all(isinstance(name, str) and isinstance(value, (int, float)) for name, value in entry.items())
            if not numbers or not all(type(entry[name]) is int for name in ("epoch", "step")):
                raise ValueError("an entry is not of an epoch, a step and numbers")
        if not isinstance(state["said"], bool):
            raise TypeError("it does not say whether a shortcut was suspected")
        record.said = state["said"]
        record.evolution.load_state_dict(state["evolution"])
        if record.history:
            record._seen = seen = _checked_signature(state["seen"])
            if not record.evolution.fits(len(seen["labels"]), seen["layers"]):
                raise ValueError("the maps are not of the images and layers that it names")
        return record


def _signature(probe: ProbeSet, layers: Sequence[str]) -> dict[str, Any]:
    masks = torch.zeros(len(probe), *probe.images.shape[2:]) if probe.masks is None else probe.masks
    planes = torch.cat([probe.images.float().cpu(), masks[:, None].float().cpu()], dim=1)
    return {
        "layers": list(layers),
        "labels": probe.labels.tolist(),
        "size": list(probe.images.shape[2:]),
        "thumbnails": adaptive_avg_pool2d(planes, THUMBNAIL),
    }


def _checked_signature(seen: Any) -> dict[str, Any]:
    if not isinstance(seen, Mapping):
        raise TypeError("it does not say what it is of")
    thumbnails, lists = seen["thumbnails"], {name: list(seen[name]) for name in ("layers", "labels", "size")}
    if not isinstance(thumbnails, Tensor) or not thumbnails.is_floating_point():
        raise TypeError("the images' small copies are no tensor of numbers")
    if not all(isinstance(value, str if name == "layers" else int) for name in lists for value in lists[name]):
        raise TypeError("its layers, labels or sizes are none")
    return {**lists, "thumbnails": thumbnails}


def _is_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    was, thumbnails = before["thumbnails"], now["thumbnails"]
    if any(before[name] != now[name] for name in ("layers", "labels", "size")) or was.shape != thumbnails.shape:
        return False
    span = float(thumbnails.max() - thumbnails.min())
    return bool(((was - thumbnails).abs() <= TOLERANCE * span).all())
