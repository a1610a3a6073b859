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
# The label in Pascal VOC, and in the tools that write as it does, of the rim around objects and of what is neither.
_VOID = 255
# White in a mask of 0 and 1, of 8 bits and of 16.
_WHITES = (1, 255, 65535)


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


def from_image(picture: Image.Image) -> Tensor:
    """``(H, W)`` bool, True on the object that a picture marks: white on black, or labels with colours.

    White is the least of 1, 255 and 65535 that no level exceeds, so masks of 0 and 1 and of 8 and 16 bits are read as
    they are meant, and the object is where a level is above half of it. Of a palette with colours, as Pascal VOC's and
    that of most annotation tools, the indices are labels: the object is every one but 0, the background, and 255, VOC's
    void. What is more than half transparent is background.

    Raises:
        ValueError: levels below 0 or above 65535; levels that look like labels with void, of which only the void would
            be light; a palette with colours whose first is not black, as a background is.
    """
    deep = picture.mode.startswith(("I", "F"))
    marked = _labelled(picture) if picture.mode == "P" else None
    if marked is None:
        levels = np.asarray(picture if deep else picture.convert("L"))
        white = next((white for white in _WHITES if levels.max() <= white), None)
        if white is None or not levels.min() >= 0:
            raise ValueError(f"Its levels go from {levels.min()} to {levels.max()}. Expected black and white.")
        marked = levels > white / 2
        grey = levels[(levels > 0) & (levels < white)]
        if white == _VOID and levels.max() == _VOID and grey.size and not (grey > white / 2).any():
            raise ValueError(
                f"Its levels are {[0, *np.unique(grey).tolist(), _VOID]}: labels and VOC's void, rather than black and "
                "white with soft edges. Expected white on the object alone, or 0 and 1."
            )
    if picture.has_transparency_data and not deep:
        marked = marked & (np.asarray(picture.convert("RGBA"))[..., 3] >= 128)
    return torch.from_numpy(marked)


def _labelled(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
    """Where the indices of a palette's picture are labels of objects; None where the colours in it are all grey."""
    colours = np.asarray(picture.convert("RGBA"))[..., :3]
    if not np.ptp(colours, axis=2).any():
        return None
    if any((picture.getpalette("RGB") or [])[:3]):
        raise ValueError(
            "Its palette has colours and does not begin with black. Expected black and white, or labels with 0, black, "
            "for the background."
        )
    labels = np.asarray(picture)
    marked: np.ndarray[Any, np.dtype[np.bool_]] = (labels != 0) & (labels != _VOID)
    return marked
