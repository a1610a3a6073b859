"""Single images on their way into a probe set, and the choice of a few per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor


class Item(NamedTuple):
    """One image with its label and mask, read from a dataset, a folder or COCO annotations.

    Attributes:
        image: ``(C, H, W)``, as the model takes it.
        label: the class of the image. If the image holds several classes, the class for which it was chosen.
        mask: a mask in any form that `ProbeSet` takes, or None.
        source: the path or the number of the item, for error messages.
        present: ``(K,)`` bool, all classes of the image if it may hold several, otherwise None.
    """

    image: Tensor
    label: int
    mask: Any
    source: str
    present: Tensor | None = None


def choose_per_class(pairs: Sequence[tuple[int, int]], per_class: int, max_images: int | None) -> list[tuple[int, int]]:
    """Choose the first ``per_class`` images of each class.

    Args:
        pairs: an index and a label, with one pair for each class of an image. Earlier pairs are preferred.
        per_class: the number of images per class. A class with fewer images gives all of them.
        max_images: the largest number of images. Without room for every class, some classes are left out.

    Returns:
        The chosen pairs, ordered by label. An image is chosen again for a later class only if no other image is left.
    """
    by_class: dict[int, list[int]] = {}
    for index, label in pairs:
        by_class.setdefault(label, []).append(index)
    classes = sorted(by_class)
    if max_images is not None:
        per_class = min(per_class, max_images)
        room = max_images // per_class
        if len(classes) > room:
            # Spread the kept classes over all indices, since neighbouring classes are often alike.
            classes = [classes[round(i * (len(classes) - 1) / max(room - 1, 1))] for i in range(room)]
    chosen: list[tuple[int, int]] = []
    for label in classes:
        taken = {index for index, _ in chosen}
        # Put new images first. The sort is stable and keeps the order otherwise.
        new_first = sorted(by_class[label], key=lambda index: index in taken)
        chosen += [(index, label) for index in new_first[:per_class]]
    return chosen
