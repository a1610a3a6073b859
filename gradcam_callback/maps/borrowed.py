"""Change the state of the model and the process for a map, and restore it even after an error or Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import torch
from torch import nn

from gradcam_callback.random_state import preserved_random_state


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


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module of the model in eval mode, and restore each module's own flag at the end of the block."""
    # One flag per module: a single model.train() at the end would also reach modules that the user froze with eval().
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def borrowed(model: nn.Module, autocast: torch.dtype | None = None) -> Iterator[None]:
    """Set up everything around the model that a map needs, and restore it at the end of the block.

    The model is in eval mode, gradients are on, compiled code is off, and the random state is preserved. Ctrl-C, which
    may arrive between any two lines, waits for the end of the current chunk of images.

    Args:
        model: the model to borrow.
        autocast: the dtype of autocast in the block; None turns autocast off.
    """
    with ExitStack() as stack:
        stack.enter_context(interrupt.deferred())
        stack.enter_context(preserved_random_state())
        stack.enter_context(evaluation_mode(model))
        # Tensors made under inference_mode never take part in a gradient, so the block must leave that mode first.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device_type in {tensor.device.type for tensor in model.parameters()} | {"cpu"}:
            stack.enter_context(torch.autocast(device_type, autocast, enabled=autocast is not None))
        # Code that was compiled before the hooks existed does not call them (pytorch issue 117758).
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
