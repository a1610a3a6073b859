"""Automatic masks for the images of a probe set that have none."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from gradcam_callback.exceptions import GradCAMWarning
from gradcam_callback.probes.annotations import Box
from gradcam_callback.probes.prompts import refine_boxes
from gradcam_callback.probes.transforms import Transform, mask_to_image, transform_mask
from gradcam_callback.saliency import Proposal, SaliencyNetwork, doubt_size

if TYPE_CHECKING:
    from gradcam_callback.probes.probe_set import ProbeSet

AUTO = "auto"


def wants_automatic(masks: object) -> bool:
    """Return True if an argument ``masks`` asks for automatic masks.

    Raises:
        ValueError: it is another word.
    """
    if isinstance(masks, str) and masks != AUTO:
        raise ValueError(f"Expected `masks` to be 'auto' or masks, but got {masks!r}. Correct the word.")
    return isinstance(masks, str)


def propose_of_file(network: SaliencyNetwork, photograph: Image.Image, transform: Transform, seed: int = 0) -> Proposal:
    """Mark the object of an untransformed photograph, and apply the geometry of its transform to the mask.

    Args:
        network: makes the mask.
        photograph: in RGB.
        transform: of the image.
        seed: of the image's random steps.
    """
    proposal = network.propose(photograph)
    mask = transform_mask(mask_to_image(proposal.mask), transform, seed)
    return Proposal(mask, proposal.doubt or _doubt_after_transform(mask))


def _doubt_after_transform(mask: Tensor) -> str | None:
    if not mask.any():
        return "the transform cuts the object off"
    # A crop may leave too little background to put other objects on.
    size = doubt_size(float(mask.double().mean()))
    return None if size is None else f"after the transform {size}"


def add_automatic_masks(
    probe: ProbeSet, known: Mapping[int, Proposal], prompts: Mapping[int, Sequence[Box]] | None = None
) -> None:
    """Give the images without a mask an automatic one, and warn of the doubtful ones, which are left out.

    Args:
        probe: gets masks and proposals.
        known: proposals by the number of the image. All others are made of the probe images themselves.
        prompts: the boxes that are the mask of an image so far, by its number. If the network has a good mask for
            each of them, the boxes give way to it.

    Raises:
        ImportError: onnxruntime is not installed.
        OSError: the weights are found nowhere.
    """
    missing = (~probe.has_mask).nonzero()[:, 0].tolist()
    unknown = [number for number in missing if number not in known]
    found = {number: known[number] for number in missing if number in known}
    refined: dict[int, Proposal] = {}
    if unknown or prompts:
        network, pixels = SaliencyNetwork(), probe.display_images()
        found |= {number: network.propose(Image.fromarray(pixels[number])) for number in unknown}
        for number, boxes in (prompts or {}).items():
            mask = refine_boxes(network, Image.fromarray(pixels[number]), boxes)
            if mask is not None:
                refined[number], probe.box_masks[number] = Proposal(mask, None), False
    probe.proposals = {number: _doubt_several(probe, number, found[number]) for number in missing} | refined
    masks = torch.zeros(len(probe), *probe.images.shape[2:], dtype=torch.bool) if probe.masks is None else probe.masks
    has_mask = probe.has_mask.clone()
    for number, proposal in probe.proposals.items():
        if proposal.doubt is None:
            masks[number], has_mask[number] = proposal.mask, True
    probe.has_mask, probe.masks = has_mask, masks if has_mask.any() else None
    _warn_of_doubtful(probe)


def _doubt_several(probe: ProbeSet, number: int, proposal: Proposal) -> Proposal:
    """Doubt the proposal of an image that holds several classes, since the network knows no classes."""
    several: Tensor | bool = probe.present is not None and probe.present[number].sum() > 1
    return Proposal(proposal.mask, "the image holds several classes") if several else proposal


def _warn_of_doubtful(probe: ProbeSet) -> None:
    assert probe.proposals is not None
    doubtful = {number: proposal.doubt for number, proposal in probe.proposals.items() if proposal.doubt is not None}
    if doubtful:
        listed = "; ".join(f"{probe.names[number]}: {doubt}" for number, doubt in doubtful.items())
        warnings.warn(
            f"GradCAM: {len(doubtful)} of {len(probe.proposals)} automatic masks look doubtful, so these images have "
            f"no mask ({listed}). Draw masks for them if they matter.",
            GradCAMWarning,
            stacklevel=2,
        )
