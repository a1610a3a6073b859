"""Choose which counterfactual images a validation asks: a part of each set by turns, or everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# Three turns ask everything.
N_TURNS = 3


@dataclass(frozen=True)
class Turn:
    """A part of the interventions.

    Attributes:
        number: of the turn, from 0. Each object is put on the next of its backgrounds.
        thorough: True asks most: at the first entry, at the last one, and when an entry follows a sign of a shortcut.
            False asks the least.
    """

    number: int
    thorough: bool = False


@dataclass(frozen=True)
class Schedule:
    """The turns at which the images of a set are asked.

    Attributes:
        numbers: ``(n,)``, the number of the probe image that each image stands for.
        ranks: ``(n,)``, the turn at which it is asked.
        counts: ``(n,)``, the number of turns after which it is asked again.
        thorough_turns: a thorough turn asks the images of so many turns.
    """

    numbers: Tensor
    ranks: Tensor
    counts: Tensor
    thorough_turns: int = N_TURNS

    @classmethod
    def of_swaps(cls, objects: Tensor, thorough_turns: int) -> Schedule:
        """Return the schedule of swaps, of which those of one object take turns.

        Args:
            objects: ``(n,)``, the number of the object of each swap.
            thorough_turns: a thorough turn asks so many backgrounds of each object.
        """
        return cls(objects, *take_turns(objects), thorough_turns)

    @classmethod
    def of_thirds(cls, numbers: Tensor, labels: Tensor) -> Schedule:
        """Return the schedule of a set of which every third image of each class is asked.

        A turn of one class only would tell of this class, whatever the order of the images is.

        Args:
            numbers: ``(n,)``, of the images.
            labels: ``(n,)``, their classes.
        """
        ranks = torch.empty_like(numbers)
        ranks[labels.argsort(stable=True)] = torch.arange(len(numbers)) % N_TURNS
        return cls(numbers, ranks, torch.full_like(numbers, N_TURNS))

    @classmethod
    def of_every_turn(cls, numbers: Tensor) -> Schedule:
        """Return the schedule of a set whose images are all asked at every turn."""
        return cls(numbers, torch.zeros_like(numbers), torch.ones_like(numbers))


@dataclass(frozen=True)
class Turns:
    """The turns of all sets of a run.

    Attributes:
        schedules: set -> when its images are asked.
        n_watched: images with numbers below are watched. A quick turn asks about these only.
        always_thorough: True if every turn asks as a thorough one does.
    """

    schedules: Mapping[str, Schedule]
    n_watched: int
    always_thorough: bool

    def is_partial(self, turn: Turn | None) -> bool:
        """Return True if another turn would ask more, since this one has no sign; None asks everything."""
        return turn is not None and not turn.thorough and not self.always_thorough

    def asked(self, name: str, turn: Turn | None) -> list[Tensor]:
        """Return the parts of a set that are asked: each ``(n,)``, places in the set.

        Args:
            name: of the set.
            turn: None asks everything.
        """
        of = self.schedules[name]
        is_watched = of.numbers < self.n_watched
        # Watched objects are parts of their own, as with a turn that asks the least.
        groups = [is_watched] if self.is_partial(turn) else [is_watched, ~is_watched]
        first = 0 if turn is None else turn.number
        n_turns = N_TURNS if turn is None else 1 if self.is_partial(turn) else of.thorough_turns
        longest = int(of.counts.max()) if len(of.counts) else 1
        # An object with fewer backgrounds is asked on the same one more often, but never twice at once.
        parts = [(of.ranks == (first + i) % of.counts) & (i < of.counts) for i in range(min(n_turns, longest))]
        return [(part & group).nonzero()[:, 0] for part in parts for group in groups]


def take_turns(objects: Tensor) -> tuple[Tensor, Tensor]:
    """Return the turn at which each swap is asked, and the number of turns after which it is again: each ``(S,)``.

    Args:
        objects: ``(S,)``, the object of each swap. Its swaps take turns.
    """
    is_same = objects[:, None] == objects
    return is_same.tril(-1).sum(dim=1), is_same.sum(dim=1)
