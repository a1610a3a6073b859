"""How often a clean network is accused by chance if it is judged after each of many epochs.

Each object has a difficulty, and so has each pair of an object and a background. The network is right or wrong by
these alone, whatever the class of the background is. Both change from epoch to epoch, so its errors do, too. The
interventions, the turns and the rule are the callback's own.

    python benchmarks/many_epochs.py

docs/panels.md has the result in words.
"""

from __future__ import annotations

import argparse
import math

import torch
from study_report import format_table
from torch import Tensor
from torch.nn.functional import one_hot

from gradcam_callback import ProbeSet
from gradcam_callback.measures import MASKS, SwapTest, points_to_background
from gradcam_callback.run.confirmation import choose_turn, is_confirmed
from gradcam_callback.run.interventions import OTHER_CLASS, SAME_CLASS, Interventions

CLASSES, WATCHED = 4, 16
# Accuracy, similarity of the difficulties of one epoch and the next, images, epochs.
SETTINGS = [
    (0.7, 0.9, 64, 10),
    (0.7, 0.9, 64, 50),
    (0.9, 0.5, 64, 50),
    (0.9, 0.9, 64, 50),
    (0.8, 0.9, 16, 50),
    (0.7, 0.5, 16, 50),
    (0.8, 0.9, 24, 50),
    (0.8, 0.9, 32, 50),
]


def make_probe(n: int) -> ProbeSet:
    """Return a probe set of noise with a square object in each image. Nobody looks at its pixels."""
    masks = torch.zeros(n, 16, 16, dtype=torch.bool)
    masks[:, 5:11, 5:11] = True
    generator = torch.Generator().manual_seed(0)
    probe = ProbeSet(torch.rand(n, 3, 16, 16, generator=generator), torch.arange(n) % CLASSES, masks)
    return probe.watch(WATCHED) if n > WATCHED else probe


def draw_errors(n: int, accuracy: float, similarity: float, epochs: int, seed: int) -> Tensor:
    """Return ``(epochs, n, n)`` bool: if the network is right about an object (row) on a background (column)."""
    generator = torch.Generator().manual_seed(seed)
    ease = torch.empty(0)
    right = []
    for epoch in range(epochs):
        new = torch.randn(n, 1, generator=generator) + torch.randn(n, n, generator=generator)
        ease = similarity * ease + math.sqrt(1 - similarity**2) * new if epoch else new
        right.append(ease > math.sqrt(2) * torch.distributions.Normal(0, 1).icdf(torch.tensor(1 - accuracy)))
    return torch.stack(right)


def is_accused(interventions: Interventions, right: Tensor) -> bool:
    """Return True if a training raises a suspicion at any of its epochs."""
    history: list[dict[str, float]] = []
    in_part: list[bool] = []
    labels, sets = interventions.probe.labels, interventions.counterfactuals
    assert sets is not None  # each object leaves background
    for epoch, answers in enumerate(right):
        turn = choose_turn(history, in_part, MASKS, epoch == len(right) - 1)

        def answer(objects: Tensor, grounds: Tensor, answers: Tensor = answers) -> Tensor:
            wrong = (labels[objects] + 1) % CLASSES
            return one_hot(labels[objects].where(answers[objects, grounds], wrong), CLASSES).double()

        shard: dict[str, list[Tensor]] = {}
        for name in interventions.sets:
            swaps = {SAME_CLASS: sets.same_class, OTHER_CLASS: sets.other_class}.get(name)
            numbers = interventions.numbers_of(name)
            shard[name] = [
                answer(numbers[part], numbers[part] if swaps is None else swaps.donors[part])
                for part in interventions.asked(name, turn)
            ]
        watched = torch.arange(interventions.n_watched)
        found = interventions.compare_with_labels(answer(watched, watched), [shard], turn)
        swap = found.swap
        assert isinstance(swap, SwapTest) and swap.gap is not None and swap.gap_interval is not None
        points = points_to_background(swap.gap, swap.gap_interval[0], MASKS, swap.n_controlled)
        if points and is_confirmed(history, in_part, epoch, MASKS, n=swap.n_controlled):
            return True
        history.append({"epoch": epoch, "step": epoch, **interventions.scalars(found)})
        in_part.append(found.in_part)
    return False


def main() -> None:
    """Simulate all settings, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="trainings of each setting")
    runs = parser.parse_args().runs
    rows = []
    for accuracy, similarity, n, epochs in SETTINGS:
        interventions = Interventions(make_probe(n), seed=0)
        accused = sum(
            is_accused(interventions, draw_errors(n, accuracy, similarity, epochs, seed)) for seed in range(runs)
        )
        rows.append([n, f"{accuracy:.0%}", similarity, epochs, f"{accused} of {runs}"])
    print(format_table(["images", "accuracy", "similarity of epochs", "epochs", "accused"], rows))


if __name__ == "__main__":
    main()
