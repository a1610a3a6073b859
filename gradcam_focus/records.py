"""The records of a run: what they are called in an event file, and how they become what the page reads."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PLUGIN = "gradcam_focus"
VERSION = 1

# The tags below the prefix of a run. ``start`` is logged once, and all others at every entry.
START, ENTRY, MAPS = "focus/start", "focus/entry", "focus/maps"


def start_tag(prefix: str) -> str:
    """Return the tag of the record that describes a run."""
    return f"{prefix}/{START}"


def entry_tag(prefix: str) -> str:
    """Return the tag of the records of all entries."""
    return f"{prefix}/{ENTRY}"


def maps_tag(prefix: str, layer: str) -> str:
    """Return the tag of the maps of a layer."""
    return f"{prefix}/{MAPS}/{layer}"


def prefixes(tags: Iterable[str]) -> list[str]:
    """Return the prefix of every run that some tags belong to, sorted."""
    end = f"/{START}"
    return sorted(tag.removesuffix(end) for tag in tags if tag.endswith(end))


def newest(records: Sequence[tuple[int, bytes]]) -> dict[int, bytes]:
    """Return step -> record, sorted by step. A resumed run logs some steps again; the last record of a step wins."""
    return dict(sorted(dict(records).items()))


def check_version(start: Mapping[str, Any]) -> None:
    """Refuse records of another version.

    Raises:
        ValueError: another version of this package wrote them.
    """
    found = start.get("version")
    if found != VERSION:
        raise ValueError(
            f"Expected records of version {VERSION}, but got version {found!r}. Read the run with the version of "
            "gradcam_callback that wrote it."
        )


def describe_log(start: bytes, entries: Mapping[int, bytes], after: int = -1) -> dict[str, Any]:
    """Return a run as the page reads it.

    Args:
        start: the record of the run.
        entries: step -> record.
        after: leaves out the entries up to this step.

    Raises:
        ValueError: another version of this package wrote it, or it is damaged.
    """
    described: dict[str, Any] = json.loads(start)
    check_version(described)
    return {"start": described, "entries": [json.loads(entry) for step, entry in entries.items() if step > after]}


def describe_maps(records: Mapping[int, bytes], after: int = -1) -> dict[str, list[Any]]:
    """Return the maps of one layer as the page reads them.

    Args:
        records: step -> the maps of an entry. ``gradcam_callback.run.recording`` says what their bytes mean.
        after: leaves out the entries up to this step.
    """
    shown = {step: record for step, record in records.items() if step > after}
    return {"steps": list(shown), "maps": [base64.b64encode(record).decode() for record in shown.values()]}
