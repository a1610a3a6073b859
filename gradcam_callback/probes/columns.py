"""Find masks and boxes in the columns of an item, as datasets of Hugging Face name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradcam_callback.probes.annotations import is_same_class, to_numbers
from gradcam_callback.probes.batches import (
    IMAGE_KEYS,
    MASK_KEYS,
    describe_levels,
    fields_of,
    find_parts,
    is_label,
    is_mask,
    is_told_by_order,
    to_numeric,
)
from gradcam_callback.probes.labels import is_named, tensor_of
from gradcam_callback.probes.masks import from_boxes
from gradcam_callback.probes.transforms import OpenPhotograph, Transform, mask_to_image, transform_mask
from gradcam_callback.saliency import Box

# More names of masks. They are asked for only if the item has no mask under a usual name.
_MASK_COLUMNS = ("segmentation", "label_mask")
_MASK_NAMES = (*MASK_KEYS, *_MASK_COLUMNS)
_OBJECTS, _BOXES, _CATEGORIES = "objects", "bbox", ("category", "label", "name")


class Boxes(NamedTuple):
    """The boxes in an item.

    Attributes:
        corners: ``x1, y1, x2, y2`` of each, in pixels of the untransformed image.
        size: the width and height of the untransformed image; None if they are not known.
    """

    corners: list[Box]
    size: tuple[int, int] | None


def find_mask_column(item: Any, image: Tensor) -> Any:
    """Return the mask in a column ``"segmentation"`` or ``"label_mask"`` of an item, or None.

    Args:
        item: of a dataset. Only a mapping has columns.
        image: of the item, ``(C, H, W)``.
    """
    columns = item if isinstance(item, Mapping) else {}
    return next((columns[name] for name in _MASK_COLUMNS if is_mask(columns.get(name), image, 0)), None)


class Column(NamedTuple):
    """A value in an item that may be a mask, but was not read as one.

    Attributes:
        name: of its place, with its form.
        value: a tensor; None for a value of another kind.
        is_named: True if the column is called a mask. Otherwise it only stands behind the label.
    """

    name: str
    value: Tensor | None
    is_named: bool


def find_unread_masks(item: Any, name: str = "item") -> list[Column]:
    """Return what is called a mask in an item, or is an array or a picture behind the label, if no mask has been read.

    Args:
        item: of a dataset.
        name: of the item.
    """
    places, found = isinstance(item, (list, tuple)), list[Column]()
    for number, (key, value) in enumerate(_values_in(item)):
        place, given = f"{name}[{key!r}]", to_numeric(value)
        if isinstance(value, Mapping):
            found += find_unread_masks(value, place)
        is_called = is_named(str(key), _MASK_NAMES)
        is_drawn = isinstance(value, Image.Image) or (given is not None and given.ndim >= 2)
        # The path of a mask, or polygons.
        is_told = isinstance(value, (str, PurePath)) or (
            isinstance(value, list) and value and isinstance(value[0], list)
        )
        if (is_drawn and places and number >= 2) or (is_called and (is_drawn or is_told)):
            found.append(Column(f"{place}, {describe_levels(value)}", given, is_called))
    return found


def find_picture(item: Any) -> Image.Image | None:
    """Return the picture that is the image of an item; None if a tensor is the image, or if it is not certain."""
    with suppress(ValueError):
        find_parts(item, "", batched=False, needs_labels=False)
        return None
    fields = fields_of(item)
    if fields is None:
        first = item[0] if isinstance(item, (list, tuple)) and item else None
        return first if isinstance(first, Image.Image) else find_picture(first) if fields_of(first) else None
    pictures = {key: value for key, value in fields.items() if isinstance(value, Image.Image)}
    named = [value for key, value in pictures.items() if is_named(key, IMAGE_KEYS)]
    others = [value for key, value in pictures.items() if not is_named(key, _MASK_NAMES)]
    chosen = named if len(named) == 1 else others
    return chosen[0] if len(chosen) == 1 else None


def name_place(item: Any, value: Any, name: str = "item") -> str:
    """Return the place of a value, known by its identity, in an item; ``""`` if it is not there."""
    if item is value:
        return name
    return next(filter(None, (name_place(one, value, f"{name}[{key!r}]") for key, one in _values_in(item))), "")


def _values_in(item: Any) -> list[tuple[Any, Any]]:
    """Return the values in a mapping, a tuple or a list, each with its name or place."""
    fields = fields_of(item)
    if fields is not None:
        return list(fields.items())
    return list(enumerate(item)) if isinstance(item, (list, tuple)) else []


class LabelPlace(NamedTuple):
    """The place of the labels in batches, as code that begins with ``batch``.

    Attributes:
        images: such as ``"batch[0]"``.
        labels: such as ``"batch[1]"``; ``""`` if they are no value of the batch.
        rivals: other values that may as well be the labels, each with its largest number.
    """

    images: str
    labels: str
    rivals: dict[str, int]


def find_label_place(batches: Sequence[Any]) -> LabelPlace:
    """Find where batches hold their labels, and what else may be the labels.

    Labels have rivals only if nothing but their place behind the images says that they are the labels.

    Args:
        batches: of one image each.
    """
    first = batches[0]
    images, labels, _ = find_parts(first, "", needs_labels=False)
    place = LabelPlace(name_place(first, images, "batch"), name_place(first, labels, "batch"), {})
    if not is_told_by_order(first, labels):
        return place
    taken = [_to_class(batch[1]) for batch in batches]
    for number in range(2, min(map(len, batches))):
        values = [_to_class(batch[number]) for batch in batches]
        known = [value for value in values if value is not None]
        # Numbers that are always the same tell no classes apart.
        if len(known) == len(values) and min(known) >= 0 and len(set(known)) > 1 and values != taken:
            place.rivals[f"batch[{number}]"] = max(known)
    return place


def _to_class(value: Any) -> int | None:
    """Return the class that a value of a batch of one image may be; None if it is none for certain."""
    if not is_label(value, 1):
        return None
    given = tensor_of(value)
    # Of floating point, as binary losses take it, a class is 0 or 1. Others are weights, ages and the like.
    if given.numel() != 1 or (given.is_floating_point() and float(given) not in (0, 1)):
        return None
    return int(given)


def find_boxes(item: Any, class_name: str) -> Boxes | None:
    """Return the boxes in ``item["objects"]["bbox"]``, which are x, y, width and height in pixels, as in COCO.

    Args:
        item: of a dataset. The size of its image is that of a ``PIL.Image`` in it, or its ``"width"`` and ``"height"``.
        class_name: of the image. If the objects' categories are texts, and some are this class, only they count.

    Returns:
        None without boxes.
    """
    columns = item if isinstance(item, Mapping) else {}
    boxes, categories = _read_objects(columns.get(_OBJECTS))
    numbers = [to_numbers(np.asarray(box).tolist()) for box in boxes]
    corners = [(x, y, x + width, y + height) for x, y, width, height in (row for row in numbers if row is not None)]
    if not corners or len(corners) != len(boxes):
        return None
    if len(categories) == len(corners):
        own = [is_same_class(category, class_name) for category in categories]
        corners = [box for box, is_own in zip(corners, own, strict=True) if is_own or not any(own)]
    pictures = [columns[key] for key in IMAGE_KEYS if isinstance(columns.get(key), Image.Image)]
    if pictures:
        return Boxes(corners, pictures[0].size)
    # An array or tensor of one number, too.
    size = to_numbers([np.asarray(columns.get(side)).tolist() for side in ("width", "height")])
    return Boxes(corners, None if size is None else (int(size[0]), int(size[1])))


def fit_boxes(
    boxes: Boxes, image: Tensor, transform: Transform | None, seed: int, open_photograph: OpenPhotograph | None = None
) -> Tensor | None:
    """Bring boxes into the pixels of the transformed image.

    Args:
        boxes: of the untransformed image.
        image: as the model takes it, ``(C, H, W)``.
        transform: of the image; None if it is not known. Boxes then fit only if the image has kept its size.
        seed: of the image's random steps.
        open_photograph: as in `transform_mask`.

    Returns:
        ``(B, 4)`` as ``x1, y1, x2, y2``, or None if the geometry is not known.

    Raises:
        ValueError: a box holds no pixel, or the transform cuts all boxes off.
        MaskTransformError: boxes cannot follow the image.
        UserCodeError: the transform failed. It may need more than an image.
    """
    if boxes.size is None or (transform is None and boxes.size != (image.shape[2], image.shape[1])):
        return None
    if transform is None:
        return torch.tensor(boxes.corners)
    width, height = boxes.size
    moved = []
    for mask in [from_boxes(box, height, width) for box in boxes.corners]:
        rows, columns = transform_mask(mask_to_image(mask), transform, seed, open_photograph).nonzero().T
        if len(rows):
            moved.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    if not moved:
        raise ValueError(
            "Expected the transform to keep an object, but it cuts all boxes off. Use another transform, or choose "
            "other images by `seed`."
        )
    return torch.tensor(moved)


def _read_objects(objects: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return boxes and categories, of a mapping of lists or of a list of mappings."""
    if isinstance(objects, (list, tuple)) and objects and all(isinstance(one, Mapping) for one in objects):
        objects = {key: [one.get(key) for one in objects] for key in objects[0]}
    if not isinstance(objects, Mapping):
        return [], []
    # `with_format("numpy")` and `with_format("torch")` of Hugging Face make arrays and tensors of lists.
    lists = (list, tuple, Tensor, np.ndarray)
    boxes = objects.get(_BOXES)
    categories = next((objects[name] for name in _CATEGORIES if isinstance(objects.get(name), lists)), ())
    if not isinstance(boxes, lists) or not all(np.shape(box) == (4,) for box in boxes):
        return [], []
    return list(boxes), list(categories)
