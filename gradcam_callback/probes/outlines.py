"""Fill outlines with the pixels whose centres lie inside, as `gradcam_callback.probes.masks.from_boxes` fills boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def fill_polygon(points: Sequence[Sequence[float]], height: int, width: int) -> Tensor:
    """Return the inside of a polygon as a mask ``(height, width)`` bool.

    Args:
        points: ``(P, 2)`` as x, y in pixels from the upper left corner of the image. The last is joined to the first.
            What the outline goes around twice lies outside, as in other programs.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    start = np.asarray(points, np.float64)
    end = np.roll(start, -1, axis=0)
    filled = np.zeros((height, width), dtype=bool)
    centres = np.arange(width) + 0.5
    for row in range(height):
        y = row + 0.5
        crosses = (start[:, 1] <= y) != (end[:, 1] <= y)
        (x1, y1), (x2, y2) = start[crosses].T, end[crosses].T
        # A centre lies inside if the number of edges to its left is odd.
        crossings = np.sort(x1 + (y - y1) / (y2 - y1) * (x2 - x1))
        filled[row] = np.searchsorted(crossings, centres, side="right") % 2 == 1
    return torch.from_numpy(filled)


def fill_circle(centre: Sequence[float], radius: float, height: int, width: int) -> Tensor:
    """Return the inside of a circle as a mask ``(height, width)`` bool.

    Args:
        centre: x, y in pixels from the upper left corner of the image.
        radius: in pixels.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width)[None] + 0.5
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
