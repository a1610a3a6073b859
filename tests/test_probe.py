"""The probe set takes correct arguments, refuses wrong ones, and is the same every time."""

import os
import random

import numpy as np
import pytest
import torch
from conftest import Toys
from PIL import Image, ImageDraw
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import VGG16_Weights
from torchvision.transforms import v2

from gradcam_callback import GradCAMWarning, ProbeSet, UserCodeError
from gradcam_callback.probes.lookup import find_normalisations
from gradcam_callback.probes.names import name_image
from gradcam_callback.random_state import preserved_random_state

IMAGES, LABELS = torch.rand(3, 3, 8, 10), [0, 1, 1]


def masks(n=3):
    some = torch.zeros(n, 8, 10, dtype=torch.bool)
    some[:, 2:4, 3:6] = True
    return some


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": [1, 2, 3]}, "Expected `images` to be a tensor .* but got list"),
        ({"images": torch.rand(3, 8, 10)}, r"`images` to have shape \(N, C, H, W\), but got \(3, 8, 10\)"),
        (
            {"images": torch.rand(3, 8, 10, 3)},
            r"\(N, C, H, W\), but \(3, 8, 10, 3\) looks like \(N, H, W, C\). Give .*permute",
        ),
        ({"images": torch.rand(3, 28, 28, 1), "mean": [0.5], "std": [0.5]}, r"looks like \(N, H, W, C\)"),
        ({"images": torch.rand(0, 3, 8, 10), "labels": []}, "at least one image, but the probe set is empty"),
        ({"images": torch.zeros(3, 3, 8, 10, dtype=torch.uint8)}, "`images` to be floating point, but got torch.uint8"),
        ({"images": IMAGES.clone().index_fill_(0, torch.tensor([1]), float("nan"))}, r"images \[1\] hold NaN"),
        ({"images": IMAGES.clone().index_fill_(0, torch.tensor([2]), float("inf"))}, r"images \[2\] hold NaN or inf"),
        ({"labels": [0, 1]}, r"one entry per image, \(3,\), but got shape \(2,\)"),
        ({"labels": [0.0, 1.0, 1.0]}, "`labels` to be integers, .* but got torch.float32"),
        ({"labels": [0, -1, 1]}, "`labels` to be class indices from 0, but got -1"),
        ({"class_names": ["only"]}, "`class_names` to name every class, but got 1 names for labels up to 1"),
        ({"masks": masks(2)}, r"`masks` to have one entry per image \(3\), but got 2"),
        ({"masks": torch.zeros(3, 4, 4, dtype=torch.bool)}, r"`masks\[0\]` .* \(8, 10\), but got \(4, 4\)"),
        ({"masks": torch.zeros(3, 8, 10, dtype=torch.bool)}, r"`masks\[0\]` to mark the object, but it marks nothing"),
        ({"masks": masks().int() * 7}, r"`masks\[0\]` to be bool, 0 and 1, or .* but got .* of 0, 7\. .*mask > 0"),
        ({"masks": [(4, 4, 2, 2), None, None]}, r"Cannot read `masks\[0\]`. Expected each box to hold a pixel"),
        ({"names": ["a", "b"]}, r"`names` to have one entry per image \(3\), but got 2"),
        ({"names": ["a", "", "b"]}, "`names` to have a character or more, but one is empty"),
        ({"names": ["a", "b", "a"]}, r"`names` to be unique, but got \['a'\] more than once"),
        ({"names": [1, "1", 2]}, r"`names` to be unique, but got \['1'\] more than once"),
        ({"names": ["\udce9", "\\udce9", "a"]}, r"`names` to be unique, but got .* more than once"),
        ({"names": 5}, "`names` to be a list with one name per image, but got int 5"),
        ({"names": "abc"}, "`names` to be a list with one name per image, but got str 'abc'"),
        ({"mean": [0.5] * 3}, "both `mean` and `std`, or neither, but got only one"),
        (
            {"mean": [0.5] * 2, "std": [0.5] * 2},
            r"`mean` to hold one finite number per channel \(3\), but got \[0.5, 0.5\]",
        ),
        ({"mean": [0.5] * 3, "std": [0.0] * 3}, "`std` to hold no 0, but got"),
    ],
)
def test_wrong_arguments_are_refused_with_what_was_expected(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProbeSet(**({"images": IMAGES, "labels": LABELS} | arguments))


def test_single_images_may_have_no_mask():
    probe = ProbeSet(IMAGES, LABELS, masks=[None, masks()[0].numpy(), masks()[0].int()])
    assert probe.has_mask.tolist() == [False, True, True]
    assert probe.masks.dtype == torch.bool
    assert torch.equal(probe.masks[1], masks()[0]) and not probe.masks[0].any()
    assert ProbeSet(IMAGES, LABELS, masks=[None] * 3).masks is None


def test_names_are_made_from_classes_and_unique():
    assert ProbeSet(IMAGES, LABELS, class_names=["ペンギン", "lion"]).names == ["ペンギン-1", "lion-1", "lion-2"]
    assert ProbeSet(IMAGES, LABELS).names == ["class 0-1", "class 1-1", "class 1-2"]


@pytest.mark.parametrize(
    ("label", "stem", "expected"),
    [
        ("husky", "husky_000", "husky_000"),
        ("husky", "Husky001", "Husky001"),
        ("star fish", "star fish", "star fish"),
        ("husky", "000", "husky-000"),
        ("1", "10_photo", "1-10_photo"),
        ("1", "1_photo", "1_photo"),
        ("cat", "caterpillar_3", "cat-caterpillar_3"),
        ("car", "carpet", "car-carpet"),
        ("", "000", "000"),
    ],
)
def test_an_image_has_its_class_once_in_its_name(label, stem, expected):
    assert name_image(label, stem) == expected


def test_names_in_any_form_are_taken_as_text():
    assert ProbeSet(IMAGES, LABELS, names=(f"at {i}" for i in range(3))).names == ["at 0", "at 1", "at 2"]
    assert ProbeSet(IMAGES, LABELS, names=np.arange(3)).names == ["0", "1", "2"]
    several = ProbeSet(IMAGES, [[1, 1], [0, 1], [1, 0]], names=(str(i) for i in range(3)), class_names=["crane"] * 2)
    assert several.names == ["0 (crane)", "0 (crane-2)", "1", "2"], "two classes of one name"


def test_names_of_images_and_classes_can_be_stored():
    """Bytes that are no UTF-8 come as halves of surrogate pairs out of the names of files."""
    raw = os.fsdecode(b"caf\xe9")
    for probe in (
        ProbeSet(IMAGES, LABELS, names=[raw, "é", "c"], class_names=["zebra", raw]),
        ProbeSet(IMAGES, LABELS, class_names=["zebra", raw]),
        ProbeSet(IMAGES, [[1, 1], [0, 1], [1, 0]], names=[raw, "é", "c"], class_names=["zebra", raw]),
    ):
        assert all(name.encode().decode() == name for name in [*probe.names, *probe.class_names])
        assert probe.class_names == ["zebra", r"caf\udce9"]


def test_a_wrong_item_of_a_dataset_is_named_by_its_number_in_the_dataset(folder):
    """Not by its place in the probe set, which is ordered by label and drawn by chance."""
    images, labels, given = torch.rand(12, 3, 8, 10), torch.arange(12) % 3, masks(12).byte()
    bad = images.clone()
    bad[7, 0, 2, 2] = float("nan")
    with pytest.raises(ValueError, match="images to be finite, but item 7 holds NaN or infinity. Check it and the tra"):
        ProbeSet.from_dataset(TensorDataset(bad, labels), per_class=4)
    with pytest.raises(ValueError, match="the mask of item 7 to be bool, 0 and 1, or .* but got .* mask > 0"):
        ProbeSet.from_dataset(
            [(images[i], i % 3, given[i] * (7 if i == 7 else 1)) for i in range(12)],
            per_class=4,
            batch_transform=tuple,
        )
    with pytest.raises(
        ValueError, match=r"the mask of item 7 to have the shape of its image, \(8, 10\), but got \(4, 4\)"
    ):
        items = [(images[i], i % 3, torch.ones(4, 4, dtype=torch.bool) if i == 7 else given[i]) for i in range(12)]
        ProbeSet.from_dataset(items, per_class=4)
    for path in folder.rglob("a.mask.png"):
        path.unlink()
    with pytest.raises(ValueError, match=r"images to be finite, but .*lion.b\.png holds NaN"):
        ProbeSet.from_folder(folder, lambda image: images[0] / max(0, 200 - image.getpixel((45, 10))[0]))


def test_probe_keeps_a_copy_of_the_images():
    images = IMAGES.clone()
    probe = ProbeSet(images, LABELS)
    images.zero_()
    assert torch.equal(probe.images, IMAGES)


def test_displayed_images_undo_the_normalisation():
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    shown = (IMAGES * 255).round().byte().permute(0, 2, 3, 1).numpy()
    normalised = (IMAGES - mean[:, None, None]) / std[:, None, None]
    assert np.array_equal(ProbeSet(normalised, LABELS, mean=mean.tolist(), std=std.tolist()).display_images(), shown)
    inverted = ProbeSet(1 - IMAGES, LABELS, mean=[1.0] * 3, std=[-1.0] * 3)
    assert np.array_equal(inverted.display_images(), shown), "a negative std turns dark to bright"
    assert np.array_equal(ProbeSet(IMAGES, LABELS).display_images(), shown)
    assert np.array_equal(ProbeSet(IMAGES * 255, LABELS).display_images(), shown)
    unknown = ProbeSet(normalised, LABELS).display_images()
    assert unknown.min() == 0 and unknown.max() == 255, "stretched if nothing says how to undo it"


@pytest.mark.parametrize(("mean", "std"), [(0.1307, 0.3081), (0.4, 0.2), (0.02, 0.05), (0.0, 0.1)])
def test_images_that_are_standardised_by_hand_are_stretched(mean, std):
    """The lowest value is about 0, or above -1, and the highest is above 2, so that they are no pixels of 0..255."""
    images = IMAGES.clone()
    images[0, :, 0, :2] = torch.tensor([0.0, 1.0])
    shown = ProbeSet((images - mean) / std, LABELS).display_images()
    assert abs(shown.astype(int) - ProbeSet(images, LABELS).display_images()).max() <= 1


def test_pixels_of_0_to_255_stay_as_they_are_if_a_resize_leaves_the_range_or_none_is_bright():
    for pixels in (IMAGES * 259 - 3, IMAGES * 60):
        expected = pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        assert np.array_equal(ProbeSet(pixels, LABELS).display_images(), expected)


def test_grey_images_are_shown_in_grey():
    shown = ProbeSet(IMAGES[:, :1], LABELS).display_images()
    assert shown.shape == (3, 8, 10, 3)
    assert np.array_equal(shown[..., 0], shown[..., 2])


class Items(Dataset):
    """Ten classes of tensors whose value is their index. It lists the indices that are loaded."""

    def __init__(self, targets=True):
        self.labels = [i % 10 for i in range(100)]
        self.classes = [f"kind {i}" for i in range(10)]
        self.loaded = []
        if targets:
            self.targets = self.labels

    def __len__(self):
        return 100

    def __getitem__(self, index):
        self.loaded.append(index)
        return torch.full((3, 8, 8), index / 100.0), self.labels[index]


def test_from_dataset_takes_the_same_images_of_each_class_every_time():
    first, again = ProbeSet.from_dataset(Items(), 3, seed=5), ProbeSet.from_dataset(Items(), 3, seed=5)
    assert torch.equal(first.images, again.images)
    assert first.labels.tolist() == [label for label in range(10) for _ in range(3)]
    assert len({float(image.mean()) for image in first.images}) == 30, "each image is there once"
    assert all(
        round(float(image.mean()) * 100) % 10 == label for image, label in zip(first.images, first.labels, strict=True)
    )
    assert not torch.equal(first.images, ProbeSet.from_dataset(Items(), 3, seed=6).images)
    assert first.class_names[3] == "kind 3" and first.names[3] == "kind 1-1"


def test_classes_with_fewer_images_than_asked_for_are_named():
    images, labels = torch.rand(60, 3, 8, 8), torch.arange(60) % 3
    uneven = TensorDataset(torch.cat([images, images[:1]]), torch.cat([labels, torch.tensor([3])]))
    with pytest.warns(GradCAMWarning, match="1 of 4 classes .* than the 20 images .* for: 1 of 'class 3'. "):
        assert len(ProbeSet.from_dataset(uneven, 20)) == 61
    with pytest.warns(GradCAMWarning, match="4 of 4 .* 20 of 'class 0', 20 of 'class 1', 20 of 'class 2', 1 of"):
        ProbeSet.from_dataset(uneven, 40)
    # The default, which nobody asked for, and a limit that is the user's own.
    assert len(ProbeSet.from_dataset(uneven)) == 7
    assert len(ProbeSet.from_dataset(TensorDataset(images, labels), 40, max_images=20)) == 20


def test_from_dataset_gives_the_same_with_and_without_targets_but_loads_less_with():
    dataset, bare = Items(), Items(targets=False)
    assert torch.equal(ProbeSet.from_dataset(dataset).images, ProbeSet.from_dataset(bare).images)
    assert len(dataset.loaded) == 20 and len(set(bare.loaded)) == 100


def test_from_dataset_sees_through_subsets():
    subset = Subset(Items(), [i for i in range(100) if i % 10 < 4])
    probe = ProbeSet.from_dataset(subset)
    assert probe.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and probe.class_names[9] == "kind 9"
    assert len(subset.dataset.loaded) == 8
    assert len(ProbeSet.from_dataset(ConcatDataset([Items(), Items()]))) == 20


def test_from_dataset_of_many_classes_spreads_over_them():
    probe = ProbeSet.from_dataset(Items(), 2, max_images=6)
    assert probe.labels.tolist() == [0, 0, 4, 4, 9, 9]
    assert ProbeSet.from_dataset(Items(), 2, max_images=1).labels.tolist() == [0]


def test_from_dataset_takes_masks_and_leaves_the_random_state_alone():
    class Augmented(Toys):
        def __getitem__(self, index):
            image, label, mask = super().__getitem__(index)
            return image + torch.rand(1) * np.random.rand() * random.random() * 1e-3, label, mask

    dataset = Augmented(6, 0.0, seed=0, size=32)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = ProbeSet.from_dataset(dataset)
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1:] == (random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(first.images, ProbeSet.from_dataset(dataset).images), "augmentation is the same"
    assert first.has_mask.all()


@pytest.mark.parametrize("in_use", [False, True])
def test_a_gpu_that_is_not_in_use_yet_keeps_the_users_seed(monkeypatch, in_use):
    """Seeds that come before CUDA starts are kept until then, and the last one counts."""
    seeds = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: in_use)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    ProbeSet.from_dataset(Items(), 1)
    assert bool(seeds) == in_use


def test_apples_gpu_keeps_its_random_state(monkeypatch):
    """A substitute for that GPU, which has no other generator than this one."""
    generator = torch.Generator().manual_seed(5)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", generator.get_state)
    monkeypatch.setattr(torch.mps, "set_rng_state", generator.set_state)
    before = generator.get_state()
    with preserved_random_state():
        torch.rand(1, generator=generator)
    assert torch.equal(generator.get_state(), before)


def test_targets_that_are_whole_annotations_are_not_taken_for_labels():
    class Detection(TensorDataset):
        targets = [{"boxes": [1, 2, 3, 4]}] * 4

    probe = ProbeSet.from_dataset(Detection(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])), 1)
    assert probe.labels.tolist() == [0, 1]


class Odd(Dataset):
    def __init__(self, item):
        self.item = item

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.item


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.rand(3, 8, 8), 0


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            Odd({"image": 1}),
            r"cannot find one tensor of images in {'image': int}. .* batch_transform=lambda batch: \(images, labels\)",
        ),
        (
            Odd((Image.new("RGB", (8, 8)), 0)),
            r"one tensor of images in \(Image RGB 8 x 8, int\). A PIL.Image becomes a tensor",
        ),
        (
            Odd((torch.rand(3, 8, 8), torch.tensor([0.5, 0.5]))),
            r"item . .* certainly the label in \(Tensor float32 \(3, 8, 8\), Tensor float32 \(2,\)\)",
        ),
        (
            Odd((torch.rand(3, 8, 8), 0, Image.fromarray(np.array([[0, 40, 255]], dtype=np.uint8)))),
            "Cannot read the mask of item .* look like labels and the void of VOC",
        ),
        (Odd(()), r"one tensor of images in \(\)"),
        (
            TensorDataset(torch.rand(0, 3, 8, 8), torch.zeros(0)),
            "`dataset` to hold at least one item .* but it is empty",
        ),
        (Stream(), "map-style, with a length and items by index, but got Stream"),
    ],
)
def test_from_dataset_refuses_other_items(dataset, message):
    with pytest.raises(ValueError, match=message):
        ProbeSet.from_dataset(dataset)


def test_from_dataset_refuses_images_that_differ_in_shape():
    class Growing(Items):
        def __getitem__(self, index):
            return torch.rand(3, 8, 8 + index), self.labels[index]

    with pytest.raises(ValueError, match=r"images of one shape, but item \d+ is .* item \d+ is .* Resize the images"):
        ProbeSet.from_dataset(Growing())


@pytest.mark.parametrize(
    "transform",
    [
        transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])]),
        v2.Compose([v2.ToImage(), v2.Compose([v2.Normalize([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])])]),
        transforms.Normalize([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]),
    ],
)
def test_normalisation_is_found_in_a_transform(transform):
    found = next(find_normalisations(transform))
    assert found == (pytest.approx([0.1, 0.2, 0.3]), pytest.approx([0.4, 0.5, 0.6]))


def test_normalisation_is_found_in_presets_and_not_invented():
    ((mean, _),) = find_normalisations(VGG16_Weights.IMAGENET1K_V1.transforms())
    assert mean == pytest.approx([0.485, 0.456, 0.406])
    assert not list(find_normalisations(transforms.ToTensor())) and not list(find_normalisations(None))


@pytest.fixture
def folder(tmp_path):
    """Write two classes with a red square in each image, and a mask beside the first image of each class."""
    for kind in ("lion", "ostrich"):
        (tmp_path / kind).mkdir()
        for name, corner in (("a", (10, 20)), ("b", (40, 8))):
            image, mask = Image.new("RGB", (80, 60), (20, 90, 20)), Image.new("L", (80, 60))
            box = (*corner, corner[0] + 19, corner[1] + 19)
            ImageDraw.Draw(image).rectangle(box, fill=(250, 10, 10))
            ImageDraw.Draw(mask).rectangle(box, fill=255)
            image.save(tmp_path / kind / f"{name}.png")
            if name == "a":
                mask.save(tmp_path / kind / f"{name}.mask.png")
    return tmp_path


def test_from_folder_reads_classes_names_and_masks(folder):
    probe = ProbeSet.from_folder(folder)
    assert probe.images.shape == (4, 3, 60, 80)
    assert probe.class_names == ["lion", "ostrich"] and probe.labels.tolist() == [0, 0, 1, 1]
    assert probe.names == ["lion-a", "lion-b", "ostrich-a", "ostrich-b"]
    assert probe.has_mask.tolist() == [True, False, True, False]
    assert torch.equal(probe.masks[0], probe.images[0, 0] > 0.5)


@pytest.mark.parametrize(
    "transform",
    [
        transforms.Compose(
            [
                transforms.Resize(48),
                transforms.CenterCrop(40),
                transforms.ToTensor(),
                transforms.Normalize([0.5], [0.2]),
            ]
        ),
        v2.Compose(
            [
                v2.RandomHorizontalFlip(1.0),
                v2.Pad(6, fill=120),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [-0.2] * 3),
            ]
        ),
        VGG16_Weights.IMAGENET1K_V1.transforms(crop_size=40, resize_size=48),
    ],
    ids=["resize and crop", "flip, pad and invert", "preset"],
)
def test_masks_go_through_the_same_geometry_as_their_images(folder, transform):
    probe = ProbeSet.from_folder(folder, transform)
    # Only the square is red, so the image itself says where the mask has to be.
    red = torch.from_numpy(probe.display_images()[0]).float()
    square = (red[..., 0] - red[..., 1]) > 85
    assert square.any() and (square != probe.masks[0]).float().mean() < 0.02
    assert probe.mean is not None


def test_from_folder_has_the_classes_of_torchvisions_image_folder(folder):
    probe, theirs = ProbeSet.from_folder(folder), ImageFolder(str(folder))
    assert probe.class_names == theirs.classes
    assert ProbeSet.from_folder(folder, class_names=["zebra", "ostrich", "lion"]).labels.tolist() == [2, 2, 1, 1]


def test_from_folder_turns_images_upright(folder):
    path = folder / "lion" / "b.png"
    image = Image.open(path).copy()
    exif = image.getexif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(folder / "lion" / "b.jpg", exif=exif, quality=95)
    probe = ProbeSet.from_folder(folder)
    assert probe.names[1:3] == ["lion-b", "lion-b-2"]
    assert (probe.images[1] - probe.images[2]).abs().mean() < 0.02, "but for what JPEG loses, the same image"


def test_from_folder_says_what_is_wrong(folder, tmp_path_factory):
    with pytest.raises(
        FileNotFoundError, match="Expected `folder` to hold <class>/<image>, but .*nowhere' does not exist"
    ):
        ProbeSet.from_folder(folder / "nowhere")
    with pytest.raises(ValueError, match="holds no images"):
        ProbeSet.from_folder(tmp_path_factory.mktemp("empty"))
    with pytest.raises(ValueError, match=r"\['zebra'\] lacks \['lion', 'ostrich'\]"):
        ProbeSet.from_folder(folder, class_names=["zebra"])
    with pytest.raises(ValueError, match="`transform` to return a tensor"):
        ProbeSet.from_folder(folder, lambda image: image)
    with pytest.raises(ValueError, match=r"\(60, 80, 3\) for .* looks like \(H, W, C\)"):
        ProbeSet.from_folder(folder, lambda image: torch.tensor(np.array(image)).float())
    Image.new("L", (5, 5), 255).save(folder / "lion" / "b.mask.png")
    with pytest.raises(ValueError, match=r"b.mask.png' to have the size of its image, 80 x 60, but got 5 x 5"):
        ProbeSet.from_folder(folder)
    (folder / "lion" / "b.mask.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"Cannot read '.*b.mask.png'"):
        ProbeSet.from_folder(folder)


def test_a_transform_that_fails_names_the_image(folder):
    def fails(image):
        raise KeyError("mode")

    with pytest.raises(UserCodeError, match=r"`transform` to take the image '.*' ?, but it raised KeyError: 'mode'"):
        ProbeSet.from_folder(folder, fails)


def test_no_images_per_class_are_refused():
    with pytest.raises(ValueError, match="`per_class` to be 1 or more, but got 0"):
        ProbeSet.from_dataset(TensorDataset(torch.rand(2, 3, 8, 8), torch.tensor([0, 1])), per_class=0)
