"""Run the backward pass, and reduce each layer's gradient to its map."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from gradcam_callback.maps.activations import Activations


def select_scores(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the score ``Y_c`` of each image's target class.

    Args:
        logits: ``(N, K)``. A single logit is the score of class 1, and minus the logit that of class 0.
        targets: ``(N,)`` int64.

    Returns:
        ``(N,)``.
    """
    if logits.shape[1] == 1:
        return logits[:, 0] * (2 * targets - 1)
    return logits.gather(1, targets[:, None])[:, 0]


def backward_to_maps(
    scores: Tensor,
    activations: Activations,
    method: Callable[[Tensor, Tensor], Tensor],
    reshape: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Compute the maps of all recorded layers in one backward pass.

    The images of a batch do not mix in eval mode. The gradient of the sum of all scores is therefore each image's own.

    Args:
        scores: ``(N,)``.
        activations: of the forward pass; the backward pass empties ``by_layer``.
        method: a formula of `gradcam_callback.maps.methods`.
        reshape: returns ``(N, C, h, w)`` for an activation or a gradient.

    Returns:
        Layer name -> ``(N, h, w)``, >= 0. All zeros if the scores do not depend on the layer.

    Raises:
        ValueError: the scores depend on no layer at all.
    """
    by_layer = activations.by_layer
    if not scores.requires_grad:
        raise ValueError(
            f"Expected the logits to depend on the layers {list(by_layer)}, but the model's forward detaches their "
            "outputs. Remove the detach() between the layers and the logits."
        )
    maps = {name: _empty_map(reshape(activation.detach())) for name, activation in by_layer.items()}

    # Each gradient becomes a map as soon as it arrives, so that only one gradient is held in memory.
    def reduce_to_map(name: str, gradient: Tensor) -> None:
        dtype = maps[name].dtype
        # Autocast is for the model; the formula itself runs in full precision.
        with torch.autocast(gradient.device.type, enabled=False):
            activation = reshape(by_layer.pop(name).detach())
            maps[name] = method(activation.to(dtype), reshape(gradient).to(dtype)).relu()

    for name, activation in by_layer.items():
        activation.register_hook(partial(reduce_to_map, name))
    # A layer without influence on the scores is unused: its hook is not called, and its map stays zeros.
    torch.autograd.grad(scores.sum(), activations.leaves, allow_unused=True)
    return maps


def _empty_map(activation: Tensor) -> Tensor:
    """Return zeros ``(N, h, w)``: float64 for a float64 activation, else float32."""
    n, _, h, w = activation.shape
    dtype = torch.float64 if activation.dtype == torch.float64 else torch.float32
    return torch.zeros(n, h, w, dtype=dtype, device=activation.device)
