"""Masks from what people have: boxes, trimaps, and annotations in the format of COCO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import box_convert

# Oxford-IIIT Pet (Parkhi et al. 2012): 1 is the animal, 2 the background, 3 the rim between them, which shows fur.
_TRIMAP_BACKGROUND = 2


def from_boxes(boxes: Tensor | Sequence[Any], height: int, width: int) -> Tensor:
    """``(height, width)`` bool, True inside any of the boxes.

    Args:
        boxes: ``(4,)`` or ``(B, 4)``: ``x1, y1, x2, y2`` in pixels of the image, counted from its upper left corner; a
            pixel belongs to a box when its centre lies in it. torchvision's ``BoundingBoxes`` in any format.

    Raises:
        ValueError: another shape, values that are not finite, a box that is turned inside out or lies outside.
    """
    corners = torch.as_tensor(_as_corners(boxes), dtype=torch.float64)
    if corners.ndim not in (1, 2) or corners.shape[-1] != 4 or not len(corners):
        raise ValueError(f"Boxes came with shape {tuple(corners.shape)}. Expected (4,) or (B, 4): x1, y1, x2, y2.")
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width)[None] + 0.5
    mask = torch.zeros(height, width, dtype=torch.bool)
    for x1, y1, x2, y2 in corners.reshape(-1, 4).tolist():
        inside = (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)
        if not inside.any():
            raise ValueError(
                f"Box {(x1, y1, x2, y2)} holds no pixel of an image of {width} x {height}. Expected x1 < x2 and "
                "y1 < y2, in pixels."
            )
        mask |= inside
    return mask


def is_box(value: Any) -> bool:
    """Whether something given as a mask is a box ``(4,)`` or boxes ``(B, 4)``: numbers, and not bool as a mask is."""
    given = value if isinstance(value, Tensor) else np.asarray(value)
    shape = tuple(given.shape)
    return given.dtype not in (torch.bool, np.bool_) and (shape == (4,) or (len(shape) == 2 and shape[1] == 4))


def _as_corners(boxes: Any) -> Any:
    if isinstance(boxes, tv_tensors.BoundingBoxes):
        return box_convert(boxes.as_subclass(Tensor), boxes.format.value.lower(), "xyxy")
    return boxes


def from_trimap(trimap: Any) -> Tensor:
    """``(H, W)`` bool from a segmentation target of torchvision's ``OxfordIIITPet``: the animal with its rim."""
    return torch.from_numpy(np.asarray(trimap) != _TRIMAP_BACKGROUND)


def from_picture(picture: Image.Image) -> Tensor:
    """``(H, W)`` bool, True where a black and white picture is light; of one that only holds 0 and 1, where it is 1."""
    levels = np.asarray(picture.convert("L"))
    return torch.from_numpy(levels >= (128 if levels.max() > 1 else 1))
