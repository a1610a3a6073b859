"""Boxes as prompts of the saliency network, which marks the object inside of each box."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from gradcam_callback.probes.masks import from_boxes
from gradcam_callback.saliency import Box, SaliencyNetwork, propose_in_box

# The share of the box that the object fills at least.
_LEAST_SHARE = 0.15


def refine_boxes(network: SaliencyNetwork, photograph: Image.Image, boxes: Sequence[Box]) -> Tensor | None:
    """Mark the objects inside of boxes.

    Args:
        network: sees each box's crop on its own.
        photograph: in RGB.
        boxes: each holds a pixel of the photograph.

    Returns:
        ``(H, W)`` bool, True on the objects and False outside of all boxes. None without a good mask for one of the
        boxes: the mask fills less than 15 % of the box, or the network is not sure.
    """
    mask = torch.zeros(photograph.height, photograph.width, dtype=torch.bool)
    for box in boxes:
        found = _refine(network, photograph, box)
        if found is None:
            return None
        mask |= found
    return mask


def _refine(network: SaliencyNetwork, photograph: Image.Image, box: Box) -> Tensor | None:
    proposal = propose_in_box(network, photograph, box)
    inside = from_boxes(box, photograph.height, photograph.width)
    found = proposal.mask & inside
    is_good = found.sum() >= _LEAST_SHARE * inside.sum() and proposal.doubt is None
    return found if is_good else None
