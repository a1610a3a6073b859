"""Masks in the items of a dataset follow images that the collate function transforms, or are left out by their name."""

import random

import numpy as np
import pytest
import torch
from boxes import HEIGHT, WIDTH, box, overlap
from PIL import Image, ImageOps
from torch.utils.data import DataLoader
from torchvision import transforms
from watched_data import Reads

from gradcam_callback import GradCAMWarning
from gradcam_callback.probes import Feed, Quota, choose_items, from_boxes

SIDE = 32
TO_TENSOR = transforms.Compose([transforms.Resize(40), transforms.CenterCrop(SIDE), transforms.ToTensor()])
DRAWN = Image.fromarray(box(20, 10, 36, 30).numpy())
# The photographs are resized to 60 x 40 and cropped from (14, 4) on.
MOVED = from_boxes([6, 6, 22, 26], SIDE, SIDE)


def photograph(seed):
    pixels = np.random.RandomState(seed).randint(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    return Image.fromarray(pixels)


def rows(**columns):
    return [{"image": photograph(i), "label": i % 2} | columns for i in range(4)]


def collate(items, transform=TO_TENSOR):
    images = [item["image"] if isinstance(item, dict) else item[0] for item in items]
    labels = [item["label"] if isinstance(item, dict) else item[1] for item in items]
    return {"pixel_values": torch.stack([transform(image) for image in images]), "labels": torch.tensor(labels)}


def masks_of(data, collate=collate):
    return [item.mask for item in choose_items(data, Feed(collate=collate), Quota(2, None), 0, None).items]


@pytest.mark.parametrize("name", ["mask", "segmentation"])
@pytest.mark.parametrize("mask", [DRAWN, DRAWN.convert("L"), np.array(DRAWN), np.array(DRAWN).astype(np.uint8)])
def test_a_mask_follows_the_picture_beside_it_through_the_collate_function(name, mask):
    masks = masks_of(rows(**{name: mask}))
    assert len(masks) == 4 and all(overlap(mask, MOVED) > 0.95 for mask in masks)


@pytest.mark.parametrize(
    "make",
    [
        lambda image, label: (image, label, DRAWN),
        lambda image, label: (image, (label, DRAWN)),
        lambda image, label: (image, {"label": label, "mask": DRAWN}),
        lambda image, label: {"photo": image, "label": label, "mask": DRAWN},
        lambda image, label: {"image": image, "label": label, "objects": {"bbox": [[20, 10, 16, 20]]}},
    ],
)
def test_the_picture_is_found_in_items_of_any_usual_form(make):
    def collate(items):
        images = [item["photo"] if "photo" in item else item["image"] for item in items if isinstance(item, dict)]
        images = images or [item[0] for item in items]
        return torch.stack([TO_TENSOR(image) for image in images]), torch.tensor([0, 1] * 2)[: len(images)]

    for mask in masks_of([make(photograph(i), i % 2) for i in range(4)], collate):
        mask = mask if mask.shape == MOVED.shape else from_boxes(mask, SIDE, SIDE)
        assert overlap(mask, MOVED) > 0.95


def test_a_mask_of_the_images_size_follows_too():
    flipped = transforms.Compose([ImageOps.mirror, transforms.ToTensor()])
    for mask in masks_of(rows(mask=DRAWN), lambda items: collate(items, flipped)):
        assert torch.equal(mask, box(20, 10, 36, 30).flip(1))


@pytest.mark.parametrize(
    "transform",
    [
        transforms.Compose([transforms.RandomCrop(SIDE), transforms.ToTensor()]),
        lambda image: TO_TENSOR(image).roll(random.randrange(9), 2),
    ],
)
def test_a_mask_beside_a_picture_of_random_steps_is_left_out(transform):
    with pytest.warns(
        GradCAMWarning,
        match=r"masks of the dataset are left out. Cannot use item\['mask'\].*collate_fn.*without random steps",
    ):
        assert masks_of(rows(mask=DRAWN), lambda items: collate(items, transform)) == [None] * 4


def by_array(items):
    images = torch.stack([torch.tensor(item["array"]).float() for item in items])
    return images, torch.tensor([item["label"] for item in items])


UNREAD = {
    "an image of another size": (
        {"mask": Image.new("1", (9, 9), 1)},
        collate,
        r"masks of .* are left out. Cannot use item\['mask'\]",
    ),
    "a photograph": ({"mask": photograph(7)}, collate, r"item\['mask'\], Image RGB 60 x 40, is left out"),
    "two masks": ({"mask": DRAWN, "object_mask": DRAWN}, collate, r"item\['mask'\], Image 1 60 x 40, is left out"),
    "a box outside": (
        {"objects": {"bbox": [[99, 99, 3, 3]]}},
        collate,
        r"item\['objects'\], boxes, is left out as a mask, in 4 of 4",
    ),
    "a path": ({"mask": "masks/a.png"}, collate, r"item\['mask'\], str, is left out"),
    "polygons": ({"segmentation": [[1, 2, 3, 4, 5, 6]]}, collate, r"item\['segmentation'\], .*, is left out"),
    "an array as the image": (
        {"image": None, "array": np.ones((3, HEIGHT, WIDTH), np.uint8), "mask": np.array(DRAWN)},
        by_array,
        r"item\['mask'\], ndarray bool \(40, 60\), is left out",
    ),
}


@pytest.mark.parametrize(("columns", "collate", "message"), UNREAD.values(), ids=UNREAD)
def test_what_is_called_a_mask_but_is_not_read_is_told_by_its_name(columns, collate, message):
    with pytest.warns(GradCAMWarning, match=message):
        assert masks_of(rows(**columns), collate) == [None] * 4


def test_a_mask_further_behind_the_label_is_told():
    with pytest.warns(GradCAMWarning, match=r"item\[3\], Image 1 60 x 40, is left out as a mask, in 4 of 4 items"):
        assert masks_of([(photograph(i), i % 2, "a name", DRAWN) for i in range(4)]) == [None] * 4


def test_what_is_no_mask_is_not_told():
    masks = {"mask": None, "masks": [], "segmentation": [0, 1, 1], "depth": photograph(9), "segmentation_mask": 1.0}
    assert masks_of(rows(**masks)) == [None] * 4


@pytest.mark.parametrize("mask", [DRAWN, photograph(7), torch.rand(5, 7), torch.ones(5, 7, dtype=torch.bool)])
def test_a_column_that_the_training_does_without_does_not_end_it(watch, toys, mask):
    """As a dataset of Hugging Face with a transform of the image alone."""
    data = [{"image": image, "label": label, "mask": mask} for image, label, _ in toys.items]

    def collate(items):
        return torch.stack([item["image"] for item in items]), torch.tensor([item["label"] for item in items])

    with pytest.warns(GradCAMWarning, match=r"item\['mask'\], .*, is left out as a mask, in \d+ of \d+ items"):
        callback = watch(Reads(), DataLoader(data, 6, collate_fn=collate))
    assert callback.probe_set.masks is None and callback.history
