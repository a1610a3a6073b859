"""Choose a few images of each class."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from gradcam_callback.exceptions import GradCAMWarning
from gradcam_callback.formatting import name_some

if TYPE_CHECKING:
    from gradcam_callback.probes.feed import Sample

# So many images of each class are chosen if nobody asks for more: a control needs a second image.
DEFAULT_PER_CLASS = 2

# Returns the number of classes of the network, given a first image for it.
CountClasses = Callable[["Sample"], int]


@dataclass(frozen=True)
class Quota:
    """How many images of each class are wanted.

    Attributes:
        per_class: the number of images of each class. A class with fewer images gives all of them. None fills
            ``max_images`` evenly.
        max_images: the largest number of all images; None is no limit. Without room for every class, some classes are
            left out.
        least: the smallest number of images of each class, if ``per_class`` is None.
    """

    per_class: int | None
    max_images: int | None
    least: int = 1

    def of_each(self, n_classes: int) -> int:
        """Return how many images of each class are wanted, 1 or more."""
        if self.per_class is None:
            return max(self.least, (self.max_images or n_classes) // max(n_classes, 1))
        return self.per_class if self.max_images is None else min(self.per_class, self.max_images)

    def room(self, n_classes: int) -> int:
        """Return for how many of the classes there is room."""
        return n_classes if self.max_images is None else min(n_classes, self.max_images // self.of_each(n_classes))


def choose_per_class(pairs: Sequence[tuple[int, int]], quota: Quota, spare: int = 1) -> list[tuple[int, int]]:
    """Choose the first images of each class.

    Args:
        pairs: an index and a label, with one pair for each class of an image. Earlier pairs are preferred.
        quota: how many are wanted.
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
    of_each, room = quota.of_each(len(classes)), quota.room(len(classes))
    wanted = spare * of_each
    if len(classes) > room:
        counts = [min(len(by_class[label]), wanted) for label in classes]
        classes = [classes[i] for i in _spread(counts, room, of_each)]
    chosen: list[tuple[int, int]] = []
    for label in classes:
        taken = {index for index, _ in chosen}
        # Put new images first. The sort is stable and keeps the order otherwise.
        new_first = sorted(by_class[label], key=lambda index: index in taken)
        chosen += [(index, label) for index in new_first[:wanted]]
    return chosen


def _spread(counts: Sequence[int], n: int, enough: int) -> list[int]:
    """Return the places of n classes that are spread evenly, and have enough images as far as possible.

    Args:
        counts: the number of images of each class.
        n: below the number of classes.
        enough: the number of images for which a class is taken from further away, if none of its neighbours has them.
    """
    around = _neighbourhoods(len(counts), n)
    places = [max(near, key=counts.__getitem__) for near in around]  # of equal ones, the nearest
    for i, near in enumerate(around):
        left = [place for place in range(len(counts)) if place not in places]
        other = max(left, key=lambda place: (counts[place], -abs(place - near[0])))
        if counts[places[i]] < min(enough, counts[other]):
            places[i] = other
    return sorted(places)


def warn_of_few(labels: Sequence[int], wanted: int, name_class: Callable[[int], str]) -> None:
    """Warn of the classes that gave fewer images than were asked for, as a verdict may have advised the number.

    The default warns of nothing: of a class without a second image, the verdict tells.

    Args:
        labels: of the chosen images.
        wanted: the number of images of each class.
        name_class: takes a label, and returns the name of the class.
    """
    counts = sorted(Counter(labels).items())
    few = [f"{count} of {name_class(label)!r}" for label, count in counts if count < wanted]
    if few and wanted > DEFAULT_PER_CLASS:
        warnings.warn(
            f"GradCAM: {len(few)} of {len(counts)} classes gave fewer than the {wanted} images that `per_class` asks "
            f"for: {name_some(few)}. The probe set takes what there is. A larger dataset may have more.",
            GradCAMWarning,
            stacklevel=2,
        )


class ClassCount:
    """The number of images of each class so far, to know when a probe set is full.

    Args:
        quota: how many are wanted.
        spare: as in `choose_per_class`.

    Attributes:
        n_classes: of the network. While it is None, the probe set never is full, as another class may come.
    """

    def __init__(self, quota: Quota, spare: int = 1) -> None:
        self._quota, self._spare = quota, spare
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
        wanted = self._spare * self._quota.of_each(self.n_classes)
        have = {label for label, count in self._counts.items() if count >= wanted}
        around = _neighbourhoods(self.n_classes, self._quota.room(self.n_classes))
        return not any(have.isdisjoint(labels) for labels in around)


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
