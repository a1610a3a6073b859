"""Convert maps to colours.

Zero is always the coldest colour, and ``vmax`` is the hottest. By default ``vmax`` is each map's own maximum. A heatmap
then shows the shape of the focus, and a number beside it gives its strength. With one ``vmax`` for all maps of a layer,
a map that fades looks faded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np

from gradcam_callback.cells import overlap

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Map = np.ndarray[Any, np.dtype[Any]]

# Brightness of a black and of a white pixel of the image in an overlay, and the opacity of the hottest colour. See
# docs/panels.md for why these.
BLACK, WHITE, OPACITY = 16, 96, 0.75
# OpenBLAS, which NumPy uses, starts threads for products of more multiplications. They wait for each other by spinning:
# if other processes use the cores, a product takes a hundred times as long.
LARGEST_PRODUCT = 2**18


def scale(raw: Map, width: int, height: int, *, smooth: bool, vmax: float | None = None) -> Map:
    """Resample raw maps to a size in pixels, and divide them by ``vmax``.

    A cell is an area, so the outer cells reach the edges of the image, as they do in the network.

    Args:
        raw: maps ``(..., h, w)``. Values below zero count as zero.
        width: width of the result in pixels.
        height: height of the result in pixels.
        smooth: True interpolates between the centres of the cells if a map has fewer cells than pixels. False keeps
            cells visible as squares. If a map has more cells than pixels, each pixel is the mean of its cells anyway.
        vmax: raw value of the hottest colour. Larger values become as hot. None takes the maximum of each
            resampled map.

    Returns:
        Values 0..1 ``(..., height, width)`` float32. An empty map stays 0 everywhere.
    """
    row_weights = _resampling_weights(raw.shape[-2], height, smooth)
    column_weights = _resampling_weights(raw.shape[-1], width, smooth)
    values = _multiply(_multiply(row_weights, np.maximum(raw, 0).astype(np.float32)), column_weights.T)
    hottest = values.max(axis=(-2, -1), keepdims=True) if vmax is None else np.float32(vmax)
    scaled: Map = np.minimum(values / np.where(hottest > 0, hottest, 1), 1)
    return scaled


def paint(values: Map, colormap: str) -> Pixels:
    """Return values 0..1 ``(...)`` as colours ``(..., 3)``: 0 is the coldest of the colour map, 1 the hottest."""
    colours: Pixels = _palette(colormap).take(_levels(values), axis=0)
    return colours


def blend(grey: Pixels, values: Map, colormap: str) -> Pixels:
    """Lay heatmaps over a grey image, the more opaque the hotter.

    The image is grey, so that every colour in the overlay comes from the heatmap. It is dark and of little contrast, so
    that its white does not look hot, and its black does not hide heat.

    Args:
        grey: image ``(H, W)``.
        values: maps ``(..., H, W)`` in 0..1.
        colormap: name of a matplotlib colour map.

    Returns:
        Overlays ``(..., H, W, 3)`` uint8.
    """
    # One index in place of two: NumPy looks up much faster by one.
    overlays: Pixels = _overlay_colours(colormap).take(_levels(values).astype(np.uint16) * 256 + grey, axis=0)
    return overlays


def check_colormap(colormap: str, argument: str) -> None:
    """Raise a ValueError that names the argument if matplotlib has no such colour map."""
    if not isinstance(colormap, str) or colormap not in matplotlib.colormaps:
        raise ValueError(
            f"Expected `{argument}` to be the name of a matplotlib colour map, but got {colormap!r}. "
            "Pass a name that `matplotlib.colormaps` lists, such as 'inferno' or 'viridis'."
        )


def _multiply(left: Map, right: Map) -> Map:
    """Return the matrix product of ``(..., n, k)`` and ``(..., k, m)``, a few rows at a time."""
    rows = max(1, LARGEST_PRODUCT // (right.shape[-2] * right.shape[-1]))
    parts = [left[..., i : i + rows, :] @ right for i in range(0, left.shape[-2], rows)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-2)


@lru_cache(maxsize=64)
def _resampling_weights(cells: int, pixels: int, smooth: bool) -> Map:
    """Return the weight of each cell in each pixel along one axis: ``(pixels, cells)``, rows sum to 1."""
    if smooth and pixels > cells:
        centres = (np.arange(pixels) + 0.5) * cells / pixels - 0.5
        distance = np.abs(centres.clip(0, cells - 1)[:, None] - np.arange(cells))
        interpolated: Map = np.maximum(1 - distance, 0).astype(np.float32)
        return interpolated
    shares = overlap(pixels, cells)
    if pixels > cells:
        # A pixel on the border of two cells takes the colour of the cell that it covers more of.
        nearest: Map = np.eye(cells, dtype=np.float32)[shares.argmax(axis=1)]
        return nearest
    return shares.astype(np.float32)


def _levels(values: Map) -> Pixels:
    """Return values 0..1 as the index of one of 256 colours."""
    levels: Pixels = np.rint(values * 255).astype(np.uint8)
    return levels


# A table, as a look-up is several times faster than a mean of two colours for each pixel.
@lru_cache(maxsize=8)
def _overlay_colours(colormap: str) -> Pixels:
    """Return the colours of an overlay, by 256 times the level of heat plus the grey of the image: ``(65536, 3)``."""
    image = np.linspace(BLACK, WHITE, 256)[:, None]
    # The root lets weak heat show, too.
    opacity = OPACITY * np.sqrt(np.linspace(0, 1, 256))[:, None, None]
    colours: Pixels = np.rint((1 - opacity) * image + opacity * _palette(colormap)[:, None]).astype(np.uint8)
    return colours.reshape(-1, 3)


@lru_cache(maxsize=8)
def _palette(colormap: str) -> Pixels:
    """Return the 256 colours of a colour map: ``(256, 3)``."""
    colours: Pixels = np.rint(matplotlib.colormaps[colormap](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)
    return colours
