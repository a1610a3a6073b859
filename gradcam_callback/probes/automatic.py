"""Automatic masks for the images of a probe set that have none."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradcam_callback.exceptions import GradCAMWarning
from gradcam_callback.formatting import name_some
from gradcam_callback.probes.items import Item
from gradcam_callback.probes.masks import is_box, to_corners
from gradcam_callback.probes.progress import show_progress
from gradcam_callback.probes.prompts import refine_boxes
from gradcam_callback.probes.quotas import Quota, choose_per_class
from gradcam_callback.probes.transforms import MaskTransformError, Transform, mask_to_image, transform_mask
from gradcam_callback.random_state import preserved_random_state
from gradcam_callback.saliency import Proposal, SaliencyNetwork, doubt_size

if TYPE_CHECKING:
    from gradcam_callback.probes.probe_set import ProbeSet

AUTO = "auto"
# So many times as many images are read as are kept. A quarter to a half of all masks look doubtful, and of a class that
# fills its photographs more than half do.
SPARE = 3


def wants_automatic(masks: object, elsewhere: str | None = None) -> bool:
    """Return True if an argument ``masks`` asks for automatic masks.

    Args:
        masks: the argument.
        elsewhere: says how masks are given, where the argument is no place for them; None if it may hold masks.

    Raises:
        ValueError: it is another word, or masks where it may hold none.
    """
    if masks is None or (isinstance(masks, str) and masks == AUTO):
        return masks is not None
    if elsewhere is not None:
        given = repr(masks) if isinstance(masks, (bool, int, float, str)) else type(masks).__name__
        raise ValueError(f"Expected `masks` to be None or 'auto', but got {given}. {elsewhere}")
    if isinstance(masks, str):
        raise ValueError(f"Expected `masks` to be 'auto' or masks, but got {masks!r}. Correct the word.")
    return False


def propose_of_file(
    network: SaliencyNetwork, photograph: Image.Image, transform: Transform, seed: int = 0
) -> Proposal | None:
    """Mark the object of an untransformed photograph, and apply the geometry of its transform to the mask.

    Args:
        network: makes the mask.
        photograph: in RGB.
        transform: of the image.
        seed: of the image's random steps.

    Returns:
        None if the mask cannot follow the image. The transformed image serves as well.
    """
    proposal = network.propose(photograph)
    try:
        mask = transform_mask(mask_to_image(proposal.mask), transform, seed, lambda: photograph)
    except MaskTransformError:
        return None
    return Proposal(mask, proposal.doubt or _doubt_after_transform(mask))


def _doubt_after_transform(mask: Tensor) -> str | None:
    if not mask.any():
        return "the transform cuts the object off"
    # A crop may leave too little background to put other objects on.
    size = doubt_size(float(mask.double().mean()))
    return None if size is None else f"after the transform {size}"


class Proposer:
    """The automatic masks of the images of a probe set, each made on demand.

    Args:
        probe: without automatic masks.
        items: what the probe set is made of; empty if it is made of tensors.
    """

    def __init__(self, probe: ProbeSet, items: Sequence[Item] = ()) -> None:
        self._probe, self._items = probe, items

    @cached_property
    def _network(self) -> SaliencyNetwork:
        return SaliencyNetwork()

    @cached_property
    def pixels(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the images for display, ``(M, H, W, 3)`` uint8."""
        return self._probe.display_images()

    def propose(self, number: int) -> Proposal | None:
        """Mark the object of an image, of its file if possible.

        Returns:
            None for an image that keeps its mask: a drawn one, or boxes of which the network has no good mask.

        Raises:
            ImportError: onnxruntime is not installed.
            OSError: the weights are found nowhere.
        """
        item = self._items[number] if self._items else None
        has_mask = bool(self._probe.has_mask[number])
        if has_mask and not self._probe.box_masks[number]:
            return None
        if item is not None and item.proposal is not None:
            return item.proposal
        found = None
        if item is not None and item.propose is not None:
            # A transform may draw random numbers.
            with preserved_random_state():
                found = item.propose(self._network)
        if found is None and has_mask:
            return self._refine(number)
        return self._doubt_several(number, found or self._network.propose(self._picture(number)))

    def _refine(self, number: int) -> Proposal | None:
        mask = self._items[number].mask
        if not is_box(mask, self._probe.images.shape[2:]):
            return None  # the boxes were those of the file
        refined = refine_boxes(self._network, self._picture(number), to_corners(mask))
        return None if refined is None else Proposal(refined, None)

    def _picture(self, number: int) -> Image.Image:
        return Image.fromarray(self.pixels[number])

    def _doubt_several(self, number: int, proposal: Proposal) -> Proposal:
        """Doubt the mask of an image that holds several classes, since the network knows no classes."""
        present = self._probe.present
        several: Tensor | bool = present is not None and present[number].sum() > 1
        return Proposal(proposal.mask, "the image holds several classes") if several else proposal


class Replaced(NamedTuple):
    """An image that gave way to another one of its class, since its automatic mask looks doubtful.

    Attributes:
        name: of the image.
        pixels: ``(H, W, 3)`` uint8.
        proposal: the mask, and why it is doubtful.
    """

    name: str
    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    proposal: Proposal


class MakeProbeSet(Protocol):
    """A function that makes a probe set of items, with or without automatic masks."""

    def __call__(self, items: Sequence[Item], *, automatic: bool) -> ProbeSet: ...


def choose_masked(items: Sequence[Item], quota: Quota, make: MakeProbeSet, shows_progress: bool = True) -> ProbeSet:
    """Make a probe set of some of the items per class, with a good automatic mask if there are enough of them.

    An item whose mask looks doubtful gives way to another one of its class. Only items that would be chosen are tried,
    as a mask takes about half a second.

    Args:
        items: more than are kept, see `SPARE`. Earlier items are preferred.
        quota: how many are kept.
        make: makes a probe set of items.
        shows_progress: False shows no bar.
    """
    unmasked = make(items, automatic=False)
    proposer = Proposer(unmasked, items)
    tried: dict[int, Item] = {}
    doubtful: dict[int, Replaced] = {}
    while True:
        # The sort is stable and keeps the order otherwise.
        order = sorted(range(len(items)), key=doubtful.__contains__)
        pairs = [(i, items[i].label) for i in order]
        chosen = [i for i, _ in choose_per_class(pairs, quota)]
        new = [i for i in chosen if i not in tried]
        if not new:
            break
        for i in show_progress(new, "making automatic masks", is_shown=shows_progress):
            proposal = proposer.propose(i)
            if proposal is None:
                # Boxes become a mask, so that the network is not asked about them again.
                mask, boxed = None if unmasked.masks is None else unmasked.masks[i], bool(unmasked.box_masks[i])
                tried[i] = items[i]._replace(mask=mask, propose=None, boxed=boxed)
                continue
            tried[i] = items[i]._replace(proposal=proposal)
            if proposal.doubt is not None:
                # Without the name of a file, only the number in the dataset tells it from an image that is watched.
                name = unmasked.names[i] if items[i].name else items[i].source
                doubtful[i] = Replaced(name, proposer.pixels[i], proposal)
    probe = make([tried[i] for i in chosen], automatic=True)
    probe.replaced = [image for i, image in doubtful.items() if i not in chosen]
    return probe


def add_automatic_masks(probe: ProbeSet, items: Sequence[Item] = (), makes: bool = True) -> None:
    """Give the images without a mask an automatic one, and warn of the doubtful ones, which are left out.

    Boxes give way if the network has a good mask for each of them.

    Args:
        probe: gets masks and proposals.
        items: as in `Proposer`.
        makes: False makes no masks, and takes only those that the items have.

    Raises:
        ImportError: onnxruntime is not installed.
        OSError: the weights are found nowhere.
    """
    proposer = Proposer(probe, items)
    numbers = [i for i in range(len(probe)) if makes or items[i].proposal is not None]
    found = {number: proposer.propose(number) for number in numbers}
    probe.proposals = {number: proposal for number, proposal in found.items() if proposal is not None}
    masks = torch.zeros(len(probe), *probe.images.shape[2:], dtype=torch.bool) if probe.masks is None else probe.masks
    has_mask = probe.has_mask.clone()
    for number, proposal in probe.proposals.items():
        if proposal.doubt is None:
            masks[number], has_mask[number], probe.box_masks[number] = proposal.mask, True, False
    probe.has_mask, probe.masks = has_mask, masks if has_mask.any() else None
    _warn_of_doubtful(probe)


def _warn_of_doubtful(probe: ProbeSet) -> None:
    assert probe.proposals is not None
    doubtful = {number: proposal.doubt for number, proposal in probe.proposals.items() if proposal.doubt is not None}
    if doubtful:
        listed = name_some([f"{probe.sources[number]}: {doubt}" for number, doubt in doubtful.items()], "; ")
        warnings.warn(
            f"GradCAM: {len(doubtful)} of {len(probe.proposals)} automatic masks look doubtful, so these images have "
            f"no mask ({listed}). Draw masks for them if they matter.",
            GradCAMWarning,
            stacklevel=2,
        )
