"""The records of a run: what they are called in an event file, and how they become what the page reads."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

PLUGIN = "gradcam_focus"
VERSION = 3

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


def by_number(name: str) -> list[int | str]:
    """Return a key that sorts names by the numbers in them: ``version_2`` comes before ``version_10``."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


class Record(NamedTuple):
    """A record of a step, and when it was written, in seconds."""

    step: int
    time: float
    content: bytes


def newest(found: Iterable[Record]) -> dict[int, Record]:
    """Return step -> record, sorted by step. A resumed run logs some steps again; the last writer of a step wins."""
    return {record.step: record for record in sorted(found, key=lambda record: (record.step, record.time))}


def latest(found: Iterable[Record]) -> Record | None:
    """Return the record that was written last; None if there is none."""
    return max(found, key=lambda record: record.time, default=None)


def of_run(start: Record, found: Iterable[Record]) -> dict[int, Record]:
    """Return step -> record of those entries that belong to the run that was started last, sorted by step.

    A folder may hold the entries of an earlier training, and those that a resumed run has gone back behind.

    Args:
        start: the last record of a start. It names the steps that its run goes on from.
        found: all records of entries.
    """
    goes_on_from = set(json.loads(start.content)["goes_on_from"])
    return {step: record for step, record in newest(found).items() if record.time >= start.time or step in goes_on_from}


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


def describe_start(start: bytes) -> dict[str, Any]:
    """Return the start of a run as the page reads it.

    Raises:
        ValueError: another version of this package wrote it, or it is damaged.
    """
    described: dict[str, Any] = json.loads(start)
    check_version(described)
    return described


def describe_maps(maps: Mapping[int, bytes]) -> dict[str, list[Any]]:
    """Return the maps of one layer as the page reads them.

    Args:
        maps: step -> the maps of an entry. ``gradcam_callback.run.recording`` says what their bytes mean.
    """
    return {"steps": list(maps), "maps": [base64.b64encode(packed).decode() for packed in maps.values()]}
