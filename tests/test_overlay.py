"""An overlay shows a map on its image: the same colours and places as a panel, from any kind of image."""

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

from gradcam_callback import overlay
from gradcam_callback.drawing import Caption, InputImage, ProbePanel, Style

CAPTION = Caption("photo", None, "moon", None, 0.9, "moon", 0.9)


def spot(height, width, row, column):
    planted = np.zeros((height, width), np.float32)
    planted[row, column] = 7.0
    return planted


def ends(colormap):
    """Return what is drawn on black without heat, and at the hottest cell: a quarter image, the rest heat."""
    hottest = np.array(matplotlib.colormaps[colormap](1.0)[:3]) * 255
    return [16] * 3, np.rint(0.25 * 16 + 0.75 * hottest)


def random_image(height=40, width=90):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("colormap", ["inferno", "jet"])
@pytest.mark.parametrize(("height", "width"), [(60, 120), (120, 60), (37, 91)])
def test_the_hottest_cell_lies_over_the_right_pixels(height, width, colormap, smooth):
    cells, row, column = (5, 6), 1, 4
    drawn = overlay(np.zeros((height, width)), spot(*cells, row, column), colormap, smooth)
    cold, hot = ends(colormap)
    assert drawn.shape == (height, width, 3) and drawn.dtype == np.uint8
    hottest = np.argwhere((drawn == hot).all(axis=2))
    centre = hottest.mean(axis=0) + 0.5
    assert centre == pytest.approx([(row + 0.5) * height / cells[0], (column + 0.5) * width / cells[1]], abs=1)
    assert (drawn[-1, 0] == cold).all() and (drawn[0, 0] == cold).all()


def test_squares_cover_exactly_the_pixels_of_their_cell():
    drawn = overlay(np.zeros((40, 90)), spot(4, 9, 1, 6), smooth=False)
    hot = (drawn == ends("inferno")[1]).all(axis=2)
    expected = np.zeros((40, 90), bool)
    expected[10:20, 60:70] = True
    assert np.array_equal(hot, expected)


@pytest.mark.parametrize("cells", [(7, 7), (14, 3), (200, 300)])
@pytest.mark.parametrize("colormap", ["inferno", "viridis"])
def test_it_equals_the_overlay_of_a_probe_panel(cells, colormap):
    image, raw = random_image(), np.random.default_rng(1).random(cells).astype(np.float32)
    panel = ProbePanel([InputImage(image)], ["layer"], Style(cell=90, colormap=colormap))
    sheet = panel.draw(0, {"layer": raw}, CAPTION)
    assert np.array_equal(overlay(image, raw, colormap), np.asarray(sheet.crop(panel.overlay_boxes["layer"])))


def test_an_empty_map_gives_the_coldest_overlay():
    drawn = overlay(random_image(), np.zeros((7, 7)), "gray")
    assert np.array_equal(drawn, overlay(random_image(), np.full((7, 7), -1.0), "gray")), "below zero is zero"
    grey = np.asarray(Image.fromarray(random_image()).convert("L"))
    # Black is drawn as 16 and white as 96.
    assert np.array_equal(drawn, np.stack([np.rint(16 + grey / 255 * 80)] * 3, axis=2))


def test_the_scale_of_a_map_does_not_matter():
    raw = np.random.default_rng(1).random((7, 7))
    assert np.array_equal(overlay(random_image(), raw * 1e-20), overlay(random_image(), raw * 1e20))


def on_every_grey(colormap="inferno"):
    """Return an overlay whose rows have heat 0..1 and whose columns lie on black to white: ``(101, 52, 3)``."""
    greys = np.broadcast_to(np.arange(0, 256, 5, dtype=np.uint8), (101, 52))
    heat = np.repeat(np.linspace(0, 1, 101)[:, None], 52, axis=1)
    return overlay(greys, heat, colormap)


def lightness(colours):
    """Return CIE's lightness, 0..100: what is left in a print without colours."""
    return rgb2lab(colours / 255)[..., 0]


def read_by_colour(colours, colormap="inferno"):
    """Return the heat 0..1 whose colour on the colour bar looks most like each colour, as a person would read it."""
    bar = rgb2lab(matplotlib.colormaps[colormap](np.linspace(0, 1, 101))[None, :, :3])[0]
    return np.linalg.norm(rgb2lab(colours / 255)[..., None, :] - bar, axis=-1).argmin(axis=-1) / 100


@pytest.mark.parametrize("colormap", ["inferno", "viridis", "magma", "cividis"])
def test_equal_heat_looks_alike_on_white_and_on_black(colormap):
    """From no heat to the hottest, lightness rises by about 100, so a quarter of the heat is 25."""
    seen = lightness(on_every_grey(colormap))
    assert (np.ptp(seen, axis=1)[25:] < 25).all()


@pytest.mark.parametrize("colormap", ["inferno", "viridis", "magma", "cividis"])
def test_white_without_heat_is_never_lighter_than_black_with_much_heat(colormap):
    seen = lightness(on_every_grey(colormap))
    assert seen[75:].min() > seen[0].max()


def test_no_image_makes_a_place_look_hotter_than_another_that_has_a_quarter_more_heat():
    read = read_by_colour(on_every_grey())
    for heat in range(75):
        assert read[heat].max() < read[heat + 25 :].min(), heat


@pytest.mark.parametrize("colormap", ["inferno", "jet"])
def test_a_place_without_heat_has_no_colour_and_every_heat_lets_the_image_through(colormap):
    drawn = on_every_grey(colormap).astype(int)
    assert (np.ptp(drawn[0], axis=1) == 0).all(), "also with a colour map whose coldest colour is blue"
    brighter = drawn[:, -1] - drawn[:, 0]
    assert (brighter >= 20).all(), "white stays brighter than black, under the hottest colour by a quarter of 80"
    assert (np.diff(drawn, axis=1) >= 0).all()


def test_weak_heat_is_seen():
    """A tenth of the heat of a map changes the colour by more than the eye's threshold, a distance of about 2.3."""
    lab = rgb2lab(on_every_grey() / 255)
    assert np.linalg.norm(lab[10] - lab[0], axis=-1).min() > 2.3


def same_images():
    """Yield one image in all the forms in which it is drawn as it is."""
    pixels = random_image()
    channels_first = torch.from_numpy(pixels).permute(2, 0, 1)
    yield Image.fromarray(pixels)
    yield Image.fromarray(np.dstack([pixels, np.full(pixels.shape[:2], 99, np.uint8)]))  # with transparency
    yield pixels / 255
    yield (pixels / 255).astype(np.float32)
    yield channels_first
    yield channels_first / 255
    yield (channels_first / 255).double().requires_grad_()
    # Undoing a normalisation may end a little outside of 0..1.
    yield channels_first / 255 * 1.00001 - 1e-6


@pytest.mark.parametrize("image", list(same_images()), ids=lambda image: type(image).__name__)
def test_every_kind_of_image_is_drawn_alike(image):
    raw = spot(7, 7, 2, 3)
    assert np.array_equal(overlay(image, raw), overlay(random_image(), raw))


def test_images_without_colour_are_drawn_alike():
    raw, grey = spot(7, 7, 2, 3), random_image()[:, :, 0]
    expected = overlay(np.stack([grey] * 3, axis=2), raw)
    tensor = torch.from_numpy(grey.copy())[None]
    for image in (grey, grey[:, :, None], grey / 255, tensor, tensor / 255, Image.fromarray(grey)):
        assert np.array_equal(overlay(image, raw), expected)


def test_half_precision_images_are_drawn():
    tensor = torch.from_numpy(random_image()).permute(2, 0, 1) / 255
    raw = torch.from_numpy(spot(7, 7, 2, 3))
    expected = overlay(tensor, raw).astype(int)
    for dtype in (torch.float16, torch.bfloat16):
        assert np.abs(overlay(tensor.to(dtype), raw.to(dtype)) - expected).max() <= 1


@pytest.mark.parametrize("factor", [0.01, 3.0, 1e4])
def test_other_values_are_stretched_from_their_smallest_to_their_largest(factor):
    raw = np.zeros((7, 7))
    steps = np.array([[-2.0, -1.0, 0.0, 2.0]]) * factor
    drawn = overlay(np.repeat(steps, 2, axis=0), raw, "gray")
    expected = [16, 36, 56, 96]  # 0, 64, 128 and 255 between 16 and 96
    assert drawn[0, :, 0].tolist() == expected
    integers = np.array([[100, 200, 300, 500]], np.uint16)
    for image in (integers, Image.fromarray(integers)):
        assert overlay(image, raw, "gray")[0, :, 0].tolist() == expected


@pytest.mark.parametrize("value", [-3.0, 0.0, 0.5, 7.0])
def test_an_image_of_one_value_is_drawn(value):
    drawn = overlay(np.full((8, 8), value), np.zeros((2, 2)), "gray")
    assert (drawn == (56 if value == 0.5 else 16)).all()


def test_maps_may_be_tensors_that_need_gradients():
    raw = spot(7, 7, 2, 3)
    tensor = torch.from_numpy(raw).requires_grad_()
    assert np.array_equal(overlay(random_image(), tensor), overlay(random_image(), raw))


def test_inputs_do_not_change():
    image, raw = torch.randn(3, 20, 30), torch.randn(5, 5)
    pixels = random_image()
    kept = image.clone(), raw.clone(), pixels.copy()
    drawn = [overlay(image, raw), overlay(pixels, raw)]
    drawn[1][:] = 0
    assert torch.equal(image, kept[0]) and torch.equal(raw, kept[1]) and np.array_equal(pixels, kept[2])


@pytest.mark.parametrize(
    "image",
    [
        torch.rand(2, 3, 8, 8),
        torch.rand(8, 8, 3),
        torch.rand(8, 3),
        torch.rand(0, 8, 8),
        np.zeros((3, 8, 8)),
        np.zeros((8, 8, 4)),
        np.zeros(8),
        np.zeros((0, 8)),
    ],
    ids=lambda image: f"{type(image).__name__} {tuple(image.shape)}",
)
def test_images_of_other_shapes_are_refused(image):
    with pytest.raises(ValueError, match=r"^Expected `image` to be a tensor \(C, H, W\).*but got the shape \("):
        overlay(image, np.ones((2, 2)))


@pytest.mark.parametrize("shape", [(1, 7, 7), (7,), (), (0, 7)])
def test_maps_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"^Expected `map` to have shape \(h, w\), but got \(.*cams.maps"):
        overlay(random_image(), np.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(value):
    raw = spot(7, 7, 2, 3)
    raw[0, 0] = value
    with pytest.raises(ValueError, match="^Expected `map` to hold finite values, but got NaN or infinity"):
        overlay(random_image(), raw)
    with pytest.raises(ValueError, match="^Expected `image` to hold finite values, but got NaN or infinity"):
        overlay(torch.from_numpy(raw)[None], spot(7, 7, 2, 3))


def test_values_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="^Expected `image` to hold real numbers, but got <U"):
        overlay("photo.jpg", spot(7, 7, 2, 3))
    with pytest.raises(ValueError, match="^Expected `map` to hold real numbers, but got complex"):
        overlay(random_image(), np.ones((2, 2), complex))


def test_unknown_colour_maps_are_refused():
    with pytest.raises(
        ValueError, match="^Expected `colormap` to be the name of a matplotlib colour map.*'rainbow-ish'"
    ):
        overlay(random_image(), np.ones((2, 2)), "rainbow-ish")
