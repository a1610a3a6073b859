"""Find the mask of an item of a dataset, and bring it where the transform has brought its image."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from gradcam_callback.exceptions import GradCAMWarning, UserCodeError
from gradcam_callback.probes.automatic import propose_of_file
from gradcam_callback.probes.batches import describe_levels, find_parts, replace_part, to_numeric
from gradcam_callback.probes.checks import check_mask
from gradcam_callback.probes.columns import (
    Boxes,
    find_boxes,
    find_mask_column,
    find_picture,
    find_unread_masks,
    fit_boxes,
    name_place,
)
from gradcam_callback.probes.feed import Sample
from gradcam_callback.probes.lookup import find_class_names, unwrap
from gradcam_callback.probes.masks import from_image, is_box, to_corners, without_channel
from gradcam_callback.probes.origins import Origin, PictureOrigin
from gradcam_callback.probes.pets import is_pets, is_trimap, leaves_masks_untransformed, trimap_to_mask
from gradcam_callback.probes.transforms import MaskTransformError, mask_to_image, transform_mask
from gradcam_callback.saliency import Proposal, SaliencyNetwork

# A picture is smaller than its transformed image by less than this in its shorter side.
_LEAST_SIZE = 4
_LOST_BOXES = (
    "boxes in item['objects'] are left out. They belong to the untransformed image, whose size or transform is not "
    "known. Give them as torchvision.tv_tensors.BoundingBoxes in pixels of the transformed image."
)


class FoundMask(NamedTuple):
    """The mask of an item.

    Attributes:
        mask: in a form that `ProbeSet` takes, or None.
        unread: the name and form of a value that looks like a mask, but is none for certain; None without.
        problem: why its mask or boxes are left out, in words; None if they are not. Many items may have the same.
    """

    mask: Any
    unread: str | None = None
    problem: str | None = None


def find_mask(origin: Origin, label: int, item: Any, sample: Sample, present: Tensor | None) -> FoundMask:
    """Find the mask of an item.

    Raises:
        MaskTransformError: it cannot follow its image.
        ValueError: it cannot be read, or does not fit. If the item has it, but its batch does not, the training does
            without it, so it is left unread.
    """
    if sample.mask is not None or origin.feed.batch_transform is not None:
        return FoundMask(_read_mask(origin, sample.mask, sample.image, label, present))
    # Masks of many sizes, or pictures, are left out by most collate functions.
    origin, mask = _find_in_item(origin, item, sample.image)
    place, form = ("item['objects']", "boxes") if mask is None else (name_place(item, mask), describe_levels(mask))
    try:
        if mask is None:
            read = _find_boxes(origin, label, item, sample.image)
        else:
            read = _read_mask(origin, mask, sample.image, label, present)
        _check_fit(read, sample.image, origin.index)
    except MaskTransformError as error:
        raise MaskTransformError(f"Cannot use {place}. {error}") from error
    except ValueError:
        if origin.feed.collate is None:
            raise
        return FoundMask(None, f"{place}, {form}")
    if read is not None:
        return FoundMask(read)
    has_boxes = mask is None and find_boxes(item, "") is not None
    return _find_untransformed(origin, item, sample.image)._replace(problem=_LOST_BOXES if has_boxes else None)


def find_unread(sample: Sample) -> FoundMask:
    """Find what looks like a mask in the batch of one image, but was not read as one."""
    if sample.mask is not None:
        return FoundMask(sample.mask)
    size = sample.image.shape[1:]
    for name, value, is_named in find_unread_masks(sample.row, "batch"):
        if is_named or (value is not None and value.shape[-2:] == size):
            return FoundMask(None, name)
    return FoundMask(None)


def _find_in_item(origin: Origin, item: Any, image: Tensor) -> tuple[Origin, Any]:
    """Return a mask that stands in an item, None without any, and the origin of the image that it belongs to."""
    picture = find_picture(item)
    if picture is not None:
        origin = PictureOrigin(**vars(origin), item=item, picture=picture, image=image)
        # A tensor of its size stands for the picture.
        image = torch.zeros(3, picture.height, picture.width)
        item = replace_part(item, picture, image)
    try:
        mask = find_parts(item, "", batched=False, needs_labels=False).masks
    except ValueError:
        mask = None  # the item has another form than its batch, in which everything else was found
    return origin, find_mask_column(item, image) if mask is None else mask


def propose_mask(origin: Origin, item: Any, network: SaliencyNetwork) -> Proposal | None:
    """Propose a mask from the file of an item; None if the mask would not fit."""
    photograph, transform = origin.open_source(item), origin.transform
    if photograph is None or transform is None:
        return None
    return propose_of_file(network, photograph.convert("RGB"), transform, origin.seed)


def warn_of_unread(found: Sequence[FoundMask], size: Sequence[int], transformed: bool) -> None:
    """Warn of values that look like masks, but are none for certain, and once of each problem.

    Args:
        found: what was found in each item. Without unread values there is no warning.
        size: height and width of the images.
        transformed: True if the dataset has a transform that masks can go through.
    """
    for problem in dict.fromkeys(one.problem for one in found if one.problem is not None):
        warnings.warn(f"GradCAM: {problem}", GradCAMWarning, stacklevel=2)
    unread = [one.unread for one in found if one.unread is not None]
    if unread:
        through = ", or give it as bool or as a PIL.Image, to go through `dataset.transform`" if transformed else ""
        warnings.warn(
            f"GradCAM: {unread[0]}, is left out as a mask, in {len(unread)} of {len(found)} items. Expected "
            f"bool, a black and white PIL.Image, or 0 and 1, of the image's size {tuple(size)}. Transform it like the "
            f"image{through}. Of numbers of classes, give mask > 0. If it is no mask, leave it out, or give it another "
            "name.",
            GradCAMWarning,
            stacklevel=2,
        )


def _find_untransformed(origin: Origin, item: Any, image: Tensor) -> FoundMask:
    """Find a mask that has not gone through the transform, and whose type does not tell that it is one.

    It holds two values, and has the size of the photograph. If this is not known, the mask is called one, or is black
    and white. Everything else may be a depth map, labels, or no picture at all.
    """
    columns, size = find_unread_masks(item), tuple(image.shape[1:])
    photograph = origin.open() if columns else None
    unread = None
    for name, value, is_named in columns:
        if value is None:  # a picture, or no numbers at all
            unread = unread or name
            continue
        given = without_channel(value, size)
        is_black_and_white = _has_two_values(given, 255)
        has_two_values = given.ndim == 2 and (is_black_and_white or _has_two_values(given, 1))
        has_size = photograph is not None and tuple(given.shape) == photograph.size[::-1]
        is_certain = has_size if photograph is not None else is_named or (is_black_and_white and bool(given.any()))
        if has_two_values and is_certain and tuple(given.shape) != size and origin.transform is not None:
            try:
                return FoundMask(_follow(origin, given))
            except UserCodeError:
                pass  # the user's transform may need more than an image
        # A small table of 0 and 1 is no picture.
        is_picture = has_two_values and bool(given.any()) and min(given.shape) * _LEAST_SIZE >= min(size)
        if is_named or has_size or is_picture or tuple(given.shape[-2:]) == size:
            unread = unread or name
    return FoundMask(None, unread)


def _has_two_values(values: Tensor, white: int) -> bool:
    return not values.is_complex() and bool(((values == 0) | (values == white)).all())


def _follow(origin: Origin, mask: Tensor) -> Tensor:
    """Send a mask of the untransformed image through the transform."""
    assert origin.transform is not None
    drawn = mask_to_image(mask)
    origin.check_steps(drawn.size)
    return transform_mask(drawn, origin.transform, origin.seed, origin.open)


def _find_boxes(origin: Origin, label: int, item: Any, image: Tensor) -> Tensor | None:
    """Return the boxes in the columns of an item, in pixels of its image; None without any, or if they may not fit."""
    if find_boxes(item, "") is None:
        return None
    found = find_class_names(origin.dataset)
    is_named = found is not None and found.fit(origin.index, [label]) and label < len(found.names)
    boxes = find_boxes(item, found.names[label] if found is not None and is_named else "")
    try:
        return None if boxes is None else _fit(origin, boxes, image)
    except UserCodeError:
        # The user's transform may need more than an image.
        return None


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
    # Here, too, the size does not show it.
    is_untransformed = isinstance(origin, PictureOrigin) or leaves_masks_untransformed(part)
    if any(is_pets(inner) for inner in unwrap(part)) and is_trimap(mask):
        mask = trimap_to_mask(mask)
    elif isinstance(mask, Image.Image):
        try:
            mask = from_image(mask)
        except ValueError as error:
            raise ValueError(f"Cannot read the mask of item {origin.index}. {error}") from error
    elif present is not None and np.shape(mask)[:-2] == present.shape:
        # One mask per class: (K, H, W).
        mask = mask[label]
    numbers = None if isinstance(mask, tv_tensors.BoundingBoxes) else to_numeric(mask)
    mask = mask if numbers is None else without_channel(numbers, size)
    if (
        isinstance(mask, tv_tensors.BoundingBoxes)
        and transform is not None
        and (is_untransformed or mask.canvas_size != tuple(size))
    ):
        # `dataset.transform` is for the image alone, and the boxes have not gone through it.
        mask = _fit(origin, Boxes(to_corners(mask), mask.canvas_size[::-1]), image)
    elif isinstance(mask, Tensor) and mask.ndim == 2 and not is_box(mask, size) and transform is not None:
        # `dataset.transform` is for the image alone. A mask of another size has not gone through it.
        if is_untransformed or mask.shape != size:
            mask = _follow(origin, mask)
    return mask


def _check_fit(mask: Any, image: Tensor, index: int) -> None:
    """Raise if a mask cannot belong to its image. One that marks nothing may: the image may show no object."""
    if mask is not None and not (isinstance(mask, Tensor) and not mask.any()):
        check_mask(mask, tuple(image.shape[1:]), f"the mask of item {index}")
