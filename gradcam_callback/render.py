"""Pictures: the panels that show heatmaps beside their images. Knows pixels and words, no models."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from gradcam_callback.fonts import line_width, write_line
from gradcam_callback.heatmap import Map, Pixels, overlay, paint, scale
from gradcam_callback.words import block_of, percent

PAPER, INK, FAINT = (255, 255, 255), (24, 24, 27), (113, 113, 122)
RIGHT, WRONG, OUTLINE = (21, 128, 61), (200, 30, 30), (255, 255, 255)
MARGIN, GAP, BLOCK_GAP, TITLE_GAP = 14, 3, 14, 28
TITLE, CAPTION, LABEL, SMALL = 20, 16, 15, 14
# What TensorBoard's image cards have room for in a window of ordinary width, so that nothing has to be scrolled.
PANEL_WIDTH = 1020


@dataclass(frozen=True)
class Style:
    """How panels are drawn.

    Attributes:
        cell: the longer side of one heatmap in a panel, in pixels.
        colormap: any of matplotlib's; the perceptually uniform ones do not invent edges, as ``"jet"`` does.
    """

    cell: int = 112
    colormap: str = "inferno"


@dataclass(frozen=True)
class Caption:
    """What is written beside one image: its name, its label, what the network says and how surely (0..1).

    ``label`` and ``right`` are None where the label is unknown, and nothing is then called right or wrong.
    """

    name: str
    label: str | None
    predicted: str
    right: bool | None
    probability: float
    explained: str
    explained_probability: float

    @property
    def answer(self) -> str:
        """The network's answer, with its sign: ``"heart 87 % ✓"``."""
        sign = {None: "", True: " ✓", False: " ✗"}[self.right]
        return f"{self.predicted} {percent(self.probability)}{sign}"

    @property
    def colour(self) -> tuple[int, int, int]:
        return {None: INK, True: RIGHT, False: WRONG}[self.right]


class Picture:
    """An input image ``(H, W, 3)`` and its mask ``(H, W)`` or None; remembers the sizes that it was drawn in."""

    def __init__(self, pixels: Pixels, mask: Map | None = None) -> None:
        self.pixels, self.mask = pixels, mask
        self._made: dict[tuple[str, int, int], Pixels] = {}

    def fit(self, longest: int) -> tuple[int, int]:
        """Width and height, scaled so that the longer side is ``longest``."""
        height, width = self.pixels.shape[:2]
        factor = longest / max(height, width)
        return max(1, round(width * factor)), max(1, round(height * factor))

    def small(self, width: int, height: int) -> Pixels:
        """``(height, width, 3)``."""
        if ("small", width, height) not in self._made:
            resized = Image.fromarray(self.pixels).resize((width, height), Image.Resampling.BICUBIC)
            self._made["small", width, height] = np.asarray(resized)
        return self._made["small", width, height]

    def grey(self, width: int, height: int) -> Pixels:
        """``(height, width)``."""
        if ("grey", width, height) not in self._made:
            grey = Image.fromarray(self.small(width, height)).convert("L")
            self._made["grey", width, height] = np.asarray(grey)
        return self._made["grey", width, height]

    def outlined(self, width: int, height: int) -> Pixels:
        """``(height, width, 3)``, the mask outlined."""
        if ("outlined", width, height) not in self._made:
            self._made["outlined", width, height] = self._outline(width, height)
        return self._made["outlined", width, height]

    def _outline(self, width: int, height: int) -> Pixels:
        pixels = self.small(width, height).copy()
        if self.mask is not None:
            inside = scale(np.asarray(self.mask, dtype=np.float32), width, height, smooth=False) >= 0.5
            solid = np.pad(inside, 1, mode="edge")
            core = solid[:-2, 1:-1] & solid[2:, 1:-1] & solid[1:-1, :-2] & solid[1:-1, 2:]
            pixels[inside & ~core] = OUTLINE
        return pixels


def probe_panel(
    picture: Picture,
    maps: Mapping[str, Map],
    caption: Caption,
    style: Style | None = None,
    max_width: int | None = PANEL_WIDTH,
) -> Image.Image:
    """One image through all layers: the input at the left, then a column per layer, heatmap above, overlay below.

    Args:
        maps: layer name -> raw map ``(h, w)``, in the order of the columns.
        max_width: in pixels; whole blocks go on below where the sheet would be wider. None keeps all in one line.
    """
    style = style or Style()
    width, height = picture.fit(style.cell)
    input_width, input_height = picture.fit(round(style.cell * 1.25))
    grey = picture.grey(width, height)
    input_column = max(input_width, 140)
    left = MARGIN + input_column + BLOCK_GAP
    places, right = _columns(list(maps), left, width, max_width)
    lines = max(line for line, _ in places) + 1
    names, step = 50, 50 + 2 * height + GAP + BLOCK_GAP
    top = MARGIN + 40
    parts = _title_parts(caption)
    canvas = _canvas(max(right + MARGIN, MARGIN + _title_width(parts)), top + lines * step)
    _put(canvas, _framed(picture.outlined(input_width, input_height), caption), MARGIN, top + names)
    for (_, raw), (line, x) in zip(maps.items(), places, strict=True):
        blocks, smooth = scale(raw, width, height, smooth=False), scale(raw, width, height, smooth=True)
        y = top + line * step + names
        _put(canvas, _cell(paint(blocks, style.colormap), blocks), x, y)
        _put(canvas, _cell(overlay(grey, smooth, style.colormap), blocks), x, y + height + GAP)
    bar = MARGIN, top + names + input_height + 14
    _put(canvas, paint(np.linspace(0, 1, input_column)[None].repeat(10, axis=0), style.colormap), *bar)

    sheet = Image.fromarray(canvas)
    draw = ImageDraw.Draw(sheet)
    x = MARGIN
    for text, colour in parts:
        write_line(draw, text, (x, MARGIN), TITLE, colour)
        x += line_width(text, TITLE) + TITLE_GAP
    _write(draw, "input", (MARGIN, top + 24), CAPTION, FAINT, input_width)
    write_line(draw, "0", (bar[0], bar[1] + 12), SMALL, FAINT)
    most = "map's maximum"
    write_line(draw, most, (bar[0] + input_column - line_width(most, SMALL), bar[1] + 12), SMALL, FAINT)
    previous = ""
    for layer, (line, x) in zip(maps, places, strict=True):
        y = top + line * step
        block = block_of(layer)
        if block and block != previous:
            _write(draw, block, (x, y + 2), CAPTION, INK, width)
        previous = block
        _write(draw, layer[len(block) + 1 :] if block else layer, (x, y + 24), CAPTION, FAINT, width)
    return sheet


def layer_panel(
    layer: str,
    pictures: Sequence[Picture],
    maps: Map,
    captions: Sequence[Caption],
    style: Style | None = None,
) -> Image.Image:
    """One layer on every image: each input beside its overlay, with the network's answer below.

    Args:
        pictures: N of one shape; maps: ``(N, h, w)``, raw.
    """
    style = style or Style()
    width, height = pictures[0].fit(style.cell)
    pair, line = 2 * width + GAP, 21
    top, gap = MARGIN + 40, 18
    step_x, step_y = pair + gap, height + 2 * line + 16
    columns = min(max(1, (PANEL_WIDTH - 2 * MARGIN + gap) // step_x), len(pictures))
    rows = -(-len(pictures) // columns)
    places = [(MARGIN + i % columns * step_x, top + i // columns * step_y) for i in range(len(pictures))]
    canvas = _canvas(2 * MARGIN + columns * step_x - gap, top + rows * step_y)
    heat = scale(maps, width, height, smooth=True)
    for i, (left, y) in enumerate(places):
        _put(canvas, _framed(pictures[i].outlined(width, height), captions[i]), left, y)
        seen = overlay(pictures[i].grey(width, height), heat[i], style.colormap)
        _put(canvas, _cell(seen, heat[i]), left + width + GAP, y)

    sheet = Image.fromarray(canvas)
    draw = ImageDraw.Draw(sheet)
    _write(draw, layer, (MARGIN, MARGIN), TITLE, INK, sheet.width - 2 * MARGIN)
    for caption, (left, y) in zip(captions, places, strict=True):
        _write(draw, caption.name, (left, y + height + 4), CAPTION, INK, pair)
        _write(draw, f"→ {caption.answer}", (left, y + height + 4 + line), CAPTION, caption.colour, pair)
    return sheet


def evolution_strip(
    picture: Picture,
    name: str,
    explained: str,
    columns: Sequence[tuple[str, float]],
    maps: Mapping[str, Sequence[Map]],
    style: Style | None = None,
) -> Image.Image:
    """One image over the training: the input, then a row per layer and a column per logged epoch, overlays.

    Args:
        explained: the class that the maps explain.
        columns: per column what stands above it: the epoch, and the probability, 0..1, of the explained class.
        maps: layer name -> a map ``(h, w)`` per column.
    """
    style = style or Style()
    width, height = picture.fit(round(style.cell * 0.65))
    grey = picture.grey(width, height)
    title = f"{name}, by epoch"
    names = 176
    top = MARGIN + 36 + height + 34
    blocks = [block_of(layer) for layer in maps]
    tops, y = [], top
    for i, block in enumerate(blocks):
        y += BLOCK_GAP - GAP if i and block != blocks[i - 1] else 0
        tops.append(y)
        y += height + GAP
    least = min(line_width(title, TITLE) + 2 * MARGIN, PANEL_WIDTH)
    lefts = [MARGIN + names + column * (width + GAP) for column in range(len(columns))]
    canvas = _canvas(max(least, lefts[-1] + width + GAP + MARGIN), y + MARGIN)
    _put(canvas, picture.small(width, height), MARGIN, MARGIN + 36)
    for of_layer, y in zip(maps.values(), tops, strict=True):
        heat = scale(np.stack(of_layer), width, height, smooth=True)
        for left, seen, values in zip(lefts, overlay(grey, heat, style.colormap), heat, strict=True):
            _put(canvas, _cell(seen, values), left, y)

    sheet = Image.fromarray(canvas)
    draw = ImageDraw.Draw(sheet)
    _write(draw, title, (MARGIN, MARGIN), TITLE, INK, sheet.width - 2 * MARGIN)
    for i, heading in enumerate(("epoch", f"p({explained})")):
        _write(draw, heading, (MARGIN + width + 10, top - 52 + 22 * i), LABEL, (INK, FAINT)[i], names - width - 16)
    for row, layer in enumerate(maps):
        _write(draw, layer, (MARGIN, tops[row] + height // 2 - 9), LABEL, INK, names - 6)
    for left, (epoch, probability) in zip(lefts, columns, strict=True):
        for text, y, colour in ((epoch, top - 52, INK), (percent(probability), top - 30, FAINT)):
            write_line(draw, text, (left + (width - line_width(text, LABEL)) // 2, y), LABEL, colour)
    return sheet


def contact_sheet(
    title: str, headings: Sequence[str], rows: Sequence[tuple[str, Sequence[Pixels]]], cell: int
) -> Image.Image:
    """Pictures in a table: a row for each name, a column for each heading.

    Args:
        rows: name and pictures ``(H, W, 3)``, one per heading and all of one shape.
        cell: the longer side of one picture, in pixels.
    """
    pictures = [[Picture(pixels) for pixels in row] for _, row in rows]
    width, height = pictures[0][0].fit(cell)
    names, top = 150, MARGIN + 66
    lefts = [MARGIN + names + column * (width + 2 * GAP) for column in range(len(headings))]
    least = min(line_width(title, TITLE) + 2 * MARGIN, PANEL_WIDTH)
    canvas = _canvas(max(least, lefts[-1] + width + MARGIN), top + len(rows) * (height + 2 * GAP) + MARGIN)
    for i, row in enumerate(pictures):
        for left, picture in zip(lefts, row, strict=True):
            _put(canvas, picture.small(width, height), left, top + i * (height + 2 * GAP))
    sheet = Image.fromarray(canvas)
    draw = ImageDraw.Draw(sheet)
    _write(draw, title, (MARGIN, MARGIN), TITLE, INK, sheet.width - 2 * MARGIN)
    for left, heading in zip(lefts, headings, strict=True):
        _write(draw, heading, (left, top - 24), LABEL, INK, width)
    for i, (name, _) in enumerate(rows):
        _write(draw, name, (MARGIN, top + i * (height + 2 * GAP) + height // 2 - 8), LABEL, INK, names - 8)
    return sheet


def stack(panels: Sequence[Image.Image]) -> Image.Image:
    """Panels one below the other on one sheet."""
    sheet = Image.new("RGB", (max(p.width for p in panels), sum(p.height for p in panels)), PAPER)
    y = 0
    for panel in panels:
        sheet.paste(panel, (0, y))
        y += panel.height
    return sheet


def encode_jpeg(image: Image.Image, quality: int = 85) -> bytes:
    """The picture as a JPEG file: smaller than a PNG where there is texture, and many times quicker."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _canvas(width: int, height: int) -> Pixels:
    return np.full((height, width, 3), PAPER, dtype=np.uint8)


def _put(canvas: Pixels, pixels: Pixels, left: int, top: int) -> None:
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels


def _cell(pixels: Pixels, values: Map) -> Pixels:
    """A heatmap or overlay; that of an empty map says so."""
    if values.any():
        return pixels
    image = Image.fromarray(pixels)
    place = (image.width - line_width("empty", SMALL)) // 2, image.height // 2 - SMALL // 2
    write_line(ImageDraw.Draw(image), "empty", place, SMALL, (255, 255, 255))
    return np.asarray(image)


def _framed(pixels: Pixels, caption: Caption) -> Pixels:
    """In the colour of right or wrong, where that can be said."""
    if caption.right is None:
        return pixels
    framed = pixels.copy()
    for edge in (framed[:3], framed[-3:], framed[:, :3], framed[:, -3:]):
        edge[:] = caption.colour
    return framed


def _columns(layers: Sequence[str], left: int, width: int, max_width: int | None) -> tuple[list[tuple[int, int]], int]:
    """Each layer's line and left edge, and the right end of the longest line.

    Thin gaps within a block, wider ones between; a line ends before a block that would pass ``max_width``.
    """
    places: list[tuple[int, int]] = []
    line, x, right = 0, left, left
    for i, layer in enumerate(layers):
        block = block_of(layer)
        if i and block and block == block_of(layers[i - 1]):
            x += GAP
        elif i:
            same = sum(1 for other in layers if block and block_of(other) == block) or 1
            if max_width is not None and x + BLOCK_GAP + same * (width + GAP) + MARGIN > max_width:
                line, x = line + 1, left
            else:
                x += BLOCK_GAP
        places.append((line, x))
        x += width
        right = max(right, x)
    return places, right


def _title_parts(caption: Caption) -> list[tuple[str, tuple[int, int, int]]]:
    """Name and label in ink, the answer in the colour of right or wrong, then the class explained.

    Names are cut where the line would be wider than a page.
    """
    parts: list[tuple[str, tuple[int, int, int]]] = []
    for longest in (PANEL_WIDTH, 240, 160, 120, 90, 60):
        parts = [(_cut(caption.name, TITLE, longest), INK)]
        if caption.label is not None:
            parts.append((f"label: {_cut(caption.label, TITLE, longest)}", FAINT))
        answer = replace(caption, predicted=_cut(caption.predicted, TITLE, longest)).answer
        parts.append((f"network says: {answer}", caption.colour))
        explained = _cut(caption.explained, TITLE, longest)
        parts.append((f"maps explain: {explained} {percent(caption.explained_probability)}", FAINT))
        if MARGIN + _title_width(parts) <= PANEL_WIDTH:
            break
    return parts


def _title_width(parts: Sequence[tuple[str, tuple[int, int, int]]]) -> int:
    return sum(line_width(text, TITLE) + TITLE_GAP for text, _ in parts)


def _write(
    draw: ImageDraw.ImageDraw,
    text: str,
    place: tuple[int, int],
    size: int,
    colour: tuple[int, int, int],
    width: int,
) -> None:
    write_line(draw, _cut(text, size, width), place, size, colour)


def _cut(text: str, size: int, width: int) -> str:
    """The text, cut in the middle where its line would be wider than ``width``: names differ at their ends."""
    shown, keep = text, len(text)
    while keep > 2 and line_width(shown, size) > width:
        keep -= 1
        shown = f"{text[: keep // 2]}…{text[len(text) - (keep - keep // 2) :]}"
    return shown
