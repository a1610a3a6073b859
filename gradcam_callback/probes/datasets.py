"""Choose images of each class from a dataset, with their masks."""

from __future__ import annotations

import random
from collections.abc import Sequence, Sized
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradcam_callback.probes.checks import check_per_class
from gradcam_callback.probes.items import Item, choose_per_class
from gradcam_callback.probes.lookup import find_transform, unwrap
from gradcam_callback.probes.masks import from_image
from gradcam_callback.probes.pets import is_pets, leaves_masks_untransformed, pets_labels, trimap_to_mask
from gradcam_callback.probes.transforms import mask_to_image, transform_mask
from gradcam_callback.random_state import preserved_random_state, seed_everything


def choose_items(
    dataset: Any, per_class: int, seed: int, max_images: int | None, max_scanned: int | None
) -> list[Item]:
    """Choose ``per_class`` items of each class of a map-style dataset, see `ProbeSet.from_dataset`."""
    check_per_class(per_class)
    if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
        raise ValueError(
            f"Expected `dataset` to be map-style, with a length and items by index, but got {type(dataset).__name__}. "
            "For an iterable dataset, collect the images yourself and pass ProbeSet(images, labels)."
        )
    if not len(dataset):
        raise ValueError("Expected `dataset` to hold at least one item (image, label), but it is empty.")
    with preserved_random_state():
        # Datasets are often sorted, and neighbours are often alike.
        order = random.Random(seed).sample(range(len(dataset)), len(dataset))
        pairs = _read_labels(dataset, order, max_scanned)
        # If every item has exactly one of its classes, the labels are one-hot, not labels of several classes.
        one_hot = [index for index, _ in pairs] == order[: len(pairs)] and len(pairs) >= len(order[:max_scanned])
        items = []
        for index, label in choose_per_class(pairs, per_class, max_images):
            # The seed belongs to the item, so a random transform gives the same image every time.
            item = _read_item(dataset, index, label, seed + index)
            items.append(item._replace(present=None) if one_hot else item)
    if not items:
        raise ValueError(
            "Expected `dataset` to have labels with a 1, but all labels that were read are 0. Check its labels, or "
            "raise `max_scanned`."
        )
    return items


def _read_labels(dataset: Any, order: Sequence[int], max_scanned: int | None) -> list[tuple[int, int]]:
    """Return pairs of index and label in the given order, with one pair for each class of an item."""
    stored = _stored_labels(dataset)
    if stored is not None:
        return [(index, int(stored[index])) for index in order]
    # Loading whole items is slow, so only this part has a limit.
    return [
        (index, label)
        for index in order[:max_scanned]
        for label in _to_classes(_load(dataset, index, seed=0)[1], index)
    ]


def _stored_labels(dataset: Any) -> Any:
    """Return the labels that a dataset stores, or None if they have to be read from the items."""
    labels = pets_labels(dataset) if is_pets(dataset) else getattr(dataset, "targets", None)
    if isinstance(labels, (list, tuple, np.ndarray, Tensor)) and len(labels) == len(dataset):
        # Detection datasets store whole annotations under this name.
        if all(isinstance(label, (int, np.integer)) or getattr(label, "ndim", 1) == 0 for label in labels):
            # A target transform changes the labels of the items, but not the stored labels.
            return labels if getattr(dataset, "target_transform", None) is None else None
    if isinstance(dataset, torch.utils.data.Subset):
        inner = _stored_labels(dataset.dataset)
        return None if inner is None else [int(inner[index]) for index in dataset.indices]
    return None


def _to_classes(label: Any, index: int) -> list[int]:
    """Return the class, or the several classes, that a label stands for."""
    given = torch.as_tensor(label)
    # Floating point is allowed, since the binary losses of torch need it.
    whole = not given.is_complex() and bool((given == given.round()).all())
    if whole and given.numel() == 1:
        return [int(given)]
    if whole and given.ndim == 1 and bool(((given == 0) | (given == 1)).all()):
        return [int(found) for found in given.nonzero()[:, 0]]
    raise ValueError(
        f"Expected the label of item {index} to be one integer class, or (K,) of 0 and 1, but got {label!r}. Convert "
        "it in the dataset."
    )


def _load(dataset: Any, index: int, seed: int) -> tuple[Any, ...]:
    """Load an item as image and label, and its mask if it has one."""
    seed_everything(seed)
    item = dataset[index]
    if not isinstance(item, (tuple, list)) or len(item) not in (2, 3):
        kind = type(item).__name__ + (f" of length {len(item)}" if isinstance(item, (tuple, list)) else "")
        raise ValueError(
            f"Expected item {index} of the dataset to be (image, label) or (image, label, mask), but got {kind}. For "
            "other items, collect the images yourself and pass ProbeSet(images, labels)."
        )
    # torchvision's datasets give several targets as (image, (label, mask)).
    if len(item) == 2 and isinstance(item[1], (tuple, list)) and len(item[1]) == 2 and len(np.shape(item[1][1])) > 1:
        return (item[0], *item[1])
    return tuple(item)


def _read_item(dataset: Any, index: int, label: int, seed: int) -> Item:
    image, given, *rest = _load(dataset, index, seed)
    if not isinstance(image, Tensor):
        raise ValueError(
            f"Expected the image of item {index} to be a tensor (C, H, W), but got {type(image).__name__}. Give the "
            "dataset a transform that makes a tensor, such as torchvision's ToTensor()."
        )
    classes = torch.as_tensor(given)
    present = classes.bool() if classes.numel() > 1 else None
    mask: Any = rest[0] if rest else None
    if mask is not None and any(is_pets(part) for part in unwrap(dataset)):
        mask = trimap_to_mask(mask)
    elif isinstance(mask, Image.Image):
        try:
            mask = from_image(mask)
        except ValueError as error:
            raise ValueError(f"Cannot read the mask of item {index}. {error}") from error
    elif mask is not None and present is not None and np.shape(mask)[:-2] == present.shape:
        # One mask per class: (K, H, W).
        mask = mask[label]
    transform = find_transform(dataset)
    if isinstance(mask, Tensor) and mask.ndim == 2 and transform is not None:
        # `dataset.transform` is for the image alone. A mask of another size has not gone through it.
        if mask.shape != image.shape[1:] or leaves_masks_untransformed(dataset):
            mask = transform_mask(mask_to_image(mask), transform, seed)
    return Item(image, label, mask, f"item {index}", present)
