"""The table of methods: formulas from a layer's activations and gradients to its map.

Each takes activations ``A`` and gradients ``G = dY_c / dA``, both ``(N, K, h, w)``, and gives ``(N, h, w)`` before the
final ReLU. Sums over ``k`` run over channels, sums and means over positions over ``(h, w)``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """``sum_k alpha_k A_k``, ``alpha_k = mean over positions of G_k`` (Selvaraju et al. 2017, arXiv 1610.02391).

    Examples:
        >>> import torch
        >>> from gradcam_callback.maps.methods import gradcam
        >>> activations = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])  # two channels of two positions
        >>> gradients = torch.tensor([[[[1.0, 3.0]], [[-1.0, 1.0]]]])
        >>> gradcam(activations, gradients)  # alpha is 2 and 0
        tensor([[[2., 4.]]])
    """
    return _weighted(activations, gradients.mean(dim=(2, 3)))


def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """``sum_k G_k A_k``, position by position (Draelos and Carin 2020, arXiv 2011.08891).

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
    """``sum_k ReLU(G_k) A_k``, position by position (Jiang et al. 2021, IEEE TIP 30, "LayerCAM").

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
    """``sum_k w_k A_k``, ``w_k = sum over positions of a_k ReLU(G_k)`` (Chattopadhay et al. 2018, arXiv 1710.11063).

    ``a_k = G_k^2 / (2 G_k^2 + G_k^3 sum over positions of A_k)``, their equation 19 for ``exp(Y_c)``, whose common
    factor cancels, as ``G_k^2`` does; what the ReLU removes is left out from the start.

    Examples:
        >>> import torch
        >>> from gradcam_callback.maps.methods import gradcam_plus_plus
        >>> activations = torch.tensor([[[[1.0, 3.0]]]])  # one channel of two positions, their sum 4
        >>> gradients = torch.tensor([[[[1.0, -1.0]]]])  # w = 1 / (2 + 1 x 4)
        >>> gradcam_plus_plus(activations, gradients) * 6
        tensor([[[1., 3.]]])
    """
    total = activations.sum(dim=(2, 3), keepdim=True)
    weights = torch.where(gradients > 0, gradients / (2 + gradients * total), 0.0)
    return _weighted(activations, weights.sum(dim=(2, 3)))


def _weighted(activations: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("nk,nkhw->nhw", weights, activations)


METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "hirescam": hirescam,
    "layercam": layercam,
}
