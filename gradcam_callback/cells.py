"""The cells of a map as parts of an image."""

from __future__ import annotations

from typing import Any

import numpy as np


def overlap(parts: int, others: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Compute how much of each part of a line each other part takes, if both cut the line into equal parts.

    Args:
        parts: their number, such as the cells along a side of a map.
        others: the number of the others, such as the pixels along the same side of the image.

    Returns:
        ``(parts, others)``, 0..1. Rows sum to 1.
    """
    # In units of an other part: part i reaches from edges[i] to edges[i + 1], and other part j from j to j + 1.
    edges = np.arange(parts + 1) * others / parts
    left = np.arange(others)
    shared = np.minimum(edges[1:, None], left + 1) - np.maximum(edges[:-1, None], left)
    shares: np.ndarray[Any, np.dtype[np.float64]] = shared.clip(min=0) * parts / others
    return shares
