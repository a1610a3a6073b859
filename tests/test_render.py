"""Pictures say what the maps say: colours, places and words."""

import io

import matplotlib
import numpy as np
import pytest
from PIL import Image
from skimage import data

from gradcam_callback import render
from gradcam_callback.render import Caption, Style

RIGHT = Caption("star-1", "star", "star", True, 0.87, "star", 0.87)
WRONG = Caption("star-1", "star", "moon", False, 0.91, "star", 0.04)
GREY = render.Picture(np.full((60, 60, 3), 128, np.uint8))
ALL = [f"block{b}_conv{c}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)]


def spot(height=14, width=14, row=3, column=9):
    planted = np.zeros((height, width), np.float32)
    planted[row, column] = 7.0
    return planted


@pytest.mark.parametrize("colormap", ["inferno", "viridis", "jet"])
def test_zero_is_the_coldest_colour_and_the_hottest_cell_the_hottest(colormap):
    ends = np.rint(matplotlib.colormaps[colormap]([0.0, 1.0])[:, :3] * 255)
    for smooth in (False, True):
        painted = render.paint(render.scale(spot(), 112, 112, smooth=smooth), colormap)
        assert np.array_equal(painted[0, 0], ends[0])
        assert (painted == ends[1]).all(axis=2).any()


def test_empty_maps_are_cold_all_over():
    painted = render.paint(render.scale(np.zeros((7, 7)), 50, 50, smooth=True), "inferno")
    assert (painted == painted[0, 0]).all() and painted.max() < 10


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(("height", "width"), [(14, 14), (7, 20), (200, 300)])
def test_hottest_cell_lies_over_the_right_pixels(height, width, smooth):
    row, column = height // 3, 2 * width // 3
    values = render.scale(spot(height, width, row, column), 150, 90, smooth=smooth)
    assert values.shape == (90, 150)
    hot = np.argwhere(values > 0.99)
    centre = hot.mean(axis=0) + 0.5
    assert centre == pytest.approx([(row + 0.5) * 90 / height, (column + 0.5) * 150 / width], abs=0.6)


def test_maps_of_many_cells_are_averaged_over_the_area_of_each_pixel():
    raw = np.random.default_rng(0).random((12, 20))
    by_hand = raw.reshape(6, 2, 5, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(render.scale(raw, 5, 6, smooth=True), by_hand / by_hand.max(), rtol=1e-5)


def test_many_maps_are_resampled_as_each_alone():
    raw = np.random.default_rng(0).random((3, 7, 9)).astype(np.float32)
    for smooth in (True, False):
        together = render.scale(raw, 50, 40, smooth=smooth)
        for one, scaled in zip(raw, together, strict=True):
            np.testing.assert_allclose(render.scale(one, 50, 40, smooth=smooth), scaled, rtol=1e-6)
    squares = render.scale(raw, 50, 40, smooth=False)[0]
    assert set(np.unique(squares)) <= set((raw[0] / raw[0].max()).ravel()), "cells stay squares of one colour"


def test_shape_is_shown_and_strength_is_not():
    weak, strong = render.scale(spot() * 1e-6, 50, 50, smooth=True), render.scale(spot() * 1e6, 50, 50, smooth=True)
    np.testing.assert_allclose(weak, strong, atol=1e-6)


def test_overlay_is_grey_but_for_the_heatmap():
    colourful = np.zeros((60, 60, 3), np.uint8)
    colourful[..., 0] = 200
    grey = render.Picture(colourful).grey(20, 20)
    cold = render.overlay(grey, np.zeros((20, 20)), "gray")
    assert (cold[..., 0] == cold[..., 1]).all() and cold.max() > 0
    hot = render.overlay(grey, np.ones((20, 20)), "gray")
    assert (hot > cold).all()


def test_probe_panel_has_a_column_per_layer_and_fits_a_page():
    maps = {layer: spot() for layer in ALL}
    wrapped = render.probe_panel(GREY, maps, RIGHT, style=Style(112))
    assert wrapped.width <= render.PANEL_WIDTH
    whole = render.probe_panel(GREY, maps, RIGHT, style=Style(112), max_width=None)
    assert whole.width > 13 * 112 and whole.height < wrapped.height
    for sheet in (wrapped, whole):
        assert hottest_cells(sheet) == 13, "the planted spot of every heatmap is there"


def hottest_cells(sheet):
    """How many square cells of the hottest colour stand in a sheet whose heatmaps hold one spot each."""
    hottest = np.rint(np.array(matplotlib.colormaps["inferno"](1.0)[:3]) * 255)
    pixels = np.asarray(sheet)
    hot = (pixels == hottest).all(axis=2)
    # The spot is 8 x 8 pixels; its upper left corner has neither a hot neighbour above nor at its left.
    corner = hot & ~np.roll(hot, 1, 0) & ~np.roll(hot, 1, 1) & np.roll(hot, (-7, -7), (0, 1))
    return int(corner.sum())


def test_columns_stand_closer_within_a_block_than_between():
    places, _ = render._columns(["block1_conv1", "block1_conv2", "block2_conv1", "features.3"], 0, 100, None)
    lefts = [left for _, left in places]
    gaps = [after - before - 100 for before, after in zip(lefts, lefts[1:], strict=False)]
    assert gaps == [render.GAP, render.BLOCK_GAP, render.BLOCK_GAP]


def test_lines_break_between_blocks_only():
    places, right = render._columns(ALL, 150, 112, 1020)
    by_block = {}
    for layer, (line, _) in zip(ALL, places, strict=True):
        by_block.setdefault(layer[:6], set()).add(line)
    assert all(len(lines) == 1 for lines in by_block.values()) and right <= 1020


def colours_of(sheet):
    return {tuple(colour) for colour in np.asarray(sheet).reshape(-1, 3)}


@pytest.mark.parametrize("draw", ["probe", "layer"])
def test_wrong_predictions_are_red_and_right_ones_green(draw):
    def sheet(caption):
        if draw == "probe":
            return render.probe_panel(GREY, {"block5_conv3": spot()}, caption)
        return render.layer_panel("block5_conv3", [GREY], spot()[None], [caption])

    assert render.WRONG in colours_of(sheet(WRONG)) and render.RIGHT not in colours_of(sheet(WRONG))
    assert render.RIGHT in colours_of(sheet(RIGHT)) and render.WRONG not in colours_of(sheet(RIGHT))
    unknown = colours_of(sheet(Caption("photo", None, "moon", None, 0.9, "moon", 0.9)))
    assert not unknown & {render.RIGHT, render.WRONG}


def test_captions_say_the_answer_with_its_sign():
    assert RIGHT.answer == "star 87 % ✓" and WRONG.answer == "moon 91 % ✗"
    assert Caption("photo", None, "moon", None, 0.9, "moon", 0.9).answer == "moon 90 %"


def test_cut_names_do_not_turn_a_wrong_answer_into_a_right_one():
    alike = Caption("star-1", "star" + "x" * 90 + "fish", "star" + "y" * 90 + "fish", False, 0.9, "star", 0.1)
    sheet = colours_of(render.probe_panel(GREY, {"block5_conv3": spot()}, alike))
    assert render.WRONG in sheet and render.RIGHT not in sheet
    assert any("✗" in text for text, _ in render._title_parts(alike))


def test_mask_is_outlined_on_the_input_where_it_is():
    mask = np.zeros((60, 60), bool)
    mask[20:40, 10:30] = True
    caption = Caption("photo", None, "moon", None, 0.9, "moon", 0.9)
    plain = np.asarray(render.layer_panel("l", [GREY], spot()[None], [caption]))
    outlined = np.asarray(render.layer_panel("l", [render.Picture(GREY.pixels, mask)], spot()[None], [caption]))
    changed = np.argwhere((plain != outlined).any(axis=2))
    top, left = changed.min(axis=0)
    bottom, right = changed.max(axis=0)
    assert (bottom - top, right - left) == (pytest.approx(112 / 3, abs=2), pytest.approx(112 / 3, abs=2))
    assert len(changed) < 0.2 * (bottom - top) * (right - left), "an outline, not an area"


def test_empty_maps_say_so():
    empty = render._cell(np.zeros((112, 112, 3), np.uint8), np.zeros((112, 112)))
    assert empty.max() == 255
    assert render._cell(np.zeros((112, 112, 3), np.uint8), np.ones((112, 112))).max() == 0


@pytest.mark.parametrize("count", [1, 3, 40])
def test_layer_panel_shows_every_image(count):
    # Flat blue inputs: as many blue squares as images.
    blue = np.zeros((60, 60, 3), np.uint8)
    blue[..., 2] = 255
    caption = Caption("photo", None, "moon", None, 0.9, "moon", 0.9)
    sheet = np.asarray(
        render.layer_panel("l", [render.Picture(blue)] * count, np.stack([spot()] * count), [caption] * count)
    )
    assert (sheet == (0, 0, 255)).all(axis=2).sum() == count * 112 * 112
    assert sheet.shape[1] <= render.PANEL_WIDTH


def test_evolution_strip_has_a_row_per_layer_and_a_column_per_epoch():
    maps = {layer: [spot(), spot(row=8)] for layer in ALL}
    sheet = render.evolution_strip(GREY, "star-1", "star", [("start", 0.1), ("0", 0.9)], maps)
    more = render.evolution_strip(GREY, "star-1", "star", [("start", 0.1)] * 12, {"block5_conv3": [spot()] * 12})
    hot = (np.asarray(sheet).max(axis=2) - np.asarray(sheet).min(axis=2)) > 60
    rows = hot.any(axis=1)
    assert int((rows[1:] & ~rows[:-1]).sum()) >= 13, "each row has its spots"
    assert more.height < sheet.height and sheet.width < more.width <= render.PANEL_WIDTH + 100


def test_non_square_pictures_keep_their_proportions():
    wide = np.zeros((30, 90, 3), np.uint8)
    wide[..., 2] = 255
    caption = Caption("photo", None, "moon", None, 0.9, "moon", 0.9)
    sheet = np.asarray(render.layer_panel("l", [render.Picture(wide)], spot(5, 15)[None], [caption]))
    assert (sheet == (0, 0, 255)).all(axis=2).sum() == pytest.approx(112 * 37, abs=200)


def test_long_names_are_cut_and_nothing_is_drawn_outside():
    long = "x" * 300
    caption = Caption(long, long, long, True, 0.5, long, 0.5)
    for sheet in (
        render.probe_panel(GREY, {long: spot()}, caption),
        render.layer_panel(long, [GREY], spot()[None], [caption]),
        render.evolution_strip(GREY, long, long, [("0", 0.5)], {long: [spot()]}),
    ):
        assert sheet.width <= render.PANEL_WIDTH
        assert (np.asarray(sheet)[:, -1] == 255).all()


def test_jpeg_of_a_photographs_panel_is_small_and_decodes_to_it():
    photograph = render.Picture(data.astronaut()[:300, :300])
    sheet = render.probe_panel(photograph, {layer: spot(56, 56) + 1 for layer in ALL}, RIGHT)
    encoded = render.encode_jpeg(sheet, 85)
    assert len(encoded) <= 12_000 * len(ALL), "the bytes that a map may take, both rows"
    decoded = Image.open(io.BytesIO(encoded))
    assert decoded.format == "JPEG" and decoded.size == sheet.size
    assert np.abs(np.asarray(decoded, dtype=int) - np.asarray(sheet, dtype=int)).mean() < 8
