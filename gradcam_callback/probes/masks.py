"""Make bool masks from boxes, from mask images and from cut-outs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import max_pool2d
from torchvision import tv_tensors
from torchvision.ops import box_convert

from gradcam_callback.exceptions import GradCAMWarning
from gradcam_callback.formatting import name_some, percent

# The label of object outlines and of unlabelled pixels in Pascal VOC and in many annotation tools.
_VOID = 255
# White in a mask of 0 and 1, of 8 bits and of 16 bits.
_WHITES = (1, 255, 65535)
# The same void in images of coloured labels, as CVAT and VOC write them, and in those that were made grey.
_VOID_COLOUR, _VOID_GREY = (224, 224, 192), 220
# A coloured image of more colours is a photograph, or it was painted with soft edges. Greys differ less in a channel.
_MOST_COLOURS, _LEAST_CHROMA = 256, 32
# Alpha is nearly clear or nearly solid up to and from these levels. It cuts an object out if each has this share of the
# image, and both together have most of it.
_CLEAR, _SOLID, _LEAST_SHARE, _LEAST_EXTREME = 16, 240, 0.02, 0.75
# The largest share of a mask between a quarter and three quarters of white. Soft edges have less, photographs more.
_MOST_GREY = 0.25
# Levels from `_DARK` to half of white are dark greys. Those of a label lie within `_SPREAD` of one level, also in JPEG,
# and around most of its pixels they are even. White is the void of labels if even greys fill more than the first share
# of it, and the second share of all dark greys lies at one level. Soft edges have all levels, and JPEG's noise is not
# even: of 3,800 drawn masks none was taken for labels, and 9 of 10 images of labels were found.
_DARK, _SPREAD, _LEAST_EVEN, _LEAST_AT_ONE = 8, 6, 0.25, 0.4

_Array = np.ndarray[Any, np.dtype[np.bool_]]


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
        ValueError: the boxes have another shape, or a box holds no pixel. Such a box has swapped corners, lies outside
            of the image, or has values that are not finite.

    Examples:
        >>> from gradcam_callback.probes import from_boxes
        >>> from_boxes([1, 0, 3, 2], height=3, width=4).int().tolist()
        [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    corners = to_corners(boxes)
    # The centres of the pixels. A centre on the edge between two boxes belongs to one of them.
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width)[None] + 0.5
    mask = torch.zeros(height, width, dtype=torch.bool)
    for x1, y1, x2, y2 in corners:
        inside = (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)
        if not inside.any():
            raise ValueError(
                f"Expected each box to hold a pixel of the image ({width} x {height}), but got {(x1, y1, x2, y2)}. "
                "Give x1 < x2 and y1 < y2, in pixels of this image."
            )
        mask |= inside
    return mask


def to_corners(boxes: Tensor | Sequence[Any]) -> list[tuple[float, float, float, float]]:
    """Return ``x1, y1, x2, y2`` of each box, see `from_boxes`.

    Raises:
        ValueError: the boxes have another shape.
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
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in corners.reshape(-1, 4).tolist()]


def is_box(value: Any, size: Sequence[int] | None = None) -> bool:
    """Return True if a value has the shape of a box ``(4,)`` or of boxes ``(B, 4)`` and is not bool, as masks are.

    Args:
        value: a mask in any form, or None.
        size: height and width of the image. A value of this shape is a mask.
    """
    if value is None or isinstance(value, Image.Image):
        return False
    given = value if isinstance(value, Tensor) else np.asarray(value)
    shape = tuple(given.shape)
    box_like = shape == (4,) or (len(shape) == 2 and shape[1] == 4)
    return given.dtype not in (torch.bool, np.bool_) and box_like and (size is None or shape != tuple(size))


def without_channel(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Return a mask ``(1, H, W)`` or ``(H, W, 1)`` as ``(H, W)``, and one of any other shape as it is.

    Args:
        mask: the mask.
        size: height and width of its image, which tell where the channel is if both ends may be one.
    """
    if mask.ndim != 3 or 1 not in (mask.shape[0], mask.shape[-1]):
        return mask
    return mask[..., 0] if mask.shape[0] != 1 or tuple(mask.shape[:2]) == tuple(size) else mask[0]


def from_image(image: Image.Image) -> Tensor:
    """Make a mask from a black and white image, an image of labels, or a cut-out.

    - Black and white: the object is where a level is above half of white. White is the smallest of 1, 255 and 65535
      that no level exceeds. This fits masks of 0 and 1, of 8 bits and of 16 bits.
    - Labels with a palette, as Pascal VOC and most annotation tools write them: its colours stand for indices. The
      object is every index except 0, the background, and 255, the void of VOC.
    - Labels in colour, as CVAT writes them: the object is every colour except black and the void of VOC.
    - A cut-out: if alpha cuts an object out of a photograph, the object is where it is opaque.

    A pixel that is more than half transparent is background.

    Returns:
        ``(H, W)`` bool, True on the object.

    Raises:
        ValueError: the levels are below 0 or above 65535, look like labels with void but have no palette, or are grey
            as in a photograph. Or the palette has colours and does not start with black, or coloured labels have no
            black.
    """
    cut = cut_out(image)
    if cut is not None and not is_black_and_white(image):
        return cut
    deep = image.mode.startswith(("I", "F"))
    marked = _read_labels(image) if image.mode == "P" else _read_coloured(image)
    if marked is None:
        marked = _read_black_and_white(np.asarray(image if deep else image.convert("L")))
    if image.has_transparency_data and not deep:
        marked = marked & (_alpha(image) >= 128)
    return torch.from_numpy(marked)


def from_lossy_image(image: Image.Image) -> Tensor:
    """Make a mask from a black and white image that was saved as JPEG, which adds levels of grey along edges.

    Raises:
        ValueError: much of it is grey: it is a photograph, or an image of labels, which JPEG does not keep.
    """
    return torch.from_numpy(_cut_levels(np.asarray(image.convert("L")), 255))


def cut_out(image: Image.Image) -> Tensor | None:
    """Return where a cut-out is opaque as a mask ``(H, W)`` bool.

    Returns:
        None if the image has no alpha, or if alpha does not cut anything out. It does not if nearly all of it is opaque
        or transparent, much of it lies between, or it only takes corners off (`looks_inverted`).
    """
    if not image.has_transparency_data or image.mode.startswith(("I", "F")):
        return None
    alpha = _alpha(image)
    clear, solid = float((alpha < _CLEAR).mean()), float((alpha >= _SOLID).mean())
    if min(clear, solid) < _LEAST_SHARE or clear + solid < _LEAST_EXTREME:
        return None
    opaque = torch.from_numpy(alpha >= 128)
    return None if looks_inverted(opaque) else opaque


def looks_inverted(mask: Tensor) -> bool:
    """Return True if a mask ``(H, W)`` fills more than half of its image and touches all four sides."""
    sides = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return bool(mask.float().mean() > 0.5) and all(bool(side.any()) for side in sides)


def warn_of_inverted(names: Sequence[str]) -> None:
    """Warn of masks that look inverted.

    Args:
        names: of the masks' files or items; without any there is no warning.
    """
    if names:
        warnings.warn(
            "GradCAM: these masks look inverted, as they fill more than half of the image and touch all four sides: "
            f"{name_some(names)}. An inverted mask keeps the background and loses the object. Invert the masks if they "
            "are black on the object.",
            GradCAMWarning,
            stacklevel=2,
        )


def _alpha(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(image.convert("RGBA").getchannel("A"))


def is_black_and_white(image: Image.Image) -> bool:
    """Return True if all that is opaque is black or white, with some of each: a painted mask, and no photograph."""
    levels = np.asarray(image.convert("RGBA").convert("RGB"))[_alpha(image) >= 128]
    black, white = float((levels <= 8).all(axis=1).mean()), float((levels >= 247).all(axis=1).mean())
    return black + white > 0.99 and min(black, white) > 0


def _read_labels(image: Image.Image) -> _Array | None:
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
    return np.asarray((labels != 0) & (labels != _VOID))


def _read_coloured(image: Image.Image) -> _Array | None:
    """Return True at the coloured labels of objects, or None if the image has no or too many colours."""
    if image.mode not in ("RGB", "RGBA"):
        return None
    found = image.convert("RGB").getcolors(_MOST_COLOURS)
    colours = [colour for _, colour in found or [] if isinstance(colour, tuple)]
    if all(max(colour) - min(colour) <= _LEAST_CHROMA for colour in colours if colour != _VOID_COLOUR):
        return None
    if (0, 0, 0) not in colours:
        raise ValueError(
            f"Expected a mask in colour to have a black background, but got the colours {colours[:4]} without black. "
            "Save the mask in black and white, or with the background in black."
        )
    pixels = np.asarray(image.convert("RGB"))
    return np.asarray(pixels.any(axis=2) & (pixels != _VOID_COLOUR).any(axis=2))


def _read_black_and_white(levels: np.ndarray[Any, Any]) -> _Array:
    """Return True at the levels above half of white."""
    white = next((white for white in _WHITES if levels.max() <= white), None)
    # Written so that NaN fails, too.
    if white is None or not levels.min() >= 0:
        raise ValueError(
            f"Expected levels of 0 to 1, 255 or 65535 in a mask, but got {levels.min()} to {levels.max()}. Save the "
            "mask in black and white."
        )
    grey = levels[(levels > 0) & (levels < white)]
    # Soft edges have light greys, too. Labels without a palette are all dark: only their void would be the object.
    brightest, dark = levels.max(), grey[grey < white / 2]
    is_void = white == _VOID and brightest in (_VOID, _VOID_GREY)
    if is_void and dark.size and not ((grey > white / 2) & (grey < brightest)).any():
        raise ValueError(
            f"Expected a mask in black and white, but its levels {[0, *np.unique(dark).tolist(), int(brightest)]} look "
            "like labels and the void of VOC. Save only the object in white, save the mask as 0 and 1, or keep the "
            "palette of the labels."
        )
    return _cut_levels(levels, white)


def _cut_levels(levels: np.ndarray[Any, Any], white: int) -> _Array:
    """Return True at the levels above half of white, of an image that is black and white but for soft edges."""
    grey = float(((levels > white / 4) & (levels < white * 3 / 4)).mean())
    if grey > _MOST_GREY:
        raise ValueError(
            f"Expected a mask in black and white, but {percent(grey)} of it is grey. Save the object in white, or give "
            "labels a palette. Rename the file if it is a photograph."
        )
    if white == _VOID and _holds_labels(levels):
        raise ValueError(
            "Expected a mask in black and white, but much of it is one dark grey, as labels beside the void of VOC. "
            "Save only the object in white, or keep the palette of the labels."
        )
    return np.asarray(levels > white / 2)


def _holds_labels(levels: np.ndarray[Any, Any]) -> bool:
    """Return True if levels of 8 bits look like dark labels, of which only the void is bright, see `_LEAST_EVEN`."""
    dark, bright = (levels >= _DARK) & (levels < _VOID / 2), levels > _VOID / 2
    if not dark.any() or not bright.any():
        return False
    given = torch.from_numpy(levels.astype(np.float32))[None]
    highest, lowest = max_pool2d(given, 5, 1, 2)[0], -max_pool2d(-given, 5, 1, 2)[0]
    is_even = ((highest - lowest) <= _SPREAD).numpy()
    # Without black, the dark grey is the background.
    if not (is_even & (levels < _DARK)).any():
        return False
    even = is_even & dark
    counts = np.bincount(levels[dark].astype(int), minlength=_VOID)
    at_one = np.convolve(counts, np.ones(2 * _SPREAD + 1), "same").max()
    return bool(even.sum() > _LEAST_EVEN * bright.sum() and at_one > _LEAST_AT_ONE * dark.sum())
