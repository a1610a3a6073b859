"""On all sheets, nothing lies on anything else, columns stand in even lines, and names of layers are whole."""

import re
from itertools import combinations

import numpy as np
import pytest
from drawn_sheets import (
    ALL,
    BIG,
    DOTTED,
    LARGER,
    LONG,
    MIXED,
    RUN,
    STAR,
    TWO_NETWORKS,
    USUAL,
    animation,
    answers,
    grey_image,
    layer_panel,
    overviews,
    probe,
    split,
    strip,
)

from gradcam_callback.drawing import (
    Animation,
    Caption,
    EvolutionStrip,
    InputImage,
    LayerPanel,
    ProbePanel,
    Style,
    canvas,
)
from gradcam_callback.drawing import text as fonts
from gradcam_callback.drawing.canvas import BLOCK_GAP, GAP, GRID, MARGIN, PANEL_WIDTH
from gradcam_callback.drawing.layout import break_name, place_columns

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
    assert broken and all(text.endswith((".", "relu")) for text in broken), (
        "lines break behind dots, however small the cells"
    )


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
    assert strong and all(w < s / 2 if fading else w == s for s, w in zip(strong, weak, strict=True))


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
