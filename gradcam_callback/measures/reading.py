"""Put in words what the answers of one validation say: the conclusion, how sure it is, and what to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

from gradcam_callback.formatting import name_some, percent
from gradcam_callback.measures.basis import ELSE, Basis
from gradcam_callback.measures.rounding import rounded
from gradcam_callback.measures.swaps import ClassGap, Interval, SwapTest

# A cost of pasting above this says that masks or painting are poor, or that the network knows no pasted images.
LARGE_COST = 0.15
# A gap that may be as large as this cannot be called no sign of a shortcut.
TOO_WIDE = 0.4
# A class that certainly falls, and by more than this, is named.
CLASS_GAP = 0.3
# With so many images most shortcuts are told from chance, see docs/study.md.
ENOUGH_IMAGES = 64


class Conclusion(Enum):
    """The judgement of one validation. The last five are of accuracies that show no fall."""

    SUSPECTED = auto()
    SINGLE_EPOCH = auto()  # it points to the background, and no earlier epoch confirms it
    MAY_BE_CHANCE = auto()  # a large fall that is not certain
    REVERSED = auto()
    CONFUSED = auto()  # by pasting alone
    TOO_EARLY = auto()
    ONE_CLASS = auto()
    IMAGES_LEFT = auto()  # some are not asked yet
    SWAPS_LEFT = auto()  # too few to find a large fall, but others will be asked
    TOO_FEW = auto()
    CLASSES_LEFT = auto()  # some cannot be tested
    NO_SIGN = auto()


@dataclass(frozen=True)
class Reading:
    """The accuracies of one validation, and what they mean.

    Attributes:
        swap: the accuracies.
        basis: the limits and the words of what tells the object from the background.
        points: True if the accuracies say that the background decides.
        confirmed: True if the previous epoch points the same way.
        n_all: the number of images that take part, of which this validation may have asked some.
        in_part: True if this validation asked a part of the counterfactuals, and another one will ask the others.
        standalone: True if no epoch belongs before this one.
        enough: 0..1, the accuracy from which on the network knows the classes.
        name_class: takes a label, and returns the name of the class.
        n_classes: the number of classes that the network knows.
    """

    swap: SwapTest
    basis: Basis
    points: bool
    confirmed: bool
    n_all: int
    in_part: bool
    standalone: bool
    enough: float
    name_class: Callable[[int], str]
    n_classes: int

    @cached_property
    def falling(self) -> ClassGap | None:
        """Return the class that certainly falls most, if its fall is large, and more than that of all together."""
        worst = self.swap.worst_class
        if worst is None or self.swap.gap is None:
            return None
        # Half of a gap may have one more decimal than the gaps, which are rounded.
        return worst if round(worst.gap - max(CLASS_GAP, 1.5 * self.swap.gap), 6) > 0 else None

    @cached_property
    def untested(self) -> list[int]:
        """Return the labels of the classes that no validation tests; none as long as some images are not asked yet."""
        if self.n_all > self.swap.n:
            return []
        return [label for label in range(self.n_classes) if label not in self.swap.tested]

    @cached_property
    def conclusion(self) -> Conclusion:
        """Return the judgement."""
        swap = self.swap
        if self.points:
            return Conclusion.SUSPECTED if self.confirmed else Conclusion.SINGLE_EPOCH
        if self._is_large:
            return Conclusion.MAY_BE_CHANCE
        if self._is_reversed:
            return Conclusion.REVERSED
        # Near the accuracy of guessing there is nothing to lose, so the absence of a gap means nothing.
        pasted = swap.probe_accuracy if swap.control_accuracy is None else swap.control_accuracy
        if min(swap.probe_accuracy, pasted) < self.enough:
            is_confused = swap.probe_accuracy >= self.enough and (swap.pasting_cost or 0.0) > LARGE_COST
            return Conclusion.CONFUSED if is_confused else Conclusion.TOO_EARLY
        if self.falling is not None:
            return Conclusion.ONE_CLASS
        if self.n_all > swap.n:
            return Conclusion.IMAGES_LEFT
        if self._is_too_wide:
            return Conclusion.SWAPS_LEFT if self.in_part else Conclusion.TOO_FEW
        return Conclusion.CLASSES_LEFT if self.untested else Conclusion.NO_SIGN

    @property
    def _opening(self) -> str:
        """Return the conclusion in words, the first of the headline."""
        basis = self.basis
        match self.conclusion:
            case Conclusion.SUSPECTED:
                return basis.suspicion
            case Conclusion.SINGLE_EPOCH:
                return "POSSIBLE SHORTCUT, said by a single epoch so far"
            case Conclusion.MAY_BE_CHANCE:
                return "UNCLEAR, so few images may also say so by chance"
            case Conclusion.REVERSED:
                return f"UNCLEAR, the network is right more often {basis.of_other_class}"
            case Conclusion.CONFUSED:
                return f"UNCLEAR, since {basis.pasting[0].lower()}{basis.pasting[1:]} confuses the network"
            case Conclusion.TOO_EARLY:
                return "TOO EARLY, the network hardly knows the classes yet"
            case Conclusion.ONE_CLASS:
                return "UNCLEAR, one class falls more than the others"
            case Conclusion.TOO_FEW:
                return "UNCLEAR, so few images cannot exclude a shortcut"
            # The words of the other bases are long, and a headline has to fit into the overview.
            case Conclusion.IMAGES_LEFT if basis.acquits:
                return f"{basis.no_sign} in {self.swap.n} of {self.n_all} images"
            case Conclusion.CLASSES_LEFT if basis.acquits:
                return f"{basis.no_sign} in {self.n_classes - len(self.untested)} of {self.n_classes} classes"
            case Conclusion.IMAGES_LEFT | Conclusion.SWAPS_LEFT:
                return basis.no_sign_yet
            case Conclusion.CLASSES_LEFT | Conclusion.NO_SIGN:
                return basis.no_sign

    @property
    def acquits(self) -> bool:
        """Return True if nothing speaks for a shortcut, and enough was asked to say so."""
        return self.basis.acquits and self.conclusion is Conclusion.NO_SIGN

    @property
    def headline(self) -> str:
        """Return the conclusion and the accuracies."""
        swap, basis = self.swap, self.basis
        unchanged, control, swapped = swap.probe_accuracy, swap.control_accuracy, swap.swap_accuracy
        if swap.paired is not None and swap.n_paired < swap.n:
            unchanged, control, swapped = swap.paired  # of the same images, as the gap is
        if self.conclusion is Conclusion.TOO_EARLY:
            unchanged = swap.probe_accuracy  # of all images, since it may be what is too small
        of_control = "" if control is None else f"{percent(control)} {basis.of_same_class}, "
        others = f"{percent(swapped)} {basis.of_other_class}"
        return f"{self._opening}: right in {percent(unchanged)} as they are, {of_control}{others}."

    def say_how_sure(self) -> list[str]:
        """Say how large the gap is, how certain, and what confirms it."""
        swap, basis, sentences = self.swap, self.basis, []
        if swap.gap is None or swap.gap_interval is None:
            images = f"{swap.n_paired} of {swap.n}" if swap.n_paired < swap.n else f"these {swap.n}"
            is_single = swap.n_without_same == swap.n
            why = "No class has two different images" if is_single else "No object has backgrounds of both kinds"
            sentences.append(
                f"The accuracy of {images} images {basis.of_other_class} falls by {_points(swap.drop)} "
                f"({_range(swap.drop_interval)}). {why}, so there is no control: a part of the fall is the cutting and "
                "pasting itself, and only a large one counts."
            )
        else:
            images = f"{swap.n_controlled} images."
            if swap.n_controlled < swap.n:
                missing = "no different image of their class" if swap.n_without_same else ""
                if swap.n_without_other:
                    missing += f"{' or ' if missing else ''}no image without their class"
                images = f"{swap.n_controlled} of {swap.n} images; for the others there is {missing}."
            sentences.append(
                f"{basis.what_decides} decides {_points(swap.gap)} ({_range(swap.gap_interval)}), measured on {images}"
            )
            limits = basis.gap_of(swap.n_controlled)
            if swap.gap_interval[0] > limits.sure and basis.gap.size < swap.gap <= limits.size:
                sentences.append(f"Of so few images, only a gap of more than {_points(limits.size)} counts.")
        if self.conclusion is Conclusion.SUSPECTED:
            before = "" if self.standalone else "The epoch before points the same way: "
            sentences.append(f"{before}{'a' if before else 'A'} shortcut is suspected.")
        elif self.conclusion is Conclusion.SINGLE_EPOCH:
            sentences.append("A single epoch is no suspicion yet. Another epoch, or trainer.validate, tells.")
        return sentences

    def say_which_classes(self) -> list[str]:
        """Name the class that falls most, and the classes that are not tested."""
        sentences, basis = [], self.basis
        if self.falling is not None:
            sentences.append(
                f"The class {self.name_class(self.falling.label)!r} falls most: right in "
                f"{percent(self.falling.control_accuracy)} {basis.of_same_class}, "
                f"{percent(self.falling.swap_accuracy)} {basis.of_other_class}."
            )
        if self.untested:
            names = name_some([repr(self.name_class(label)) for label in self.untested])
            sentences.append(f"Not tested: {names} of {self.n_classes} classes.")
        return sentences

    def say_what_to_do(self) -> list[str]:
        """Say what a reader may do next."""
        swap, basis, sentences = self.swap, self.basis, []
        # If all were asked, only others can tell. So many more of each class are two or more.
        asks_more = self.conclusion in (Conclusion.MAY_BE_CHANCE, Conclusion.TOO_FEW) and swap.n >= self.n_all
        if swap.pasting_cost is not None and swap.pasting_cost > LARGE_COST:
            sentences.append(f"{basis.pasting} costs {_points(swap.pasting_cost)}: {basis.look_first}.")
        elif self.conclusion is Conclusion.SUSPECTED:
            sentences.append("Look at the counterfactuals, then train with images of each class on other backgrounds.")
        if asks_more:
            wanted = max(ENOUGH_IMAGES, 2 * swap.n)
            sentences.append(basis.more_images.format(math.ceil(wanted / swap.classes)))
        elif self.conclusion is Conclusion.MAY_BE_CHANCE:
            sentences.append(f"The next validation asks {self.n_all} images, and so does the end of the training.")
        elif self.conclusion is Conclusion.TOO_EARLY:
            sentences.append(
                "Train longer. If your validation accuracy is good already, check the labels and the transform of the "
                "probe images."
            )
        elif self.conclusion is Conclusion.REVERSED:
            sentences.append(
                "Images that contradict a shortcut give such a result: choose probe images as they come, or look at "
                "the counterfactuals."
            )
        elif self.falling is not None and not self.points:
            name = self.name_class(self.falling.label)
            sentences.append(f"Look at {name!r} among the counterfactuals, and give more images of it.")
        elif self.conclusion is Conclusion.SWAPS_LEFT:
            sentences.append("The last validation asks everything, and so does trainer.validate.")
        elif swap.n < self.n_all and not self.points:
            sentences.append(f"The last validation asks all {self.n_all} images, and so does trainer.validate.")
        if not asks_more and (swap.n_without_same or self.untested):
            sentences.append(f"Give each class {basis.two_images}: {basis.choose.format(2)}. {ELSE}")
        if swap.n_without_other:
            sentences.append("Add images without the classes that all images hold.")
        if self.conclusion in (Conclusion.CLASSES_LEFT, Conclusion.NO_SIGN):
            sentences.append(basis.unseen)
        return [*sentences, basis.doubt if self.points else "", basis.caution]

    @property
    def _is_large(self) -> bool:
        """Return True if the fall of the accuracy is large, whether or not it may be chance."""
        swap, basis = self.swap, self.basis
        return swap.drop > basis.drop.size if swap.gap is None else swap.gap > basis.gap.size

    @property
    def _is_too_wide(self) -> bool:
        """Return True if so few images cannot tell a large fall from none."""
        swap = self.swap
        fall, interval, limit = swap.drop, swap.drop_interval, self.basis.drop.size
        if swap.gap is not None and swap.gap_interval is not None:
            fall, interval, limit = swap.gap, swap.gap_interval, TOO_WIDE
        # A rise by chance does not make the images more: its interval counts as that of no fall.
        return rounded(interval[1] - min(fall, 0.0)) >= limit

    @property
    def _is_reversed(self) -> bool:
        """Return True if the accuracy is clearly larger on backgrounds of other classes."""
        gap, interval = self.swap.gap, self.swap.gap_interval
        return gap is not None and interval is not None and gap < -self.basis.gap.size and interval[1] < 0


def join(sentences: Sequence[str]) -> str:
    """Join sentences to a text; empty ones are left out."""
    return " ".join(filter(None, sentences))


def _points(share: float) -> str:
    """Format a difference of accuracies: ``0.75`` -> ``"75 points"``."""
    rounded = round(100 * share)
    return f"{rounded} point{'' if abs(rounded) == 1 else 's'}"


def _range(interval: Interval) -> str:
    """Format an interval of differences: ``(0.55, 0.97)`` -> ``"95 % interval 55 to 97"``."""
    low, high = map(_bound, interval)
    return f"95 % interval {low} to {high}"


def _bound(bound: float) -> str:
    """Format a bound: ``0.55`` -> ``"55"``; a tenth if it would be rounded to 0, which decides about a suspicion."""
    rounded = round(100 * bound)
    return f"{rounded}" if rounded or bound <= 0 else f"{max(0.1, 100 * bound):.1f}"
