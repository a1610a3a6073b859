"""Panels: heatmaps beside their images. Each kind is laid out once per run, and then only filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from PIL import Image

from gradcam_callback.drawing.canvas import (
    BLOCK_GAP,
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
    Box,
    Colour,
    InputImage,
    Place,
    Style,
    bar_width,
    blank,
    colour_bar,
    cut,
    framed,
    label_colour_bar,
    marked,
    on_grid,
    put,
    write,
)
from gradcam_callback.drawing.heatmap import Map, Pixels, overlay, paint, scale
from gradcam_callback.drawing.text import append_left_to_right, line_width, write_line
from gradcam_callback.formatting import percent, two_digits
from gradcam_callback.layer_names import block_of

VMax = Mapping[str, float]
TITLE_GAP, LEAST_WIDTH = 28, 600
# The least width, in pixels, of a column of a probe panel, of a strip and of an animation: that of the words above it.
COLUMN, STRIP_COLUMN, FRAME_COLUMN = 60, 40, 104
# The least and the most of a layer panel's: that of an ordinary answer, and that with which five stand side by side.
ANSWER, LONG_ANSWER = 108, 188


@dataclass(frozen=True)
class Caption:
    """What is written beside one image: its name, its label, what the network says and how surely (0..1).

    ``label`` and ``correct`` are None where the label is unknown, and nothing is then called right or wrong.
    """

    name: str
    label: str | None
    prediction: str
    correct: bool | None
    probability: float
    explained: str
    explained_probability: float

    def answer(self, size: int, width: int) -> str:
        """The network's answer, with its sign, ``"heart 87 % ✓"``; in a narrow line only the name is cut."""
        sure = f" {percent(self.probability)}" + {None: "", True: " ✓", False: " ✗"}[self.correct]
        return append_left_to_right(cut(self.prediction, size, width - line_width(sure, size)), sure)

    @property
    def title(self) -> str:
        """The name, and the label where the name does not say it."""
        return (
            self.name
            if self.label is None or self.label in self.name
            else append_left_to_right(self.name, f" ({self.label})")
        )

    @property
    def frame(self) -> Colour | None:
        """The colour of right or wrong, where that can be said."""
        return {None: None, True: CORRECT, False: WRONG}[self.correct]

    @property
    def colour(self) -> Colour:
        """Of the answer: a wrong one stands out."""
        return WRONG if self.correct is False else INK


class ProbePanel:
    """One image through all layers: the input at the left, then a column per layer, heatmap above, overlay below.

    Args:
        pictures: of one shape.
        layers: in the order of the columns.
        max_width: in pixels; whole blocks go on below where the sheet would be wider. None keeps all in one line.
    """

    def __init__(
        self,
        pictures: Sequence[InputImage],
        layers: Sequence[str],
        style: Style,
        max_width: int | None = PANEL_WIDTH,
    ) -> None:
        self._pictures, self._style = pictures, style
        self._cell = width, height = pictures[0].fit(style.cell)
        self._input = pictures[0].fit(round(style.cell * 1.25))
        input_column = max(self._input[0], bar_width(style))
        left = on_grid(MARGIN + input_column + GAP)
        # The columns of tall images are wide enough for the words above them.
        places, right = columns(layers, left, max(width, COLUMN), max_width)
        top, names = 5 * GRID, 3 * GRID
        step = names + 2 * (height + GAP) + GRID
        # Where each layer's heatmap stands; its overlay stands below.
        self._places = {layer: (x, top + line * step + names) for layer, (line, x) in zip(layers, places, strict=True)}
        self._left = MARGIN, top + names
        lines = max(line for line, _ in places) + 1
        bar = MARGIN, on_grid(top + names + self._input[1] + GAP)
        canvas = blank(max(right + MARGIN, LEAST_WIDTH), max(top + lines * step, bar[1] + 3 * GRID))
        colour_bar(canvas, bar, input_column, style)
        sheet = Image.fromarray(canvas)
        write(sheet, "input", (MARGIN, top + GRID), LABEL, FAINT, input_column)
        write(sheet, "map's maximum", (MARGIN, top + 2 * GRID), SMALL, FAINT, input_column)
        label_colour_bar(sheet, bar, input_column, style)
        previous = ""
        for layer, (x, y) in self._places.items():
            block = block_of(layer)
            if block and block != previous:
                write(sheet, block, (x, y - names), LABEL, INK, max(width, COLUMN))
            previous = block
            word = layer[len(block) + 1 :] if block else layer
            write(sheet, word, (x, y - names + GRID), LABEL, FAINT, max(width, COLUMN))
        self._base = np.asarray(sheet)

    @property
    def overlay_boxes(self) -> dict[str, Box]:
        """Where each layer's overlay stands: left, top, right and bottom in pixels."""
        width, height = self._cell
        return {layer: (x, y + height + GAP, x + width, y + 2 * height + GAP) for layer, (x, y) in self._places.items()}

    @property
    def input_box(self) -> Box:
        """Where the input stands."""
        (left, top), (width, height) = self._left, self._input
        return left, top, left + width, top + height

    def draw(self, i: int, maps: Mapping[str, Map], caption: Caption, vmax: VMax | None = None) -> Image.Image:
        """Fill in picture ``i``.

        Args:
            maps: layer name -> raw map ``(h, w)``.
            vmax: with ``scaling="run"``, the value of each layer that is the hottest.
        """
        canvas, picture = self._base.copy(), self._pictures[i]
        width, height = self._cell
        grey = picture.grey(width, height)
        put(canvas, framed(picture.outlined(*self._input), caption.frame), self._left)
        for layer, (x, y) in self._places.items():
            raw, most = maps[layer], (vmax or {}).get(layer)
            blocks = scale(raw, width, height, smooth=False, vmax=most)
            smooth = scale(raw, width, height, smooth=True, vmax=most)
            put(canvas, marked(paint(blocks, self._style.colormap), blocks), (x, y))
            put(canvas, marked(overlay(grey, smooth, self._style.colormap), blocks), (x, y + height + GAP))
        sheet = Image.fromarray(canvas)
        for layer, (x, y) in self._places.items():
            write(sheet, two_digits(float(maps[layer].max())), (x, y - GRID), SMALL, FAINT, max(width, COLUMN))
        _write_title(sheet, caption, sheet.width - 2 * MARGIN)
        return sheet


class LayerPanel:
    """One layer on every image: its overlay, with the mask outlined, and the network's answer below.

    Args:
        pictures: N of one shape.
        words: what may stand below one; where these are long, the images stand further apart.
    """

    def __init__(self, pictures: Sequence[InputImage], style: Style, words: Sequence[str] = ()) -> None:
        self._pictures, self._style = pictures, style
        self._cell = width, height = pictures[0].fit(style.cell + GAP)
        longest = max((line_width(word, LABEL) for word in words), default=0)
        column = max(width, ANSWER, min(longest, LONG_ANSWER))
        step_x, step_y = on_grid(column + GAP), on_grid(height) + 3 * GRID
        most = max(1, (PANEL_WIDTH - 2 * MARGIN + GRID) // step_x)
        across = -(-len(pictures) // -(-len(pictures) // most))
        top = 3 * GRID
        self._places = [(MARGIN + i % across * step_x, top + i // across * step_y) for i in range(len(pictures))]
        self._room = step_x - GAP
        rows = -(-len(pictures) // across)
        wide = bar_width(style)
        self._base = blank(max(MARGIN + across * step_x, 2 * wide + 200), top + rows * step_y)
        self._title_width = self._base.shape[1] - wide - 3 * MARGIN
        bar = self._base.shape[1] - wide - MARGIN, MARGIN + 2
        colour_bar(self._base, bar, wide, style)
        sheet = Image.fromarray(self._base)
        label_colour_bar(sheet, bar, wide, style)
        self._base = np.asarray(sheet)

    def draw(self, layer: str, maps: Map, captions: Sequence[Caption], vmax: VMax | None = None) -> Image.Image:
        """Fill in a layer.

        Args:
            maps: ``(N, h, w)``, raw.
            vmax: with ``scaling="run"``, the value of each layer that is the hottest.
        """
        canvas, (width, height) = self._base.copy(), self._cell
        heat = scale(maps, width, height, smooth=True, vmax=(vmax or {}).get(layer))
        for picture, values, caption, place in zip(self._pictures, heat, captions, self._places, strict=True):
            seen = marked(overlay(picture.grey(width, height), values, self._style.colormap), values)
            seen = picture.outline(seen)
            put(canvas, framed(seen, caption.frame), place)
        sheet = Image.fromarray(canvas)
        most = f"maps up to {two_digits(float(maps.max()))}"
        name = cut(layer, TITLE, self._title_width - TITLE_GAP - line_width(most, LABEL))
        write_line(sheet, name, (MARGIN, MARGIN), TITLE, INK)
        write_line(sheet, most, (MARGIN + line_width(name, TITLE) + TITLE_GAP, MARGIN + 6), LABEL, FAINT)
        for caption, (left, y) in zip(captions, self._places, strict=True):
            write(sheet, caption.title, (left, y + height + 2), LABEL, INK, self._room)
            answer = caption.answer(LABEL, self._room)
            write_line(sheet, answer, (left, y + height + GRID + 2), LABEL, caption.colour)
        return sheet


@dataclass(frozen=True)
class Column:
    """One logged epoch of one image: what stands above it, and layer name -> map ``(h, w)``.

    ``probability``, 0..1, is that of the class that the maps explain.
    """

    heading: str
    probability: float
    maps: Mapping[str, Map]


class EvolutionStrip:
    """One image over the training: the input, then a row per layer and a column per logged epoch, overlays.

    Args:
        pictures: of one shape.
    """

    # The least width, in pixels, of the column of names, and of what stands beside the input.
    NAMES, BESIDE = 176, 96

    def __init__(self, pictures: Sequence[InputImage], layers: Sequence[str], style: Style) -> None:
        self._pictures, self._style = pictures, style
        self._cell = pictures[0].fit(round(style.cell * 0.58))
        width, height = self._cell
        self._names = max(self.NAMES, width + self.BESIDE)
        self._top = y = 3 * GRID + on_grid(max(height + GAP, 3 * GRID))
        blocks = [block_of(layer) for layer in layers]
        self._rows: dict[str, int] = {}
        for i, layer in enumerate(layers):
            y += BLOCK_GAP - GAP if i and blocks[i] != blocks[i - 1] else 0
            self._rows[layer] = y
            y += height + GAP
        self._height = y + MARGIN

    def draw(
        self, i: int, name: str, explained: str, columns: Sequence[Column], vmax: VMax | None = None
    ) -> Image.Image:
        """InputImage ``i`` over the columns.

        Args:
            explained: the class that the maps explain.
            vmax: with ``scaling="run"``, the value of each layer that is the hottest.
        """
        width, height = self._cell
        picture, grey, wide = self._pictures[i], self._pictures[i].grey(*self._cell), bar_width(self._style)
        column_width = max(width, STRIP_COLUMN)
        lefts = [MARGIN + self._names + column * (column_width + GAP) for column in range(len(columns))]
        canvas = blank(max(lefts[-1] + column_width + MARGIN, wide + 320), self._height)
        bar = canvas.shape[1] - wide - MARGIN, MARGIN + 2
        colour_bar(canvas, bar, wide, self._style)
        put(canvas, picture.outlined(width, height), (MARGIN, 3 * GRID))
        for layer, y in self._rows.items():
            raw = np.stack([column.maps[layer] for column in columns])
            heat = scale(raw, width, height, smooth=True, vmax=(vmax or {}).get(layer))
            for left, seen, values in zip(lefts, overlay(grey, heat, self._style.colormap), heat, strict=True):
                put(canvas, marked(seen, values), (left, y))
        sheet = Image.fromarray(canvas)
        label_colour_bar(sheet, bar, wide, self._style)
        write(sheet, append_left_to_right(name, ", by epoch"), (MARGIN, MARGIN), TITLE, INK, bar[0] - 2 * MARGIN)
        beside = MARGIN + width + 10
        for line, heading in enumerate(("epoch", f"p({explained})")):
            place = beside, self._top - 3 * GRID + 4 + GRID * line
            write(sheet, heading, place, LABEL, (INK, FAINT)[line], self._names - width - 16)
        for layer, y in self._rows.items():
            write(sheet, layer, (MARGIN, y + height // 2 - 9), LABEL, INK, self._names - 6)
        for left, column in zip(lefts, columns, strict=True):
            for text, y, colour in (
                (column.heading, self._top - 3 * GRID + 4, INK),
                (percent(column.probability), self._top - 2 * GRID + 4, FAINT),
            ):
                write_line(sheet, text, (left + max(0, (width - line_width(text, SMALL)) // 2), y), SMALL, colour)
        return sheet


class Animation:
    """One image over the training as frames: the input, and overlays of the last layer of each block.

    Args:
        pictures: of one shape.
    """

    SHOWN = 6

    def __init__(self, pictures: Sequence[InputImage], layers: Sequence[str], style: Style) -> None:
        self._pictures, self._style = pictures, style
        self._cell = width, height = pictures[0].fit(round(style.cell * 1.4))
        blocks = [block_of(layer) or layer for layer in layers]
        last = {block: layer for block, layer in zip(blocks, layers, strict=True)}
        self._layers = list(last.values())[-self.SHOWN :]
        column = max(width, FRAME_COLUMN)
        self._lefts = [MARGIN + i * (column + GAP) for i in range(len(self._layers) + 1)]
        self._base = blank(max(self._lefts[-1] + column + MARGIN, 420), MARGIN + 74 + height + MARGIN)

    def frames(
        self, i: int, name: str, explained: str, columns: Sequence[Column], vmax: VMax | None = None
    ) -> list[Image.Image]:
        """One frame per column; arguments as in `EvolutionStrip.draw`."""
        width, height = self._cell
        top, picture = MARGIN + 74, self._pictures[i]
        base = self._base.copy()
        put(base, picture.outlined(width, height), (self._lefts[0], top))
        sheet = Image.fromarray(base)
        write(sheet, name, (MARGIN, MARGIN), TITLE, INK, sheet.width - 2 * MARGIN)
        for left, heading in zip(self._lefts, ["input", *self._layers], strict=True):
            write(sheet, heading, (left, top - 22), LABEL, FAINT, max(width, FRAME_COLUMN))
        frames = []
        for column in columns:
            canvas = np.array(sheet)
            for left, layer in zip(self._lefts[1:], self._layers, strict=True):
                heat = scale(column.maps[layer], width, height, smooth=True, vmax=(vmax or {}).get(layer))
                seen = overlay(picture.grey(width, height), heat, self._style.colormap)
                put(canvas, marked(seen, heat), (left, top))
            frame = Image.fromarray(canvas)
            words = f"epoch {column.heading}:  {percent(column.probability)} {explained}"
            write(frame, words, (MARGIN, MARGIN + 26), LABEL, INK, frame.width - 2 * MARGIN)
            frames.append(frame)
        return frames


def contact_sheet(
    title: str, headings: Sequence[str], rows: Sequence[tuple[str, Sequence[Pixels]]], cell: int
) -> Image.Image:
    """Pictures in a table: a row for each name, a column for each heading.

    Args:
        rows: name and pictures ``(H, W, 3)``, one per heading and all of one shape.
        cell: the longer side of one picture, in pixels.
    """
    pictures = [[InputImage(pixels) for pixels in row] for _, row in rows]
    width, height = pictures[0][0].fit(cell)
    names, top = 150, MARGIN + 66
    lefts = [MARGIN + names + column * (width + 2 * GAP) for column in range(len(headings))]
    least = min(line_width(title, TITLE) + 2 * MARGIN, PANEL_WIDTH)
    canvas = blank(max(least, lefts[-1] + width + MARGIN), top + len(rows) * (height + 2 * GAP) + MARGIN)
    for i, row in enumerate(pictures):
        for left, picture in zip(lefts, row, strict=True):
            put(canvas, picture.small(width, height), (left, top + i * (height + 2 * GAP)))
    sheet = Image.fromarray(canvas)
    write(sheet, title, (MARGIN, MARGIN), TITLE, INK, sheet.width - 2 * MARGIN)
    for left, heading in zip(lefts, headings, strict=True):
        write(sheet, heading, (left, top - 24), LABEL, INK, width)
    for i, (name, _) in enumerate(rows):
        write(sheet, name, (MARGIN, top + i * (height + 2 * GAP) + height // 2 - 8), LABEL, INK, names - 8)
    return sheet


def columns(layers: Sequence[str], left: int, width: int, max_width: int | None) -> tuple[list[Place], int]:
    """Each layer's line and left edge, and the right end of the longest line.

    Thin gaps within a block, wider ones between; where the blocks do not fit into one line of ``max_width``, they stand
    in the fewest lines that they fit into, these as even as can be.
    """
    blocks = [len(list(group)) for _, group in groupby(enumerate(layers), key=lambda it: block_of(it[1]) or it[0])]
    widths = [count * (width + GAP) - GAP for count in blocks]
    room = sum(widths) + BLOCK_GAP * len(widths) if max_width is None else max_width - left - MARGIN
    # A block that is wider than that makes room for others, too.
    room = max(room, *widths)
    fewest = len(_lines(widths, room))
    # Of the rooms that need no more lines, the narrowest.
    room = next(r for r in range(max(widths), room + 1) if len(_lines(widths, r)) == fewest)
    places: list[Place] = []
    right = left
    for line, members in enumerate(_lines(widths, room)):
        x = left
        for block in members:
            places += [(line, x + i * (width + GAP)) for i in range(blocks[block])]
            x += widths[block] + BLOCK_GAP
        right = max(right, x - BLOCK_GAP)
    return places, right


def _lines(widths: Sequence[int], room: int) -> list[list[int]]:
    """Blocks, by their index, set one after the other in lines that are no wider than ``room``."""
    lines: list[list[int]] = [[]]
    x = 0
    for block, width in enumerate(widths):
        if lines[-1] and x + width > room:
            lines.append([])
            x = 0
        lines[-1].append(block)
        x += width + BLOCK_GAP
    return lines


def _write_title(sheet: Image.Image, caption: Caption, width: int) -> None:
    """Name and label, and below them the network's answer, in the colour of right or wrong, and the class explained."""
    label = "" if caption.label is None else f"label: {caption.label}"
    _write_pair(sheet, (caption.name, INK), (label, FAINT), MARGIN, TITLE, width)
    says, explains = "network says: ", "maps explain: "
    half = (width - TITLE_GAP) // 2
    answer = says + caption.answer(LABEL, half - line_width(says, LABEL))
    sure = f" {percent(caption.explained_probability)}"
    explained = cut(caption.explained, LABEL, half - line_width(explains + sure, LABEL))
    _write_pair(
        sheet,
        (answer, caption.colour),
        (explains + append_left_to_right(explained, sure), FAINT),
        3 * GRID,
        LABEL,
        width,
    )


def _write_pair(
    sheet: Image.Image, first: tuple[str, Colour], second: tuple[str, Colour], top: int, size: int, width: int
) -> None:
    """Two texts on one line; where they are too long together, neither takes more than half from the other."""
    half = (width - TITLE_GAP) // 2
    room = max(half, width - TITLE_GAP - line_width(second[0], size))
    shown = cut(first[0], size, room)
    write_line(sheet, shown, (MARGIN, top), size, first[1])
    left = line_width(shown, size) + TITLE_GAP
    write(sheet, second[0], (MARGIN + left, top), size, second[1], width - left)
