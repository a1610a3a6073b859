"""Panels of one entry: one image through all layers, or all images at one layer.

Each panel is laid out once per run and filled in at each entry, so that nothing moves along TensorBoard's slider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
from PIL import Image

from gradcam_callback.drawing.canvas import (
    FAINT,
    GAP,
    GRID,
    INK,
    LABEL,
    MARGIN,
    PANEL_WIDTH,
    SMALL,
    TITLE,
    Box,
    Colour,
    Place,
    blank,
    colour_bar_width,
    cut,
    draw_colour_bar,
    framed,
    label_colour_bar,
    label_if_empty,
    on_grid,
    put,
    write,
)
from gradcam_callback.drawing.caption import Caption, write_caption
from gradcam_callback.drawing.heatmap import Map, Pixels, blend, paint, scale
from gradcam_callback.drawing.input_image import InputImage
from gradcam_callback.drawing.layout import break_name, least_column, place_columns
from gradcam_callback.drawing.style import Style
from gradcam_callback.drawing.text import line_width, write_line
from gradcam_callback.formatting import two_digits
from gradcam_callback.layer_names import block_of

# Least width of a probe panel and of its columns, in pixels: the text above them needs this room.
LEAST_WIDTH, LEAST_COLUMN = 600, 60
# Height of a probe panel's caption, and the least number of lines above its columns: block, layer and maximum.
CAPTION, LEAST_LINES = 5 * GRID, 3
# Least width of the columns of a layer panel: for a prediction of ordinary length, and for long ones. With the second,
# five images fit side by side.
PREDICTION, LONG_PREDICTION = 108, 188
# The most area that fewer and larger images of a layer panel may take: as much as so many images of the usual size.
AREA = 20
# Height of the text above the images of a layer panel, and top of its second line, in pixels.
HEADER, LEGEND = 5 * GRID, 42


class ProbePanel:
    """One image through all layers: the input at the left, then a column per layer, heatmap above overlay.

    Args:
        images: all images of the run, of one shape.
        layers: names in the order of the columns.
        style: size and colours.
        max_width: width in pixels. Blocks that do not fit go on below. None keeps all columns in one line.
    """

    def __init__(
        self,
        images: Sequence[InputImage],
        layers: Sequence[str],
        style: Style,
        max_width: int | None = PANEL_WIDTH,
    ) -> None:
        self._images, self._style = images, style
        cell = style.choose_cell(lambda size: self._fits_one_line(layers, size))
        self._cell = width, height = images[0].fit(cell)
        self._input_size, self._input_column, left = self._size_input(cell)
        self._column = least_column(layers, max(width, LEAST_COLUMN))
        places, right = place_columns(layers, left, self._column, max_width)
        self._names = _name_columns(layers, self._column)
        self._top = CAPTION + GRID * max(LEAST_LINES, 1 + max(map(len, self._names.values())))
        pitch = self._top - CAPTION + 2 * (height + GAP) + GRID
        # The place of each layer's heatmap. Its overlay stands below.
        self._places = {layer: (x, self._top + line * pitch) for layer, (line, x) in zip(layers, places, strict=True)}
        bar = MARGIN, on_grid(self._top + self._input_size[1] + GAP)
        bottom = CAPTION + (max(line for line, _ in places) + 1) * pitch
        self._base = self._draw_base(max(right + MARGIN, LEAST_WIDTH), max(bottom, bar[1] + 3 * GRID), bar)

    @property
    def input_box(self) -> Box:
        """Return the place of the input: left, top, right and bottom in pixels."""
        width, height = self._input_size
        return MARGIN, self._top, MARGIN + width, self._top + height

    @property
    def overlay_boxes(self) -> dict[str, Box]:
        """Return the place of each layer's overlay: left, top, right and bottom in pixels."""
        width, height = self._cell
        return {layer: (x, y + height + GAP, x + width, y + 2 * height + GAP) for layer, (x, y) in self._places.items()}

    def draw(
        self, i: int, maps: Mapping[str, Map], caption: Caption, vmax: Mapping[str, float] | None = None
    ) -> Image.Image:
        """Draw the panel of image ``i``.

        Args:
            i: index of the image.
            maps: layer -> raw map ``(h, w)``.
            caption: text above the panel.
            vmax: layer -> raw value of the hottest colour. None takes the maximum of each map.
        """
        canvas, image = self._base.copy(), self._images[i]
        # All pixels come before all text: text is written on a PIL image, and converting back and forth costs time.
        put(canvas, framed(image.outlined(*self._input_size), caption.frame_colour), (MARGIN, self._top))
        for layer, place in self._places.items():
            self._put_map(canvas, image, maps[layer], place, (vmax or {}).get(layer))
        sheet = Image.fromarray(canvas)
        for layer, (x, y) in self._places.items():
            write(sheet, two_digits(float(maps[layer].max())), (x, y - GRID), SMALL, FAINT, self._column)
        write_caption(sheet, caption, sheet.width - 2 * MARGIN)
        return sheet

    def _size_input(self, cell: int) -> tuple[tuple[int, int], int, int]:
        """Return the size of the input, the width of its column, and the left end of the other columns."""
        # A little larger than the maps, so that the outlined object can be recognised.
        size = self._images[0].fit(round(cell * 1.25))
        column = max(size[0], colour_bar_width(self._style))
        return size, column, on_grid(MARGIN + column + GAP)

    def _fits_one_line(self, layers: Sequence[str], cell: int) -> bool:
        """Return True if the columns of all layers fit into one line with cells of this size."""
        width, _ = self._images[0].fit(cell)
        column, (_, _, left) = least_column(layers, max(width, LEAST_COLUMN)), self._size_input(cell)
        return place_columns(layers, left, column, None)[1] + MARGIN <= PANEL_WIDTH

    def _draw_base(self, width: int, height: int, bar: Place) -> Pixels:
        """Draw everything that is the same for all images and entries."""
        canvas = blank(width, height)
        draw_colour_bar(canvas, bar, self._input_column, self._style)
        sheet = Image.fromarray(canvas)
        write(sheet, "input", (MARGIN, self._top - 2 * GRID), LABEL, FAINT, self._input_column)
        # This names the numbers above the columns, which stand on the same line.
        write(sheet, "map's maximum", (MARGIN, self._top - GRID), SMALL, FAINT, self._input_column)
        label_colour_bar(sheet, bar, self._input_column, self._style)
        for layer, (x, y) in self._places.items():
            # The maximum stands between the names and the heatmap.
            for number, (text, colour) in enumerate(reversed(self._names[layer]), start=2):
                write_line(sheet, text, (x, y - number * GRID), LABEL, colour)
        return np.asarray(sheet)

    def _put_map(self, canvas: Pixels, image: InputImage, raw: Map, place: Place, vmax: float | None) -> None:
        """Put the heatmap and the overlay of one layer on the canvas."""
        (x, y), (width, height) = place, self._cell
        # The heatmap keeps the cells visible; smooth colours would hide its resolution.
        squares = scale(raw, width, height, smooth=False, vmax=vmax)
        smooth = scale(raw, width, height, smooth=True, vmax=vmax)
        heatmap = paint(squares, self._style.colormap)
        overlay = blend(image.grey(width, height), smooth, self._style.colormap)
        put(canvas, label_if_empty(heatmap, squares), (x, y))
        put(canvas, label_if_empty(overlay, squares), (x, y + height + GAP))


def _name_columns(layers: Sequence[str], width: int) -> dict[str, list[tuple[str, Colour]]]:
    """Return the lines of text above the column of each layer, with their colours.

    Args:
        layers: names in the order of the columns.
        width: width of a column in pixels.
    """
    names: dict[str, list[tuple[str, Colour]]] = {}
    for block, group in groupby(layers, key=block_of):
        members = list(group)
        # A block is named once. No other name stands above its other columns.
        room = len(members) * (width + GAP) - GAP
        above = [(line, INK) for line in break_name(block, room)] if block else []
        for layer in members:
            below = layer[len(block) + 1 :] if block else layer
            names[layer] = above + [(line, FAINT) for line in break_name(below, width)]
            above = []
    return names


class LayerPanel:
    """One layer on all images: the overlays with the masks outlined, and the predictions below.

    Args:
        images: N images of one shape.
        style: size and colours.
        texts: texts that may stand below an image. Long texts move the images apart.
    """

    def __init__(self, images: Sequence[InputImage], style: Style, texts: Sequence[str] = ()) -> None:
        self._images, self._style = images, style
        longest = max((line_width(text, LABEL) for text in texts), default=0)
        least = max(PREDICTION, min(longest, LONG_PREDICTION))
        _, _, usual_rows = self._lay_out(style.cell_size, least)
        # An area is a number of bytes in the file, so that few large images take no more than many small ones.
        area = AREA * (style.cell_size + GAP) ** 2
        cell = style.choose_cell(
            lambda size: len(images) * (size + GAP) ** 2 <= area and self._lay_out(size, least)[2] == usual_rows
        )
        self._cell, pitch, rows = self._lay_out(cell, least)
        self._text_width = pitch - GAP
        # As few images in a row as these rows allow, so that the last row is hardly shorter.
        per_row = -(-len(images) // rows)
        row_height = on_grid(self._cell[1]) + 3 * GRID
        self._places = [(MARGIN + i % per_row * pitch, HEADER + i // per_row * row_height) for i in range(len(images))]
        bar_width = colour_bar_width(style)
        canvas = blank(max(MARGIN + per_row * pitch, 2 * bar_width + 200), HEADER + rows * row_height)
        # Below the name of the layer, which has the first line to itself.
        bar = canvas.shape[1] - bar_width - MARGIN, LEGEND + 2
        draw_colour_bar(canvas, bar, bar_width, style)
        sheet = Image.fromarray(canvas)
        label_colour_bar(sheet, bar, bar_width, style)
        self._base = np.asarray(sheet)

    def _lay_out(self, cell: int, text_width: int) -> tuple[tuple[int, int], int, int]:
        """Return the size of an overlay, the distance of two, and the number of rows."""
        size = self._images[0].fit(cell + GAP)
        pitch = on_grid(max(size[0], text_width) + GAP)
        # The gap behind the last image of a row may lie in the margin.
        most = max(1, (PANEL_WIDTH - 2 * MARGIN + GRID) // pitch)
        return size, pitch, -(-len(self._images) // most)

    def draw(
        self, layer: str, maps: Map, captions: Sequence[Caption], vmax: Mapping[str, float] | None = None
    ) -> Image.Image:
        """Draw the panel of one layer.

        Args:
            layer: name of the layer.
            maps: raw maps ``(N, h, w)``.
            captions: N texts.
            vmax: layer -> raw value of the hottest colour. None takes the maximum of each map.
        """
        canvas, (width, height) = self._base.copy(), self._cell
        name = cut(layer, TITLE, max(canvas.shape[1], PANEL_WIDTH) - 2 * MARGIN)
        # Few images may be narrower than the name.
        missing = line_width(name, TITLE) + 2 * MARGIN - canvas.shape[1]
        if missing > 0:
            canvas = np.concatenate([canvas, blank(missing, canvas.shape[0])], axis=1)
        heat = scale(maps, width, height, smooth=True, vmax=(vmax or {}).get(layer))
        for image, values, caption, place in zip(self._images, heat, captions, self._places, strict=True):
            overlay = blend(image.grey(width, height), values, self._style.colormap)
            overlay = label_if_empty(image.outline(overlay), values)
            put(canvas, framed(overlay, caption.frame_colour), place)
        sheet = Image.fromarray(canvas)
        write_line(sheet, name, (MARGIN, MARGIN), TITLE, INK)
        write_line(sheet, f"maps up to {two_digits(float(maps.max()))}", (MARGIN, LEGEND), LABEL, FAINT)
        for caption, (left, y) in zip(captions, self._places, strict=True):
            write(sheet, caption.title, (left, y + height + 2), LABEL, INK, self._text_width)
            prediction = caption.format_prediction(LABEL, self._text_width)
            write_line(sheet, prediction, (left, y + height + GRID + 2), LABEL, caption.text_colour)
        return sheet
