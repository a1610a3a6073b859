"""Seed the random generators of Python, NumPy and torch, and restore their state."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

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


def seed_everything(seed: int) -> None:
    """Seed the random generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
