"""Judge from swapped backgrounds if the predictions of a network depend on the background.

Maps show where a network looks. They are no reliable sign of an unknown spurious cue (Adebayo et al. 2022, "Post hoc
explanations may be ineffective for detecting unknown spurious correlation", arXiv 2212.04629). So the verdict rests on
an intervention, and the maps only name the layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradcam_callback.formatting import percent
from gradcam_callback.measures.metrics import mask_area, relevance_mass

# The accuracy drop that points to the background, and the smaller drop that the previous epoch must have shown. So a
# single epoch raises no suspicion. docs/study.md explains both thresholds.
SUSPICIOUS_DROP, CONFIRMING_DROP = 0.15, 0.05
_RESAMPLES = 2000

Interval = tuple[float, float]


@dataclass(frozen=True)
class SwapTest:
    """Accuracies before and after the objects were put on backgrounds of other classes.

    Attributes:
        probe_accuracy: 0..1, on the unchanged images.
        swap_accuracy: 0..1, on the swapped images.
        swap_interval: the 95 % interval of ``swap_accuracy``.
        drop_interval: the 95 % interval of ``drop``.
        n: the number of probe images.
        classes: the number of their classes.
    """

    probe_accuracy: float
    swap_accuracy: float
    swap_interval: Interval
    drop_interval: Interval
    n: int
    classes: int

    @property
    def drop(self) -> float:
        """Return the accuracy drop, -1..1: ``probe_accuracy - swap_accuracy``.

        The BG-Gap of Xiao et al. 2021 (arXiv 2006.09994) starts from images with swapped backgrounds of the same class
        (Mixed-Same). The drop starts from unchanged images, so it includes the effect of cutting and pasting itself.
        """
        return self.probe_accuracy - self.swap_accuracy

    @property
    def points_to_the_background(self) -> bool:
        """Return True if the drop is large, and not explained by the choice of the probe images."""
        return points_to_background(self.drop, self.drop_interval[0])


@dataclass(frozen=True)
class Focus:
    """The part of one layer's maps that lies on the objects.

    Images whose map is empty are left out of both means, so that `lift` is their ratio.

    Attributes:
        layer: its name.
        mass: the mean relevance mass, 0..1; NaN if every map is empty.
        area: the mean mask area, 0..1, of the same images; NaN if every map is empty.
        first_lift: the lift at the first entry of the run; None at the first entry, or if it was undefined there.
    """

    layer: str
    mass: float
    area: float
    first_lift: float | None = None

    @classmethod
    def from_maps(cls, layer: str, maps: Tensor, masks: Tensor) -> Focus:
        """Measure the focus of a layer.

        Args:
            layer: its name.
            maps: ``(M, h, w)``, of the images with a mask.
            masks: ``(M, H, W)`` bool, True on the object.
        """
        mass, area = relevance_mass(maps, masks), mask_area(masks)
        defined = ~mass.isnan()
        return cls(layer, float(mass[defined].mean()), float(area[defined].mean()))

    @property
    def lift(self) -> float:
        """Return ``mass / area``: 1 is chance, below 1 the maps avoid the objects; NaN if every map is empty."""
        return self.mass / self.area

    @property
    def is_empty(self) -> bool:
        """Return True if every map of the layer is empty."""
        return math.isnan(self.mass)

    @property
    def lost_share_of_lift(self) -> float:
        """Return the share of the first entry's lift that is gone, 0..1; 0 if it has grown or is undefined."""
        if not self.first_lift or self.is_empty:
            return 0.0
        return max(0.0, 1 - self.lift / self.first_lift)


@dataclass(frozen=True)
class Verdict:
    """The judgement, after the logged validations, of whether predictions depend on the background.

    Attributes:
        suspected: True if swap accuracy lies far below probe accuracy, and lay below it in the previous epoch, too.
        probe_accuracy: 0..1, on the probe images that have a mask.
        swap_accuracy: 0..1, with each object on a background of another class; None if there is only one class.
        lift: of the deepest chosen layer: the share of the focus on the object / the share of the image that the object
            fills; NaN if every map of the layer is empty.
        evidence: the same in words.
        swap_interval: the 95 % interval of ``swap_accuracy``; None if there is only one class.
        layer: the layer that lost most of its lift since the first entry, if the swap points to the background;
            otherwise the deepest one.

    Examples:
        The predictions on eight images are correct, but wrong on all swapped backgrounds.

        >>> import torch
        >>> from gradcam_callback.measures import Focus, judge, swap_test
        >>> correct, images = torch.ones(8, dtype=torch.bool), torch.arange(8)
        >>> swap = swap_test(correct, ~correct, objects=images, donors=images.roll(1), labels=images % 2)
        >>> focus = Focus("block5_conv3", mass=0.05, area=0.1)
        >>> verdict = judge(1.0, n=8, swap=swap, foci=[focus], confirmed=True)
        >>> verdict.suspected, verdict.swap_accuracy, verdict.swap_interval, verdict.lift, verdict.layer
        (True, 0.0, (0.0, 0.0), 0.5, 'block5_conv3')
        >>> verdict.evidence.split(". ")[-1]
        'Its predictions depend on the background: a shortcut is suspected.'
    """

    suspected: bool
    probe_accuracy: float
    swap_accuracy: float | None
    lift: float
    evidence: str
    swap_interval: Interval | None
    layer: str


def points_to_background(drop: float, drop_low: float) -> bool:
    """Return True if an accuracy drop by the swap is large, and its lower bound is above 0."""
    return drop > SUSPICIOUS_DROP and drop_low > 0


def confirms(previous_drop: float) -> bool:
    """Return True if the accuracy drop of the previous epoch is large enough to confirm the drop of this epoch."""
    return previous_drop > CONFIRMING_DROP


def swap_test(
    correct: Tensor, correct_after: Tensor, objects: Tensor, donors: Tensor, labels: Tensor, seed: int = 0
) -> SwapTest:
    """Compute accuracies before and after the swap, with bootstrap intervals over the probe images (Efron 1979).

    Swaps that share an object or a background are not independent of each other. So probe images are drawn, not swaps.
    A swap counts as often as its object was drawn times as often as its donor was drawn. The pigeonhole bootstrap (Owen
    2007) weights a table by such products, but draws its rows and its columns separately.

    Args:
        correct: ``(M,)`` bool, True if the prediction on the unchanged probe image is correct.
        correct_after: ``(S,)`` bool, True if the prediction on the swapped image is correct.
        objects: ``(S,)``, the index of the probe image that each object comes from.
        donors: ``(S,)``, the index of the probe image that each background comes from.
        labels: ``(M,)``.
        seed: of the bootstrap.
    """
    m = len(correct)
    drawn = torch.randint(m, (_RESAMPLES, m), generator=torch.Generator().manual_seed(seed))
    # Row 0 holds every image once, for the accuracies themselves. The other rows count how often each image was drawn.
    counts = torch.ones(_RESAMPLES + 1, m, dtype=torch.float64)
    counts[1:] = torch.zeros(_RESAMPLES, m, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(counts[1:]))
    weights = counts[:, objects] * counts[:, donors]
    # Each row of `counts` sums to M, and so gives a mean.
    before = counts @ correct.double() / m
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
    """Return the bounds of the middle 95 % of the values."""
    # With few images a draw may hold no pair of an object and its donor. Its accuracy is 0 / 0 and does not count.
    low, high = values[values.isfinite()].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def judge(probe_accuracy: float, n: int, swap: SwapTest | None, foci: Sequence[Focus], confirmed: bool) -> Verdict:
    """Judge one validation, and state the evidence in words.

    Args:
        probe_accuracy: 0..1, on the ``n`` probe images that have a mask.
        n: the number of these images.
        swap: None if they are all of one class.
        foci: one per chosen layer, from input to output.
        confirmed: True if the previous epoch showed a drop, too; see `confirms`.
    """
    deepest = foci[-1]
    points = swap is not None and swap.points_to_the_background
    # Lift also varies in networks without a shortcut, so it only names the layer of what the swap has found.
    lost_most = max(foci, key=lambda focus: focus.lost_share_of_lift)
    is_located = points and lost_most.lost_share_of_lift > 0
    place = lost_most if is_located else deepest
    sentences = [f"On these {n} images the network is right in {percent(probe_accuracy)}."]
    if swap is None:
        sentences.append("Their objects are all of one class, so no object could be put on another class's background.")
    else:
        sentences.append(
            "Put the same objects on other classes' backgrounds and it is right in "
            f"{percent(swap.swap_accuracy)} ({_percents(swap.swap_interval)})."
        )
    if deepest.is_empty:
        sentences.append(f"At {deepest.layer}, the maps of all these images are empty.")
    else:
        sentences.append(
            f"At {deepest.layer}, {percent(deepest.mass)} of the focus lies on the object, which fills "
            f"{percent(deepest.area)}."
        )
    if is_located:
        sentences.append(
            f"Since the first entry the lift at {place.layer} went from {place.first_lift:.2f} to {place.lift:.2f}."
        )
    suspected = points and confirmed
    sentences.append(_conclusion(probe_accuracy, swap, suspected))
    return Verdict(
        suspected,
        probe_accuracy,
        None if swap is None else swap.swap_accuracy,
        deepest.lift,
        " ".join(sentences),
        None if swap is None else swap.swap_interval,
        place.layer,
    )


def _conclusion(probe_accuracy: float, swap: SwapTest | None, suspected: bool) -> str:
    """Return the last sentence of the evidence."""
    if suspected:
        return "Its predictions depend on the background: a shortcut is suspected."
    if swap is None:
        return "It cannot be said if its predictions depend on the background."
    if swap.points_to_the_background:
        return "Its predictions depend on the background; if the next epoch says so too, a shortcut is suspected."
    if swap.drop > SUSPICIOUS_DROP:
        return "Its predictions may depend on the background, but so few images may also say so by chance."
    # Near the accuracy of guessing there is nothing to drop, so the absence of a drop means nothing.
    if probe_accuracy < 1 / swap.classes + SUSPICIOUS_DROP:
        return "It hardly knows the classes yet, so nothing can be said about the background."
    return "No sign that its predictions depend on the background."


def _percents(interval: Interval) -> str:
    """Format an interval of shares: ``(0.25, 0.43)`` -> ``"25-43 %"``."""
    return f"{100 * interval[0]:.0f}-{percent(interval[1])}"
