"""Masks as PNG files, and what else is remembered of the photographs of a folder."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gradcam_callback.masking.photographs import PhotographToMask, write_file
from gradcam_callback.probes import AUTOMATIC, from_image, is_automatic

Mask = np.ndarray[Any, np.dtype[np.bool_]]
# Hidden, so that `ProbeSet.from_folder` passes it by.
RECORD = ".masks.json"
_NO_OBJECT = "no_object"


def encode_mask(mask: Mask) -> bytes:
    """Return a mask as a PNG of one bit: white on the object, black elsewhere."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def mark_automatic(data: bytes) -> bytes:
    """Return the PNG of a mask with a note that no person has seen it, which a probe set reads."""
    buffer, note = io.BytesIO(), PngInfo()
    note.add_text(*AUTOMATIC)
    with Image.open(io.BytesIO(data)) as image:
        image.save(buffer, "PNG", pnginfo=note)
    return buffer.getvalue()


def is_unseen(data: bytes) -> bool:
    """Return True for the file of a mask with this note."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return is_automatic(image)
    except Exception:  # Pillow raises many kinds of errors for broken files, which say later that they are broken.
        return False


def decode_mask(data: bytes, size: tuple[int, int]) -> Mask:
    """Return the mask in a PNG, as `ProbeSet.from_folder` reads it.

    Args:
        data: the file.
        size: width and height that it must have, in pixels.

    Raises:
        ValueError: it is no PNG, has another size, marks nothing, or is no mask.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        # The size is in the first bytes. It is asked before the pixels take memory.
        if image.size == size:
            image.load()
    except Exception as error:  # Pillow raises many kinds of errors for broken files.
        raise ValueError(f"Expected a mask as PNG, but it cannot be read ({error}). Draw it again.") from error
    if image.size != size:
        raise ValueError(
            f"Expected a mask of {size[0]} x {size[1]} pixels, as the photograph is shown, but got {image.width} x "
            f"{image.height}. Draw it again."
        )
    mask: Mask = from_image(image).numpy()
    if not mask.any():
        raise ValueError("Expected a mask that marks the object, but it marks nothing. Press N if there is no object.")
    return mask


class Record:
    """The photographs of a folder that show no object, in a hidden file of the folder.

    Another process may write the file, too, so it is read again before it is asked or written.

    Args:
        folder: holds the photographs.

    Raises:
        ValueError: the file is there and cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORD
        self._keys: set[str] = set()
        self._read_version: tuple[int, ...] | None = None
        self.read()

    def read(self) -> None:
        """Read the file if it has changed.

        Raises:
            ValueError: the file is there and cannot be read.
        """
        try:
            # It is asked for each photograph of a folder. Each writer makes a new file.
            about = self._path.stat()
            version = about.st_ino, about.st_mtime_ns, about.st_size
            if version == self._read_version:
                return
            self._read_version = None
            self._keys = {str(key) for key in json.loads(self._path.read_text("utf-8"))[_NO_OBJECT]}
            self._read_version = version
        except FileNotFoundError:
            self._keys, self._read_version = set(), None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"Expected {str(self._path)!r} to hold the photographs without an object, but it cannot be read "
                f"({type(error).__name__}: {error}). Delete it, and mark these photographs again."
            ) from error

    def __contains__(self, photograph: PhotographToMask) -> bool:
        return photograph.key in self._keys

    def set(self, photograph: PhotographToMask, shows_nothing: bool) -> None:
        """Remember if a photograph shows no object.

        Raises:
            ValueError: the file is there and cannot be read.
            OSError: it could not be written. Then it is not remembered either.
        """
        self.read()
        keys = self._keys | {photograph.key} if shows_nothing else self._keys - {photograph.key}
        if keys != self._keys:
            text = json.dumps({_NO_OBJECT: sorted(keys)}, indent=1, ensure_ascii=False)
            write_file(self._path, text.encode())
            self._keys = keys
