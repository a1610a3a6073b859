"""Counterfactual images: objects on other backgrounds, backgrounds alone, and objects alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from gradcam_callback.measures.inpaint import paint_out


@dataclass(frozen=True)
class Counterfactuals:
    """The images of the interventions, made from the M probe images that have a mask.

    Each of them has the label of its object, or of the object that was removed.

    The three sets resemble the sets Mixed-Rand, Only-BG-T and Only-FG of ImageNet-9 (Xiao, Engstrom, Ilyas and Madry
    2021, "Noise or signal: the role of image backgrounds in object recognition", arXiv 2006.09994). They differ in
    detail: Mixed-Rand takes the background of a random class, here it is always another class. Only-BG-T covers the
    box of the object with tiles of the background, here the object is painted out. Only-FG has a black background,
    here it has one mean colour.

    Attributes:
        swapped: ``(S, C, H, W)``, each object on the background of an image of another class; None if the masked
            images are all of one class.
        objects: ``(S,)``, the index, 0..M - 1, of the image that each object of ``swapped`` comes from.
        donors: ``(S,)``, the index of the image that each background of ``swapped`` comes from.
        background: ``(M, C, H, W)``, the object painted out.
        foreground: ``(M, C, H, W)``, everything but the object replaced by one colour.
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
    n_donors: int = 3,
    seed: int = 0,
    present: Tensor | None = None,
) -> Counterfactuals:
    """Make the images of the interventions.

    Args:
        images: ``(M, C, H, W)``, the images with a mask.
        labels: ``(M,)``.
        masks: ``(M, H, W)`` bool, True on the object.
        n_donors: the number of backgrounds per object. It is smaller if there are fewer images of other classes.
        seed: chooses the backgrounds.
        present: ``(M, K)`` bool, all classes that each image holds, for images that may hold several. An object is put
            on no image that holds its class.
    """
    background = paint_out(images, masks)
    # One colour for all images: a colour per image could still tell the class by its background.
    colour = (images * ~masks[:, None]).sum(dim=(0, 2, 3)) / (~masks).sum().clamp(min=1)
    foreground = torch.where(masks[:, None], images, colour[:, None, None])
    pairs = _choose_pairs(
        labels.tolist(), one_hot(labels).bool() if present is None else present, n_donors, random.Random(seed)
    )
    # No pairs unzip to nothing, not to two empty sides.
    objects, donors = (torch.tensor(side, dtype=torch.long) for side in (list(zip(*pairs, strict=True)) or ((), ())))
    # The donor's own object is painted out, so that the image holds a single object.
    swapped = torch.where(masks[objects][:, None], images[objects], background[donors]) if pairs else None
    return Counterfactuals(swapped, objects, donors, background, foreground)


def _choose_pairs(labels: list[int], present: Tensor, n_donors: int, rng: random.Random) -> list[tuple[int, int]]:
    """Choose the images on whose backgrounds each object is put; their classes take turns.

    Returns:
        Pairs of the indices of an object and of a donor.
    """
    pairs = []
    for i, label in enumerate(labels):
        n_queued: dict[int, int] = {}
        queue = []
        for j in rng.sample(range(len(labels)), len(labels)):
            if not present[j, label]:
                turn = n_queued.get(labels[j], 0)
                n_queued[labels[j]] = turn + 1
                queue.append((turn, j))
        # The sort is stable: within a turn the images keep their random order.
        queue.sort(key=lambda entry: entry[0])
        pairs += [(i, j) for _, j in queue[:n_donors]]
    return pairs
