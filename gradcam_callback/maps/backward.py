"""Run the backward pass, and reduce each layer's gradient to its map."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from gradcam_callback.maps.activations import Activations


class Root(NamedTuple):
    """The place where the backward pass starts.

    Attributes:
        at: a tensor, or an edge of the graph.
        gradient: of the sum of all scores by what is at this place.
    """

    at: Tensor | GradientEdge
    gradient: Tensor


def backward_to_maps(
    root: Root,
    activations: Activations,
    method: Callable[[Tensor, Tensor], Tensor],
    reshape: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Compute the maps of all recorded layers in one backward pass.

    The images of a batch do not mix in eval mode. The gradient of the sum of all scores is therefore each image's own.

    Args:
        root: the start of the backward pass. It must have a graph.
        activations: of the forward pass; the backward pass empties ``by_layer``.
        method: a formula of `gradcam_callback.maps.methods`.
        reshape: returns ``(N, C, h, w)`` for an activation or a gradient.

    Returns:
        Layer name -> ``(N, h, w)``, >= 0. All zeros if the scores do not depend on the layer; its name is then still in
        ``activations.by_layer``.
    """
    by_layer = activations.by_layer
    maps: dict[str, Tensor] = {}

    # Each gradient becomes a map as soon as it arrives, so that only one gradient is held in memory.
    def reduce_to_map(name: str, gradient: Tensor | None) -> None:
        if gradient is None:  # behind an operation that has no gradient, such as a quantised layer
            return
        # Autocast is for the model; the formula itself runs in full precision.
        with torch.autocast(gradient.device.type, enabled=False):
            activation = reshape(by_layer.pop(name).detach())
            dtype = _dtype_of_map(activation)
            maps[name] = method(activation.to(dtype), reshape(gradient).to(dtype)).relu()

    for name, activation in by_layer.items():
        activation.register_hook(partial(reduce_to_map, name))
    torch.autograd.grad(root.at, activations.leaves, root.gradient, allow_unused=True)
    # A layer without influence on the scores is unused: its hook was not called.
    return maps | {name: _empty_map(reshape(activation.detach())) for name, activation in by_layer.items()}


def _empty_map(activation: Tensor) -> Tensor:
    """Return zeros ``(N, h, w)``."""
    n, _, h, w = activation.shape
    return activation.new_zeros((n, h, w), dtype=_dtype_of_map(activation))


def _dtype_of_map(activation: Tensor) -> torch.dtype:
    return torch.float64 if activation.dtype == torch.float64 else torch.float32
