"""Formulas that turn the activations and gradients of a layer into its map.

Each formula takes activations ``A`` and gradients ``G = dY_c / dA``, both ``(N, K, h, w)``. It returns ``(N, h, w)``
before the final ReLU. Sums over ``k`` run over channels; sums and means over positions run over ``(h, w)``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


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


def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return ``sum_k w_k A_k`` with ``w_k = sum over positions of G_k A_k / sum over positions of A_k``.

    The weight is a mean of the gradient in which a position counts by its activation. It is 0 if the activations of a
    channel sum to 0.

    Source: Fu et al. 2020, "Axiom-based Grad-CAM", arXiv 2008.02312.

    Args:
        activations: ``(N, K, h, w)``.
        gradients: ``(N, K, h, w)``.

    Returns:
        ``(N, h, w)``, of either sign.

    Examples:
        >>> import torch
        >>> from gradcam_callback.maps.methods import xgradcam
        >>> activations = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])  # two channels of two positions
        >>> gradients = torch.tensor([[[[1.0, -1.0]], [[3.0, 1.0]]]])  # w = (1 - 3) / 4 and 6 / 2
        >>> xgradcam(activations, gradients)  # -0.5 x 1 + 3 x 2, and -0.5 x 3 + 3 x 0
        tensor([[[ 5.5000, -1.5000]]])
    """
    total = activations.sum(dim=(2, 3))
    products = torch.einsum("nkhw,nkhw->nk", gradients, activations)
    return _sum_weighted_channels(activations, torch.where(total == 0, 0.0, products / total))


def gradcam_elementwise(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return ``sum_k ReLU(G_k A_k)``, position by position.

    After a ReLU no activation is negative, and the result is that of `layercam`.

    Source: pytorch-grad-cam, ``GradCAMElementWise``. It has no paper of its own; the product is that of `hirescam`.

    Args:
        activations: ``(N, K, h, w)``.
        gradients: ``(N, K, h, w)``.

    Returns:
        ``(N, h, w)``, >= 0.

    Examples:
        >>> import torch
        >>> from gradcam_callback.maps.methods import gradcam_elementwise
        >>> activations = torch.tensor([[[[1.0, 2.0]], [[-3.0, 0.0]]]])  # two channels of two positions
        >>> gradients = torch.tensor([[[[1.0, -3.0]], [[-1.0, 1.0]]]])
        >>> gradcam_elementwise(activations, gradients)  # 1 x 1 + -1 x -3; the negative -3 x 2 is left out
        tensor([[[4., 0.]]])
    """
    return (gradients * activations).relu().sum(dim=1)


def eigencam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the activations' first principal component: ``sum_k v_k (A_k - mean over positions of A_k)``.

    ``v`` is the direction in which the ``K`` activations of a position vary most, of length 1. It does not depend on
    the gradients, so the map is the same for every target.

    **The sign.** ``v`` and ``-v`` are equally good, and the final ReLU would keep opposite halves of the map. Here
    ``sum_k v_k >= 0``, so the map is high where the activations of all channels together are high. If the sum is 0 but
    for rounding, the first channel of at least half the largest weight is positive. So device and batch do not matter.

    **No direction.** If all positions of an image are equal, its map is zero. If two directions vary equally, neither
    is the first, and rounding decides.

    Source: Muhammad and Yeasin 2020, "Eigen-CAM", arXiv 2008.00299. The mean is subtracted as in pytorch-grad-cam,
    whose sign is any.

    Args:
        activations: ``(N, K, h, w)``.
        gradients: not used.

    Returns:
        ``(N, h, w)``, of either sign, with a mean of 0 over the positions; NaN for an image with a value that is not
        finite.

    Examples:
        >>> import torch
        >>> from gradcam_callback.maps.methods import eigencam
        >>> activations = torch.tensor([[[[0.0, 6.0]], [[0.0, 8.0]]]])  # two channels of two positions
        >>> maps = eigencam(activations, torch.zeros(1, 2, 1, 2))  # less the means: -(3, 4) and (3, 4)
        >>> maps.round(decimals=3)  # v = (3, 4) / 5
        tensor([[[-5.,  5.]]])
    """
    return _project_on_first_component(activations)


def eigengradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the first principal component of ``B_k = G_k A_k``: ``sum_k v_k (B_k - mean over positions of B_k)``.

    ``v`` is found as for `eigencam`, of which this is the form that depends on the target. Its sign makes the map high
    where the map of `hirescam` is high.

    Source: pytorch-grad-cam, ``EigenGradCAM``. It has no paper of its own; it extends Muhammad and Yeasin 2020,
    "Eigen-CAM", arXiv 2008.00299.

    Args:
        activations: ``(N, K, h, w)``.
        gradients: ``(N, K, h, w)``.

    Returns:
        ``(N, h, w)``, of either sign, with a mean of 0 over the positions; NaN for an image with a value that is not
        finite.

    Examples:
        >>> import torch
        >>> from gradcam_callback.maps.methods import eigengradcam
        >>> activations = torch.tensor([[[[1.0, 2.0]], [[1.0, 2.0]]]])  # two channels of two positions
        >>> gradients = torch.tensor([[[[0.0, 3.0]], [[0.0, 4.0]]]])  # B is (0, 6) and (0, 8), as for `eigencam`
        >>> eigengradcam(activations, gradients).round(decimals=3)
        tensor([[[-5.,  5.]]])
    """
    return _project_on_first_component(gradients * activations)


def _sum_weighted_channels(activations: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("nk,nkhw->nhw", weights, activations)


def _project_on_first_component(values: Tensor) -> Tensor:
    """Project each position on the direction in which positions vary most.

    Args:
        values: ``(N, K, h, w)``.

    Returns:
        ``(N, h, w)``.
    """
    n, k, h, w = values.shape
    by_position = values.flatten(2).transpose(1, 2)
    centred = by_position - by_position.mean(dim=1, keepdim=True)
    spread = centred.abs().amax(dim=(1, 2), keepdim=True)
    # Equal positions differ from their mean by rounding, which has a direction, too.
    rounding = 16 * torch.finfo(values.dtype).eps * by_position.abs().amax(dim=(1, 2), keepdim=True)
    # Unscaled, the squares of small gradients would be 0.
    scaled = centred / spread.masked_fill(spread <= rounding, torch.inf)
    # Eigenvectors of the smaller of two matrices: (64, 64) at block 1 of a VGG16, in place of an SVD of (50176, 64).
    wide = k > h * w
    gram = scaled @ scaled.transpose(1, 2) if wide else scaled.transpose(1, 2) @ scaled
    usable = gram.isfinite().flatten(1).all(dim=1)[:, None, None]
    # On the CPU, since some devices have no `eigh`. It refuses values that are not finite.
    first = torch.linalg.eigh(torch.where(usable, gram, 0.0).cpu()).eigenvectors[:, :, -1:].to(values.device)
    direction = functional.normalize(scaled.transpose(1, 2) @ first, dim=1) if wide else first
    return (scaled @ (direction * _sign(direction)) * spread).reshape(n, h, w)


def _sign(directions: Tensor) -> Tensor:
    """Return 1 or -1 for each direction ``(N, K, 1)``, as `eigencam` says, ``(N, 1, 1)``."""
    total = directions.sum(dim=1, keepdim=True)
    strong = directions.abs() >= directions.abs().amax(dim=1, keepdim=True) / 2
    first = directions.gather(1, strong.int().argmax(dim=1, keepdim=True))
    # Far above the rounding of the eigenvectors, and far below the largest possible sum, the square root of K.
    rounding = directions.shape[1] ** 0.5 * torch.finfo(directions.dtype).eps ** 0.75
    return torch.where(torch.where(total.abs() > rounding, total, first) < 0, -1.0, 1.0).to(directions.dtype)


METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "gradcam_elementwise": gradcam_elementwise,
    "hirescam": hirescam,
    "layercam": layercam,
    "xgradcam": xgradcam,
    "eigencam": eigencam,
    "eigengradcam": eigengradcam,
}
