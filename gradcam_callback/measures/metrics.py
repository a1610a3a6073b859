"""Measures of maps: ``(N, h, w)`` raw maps, and where needed ``(N, H, W)`` masks -> ``(N,)`` figures.

Masks are finer than maps. A cell of a map stands for the rectangle of pixels below it, and a mask counts in it by the
area that it covers there, exactly, whether or not the sizes divide. So an object much smaller than a cell still
counts, in proportion, and no threshold decides about edges. Enlarging the map to the image's pixels, each cell a
rectangle of one value, gives the same figures; enlarging it smoothly would move mass across the object's edge.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def is_empty(maps: Tensor) -> Tensor:
    """``(N,)`` bool: maps without any mass, which show nothing and have no place to point at."""
    return maps.flatten(1).sum(dim=1) == 0


def _scaled(maps: Tensor) -> Tensor:
    """In float64, each map divided by its largest value: what asks for shares needs no more, and tiny values are kept
    from being rounded, or lost in a square."""
    maps = maps.double()
    largest = maps.amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(largest > 0, largest, 1.0)


def coverage(masks: Tensor, height: int, width: int) -> Tensor:
    """The share, 0..1, of each cell that the mask covers: ``(N, H, W)`` bool -> ``(N, height, width)`` float64."""
    rows = _overlap(height, masks.shape[1]).to(masks.device)
    columns = _overlap(width, masks.shape[2]).to(masks.device)
    return rows @ masks.double() @ columns.T


def _overlap(cells: int, pixels: int) -> Tensor:
    """``(cells, pixels)``: the share of each cell's length that each pixel makes up; rows sum to 1."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * pixels / cells
    left = torch.arange(pixels, dtype=torch.float64)
    shared = torch.minimum(edges[1:, None], left + 1) - torch.maximum(edges[:-1, None], left)
    return shared.clamp(min=0) * cells / pixels


def relevance_mass(maps: Tensor, masks: Tensor) -> Tensor:
    """Share, 0..1, of each map's mass that lies on its mask; NaN for an empty map.

    Relevance mass accuracy of Arras et al. 2022 (arXiv 2003.07258); the energy-based pointing game of Wang et al.
    2020 (Score-CAM, arXiv 1910.01279) is the same figure.
    """
    maps = _scaled(maps)
    inside = (maps * coverage(masks, maps.shape[1], maps.shape[2])).flatten(1).sum(dim=1)
    return inside / maps.flatten(1).sum(dim=1)


def mask_area(masks: Tensor) -> Tensor:
    """Share, 0..1, of each image that its mask covers: what a map spread evenly would have on it."""
    return masks.double().flatten(1).mean(dim=1)


def lift(mass: Tensor, area: Tensor) -> Tensor:
    """Mean relevance mass / mean mask area, a scalar >= 0: 1 is chance, below 1 looks away from the objects.

    Images with an empty map have no mass and are left out of both means; without any others the lift is NaN.
    """
    counted = ~mass.isnan()
    return mass[counted].mean() / area[counted].mean()


def pointing_game(maps: Tensor, masks: Tensor) -> Tensor:
    """1 where the map's hottest cell lies on the mask, else 0; an empty map points nowhere and scores 0.

    Zhang et al. 2018 (arXiv 1608.00507), on cells in place of their tolerance in pixels: a cell lies on the mask when
    the mask covers at least half of it, or covers no other cell more. Equally hot cells share the score.
    """
    cover = coverage(masks, maps.shape[1], maps.shape[2]).flatten(1)
    on_mask = cover >= torch.minimum(cover.amax(dim=1, keepdim=True), torch.tensor(0.5)) - 1e-9
    flat = maps.flatten(1)
    hottest = flat == flat.amax(dim=1, keepdim=True)
    score = (hottest & on_mask).double().sum(dim=1) / hottest.double().sum(dim=1)
    return score.masked_fill(is_empty(maps), 0.0)


def entropy(maps: Tensor) -> Tensor:
    """Shannon entropy of the map as a distribution, over its largest value log(h w): 1 spread evenly, 0 one cell.

    NaN for an empty map; 0 for a map of a single cell.
    """
    flat = _scaled(maps).flatten(1)
    shares = flat / flat.sum(dim=1, keepdim=True)
    nats: Tensor = torch.special.entr(shares).sum(dim=1)
    return nats / math.log(max(flat.shape[1], 2))


def strength(maps: Tensor) -> Tensor:
    """Mean of the raw map, >= 0, in the units of the logit; maps stretched for display hide it."""
    return maps.double().flatten(1).mean(dim=1)


def drift(maps: Tensor, before: Tensor) -> Tensor:
    """1 - cosine similarity to the map logged before, 0..1: 0 same shape, 1 nothing in common.

    Two empty maps have not drifted (0); where just one is empty all has changed (1).
    """
    now, then = _scaled(maps).flatten(1), _scaled(before).flatten(1)
    similarity = torch.nn.functional.cosine_similarity(now, then, dim=1, eps=1e-300)
    similarity = similarity.masked_fill(is_empty(maps) & is_empty(before), 1.0)
    return (1 - similarity).clamp(0, 1)


def mean_of_defined(values: Tensor) -> float:
    """The mean over the images for which a measure is defined (not NaN); 0 where it is for none."""
    defined = values[~values.isnan()]
    return float(defined.mean()) if len(defined) else 0.0


def border_mass(maps: Tensor, width: float = 0.1) -> Tensor:
    """Share, 0..1, of each map's mass within ``width`` of the image's edge, as a share of each side; NaN when empty.

    Needs no mask. An even map has ``1 - (1 - 2 width)^2`` there, 0.36 by default. Photographs are mostly framed so that
    the object is not there, and a network that looks there looks at frames, watermarks and corners.
    """
    inside = maps = _scaled(maps)
    for axis in (1, 2):
        # The part of each cell that lies between the borders, by area as in `coverage`.
        edges = torch.linspace(0, 1, maps.shape[axis] + 1, dtype=torch.float64, device=maps.device)
        low, high = edges[:-1].clamp(min=width), edges[1:].clamp(max=1 - width)
        share = (high - low).clamp(min=0) * maps.shape[axis]
        inside = inside * (share[None, :, None] if axis == 1 else share[None, None, :])
    return 1 - inside.flatten(1).sum(dim=1) / maps.flatten(1).sum(dim=1)


def centre_distance(maps: Tensor) -> Tensor:
    """From the image's centre to the map's centre of mass, over the way to a corner: 0..1; NaN for an empty map.

    Needs no mask. Both sides of the image count as of length 1, whatever its shape.
    """
    maps = _scaled(maps)
    total = maps.flatten(1).sum(dim=1)
    rows, columns = (
        (torch.arange(size, dtype=torch.float64, device=maps.device) + 0.5) / size - 0.5 for size in maps.shape[1:]
    )
    y = (maps.sum(dim=2) * rows).sum(dim=1) / total
    x = (maps.sum(dim=1) * columns).sum(dim=1) / total
    return (x.square() + y.square()).sqrt() / math.sqrt(0.5)
