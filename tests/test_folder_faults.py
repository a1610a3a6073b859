"""Every file of a probe folder is read correctly, pixel by pixel, or refused with its name."""

import os
import struct
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torchvision import transforms
from torchvision.datasets import ImageFolder

from gradcam_callback import GradCAMWarning, ProbeSet
from gradcam_callback.probes import masks

WIDTH, HEIGHT = 24, 16
FORMATS = ("bmp", "jpg", "png", "tif", "webp")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.fixture
def lion(tmp_path):
    """Make the folder of the only class."""
    (tmp_path / "lion").mkdir()
    return tmp_path / "lion"


def colours(seed=0, size=(HEIGHT, WIDTH)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def square():
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[3:9, 5:20] = True
    return mask


def read(lion, transform=None):
    return ProbeSet.from_folder(lion.parent, transform)


def pixels(lion):
    """Return the only image as ``(H, W, 3)`` in 0..255."""
    (image,) = read(lion).images
    return (image.permute(1, 2, 0) * 255).numpy()


def refuses(lion, *words, kind=ValueError, transform=None):
    """Assert that the folder is refused with all of the words. A warning would be an error of another kind."""
    with pytest.raises(kind) as caught:
        read(lion, transform)
    assert type(caught.value) is kind
    for word in words:
        assert word in str(caught.value)


def write_image(lion, name="a.png"):
    Image.fromarray(colours()).save(lion / name)
    return lion / name


# Broken files.


@pytest.mark.parametrize("suffix", FORMATS)
def test_truncated_files_are_refused_wherever_they_end(lion, suffix):
    path = lion / f"broken.{suffix}"
    Image.fromarray(colours()).save(path)
    whole, complete = path.read_bytes(), pixels(lion)
    refused = 0
    for end in [*range(0, 40), *range(40, len(whole), max(1, len(whole) // 60))]:
        path.write_bytes(whole[:end])
        try:
            assert np.array_equal(pixels(lion), complete), f"{end} of {len(whole)} bytes"
        except ValueError as error:
            assert "broken." in str(error) and "Repair or remove the file" in str(error)
            refused += 1
    assert refused > 80, "a file may be read if only its end mark is missing"


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("content", [b"", b"Not an image, but a text.\n" * 9, bytes(range(256)) * 4])
def test_files_that_are_no_images_are_refused(lion, suffix, content):
    (lion / f"broken.{suffix}").write_bytes(content)
    refuses(lion, f"broken.{suffix}' as an image", "Cannot read", "Repair or remove the file")


@pytest.mark.parametrize("suffix", FORMATS)
def test_bytes_that_are_overwritten_give_pixels_or_a_refusal(lion, suffix):
    """Pillow raises errors of many kinds for broken headers, chunks and tags."""
    path, chance = lion / f"broken.{suffix}", np.random.default_rng(0)
    Image.fromarray(colours()).save(path)
    whole = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    refused = 0
    for place in range(150):
        changed = whole.copy()
        # Mostly in the header, where a byte decides most.
        start = place if place < 100 else int(chance.integers(len(whole)))
        changed[start : start + int(chance.integers(1, 5))] = chance.integers(256)
        path.write_bytes(changed.tobytes())
        try:
            assert np.isfinite(pixels(lion)).all()
        except ValueError as error:
            assert "broken." in str(error)
            refused += 1
    assert refused > 10


def test_files_that_are_cut_are_read_if_the_user_has_asked_pillow_to(lion, monkeypatch):
    path = lion / "a.bmp"
    Image.fromarray(colours()).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert np.array_equal(pixels(lion)[-8:], colours()[-8:]), "BMP stores the last row first"


@pytest.mark.parametrize("limit", [100, 300])
def test_a_huge_image_is_refused_with_what_to_do(lion, monkeypatch, limit):
    """Pillow warns above its limit and raises an error above twice the limit. Both are refused here."""
    write_image(lion, "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        refuses(
            lion,
            "huge.png', since it is larger than Pillow allows",
            f"{WIDTH * HEIGHT} pixels",
            "PIL.Image.MAX_IMAGE_PIXELS",
        )
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert np.array_equal(pixels(lion), colours())


# Images of every kind.


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


# Masks.


def voc_palette():
    """Return the palette of Pascal VOC, which deals the bits of an index to red, green and blue."""
    deal = [
        [sum((i >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
        for i in range(256)
    ]
    return [level for colour in deal for level in colour]


def as_mask(kind):
    """Return the same object in one of the forms in which people save masks."""
    marked = square()
    if kind == "colours on black, and void":
        # As CVAT writes its labels: in the colours of VOC, without a palette.
        coloured = np.where(marked[..., None], (128, 0, 0), (0, 0, 0))
        coloured[2], coloured[4, 8] = (224, 224, 192), (0, 0, 128)
        return Image.fromarray(coloured.astype(np.uint8))
    if kind in ("a cut-out", "a dark cut-out of greys", "a black silhouette"):
        pixels = {"a cut-out": colours(), "a black silhouette": colours() * 0}.get(
            kind, colours(size=(HEIGHT, WIDTH)) // 9
        )
        image = Image.fromarray(pixels)
        image.putalpha(Image.fromarray(marked.astype(np.uint8) * 255))
        return image.convert("LA") if "greys" in kind else image
    if kind == "black and white, erased in part":
        erased = np.zeros((*marked.shape, 4), np.uint8)
        erased[marked], erased[:, :4, 3] = 255, 255
        return Image.fromarray(erased)
    if kind == "16 bits":
        return Image.fromarray(marked.astype(np.uint16) * 65535)
    if kind == "16 bits, white as of 8":
        return Image.fromarray(marked.astype(np.uint16) * 255)
    if kind == "white on transparent white":
        return Image.fromarray(np.dstack([np.full((*marked.shape, 3), 255), marked * 255]).astype(np.uint8))
    if kind == "soft edges":
        soft = marked * 230
        soft[2], soft[9], soft[:, 5] = 40, 100, np.where(marked[:, 5], 140, 100)
        return Image.fromarray(soft.astype(np.uint8))
    if kind.startswith("labels"):
        labels = marked * {"labels of 1": 1, "labels of 15": 15, "labels and void": 1}[kind]
        if kind == "labels and void":
            labels[2], labels[4, 8] = 255, 20
        image = Image.fromarray(labels.astype(np.uint8))
        image.putpalette(voc_palette())
        return image
    if kind == "palette, white first":
        image = Image.fromarray((~marked).astype(np.uint8))
        image.putpalette([255, 255, 255, 0, 0, 0])
        return image
    scale, mode = {
        "bool": (255, "1"), "0 and 1": (1, "L"), "0 and 255": (255, "L"), "0 and 1 in colour": (1, "RGB"),
        "white in colour": (255, "RGB"), "grey and alpha": (255, "LA"), "palette of greys": (255, "P"),
    }[kind]  # fmt: skip
    return Image.fromarray(marked.astype(np.uint8) * scale).convert(mode)


KINDS = [
    "bool", "0 and 1", "0 and 255", "0 and 1 in colour", "white in colour", "grey and alpha", "palette of greys",
    "16 bits", "16 bits, white as of 8", "white on transparent white", "soft edges", "labels of 1", "labels of 15",
    "labels and void", "palette, white first", "colours on black, and void", "a cut-out", "a dark cut-out of greys",
    "a black silhouette", "black and white, erased in part",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_every_kind_mark_the_object_in_a_folder_and_as_an_image(lion, kind):
    write_image(lion)
    as_mask(kind).save(lion / "a.mask.png")
    assert np.array_equal(read(lion).masks[0].numpy(), square())
    assert np.array_equal(masks.from_image(as_mask(kind)).numpy(), square())
    steps = transforms.Compose([transforms.Resize((2 * HEIGHT, 2 * WIDTH)), transforms.ToTensor()])
    twice = torch.from_numpy(square().repeat(2, axis=0).repeat(2, axis=1))
    assert (read(lion, steps).masks[0] ^ twice).float().mean() < 0.04, "also through a transform"


@pytest.mark.parametrize(
    ("levels", "mode", "words"),
    [
        (np.zeros((HEIGHT, WIDTH), np.uint8), "L", ["to mark the object in white, but it marks nothing"]),
        (np.zeros((HEIGHT, WIDTH), np.uint8), "voc", ["marks nothing"]),
        (square().astype(np.uint8) * 100, "L", ["marks nothing"]),
        (np.where(square(), 12, 255).astype(np.uint8), "L", ["[0, 12, 255]", "labels and the void of VOC"]),
        (square().astype(np.uint8), "red and black", ["palette of a mask to start with black", "label 0 in black"]),
        (
            square()[..., None] * np.array([255, 0, 0]) + np.array([0, 0, 9]),
            "RGB",
            ["black background", "without black"],
        ),
        (square()[:-1].astype(np.uint8), "L", ["to have the size of its image", f"but got {WIDTH} x {HEIGHT - 1}"]),
    ],
)
def test_masks_that_make_no_sense_are_refused_by_their_own_name(lion, levels, mode, words):
    write_image(lion)
    image = Image.fromarray(levels.astype(np.uint8))
    if mode not in ("L", "RGB"):
        image.putpalette(voc_palette() if mode == "voc" else [255, 0, 0, 0, 0, 0])
    image.save(lion / "a.mask.png")
    refuses(lion, str(lion / "a.mask.png"), *words)


def test_masks_of_levels_beyond_all_white_are_refused(lion):
    write_image(lion)
    for levels in (square() * 70000, square() * -1, square() * np.float32("nan")):
        Image.fromarray(levels.astype(np.float32)).save(lion / "a.mask.png", format="TIFF")
        refuses(lion, "Cannot read the mask", "a.mask.png'. Expected levels of 0 to 1, 255 or 65535", "black and white")


def test_an_object_that_the_transform_cuts_off_is_refused_with_the_name_of_the_image(lion):
    write_image(lion)
    corner = np.zeros((HEIGHT, WIDTH), dtype=bool)
    corner[0, 0] = True
    Image.fromarray(corner).save(lion / "a.mask.png")
    steps = transforms.Compose([transforms.CenterCrop(8), transforms.ToTensor()])
    refuses(lion, "a.png to mark the object, but it marks nothing", "keeps the object", transform=steps)


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_unreadable_masks_are_refused_by_their_own_name(lion, content):
    write_image(lion)
    Image.fromarray(square()).save(lion / "a.mask.png")
    whole = (lion / "a.mask.png").read_bytes()
    (lion / "a.mask.png").write_bytes(whole[: len(whole) // 2] if content is None else content)
    refuses(lion, "a.mask.png' as an image", "Cannot read", "Repair or remove the file")


def test_masks_without_an_image_or_of_another_format_are_refused(lion):
    path = write_image(lion)
    Image.fromarray(square()).save(lion / "b.mask.png")
    refuses(lion, "an image beside the mask", "b.mask.png', such as b.jpg, but there is none")
    (lion / "b.mask.png").unlink()
    Image.fromarray(colours()).save(lion / "a.mask.jpg")
    refuses(lion, "a mask in black and white, but", "is grey", "a.mask.jpg'", "Rename the file if it is a photo")
    (lion / "a.mask.jpg").unlink()
    Image.fromarray(colours()).save(lion / "a_mask.png")
    refuses(lion, "is grey", "a_mask.png'", "Rename the file if it is a photograph")
    (lion / "a_mask.png").rename(lion / "a.mask.jpg")
    (lion / "a.mask.jpg").unlink()
    (lion / "a.mask.png").symlink_to(lion / "nowhere.png")
    refuses(lion, "a.mask.png' as an image", "Cannot read", "broken link")
    (lion / "a.mask.png").unlink()
    (lion / "a.mask.png").mkdir()
    refuses(lion, "a.mask.png' as an image", "Cannot read")
    assert path.exists()


@pytest.mark.parametrize(
    "name",
    ["a.mask.png", "a_mask.png", "a-mask.png", "a mask.png", "a_MASK.PNG", "a_mask.jpg", "a.mask.jpeg", "a_mask.bmp"],
)
def test_masks_have_one_of_several_names(lion, name):
    """None of them becomes an image of its own. JPEG adds greys along the edges."""
    write_image(lion)
    image = Image.fromarray(square().astype(np.uint8) * 255)
    image.save(lion / name, quality=60) if name[-4:] in (".jpg", "jpeg") else image.save(lion / name)
    probe = read(lion)
    assert probe.names == ["lion-a"] and np.array_equal(probe.masks[0].numpy(), square())


def test_the_first_name_counts_if_there_are_several_masks(lion):
    write_image(lion)
    for i, name in enumerate(["a-mask.png", "a_mask.jpg", "a_mask.png", "a.mask.bmp", "a.mask.png"]):
        image = Image.new("L", (WIDTH, HEIGHT))
        image.paste(255, (0, 0, WIDTH // 2, i + 3))
        image.save(lion / name)
        assert int(read(lion).masks.sum()) == WIDTH // 2 * (i + 3) and len(read(lion)) == 1, name


def test_photographs_called_mask_stay_photographs(lion):
    for name in ("face_mask.png", "mask.png", "_mask.png", "b_mask_mask.png", "b_masked.png", "b.png"):
        write_image(lion, name)
    Image.fromarray(square()).save(lion / "b_mask.png")
    assert len(read(lion)) == 6 and read(lion).has_mask.sum() == 1


def test_masks_that_look_inverted_are_warned_of_and_kept(lion):
    for name in ("a", "b"):
        write_image(lion, f"{name}.png")
    Image.fromarray(~square()).save(lion / "a.mask.png")
    Image.fromarray(square()).save(lion / "b.mask.png")
    with pytest.warns(GradCAMWarning, match=r"look inverted, .* sides: \S*a.mask.png. An") as caught:
        probe = read(lion)
    assert len(caught) == 1 and np.array_equal(probe.masks[0].numpy(), ~square())
    # An object that fills most of the image, or one that is small and touches all sides, is none.
    large, cross = np.zeros((2, HEIGHT, WIDTH), bool)
    large[1:, 1:], cross[7], cross[:, 9] = True, True, True
    for mask in (large, cross):
        Image.fromarray(mask).save(lion / "a.mask.png")
        assert np.array_equal(read(lion).masks[0].numpy(), mask)


# Cut-outs.


def cut_out(mode, alpha):
    photograph = Image.fromarray(colours() // 6)
    photograph.putalpha(Image.fromarray(alpha))
    if mode == "P":
        # One colour of the palette is transparent.
        indexed = np.asarray(photograph.convert("RGB").quantize(15)).copy()
        indexed[alpha < 128] = 15
        image = Image.fromarray(indexed)
        image.putpalette(list(range(48)))
        return image
    return photograph.convert(mode)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_the_alpha_of_a_cut_out_is_its_mask_however_dark_it_is(lion, mode, suffix):
    alpha = square().astype(np.uint8) * 255
    alpha[3, 5:20] = 200  # soft fur
    options = {"transparency": 15} if mode == "P" else {"lossless": True} if suffix == "webp" else {}
    if mode == "P" and suffix != "png":
        return
    cut_out(mode, alpha).save(lion / f"a.{suffix}", **options)
    probe = read(lion)
    assert np.array_equal(probe.masks[0].numpy(), square()) and not probe.has_box_masks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (expected, _), *_ = ImageFolder(str(lion.parent))
    assert np.array_equal(probe.display_images()[0], np.asarray(expected)), "the image itself is what it was"


def test_alpha_that_cuts_nothing_out_is_no_mask(lion):
    solid = np.full((HEIGHT, WIDTH), 255, np.uint8)
    corner, frame, noise, half = (solid.copy() for _ in range(4))
    corner[0, 0] = 0
    frame[:2, :6] = frame[-2:, -6:] = 0  # a screenshot with round corners
    noise[:] = np.random.default_rng(0).integers(0, 256, noise.shape)
    half[:] = 128
    for alpha in (solid, corner, frame, noise, half, solid * 0):
        cut_out("RGBA", alpha).save(lion / "a.png")
        assert read(lion).masks is None


def test_two_images_that_differ_in_the_suffix_share_their_mask(lion):
    write_image(lion, "a.png")
    Image.fromarray(colours(1)).save(lion / "a.bmp")
    Image.fromarray(square()).save(lion / "a.mask.png")
    probe = read(lion)
    assert probe.names == ["lion-a", "lion-a-2"] and probe.has_mask.all()
    assert np.array_equal(probe.display_images(), np.stack([colours(1), colours(0)]))
    assert all(np.array_equal(mask.numpy(), square()) for mask in probe.masks)


# Folders and names.


@pytest.mark.parametrize("name", ["a.JPG", "A.Png", "a.TIFF", "a.WebP"])
def test_suffixes_in_capitals_with_masks_that_have_them_too(lion, name):
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 120, np.uint8)).save(lion / name)
    Image.fromarray(square()).save(lion / f"{name[0]}.MASK.PNG")
    probe = read(lion)
    assert np.abs(probe.display_images().astype(int) - 120).max() <= 1
    assert np.array_equal(probe.masks[0].numpy(), square())


@pytest.mark.parametrize(
    "name",
    [
        "ライオン", "\N{LION FACE}\N{ZERO WIDTH JOINER}\N{BLACK HEART SUIT}", "a b  c", "100%", "%2F", "a'b\"c", "-rf",
        "x" * 251, "獅" * 81, "a.tar", "con", "a\nb", "*?<>|:",
    ],
)  # fmt: skip
def test_names_in_any_script_and_of_any_length(tmp_path, name):
    folder = tmp_path / name[:200]
    folder.mkdir()
    write_image(folder, f"{name}.png")
    if len(f"{name}.mask.png".encode()) <= 255:
        Image.fromarray(square()).save(folder / f"{name}.mask.png")
    probe = ProbeSet.from_folder(tmp_path)
    # The class once: the file's name begins with it.
    assert probe.names == [name] and probe.class_names == [name[:200]]
    assert np.array_equal(probe.display_images()[0], colours())
    assert probe.has_mask.all() == (len(f"{name}.mask.png".encode()) <= 255)


def test_names_that_are_no_utf8_are_refused(lion):
    write_image(lion, os.fsdecode(b"l\xf6we.png"))
    refuses(lion, "Expected names in UTF-8", r"l\udcf6we.png'. Rename it")


def test_files_of_the_system_are_ignored(lion):
    write_image(lion)
    for name in ("Thumbs.db", ".DS_Store", "._a.png", ".hidden.png", "desktop.ini", "notes.txt", "b.json", "a"):
        (lion / name).write_bytes(b"\0\5\26\7 no image")
        (lion.parent / name).write_bytes(b"\0\5\26\7 no image")
    (lion.parent / ".ipynb_checkpoints").mkdir()
    (lion / "more").mkdir()
    probe = read(lion)
    assert probe.names == ["lion-a"] and probe.class_names == ["lion"]
    assert np.array_equal(probe.display_images()[0], colours())


def test_folders_and_pipes_with_an_images_name_are_refused(lion):
    write_image(lion)
    (lion / "x.jpg").mkdir()
    refuses(lion, "x.jpg' as an image", "Cannot read", "Repair or remove the file")
    (lion / "x.jpg").rmdir()
    os.mkfifo(lion / "x.jpg")
    refuses(lion, "x.jpg' as an image", "Cannot read")


def test_a_class_may_be_called_like_an_image(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    write_image(tmp_path / "x.jpg")
    assert ProbeSet.from_folder(tmp_path).class_names == ["x.jpg"]


def test_links_are_followed_and_broken_links_refused(lion, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_image(elsewhere)
    (lion / "b.png").symlink_to(elsewhere / "a.png")
    (lion.parent / "ostrich").symlink_to(elsewhere)
    probe = read(lion)
    assert probe.names == ["lion-b", "ostrich-a"] and probe.labels.tolist() == [0, 1]
    assert all(np.array_equal(image, colours()) for image in probe.display_images())
    (lion / "c.png").symlink_to(elsewhere / "nowhere.png")
    refuses(lion, "c.png' as an image", "Cannot read", "broken link")
    (lion / "c.png").unlink()
    (lion / "c.png").symlink_to(lion / "d.png")
    (lion / "d.png").symlink_to(lion / "c.png")
    refuses(lion, "c.png' as an image", "Cannot read")


@pytest.mark.parametrize("kind", ["dangling", "each other", "itself", "parent", "above"])
def test_classes_that_are_links_to_nowhere_or_in_a_loop_are_refused(lion, kind):
    """If they were ignored, the classes after them would have other indices than in training."""
    root = lion.parent
    write_image(lion)
    targets = {"dangling": "nowhere", "each other": "bear", "itself": "ape", "parent": ".", "above": ".."}
    (root / "ape").symlink_to(targets[kind])
    if kind == "each other":
        (root / "bear").symlink_to("ape")
    refuses(lion, str(root / "ape"), "emove ")


def test_a_link_to_its_own_parent_within_a_class_is_no_image(lion):
    write_image(lion)
    (lion / "loop").symlink_to(lion)
    (lion / "up").symlink_to(lion.parent)
    assert read(lion).names == ["lion-a"]


@pytest.mark.parametrize("locked", ["root", "class", "image", "mask"])
def test_paths_without_permission_are_refused(reachable, monkeypatch, locked):
    lion = reachable / "probe" / "lion"
    lion.mkdir(parents=True)
    write_image(lion)
    Image.fromarray(square()).save(lion / "a.mask.png")
    monkeypatch.chdir(lion.parent)
    path = {"root": ".", "class": "lion", "image": "lion/a.png", "mask": "lion/a.mask.png"}[locked]
    os.chmod(path, 0o111 if locked == "root" else 0)
    administrator = os.geteuid() == 0
    if administrator:  # An administrator may read everything, so act as another user.
        os.seteuid(65534)
    try:
        with pytest.raises(ValueError, match="Permission denied") as caught:
            ProbeSet.from_folder(".")
    finally:
        if administrator:
            os.seteuid(0)
        os.chmod(path, 0o755)
    assert repr(path) in str(caught.value)


def test_a_file_in_place_of_the_folder_and_no_folder_at_all(lion):
    path = write_image(lion)
    with pytest.raises(
        FileNotFoundError, match="Expected `folder` to hold <class>/<image>, but .*a.png' is not a folder"
    ):
        ProbeSet.from_folder(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ProbeSet.from_folder(lion / "b")
