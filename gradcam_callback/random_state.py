"""Seed the random generators of Python, NumPy and torch, and restore their state."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restore the random state of Python, NumPy and torch (CPU and every CUDA device) at the end of the block."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    # On a machine with many GPUs, fork_rng warns unless it gets the list of devices.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@contextmanager
def preserved_generators(holders: Iterable[Any]) -> Iterator[None]:
    """Restore at the end of the block the random generators that some objects have as attributes.

    Args:
        holders: such as a dataset and its transforms, or a loader.
    """
    with ExitStack() as stack:
        for holder in holders:
            for value in list(getattr(holder, "__dict__", {}).values()):
                if isinstance(value, torch.Generator):
                    stack.callback(value.set_state, value.get_state())
                elif isinstance(value, random.Random):
                    stack.callback(value.setstate, value.getstate())
                elif isinstance(value, np.random.RandomState):
                    stack.callback(value.set_state, value.get_state())
                elif isinstance(value, np.random.Generator):
                    stack.callback(setattr, value.bit_generator, "state", value.bit_generator.state)
        yield


def seed_everything(seed: int) -> None:
    """Seed the random generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
