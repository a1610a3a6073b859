"""Painting objects out of pictures, so that neither the object nor its outline is left."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Candidate shifts per axis and direction; how many patches may be put together where no single one fills the hole; on
# how many pixels, spread over the hole, a shift is judged.
_STEPS, _PATCHES, _JUDGED = 20, 6, 400


def paint_out(images: Tensor, masks: Tensor) -> Tensor:
    """Fill each mask with ground from elsewhere in the same image.

    A smooth fill would leave the object's outline on any texture. So the hole is covered by the image itself, shifted
    by the one vector for which what surrounds the hole fits best (in the spirit of Pritch et al. 2009, "Shift-map
    image editing"), and the seam is blended. Where an object is too large for one shift several take turns, and what
    none can reach is filled smoothly.

    The mask is first widened by a fortieth of the image's shorter side, as objects shed light and shadow.

    Args:
        images: ``(N, C, H, W)``, in any units.
        masks: ``(N, H, W)`` bool, True on what goes.

    Returns:
        ``(N, C, H, W)``; away from the masks as it came.
    """
    reach = max(1, round(min(images.shape[2:]) / 40))
    holes = _widened(masks, reach)
    smooth = _fill_smoothly(images, holes)
    patched = torch.stack([_patch(*parts) for parts in zip(images, smooth, holes, strict=True)])
    # Full weight on the hole, falling to none over the width of the blend.
    blend = functional.avg_pool2d(
        _widened(holes, reach)[:, None].to(images.dtype), 2 * reach + 1, 1, reach, count_include_pad=False
    )
    return images + blend * (patched - images)


def _widened(masks: Tensor, reach: int) -> Tensor:
    return functional.max_pool2d(masks[:, None].float(), 2 * reach + 1, stride=1, padding=reach)[:, 0] > 0


def _patch(image: Tensor, smooth: Tensor, hole: Tensor) -> Tensor:
    """``(C, H, W)``: the hole and a rim around it from shifted copies of the image, as far as these reach."""
    height, width = hole.shape
    rim = max(2, min(height, width) // 20)
    # The rim is what the blend needs, and where the fit is judged; it is wanted from the copy as well.
    wanted = _widened(hole[None], rim)[0]
    filled = torch.where(hole, smooth, image)
    missing = wanted.clone()
    ys, xs = torch.meshgrid(
        torch.linspace(-height + 1, height - 1, 2 * _STEPS + 1).round().long(),
        torch.linspace(-width + 1, width - 1, 2 * _STEPS + 1).round().long(),
        indexing="ij",
    )
    shifts = torch.stack([ys.flatten(), xs.flatten()], dim=1)
    for _ in range(_PATCHES):
        places = missing.nonzero()
        if not len(places):
            break
        judged = places[:: max(1, len(places) // _JUDGED)]
        reached = _usable(judged, shifts, hole).sum(dim=1)
        best = int(reached.max())
        if best < len(judged) / 20:
            break
        candidates = shifts[reached >= 0.98 * best]
        shift = candidates[_misfit(image, judged, candidates, hole).argmin()]
        ok = _usable(places, shift[None], hole)[0]
        to, source = places[ok], places[ok] + shift
        filled[:, to[:, 0], to[:, 1]] = image[:, source[:, 0], source[:, 1]]
        missing[to[:, 0], to[:, 1]] = False
    return filled


def _usable(places: Tensor, shifts: Tensor, hole: Tensor) -> Tensor:
    """``(S, P)`` bool: whether the place, shifted, lies in the image and outside the hole."""
    height, width = hole.shape
    y, x = (places[None, :, axis] + shifts[:, axis, None] for axis in (0, 1))
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return inside & ~hole[y.clamp(0, height - 1), x.clamp(0, width - 1)]


def _misfit(image: Tensor, places: Tensor, shifts: Tensor, hole: Tensor) -> Tensor:
    """``(S,)``: how much the copy differs from the image on the part of the rim that both know."""
    known = places[~hole[places[:, 0], places[:, 1]]]
    if not len(known):
        return torch.zeros(len(shifts))
    usable = _usable(known, shifts, hole)
    height, width = hole.shape
    y = (known[None, :, 0] + shifts[:, 0, None]).clamp(0, height - 1)
    x = (known[None, :, 1] + shifts[:, 1, None]).clamp(0, width - 1)
    difference = (image[:, y, x] - image[:, known[:, 0], known[:, 1]][:, None]).square().sum(dim=0)
    return (difference * usable).sum(dim=1) / usable.sum(dim=1).clamp(min=1)


def _fill_smoothly(images: Tensor, holes: Tensor) -> Tensor:
    """Holes filled from coarse to fine (pull-push, Gortler et al. 1996, "The Lumigraph")."""
    known = (~holes)[:, None].to(images.dtype)
    return torch.where(holes[:, None], _pull_push(images * known, known), images)


def _halved(images: Tensor) -> Tensor:
    return functional.avg_pool2d(images, 2, ceil_mode=True, count_include_pad=False)


def _pull_push(weighted: Tensor, known: Tensor) -> Tensor:
    """``(N, C, H, W)`` colours times their weight, and the weights ``(N, 1, H, W)`` in 0..1 -> colours everywhere."""
    colours = weighted / known.clamp(min=1e-8)
    height, width = weighted.shape[2:]
    if max(height, width) == 1:
        return colours
    smaller = _pull_push(_halved(weighted), _halved(known))
    larger = functional.interpolate(smaller, size=(height, width), mode="bilinear", align_corners=False)
    return known * colours + (1 - known) * larger
