"""One image of an entry that can be read in a narrow card: the verdict, and a few probe images through the blocks.

TensorBoard shows an image 350 pixels wide until somebody enlarges it. So this image is twice as wide, and its letters
are twice as large as they have to be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from gradcam_callback.drawing.canvas import (
    CORRECT,
    FAINT,
    GAP,
    GRID,
    INK,
    MARGIN,
    PAPER,
    WRONG,
    Colour,
    Place,
    blank,
    cut,
    framed,
    on_grid,
    put,
    write,
)
from gradcam_callback.drawing.caption import Caption
from gradcam_callback.drawing.heatmap import Map, Pixels, blend, scale
from gradcam_callback.drawing.input_image import InputImage
from gradcam_callback.drawing.sheets import wrap
from gradcam_callback.drawing.style import Style
from gradcam_callback.drawing.text import append_left_to_right, line_width, write_line
from gradcam_callback.layer_names import block_of, pick_layers

# With more images the sheet would be higher than a screen.
MOST_IMAGES = 8
# The width of the sheet, the most that all rows together may take of its height, and the least width of a column.
WIDTH, ROWS, COLUMN = 704, 1280, 112
# The height of the tallest cell in multiples of its width: that of a photograph in portrait.
TALLEST = 4 / 3
# Sizes of the text, and the heights of their lines, in pixels. A card shows half of them.
TEXT, LARGE = 26, 32
LINE, LARGE_LINE = 32, 40
# The lines of the longest verdict: of its judgement, and of its accuracies.
JUDGEMENT, ACCURACIES = 2, 3
# The thickness of the frame around an input, and of the outline of a mask, in pixels.
FRAME, THICK = 6, 2
# What stands between a name and the prediction.
COLON = ":  "


class Overview:
    """A few images through the last layer of each block, below the verdict.

    Args:
        images: At most `MOST_IMAGES`, of one shape.
        layers: Names from input to output. A few of them are drawn, see `pick_layers`.
        style: Its colours. The size is always the same.
        judged: True leaves room for the headline of a verdict.

    Attributes:
        layers: The names of those that are drawn.
    """

    def __init__(self, images: Sequence[InputImage], layers: Sequence[str], style: Style, judged: bool) -> None:
        self._images, self._style = images, style
        self.layers = pick_layers(layers)
        cells = len(self.layers) + 1
        # Few cells would be needlessly large. So two images stand side by side, with two lines of text above each.
        self._text_lines = abreast = 2 if cells <= 3 and len(images) > 1 else 1
        rows = -(-len(images) // abreast)
        share = (WIDTH - 2 * MARGIN) // abreast // GRID * GRID
        self._text_width = share if abreast == 1 else share - 2 * GRID
        # As large as the width admits, unless the rows are then higher than a screen.
        pitches = range(share // cells // GRID * GRID, COLUMN, -GRID)
        self._pitch = next((pitch for pitch in pitches if rows * self._row_height(pitch) <= ROWS), COLUMN)
        self._cell = self._fit(self._pitch)
        headings = [["input"], *_head(self.layers, layers, self._pitch - GAP)]
        self._headings_top = MARGIN + GRID
        self._headings_top += JUDGEMENT * LARGE_LINE + ACCURACIES * LINE if judged else LARGE_LINE
        top, row_height = self._headings_top + max(map(len, headings)) * LINE + 3 * GAP, self._row_height(self._pitch)
        # The images stand on the grid, and the text above them.
        top = on_grid(top + self._text_lines * LINE) - self._text_lines * LINE
        self._places = [(MARGIN + i % abreast * share, top + i // abreast * row_height) for i in range(len(images))]
        self._note_top = top + rows * row_height
        self._base = self._draw_base(headings, [MARGIN + i * share for i in range(abreast)])

    def draw(
        self,
        maps: Mapping[str, Map],
        captions: Sequence[Caption],
        title: str,
        note: str,
        suspected: bool | None = None,
        vmax: Mapping[str, float] | None = None,
    ) -> Image.Image:
        """Draw the overview of one entry.

        Args:
            maps: Layer -> raw maps ``(N, h, w)`` of the images.
            captions: N texts.
            title: The headline of a verdict, or a short text. What stands before its first colon is written large.
            note: A line below the images.
            suspected: True writes the judgement in red, False in green, None in grey.
            vmax: Layer -> raw value of the hottest colour. None takes the maximum of each map.
        """
        canvas = self._base.copy()
        for i, (image, caption, (left, top)) in enumerate(zip(self._images, captions, self._places, strict=True)):
            top += self._text_lines * LINE
            put(canvas, framed(image.resized(*self._cell), caption.frame_colour, FRAME), (left, top))
            for number, layer in enumerate(self.layers, start=1):
                overlay = self._draw_overlay(image, maps[layer][i], (vmax or {}).get(layer))
                put(canvas, overlay, (left + number * self._pitch, top))
        sheet = Image.fromarray(canvas)
        _write_title(sheet, title, {None: FAINT, False: CORRECT, True: WRONG}[suspected])
        for caption, place in zip(captions, self._places, strict=True):
            self._write_caption(sheet, caption, place)
        write(sheet, note, (MARGIN, self._note_top), TEXT, FAINT, WIDTH - 2 * MARGIN)
        return sheet

    def _draw_base(self, headings: Sequence[Sequence[str]], lefts: Sequence[int]) -> Pixels:
        """Draw the headings of the columns, which are the same at all entries."""
        sheet = Image.fromarray(blank(WIDTH, self._note_top + LINE + MARGIN))
        for left in lefts:
            for column, lines in enumerate(headings):
                for number, line in enumerate(lines):
                    place = left + column * self._pitch, self._headings_top + number * LINE
                    write_line(sheet, line, place, TEXT, FAINT)
        return np.asarray(sheet)

    def _draw_overlay(self, image: InputImage, raw: Map, vmax: float | None) -> Pixels:
        values = scale(raw, *self._cell, smooth=True, vmax=vmax)
        overlay = image.outline(blend(image.grey(*self._cell), values, self._style.colormap), THICK)
        if values.any():
            return overlay
        # `label_if_empty` writes letters that are too small for a card.
        sheet = Image.fromarray(overlay)
        width, height = self._cell
        wide = line_width("empty", TEXT)
        place = max(0, (width - wide) // 2), max(0, (height - LINE) // 2)
        # The outline of the mask is as bright as the letters.
        sheet.paste(INK, (place[0] - 3, place[1], place[0] + wide + 3, place[1] + LINE))
        write(sheet, "empty", place, TEXT, PAPER, width)
        return np.asarray(sheet)

    def _write_caption(self, sheet: Image.Image, caption: Caption, place: Place) -> None:
        """Write the name of an image and its prediction, on one line or on two."""
        (left, top), width = place, self._text_width
        if self._text_lines == 2:
            write(sheet, caption.title, place, TEXT, INK, width)
            top += LINE
        else:
            # Each keeps half of the line, or its whole text.
            prediction = line_width(caption.prediction + caption.certainty, TEXT)
            room = max(width // 2, width - prediction) - line_width(COLON, TEXT)
            name = append_left_to_right(cut(caption.title, TEXT, room), COLON)
            write_line(sheet, name, place, TEXT, INK)
            left, width = left + line_width(name, TEXT), width - line_width(name, TEXT)
        write_line(sheet, caption.format_prediction(TEXT, width), (left, top), TEXT, caption.text_colour)

    def _fit(self, pitch: int) -> tuple[int, int]:
        """Return the width and height of a cell in a column of this width."""
        height, width = self._images[0].pixels.shape[:2]
        return self._images[0].fit(round((pitch - 2 * GAP) * min(max(1.0, height / width), TALLEST)))

    def _row_height(self, pitch: int) -> int:
        return on_grid(self._text_lines * LINE + self._fit(pitch)[1] + GRID)


def _write_title(sheet: Image.Image, title: str, colour: Colour) -> None:
    """Write a headline: its judgement large and in colour, and then the rest."""
    judgement, colon, rest = title.partition(": ")
    top, width = MARGIN, WIDTH - 2 * MARGIN
    for line in _wrap(judgement + colon, LARGE, JUDGEMENT):
        write(sheet, line, (MARGIN, top), LARGE, colour, width)
        top += LARGE_LINE
    for line in _wrap(rest, TEXT, ACCURACIES):
        write(sheet, line, (MARGIN, top), TEXT, INK, width)
        top += LINE


def _wrap(text: str, size: int, most: int) -> list[str]:
    """Break a text into at most so many lines."""
    lines = wrap(text, size, WIDTH - 2 * MARGIN)
    return lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1]} …"]


def _spell_block(layer: str) -> str:
    """Return the heading of a layer: ``"block5_conv3"`` -> ``"block 5"``; any other name stays."""
    block = block_of(layer)
    number = block.rpartition("block")[2]
    return f"{block.removesuffix(number)} {number}" if block else layer


def _head(shown: Sequence[str], layers: Sequence[str], width: int) -> list[list[str]]:
    """Return the lines of the heading of each layer that is shown, of a width in pixels. No two of them are the same.

    Args:
        shown: Some of the layers.
        layers: All of them, which number those whose names are too long to be told apart.
    """
    names = [_spell_block(layer) for layer in shown]
    headings = [_break_name(name, width) for name in names]
    if len(names) > 1 and any("…" in line for lines in headings for line in lines):
        headings = [_break_name(name, width) for name in _drop_common(names)]
    if len(set(map(tuple, headings))) < len(headings):
        headings = [[f"layer {layers.index(layer) + 1}"] for layer in shown]
    return headings


def _drop_common(names: Sequence[str]) -> list[str]:
    """Leave out the words that all names begin with, and those that all end with."""
    words = [re.findall(r"[^._]*[._]?", name)[:-1] for name in names]
    first = len(os.path.commonprefix(words))
    last = len(os.path.commonprefix([own[first:][::-1] for own in words]))
    kept = ["".join(own[first : len(own) - last]) for own in words]
    return [f"{'…' if first else ''}{part.rstrip('._') if last else part}{'…' if last else ''}" for part in kept]


def _break_name(name: str, width: int) -> list[str]:
    """Break a name into one or two lines of a width in pixels, the second of them behind a point or an underscore."""
    if line_width(name, TEXT) <= width:
        return [name]
    cuts = [i + 1 for i, char in enumerate(name[:-1]) if char in "._"]
    if not cuts:
        return [cut(name, TEXT, width)]
    halves = [(name[:i].removesuffix("."), name[i:]) for i in cuts]
    best = min(halves, key=lambda lines: max(line_width(line, TEXT) for line in lines))
    return [cut(line, TEXT, width) for line in best]
