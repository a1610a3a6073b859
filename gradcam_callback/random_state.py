"""Seed the random generators of Python, NumPy and torch, and restore their state."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

# Whoever changes what belongs to the whole process holds this lock until it is restored: the random state, warnings,
# checkpointing, the compiler, the handler of Ctrl-C. Two threads at once would leave what one of them had set.
PROCESS_LOCK = threading.RLock()
# How deep generators and others are looked for, as in dataset.augment.steps[0].rng, and in lists of what length.
_DEEPEST, _LONGEST = 6, 64
_GENERATORS = (torch.Generator, random.Random, np.random.RandomState, np.random.Generator)
_WITHOUT_GENERATORS = (str, bytes, int, float, type(None), type, ModuleType, torch.Tensor, np.ndarray)
# Objects of Lightning lead to everything else there is. Layers of torch hold no generator, and there are many.
_LIBRARIES = ("torch", "torchvision", "numpy", "PIL", "pytorch_lightning", "lightning", "lightning_fabric")
_ELSEWHERE = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "torch.nn.")


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restore the random state of Python, NumPy and torch (CPU, CUDA and Apple's GPU) at the end of the block."""
    with PROCESS_LOCK:
        python_state, numpy_state = random.getstate(), np.random.get_state()
        # fork_rng knows CUDA only.
        apple_state = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
        # On a machine with many GPUs, fork_rng warns unless it gets the list of devices.
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        try:
            with torch.random.fork_rng(devices=devices):
                yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
            if apple_state is not None:
                torch.mps.set_rng_state(apple_state)


@contextmanager
def preserved_generators(holders: Iterable[Any]) -> Iterator[None]:
    """Restore at the end of the block the random generators that some objects have, also in their attributes.

    Args:
        holders: such as a dataset, a loader, or the modules of a model.
    """
    with ExitStack() as stack:
        for value in _find_generators(holders):
            if isinstance(value, torch.Generator):
                stack.callback(value.set_state, value.get_state())
            elif isinstance(value, random.Random):
                stack.callback(value.setstate, value.getstate())
            elif isinstance(value, np.random.RandomState):
                stack.callback(value.set_state, value.get_state())
            else:
                stack.callback(setattr, value.bit_generator, "state", value.bit_generator.state)
        yield


def _find_generators(holders: Iterable[Any]) -> list[Any]:
    return find_inside(holders, _GENERATORS)


def find_inside(holders: Iterable[Any], kinds: tuple[type, ...], depth: int = _DEEPEST) -> list[Any]:
    """Return the objects of some types, such as random generators, that others have inside, the nearest first.

    They are looked for in attributes, in short lists and dicts, and in the variables that functions and methods use.
    Nothing of the user's is called.
    """
    found: list[Any] = []
    seen: set[int] = set()
    # Kept, so that no number of an object is used again.
    level, kept = list(holders), []
    for _ in range(depth):
        inside: list[Any] = []
        for each in level:
            if id(each) in seen or isinstance(each, _WITHOUT_GENERATORS):
                continue
            seen.add(id(each))
            kept.append(each)
            if isinstance(each, kinds):
                found.append(each)
            if isinstance(each, dict):
                inside += each.values() if len(each) <= _LONGEST else ()
            elif isinstance(each, (list, tuple)):
                inside += each if len(each) <= _LONGEST else ()
            elif isinstance(each, MethodType):
                inside += each.__self__, each.__func__
            elif isinstance(each, FunctionType):
                inside += _variables(each)
            elif isinstance(each, partial):
                inside += each.func, each.args, each.keywords
            elif not type(each).__module__.startswith(_ELSEWHERE):
                inside += getattr(each, "__dict__", {}).values()
                inside += (value for kind in type(each).__mro__ if _is_of_user(kind) for value in vars(kind).values())
        level = inside
    return found


def _variables(function: FunctionType) -> list[Any]:
    """Return the values that a function finds outside of itself: in its closure, its defaults and its module."""
    if not _is_of_user(function):
        return []
    of_module = [function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__]
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [*closure_values(function), *defaults, *of_module]


def _names(code: CodeType) -> list[str]:
    """Return the names that code uses, also in the comprehensions and functions inside of it."""
    inside = [name for each in code.co_consts if isinstance(each, CodeType) for name in _names(each)]
    return [*code.co_names, *inside]


def closure_values(function: FunctionType) -> list[Any]:
    """Return the values of the variables around a function that it uses."""
    # A cell is empty until its variable has a value.
    return [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]


def _is_of_user(definition: type | FunctionType) -> bool:
    """Return True if a class or a function is not of a library that is known to hold no generator of its own."""
    package = (definition.__module__ or "").partition(".")[0]
    return package not in _LIBRARIES and package not in sys.stdlib_module_names


def hash_random_state(holders: Iterable[Any] = ()) -> int:
    """Return a number that stands for the state of Python, NumPy and torch, and of the generators that objects have.

    Args:
        holders: as in `preserved_generators`.
    """
    key, place = np.random.get_state(legacy=False)["state"].values()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    of_torch = tuple(bytes(state.numpy()) for state in [torch.get_rng_state(), *devices])
    return hash((random.getstate(), bytes(key), place, of_torch, *map(_describe_state, _find_generators(holders))))


def _describe_state(generator: Any) -> str:
    if isinstance(generator, torch.Generator):
        return str(bytes(generator.get_state().numpy()))
    if isinstance(generator, np.random.Generator):
        return str(generator.bit_generator.state)
    return str(generator.getstate() if isinstance(generator, random.Random) else generator.get_state(legacy=False))


def seed_everything(seed: int) -> None:
    """Seed the random generators of Python, NumPy and torch, on the CPU and on CUDA devices in use.

    NumPy takes no seed of more than 32 bits, so only these count.
    """
    seed %= 2**32
    random.seed(seed)
    np.random.seed(seed)
    # torch.manual_seed would also leave the seed to a CUDA that is not in use yet, in place of the user's seed.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
