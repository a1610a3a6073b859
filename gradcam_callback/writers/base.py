"""The interface of all writers, and the description of a run that each of them stores."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np

from gradcam_callback.encoded_image import EncodedImage

FORMAT = 3
# In bytes; file systems take 255.
MAX_NAME_BYTES = 200

Array = np.ndarray[Any, np.dtype[Any]]
# The kind of a chart, such as ``"Multiline"``, and the tags that it shows, by its title.
Charts = dict[str, tuple[str, list[str]]]


@dataclass(frozen=True)
class Manifest:
    """The description of a run, so that other programs find their way in its images and maps.

    Attributes:
        tag_prefix: the first part of all tags of the run.
        names: the name of each probe image.
        labels: the label of each probe image, as an index.
        classes: the label of each probe image, as a word.
        layers: the chosen layers, from input to output.
    """

    tag_prefix: str
    names: Sequence[str]
    labels: Sequence[int]
    classes: Sequence[str]
    layers: Sequence[str]

    def to_json(self) -> str:
        """Return the manifest and its format as JSON."""
        return json.dumps({"format": FORMAT, **vars(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest.

        Raises:
            ValueError: another version of this package wrote it.
        """
        values = json.loads(text)
        found = values.pop("format", None)
        if found != FORMAT:
            raise ValueError(
                f"Expected a manifest of format {FORMAT}, but got format {found!r}. Read the run with the version of "
                "gradcam_callback that wrote it."
            )
        return cls(**values)


@dataclass(frozen=True)
class RunStart:
    """The start of a run: all that a writer is given before the first entry.

    Attributes:
        manifest: the description of the run.
        record: the same with the images, as the Focus tab reads it; JSON. Empty if no writer keeps records.
        images: the probe images, ``(N, H, W, 3)`` uint8.
        masks: ``(N, H, W)`` bool, all False for an image without a mask.
        charts: which scalars belong into one chart.
    """

    manifest: Manifest
    record: str
    images: Array
    masks: Array
    charts: Charts


@dataclass(frozen=True)
class Entry:
    """A logged validation, which a writer is given after its images and its verdict.

    Attributes:
        history: all entries so far, the new one last; scalars under their tags.
        maps: layer -> raw maps ``(N, h, w)``.
        record: the entry as the Focus tab reads it; JSON. Empty if no writer keeps records.
        small_maps: layer -> the maps as the Focus tab reads them. Empty if no writer keeps records.
    """

    history: Sequence[Mapping[str, float]]
    maps: Mapping[str, Array]
    record: str
    small_maps: Mapping[str, bytes]

    @property
    def place(self) -> int:
        """Return the place of the entry, see `places_of`."""
        return places_of(self.history)[-1]


def places_of(history: Iterable[Mapping[str, float]]) -> list[int]:
    """Return a number for each entry, by which its records and files differ from those of all others.

    It is the step of the entry. If an earlier entry has this number, it is the next one that is larger than all so far.
    A validation that logs ``"step"`` may give the same step to several entries.
    """
    places: dict[int, None] = {}
    largest = 0
    for entry in history:
        step = int(entry["step"])
        place = largest + 1 if step in places else step
        places[place] = None
        largest = max(largest, place)
    return list(places)


class Writer(Protocol):
    """A place for the images, texts and maps of a run.

    Attributes:
        keeps_panels: True if it has room for the panels of every entry of a long run.
        takes_webp: True if its images may be WebP; all other writers are given JPEG, which more programs read.
        keeps_records: True if it stores what the Focus tab and the report read.
        keeps_one: True if an image replaces another one of the same tag and step. Such a writer is given the place of
            an entry as its step, see `places_of`.
    """

    @property
    def keeps_panels(self) -> bool: ...

    @property
    def takes_webp(self) -> bool: ...

    @property
    def keeps_records(self) -> bool: ...

    @property
    def keeps_one(self) -> bool: ...

    def start(self, run: RunStart, resuming: bool) -> None:
        """Take a new run, or one that is ``resuming``.

        Raises:
            ValueError: the writer cannot take this run.
        """

    def write_image(self, tag: str, image: EncodedImage, step: int) -> None:
        """Store an image."""

    def write_verdict(self, tag: str, verdict: Mapping[str, Any], step: int) -> None:
        """Store a verdict: ``"headline"`` and ``"evidence"`` are its text, all other values are its data."""

    def write_entry(self, entry: Entry) -> None:
        """End a logged validation."""

    def flush(self) -> None:
        """Make everything written so far visible to readers."""


def image_path(tag: str, prefix: str) -> str:
    """Turn a tag into a path below the folder of its run: ``"gradcam/probe/a:b"`` -> ``"probe/a%3Ab"``.

    Different tags give different paths, and no name can leave the folder.
    """
    kind, _, name = tag.removeprefix(f"{prefix}/").partition("/")
    # Some file systems refuse these characters; slashes and leading dots would make folders, or leave this one.
    safe = re.sub(r'[%<>:"/\\|?*\x00-\x1f]|^\.+|\.+$', lambda found: quote(found[0], safe="").replace(".", "%2E"), name)
    if len(safe.encode()) > MAX_NAME_BYTES:
        # Two long names may begin alike, so a shortened name ends in a digest of the whole.
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        safe = safe.encode()[: MAX_NAME_BYTES - 13].decode(errors="ignore") + "-" + digest
    return f"{kind}/{safe}" if safe else kind


def verdict_text(verdict: Mapping[str, Any]) -> str:
    """Return the text of a verdict: its headline, and its evidence as a second paragraph."""
    return f"{verdict['headline']}\n\n{verdict['evidence']}"
