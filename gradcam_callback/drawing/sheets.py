"""Arrange several images on one sheet: one below the other, or as a table."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from gradcam_callback.drawing.canvas import GAP, INK, LABEL, MARGIN, PANEL_WIDTH, PAPER, TITLE, blank, put, write
from gradcam_callback.drawing.heatmap import Pixels
from gradcam_callback.drawing.input_image import InputImage
from gradcam_callback.drawing.text import line_width

# Height of the title and headings of a table, and width of the names at its left, in pixels.
TABLE_HEADER, TABLE_NAMES = 66, 150


def stack(panels: Sequence[Image.Image]) -> Image.Image:
    """Arrange panels one below the other on one sheet."""
    sheet = Image.new("RGB", (max(p.width for p in panels), sum(p.height for p in panels)), PAPER)
    y = 0
    for panel in panels:
        sheet.paste(panel, (0, y))
        y += panel.height
    return sheet


def contact_sheet(
    title: str, headings: Sequence[str], rows: Sequence[tuple[str, Sequence[Pixels]]], cell: int
) -> Image.Image:
    """Arrange images as a table, with a name for each row and a heading for each column.

    Args:
        title: Text above the table.
        headings: One per column.
        rows: Name and images ``(H, W, 3)`` uint8 of each row. All images have one shape.
        cell: Longer side of an image in the table, in pixels.
    """
    images = [[InputImage(pixels) for pixels in row] for _, row in rows]
    width, height = images[0][0].fit(cell)
    lefts = [MARGIN + TABLE_NAMES + column * (width + 2 * GAP) for column in range(len(headings))]
    tops = [MARGIN + TABLE_HEADER + row * (height + 2 * GAP) for row in range(len(rows))]
    # The title may widen a narrow table, but only to the width of a page.
    least_width = min(line_width(title, TITLE) + 2 * MARGIN, PANEL_WIDTH)
    canvas = blank(max(least_width, lefts[-1] + width + MARGIN), tops[-1] + height + 2 * GAP + MARGIN)
    for top, row in zip(tops, images, strict=True):
        for left, image in zip(lefts, row, strict=True):
            put(canvas, image.resized(width, height), (left, top))
    sheet = Image.fromarray(canvas)
    write(sheet, title, (MARGIN, MARGIN), TITLE, INK, sheet.width - 2 * MARGIN)
    for left, heading in zip(lefts, headings, strict=True):
        write(sheet, heading, (left, tops[0] - 24), LABEL, INK, width)
    for top, (name, _) in zip(tops, rows, strict=True):
        write(sheet, name, (MARGIN, top + height // 2 - 8), LABEL, INK, TABLE_NAMES - 8)
    return sheet
