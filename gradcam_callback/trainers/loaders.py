"""Read from a loader or a sampler, and leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _BaseDataLoaderIter

from gradcam_callback.random_state import find_inside, preserved_generators, preserved_random_state


@contextmanager
def untouched(source: Any) -> Iterator[None]:
    """Restore at the end of the block the attributes of a loader or a sampler, and the state of random generators.

    The same is done for loaders, datasets and samplers inside of it. A dataset may count how often it is read.

    A loader with persistent workers keeps them from its first iterator on, and draws their seed only then. In the block
    it has others, which end with their iterator. Otherwise the validation would find workers that have drawn already.
    """
    holders = [source, *find_inside([source], (DataLoader, Dataset, Sampler))]
    kept = [(vars(each), dict(vars(each))) for each in holders if hasattr(each, "__dict__")]
    with preserved_random_state(), preserved_generators([source]):
        try:
            for each in holders:
                if isinstance(each, DataLoader):
                    # Not by setattr, which a loader refuses.
                    own = [name for name, value in vars(each).items() if isinstance(value, _BaseDataLoaderIter)]
                    vars(each).update(dict.fromkeys(own), persistent_workers=False)
            yield
        finally:
            for attributes, before in kept:
                attributes.update(before)
                for name in attributes.keys() - before.keys():
                    del attributes[name]
