"""The swap test: accuracies of the same objects on backgrounds of their own class and of other classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradcam_callback.measures.interventions import Swaps
from gradcam_callback.measures.rounding import rounded

# A variance below this is none. Only rounding keeps it from being 0.
_NONE = 1e-20
# The steps of an integral from 0 to a right angle.
_STEPS = 10_001
# Half of a 95 % interval, in standard deviations of a normal distribution.
_NORMAL = 1.96
# How often objects are given to the classes by chance, and the share of these in which a certain fall is not reached.
_SHUFFLES, _SURE = 4_000, 0.95

Interval = tuple[float, float]
_Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class ClassGap:
    """How far the accuracy of one class falls.

    Attributes:
        label: of the class.
        control_accuracy: 0..1, of its objects on other backgrounds of the class.
        swap_accuracy: 0..1, of the same objects on backgrounds of other classes.
    """

    label: int
    control_accuracy: float
    swap_accuracy: float

    @property
    def gap(self) -> float:
        """Return the difference, -1..1."""
        return rounded(self.control_accuracy - self.swap_accuracy)


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
        pasting_cost: -1..1, the accuracy that cutting and pasting costs by itself. It is the fall from the unchanged
            images to backgrounds of the same class, of the objects that have a control. None without a control.
        drop: -1..1, ``probe_accuracy - swap_accuracy``. It includes the effect of cutting and pasting itself.
        swap_interval: the 95 % interval of ``swap_accuracy``.
        gap_interval: that of ``gap``; None without a control.
        drop_interval: that of ``drop``.
        n: the number of images.
        n_controlled: the number of those that were asked on backgrounds of both kinds.
        classes: the number of their classes.
        worst_class: of the classes that certainly fall, the class that falls most; None if no class does.
        tested: the labels of the classes that the gap rests on, or the drop without a control.
        n_without_same: the number of images without another image of their class.
        n_without_other: the number of images without an image that does not hold their class.
        paired: 0..1, three accuracies of the objects that the gap rests on, or the drop without a control. They are
            those on the unchanged images, on backgrounds of the same class (None without a control), and on those of
            other classes.
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
    worst_class: ClassGap | None = None
    tested: frozenset[int] = frozenset()
    n_without_same: int = 0
    n_without_other: int = 0
    paired: tuple[float, float | None, float] | None = None

    @property
    def n_paired(self) -> int:
        """Return the number of images that the gap rests on, or the drop without a control."""
        return self.n - self.n_without_other if self.gap is None else self.n_controlled


def swap_test(
    correct: Tensor,
    labels: Tensor,
    other_class: Swaps,
    correct_on_others: Tensor,
    same_class: Swaps,
    correct_on_same: Tensor,
    photographs: Tensor | None = None,
) -> SwapTest:
    """Compute the accuracies of the swap test, with 95 % intervals.

    Swaps that share an object or a background are not independent of each other. One easy object is right on every
    background, and one good background fools every object. A binomial interval would count them as independent, and be
    too narrow. So the variance is clustered by object and by background (Cameron, Gelbach and Miller 2011, "Robust
    inference with multiway clustering"). The gap and the drop are differences within each object. Objects that stand in
    one photograph are one cluster, and so are their backgrounds.

    Args:
        correct: ``(M,)`` bool, True if the prediction on the unchanged image is correct. Or 1, 0, and NaN for an image
            that takes part as a background only.
        labels: ``(M,)``.
        other_class: S objects on backgrounds of other classes.
        correct_on_others: ``(S,)`` bool, True if the prediction on these is correct.
        same_class: T objects on backgrounds of their own class; there may be none.
        correct_on_same: ``(T,)`` bool.
        photographs: ``(M,)`` int64, the number of the photograph that each image is, below M. None if each image is a
            photograph of its own.
    """
    m, asked = len(correct), correct.double().isfinite().nonzero()[:, 0]
    photographs = torch.arange(m) if photographs is None else photographs
    unchanged = _Answers(Swaps(asked, asked), correct[asked], photographs)
    swapped = _Answers(other_class, correct_on_others, photographs)
    control = _Answers(same_class, correct_on_same, photographs)
    # An object without a control is left out of the gap, which would compare easy with difficult classes otherwise.
    gap = _estimate(control, swapped)
    drop, swap = _estimate(unchanged, swapped), _estimate(swapped)
    has_control = bool(gap.n)
    both = (control if has_control else unchanged).accuracy.isfinite() & swapped.accuracy.isfinite()
    as_they_are, on_same, on_others = (_mean(each.accuracy[both]) for each in (unchanged, control, swapped))
    has_same, has_other = (answers.accuracy[asked].isfinite() for answers in (control, swapped))
    tested = asked[has_same & has_other if has_control else has_other]
    classes = labels[asked].unique().tolist()
    return SwapTest(
        probe_accuracy=_mean(unchanged.accuracy),
        swap_accuracy=swap.mean,
        control_accuracy=_mean(control.accuracy) if has_control else None,
        gap=gap.mean if has_control else None,
        pasting_cost=_mean(unchanged.accuracy - control.accuracy) if has_control else None,
        drop=drop.mean,
        swap_interval=swap.interval,
        gap_interval=gap.interval if has_control else None,
        drop_interval=drop.interval,
        n=len(asked),
        n_controlled=gap.n,
        classes=len(classes),
        worst_class=_find_worst(control, swapped, labels, classes),
        tested=frozenset(labels[tested].tolist()),
        n_without_same=int((~has_same).sum()),
        n_without_other=int((~has_other).sum()),
        paired=(as_they_are, on_same if has_control else None, on_others),
    )


def _find_worst(control: _Answers, swapped: _Answers, labels: Tensor, classes: list[int]) -> ClassGap | None:
    """Return the gap of the class that falls most, of those whose fall is more than chance; None if there is none.

    The interval of such a fall lies above 0. Of many classes with few objects, some have such an interval by chance. So
    the fall also has to be rare if objects are given to the classes by chance.
    """
    gaps = control.accuracy - swapped.accuracy
    paired = gaps.isfinite()
    found = []
    for label in classes:
        objects = paired & (labels == label)
        if objects.any() and _estimate(control, swapped, objects).interval[0] > 0:
            same, other = (_mean(answers.accuracy[objects]) for answers in (control, swapped))
            found.append(ClassGap(label, same, other))
    worst = max(found, key=lambda each: each.gap, default=None)
    if worst is None or _chance(gaps[paired], labels[paired] == worst.label, len(classes)) >= 1 - _SURE:
        return None
    return worst


def _chance(gaps: Tensor, of_class: Tensor, classes: int) -> float:
    """Return how often one of some classes falls as far as a given class if objects are given to them by chance.

    Args:
        gaps: ``(n,)``, of each object.
        of_class: ``(n,)`` bool, True for the objects of the given class.
        classes: their number. The chance of one is multiplied by it (Bonferroni 1936).

    Returns:
        Above 0; it may exceed 1.
    """
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(_SHUFFLES, len(gaps), generator=generator).topk(int(of_class.sum()), dim=1).indices
    # Means of thirds differ by the last bits.
    as_far = gaps[places].mean(dim=1) >= gaps[of_class].mean() - 1e-9
    return classes * (int(as_far.sum()) + 1) / (_SHUFFLES + 1)


def _mean(accuracies: Tensor) -> float:
    """Return the mean of accuracies, without those that are NaN."""
    return rounded(float(accuracies.nanmean()))


class _Answers:
    """The answers to some swaps. Each object counts the same, however many of its backgrounds were asked.

    Attributes:
        accuracy: ``(M,)``, of each object over its backgrounds, 0..1; NaN for an object that was not asked.
    """

    def __init__(self, swaps: Swaps, correct: Tensor, photographs: Tensor) -> None:
        self._swaps, self._correct, self.photographs = swaps, correct.double(), photographs
        self._counts = torch.bincount(swaps.objects, minlength=len(photographs)).double()
        total = torch.zeros(len(photographs), dtype=torch.float64).index_add_(0, swaps.objects, self._correct)
        self.accuracy = total / self._counts

    def __len__(self) -> int:
        return len(self._swaps)

    def weights(self, objects: Tensor) -> Tensor:
        """Return the weight of each answer in the mean accuracy of some objects: ``(S,)`` with a sum of 1.

        Args:
            objects: ``(M,)`` bool, the objects that the mean is of.
        """
        own = self._swaps.objects
        return (1 / self._counts[own] / objects.sum()).where(objects[own], 0.0)

    def influence(self, objects: Tensor) -> Tensor:
        """Return how far each answer moves the mean accuracy of some objects.

        Returns:
            ``(M, M)``, a row per photograph of an object and a column per photograph of a background. The sum is 0.
        """
        moves = self.weights(objects) * (self._correct - self.accuracy[objects].mean())
        table = torch.zeros(len(objects), len(objects), dtype=torch.float64)
        rows, columns = self.photographs[self._swaps.objects], self.photographs[self._swaps.donors]
        return table.index_put_((rows, columns), moves, accumulate=True)

    def count_clusters(self, objects: Tensor) -> float:
        """Return the number of photographs that the mean of some objects rests on.

        A photograph with many objects counts for less, and so does a background that many objects share. It is the
        effective number of Kish 1965: 1 / the sum of the squared shares, of objects or of backgrounds, if these are
        fewer.
        """
        of_object, of_ground = torch.zeros(2, len(objects), dtype=torch.float64)
        of_object.index_add_(0, self.photographs[self._swaps.objects], self.weights(objects))
        of_ground.index_add_(0, self.photographs[self._swaps.donors], self.weights(objects))
        return 1 / float(max(of_object.square().sum(), of_ground.square().sum()))


@dataclass(frozen=True)
class _Estimate:
    """A mean over ``n`` objects with its 95 % interval. The mean is NaN if ``n`` is 0."""

    mean: float
    interval: Interval
    n: int


def _estimate(answers: _Answers, less: _Answers | None = None, among: Tensor | None = None) -> _Estimate:
    """Estimate the accuracy of the answers, or by how far it exceeds that of others, of the objects that have both.

    Args:
        answers: some answers.
        less: others.
        among: ``(M,)`` bool, the objects that count; None counts all.
    """
    values = answers.accuracy if less is None else answers.accuracy - less.accuracy
    objects = values.isfinite() if among is None else values.isfinite() & among
    n, mean, lowest = int(objects.sum()), _mean(values[objects]), 0.0 if less is None else -1.0
    nothing_known = _Estimate(mean, (lowest, 1.0), n)
    clusters = len(answers.photographs[objects].unique())
    if clusters < 2:
        return nothing_known
    table = answers.influence(objects)
    if less is not None:
        table -= less.influence(objects)
    by_object, by_ground = table.sum(dim=1).square().sum(), table.sum(dim=0).square().sum()
    # An answer belongs to an object and to a background, and is counted in both. By chance the difference may be too
    # small, but not below the variance by object.
    variance = float(max(by_object, by_object + by_ground - table.square().sum())) * clusters / (clusters - 1)
    effective = round(min(each.count_clusters(objects) for each in (answers, less) if each is not None))
    if effective < 2:
        return nothing_known
    # If all answers agree, they still are few. This is the exact binomial interval of n hits in n tries (Clopper and
    # Pearson 1934).
    of_few = 1 - 0.025 ** (1 / effective)
    half = _student(effective - 1) * math.sqrt(variance) if variance >= _NONE else 0.0
    if less is None:
        low, high = _share_interval(mean, half, len(answers))
        return _Estimate(mean, (rounded(min(low, 1 - of_few)), rounded(max(high, of_few))), n)
    half = half or of_few
    low, high = mean - half, mean + half
    # A difference that no object shows may still be as large. The variance says too little here, since an object that
    # is always wrong, or always right, has none.
    high = max(high, min(mean, 0.0) + of_few)
    if by_object < _NONE:
        low = min(low, mean - of_few)
    return _Estimate(mean, (rounded(max(lowest, low)), rounded(min(1.0, high))), n)


def _share_interval(mean: float, half: float, n: int) -> Interval:
    """Return the exact binomial interval of as many independent answers as have half the width, but of n at most.

    Near 0 and 1 the interval has to be longer towards the middle than towards the end. An interval that is as long on
    either side would be too sure of an accuracy of 63 of 64 (Korn and Graubard 1998, "Confidence intervals for
    proportions with small expected number of positive counts estimated from survey data").

    Args:
        mean: 0..1.
        half: of the width of the interval that the variance gives.
        n: the number of answers.
    """
    tries = n if half == 0 else min(n, mean * (1 - mean) * (_NORMAL / half) ** 2)
    return _binomial_low(mean * tries, tries), 1 - _binomial_low((1 - mean) * tries, tries)


def _binomial_low(hits: float, tries: float) -> float:
    """Return the lower end of the exact 95 % interval of a share, 0..1 (Clopper and Pearson 1934).

    It is the 2.5 % quantile of a beta distribution. With share = sin(angle) ** 2, the density of the angle is
    proportional to sin(angle) ** (2 hits - 1) cos(angle) ** (2 misses + 1).
    """
    if hits < 0.5:
        return 0.0  # the quantile is below 0.001, and the density has a pole
    of_hits, of_misses = 2 * hits - 1, 2 * (tries - hits) + 1
    angle = _quantile(lambda angles: np.sin(angles) ** of_hits * np.cos(angles) ** of_misses, 0.025)
    return math.sin(angle) ** 2


def _student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t distribution.

    With t = sqrt(freedom) tan(angle), the density of the angle is proportional to cos(angle) ** (freedom - 1). Within
    the quantile lie 95 % of the answers.
    """
    return math.sqrt(freedom) * math.tan(_quantile(lambda angles: np.cos(angles) ** (freedom - 1), 0.95))


def _quantile(density: Callable[[_Array], _Array], share: float) -> float:
    """Return the angle, from 0 to a right angle, below which a share of the area under a density lies."""
    angles = np.linspace(0, math.pi / 2, _STEPS)
    heights = density(angles)
    area = np.cumsum(heights[1:] + heights[:-1])
    return float(np.interp(share * area[-1], area, angles[1:]))
