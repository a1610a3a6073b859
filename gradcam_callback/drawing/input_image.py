"""Input images that are drawn many times in few sizes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from gradcam_callback.drawing.heatmap import Map, Pixels, scale

OUTLINE = (255, 255, 255)


class InputImage:
    """An input image with its mask, which keeps each size that was drawn.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        mask: ``(H, W)``, nonzero on the object. None if the image has no mask.
    """

    def __init__(self, pixels: Pixels, mask: Map | None = None) -> None:
        self.pixels, self.mask = pixels, mask
        self._cache: dict[tuple[str | int, ...], Map] = {}

    def fit(self, longest: int) -> tuple[int, int]:
        """Return the width and height of this image if its longer side is ``longest`` pixels."""
        height, width = self.pixels.shape[:2]
        factor = longest / max(height, width)
        # A very thin image would vanish otherwise.
        return max(1, round(width * factor)), max(1, round(height * factor))

    def resized(self, width: int, height: int) -> Pixels:
        """Return the image in colour: ``(height, width, 3)``."""
        return self._cached(self._resize, width, height)

    def grey(self, width: int, height: int) -> Pixels:
        """Return the image in grey: ``(height, width)``."""
        return self._cached(self._resize_grey, width, height)

    def outline(self, pixels: Pixels, thick: int = 1) -> Pixels:
        """Return a copy of pixels ``(height, width, 3)`` with the outline of the mask, so many pixels thick."""
        height, width = pixels.shape[:2]
        outlined = pixels.copy()
        outlined[self._cached(self._find_outline, width, height, thick)] = OUTLINE
        return outlined

    def inside(self, width: int, height: int) -> Map:
        """Return the mask in this size, True on the object: ``(height, width)`` bool."""
        return self._cached(self._find_inside, width, height)

    def outlined(self, width: int, height: int) -> Pixels:
        """Return the image in colour with the outline of the mask: ``(height, width, 3)``."""
        return self.outline(self.resized(width, height))

    def _cached(self, draw: Callable[..., Map], *size: int) -> Map:
        # A run draws every image in the same few sizes at each epoch.
        key: tuple[str | int, ...] = (draw.__name__, *size)
        if key not in self._cache:
            self._cache[key] = draw(*size)
        return self._cache[key]

    def _resize(self, width: int, height: int) -> Pixels:
        return np.asarray(Image.fromarray(self.pixels).resize((width, height), Image.Resampling.BICUBIC))

    def _resize_grey(self, width: int, height: int) -> Pixels:
        return np.asarray(Image.fromarray(self.resized(width, height)).convert("L"))

    def _find_inside(self, width: int, height: int) -> Map:
        if self.mask is None:
            return np.zeros((height, width), bool)
        inside: Map = scale(np.asarray(self.mask, dtype=np.float32), width, height, smooth=False) >= 0.5
        return inside

    def _find_outline(self, width: int, height: int, thick: int) -> Map:
        """Return True for the pixels of the object that are close to the background: ``(height, width)`` bool."""
        inside = self.inside(width, height)
        # The edge of the image is no edge of the object, so the padding repeats the object.
        padded = np.pad(inside, thick, mode="edge")
        rows, columns = slice(thick, thick + height), slice(thick, thick + width)
        interior = padded[:height, columns] & padded[-height:, columns] & padded[rows, :width] & padded[rows, -width:]
        outline: Map = inside & ~interior
        return outline
