"""State of a run: its history and the maps for its strips. Saved in checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from gradcam_callback.measures import Verdict
from gradcam_callback.probes import ProbeSet
from gradcam_callback.run.signature import Signature, describe_inputs, is_same, read_signature, sign
from gradcam_callback.run.snapshots import Snapshot, take_snapshot
from gradcam_callback.run.tags import Tags

FORMAT = 1
# The number of columns of a strip.
COLUMNS = 12
# Strips are drawn at each of the first entries, then when there is half as much more to show.
ALWAYS_DRAWN, REDRAWN = 6, 1.5
# Panels are kept for each of the first entries, as many as TensorBoard shows, then when there is half as much more.
ALWAYS_KEPT, KEPT = 10, 1.5


class RunState:
    """History and maps of one probe set and one list of layers.

    Memory is bounded: once there are more than twice ``columns`` snapshots, every second one is dropped.

    Args:
        columns: how many snapshots a strip shows at most.

    Attributes:
        history: one dict per entry: ``"epoch"``, ``"step"`` and every scalar under its name without prefix.
        in_part: for each entry, True if it asked a part of the interventions.
        previous: layer -> raw maps ``(N, h, w)`` of the last entry; empty before the first one.
        vmax: layer -> the largest value of any of its maps so far.
        verdict: of the last entry; None without labels.
        warned: True once the user has been told of a suspected shortcut.
    """

    def __init__(self, columns: int = COLUMNS) -> None:
        self.columns = columns
        self._signature: Signature | None = None
        self._inputs: dict[str, Any] | None = None
        self._clear()

    def _clear(self) -> None:
        self.history: list[dict[str, float]] = []
        self.in_part: list[bool] = []
        self.previous: dict[str, Tensor] = {}
        self.vmax: dict[str, float] = {}
        self.verdict: Verdict | None = None
        self.warned = False
        self._snapshots: list[Snapshot] = []
        self._last: Snapshot | None = None
        self._stride, self._drawn = 1, 0

    def watch(self, probe: ProbeSet, layers: Sequence[str]) -> bool:
        """Bind the state to a probe set and layers.

        Returns:
            False if the entries so far are of other images or layers; the state then starts anew.
        """
        saved, now = self._signature, sign(probe, layers)
        # A new state has no entries yet, so it is of any images.
        same = not self.history or (saved is not None and is_same(saved, now))
        if not same:
            self._clear()
        self._signature, self._inputs = now, describe_inputs(probe)
        return same

    def add(
        self,
        scalars: Mapping[str, float],
        probabilities: Sequence[float],
        targets: Sequence[int],
        maps: Mapping[str, Tensor],
        in_part: bool = False,
    ) -> None:
        """Add an entry.

        Args:
            scalars: ``"epoch"`` (-1 before training), ``"step"``, and metrics by name.
            probabilities: this and the next as in `Snapshot`.
            maps: layer -> raw maps ``(N, h, w)``, on the CPU.
            in_part: True if the entry asked a part of the interventions.
        """
        heading = epoch_heading(scalars["epoch"])
        self.previous = dict(maps)
        for layer, raw in maps.items():
            self.vmax[layer] = max(self.vmax.get(layer, 0.0), float(raw.max()))
        self._last = take_snapshot(heading, probabilities, targets, maps)
        # Every ``stride``-th entry is kept. Dropping every second one keeps the rest evenly spaced at twice the stride.
        if len(self.history) % self._stride == 0:
            self._snapshots.append(self._last)
        if len(self._snapshots) > 2 * self.columns:
            self._snapshots = self._snapshots[::2]
            self._stride *= 2
        self.history.append(dict(scalars))
        self.in_part.append(in_part)

    def is_due(self, epoch: int, every_n_epochs: int) -> bool:
        """Return True if an epoch is the first to be logged, the one of the last entry, or n epochs behind it."""
        last = self.history[-1]["epoch"] if self.history else -1
        return last < 0 or not 0 < epoch - last < every_n_epochs

    def tagged_history(self, names: Tags) -> list[dict[str, float]]:
        """Return the history with every scalar under its tag."""
        return [
            {name if name in ("epoch", "step") else names(name): value for name, value in entry.items()}
            for entry in self.history
        ]

    def snapshots(self) -> list[Snapshot]:
        """Return at most ``columns`` snapshots, evenly spaced, the first and the last entry among them."""
        if self._last is None:
            return []
        count = len(self.history)
        last_is_kept = (count - 1) % self._stride == 0
        # Of the kept snapshots show every first, second, ... until they fit, with one column more for the last entry.
        every = 1
        while (len(self._snapshots) - 1) // every + (
            not last_is_kept or (len(self._snapshots) - 1) % every > 0
        ) >= self.columns:
            every += 1
        shown, spacing = self._snapshots[::every], every * self._stride
        rest = count - 1 - (len(shown) - 1) * spacing
        if rest:
            # The last entry falls between two places. Close behind another column, it takes the place of this column.
            close = len(shown) > 1 and rest < spacing / 2
            shown = [*(shown[:-1] if close else shown), self._last]
        return shown

    def strips_are_due(self, at_end: bool) -> bool:
        """Return True if the strips are to be drawn now, and take note that they are.

        Strips at every entry of a long run would fill most of its event file. So only the first few entries draw them
        all. Later they are drawn each time that the run has grown by half, and at the end.
        """
        count = len(self.history)
        always = at_end or count <= ALWAYS_DRAWN
        due = count > self._drawn if always else count >= REDRAWN * self._drawn
        if due:
            self._drawn = count
        return due

    def panels_are_due(self) -> bool:
        """Return True if the last entry is one of those whose panels a writer without much room keeps."""
        count = len(self.history)
        if count <= ALWAYS_KEPT:
            return True
        passed = [math.floor(math.log(number / ALWAYS_KEPT, KEPT)) for number in (count - 1, count)]
        return passed[0] < passed[1]

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values only, so that ``torch.load(weights_only=True)`` reads them."""
        last, previous = self._last, None
        if last is not None:
            # With all cells, since the next drift is measured against these maps.
            previous = take_snapshot(last.heading, last.probabilities, last.targets, self.previous, max_side=None)
        return {
            "format": FORMAT,
            # A copy, as the run goes on: it may be restored later in the same process.
            "history": [dict(entry) for entry in self.history],
            "in_part": list(self.in_part),
            "warned": self.warned,
            "verdict": None if self.verdict is None else asdict(self.verdict),
            "snapshots": [dict(vars(snapshot)) for snapshot in self._snapshots],
            "last": None if last is None else dict(vars(last)),
            "previous": None if previous is None else dict(vars(previous)),
            "vmax": dict(self.vmax),
            "counts": (self._stride, self._drawn),
            "signature": self._signature,
            "inputs": self._inputs,
        }

    @classmethod
    def from_state_dict(cls, saved: Any) -> RunState:
        """Restore a state from a checkpoint.

        Raises:
            KeyError, TypeError, ValueError: it is not what `state_dict` returns, or has another format.
        """
        if not isinstance(saved, Mapping):
            raise TypeError(f"the state is a {type(saved).__name__}")
        if saved.get("format") != FORMAT:
            raise ValueError(f"the state has format {saved.get('format')!r}; this version reads format {FORMAT}")
        state = cls()
        state.history, state.in_part = _read_history(saved["history"]), list(saved["in_part"])
        if len(state.in_part) != len(state.history) or not all(isinstance(part, bool) for part in state.in_part):
            raise ValueError("the state does not say of each entry if it asked a part")
        # From here on a checkpoint may hold anything: it may have been edited, or cut off by a full disk.
        if not isinstance(saved["warned"], bool):
            raise TypeError("the state does not say whether a shortcut was suspected")
        state.warned = saved["warned"]
        # The fields are not checked further, since nothing is computed from a verdict.
        state.verdict = None if saved["verdict"] is None else Verdict(**saved["verdict"])
        state._read_snapshots(saved)
        state._inputs = saved.get("inputs")
        if state.history:
            state._signature = signature = read_signature(saved["signature"])
            fits = signature["watched"] <= len(signature["labels"])
            if not (fits and state._is_of(signature["watched"], signature["layers"])):
                raise ValueError("the maps are not of the images and layers that the state names")
        return state

    def _read_snapshots(self, saved: Mapping[str, Any]) -> None:
        snapshots = [Snapshot(**values) for values in saved["snapshots"]]
        last, previous = (None if saved[name] is None else Snapshot(**saved[name]) for name in ("last", "previous"))
        stride, drawn = saved["counts"]
        count = len(self.history)
        if not all(isinstance(value, int) for value in (stride, drawn)) or stride < 1 or not 0 <= drawn <= count:
            raise ValueError(f"the counts of the snapshots are {saved['counts']!r}")
        if len(snapshots) != -(-count // stride) or any((one is None) != (count == 0) for one in (last, previous)):
            raise ValueError(f"the state has {len(snapshots)} snapshots of {count} entries")
        if last is not None and not all(one is not None and one.matches(last) for one in (*snapshots, previous)):
            raise ValueError("the snapshots are not all of the same images and layers")
        if not isinstance(saved["vmax"], Mapping):
            raise TypeError("the largest values by layer are no mapping")
        for layer, value in saved["vmax"].items():
            if not (isinstance(layer, str) and isinstance(value, (int, float)) and 0 <= value < math.inf):
                raise ValueError(f"the largest value of layer {layer!r} is {value!r}")
        self._snapshots, self.vmax = snapshots, dict(saved["vmax"])
        self._stride, self._drawn, self._last = stride, drawn, last
        if previous is not None:
            self.previous = {layer: previous.raw(layer) for layer in previous.maps}

    def _is_of(self, images: int, layers: Sequence[str]) -> bool:
        last = self._last
        return last is None or (len(last.targets) == images and list(last.maps) == list(layers))


def epoch_heading(epoch: float) -> str:
    """Return what an epoch is called in images: ``"start"`` before training, else its number."""
    return "start" if epoch < 0 else f"{epoch:.0f}"


def _read_history(saved: Any) -> list[dict[str, float]]:
    history = [dict(entry) for entry in saved]
    for entry in history:
        valid = all(isinstance(name, str) and isinstance(value, (int, float)) for name, value in entry.items())
        if not valid or not all(type(entry[name]) is int for name in ("epoch", "step")):
            raise ValueError("an entry of the history is not an epoch, a step and numbers")
    return history
