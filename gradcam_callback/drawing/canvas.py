"""What pictures are put together from: cells, lines of text, a colour bar, and their encoding."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gradcam_callback.drawing.heatmap import Map, Pixels, paint, scale
from gradcam_callback.drawing.text import line_width, write_line

Colour = tuple[int, int, int]
Place = tuple[int, int]
# Left, top, right and bottom in pixels.
Box = tuple[int, int, int, int]

PAPER, INK, FAINT = (255, 255, 255), (24, 24, 27), (113, 113, 122)
CORRECT, WRONG, OUTLINE = (21, 128, 61), (200, 30, 30), (255, 255, 255)
# JPEG codes squares of 16 pixels: what begins on their grid takes a tenth less than what lies across it, and half of
# a panel's bytes would otherwise be its words. So margins and pitches are multiples of 16, and lines of text that high.
GRID, GAP = 16, 4
MARGIN, BLOCK_GAP = GRID, GRID + GAP
TITLE, LABEL, SMALL = 20, 14, 13
# What TensorBoard's image cards have room for in a window of ordinary width, so that nothing has to be scrolled.
PANEL_WIDTH = 1020


@dataclass(frozen=True)
class Style:
    """How panels are drawn.

    Attributes:
        cell: the longer side of one heatmap in a panel, in pixels.
        colormap: any of matplotlib's; the perceptually uniform ones do not invent edges, as ``"jet"`` does.
        scaling: what the hottest colour stands for: ``"map"``, each map's own vmax value, which shows the shape of
            the focus; ``"run"``, the vmax value of the layer in the run so far, which shows its strength too.
    """

    cell: int = 76
    colormap: str = "inferno"
    scaling: str = "map"

    @property
    def hottest(self) -> str:
        """What stands at the hot end of a colour bar."""
        return {"map": "map's maximum", "run": "layer's maximum so far"}[self.scaling]


class InputImage:
    """An input image ``(H, W, 3)`` and its mask ``(H, W)`` or None; remembers the sizes that it was drawn in."""

    def __init__(self, pixels: Pixels, mask: Map | None = None) -> None:
        self.pixels, self.mask = pixels, mask
        self._made: dict[tuple[str, int, int], Map] = {}

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

    def outline(self, pixels: Pixels) -> Pixels:
        """Pixels ``(height, width, 3)`` with the rim of the mask drawn on them."""
        height, width = pixels.shape[:2]
        if ("rim", width, height) not in self._made:
            self._made["rim", width, height] = self._rim(width, height)
        drawn = pixels.copy()
        drawn[self._made["rim", width, height]] = OUTLINE
        return drawn

    def outlined(self, width: int, height: int) -> Pixels:
        """``(height, width, 3)``, the mask outlined."""
        return self.outline(self.small(width, height))

    def _rim(self, width: int, height: int) -> Map:
        """``(height, width)`` bool."""
        if self.mask is None:
            return np.zeros((height, width), bool)
        inside = scale(np.asarray(self.mask, dtype=np.float32), width, height, smooth=False) >= 0.5
        solid = np.pad(inside, 1, mode="edge")
        core = solid[:-2, 1:-1] & solid[2:, 1:-1] & solid[1:-1, :-2] & solid[1:-1, 2:]
        rim: Map = inside & ~core
        return rim


def on_grid(length: int) -> int:
    """The next multiple of the grid."""
    return -(-length // GRID) * GRID


def blank(width: int, height: int) -> Pixels:
    return np.full((height, width, 3), PAPER, dtype=np.uint8)


def put(canvas: Pixels, pixels: Pixels, place: Place) -> None:
    """Pixels onto a canvas, their upper left corner at ``place``."""
    left, top = place
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels


def marked(pixels: Pixels, values: Map) -> Pixels:
    """A heatmap or overlay; that of an empty map says so."""
    if values.any():
        return pixels
    image = Image.fromarray(pixels)
    place = (image.width - line_width("empty", SMALL)) // 2, image.height // 2 - SMALL // 2
    write_line(image, "empty", place, SMALL, PAPER)
    return np.asarray(image)


def framed(pixels: Pixels, colour: Colour | None) -> Pixels:
    """Within a frame of a colour, where there is one."""
    if colour is None:
        return pixels
    framed = pixels.copy()
    for edge in (framed[:3], framed[-3:], framed[:, :3], framed[:, -3:]):
        edge[:] = colour
    return framed


def write(sheet: Image.Image, text: str, place: Place, size: int, colour: Colour, width: int) -> None:
    """One line, cut where it would be wider than ``width``."""
    write_line(sheet, cut(text, size, width), place, size, colour)


def cut(text: str, size: int, width: int) -> str:
    """The text, cut in the middle where its line would be wider than ``width``: names differ at their ends."""
    shown, keep = text, len(text)
    while keep > 2 and line_width(shown, size) > width:
        keep -= 1
        shown = f"{text[: keep // 2]}…{text[len(text) - (keep - keep // 2) :]}"
    return shown


def colour_bar(canvas: Pixels, place: Place, width: int, style: Style) -> None:
    """The colours from zero to the hottest, 10 pixels high; `label_colour_bar` writes what they stand for."""
    put(canvas, paint(np.linspace(0, 1, width)[None].repeat(10, axis=0), style.colormap), place)


def label_colour_bar(sheet: Image.Image, place: Place, width: int, style: Style) -> None:
    """Below it, where it is at ``place``: 0 at its left end, and at its right what the hottest colour stands for."""
    left, top = place
    write_line(sheet, "0", (left, top + 12), SMALL, FAINT)
    words = style.hottest
    write_line(sheet, words, (left + width - line_width(words, SMALL), top + 12), SMALL, FAINT)


def bar_width(style: Style) -> int:
    """The least width of a colour bar whose words do not meet."""
    return line_width(style.hottest, SMALL) + 24


def stack(panels: Sequence[Image.Image]) -> Image.Image:
    """Panels one below the other on one sheet."""
    sheet = Image.new("RGB", (max(p.width for p in panels), sum(p.height for p in panels)), PAPER)
    y = 0
    for panel in panels:
        sheet.paste(panel, (0, y))
        y += panel.height
    return sheet


@dataclass(frozen=True)
class Encoded:
    """A picture as the bytes of a file: ``suffix`` is ``"jpg"`` or ``"gif"``, sizes are in pixels."""

    data: bytes
    suffix: str
    width: int
    height: int


def encode_jpeg(image: Image.Image, quality: int) -> Encoded:
    """The picture as JPEG: smaller than PNG where there is texture, and many times quicker."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
    return Encoded(buffer.getvalue(), "jpg", image.width, image.height)


def encode_gif(frames: Sequence[Image.Image], seconds: float) -> Encoded:
    """Pictures of one size as an endless GIF, each shown for ``seconds``, the last one three times as long.

    One palette for all, so that what stays the same from one to the next neither flickers nor takes bytes.
    """
    palette = stack(frames).quantize(200, dither=Image.Dither.NONE)
    first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    durations = [round(1000 * seconds)] * len(frames)
    durations[-1] *= 3
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    return Encoded(buffer.getvalue(), "gif", first.width, first.height)
