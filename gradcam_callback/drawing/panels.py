"""Panels of one entry: one image through all layers, or all images at one layer.

Each panel is laid out once per run and filled in at each entry, so that nothing moves along TensorBoard's slider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from gradcam_callback.drawing.caption import TITLE_GAP, Caption, write_caption
from gradcam_callback.drawing.heatmap import Map, Pixels, blend, paint, scale
from gradcam_callback.drawing.input_image import InputImage
from gradcam_callback.drawing.layout import place_columns
from gradcam_callback.drawing.style import Style
from gradcam_callback.drawing.text import line_width, write_line
from gradcam_callback.formatting import two_digits
from gradcam_callback.layer_names import block_of

# Least width of a probe panel and of its columns, in pixels: the text above them needs this room.
LEAST_WIDTH, LEAST_COLUMN = 600, 60
# Height of a probe panel's caption, and of the three lines above its columns: block, layer and maximum.
CAPTION, NAMES = 5 * GRID, 3 * GRID
# Least width of the columns of a layer panel: for a prediction of ordinary length, and for long ones. With the second,
# five images fit side by side.
PREDICTION, LONG_PREDICTION = 108, 188


class ProbePanel:
    """One image through all layers: the input at the left, then a column per layer, heatmap above overlay.

    Args:
        images: All images of the run, of one shape.
        layers: Names in the order of the columns.
        style: Size and colours.
        max_width: Width in pixels. Blocks that do not fit go on below. None keeps all columns in one line.
    """

    def __init__(
        self,
        images: Sequence[InputImage],
        layers: Sequence[str],
        style: Style,
        max_width: int | None = PANEL_WIDTH,
    ) -> None:
        self._images, self._style = images, style
        self._cell = width, height = images[0].fit(style.cell)
        # A little larger than the maps, so that the outlined object can be recognised.
        self._input_size = images[0].fit(round(style.cell * 1.25))
        self._column = max(width, LEAST_COLUMN)
        self._input_column = max(self._input_size[0], colour_bar_width(style))
        left = on_grid(MARGIN + self._input_column + GAP)
        places, right = place_columns(layers, left, self._column, max_width)
        pitch = NAMES + 2 * (height + GAP) + GRID
        # The place of each layer's heatmap. Its overlay stands below.
        self._places = {
            layer: (x, CAPTION + line * pitch + NAMES) for layer, (line, x) in zip(layers, places, strict=True)
        }
        self._input_place = MARGIN, CAPTION + NAMES
        bar = MARGIN, on_grid(CAPTION + NAMES + self._input_size[1] + GAP)
        bottom = CAPTION + (max(line for line, _ in places) + 1) * pitch
        self._base = self._draw_base(max(right + MARGIN, LEAST_WIDTH), max(bottom, bar[1] + 3 * GRID), bar)

    @property
    def input_box(self) -> Box:
        """Return the place of the input: left, top, right and bottom in pixels."""
        (left, top), (width, height) = self._input_place, self._input_size
        return left, top, left + width, top + height

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
            i: Index of the image.
            maps: Layer -> raw map ``(h, w)``.
            caption: Text above the panel.
            vmax: Layer -> raw value of the hottest colour. None takes the maximum of each map.
        """
        canvas, image = self._base.copy(), self._images[i]
        # All pixels come before all text: text is written on a PIL image, and converting back and forth costs time.
        put(canvas, framed(image.outlined(*self._input_size), caption.frame_colour), self._input_place)
        for layer, place in self._places.items():
            self._put_map(canvas, image, maps[layer], place, (vmax or {}).get(layer))
        sheet = Image.fromarray(canvas)
        for layer, (x, y) in self._places.items():
            write(sheet, two_digits(float(maps[layer].max())), (x, y - GRID), SMALL, FAINT, self._column)
        write_caption(sheet, caption, sheet.width - 2 * MARGIN)
        return sheet

    def _draw_base(self, width: int, height: int, bar: Place) -> Pixels:
        """Draw everything that is the same for all images and entries."""
        canvas = blank(width, height)
        draw_colour_bar(canvas, bar, self._input_column, self._style)
        sheet = Image.fromarray(canvas)
        write(sheet, "input", (MARGIN, CAPTION + GRID), LABEL, FAINT, self._input_column)
        # This names the numbers above the columns, which stand on the same line.
        write(sheet, "map's maximum", (MARGIN, CAPTION + 2 * GRID), SMALL, FAINT, self._input_column)
        label_colour_bar(sheet, bar, self._input_column, self._style)
        previous = ""
        for layer, (x, y) in self._places.items():
            block = block_of(layer)
            if block and block != previous:
                write(sheet, block, (x, y - NAMES), LABEL, INK, self._column)
            previous = block
            short = layer[len(block) + 1 :] if block else layer
            write(sheet, short, (x, y - NAMES + GRID), LABEL, FAINT, self._column)
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


class LayerPanel:
    """One layer on all images: the overlays with the masks outlined, and the predictions below.

    Args:
        images: N images of one shape.
        style: Size and colours.
        texts: Texts that may stand below an image. Long texts move the images apart.
    """

    def __init__(self, images: Sequence[InputImage], style: Style, texts: Sequence[str] = ()) -> None:
        self._images, self._style = images, style
        self._cell = width, height = images[0].fit(style.cell + GAP)
        longest = max((line_width(text, LABEL) for text in texts), default=0)
        pitch = on_grid(max(width, PREDICTION, min(longest, LONG_PREDICTION)) + GAP)
        self._text_width = pitch - GAP
        # The gap behind the last image of a row may lie in the margin.
        most = max(1, (PANEL_WIDTH - 2 * MARGIN + GRID) // pitch)
        # As few rows as possible, and then as few images in a row, so that the last row is hardly shorter.
        rows = -(-len(images) // most)
        per_row = -(-len(images) // rows)
        top, row_height = 3 * GRID, on_grid(height) + 3 * GRID
        self._places = [(MARGIN + i % per_row * pitch, top + i // per_row * row_height) for i in range(len(images))]
        bar_width = colour_bar_width(style)
        canvas = blank(max(MARGIN + per_row * pitch, 2 * bar_width + 200), top + rows * row_height)
        self._title_width = canvas.shape[1] - bar_width - 3 * MARGIN
        bar = canvas.shape[1] - bar_width - MARGIN, MARGIN + 2
        draw_colour_bar(canvas, bar, bar_width, style)
        sheet = Image.fromarray(canvas)
        label_colour_bar(sheet, bar, bar_width, style)
        self._base = np.asarray(sheet)

    def draw(
        self, layer: str, maps: Map, captions: Sequence[Caption], vmax: Mapping[str, float] | None = None
    ) -> Image.Image:
        """Draw the panel of one layer.

        Args:
            layer: Name of the layer.
            maps: Raw maps ``(N, h, w)``.
            captions: N texts.
            vmax: Layer -> raw value of the hottest colour. None takes the maximum of each map.
        """
        canvas, (width, height) = self._base.copy(), self._cell
        heat = scale(maps, width, height, smooth=True, vmax=(vmax or {}).get(layer))
        for image, values, caption, place in zip(self._images, heat, captions, self._places, strict=True):
            overlay = blend(image.grey(width, height), values, self._style.colormap)
            overlay = image.outline(label_if_empty(overlay, values))
            put(canvas, framed(overlay, caption.frame_colour), place)
        sheet = Image.fromarray(canvas)
        self._write_title(sheet, layer, float(maps.max()))
        for caption, (left, y) in zip(captions, self._places, strict=True):
            write(sheet, caption.title, (left, y + height + 2), LABEL, INK, self._text_width)
            prediction = caption.format_prediction(LABEL, self._text_width)
            write_line(sheet, prediction, (left, y + height + GRID + 2), LABEL, caption.text_colour)
        return sheet

    def _write_title(self, sheet: Image.Image, layer: str, maximum: float) -> None:
        """Write the name of the layer and the maximum of its maps."""
        strength = f"maps up to {two_digits(maximum)}"
        name = cut(layer, TITLE, self._title_width - TITLE_GAP - line_width(strength, LABEL))
        write_line(sheet, name, (MARGIN, MARGIN), TITLE, INK)
        # 6 pixels lower, so that the small text stands on the line of the large text.
        write_line(sheet, strength, (MARGIN + line_width(name, TITLE) + TITLE_GAP, MARGIN + 6), LABEL, FAINT)
