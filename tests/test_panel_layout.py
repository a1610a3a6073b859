"""On panels, texts stand at the images that they name, and few images are larger."""

from dataclasses import replace

import numpy as np
import pytest
from drawn_sheets import (
    ALL,
    DOTTED,
    FIXED,
    LARGER,
    MIXED,
    SHAPES,
    STAR,
    TWO_NETWORKS,
    USUAL,
    grey_image,
    layer_panel,
    maps,
    probe,
    split,
)

from gradcam_callback.drawing import Caption, LayerPanel, ProbePanel, Style
from gradcam_callback.drawing.canvas import FAINT, GAP, GRID, INK, MARGIN, PANEL_WIDTH, WRONG


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


@pytest.mark.parametrize(
    ("name", "label", "is_said"),
    [
        ("star-1", "star", True),
        ("the star_1", "star", True),
        ("a red star-2", "red star", True),
        ("cat007", "cat", True),
        ("IMG_10", "10", True),
        ("img_10", "1", False),
        ("1st", "1", True),
        ("hotdog_3", "dog", False),
        ("cats", "cat", False),
        ("Löwe", "L", False),
        ("star-1", "moon", False),
    ],
)
def test_a_label_is_left_out_only_if_a_whole_word_of_the_name_says_it(name, label, is_said):
    caption = Caption(name, label, label, True, 0.9, label, 0.9)
    assert caption.title == (name if is_said else f"{name} ({label})")


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
