"""Probe images out of a dataset: items of each class, and what a dataset knows of itself."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence, Sized
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import OxfordIIITPet

from gradcam_callback.probes import masks
from gradcam_callback.probes.image_files import Item, Transform, mask_to_image, transformed_mask
from gradcam_callback.random_state import preserved_random_state, seed_everything


def find_normalisation(source: Any) -> tuple[list[float] | None, list[float] | None]:
    """Mean and std of the torchvision ``Normalize`` (v1 or v2) in a transform, or in a dataset's, however wrapped.

    Also finds the presets that come with torchvision's weights, which hold ``mean`` and ``std`` themselves.
    """
    for part in _walk(source):
        mean, std = getattr(part, "mean", None), getattr(part, "std", None)
        if type(part).__module__.startswith("torchvision.transforms") and mean is not None and std is not None:
            return [float(value) for value in mean], [float(value) for value in std]
    return None, None


def _walk(source: Any, depth: int = 0) -> Iterator[Any]:
    """A dataset or transform and everything wrapped in it, by the names that torch and torchvision use."""
    if source is None or depth > 8:
        return
    yield source
    inner: list[Any] = [getattr(source, name, None) for name in ("transform", "dataset")]
    for name in ("transforms", "datasets"):
        value = getattr(source, name, None)
        inner += value if isinstance(value, (list, tuple)) else [value]
    for part in inner:
        yield from _walk(part, depth + 1)


def find_transform(dataset: Any) -> Transform | None:
    """What makes a tensor of a dataset's picture, however the dataset is wrapped."""
    return next((part.transform for part in _walk(dataset) if callable(getattr(part, "transform", None))), None)


def find_class_names(dataset: Any) -> list[str] | None:
    for part in _walk(dataset):
        names = getattr(part, "bin_classes" if _class_of_pets(part) == "binary-category" else "classes", None)
        if isinstance(names, (list, tuple)) and names:
            return [str(name) for name in names]
    return None


def _class_of_pets(dataset: Any) -> str | None:
    """What torchvision's ``OxfordIIITPet`` gives as the class, ``"category"`` or ``"binary-category"``: cat or dog."""
    return (getattr(dataset, "_target_types", None) or [None])[0] if isinstance(dataset, OxfordIIITPet) else None


def choose_items(
    dataset: Any, per_class: int, seed: int, max_images: int | None, max_scanned: int | None
) -> list[Item]:
    """``per_class`` items of each class of a map-style dataset; see `ProbeSet.from_dataset`."""
    if per_class < 1:
        raise ValueError(f"per_class is {per_class}. Expected 1 or more.")
    if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
        raise ValueError(
            f"A {type(dataset).__name__} has no length or no items by index. Expected a map-style dataset; from "
            "an iterable one take the images yourself and pass ProbeSet(images, labels)."
        )
    if not len(dataset):
        raise ValueError("The dataset is empty. Expected at least one item (image, label).")
    with preserved_random_state():
        order = random.Random(seed).sample(range(len(dataset)), len(dataset))
        pairs = _labels_of(dataset, order, max_scanned)
        # Where every item has just one of its classes, they are one-hot rather than several.
        one_each = [index for index, _ in pairs] == order[: len(pairs)] and len(pairs) >= len(order[:max_scanned])
        items = []
        for index, label in choose(pairs, per_class, max_images):
            # Seeded, an augmenting transform gives the same picture every time.
            item = _item(dataset, index, label, seed + index)
            items.append(item._replace(present=None) if one_each else item)
    if not items:
        raise ValueError("None of the items that were read holds any class. Expected labels that are not all 0.")
    return items


def _labels_of(dataset: Any, order: Sequence[int], max_scanned: int | None) -> list[tuple[int, int]]:
    """Pairs of index and label, in the order given, without loading an image where the labels can be had alone."""
    targets = _targets(dataset)
    if targets is not None:
        return [(index, int(targets[index])) for index in order]
    return [
        (index, label) for index in order[:max_scanned] for label in _classes_of(_parts(dataset, index, 0)[1], index)
    ]


def _classes_of(label: Any, index: int) -> list[int]:
    """An item's class, or its several classes."""
    given = torch.as_tensor(label)
    # The binary losses of torch take labels as floating point.
    whole = not given.is_complex() and bool((given == given.round()).all())
    if whole and given.numel() == 1:
        return [int(given)]
    if whole and given.ndim == 1 and bool(((given == 0) | (given == 1)).all()):
        return [int(found) for found in given.nonzero()[:, 0]]
    raise ValueError(f"The label of item {index} is {label!r}. Expected one integer class, or (K,) of 0 and 1.")


def _targets(dataset: Any) -> Any:
    targets = getattr(dataset, "targets", None)
    if isinstance(dataset, OxfordIIITPet):
        # Torchvision keeps them to itself; should it call them otherwise one day, they are read from the items.
        own = {"category": "_labels", "binary-category": "_bin_labels"}
        targets = getattr(dataset, own.get(_class_of_pets(dataset) or "", ""), None)
    if isinstance(targets, (list, tuple, np.ndarray, Tensor)) and len(targets) == len(dataset):
        # Only plain class indices: detection datasets call whole annotations targets.
        if all(isinstance(value, (int, np.integer)) or getattr(value, "ndim", 1) == 0 for value in targets):
            return targets if getattr(dataset, "target_transform", None) is None else None
    if isinstance(dataset, torch.utils.data.Subset):
        inner = _targets(dataset.dataset)
        return None if inner is None else [int(inner[index]) for index in dataset.indices]
    return None


def choose(pairs: Sequence[tuple[int, int]], per_class: int, max_images: int | None) -> list[tuple[int, int]]:
    """Of pairs of index and label the first of each label; no index twice, as long as there are enough."""
    by_class: dict[int, list[int]] = {}
    for index, label in pairs:
        by_class.setdefault(label, []).append(index)
    classes = sorted(by_class)
    if max_images is not None:
        per_class = min(per_class, max_images)
        room = max_images // per_class
        if len(classes) > room:
            classes = [classes[round(i * (len(classes) - 1) / max(room - 1, 1))] for i in range(room)]
    chosen: list[tuple[int, int]] = []
    for label in classes:
        taken = {index for index, _ in chosen}
        fresh_first = sorted(by_class[label], key=lambda index: index in taken)
        chosen += [(index, label) for index in fresh_first[:per_class]]
    return chosen


def _parts(dataset: Any, index: int, seed: int) -> tuple[Any, ...]:
    """Image, label and, where there is one, mask."""
    seed_everything(seed)
    item = dataset[index]
    if not isinstance(item, (tuple, list)) or len(item) not in (2, 3):
        raise ValueError(
            f"Item {index} of the dataset is a {type(item).__name__}. Expected (image, label) or (image, label, mask); "
            "from another form take the images yourself and pass ProbeSet(images, labels)."
        )
    if len(item) == 2 and isinstance(item[1], (tuple, list)) and len(item[1]) == 2 and len(np.shape(item[1][1])) > 1:
        return (item[0], *item[1])  # (image, (label, mask)), as torchvision's datasets give several targets
    return tuple(item)


def _item(dataset: Any, index: int, label: int, seed: int) -> Item:
    image, given, *rest = _parts(dataset, index, seed)
    if not isinstance(image, Tensor):
        raise ValueError(
            f"The image of item {index} is a {type(image).__name__}. Expected a tensor (C, H, W): give the dataset a "
            "transform that makes one."
        )
    classes = torch.as_tensor(given)
    present = classes.bool() if classes.numel() > 1 else None
    mask: Any = rest[0] if rest else None
    if mask is not None and any(isinstance(part, OxfordIIITPet) for part in _walk(dataset)):
        mask = masks.from_trimap(mask)
    elif isinstance(mask, Image.Image):
        mask = masks.from_image(mask)
    elif mask is not None and present is not None and np.shape(mask)[:-2] == present.shape:
        mask = mask[label]
    transform = find_transform(dataset)
    if isinstance(mask, Tensor) and mask.ndim == 2 and transform is not None:
        # The dataset's transform was for the image alone.
        if mask.shape != image.shape[1:] or _leaves_masks_alone(dataset):
            mask = transformed_mask(mask_to_image(mask), transform, seed)
    return Item(image, label, mask, f"item {index}", present)


def _leaves_masks_alone(dataset: Any) -> bool:
    """Whether masks are surely as they were, even one that happens to have the size of its transformed image."""
    while isinstance(dataset, torch.utils.data.Subset):
        dataset = dataset.dataset
    return isinstance(dataset, OxfordIIITPet) and dataset.transform is not None and dataset.target_transform is None
