"""Judge from swapped backgrounds if the predictions of a network depend on the background.

Maps show where a network looks. They are no reliable sign of an unknown spurious cue (Adebayo et al. 2022, "Post hoc
explanations may be ineffective for detecting unknown spurious correlation", arXiv 2212.04629). So the verdict rests on
an intervention, and the maps only name the layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gradcam_callback.formatting import fine_percent, percent
from gradcam_callback.measures.basis import BASES, BOXES, MASKS
from gradcam_callback.measures.focus import Focus
from gradcam_callback.measures.reading import Reading, join
from gradcam_callback.measures.rounding import rounded
from gradcam_callback.measures.swaps import Interval, SwapTest

# An accuracy at most so far above guessing has too little to lose for a verdict. If guessing is right more often than
# not, as with one frequent class, half of the way to 1 is enough.
ABOVE_GUESSING = 0.15
# The share of its first lift that a layer must have lost to be named.
NAMED_LOSS = 0.3


@dataclass(frozen=True)
class Verdict:
    """The judgement, after a logged validation, of whether predictions depend on the background.

    Attributes:
        suspected: True if the background decides, and the epoch before points the same way.
        headline: the judgement and the accuracies that it rests on, in one sentence.
        evidence: the rest in words: where the maps lie, how sure the judgement is, and what to do.
        advice: the last sentences of the evidence: what to do, and what this basis cannot know. It may be empty.
        basis: what tells the object from the background: ``"masks"``, ``"automatic masks"``, or ``"frame"``. The
            frame test keeps the centre of each image, and exchanges the frame around it. With the last two,
            ``suspected=False`` is no acquittal.
        probe_accuracy: 0..1, on the probe images of the swap test, which have a mask unless the frame is tested. The
            scalar of this name is of all images that are watched. NaN if some outputs are not finite.
        swap_accuracy: 0..1, with each object on backgrounds, or in frames, of other classes; None if there is only one
            class.
        swap_interval: its 95 % interval; None if there is only one class.
        control_accuracy: 0..1, with each object on backgrounds, or in frames, of its own class; None if no class has a
            second image.
        background_gap: -1..1, ``control_accuracy - swap_accuracy`` of the objects that have both; None without a
            control.
        gap_interval: its 95 % interval; None without a control.
        lift: of the deepest chosen layer: the share of the focus on the object / the share of the image that the object
            fills. NaN if every map of the layer is empty. None without masks.
        layer: the layer that lost most of its lift since the first entry, if a shortcut is suspected and the loss is
            large. Otherwise it is the deepest one. None without masks.
        acquits: True if masks that a person gave show no sign of a shortcut, in enough images of all classes. No other
            basis acquits.

    Examples:
        The predictions on eight images are correct, on backgrounds of their own class, too, but wrong on all others.

        >>> import torch
        >>> from gradcam_callback.measures import Focus, Swaps, judge, swap_test
        >>> right, images = torch.ones(8, dtype=torch.bool), torch.arange(8)
        >>> same, other = Swaps(images, images.roll(2)), Swaps(images, images.roll(1))
        >>> swap = swap_test(right, images % 2, other, ~right, same, right)
        >>> verdict = judge(swap, [Focus("block5_conv3", mass=0.05, area=0.1)], confirmed=True)
        >>> verdict.suspected, verdict.background_gap, verdict.lift, verdict.layer
        (True, 1.0, 0.5, 'block5_conv3')
        >>> [round(bound, 2) for bound in verdict.gap_interval]  # eight images are few
        [0.63, 1.0]
        >>> verdict.headline.split(": ")[0]
        'SHORTCUT SUSPECTED'
    """

    suspected: bool
    headline: str
    evidence: str
    advice: str
    basis: str
    probe_accuracy: float
    swap_accuracy: float | None
    swap_interval: Interval | None
    control_accuracy: float | None
    background_gap: float | None
    gap_interval: Interval | None
    lift: float | None
    layer: str | None
    acquits: bool = False

    @property
    def text(self) -> str:
        """Return the headline, and the evidence as a second paragraph."""
        return f"{self.headline}\n\n{self.evidence}"


def points_to_background(gap: float, low: float, basis: str = MASKS, n: int | None = None) -> bool:
    """Return True if a background gap says that the background decides: significance comes first, and size second.

    Args:
        gap: -1..1.
        low: the lower bound of its interval.
        basis: what tells the object from the background.
        n: the number of images that the gap is measured on. Of few, only a larger gap counts. None takes many.
    """
    limits = BASES[basis].gap_of(n)
    return low > limits.sure and gap > limits.size


def drop_points_to_background(drop: float, low: float, basis: str = MASKS) -> bool:
    """Return the same for the drop of a swap test without a control."""
    limits = BASES[basis].drop
    return low > limits.sure and drop > limits.size


def confirms(previous_gap: float | None, previous_drop: float, basis: str = MASKS, n: int | None = None) -> bool:
    """Return True if the previous epoch confirms what this epoch says: its fall is as large, if not as certain.

    Args:
        previous_gap: the gap of the previous epoch; None without a control.
        previous_drop: its drop, which counts if there is no control.
        basis: what tells the object from the background.
        n: as in `points_to_background`.
    """
    of = BASES[basis]
    return previous_drop > of.drop.size if previous_gap is None else previous_gap > of.gap_of(n).size


def has_sign(gap: float | None, drop: float, basis: str = MASKS) -> bool:
    """Return True if an epoch has a sign of a shortcut, so that more is to be asked; arguments as of `confirms`."""
    of = BASES[basis]
    return drop > of.drop.sign if gap is None else gap > of.gap.sign


def judge(
    swap: SwapTest,
    foci: Sequence[Focus],
    confirmed: bool,
    basis: str = MASKS,
    *,
    n_all: int | None = None,
    in_part: bool = False,
    standalone: bool = False,
    guessing: float | None = None,
    false_yes: float = math.nan,
    name_class: Callable[[int], str] = str,
    n_classes: int = 0,
) -> Verdict:
    """Judge one validation, and put the evidence in words.

    Args:
        swap: the accuracies.
        foci: one per chosen layer, from input to output; empty without masks.
        confirmed: True if the previous epoch points the same way; see `confirms`.
        basis: what tells the object from the background: a key of `gradcam_callback.measures.basis.BASES`.
        n_all: the number of images that take part, of which this validation may have asked some; None if it asked all.
        in_part: True if this validation asked a part of the counterfactuals, and another one will ask the others.
        standalone: True if no epoch belongs before this one, so that nothing confirms it.
        guessing: 0..1, how often predictions like these would be right by chance. None takes 1 / the number of classes.
        false_yes: 0..1, if an image may have several labels: how often the network says yes to a class that the image
            does not hold. NaN otherwise.
        name_class: takes a label, and returns the name of the class.
        n_classes: the number of classes that the network knows. If some are not tested, nothing is acquitted. 0 does
            not ask for it.
    """
    if swap.gap is None or swap.gap_interval is None:
        points = drop_points_to_background(swap.drop, swap.drop_interval[0], basis)
    else:
        points = points_to_background(swap.gap, swap.gap_interval[0], basis, swap.n_controlled)
    suspected = points and confirmed
    guessing, said_yes = 1 / swap.classes if guessing is None else guessing, ""
    enough = guessing + min(ABOVE_GUESSING, (1 - guessing) / 2)
    if not math.isnan(false_yes):
        enough = false_yes + ABOVE_GUESSING
        said_yes = f"The network says yes to {percent(false_yes)} of the classes that an image does not hold."
    reading = Reading(
        swap,
        BASES[basis],
        points=points,
        confirmed=confirmed,
        n_all=n_all or swap.n,
        in_part=in_part,
        standalone=standalone,
        enough=rounded(enough),
        name_class=name_class,
        n_classes=n_classes,
    )
    named = _lost_most(foci) if suspected else None
    found = [*_say_where(foci, named), *reading.say_how_sure(), said_yes, *reading.say_which_classes()]
    advice = join(reading.say_what_to_do())
    located = named or (foci[-1] if foci else None)
    return Verdict(
        suspected,
        headline=reading.headline,
        evidence=join([*found, advice]),
        advice=advice,
        basis=MASKS if basis == BOXES else basis,
        probe_accuracy=swap.probe_accuracy,
        swap_accuracy=swap.swap_accuracy,
        swap_interval=swap.swap_interval,
        control_accuracy=swap.control_accuracy,
        background_gap=swap.gap,
        gap_interval=swap.gap_interval,
        lift=foci[-1].lift if foci else None,
        layer=located.layer if located else None,
        acquits=reading.acquits,
    )


def judge_without_swap(
    probe_accuracy: float, reason: str, foci: Sequence[Focus], basis: str = MASKS, counted: tuple[int, int] = (0, 0)
) -> Verdict:
    """Say why nothing is known.

    Args:
        probe_accuracy: 0..1; NaN if some outputs are not finite.
        reason: a sentence.
        foci: one per chosen layer, from input to output; empty without masks.
        basis: what tells the object from the background.
        counted: how many images the accuracy is of, and how many there are. It is said if some take no part.
    """
    said = f"right in {percent(probe_accuracy)} as they are"
    if counted[0] < counted[1]:
        said += f", of {counted[0]} of {counted[1]} images"
    if math.isnan(probe_accuracy):
        said = "not all outputs of the network are finite"
    return Verdict(
        suspected=False,
        headline=f"NOT KNOWN if the background decides: {said}.",
        evidence=join([reason, *_say_where(foci, None), BASES[basis].caution]),
        advice=BASES[basis].caution,
        basis=MASKS if basis == BOXES else basis,
        probe_accuracy=probe_accuracy,
        swap_accuracy=None,
        swap_interval=None,
        control_accuracy=None,
        background_gap=None,
        gap_interval=None,
        lift=foci[-1].lift if foci else None,
        layer=foci[-1].layer if foci else None,
    )


def _lost_most(foci: Sequence[Focus]) -> Focus | None:
    """Return the layer that lost most of its lift; None if none lost enough to be named.

    Lift also varies in networks without a shortcut, so it only names the layer of what the swap has found.
    """
    most = max(foci, key=lambda focus: focus.lost_share_of_lift, default=None)
    return most if most is not None and most.lost_share_of_lift > NAMED_LOSS else None


def _say_where(foci: Sequence[Focus], lost_most: Focus | None) -> list[str]:
    """Say where the maps of the deepest layer lie, and which layer lost most of its lift if this is worth naming."""
    if not foci:
        return []
    deepest = foci[-1]
    if deepest.is_empty:
        sentences = [f"At {deepest.layer}, the maps of all these images are empty."]
    else:
        sentences = [
            f"At {deepest.layer}, {fine_percent(deepest.mass)} of the focus lies on the object, which fills "
            f"{fine_percent(deepest.area)}: a lift of {deepest.lift:.2f}."
        ]
    if lost_most is not None:
        sentences.append(
            f"Since the first entry the lift at {lost_most.layer} went from {lost_most.first_lift:.2f} to "
            f"{lost_most.lift:.2f}."
        )
    return sentences
