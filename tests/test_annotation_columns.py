"""Boxes and masks in columns of a dataset, as those of Hugging Face have them, mark the objects."""

import numpy as np
import pytest
import torch
from boxes import HEIGHT, WIDTH, box, overlap
from PIL import Image
from torchvision import transforms

from gradcam_callback import GradCAMWarning, ProbeSet
from gradcam_callback.probes.masks import from_boxes


class Rows(torch.utils.data.Dataset):
    """Mappings of an image, a label and other columns."""

    def __init__(self, size=(WIDTH, HEIGHT), **columns):
        self.columns, self.size, self.classes = columns, size, ["dog", "mountain lion"]

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"pixel_values": torch.rand(3, self.size[1], self.size[0]), "label": index % 2} | self.columns


class Transformed(Rows):
    transform = transforms.Compose([transforms.Resize((80, 120)), transforms.CenterCrop(80), transforms.ToTensor()])


OBJECTS = {"id": [1, 2], "bbox": [[10, 5, 30, 25], [50.0, 30.0, 8.0, 8.0]], "category": [4, 7]}
BOTH = box(10, 5, 40, 30) | box(50, 30, 58, 38)


def test_boxes_in_columns_are_those_of_coco():
    probe = ProbeSet.from_dataset(Rows(objects=OBJECTS, width=WIDTH, height=HEIGHT))
    assert torch.equal(probe.masks[0], BOTH) and probe.has_mask.all() and probe.has_box_masks
    rows = [
        {"bbox": row, "category": name} for row, name in zip(OBJECTS["bbox"], ["Mountain Lion", "cat"], strict=True)
    ]
    probe = ProbeSet.from_dataset(Rows(objects=rows, image=Image.new("RGB", (WIDTH, HEIGHT))))
    assert torch.equal(probe.masks[0], BOTH), "a dog, of which no object has the name"
    assert probe.labels.tolist() == [0, 0, 1, 1] and torch.equal(probe.masks[2], box(10, 5, 40, 30))


@pytest.mark.parametrize("make", [list, np.array, torch.tensor, lambda boxes: [np.float32(box) for box in boxes]])
@pytest.mark.parametrize("number", [int, np.int64, torch.tensor])
def test_boxes_in_columns_may_be_arrays_or_tensors(make, number):
    """As Hugging Face's datasets with another format give them."""
    columns = {"width": number(WIDTH), "height": number(HEIGHT)}
    for category in (["Mountain Lion", "cat"], np.array(["Mountain Lion", "cat"])):
        objects = {"bbox": make(OBJECTS["bbox"]), "category": category}
        probe = ProbeSet.from_dataset(Rows(objects=objects, **columns))
        assert torch.equal(probe.masks[0], BOTH), "a dog, of which no object has the name"
        assert torch.equal(probe.masks[2], box(10, 5, 40, 30))
    assert torch.equal(
        ProbeSet.from_dataset(Rows(objects=[{"bbox": make([[10, 5, 30, 25]])[0]}], **columns)).masks[0],
        box(10, 5, 40, 30),
    )


def test_boxes_in_columns_follow_the_transform():
    probe = ProbeSet.from_dataset(Transformed(size=(80, 80), objects=OBJECTS, width=WIDTH, height=HEIGHT))
    expected = from_boxes([[0, 10, 60, 60]], 80, 80)
    assert overlap(probe.masks[0], expected) > 0.95, "the second box is cut off"


def test_boxes_that_may_not_fit_are_left_out_with_a_warning():
    for columns in ({}, {"width": 500, "height": 300}):
        with pytest.warns(GradCAMWarning, match=r"boxes in item\['objects'\] are left out.*BoundingBoxes") as caught:
            probe = ProbeSet.from_dataset(Rows(objects=OBJECTS, **columns))
        assert probe.masks is None and len(probe) > len(caught) == 1, "told once, of all items"
    for nothing in ({}, {"bbox": []}, {"bbox": [[1, 2]]}, [], "text"):
        assert ProbeSet.from_dataset(Rows(objects=nothing)).masks is None


@pytest.mark.parametrize("column", ["mask", "segmentation"])
def test_a_column_that_is_named_like_a_mask_but_is_none_is_told(column):
    square = (torch.arange(HEIGHT)[:, None] > 9) & (torch.arange(WIDTH) > 9)
    assert ProbeSet.from_dataset(Rows(**{column: square.to(torch.uint8)})).has_mask.all()
    other_size, classes = square[:-8].to(torch.uint8), square * 17
    for value in (other_size, classes, classes.numpy()):
        with pytest.warns(GradCAMWarning, match=rf"{column}.*is left out as a mask.*\({HEIGHT}, {WIDTH}\)"):
            assert ProbeSet.from_dataset(Rows(**{column: value})).masks is None


@pytest.mark.parametrize("value", [torch.rand(HEIGHT, WIDTH), 17 * torch.eye(HEIGHT, WIDTH).long()[None]])
def test_a_value_behind_the_label_that_looks_like_a_mask_but_is_none_is_told(value):
    """A soft mask, or a map of labels."""
    with pytest.warns(GradCAMWarning, match=rf"item\[2\], Tensor .*, is left out as a mask.*\({HEIGHT}, {WIDTH}\)"):
        assert ProbeSet.from_dataset([(torch.rand(3, HEIGHT, WIDTH), i % 2, value) for i in range(4)]).masks is None
    other = torch.rand(HEIGHT, WIDTH + 1)
    assert ProbeSet.from_dataset([(torch.rand(3, HEIGHT, WIDTH), i % 2, other) for i in range(4)]).masks is None


def test_boxes_that_mark_nothing_are_refused_by_the_number_of_the_item():
    with pytest.raises(ValueError, match=r"Cannot read the boxes of item \d. Expected the transform to keep an object"):
        far = {"bbox": [[50, 30, 8, 8]]}
        ProbeSet.from_dataset(Transformed(size=(80, 80), objects=far, width=WIDTH, height=HEIGHT))
    with pytest.raises(ValueError, match=r"Cannot read the boxes of item \d. Expected each box to hold a pixel"):
        ProbeSet.from_dataset(Transformed(objects={"bbox": [[99, 99, 3, 3]]}, width=WIDTH, height=HEIGHT))


@pytest.mark.parametrize("name", ["mask", "segmentation", "label_mask", "segmentation_mask"])
def test_masks_in_columns(name):
    drawn = Image.new("L", (WIDTH, HEIGHT))
    drawn.paste(255, (10, 5, 40, 30))
    for given in (drawn, box(10, 5, 40, 30)):
        probe = ProbeSet.from_dataset(Rows(**{name: given}))
        assert torch.equal(probe.masks[0], box(10, 5, 40, 30)) and not probe.has_box_masks
