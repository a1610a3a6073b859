"""Find the mask of an item of a dataset, and bring it where the transform has brought its image."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from gradcam_callback.exceptions import GradCAMWarning, UserCodeError
from gradcam_callback.probes.automatic import propose_of_file
from gradcam_callback.probes.batches import find_parts
from gradcam_callback.probes.columns import Boxes, find_boxes, find_mask_column, fit_boxes, name_unread_mask
from gradcam_callback.probes.feed import Sample
from gradcam_callback.probes.lookup import find_class_names, unwrap
from gradcam_callback.probes.masks import from_image, is_box, to_corners
from gradcam_callback.probes.origins import Origin
from gradcam_callback.probes.pets import is_pets, leaves_masks_untransformed, trimap_to_mask
from gradcam_callback.probes.transforms import MaskTransformError, mask_to_image, transform_mask
from gradcam_callback.saliency import Proposal, SaliencyNetwork


def find_mask(origin: Origin, label: int, item: Any, sample: Sample, present: Tensor | None) -> Any:
    """Return the mask of an item in a form that `ProbeSet` takes, or None.

    Raises:
        MaskTransformError: it cannot follow its image.
    """
    mask = sample.mask
    if mask is None and origin.feed.batch_transform is None:
        # Masks of many sizes, or pictures, are left out by most collate functions.
        try:
            mask = find_parts(item, "", batched=False, needs_labels=False).masks
        except ValueError:
            mask = None  # the item has another form than its batch, in which everything else was found
        if mask is None:
            mask = find_mask_column(item, sample.image)
        if mask is None:
            mask = _find_boxes(origin, label, item, sample.image)
        if mask is None:
            _warn_of_unread_mask(item, sample.image)
    return _read_mask(origin, mask, sample.image, label, present)


def propose_mask(origin: Origin, item: Any, network: SaliencyNetwork) -> Proposal | None:
    """Propose a mask from the file of an item; None if the mask would not fit."""
    photograph, transform = origin.open_source(item), origin.transform
    if photograph is None or transform is None:
        return None
    return propose_of_file(network, photograph.convert("RGB"), transform, origin.seed)


def _warn_of_unread_mask(item: Any, image: Tensor) -> None:
    unread = name_unread_mask(item, image)
    if unread is not None:
        warnings.warn(
            f"GradCAM: {unread}, is left out as a mask. Expected bool, a picture, or 0 and 1 of the image's size "
            f"{tuple(image.shape[-2:])}. Transform it like the image, or give it another name.",
            GradCAMWarning,
            stacklevel=2,
        )


def _find_boxes(origin: Origin, label: int, item: Any, image: Tensor) -> Tensor | None:
    """Return the boxes in the columns of an item, in pixels of its image; None without any, or if they may not fit."""
    if find_boxes(item, "") is None:
        return None
    found = find_class_names(origin.dataset)
    is_named = found is not None and found.fit(origin.index, [label]) and label < len(found.names)
    boxes = find_boxes(item, found.names[label] if found is not None and is_named else "")
    try:
        fitted = None if boxes is None else _fit(origin, boxes, image)
    except UserCodeError:
        # The user's transform may need more than an image.
        fitted = None
    if fitted is None:
        warnings.warn(
            "GradCAM: boxes in item['objects'] are left out. They belong to the untransformed image, whose size or "
            "transform is not known. Give them as torchvision.tv_tensors.BoundingBoxes in pixels of the transformed "
            "image.",
            GradCAMWarning,
            stacklevel=2,
        )
    return fitted


def _fit(origin: Origin, boxes: Boxes, image: Tensor) -> Tensor | None:
    try:
        if boxes.size is not None:
            origin.check_steps(boxes.size)
        return fit_boxes(boxes, image, origin.transform, origin.seed, origin.open)
    except (MaskTransformError, UserCodeError):
        raise
    except ValueError as error:
        raise ValueError(f"Cannot read the boxes of item {origin.index}. {error}") from error


def _read_mask(origin: Origin, mask: Any, image: Tensor, label: int, present: Tensor | None) -> Any:
    """Bring the mask of an item into a form that `ProbeSet` takes, with the geometry of its image."""
    if mask is None:
        return None
    part, transform, size = origin.part, origin.transform, image.shape[1:]
    if any(is_pets(inner) for inner in unwrap(part)):
        mask = trimap_to_mask(mask)
    elif isinstance(mask, Image.Image):
        try:
            mask = from_image(mask)
        except ValueError as error:
            raise ValueError(f"Cannot read the mask of item {origin.index}. {error}") from error
    elif present is not None and np.shape(mask)[:-2] == present.shape:
        # One mask per class: (K, H, W).
        mask = mask[label]
    if isinstance(mask, tv_tensors.BoundingBoxes) and transform is not None and mask.canvas_size != tuple(size):
        # `dataset.transform` is for the image alone, and the boxes have not gone through it.
        mask = _fit(origin, Boxes(to_corners(mask), mask.canvas_size[::-1]), image)
    elif isinstance(mask, Tensor) and mask.ndim == 2 and not is_box(mask, size) and transform is not None:
        # `dataset.transform` is for the image alone. A mask of another size has not gone through it.
        if mask.shape != size or leaves_masks_untransformed(part):
            drawn = mask_to_image(mask)
            origin.check_steps(drawn.size)
            mask = transform_mask(drawn, transform, origin.seed, origin.open)
    return mask
