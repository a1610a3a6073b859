"""Read the records of a run, from event files or from plain files."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gradcam_callback.writers import HISTORY, START, places_of, record_file
from gradcam_focus import records


@dataclass(frozen=True)
class LoggedRun:
    """The records of a run, of one callback.

    Attributes:
        folder: they were read from.
        prefix: of the tags.
        start: describes the run, see `gradcam_callback.run.recording`.
        entries: step -> the logged validation.
        maps: layer -> step -> the maps as they were packed.
    """

    folder: Path
    prefix: str
    start: Mapping[str, Any]
    entries: Mapping[int, Mapping[str, Any]]
    maps: Mapping[str, Mapping[int, bytes]]

    @property
    def name(self) -> str:
        """Return the name of the run: of its folder, or of the folder above Lightning's ``version_<n>``."""
        folder = self.folder.resolve()
        if re.fullmatch(r"version_\d+|lightning_logs", folder.name) and folder.parent.name:
            return f"{folder.parent.name}/{folder.name}"
        return folder.name

    def pick(self, max_epochs: int) -> list[int]:
        """Return the steps of at most ``max_epochs`` entries, evenly spread, with the last and the first."""
        steps, count = list(self.entries), len(self.entries)
        # Backwards, since of one entry the last one counts.
        places = np.linspace(count - 1, 0, min(max_epochs, count)).round()
        return [steps[int(place)] for place in np.unique(places)]

    def describe(self, max_epochs: int) -> dict[str, Any]:
        """Return the run as the page reads it, with the maps and answers of at most so many entries.

        The curves of the page have all entries. The numbers of those that are left out are ``"others"``.
        """
        shown = self.pick(max_epochs)
        maps = {
            layer: records.describe_maps({step: of_layer[step] for step in shown if step in of_layer})
            for layer, of_layer in self.maps.items()
        }
        # The record does not know of the prefix of a logger, which tells two runs in one folder apart.
        start = {**self.start, "prefix": self.prefix}
        others = [self.entries[step] for step in self.entries if step not in shown]
        # A list for each scalar is a quarter of the size of a dict for each entry.
        names = dict.fromkeys(name for entry in others for name in entry["scalars"])
        scalars = {name: [entry["scalars"].get(name) for entry in others] for name in names}
        return {
            "start": start,
            "entries": [self.entries[step] for step in shown],
            "others": {key: [entry[key] for entry in others] for key in ("step", "epoch", "judged")}
            | {"probe_accuracy": [(entry["verdict"] or {}).get("probe_accuracy") for entry in others]}
            | {"scalars": scalars},
            "maps": maps,
        }


def read_runs(folder: Path, tag_prefix: str | None = None) -> list[LoggedRun]:
    """Read what was logged in a folder: a run for each callback.

    Args:
        folder: of a TensorBoard run, of ``save_dir`` or of ``save_maps``.
        tag_prefix: see `write_report`.

    Raises:
        ValueError: the folder holds no run of this package, or one of another version.
    """
    is_logged = any(folder.glob("events.out.tfevents.*"))
    if not is_logged and not (folder / HISTORY).exists():
        places = (*folder.glob("**/events.out.tfevents.*"), *folder.glob(f"**/{HISTORY}"))
        below = sorted({path.parent for path in places})
        hint = f"Below it there are runs, such as {below[0]}." if below else "Check the path."
        raise ValueError(
            f"Expected the folder of one run, but {str(folder)!r} holds no event file and no {HISTORY}. {hint}"
        )
    # Another program may have written a history.json beside the event files.
    found = _read_folder(folder) or (_read_events(folder) if is_logged else [])
    if not found:
        raise ValueError(
            f"Expected records of a GradCAMCallback, but {str(folder)!r} holds none. Choose the folder of a run that "
            "this version of the callback logged."
        )
    prefixes = [run.prefix for run in found]
    if tag_prefix is not None and tag_prefix not in prefixes:
        raise ValueError(
            f"Expected one of the prefixes {', '.join(map(repr, prefixes))}, but got {tag_prefix!r}. Pass one of them."
        )
    chosen = [run for run in found if tag_prefix in (None, run.prefix)]
    # A callback that waits for its first validation, or a test that was interrupted, hides no other.
    logged = [run for run in chosen if run.entries]
    if not logged:
        raise ValueError(
            f"Expected a logged validation, but the run {chosen[0].prefix!r} in {str(folder)!r} has none. Wait for the "
            "first validation."
        )
    return logged


def _read_folder(folder: Path) -> list[LoggedRun]:
    if not (folder / START).exists() or not (folder / HISTORY).exists():
        return []
    start = json.loads((folder / START).read_text(encoding="utf-8"))
    records.check_version(start)
    history = json.loads((folder / HISTORY).read_text(encoding="utf-8"))["history"]
    # A run that was resumed from an earlier checkpoint may have left records that are no part of its history.
    steps = sorted(places_of(history))
    entries, maps = {}, {layer: dict[int, bytes]() for layer in start["layers"]}
    for step in steps:
        path = folder / record_file(step)
        if path.exists():
            saved = json.loads(path.read_text(encoding="utf-8"))
            # Resumed with other layers, a run starts anew. Until its first entry, the history is that of before.
            if saved["maps"].keys() != maps.keys():
                continue
            entries[step] = saved["entry"]
            for layer, packed in saved["maps"].items():
                maps[layer][step] = base64.b64decode(packed)
    return [LoggedRun(folder, start["prefix"], start, entries, maps)]


def _read_events(folder: Path) -> list[LoggedRun]:
    # Images and scalars are not needed, so one of each is kept.
    events = EventAccumulator(str(folder), size_guidance={"images": 1, "scalars": 1, "tensors": 0})
    events.Reload()  # reads all files of the folder, also those of a resumed run
    found = events.Tags()["tensors"]

    def read(tag: str) -> list[records.Record]:
        of_tag = events.Tensors(tag) if tag in found else []
        return [records.Record(each.step, each.wall_time, each.tensor_proto.string_val[0]) for each in of_tag]

    runs = []
    for prefix in records.prefixes(found):
        # There is one, since the prefix was found by it.
        start = max(read(records.start_tag(prefix)), key=lambda record: record.time)
        described = records.describe_start(start.content)
        logged = records.of_run(start, read(records.entry_tag(prefix)))
        entries = {step: json.loads(entry.content) for step, entry in logged.items()}
        maps = {
            layer: {step: each.content for step, each in records.newest(read(records.maps_tag(prefix, layer))).items()}
            for layer in described["layers"]
        }
        runs.append(LoggedRun(folder, prefix, described, entries, maps))
    return runs
