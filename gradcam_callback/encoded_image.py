"""An image as the bytes of a file: what `drawing` encodes and `writers` store."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EncodedImage:
    """An encoded image.

    Attributes:
        data: the bytes of the file.
        suffix: ``"jpg"`` or ``"gif"``.
        width: in pixels.
        height: in pixels.
    """

    data: bytes
    suffix: str
    width: int
    height: int
