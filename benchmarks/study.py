"""How often the verdict is right: many networks fine-tuned on six kinds of shortcut, and what is said of each.

    python benchmarks/study.py train|look|report|all [--out runs/study] [--docs docs]

Every network is the pretrained VGG16 with a fresh head, its blocks 1 to 3 frozen. Truth is the drop from its accuracy
on validation data, biased like its training data, to that on data whose cue always points to another class. Each part
goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import biased
import torch
from pretrained import VGG16, for_finetuning
from study_report import write_report
from torch import Tensor, nn
from torch.nn import functional
from toys import CLASSES

from gradcam_callback import GradCAM, ProbeSet
from gradcam_callback.measures.metrics import border_mass, centre_distance, mean_of_defined
from gradcam_callback.run.evaluate import Evaluator

CORRELATIONS = (0.0, 0.5, 0.8, 0.9, 0.95, 1.0)
SEEDS = (1, 2)
# The truth needs many images: of 720, a loss of 15 points is known to within 3.
EPOCHS, TRAINED_ON, TESTED_ON, BATCH = 4, 360, 720, 24
PROBES = (64, 16)
LAYERS = ["block3_conv3", "block4_conv3", "block5_conv1", "block5_conv2", "block5_conv3"]
FROZEN = 17  # the feature modules of blocks 1 to 3


@dataclass(frozen=True)
class Run:
    """One network of the study."""

    kind: str
    correlation: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.correlation}-{self.seed}"

    def images(self, what: str, count: int, conflicting: bool = False) -> biased.Images:
        """Training, validation or conflicting images, different ones for each seed."""
        seed = 1000 * self.seed + ("training", "validation", "conflicting").index(what)
        return biased.make(self.kind, count, self.correlation, seed, conflicting=conflicting)


def all_runs() -> Iterator[Run]:
    # Seeds outermost, so that a study that is stopped half way still holds every kind and correlation.
    for seed, correlation, kind in product(SEEDS, CORRELATIONS, biased.KINDS):
        yield Run(kind, correlation, seed)


def train(run: Run, folder: Path) -> None:
    """Fine-tune a network, and keep what was trained of it after each epoch, ``0.pt`` being before the first."""
    torch.manual_seed(run.seed)
    network = for_finetuning("demo", len(CLASSES)).to(memory_format=torch.channels_last)
    data = run.images("training", TRAINED_ON)
    frozen, tail = split(network)
    features = features_of(network, frozen, data.images)
    convolutions = list(tail[:-1].parameters())
    optimizer = torch.optim.AdamW(
        [{"params": convolutions, "lr": 1e-4}, {"params": network.classifier.parameters(), "lr": 1e-3}]
    )
    folder.mkdir(parents=True, exist_ok=True)
    save(tail, folder / "0.pt")
    order = torch.Generator().manual_seed(run.seed)
    for epoch in range(1, EPOCHS + 1):
        for batch in torch.randperm(TRAINED_ON, generator=order).split(BATCH):
            with torch.autocast("cpu", torch.bfloat16):
                logits = tail(features[batch])
            loss = functional.cross_entropy(logits.float(), data.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        save(tail, folder / f"{epoch}.pt")


def split(network: VGG16) -> tuple[nn.Sequential, nn.Sequential]:
    """The frozen modules, and the trained ones with the head."""
    modules = list(network.features.children())
    return nn.Sequential(*modules[:FROZEN]), nn.Sequential(*modules[FROZEN:], network.classifier)


@torch.no_grad()
def features_of(network: VGG16, frozen: nn.Module, images: Tensor) -> Tensor:
    """What the frozen modules make of images: the same in every epoch."""
    return torch.cat([frozen((chunk - network.mean) / network.std) for chunk in images.split(120)])


@torch.no_grad()
def accuracy(tail: nn.Module, features: Tensor, labels: Tensor) -> float:
    with torch.autocast("cpu", torch.bfloat16):
        predicted = torch.cat([tail(chunk).argmax(dim=1) for chunk in features.split(120)])
    return float((predicted == labels).double().mean())


def save(tail: nn.Module, path: Path) -> None:
    """In half precision: what is looked at later is what was saved."""
    half = {name: value.half() for name, value in tail.state_dict().items()}
    partial = path.with_suffix(".partial")
    torch.save(half, partial)
    partial.rename(path)


def load(network: VGG16, path: Path) -> None:
    split(network)[1].load_state_dict(torch.load(path, weights_only=True))


def train_all(out: Path) -> None:
    for run in all_runs():
        folder = out / run.name
        if not (folder / f"{EPOCHS}.pt").exists():
            start = time.perf_counter()
            train(run, folder)
            print(f"trained {run.name} in {time.perf_counter() - start:.0f} s", flush=True)


def look(run: Run, folder: Path) -> list[dict[str, Any]]:
    """The callback's figures of a network at each epoch, on 64 probe images and on 16, and what is true of it."""
    network = for_finetuning("demo", len(CLASSES)).to(memory_format=torch.channels_last)
    frozen, tail = split(network)
    frozen.requires_grad_(False)
    validation = run.images("validation", TESTED_ON)
    conflicting = run.images("conflicting", TESTED_ON, conflicting=True)
    truth = {
        name: (features_of(network, frozen, data.images), data.labels)
        for name, data in (("validation", validation), ("conflicting", conflicting))
    }
    observers = {}
    for count in PROBES:
        probe = ProbeSet(validation.images[:count], validation.labels[:count], validation.masks[:count])
        observers[count] = Evaluator(GradCAM(network, LAYERS, precision="bf16"), probe)
    rows: list[dict[str, Any]] = []
    for epoch in range(EPOCHS + 1):
        load(network, folder / f"{epoch}.pt")
        accuracies = {name: accuracy(tail, features, labels) for name, (features, labels) in truth.items()}
        for count, observer in observers.items():
            seen = observer.look()
            figures = {name: value for name, value in seen.scalars.items() if "by_class" not in name}
            for layer, maps in seen.cams.maps.items():
                # What the callback measures only where there are no masks.
                figures[f"border_mass/{layer}"] = mean_of_defined(border_mass(maps))
                figures[f"centre_distance/{layer}"] = mean_of_defined(centre_distance(maps))
            rows.append({**asdict(run), "epoch": epoch, "images": count, **accuracies, **figures})
    return rows


def look_at_all(out: Path) -> None:
    for run in all_runs():
        folder = out / run.name
        if (folder / f"{EPOCHS}.pt").exists() and not (folder / "looked.json").exists():
            start = time.perf_counter()
            rows = look(run, folder)
            (folder / "looked.partial").write_text(json.dumps(rows))
            (folder / "looked.partial").rename(folder / "looked.json")
            last = rows[-1]
            print(
                f"{run.name}: validation {last['validation']:.2f}, conflicting {last['conflicting']:.2f}, swapped "
                f"{last['swap_accuracy']:.2f}; {time.perf_counter() - start:.0f} s",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("train", "look", "report", "all"))
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_args()
    if args.part in ("train", "all"):
        train_all(args.out)
    if args.part in ("look", "all"):
        look_at_all(args.out)
    if args.part in ("report", "all"):
        write_report(args.out, args.docs)


if __name__ == "__main__":
    main()
