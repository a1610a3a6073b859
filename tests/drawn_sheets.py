"""Sheets of every kind, and everything that is drawn on them, at its place."""

from dataclasses import dataclass

import numpy as np
from PIL import ImageChops

from gradcam_callback.drawing import (
    Animation,
    AnswerRow,
    Caption,
    EvolutionStrip,
    Group,
    InputImage,
    LayerPanel,
    Overview,
    ProbePanel,
    Style,
    answer_sheet,
    canvas,
    caption,
    overview,
    panels,
    sheets,
    strips,
)
from gradcam_callback.drawing import text as fonts
from gradcam_callback.drawing.canvas import PANEL_WIDTH

ALL = [f"block{b}_conv{c}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)]
TWO_NETWORKS = ["vgg2.block4_conv1", "vgg2.block5_conv3", "vgg1.block1_conv1", "vgg1.block1_conv2"]
MIXED = ["features.3", "block1_conv2", "block4_conv1", "block4_conv2", "layer4.1.relu"]
SHAPES = {"square": (60, 60), "wide": (30, 90), "tall": (120, 40)}
# As networks other than VGGs have them.
DOTTED = [f"backbone.encoder.layer{b}.{c}.conv2.relu" for b, n in enumerate((2, 4, 4, 3), 1) for c in range(n)]
USUAL, LARGER, BIG, RUN = Style(), Style(cell=112), Style(cell=300), Style(scaling="run")
# The default size grows in panels of few layers or images. This one does not.
FIXED = Style(cell=76)
STAR = Caption("star-1", "star", "moon", False, 0.91, "star", 0.04)
LONG = Caption("x" * 200, "y" * 200, "z" * 200, True, 0.5, "w" * 200, 0.5)


@dataclass(frozen=True)
class Thing:
    """A text or an image on a sheet, and its place. ``ink`` is the box of the pixels that a text changes."""

    left: int
    top: int
    right: int
    bottom: int
    text: str = ""
    colour: tuple = ()
    pixels: np.ndarray | None = None
    ink: tuple | None = None

    @property
    def size(self):
        return self.right - self.left, self.bottom - self.top

    @property
    def middle(self):
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def hottest_cell(self):
        """Return the number of the hottest cell of a map of 7 x 7 cells on an image of one colour."""
        bright = self.pixels.sum(axis=2, dtype=int)
        row, column = (np.argwhere(bright == bright.max()).mean(axis=0) + 0.5) * 7 // bright.shape
        return 7 * int(row) + int(column)

    @property
    def covers(self):
        return self.ink or (self.left, self.top, self.right, self.bottom)

    def meets(self, other):
        left, top, right, bottom = self.covers
        others_left, others_top, others_right, others_bottom = other.covers
        return left < others_right and others_left < right and top < others_bottom and others_top < bottom


def record(monkeypatch):
    """Return a list that everything drawn on sheets is added to, in order."""
    things = []

    def write_line(sheet, text, place, size, colour):
        left, top = place
        width = fonts.line_width(text, size)
        around = left - size, top - size, left + width + size, top + 2 * size
        before = sheet.crop(around)
        fonts.write_line(sheet, text, place, size, colour)
        if text and text != "empty":  # which stands on its map
            changed = ImageChops.difference(before, sheet.crop(around)).getbbox()
            ink = changed and tuple(np.add(changed, around[:2] * 2).tolist())
            things.append(Thing(left, top, left + width, top + size, text, colour, ink=ink))

    def put(sheet, pixels, place):
        left, top = place
        height, width = pixels.shape[:2]
        assert left >= 0 and top >= 0 and left + width <= sheet.shape[1] and top + height <= sheet.shape[0]
        put_there(sheet, pixels, place)
        things.append(Thing(left, top, left + width, top + height, pixels=pixels))

    put_there = canvas.put
    for module in (canvas, caption, overview, panels, sheets, strips):
        for double in (write_line, put):
            # A module that does not use one of the two does not import it.
            if hasattr(module, double.__name__):
                monkeypatch.setattr(module, double.__name__, double)
    return things


def grey_image(shape="square"):
    return InputImage(np.full((*SHAPES[shape], 3), 128, np.uint8))


def maps(layers, first=0):
    """Return a map per layer, each hot in another cell, from cell number ``first`` on."""
    return {layer: np.eye(49)[first + i].reshape(7, 7) * (i + 1) for i, layer in enumerate(layers)}


def probe(layers=ALL, shape="square", style=USUAL, caption=STAR, max_width=PANEL_WIDTH):
    return ProbePanel([grey_image(shape)], layers, style, max_width).draw(0, maps(layers), caption)


def layer_panel(count=6, shape="square", style=USUAL, caption=STAR, layer="block5_conv3"):
    raw = np.stack(list(maps(range(count)).values()))
    return LayerPanel([grey_image(shape)] * count, style).draw(layer, raw, [caption] * count)


def over_time(count, layers):
    """Return headings, probabilities and maps of a strip."""
    headings = [str(i) if i else "start" for i in range(count)]
    raw = {layer: np.stack([maps(layers, i)[layer] for i in range(count)]) for layer in layers}
    return headings, [0.25 + i / 100 for i in range(count)], raw


def strip(count=12, layers=ALL, shape="square", style=USUAL, name="star-1", explained="star"):
    return EvolutionStrip([grey_image(shape)], layers, style).draw(0, name, explained, *over_time(count, layers))


def frames(count, layers=ALL, shape="square", style=USUAL, name="star-1", explained="star"):
    return Animation([grey_image(shape)], layers, style).frames(0, name, explained, *over_time(count, layers))


def animation(layers=ALL, **options):
    return frames(1, layers, **options)[0]


def answers(
    counts=(1, 2, 3), rows=3, shape="square", headline="NO SIGN", answer=STAR, name="star-1", heading="as it is"
):
    """Draw rows of as many images per group, the first pixel of each the number of the image."""
    cells = iter(range(1000))
    row = [
        AnswerRow(
            name,
            answer.label,
            [[np.full((*SHAPES[shape], 3), next(cells), np.uint8) for _ in range(count)] for count in counts],
            [[answer] * count for count in counts],
        )
        for _ in range(rows)
    ]
    return answer_sheet(headline, False, "a note", [Group(heading, "50 % right", count) for count in counts], row)


def overviews(count=3, layers=ALL, shape="square", caption=STAR, title="NO SIGN: right.", judged=True):
    sheet = Overview([grey_image(shape)] * count, layers, USUAL, judged)
    raw = {layer: np.stack([found] * count) for layer, found in maps(sheet.layers).items()}
    return sheet.draw(raw, [caption] * count, title, "epoch 3")


def split(drawn):
    """Return the colour bar, the other images, and the texts."""
    images = [thing for thing in drawn if thing.pixels is not None]
    (bar,) = [thing for thing in images if thing.size[1] == 10] or [None]
    return bar, [thing for thing in images if thing is not bar], [thing for thing in drawn if thing.text]
