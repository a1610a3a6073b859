"""Choose images of each class from a map-style dataset, with their masks."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from gradcam_callback.exceptions import GradCAMWarning
from gradcam_callback.formatting import name_some
from gradcam_callback.probes.automatic import SPARE
from gradcam_callback.probes.batches import file_name
from gradcam_callback.probes.checks import check_count, check_seed
from gradcam_callback.probes.feed import Feed, Sample
from gradcam_callback.probes.item_masks import FoundMask, find_mask, propose_mask, warn_of_unread
from gradcam_callback.probes.items import Item, review_masks
from gradcam_callback.probes.labels import all_classes, stored_labels, to_classes, warn_of_negative
from gradcam_callback.probes.lookup import find_class_names, unwrap
from gradcam_callback.probes.origins import Origin, keeps_files_by_index
from gradcam_callback.probes.progress import show_progress
from gradcam_callback.probes.quotas import ClassCount, CountClasses, Quota, choose_per_class
from gradcam_callback.probes.transforms import MaskTransformError
from gradcam_callback.random_state import hash_random_state, preserved_generators, preserved_random_state

# The largest number of items that are collated at once.
BATCH = 16


class Choice(NamedTuple):
    """The chosen items of a dataset.

    Attributes:
        items: ordered by label.
        class_names: by index; None if there are none, or if the items have other labels than those that the names
            belong to.
        is_certain: True if the dataset stores the labels of the items, too.
    """

    items: list[Item]
    class_names: list[str] | None
    is_certain: bool = False


def choose_items(
    dataset: Any,
    feed: Feed,
    quota: Quota,
    seed: int,
    max_scanned: int | None,
    count_classes: CountClasses | None = None,
    automatic: bool = False,
) -> Choice:
    """Choose items of a map-style dataset, see `ProbeSet.from_dataset`.

    Args:
        feed: the way of the items to the model.
        quota: how many are wanted.
        count_classes: with it, labels are read only until every class has its images.
        automatic: True chooses `SPARE` times as many items. Those without a mask can make one of their file, if the
            dataset names the files of its images.
    """
    numbers = {"per_class": quota.per_class, "max_images": quota.max_images, "max_scanned": max_scanned}
    for name, number in numbers.items():
        check_count(name, 1 if number is None else number)
    seed = check_seed(seed)
    if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
        raise ValueError(
            f"Expected `dataset` to be map-style, with a length and items by index, but got {type(dataset).__name__}. "
            "For an iterable dataset, collect the images yourself and pass ProbeSet(images, labels)."
        )
    if not len(dataset):
        raise ValueError("Expected `dataset` to hold at least one item (image, label), but it is empty.")
    chooser = _Chooser(dataset, feed, quota, seed, automatic)
    with preserved_random_state(), preserved_generators([*unwrap(dataset), feed.collate]):
        # Datasets are often sorted, and neighbours are often alike.
        order = random.Random(seed).sample(range(len(dataset)), len(dataset))
        if not feed.needs_labels:
            return chooser.choose_unlabelled(order)
        stored = stored_labels(dataset)
        if stored is not None and not _transforms_labels(dataset):
            choice = chooser.choose_by_stored_labels(order, stored)
            if choice is not None:
                return choice
        return chooser.choose_by_own_labels(order[:max_scanned], stored, count_classes)


@dataclass(frozen=True)
class _Chooser:
    """The items of a dataset, and how many of them are wanted.

    Attributes:
        dataset: this and the others as in `choose_items`.
    """

    dataset: Any
    feed: Feed
    quota: Quota
    seed: int
    automatic: bool

    @property
    def _spare(self) -> int:
        return SPARE if self.automatic else 1

    def choose_unlabelled(self, order: Sequence[int]) -> Choice:
        """Choose the first items in this order."""
        n = self._spare * (self.quota.max_images or self.quota.per_class or 1)
        items, _ = self._read([(index, 0) for index in sorted(order[:n])])
        return Choice(items, None)

    def choose_by_stored_labels(self, order: Sequence[int], stored: Any) -> Choice | None:
        """Choose items of each class by the labels that the dataset stores; None if the items have others."""
        pairs = [(index, int(stored[index])) for index in order]
        warn_of_negative([label for _, label in pairs])
        items, loaded = self._read(choose_per_class(pairs, self.quota, self._spare))
        items = [item._replace(present=None) for item in items]
        if not _are_stored(stored, items, loaded):
            return None
        return Choice(items, _names_of(self.dataset, items, loaded), is_certain=True)

    def choose_by_own_labels(
        self, order: Sequence[int], stored: Any | None, count_classes: CountClasses | None
    ) -> Choice:
        """Choose items of each class by the labels of the items, read in this order."""
        count = ClassCount(self.quota, self._spare)
        pairs, one_hot = _scan(self.dataset, self.feed, order, self.seed, count, count_classes)
        items, loaded = self._read(choose_per_class(pairs, self.quota, self._spare))
        if one_hot:
            items = [item._replace(present=None) for item in items]
        fits = stored is None or _are_stored(stored, items, loaded)
        names = _names_of(self.dataset, items, loaded) if fits else None
        return Choice(items, names, is_certain=fits and stored is not None)

    def _read(self, chosen: Sequence[tuple[int, int]]) -> tuple[list[Item], list[_Loaded]]:
        """Load the chosen pairs of index and label, and make items of them."""
        loaded = _load(self.dataset, self.feed, chosen, self.seed)
        return _make_items(self.dataset, self.feed, loaded, self.automatic), loaded


def _are_stored(stored: Any, items: Sequence[Item], loaded: Sequence[_Loaded]) -> bool:
    """Return True if the items have the labels that their dataset stores."""
    return all(item.label == int(stored[one.origin.index]) for item, one in zip(items, loaded, strict=True))


def _names_of(dataset: Any, items: Sequence[Item], loaded: Sequence[_Loaded]) -> list[str] | None:
    """Return the names of the classes of a dataset if they may belong to the labels of these items."""
    found, pairs = find_class_names(dataset), zip(items, loaded, strict=True)
    if found is None or not all(found.fit(one.origin.index, _classes(item)) for item, one in pairs):
        return None
    return found.names


def _classes(item: Item) -> list[int]:
    return [item.label] if item.present is None else [int(found) for found in item.present.nonzero()[:, 0]]


def _transforms_labels(dataset: Any) -> bool:
    """Return True if a dataset, or one inside of it, changes its stored labels."""
    return any(getattr(part, "target_transform", None) is not None for part in unwrap(dataset))


def _scan(
    dataset: Any,
    feed: Feed,
    order: Sequence[int],
    seed: int,
    count: ClassCount,
    count_classes: CountClasses | None,
) -> tuple[list[tuple[int, int]], bool]:
    """Read labels from the items until every class has its images.

    Returns:
        Pairs of index and label, with one pair for each class of an item; and True if the labels are one-hot. They are
        if every item has exactly one of its classes.
    """
    pairs: list[tuple[int, int]] = []
    one_hot = True
    for index in show_progress(order, f"reading labels of {feed.name}", is_shown=feed.shows_progress):
        item = feed.load(dataset, index, seed + index)
        if item is None:
            continue
        if not pairs and count_classes is not None:
            count.n_classes = count_classes(feed.samples([item], [index])[0])
        classes = to_classes(feed.label_of(item, index), f"the label of item {index}", feed.name)
        one_hot = one_hot and len(classes) == 1
        pairs += [(index, one) for one in classes]
        count.add([one for one in classes if one >= 0])
        if count.is_full:
            break
    if not pairs:
        raise ValueError(
            "Expected `dataset` to have labels with a 1, but all labels that were read are 0, or the items are None. "
            "Check them, or raise `max_scanned`."
        )
    warn_of_negative([label for _, label in pairs])
    return pairs, one_hot


class _Loaded(NamedTuple):
    """An item of a dataset.

    Attributes:
        origin: where it comes from.
        label: that it was chosen for.
        item: as the dataset gave it.
    """

    origin: Origin
    label: int
    item: Any


def _load(dataset: Any, feed: Feed, chosen: Sequence[tuple[int, int]], seed: int) -> list[_Loaded]:
    """Load the chosen pairs of index and label, and leave out items that are None, with a warning.

    A dataset gives None for a broken file, if its collate function leaves it out.
    """
    loaded = []
    for index, label in show_progress(chosen, "reading images", is_shown=feed.shows_progress):
        # The seed belongs to the item, so a random transform gives the same image every time.
        item = feed.load(dataset, index, seed + index)
        loaded.append(_Loaded(Origin(dataset, feed, index, seed + index, hash_random_state()), label, item))
    missing = [str(one.origin.index) for one in loaded if one.item is None]
    if len(missing) == len(loaded):
        raise ValueError(
            f"Expected the items of {feed.name} to hold images, but all {len(loaded)} that were read are None. Try "
            "dataset[index] on its own, and correct the dataset."
        )
    if missing:
        warnings.warn(
            f"GradCAM: {len(missing)} of {len(loaded)} items of {feed.name} are None and left out of the probe set: "
            f"{name_some(missing)}.",
            GradCAMWarning,
            stacklevel=2,
        )
    return [one for one in loaded if one.item is not None]


def _make_items(dataset: Any, feed: Feed, loaded: Sequence[_Loaded], automatic: bool) -> list[Item]:
    """Send loaded items the way to the model, and find their masks.

    Args:
        automatic: True lets items without a mask make one of their file.
    """
    samples = _collate(feed, loaded, BATCH)
    if len({sample.image.shape for sample in samples}) > 1:
        # A collate function may pad images to the largest of their batch.
        samples = _collate(feed, loaded, len(loaded))
    items, masks = list[Item](), list[FoundMask]()
    named_by_index = keeps_files_by_index(dataset, [one.origin for one in loaded], [one.item for one in loaded])
    for one, sample in zip(loaded, samples, strict=True):
        item, found = _to_item(one, sample)
        masks.append(found)
        if automatic and item.mask is None:
            item = item._replace(propose=partial(propose_mask, one.origin, one.item))
        path = one.origin.path if named_by_index else None
        if path is not None:
            item = item._replace(name=path.stem, source=str(path))
        items.append(item)
    warn_of_unread(masks, samples[0].image.shape[1:], loaded[0].origin.transform is not None)
    return review_masks(items)


def _collate(feed: Feed, loaded: Sequence[_Loaded], at_once: int) -> list[Sample]:
    """Send items the way to the model, some at once."""
    samples: list[Sample] = []
    for start in range(0, len(loaded), at_once):
        some = loaded[start : start + at_once]
        samples += feed.samples([one.item for one in some], [one.origin.index for one in some])
    return samples


def _to_item(loaded: _Loaded, sample: Sample) -> tuple[Item, FoundMask]:
    (origin, label, item), feed, index = loaded, loaded.origin.feed, loaded.origin.index
    if feed.needs_labels:
        own = to_classes(sample.label, f"the label of item {index}", feed.name)
        # The label is the item's own, whatever the dataset stores.
        label = label if label in own or not own else own[0]
    present = all_classes(sample.label) if feed.needs_labels else None
    try:
        found = find_mask(origin, label, item, sample, present)
    except MaskTransformError as error:
        found = FoundMask(None, problem=f"masks of {feed.name} are left out. {error}")
    name = file_name(item)
    source = f"item {index}" if name is None else f"{name} (item {index})"
    return Item(sample.image, label, found.mask, source, present, name, sample.row), found
