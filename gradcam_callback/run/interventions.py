"""Ask a network about the counterfactual images of a probe set, and compare its answers with the labels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradcam_callback.exceptions import GradCAMWarning
from gradcam_callback.formatting import name_some, percent
from gradcam_callback.maps import agreement_by_chance, is_correct, predicted_class
from gradcam_callback.measures import (
    AUTOMATIC_MASKS,
    BOXES,
    FRAME,
    LARGEST_OBJECT,
    MASKS,
    Counterfactuals,
    Swaps,
    SwapTest,
    centre_masks,
    mask_area,
    swap_test,
)
from gradcam_callback.probes import ProbeSet, make_unique
from gradcam_callback.run import tags
from gradcam_callback.run.tags import join, name_by_class
from gradcam_callback.run.turns import N_TURNS, Schedule, Turn, Turns

# The sets of images, in the order in which they are drawn. A frame test has the first two.
SAME_CLASS, OTHER_CLASS, BACKGROUND, FOREGROUND = SETS = ("same_class", "other_class", "background", "foreground")
# The unchanged images of the verdict set that are not watched. The watched ones are asked while their maps are made.
UNCHANGED = "unchanged"

# With fewer images than this, all are asked at every turn.
FEW = 6

# With a verdict set, a thorough turn asks so many swaps of one kind, but at least one per object. 48 are those of 16
# objects on three backgrounds.
_SWAPS = 48

# The counterfactual images that are made at once.
_AT_ONCE = 32

# Takes images (n, C, H, W) and, for each of them, the number (n,) of the probe image that it stands for. Returns logits
# (n, K) on the CPU.
Predict = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Answers:
    """The answers of a network to the images of the interventions.

    Attributes:
        places: set -> ``(n,)`` int64, which images of the set were asked, in ascending order.
        logits: set -> ``(n, K)``.
        correct: set -> ``(n,)``, 1 if the prediction is the label of the object, else 0; NaN for no answer.
        accuracy: on the unchanged images that take part, 0..1; NaN if some answers are none.
        counted: how many images this accuracy is of, and how many there are.
        guessing: how often predictions like these, of these classes, would be right by chance, 0..1.
        swap: the swap test, or the reason why there is none.
        basis: what tells the object from the background.
        n_all: the number of images that take part.
        n_asked: the number of these whose unchanged image was asked.
        in_part: True if a quick turn asked, so that another turn would ask more.
    """

    places: dict[str, Tensor]
    logits: dict[str, Tensor]
    correct: dict[str, Tensor]
    accuracy: float
    counted: tuple[int, int]
    guessing: float
    swap: SwapTest | str
    basis: str
    n_all: int
    n_asked: int
    in_part: bool


class Interventions:
    """The counterfactual images of a probe set. They are made once, and stay the same over a run.

    With masks, each object is put on other backgrounds. Images whose object fills too much take no part, and are named
    in a warning. Too little background is left to paint the object out, and on another background the image would
    hardly change.

    Without masks, the centre of each image is kept, and the frame around it is that of another image. This frame test
    is blind to cues in the centre, and to cues of the whole image such as a tint. It takes an object that reaches the
    frame for a part of it.

    All images together cost more than the maps do. So the sets can be asked by turns, see `gradcam_callback.run.turns`.
    A turn asks one background of each kind per object, and every third image without its object or alone. If all images
    are watched, a thorough turn asks everything.

    The whole verdict set takes part (see `ProbeSet.watch`). If it has more images than are watched, a thorough turn
    asks about all objects, on one background of each kind. More objects narrow an interval further than more
    backgrounds do, and two epochs in a row see different backgrounds. A quick turn asks about the watched
    objects only. Only these are painted out or shown alone.

    Args:
        probe: a probe set with labels.
        seed: chooses the backgrounds, or frames, that objects are put on.
        by_class: True adds the swap accuracy of each class to the scalars.

    Attributes:
        probe: the verdict set of the probe set. All numbers are of its images.
        n_watched: so many of its first images are watched, that is, have maps.
        basis: what tells the object from the background: a key of `gradcam_callback.measures.basis.BASES`.
        sets: the names of the sets of images, some of `SETS`.
        numbers: ``(M,)``, the numbers of the images that take part, in ascending order.
        counterfactuals: of the images that take part; None if there are none.
    """

    def __init__(self, probe: ProbeSet, seed: int, by_class: bool = False) -> None:
        self.n_watched = len(probe)
        self._by_class = by_class
        self.probe = probe = probe.verdict_set
        self.sets = SETS if probe.masks is not None else (SAME_CLASS, OTHER_CLASS)
        if len(probe) > self.n_watched:
            self.sets = (UNCHANGED, *self.sets)
        masks = centre_masks(probe.images) if probe.masks is None else probe.masks
        self.numbers = torch.arange(len(probe)) if probe.masks is None else self._choose(probe.masks)
        self.basis = _basis_of(probe, self.numbers)
        self._labels, self._class_tags = probe.labels[self.numbers], tag_classes(probe)
        self.counterfactuals: Counterfactuals | None = None
        if len(self.numbers):
            # A choice would be a copy, which is not needed if all take part.
            images = probe.images if len(self.numbers) == len(probe) else probe.images[self.numbers]
            self.counterfactuals = Counterfactuals(
                images,
                self._labels,
                masks[self.numbers],
                seed=seed,
                present=None if probe.present is None else probe.present[self.numbers],
                paint=probe.masks is not None,
                balanced=len(probe) > self.n_watched,
            )
        self._turns = self._make_turns()

    def _choose(self, masks: Tensor) -> Tensor:
        """Return the numbers of the probe images whose object leaves enough background, and warn of the others."""
        probe = self.probe
        fits = mask_area(masks) <= LARGEST_OBJECT
        left_out = [probe.sources[i] for i in (probe.has_mask & ~fits).nonzero()[:, 0].tolist()]
        if left_out:
            warnings.warn(
                f"GradCAM: these probe images take no part in the swap test, since their objects fill more than "
                f"{percent(LARGEST_OBJECT)} of the image: {name_some(left_out)}. Choose images that show more "
                "background.",
                GradCAMWarning,
                stacklevel=2,
            )
        return (probe.has_mask & fits).nonzero()[:, 0]

    def _make_turns(self) -> Turns:
        """Return what is asked when. If there are many objects, a thorough turn asks few backgrounds of each."""
        thorough_turns = (
            max(1, min(N_TURNS, _SWAPS // max(1, len(self.numbers)))) if UNCHANGED in self.sets else N_TURNS
        )
        schedules = {}
        for name in self.sets:
            numbers = self.numbers_of(name)
            if name == UNCHANGED:
                schedules[name] = Schedule.of_every_turn(numbers)
            elif name in (BACKGROUND, FOREGROUND):
                schedules[name] = Schedule.of_thirds(numbers, self._labels[self._is_watched])
            else:
                schedules[name] = Schedule.of_swaps(numbers, thorough_turns)
        watched = self._labels[self._is_watched]
        # The scalars of a class are to be there at every turn, so that something may wait for them.
        loses_scalars = self._by_class and set(watched.tolist()) != set(self._labels.tolist())
        # A quick turn on one class alone would say nothing of the others.
        always_thorough = len(watched) < FEW or len(watched.unique()) < 2 or loses_scalars
        return Turns(schedules, self.n_watched, always_thorough)

    @property
    def _is_watched(self) -> Tensor:
        return self.numbers < self.n_watched

    def numbers_of(self, name: str) -> Tensor:
        """Return ``(n,)``, the number of the image whose object, or whose background, each image of a set shows.

        Args:
            name: one of `SETS`, or `UNCHANGED`.
        """
        if name == UNCHANGED:
            return self.numbers[~self._is_watched]
        if self.counterfactuals is None or name in (BACKGROUND, FOREGROUND):
            return self.numbers[self._is_watched]
        return self.numbers[_swaps_of(self.counterfactuals, name).objects]

    def asked(self, name: str, turn: Turn | None) -> list[Tensor]:
        """Return the parts of a set that are asked: each ``(n,)``, places in the set.

        Args:
            name: one of `SETS`, or `UNCHANGED`.
            turn: None asks everything.
        """
        return self._turns.asked(name, turn)

    def images_of(self, name: str, places: Tensor | None = None) -> Tensor:
        """Return some images of a set: ``(n, C, H, W)``, as the model takes them.

        Args:
            name: one of `SETS`, or `UNCHANGED`.
            places: ``(n,)``, which of them; None returns all.
        """
        counterfactuals = self.counterfactuals
        assert counterfactuals is not None  # without images nobody asks for some
        places = torch.arange(len(self.numbers_of(name))) if places is None else places
        if name == UNCHANGED:
            return self.probe.images[self.numbers_of(name)[places]]
        if name in (BACKGROUND, FOREGROUND):
            places = self._is_watched.nonzero()[:, 0][places]
            return counterfactuals.remove(places) if name == BACKGROUND else counterfactuals.isolate(places)
        return counterfactuals.paste(_swaps_of(counterfactuals, name)[places])

    def ask(
        self, predict: Predict, rank: int = 0, world_size: int = 1, turn: Turn | None = None
    ) -> dict[str, list[Tensor]]:
        """Ask the network about this process's share of each part.

        Args:
            predict: runs the network.
            rank: of this process.
            world_size: the number of processes.
            turn: as in `asked`.

        Returns:
            Set -> the logits ``(n, K)`` of each part that is asked. With more processes than images, some are empty.
        """
        logits: dict[str, list[Tensor]] = {}
        for name in self.sets:
            numbers = self.numbers_of(name)
            # Part by part at every turn, so that the same images meet in a chunk and the outputs of a frozen base can
            # be used again. The shares of the processes differ by one image at most.
            shares = [part.tensor_split(world_size)[rank] for part in self.asked(name, turn)]
            logits[name] = [
                torch.cat([predict(self.images_of(name, some), numbers[some]) for some in own.split(_AT_ONCE)])
                if len(own)
                else torch.empty(0, 0)
                for own in shares
            ]
        return logits

    def compare_with_labels(
        self, watched: Tensor, shards: Sequence[Mapping[str, list[Tensor]]], turn: Turn | None = None
    ) -> Answers:
        """Compare the answers with the labels.

        Args:
            watched: ``(N, K)``, the logits of the watched images.
            shards: the logits of all processes by rank, as `ask` returns them.
            turn: of `ask`.
        """
        probe = self.probe
        places, logits, correct = {}, {}, {}
        for name in self.sets:
            places[name], logits[name] = self._gather(name, [shard[name] for shard in shards], turn)
            labels = probe.labels[self.numbers_of(name)[places[name]]]
            correct[name] = is_correct(logits[name], labels, probe.multi_label)
        unchanged = self._unchanged_logits(watched, places, logits)
        unchanged_correct = is_correct(unchanged, probe.labels, probe.multi_label)
        taking_part = self.numbers if len(self.numbers) else probe.has_mask.nonzero()[:, 0]
        asked = taking_part[unchanged_correct[taking_part].isfinite()]
        # If none of these has an answer, the others are better than nothing.
        counted = asked if len(asked) else unchanged_correct.isfinite().nonzero()[:, 0]
        needed = torch.cat([unchanged_correct[self.numbers[self._is_watched]], *correct.values()])
        lost = int(needed.isnan().sum())
        return Answers(
            places=places,
            logits=logits,
            correct=correct,
            # Accuracies of the others alone would be those of chosen images.
            accuracy=math.nan if lost else mean(unchanged_correct[counted]),
            counted=(len(counted), len(probe)),
            guessing=agreement_by_chance(probe.labels[counted], predicted_class(unchanged[counted])),
            swap=_say_lost(lost, len(needed)) if lost else self._test(unchanged_correct, places, correct),
            basis=self.basis,
            n_all=len(self.numbers),
            n_asked=len(asked),
            in_part=self._turns.is_partial(turn),
        )

    def _gather(self, name: str, shards: Sequence[Sequence[Tensor]], turn: Turn | None) -> tuple[Tensor, Tensor]:
        """Return the places ``(n,)`` in a set that were asked, in ascending order, and their logits ``(n, K)``.

        Args:
            name: of the set.
            shards: by rank, the logits of each part that was asked.
            turn: of `ask`.
        """
        parts = self.asked(name, turn)
        logits = [each for part in zip(*shards, strict=True) for each in part if len(each)]
        if not logits:
            return torch.empty(0, dtype=torch.long), torch.empty(0, 1)
        places, order = torch.cat(parts).sort()
        return places, torch.cat(logits)[order]

    def _unchanged_logits(self, watched: Tensor, places: Mapping[str, Tensor], logits: Mapping[str, Tensor]) -> Tensor:
        """Return ``(V, K)``, the logits of the verdict set as it is; NaN for an image that was not asked."""
        unchanged = watched.new_full((len(self.probe), watched.shape[1]), math.nan)
        unchanged[: self.n_watched] = watched
        if UNCHANGED in self.sets and len(places[UNCHANGED]):
            unchanged[self.numbers_of(UNCHANGED)[places[UNCHANGED]]] = logits[UNCHANGED]
        return unchanged

    def _test(
        self, unchanged_correct: Tensor, places: Mapping[str, Tensor], correct: Mapping[str, Tensor]
    ) -> SwapTest | str:
        """Return the swap test, or the reason why there is none.

        Args:
            unchanged_correct: ``(V,)``, 1 if the prediction on an image of the verdict set is correct, else 0; NaN for
                an image that was not asked.
            places: as in `Answers`.
            correct: as in `Answers`.
        """
        counterfactuals = self.counterfactuals
        if counterfactuals is None:
            return (
                f"All objects fill more than {percent(LARGEST_OBJECT)} of their image, so too little background is "
                "left to put other objects on. Choose probe images that show more of it."
            )
        if not len(counterfactuals.other_class):
            return self._say_why_no_swap()
        return swap_test(
            unchanged_correct[self.numbers],
            self._labels,
            counterfactuals.other_class[places[OTHER_CLASS]],
            correct[OTHER_CLASS],
            counterfactuals.same_class[places[SAME_CLASS]],
            correct[SAME_CLASS],
            counterfactuals.photographs,
        )

    def _say_why_no_swap(self) -> str:
        probe, of = self.probe, int(self._labels[0])
        no_swap = "so no object could be put on another class's background"
        if len(self._labels.unique()) > 1:
            return f"Each image holds the classes of all objects, {no_swap}. Add images without some of these classes."
        others = probe.labels != of
        if not others.any():
            return f"The objects are all of one class, {no_swap}. Choose probe images of several classes."
        name = self._class_tags[of]
        if probe.has_mask[others].any():
            return (
                f"Only objects of the class {name!r} leave enough background, {no_swap}. Choose images of other "
                "classes that show more background."
            )
        return (
            f"Only images of the class {name!r} have a mask, {no_swap}. Give masks to images of other classes. If "
            "these show no object, leave all masks out: the frame test needs none."
        )

    def scalar_names(self) -> list[str]:
        """Return the name of every scalar that the answers may have."""
        counterfactuals = self.counterfactuals
        if counterfactuals is None:
            return []
        frame = self.basis == FRAME
        names = [] if frame else [tags.BACKGROUND_ACCURACY, tags.FOREGROUND_ACCURACY]
        if len(counterfactuals.other_class):
            names += (tags.FRAME_ACCURACY, tags.FRAME_DROP) if frame else tags.SWAP_SCALARS
            if len(counterfactuals.same_class):
                names += [tags.FRAME_CONTROL_ACCURACY, *tags.FRAME_GAPS] if frame else tags.CONTROL_SCALARS
            if self._by_class:
                names += [self._of_class(label) for label in sorted(set(self._labels.tolist()))]
        return names

    def scalars(self, answers: Answers) -> dict[str, float]:
        """Return the accuracies of one validation under their names."""
        if self.counterfactuals is None:
            return {}
        scalars: dict[str, float | None] = {}
        if self.basis != FRAME:
            scalars[tags.BACKGROUND_ACCURACY] = mean(answers.correct[BACKGROUND])
            scalars[tags.FOREGROUND_ACCURACY] = mean(answers.correct[FOREGROUND])
        if not isinstance(answers.swap, str):
            scalars |= self._swap_scalars(answers.swap)
            if self._by_class:
                scalars |= self._swap_by_class(answers)
        return {name: value for name, value in scalars.items() if value is not None}

    def _swap_scalars(self, swap: SwapTest) -> dict[str, float | None]:
        """Return the accuracies of a swap test; None without a control."""
        low, high = swap.gap_interval or (None, None)
        if self.basis == FRAME:
            return {
                tags.FRAME_ACCURACY: swap.swap_accuracy,
                tags.FRAME_DROP: swap.drop,
                tags.FRAME_CONTROL_ACCURACY: swap.control_accuracy,
                tags.FRAME_GAP: swap.gap,
                tags.FRAME_GAP_LOW: low,
                tags.FRAME_GAP_HIGH: high,
            }
        return {
            tags.SWAP_ACCURACY: swap.swap_accuracy,
            tags.SWAP_ACCURACY_LOW: swap.swap_interval[0],
            tags.SWAP_ACCURACY_HIGH: swap.swap_interval[1],
            tags.SWAP_DROP: swap.drop,
            tags.SWAP_CONTROL_ACCURACY: swap.control_accuracy,
            tags.BACKGROUND_GAP: swap.gap,
            tags.BACKGROUND_GAP_LOW: low,
            tags.BACKGROUND_GAP_HIGH: high,
            tags.PASTING_COST: swap.pasting_cost,
        }

    def _swap_by_class(self, answers: Answers) -> dict[str, float]:
        labels = self.probe.labels[self.numbers_of(OTHER_CLASS)[answers.places[OTHER_CLASS]]]
        correct = answers.correct[OTHER_CLASS]
        return {self._of_class(label): mean(correct[labels == label]) for label in sorted(set(labels.tolist()))}

    def _of_class(self, label: int) -> str:
        name = tags.FRAME_ACCURACY if self.basis == FRAME else tags.SWAP_ACCURACY
        return join(name_by_class(name), self._class_tags[label])


def tag_classes(probe: ProbeSet) -> dict[int, str]:
    """Return what each class is called in tags: its name, with a number if several classes have the same name."""
    labels = sorted({*range(len(probe.class_names or [])), *probe.verdict_set.labels.tolist()})
    return dict(zip(labels, make_unique([probe.class_name(label) for label in labels]), strict=True))


def _swaps_of(counterfactuals: Counterfactuals, name: str) -> Swaps:
    """Return the swaps of the set ``"same_class"`` or ``"other_class"``."""
    return counterfactuals.same_class if name == SAME_CLASS else counterfactuals.other_class


def _basis_of(probe: ProbeSet, numbers: Tensor) -> str:
    """Return what tells the objects of the images with these numbers from the background."""
    if probe.masks is None:
        return FRAME
    proposals, taking_part = probe.proposals or {}, set(numbers.tolist())
    if any(i in taking_part and found.doubt is None for i, found in proposals.items()):
        return AUTOMATIC_MASKS
    return BOXES if probe.box_masks[numbers].any() else MASKS


def _say_lost(lost: int, asked: int) -> str:
    return (
        f"The outputs of the network are NaN or infinite for {lost} of the {asked} images that were asked, so these "
        "have no answer. If the loss is NaN, too, lower the learning rate."
    )


def mean(values: Tensor) -> float:
    """Return the mean of numbers; NaN of none, and if one of them is NaN."""
    return float(values.double().mean())
