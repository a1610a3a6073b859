"""One image over the training, as one sheet or as the frames of an animation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from gradcam_callback.drawing.canvas import (
    BLOCK_GAP,
    FAINT,
    GAP,
    GRID,
    INK,
    LABEL,
    MARGIN,
    SMALL,
    TITLE,
    blank,
    colour_bar_width,
    draw_colour_bar,
    label_colour_bar,
    label_if_empty,
    on_grid,
    put,
    write,
)
from gradcam_callback.drawing.heatmap import Map, Pixels, blend, scale
from gradcam_callback.drawing.input_image import InputImage
from gradcam_callback.drawing.layout import break_name
from gradcam_callback.drawing.style import Style
from gradcam_callback.drawing.text import append_left_to_right, line_width, write_line
from gradcam_callback.formatting import percent
from gradcam_callback.layer_names import block_of, last_of_blocks

# Least width of a strip's column and of an animation's, in pixels: the text above them needs this room.
STRIP_COLUMN, FRAME_COLUMN = 40, 104
# Least and largest width of a strip's layer names, and least width of the text between the input and the first column.
NAMES, LONG_NAMES, BESIDE_INPUT = 176, 384, 96
# Height of the text above an animation if names take one line, and its least width, in pixels; and the number of
# overlays in a frame.
FRAME_HEADER, LEAST_FRAME_WIDTH, MOST_LAYERS = 74, 420, 6


class EvolutionStrip:
    """One image over the training: the input, then a row per layer and a column per entry, all overlays.

    Args:
        images: all images of the run, of one shape.
        layers: names in the order of the rows.
        style: size and colours.
    """

    def __init__(self, images: Sequence[InputImage], layers: Sequence[str], style: Style) -> None:
        self._images, self._style = images, style
        # Smaller than in a panel, so that twelve columns fit into an image card.
        self._cell = width, height = images[0].fit(round(style.cell_size * 0.58))
        self._column = max(width, STRIP_COLUMN)
        longest = max(line_width(layer, LABEL) for layer in layers)
        self._names = max(NAMES, width + BESIDE_INPUT, min(on_grid(longest + 2 * GAP), LONG_NAMES))
        self._input_top = y = 3 * GRID
        y += on_grid(max(height + GAP, 3 * GRID))
        self._headings_top = y - 3 * GRID + 4
        self._rows: dict[str, int] = {}
        previous = block_of(layers[0])
        for layer in layers:
            block = block_of(layer)
            y += BLOCK_GAP - GAP if block != previous else 0
            previous = block
            self._rows[layer] = y
            y += max(height, LABEL) + GAP
        self._height = y + MARGIN

    def draw(
        self,
        i: int,
        name: str,
        explained: str,
        headings: Sequence[str],
        probabilities: Sequence[float],
        maps: Mapping[str, Map],
        vmax: Mapping[str, float] | None = None,
    ) -> Image.Image:
        """Draw the strip of image ``i`` over T entries.

        Args:
            i: index of the image.
            name: name of the image.
            explained: name of the class that the maps explain.
            headings: T texts above the columns, such as the epochs.
            probabilities: T probabilities of the explained class, 0..1.
            maps: layer -> raw maps ``(T, h, w)``.
            vmax: layer -> raw value of the hottest colour. None takes the maximum of each map.
        """
        bar_width = colour_bar_width(self._style)
        lefts = [MARGIN + self._names + column * (self._column + GAP) for column in range(len(headings))]
        canvas = blank(max(lefts[-1] + self._column + MARGIN, bar_width + 320), self._height)
        bar = canvas.shape[1] - bar_width - MARGIN, MARGIN + 2
        draw_colour_bar(canvas, bar, bar_width, self._style)
        put(canvas, self._images[i].outlined(*self._cell), (MARGIN, self._input_top))
        self._put_overlays(canvas, self._images[i], lefts, maps, vmax or {})
        sheet = Image.fromarray(canvas)
        label_colour_bar(sheet, bar, bar_width, self._style)
        title = append_left_to_right(name, ", by epoch")
        write(sheet, title, (MARGIN, MARGIN), TITLE, INK, bar[0] - 2 * MARGIN)
        # A score of the user's own target has no probability.
        has_probability = not all(map(math.isnan, probabilities))
        self._write_rows(sheet, f"p({explained})" if has_probability else explained)
        self._write_columns(sheet, lefts, headings, probabilities)
        return sheet

    def _put_overlays(
        self,
        canvas: Pixels,
        image: InputImage,
        lefts: Sequence[int],
        maps: Mapping[str, Map],
        vmax: Mapping[str, float],
    ) -> None:
        width, height = self._cell
        for layer, y in self._rows.items():
            heat = scale(maps[layer], width, height, smooth=True, vmax=vmax.get(layer))
            overlays = blend(image.grey(width, height), heat, self._style.colormap)
            for left, overlay, values in zip(lefts, overlays, heat, strict=True):
                put(canvas, label_if_empty(overlay, values), (left, y))

    def _write_rows(self, sheet: Image.Image, explained: str) -> None:
        """Write the names of the layers, and beside the input the meaning of the two lines above the columns."""
        width, height = self._cell
        beside, room = MARGIN + width + 10, self._names - width - 16
        write(sheet, "epoch", (beside, self._headings_top), LABEL, INK, room)
        write(sheet, explained, (beside, self._headings_top + GRID), LABEL, FAINT, room)
        for layer, y in self._rows.items():
            lines = break_name(layer, self._names - 6, max(1, height // GRID))
            for number, line in enumerate(lines):
                top = y + height // 2 - 9 + number * GRID - (len(lines) - 1) * GRID // 2
                write_line(sheet, line, (MARGIN, top), LABEL, INK)

    def _write_columns(
        self, sheet: Image.Image, lefts: Sequence[int], headings: Sequence[str], probabilities: Sequence[float]
    ) -> None:
        """Write the heading and the probability of each column, centred above its overlays."""
        for left, heading, probability in zip(lefts, headings, probabilities, strict=True):
            lines = (heading, INK), ("" if math.isnan(probability) else percent(probability), FAINT)
            for number, (text, colour) in enumerate(lines):
                indent = max(0, (self._cell[0] - line_width(text, SMALL)) // 2)
                write_line(sheet, text, (left + indent, self._headings_top + number * GRID), SMALL, colour)


class Animation:
    """One image over the training as frames: the input, and the overlays of the last layer of each block.

    Args:
        images: all images of the run, of one shape.
        layers: names from input to output. Only the six deepest blocks are drawn.
        style: size and colours.
    """

    def __init__(self, images: Sequence[InputImage], layers: Sequence[str], style: Style) -> None:
        self._images, self._style = images, style
        self._cell = images[0].fit(round(style.cell_size * 1.4))
        self._layers = last_of_blocks(layers)[-MOST_LAYERS:]
        self._column = max(self._cell[0], FRAME_COLUMN)
        self._lefts = [MARGIN + i * (self._column + GAP) for i in range(len(self._layers) + 1)]
        self._headings = [break_name(name, self._column) for name in ("input", *self._layers)]
        self._top = MARGIN + FRAME_HEADER + (max(map(len, self._headings)) - 1) * GRID

    def frames(
        self,
        i: int,
        name: str,
        explained: str,
        headings: Sequence[str],
        probabilities: Sequence[float],
        maps: Mapping[str, Map],
        vmax: Mapping[str, float] | None = None,
    ) -> list[Image.Image]:
        """Draw one frame per entry, with the arguments of `EvolutionStrip.draw`."""
        base = self._draw_base(self._images[i], name)
        frames = []
        for entry, (heading, probability) in enumerate(zip(headings, probabilities, strict=True)):
            canvas = np.array(base)
            for left, layer in zip(self._lefts[1:], self._layers, strict=True):
                overlay = self._draw_overlay(self._images[i], maps[layer][entry], (vmax or {}).get(layer))
                put(canvas, overlay, (left, self._top))
            frame = Image.fromarray(canvas)
            share = "" if math.isnan(probability) else f"{percent(probability)} "
            text = f"epoch {heading}:  {share}{explained}"
            write(frame, text, (MARGIN, MARGIN + 26), LABEL, INK, frame.width - 2 * MARGIN)
            frames.append(frame)
        return frames

    def _draw_base(self, image: InputImage, name: str) -> Image.Image:
        """Draw everything that is the same in all frames."""
        width, height = self._cell
        canvas = blank(max(self._lefts[-1] + self._column + MARGIN, LEAST_FRAME_WIDTH), self._top + height + MARGIN)
        put(canvas, image.outlined(width, height), (self._lefts[0], self._top))
        sheet = Image.fromarray(canvas)
        write(sheet, name, (MARGIN, MARGIN), TITLE, INK, sheet.width - 2 * MARGIN)
        for left, lines in zip(self._lefts, self._headings, strict=True):
            for number, line in enumerate(reversed(lines)):
                write_line(sheet, line, (left, self._top - 22 - number * GRID), LABEL, FAINT)
        return sheet

    def _draw_overlay(self, image: InputImage, raw: Map, vmax: float | None) -> Pixels:
        values = scale(raw, *self._cell, smooth=True, vmax=vmax)
        return label_if_empty(blend(image.grey(*self._cell), values, self._style.colormap), values)
