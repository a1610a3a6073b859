"""Single images on their way into a probe set, and the choice of a few per class."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from gradcam_callback.exceptions import GradCAMWarning
from gradcam_callback.formatting import name_some
from gradcam_callback.saliency import Proposal, SaliencyNetwork

if TYPE_CHECKING:
    from gradcam_callback.probes.feed import Sample

# Returns the number of classes of the network, given a first image for it; None if it is not known.
CountClasses = Callable[["Sample"], int | None]


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


def choose_per_class(
    pairs: Sequence[tuple[int, int]], per_class: int | None, max_images: int | None, spare: int = 1
) -> list[tuple[int, int]]:
    """Choose the first ``per_class`` images of each class.

    Args:
        pairs: an index and a label, with one pair for each class of an image. Earlier pairs are preferred.
        per_class: the number of images per class. A class with fewer images gives all of them. None fills
            ``max_images`` evenly, with one image per class or more.
        max_images: the largest number of images. Without room for every class, some classes are left out.
        spare: so many times as many images are chosen of each class. Classes that have them are preferred.

    Returns:
        The chosen pairs, ordered by label. An image is chosen again for a later class only if no other image is left.
    """
    by_class: dict[int, list[int]] = {}
    for index, label in pairs:
        if label >= 0:  # below, it says that an image has no class
            by_class.setdefault(label, []).append(index)
    if not by_class:
        raise ValueError(
            "Expected labels to be class indices from 0, but all are negative. Check the labels of the dataset."
        )
    classes = sorted(by_class)
    per_class = quota(per_class, max_images, len(classes))
    if max_images is not None:
        room = max_images // per_class
        if len(classes) > room:
            rich = {label for label in classes if len(by_class[label]) >= spare * per_class}
            classes = [
                next((classes[i] for i in around if classes[i] in rich), classes[around[0]])
                for around in _neighbourhoods(len(classes), room)
            ]
    chosen: list[tuple[int, int]] = []
    for label in classes:
        taken = {index for index, _ in chosen}
        # Put new images first. The sort is stable and keeps the order otherwise.
        new_first = sorted(by_class[label], key=lambda index: index in taken)
        chosen += [(index, label) for index in new_first[: spare * per_class]]
    return chosen


@cache
def _neighbourhoods(n_classes: int, n: int) -> list[list[int]]:
    """Return n classes that are spread evenly, each with its neighbours, which are often alike. The nearest come first.

    Args:
        n_classes: their number. They are counted from 0.
        n: at most as many.
    """
    centres = [round(i * (n_classes - 1) / max(n - 1, 1)) for i in range(n)]
    around: list[list[int]] = [[] for _ in centres]
    for label in range(n_classes):
        nearest = min(range(n), key=lambda i: abs(centres[i] - label))
        around[nearest].append(label)
    return [
        sorted(labels, key=lambda label: abs(centre - label)) for labels, centre in zip(around, centres, strict=True)
    ]


def without_empty_masks(items: list[Item]) -> list[Item]:
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


def quota(per_class: int | None, max_images: int | None, n_classes: int) -> int:
    """Return how many images of each class are chosen, 1 or more.

    Args:
        per_class: the wanted number; None fills ``max_images`` evenly.
        max_images: the largest number of all images; None is no limit.
        n_classes: the number of classes.
    """
    if per_class is None:
        return max(1, (max_images or n_classes) // max(n_classes, 1))
    return per_class if max_images is None else min(per_class, max_images)


class ClassCount:
    """The number of images of each class so far, to know when a probe set is full.

    Args:
        per_class: as in `choose_per_class`.
        max_images: the same.
        spare: the same.

    Attributes:
        n_classes: of the network. While it is None, the probe set never is full, as another class may come.
    """

    def __init__(self, per_class: int | None, max_images: int | None, spare: int = 1) -> None:
        self._per_class, self._max_images, self._spare = per_class, max_images, spare
        self._counts: dict[int, int] = {}
        self.n_classes: int | None = None

    def add(self, classes: Sequence[int]) -> None:
        """Count one more image with the given classes."""
        for one in classes:
            self._counts[one] = self._counts.get(one, 0) + 1

    @property
    def is_full(self) -> bool:
        """Return True if every class has its images. Of more classes than there is room for, the choice needs as many.

        These are not the first ones that have their images, which would be the most frequent ones.
        """
        if self.n_classes is None:
            return False
        each = quota(self._per_class, self._max_images, self.n_classes)
        room = self.n_classes if self._max_images is None else min(self.n_classes, self._max_images // each)
        have = {label for label, count in self._counts.items() if count >= self._spare * each}
        return not any(have.isdisjoint(around) for around in _neighbourhoods(self.n_classes, room))
