"""Activations: what chosen layers give in a forward, and where in them the graph of the gradients starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gradcam_callback.maps.layers import Layer


class Activations:
    """What one forward leaves.

    Attributes:
        by_layer: layer name -> its output, in the order in which they came.
        leaves: the tensors at which the graph starts.
    """

    def __init__(self) -> None:
        self.by_layer: dict[str, Tensor] = {}
        self.leaves: list[Tensor] = []
        self._versions: dict[str, int] = {}

    def add(self, name: str, output: Tensor) -> Tensor:
        """Keep a layer's output; the graph starts here unless it has before, as nothing earlier needs gradients."""
        if not self.leaves or not output.requires_grad:
            output = output.detach().requires_grad_()
            self.leaves.append(output)
        self.by_layer[name] = output
        self._versions[name] = output._version
        return output

    def overwritten(self) -> bool:
        """Whether a later operation wrote into an activation in place."""
        return any(self._versions[name] != kept._version for name, kept in self.by_layer.items())

    def check(self, layer: Layer, n: int, as_map: Callable[[Tensor], Tensor]) -> None:
        """Raise the ValueError of a layer that gave nothing, or of which ``as_map`` makes no ``(n, C, h, w)``."""
        if layer.name not in self.by_layer:
            raise ValueError(
                f"Layer {layer.name!r} took no part in the model's forward. Choose one that does, or pass the part of "
                "the model that calls it."
            )
        own = tuple(self.by_layer[layer.name].shape)
        try:
            shape = tuple(as_map(self.by_layer[layer.name].detach()).shape)
        except Exception as error:
            raise ValueError(f"Layer {layer.name!r} gives {own}. {error}") from error
        if len(shape) != 4 or shape[0] != n:
            came = f"{own}, of which reshape_transform made {shape}" if shape != own else f"{own}"
            hint = " Tokens (N, T, C) need reshape_transform='tokens'." if len(shape) == 3 else ""
            raise ValueError(
                f"Layer {layer.name!r} gives {came}. Expected a spatial output (N, C, h, w) with N = {n}.{hint}"
            )


@contextmanager
def kept_activations(model: nn.Module, layers: Sequence[Layer]) -> Iterator[Activations]:
    """Keep what the layers give in a forward within the block, in which every module computes with gradients.

    A module that runs more than once keeps its last output, which is what its block gives.
    """
    kept = Activations()

    def keep(layer: Layer, _module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise ValueError(
                f"Layer {layer.name!r} gives a {type(output).__name__}. Expected a module whose output is one "
                "tensor (N, C, h, w); choose one inside it or next to it."
            )
        if output.is_inference():
            raise ValueError(
                f"Layer {layer.name!r} runs under inference_mode in the model's forward, where nothing has a gradient. "
                "Expected no_grad there, or nothing."
            )
        activation = kept.add(layer.name, output)
        return activation.clone() if layer.overwritten else activation

    def enable_grad(_module: nn.Module, _inputs: Any) -> None:
        # Many transfer-learning models run their frozen features under no_grad inside forward.
        torch.set_grad_enabled(True)

    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(enable_grad).remove)
        for layer in layers:
            stack.callback(layer.module.register_forward_hook(partial(keep, layer)).remove)
        yield kept
