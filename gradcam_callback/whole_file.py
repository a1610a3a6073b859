"""Write a file whole or not at all."""

from __future__ import annotations

import os
import zlib
from pathlib import Path


def write_whole(path: Path, content: bytes, *, synced: bool = False) -> None:
    """Write a file, or leave the file that was there before.

    Args:
        path: in a folder that exists.
        content: of the file.
        synced: True waits until the content is on the disk, so that it also outlives a loss of power.

    Raises:
        OSError: the file could not be written, and is as it was.
    """
    # Hidden, so that no reader of the folder takes it for an image while it grows. The name is short, and always the
    # same, so that what a killed process has left is written again.
    partial = path.with_name(f".{zlib.crc32(os.fsencode(path.name)):08x}.partial")
    try:
        partial.unlink(missing_ok=True)
        with open(partial, "xb") as file:
            file.write(content)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
