"""Paint objects out of images, so that neither the object nor its outline is left."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fft
from torch.nn import functional

# Candidate shifts along each axis and direction, rounds of patching, and pixels on which a shift is judged.
_STEPS, _ROUNDS, _JUDGED = 20, 6, 400
# Shifts that are compared at once. More do not fit into the caches of a processor, and leave large holes in the heap.
_AT_ONCE = 64


def paint_out(images: Tensor, masks: Tensor, others: Tensor | None = None) -> Tensor:
    """Fill each mask with background from elsewhere in the same image.

    A smooth fill would leave the object's outline on any texture. So the hole is covered by a shifted copy of the
    image, in the spirit of Pritch et al. 2009, "Shift-map image editing". The shift is chosen for which the copy fits
    best around the hole, and the seam is blended.

    If the object is too large for one shift, several shifts take turns. Pixels that no shift reaches are filled
    smoothly. The mask is first widened by a fortieth of the image's shorter side, as objects cast light and shadow.

    Args:
        images: ``(N, C, H, W)``, in any unit.
        masks: ``(N, H, W)`` bool, True on the object.
        others: ``(N, H, W)`` bool, True on other objects of the image, which are not copied into the hole.

    Returns:
        ``(N, C, H, W)``, unchanged away from the masks.
    """
    dtype, reach = images.dtype, max(1, round(min(images.shape[2:]) / 40))
    # Half precision has no number as small as the least weight.
    images = images.to(torch.promote_types(dtype, torch.float32))
    holes = widen(masks, reach)
    blocked = holes if others is None else holes | widen(others, reach)
    smooth = fill_smoothly(images, blocked)
    patched = torch.stack([_patch(*parts) for parts in zip(images, smooth, holes, blocked, strict=True)])
    # The weight is 1 on the hole and falls to 0 over the width of the blend. It is a share of the pixels that there
    # are, or else it would also fall at the image's edges.
    blend = _count_around(widen(holes, reach), reach) / _count_around(torch.ones_like(holes[:1]), reach)
    return (images + blend[:, None].to(images.dtype) * (patched - images)).to(dtype)


def widen(masks: Tensor, reach: int) -> Tensor:
    """Widen each mask by ``reach`` pixels to all sides."""
    return _count_around(masks, reach) > 0


def _count_around(masks: Tensor, reach: int) -> Tensor:
    """Count the True pixels in the square around each pixel.

    Pooling would add up all pixels of every square. This takes as long for large squares as for small ones.

    Args:
        masks: ``(N, H, W)`` bool.
        reach: the square has ``2 * reach + 1`` pixels a side.

    Returns:
        ``(N, H, W)`` float32. The numbers are exact, as float32 holds whole numbers up to 2^24.
    """
    counts, side = masks.float(), 2 * reach + 1
    for _ in range(2):
        sums = functional.pad(counts, (reach + 1, reach)).cumsum(dim=2)
        counts = (sums[:, :, side:] - sums[:, :, :-side]).transpose(1, 2)
    return counts


def _patch(image: Tensor, smooth: Tensor, hole: Tensor, blocked: Tensor) -> Tensor:
    """Cover the hole, and a rim around it, with shifted copies of the image.

    Args:
        image: ``(C, H, W)``.
        smooth: ``(C, H, W)``, the fill for pixels that no shift reaches.
        hole: ``(H, W)`` bool.
        blocked: ``(H, W)`` bool, the hole and whatever else is no source.

    Returns:
        ``(C, H, W)``.
    """
    height, width = hole.shape
    rim = max(2, min(height, width) // 20)
    # On the rim the copy and the image are both known: there the fit is judged, and there the two are blended later.
    wanted = widen(hole[None], rim)[0]
    filled = torch.where(hole, smooth, image)
    missing = wanted.clone()
    ys, xs = torch.meshgrid(
        torch.linspace(-height + 1, height - 1, 2 * _STEPS + 1).round().long(),
        torch.linspace(-width + 1, width - 1, 2 * _STEPS + 1).round().long(),
        indexing="ij",
    )
    shifts = torch.stack([ys.flatten(), xs.flatten()], dim=1)
    count_reached = _reach_counter(~blocked)
    for _ in range(_ROUNDS):
        places = missing.nonzero()
        if not len(places):
            break
        judged = places[:: max(1, len(places) // _JUDGED)]
        n_reached = count_reached(judged)[shifts[:, 0], shifts[:, 1]]
        most = int(n_reached.max())
        # A shift that covers less than a twentieth would add a seam and fill hardly anything.
        if most < len(judged) / 20:
            break
        # Coverage comes first and the fit second: one large patch has fewer seams than several small ones.
        candidates = shifts[n_reached >= 0.98 * most]
        misfit = torch.cat([_misfit(image, judged, some, hole, blocked) for some in candidates.split(_AT_ONCE)])
        shift = candidates[misfit.argmin()]
        usable = _usable(places, shift[None], blocked)[0]
        target, source = places[usable], places[usable] + shift
        filled[:, target[:, 0], target[:, 1]] = image[:, source[:, 0], source[:, 1]]
        missing[target[:, 0], target[:, 1]] = False
    return filled


def _reach_counter(background: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function that counts, for each shift, how many places land on background.

    This is the correlation of two pictures of zeros and ones, computed by FFT for all shifts together.

    Args:
        background: ``(H, W)`` bool.

    Returns:
        A function from places, ``(P, 2)``, to counts. The count of a shift stands at its row and column; negative ones
        count from the end.
    """
    # Twice the size, or else a shift would wrap around. Multiples of 32 are fast, whatever the size of the image.
    size = [-(-2 * side // 32) * 32 for side in background.shape]
    spectrum = fft.rfft2(background.float(), s=size)

    def count(places: Tensor) -> Tensor:
        picture = torch.zeros_like(background, dtype=spectrum.real.dtype)
        picture[places[:, 0], places[:, 1]] = 1
        counts: Tensor = fft.irfft2(spectrum * fft.rfft2(picture, s=size).conj(), s=size)
        return counts.round()

    return count


def _usable(places: Tensor, shifts: Tensor, blocked: Tensor) -> Tensor:
    """Return True if a shifted place lies in the image and may be copied from.

    Args:
        places: ``(P, 2)``, row and column.
        shifts: ``(S, 2)``, rows and columns.
        blocked: ``(H, W)`` bool, True where nothing is copied from.

    Returns:
        ``(S, P)`` bool.
    """
    # With a margin as large as the image, no shift leaves the table, and one number finds a place in it. To compare
    # rows and columns with the sides took five times as long.
    height, width = blocked.shape
    table = functional.pad(~blocked, (width, width, height, height), value=False)
    unit = torch.tensor([3 * width, 1])
    start, step = ((places + torch.tensor([height, width])) @ unit, shifts @ unit)
    return table.take(start + step[:, None])


def _misfit(image: Tensor, places: Tensor, shifts: Tensor, hole: Tensor, blocked: Tensor) -> Tensor:
    """Compute the mean squared difference between the image and each shifted copy, on places that both know.

    Args:
        image: ``(C, H, W)``.
        places: ``(P, 2)``, row and column.
        shifts: ``(S, 2)``, rows and columns.
        hole: ``(H, W)`` bool.
        blocked: ``(H, W)`` bool, True where nothing is copied from.

    Returns:
        ``(S,)``; 0 for all shifts if the image knows none of the places.
    """
    known = places[~hole[places[:, 0], places[:, 1]]]
    if not len(known):
        return torch.zeros(len(shifts))
    usable = _usable(known, shifts, blocked)
    height, width = hole.shape
    y = (known[None, :, 0] + shifts[:, 0, None]).clamp(0, height - 1)
    x = (known[None, :, 1] + shifts[:, 1, None]).clamp(0, width - 1)
    difference = (image[:, y, x] - image[:, known[:, 0], known[:, 1]][:, None]).square().sum(dim=0)
    return (difference * usable).sum(dim=1) / usable.sum(dim=1).clamp(min=1)


def fill_smoothly(images: Tensor, holes: Tensor) -> Tensor:
    """Fill holes from coarse to fine (pull-push, Gortler et al. 1996, "The Lumigraph")."""
    known = (~holes)[:, None].to(images.dtype)
    return torch.where(holes[:, None], _pull_push(images * known, known), images)


def _pull_push(weighted: Tensor, weights: Tensor) -> Tensor:
    """Extend colours from pixels with weight to pixels without.

    Args:
        weighted: ``(N, C, H, W)``, colours times their weights.
        weights: ``(N, 1, H, W)``, 0..1.

    Returns:
        ``(N, C, H, W)``, colours everywhere.
    """
    colours = weighted / weights.clamp(min=1e-8)
    height, width = weighted.shape[2:]
    if max(height, width) == 1:
        return colours
    smaller = _pull_push(_halved(weighted), _halved(weights))
    larger = functional.interpolate(smaller, size=(height, width), mode="bilinear", align_corners=False)
    return weights * colours + (1 - weights) * larger


def _halved(images: Tensor) -> Tensor:
    """Halve the size of images; odd sizes are rounded up."""
    return functional.avg_pool2d(images, 2, ceil_mode=True, count_include_pad=False)
