"""Borrowed state: what a map needs of the model and the process, taken and given back whatever happens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Give the random generators of Python, NumPy and torch (CPU and every CUDA device) back as they were."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    # fork_rng would warn on machines with many GPUs unless it is told which of them to keep.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module of ``model`` in eval mode, and give each its own flag back.

    The flags are set one by one, as ``model.train()`` afterwards would un-freeze what the user put in eval mode.
    """
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def borrowed(model: nn.Module, autocast: torch.dtype | None = None) -> Iterator[None]:
    """Everything a map changes around the model: eval mode, gradients on, compiled code off, autocast as told."""
    with ExitStack() as stack:
        stack.enter_context(preserved_random_state())
        stack.enter_context(evaluation_mode(model))
        # Tensors made under inference_mode can never take part in a gradient, so it has to be left first.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device_type in {tensor.device.type for tensor in model.parameters()} | {"cpu"}:
            stack.enter_context(torch.autocast(device_type, autocast, enabled=autocast is not None))
        # Code compiled before our hooks were there does not call them (pytorch #117758).
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
