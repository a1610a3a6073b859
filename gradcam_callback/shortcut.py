"""Interventions on the background, and the verdict that rests on them.

Maps show where a network looks; whether its answer depends on what it sees there only an intervention can say
(Adebayo et al. 2022, "Post hoc explanations may be ineffective for detecting unknown spurious correlation").
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from gradcam_callback.inpaint import paint_out
from gradcam_callback.words import percent

# How far swap accuracy must fall below probe accuracy for a shortcut to be suspected, and how far probe accuracy must
# lie above guessing for either to mean anything.
SUSPICIOUS_FALL = 0.15


@dataclass(frozen=True)
class Counterfactuals:
    """Images that never were, made once from the probe images that have a mask; each with the label of its object.

    Attributes:
        swapped: ``(S, C, H, W)``, each object on the painted-out background of an image of another class; None where
            the masked images are all of one class.
        swapped_from: ``(S,)``, the probe image that each object of ``swapped`` comes from.
        background: ``(M, C, H, W)``, the object painted out.
        foreground: ``(M, C, H, W)``, the background painted out.
    """

    swapped: Tensor | None
    swapped_from: Tensor
    background: Tensor
    foreground: Tensor


@dataclass(frozen=True)
class Verdict:
    """What the last logged validation says about the background.

    Attributes:
        suspected: swap accuracy lies more than 15 points below probe accuracy.
        probe_accuracy: 0..1, on the probe images that have a mask.
        swap_accuracy: 0..1, with each object on another class's background; None where there is only one class.
        lift: at the deepest chosen layer, see `gradcam_callback.metrics.lift`.
        evidence: the same in words.
    """

    suspected: bool
    probe_accuracy: float
    swap_accuracy: float | None
    lift: float
    evidence: str


def make_counterfactuals(
    images: Tensor, labels: Tensor, masks: Tensor, donors: int = 3, seed: int = 0
) -> Counterfactuals:
    """Build the counterfactual sets.

    Args:
        images: ``(M, C, H, W)``, those with a mask.
        labels: ``(M,)``.
        masks: ``(M, H, W)`` bool, True on the object.
        donors: backgrounds of other classes per object, at most.
    """
    background = paint_out(images, masks)
    # One colour for all: what is left of a background must not tell the class.
    colour = (images * ~masks[:, None]).sum(dim=(0, 2, 3)) / (~masks).sum().clamp(min=1)
    foreground = torch.where(masks[:, None], images, colour[:, None, None])
    chooser = random.Random(seed)
    pairs = []
    for i, label in enumerate(labels.tolist()):
        others = [j for j, other in enumerate(labels.tolist()) if other != label]
        pairs += [(i, j) for j in chooser.sample(others, min(donors, len(others)))]
    objects, places = [i for i, _ in pairs], [j for _, j in pairs]
    swapped = torch.where(masks[objects][:, None], images[objects], background[places]) if pairs else None
    return Counterfactuals(swapped, torch.tensor(objects), background, foreground)


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share, 0..1, of the predictions that are right."""
    return float((predicted == labels).double().mean())


def judge(
    probe_accuracy: float,
    swap_accuracy: float | None,
    lift: float,
    mass: float,
    area: float,
    layer: str,
    n: int,
    classes: int,
) -> Verdict:
    """Weigh the evidence of one validation and put it in words.

    Args:
        mass, area: mean relevance mass and mean mask area, 0..1, at ``layer``, the deepest chosen one.
        n: the number of probe images with a mask; ``classes``: how many classes they are of.
    """
    learnt = probe_accuracy > 1 / classes + SUSPICIOUS_FALL
    suspected = swap_accuracy is not None and learnt and probe_accuracy - swap_accuracy > SUSPICIOUS_FALL
    words = [f"On these {n} images the network is right in {percent(probe_accuracy)}."]
    if swap_accuracy is None:
        words.append("Their objects are all of one class, so none could be put on another class's background.")
    else:
        words.append(f"Put the same objects on other classes' backgrounds and it is right in {percent(swap_accuracy)}.")
    words.append(
        f"At {layer}, {percent(mass)} of the focus lies on the object, which fills {percent(area)} (lift {lift:.2f})."
    )
    if suspected:
        words.append("Its answer depends on the background: a shortcut is suspected.")
    elif swap_accuracy is None:
        words.append("Whether its answer depends on the background cannot be said.")
    elif not learnt:
        words.append("It does not know the classes yet, so nothing can be said of the background.")
    else:
        words.append("No sign that its answer depends on the background.")
    return Verdict(suspected, probe_accuracy, swap_accuracy, lift, " ".join(words))
