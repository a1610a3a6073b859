"""What both studies ask of a network: the callback's own scalars by every basis, and the true accuracies."""

from __future__ import annotations

import argparse
import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from finetuning import Finetuning
from PIL import Image
from saved import ANSWERS, FEW, MANY, ONE_EACH, SCALARS, TRUTH, file_of, save
from study_report import NAMES
from torch import Tensor

from gradcam_callback import GradCAM, GradCAMWarning, ProbeSet
from gradcam_callback.measures import AUTOMATIC_MASKS, MASKS, metrics
from gradcam_callback.probes import Item, Quota, choose_masked, make_probe_set
from gradcam_callback.run.interventions import OTHER_CLASS, SAME_CLASS, Interventions, Predict
from gradcam_callback.run.turns import Turn
from gradcam_callback.saliency import Proposal, SaliencyNetwork

# With automatic masks so many times as many images are tried as are kept. The callback tries more, if it has to.
TRIED = 2
LAYERS = ["block4_conv3", "block5_conv1", "block5_conv3"]


class Images(Protocol):
    """Images of one kind: ``images`` ``(N, 3, H, W)`` in 0..1, ``labels`` ``(N,)``, ``masks`` ``(N, H, W)`` bool."""

    @property
    def images(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def masks(self) -> Tensor: ...


@dataclass(frozen=True)
class Run:
    """A network of a study.

    Attributes:
        kind: of shortcut.
        correlation: of the cue with the class, 0..1.
        seed: of the images and of the training.
    """

    kind: str
    correlation: float
    seed: int

    @property
    def name(self) -> str:
        """Return the name of the folder of the network."""
        return f"{self.kind.replace(' ', '_')}-{self.correlation}-{self.seed}"


@dataclass(frozen=True)
class Study:
    """The images of every network of a study.

    Attributes:
        runs: all networks. Networks of one kind and seed, which share images, follow each other.
        epochs: of each training. The last two are judged.
        training: makes the training images of a network.
        probe: makes any number of its probe images, in which the cue is correlated as in training.
        truth: makes the images of the true accuracies: ``"validation"`` and ``"conflicting"``.
    """

    runs: Iterable[Run]
    epochs: int
    training: Callable[[Run], Images]
    probe: Callable[[Run, int], Images]
    truth: Callable[[Run], Mapping[str, Images]]

    def make(self, networks: Finetuning, out: Path, part: str) -> None:
        """Train and evaluate every network that is not there yet.

        Args:
            networks: fine-tunes and asks each of them.
            out: gets a folder for each network.
            part: ``"train"``, ``"evaluate"`` or ``"all"``.
        """
        earlier = None
        for run in self.runs:
            folder, start = out / run.name, time.perf_counter()
            if (run.kind, run.seed) != earlier:
                networks.forget()
            earlier = run.kind, run.seed
            if part != "evaluate" and not self._file(folder, self.epochs).exists():
                self._train(run, networks, folder)
            if part != "train" and self._file(folder, self.epochs).exists():
                self._evaluate(run, networks, folder)
            print(f"{run.name}: {time.perf_counter() - start:.0f} s", flush=True)

    def _train(self, run: Run, networks: Finetuning, folder: Path) -> None:
        data = self.training(run)
        folder.mkdir(parents=True, exist_ok=True)
        for epoch in networks.fit(data.images, data.labels, self.epochs, run.seed):
            if epoch > self.epochs - 2:
                networks.save(self._file(folder, epoch))

    def _evaluate(self, run: Run, networks: Finetuning, folder: Path) -> None:
        """Measure the true accuracies, and ask by each basis, where this has not been done yet."""
        if not (folder / TRUTH).exists():
            networks.load(self._file(folder, self.epochs))
            truth = {name: networks.accuracy(data.images, data.labels) for name, data in self.truth(run).items()}
            save(folder / TRUTH, {**asdict(run), "epoch": self.epochs, **truth})
        missing = [basis for basis in NAMES if not (folder / file_of(basis)).exists()]
        if missing:
            images = self.probe(run, TRIED * MANY)
            for basis in missing:
                save(folder / file_of(basis), list(self._ask(basis, images, run, networks, folder)))

    def _ask(
        self, basis: str, images: Images, run: Run, networks: Finetuning, folder: Path
    ) -> Iterator[dict[str, Any]]:
        """Ask a network by one basis at its last two epochs, on each of the probe sets."""
        many = probe_set(images, basis, MANY)
        sets = {MANY: many, ONE_EACH: many.watch(FEW), FEW: probe_set(images, basis, FEW)}
        for epoch in (self.epochs - 1, self.epochs):
            networks.load(self._file(folder, epoch))
            for name, chosen in sets.items():
                # On another background at each epoch, as the callback asks.
                turn = Turn(epoch, thorough=True) if name == ONE_EACH else None
                scalars, answers = ask(chosen, networks.predict, turn)
                if basis == MASKS and name == MANY and epoch == self.epochs:
                    scalars |= maps_alone(networks, chosen)
                about = {**asdict(run), "epoch": epoch, "images": name, "basis": basis}
                yield {**about, SCALARS: scalars, ANSWERS: answers}

    @staticmethod
    def _file(folder: Path, epoch: int) -> Path:
        return folder / f"{epoch}.pt"


def probe_set(probe: Images, basis: str, count: int) -> ProbeSet:
    """Return the first images with the masks of a basis; with automatic masks, those that the callback would choose."""
    if basis != AUTOMATIC_MASKS:
        masks = probe.masks[:count] if basis == MASKS else None
        return ProbeSet(probe.images[:count], probe.labels[:count], masks)
    pairs = zip(probe.images[: TRIED * count], probe.labels.tolist(), strict=False)
    items = [
        Item(image, label, None, f"image {i}", propose=partial(mask, image)) for i, (image, label) in enumerate(pairs)
    ]
    with warnings.catch_warnings():
        # Of automatic masks that are left out. Their number is in the scalars.
        warnings.simplefilter("ignore", GradCAMWarning)
        return choose_masked(items, Quota(None, count), make_probe_set)


# Networks of one kind and seed share most of their images.
_MASKED: dict[bytes, Proposal] = {}


def mask(image: Tensor, network: SaliencyNetwork) -> Proposal:
    """Make the automatic mask of an image ``(3, H, W)`` in 0..1, once."""
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    key = hashlib.sha256(pixels.tobytes()).digest()
    if key not in _MASKED:
        _MASKED[key] = network.propose(Image.fromarray(pixels))
    return _MASKED[key]


def ask(probe_set: ProbeSet, predict: Predict, turn: Turn | None = None) -> tuple[dict[str, float], dict[str, Any]]:
    """Ask a network by the callback's own interventions on a probe set; a turn asks a part of them.

    Returns:
        The scalars, and the single answers: ``"labels"``, ``"correct"`` on the unchanged images, and for each set of
        swaps the objects, the donors, and whether the network was right.
    """
    interventions, judged = Interventions(probe_set, seed=0), probe_set.verdict_set
    logits = predict(judged.images, torch.arange(len(judged)))
    correct = logits.argmax(dim=1) == judged.labels
    shard = interventions.ask(predict, turn=turn)
    answers = interventions.compare_with_labels(logits[: len(probe_set)], [shard], turn)
    scalars = interventions.scalars(answers)
    single: dict[str, Any] = {
        "labels": judged.labels[interventions.numbers].tolist(),
        "correct": correct[interventions.numbers].int().tolist(),
    }
    sets = interventions.counterfactuals
    if sets is not None:
        for name, swaps in ((SAME_CLASS, sets.same_class), (OTHER_CLASS, sets.other_class)):
            swaps, right = swaps[answers.places[name]], answers.correct[name].int().tolist()
            single[name] = [swaps.objects.tolist(), swaps.donors.tolist(), right]
    return {"masked": int(judged.has_mask.sum()), "in the test": len(interventions.numbers), **scalars}, single


def maps_alone(networks: Finetuning, probe_set: ProbeSet) -> dict[str, float]:
    """Return the metrics of the maps, which need no intervention."""
    cams = GradCAM(networks.network, LAYERS)(probe_set.images, probe_set.labels)
    assert probe_set.masks is not None
    scalars: dict[str, float] = {}
    for layer, maps in cams.maps.items():
        mass, area = metrics.relevance_mass(maps, probe_set.masks), metrics.mask_area(probe_set.masks)
        defined = ~mass.isnan()
        scalars |= {
            f"lift/{layer}": float(metrics.lift(mass[defined], area[defined])),
            f"relevance_mass/{layer}": float(mass.nanmean()),
            f"pointing_game/{layer}": float(metrics.pointing_game(maps, probe_set.masks).mean()),
            f"entropy/{layer}": float(metrics.entropy(maps).nanmean()),
            f"strength/{layer}": float(metrics.strength(maps).mean()),
            f"border_mass/{layer}": float(metrics.border_mass(maps).nanmean()),
            f"centre_distance/{layer}": float(metrics.centre_distance(maps).nanmean()),
        }
    # A metric is undefined if all maps of its layer are empty.
    return {name: value for name, value in scalars.items() if not math.isnan(value)}


def parse_arguments(description: str | None, out: str, *arguments: tuple[str, type]) -> argparse.Namespace:
    """Parse the command line of a study.

    Args:
        description: the docstring of the script.
        out: the default folder of the networks.
        arguments: more arguments, which come first: their names and types.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kind in arguments:
        parser.add_argument(name, type=kind)
    parser.add_argument("part", choices=("train", "evaluate", "report", "all"))
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6])
    return parser.parse_args()
