"""What asking by turns does to the verdict, from the saved answers of the networks of a study.

A network without a sign of a shortcut is asked on one background of each kind per object, and on the others at later
epochs. Here each network is judged both ways: with all of its answers, and with those that the callback would ask for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from saved import ANSWERS, Row, read_saved
from torch import Tensor

from gradcam_callback.measures import Swaps, confirms, has_sign, points_to_background, swap_test
from gradcam_callback.run.interventions import OTHER_CLASS, SAME_CLASS
from gradcam_callback.run.turns import take_turns


@dataclass(frozen=True)
class Judged:
    """A network that is judged both ways at its last epoch.

    Attributes:
        about: kind, correlation, seed, number of images and basis, and the true accuracies.
        gaps: the background gap with all answers, and by turns.
        suspected: the same for the verdict.
        share: of the swaps that the last epoch asks by turns, 0..1.
    """

    about: Row
    gaps: tuple[float, float]
    suspected: tuple[bool, bool]
    share: float


def judge_networks(out: Path, basis: str) -> Iterator[Judged]:
    """Judge every network of a study whose answers were kept, by one basis and by each number of images."""

    def network(row: Row) -> tuple[object, ...]:
        # The number of images may be a text, such as of one background each.
        return row["kind"], row["correlation"], row["seed"], str(row["images"])

    saved = sorted(read_saved(out, basis, ANSWERS), key=lambda row: (*network(row), row["epoch"]))
    for _, (before, last) in groupby(saved, network):
        if not all(entry.get(name, [[]])[0] for entry in (before, last) for name in (SAME_CLASS, OTHER_CLASS)):
            continue  # too few masks for a swap or a control
        all_before, all_last, first = _test(before), _test(last), _test(before, 1)
        n = len(last["labels"])
        # The callback asks all of the next epoch if this epoch has a sign. This one then stands for the one after, too.
        asks_all = has_sign(first[0], 0.0, basis)
        last_by_turns = all_last if asks_all else _test(last, 2)
        yield Judged(
            last,
            (all_last[0], last_by_turns[0]),
            (
                points_to_background(*all_last, basis, n) and confirms(all_before[0], 0.0, basis, n),
                points_to_background(*last_by_turns, basis, n) and asks_all,
            ),
            1.0 if asks_all else _share(last, 2),
        )


def _test(saved: Row, turn: int | None = None) -> tuple[float, float]:
    """Return the gap and the lower bound of its interval, with the answers of one turn, or with all."""
    correct, labels = torch.tensor(saved["correct"]).bool(), torch.tensor(saved["labels"])
    test = swap_test(correct, labels, *_answers(saved[OTHER_CLASS], turn), *_answers(saved[SAME_CLASS], turn))
    assert test.gap is not None and test.gap_interval is not None
    return test.gap, test.gap_interval[0]


def _answers(saved: list[list[int]], turn: int | None) -> tuple[Swaps, Tensor]:
    objects, donors, right = map(torch.tensor, saved)
    asked = _asked(objects, turn)
    return Swaps(objects[asked], donors[asked]), right[asked].bool()


def _asked(objects: Tensor, turn: int | None) -> Tensor:
    ranks, counts = take_turns(objects)
    return torch.ones_like(ranks, dtype=torch.bool) if turn is None else ranks == turn % counts


def _share(saved: Row, turn: int) -> float:
    asked = [_asked(torch.tensor(saved[name][0]), turn) for name in (OTHER_CLASS, SAME_CLASS)]
    return float(torch.cat(asked).double().mean())
