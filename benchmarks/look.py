"""The time of a whole look, part by part, beside the time of its maps alone.

    python benchmarks/look.py [--rounds 9] [--docs docs]
    python benchmarks/look.py --training

Sixteen photographs go through the 13 layers of a VGG16, as at each validation of a training with all defaults, and 64
are there for the verdict. The first look asks all of them. The network shows no sign of a shortcut, so from the second
look on it is asked by turns. Each round makes one look, and the maps alone right after it. The ratios are medians over
the rounds, but for the first look. Nothing else should run.

``--training`` measures a step of training beside the maps of the same images instead.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
from engine import describe_machine, discs, fail
from images import IMAGES, photographs
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pretrained import for_finetuning
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

from gradcam_callback import GradCAM, GradCAMCallback, ProbeSet
from gradcam_callback.run import Evaluator, RunLogger, RunState, Tags
from gradcam_callback.run.confirmation import choose_turn
from gradcam_callback.writers import TensorBoardWriter

ASKED, MEASURED, DRAWN, WHOLE = "interventions", "measuring", "drawing and writing", "the whole look"
FIRST, PREPARED, SECONDS = "a look that asks all", "time before the first look", "seconds of the maps alone"
# Side in pixels, masks, frozen blocks, and the goal for the whole look.
CASES = [
    (size, masked, frozen, goal)
    for size in (128, 224)
    for masked, frozen, goal in ((True, 0, 2.5), (False, 0, 2.0), (True, 3, 1.8))
]
DRAWING_GOALS = {128: 0.2, 224: 0.12}
COLOURS = {"maps": "#52525b", ASKED: "#f59e0b", MEASURED: "#0ea5e9", DRAWN: "#a855f7"}
Result = TypeVar("Result")
Given = ParamSpec("Given")


def timed(work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> tuple[Result, float]:
    """Return the result of a function, and the seconds that it takes."""
    start = time.perf_counter()
    result = work(*args, **kwargs)
    return result, time.perf_counter() - start


def freeze(network: nn.Module, blocks: int) -> None:
    """Freeze the first blocks of the network, each of which ends with a pooling."""
    features = network.get_submodule("features")
    modules = list(features.children())
    poolings = [i for i, module in enumerate(modules) if isinstance(module, nn.MaxPool2d)]
    for module in modules[: poolings[blocks - 1] + 1 if blocks else 0]:
        module.requires_grad_(False)


def measure(size: int, masked: bool, frozen: int, rounds: int) -> dict[str, float]:
    """Return the time of each part of a look / the time of the maps alone, and the seconds of these.

    Args:
        size: side of the images in pixels.
        masked: True gives each image a disc as its mask; False asks by the frame.
        frozen: the number of blocks that are frozen.
        rounds: the number of looks.
    """
    network = for_finetuning("demo", 4).eval()
    # It answers the same on any background.
    network.get_parameter("classifier.2.bias").data[0] = 100
    freeze(network, frozen)
    few = interpolate(photographs(), size, mode="area")
    images = torch.cat([few, few.flip(3), few.flip(2), few.flip(2, 3)])
    labels, masks = [i % 4 for i in range(len(images))], discs(len(images), size) if masked else None
    probe = ProbeSet(images, labels, masks).watch(IMAGES)
    alone, state = GradCAM(network, reuse_frozen=False), RunState()
    alone(probe.images, probe.labels)  # warms up
    evaluator, prepared = timed(Evaluator, GradCAM(network), probe)
    interventions = evaluator.interventions
    assert interventions is not None
    seconds: dict[str, list[float]] = {}

    with tempfile.TemporaryDirectory() as folder:
        writer = TensorBoardWriter(TensorBoardLogger(folder, name="", version=""))
        style = GradCAMCallback().style
        log, laid_out = timed(RunLogger, evaluator, state, [writer], Tags(), report=fail, style=style)
        _, started = timed(log.start)
        for epoch in range(rounds + 1):
            turn = choose_turn(state.history, interventions.basis)
            shard, computed = timed(evaluator.compute_shard, turn=turn)
            evaluation, measured = timed(evaluator.merge, [shard], state.previous)
            _, drawn = timed(log.log, evaluation, epoch, epoch)
            _, maps = timed(alone, probe.images, probe.labels)
            whole = computed + measured + drawn
            if not epoch:
                seconds[FIRST] = [whole / maps]
            else:
                assert not turn.has_sign, "the network shows no sign of a shortcut"
                parts = {ASKED: computed - maps, MEASURED: measured, DRAWN: drawn, WHOLE: whole}
                for part, taken in parts.items():
                    seconds.setdefault(part, []).append(taken / maps)
                seconds.setdefault(SECONDS, []).append(maps)
    found = {part: statistics.median(values) for part, values in seconds.items()}
    look = found[WHOLE] * found[SECONDS]
    return {**found, PREPARED: (prepared + laid_out + started) / look}


def compare_training(rounds: int) -> float:
    """Return the time of a step of training / the time of the maps, on the same images of 224 px, nothing frozen."""
    network = for_finetuning("demo", 4)
    cam, optimizer = GradCAM(network), torch.optim.AdamW(network.parameters(), 1e-5)
    images, labels = photographs(), torch.arange(IMAGES) % 4

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(network(images), labels).backward()
        optimizer.step()

    ratios = [timed(step)[1] / timed(cam, images, labels)[1] for _ in range(rounds + 1)]
    return statistics.median(ratios[1:])  # the first warms up


def plot(found: dict[str, dict[str, float]], path: Path) -> None:
    """Plot the parts of each look, in multiples of its maps alone."""
    figure = Figure(figsize=(9, 3.4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    names, lefts = list(found), [0.0] * len(found)
    for part, colour in COLOURS.items():
        widths = [max(0.0, values.get(part, 1.0)) for values in found.values()]
        axes.barh(names, widths, left=lefts, color=colour, label=part)
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("time of a look, in multiples of its maps alone")
    figure.legend(frameon=False, ncols=len(COLOURS), loc="outside upper center")
    canvas.print_figure(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--training", action="store_true")
    args = parser.parse_args()
    if args.training:
        print(f"a step of training / the maps of its images: {compare_training(args.rounds):.2f}")
        return
    found, rows = {}, []
    for size, masked, frozen, goal in CASES:
        what = f"{size} px, {'masks' if masked else 'no masks'}" + (f", blocks 1-{frozen} frozen" if frozen else "")
        found[what] = values = measure(size, masked, frozen, args.rounds)
        drawn = values[MEASURED] + values[DRAWN]
        rows.append(
            f"| {what} | {values[WHOLE]:.2f} | {goal} | {values[ASKED]:.2f} | {drawn:.2f} | {DRAWING_GOALS[size]} | "
            f"{values[FIRST]:.1f} | {values[PREPARED]:.2f} | {values[SECONDS]:.1f} |"
        )
        print(rows[-1], flush=True)
    head = ["16 images, 13 layers", WHOLE, "goal", ASKED, "measuring, drawing, writing", "goal", FIRST]
    head += [f"{PREPARED} / a look", SECONDS]
    made = f"Made by `python benchmarks/look.py --rounds {args.rounds}`. Times are in multiples of the maps alone."
    lines = ["# What a look costs", "", made, ""]
    lines += [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *rows, ""]
    lines += [
        "![Where the time of a look goes](pictures/look.png)",
        "",
        describe_machine("torch", "pytorch-lightning"),
        "",
    ]
    (args.docs / "look.md").write_text("\n".join(lines))
    plot(found, args.docs / "pictures" / "look.png")


if __name__ == "__main__":
    main()
