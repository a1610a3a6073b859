"""The swap test: accuracies of the same objects on backgrounds of their own class and of other classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradcam_callback.measures.interventions import Swaps

_RESAMPLES = 2000

Interval = tuple[float, float]


@dataclass(frozen=True)
class SwapTest:
    """Accuracies of the same objects as they are, on backgrounds of their own class, and on those of other classes.

    The three are Original, Mixed-Same and Mixed-Rand of Xiao et al. 2021 (arXiv 2006.09994).

    Attributes:
        probe_accuracy: 0..1, on the unchanged images.
        swap_accuracy: 0..1, on backgrounds of other classes.
        control_accuracy: 0..1, on backgrounds of the same class; None if no class has a second image.
        gap: -1..1, how far the accuracy falls from backgrounds of the same class to those of other classes. It is the
            BG-Gap of the paper: both images are cut and pasted alike, so that only the background differs. Objects of a
            class without a second image are left out. None without a control.
        pasting_cost: -1..1, the accuracy that cutting and pasting costs by itself: the fall from the unchanged images
            to backgrounds of the same class, of the objects that have a control. None without a control.
        drop: -1..1, ``probe_accuracy - swap_accuracy``. It includes the effect of cutting and pasting itself.
        swap_interval: the 95 % interval of ``swap_accuracy``.
        gap_interval: that of ``gap``; None without a control.
        drop_interval: that of ``drop``.
        n: the number of images.
        n_controlled: the number of those whose class has a second image.
        classes: the number of their classes.
    """

    probe_accuracy: float
    swap_accuracy: float
    control_accuracy: float | None
    gap: float | None
    pasting_cost: float | None
    drop: float
    swap_interval: Interval
    gap_interval: Interval | None
    drop_interval: Interval
    n: int
    n_controlled: int
    classes: int


def swap_test(
    correct: Tensor,
    labels: Tensor,
    other_class: Swaps,
    correct_on_others: Tensor,
    same_class: Swaps,
    correct_on_same: Tensor,
    seed: int = 0,
) -> SwapTest:
    """Compute the accuracies of the swap test, with bootstrap intervals over the images (Efron 1979).

    Swaps that share an object or a background are not independent of each other: one easy object is right on every
    background, and one good background fools every object. A binomial interval would count them as independent, and
    be too narrow. So images are drawn, not swaps. An object counts as often as its image was drawn, and so does each of
    its backgrounds, as in the pigeonhole bootstrap (Owen 2007), which draws objects and backgrounds separately. The
    only background of an object is drawn with it: without it, an object would be dropped, which doubles the interval.
    All accuracies come from the same draws, and the gap and the drop are differences within each object.

    Args:
        correct: ``(M,)`` bool, True if the prediction on the unchanged image is correct. Or 1, 0, and NaN for an image
            that takes part as a background only.
        labels: ``(M,)``.
        other_class: S objects on backgrounds of other classes.
        correct_on_others: ``(S,)`` bool, True if the prediction on these is correct.
        same_class: T objects on backgrounds of their own class; there may be none.
        correct_on_same: ``(T,)`` bool.
        seed: of the bootstrap.
    """
    m, takes_part = len(correct), correct.double().isfinite()
    drawn = torch.randint(m, (_RESAMPLES, m), generator=torch.Generator().manual_seed(seed))
    # Row 0 holds every image once, for the accuracies themselves. The other rows count how often each image was drawn.
    counts = torch.ones(_RESAMPLES + 1, m, dtype=torch.float64)
    counts[1:] = torch.zeros(_RESAMPLES, m, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(counts[1:]))
    swapped = _by_object(counts, other_class, correct_on_others)
    control = _by_object(counts, same_class, correct_on_same)
    unchanged = correct.double().expand_as(counts)
    # An object without a control is left out of the gap, which would compare easy with difficult classes otherwise.
    controlled, gap = _mean(counts, control), _mean(counts, control - swapped)
    before, drop = _mean(counts, unchanged), _mean(counts, unchanged - swapped)
    swap = _mean(counts, swapped)
    n_controlled = int((control[0] - swapped[0]).isfinite().sum())
    return SwapTest(
        probe_accuracy=float(before[0]),
        swap_accuracy=float(swap[0]),
        control_accuracy=float(controlled[0]) if n_controlled else None,
        gap=float(gap[0]) if n_controlled else None,
        pasting_cost=float(_mean(counts, unchanged - control)[0]) if n_controlled else None,
        drop=float(drop[0]),
        swap_interval=_interval(swap[1:]),
        gap_interval=_interval(gap[1:]) if n_controlled else None,
        drop_interval=_interval(drop[1:]),
        n=int(takes_part.sum()),
        n_controlled=n_controlled,
        classes=len(labels[takes_part].unique()),
    )


def _by_object(counts: Tensor, swaps: Swaps, correct: Tensor) -> Tensor:
    """Return the accuracy of each object, over its backgrounds: ``(rows, M)``, NaN if none of them was drawn.

    Args:
        counts: ``(rows, M)``, how often each image was drawn.
        swaps: S pairs.
        correct: ``(S,)`` bool.
    """
    belongs = torch.zeros(len(swaps), counts.shape[1], dtype=torch.float64)
    belongs[torch.arange(len(swaps)), swaps.objects] = 1
    has_one = (belongs.sum(dim=0) == 1)[swaps.objects]
    weights = counts[:, swaps.donors].masked_fill(has_one, 1)
    return (weights * correct) @ belongs / (weights @ belongs)


def _mean(counts: Tensor, values: Tensor) -> Tensor:
    """Return the mean over the objects that were drawn, for each row: ``(rows,)``; NaN does not count."""
    weights = counts * values.isfinite()
    return (weights * values.nan_to_num()).sum(dim=1) / weights.sum(dim=1)


def _interval(values: Tensor) -> Interval:
    """Return the bounds of the middle 95 % of the values."""
    # With few images a draw may hold no object with one of its donors. Its mean is 0 / 0 and does not count.
    low, high = values[values.isfinite()].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
