"""Find images, labels and masks in items and batches of any form, and cut batches into those of one image.

An item is what a dataset gives for an index. A batch is what the collate function makes of several items: its tensors
have one dimension more. Names tell the values, or else their order: the value behind the image is the label. If neither
does, this is an error that shows all of them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from gradcam_callback.formatting import name_some
from gradcam_callback.probes.labels import LABEL_KEYS, is_named, native_copy, whole_numbers

# The usual names, in lower case; a plural counts, too.
IMAGE_KEYS = ("image", "img", "pixel_values", "x", "input")
MASK_KEYS = ("mask", "segmentation_mask", "object_mask")
# A text in an item that ends like this is the name of its file.
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# What is shown of a structure in an error.
MOST_PARTS, DEEPEST = 8, 3

BatchTransform = Callable[[Any], Any]

_WAY_OUT = (
    "Say which they are with batch_transform=lambda batch: (images, labels), or (images, labels, masks), where `batch` "
    "has the form above."
)


class Parts(NamedTuple):
    """The images, labels and masks of an item or a batch.

    Attributes:
        images: the very tensor in the batch, ``(N, C, H, W)``, or ``(C, H, W)`` of an item.
        labels: ``(N,)``, or ``(N, K)`` of 0 and 1; of an item without N. None if there are none and none are needed.
        masks: in any form; None without masks.
    """

    images: Tensor
    labels: Any
    masks: Any


def find_parts(batch: Any, what: str, *, batched: bool = True, needs_labels: bool = True) -> Parts:
    """Find images, labels and masks in a batch or an item.

    Args:
        batch: ``(images, labels)`` with anything behind, a named tuple, a mapping, or these in each other.
        what: the name of the batch in errors, such as ``"item 3 of the dataset"``.
        batched: False for an item.
        needs_labels: False takes a batch without labels, too.

    Raises:
        ValueError: images or labels cannot be told for certain. The message shows the structure.
    """
    lead = int(batched)
    found = _find_images(batch, lead)
    if batched and found is not None and len(found[0]) == 1:
        batch = transform_leaves(batch, _unsqueeze)
        found = _find_images(batch, lead)
    if found is None or is_channels_last(found[0]):
        raise ValueError(_complain("one tensor of images", batch, what, lead, lacks_label=False))
    images, after = found
    labels, masks = _find_labels(batch, images, after, lead)
    if labels is None and hasattr(batch, "_fields"):
        # The names of the fields say nothing, so their order counts, as in other tuples.
        return find_parts(tuple(batch), what, batched=batched, needs_labels=needs_labels)
    if labels is None and needs_labels:
        raise ValueError(_complain("one value that is certainly the label", batch, what, lead, lacks_label=True))
    return Parts(images, labels, masks)


def take_parts(transformed: Any, batch: Any) -> Parts:
    """Return what the user's ``batch_transform`` has made of a batch.

    Raises:
        ValueError: neither ``(images, labels)`` nor ``(images, labels, masks)``.
    """
    fits = isinstance(transformed, (tuple, list)) and len(transformed) in (2, 3) and is_image(transformed[0], 1)
    if not fits:
        raise ValueError(
            "Expected `batch_transform` to return (images, labels) or (images, labels, masks), with images "
            f"(N, C, H, W) of floating point, but got {describe(transformed)} for the batch {describe(batch)}. Correct "
            "it."
        )
    images, labels, *masks = transformed
    given: dict[str, Any] = {"labels": labels, "masks": masks[0] if masks else None}
    for what, values in given.items():
        if len(images) == 1:
            is_mask_alone = what == "masks" and getattr(values, "shape", None) == images.shape[-2:]
            given[what] = [values] if is_mask_alone or isinstance(values, (int, float)) else _unsqueeze(values)
        count = _count(given[what])
        if count != len(images) and values is not None:
            got = describe(values) if count is None else f"{count} {what}"
            raise ValueError(
                f"Expected `batch_transform` to return as many {what} as images, but got {got} for {len(images)} "
                "images. Correct it."
            )
    return Parts(images, given["labels"], given["masks"])


def _unsqueeze(value: Any) -> Any:
    """Return what belongs to a single image with the dimension of its batch, which ``squeeze`` has taken off."""
    if isinstance(value, np.generic):
        return np.array([value])
    return value[None] if isinstance(value, (Tensor, np.ndarray)) and not value.ndim else value


def _count(values: Any) -> int | None:
    """Return the length of values by index, None for anything else."""
    if isinstance(values, (str, bytes, Mapping)) or getattr(values, "ndim", 1) == 0 or not hasattr(values, "__len__"):
        return None
    return len(values)


def is_image(value: Any, lead: int) -> bool:
    """Return True if a value may be an image, or with ``lead = 1`` a batch of images."""
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.ndim == 3 + lead
        and not isinstance(value, tv_tensors.Mask)
    )


def is_label(value: Any, lead: int) -> bool:
    """Return True if a value may be the label of an item, or with ``lead = 1`` the labels of a batch."""
    if isinstance(value, (str, bytes, Mapping)) or value is None:
        return False
    if not isinstance(value, (int, float, Tensor, np.ndarray, np.generic)):
        # A list of numbers, one per item of the batch, or an item's classes.
        if not (isinstance(value, (list, tuple)) and value and all(isinstance(one, (int, float)) for one in value)):
            return False
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind not in "biuf":
        return False
    given = whole_numbers(value)
    if given is None or not given.numel():
        return False
    shape = given.shape[lead:]
    # (N, 1) is a column of classes, as binary losses take them.
    if given.ndim < lead or len(shape) > 1:
        return False
    return not shape or shape[0] == 1 or bool(((given == 0) | (given == 1)).all())


def is_mask(value: Any, images: Tensor, lead: int) -> bool:
    """Return True if a value is a mask: a picture, a tensor that torchvision calls one, or black and white.

    The last has the size of the image, and holds 0 and 1, or in bytes or floating point 0 and 255.

    Four plain numbers are not: they may as well be metadata as a box. torchvision's ``BoundingBoxes`` are.
    """
    if isinstance(value, (Image.Image, tv_tensors.Mask, tv_tensors.BoundingBoxes)):
        return True
    given = to_numeric(value)
    if given is None or given.ndim < 2 + lead or 0 in given.shape:
        return False
    if given.dtype == torch.bool:
        return True
    size = tuple(images.shape[-2:])
    # One channel may stand behind the pixels, too.
    if size not in (tuple(given.shape[-2:]), tuple(given.shape[lead:-1]) if given.shape[-1] == 1 else None):
        return False
    return white_of_mask(given) is not None


def white_of_mask(given: Tensor) -> int | None:
    """Return what marks the object in a mask that is not bool, 1 or 255; None if the values are no mask.

    Among integers of more than a byte, 255 is rather the void of labels.
    """
    whites = (1, 255) if given.dtype == torch.uint8 or given.is_floating_point() else (1,)
    return next((white for white in whites if bool(((given == 0) | (given == white)).all())), None)


def to_numeric(value: Any) -> Tensor | None:
    """Return a tensor, or an array of numbers as a tensor of its own; None for anything else."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            return None
        # torch knows few operations on the larger unsigned integers.
        is_large = value.dtype.kind == "u" and value.itemsize > 1
        return torch.from_numpy(value.astype(np.int64) if is_large else native_copy(value))
    # Sparse and nested tensors, and those without values, cannot be compared with an image.
    is_dense = isinstance(value, Tensor) and value.layout == torch.strided and not (value.is_meta or value.is_nested)
    return value if is_dense else None


def file_name(item: Any) -> str | None:
    """Return the stem of the one file name in an item; None if there is none, or if there are several."""
    stems = set()
    for value in _leaves(item):
        name = value if isinstance(value, str) else value.name if isinstance(value, PurePath) else ""
        if name.lower().endswith(IMAGE_SUFFIXES):
            stems.add(PurePath(name).stem)
    return stems.pop() if len(stems) == 1 else None


def describe(value: Any, depth: int = 0) -> str:
    """Return the structure of a value: types and shapes, never the pixels."""
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{type(value).__name__} {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, Image.Image):
        return f"Image {value.mode} {value.width} x {value.height}"
    if isinstance(value, Mapping):
        inside = [f"{key!r}: {describe(one, depth + 1)}" for key, one in list(value.items())[:MOST_PARTS]]
        return _enclose("{", inside, len(value), "}") if depth < DEEPEST else f"{type(value).__name__} of {len(value)}"
    if isinstance(value, (list, tuple)):
        if depth >= DEEPEST or (len(value) > MOST_PARTS and len({type(one) for one in value}) == 1):
            return f"{type(value).__name__} of {len(value)} {type(value[0]).__name__ if value else 'values'}"
        fields = getattr(value, "_fields", None)
        parts = [describe(one, depth + 1) for one in value[:MOST_PARTS]]
        if fields:
            parts = [f"{field}={part}" for field, part in zip(fields, parts, strict=False)]
        return _enclose(
            "[" if isinstance(value, list) else "(", parts, len(value), "]" if isinstance(value, list) else ")"
        )
    attributes = _attributes_of(value) if depth < DEEPEST else {}
    inside = [f"{name}={describe(one, depth + 1)}" for name, one in list(attributes.items())[:MOST_PARTS]]
    return type(value).__name__ + (_enclose("(", inside, len(attributes), ")") if inside else "")


def describe_levels(value: Any) -> str:
    """Return the structure of what may be a mask, and its levels if it holds other numbers than True and False."""
    given = to_numeric(value)
    if given is None or given.dtype == torch.bool or given.is_complex() or not given.numel():
        return describe(value)
    levels = [f"{level:g}" for level in given.unique().tolist()]
    return f"{describe(value)} {f'of {name_some(levels)}' if len(levels) <= 5 else f'from {levels[0]} to {levels[-1]}'}"


def _attributes_of(value: Any) -> dict[str, Any]:
    """Return the attributes of an object that only holds data, such as a dataclass; none for anything else."""
    if isinstance(value, type) or callable(value):
        return {}
    names = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
    names = names or [name for name in getattr(value, "__dict__", {}) if not name.startswith("_")]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


class ImagePlace:
    """The place of the image in a row, which holds all else of a batch; the image itself is kept only once."""


def row_of(batch: Any, i: int, n: int, alone: Any = None) -> Any:
    """Return the batch of image ``i`` alone, out of a batch of ``n``. What all images share stays whole.

    Args:
        batch: with images, or an `ImagePlace` for them.
        i: the number of the image.
        n: the number of images.
        alone: a batch of one item. What is as long there as in the larger batch is shared. None if there is none.
    """
    if isinstance(batch, Tensor):
        is_shared = n > 1 and isinstance(alone, Tensor) and alone.shape == batch.shape
        return batch[i : i + 1] if _is_batched(batch, n) and not is_shared else batch
    if isinstance(batch, Mapping):
        inner = alone if isinstance(alone, Mapping) else {}
        return _like(batch, {key: row_of(value, i, n, inner.get(key)) for key, value in batch.items()})
    if isinstance(batch, (list, tuple)):
        other = alone if isinstance(alone, (list, tuple)) else None
        if len(batch) == n and (_is_list_of_images(batch, n) if other is None or n == 1 else len(other) == 1):
            return type(batch)([batch[i]])
        inners = other if other is not None and len(other) == len(batch) else [None] * len(batch)
        parts = [row_of(one, i, n, inside) for one, inside in zip(batch, inners, strict=True)]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch


def _is_list_of_images(values: Sequence[Any], n: int) -> bool:
    """Return True if a list of n values seems to hold one of each image, and not some values of all images."""
    if any(isinstance(leaf, ImagePlace) for leaf in _leaves(values)):
        return False  # the images are one value
    if all(isinstance(one, Mapping) for one in values):
        return not any(_is_batched(leaf, n) for leaf in _leaves(values))
    return not all(isinstance(one, Mapping) or _is_batched(one, n) for one in values)


def _is_batched(value: Any, n: int) -> bool:
    return isinstance(value, ImagePlace) or (isinstance(value, Tensor) and value.ndim > 0 and len(value) == n)


def replace_part(batch: Any, old: Any, new: Any) -> Any:
    """Return a batch in which one object, known by its identity, is replaced."""
    return transform_leaves(batch, lambda leaf: new if leaf is old else leaf)


def contains(batch: Any, leaf: Any) -> bool:
    """Return True if an object, known by its identity, is a part of a batch."""
    return any(one is leaf for one in _leaves(batch))


def transform_leaves(batch: Any, change: Callable[[Any], Any]) -> Any:
    """Return a batch of the same form, with every value changed."""
    if isinstance(batch, Mapping):
        return _like(batch, {key: transform_leaves(value, change) for key, value in batch.items()})
    if isinstance(batch, (list, tuple)):
        parts = [transform_leaves(one, change) for one in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return change(batch)


def _like(batch: Mapping[Any, Any], values: dict[Any, Any]) -> Mapping[Any, Any]:
    """Return values in a mapping of the kind of a batch, such as a tokenizer's, whose values are attributes, too."""
    if not isinstance(batch, MutableMapping) or type(batch) is dict:
        return values
    try:
        filled = copy.copy(batch)
        filled.update(values)
    except Exception:
        return values  # it takes other values only, such as tensors of one length
    return filled


def _find_images(batch: Any, lead: int) -> tuple[Tensor, list[Any]] | None:
    """Return the images of a batch, and the values behind them that may hold the labels; None if not certain."""
    if is_image(batch, lead):
        return batch, []
    fields = fields_of(batch)
    if fields is not None:
        candidates = [value for value in fields.values() if is_image(value, lead)]
        named = [value for key, value in fields.items() if is_named(key, IMAGE_KEYS) and is_image(value, lead)]
        chosen = named if len(named) == 1 else candidates
        return (chosen[0], []) if len(chosen) == 1 else None
    if not isinstance(batch, (list, tuple)) or not batch:
        return None
    first, *others = batch
    if is_image(first, lead):
        return first, others
    if fields_of(first) is not None:
        inner = _find_images(first, lead)
        return None if inner is None else (inner[0], others)
    candidates = [value for value in batch if is_image(value, lead)]
    return (candidates[0], [value for value in batch if value is not candidates[0]]) if len(candidates) == 1 else None


def is_channels_last(images: Tensor) -> bool:
    """Return True if images look like ``(H, W, C)``, and would be very narrow ones of many channels."""
    return images.shape[-1] in (1, 3, 4) and min(images.shape[-3:-1]) > 4


def _find_labels(batch: Any, images: Tensor, after: Sequence[Any], lead: int) -> tuple[Any, Any]:
    """Return labels and masks, each None if there are none for certain."""
    fields = fields_of(batch)
    if fields is None and isinstance(batch, (list, tuple)) and batch and fields_of(batch[0]) is not None:
        fields = fields_of(batch[0])
    if fields is not None and not after:
        return _from_fields(fields, images, lead)
    if not after:
        return None, None
    inside = None if fields is None else _from_fields(fields, images, lead)
    if inside is not None and inside[0] is not None:
        return inside
    if not (isinstance(batch, (list, tuple)) and (batch[0] is images or fields is not None)):
        # The images do not come first, so no order says which value is the label.
        labels = [value for value in after if is_label(value, lead)]
        masks = [value for value in after if is_mask(value, images, lead)]
        return labels[0] if len(labels) == 1 else None, masks[0] if len(masks) == 1 else None
    label, *rest = after
    mask = rest[0] if rest and is_mask(rest[0], images, lead) else None
    inner = fields_of(label)
    if inner is not None:
        labels, own_mask = _from_fields(inner, images, lead)
        return labels, own_mask if mask is None else mask
    # torchvision's datasets give several targets as (image, (label, mask)).
    if isinstance(label, (list, tuple)) and len(label) == 2 and is_mask(label[1], images, lead):
        label, mask = label
    if mask is None and inside is not None:
        mask = inside[1]
    return (label if is_label(label, lead) else None), mask


def _from_fields(fields: Mapping[str, Any], images: Tensor, lead: int) -> tuple[Any, Any]:
    labels = [value for key, value in fields.items() if is_named(key, LABEL_KEYS) and is_label(value, lead)]
    masks = [value for key, value in fields.items() if is_named(key, MASK_KEYS) and is_mask(value, images, lead)]
    return labels[0] if len(labels) == 1 else None, masks[0] if len(masks) == 1 else None


def is_told_by_order(batch: Any, labels: Any) -> bool:
    """Return True if nothing but the place behind the images says that a value of a batch holds its labels."""
    if not isinstance(batch, (list, tuple)) or len(batch) < 2 or batch[1] is not labels:
        return False
    fields = fields_of(batch) or {}
    return not any(value is labels and is_named(key, LABEL_KEYS) for key, value in fields.items())


def fields_of(value: Any) -> dict[str, Any] | None:
    """Return the named values of a mapping or a named tuple, None for anything else."""
    if isinstance(value, Mapping):
        return {str(key): one for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    return None


def _leaves(value: Any) -> list[Any]:
    found: list[Any] = []
    transform_leaves(value, found.append)
    return found


def _enclose(left: str, parts: Sequence[str], total: int, right: str) -> str:
    more = [f"and {total - len(parts)} more"] if total > len(parts) else []
    return left + ", ".join([*parts, *more]) + right


def _complain(lacking: str, batch: Any, what: str, lead: int, *, lacks_label: bool) -> str:
    shape, hint, leaves = "(N, C, H, W)" if lead else "(C, H, W)", "", _leaves(batch)
    tensors = [value for value in leaves if isinstance(value, Tensor)]
    if any(isinstance(value, Image.Image) for value in leaves):
        hint = " A PIL.Image becomes a tensor by a transform such as torchvision's ToTensor()."
    elif any(value.dtype == torch.uint8 and value.ndim == 3 + lead for value in tensors):
        hint = " Images of uint8 become floating point by a transform such as torchvision's ToDtype."
    elif any(is_image(value, lead) and is_channels_last(value) for value in tensors):
        hint = " Images (H, W, C) become (C, H, W) by image.permute(2, 0, 1) in the dataset, no longer in forward."
    elif lacks_label and any(isinstance(value, str) for value in leaves):
        hint = " A class given as text has to become its index."
    elif lacks_label and any(value.is_floating_point() and value.ndim == 1 + lead for value in tensors):
        hint = " Soft labels (N, K) become classes by labels.argmax(1)."
    # No batch can be made of such items, which a batch_transform would take.
    way_out = (
        "Let the dataset give (image, label) or (image, label, mask)." if not lead and _attributes_of(batch) else ""
    )
    return (
        f"Expected {what} to hold images {shape} of floating point and their labels, but cannot find {lacking} in "
        f"{describe(batch)}.{hint} {way_out or _WAY_OUT}"
    )
