"""An encoded image, which the sub-package `drawing` makes and the sub-package `writers` stores."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EncodedImage:
    """An image as the bytes of a file.

    Attributes:
        data: Content of the file.
        suffix: Kind of the file, ``"jpg"`` or ``"gif"``.
        width: Width in pixels.
        height: Height in pixels.
    """

    data: bytes
    suffix: str
    width: int
    height: int
