"""Choose images of each class from a map-style dataset, with their masks."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.datasets import DatasetFolder
from torchvision.datasets.folder import default_loader
from tqdm import tqdm

from gradcam_callback.exceptions import GradCAMWarning, UserCodeError
from gradcam_callback.probes.automatic import SPARE, propose_of_file
from gradcam_callback.probes.batches import file_name, find_parts
from gradcam_callback.probes.beside import PHOTOGRAPH_SUFFIXES
from gradcam_callback.probes.checks import check_count, check_seed
from gradcam_callback.probes.columns import (
    Boxes,
    find_boxes,
    find_mask_column,
    find_second_label,
    fit_boxes,
    name_unread_mask,
)
from gradcam_callback.probes.feed import Feed, Sample
from gradcam_callback.probes.items import ClassCount, CountClasses, Item, choose_per_class, without_empty_masks
from gradcam_callback.probes.labels import all_classes, stored_labels, to_classes
from gradcam_callback.probes.loaders import Loader, read_picture
from gradcam_callback.probes.lookup import find_class_names, find_loader, find_transform, narrow, unwrap
from gradcam_callback.probes.masks import from_image, is_box, looks_inverted, to_corners, warn_of_inverted
from gradcam_callback.probes.pets import is_pets, leaves_masks_untransformed, trimap_to_mask
from gradcam_callback.probes.transforms import (
    MaskTransformError,
    Transform,
    blame_transform,
    mask_to_image,
    transform_mask,
)
from gradcam_callback.random_state import (
    hash_random_state,
    preserved_generators,
    preserved_random_state,
    seed_everything,
)
from gradcam_callback.saliency import Proposal, SaliencyNetwork

# The largest number of items that are collated at once.
BATCH = 16
# Names under which datasets keep the paths of their images by index.
_PATHS = ("samples", "imgs", "_images", "image_paths", "img_paths", "image_files", "paths", "files", "filenames")
# Files at most that are opened to see if they are those of the items.
_MOST_OPENED = 4


class Choice(NamedTuple):
    """The chosen items of a dataset.

    Attributes:
        items: ordered by label.
        class_names: by index; None if there are none, or if the items have other labels than those that the names
            belong to.
        second_label: the place of another value of each item that may be its label, and the largest one; None without.
    """

    items: list[Item]
    class_names: list[str] | None
    second_label: tuple[int, int] | None = None


def choose_items(
    dataset: Any,
    feed: Feed,
    per_class: int | None,
    seed: int,
    max_images: int | None,
    max_scanned: int | None,
    count_classes: CountClasses | None = None,
    automatic: bool = False,
    times: int = 1,
) -> Choice:
    """Choose items of a map-style dataset, see `ProbeSet.from_dataset`.

    Args:
        feed: the way of the items to the model.
        per_class: the number of images of each class; None fills ``max_images`` evenly.
        count_classes: with it, labels are read only until every class has its images.
        automatic: True chooses `SPARE` times as many items. Those without a mask can make one of their file, if the
            dataset names the files of its images.
        times: so many times as many items are chosen of each class, if they have labels.
    """
    for name, number in {"per_class": per_class, "max_images": max_images, "max_scanned": max_scanned}.items():
        check_count(name, 1 if number is None else number)
    seed = check_seed(seed)
    if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
        raise ValueError(
            f"Expected `dataset` to be map-style, with a length and items by index, but got {type(dataset).__name__}. "
            "For an iterable dataset, collect the images yourself and pass ProbeSet(images, labels)."
        )
    if not len(dataset):
        raise ValueError("Expected `dataset` to hold at least one item (image, label), but it is empty.")
    spare = SPARE if automatic else 1
    with preserved_random_state(), preserved_generators([*unwrap(dataset), feed.collate]):
        # Datasets are often sorted, and neighbours are often alike.
        order = random.Random(seed).sample(range(len(dataset)), len(dataset))
        if not feed.needs_labels:
            some = sorted(order[: spare * (max_images or per_class or 1)])
            loaded = _load(dataset, feed, [(index, 0) for index in some], seed)
            return Choice(_make_items(dataset, feed, loaded, seed, automatic), None)
        spare *= times
        stored = stored_labels(dataset)

        def are_stored(items: Sequence[Item], loaded: Sequence[_Loaded]) -> bool:
            pairs = zip(items, loaded, strict=True)
            return stored is None or all(item.label == int(stored[one.number]) for item, one in pairs)

        if stored is not None and not _transforms_labels(dataset):
            pairs = [(index, int(stored[index])) for index in order]
            _warn_of_negative(pairs)
            chosen = choose_per_class(pairs, per_class, max_images, spare)
            loaded = _load(dataset, feed, chosen, seed)
            items = [item._replace(present=None) for item in _make_items(dataset, feed, loaded, seed, automatic)]
            if are_stored(items, loaded):
                return Choice(items, _names_of(dataset, items, loaded))
        count = ClassCount(per_class, max_images, spare)
        pairs, one_hot = _scan(dataset, feed, order[:max_scanned], seed, count, count_classes)
        chosen = choose_per_class(pairs, per_class, max_images, spare)
        loaded = _load(dataset, feed, chosen, seed)
        items = _make_items(dataset, feed, loaded, seed, automatic)
        if one_hot:
            items = [item._replace(present=None) for item in items]
        fits = are_stored(items, loaded)
        is_certain = feed.batch_transform is not None or (fits and stored is not None)
        names = _names_of(dataset, items, loaded) if fits else None
        return Choice(items, names, None if is_certain else find_second_label([one.item for one in loaded]))


def _names_of(dataset: Any, items: Sequence[Item], loaded: Sequence[_Loaded]) -> list[str] | None:
    """Return the names of the classes of a dataset if they may belong to the labels of these items."""
    found, pairs = find_class_names(dataset), zip(items, loaded, strict=True)
    if found is None or not all(found.fit(one.number, _classes(item)) for item, one in pairs):
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
        Pairs of index and label, with one pair for each class of an item; and True if the labels are one-hot, that is,
        if every item has exactly one of its classes.
    """
    pairs: list[tuple[int, int]] = []
    one_hot = True
    # Slow data would look like a hang. The bar appears after two seconds only.
    for index in tqdm(order, desc=f"GradCAM: reading labels of {feed.name}", delay=2, leave=False):
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
    _warn_of_negative(pairs)
    return pairs, one_hot


def _warn_of_negative(pairs: Sequence[tuple[int, int]]) -> None:
    negative = {label for _, label in pairs if label < 0}
    if negative:
        count = sum(label < 0 for _, label in pairs)
        warnings.warn(
            f"GradCAM: {count} of {len(pairs)} images have the label {', '.join(map(str, sorted(negative)))}, which is "
            "no class, and are left out of the probe set.",
            GradCAMWarning,
            stacklevel=2,
        )


class _Loaded(NamedTuple):
    """An item of a dataset.

    Attributes:
        number: of the item.
        label: that it was chosen for.
        item: as the dataset gave it.
        state: of the random generators after it was loaded, see `hash_random_state`.
    """

    number: int
    label: int
    item: Any
    state: int


def _load(dataset: Any, feed: Feed, chosen: Sequence[tuple[int, int]], seed: int) -> list[_Loaded]:
    """Load the chosen pairs of index and label, and leave out items that are None, with a warning.

    A dataset gives None for a broken file, if its collate function leaves it out.
    """
    # Slow data would look like a hang. The bar appears after two seconds only.
    shown = tqdm(chosen, desc="GradCAM: reading images", delay=2, leave=False)
    # The seed belongs to the item, so a random transform gives the same image every time.
    loaded = [
        _Loaded(index, label, feed.load(dataset, index, seed + index), hash_random_state()) for index, label in shown
    ]
    missing = [str(one.number) for one in loaded if one.item is None]
    if len(missing) == len(loaded):
        raise ValueError(
            f"Expected the items of {feed.name} to hold images, but all {len(loaded)} that were read are None. Try "
            "dataset[index] on its own, and correct the dataset."
        )
    if missing:
        warnings.warn(
            f"GradCAM: {len(missing)} of {len(loaded)} items of {feed.name} are None and left out of the probe set: "
            f"{', '.join(missing)}.",
            GradCAMWarning,
            stacklevel=2,
        )
    return [one for one in loaded if one.item is not None]


def _make_items(dataset: Any, feed: Feed, loaded: Sequence[_Loaded], seed: int, automatic: bool) -> list[Item]:
    """Send loaded items the way to the model, and find their masks.

    Args:
        automatic: True lets items without a mask make one of their file.
    """
    samples = _collate(feed, loaded, BATCH)
    if len({sample.image.shape for sample in samples}) > 1:
        # A collate function may pad images to the largest of their batch.
        samples = _collate(feed, loaded, len(loaded))
    items = []
    origins = [_Origin(dataset, feed, one.number, seed + one.number, one.state) for one in loaded]
    named_by_index = _keeps_files_by_index(dataset, loaded, origins)
    for one, origin, sample in zip(loaded, origins, samples, strict=True):
        item = _to_item(origin, one.label, one.item, sample)
        if automatic and item.mask is None:
            item = item._replace(propose=partial(_propose, origin, one.item))
        path = _find_path(dataset, one.number) if named_by_index else None
        if path is not None:
            item = item._replace(name=path.stem)
        items.append(item)
    warn_of_inverted([item.source for item in items if _looks_inverted(item)])
    return without_empty_masks(items)


def _collate(feed: Feed, loaded: Sequence[_Loaded], at_once: int) -> list[Sample]:
    """Send items the way to the model, some at once."""
    samples: list[Sample] = []
    for start in range(0, len(loaded), at_once):
        some = loaded[start : start + at_once]
        samples += feed.samples([one.item for one in some], [one.number for one in some])
    return samples


def _looks_inverted(item: Item) -> bool:
    mask, size = item.mask, item.image.shape[1:]
    if (
        not isinstance(mask, Tensor)
        or is_box(mask, size)
        or mask.shape[-2:] != size
        or mask.shape.numel() != size.numel()
    ):
        return False
    return looks_inverted(mask.reshape(size) != 0)


@dataclass(frozen=True)
class _Origin:
    """The origin of an item: its dataset, its number and its random steps.

    Attributes:
        dataset: that holds it.
        feed: the way of the items to the model.
        index: of the item.
        seed: of its random steps.
        state: as in `_Loaded`.
    """

    dataset: Any
    feed: Feed
    index: int
    seed: int
    state: int

    @property
    def part(self) -> Any:
        """Return the part of the dataset that holds the item."""
        return narrow(self.dataset, self.index)[0]

    @property
    def transform(self) -> Transform | None:
        """Return the transform of the image."""
        return find_transform(self.part)

    @property
    def loader(self) -> Loader:
        """Return what reads the file of the item. Most datasets leave photographs lying that their EXIF data turn."""
        return find_loader(self.part) or default_loader

    def open(self) -> Image.Image | None:
        """Return the file of the item in RGB, or None if the dataset does not know it."""
        path = _find_path(self.dataset, self.index)
        try:
            return None if path is None else read_picture(path, self.loader).convert("RGB")
        except (UserCodeError, ValueError):
            return None  # the dataset reads it in a way of its own

    def check_steps(self, size: tuple[int, int]) -> None:
        """Refuse a transform with random steps that cannot be repeated.

        Args:
            size: the width and height of the untransformed image.

        Raises:
            MaskTransformError: something else in the item draws random numbers, too.
        """
        transform = self.transform
        if transform is None:
            return
        seed_everything(self.seed)
        before = hash_random_state()
        with blame_transform():
            transform(Image.new("RGB", size))
        if hash_random_state() not in (before, self.state):
            raise MaskTransformError(
                "Expected random steps of the items in `dataset.transform` alone, so that a mask can repeat those of "
                "its image, but the items draw other random numbers, too. Transform image and mask together, and give "
                "the mask the size of its image."
            )


def _to_item(origin: _Origin, label: int, item: Any, sample: Sample) -> Item:
    feed, index = origin.feed, origin.index
    if feed.needs_labels:
        own = to_classes(sample.label, f"the label of item {index}", feed.name)
        # The label is the item's own, whatever the dataset stores.
        label = label if label in own or not own else own[0]
    present = all_classes(sample.label) if feed.needs_labels else None
    try:
        mask = _find_mask(origin, label, item, sample, present)
    except MaskTransformError as error:
        warnings.warn(f"GradCAM: masks of {feed.name} are left out. {error}", GradCAMWarning, stacklevel=2)
        mask = None
    return Item(sample.image, label, mask, f"item {index}", present, file_name(item), sample.row)


def _find_mask(origin: _Origin, label: int, item: Any, sample: Sample, present: Tensor | None) -> Any:
    """Return the mask of an item in a form that `ProbeSet` takes, or None.

    Raises:
        MaskTransformError: it cannot follow its image.
    """
    mask = sample.mask
    if mask is None and origin.feed.batch_transform is None:
        # Masks of many sizes, or pictures, are left out by most collate functions.
        try:
            mask = find_parts(item, "", batched=False, needs_labels=False).masks
        except ValueError:
            mask = None  # the item has another form than its batch, in which everything else was found
        if mask is None:
            mask = find_mask_column(item, sample.image)
        if mask is None:
            mask = _find_boxes(origin, label, item, sample.image)
        if mask is None:
            _warn_of_unread_mask(item, sample.image)
    return _read_mask(origin, mask, sample.image, label, present)


def _warn_of_unread_mask(item: Any, image: Tensor) -> None:
    unread = name_unread_mask(item, image)
    if unread is not None:
        warnings.warn(
            f"GradCAM: {unread}, is left out as a mask. Expected bool, a picture, or 0 and 1 of the image's size "
            f"{tuple(image.shape[-2:])}. Transform it like the image, or give it another name.",
            GradCAMWarning,
            stacklevel=2,
        )


def _find_boxes(origin: _Origin, label: int, item: Any, image: Tensor) -> Tensor | None:
    """Return the boxes in the columns of an item, in pixels of its image; None without any, or if they may not fit."""
    if find_boxes(item, "") is None:
        return None
    found = find_class_names(origin.dataset)
    is_named = found is not None and found.fit(origin.index, [label]) and label < len(found.names)
    boxes = find_boxes(item, found.names[label] if found is not None and is_named else "")
    try:
        fitted = None if boxes is None else _fit(origin, boxes, image)
    except UserCodeError:
        # The user's transform may need more than an image.
        fitted = None
    if fitted is None:
        warnings.warn(
            "GradCAM: boxes in item['objects'] are left out. They belong to the untransformed image, whose size or "
            "transform is not known. Give them as torchvision.tv_tensors.BoundingBoxes in pixels of the transformed "
            "image.",
            GradCAMWarning,
            stacklevel=2,
        )
    return fitted


def _fit(origin: _Origin, boxes: Boxes, image: Tensor) -> Tensor | None:
    try:
        if boxes.size is not None:
            origin.check_steps(boxes.size)
        return fit_boxes(boxes, image, origin.transform, origin.seed, origin.open)
    except (MaskTransformError, UserCodeError):
        raise
    except ValueError as error:
        raise ValueError(f"Cannot read the boxes of item {origin.index}. {error}") from error


def _read_mask(origin: _Origin, mask: Any, image: Tensor, label: int, present: Tensor | None) -> Any:
    """Bring the mask of an item into a form that `ProbeSet` takes, with the geometry of its image."""
    if mask is None:
        return None
    part, transform, size = origin.part, origin.transform, image.shape[1:]
    if any(is_pets(inner) for inner in unwrap(part)):
        mask = trimap_to_mask(mask)
    elif isinstance(mask, Image.Image):
        try:
            mask = from_image(mask)
        except ValueError as error:
            raise ValueError(f"Cannot read the mask of item {origin.index}. {error}") from error
    elif present is not None and np.shape(mask)[:-2] == present.shape:
        # One mask per class: (K, H, W).
        mask = mask[label]
    if isinstance(mask, tv_tensors.BoundingBoxes) and transform is not None and mask.canvas_size != tuple(size):
        # `dataset.transform` is for the image alone, and the boxes have not gone through it.
        mask = _fit(origin, Boxes(to_corners(mask), mask.canvas_size[::-1]), image)
    elif isinstance(mask, Tensor) and mask.ndim == 2 and not is_box(mask, size) and transform is not None:
        # `dataset.transform` is for the image alone. A mask of another size has not gone through it.
        if mask.shape != size or leaves_masks_untransformed(part):
            drawn = mask_to_image(mask)
            origin.check_steps(drawn.size)
            mask = transform_mask(drawn, transform, origin.seed, origin.open)
    return mask


def _propose(origin: _Origin, item: Any, network: SaliencyNetwork) -> Proposal | None:
    """Propose a mask from the file of an item; None if the mask would not fit."""
    photograph, transform = _open_file(origin, item), origin.transform
    if photograph is None or transform is None:
        return None
    return propose_of_file(network, photograph.convert("RGB"), transform, origin.seed)


def _open_file(origin: _Origin, item: Any) -> Image.Image | None:
    """Open the file of an item.

    Returns:
        None unless `dataset.transform` alone makes the image of the item out of the file.
    """
    path, transform = _find_path(origin.dataset, origin.index), origin.transform
    if path is None or transform is None or not path.is_file():
        return None
    for loader in (origin.loader, None):
        try:
            photograph = read_picture(path, loader)
            seed_everything(origin.seed)
            image = torch.as_tensor(transform(photograph))
            own = find_parts(item, "", batched=False, needs_labels=False).images
        except Exception:
            # The user's transform may need more than an image. The probe image itself serves as well.
            return None
        if torch.equal(image, torch.as_tensor(own)):
            return photograph
    return None


def _keeps_files_by_index(dataset: Any, loaded: Sequence[_Loaded], origins: Sequence[_Origin]) -> bool:
    """Return True if a dataset certainly keeps the paths of its images by the index of the item.

    A dataset of the user's may draw its items in an order of its own, so some of its files are looked into.
    """
    inner = dataset
    while isinstance(inner, torch.utils.data.Subset):
        inner = inner.dataset
    if isinstance(inner, DatasetFolder) or type(inner).__module__.startswith("torchvision."):
        return True
    some = list(zip(loaded, origins, strict=True))[:: math.ceil(len(loaded) / _MOST_OPENED)]
    return all(_open_file(origin, one.item) is not None for one, origin in some)


def _find_path(dataset: Any, index: int) -> Path | None:
    """Return the path of the file of an item, as the dataset has it; None if the dataset does not know it."""
    dataset, index = narrow(dataset, index)
    if isinstance(dataset, torch.utils.data.Subset):
        return _find_path(dataset.dataset, dataset.indices[index])
    for name in _PATHS:
        paths = getattr(dataset, name, None)
        if isinstance(paths, (list, tuple, np.ndarray)) and len(paths) == len(dataset):
            path = paths[index][0] if isinstance(paths[index], (list, tuple)) else paths[index]
            if isinstance(path, (str, Path)) and str(path).lower().endswith(PHOTOGRAPH_SUFFIXES):
                return Path(path)
    return None
