"""The parts that panels are drawn from: sizes, colours, frames, lines of text and the colour bar.

Pixels are put on an array, the canvas, first. Text is then written on the PIL image made of it, the sheet.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from gradcam_callback.drawing.heatmap import Map, Pixels, paint
from gradcam_callback.drawing.style import Style
from gradcam_callback.drawing.text import clusters, line_width, write_line

Colour = tuple[int, int, int]
# Left and top in pixels.
Place = tuple[int, int]
# Left, top, right and bottom in pixels.
Box = tuple[int, int, int, int]

PAPER, INK, FAINT = (255, 255, 255), (24, 24, 27), (113, 113, 122)
CORRECT, WRONG = (21, 128, 61), (200, 30, 30)
# JPEG encodes squares of 16 pixels. An image that begins on this grid takes a tenth less than an image across it.
# Without the grid, text would be half of the bytes of a panel. So margins, distances and lines are multiples of 16.
GRID, GAP = 16, 4
MARGIN, BLOCK_GAP = GRID, GRID + GAP
# The distance of two images of a sheet.
BETWEEN = 2 * GAP
# Sizes of the text in pixels.
TITLE, LABEL, SMALL = 20, 14, 13
# An image card of TensorBoard shows this width without scrolling in a window of ordinary size.
PANEL_WIDTH = 1020
FRAME, BAR_HEIGHT = 3, 10


def on_grid(length: int) -> int:
    """Return the smallest multiple of the grid that is not below a length."""
    return -(-length // GRID) * GRID  # rounds up, as // rounds the negative number down


def blank(width: int, height: int) -> Pixels:
    """Return a canvas of paper: ``(height, width, 3)``."""
    return np.full((height, width, 3), PAPER, dtype=np.uint8)


def put(canvas: Pixels, pixels: Pixels, place: Place) -> None:
    """Put pixels ``(h, w, 3)`` on a canvas, their upper left corner at a place."""
    left, top = place
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels


def label_if_empty(pixels: Pixels, values: Map, size: int = SMALL) -> Pixels:
    """Return a heatmap or overlay ``(h, w, 3)``, with the word "empty" on it if its map is zero everywhere.

    Otherwise a reader might take the empty map for an error.

    Args:
        size: Size of the word in pixels. The word is cut to the width of the heatmap.
    """
    if values.any():
        return pixels
    sheet, wide = Image.fromarray(pixels), line_width("empty", size)
    place = max(0, (sheet.width - wide) // 2), max(0, (sheet.height - size) // 2)
    # The outline of a mask is as bright as the letters.
    sheet.paste((0, 0, 0), (place[0] - 3, place[1], place[0] + wide + 3, place[1] + size * 5 // 4))
    write(sheet, "empty", place, size, PAPER, sheet.width)
    return np.asarray(sheet)


def framed(pixels: Pixels, colour: Colour | None, width: int = FRAME) -> Pixels:
    """Return pixels ``(h, w, 3)`` with a frame over their edges, or as they are if the colour is None."""
    if colour is None:
        return pixels
    # Of a very wide or tall image, a frame of the usual width would leave nothing.
    width = min(width, max(1, min(pixels.shape[:2]) // 6))
    copy = pixels.copy()
    for edge in (copy[:width], copy[-width:], copy[:, :width], copy[:, -width:]):
        edge[:] = colour
    return copy


def write(sheet: Image.Image, text: str, place: Place, size: int, colour: Colour, width: int) -> None:
    """Write one line of text, cut to a width in pixels, its upper left corner at a place."""
    write_line(sheet, cut(text, size, width), place, size, colour)


# Cached, as `_render` of the module text is.
@lru_cache(maxsize=4096)
def cut(text: str, size: int, width: int) -> str:
    """Cut a text to a width in pixels.

    The middle is cut, as names often differ at their ends, such as ``conv1`` and ``conv2``.
    """
    # A character stays with its accents, and an emoji is whole.
    shown, parts = text, list(clusters(text))
    keep = len(parts)
    while keep > 2 and line_width(shown, size) > width:
        keep -= 1
        shown = "".join([*parts[: keep // 2], "…", *parts[len(parts) - (keep - keep // 2) :]])
    return shown


def draw_colour_bar(canvas: Pixels, place: Place, width: int, style: Style) -> None:
    """Draw the colours from the coldest at the left to the hottest at the right."""
    put(canvas, paint(np.linspace(0, 1, width)[None].repeat(BAR_HEIGHT, axis=0), style.colormap), place)


def label_colour_bar(sheet: Image.Image, place: Place, width: int, style: Style) -> None:
    """Write the values of the ends of the colour bar below the bar that stands at a place."""
    left, top = place
    below = top + BAR_HEIGHT + 2
    label = _vmax_label(style)
    write_line(sheet, "0", (left, below), SMALL, FAINT)
    write_line(sheet, label, (left + width - line_width(label, SMALL), below), SMALL, FAINT)


def colour_bar_width(style: Style) -> int:
    """Return the least width of a colour bar with room for its labels, in pixels."""
    return line_width(_vmax_label(style), SMALL) + 24


def _vmax_label(style: Style) -> str:
    return {"map": "map's maximum", "run": "layer's maximum so far"}[style.scaling]
