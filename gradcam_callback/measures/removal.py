"""Test how far the prediction falls if the hottest pixels are removed, so that nothing shows where they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# The shares of the image that are removed in turn, in percent.
SHARES = (10, 30, 50)
# A neighbour's weight is the product of these weights of its row and its column, divided by 12. So it is 1/6 beside,
# above and below a pixel, and 1/12 at its corners.
_WEIGHTS = (1.0, 2.0, 1.0)
Array = np.ndarray[Any, np.dtype[Any]]


def road(
    probability: Callable[[Tensor], Tensor], images: Tensor, maps: Tensor, noise: float = 0.01, seed: int = 0
) -> Tensor:
    """Measure how far the target's probability falls if the hottest pixels are removed: ROAD, most relevant first.

    In turn the hottest 10, 30 and 50 % of each image are removed and imputed, see `impute`. The result is the
    probability on the image as it is, minus the mean of the probabilities on the three copies. Pixels of equal heat are
    removed together. Pixels of the lowest heat, such as 0, stay: the map does not rank them above any other.

    It is the mean of pytorch-grad-cam's ``ROADMostRelevantFirst`` at these shares, with the opposite sign. There is no
    control: removing any half of an image may lower the probability.

    Source: Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML, arXiv
    2202.00449.

    Args:
        probability: ``(N, C, H, W)`` images -> ``(N,)``, the probability, 0..1, of the target class of each image.
        images: ``(N, C, H, W)``, on the CPU.
        maps: ``(N, h, w)``, raw, >= 0, on the CPU.
        noise: the standard deviation of the noise on imputed pixels, in the images' unit.
        seed: of this noise, which is the same for every image. The global random state is left alone.

    Returns:
        ``(N,)``, -1..1; NaN for a map that ranks no pixel, since it is empty or equal everywhere.

    Examples:
        >>> import torch
        >>> from gradcam_callback.measures import road
        >>> images, maps = torch.zeros(1, 1, 20, 20), torch.zeros(1, 20, 20)
        >>> images[0, 0, 5:8, 5:8] = maps[0, 5:8, 5:8] = 1  # the network looks at the bright spot, and so does the map
        >>> road(lambda given: given.amax(dim=(1, 2, 3)), images, maps, noise=0)  # nothing is left of it
        tensor([1.])
    """
    removed = [hottest(maps, share, images.shape[2], images.shape[3]) for share in SHARES]
    after = torch.stack([probability(impute(images, area, noise, seed)) for area in removed])
    ranks_nothing = ~removed[-1].flatten(1).any(dim=1)
    return (probability(images) - after.mean(dim=0)).masked_fill(ranks_nothing, float("nan"))


def hottest(maps: Tensor, share: float, height: int, width: int) -> Tensor:
    """Find the hottest pixels of each image.

    Args:
        maps: ``(N, h, w)``, on the CPU.
        share: of the image, in percent.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        ``(N, height, width)`` bool. Pixels of equal heat are taken together, and those of the lowest heat never.
    """
    # Rounding would rank pixels between cells of equal heat. The mean of zeros is exactly 0, and float32 drops the last
    # bits of all other means.
    above = maps.double() - maps.double().amin(dim=(1, 2), keepdim=True)
    smooth = functional.interpolate(above[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0].float()
    limits = torch.from_numpy(np.percentile(smooth.flatten(1).numpy(), 100 - share, axis=1))[:, None, None]
    return (smooth >= limits) & (smooth > 0)


def impute(images: Tensor, removed: Tensor, noise: float = 0.01, seed: int = 0) -> Tensor:
    """Replace pixels by what their neighbours say: noisy linear imputation.

    Each removed pixel becomes the weighted mean of its eight neighbours, known or removed: those that share an edge
    count twice. At the border of the image, the mean is over the neighbours that exist. So all removed pixels of an
    image are the solution of one system of linear equations. It is solved exactly, row by row. The noise hides that
    imputed pixels are smooth.

    Source: Rong et al. 2022, arXiv 2202.00449, section 4.2.

    Args:
        images: ``(N, C, H, W)``, on the CPU.
        removed: ``(N, H, W)`` bool; in each image at least one pixel stays.
        noise: its standard deviation.
        seed: of the noise.

    Returns:
        ``(N, C, H, W)``, equal to ``images`` where nothing is removed.

    Examples:
        >>> import torch
        >>> from gradcam_callback.measures.removal import impute
        >>> images = torch.tensor([[[[0.0, 5.0, 7.0, 3.0]]]])
        >>> removed = torch.tensor([[[False, True, True, False]]])
        >>> impute(images, removed, noise=0)  # a line from 0 to 3
        tensor([[[[0., 1., 2., 3.]]]])
    """
    generator = torch.Generator().manual_seed(seed)
    pattern = noise * torch.randn(images.shape[1:], generator=generator).to(images.dtype)
    filled = [_fill(image, hole) for image, hole in zip(images, removed, strict=True)]
    return torch.where(removed[:, None], torch.stack(filled) + pattern, images)


def _fill(image: Tensor, hole: Tensor) -> Tensor:
    """Solve the equations of a single image, ``(C, H, W)`` and ``(H, W)``."""
    # The cost is the sum of the cubes of what is removed in each row.
    by_row, by_column = (int(hole.sum(dim=axis).pow(3).sum()) for axis in (1, 0))
    if by_row > by_column:
        return _fill_by_row(image.transpose(1, 2), hole.T).transpose(1, 2)
    return _fill_by_row(image, hole)


def _fill_by_row(image: Tensor, hole: Tensor) -> Tensor:
    """Solve the equations by block elimination. The blocks are rows, each of which is coupled with the next one only.

    A removed pixel times the weights of its neighbours, minus its removed neighbours, equals its known neighbours.
    """
    filled = image.double()
    weights = _sum_neighbours(torch.ones_like(filled[:1]))[0].numpy()
    known = _sum_neighbours(filled.masked_fill(hole, 0.0)).numpy()
    columns = [np.flatnonzero(row) for row in hole.numpy()]
    # Of each row: the inverse of its block, and the right-hand sides, after the elimination of all rows above.
    inverses: list[Array] = []
    sides: list[Array] = []
    for row, here in enumerate(columns):
        block, side = _block(weights[row, here], here), known[:, row, here].T
        if row and len(here) and len(columns[row - 1]):
            above, inverse = columns[row - 1], inverses[-1]
            # From both sides, as the weights between two rows are symmetric, and so is the inverse.
            block -= _couple(_couple(inverse, above, here).T, above, here)
            side = side + _couple(inverse @ sides[-1], above, here)
        inverses.append(np.linalg.inv(block))
        sides.append(side)
    values = sides[-1][:0]
    below = columns[-1][:0]
    for row, here in reversed(list(enumerate(columns))):
        coupled = _couple(values, below, here) if len(here) and len(below) else 0.0
        values, below = inverses[row] @ (sides[row] + coupled), here
        filled[:, row, torch.from_numpy(here)] = torch.from_numpy(values.T)
    return filled.to(image.dtype)


def _block(weights: Array, columns: Array) -> Array:
    """Return the matrix of the removed pixels of a row: the weights of all their neighbours, and their own pairs."""
    block = np.diag(weights)
    left = np.flatnonzero(np.diff(columns) == 1)
    block[left, left + 1] = block[left + 1, left] = -_WEIGHTS[1] / 12
    return block


def _couple(values: Array, there: Array, here: Array) -> Array:
    """Sum the values of the removed pixels of a row, by their weights as neighbours of pixels of the next row.

    Args:
        values: ``(T, M)``, of the pixels in the columns ``there``.
        there: ``(T,)``, ascending.
        here: ``(P,)``, ascending; columns of the next row.

    Returns:
        ``(P, M)``.
    """
    padded = np.zeros((max(there[-1], here[-1]) + 3, values.shape[1]))
    padded[there + 1] = values
    total = padded.take(here + 1, axis=0) * _WEIGHTS[1]
    total += padded.take(here, axis=0)
    total += padded.take(here + 2, axis=0)
    return total / 12


def _sum_neighbours(values: Tensor) -> Tensor:
    """Sum the eight neighbours of each pixel by their weights; beyond the image all is 0. ``(C, H, W)``."""
    weights = values.new_tensor(_WEIGHTS)
    kernel = weights[:, None] * weights / 12
    kernel[1, 1] = 0
    return functional.conv2d(values[:, None], kernel[None, None], padding=1)[:, 0]
