"""The study on photographs: how often the verdict is correct by drawn masks, by automatic masks, and by the frame.

    python benchmarks/photograph_study.py PHOTOGRAPHS train|evaluate|report|all [--out runs/photograph_study]

PHOTOGRAPHS is a folder with one folder of photographs per class. Every network is the pretrained VGG16 with a fresh
head, of which block 5 is fine-tuned. The true loss is the accuracy on composites that agree with the cue, less the
accuracy on composites that contradict it, pasted alike, of photographs that the network has never seen. A part that was
stopped continues at the same place.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from composites import KINDS, Composites, Photographs, as_they_are, compose, read_photographs
from photograph_report import write_report
from pretrained import VGG16, for_finetuning
from study import accuracy, features_of, fit, load, save, split
from study_report import RESULT
from torch import Tensor

from gradcam_callback import GradCAM, GradCAMWarning, ProbeSet
from gradcam_callback.measures import metrics
from gradcam_callback.run.interventions import Interventions, Predict

CORRELATIONS, SEEDS = (0.0, 0.5, 0.8, 0.95, 1.0), (1, 2)
# More networks on random scenes, which are clean by construction, and networks on photographs as they are.
CLEAN_SEEDS, NATURAL_SEEDS = (3, 4, 5, 6), (1, 2, 3)
NATURAL, CLEAN = "natural", "random scenes"
EPOCHS, TRAINED_ON, TESTED_ON, PROBES = 6, 300, 200, (64, 16)
LAYERS = ["block4_conv3", "block5_conv1", "block5_conv3"]
# The number of feature modules in blocks 1 to 4.
FROZEN = 24


@dataclass(frozen=True)
class Run:
    """A network of the study.

    Attributes:
        kind: of shortcut: a key of `composites.KINDS`, or ``"natural"`` for photographs as they are, or
            ``"random scenes"``.
        correlation: of the cue with the class, 0..1.
        seed: of the halves of the photographs, the composites and the training.
    """

    kind: str
    correlation: float
    seed: int

    @property
    def name(self) -> str:
        """Return the name of the folder of the network."""
        return f"{self.kind.replace(' ', '_')}-{self.correlation}-{self.seed}"

    def training(self, photographs: Photographs) -> Composites:
        """Return the images of the training."""
        if self.kind == NATURAL:
            return as_they_are(photographs, self.seed, training=True)
        return compose(photographs, self._planted, TRAINED_ON, self.correlation, self.seed, training=True)

    def probe(self, photographs: Photographs) -> Composites:
        """Return the images of the probe set: of the other half, with the cue as in the training."""
        if self.kind == NATURAL:
            return as_they_are(photographs, self.seed, training=False, count=max(PROBES))
        return compose(photographs, self._planted, max(PROBES), self.correlation, self.seed, training=False)

    def truth(self, photographs: Photographs, cues: str) -> Composites:
        """Return images of the other half that all agree with the cue (``"own"``), or contradict it (``"other"``)."""
        return compose(photographs, self._planted, TESTED_ON, 1.0, self.seed, training=False, cues=cues)

    @property
    def _planted(self) -> str:
        return self.kind if self.kind in KINDS else "scenes"


def all_runs(seeds: Sequence[int]) -> Iterator[Run]:
    """Yield every network of some seeds of the study. Networks with the same images follow each other."""
    for seed in seeds:
        if seed in SEEDS:
            yield from (Run(kind, correlation, seed) for kind, correlation in product(KINDS, CORRELATIONS))
        if seed in NATURAL_SEEDS:
            yield Run(NATURAL, 1.0, seed)
        if seed in CLEAN_SEEDS:
            yield Run(CLEAN, 0.0, seed)


class Frozen:
    """The frozen modules, which are the same in all networks. Each image goes through them once.

    Args:
        network: a pretrained network.
    """

    def __init__(self, network: VGG16) -> None:
        self._network, (self._modules, _) = network, split(network, FROZEN)
        self._kept: dict[bytes, Tensor] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of images ``(n, 3, H, W)`` in 0..1."""
        keys = [image.numpy().tobytes() for image in images]
        new = [i for i, key in enumerate(keys) if key not in self._kept]
        if new:
            features = features_of(self._network, self._modules, images[new])
            self._kept |= {keys[i]: each for i, each in zip(new, features, strict=True)}
        return torch.stack([self._kept[key] for key in keys])

    def forget(self) -> None:
        """Free the memory of all images."""
        self._kept.clear()


def train(run: Run, photographs: Photographs, frozen: Frozen, folder: Path) -> None:
    """Fine-tune a network, and save its trained modules after the last two epochs."""
    torch.manual_seed(run.seed)
    data = run.training(photographs)
    tail = split(fresh_network(photographs), FROZEN)[1]
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in fit(tail, frozen(data.images), data.labels, EPOCHS, run.seed):
        if epoch > EPOCHS - 2:
            save(tail, folder / f"{epoch}.pt")


def fresh_network(photographs: Photographs) -> VGG16:
    """Return the pretrained network with a fresh head, in eval mode."""
    return for_finetuning("demo", len(photographs.classes)).eval().to(memory_format=torch.channels_last)


def evaluate(run: Run, photographs: Photographs, frozen: Frozen, folder: Path) -> list[dict[str, Any]]:
    """Return the callback's scalars by all bases, on 64 and on 16 probe images, and the true accuracies."""
    network = fresh_network(photographs)
    tail, probe = split(network, FROZEN)[1], run.probe(photographs)
    truth = {}
    for name, cues in (("validation", "own"), ("conflicting", "other")):
        data = run.truth(photographs, cues)
        truth[name] = frozen(data.images), data.labels
    sets = _probe_sets(probe)
    rows = []
    for epoch in (EPOCHS - 1, EPOCHS):
        load(network, folder / f"{epoch}.pt", FROZEN)
        accuracies = {name: accuracy(tail, features, labels) for name, (features, labels) in truth.items()}

        @torch.no_grad()
        def predict(images: Tensor, _: Tensor) -> Tensor:
            return torch.cat([tail(chunk) for chunk in frozen(images).split(120)])

        for count in PROBES:
            found = {basis: ask(probe_set, predict) for basis, probe_set in sets[count].items()}
            if count == max(PROBES):
                found["masks"] |= maps_alone(network, sets[count]["masks"])
            for basis, scalars in found.items():
                about = {**asdict(run), "epoch": epoch, "images": count, "basis": basis}
                rows.append({**about, **accuracies, **scalars})
    return rows


def _probe_sets(probe: Composites) -> dict[int, dict[str, ProbeSet]]:
    """Return the probe set of each number of images and each basis."""
    with warnings.catch_warnings():
        # Of masks that are left out. Their number is in the rows.
        warnings.simplefilter("ignore", GradCAMWarning)
        found = ProbeSet(probe.images, probe.labels, "auto")
    automatic: list[Tensor | None] = [None] * len(found)
    if found.masks is not None:
        automatic = [found.masks[i] if found.has_mask[i] else None for i in range(len(found))]
    return {
        count: {
            basis: ProbeSet(probe.images[:count], probe.labels[:count], masks)
            for basis, masks in (
                ("masks", probe.masks[:count]),
                ("automatic masks", automatic[:count]),
                ("frame", None),
            )
        }
        for count in PROBES
    }


def ask(probe_set: ProbeSet, predict: Predict) -> dict[str, float]:
    """Return the scalars of the callback's own interventions on a probe set."""
    interventions = Interventions(probe_set, seed=0)
    everything = torch.arange(len(probe_set))
    correct = predict(probe_set.images, everything).argmax(dim=1) == probe_set.labels
    answers = interventions.judge(correct, [interventions.ask(predict)])
    scalars = interventions.scalars(answers, split_by_class=False)
    return {"masked": int(probe_set.has_mask.sum()), "in the test": len(interventions.numbers), **scalars}


def maps_alone(network: VGG16, probe_set: ProbeSet) -> dict[str, float]:
    """Return the metrics of the maps, which need no intervention."""
    cams = GradCAM(network, LAYERS)(probe_set.images, probe_set.labels)
    assert probe_set.masks is not None
    scalars: dict[str, float] = {}
    for layer, maps in cams.maps.items():
        mass, area = metrics.relevance_mass(maps, probe_set.masks), metrics.mask_area(probe_set.masks)
        defined = ~mass.isnan()
        scalars |= {
            f"lift/{layer}": float(metrics.lift(mass[defined], area[defined])),
            f"relevance_mass/{layer}": metrics.mean_of_defined(mass),
            f"pointing_game/{layer}": float(metrics.pointing_game(maps, probe_set.masks).mean()),
            f"entropy/{layer}": metrics.mean_of_defined(metrics.entropy(maps)),
            f"strength/{layer}": float(metrics.strength(maps).mean()),
            f"border_mass/{layer}": metrics.mean_of_defined(metrics.border_mass(maps)),
            f"centre_distance/{layer}": metrics.mean_of_defined(metrics.centre_distance(maps)),
        }
    return {name: value for name, value in scalars.items() if not math.isnan(value)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("part", choices=("train", "evaluate", "report", "all"))
    parser.add_argument("--out", type=Path, default=Path("runs/photograph_study"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6])
    args = parser.parse_args()
    if args.part != "report":
        make_all(args)
    if args.part in ("report", "all"):
        write_report(args.out, args.docs)


def make_all(args: argparse.Namespace) -> None:
    """Train and evaluate every network that is not there yet."""
    photographs = read_photographs(args.photographs, args.out / "masks.pt")
    frozen, earlier = Frozen(fresh_network(photographs)), None
    for run in all_runs(args.seeds):
        folder, start = args.out / run.name, time.perf_counter()
        if (run.kind, run.seed) != earlier:
            frozen.forget()
        earlier = run.kind, run.seed
        if args.part != "evaluate" and not (folder / f"{EPOCHS}.pt").exists():
            train(run, photographs, frozen, folder)
        if args.part != "train" and (folder / f"{EPOCHS}.pt").exists() and not (folder / RESULT).exists():
            rows = evaluate(run, photographs, frozen, folder)
            partial = (folder / RESULT).with_suffix(".partial")
            partial.write_text(json.dumps(rows))
            partial.rename(folder / RESULT)
            last = rows[-1]
            print(
                f"{run.name}: agreeing {last['validation']:.2f}, conflicting {last['conflicting']:.2f}; "
                f"{time.perf_counter() - start:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
