"""Single images on their way into a probe set."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from gradcam_callback.exceptions import GradCAMWarning
from gradcam_callback.formatting import name_some
from gradcam_callback.probes.masks import is_box, looks_inverted, warn_of_inverted
from gradcam_callback.saliency import Proposal, SaliencyNetwork


class Item(NamedTuple):
    """One image with its label and mask, read from a dataset, a folder or COCO annotations.

    Attributes:
        image: ``(C, H, W)``, as the model takes it.
        label: the class of the image. If the image holds several classes, the class for which it was chosen.
        mask: a mask in any form that `ProbeSet` takes, or None.
        source: the path or the number of the item, for error messages.
        present: ``(K,)`` bool, all classes of the image if it may hold several, otherwise None.
        name: of its file, without folder and ending; None if it is not known.
        row: see `gradcam_callback.probes.feed.Sample`.
        propose: makes an automatic mask ``(H, W)`` of the untransformed file, if it fits the image, or None.
        proposal: an automatic mask that has been made. It takes the place of ``mask``.
        boxed: True if the mask is made of plain boxes, in part at least. Boxes in ``mask`` need not say so.
    """

    image: Tensor
    label: int
    mask: Any
    source: str
    present: Tensor | None = None
    name: str | None = None
    row: Any = None
    propose: Callable[[SaliencyNetwork], Proposal | None] | None = None
    proposal: Proposal | None = None
    boxed: bool = False


def review_masks(items: list[Item]) -> list[Item]:
    """Warn of masks that look inverted, and of those that mark nothing, which are left out."""
    warn_of_inverted([item.source for item in items if _looks_inverted(item)])
    return _without_empty_masks(items)


def _looks_inverted(item: Item) -> bool:
    """Return True if the mask of an item looks inverted; of boxes and of masks of another size nothing is known."""
    mask, size = item.mask, item.image.shape[1:]
    if (
        not isinstance(mask, Tensor)
        or is_box(mask, size)
        or mask.shape[-2:] != size
        or mask.shape.numel() != size.numel()
    ):
        return False
    return looks_inverted(mask.reshape(size) != 0)


def _without_empty_masks(items: list[Item]) -> list[Item]:
    """Take masks that mark nothing for no masks, and warn of them.

    A dataset has an empty mask for an image without an object, such as a healthy scan.
    """
    empty = [item for item in items if isinstance(item.mask, Tensor) and not item.mask.any()]
    if empty:
        warnings.warn(
            f"GradCAM: the masks of {len(empty)} of {len(items)} images mark nothing after the transform, so these "
            f"images have no mask: {name_some([item.source for item in empty])}. If they show an object, correct the "
            "masks or the transform.",
            GradCAMWarning,
            stacklevel=2,
        )
    return [item._replace(mask=None) if any(item is one for one in empty) else item for item in items]
