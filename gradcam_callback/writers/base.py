"""Where pictures and words go: what every logger is given alike, and a folder of plain files."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np
import torch

from gradcam_callback.drawing.canvas import Box, Encoded
from gradcam_callback.maps.gradcam import CAMs
from gradcam_callback.probes.probe_set import ProbeSet

FORMAT = 1
# In bytes: file systems take 255.
LONGEST_NAME = 200


@dataclass(frozen=True)
class Manifest:
    """What the pictures and maps of a run are of, so that other programs find their way in them.

    Attributes:
        names, labels, classes: of each probe image its name, and its label as an index and as a word.
        layers: from input to output.
        input_box, overlay_boxes: where a probe panel shows the input and each layer's overlay.
    """

    names: Sequence[str]
    labels: Sequence[int]
    classes: Sequence[str]
    layers: Sequence[str]
    input_box: Box
    overlay_boxes: Mapping[str, Box]

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **vars(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Raises: ValueError: written by another version."""
        values = json.loads(text)
        if values.pop("format", None) != FORMAT:
            raise ValueError(f"The manifest is not of format {FORMAT}, which this version of gradcam_callback reads.")
        values["overlay_boxes"] = {layer: tuple(box) for layer, box in values["overlay_boxes"].items()}
        return cls(**{**values, "input_box": tuple(values["input_box"])})


@dataclass(frozen=True)
class Entry:
    """One logged validation: all entries so far, of which it is the last, its maps, and what is said of it."""

    history: Sequence[Mapping[str, float]]
    cams: CAMs
    verdict: str | None

    @property
    def step(self) -> int:
        return int(self.history[-1]["step"])


class Writer(Protocol):
    """What pictures and words are given to. Scalars go through Lightning's own logging."""

    def begin(self, manifest: Manifest, probe: ProbeSet, goes_on: bool) -> None:
        """Before anything else, at the start of a run, or where one ``goes_on``.

        Raises:
            ValueError: it cannot take this run.
        """

    def picture(self, tag: str, picture: Encoded, step: int) -> None: ...

    def entry(self, entry: Entry) -> None:
        """After the pictures of a logged validation."""

    def flush(self) -> None:
        """All that has been given is to be there for a reader."""


class Writers:
    """Several sinks as one. One that fails is left out until all are flushed, and does not keep the others from theirs.

    Args:
        failed: is told which sink failed, and how; not again before it has worked for a whole entry.
    """

    def __init__(self, sinks: Sequence[Writer], failed: Callable[[str, Exception], None]) -> None:
        self._sinks, self._failed = list(sinks), failed
        self._working = list(sinks)
        self._failing: list[Writer] = []

    def __len__(self) -> int:
        return len(self._sinks)

    def begin(self, manifest: Manifest, probe: ProbeSet, goes_on: bool) -> None:
        for sink in self._sinks:
            sink.begin(manifest, probe, goes_on)

    def picture(self, tag: str, picture: Encoded, step: int) -> None:
        self._give(lambda sink: sink.picture(tag, picture, step))

    def entry(self, entry: Entry) -> None:
        self._give(lambda sink: sink.entry(entry))
        given = self._working
        self.flush()
        self._failing = [sink for sink in self._failing if sink not in given or sink not in self._working]

    def flush(self) -> None:
        """Those that have failed are asked, too, and may work again from then on."""
        self._working = list(self._sinks)
        self._give(lambda sink: sink.flush())

    def _give(self, to: Callable[[Writer], None]) -> None:
        for sink in list(self._working):
            try:
                to(sink)
            except Exception as error:
                self._working.remove(sink)
                if sink not in self._failing:
                    self._failing.append(sink)
                    self._failed(type(sink).__name__.removesuffix("Writer"), error)


class FolderWriter:
    """Plain files: ``manifest.json``, ``history.json``, pictures as ``<tag>/<step>.jpg`` or ``.gif``, and raw maps.

    Maps are in ``maps/<step>.npz``, an array ``(N, h, w)`` float32 per layer; what they are of is in ``probe.npz``:
    ``images`` ``(N, H, W, 3)`` uint8, ``masks`` ``(N, H, W)`` bool.

    Args:
        pictures, maps: what to write.
    """

    def __init__(self, folder: Path, pictures: bool = True, maps: bool = False) -> None:
        self.folder, self._pictures, self._maps = folder, pictures, maps

    def begin(self, manifest: Manifest, probe: ProbeSet, goes_on: bool) -> None:
        if not goes_on and (self.folder / "history.json").exists():
            raise ValueError(
                f"{self.folder} holds another run. Expected a folder without one; delete it or choose another save_dir."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write_start(manifest, probe)
        except OSError as error:
            raise ValueError(
                f"{self.folder} cannot be written to ({error}). Expected a folder, new or there."
            ) from error

    def _write_start(self, manifest: Manifest, probe: ProbeSet) -> None:
        self._write("manifest.json", manifest.to_json().encode())
        if self._maps:
            masks = probe.masks
            if masks is None:
                masks = torch.zeros(len(probe), *probe.images.shape[2:], dtype=torch.bool)
            self._write("probe.npz", _packed({"images": probe.display_images(), "masks": masks.numpy()}))

    def picture(self, tag: str, picture: Encoded, step: int) -> None:
        if self._pictures:
            self._write(f"{file_name(tag)}/{step:08d}.{picture.suffix}", picture.data)

    def entry(self, entry: Entry) -> None:
        if self._maps:
            maps = {layer: raw.float().numpy() for layer, raw in entry.cams.maps.items()}
            self._write(f"maps/{entry.step:08d}.npz", _packed(maps))
        # All of it each time, so that it is right also when a run goes on from an earlier checkpoint.
        history = json.dumps({"history": list(entry.history), "verdict": entry.verdict}, ensure_ascii=False)
        self._write("history.json", history.encode())

    def flush(self) -> None: ...

    def _write(self, name: str, content: bytes) -> None:
        """The whole file or, should the disk be full or the process be killed, the one that was there before."""
        path = self.folder / name
        partial = path.with_name(".partial")
        path.parent.mkdir(parents=True, exist_ok=True)  # also should it have been deleted meanwhile
        try:
            partial.write_bytes(content)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _packed(arrays: Mapping[str, Any]) -> bytes:
    """As an ``npz`` file."""
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return packed.getvalue()


def file_name(tag: str) -> str:
    """A tag as a path below a folder, whatever the names in it; different tags give different paths."""
    kind, _, name = tag.removeprefix("gradcam/").partition("/")
    # What some file system or other does not take; names are not to become folders, nor to climb out of theirs.
    safe = re.sub(r'[%<>:"/\\|?*\x00-\x1f]|^\.+|\.+$', lambda found: quote(found[0], safe="").replace(".", "%2E"), name)
    if len(safe.encode()) > LONGEST_NAME:
        # Names that are cut differ in what they were cut from.
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        safe = safe.encode()[: LONGEST_NAME - 13].decode(errors="ignore") + "-" + digest
    return f"{kind}/{safe}" if safe else kind
