"""Pictures: maps to heatmaps, overlays and the panels that show them. Knows pixels and words, no models.

One scaling policy: each map is divided by its own largest value, so a heatmap shows the *shape* of the focus, and its
strength is read from the scalars. Zero is always the coldest colour, the hottest cell always the hottest.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from gradcam_callback.fonts import line_width, write_line
from gradcam_callback.words import block_of, percent

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Map = np.ndarray[Any, np.dtype[Any]]

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


def scale(raw: Map, width: int, height: int, *, smooth: bool) -> Map:
    """A map ``(h, w)`` resampled to ``(height, width)`` and divided by its largest value: 0..1, all 0 where empty.

    Cells are taken as areas, so that the first and the last reach to the image's edges as they do in the network.
    ``smooth`` interpolates between their centres; otherwise enlarged cells stay visible as the squares they are.
    """
    image = Image.fromarray(np.asarray(raw, dtype=np.float32))
    enlarging = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    method = enlarging if width >= image.width and height >= image.height else Image.Resampling.BOX
    values = np.asarray(image.resize((width, height), method)).clip(min=0)
    largest = values.max()
    return values / largest if largest > 0 else np.zeros_like(values)


def paint(values: Map, colormap: str) -> Pixels:
    """Values 0..1 ``(H, W)`` as colours ``(H, W, 3)``: 0 the coldest of the colour map, 1 the hottest."""
    colours: Pixels = _palette(colormap)[np.rint(values * 255).astype(np.uint8)]
    return colours


def overlay(picture: Pixels, values: Map, colormap: str) -> Pixels:
    """Half image, half heatmap, both ``(H, W)``; the image in grey, so that every colour seen is the heatmap's."""
    grey = np.asarray(Image.fromarray(picture).convert("L"), dtype=np.float32)[..., None]
    blended: Pixels = np.rint((grey + paint(values, colormap)) / 2).astype(np.uint8)
    return blended


def probe_panel(
    picture: Pixels,
    maps: Mapping[str, Map],
    caption: Caption,
    mask: Map | None = None,
    style: Style | None = None,
    max_width: int | None = PANEL_WIDTH,
) -> Image.Image:
    """One image through all layers: the input at the left, then a column per layer, heatmap above, overlay below.

    Args:
        picture: ``(H, W, 3)``.
        maps: layer name -> raw map ``(h, w)``, in the order of the columns.
        mask: ``(H, W)`` bool, outlined on the input.
        max_width: in pixels; whole blocks go on below where the sheet would be wider. None keeps all in one line.
    """
    style = style or Style()
    width, height = _fit(picture, style.cell)
    input_width, input_height = _fit(picture, round(style.cell * 1.25))
    small = _resize(picture, width, height)
    input_column = max(input_width, 140)
    left = MARGIN + input_column + BLOCK_GAP
    places, right = _columns(list(maps), left, width, max_width)
    lines = max(line for line, _ in places) + 1
    names, step = 50, 50 + 2 * height + GAP + BLOCK_GAP
    top = MARGIN + 40
    parts = _title_parts(caption)
    sheet = Image.new("RGB", (max(right + MARGIN, MARGIN + _title_width(parts)), top + lines * step), PAPER)
    draw = ImageDraw.Draw(sheet)
    x = MARGIN
    for text, colour in parts:
        write_line(draw, text, (x, MARGIN), TITLE, colour)
        x += line_width(text, TITLE) + TITLE_GAP
    _write(draw, "input", (MARGIN, top + 24), CAPTION, FAINT, input_width)
    sheet.paste(_input(picture, mask, input_width, input_height, caption.colour), (MARGIN, top + names))
    _colour_bar(sheet, draw, (MARGIN, top + names + input_height + 14), input_column, style.colormap)
    previous = ""
    for (layer, raw), (line, x) in zip(maps.items(), places, strict=True):
        y = top + line * step
        block = block_of(layer)
        if block and block != previous:
            _write(draw, block, (x, y + 2), CAPTION, INK, width)
        previous = block
        _write(draw, layer[len(block) + 1 :] if block else layer, (x, y + 24), CAPTION, FAINT, width)
        blocks, smooth = scale(raw, width, height, smooth=False), scale(raw, width, height, smooth=True)
        sheet.paste(_cell(paint(blocks, style.colormap), blocks), (x, y + names))
        sheet.paste(_cell(overlay(small, smooth, style.colormap), blocks), (x, y + names + height + GAP))
    return sheet


def layer_panel(
    layer: str,
    pictures: Pixels,
    maps: Map,
    captions: Sequence[Caption],
    masks: Sequence[Map | None] | None = None,
    style: Style | None = None,
) -> Image.Image:
    """One layer on every image: each input beside its overlay, with the network's answer below.

    Args:
        pictures: ``(N, H, W, 3)``; maps: ``(N, h, w)``, raw.
        masks: ``(H, W)`` bool or None per image, outlined on the input.
    """
    style = style or Style()
    width, height = _fit(pictures[0], style.cell)
    pair, line = 2 * width + GAP, 21
    top, gap = MARGIN + 40, 18
    step_x, step_y = pair + gap, height + 2 * line + 16
    columns = min(max(1, (PANEL_WIDTH - 2 * MARGIN + gap) // step_x), len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (2 * MARGIN + columns * step_x - gap, top + rows * step_y), PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, layer, (MARGIN, MARGIN), TITLE, INK, sheet.width - 2 * MARGIN)
    for i, (picture, raw, caption) in enumerate(zip(pictures, maps, captions, strict=True)):
        left, y = MARGIN + i % columns * step_x, top + i // columns * step_y
        mask = None if masks is None else masks[i]
        sheet.paste(_input(picture, mask, width, height, caption.colour), (left, y))
        heat = scale(raw, width, height, smooth=True)
        sheet.paste(
            _cell(overlay(_resize(picture, width, height), heat, style.colormap), heat), (left + width + GAP, y)
        )
        _write(draw, caption.name, (left, y + height + 4), CAPTION, INK, pair)
        _write(draw, f"→ {caption.answer}", (left, y + height + 4 + line), CAPTION, caption.colour, pair)
    return sheet


def evolution_strip(
    picture: Pixels,
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
    width, height = _fit(picture, round(style.cell * 0.65))
    small = _resize(picture, width, height)
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
    sheet = Image.new("RGB", (max(least, 2 * MARGIN + names + len(columns) * (width + GAP)), y + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, title, (MARGIN, MARGIN), TITLE, INK, sheet.width - 2 * MARGIN)
    sheet.paste(Image.fromarray(small), (MARGIN, MARGIN + 36))
    for i, heading in enumerate(("epoch", f"p({explained})")):
        _write(draw, heading, (MARGIN + width + 10, top - 52 + 22 * i), LABEL, (INK, FAINT)[i], names - width - 16)
    for row, layer in enumerate(maps):
        _write(draw, layer, (MARGIN, tops[row] + height // 2 - 9), LABEL, INK, names - 6)
        for column, raw in enumerate(maps[layer]):
            heat = scale(raw, width, height, smooth=True)
            place = (MARGIN + names + column * (width + GAP), tops[row])
            sheet.paste(_cell(overlay(small, heat, style.colormap), heat), place)
    for column, (epoch, probability) in enumerate(columns):
        centre = MARGIN + names + column * (width + GAP) + width // 2
        for text, y, colour in ((epoch, top - 52, INK), (percent(probability), top - 30, FAINT)):
            write_line(draw, text, (centre - line_width(text, LABEL) // 2, y), LABEL, colour)
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
    """The picture as a JPEG file: a sixth of a PNG's bytes on photographs, and far quicker."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@lru_cache(maxsize=8)
def _palette(colormap: str) -> Pixels:
    colours: Pixels = np.rint(matplotlib.colormaps[colormap](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)
    return colours


def _fit(picture: Pixels, longest: int) -> tuple[int, int]:
    """Width and height of a picture scaled so that its longer side is ``longest``."""
    height, width = picture.shape[:2]
    factor = longest / max(height, width)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _resize(picture: Pixels, width: int, height: int) -> Pixels:
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def _cell(pixels: Pixels, values: Map) -> Image.Image:
    """A heatmap or overlay as a picture; an empty map says so."""
    image = Image.fromarray(pixels)
    if not values.any():
        centre = (image.width // 2, image.height // 2)
        place = (centre[0] - line_width("empty", SMALL) // 2, centre[1] - SMALL // 2)
        write_line(ImageDraw.Draw(image), "empty", place, SMALL, (255, 255, 255))
    return image


def _input(picture: Pixels, mask: Map | None, width: int, height: int, frame: tuple[int, int, int]) -> Image.Image:
    """The input with its mask outlined, framed in the colour of right or wrong."""
    pixels = _resize(picture, width, height).copy()
    if mask is not None:
        inside = Image.fromarray(np.asarray(mask, dtype=np.uint8) * 255).resize(
            (width, height), Image.Resampling.NEAREST
        )
        solid = np.pad(np.asarray(inside) > 0, 1, mode="edge")
        core = solid[1:-1, 1:-1]
        neighbours = solid[:-2, 1:-1] & solid[2:, 1:-1] & solid[1:-1, :-2] & solid[1:-1, 2:]
        pixels[core & ~neighbours] = OUTLINE
    image = Image.fromarray(pixels)
    if frame != INK:
        ImageDraw.Draw(image).rectangle((0, 0, width - 1, height - 1), outline=frame, width=3)
    return image


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


def _colour_bar(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, place: tuple[int, int], width: int, colormap: str
) -> None:
    x, y = place
    sheet.paste(Image.fromarray(paint(np.linspace(0, 1, width)[None].repeat(10, axis=0), colormap)), place)
    write_line(draw, "0", (x, y + 12), SMALL, FAINT)
    most = "map's maximum"
    write_line(draw, most, (x + width - line_width(most, SMALL), y + 12), SMALL, FAINT)


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
