"""Draw a sheet of automatic masks, so that a person can see at a glance which are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gradcam_callback.drawing.canvas import (
    BETWEEN,
    CORRECT,
    FAINT,
    GAP,
    GRID,
    INK,
    LABEL,
    MARGIN,
    PANEL_WIDTH,
    SMALL,
    TITLE,
    WRONG,
    blank,
    framed,
    put,
    write,
)
from gradcam_callback.drawing.heatmap import Pixels
from gradcam_callback.drawing.input_image import InputImage
from gradcam_callback.drawing.sheets import wrap
from gradcam_callback.drawing.text import line_width

# The longer side of an image, and the lines of text below it, in pixels. More images than _MANY are smaller.
_CELL, _SMALL_CELL, _MANY = 184, 132, 30
_NAME, _LINE, _LINES = LABEL + GAP, SMALL + 3, 3
# The brightness of what lies outside of a mask.
_DIM = 0.35


@dataclass(frozen=True)
class MaskCell:
    """An image with its automatic mask.

    Attributes:
        name: name of the image.
        image: the image and the mask.
        doubt: reason why the mask was left out, or None.
        replaced: True if another image is watched in its place.
    """

    name: str
    image: InputImage
    doubt: str | None
    replaced: bool = False

    @property
    def fate(self) -> str:
        """Return the use of the mask, or the reason why it is not used, as the sheet says it."""
        if self.doubt is None:
            return "used"
        return f"{'replaced' if self.replaced else 'left out'}: {self.doubt}"


def mask_sheet(title: str, note: str, cells: Sequence[MaskCell]) -> Image.Image:
    """Draw images in rows. What lies outside of the mask is dim, and a frame says if the mask is used.

    Args:
        title: text above the images.
        note: a smaller line below the title.
        cells: all images have one shape.
    """
    side = _CELL if len(cells) <= _MANY else _SMALL_CELL
    width, height = cells[0].image.fit(side)
    columns = max(1, min(len(cells), (PANEL_WIDTH - 2 * MARGIN + BETWEEN) // (side + BETWEEN)))
    pitch_x, pitch_y = side + BETWEEN, height + _NAME + _LINES * _LINE + GRID
    top = MARGIN + TITLE + GAP + LABEL + GRID
    rows = -(-len(cells) // columns)
    # Few images may be narrower than the text above them.
    text = max(line_width(title, TITLE), line_width(note, LABEL))
    page = 2 * MARGIN + max(columns * pitch_x - BETWEEN, min(text, PANEL_WIDTH - 2 * MARGIN))
    canvas = blank(page, top + rows * pitch_y + MARGIN)
    places = [(MARGIN + i % columns * pitch_x, top + i // columns * pitch_y) for i in range(len(cells))]
    for cell, place in zip(cells, places, strict=True):
        colour = CORRECT if cell.doubt is None else WRONG
        put(canvas, framed(dim_outside(cell.image, width, height), colour), place)
    sheet = Image.fromarray(canvas)
    write(sheet, title, (MARGIN, MARGIN), TITLE, INK, page - 2 * MARGIN)
    write(sheet, note, (MARGIN, MARGIN + TITLE + GAP), LABEL, FAINT, page - 2 * MARGIN)
    for cell, (left, y) in zip(cells, places, strict=True):
        below = y + height + GAP
        write(sheet, cell.name, (left, below), LABEL, INK, side)
        colour = CORRECT if cell.doubt is None else WRONG
        for i, line in enumerate(wrap(cell.fate, SMALL, side)[:_LINES]):
            write(sheet, line, (left, below + _NAME + i * _LINE), SMALL, colour, side)
    return sheet


def dim_outside(image: InputImage, width: int, height: int) -> Pixels:
    """Return the image with the outline of its mask, and dim outside of the mask: ``(height, width, 3)``."""
    pixels = image.resized(width, height)
    dimmed = np.where(image.inside(width, height)[..., None], pixels, (pixels * _DIM).astype(np.uint8))
    return image.outline(dimmed)
