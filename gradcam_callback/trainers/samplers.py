"""Find the items of a dataset that a loader draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from itertools import islice
from numbers import Integral
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, SequentialSampler, WeightedRandomSampler

from gradcam_callback.trainers.loaders import untouched


def drawn_indices(loader: DataLoader[Any]) -> list[int] | None:
    """Return the indices that the sampler of a loader may draw, in ascending order.

    A split by samplers shares one dataset between training and validation: what the sampler leaves out may be training
    data.

    Returns:
        None if the sampler draws the whole dataset, draws anything but numbers, or cannot be asked without a change of
        what it draws next.
    """
    batches: Any = loader.batch_sampler
    sampler = getattr(batches, "sampler", batches)
    if isinstance(sampler, DistributedSampler):
        # In several processes Lightning puts the user's sampler, in a wrapper, in the place of the dataset.
        sampler = getattr(sampler.dataset, "_sampler", sampler.dataset)
    if sampler is loader.dataset or isinstance(sampler, (SequentialSampler, RandomSampler)):
        return None
    dataset: Any = loader.dataset
    with untouched(sampler):
        # A sampler may go on without an end.
        items = list(_items_of(sampler, limit=2 * len(dataset)))
    if sampler is batches:
        items = [item for batch in items for item in batch]
    # A batch sampler for several sizes draws pairs of a number and a size.
    if not all(isinstance(item, Integral) or (isinstance(item, Tensor) and not item.shape) for item in items):
        return None
    drawn = {int(item) for item in items}
    return sorted(drawn) if 0 < len(drawn) < len(dataset) else None


def _items_of(sampler: Any, limit: int) -> Iterator[Any]:
    if isinstance(sampler, WeightedRandomSampler):
        # What it draws by chance is not all that it may draw.
        return iter(sampler.weights.nonzero()[:, 0].tolist())
    indices = getattr(sampler, "indices", None)
    if isinstance(indices, (Sequence, Tensor, np.ndarray)):
        return iter(indices)
    if isinstance(sampler, Sized) and hasattr(sampler, "__getitem__"):
        return (sampler[i] for i in range(min(len(sampler), limit)))
    # An iterator would be used up.
    return iter(()) if hasattr(sampler, "__next__") else islice(sampler, limit)
