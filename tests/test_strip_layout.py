"""On strips, animations and answer sheets, texts stand at the images that they name."""

import numpy as np
import pytest
from drawn_sheets import (
    ALL,
    BIG,
    LARGER,
    LONG,
    MIXED,
    SHAPES,
    STAR,
    USUAL,
    animation,
    answers,
    frames,
    grey_image,
    split,
    strip,
)

from gradcam_callback.drawing import AnswerRow, Group, answer_sheet, sheets
from gradcam_callback.drawing.canvas import BLOCK_GAP, FAINT, GAP, GRID, INK, MARGIN, WRONG


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
    answer_sheet("NO SIGN", False, "a note", [Group("others", "", 2)], rows)
    _, cells, _ = split(drawn)
    assert len(cells) == 3 and cells[2].left == cells[0].left < cells[1].left and cells[2].top > cells[0].top


@pytest.mark.parametrize("is_alarm", [False, True])
def test_the_headline_of_an_answer_sheet_takes_the_lines_that_it_needs(drawn, is_alarm):
    words = [f"word{i}" for i in range(60)]
    row = AnswerRow("a", "star", [[np.zeros((60, 60, 3), np.uint8)] * 4], [[STAR] * 4])
    image = answer_sheet(" ".join(words), is_alarm, "a note", [Group("others", "", 4)], [row])
    _, cells, texts = split(drawn)
    lines = [w for w in texts if w.text.startswith("word")]
    assert len(lines) > 3 and " ".join(w.text for w in lines).split() == words
    assert {w.colour for w in lines} == {WRONG if is_alarm else INK}
    assert all(w.left == MARGIN and w.right <= image.width - MARGIN for w in lines)
    (note,) = [w for w in texts if w.text == "a note"]
    assert lines[-1].bottom < note.top and note.bottom < cells[0].top and note.colour == FAINT


def test_a_percentage_is_whole_in_a_narrow_sheet(drawn):
    tall = np.zeros((131, 37, 3), np.uint8)
    row = AnswerRow("a", "star", [[tall]] * 5, [[STAR]] * 5)
    headline = "NO SIGN OF A SHORTCUT: " + "right in 100 % as they are, " * 9
    answer_sheet(headline, False, "100 % " * 30, [Group("as it is", "100 % right", 1)] * 5, [row])
    _, _, texts = split(drawn)
    assert [w.text for w in texts if "right" in w.text and "in" not in w.text] == ["100 % right"] * 5
    lines = [w.text for w in texts if "%" in w.text]
    assert len(lines) > 9 and not [line for line in lines if line.startswith("%") or line.endswith("100")]
