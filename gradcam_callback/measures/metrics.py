"""Metrics of maps and masks.

Maps are raw: ``(N, h, w)`` and >= 0. Masks are ``(N, H, W)`` bool, True on the object, and may have any other size.
Results per image are float64.

A cell of a map stands for a rectangle of pixels. A mask counts in a cell by the share of the cell that it covers. So an
object much smaller than a cell still counts, in proportion, and no threshold decides about edges. Maps enlarged to the
image's size give the same metrics if each cell stays a rectangle of one value. Smooth enlargement would move mass
across the object's edge.

An empty map is zero everywhere. It has no shape and points nowhere, so most metrics are NaN for it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from gradcam_callback.cells import overlap


def relevance_mass(maps: Tensor, masks: Tensor) -> Tensor:
    """Compute the share of each map's mass that lies on its mask.

    The formula is ``sum(map * coverage) / sum(map)``, with `coverage` as the share of each cell that the mask covers.

    This is relevance mass accuracy (Arras, Osman and Samek 2022, CLEVR-XAI, arXiv 2003.07258). The energy-based
    pointing game (Wang et al. 2020, Score-CAM, arXiv 1910.01279) is the same ratio, with boxes instead of masks.

    Args:
        maps: ``(N, h, w)``, >= 0.
        masks: ``(N, H, W)`` bool, True on the object.

    Returns:
        ``(N,)``, 0..1; NaN for an empty map.

    Raises:
        ValueError: another shape, or masks with values outside of 0..1.

    Examples:
        The mask covers the left half, which holds 3 of the map's 4 units.

        >>> import torch
        >>> from gradcam_callback import relevance_mass
        >>> maps = torch.tensor([[[3.0, 1.0], [0.0, 0.0]]])
        >>> masks = torch.tensor([[[True, False]]])
        >>> relevance_mass(maps, masks)
        tensor([0.7500], dtype=torch.float64)
    """
    _check(maps, masks)
    maps = _scaled(maps)
    inside = (maps * coverage(masks, maps.shape[1], maps.shape[2])).flatten(1).sum(dim=1)
    return inside / maps.flatten(1).sum(dim=1)


def mask_area(masks: Tensor) -> Tensor:
    """Compute the share of each image that its mask covers.

    This is the relevance mass that a map with equal values everywhere would have.

    Args:
        masks: ``(N, H, W)`` bool, True on the object.

    Returns:
        ``(N,)``, 0..1.

    Raises:
        ValueError: another shape, or masks with values outside of 0..1.

    Examples:
        The mask covers one of four pixels.

        >>> import torch
        >>> from gradcam_callback import mask_area
        >>> mask_area(torch.tensor([[[True, False], [False, False]]]))
        tensor([0.2500], dtype=torch.float64)
    """
    _expect(masks.ndim == 3, "masks", "(N, H, W)", masks)
    _check_values(masks)
    # One by one: a mean of all masks would take a copy of eight bytes per pixel.
    covered = torch.tensor([int(mask.count_nonzero()) for mask in masks], dtype=torch.float64, device=masks.device)
    return covered / (masks.shape[1] * masks.shape[2])


def lift(mass: Tensor, area: Tensor) -> Tensor:
    """Compute the mean relevance mass in multiples of chance: ``mean(mass) / mean(area)``.

    Images with an empty map have no relevance mass. They are left out of both means.

    The weighted inside-total relevance ratio (Kohlbrenner et al. 2020, "Towards best practice in explaining neural
    network decisions with LRP", arXiv 1910.09840) makes this division for each image. Here the means are divided, since
    otherwise the images with the smallest objects would dominate.

    Args:
        mass: ``(N,)`` of `relevance_mass`.
        area: ``(N,)`` of `mask_area`.

    Returns:
        A scalar >= 0: 1 is chance, and below 1 the maps avoid the objects. NaN if every map is empty, or no mask covers
        anything.

    Raises:
        ValueError: another shape.

    Examples:
        The third map is empty. The other two have a mean mass of 0.5 on objects with a mean area of 0.25.

        >>> import torch
        >>> from gradcam_callback import lift
        >>> lift(mass=torch.tensor([0.75, 0.25, float("nan")]), area=torch.tensor([0.125, 0.375, 0.5]))
        tensor(2.)
    """
    _expect(mass.ndim == 1, "mass", "(N,)", mass)
    _expect(area.shape == mass.shape, "area", f"({len(mass)},), one for each mass", area)
    defined = ~mass.isnan()
    chance = area[defined].mean()
    return mass[defined].mean() / chance.where(chance > 0, math.nan)


def pointing_game(maps: Tensor, masks: Tensor) -> Tensor:
    """Test if the hottest cell of each map lies on its mask.

    This is the pointing game (Zhang et al. 2018, "Top-down neural attention by excitation backprop", arXiv 1608.00507)
    on cells, which replace the tolerance in pixels of the original. A cell lies on the mask if the mask covers at least
    half of it. If the mask covers no cell by half, the cells that it covers most lie on it. Equally hot cells share the
    score.

    Args:
        maps: ``(N, h, w)``, >= 0.
        masks: ``(N, H, W)`` bool, True on the object.

    Returns:
        ``(N,)``, 0..1: 1 for a hit and 0 for a miss. An empty map points nowhere and scores 0.

    Raises:
        ValueError: another shape, or masks with values outside of 0..1.

    Examples:
        The mask covers the left half. The hottest cell is on the left, on the right, and on both sides.

        >>> import torch
        >>> from gradcam_callback import pointing_game
        >>> maps = torch.tensor([[[2.0, 1.0]], [[1.0, 2.0]], [[2.0, 2.0]]])
        >>> masks = torch.tensor([[[True, False]]]).expand(3, -1, -1)
        >>> pointing_game(maps, masks)
        tensor([1.0000, 0.0000, 0.5000], dtype=torch.float64)
    """
    _check(maps, masks)
    cover = coverage(masks, maps.shape[1], maps.shape[2]).flatten(1)
    # Rounding may leave the coverage of a cell a little below the half, or below the largest coverage.
    on_mask = cover >= torch.minimum(cover.amax(dim=1, keepdim=True), torch.tensor(0.5)) - 1e-9
    flat = maps.flatten(1)
    hottest = flat == flat.amax(dim=1, keepdim=True)
    score = (hottest & on_mask).double().sum(dim=1) / hottest.double().sum(dim=1)
    # All cells of an empty map are equally hot, so without this it would score by the mask's size.
    return score.masked_fill(is_empty(maps), 0.0)


def border_mass(maps: Tensor, width: float = 0.1) -> Tensor:
    """Compute the share of each map's mass that lies in a border along the image's edges.

    It needs no mask. Photographs are mostly framed so that the object is away from the edges. So a network that looks
    at the border may look at frames, watermarks or corners.

    Args:
        maps: ``(N, h, w)``, >= 0.
        width: of the border, as a share of each side of the image, 0..0.5.

    Returns:
        ``(N,)``, 0..1; NaN for an empty map. A map with equal values everywhere has ``1 - (1 - 2 * width) ** 2``,
        which is 0.36 by default.

    Raises:
        ValueError: another width, or another shape.

    Examples:
        Of 16 equal cells the outer 12 form the border.

        >>> import torch
        >>> from gradcam_callback import border_mass
        >>> border_mass(torch.ones(1, 4, 4), width=0.25)
        tensor([0.7500], dtype=torch.float64)
    """
    if not 0 <= width <= 0.5:
        raise ValueError(f"Expected `width` to be a share of 0 to 0.5, but got {width!r}. Leave it out for 0.1.")
    _check(maps)
    inside = maps = _scaled(maps)
    for axis in (1, 2):
        # A cell counts by the part of it that lies between the borders, as in `coverage`. That part is a product of one
        # factor for its rows and one for its columns.
        edges = torch.linspace(0, 1, maps.shape[axis] + 1, dtype=torch.float64, device=maps.device)
        low, high = edges[:-1].clamp(min=width), edges[1:].clamp(max=1 - width)
        share = (high - low).clamp(min=0) * maps.shape[axis]
        inside = inside * (share[None, :, None] if axis == 1 else share[None, None, :])
    return 1 - inside.flatten(1).sum(dim=1) / maps.flatten(1).sum(dim=1)


def centre_distance(maps: Tensor) -> Tensor:
    """Compute the distance of each map's centre of mass from the image's centre.

    It needs no mask. The unit is the distance from the image's centre to a corner. Both sides of the image have length
    1, so the shape of the image does not matter.

    Args:
        maps: ``(N, h, w)``, >= 0.

    Returns:
        ``(N,)``, 0..1: 0 at the centre, 1 in a corner; NaN for an empty map.

    Raises:
        ValueError: another shape.

    Examples:
        The centre of the corner cell lies 3/8 of each side away from the image's centre, and the corner 4/8.

        >>> import torch
        >>> from gradcam_callback import centre_distance
        >>> maps = torch.zeros(1, 4, 4)
        >>> maps[0, 0, 0] = 1
        >>> centre_distance(maps)
        tensor([0.7500], dtype=torch.float64)
    """
    _check(maps)
    maps = _scaled(maps)
    total = maps.flatten(1).sum(dim=1)
    rows, columns = (
        (torch.arange(size, dtype=torch.float64, device=maps.device) + 0.5) / size - 0.5 for size in maps.shape[1:]
    )
    y = (maps.sum(dim=2) * rows).sum(dim=1) / total
    x = (maps.sum(dim=1) * columns).sum(dim=1) / total
    return (x.square() + y.square()).sqrt() / math.sqrt(0.5)


def entropy(maps: Tensor) -> Tensor:
    """Compute how evenly each map is spread.

    This is the Shannon entropy of the map, divided by its largest possible value: ``-sum(p log p) / log(h w)`` with
    ``p = map / sum(map)``.

    Args:
        maps: ``(N, h, w)``, >= 0.

    Returns:
        ``(N,)``, 0..1: 0 if all mass lies in one cell, 1 if all cells are equal; NaN for an empty map. A map of a
        single cell has 0.

    Raises:
        ValueError: another shape.

    Examples:
        The mass lies in one of four cells, and evenly in two of four: ``log(2) / log(4)``.

        >>> import torch
        >>> from gradcam_callback import entropy
        >>> entropy(torch.tensor([[[5.0, 0.0], [0.0, 0.0]], [[5.0, 5.0], [0.0, 0.0]]]))
        tensor([0.0000, 0.5000], dtype=torch.float64)
    """
    _check(maps)
    flat = _scaled(maps).flatten(1)
    shares = flat / flat.sum(dim=1, keepdim=True)
    nats: Tensor = torch.special.entr(shares).sum(dim=1)
    # log(1) is 0, so a map of one cell would give 0 / 0.
    return nats / math.log(max(flat.shape[1], 2))


def strength(maps: Tensor) -> Tensor:
    """Compute the mean of each raw map.

    A heatmap scaled to its own maximum hides this value. It shows if a layer fades out of the prediction.

    Args:
        maps: ``(N, h, w)``, >= 0.

    Returns:
        ``(N,)``, >= 0, in the unit of the maps, which for Grad-CAM is the unit of the logit.

    Raises:
        ValueError: another shape.

    Examples:
        >>> import torch
        >>> from gradcam_callback import strength
        >>> strength(torch.tensor([[[4.0, 0.0], [0.0, 0.0]]]))
        tensor([1.], dtype=torch.float64)
    """
    _check(maps)
    return maps.double().flatten(1).mean(dim=1)


def drift(maps: Tensor, previous: Tensor) -> Tensor:
    """Compute how much the shape of each map has changed: 1 - cosine similarity of the two maps.

    The strength of the maps does not matter.

    Args:
        maps: ``(N, h, w)``, >= 0.
        previous: ``(N, h, w)``, the maps of the same images at the previous logged epoch.

    Returns:
        ``(N,)``, 0..1: 0 for the same shape, 1 for maps that share no cell. It is 0 if both maps are empty, and 1 if
        only one of them is.

    Raises:
        ValueError: another shape.

    Examples:
        The first map has only become weaker. The second has moved to another cell.

        >>> import torch
        >>> from gradcam_callback import drift
        >>> maps = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
        >>> previous = torch.tensor([[[3.0, 0.0]], [[0.0, 1.0]]])
        >>> drift(maps, previous)
        tensor([0., 1.], dtype=torch.float64)
    """
    _check(maps)
    _expect(previous.shape == maps.shape, "previous", f"{tuple(maps.shape)}, as `maps` is", previous)
    now, then = _scaled(maps).flatten(1), _scaled(previous).flatten(1)
    # Scaled maps have a norm of at least 1, so `eps` only keeps empty maps from 0 / 0.
    similarity = torch.nn.functional.cosine_similarity(now, then, dim=1, eps=1e-300)
    similarity = similarity.masked_fill(is_empty(maps) & is_empty(previous), 1.0)
    # Rounding may take the similarity of equal maps above 1.
    return (1 - similarity).clamp(0, 1)


def is_empty(maps: Tensor) -> Tensor:
    """Return True for each map that is zero everywhere: ``(N, h, w)`` -> ``(N,)`` bool."""
    # Maps are not negative, so a sum of 0 means that every cell is 0.
    return maps.flatten(1).sum(dim=1) == 0


def is_flat(maps: Tensor) -> Tensor:
    """Return True for each map that is equal everywhere, and so ranks no cell: ``(N, h, w)`` -> ``(N,)`` bool."""
    flat = maps.flatten(1)
    return flat.amax(dim=1) == flat.amin(dim=1)


def coverage(masks: Tensor, height: int, width: int) -> Tensor:
    """Compute the share of each cell that the mask covers.

    It is exact for any two sizes, even if they do not divide each other.

    Args:
        masks: ``(N, H, W)`` bool.
        height: rows of cells.
        width: columns of cells.

    Returns:
        ``(N, height, width)`` float64, 0..1.
    """
    if masks.shape[1] % height == 0 and masks.shape[2] % width == 0:
        # Whole pixels, as in most networks: a third of the time at 224 px, a fifth at 800 px. Float32 counts exactly.
        cell = (masks.shape[1] // height, masks.shape[2] // width)
        pixels = functional.avg_pool2d(masks[:, None].float(), cell, divisor_override=1)[:, 0]
        return pixels.double() / math.prod(cell)
    rows = torch.from_numpy(overlap(height, masks.shape[1])).to(masks.device)
    columns = torch.from_numpy(overlap(width, masks.shape[2])).to(masks.device)
    return rows @ masks.double() @ columns.T


def _check(maps: Tensor, masks: Tensor | None = None) -> None:
    """Refuse maps, and masks of them, of another shape. A single mask would be taken for that of every map."""
    _expect(maps.ndim == 3 and 0 not in maps.shape[1:], "maps", "(N, h, w)", maps)
    if masks is not None:
        _expect(masks.ndim == 3 and len(masks) == len(maps), "masks", f"({len(maps)}, H, W), one for each map", masks)
        _check_values(masks)


def _check_values(masks: Tensor) -> None:
    """Refuse masks with other values than 0 and 1, such as the 255 of a file, which would count 255 times."""
    if masks.dtype != torch.bool and not bool(((masks >= 0) & (masks <= 1)).all()):
        raise ValueError(
            f"Expected `masks` to be bool, True on the object, but got {masks.dtype} with values of {masks.min():.4g} "
            f"to {masks.max():.4g}. Compare them with the value of the object, such as masks > 127."
        )


def _expect(fits: bool, argument: str, shape: str, got: Tensor) -> None:
    """Raise an error if the shape of an argument does not fit."""
    if not fits:
        raise ValueError(
            f"Expected `{argument}` to be {shape}, but got {tuple(got.shape)}. Give it for the same images as the "
            f"other arguments, and a single one with a first axis: {argument}[None]."
        )


def _scaled(maps: Tensor) -> Tensor:
    """Return the maps in float64, each divided by its largest value.

    Metrics of shape do not depend on the scale. Without scaling, tiny values could be rounded to 0 when they are
    squared or summed.
    """
    maps = maps.double()
    largest = maps.amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(largest > 0, largest, 1.0)
