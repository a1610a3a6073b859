"""An encoded image, which the sub-package `drawing` makes and the sub-package `writers` stores."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EncodedImage:
    """An image as the bytes of a file.

    Attributes:
        data: content of the file.
        suffix: kind of the file, ``"jpg"``, ``"webp"`` or ``"gif"``.
        width: width in pixels.
        height: height in pixels.
    """

    data: bytes
    suffix: str
    width: int
    height: int
