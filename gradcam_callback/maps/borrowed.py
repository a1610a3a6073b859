"""Change the state of the model and the process for a map, and restore it even after an error or Ctrl-C."""

from __future__ import annotations

import signal
import threading
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from types import FrameType
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gradcam_callback.maps.support import hookable_modules
from gradcam_callback.random_state import PROCESS_LOCK, preserved_generators, preserved_random_state


class _Interrupt:
    """A Ctrl-C that waits: it is recorded while the model is borrowed, and passed on at a safe moment."""

    def __init__(self) -> None:
        # The handler that is replaced for the time of the block, such as Python's, Lightning's or the user's.
        self._handler: Callable[[int, FrameType | None], Any] | None = None
        self._pending: list[tuple[int, FrameType | None]] = []

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Keep Ctrl-C waiting until the end of the block, or until `deliver` is called in it."""
        handler = signal.getsignal(signal.SIGINT)
        # Python allows only the main thread to change handlers, and interrupts only the main thread.
        in_main_thread = threading.current_thread() is threading.main_thread()
        if not in_main_thread or not callable(handler) or self._handler is not None:
            yield
            return
        self._pending.clear()
        signal.signal(signal.SIGINT, self._record)
        try:
            self._handler = handler
            yield
        finally:
            self._handler = None
            signal.signal(signal.SIGINT, handler)
            self._pass_on(handler)

    def deliver(self) -> None:
        """Pass a waiting Ctrl-C on. Call this only at a point that tolerates a `KeyboardInterrupt`."""
        if self._handler is not None:
            self._pass_on(self._handler)

    def _record(self, number: int, frame: FrameType | None) -> None:
        self._pending.append((number, frame))

    def _pass_on(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        if self._pending:
            # Repeated presses count as one, as the handler usually raises at the first.
            first, self._pending = self._pending[0], []
            handler(*first)


interrupt = _Interrupt()


_watching = 0


def is_watching() -> bool:
    """Return True while maps are computed, in any thread, so that a hook of yours on the model can stand aside.

    Your own forward hooks are called for the probe images, too.

    Examples:
        A hook that collects the features of the training and the validation, but not of the probe images:

        >>> import torch
        >>> from gradcam_callback import GradCAM, is_watching
        >>> features = []
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 8), torch.nn.Flatten())
        >>> _ = model[0].register_forward_hook(lambda _, __, output: None if is_watching() else features.append(output))
        >>> _ = model(torch.rand(1, 3, 8, 8))
        >>> _ = GradCAM(model, "0")(torch.rand(2, 3, 8, 8))
        >>> len(features)
        1
    """
    return _watching > 0


@contextmanager
def _counted() -> Iterator[None]:
    global _watching
    _watching += 1
    try:
        yield
    finally:
        _watching -= 1


class _Unchecked:
    """A stand-in for the function that computes activations again in the backward pass: it keeps them."""

    @staticmethod
    def apply(function: Callable[..., Any], _preserve_rng_state: bool, *args: Any) -> Any:
        return function(*args)


def _keep_all(*_args: Any, **_kwargs: Any) -> Iterator[None]:
    yield


@contextmanager
def without_checkpointing() -> Iterator[None]:
    """Turn activation checkpointing off: it computes layers again in the backward pass, where no map could be made.

    `torch.utils.checkpoint` has no switch for this. Its two kinds each go through one name of its module.
    """
    stand_ins: dict[str, Any] = {
        "CheckpointFunction": _Unchecked,
        "_checkpoint_without_reentrant_generator": _keep_all,
        "_checkpoint_without_reentrant_generator_impl": _keep_all,
    }
    module = torch.utils.checkpoint
    kept = {name: getattr(module, name) for name in stand_ins if hasattr(module, name)}
    try:
        for name in kept:
            setattr(module, name, stand_ins[name])
        yield
    finally:
        for name, own in kept.items():
            setattr(module, name, own)


@contextmanager
def _own_cache() -> Iterator[None]:
    """Keep the cache of `parametrize.cached()` apart: the training would take its weights from it without a graph."""
    kept = parametrize._cache_enabled, parametrize._cache
    try:
        parametrize._cache_enabled, parametrize._cache = 0, {}
        yield
    finally:
        parametrize._cache_enabled, parametrize._cache = kept


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module of the model in eval mode, and restore each module's own flag at the end of the block.

    The flags are set themselves. A single ``train()`` at the end would also reach modules that the user froze with
    ``eval()``. Both methods may do more in a module of the user's, such as merge the weights of a LoRA layer.
    """
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, training in flags:
            module.training = training


# The attributes that every module has, such as its hooks.
_OWN_ATTRIBUTES = vars(nn.Module()).keys()
_COLLECTIONS = (list, dict, set, OrderedDict, defaultdict, deque)
# Bytes of a tensor above which no copy is made. It may be a whole dataset.
_LARGE = 64 << 20


@contextmanager
def _kept_attributes(model: nn.Module) -> Iterator[None]:
    """Let a ``forward`` write into copies of what the modules hold, and restore what they refer to and collect.

    A module that takes its scale from the first batch it sees would take it from the probe images. One that counts its
    calls, or collects features for an epoch's end, would count or collect those of the probe images, too.

    The copies are of buffers, and of tensors that are attributes of a module. Collections that are attributes stay the
    same objects, since other modules and hooks may know them, and get their items back. Left alone are the items
    themselves, what an attribute of another class holds, and a tensor of more than 64 MB.
    """
    # A TorchScript module has tables of its own, in which a tensor cannot be put back.
    modules = list(hookable_modules(model).values())
    tables = [
        table for module in modules for table in (vars(module), module._parameters, module._buffers, module._modules)
    ]
    kept = [(table, dict(table)) for table in tables]
    # Modules may share a tensor, and so its copy, and a collection.
    tensors: dict[int, Tensor] = {}
    collections: dict[int, tuple[Any, Any]] = {}
    try:
        for module in modules:
            for table in (vars(module), module._buffers):
                for name in table.keys() - _OWN_ATTRIBUTES:
                    value = table[name]
                    if type(value) in _COLLECTIONS:
                        collections[id(value)] = value, copy(value)
                    elif isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and _size(value) <= _LARGE:
                        table[name] = tensors.setdefault(id(value), value.detach().clone())
        yield
    finally:
        for collection, items in collections.values():
            collection.clear()
            (collection.extend if isinstance(collection, (list, deque)) else collection.update)(items)
        for table, before in kept:
            # Emptied first, so that the order, which is that of the state_dict, is restored as well.
            table.clear()
            table.update(before)


def _size(tensor: Tensor) -> int:
    """Return the size of a tensor in bytes; that of the dense one if it is sparse, as this knows no ``nbytes``."""
    return tensor.numel() * tensor.element_size()


@contextmanager
def _unlogged(model: nn.Module) -> Iterator[None]:
    """Let Lightning's modules log nothing, as their ``forward`` may. It would be of the probe images."""
    names = ("log", "log_dict")
    speaking = [each for each in model.modules() if all(callable(getattr(type(each), name, None)) for name in names)]
    kept = [(each, name, vars(each).get(name)) for each in speaking for name in names]
    try:
        for each, name, _ in kept:
            vars(each)[name] = _say_nothing
        yield
    finally:
        for each, name, own in kept:
            if own is None:
                vars(each).pop(name, None)
            else:
                vars(each)[name] = own


@contextmanager
def _any_algorithm() -> Iterator[None]:
    """Let operations run that torch's strict mode refuses. Not all have a deterministic backward pass on a GPU.

    A training may do without, as that of a head on frozen features. Maps change no weight.
    """
    if not torch.are_deterministic_algorithms_enabled():
        yield
        return
    warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have a deterministic implementation")
        try:
            torch.use_deterministic_algorithms(True, warn_only=True)
            yield
        finally:
            torch.use_deterministic_algorithms(True, warn_only=warns_only)


def _say_nothing(*_args: Any, **_kwargs: Any) -> None:
    pass


@contextmanager
def borrowed(model: nn.Module, autocast: torch.dtype | None = None) -> Iterator[None]:
    """Set up everything around the model that a map needs, and restore it at the end of the block.

    The model is in eval mode and logs nothing, gradients are on, compiled code is off, and no operation is refused as
    not deterministic. The random state is preserved, also that of generators in the model, and so are the attributes of
    all modules. Ctrl-C, which may arrive between any two lines, waits for the end of the current chunk of images.
    Threads take turns, each with one block.

    Args:
        model: the model to borrow.
        autocast: the dtype of autocast in the block; None turns autocast off.
    """
    # The lock comes first: a thread that waits for its turn has changed nothing yet, and Ctrl-C may end the wait.
    with PROCESS_LOCK, ExitStack() as stack:
        stack.enter_context(interrupt.deferred())
        stack.enter_context(_counted())
        stack.enter_context(without_checkpointing())
        stack.enter_context(_own_cache())
        stack.enter_context(_any_algorithm())
        stack.enter_context(preserved_random_state())
        stack.enter_context(preserved_generators(model.modules()))
        stack.enter_context(_unlogged(model))
        stack.enter_context(evaluation_mode(model))
        # Tensors made under inference_mode never take part in a gradient, so the block must leave that mode first.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_kept_attributes(model))
        for device_type in {tensor.device.type for tensor in model.parameters()} | {"cpu"}:
            stack.enter_context(torch.autocast(device_type, autocast, enabled=autocast is not None))
        # Code that was compiled before the hooks existed does not call them (pytorch issue 117758).
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
