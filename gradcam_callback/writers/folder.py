"""Write a run as plain files."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradcam_callback.encoded_image import EncodedImage
from gradcam_callback.whole_file import write_whole
from gradcam_callback.writers.base import Entry, RunStart, image_path

# The files of a run.
MANIFEST, HISTORY, PROBE, MAPS = "manifest.json", "history.json", "probe.npz", "maps"
# The records that the report is made of.
START = "focus/start.json"


class FolderWriter:
    """A folder of plain files.

    The folder holds ``manifest.json`` and ``history.json``. Images are in ``<tag>/<step>.jpg`` or ``.gif``, and the
    records of the report in ``focus/``. Raw maps are in ``maps/<step>.npz``, an array ``(N, h, w)`` float32 for each
    layer. The images of the maps are in ``probe.npz``: ``images`` ``(N, H, W, 3)`` uint8, ``masks`` ``(N, H, W)`` bool.
    If an earlier entry has the same step, the file has another number than the step, see `places_of`.

    Args:
        folder: made if it does not exist.
        images: True writes images.
        maps: True writes raw maps.
    """

    keeps_panels = keeps_records = keeps_one = True
    takes_webp = False

    def __init__(self, folder: Path, images: bool = True, maps: bool = False) -> None:
        # Loggers take `~` for the home folder, too.
        self.folder, self._images, self._maps = Path(os.path.expanduser(folder)), images, maps
        self._prefix = ""
        self._verdict: Mapping[str, Any] | None = None
        # The entries before the last one as JSON, which would take long to make again at each entry of a long run.
        self._earlier: list[str] = []

    def start(self, run: RunStart, resuming: bool) -> None:
        if not resuming and holds_run(self.folder):
            raise ValueError(
                f"Expected a folder without a run, but {self.folder} holds another run. Delete the folder, or choose "
                "another save_dir."
            )
        self._prefix, self._earlier = run.manifest.tag_prefix, []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(MANIFEST, run.manifest.to_json().encode())
            self._write(START, run.record.encode())
            if self._maps:
                self._write(PROBE, _pack({"images": run.images, "masks": run.masks}))
        except OSError as error:
            raise ValueError(
                f"Expected a folder, new or existing, but {self.folder} cannot be written to ({error}). Choose another "
                "folder."
            ) from error

    def write_image(self, tag: str, image: EncodedImage, step: int) -> None:
        if self._images:
            self._write(str(self.image_file(tag, image, step).relative_to(self.folder)), image.data)

    def image_file(self, tag: str, image: EncodedImage, step: int) -> Path:
        """Return the path of an image."""
        return self.folder / f"{image_path(tag, self._prefix)}/{step:08d}.{image.suffix}"

    def write_verdict(self, tag: str, verdict: Mapping[str, Any], step: int) -> None:
        self._verdict = verdict  # a part of history.json

    def write_entry(self, entry: Entry) -> None:
        if self._maps:
            self._write(map_file(entry.place), _pack(entry.maps))
        maps = {layer: base64.b64encode(small).decode() for layer, small in entry.small_maps.items()}
        self._write(record_file(entry.place), json.dumps({"entry": json.loads(entry.record), "maps": maps}).encode())
        # The whole history each time, so that the file is also right if the run was resumed from an earlier checkpoint.
        *before, last = entry.history
        self._earlier += map(_to_json, before[len(self._earlier) :])
        history = ", ".join([*self._earlier, _to_json(last)])
        self._write(HISTORY, f'{{"history": [{history}], "verdict": {_to_json(self._verdict)}}}'.encode())

    def flush(self) -> None: ...

    def _write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        # Somebody may have deleted the folder in the meantime.
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)


def holds_run(folder: Path) -> bool:
    """Return True if a folder holds the files of a run."""
    return (folder / HISTORY).exists()


def record_file(place: int) -> str:
    """Return the path of the records of an entry, below the folder of the run."""
    return f"focus/{place:08d}.json"


def map_file(place: int) -> str:
    """Return the path of the raw maps of an entry, below the folder of the run."""
    return f"{MAPS}/{place:08d}.npz"


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _pack(arrays: Mapping[str, Any]) -> bytes:
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return packed.getvalue()
