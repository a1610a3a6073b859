"""Check the arguments of `ProbeSet` and bring them into one form.

Each function raises a ValueError that names the argument, the expected form and the given one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradcam_callback.formatting import name_some
from gradcam_callback.probes.batches import describe_levels, is_channels_last, white_of_mask
from gradcam_callback.probes.labels import hint_at_signs, native_copy, tensor_of
from gradcam_callback.probes.masks import from_boxes, from_image, is_box, without_channel
from gradcam_callback.probes.names import make_storable, make_unique, name_class, number_by_class


def check_count(argument: str, count: Any) -> None:
    """Raise if a number of images is no whole number, or below 1."""
    if not isinstance(count, (int, np.integer)):
        raise ValueError(
            f"Expected `{argument}` to be a whole number, but got {type(count).__name__} {count!r}. Give 1 or more."
        )
    if count < 1:
        raise ValueError(f"Expected `{argument}` to be 1 or more, but got {count}. Give a larger number.")


def check_seed(seed: Any) -> int:
    """Return a seed as Python's own integer, which all random generators take."""
    if not isinstance(seed, (int, np.integer)):
        raise ValueError(
            f"Expected `seed` to be a whole number, but got {type(seed).__name__} {seed!r:.60}. Leave it out for 0."
        )
    return int(seed)


def check_images(images: Any) -> Tensor:
    """Return a copy of the images ``(N, C, H, W)``."""
    if not isinstance(images, Tensor):
        raise ValueError(
            f"Expected `images` to be a tensor (N, C, H, W), but got {type(images).__name__}. Stack the images with "
            "torch.stack."
        )
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(
            f"Expected `images` to have shape (N, C, H, W), but got {tuple(images.shape)}. Give a batch of images with "
            "one pixel or more."
        )
    if not len(images):
        raise ValueError("Expected `images` to hold at least one image, but the probe set is empty. Give one or more.")
    if not images.is_floating_point():
        raise ValueError(
            f"Expected `images` to be floating point, but got {images.dtype}. Apply the validation transform first."
        )
    bad = [str(i) for i, image in enumerate(images) if not bool(image.isfinite().all())]
    if bad:
        raise ValueError(
            f"Expected `images` to be finite, but images [{name_some(bad)}] hold NaN or infinity. Check the files and "
            "the transform."
        )
    return images.detach().to("cpu", copy=True)


def refuse_channels_last(images: Any) -> None:
    """Raise if images look like ``(N, H, W, C)``."""
    if isinstance(images, Tensor) and images.ndim == 4 and is_channels_last(images):
        raise ValueError(
            f"Expected `images` to have shape (N, C, H, W), but {tuple(images.shape)} looks like (N, H, W, C). Give "
            "images.permute(0, 3, 1, 2). If the images are so narrow, and of so many channels, pass "
            "ProbeSet.from_dataset(dataset, batch_transform=...)."
        )


def read_labels(labels: Any) -> Tensor:
    """Return labels in any form as a tensor on the CPU."""
    try:
        given = tensor_of(labels).detach().cpu()
        # torch knows few operations on the larger unsigned integers.
        return given.long() if given.dtype in (torch.uint16, torch.uint32, torch.uint64) else given
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Expected `labels` to be numbers, one class index per image or (N, K) of 0 and 1, but got "
            f"{type(labels).__name__} {labels!r:.60} ({error}). Give each class as its index."
        ) from error


def check_class_names(names: Any) -> list[str] | None:
    """Return the names of the classes as a list."""
    if names is None:
        return None
    if not isinstance(names, (list, tuple, np.ndarray)):
        raise ValueError(
            f"Expected `class_names` to be a list with the name of each class in their order, but got "
            f"{type(names).__name__} {names!r:.60}. Make a list of it, such as list(names.values()) of a dict by index."
        )
    return [name_class(name) for name in names]


def read_names(names: Any) -> list[str] | None:
    """Return the names of the images as a list."""
    if names is None:
        return None
    if isinstance(names, (str, bytes, Mapping, set)) or not isinstance(names, Iterable):
        raise ValueError(
            f"Expected `names` to be a list with one name per image, but got {type(names).__name__} {names!r:.60}. "
            "Make a list of them."
        )
    return [make_storable(name) for name in names]


def repeat_per_class(
    labels: Tensor,
    images: Tensor,
    masks: Tensor | Sequence[Any] | None,
    names: Sequence[str] | None,
    class_names: Sequence[str] | None,
) -> tuple[Tensor, Tensor, Tensor, Sequence[Any] | None, list[str] | None]:
    """Repeat each image once per class that it holds, so that every entry has one label.

    Args:
        labels: ``(N, K)`` of 0 and 1.
        images: ``(N, C, H, W)``.
        masks: one per image, or None. A mask ``(K, H, W)`` has one plane per class.
        names: one per image, or None. If an image holds several classes, each class is appended to its name.
        class_names: the K names, or None.

    Returns:
        All classes of the image ``(M, K)`` bool, the class ``(M,)``, the image ``(M, C, H, W)``, the mask and the name.
        M is the number of pairs of image and class.
    """
    given, n = labels, len(images)
    if len(given) != n or not bool(((given == 0) | (given == 1)).all()) or not bool(given.any()):
        values = f"values {given.min()} to {given.max()}" if given.numel() else "no values"
        raise ValueError(
            f"Expected `labels` to be one class per image, ({n},), or ({n}, K) of 0 and 1 with at least one 1, but got "
            f"shape {tuple(given.shape)} with {values}. Give each image its class, or leave out images without one."
        )
    for argument, per_image in (("masks", masks), ("names", names)):
        if per_image is not None and len(per_image) != n:
            raise ValueError(
                f"Expected `{argument}` to have one entry per image ({n}), but got {len(per_image)}. Give them in the "
                "order of the images."
            )
    rows, classes = given.nonzero(as_tuple=True)
    pairs = list(zip(rows.tolist(), classes.tolist(), strict=True))
    if masks is not None:
        # A mask without a plane per class counts for every class of its image.
        masks = [masks[i][c] if np.shape(masks[i])[:-2] == given.shape[1:] else masks[i] for i, c in pairs]
    renamed = None
    if names is not None:
        # `check_labels` reports a wrong number of class names later. Until then, the class indices serve as names.
        fits = class_names is not None and len(class_names) == given.shape[1]
        words = make_unique(class_names) if class_names is not None and fits else range(given.shape[1])
        renamed = [f"{names[i]} ({words[c]})" if given[i].sum() > 1 else str(names[i]) for i, c in pairs]
    return given[rows].bool(), classes, images[rows], masks, renamed


def check_labels(labels: Any, n: int, class_names: Sequence[str] | None) -> Tensor:
    """Return a copy of the labels ``(n,)``, int64 and on the CPU."""
    given = torch.as_tensor(labels).detach().cpu()
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise ValueError(
            f"Expected `labels` to be integers, one class per image, but got {given.dtype}. Give each class as its "
            "index."
        )
    if given.shape != (n,):
        raise ValueError(
            f"Expected `labels` to have one entry per image, ({n},), but got shape {tuple(given.shape)}. Give them in "
            "the order of the images."
        )
    if int(given.min()) < 0:
        raise ValueError(
            f"Expected `labels` to be class indices from 0, but got {int(given.min())}. Leave out images "
            f"without a class.{hint_at_signs(given.tolist())}"
        )
    if class_names is not None and int(given.max()) >= len(class_names):
        raise ValueError(
            f"Expected `class_names` to name every class, but got {len(class_names)} names for labels up to "
            f"{int(given.max())}. Name all classes in the order of their labels, also those without an image."
        )
    return given.long().clone()


def check_masks(masks: Any, images: Tensor) -> tuple[Tensor | None, Tensor]:
    """Return the masks ``(N, H, W)`` bool, or None without any, and a bool ``(N,)``, True for images with a mask."""
    n, size = len(images), tuple(images.shape[2:])
    has_mask = torch.zeros(n, dtype=torch.bool)
    if masks is None:
        return None, has_mask
    if not hasattr(masks, "__len__"):
        raise ValueError(
            f"Expected `masks` to be (N, H, W), a list with a mask or None per image, 'auto' or None, but got "
            f"{type(masks).__name__}. Make a list of them."
        )
    if len(masks) != n:
        raise ValueError(
            f"Expected `masks` to have one entry per image ({n}), but got {len(masks)}. Give None for an image without "
            "a mask."
        )
    checked = torch.zeros(n, *size, dtype=torch.bool)
    for i, mask in enumerate(masks):
        if mask is not None:
            checked[i] = check_mask(mask, size, argument=f"`masks[{i}]`")
            has_mask[i] = True
    return (checked, has_mask) if bool(has_mask.any()) else (None, has_mask)


def check_mask(mask: Any, size: tuple[int, ...], argument: str) -> Tensor:
    """Return the mask of one image ``(H, W)``, bool; ``argument`` names it in errors."""
    if isinstance(mask, (str, Path)):
        raise ValueError(
            f"Expected {argument} to be a mask or None, but got the text {str(mask)!r}. Open the file: "
            f"PIL.Image.open({str(mask)!r})."
        )
    mask = native_copy(mask) if isinstance(mask, np.ndarray) else mask
    try:
        if isinstance(mask, Image.Image):
            mask = from_image(mask)
        # Numbers of shape (B, 4) are boxes, unless the image itself is B x 4 pixels.
        elif is_box(mask) and tuple(np.shape(mask)) != size:
            mask = from_boxes(mask, *size)
    except ValueError as error:
        raise ValueError(f"Cannot read {argument}. {error}") from error
    try:
        given = torch.as_tensor(mask if isinstance(mask, Tensor) else np.asarray(mask)).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Expected {argument} to be a mask, a PIL.Image, boxes or None, but got {type(mask).__name__} "
            f"{mask!r:.60}. Give a tensor or an array (H, W), True on the object."
        ) from error
    given = without_channel(given, size)
    if tuple(given.shape) != size:
        raise ValueError(
            f"Expected {argument} to have the shape of its image, {size}, but got {tuple(given.shape)}. Transform the "
            "mask like the image. If it is no mask of the object, leave it out with batch_transform=lambda batch: "
            "(images, labels)."
        )
    if given.dtype != torch.bool and white_of_mask(given) is None:
        raise ValueError(
            f"Expected {argument} to be bool, 0 and 1, or 0 and 255 of bytes or floating point, but got "
            f"{describe_levels(given)}. Give True on the object: mask > 0."
        )
    given = given.bool()
    if not bool(given.any()):
        raise ValueError(
            f"Expected {argument} to mark the object, but it marks nothing. Give None for an image without a mask."
        )
    return given


def check_names(names: Sequence[str] | None, class_per_image: Sequence[str]) -> list[str]:
    """Return the names of the images. Without names, number the images of each class.

    Args:
        names: of `read_names`, or None.
        class_per_image: the name of the class of each image.
    """
    if names is None:
        return number_by_class(class_per_image)
    n = len(class_per_image)
    if len(names) != n:
        raise ValueError(
            f"Expected `names` to have one entry per image ({n}), but got {len(names)}. Leave `names` out to number "
            "the images."
        )
    if "" in names:
        raise ValueError(
            "Expected each of `names` to have a character or more, but one is empty. Leave `names` out to number the "
            "images."
        )
    repeated = sorted({repr(name) for name in names if names.count(name) > 1})
    if repeated:
        # Names become tags and files, so one of the images would overwrite the other.
        raise ValueError(
            f"Expected `names` to be unique, but got [{name_some(repeated)}] more than once. Number equal names, or "
            "leave `names` out."
        )
    return list(names)


def check_normalisation(mean: Any, std: Any, channels: int) -> tuple[Tensor | None, Tensor | None]:
    """Return mean and std as tensors ``(C,)``, or None for both."""
    if (mean is None) != (std is None):
        raise ValueError(
            "Expected both `mean` and `std`, or neither, but got only one of them. Give both as the transform has them."
        )
    if mean is None:
        return None, None
    pair = []
    for argument, values in (("mean", mean), ("std", std)):
        try:
            given = tensor_of(values).float().flatten()
        except (TypeError, ValueError, RuntimeError):
            given = torch.empty(0)
        if len(given) not in (1, channels) or not bool(given.isfinite().all()):
            raise ValueError(
                f"Expected `{argument}` to hold one finite number per channel ({channels}), but got {values!r}. Give "
                "it as the transform has it."
            )
        # A single number stands for all channels, as in torchvision's Normalize.
        pair.append(given.expand(channels).clone())
    if bool((pair[1] == 0).any()):
        raise ValueError(f"Expected `std` to hold no 0, but got {std!r}. Give it as the transform has it.")
    return pair[0], pair[1]
