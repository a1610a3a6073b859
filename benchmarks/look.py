"""The time of a whole look, part by part, beside the time of its maps alone.

    python benchmarks/look.py [--rounds 3] [--docs docs] [--device cuda] [--weights demo]

Sixteen photographs go through the 13 layers of a VGG16, and 64 are there for the verdict. So it is at each validation
of a training with all defaults. The first look asks all of them. The network shows no sign of a shortcut, so from the
second look on it is asked by turns. Each round makes one look, and the maps alone right after it. The ratios are
medians over the rounds, but for the first look. With frozen blocks there are twice as many rounds, and each look is
printed. Images that are asked for the first time cost more, and these are most of the first three looks. Then the same
network is trained for some steps. From their time per image follows that of an epoch, with data that are ready and
without a validation. Nothing else should run.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
from engine import describe_machine, discs, fail, multiplies_bf16, wait
from images import IMAGES, photographs
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pretrained import VGG16, for_finetuning
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from gradcam_callback import GradCAM, GradCAMCallback, ProbeSet
from gradcam_callback.run import Evaluator, RunLogger, RunState, Tags
from gradcam_callback.run.confirmation import choose_turn
from gradcam_callback.writers import TensorBoardWriter

ASKED, MEASURED, DRAWN, WHOLE = "interventions", "measuring", "drawing and writing", "the whole look"
FIRST, PREPARED, SECONDS = "a look that asks all", "time before the first look", "seconds of the maps alone"
STEP = "seconds of training per image"
# The images of an epoch, of a small and of a large fine-tuning. The second is that of ImageNet-100.
EPOCHS = (2_000, 126_689)
# Masks, frozen blocks, precision, and the goal for the whole look.
CASES = [(True, 0, "full", 2.5), (False, 0, "full", 2.0), (True, 3, "full", 1.8), (True, 0, "bf16", 1.7)]
# The images of a step of training. A GPU is faster with more.
BATCH = {"cpu": IMAGES, "cuda": 4 * IMAGES}
DRAWING_GOALS = {128: 0.2, 224: 0.12}
COLOURS = {"maps": "#52525b", ASKED: "#f59e0b", MEASURED: "#0ea5e9", DRAWN: "#a855f7"}
Result = TypeVar("Result")
Given = ParamSpec("Given")


def timed(work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> tuple[Result, float]:
    """Return the result of a function, and the seconds that it takes."""
    wait()
    start = time.perf_counter()
    result = work(*args, **kwargs)
    wait()
    return result, time.perf_counter() - start


def freeze(network: nn.Module, blocks: int) -> None:
    """Freeze the first blocks of the network, each of which ends with a pooling."""
    features = network.get_submodule("features")
    modules = list(features.children())
    poolings = [i for i, module in enumerate(modules) if isinstance(module, nn.MaxPool2d)]
    for module in modules[: poolings[blocks - 1] + 1 if blocks else 0]:
        module.requires_grad_(False)


def measure(network: VGG16, size: int, masked: bool, frozen: int, precision: str, rounds: int) -> dict[str, float]:
    """Return the time of each part of a look / the time of the maps alone in full precision, and seconds of these.

    Args:
        network: is frozen and trained.
        size: side of the images in pixels.
        masked: True gives each image a disc as its mask; False asks by the frame.
        frozen: the number of blocks that are frozen.
        precision: that of the look and of the training.
        rounds: the number of looks after the first one.
    """
    device = next(network.parameters()).device
    network.eval()
    # It answers the same on any background.
    network.get_parameter("classifier.2.bias").data[0] = 100
    freeze(network, frozen)
    few = interpolate(photographs(), size, mode="area")
    images = torch.cat([few, few.flip(3), few.flip(2), few.flip(2, 3)])
    labels, masks = [i % 4 for i in range(len(images))], discs(len(images), size) if masked else None
    probe = ProbeSet(images, labels, masks).watch(IMAGES)
    alone, state = GradCAM(network, reuse_frozen=False), RunState()
    watched = probe.images.to(device)
    alone(watched, probe.labels)  # warms up
    evaluator, prepared = timed(Evaluator, GradCAM(network, precision=precision), probe)
    interventions = evaluator.interventions
    assert interventions is not None
    seconds: dict[str, list[float]] = {}

    with tempfile.TemporaryDirectory() as folder:
        writer = TensorBoardWriter(TensorBoardLogger(folder, name="", version=""))
        style = GradCAMCallback().style
        log, laid_out = timed(RunLogger, evaluator, state, [writer], Tags(), report=fail, style=style)
        _, started = timed(log.start)
        for epoch in range(rounds + 1):
            turn = choose_turn(state.history, state.in_part, interventions.basis)
            shard, computed = timed(evaluator.compute_shard, turn=turn)
            evaluation, measured = timed(evaluator.merge, [shard], state.previous)
            _, drawn = timed(log.log, evaluation, epoch, epoch)
            _, maps = timed(alone, watched, probe.labels)
            whole = computed + measured + drawn
            if not epoch:
                seconds[FIRST] = [whole / maps]
            else:
                assert not turn.thorough, "the network shows no sign of a shortcut"
                parts = {ASKED: computed - maps, MEASURED: measured, DRAWN: drawn, WHOLE: whole}
                for part, taken in parts.items():
                    seconds.setdefault(part, []).append(taken / maps)
                seconds.setdefault(SECONDS, []).append(maps)
    if frozen:
        print("each look:", ", ".join(f"{ratio:.2f}" for ratio in seconds[WHOLE]), flush=True)
    found = {part: statistics.median(values) for part, values in seconds.items()}
    look = found[WHOLE] * found[SECONDS]
    step = seconds_per_image(network.train(), few.to(device), precision, rounds)
    return {**found, PREPARED: (prepared + laid_out + started) / look, STEP: step}


def seconds_per_image(network: VGG16, images: Tensor, precision: str, rounds: int) -> float:
    """Return the seconds of training per image, with AdamW. What is frozen stays so."""
    device = images.device.type
    optimizer = torch.optim.AdamW([tensor for tensor in network.parameters() if tensor.requires_grad], 1e-5)
    batch = images.repeat(math.ceil(BATCH[device] / len(images)), 1, 1, 1)[: BATCH[device]]
    labels = torch.arange(len(batch), device=device) % 4

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = cross_entropy(network(batch), labels)
        loss.backward()
        optimizer.step()

    taken = [timed(step)[1] for _ in range(rounds + 1)]
    return statistics.median(taken[1:]) / len(batch)  # the first warms up


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--weights", default="demo", help="the source of the weights, as for the examples")
    args = parser.parse_args()
    found, rows = {}, []
    for size, (masked, frozen, precision, goal) in itertools.product(DRAWING_GOALS, CASES):
        if precision == "bf16" and not multiplies_bf16(torch.device(args.device)):
            continue
        what = f"{size} px, {'masks' if masked else 'no masks'}" + (f", blocks 1-{frozen} frozen" if frozen else "")
        what += f", {precision}" if precision == "bf16" else ""
        network = for_finetuning(args.weights, 4).to(args.device)
        rounds = 2 * args.rounds if frozen else args.rounds
        found[what] = values = measure(network, size, masked, frozen, precision, rounds)
        shares = [values[WHOLE] * values[SECONDS] / (values[STEP] * images) for images in EPOCHS]
        drawn = values[MEASURED] + values[DRAWN]
        rows.append(
            f"| {what} | {values[WHOLE]:.2f} | {goal} | {values[ASKED]:.2f} | {drawn:.2f} | {DRAWING_GOALS[size]} | "
            f"{values[FIRST]:.1f} | {values[PREPARED]:.2f} | {values[SECONDS]:.3g} | {values[STEP]:.2g} | "
            + " | ".join(f"{share:.2%}" for share in shares)
            + " |"
        )
        print(rows[-1], flush=True)
    head = ["16 images, 13 layers", WHOLE, "goal", ASKED, "measuring, drawing, writing", "goal", FIRST]
    head += [f"{PREPARED} / a look", SECONDS, STEP, *(f"a look / an epoch of {images:,} images" for images in EPOCHS)]
    command = f"python benchmarks/look.py --rounds {args.rounds}"
    command += "" if args.device == "cpu" else f" --device {args.device}"
    made = (
        f"Made by `{command}`. A *look* is all that the callback does at one validation. Times are in multiples of the "
        "maps alone in full precision, unless a unit is named."
    )
    name = "look" if args.device == "cpu" else "look-gpu"
    lines = [f"# What a look costs{'' if args.device == 'cpu' else ' on a GPU'}", "", made, ""]
    lines += [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *rows, ""]
    lines += [
        f"![Where the time of a look goes](pictures/{name}.png)",
        "",
        describe_machine("torch", "pytorch-lightning"),
        "",
    ]
    (args.docs / f"{name}.md").write_text("\n".join(lines))
    plot(found, args.docs / "pictures" / f"{name}.png")


if __name__ == "__main__":
    main()
