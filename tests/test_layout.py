"""Texts stand at the images that they name, and nothing lies on anything else."""

import re
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pytest
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
from gradcam_callback.drawing.canvas import BLOCK_GAP, FAINT, GAP, GRID, INK, MARGIN, PANEL_WIDTH, WRONG
from gradcam_callback.drawing.layout import break_name, place_columns

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


@pytest.fixture
def drawn(monkeypatch):
    """Record everything that is drawn on sheets, in order."""
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
    return answer_sheet(headline, False, "a note", [Group((heading, "50 % right"), count) for count in counts], row)


def overviews(count=3, layers=ALL, shape="square", caption=STAR, title="NO SIGN: right.", judged=True):
    sheet = Overview([grey_image(shape)] * count, layers, USUAL, judged)
    raw = {layer: np.stack([found] * count) for layer, found in maps(sheet.layers).items()}
    return sheet.draw(raw, [caption] * count, title, "epoch 3")


SHEETS = {
    "overview": overviews,
    "overview of one image": lambda: overviews(1),
    "overview of many": lambda: overviews(8),
    "overview, wide": lambda: overviews(shape="wide"),
    "overview, tall": lambda: overviews(8, shape="tall"),
    "overview of one layer": lambda: overviews(8, ALL[-1:]),
    "overview of one layer and image": lambda: overviews(1, ALL[-1:]),
    "overview of dotted names": lambda: overviews(7, MIXED[-2:]),
    "overview without a verdict": lambda: overviews(title="epoch 3", judged=False),
    "overview, letters with tails": lambda: overviews(
        8, ALL[-1:], caption=Caption("jpg", "yogi", "jumpy", True, 0.5, "yogi", 0.5)
    ),
    "overview, long names": lambda: overviews(
        caption=LONG, layers=["x" * 100, "y.y" * 50], title="x " * 300 + ": " + "y " * 300
    ),
    "probe": probe,
    "probe of one layer": lambda: probe(ALL[-1:]),
    "probe of dotted names": lambda: probe(MIXED),
    "probe of three layers": lambda: probe(ALL[-3:]),
    "probe of long names": lambda: probe(DOTTED),
    "probe of long names, small": lambda: probe(DOTTED, style=Style(cell=16)),
    "probe of one long name": lambda: probe(DOTTED[-1:]),
    "probe of two networks": lambda: probe(TWO_NETWORKS),
    "probe of three layers, wide": lambda: probe(ALL[-3:], "wide"),
    "probe of three layers, tall": lambda: probe(ALL[-3:], "tall"),
    "probe in one line": lambda: probe(max_width=None),
    "probe, wide": lambda: probe(shape="wide"),
    "probe, tall": lambda: probe(shape="tall"),
    "probe, larger": lambda: probe(style=LARGER),
    "probe, big": lambda: probe(style=BIG),
    "probe, big and wide": lambda: probe(style=BIG, shape="wide"),
    "probe, big and tall": lambda: probe(style=BIG, shape="tall"),
    "probe, one scale": lambda: probe(style=RUN),
    "probe, long names": lambda: probe(caption=LONG, layers=["x" * 100, "y" * 100]),
    "layer": layer_panel,
    "layer of one image": lambda: layer_panel(1),
    "layer of many": lambda: layer_panel(17),
    "layer of eight": lambda: layer_panel(8),
    "layer of twelve": lambda: layer_panel(12),
    "layer of a long name": lambda: layer_panel(1, layer=DOTTED[-1]),
    "layer of four, wide": lambda: layer_panel(4, "wide"),
    "layer of four, tall": lambda: layer_panel(4, "tall"),
    "layer, wide": lambda: layer_panel(shape="wide"),
    "layer, tall": lambda: layer_panel(shape="tall"),
    "layer, big": lambda: layer_panel(style=BIG),
    "layer, one scale": lambda: layer_panel(style=RUN),
    "layer, letters with tails": lambda: layer_panel(
        17, caption=Caption("jpg", "yogi", "jumpy", True, 0.5, "yogi", 0.5)
    ),
    "layer, long names": lambda: layer_panel(caption=LONG, layer="x" * 200),
    "strip": strip,
    "strip of one epoch": lambda: strip(1),
    "strip of one layer": lambda: strip(layers=ALL[-1:]),
    "strip of dotted names": lambda: strip(layers=MIXED),
    "strip of long names": lambda: strip(layers=DOTTED),
    "strip of long names, small": lambda: strip(layers=DOTTED, style=Style(cell=16)),
    "strip of names of two lines": lambda: strip(3, [f"model.{a}.{a}" for a in DOTTED]),
    "strip, wide": lambda: strip(shape="wide"),
    "strip, tall": lambda: strip(shape="tall"),
    "strip, big": lambda: strip(2, style=BIG),
    "strip, one scale": lambda: strip(style=RUN),
    "strip, long names": lambda: strip(name="i" * 300, explained="i" * 200, layers=["i" * 200]),
    "animation": animation,
    "animation of one layer": lambda: animation(ALL[-1:]),
    "animation of dotted names": lambda: animation(MIXED),
    "animation of long names": lambda: animation(DOTTED),
    "animation, tall": lambda: animation(shape="tall"),
    "animation, wide": lambda: animation(shape="wide"),
    "animation, long names": lambda: animation(["z" * 200, "v" * 200], name="x" * 200, explained="y" * 200),
    "answers": answers,
    "answers, wide": lambda: answers(shape="wide"),
    "answers, tall": lambda: answers(shape="tall"),
    "answers of one column": lambda: answers((1,)),
    "answers of one column, tall": lambda: answers((1, 1), shape="tall"),
    "answers, letters with tails": lambda: answers(answer=Caption("jpg", "yogi", "jumpy", True, 0.5, "", None)),
    "answers, long names": lambda: answers((1, 2), headline="x " * 300, answer=LONG, name="y" * 200, heading="z" * 200),
    "answers, a long word": lambda: answers((1, 2), headline="x" * 300),
}


@pytest.mark.parametrize("sheet", SHEETS.values(), ids=SHEETS)
def test_nothing_lies_on_anything_else_or_in_the_margin(drawn, sheet):
    image = sheet()
    assert any(thing.text for thing in drawn) and not all(thing.text for thing in drawn)
    for one, other in combinations(drawn, 2):
        assert not one.meets(other), f"{one} lies on {other}"
    for thing in drawn:
        # A prediction may reach into the margin.
        assert thing.left >= MARGIN and thing.right <= image.width - (GAP if thing.text else MARGIN), thing
        assert thing.top >= MARGIN and thing.covers[3] <= image.height, thing


def ways(widths):
    """Yield the widths of the lines for each way to break a row of blocks."""
    for cuts in range(2 ** (len(widths) - 1)):
        lines = [[widths[0]]]
        for i, width in enumerate(widths[1:]):
            if cuts >> i & 1:
                lines.append([width])
            else:
                lines[-1].append(width)
        yield [sum(line) + BLOCK_GAP * (len(line) - 1) for line in lines]


@pytest.mark.parametrize("max_width", [400, PANEL_WIDTH, None])
@pytest.mark.parametrize("width", [60, 76, 150, 300])
@pytest.mark.parametrize("counts", [(1,), (2, 2, 3, 3, 3), (1, 1, 3), (4, 1, 2, 1), (1, 1, 1, 1, 1, 1), (3, 1, 4, 2)])
def test_columns_stand_in_the_fewest_lines_that_fit_and_these_are_as_even_as_can_be(counts, width, max_width):
    layers = [f"net.block{b}_conv{c}" for b, count in enumerate(counts) for c in range(count)]
    blocks = [count * width + (count - 1) * GAP for count in counts]
    # What is wider than the page whatever is done leaves this room to the other lines, too.
    room = max(10_000 if max_width is None else max_width - 100 - MARGIN, *blocks)
    fitting = [lines for lines in ways(blocks) if max(lines) <= room]
    fewest = min(map(len, fitting))
    narrowest = min(max(lines) for lines in fitting if len(lines) == fewest)
    places, right = place_columns(layers, 100, width, max_width)
    assert max(line for line, _ in places) == fewest - 1 and right == 100 + narrowest
    assert [left for line, left in places if line == 0][0] == min(left for _, left in places) == 100
    assert sorted(places) == places and len(set(places)) == len(layers)


@pytest.mark.parametrize(("counts", "lines"), [((1, 1, 1), 1), ((3, 1, 1, 1), 2)])
def test_blocks_fill_a_line_to_the_pixel(counts, lines):
    layers = [f"block{b}_conv{c}" for b, count in enumerate(counts) for c in range(count)]
    # Three columns of 100 with their gaps, beside a margin at the right.
    exactly = 3 * 100 + 2 * BLOCK_GAP + MARGIN
    found = [max(line for line, _ in place_columns(layers, 0, 100, exactly + more)[0]) + 1 for more in (-1, 0)]
    assert found == [lines + 1, lines]


def test_neighbours_without_a_block_stand_apart():
    places, _ = place_columns(["a.0", "a.1", "b"], 0, 100, None)
    assert [left for _, left in places] == [0, 100 + BLOCK_GAP, 2 * (100 + BLOCK_GAP)]
    places, _ = place_columns(["block5_conv3", "block5"], 0, 100, None)
    assert [left for _, left in places] == [0, 100 + BLOCK_GAP], "a module of that name is not of the block"


@pytest.mark.parametrize(
    "sheet",
    [
        probe,
        layer_panel,
        strip,
        lambda: probe(MIXED),
        lambda: strip(layers=MIXED),
        lambda: probe(DOTTED),
        lambda: strip(layers=DOTTED),
        lambda: probe(ALL[-3:]),
        lambda: layer_panel(),
    ],
)
def test_images_of_the_usual_size_begin_on_the_grid_of_jpegs_squares(drawn, sheet):
    sheet()
    *_, bar = sorted((thing for thing in drawn if thing.size[1] == 10), key=lambda thing: thing.left)
    cells = [thing for thing in drawn if thing.pixels is not None and thing is not bar]
    assert len(cells) > 5 and not any(cell.left % GRID or cell.top % GRID for cell in cells)


def split(drawn):
    """Return the colour bar, the other images, and the texts."""
    images = [thing for thing in drawn if thing.pixels is not None]
    (bar,) = [thing for thing in images if thing.size[1] == 10] or [None]
    return bar, [thing for thing in images if thing is not bar], [thing for thing in drawn if thing.text]


def above(thing, texts):
    """Return the lines of text above an image, from the lowest up, which begin at its left edge."""
    lines = []
    while here := [w for w in texts if w.left == thing.left and w.top == thing.top - GRID * (len(lines) + 1)]:
        lines.append(here[0].text)
    return lines


@pytest.mark.parametrize("style", [USUAL, FIXED, LARGER], ids=["usual", "fixed", "larger"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layers", [ALL, MIXED, TWO_NETWORKS, DOTTED])
def test_probe_panel_has_each_layers_heatmap_over_its_overlay_and_its_names_above(drawn, layers, shape, style):
    panel = ProbePanel([grey_image(shape)], layers, style)
    panel.draw(0, maps(layers), STAR)
    bar, (shown, *cells), texts = split(drawn)
    heatmaps, overlays = cells[::2], cells[1::2]
    side = max(cells[0].size)
    assert side == style.cell_size or (style == USUAL and side in range(92, 157, 16))
    width, height = grey_image(shape).fit(side)
    assert {cell.size for cell in cells} == {(width, height)}
    assert shown.size == grey_image(shape).fit(round(side * 1.25)), "the input is a quarter larger"
    assert panel.input_box == (shown.left, shown.top, shown.right, shown.bottom) and shown.left == MARGIN
    expected, block_before = [], ""
    for layer in layers:
        block, _, short = layer.rpartition("_") if "block" in layer else ("", "", layer)
        expected.append(("" if block == block_before else block) + short)
        block_before = block
    lines_above = []
    for i, (heat, overlay) in enumerate(zip(heatmaps, overlays, strict=True)):
        assert heat.hottest_cell == overlay.hottest_cell == i
        assert (overlay.left, overlay.top) == (heat.left, heat.bottom + GAP)
        assert panel.overlay_boxes[layers[i]] == (overlay.left, overlay.top, overlay.right, overlay.bottom)
        number, *names = above(heat, texts)
        assert (number, "".join(reversed(names))) == (str(i + 1), expected[i]), "the whole name, line by line"
        lines_above.append(1 + len(names))
    assert above(shown, texts) == ["map's maximum", "input"]
    lines = sorted({heat.top for heat in heatmaps})
    assert lines[0] == shown.top
    # A line of columns follows the one above it after its two rows, and has its own lines of text, three at least.
    pitch = 2 * (height + GAP) + (1 + max(3, *lines_above)) * GRID
    assert {after - before for before, after in zip(lines, lines[1:], strict=False)} <= {pitch}
    assert 0 <= min(heat.left for heat in heatmaps) - (bar.right + GAP) < GRID, "the columns follow the input's"


@pytest.mark.parametrize(
    "sheet",
    [
        probe,
        lambda: probe(ALL[-1:]),
        lambda: probe(ALL[-1:], "wide"),
        lambda: probe(shape="wide"),
        lambda: probe(max_width=None),
    ],
)
def test_probe_panels_paper_ends_where_its_columns_do(drawn, sheet):
    image = sheet()
    bar, cells, texts = split(drawn)
    assert image.width == max(600, max(cell.right for cell in cells) + MARGIN)
    lowest = max(thing.bottom for thing in drawn)
    assert lowest <= image.height <= lowest + 2 * GRID


@pytest.mark.parametrize("shape", SHAPES)
def test_colour_bar_stands_below_the_input_and_says_what_its_ends_mean(drawn, shape):
    probe(shape=shape)
    bar, (shown, *_), texts = split(drawn)
    assert bar.left == shown.left and shown.bottom + GAP <= bar.top < shown.bottom + GAP + GRID
    below = [w for w in texts if bar.bottom <= w.top < bar.bottom + GAP and w.left < bar.right]
    assert [w.text for w in below] == ["0", "map's maximum"]
    assert below[0].left == bar.left and below[1].right == bar.right
    assert bar.pixels[0, 0].sum() < bar.pixels[0, -1].sum(), "from cold to hot"


def test_title_gives_the_image_its_label_the_prediction_and_the_class_explained(drawn):
    probe()
    _, _, texts = split(drawn)
    first = [w for w in texts if w.top == MARGIN]
    second = [w for w in texts if w.top == 3 * GRID]
    assert [(w.text, w.colour) for w in first] == [("star-1", INK), ("label: star", FAINT)]
    prediction, explained = ("prediction: moon 91 % ✗", WRONG), ("maps explain: star 4 %", FAINT)
    assert [(w.text, w.colour) for w in second] == [prediction, explained]
    for left, right in (first, second):
        assert left.left == MARGIN and right.left == left.right + 28
    drawn.clear()
    probe(caption=Caption("photo", None, "moon", None, 0.9, "moon", 0.9))
    _, _, texts = split(drawn)
    assert [w.text for w in texts if w.top == MARGIN] == ["photo"], "no label where there is none"


@pytest.mark.parametrize("name", ["s", "x" * 300])
@pytest.mark.parametrize("label", ["s", "y" * 300])
def test_of_two_texts_on_a_line_neither_takes_more_than_half_from_the_other(drawn, name, label):
    image = probe(caption=Caption(name, label, label, True, 0.5, name, 0.5))
    _, _, texts = split(drawn)
    room = image.width - 2 * MARGIN
    half = (room - 28) // 2
    first, second = [w for w in texts if w.top == MARGIN]
    for this, other, text in ((first, second, name), (second, first, f"label: {label}")):
        if this.text != text:
            assert "…" in this.text
            # What is cut fills its half, or all that the other leaves, to within a letter.
            assert this.size[0] > max(half, room - 28 - other.size[0]) - 20
    prediction, explained = [w for w in texts if w.top == 3 * GRID]
    assert prediction.text.startswith("prediction: ") and prediction.text.endswith(" 50 % ✓")
    assert explained.text.startswith("maps explain: ") and explained.text.endswith(" 50 %")
    for this, text in ((prediction, label), (explained, name)):
        if len(text) > 1:
            assert half - 20 < this.size[0] <= half


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 2, 6, 9, 17, 40])
def test_layer_panel_has_its_images_in_even_rows_with_their_predictions_below(drawn, count, shape):
    image = layer_panel(count, shape, FIXED)
    bar, cells, texts = split(drawn)
    assert [cell.hottest_cell for cell in cells] == list(range(count))
    assert {cell.size for cell in cells} == {grey_image(shape).fit(80)}
    assert sorted((cell.top, cell.left) for cell in cells) == [(cell.top, cell.left) for cell in cells]
    rows = [[cell for cell in cells if cell.top == top] for top in sorted({cell.top for cell in cells})]
    assert len(rows) == -(-count // 8), "eight fit into the page"
    assert all(len(row) == len(rows[0]) for row in rows[:-1]) and len(rows[0]) - len(rows[-1]) < len(rows)
    pitches = {right.left - left.left for row in rows for left, right in zip(row, row[1:], strict=False)}
    assert pitches <= {112} and cells[0].left == MARGIN
    for cell in cells:
        title, prediction = [w for w in texts if w.left == cell.left and 0 <= w.top - cell.bottom < 2 * GRID]
        assert title.text == "star-1" and title.top - cell.bottom < GAP and title.colour == INK
        assert prediction.text == "moon 91 % ✗" and prediction.top == title.top + GRID and prediction.colour == WRONG
    assert bar.right == image.width - MARGIN
    assert image.width == max(MARGIN + 112 * len(rows[0]), 2 * bar.size[0] + 200)
    lowest = max(thing.bottom for thing in drawn)
    assert lowest <= image.height <= lowest + 2 * GRID


@pytest.mark.parametrize("cell", [40, 76, 112, 200, 330, 480, 990])
def test_layer_panel_has_as_many_images_in_a_row_as_fit_into_the_page(drawn, cell):
    image = layer_panel(30, style=Style(cell=cell))
    _, cells, _ = split(drawn)
    across = sum(cell.top == cells[0].top for cell in cells)
    pitch = cells[1].left - cells[0].left if across > 1 else cells[0].size[0] + GAP
    assert len({cell.top for cell in cells}) == -(-30 // across)
    # Rows are even, so that it is their number that would be less by one more image in each.
    most = (PANEL_WIDTH - MARGIN) // pitch
    assert -(-30 // across) == -(-30 // max(1, most))
    assert image.width <= PANEL_WIDTH or across == 1


@pytest.mark.parametrize("layer", ["block5_conv3", "features.3", *DOTTED[-1:], "x" * 60, "x" * 200])
@pytest.mark.parametrize("count", [1, 4, 6, 7])
def test_layer_panels_title_says_the_layer_and_below_it_its_vmax_value(drawn, layer, count):
    image = layer_panel(count, layer=layer)
    bar, cells, texts = split(drawn)
    name, most = [w for w in texts if w.top < bar.bottom]
    assert (name.colour, name.left, name.top) == (INK, MARGIN, MARGIN)
    assert (most.text, most.colour, most.left) == (f"maps up to {count}", FAINT, MARGIN)
    assert name.bottom < most.top and name.bottom < bar.top, "nothing stands beside the name"
    if name.text != layer:
        assert len(layer) == 200 and "…" in name.text
        assert image.width <= PANEL_WIDTH and name.right > PANEL_WIDTH - MARGIN - 20, "the whole page is used"
    assert max(most.bottom, bar.bottom) < cells[0].top


KINDS = {
    "probe": probe,
    "strip": lambda layers, **options: strip(2, layers, **options),
    "animation": lambda layers, **options: animation(layers, **options),
    "layer": lambda layers, **options: layer_panel(2, layer=layers[-1], **options),
}


@pytest.mark.parametrize("cell", [16, 40, 76, 77, 112])
@pytest.mark.parametrize("count", [1, 2, 3, 6, 13])
@pytest.mark.parametrize("kind", KINDS)
def test_long_names_of_layers_are_never_cut(drawn, kind, count, cell):
    layers = DOTTED[-count:]
    KINDS[kind](layers, style=Style(cell=cell))
    _, _, texts = split(drawn)
    assert not [w.text for w in texts if "…" in w.text]
    # Lines of one name stand below each other, at one left edge.
    columns = {}
    for w in sorted(texts, key=lambda w: w.top):
        columns[w.left] = columns.get(w.left, "") + w.text
    written = " ".join(columns.values())
    shown = {"layer": layers[-1:], "animation": layers[-6:]}.get(kind, layers)
    assert all(layer in written for layer in shown)
    broken = [w.text for w in texts if "layer" in w.text or "conv2" in w.text]
    assert all(text.endswith((".", "relu")) for text in broken), "lines break behind dots, however small the cells"


@pytest.mark.parametrize("cell", [16, 76])
def test_columns_are_wide_enough_for_the_words_of_a_name(drawn, cell):
    words = "downsampler.", "bottleneck2.", "conv2"
    assert 76 < min(fonts.line_width(word, canvas.LABEL) for word in words[:2])
    probe([f"{words[0]}{i}.{words[1]}{words[2]}" for i in range(13)], style=Style(cell=cell))
    _, _, texts = split(drawn)
    written = [w.text for w in texts]
    assert written.count(words[0]) == written.count(words[2]) == 13 and written.count(f"3.{words[1]}") == 1


def test_a_name_of_two_lines_stands_in_the_middle_of_its_row(drawn):
    strip(3, [f"model.{a}.{a}" for a in DOTTED])
    _, (_, *cells), texts = split(drawn)
    for row in cells[::3]:
        lines = [w for w in texts if w.left == MARGIN and row.top <= w.middle[1] <= row.bottom]
        assert len(lines) == 2
        assert abs(lines[0].middle[1] + lines[1].middle[1] - 2 * row.middle[1]) <= 2 * 3


def test_the_name_of_a_block_may_stand_above_all_its_columns(drawn):
    block = "left.network.block5"
    assert 76 < fonts.line_width(block, canvas.LABEL) < 2 * 76
    probe([f"{block}_conv{i}" for i in (1, 2)] + [f"right.block{i}_conv1" for i in range(12)])
    _, _, texts = split(drawn)
    assert [w.text for w in texts].count(block) == 1, "in one line"


@pytest.mark.parametrize("name", ["block5_conv3", "layer4.1.conv2", DOTTED[-1], "x" * 90, "a.b..c__d.", ".", ""])
@pytest.mark.parametrize("width", [60, 76, 156])
def test_names_break_behind_dots_and_underscores_and_lose_nothing(name, width):
    lines = break_name(name, width, 20)
    assert "".join(lines) == name
    assert all(fonts.line_width(line, canvas.LABEL) <= width for line in lines)
    parts = re.split(r"(?<=[._])(?![._])", name)
    for number, line in enumerate(lines[:-1], start=1):
        before = "".join(lines[:number])
        # The part that goes on after the break. It begins there, unless it is wider than a whole line.
        part = next(part for i, part in enumerate(parts) if len("".join(parts[: i + 1])) > len(before))
        too_wide = fonts.line_width(part, canvas.LABEL) > width
        assert too_wide or name[len(before) :].startswith(part)
        rest = lines[number][0] if too_wide else part
        assert fonts.line_width(line + rest, canvas.LABEL) > width, "as few lines as can be"


def test_names_of_too_many_lines_are_cut_in_the_last():
    lines = break_name("first." + "x" * 300 + ".last", 80, 3)
    assert len(lines) == 3 and lines[0].startswith("first.") and "…" in lines[2] and lines[2].endswith("last")
    assert not any("…" in line for line in lines[:2])


def cell_of(panel):
    left, _, right, _ = next(iter(panel.overlay_boxes.values()))
    return right - left


def test_cells_of_a_probe_panel_are_as_large_as_one_line_allows():
    """Each size is compared with the next, which has to be too wide for the page."""
    sizes = []
    for count in range(1, 14):
        panel = ProbePanel([grey_image()], ALL[-count:], USUAL)
        sizes.append(cell_of(panel))
        if sizes[-1] > 76:
            in_one_line = {top for _, top, _, _ in panel.overlay_boxes.values()}
            assert len(in_one_line) == 1 and max(box[2] for box in panel.overlay_boxes.values()) < PANEL_WIDTH
        if sizes[-1] < 156:
            larger = ProbePanel([grey_image()], ALL[-count:], Style(cell=sizes[-1] + 16), max_width=None)
            assert max(box[2] for box in larger.overlay_boxes.values()) + MARGIN > PANEL_WIDTH
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == sizes[2] == 156 and sizes[-1] == 76, "twice as large with three layers, as ever with all"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layers", [ALL[-1:], ALL[-3:], ALL[1::3], MIXED, DOTTED[:2], ALL])
def test_boxes_are_right_for_cells_of_every_size(drawn, layers, shape):
    panel = ProbePanel([grey_image(shape)], layers, USUAL)
    panel.draw(0, maps(layers), STAR)
    _, (shown, *cells), _ = split(drawn)
    assert panel.input_box == (shown.left, shown.top, shown.right, shown.bottom)
    for i, (layer, overlay) in enumerate(zip(layers, cells[1::2], strict=True)):
        assert panel.overlay_boxes[layer] == (overlay.left, overlay.top, overlay.right, overlay.bottom)
        assert overlay.hottest_cell == i


def rows_and_size(count, style, texts=()):
    panel = LayerPanel([grey_image()] * count, style, texts)
    sheet = panel.draw("l", np.ones((count, 7, 7)), [Caption("", None, "", None, None, "", None)] * count)
    # Overlays of heat everywhere are the pixels of the hottest colour, below the colour bar.
    hot = (np.asarray(sheet)[80:, :, 0] > 180) & (np.asarray(sheet)[80:, :, 2] < 160)
    across, down = hot.any(axis=0), hot.any(axis=1)
    rows = int((down & ~np.roll(down, 1)).sum())
    return rows, int(across.sum()) // int((across & ~np.roll(across, 1)).sum())


@pytest.mark.parametrize("texts", [(), ("Staffordshire Bull Terrier",)], ids=["short", "long"])
def test_few_images_of_a_layer_panel_are_larger_in_as_many_rows_and_no_larger_file(texts):
    """Their area is at most that of 20 images of 80 pixels, and the next size would break this or take a row more."""
    sizes = []
    for count in (1, 3, 5, 6, 8, 12, 16, 20, 40):
        rows, size = rows_and_size(count, USUAL, texts)
        # A size that is given never grows, even if it is that of the default.
        assert rows == rows_and_size(count, FIXED, texts)[0]
        assert size == 80 or count * size**2 <= 20 * 80**2
        if size < 160:
            more_rows = rows_and_size(count, Style(cell=size + 12), texts)[0] > rows
            assert more_rows or count * (size + 16) ** 2 > 20 * 80**2
        sizes.append(size)
    assert sizes[:2] == [160, 160] and sizes[-3:] == [80, 80, 80]


def test_a_size_that_the_user_gives_stays():
    def sizes(style):
        return cell_of(ProbePanel([grey_image()], ALL[-1:], style)), rows_and_size(1, style)[1]

    for cell in (16, 75, 76, 77, 90, 200):
        assert sizes(Style(cell=cell)) == sizes(replace(Style(), cell=cell)) == (cell, cell + GAP)
    assert sizes(Style()) == sizes(replace(Style(), colormap="magma")) == (156, 160)


@pytest.mark.parametrize("style", [USUAL, LARGER, BIG], ids=["usual", "larger", "big"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layers", [ALL, MIXED])
def test_strip_has_rows_of_layers_and_columns_of_epochs(drawn, layers, shape, style):
    image = strip(3, layers, shape, style)
    bar, (shown, *cells), texts = split(drawn)
    width, height = grey_image(shape).fit(round(0.58 * style.cell_size))
    assert {cell.size for cell in (shown, *cells)} == {(width, height)} and (shown.left, shown.top) == (MARGIN, 48)
    for i, cell in enumerate(cells):
        layer, epoch = divmod(i, 3)
        assert cell.hottest_cell == layer + epoch
        assert cell.left == cells[epoch].left and cell.top == cells[3 * layer].top
    rows = cells[::3]
    for (before, upper), (after, lower) in zip(
        list(zip(layers, rows, strict=True)), list(zip(layers, rows, strict=True))[1:], strict=False
    ):
        same_block = before.startswith("block") and before[:6] == after[:6]
        assert lower.top - upper.bottom == (GAP if same_block or "block" not in before + after else BLOCK_GAP)
    assert {right.left - left.left for left, right in zip(cells[:3], cells[1:3], strict=False)} == {
        max(width, 40) + GAP
    }
    for layer, row in zip(layers, rows, strict=True):
        (name,) = [w for w in texts if w.text == layer]
        assert name.left == MARGIN and abs(name.middle[1] - row.middle[1]) <= 3 and name.right < row.left
    for cell, heading, sure in zip(cells, ("start", "1", "2"), ("25 %", "26 %", "27 %"), strict=False):
        (number,) = [w for w in texts if w.text == heading]
        (probability,) = [w for w in texts if w.text == sure]
        for word in (number, probability):
            assert abs(word.middle[0] - cell.middle[0]) <= 1 or (word.left == cell.left and word.size[0] > width)
        assert (number.colour, probability.colour) == (INK, FAINT)
        beside = {w.text: w for w in texts if w.text in ("epoch", "p(star)")}
        assert beside["epoch"].top == number.top and beside["p(star)"].top == probability.top == number.top + GRID
        assert beside["epoch"].left == beside["p(star)"].left == shown.right + 10
        assert (beside["epoch"].colour, beside["p(star)"].colour) == (INK, FAINT)
    # Below the input, or if the input is low, below the texts beside it.
    assert 0 <= rows[0].top - shown.top - max(height + GAP, 3 * GRID) < GRID
    assert probability.bottom < rows[0].top
    (title,) = [w for w in texts if w.text == "star-1, by epoch"]
    assert (title.left, title.top, title.colour) == (MARGIN, MARGIN, INK)
    assert bar.right == image.width - MARGIN
    assert image.width == max(cells[-1].left + max(width, 40) + MARGIN, bar.size[0] + 320)
    assert image.height == rows[-1].bottom + GAP + MARGIN


def test_long_names_of_a_strip_take_the_room_that_there_is(drawn):
    strip(6, name="i" * 300, explained="i" * 300, layers=["i" * 300])
    bar, (_, first, *_), texts = split(drawn)
    (title,) = [w for w in texts if w.top == MARGIN]
    assert bar.left - MARGIN - 8 < title.right <= bar.left - MARGIN
    for word in texts:
        if "…" in word.text and word is not title:
            assert first.left - 3 * GAP < word.right < first.left, "up to the first column"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("layers", "shown_layers"),
    [
        (ALL, ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"]),
        (MIXED, ["features.3", "block1_conv2", "block4_conv2", "layer4.1.relu"]),
        ([f"a.{i}" for i in range(9)], [f"a.{i}" for i in range(3, 9)]),
        (["block5_conv2", "block5_conv3"], ["block5_conv3"]),
    ],
)
def test_animation_shows_the_last_layer_of_each_block_at_every_epoch(drawn, layers, shown_layers, shape):
    images = frames(2, layers, shape)
    _, (shown, *cells), texts = split(drawn)
    assert len(images) == 2 and len(cells) == 2 * len(shown_layers)
    assert {cell.size for cell in (shown, *cells)} == {grey_image(shape).fit(106)} and shown.left == MARGIN
    column = max(shown.size[0], 104) + GAP
    for i, cell in enumerate(cells):
        epoch, place = divmod(i, len(shown_layers))
        assert cell.hottest_cell == layers.index(shown_layers[place]) + epoch
        assert (cell.left, cell.top) == (MARGIN + (place + 1) * column, shown.top)
        (heading,) = [w for w in texts if w.text == shown_layers[place]]
        assert heading.left == cell.left and 0 <= cell.top - heading.bottom < GRID
    (heading,) = [w for w in texts if w.text == "input"]
    assert heading.left == shown.left and 0 <= shown.top - heading.bottom < GRID
    assert [w.text for w in texts if w.text.startswith("epoch")] == ["epoch start:  25 % star", "epoch 1:  26 % star"]
    assert [(w.left, w.top, w.colour) for w in texts if w.text == "star-1"] == [(MARGIN, MARGIN, INK)]
    for image in images:
        assert image.width == max(cells[-1].left + column - GAP + MARGIN, 420)
        assert image.height == shown.bottom + MARGIN
    for image, epoch in zip(images, (0, 1), strict=True):
        pixels = np.asarray(image)
        for cell in cells[epoch * len(shown_layers) :][: len(shown_layers)]:
            assert (pixels[cell.top : cell.bottom, cell.left : cell.right] == cell.pixels).all(), "each its own epoch"


@pytest.mark.parametrize("shape", SHAPES)
def test_long_names_of_an_animation_take_the_room_that_there_is(drawn, shape):
    image = animation(["i" * 300, "l" * 300], shape=shape, name="i" * 300, explained="i" * 300)
    _, (shown, *cells), texts = split(drawn)
    over_all = [w for w in texts if w.left == MARGIN and w.bottom < shown.top - GRID]
    assert len(over_all) == 2 and all("…" in w.text for w in over_all)
    assert all(image.width - MARGIN - 8 < w.right <= image.width - MARGIN for w in over_all)
    for cell, letter in zip(cells, "il", strict=True):
        *whole, last = sorted((w for w in texts if w.left == cell.left), key=lambda w: w.top)
        assert len(whole) == 7 and all(set(w.text) == {letter} for w in whole) and "…" in last.text
        for line in (*whole, last):
            assert -8 < line.right - cell.left - max(cell.size[0], 104) <= 0


def test_long_texts_of_an_answer_sheet_take_the_room_that_there_is(drawn):
    image = answers((1, 2), 1, answer=LONG, name="i" * 200, heading="l" * 200)
    _, cells, texts = split(drawn)
    long = [w for w in texts if "…" in w.text]
    name, label = (next(w for w in long if w.text[0] == letter) for letter in "iy")
    assert name.left == label.left == MARGIN and name.right < cells[0].left and label.right < cells[0].left
    headings = [w for w in long if w.text[0] == "l"]
    assert [w.left for w in headings] == [cells[0].left, cells[1].left]
    assert headings[0].right <= cells[1].left and headings[1].right <= image.width
    predictions = [w for w in long if w.text[0] == "z"]
    for cell, prediction in zip(cells, predictions, strict=True):
        assert prediction.left == cell.left and -8 < prediction.right - cell.left - sheets.LEAST_COLUMN <= 0


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_sheet_has_the_answer_below_each_image_and_groups_apart(drawn, shape):
    image = answers((1, 2, 3), 3, shape)
    _, cells, texts = split(drawn)
    middles = [int(cell.pixels[cell.size[1] // 2, cell.size[0] // 2, 0]) for cell in cells]
    height, width = SHAPES[shape]
    assert middles == list(range(18)) and {cell.size for cell in cells} == {(width, height)}
    column = max(width, sheets.LEAST_COLUMN)
    for row in range(3):
        line = cells[6 * row : 6 * row + 6]
        assert len({cell.top for cell in line}) == 1
        gaps = [after.left - before.left - column for before, after in zip(line, line[1:], strict=False)]
        assert gaps == [BLOCK_GAP, 2 * GAP, BLOCK_GAP, 2 * GAP, 2 * GAP]
        for cell in line:
            assert (cell.pixels[0, :] == WRONG).all() and (cell.pixels[:, -1] == WRONG).all(), "a red frame"
            below = [w for w in texts if w.left == cell.left and 0 <= w.top - cell.bottom < 2 * GRID]
            assert [(w.text, w.colour) for w in below] == [("moon", WRONG), ("91 % ✗", WRONG)]
        (name,) = [w for w in texts if w.text == "star-1" and line[0].top <= w.top < line[0].bottom]
        assert name.left == MARGIN
    assert image.width == cells[5].left + column + MARGIN
    assert [w.left for w in texts if w.text == "as it is"] == [cells[0].left, cells[1].left, cells[3].left]


def test_a_row_with_fewer_images_leaves_the_rest_of_its_group_empty(drawn):
    picture = np.zeros((60, 60, 3), np.uint8)
    rows = [AnswerRow("a", "star", [[picture] * 2], [[STAR] * 2]), AnswerRow("b", "star", [[picture]], [[STAR]])]
    answer_sheet("NO SIGN", False, "a note", [Group(("others",), 2)], rows)
    _, cells, _ = split(drawn)
    assert len(cells) == 3 and cells[2].left == cells[0].left < cells[1].left and cells[2].top > cells[0].top


@pytest.mark.parametrize("is_alarm", [False, True])
def test_the_headline_of_an_answer_sheet_takes_the_lines_that_it_needs(drawn, is_alarm):
    words = [f"word{i}" for i in range(60)]
    row = AnswerRow("a", "star", [[np.zeros((60, 60, 3), np.uint8)] * 4], [[STAR] * 4])
    image = answer_sheet(" ".join(words), is_alarm, "a note", [Group(("others",), 4)], [row])
    _, cells, texts = split(drawn)
    lines = [w for w in texts if w.text.startswith("word")]
    assert len(lines) > 3 and " ".join(w.text for w in lines).split() == words
    assert {w.colour for w in lines} == {WRONG if is_alarm else INK}
    assert all(w.left == MARGIN and w.right <= image.width - MARGIN for w in lines)
    (note,) = [w for w in texts if w.text == "a note"]
    assert lines[-1].bottom < note.top and note.bottom < cells[0].top and note.colour == FAINT


@pytest.mark.parametrize("kind", ["probe", "strip", "animation"])
@pytest.mark.parametrize("fading", [False, True])
def test_maps_are_stretched_to_their_own_maximum_or_to_the_runs(drawn, kind, fading):
    """Draw two layers; the second is a tenth as strong as it once was."""
    vmax = {"a": 1.0, "b": 10.0} if fading else None
    raw = {"a": np.eye(7), "b": np.eye(7)}
    dark = InputImage(np.zeros((60, 60, 3), np.uint8))
    columns = ["0"], [0.5], {layer: values[None] for layer, values in raw.items()}
    if kind == "probe":
        ProbePanel([dark], ["a", "b"], Style(), None).draw(0, raw, STAR, vmax)
    elif kind == "strip":
        EvolutionStrip([dark], ["a", "b"], Style()).draw(0, "x", "x", *columns, vmax)
    else:
        Animation([dark], ["a", "b"], Style()).frames(0, "x", "x", *columns, vmax)
    _, (_, *cells), _ = split(drawn)
    brightness = [int(cell.pixels.sum(axis=2, dtype=int).max()) for cell in cells]
    strong, weak = brightness[: len(cells) // 2], brightness[len(cells) // 2 :]
    assert all(w < s / 2 if fading else w == s for s, w in zip(strong, weak, strict=True))


@pytest.mark.parametrize("kind", ["probe", "layer", "strip", "animation"])
def test_heatmaps_stand_in_squares_and_overlays_are_smooth(drawn, kind):
    raw, columns = {"a": np.eye(7)}, (["0"], [0.5], {"a": np.eye(7)[None]})
    if kind == "probe":
        ProbePanel([grey_image()], ["a"], USUAL).draw(0, raw, STAR)
    elif kind == "layer":
        LayerPanel([grey_image()], USUAL).draw("a", raw["a"][None], [Caption("x", None, "x", None, 0.5, "x", 0.5)])
    elif kind == "strip":
        EvolutionStrip([grey_image()], ["a"], USUAL).draw(0, "x", "x", *columns)
    else:
        Animation([grey_image()], ["a"], USUAL).frames(0, "x", "x", *columns)
    _, cells, _ = split(drawn)
    overlay = cells[-1]
    assert len(np.unique(overlay.pixels.reshape(-1, 3), axis=0)) > 10
    if kind == "probe":
        assert len(np.unique(cells[1].pixels.reshape(-1, 3), axis=0)) == 2
