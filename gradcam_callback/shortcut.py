"""Interventions on the background, and the verdict that rests on them.

Maps show where a network looks; whether its answer depends on what it sees there only an intervention can say
(Adebayo et al. 2022, "Post hoc explanations may be ineffective for detecting unknown spurious correlation").
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# How far swap accuracy may fall below probe accuracy before a shortcut is suspected.
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


def paint_out(images: Tensor, masks: Tensor) -> Tensor:
    """Fill each mask from the image around it, so that neither object nor outline is left.

    The mask is first widened by a fiftieth of the image's shorter side, as objects shed light and shadow. The hole is
    then filled from coarse to fine: the image is halved again and again, each time averaging known pixels only, and
    what is unknown at one size is taken from the next smaller (pull-push, Gortler et al. 1996, "The Lumigraph").

    Args:
        images: ``(N, C, H, W)``.
        masks: ``(N, H, W)`` bool.
    """
    reach = max(1, round(min(images.shape[2:]) / 50))
    widened = functional.max_pool2d(masks[:, None].to(images.dtype), 2 * reach + 1, stride=1, padding=reach)
    known = 1 - widened
    return torch.where(known > 0, images, _fill(images * known, known))


def _fill(weighted: Tensor, known: Tensor) -> Tensor:
    """``(N, C, H, W)`` of known colours times their weight, and the weights ``(N, 1, H, W)`` -> colours everywhere."""
    colours = weighted / known.clamp(min=1e-8)
    height, width = weighted.shape[2:]
    if max(height, width) == 1:
        return colours
    smaller = _fill(
        functional.avg_pool2d(weighted, 2, ceil_mode=True, count_include_pad=False),
        functional.avg_pool2d(known, 2, ceil_mode=True, count_include_pad=False),
    )
    larger = functional.interpolate(smaller, size=(height, width), mode="bilinear", align_corners=False)
    return known * colours + (1 - known) * larger


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
) -> Verdict:
    """Weigh the evidence of one validation and put it in words.

    Args:
        mass, area: mean relevance mass and mean mask area, 0..1, at ``layer``, the deepest chosen one.
        n: the number of probe images with a mask.
    """
    suspected = swap_accuracy is not None and probe_accuracy - swap_accuracy > SUSPICIOUS_FALL
    words = [f"On these {n} images the network is right in {probe_accuracy:.0%}."]
    if swap_accuracy is None:
        words.append("All their objects are of one class, so no object could be put on another class's background.")
    else:
        words.append(f"Put the same objects on other classes' backgrounds and it is right in {swap_accuracy:.0%}.")
    words.append(f"At {layer}, {mass:.0%} of the focus lies on the object, which fills {area:.0%} (lift {lift:.2f}).")
    words.append(
        "It answers to the background: a shortcut is suspected."
        if suspected
        else "No sign that it depends on the background."
        if swap_accuracy is not None
        else "Whether it depends on the background cannot be said."
    )
    return Verdict(suspected, probe_accuracy, swap_accuracy, lift, " ".join(words))
