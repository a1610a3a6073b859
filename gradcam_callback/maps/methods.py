"""Formulas that turn the activations and gradients of a layer into its map.

Each formula takes activations ``A`` and gradients ``G = dY_c / dA``, both ``(N, K, h, w)``. It returns ``(N, h, w)``
before the final ReLU. Sums over ``k`` run over channels; sums and means over positions run over ``(h, w)``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return ``sum_k alpha_k A_k`` with ``alpha_k = mean over positions of G_k``.

    Source: Selvaraju et al. 2017, "Grad-CAM", arXiv 1610.02391.

    Args:
        activations: ``(N, K, h, w)``.
        gradients: ``(N, K, h, w)``.

    Returns:
        ``(N, h, w)``, of either sign.

    Examples:
        >>> import torch
        >>> from gradcam_callback.maps.methods import gradcam
        >>> activations = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])  # two channels of two positions
        >>> gradients = torch.tensor([[[[1.0, 3.0]], [[-1.0, 1.0]]]])
        >>> gradcam(activations, gradients)  # alpha is 2 and 0
        tensor([[[2., 4.]]])
    """
    return _sum_weighted_channels(activations, gradients.mean(dim=(2, 3)))


def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return ``sum_k G_k A_k``, position by position.

    Source: Draelos and Carin 2020, "HiResCAM", arXiv 2011.08891.

    Args:
        activations: ``(N, K, h, w)``.
        gradients: ``(N, K, h, w)``.

    Returns:
        ``(N, h, w)``, of either sign.

    Examples:
        >>> import torch
        >>> from gradcam_callback.maps.methods import hirescam
        >>> activations = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])  # two channels of two positions
        >>> gradients = torch.tensor([[[[1.0, 3.0]], [[-1.0, 1.0]]]])
        >>> hirescam(activations, gradients)  # 1 x 1 - 1 x 3, and 3 x 2 + 1 x 0
        tensor([[[-2.,  6.]]])
    """
    return torch.einsum("nkhw,nkhw->nhw", gradients, activations)


def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return ``sum_k ReLU(G_k) A_k``, position by position.

    Source: Jiang et al. 2021, "LayerCAM", IEEE TIP 30.

    Args:
        activations: ``(N, K, h, w)``.
        gradients: ``(N, K, h, w)``.

    Returns:
        ``(N, h, w)``, of either sign.

    Examples:
        >>> import torch
        >>> from gradcam_callback.maps.methods import layercam
        >>> activations = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])  # two channels of two positions
        >>> gradients = torch.tensor([[[[1.0, 3.0]], [[-1.0, 1.0]]]])
        >>> layercam(activations, gradients)  # 1 x 1, and 3 x 2 + 1 x 0
        tensor([[[1., 6.]]])
    """
    return torch.einsum("nkhw,nkhw->nhw", gradients.relu(), activations)


def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return ``sum_k w_k A_k`` with ``w_k = sum over positions of a_k ReLU(G_k)``.

    ``a_k = G_k^2 / (2 G_k^2 + G_k^3 sum over positions of A_k)`` is equation 19 of the paper for ``exp(Y_c)``. The
    factor ``exp(Y_c)`` is common to all terms and cancels.

    Source: Chattopadhay et al. 2018, "Grad-CAM++", arXiv 1710.11063.

    Args:
        activations: ``(N, K, h, w)``.
        gradients: ``(N, K, h, w)``.

    Returns:
        ``(N, h, w)``, of either sign.

    Examples:
        >>> import torch
        >>> from gradcam_callback.maps.methods import gradcam_plus_plus
        >>> activations = torch.tensor([[[[1.0, 3.0]]]])  # one channel of two positions, their sum 4
        >>> gradients = torch.tensor([[[[1.0, -1.0]]]])  # w = 1 / (2 + 1 x 4)
        >>> gradcam_plus_plus(activations, gradients) * 6
        tensor([[[1., 3.]]])
    """
    total = activations.sum(dim=(2, 3), keepdim=True)
    # This is a_k ReLU(G_k). G_k^2 is cancelled first, since a gradient of 0 would give 0 / 0.
    weights = torch.where(gradients > 0, gradients / (2 + gradients * total), 0.0)
    return _sum_weighted_channels(activations, weights.sum(dim=(2, 3)))


def _sum_weighted_channels(activations: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("nk,nkhw->nhw", weights, activations)


METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "hirescam": hirescam,
    "layercam": layercam,
}
