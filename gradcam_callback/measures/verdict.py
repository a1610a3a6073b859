"""The verdict: what the interventions say of the background, how surely, and where the maps place it.

Maps show where a network looks; whether its answer depends on what it sees there only an intervention can say
(Adebayo et al. 2022, "Post hoc explanations may be ineffective for detecting unknown spurious correlation"). So the
verdict rests on swapped backgrounds, and the maps only place it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradcam_callback.formatting import percent

# How far swap accuracy must drop below probe accuracy to point to the background, and how far in the epoch before, so
# that a single epoch does not accuse a network. docs/study.md says how they were chosen.
SUSPICIOUS_DROP, CONFIRMING_DROP = 0.15, 0.05
_RESAMPLES = 2000

Interval = tuple[float, float]


@dataclass(frozen=True)
class SwapTest:
    """Objects before and after they were put on other classes' backgrounds.

    Attributes:
        probe_accuracy: 0..1, as they are.
        swap_accuracy: 0..1, after; and ``swap_interval``, where it lies with 95 % confidence.
        drop: ``probe_accuracy - swap_accuracy``, -1..1; and ``drop_interval``.
        n: how many probe images; ``classes``: of how many classes.
    """

    probe_accuracy: float
    swap_accuracy: float
    swap_interval: Interval
    drop_interval: Interval
    n: int
    classes: int

    @property
    def drop(self) -> float:
        return self.probe_accuracy - self.swap_accuracy

    @property
    def points_to_the_background(self) -> bool:
        """Whether the drop is large, and more than the chance of having these probe images."""
        return points_to_background(self.drop, self.drop_interval[0])


@dataclass(frozen=True)
class Focus:
    """Where the focus of one layer lies.

    Attributes:
        mass: mean share, 0..1, on the object; area: the mean share of the image that it fills, 0..1.
        lift: mass / area; first_lift: the same at the run's first entry, None where this is the first.
    """

    layer: str
    mass: float
    area: float
    lift: float
    first_lift: float | None = None

    @property
    def lost(self) -> float:
        """The share of the first entry's lift that has gone, 0 where it has grown."""
        return max(0.0, 1 - self.lift / self.first_lift) if self.first_lift else 0.0


@dataclass(frozen=True)
class Verdict:
    """What the logged validations say about the background.

    Attributes:
        suspected: swap accuracy lies far below probe accuracy, and the epoch before said so too.
        probe_accuracy: 0..1, on the probe images that have a mask.
        swap_accuracy: 0..1, with each object on another class's background; None where there is only one class.
        lift: at the deepest chosen layer: share of the focus on the object / share of the image that it fills.
        evidence: the same in words.
        swap_interval: where swap accuracy lies with 95 % confidence.
        layer: where most of the first entry's lift was lost, once the swap points to the background; else the deepest.

    Examples:
        Eight images are all right as they are, and wrong with each other's backgrounds.

        >>> import torch
        >>> from gradcam_callback.measures.verdict import Focus, judge, swap_test
        >>> right, images = torch.ones(8, dtype=torch.bool), torch.arange(8)
        >>> swap = swap_test(right, ~right, objects=images, donors=images.roll(1), labels=images % 2)
        >>> focus = Focus("block5_conv3", mass=0.05, area=0.1, lift=0.5)
        >>> verdict = judge(1.0, n=8, swap=swap, foci=[focus], confirmed=True)
        >>> verdict.suspected, verdict.swap_accuracy, verdict.swap_interval, verdict.layer
        (True, 0.0, (0.0, 0.0), 'block5_conv3')
        >>> verdict.evidence.split(". ")[-1]
        'Its answer depends on the background: a shortcut is suspected.'
    """

    suspected: bool
    probe_accuracy: float
    swap_accuracy: float | None
    lift: float
    evidence: str
    swap_interval: Interval | None
    layer: str


def points_to_background(drop: float, fall_low: float) -> bool:
    """Whether a drop of accuracy by the swap is large, and its lower bound says that it is no chance."""
    return drop > SUSPICIOUS_DROP and fall_low > 0


def confirms(fall_before: float) -> bool:
    """Whether the drop in the epoch before says that this epoch's is no passing one."""
    return fall_before > CONFIRMING_DROP


def swap_test(
    right: Tensor, correct_after: Tensor, objects: Tensor, donors: Tensor, labels: Tensor, seed: int = 0
) -> SwapTest:
    """Accuracies before and after the swap, with bootstrap intervals over the probe images (Efron 1979).

    A probe image is drawn with all that it gave, as an object and as a background alike, since neither the swaps of
    one object nor those on one background are independent of each other.

    Args:
        right: ``(M,)`` bool, whether the network is right on each probe image as it is.
        correct_after: ``(S,)`` bool, whether it is on each swap; objects, donors: ``(S,)``, the probe images that the
            object and the background of each come from.
        labels: ``(M,)``.
    """
    m = len(right)
    # One row as it is, for the accuracies themselves; the others drawn with replacement.
    drawn = torch.randint(m, (_RESAMPLES, m), generator=torch.Generator().manual_seed(seed))
    counts = torch.ones(_RESAMPLES + 1, m, dtype=torch.float64)
    counts[1:] = torch.zeros(_RESAMPLES, m, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(counts[1:]))
    weights = counts[:, objects] * counts[:, donors]
    before = counts @ right.double() / m
    after = weights @ correct_after.double() / weights.sum(dim=1)
    return SwapTest(
        float(before[0]),
        float(after[0]),
        _interval(after[1:]),
        _interval((before - after)[1:]),
        m,
        len(labels.unique()),
    )


def _interval(values: Tensor) -> Interval:
    """The middle 95 %; of a handful of images some draws hold no pair at all, and count for nothing."""
    low, high = values[values.isfinite()].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def judge(probe_accuracy: float, n: int, swap: SwapTest | None, foci: Sequence[Focus], confirmed: bool) -> Verdict:
    """Weigh the evidence of one validation and put it in words.

    Args:
        probe_accuracy: 0..1, on the ``n`` probe images that have a mask.
        swap: None where these are all of one class.
        foci: one per chosen layer, from input to output.
        confirmed: whether the epoch before said so too, see `confirms`.
    """
    deepest = foci[-1]
    points = swap is not None and swap.points_to_the_background
    # Lift comes and goes in networks without a shortcut, too, so it only places what the swap has found.
    lost_most = max(foci, key=lambda focus: focus.lost)
    place = lost_most if points and lost_most.lost > 0 else deepest
    words = [f"On these {n} images the network is right in {percent(probe_accuracy)}."]
    if swap is None:
        words.append("Their objects are all of one class, so none could be put on another class's background.")
    else:
        words.append(
            "Put the same objects on other classes' backgrounds and it is right in "
            f"{percent(swap.swap_accuracy)} ({_percents(swap.swap_interval)})."
        )
    words.append(
        f"At {deepest.layer}, {percent(deepest.mass)} of the focus lies on the object, which fills "
        f"{percent(deepest.area)}."
    )
    if points and place.lost > 0:
        words.append(
            f"Since the first entry the lift at {place.layer} went from {place.first_lift:.2f} to {place.lift:.2f}."
        )
    suspected = points and confirmed
    words.append(_conclusion(probe_accuracy, swap, suspected))
    return Verdict(
        suspected,
        probe_accuracy,
        None if swap is None else swap.swap_accuracy,
        deepest.lift,
        " ".join(words),
        None if swap is None else swap.swap_interval,
        place.layer,
    )


def _conclusion(probe_accuracy: float, swap: SwapTest | None, suspected: bool) -> str:
    if suspected:
        return "Its answer depends on the background: a shortcut is suspected."
    if swap is None:
        return "Whether its answer depends on the background cannot be said."
    if swap.points_to_the_background:
        return "Its answer depends on the background; if the next epoch says so too, a shortcut is suspected."
    if swap.drop > SUSPICIOUS_DROP:
        return "Its answer may depend on the background, but so few images may also say so by chance."
    if probe_accuracy < 1 / swap.classes + SUSPICIOUS_DROP:
        return "It hardly knows the classes yet, so nothing can be said of the background."
    return "No sign that its answer depends on the background."


def _percents(interval: Interval) -> str:
    """``"25-43 %"``."""
    return f"{100 * interval[0]:.0f}-{percent(interval[1])}"
