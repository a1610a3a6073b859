"""Borrowed state: what a map needs of the model and the process, taken and given back whatever happens."""

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
    """Ctrl-C while something is borrowed: noted, and handed on to the handler that was there at a safe moment."""

    def __init__(self) -> None:
        self._handler: Callable[[int, FrameType | None], Any] | None = None
        self._noted: list[tuple[int, FrameType | None]] = []

    def note(self, number: int, frame: FrameType | None) -> None:
        self._noted.append((number, frame))

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """To the end of the block, or to `give_way` in it."""
        handler = signal.getsignal(signal.SIGINT)
        # Python lets the main thread alone change handlers; and it alone is interrupted.
        here = threading.current_thread() is threading.main_thread()
        if not here or not callable(handler) or self._handler is not None:
            yield
            return
        self._noted.clear()
        signal.signal(signal.SIGINT, self.note)
        try:
            self._handler = handler
            yield
        finally:
            self._handler = None
            signal.signal(signal.SIGINT, handler)
            self._hand_on(handler)

    def give_way(self) -> None:
        """Where an exception does no harm."""
        if self._handler is not None:
            self._hand_on(self._handler)

    def _hand_on(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        if self._noted:
            first, self._noted = self._noted[0], []
            handler(*first)


interrupt = _Interrupt()


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
    """Everything a map changes around the model: eval mode, gradients on, compiled code off, autocast as told.

    Ctrl-C, which may come between any two lines, waits for the end of the chunk of images that is under way.
    """
    with ExitStack() as stack:
        stack.enter_context(interrupt.put_off())
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
