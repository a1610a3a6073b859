"""Make bool masks from boxes and from mask images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import box_convert

# The label of object outlines and of unlabelled pixels in Pascal VOC and in many annotation tools.
_VOID = 255
# White in a mask of 0 and 1, of 8 bits and of 16 bits.
_WHITES = (1, 255, 65535)


def from_boxes(boxes: Tensor | Sequence[Any], height: int, width: int) -> Tensor:
    """Make a mask that is True inside any of the boxes.

    Args:
        boxes: ``(4,)`` or ``(B, 4)`` as ``x1, y1, x2, y2`` in pixels from the upper left corner of the image. A pixel
            belongs to a box if its centre lies inside. torchvision's ``BoundingBoxes`` may have any format.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        ``(height, width)`` bool.

    Raises:
        ValueError: the boxes have another shape, or a box holds no pixel: its corners are swapped, it lies outside of
            the image, or its values are not finite.

    Examples:
        >>> from gradcam_callback.probes import from_boxes
        >>> from_boxes([1, 0, 3, 2], height=3, width=4).int().tolist()
        [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    corners: Any = boxes
    if isinstance(boxes, tv_tensors.BoundingBoxes):
        corners = box_convert(boxes.as_subclass(Tensor), boxes.format.value.lower(), "xyxy")
    corners = torch.as_tensor(corners, dtype=torch.float64)
    if corners.ndim not in (1, 2) or corners.shape[-1] != 4 or not len(corners):
        raise ValueError(
            f"Expected `boxes` to have shape (4,) or (B, 4), but got {tuple(corners.shape)}. Give x1, y1, x2, y2 of "
            "each box, in pixels."
        )
    # The centres of the pixels. A centre on the edge between two boxes belongs to one of them.
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width)[None] + 0.5
    mask = torch.zeros(height, width, dtype=torch.bool)
    for x1, y1, x2, y2 in corners.reshape(-1, 4).tolist():
        inside = (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)
        if not inside.any():
            raise ValueError(
                f"Expected each box to hold a pixel of the image ({width} x {height}), but got {(x1, y1, x2, y2)}. "
                "Give x1 < x2 and y1 < y2, in pixels of the image as the model takes it."
            )
        mask |= inside
    return mask


def is_box(value: Any) -> bool:
    """Return True if a value has the shape of a box ``(4,)`` or of boxes ``(B, 4)`` and is not bool, as masks are."""
    given = value if isinstance(value, Tensor) else np.asarray(value)
    shape = tuple(given.shape)
    return given.dtype not in (torch.bool, np.bool_) and (shape == (4,) or (len(shape) == 2 and shape[1] == 4))


def from_image(image: Image.Image) -> Tensor:
    """Make a mask from a black and white image, or from an image of labels with a palette.

    - Black and white: the object is where a level is above half of white. White is the smallest of 1, 255 and 65535
      that no level exceeds, which fits masks of 0 and 1, of 8 bits and of 16 bits.
    - Labels, as Pascal VOC and most annotation tools write them: the palette has colours, and its indices are labels.
      The object is every label except 0, the background, and 255, the void of VOC.

    A pixel that is more than half transparent is background.

    Returns:
        ``(H, W)`` bool, True on the object.

    Raises:
        ValueError: the levels are below 0 or above 65535; they look like labels with void but have no palette; or the
            palette has colours and does not start with black.
    """
    deep = image.mode.startswith(("I", "F"))
    marked = _read_labels(image) if image.mode == "P" else None
    if marked is None:
        marked = _read_black_and_white(np.asarray(image if deep else image.convert("L")))
    if image.has_transparency_data and not deep:
        marked = marked & (np.asarray(image.convert("RGBA"))[..., 3] >= 128)
    return torch.from_numpy(marked)


def _read_labels(image: Image.Image) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
    """Return True at the labels of objects, or None if the palette is grey and its indices are no labels."""
    colours = np.asarray(image.convert("RGBA"))[..., :3]
    if not np.ptp(colours, axis=2).any():
        return None
    if any((image.getpalette("RGB") or [])[:3]):
        raise ValueError(
            "Expected the palette of a mask to start with black for the background, but it starts with another colour. "
            "Save the mask in black and white, or with label 0 in black."
        )
    labels = np.asarray(image)
    marked: np.ndarray[Any, np.dtype[np.bool_]] = (labels != 0) & (labels != _VOID)
    return marked


def _read_black_and_white(levels: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return True at the levels above half of white."""
    white = next((white for white in _WHITES if levels.max() <= white), None)
    # Written so that NaN fails, too.
    if white is None or not levels.min() >= 0:
        raise ValueError(
            f"Expected levels of 0 to 1, 255 or 65535 in a mask, but got {levels.min()} to {levels.max()}. Save the "
            "mask in black and white."
        )
    marked: np.ndarray[Any, np.dtype[np.bool_]] = levels > white / 2
    grey = levels[(levels > 0) & (levels < white)]
    # Soft edges have light greys, too. Labels without a palette are all dark: only their void would be the object.
    if white == _VOID and levels.max() == _VOID and grey.size and not (grey > white / 2).any():
        raise ValueError(
            f"Expected a mask in black and white, but its levels {[0, *np.unique(grey).tolist(), _VOID]} look like "
            "labels and the void of VOC. Save only the object in white, or save the mask as 0 and 1."
        )
    return marked
