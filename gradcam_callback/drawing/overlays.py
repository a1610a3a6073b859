"""Draw a map on its image, as the panels do, for a notebook or an article."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from gradcam_callback.drawing.heatmap import Map, Pixels, blend, check_colormap, scale
from gradcam_callback.drawing.input_image import InputImage

# Undoing a normalisation lands rounding errors outside of 0..1. They must not change the contrast of an image.
TOLERANCE = 1e-3


def overlay(image: Any, map: Any, colormap: str = "inferno", smooth: bool = True) -> Pixels:
    """Draw a map on its image: a dark grey image, and over it a heatmap that is the more opaque the hotter.

    Without heat the image is grey. The maximum of the map has the hottest colour. An empty map leaves the image grey.

    Args:
        image: tensor ``(C, H, W)`` with 1 or 3 channels on any device, PIL image, or array ``(H, W)`` or ``(H, W, 3)``.
            Integers of 8 bits and floating values in 0..1 are drawn as they are. Other values, such as those of a
            normalised image, are stretched from their minimum to their maximum.
        map: raw map ``(h, w)`` of any size, tensor or array. Values below zero are drawn as zero.
        colormap: name of a matplotlib colour map.
        smooth: True interpolates between the cells of the map. False draws them as squares.

    Returns:
        Overlay ``(H, W, 3)`` uint8, for ``PIL.Image.fromarray`` or ``matplotlib.pyplot.imshow``.

    Raises:
        ValueError: If the image or the map has another shape or values that are not finite real numbers. Or if
            matplotlib has no colour map of this name.

    Examples:
        >>> import torch
        >>> from gradcam_callback import GradCAM, overlay
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5, stride=4), torch.nn.Flatten())
        >>> images = torch.rand(2, 3, 64, 96)
        >>> maps = GradCAM(model, "0")(images).maps["0"]
        >>> overlay(images[0], maps[0]).shape
        (64, 96, 3)
    """
    check_colormap(colormap, "colormap")
    pixels, raw = _to_pixels(image), _to_array(map, "map")
    if raw.ndim != 2 or raw.size == 0:
        raise ValueError(
            f"Expected `map` to have shape (h, w), but got {raw.shape}. "
            "Pass the map of one image and layer, such as `cams.maps[layer][0]`."
        )
    height, width = pixels.shape[:2]
    grey = InputImage(pixels).grey(width, height)
    return blend(grey, scale(raw, width, height, smooth=smooth), colormap)


def _to_pixels(image: Any) -> Pixels:
    """Return an image of any kind as ``(H, W, 3)`` uint8."""
    # Pillow's modes I and F have more than 8 bits, and `convert` would cut their values off at 255.
    if isinstance(image, Image.Image) and not image.mode.startswith(("I", "F")):
        image = image.convert("RGB")
    values = _to_array(image, "image")
    shape, is_tensor = values.shape, _is_tensor(image)
    if is_tensor and values.ndim == 3:
        values = np.moveaxis(values, 0, -1)
    elif not is_tensor and values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in (1, 3) or values.size == 0:
        raise ValueError(
            "Expected `image` to be a tensor (C, H, W) with 1 or 3 channels, or an array (H, W) or (H, W, 3), "
            f"but got the shape {shape}. Pass one image, such as `images[0]`."
        )
    return np.ascontiguousarray(np.broadcast_to(_to_bytes(values), (*values.shape[:2], 3)))


def _to_bytes(values: Map) -> Pixels:
    """Return the values of an image as 0..255. Values that are neither uint8 nor in 0..1 are stretched."""
    if values.dtype == np.uint8:
        return values
    fractions = values.dtype.kind in "fb"
    values = values.astype(np.float64)
    low, high = values.min(), values.max()
    if fractions and low >= -TOLERANCE and high <= 1 + TOLERANCE:
        low, high = 0.0, 1.0
    spread = (high - low) or 1.0
    scaled: Pixels = np.rint(((values - low) / spread).clip(0, 1) * 255).astype(np.uint8)
    return scaled


def _to_array(values: Any, argument: str) -> Map:
    """Return a tensor, PIL image or array as an array of finite real numbers."""
    if _is_tensor(values):
        values = values.detach().cpu()
        # NumPy has no bfloat16.
        values = values.double() if values.is_floating_point() else values
    array = np.asarray(values)
    # Kinds of NumPy's types: bool, unsigned, integer, floating.
    if array.dtype.kind not in "buif":
        raise ValueError(
            f"Expected `{argument}` to hold real numbers, but got {array.dtype}. "
            "Pass a tensor or an array of floating values."
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"Expected `{argument}` to hold finite values, but got NaN or infinity. "
            "Replace these values, for example by `torch.nan_to_num`."
        )
    return array


def _is_tensor(values: Any) -> bool:
    # This test needs no import of torch, which takes seconds.
    return hasattr(values, "detach")
