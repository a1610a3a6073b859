"""Interventions on the background: probe images that never were, to ask the network what they would change."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from gradcam_callback.measures.inpaint import paint_out


@dataclass(frozen=True)
class Counterfactuals:
    """Images that never were, made once from the probe images that have a mask; each with the label of its object.

    Attributes:
        swapped: ``(S, C, H, W)``, each object on the painted-out background of an image of another class; None where
            the masked images are all of one class.
        objects, donors: ``(S,)``, which of the M images each object and each background of ``swapped`` comes from.
        background: ``(M, C, H, W)``, the object painted out.
        foreground: ``(M, C, H, W)``, the background painted out.
    """

    swapped: Tensor | None
    objects: Tensor
    donors: Tensor
    background: Tensor
    foreground: Tensor


def make_counterfactuals(
    images: Tensor,
    labels: Tensor,
    masks: Tensor,
    donors: int = 3,
    seed: int = 0,
    present: Tensor | None = None,
) -> Counterfactuals:
    """Build the counterfactual sets.

    Args:
        images: ``(M, C, H, W)``, those with a mask.
        labels: ``(M,)``.
        masks: ``(M, H, W)`` bool, True on the object.
        donors: backgrounds of other classes per object, at most.
        present: ``(M, K)`` bool, every class that an image holds, where that may be several; an object is then put on
            no image that holds its class.
    """
    background = paint_out(images, masks)
    # One colour for all: what is left of a background must not tell the class.
    colour = (images * ~masks[:, None]).sum(dim=(0, 2, 3)) / (~masks).sum().clamp(min=1)
    foreground = torch.where(masks[:, None], images, colour[:, None, None])
    pairs = _choose_pairs(
        labels.tolist(), one_hot(labels).bool() if present is None else present, donors, random.Random(seed)
    )
    objects, places = (torch.tensor(side, dtype=torch.long) for side in (list(zip(*pairs, strict=True)) or ((), ())))
    swapped = torch.where(masks[objects][:, None], images[objects], background[places]) if pairs else None
    return Counterfactuals(swapped, objects, places, background, foreground)


def _choose_pairs(labels: list[int], present: Tensor, donors: int, chooser: random.Random) -> list[tuple[int, int]]:
    """For each object the images of other classes whose backgrounds it is put on: the classes take turns."""
    pairs = []
    for i, label in enumerate(labels):
        others = chooser.sample(range(len(labels)), len(labels))
        turns: dict[int, int] = {}
        queue = []
        for j in others:
            if not present[j, label]:
                turns[labels[j]] = turns.get(labels[j], -1) + 1
                queue.append((turns[labels[j]], j))
        # Sorting by the turn alone keeps the order of the draw within each.
        pairs += [(i, j) for _, j in sorted(queue, key=lambda entry: entry[0])[:donors]]
    return pairs
