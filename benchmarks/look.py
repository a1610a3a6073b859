"""The time of a whole look, part by part, beside the time of its maps alone.

    python benchmarks/look.py [--size 224] [--rounds 5] [--masks none]

Sixteen photographs go through the 13 layers of a VGG16, as at every validation of a training with all defaults. Each
round makes one look, and the maps alone right after it. The ratios are medians over the rounds. Nothing else should
run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from images import IMAGES, photographs
from pretrained import for_finetuning
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.nn.functional import interpolate

from gradcam_callback import GradCAM, GradCAMCallback, ProbeSet
from gradcam_callback.run import Evaluator, RunLogger, RunState, Tags
from gradcam_callback.writers import TensorBoardWriter


class Stopwatch:
    """The seconds of each part of a look."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    def time(self, part: str, work: Callable[..., object]) -> Callable[..., object]:
        """Return the same function, whose time is added to a part."""

        def timed(*args: object, **kwargs: object) -> object:
            start = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                self.parts[part] = self.parts.get(part, 0.0) + time.perf_counter() - start

        return timed


def freeze(network: nn.Module, blocks: int) -> None:
    """Freeze the first blocks of the network, which end with a pooling each."""
    features = network.get_submodule("features")
    poolings = [i for i, module in enumerate(features.children()) if isinstance(module, nn.MaxPool2d)]
    for module in list(features.children())[: poolings[blocks - 1] + 1 if blocks else 0]:
        module.requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--masks", choices=("disc", "none"), default="disc")
    parser.add_argument("--frozen", type=int, default=0, help="how many blocks are frozen")
    args = parser.parse_args()
    size = args.size
    network = for_finetuning("demo", 4).eval().requires_grad_(True)
    rows = torch.arange(size)[:, None] - size / 2
    disc = (rows**2 + rows.T**2 < (size / 4) ** 2).expand(IMAGES, -1, -1)
    images = interpolate(photographs(), size, mode="area")
    probe = ProbeSet(images, [i % 4 for i in range(IMAGES)], disc if args.masks == "disc" else None)
    freeze(network, args.frozen)
    cam, style = GradCAM(network), GradCAMCallback().style
    start = time.perf_counter()
    evaluator = Evaluator(cam, probe)
    prepared = time.perf_counter() - start
    # Rotating weights: each look sees another network, as in a training. The last layer alone changes.
    ratios: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        logger = TensorBoardLogger(Path(folder), name="", version="")

        def report(_: str, error: Exception) -> None:
            raise error

        log = RunLogger(evaluator, RunState(), [TensorBoardWriter(logger)], Tags(), report=report, style=style)
        start = time.perf_counter()
        log.start()
        prepared += time.perf_counter() - start
        fresh = GradCAM(network, reuse_frozen=False)
        for turn in range(args.rounds + 1):
            watch = Stopwatch()
            evaluator._compute_maps = watch.time("maps", partial(Evaluator._compute_maps, evaluator))  # type: ignore[method-assign,assignment]
            if evaluator.interventions is not None:
                ask = partial(type(evaluator.interventions).ask, evaluator.interventions)
                evaluator.interventions.ask = watch.time("interventions", ask)  # type: ignore[method-assign,assignment]
            shard = evaluator.compute_shard()
            evaluation = watch.time("measuring", evaluator.merge)([shard])
            watch.time("drawing and writing", log.log)(evaluation, turn, turn)
            start = time.perf_counter()
            fresh(images, probe.labels)
            alone = time.perf_counter() - start
            if turn:  # the first look warms up
                for part, seconds in watch.parts.items():
                    ratios.setdefault(part, []).append(seconds / alone)
                ratios.setdefault("the look", []).append(sum(watch.parts.values()) / alone)
                ratios.setdefault("seconds of the maps alone", []).append(alone)
    for part, values in ratios.items():
        print(f"{part}: {statistics.median(values):.3f}")
    print(f"prepared in {prepared:.1f} s")


if __name__ == "__main__":
    main()
