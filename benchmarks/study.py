"""The study: how often the verdict is correct, on many networks that are fine-tuned on six kinds of shortcut.

    python benchmarks/study.py train|evaluate|report|all [--out runs/study] [--docs docs]

Every network is the pretrained VGG16 with a fresh head. Blocks 1 to 3 are frozen. The true loss is the accuracy on
validation data, which are biased like the training data, less the accuracy on data whose cue always points to another
class. A part that was stopped continues at the same place.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import biased
import torch
from pretrained import VGG16, for_finetuning
from study_report import RESULT, write_report
from torch import Tensor, nn
from torch.nn import functional
from toys import CLASSES

from gradcam_callback import GradCAM, ProbeSet
from gradcam_callback.measures import border_mass, centre_distance, metrics
from gradcam_callback.run import Evaluation, Evaluator

CORRELATIONS = (0.0, 0.5, 0.8, 0.9, 0.95, 1.0)
SEEDS = (1, 2)
# The true loss needs many images: with 720 images a loss of 15 points is known to within 3 points.
EPOCHS, TRAINED_ON, TESTED_ON, BATCH = 4, 360, 720, 24
PROBES = (64, 16)
LAYERS = ["block3_conv3", "block4_conv3", "block5_conv1", "block5_conv2", "block5_conv3"]
# The number of feature modules in blocks 1 to 3.
FROZEN = 17


@dataclass(frozen=True)
class Run:
    """A network of the study.

    Attributes:
        kind: of shortcut, a key of `biased.KINDS`.
        correlation: of the cue with the class, 0..1.
        seed: of the images and of the training.
    """

    kind: str
    correlation: float
    seed: int

    @property
    def name(self) -> str:
        """Return the name of the folder of the network."""
        return f"{self.kind}-{self.correlation}-{self.seed}"

    def images(self, what: str, count: int, conflicting: bool = False) -> biased.Images:
        """Make the training, validation or conflicting images; each seed has other images."""
        seed = 1000 * self.seed + ("training", "validation", "conflicting").index(what)
        return biased.make(self.kind, count, self.correlation, seed, conflicting=conflicting)


def all_runs() -> Iterator[Run]:
    """Yield every network of the study."""
    # Seeds are the outermost loop, so that half a study still has every kind and correlation.
    for seed, correlation, kind in product(SEEDS, CORRELATIONS, biased.KINDS):
        yield Run(kind, correlation, seed)


def train(run: Run, folder: Path) -> None:
    """Fine-tune a network, and save its trained modules before the first epoch (``0.pt``) and after each epoch."""
    torch.manual_seed(run.seed)
    network = for_finetuning("demo", len(CLASSES)).to(memory_format=torch.channels_last)
    data = run.images("training", TRAINED_ON)
    frozen, tail = split(network)
    folder.mkdir(parents=True, exist_ok=True)
    save(tail, folder / "0.pt")
    for epoch in fit(tail, features_of(network, frozen, data.images), data.labels, EPOCHS, run.seed):
        save(tail, folder / f"{epoch}.pt")


def fit(tail: nn.Sequential, features: Tensor, labels: Tensor, epochs: int, seed: int) -> Iterator[int]:
    """Fine-tune modules whose last one is a fresh head. The number of each epoch is yielded after the epoch."""
    convolutions = list(tail[:-1].parameters())
    optimizer = torch.optim.AdamW([{"params": convolutions, "lr": 1e-4}, {"params": tail[-1].parameters(), "lr": 1e-3}])
    order = torch.Generator().manual_seed(seed)
    for epoch in range(1, epochs + 1):
        for batch in torch.randperm(len(labels), generator=order).split(BATCH):
            loss = functional.cross_entropy(tail(features[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield epoch


def split(network: VGG16, frozen: int = FROZEN) -> tuple[nn.Sequential, nn.Sequential]:
    """Split a network into its frozen feature modules, and its trained modules with the head."""
    modules = list(network.features.children())
    return nn.Sequential(*modules[:frozen]), nn.Sequential(*modules[frozen:], network.classifier)


@torch.no_grad()
def features_of(network: VGG16, frozen: nn.Module, images: Tensor) -> Tensor:
    """Return the output of the frozen modules, which is the same in every epoch."""
    return torch.cat([frozen((chunk - network.mean) / network.std) for chunk in images.split(120)])


@torch.no_grad()
def accuracy(tail: nn.Module, features: Tensor, labels: Tensor) -> float:
    """Return the accuracy, 0..1, of the trained modules on the output of the frozen ones."""
    predicted = torch.cat([tail(chunk).argmax(dim=1) for chunk in features.split(120)])
    return float((predicted == labels).double().mean())


def save(tail: nn.Module, path: Path) -> None:
    """Save the trained modules in half precision. The evaluation reads the same file."""
    half = {name: value.half() for name, value in tail.state_dict().items()}
    partial = path.with_suffix(".partial")
    torch.save(half, partial)
    partial.rename(path)


def load(network: VGG16, path: Path, frozen: int = FROZEN) -> None:
    """Load the trained modules into a network."""
    split(network, frozen)[1].load_state_dict(torch.load(path, weights_only=True))


def train_all(out: Path) -> None:
    """Train every network that is not trained yet."""
    for run in all_runs():
        folder = out / run.name
        if not (folder / f"{EPOCHS}.pt").exists():
            start = time.perf_counter()
            train(run, folder)
            print(f"trained {run.name} in {time.perf_counter() - start:.0f} s", flush=True)


def evaluate(run: Run, folder: Path) -> list[dict[str, Any]]:
    """Return the metrics of the callback at each epoch, on 64 and on 16 probe images, and the true accuracies."""
    network = for_finetuning("demo", len(CLASSES)).to(memory_format=torch.channels_last)
    frozen, tail = split(network)
    frozen.requires_grad_(False)
    validation = run.images("validation", TESTED_ON)
    conflicting = run.images("conflicting", TESTED_ON, conflicting=True)
    truth = {
        name: (features_of(network, frozen, data.images), data.labels)
        for name, data in (("validation", validation), ("conflicting", conflicting))
    }
    evaluators = {}
    for count in PROBES:
        probe = ProbeSet(validation.images[:count], validation.labels[:count], validation.masks[:count])
        evaluators[count] = Evaluator(GradCAM(network, LAYERS), probe)
    rows: list[dict[str, Any]] = []
    previous: dict[int, dict[str, Tensor]] = {}
    for epoch in range(EPOCHS + 1):
        load(network, folder / f"{epoch}.pt")
        accuracies = {name: accuracy(tail, features, labels) for name, (features, labels) in truth.items()}
        for count, evaluator in evaluators.items():
            evaluation = evaluator.evaluate(previous.get(count))
            previous[count] = evaluation.cams.maps
            rows.append({**asdict(run), "epoch": epoch, "images": count, **accuracies, **scalars_of(evaluation)})
    return rows


def scalars_of(evaluation: Evaluation) -> dict[str, float]:
    """Return the scalars of an evaluation, and for all layers the two that the callback logs without masks only."""
    scalars = {name: value for name, value in evaluation.scalars.items() if "by_class" not in name}
    for layer, maps in evaluation.cams.maps.items():
        scalars[f"border_mass/{layer}"] = metrics.mean_of_defined(border_mass(maps))
        scalars[f"centre_distance/{layer}"] = metrics.mean_of_defined(centre_distance(maps))
    # A metric is undefined if all maps of its layer are empty.
    return {name: value for name, value in scalars.items() if not math.isnan(value)}


def evaluate_all(out: Path) -> None:
    """Evaluate every trained network that is not evaluated yet."""
    for run in all_runs():
        folder = out / run.name
        if (folder / f"{EPOCHS}.pt").exists() and not (folder / RESULT).exists():
            start = time.perf_counter()
            rows = evaluate(run, folder)
            partial = (folder / RESULT).with_suffix(".partial")
            partial.write_text(json.dumps(rows))
            partial.rename(folder / RESULT)
            last = rows[-1]
            print(
                f"{run.name}: validation {last['validation']:.2f}, conflicting {last['conflicting']:.2f}, swapped "
                f"{last['swap_accuracy']:.2f}; {time.perf_counter() - start:.0f} s",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("train", "evaluate", "report", "all"))
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_args()
    if args.part in ("train", "all"):
        train_all(args.out)
    if args.part in ("evaluate", "all"):
        evaluate_all(args.out)
    if args.part in ("report", "all"):
        write_report(args.out, args.docs)


if __name__ == "__main__":
    main()
