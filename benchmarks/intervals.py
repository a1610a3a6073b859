"""How often the 95 % interval of the background gap holds the true gap, and how often it lies above 0.

    python benchmarks/intervals.py

Networks are simulated. An answer is correct if the sum of three normal numbers is large enough. One is of the object,
one of the background, and one of the answer itself. On backgrounds of other classes, more is needed. The interval of
the package is clustered by object and by background. It is compared with the pigeonhole bootstrap (Owen 2007), which
draws objects and backgrounds separately.
"""

from __future__ import annotations

import itertools
import random

import torch
from torch import Tensor
from torch.distributions import Normal

from gradcam_callback.measures import Swaps, swap_test
from gradcam_callback.measures.interventions import _choose_balanced_pairs, _choose_pairs

SETS, RESAMPLES = 400, 400
# Images of each class, and backgrounds per object of each kind.
PROBES = (((8, 8), 3), ((4, 4, 4, 4), 3), ((2,) * 8, 3), ((60, 4), 3), ((16, 16, 16, 16), 1), ((60, 4), 1))
# What is needed on any background, and how much more on those of other classes.
NEEDED, FALLS = -1.2, (0.0, 1.0)
# The deviations of the objects and of the backgrounds. That of the answer itself is 1.
SPREADS = ((1.0, 0.5), (0.3, 1.5))


def main() -> None:
    print("classes | backgrounds | spreads | true gap | held, width, above 0: clustered | bootstrap")
    for (sizes, n_donors), spreads, fall in itertools.product(PROBES, SPREADS, FALLS):
        chance = torch.Generator().manual_seed(0)
        normal = Normal(0.0, (1 + spreads[0] ** 2 + spreads[1] ** 2) ** 0.5)
        truth = float(normal.cdf(torch.tensor(-NEEDED)) - normal.cdf(torch.tensor(-NEEDED - fall)))
        found: dict[str, list[tuple[float, float]]] = {"clustered": [], "bootstrap": []}
        for number in range(SETS):
            labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
            same, other = choose(labels, n_donors, random.Random(number))
            on_same, on_other = answer(len(labels), spreads, same, other, fall, chance)
            test = swap_test(torch.ones(len(labels)), labels, other, on_other, same, on_same)
            assert test.gap_interval is not None
            found["clustered"].append(test.gap_interval)
            found["bootstrap"].append(bootstrap(len(labels), same, on_same, other, on_other, chance))
        words = "+".join(map(str, sizes)), n_donors, spreads, f"{truth:.2f}"
        print(" | ".join([*map(str, words), *(summary(each, truth) for each in found.values())]), flush=True)


def choose(labels: Tensor, n_donors: int, rng: random.Random) -> tuple[Swaps, Swaps]:
    """Choose backgrounds of the own class and of other classes, as the package does."""
    is_same, n = labels[:, None] == labels, len(labels)
    choose_pairs = _choose_balanced_pairs if n_donors == 1 else _choose_pairs
    is_other_image = ~torch.eye(n, dtype=torch.bool)
    same, other = (
        choose_pairs(labels.tolist(), allowed, [True] * n, n_donors, rng)
        for allowed in (is_same & is_other_image, ~is_same)
    )
    return same, other


def answer(
    n: int, spreads: tuple[float, float], same: Swaps, other: Swaps, fall: float, chance: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return which answers are correct, on backgrounds of the own class and of other classes."""
    of_object, of_ground = (spread * torch.randn(n, generator=chance) for spread in spreads)

    def ask(swaps: Swaps, needed: float) -> Tensor:
        own = torch.randn(len(swaps), generator=chance)
        return of_object[swaps.objects] + of_ground[swaps.donors] + own > needed

    return ask(same, NEEDED), ask(other, NEEDED + fall)


def bootstrap(
    n: int, same: Swaps, on_same: Tensor, other: Swaps, on_other: Tensor, chance: torch.Generator
) -> tuple[float, float]:
    """Return the middle 95 % of the gaps of images that are drawn as objects and as backgrounds."""
    drawn = torch.randint(n, (RESAMPLES, n), generator=chance)
    counts = torch.zeros(RESAMPLES, n).scatter_add_(1, drawn, torch.ones(RESAMPLES, n))
    accuracies = []
    for swaps, correct in ((same, on_same), (other, on_other)):
        belongs = torch.nn.functional.one_hot(swaps.objects, n).float()
        weights = counts[:, swaps.donors]
        accuracies.append((weights * correct) @ belongs / (weights @ belongs))
    fall = accuracies[0] - accuracies[1]
    weights = counts * fall.isfinite()
    gaps = (weights * fall.nan_to_num()).sum(dim=1) / weights.sum(dim=1)
    low, high = gaps[gaps.isfinite()].quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


def summary(intervals: list[tuple[float, float]], truth: float) -> str:
    held = sum(low <= truth <= high for low, high in intervals) / len(intervals)
    width = sum(high - low for low, high in intervals) / len(intervals)
    above = sum(low > 0 for low, _ in intervals) / len(intervals)
    return f"{held:.0%}, {width:.2f}, {above:.0%}"


if __name__ == "__main__":
    main()
