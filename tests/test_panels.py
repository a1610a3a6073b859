"""Panels show what the maps hold: their colours, places and texts."""

import io
import threading

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.metrics import structural_similarity
from torch.nn import functional

from gradcam_callback import ProbeSet
from gradcam_callback.drawing import (
    Animation,
    Caption,
    EvolutionStrip,
    InputImage,
    LayerPanel,
    ProbePanel,
    Profile,
    Style,
    canvas,
    depth_profile,
    encode_ahead,
    encode_jpeg,
    encode_webp,
    heatmap,
)
from gradcam_callback.drawing import text as fonts
from gradcam_callback.drawing.canvas import CORRECT as GREEN
from gradcam_callback.drawing.canvas import FRAME, framed
from gradcam_callback.drawing.encoding import WEBP_LONGEST
from gradcam_callback.drawing.layout import place_columns
from gradcam_callback.drawing.plots import NOW
from gradcam_callback.run.album import Album

CORRECT = Caption("star-1", "star", "star", True, 0.87, "star", 0.87)
WRONG = Caption("star-1", "star", "moon", False, 0.91, "star", 0.04)
GREY = InputImage(np.full((60, 60, 3), 128, np.uint8))
ALL = [f"block{b}_conv{c}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)]


BIG = Style(112)


def probe_panel(image, maps, caption, style=BIG, **options):
    return ProbePanel([image], list(maps), style, **options).draw(0, maps, caption)


def layer_panel(layer, images, maps, captions, style=BIG):
    return LayerPanel(images, style).draw(layer, maps, captions)


def evolution_strip(image, name, explained, headings, probabilities, maps, style=BIG):
    over_time = {layer: np.stack(raw) for layer, raw in maps.items()}
    return EvolutionStrip([image], list(maps), style).draw(0, name, explained, headings, probabilities, over_time)


def spot(height=14, width=14, row=3, column=9):
    planted = np.zeros((height, width), np.float32)
    planted[row, column] = 7.0
    return planted


@pytest.mark.parametrize("colormap", ["inferno", "viridis", "jet"])
def test_zero_is_the_coldest_colour_and_the_hottest_cell_the_hottest(colormap):
    ends = np.rint(matplotlib.colormaps[colormap]([0.0, 1.0])[:, :3] * 255)
    for smooth in (False, True):
        painted = heatmap.paint(heatmap.scale(spot(), 112, 112, smooth=smooth), colormap)
        assert np.array_equal(painted[0, 0], ends[0])
        assert (painted == ends[1]).all(axis=2).any()


@pytest.mark.parametrize("colormap", ["inferno", "jet"])
def test_values_have_the_colours_that_matplotlib_gives_them(colormap):
    values = np.linspace(0, 1, 256).reshape(16, 16)
    expected = matplotlib.colormaps[colormap](values)[..., :3] * 255
    assert np.abs(heatmap.paint(values, colormap) - expected).max() <= 0.5


def test_empty_maps_are_cold_all_over():
    painted = heatmap.paint(heatmap.scale(np.zeros((7, 7)), 50, 50, smooth=True), "inferno")
    assert (painted == painted[0, 0]).all() and painted.max() < 10


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(("height", "width"), [(14, 14), (7, 20), (200, 300)])
def test_hottest_cell_lies_over_the_right_pixels(height, width, smooth):
    row, column = height // 3, 2 * width // 3
    values = heatmap.scale(spot(height, width, row, column), 150, 90, smooth=smooth)
    assert values.shape == (90, 150)
    hot = np.argwhere(values > 0.99)
    centre = hot.mean(axis=0) + 0.5
    assert centre == pytest.approx([(row + 0.5) * 90 / height, (column + 0.5) * 150 / width], abs=0.6)


def test_maps_of_many_cells_are_averaged_over_the_area_of_each_pixel():
    raw = np.random.default_rng(0).random((12, 20))
    by_hand = raw.reshape(6, 2, 5, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(heatmap.scale(raw, 5, 6, smooth=True), by_hand / by_hand.max(), rtol=1e-5)


@pytest.mark.parametrize("size", [(7, 8), (8, 9), (20, 31), (70, 90)])
def test_smooth_maps_are_interpolated_between_the_centres_of_their_cells(size):
    raw = np.random.default_rng(0).random((7, 8)).astype(np.float32)
    bilinear = functional.interpolate(torch.from_numpy(raw)[None, None], size, mode="bilinear", align_corners=False)
    found = heatmap.scale(raw, size[1], size[0], smooth=True, vmax=1.0)
    np.testing.assert_allclose(found, bilinear[0, 0].numpy(), atol=1e-6)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("side", [1, 4, 7, 20])
def test_resampling_an_even_map_keeps_its_value(side, smooth):
    found = heatmap.scale(np.full((7, 7), 3.0), side, side, smooth=smooth, vmax=12.0)
    np.testing.assert_allclose(found, 0.25, rtol=1e-6)


def test_below_zero_is_as_cold_as_zero():
    raw = np.array([[-5.0, -0.5], [0.0, 2.0]])
    for smooth in (False, True):
        assert (heatmap.scale(raw, 2, 2, smooth=smooth) == [[0, 0], [0, 1]]).all()


def test_many_maps_are_resampled_as_each_alone():
    raw = np.random.default_rng(0).random((3, 7, 9)).astype(np.float32)
    for smooth in (True, False):
        together = heatmap.scale(raw, 50, 40, smooth=smooth)
        for one, scaled in zip(raw, together, strict=True):
            np.testing.assert_allclose(heatmap.scale(one, 50, 40, smooth=smooth), scaled, rtol=1e-6)
    squares = heatmap.scale(raw, 50, 40, smooth=False)[0]
    assert set(np.unique(squares)) <= set((raw[0] / raw[0].max()).ravel()), "cells stay squares of one colour"


def test_each_map_by_itself_shows_shape_and_not_strength():
    weak, strong = heatmap.scale(spot() * 1e-6, 50, 50, smooth=True), heatmap.scale(spot() * 1e6, 50, 50, smooth=True)
    np.testing.assert_allclose(weak, strong, atol=1e-6)


def test_with_one_vmax_a_map_that_fades_looks_faded():
    levels = [heatmap.scale(spot() * s, 56, 56, smooth=False, vmax=14.0).max() for s in (2.0, 1.0, 0.1, 0.0)]
    assert levels == pytest.approx([1.0, 0.5, 0.05, 0.0])
    assert heatmap.scale(spot() * 9, 56, 56, smooth=False, vmax=14.0).max() == 1.0, "and none is hotter than hot"


def test_overlay_is_grey_but_for_the_heatmap():
    colourful = np.zeros((60, 60, 3), np.uint8)
    colourful[..., 0] = 200
    grey = InputImage(colourful).grey(20, 20)
    cold = heatmap.blend(grey, np.zeros((20, 20)), "gray")
    assert (cold[..., 0] == cold[..., 1]).all() and cold.max() > 0
    hot = heatmap.blend(grey, np.ones((20, 20)), "gray")
    assert (hot > cold).all()
    # White is drawn as 96 and black as 16. Heat is at most 3/4 opaque, and half so at 4/9, whose root is 2/3.
    image, heat = np.array([[255, 0, 255, 0]], np.uint8), np.array([[1.0, 1.0, 4 / 9, 0.0]])
    drawn = heatmap.blend(image, heat, "gray")[0, :, 0]
    assert drawn == pytest.approx([96 / 4 + 255 * 3 / 4, 16 / 4 + 255 * 3 / 4, 96 / 2 + 255 * 4 / 9 / 2, 16], abs=1)


def test_probe_panel_has_a_column_per_layer_and_fits_a_page():
    maps = {layer: spot() for layer in ALL}
    wrapped = probe_panel(GREY, maps, CORRECT, style=BIG)
    assert wrapped.width <= canvas.PANEL_WIDTH
    whole = probe_panel(GREY, maps, CORRECT, style=BIG, max_width=None)
    assert whole.width > 13 * 112 and whole.height < wrapped.height
    for sheet in (wrapped, whole):
        assert hottest_cells(sheet) == 13, "the planted spot of every heatmap is there"


def hottest_cells(sheet):
    """Count the square cells of the hottest colour in a sheet whose heatmaps hold one spot each."""
    hottest = np.rint(np.array(matplotlib.colormaps["inferno"](1.0)[:3]) * 255)
    pixels = np.asarray(sheet)
    hot = (pixels == hottest).all(axis=2)
    # The spot is 8 x 8 pixels; its upper left corner has neither a hot neighbour above nor at its left.
    corner = hot & ~np.roll(hot, 1, 0) & ~np.roll(hot, 1, 1) & np.roll(hot, (-7, -7), (0, 1))
    return int(corner.sum())


def test_columns_stand_closer_within_a_block_than_between():
    places, _ = place_columns(["block1_conv1", "block1_conv2", "block2_conv1", "features.3"], 0, 100, None)
    lefts = [left for _, left in places]
    gaps = [after - before - 100 for before, after in zip(lefts, lefts[1:], strict=False)]
    assert gaps == [canvas.GAP, canvas.BLOCK_GAP, canvas.BLOCK_GAP]


@pytest.mark.parametrize("width", [60, 76, 112, 300])
def test_lines_break_between_blocks_and_are_even(width):
    places, right = place_columns(ALL, 150, width, 1020)
    by_block, ends = {}, {}
    for layer, (line, left) in zip(ALL, places, strict=True):
        by_block.setdefault(layer[:6], set()).add(line)
        ends[line] = left + width
    assert all(len(lines) == 1 for lines in by_block.values())
    assert right == max(ends.values())
    if width < 300:
        assert right <= 1020
        assert max(ends.values()) - min(ends.values()) <= 2 * (3 * (width + canvas.GAP)), "no line of a single block"


def test_what_stays_the_same_is_where_it_was_at_every_epoch():
    panel = ProbePanel([GREY], ALL, Style())
    sheets = [panel.draw(0, {layer: spot() for layer in ALL}, caption) for caption in (CORRECT, WRONG)]
    assert sheets[0].size == sheets[1].size, "the slider moves through images of one size"
    strip = EvolutionStrip([GREY], ALL, Style())
    before, after = (
        np.asarray(
            strip.draw(0, "star-1", "star", ["0"] * n, [0.5] * n, {layer: np.stack([spot()] * n) for layer in ALL})
        )
        for n in (2, 3)
    )
    assert before.shape[0] == after.shape[0]


def test_boxes_say_where_the_overlays_and_the_input_stand():
    panel = ProbePanel([GREY], ALL, Style(76))
    sheet = panel.draw(0, {layer: np.zeros((14, 14)) for layer in ALL[:-1]} | {ALL[-1]: spot()}, CORRECT)
    for layer, box in panel.overlay_boxes.items():
        cell = np.asarray(sheet.crop(box))
        assert cell.shape == (76, 76, 3)
        coloured = (cell.max(axis=2).astype(int) - cell.min(axis=2)) > 60
        assert coloured.any() == (layer == ALL[-1]), layer
    inner = np.asarray(sheet.crop(panel.input_box))[4:-4, 4:-4]
    assert (inner == 128).all()


def test_with_one_scale_for_the_run_panels_fade_with_their_maps():
    faded = spot() / 10
    panel = ProbePanel([GREY], ALL, Style(112, scaling="run"))
    vmax = dict.fromkeys(ALL, 7.0)
    assert hottest_cells(panel.draw(0, {layer: spot() for layer in ALL}, CORRECT, vmax)) == 13
    assert hottest_cells(panel.draw(0, {layer: faded for layer in ALL}, CORRECT, vmax)) == 0
    layers = LayerPanel([GREY, GREY], Style(112, scaling="run"))
    sheet = np.asarray(layers.draw("l", np.stack([spot(), faded]), [CORRECT, CORRECT], {"l": 7.0})).astype(int)
    strong, weak = sheet[:, : sheet.shape[1] // 2], sheet[:, sheet.shape[1] // 2 :]
    colourful = [int((half[60:150].max(axis=2) - half[60:150].min(axis=2) > 60).sum()) for half in (strong, weak)]
    assert colourful[0] > 3 * colourful[1]


def colours_of(sheet):
    return {tuple(colour) for colour in np.asarray(sheet).reshape(-1, 3)}


@pytest.mark.parametrize("draw", ["probe", "layer"])
def test_wrong_predictions_are_red_and_correct_ones_green(draw):
    def sheet(caption):
        if draw == "probe":
            return probe_panel(GREY, {"block5_conv3": spot()}, caption)
        return layer_panel("block5_conv3", [GREY], spot()[None], [caption])

    assert canvas.WRONG in colours_of(sheet(WRONG)) and canvas.CORRECT not in colours_of(sheet(WRONG))
    assert canvas.CORRECT in colours_of(sheet(CORRECT)) and canvas.WRONG not in colours_of(sheet(CORRECT))
    unknown = colours_of(sheet(Caption("photo", None, "moon", None, 0.9, "moon", 0.9)))
    assert not unknown & {canvas.CORRECT, canvas.WRONG}


@pytest.mark.parametrize("classes", [["cat", "dog"], ["American Bulldog", "Staffordshire Bull Terrier"]])
def test_images_of_a_layer_stand_as_far_apart_as_the_texts_below_them_are_long(classes):
    probe = ProbeSet(torch.rand(12, 3, 32, 32), [0] * 12, class_names=classes)
    caption = Caption(f"{classes[0]}-1", classes[0], classes[0], True, 1.0, classes[0], 1.0)
    panel = Album(probe, ["block5_conv3"], Style(76)).layer_panel
    sheet = panel.draw("block5_conv3", np.stack([spot()] * 12), [caption] * 12)
    green = (np.asarray(sheet)[60] == canvas.CORRECT).all(axis=1)
    apart = np.diff(np.flatnonzero(green & ~np.roll(green, 1))[::2])  # every other side of a frame is a left one
    needed = fonts.line_width(caption.format_prediction(canvas.LABEL, 1000), canvas.LABEL)
    assert (apart >= needed).all() and (apart < needed + 40).all() and sheet.width <= canvas.PANEL_WIDTH


def test_captions_give_the_prediction_with_its_sign():
    assert CORRECT.format_prediction(14, 200) == "star 87 % ✓" and WRONG.format_prediction(14, 200) == "moon 91 % ✗"
    assert Caption("photo", None, "moon", None, 0.9, "moon", 0.9).format_prediction(14, 200) == "moon 90 %"


def test_cut_names_do_not_make_a_wrong_prediction_look_correct():
    alike = Caption("star-1", "star" + "x" * 90 + "fish", "star" + "y" * 90 + "fish", False, 0.9, "star", 0.1)
    sheet = colours_of(probe_panel(GREY, {"block5_conv3": spot()}, alike))
    assert canvas.WRONG in sheet and canvas.CORRECT not in sheet
    prediction = alike.format_prediction(14, 100)
    assert prediction.endswith(" 90 % ✗") and "…" in prediction and fonts.line_width(prediction, 14) <= 100


def test_labels_are_said_where_names_do_not_say_them():
    assert CORRECT.title == "star-1"
    assert Caption("IMG_2041", "star", "moon", False, 0.9, "star", 0.1).title == "IMG_2041 (star)"


def test_mask_is_outlined_on_the_input_where_it_is():
    mask = np.zeros((60, 60), bool)
    mask[20:40, 10:30] = True
    caption = Caption("photo", None, "moon", None, 0.9, "moon", 0.9)
    plain = np.asarray(layer_panel("l", [GREY], spot()[None], [caption]))
    outlined = np.asarray(layer_panel("l", [InputImage(GREY.pixels, mask)], spot()[None], [caption]))
    changed = np.argwhere((plain != outlined).any(axis=2))
    top, left = changed.min(axis=0)
    bottom, right = changed.max(axis=0)
    assert (bottom - top, right - left) == (pytest.approx(112 / 3, abs=2), pytest.approx(112 / 3, abs=2))
    assert len(changed) < 0.2 * (bottom - top) * (right - left), "an outline, not an area"


def test_empty_maps_say_so():
    empty = canvas.label_if_empty(np.zeros((112, 112, 3), np.uint8), np.zeros((112, 112)))
    assert empty.max() == 255
    assert canvas.label_if_empty(np.zeros((112, 112, 3), np.uint8), np.ones((112, 112))).max() == 0


def hottest_on_black():
    """Return the hottest colour of an overlay on black, which is drawn as 16, with a quarter of the image."""
    return np.rint(0.75 * 255 * np.array(matplotlib.colormaps["inferno"](1.0)[:3]) + 16 / 4)


@pytest.mark.parametrize("count", [1, 3, 16, 40])
def test_layer_panel_shows_every_image(count):
    # Black inputs under maps that are hot all over: as many squares of the hottest colour as images.
    black = InputImage(np.zeros((60, 60, 3), np.uint8))
    caption = Caption("photo", None, "moon", None, 0.9, "moon", 0.9)
    sheet = np.asarray(layer_panel("l", [black] * count, np.ones((count, 7, 7)), [caption] * count))
    hottest = hottest_on_black()
    assert (sheet == hottest).all(axis=2).sum() == count * (112 + canvas.GAP) ** 2
    assert sheet.shape[1] <= canvas.PANEL_WIDTH


def test_evolution_strip_has_a_row_per_layer_and_a_column_per_epoch():
    maps = {layer: [spot(), spot(row=8)] for layer in ALL}
    sheet = evolution_strip(GREY, "star-1", "star", ["start", "0"], [0.1, 0.9], maps)
    more = evolution_strip(GREY, "star-1", "star", ["start"] * 12, [0.1] * 12, {"block5_conv3": [spot()] * 12})
    hot = (np.asarray(sheet).max(axis=2) - np.asarray(sheet).min(axis=2)) > 60
    rows = hot.any(axis=1)
    assert int((rows[1:] & ~rows[:-1]).sum()) >= 13, "each row has its spots"
    assert more.height < sheet.height and sheet.width < more.width <= canvas.PANEL_WIDTH + 100


def test_non_square_images_keep_their_proportions():
    wide = InputImage(np.zeros((30, 90, 3), np.uint8))
    caption = Caption("photo", None, "moon", None, 0.9, "moon", 0.9)
    sheet = np.asarray(layer_panel("l", [wide], np.ones((1, 5, 15)), [caption]))
    hottest = hottest_on_black()
    assert (sheet == hottest).all(axis=2).sum() == pytest.approx(116 * 39, abs=200)


@pytest.mark.parametrize(("height", "width"), [(4, 300), (300, 4), (1, 1)])
def test_the_oddest_shapes_are_drawn(height, width):
    image, maps = InputImage(np.zeros((height, width, 3), np.uint8)), {"block5_conv3": spot()}
    over_time = "star-1", "star", ["0"], [0.5], {"block5_conv3": spot()[None]}
    for sheet in (
        probe_panel(image, maps, CORRECT),
        layer_panel("block5_conv3", [image], spot()[None], [CORRECT]),
        EvolutionStrip([image], ["block5_conv3"], BIG).draw(0, *over_time),
        Animation([image], ["block5_conv3"], BIG).frames(0, *over_time)[0],
    ):
        assert (np.asarray(sheet)[-8:] == 255).all() and (np.asarray(sheet)[:, -8:] == 255).all(), (
            "all within its paper"
        )


def test_long_names_are_cut_and_nothing_is_drawn_outside():
    long = "x" * 300
    caption = Caption(long, long, long, True, 0.5, long, 0.5)
    for sheet in (
        probe_panel(GREY, {long: spot()}, caption),
        layer_panel(long, [GREY], spot()[None], [caption]),
        evolution_strip(GREY, long, long, ["0"], [0.5], {long: [spot()]}),
    ):
        assert sheet.width <= canvas.PANEL_WIDTH
        assert (np.asarray(sheet)[:, -1] == 255).all()


def test_jpeg_of_a_photographs_panel_is_small_and_decodes_to_it():
    photograph = InputImage(data.astronaut()[:300, :300])
    sheet = probe_panel(photograph, {layer: spot(56, 56) + 1 for layer in ALL}, CORRECT)
    encoded = encode_jpeg(sheet, 85).data
    assert len(encoded) <= 12_000 * len(ALL), "the bytes that a map may take, both rows"
    decoded = Image.open(io.BytesIO(encoded))
    assert decoded.format == "JPEG" and decoded.size == sheet.size
    assert np.abs(np.asarray(decoded, dtype=int) - np.asarray(sheet, dtype=int)).mean() < 8


@pytest.mark.parametrize("quality", [20, 60, 85, 95])
def test_webp_of_a_photographs_panel_is_smaller_than_jpeg_and_as_similar(quality):
    photograph = InputImage(data.astronaut()[:300, :300])
    sheet = probe_panel(photograph, {layer: spot(56, 56) + 1 for layer in ALL}, CORRECT)
    jpeg, webp = encode_jpeg(sheet, quality), encode_webp(sheet, quality)
    assert webp.suffix == "webp" and len(webp.data) < 0.75 * len(jpeg.data)
    decoded = [Image.open(io.BytesIO(encoded.data)).convert("RGB") for encoded in (jpeg, webp)]
    jpegs, webps = (structural_similarity(np.asarray(sheet), np.asarray(image), channel_axis=2) for image in decoded)
    assert webps > jpegs - 0.005


def test_an_image_too_long_for_webp_is_jpeg():
    for length, suffix in ((WEBP_LONGEST, "webp"), (WEBP_LONGEST + 1, "jpg")):
        for size in ((8, length), (length, 8)):
            encoded = encode_webp(Image.new("RGB", size), 60)
            decoded = Image.open(io.BytesIO(encoded.data))
            assert (encoded.suffix, encoded.width, encoded.height, decoded.size) == (suffix, *size, size)


def test_images_are_encoded_in_their_order_and_few_are_drawn_ahead():
    drawn = []

    def draw():
        for i in range(9):
            drawn.append(i)
            yield i, Image.new("L", (1, 1), i)

    second_is_done = threading.Event()

    def encode(image):
        value = image.getpixel((0, 0))
        assert value != 0 or second_is_done.wait(60), "two images are encoded at once"
        if value == 1:
            second_is_done.set()
        return value

    for i, (name, value) in enumerate(encode_ahead(draw(), encode)):
        assert name == value == i and len(drawn) <= i + 5
    assert drawn == list(range(9))


def test_what_fails_while_images_are_encoded_is_raised_and_no_thread_stays():
    threads = threading.active_count()

    def draw():
        yield "first", Image.new("L", (1, 1))
        raise OSError("drawing")

    with pytest.raises(OSError, match="drawing"):
        list(encode_ahead(draw(), len))
    with pytest.raises(TypeError, match="len"):
        list(encode_ahead([("first", Image.new("L", (1, 1)))], len))
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"cell": 15}, "`Style.cell` to be an integer of 16 or more, but got 15"),
        ({"cell": "76"}, "`Style.cell` to be an integer of 16 or more, but got '76'"),
        (
            {"colormap": "rainbow-ish"},
            "`Style.colormap` to be the name of a matplotlib colour map, but got 'rainbow-ish'",
        ),
        ({"colormap": None}, "`Style.colormap` to be the name of a matplotlib colour map, but got None"),
        ({"scaling": "epoch"}, "`Style.scaling` to be 'map' or 'run', but got 'epoch'"),
        ({"quality": 0}, "`Style.quality` to be an integer from 1 to 95, but got 0"),
        ({"quality": 96}, "`Style.quality` to be an integer from 1 to 95, but got 96"),
        ({"quality": 60.5}, "`Style.quality` to be an integer from 1 to 95, but got 60.5"),
    ],
)
def test_styles_that_cannot_be_drawn_are_refused(attributes, message):
    with pytest.raises(ValueError, match=f"^Expected {message}. Pass "):
        Style(**attributes)


def test_styles_at_the_ends_of_the_ranges_are_taken():
    assert Style() == Style(None, "inferno", "map", 60) and Style().cell_size == 76
    for attributes in ({"cell": 16}, {"cell": np.int64(80)}, {"quality": 1}, {"quality": 95}):
        assert vars(Style(**attributes)).items() >= attributes.items()


@pytest.mark.parametrize("count", [1, 2, 13])
def test_profiles_of_any_number_of_layers_have_room_for_their_titles(count):
    values = [1.0] * count
    profiles = [Profile(title, values, values, chance=1.0) for title in ("m" * 50, "lift")]
    drawn = np.asarray(depth_profile([f"layer{i}" for i in range(count)], profiles))
    assert (drawn[:, -8:] == 255).all() and (drawn[:8] == 255).all()


def test_profiles_leave_undefined_values_out():
    """A layer whose maps are all empty has no lift, and must not hide the lift of the others."""
    nan = float("nan")
    drawn = [
        depth_profile(["a", "b", "c"], [Profile("lift", values, first, chance=1.0)])
        for values, first in (([nan, 2.0, 3.0], None), ([nan] * 3, [1.0, nan, 2.0]), ([nan] * 3, None))
    ]
    now = tuple(int(matplotlib.colors.to_hex(NOW)[i : i + 2], 16) for i in (1, 3, 5))
    coloured = [int((np.asarray(image) == now).all(axis=2).sum()) for image in drawn]
    assert coloured[0] > 2 * max(coloured[1:]), "without values, only the legend has the colour"


@pytest.mark.parametrize("side", [3, 8, 12, 20, 76])
def test_a_frame_leaves_most_of_a_very_wide_or_tall_image(side):
    pixels = np.full((side, 160, 3), 128, np.uint8)
    for image in (pixels, pixels.swapaxes(0, 1)):
        left = (framed(image, GREEN, width=6) == 128).all(axis=-1)
        assert left.sum() >= min(0.3, (side - 2) / side) * left.size
        assert not left[0].any() and not left[:, -1].any()
    assert (framed(np.full((76, 76, 3), 128, np.uint8), GREEN) == 128).all(axis=-1).sum() == (76 - 2 * FRAME) ** 2
