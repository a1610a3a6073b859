"""The way of items to the model: they are collated, go through the hooks of a batch, and are told apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate

from gradcam_callback.exceptions import UserCodeError, blame
from gradcam_callback.formatting import name_some
from gradcam_callback.probes.batches import (
    BatchTransform,
    ImagePlace,
    Parts,
    contains,
    describe,
    find_parts,
    replace_part,
    row_of,
    take_parts,
    transform_leaves,
)
from gradcam_callback.random_state import seed_everything

_HOW_TO_LOAD = (
    "Try dataset[index] on its own, and correct the dataset. If its workers prepare it, pass probe=ProbeSet(...)."
)
_HOW_TO_COLLATE = "Correct the collate_fn, or pass probe=ProbeSet(...)."
_HOW_TO_COLLATE_BY_DEFAULT = (
    "torch's default_collate takes tensors of one size, numbers and texts, also in tuples, lists and mappings. Let the "
    "dataset give such items, or pass probe=ProbeSet(...)."
)


IMAGE = ImagePlace()


class Sample(NamedTuple):
    """One image on its way to the model.

    Attributes:
        image: ``(C, H, W)`` on the CPU, as the model takes it.
        label: a class, or ``(K,)`` of 0 and 1, as it came; None if none is needed.
        mask: in any form; None without a mask.
        row: the batch of this image alone, with an `ImagePlace` for it; None if the image is no part of the batch.
    """

    image: Tensor
    label: Any
    mask: Any
    row: Any


@dataclass(frozen=True)
class Feed:
    """The steps of items on their way to the model.

    Attributes:
        name: of the dataset in errors.
        collate: makes a batch of items. None takes each item as it is.
        transfer: what the Trainer's hooks do with a batch.
        batch_transform: the user's ``(images, labels)`` or ``(images, labels, masks)`` of a batch.
        needs_labels: False takes images without labels.
        shows_progress: False shows no bars.
    """

    name: str = "the dataset"
    collate: Callable[[list[Any]], Any] | None = None
    transfer: Callable[[Any], Any] = lambda batch: batch
    batch_transform: BatchTransform | None = None
    needs_labels: bool = True
    shows_progress: bool = True

    def load(self, dataset: Any, index: int, seed: int) -> Any:
        """Load an item; the seed decides random steps of its transform."""
        seed_everything(seed)
        with blame(f"item {index} of {self.name} to load", _HOW_TO_LOAD):
            return dataset[index]

    def label_of(self, item: Any, index: int) -> Any:
        """Return the label of an item: its own, or that of the batch of this item alone."""
        if self.collate is not None and self.batch_transform is None:
            try:
                found = find_parts(item, "", batched=False)
            except ValueError:
                pass  # the collate function may bring order into it
            else:
                return found.labels
        return self.samples([item], [index])[0].label

    def samples(self, items: Sequence[Any], indices: Sequence[int]) -> list[Sample]:
        """Send items the way of a batch.

        Args:
            items: of the dataset.
            indices: their numbers, for errors.

        Raises:
            ValueError: images or labels cannot be told for certain.
            UserCodeError: the collate function, a hook or ``batch_transform`` failed.
        """
        if self.collate is None:
            found = [
                find_parts(item, f"item {index} of {self.name}", batched=False, needs_labels=self.needs_labels)
                for item, index in zip(items, indices, strict=True)
            ]
            return [Sample(_to_cpu(parts.images), parts.labels, parts.masks, None) for parts in found]
        batch = self._collate(items)
        # A batch of one item tells what the images share, which may happen to be as long as the larger batch.
        alone = None
        if len(items) > 1:
            with suppress(UserCodeError):
                alone = self._collate(items[:1])
        return self.samples_of(batch, indices, alone)

    def _collate(self, items: Sequence[Any]) -> Any:
        assert self.collate is not None
        hint = _HOW_TO_COLLATE_BY_DEFAULT if self.collate is default_collate else _HOW_TO_COLLATE
        expected = f"the collate_fn of {self.name} to make a batch of {len(items)} items such as {describe(items[0])}"
        try:
            with blame(expected, hint):
                batch = self.collate(list(items))
        except UserCodeError as error:
            sizes = _sizes_of(items)
            if len(sizes) < 2:
                raise
            # A training with batches of one image never collates them.
            raise ValueError(
                f"Expected the images of {self.name} to have one size, as maps of a probe set are compared, but got "
                f"{name_some(sizes)}. Resize them in the dataset, or pass probe=ProbeSet(...) with images of one size."
            ) from error
        return self.send(batch)

    def send(self, batch: Any) -> Any:
        """Return what the Trainer's hooks make of a batch.

        Raises:
            UserCodeError: a hook failed.
        """
        with blame(
            f"your batch hooks, such as on_after_batch_transfer, to take a batch of {self.name}, {describe(batch)}",
            "They get it in eval mode, with trainer.validating True. Correct the hook.",
        ):
            return self.transfer(batch)

    def samples_of(self, batch: Any, indices: Sequence[int] | None = None, alone: Any = None) -> list[Sample]:
        """Return the images of a batch that went through the hooks.

        Args:
            indices: the numbers of the items that it was made of.
            alone: as in `row_of`.
        """
        parts = self.parts(batch)
        found = len(parts.images)
        if indices is not None and found != len(indices):
            raise ValueError(
                f"Expected the batch of {len(indices)} items of {self.name} to hold {len(indices)} images, but got "
                f"{found} in {describe(batch)}. These are items {name_some([*map(str, indices)])}. Correct the "
                "collate_fn or the batch hooks, or pass probe=ProbeSet(...)."
            )
        # A batch_transform may make images that are no part of the batch. Then nothing can go with them.
        whole = replace_part(batch, parts.images, IMAGE) if contains(batch, parts.images) else None
        return [
            Sample(
                _to_cpu(parts.images[i]),
                None if parts.labels is None else parts.labels[i],
                None if parts.masks is None else parts.masks[i],
                None if whole is None else _row_to_cpu(row_of(whole, i, found, alone)),
            )
            for i in range(found)
        ]

    def parts(self, batch: Any) -> Parts:
        """Find images, labels and masks in a batch that went through the hooks."""
        if self.batch_transform is None:
            return find_parts(batch, f"a batch of {self.name}", needs_labels=self.needs_labels)
        with blame(f"your batch_transform to take the batch {describe(batch)}", "Correct it."):
            transformed = self.batch_transform(batch)
        return take_parts(transformed, batch)


def _sizes_of(items: Sequence[Any]) -> list[str]:
    """Return the different shapes of the images in items, as text; none if images are not found."""
    try:
        shapes = [tuple(find_parts(item, "", batched=False, needs_labels=False).images.shape) for item in items]
    except ValueError:
        return []
    return [str(shape) for shape in dict.fromkeys(shapes)]


def fill_row(row: Any, images: Tensor) -> Any:
    """Return the batch of one image, with the image in its place and everything else on its device.

    Args:
        row: of `Sample`.
        images: ``(1, C, H, W)``.
    """

    def fill(leaf: Any) -> Any:
        if isinstance(leaf, ImagePlace):
            return images
        return leaf.to(images.device) if isinstance(leaf, Tensor) else leaf

    return transform_leaves(row, fill)


def _row_to_cpu(row: Any) -> Any:
    return transform_leaves(row, lambda leaf: leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf)


def _to_cpu(image: Tensor) -> Tensor:
    """Return a copy in the image's own precision, or in float32 if this is a half one, which NumPy may not know."""
    image = image.detach().cpu().clone()
    return image if image.dtype == torch.float64 else image.float()
