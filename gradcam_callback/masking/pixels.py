"""Photographs and masks in the sizes in which the page shows them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter

from gradcam_callback.masking.mask_files import Mask

# The longer side of what the page draws on, and of a small photograph on the contact sheet, in pixels.
SHOWN, SMALL = 2048, 400
# The brightness outside of a mask, and the colour and width of its outline in pixels. canvas.js has the same.
_DIM, _OUTLINE, _WIDTH = 0.35, (255, 225, 26), 2
_QUALITY = 90


def fit(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Return a width and height whose longer side is at most ``longest`` pixels."""
    factor = min(1.0, longest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def resize_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """Return a mask in another width and height, True where more than half of a pixel is object."""
    if size == mask.shape[::-1]:
        return mask
    levels = Image.fromarray(mask).convert("L").resize(size, Image.Resampling.BOX)
    resized: Mask = np.asarray(levels) > 127
    return resized


def encode_photograph(photograph: Image.Image, longest: int) -> bytes:
    """Return a photograph as a JPEG of at most ``longest`` pixels."""
    buffer = io.BytesIO()
    photograph.resize(fit(photograph.size, longest), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def draw_small(photograph: Image.Image, mask: Mask | None) -> Image.Image:
    """Return a small photograph, dim outside of its mask, whose outline is bright."""
    size = fit(photograph.size, SMALL)
    small = photograph.resize(size, Image.Resampling.LANCZOS)
    if mask is None:
        return small
    inside = Image.fromarray(resize_mask(mask, size)).convert("L")
    ring = ImageChops.subtract(inside.filter(ImageFilter.MaxFilter(2 * _WIDTH + 1)), inside)
    drawn = Image.composite(small, ImageEnhance.Brightness(small).enhance(_DIM), inside)
    drawn.paste(_OUTLINE, mask=ring)
    return drawn


def pad_to_square(image: Image.Image, side: int) -> Image.Image:
    """Return an image in the middle of a black square, as large as fits."""
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    square = Image.new(image.mode, (side, side))
    square.paste(image.resize(size), ((side - size[0]) // 2, (side - size[1]) // 2))
    return square
