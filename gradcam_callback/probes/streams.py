"""Choose images of each class from the first batches of a loader whose data cannot be indexed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gradcam_callback.exceptions import blame
from gradcam_callback.probes.batches import file_name
from gradcam_callback.probes.feed import Feed, Sample
from gradcam_callback.probes.item_masks import FoundMask, find_unread, warn_of_unread
from gradcam_callback.probes.items import Item, review_masks
from gradcam_callback.probes.labels import all_classes, to_classes, warn_of_negative
from gradcam_callback.probes.progress import show_progress
from gradcam_callback.probes.quotas import ClassCount, CountClasses, Quota, choose_per_class
from gradcam_callback.random_state import preserved_random_state

_END = object()
# The largest number of images that a collector holds. Of 224 pixels a side they take 460 MB.
_MOST_HELD = 768


class NoImagesError(ValueError):
    """An error that says that data are empty, as those of one of several processes may be."""


class Collector:
    """Images that are collected from batches, until there are enough of each class.

    Args:
        feed: tells images, labels and masks apart.
        quota: how many are wanted in the end. It names a largest number.
        count_classes: of the network.
        spare: as in `choose_per_class`.

    Attributes:
        count_classes: as given.
        n_seen: the number of images that have passed.
    """

    def __init__(self, feed: Feed, quota: Quota, count_classes: CountClasses, spare: int = 1) -> None:
        assert quota.max_images is not None  # a stream may have no end
        self._feed, self._quota, self.count_classes, self._spare = feed, quota, count_classes, spare
        self._max_images = quota.max_images
        self._count = ClassCount(quota, spare)
        self._samples: list[Sample] = []
        self._pairs: list[tuple[int, int]] = []
        self._labels: list[int] = []
        self._held: dict[int, int] = {}
        self.n_seen = 0

    def add(self, batch: Any) -> None:
        """Take what is needed of a batch that went through the Trainer's hooks."""
        for sample in self._feed.samples_of(batch):
            if self.n_seen == 0:
                self._count.n_classes = self.count_classes(sample)
            self.n_seen += 1
            classes = to_classes(sample.label, "a label", self._feed.name) if self._feed.needs_labels else [0]
            self._labels += classes
            classes = [one for one in classes if one >= 0]  # below, it says that an image has no class
            self._count.add(classes)
            # Never more of a class than could be chosen, so that a long stream does not fill the memory.
            wanted = [one for one in classes if self._held.get(one, 0) < self._spare * self._max_images]
            if wanted and len(self._samples) < min(self._spare * self._max_images**2, _MOST_HELD):
                self._pairs += [(len(self._samples), one) for one in classes]
                self._samples.append(sample)
                self._held |= {one: self._held.get(one, 0) + 1 for one in classes}

    @property
    def is_full(self) -> bool:
        """Return True if further batches would not change the choice for the better."""
        if not self._feed.needs_labels:
            return self.n_seen >= self._spare * self._max_images
        return self._count.is_full

    def items(self) -> list[Item]:
        """Return the chosen images, ordered by label.

        Raises:
            NoImagesError: there was no image.
            ValueError: there was none with a label.
        """
        if not self._pairs:
            raise (ValueError if self.n_seen else NoImagesError)(
                f"Expected {self._feed.name} to give images with labels, but got none of them in {self.n_seen} images. "
                "Check the data, or pass probe=ProbeSet(images, labels)."
            )
        warn_of_negative(self._labels)
        one_hot = len(self._pairs) == len(self._samples)
        items, masks = list[Item](), list[FoundMask]()
        for index, label in choose_per_class(self._pairs, self._quota, self._spare):
            sample = self._samples[index]
            present = all_classes(sample.label) if self._feed.needs_labels else None
            mask = sample.mask
            masks.append(find_unread(sample))
            if mask is not None and present is not None and np.shape(mask)[:-2] == present.shape:
                mask = mask[label]
            name = file_name(sample.row)
            place, several = f"image {index} of the first batches", None if one_hot else present
            source = place if name is None else f"{name} ({place})"
            items.append(Item(sample.image, label, mask, source, several, name, sample.row))
        if self._feed.batch_transform is None:
            warn_of_unread(masks, items[0].image.shape[1:], transformed=False)
        return review_masks(items)


def choose_from_batches(
    batches: Iterable[Any], feed: Feed, quota: Quota, max_scanned: int, count_classes: CountClasses, spare: int = 1
) -> list[Item]:
    """Choose images from the first batches of a loader, evenly over the classes as far as they go.

    Args:
        batches: as the loader gives them, before the Trainer's hooks.
        feed: the way of the batches to the model.
        quota: how many are wanted. It names a largest number.
        max_scanned: the number of images after which no further batch is read.
        count_classes: of the network.
        spare: as in `choose_per_class`.

    Raises:
        ValueError: there is no batch, or images and labels cannot be told for certain.
    """
    collector = Collector(feed, quota, count_classes, spare)
    with preserved_random_state():
        for batch in show_progress(_read(batches, feed.name), f"reading {feed.name}", is_shown=feed.shows_progress):
            collector.add(feed.send(batch))
            if collector.is_full or collector.n_seen >= max_scanned:
                break
    return collector.items()


def _read(batches: Iterable[Any], name: str) -> Iterator[Any]:
    expected, hint = f"{name} to give batches", "Iterate over its loader on its own, and correct it."
    with blame(expected, hint):
        iterator = iter(batches)
    while True:
        with blame(expected, hint):
            batch = next(iterator, _END)
        if batch is _END:
            return
        yield batch
