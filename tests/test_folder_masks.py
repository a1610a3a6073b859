"""Masks and cut-outs of every kind in a probe folder mark the same object, or are refused with their name."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from probe_folder import HEIGHT, WIDTH, colours, read, refuses, square, write_image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from gradcam_callback import GradCAMWarning
from gradcam_callback.probes import masks

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
        (square().astype(np.uint8) * 100, "L", ["marks nothing, as its levels are 0, 100: none is white"]),
        (square().astype(np.uint8) * 2, "L", ["marks nothing, as its levels are 0, 2: none is white"]),
        (square().astype(np.uint8) + 1, "L", ["marks nothing, as its levels are 1, 2: none is white"]),
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


def disk(size, radius, grow=0):
    y, x = np.mgrid[: size[0], : size[1]]
    return np.hypot(y - size[0] / 2, x - size[1] / 2) < radius + grow


@pytest.mark.parametrize("label", [1, 4, 8, 12, 16, 20])
@pytest.mark.parametrize("save", ["grey.png", "colour.png", "grey.jpg", "colour.jpg", "indices.png"])
def test_labels_of_voc_without_their_palette_are_refused(lion, label, save):
    """Their void, a ring around the object, is 255 or becomes a light grey, and would be the only object."""
    size = (96, 120)
    Image.new("RGB", size[::-1]).save(lion / "a.png")
    indices = np.where(disk(size, 30), label, np.where(disk(size, 30, 3), 255, 0)).astype(np.uint8)
    image = Image.fromarray(indices)
    if save != "indices.png":
        image.putpalette(voc_palette())
        image = image.convert("L") if save.startswith("grey") else image.convert("RGB").convert("L").convert("RGB")
    image.save(lion / f"a.mask{save[-4:]}", **({"quality": 80} if save.endswith("jpg") else {}))
    refuses(lion, "Cannot read the mask", f"a.mask{save[-4:]}", "void of VOC", "the palette of the labels")


@pytest.mark.parametrize("white", [200, 220, 235, 255])
@pytest.mark.parametrize("blur", [0, 1, 3])
@pytest.mark.parametrize("black", [0, 16])
def test_masks_with_soft_edges_are_no_labels(lion, white, blur, black):
    """In any white, also one of void made grey, and with the black of videos."""
    size = (96, 120)
    Image.new("RGB", size[::-1]).save(lion / "a.png")
    for radius in (4 + 4 * blur, 24, 40):
        drawn = Image.fromarray((black + disk(size, radius) * (white - black)).astype(np.uint8))
        soft = drawn.filter(ImageFilter.GaussianBlur(blur))
        for name, quality in (("a.mask.png", 0), ("a.mask.jpg", 60), ("a.mask.jpg", 95)):
            if quality or not black:
                soft.save(lion / name, **({"quality": quality} if quality else {}))
                found = read(lion).masks[0].numpy()
                (lion / name).unlink()
                assert (found ^ disk(size, radius)).sum() < 14 * radius
                assert found.any()


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


def test_masks_without_a_photograph_are_told_by_name(lion):
    """They become images. Others whose names end so are photographs of masks."""
    for name in ("a.jpg", "mask.png", "face_mask.png"):
        write_image(lion, name)
    Image.fromarray(square()).save(lion / "a_mask.png")
    assert len(read(lion)) == 3
    strays = {"a.jpg_mask.png": square(), "b_mask.png": square() * np.uint8(255), "c-mask.bmp": square() * np.uint8(1)}
    for name, drawn in strays.items():
        Image.fromarray(drawn).save(lion / name)
        with pytest.warns(
            GradCAMWarning, match=rf"look like masks, but are images .*: \S*{name}. Call the mask"
        ) as told:
            assert len(read(lion)) == 4
        assert len(told) == 1
        (lion / name).unlink()


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


@pytest.mark.parametrize("mark", ["a.mask.png", "a_mask.jpg", "a.txt"])
def test_two_images_that_differ_in_the_suffix_are_read_but_share_no_mask(lion, mark):
    write_image(lion, "a.png")
    Image.fromarray(colours(1)).save(lion / "a.bmp")
    probe = read(lion)
    assert probe.names == ["lion-a", "lion-a-2"] and not probe.has_mask.any()
    assert np.array_equal(probe.display_images(), np.stack([colours(1), colours(0)]))
    if mark.endswith("txt"):
        (lion / mark).write_text("0 0.5 0.5 0.4 0.4")
    else:
        Image.fromarray(square()).save(lion / mark)
    refuses(lion, "a mask of its own for each image, but", "a.bmp' and 'a.png' share", mark, "Rename one of them")
