"""Does the network rely on what its map shows? An answer that needs no masks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

# How much of the image is blurred; how many places "elsewhere" may be tried along each axis.
SHARE, _STEPS = 0.2, 8


def faithfulness(probability: Callable[[Tensor], Tensor], images: Tensor, maps: Tensor) -> Tensor:
    """How much more the target's probability falls when what the map shows is blurred than when as much elsewhere is.

    The hottest fifth of each image is blurred away, and in another copy an area of the same size and shape elsewhere:
    a deletion test (Petsiuk et al. 2018, RISE, arXiv 1806.07421), with a control for what blurring spoils anywhere.

    Args:
        probability: ``(N, C, H, W)`` images -> ``(N,)`` the probability, 0..1, of each image's target.
        images: ``(N, C, H, W)``.
        maps: ``(N, h, w)``, raw.

    Returns:
        ``(N,)``: probability with the other area blurred - with the hottest one; -1..1, above 0 where the network
        relies on what its map shows more than on elsewhere; NaN for an empty map.
    """
    hottest, elsewhere = regions(maps, images.shape[2], images.shape[3])
    difference = probability(_blurred(images, elsewhere)) - probability(_blurred(images, hottest))
    return difference.masked_fill(maps.flatten(1).sum(dim=1) == 0, float("nan"))


def regions(maps: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The hottest fifth of each image, and an area as large elsewhere: two ``(N, height, width)`` bool.

    The other area is the hottest one moved around the image's edges to where it overlaps itself least; what still does
    is left out of both, so that they are equally large and share nothing.
    """
    smooth = functional.interpolate(maps[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]
    count = max(1, round(SHARE * height * width))
    hottest = torch.zeros(len(maps), height * width, dtype=torch.bool)
    hottest.scatter_(1, smooth.flatten(1).topk(count, dim=1).indices.cpu(), True)
    hottest = hottest.view(-1, height, width)
    moves = [
        (height * i // _STEPS, width * j // _STEPS) for i in range(_STEPS) for j in range(_STEPS) if (i, j) != (0, 0)
    ]
    moved = torch.stack([hottest.roll(move, dims=(1, 2)) for move in moves])
    best = (moved & hottest).sum(dim=(2, 3)).argmin(dim=0)
    other = moved[best, torch.arange(len(maps))]
    return hottest & ~other, other & ~hottest


def _blurred(images: Tensor, where: Tensor) -> Tensor:
    """Blurred beyond recognition where told, with a soft seam, so that no edge is made that was not there."""
    sigma = min(images.shape[2:]) / 12
    seam = gaussian_blur(where[:, None].to(images), _kernel(sigma / 4), [sigma / 4, sigma / 4])
    blurred: Tensor = images + seam * (gaussian_blur(images, _kernel(sigma), [sigma, sigma]) - images)
    return blurred


def _kernel(sigma: float) -> list[int]:
    """Three sigma to either side: an odd length, the same along both axes."""
    return [2 * max(1, round(3 * sigma)) + 1] * 2
