"""Images of every kind in a probe folder are read correctly, pixel by pixel, or refused with their name."""

import struct
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from probe_folder import HEIGHT, WIDTH, colours, pixels, read, refuses, square, write_image
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS, default_loader

from gradcam_callback import GradCAMWarning
from gradcam_callback.exceptions import UserCodeError
from gradcam_callback.probes import read_folder

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(lion, suffix):
    deep = np.linspace(0, 65535, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint16)
    Image.fromarray(deep).save(lion / f"deep.{suffix}")
    found = pixels(lion)
    assert np.array_equal(found, np.repeat(np.rint(deep / 257)[..., None], 3, axis=2))
    assert found.min() == 0 and found.max() == 255 and abs(found.mean() - 127.5) < 1


def test_sixteen_bits_made_of_eight_are_again_what_they_were(lion):
    grey = colours()[..., 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(lion / "deep.png")
    assert np.array_equal(pixels(lion)[..., 0], grey)


def write_tiff(path, order, data, bits, white_is_zero=False):
    """Write a grey TIFF of one strip, tag by tag, of a kind that Pillow reads but does not write."""
    tags = {
        256: WIDTH, 257: HEIGHT, 258: bits, 259: 1, 262: int(not white_is_zero), 273: 8, 277: 1, 278: HEIGHT,
        279: len(data),
    }  # fmt: skip
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(header + data + struct.pack(order + "H", len(tags)) + entries + struct.pack(order + "I", 0))


def test_tiffs_of_the_other_byte_order_of_twelve_bits_and_whose_white_is_zero(lion):
    grey = colours()[..., 0]
    deep = grey.astype(np.uint16) * 257
    write_tiff(lion / "a.tif", ">", deep.astype(">u2").tobytes(), 16)
    write_tiff(lion / "b.tif", "<", (65535 - deep).astype("<u2").tobytes(), 16, white_is_zero=True)
    # Two levels of twelve bits in three bytes.
    twelve = np.rint(grey / 255 * 4095).astype(int)
    left, right = twelve[:, ::2], twelve[:, 1::2]
    packed = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], axis=2).astype(np.uint8)
    write_tiff(lion / "c.tif", "<", packed.tobytes(), 12)
    for image in read(lion).images:
        assert np.array_equal((image[0] * 255).round().numpy(), grey)


def test_floats_from_0_to_1_are_scaled_and_others_refused(lion):
    shares = np.linspace(0, 1, WIDTH * HEIGHT, dtype=np.float32).reshape(HEIGHT, WIDTH)
    Image.fromarray(shares).save(lion / "float.tif")
    assert np.array_equal(pixels(lion)[..., 1], np.rint(shares * 255.0))
    for wrong, levels in ((shares * 255, "0 to 255"), (shares - 0.5, "-0.5 to 0.5"), (shares * np.nan, "nan to nan")):
        Image.fromarray(wrong).save(lion / "float.tif")
        refuses(lion, "float.tif", f"its levels are {levels}, outside 0 to 1")


def test_whole_numbers_of_32_bits_are_refused(lion):
    Image.fromarray(np.arange(WIDTH * HEIGHT, dtype=np.int32).reshape(HEIGHT, WIDTH)).save(lion / "whole.tif")
    refuses(lion, "whole.tif", "for which white is not defined; save it with 8 bits")


def test_modes_are_read_as_torchvisions_image_folder_reads_them(lion):
    rgb = Image.fromarray(colours())
    alpha = Image.fromarray(colours(1)[..., 0])
    grey = rgb.convert("L")
    indexed = rgb.quantize(16)
    with_alpha, grey_with_alpha = rgb.copy(), grey.copy()
    with_alpha.putalpha(alpha)
    grey_with_alpha.putalpha(alpha)
    rgb.convert("CMYK").save(lion / "cmyk.jpg", quality=95)
    rgb.convert("CMYK").save(lion / "cmyk.tif")
    with_alpha.save(lion / "rgba.png")
    with_alpha.save(lion / "rgba.webp", lossless=True, exact=True)
    grey_with_alpha.save(lion / "la.png")
    grey.convert("1").save(lion / "1.png")
    grey.save(lion / "l.png", transparency=7)
    indexed.save(lion / "p.png", transparency=bytes([0, 128, *[255] * 14]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision lets Pillow warn of the palette's transparency.
        theirs = [np.asarray(image) for image, _ in ImageFolder(str(lion.parent))]
    probe = read(lion)
    assert len(probe) == len(theirs) == 8
    for image, expected in zip(probe.display_images(), theirs, strict=True):
        assert np.array_equal(image, expected)
    by_name = dict(zip(probe.names, probe.display_images(), strict=True))
    for exact in ("lion-rgba", "lion-rgba-2", "lion-cmyk-2"):
        assert np.abs(by_name[exact].astype(int) - colours()).max() <= 1, exact
    assert np.array_equal(by_name["lion-la"][..., 2], np.asarray(grey)), "alpha is dropped"
    assert np.array_equal(by_name["lion-p"], np.asarray(indexed.convert("RGB")))
    assert set(np.unique(by_name["lion-1"])) == {0, 255}


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("turn", TURNS)
def test_photographs_that_exif_turns_and_their_masks_lie_on_each_other(lion, suffix, turn):
    """Store the photograph turned back; the mask is drawn on the photograph as it is shown."""
    red = np.where(square()[..., None], (250, 10, 10), (20, 90, 20)).astype(np.uint8)
    stored = Image.fromarray(red).transpose(TURNS[turn])
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"lossless": True} if suffix == "webp" else {"quality": 95, "subsampling": 0} if suffix == "jpg" else {}
    stored.save(lion / f"a.{suffix}", exif=exif, **options)
    Image.fromarray(square()).save(lion / "a.mask.png")
    probe = read(lion)
    assert np.abs(probe.display_images()[0].astype(int) - red).max() <= (60 if suffix == "jpg" else 0)
    assert np.array_equal(probe.masks[0].numpy(), square())


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (HEIGHT, HEIGHT)], ids=["wide", "square"])
@pytest.mark.parametrize("loads", ["as it is stored", "upright", "inverted", "half as large"])
@pytest.mark.parametrize("turn", TURNS)
def test_masks_lie_on_what_the_loader_of_the_data_makes_of_a_turned_photograph(lion, turn, loads, size):
    """torchvision's own loader leaves photographs as they are stored."""
    shown = square()[: size[0], : size[1]]
    levels = np.where(shown[..., None], (250, 10, 10), (20, 90, 20)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    mask = shown.repeat(4, 0).repeat(4, 1)
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(levels).transpose(TURNS[turn]).save(lion / "a.png", exif=exif)
    Image.fromarray(mask).save(lion / "a.mask.png")
    loader = {
        "as it is stored": default_loader,
        "upright": lambda path: ImageOps.exif_transpose(Image.open(path)),
        "inverted": lambda path: ImageOps.invert(Image.open(path).convert("L")),
        "half as large": lambda path: default_loader(path).reduce(2),
    }[loads]
    for automatic in (False, True):
        (item,), _ = read_folder(lion.parent, transforms.ToTensor(), None, automatic, loader)
        assert torch.equal(item.image, transforms.ToTensor()(loader(str(lion / "a.png"))))
        seen = item.image[0] < 0.72 if loads == "inverted" else item.image[0] > 0.5
        assert seen.any() and torch.equal(item.mask, seen)


def test_a_loader_that_crops_and_one_that_fails_are_said_if_they_have_to_be(lion):
    path = write_image(lion)

    def crops(path):
        return default_loader(path).crop((0, 0, 10, 16))

    assert read_folder(lion.parent, None, None, loader=crops)[0][0].image.shape == (3, 16, 10)
    Image.fromarray(square()).save(lion / "a.mask.png")
    with pytest.raises(ValueError, match="loader of your data to keep the shape of .*a.png', 24 x 16, .* but got 10 x"):
        read_folder(lion.parent, None, None, loader=crops)
    with pytest.raises(UserCodeError, match="loader of your data to read .*a.png', but it raised ValueError"):
        read_folder(lion.parent, None, None, loader=np.load)
    # What gives no picture is none for a transform that takes pictures.
    (item,), _ = read_folder(lion.parent, None, None, loader=lambda path: path)
    assert torch.equal(item.image, transforms.ToTensor()(Image.open(path)))


def test_a_mask_that_is_drawn_on_a_photograph_before_it_is_turned_is_refused(lion):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colours()).save(lion / "a.jpg", exif=exif)
    Image.fromarray(square()).save(lion / "a.mask.png")
    refuses(
        lion,
        f"a.mask.png' to have the size of its image, {HEIGHT} x {WIDTH}",
        f"got {WIDTH} x {HEIGHT}",
        "its EXIF data",
    )


@pytest.mark.parametrize("suffix", ["gif", "png", "tif", "webp"])
def test_the_first_frame_of_a_film_is_taken(lion, suffix):
    """A GIF is recognised by its content, under a suffix that is read."""
    film = [Image.fromarray(np.full((HEIGHT, WIDTH, 3), level, dtype=np.uint8)) for level in (200, 90, 30)]
    options = {"lossless": True} if suffix == "webp" else {}
    film[0].save(lion / f"film.{suffix}", save_all=True, append_images=film[1:], **options)
    if suffix == "gif":
        assert (lion / "film.gif").rename(lion / "film.png")
    assert np.array_equal(pixels(lion), np.full((HEIGHT, WIDTH, 3), 200))


def test_every_ending_of_torchvisions_image_folder_is_read(lion):
    for ending in IMG_EXTENSIONS:
        Image.fromarray(colours()).convert("L" if ending == ".pgm" else "RGB").save(lion / f"{ending[1:]}{ending}")
    probe = read(lion)
    assert len(probe) == len(IMG_EXTENSIONS) == len(ImageFolder(lion.parent))
    by_name = dict(zip(probe.names, probe.display_images(), strict=True))
    assert np.array_equal(by_name["lion-ppm"], colours())
    assert np.array_equal(by_name["lion-pgm"][..., 0], np.asarray(Image.fromarray(colours()).convert("L")))


def test_folders_of_classes_without_images_are_named_unless_they_are_empty(lion):
    Image.fromarray(colours()).save(lion / "a.png")
    (lion.parent / "empty").mkdir()
    assert read(lion).class_names == ["empty", "lion"]
    (lion.parent / "nested" / "inner").mkdir(parents=True)
    Image.fromarray(colours()).save(lion.parent / "nested" / "inner" / "b.png")
    (lion.parent / "other").mkdir()
    Image.fromarray(colours()).save(lion.parent / "other" / "c.gif")
    with pytest.warns(GradCAMWarning, match=r"hold no images: .*nested' with 'inner', .*other' with 'c.gif'. Im"):
        assert read(lion).names == ["lion-a"]
