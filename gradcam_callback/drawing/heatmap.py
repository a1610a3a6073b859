"""Maps to colours.

Zero is always the coldest colour. The hottest is, as chosen, each map's own vmax value, so that a heatmap shows the
*shape* of the focus and its strength is read from the figures; or one value for all maps of a layer, so that a map that
fades looks faded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Map = np.ndarray[Any, np.dtype[Any]]


def scale(raw: Map, width: int, height: int, *, smooth: bool, vmax: float | None = None) -> Map:
    """Maps ``(..., h, w)`` at ``(..., height, width)``, divided by what is to be the hottest: 0..1, all 0 where empty.

    Cells are areas, so that the first and the last reach to the image's edges, as they do in the network. Where there
    are fewer of them than pixels, ``smooth`` interpolates between their centres; otherwise they stay visible as the
    squares they are. Where there are more, each pixel is the mean of those that it covers.

    Args:
        vmax: the value that is to be the hottest, larger ones too; None takes each map's own vmax pixel.
    """
    rows = _resampling(raw.shape[-2], height, smooth)
    columns = _resampling(raw.shape[-1], width, smooth)
    values = rows @ np.maximum(raw, 0).astype(np.float32) @ columns.T
    hottest = values.max(axis=(-2, -1), keepdims=True) if vmax is None else np.float32(vmax)
    scaled: Map = np.minimum(values / np.where(hottest > 0, hottest, 1), 1)
    return scaled


@lru_cache(maxsize=64)
def _resampling(cells: int, pixels: int, smooth: bool) -> Map:
    """``(pixels, cells)``: the weight of each cell in each pixel, rows that sum to 1."""
    if smooth and pixels > cells:
        centres = (np.arange(pixels) + 0.5) * cells / pixels - 0.5
        distance = np.abs(centres.clip(0, cells - 1)[:, None] - np.arange(cells))
        weights: Map = np.maximum(1 - distance, 0).astype(np.float32)
        return weights
    edges = np.arange(pixels + 1) * cells / pixels
    covered = np.minimum(edges[1:, None], np.arange(1, cells + 1)) - np.maximum(edges[:-1, None], np.arange(cells))
    if pixels > cells and not smooth:
        # A pixel on the border of two cells takes the colour of the one that it covers more of.
        nearest: Map = np.eye(cells, dtype=np.float32)[covered.argmax(axis=1)]
        return nearest
    shares: Map = (covered.clip(min=0) * pixels / cells).astype(np.float32)
    return shares


def paint(values: Map, colormap: str) -> Pixels:
    """Values 0..1 ``(...)`` as colours ``(..., 3)``: 0 the coldest of the colour map, 1 the hottest."""
    colours: Pixels = _palette(colormap)[np.rint(values * 255).astype(np.uint8)]
    return colours


def overlay(grey: Pixels, values: Map, colormap: str) -> Pixels:
    """Half image ``(H, W)``, in grey so that every colour seen is the heatmap's, half heatmap ``(..., H, W)``."""
    # Each halved before they are added, so that eight bits suffice.
    return grey[..., None] // 2 + paint(values, colormap) // 2


@lru_cache(maxsize=8)
def _palette(colormap: str) -> Pixels:
    colours: Pixels = np.rint(matplotlib.colormaps[colormap](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)
    return colours
