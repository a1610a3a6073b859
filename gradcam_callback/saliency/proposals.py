"""Proposals of a saliency network, and the gates that tell doubtful ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from gradcam_callback.formatting import percent, percent_beside

# The gates. They were chosen on 50 photographs graded by eye, and judged on 50 others, see docs/without-masks.md.
SMALLEST, LARGEST = 0.02, 0.6
LARGEST_BORDER, SMALLEST_MAIN, LEAST_SURE = 0.35, 0.75, 0.78
# Parts of the object are told apart on cells of so many pixels, so that a gap of a few pixels parts nothing. A large
# photograph has larger cells: at most so many a side.
_CELL, _MOST_CELLS = 4, 80


class Proposal(NamedTuple):
    """A mask that a network has made.

    Attributes:
        mask: ``(H, W)`` bool, True on the object.
        doubt: the reason why the mask is not used; None for one that passed all gates.
    """

    mask: Tensor
    doubt: str | None


def judge_proposal(saliency: np.ndarray[Any, np.dtype[np.float32]]) -> Proposal:
    """Cut a mask out of a saliency map, and ask if it looks like one object that the network is sure of.

    Args:
        saliency: ``(H, W)``, 0 on the background to 1 on the object.
    """
    mask = saliency > 0.5
    return Proposal(torch.from_numpy(mask), _find_doubt(saliency, mask))


def doubt_size(share: float) -> str | None:
    """Return the doubt if the object fills too little or too much of an image, or None.

    Args:
        share: that the object fills, 0..1.
    """
    if share < SMALLEST:
        return f"the object fills {percent_beside(share, SMALLEST)}, less than {percent(SMALLEST)}"
    if share > LARGEST:
        return f"the object fills {percent_beside(share, LARGEST)}, more than {percent(LARGEST)}"
    return None


def _find_doubt(saliency: np.ndarray[Any, Any], mask: np.ndarray[Any, np.dtype[np.bool_]]) -> str | None:
    size = doubt_size(float(mask.mean()))
    if size is not None:
        return size
    border = float(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean())
    if border > LARGEST_BORDER:
        return f"the object covers {percent(border)} of the border"
    main = _share_of_main_part(torch.from_numpy(mask))
    if main < SMALLEST_MAIN:
        return f"the largest part is only {percent(main)} of the mask"
    return doubt_sureness(saliency, mask)


def doubt_sureness(saliency: np.ndarray[Any, Any], mask: np.ndarray[Any, np.dtype[np.bool_]]) -> str | None:
    """Return the doubt if the network is not sure of its mask, or None.

    Args:
        saliency: ``(H, W)``, 0..1.
        mask: ``(H, W)``, True above 0.5.
    """
    # The overlap of the soft and the hard mask: 1 if every pixel is 0 or 1.
    sure = float(np.minimum(saliency, mask).sum() / max(float(np.maximum(saliency, mask).sum()), 1e-6))
    return f"the network is not sure ({percent(sure)})" if sure < LEAST_SURE else None


def _share_of_main_part(mask: Tensor) -> float:
    """Return the share of a mask that its largest connected part has, 0..1."""
    size = max(_CELL, -(-max(mask.shape) // _MOST_CELLS))
    cells = max_pool2d(mask[None, None].float(), size, ceil_mode=True)[0, 0]
    # Each part takes the largest number of its cells: numbers spread to neighbours until nothing changes.
    numbers = torch.arange(1, cells.numel() + 1, dtype=torch.float32).view_as(cells) * cells
    while True:
        spread = max_pool2d(numbers[None, None], 3, stride=1, padding=1)[0, 0] * cells
        if torch.equal(spread, numbers):
            break
        numbers = spread
    _, counts = numbers[cells > 0].unique(return_counts=True)
    return float(counts.max() / counts.sum())
