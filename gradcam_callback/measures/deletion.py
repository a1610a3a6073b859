"""Test if the network relies on the hottest part of its map, without masks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

from gradcam_callback.measures.metrics import is_flat

# The share of the image that is blurred, and the number of positions along each axis that are tried for the control.
_BLURRED, _POSITIONS = 0.2, 8


def faithfulness(probability: Callable[[Tensor], Tensor], images: Tensor, maps: Tensor) -> Tensor:
    """Compare the effect of blurring the hottest part of each image with that of blurring another part.

    The hottest fifth of each image is blurred away. In a second copy of the image, an area of the same size and shape
    elsewhere is blurred. The result is the difference of the target's probabilities on the two copies.

    It is a deletion test in the sense of Petsiuk et al. 2018 (RISE, arXiv 1806.07421). They delete pixels step by step
    and take the area under the curve. Here there is a single step, and the second copy is a control for the damage
    that blurring does anywhere.

    Args:
        probability: ``(N, C, H, W)`` images -> ``(N,)``, the probability, 0..1, of the target class of each image.
        images: ``(N, C, H, W)``.
        maps: ``(N, h, w)``, raw, >= 0.

    Returns:
        ``(N,)``, -1..1: the probability with the other area blurred - that with the hottest area blurred. It is above 0
        if the network relies more on the hottest area; NaN for a map that is empty or equal everywhere.

    Examples:
        >>> import torch
        >>> from gradcam_callback.measures import faithfulness
        >>> images, maps = torch.zeros(1, 1, 20, 20), torch.zeros(1, 20, 20)
        >>> images[0, 0, 5:8, 5:8] = maps[0, 5:8, 5:8] = 1  # the network looks at the bright spot, and so does the map
        >>> faithfulness(lambda given: given.amax(dim=(1, 2, 3)), images, maps) > 0.1
        tensor([True])
    """
    hottest, elsewhere = regions(maps, images.shape[2], images.shape[3])
    # So strong that nothing can be recognised.
    blurred = _blur(images, min(images.shape[2:]) / 12)
    replaced = [_replace(images, blurred, area) for area in (elsewhere, hottest)]
    difference = probability(replaced[0]) - probability(replaced[1])
    return difference.masked_fill(is_flat(maps), float("nan"))


def regions(maps: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Find the hottest fifth of each image, and another area of the same size.

    The other area is the hottest one, shifted by the vector for which the two overlap least. Pixels that leave the
    image return at the opposite edge. Any overlap that remains is left out of both areas. So they have the same size
    and no pixel in common.

    Args:
        maps: ``(N, h, w)``.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        Two ``(N, height, width)`` bool on the CPU: the hottest area and the other.
    """
    smooth = functional.interpolate(maps[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]
    count = max(1, round(_BLURRED * height * width))
    # A threshold would take more than a fifth if many pixels are equal, so the pixels are counted.
    hottest = torch.zeros(len(maps), height * width, dtype=torch.bool)
    hottest.scatter_(1, smooth.flatten(1).topk(count, dim=1).indices.cpu(), True)
    hottest = hottest.view(-1, height, width)
    positions = list(product(range(_POSITIONS), repeat=2))[1:]  # the first is no shift at all
    shifts = [(height * i // _POSITIONS, width * j // _POSITIONS) for i, j in positions]
    shifted = torch.stack([hottest.roll(shift, dims=(1, 2)) for shift in shifts])
    best = (shifted & hottest).sum(dim=(2, 3)).argmin(dim=0)
    other = shifted[best, torch.arange(len(maps))]
    return hottest & ~other, other & ~hottest


def _replace(images: Tensor, blurred: Tensor, area: Tensor) -> Tensor:
    """Replace an area of each image by that of the blurred image."""
    # The transition is soft, since a hard one would add an edge to which the network may react.
    weight = _blur(area[:, None].to(images), min(images.shape[2:]) / 48)
    replaced: Tensor = images + weight * (blurred - images)
    return replaced


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Blur images ``(N, C, H, W)`` by a Gaussian of ``sigma`` pixels, which reaches three sigma to either side."""
    size = 2 * max(1, round(3 * sigma)) + 1
    # One axis after the other is the same as both at once, and at 224 px about twenty times faster.
    for axes in ([size, 1], [1, size]):
        images = gaussian_blur(images, axes, [sigma, sigma])
    return images
