"""Time and memory of the maps, compared with other libraries and with the limit: one forward and one backward pass.

    python benchmarks/engine.py [--out docs/benchmark.md] [--rounds 7] [--device cuda]

Times are medians over rounds. In each round all contenders take turns, so that a machine of changing speed is fair to
all of them. Memory is the peak of a separate process per contender, over its memory before the first map. On a GPU it
is the memory of torch's tensors there. The network is VGG16 with random weights, the images have 224 x 224 pixels. They
are as many as a chunk has: 8 on a CPU, 32 on a GPU.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import TensorBoardLogger
from skimage import data
from torch import Tensor, nn
from torchvision.models import vgg16

from gradcam_callback import GradCAM, GradCAMCallback, ProbeSet
from gradcam_callback.run import Evaluator, RunLogger, RunState, Tags
from gradcam_callback.run.turns import Turn
from gradcam_callback.writers import TensorBoardWriter

# The places of VGG16's ReLUs in torchvision's feature modules.
RELUS = (1, 3, 6, 8, 11, 13, 15, 18, 20, 22, 25, 27, 29)
LAST = "block5_conv3"
OWN, LOOK = "this package", "a look at masked images"
BF16 = f"{OWN}, bf16"
LIMITS = {"limit": torch.channels_last, "limit, NCHW": torch.contiguous_format}
Work = Callable[[], object]


def network(device: torch.device | str = "cpu") -> nn.Module:
    """Make a VGG16 with random weights, the same ones every time."""
    torch.manual_seed(0)
    model: nn.Module = vgg16()
    return model.eval().to(device)


def random_images(count: int, device: str = "cpu") -> Tensor:
    """Return ``(count, 3, 224, 224)`` in 0..1."""
    return torch.rand(count, 3, 224, 224, generator=torch.Generator().manual_seed(1)).to(device)


def photographs(count: int) -> Tensor:
    """Return pieces of photographs, ``(count, 3, 224, 224)`` in 0..1. Their panels are as large as those of users."""
    whole = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    pieces = []
    for i in range(count):
        photograph = whole[i % len(whole)]
        top, left = 20 * (i // len(whole)), 30 * (i // len(whole))
        pieces.append(torch.from_numpy(photograph[top : top + 224, left : left + 224].copy()))
    return torch.stack(pieces).permute(0, 3, 1, 2).float() / 255


def limit(images: Tensor, memory_format: torch.memory_format) -> Work:
    """Run one forward and one backward to the input, with frozen weights in a memory format."""
    frozen = network(images.device).requires_grad_(False).to(memory_format=memory_format)
    laid_out = images.contiguous(memory_format=memory_format)

    def work() -> None:
        given = laid_out.detach().requires_grad_()
        frozen(given).amax(dim=1).sum().backward()

    return work


def forward(images: Tensor) -> Work:
    """Run one forward without gradients."""
    model = network(images.device)

    def work() -> None:
        with torch.no_grad():
            model(images)

    return work


def this_package(images: Tensor, layers: str = "all", **options: Any) -> Work:
    """Run `GradCAM` in one pass for all layers."""
    cam = GradCAM(network(images.device), layers, **options)
    return lambda: cam(images)


def torchcam(images: Tensor) -> Work:
    """Run torch-cam in one pass for all 13 layers."""
    from torchcam.methods import GradCAM as TorchCAM

    model: Any = network(images.device)
    cam = TorchCAM(model, target_layer=[model.features[i] for i in RELUS])

    def work() -> object:
        logits = model(images)
        return cam(logits.argmax(dim=1).tolist(), logits)

    return work


def pytorch_grad_cam(images: Tensor) -> Work:
    """Run pytorch-grad-cam with one object per layer, as one object returns the mean of its layers."""
    from pytorch_grad_cam import GradCAM as PytorchGradCAM

    model: Any = network(images.device)

    def work() -> None:
        for i in RELUS:
            with PytorchGradCAM(model=model, target_layers=[model.features[i]]) as cam:
                cam(input_tensor=images, targets=None)

    return work


def captum(images: Tensor) -> Work:
    """Run captum with one object per layer."""
    from captum.attr import LayerGradCam

    model: Any = network(images.device)

    def work() -> None:
        with torch.no_grad():
            targets = model(images).argmax(dim=1)
        for i in RELUS:
            LayerGradCam(model, model.features[i]).attribute(images, targets, relu_attributions=True)

    return work


CONTENDERS: dict[str, Callable[[Tensor], Work]] = {
    **{name: partial(limit, memory_format=memory_format) for name, memory_format in LIMITS.items()},
    OWN: this_package,
    BF16: lambda images: this_package(images, precision="bf16"),
    "torch-cam": torchcam,
    "captum": captum,
    "pytorch-grad-cam": pytorch_grad_cam,
    "forward alone": forward,
    f"{OWN}, {LAST}": lambda images: this_package(images, LAST),
}
# These are many times slower than the others, so one round is enough.
SLOW = ("captum", "pytorch-grad-cam")


def timed(images: Tensor, rounds: int) -> dict[str, float]:
    """Return the median seconds of each contender on some images. Each round has another order."""
    works = {name: make(images) for name, make in CONTENDERS.items()}
    seconds = {name: [seconds_of(works.pop(name))] for name in SLOW}
    shuffle = random.Random(0)
    order = [name for name in works if name != BF16 or multiplies_bf16(images.device)]
    seconds |= {name: [] for name in order}
    for turn in range(rounds + 1):
        shuffle.shuffle(order)
        for name in order:
            taken = seconds_of(works[name])
            if turn:  # the first round warms up
                seconds[name].append(taken)
    medians = {name: statistics.median(seconds[name]) for name in CONTENDERS if name in seconds}
    # Which memory format is the best depends on the device.
    return {**medians, "limit": min(medians.pop(name) for name in LIMITS)}


def seconds_of(work: Work) -> float:
    """Return the seconds that a function takes, and a GPU with what the function asks of it."""
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def wait() -> None:
    """Wait until the GPU, if one is in use, has done what was asked of it."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def frozen_base(layers: str, rounds: int, device: str) -> float:
    """Return the time of a later epoch / that of the first one, with blocks 1 to 4 frozen and 16 images."""
    images, model = random_images(16, device), network(device)
    children = list(model.get_submodule("features").children())
    for module in children[: RELUS[-3] - 1]:
        module.requires_grad_(False)
    GradCAM(model, layers, reuse_frozen=False)(images)  # warms up
    ratios = []
    for _ in range(rounds):
        epoch_of_maps = partial(GradCAM(model, layers), images)
        first, later = seconds_of(epoch_of_maps), seconds_of(epoch_of_maps)
        ratios.append(later / first)
    return statistics.median(ratios)


def resident(device: str) -> float:
    """Return the memory of this process in MB: what is resident, or on a GPU that of its tensors."""
    if device != "cpu":
        return torch.cuda.memory_allocated() / 1e6
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def peak_over_start(name: str, count: int, device: str) -> float:
    """Return the peak memory of a contender in MB, over the start. Run it in a separate process."""
    work = {**CONTENDERS, LOOK: look}[name](random_images(count, device))
    start = resident(device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() / 1e6 - start
    work()
    # A process inherits the peak of getrusage from its parent, so this reads the peak of its own memory.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6 - start


def discs(count: int, size: int) -> Tensor:
    """Return the same mask for each image, a disc in its middle: ``(count, size, size)`` bool."""
    rows = torch.arange(size)[:, None] - size / 2
    return (rows**2 + rows.T**2 < (size / 4) ** 2).expand(count, -1, -1)


def look(images: Tensor) -> Work:
    """Make the evaluator of masked images at one layer, and ask it a turn of the interventions."""
    probe = ProbeSet(images.cpu(), [i % 4 for i in range(len(images))], discs(len(images), images.shape[2]))
    cam = GradCAM(network(images.device), LAST)

    def work() -> None:
        evaluator = Evaluator(cam, probe)
        evaluator.merge([evaluator.compute_shard(turn=Turn(0))])

    return work


def growth(calls: int, device: str) -> float:
    """Return the growth of memory in MB between the 20th call and the last one."""
    cam, images = GradCAM(network(device)), torch.rand(2, 3, 96, 96, device=device)
    for _ in range(20):
        cam(images)
    start = resident(device)
    for _ in range(calls):
        cam(images)
    return resident(device) - start


def fail(_: str, error: Exception) -> None:
    """Raise the error of a writer, of which a training would only warn."""
    raise error


def event_file(entries: int = 10) -> float:
    """Return the kB per image, layer and entry in the event file of a run: 16 photographs, 13 layers, all defaults."""
    probe = ProbeSet(photographs(16), torch.arange(16) % 8)
    evaluator, state = Evaluator(GradCAM(network()), probe), RunState()
    shard = evaluator.compute_shard()

    with tempfile.TemporaryDirectory() as folder:
        writer = TensorBoardWriter(TensorBoardLogger(folder, name="", version=""))
        log = RunLogger(evaluator, state, [writer], Tags(), report=fail, style=GradCAMCallback().style)
        log.start()
        for epoch in range(entries):
            log.log(evaluator.merge([shard], state.previous), epoch, epoch)
        log.finish()
        size = sum(path.stat().st_size for path in Path(folder).glob("events*"))
    return size / 1e3 / (len(probe) * len(evaluator.layers) * entries)


def multiplies_bf16(device: torch.device) -> bool:
    """Return True if the device has instructions for bfloat16. Without them it is emulated, which is slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = Path("/proc/cpuinfo").read_text()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def in_own_process(*arguments: str, times: int = 1) -> float:
    """Run this file in separate processes, and return the median of the numbers that they print."""
    command = [sys.executable, __file__, *arguments]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(times)]
    return statistics.median(float(done.stdout.split()[-1]) for done in runs)


def describe_machine(*packages: str) -> str:
    """Return the versions of some packages, the processor and the number of threads."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    gpu = f" {torch.cuda.get_device_name()};" if torch.cuda.is_initialized() else ""
    return (
        f"Python {platform.python_version()}, {versions};{gpu}{model.partition(':')[2]}, "
        f"{torch.get_num_threads()} threads."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmark.md"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peak", nargs=2, metavar=("CONTENDER", "IMAGES"), help=argparse.SUPPRESS)
    parser.add_argument("--growth", type=int, metavar="CALLS", help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.peak:
        print(peak_over_start(args.peak[0], int(args.peak[1]), "cpu"))
        return
    if args.growth:
        print(growth(args.growth, "cpu"))
        return
    chunk = 8 if args.device == "cpu" else 32
    seconds = timed(random_images(chunk, args.device), args.rounds)

    def peak(name: str, count: int) -> float:
        # The tensors of a GPU are counted, so they need no process of their own.
        on_cpu = args.device == "cpu"
        return in_own_process("--peak", name, str(count), times=3) if on_cpu else peak_over_start(name, count, "cuda")

    memory = {name: peak(name, chunk) for name in (OWN, "torch-cam", "forward alone")}
    last, masked = peak(f"{OWN}, {LAST}", chunk), peak(LOOK, 64)
    many, few = peak(OWN, 256), peak(OWN, 32)
    grown = in_own_process("--growth", "200") if args.device == "cpu" else growth(200, args.device)
    own = seconds[OWN]
    rows = [
        (f"time / limit ({chunk} images)", own / seconds["limit"], "<= 1.03"),
        (f"torch-cam's time (one pass for all 13 layers) / {OWN}'s", seconds["torch-cam"] / own, ">= 1.5"),
        (f"pytorch-grad-cam's time (one object per layer) / {OWN}'s", seconds["pytorch-grad-cam"] / own, ">= 20"),
        (f"captum's time / {OWN}'s", seconds["captum"] / own, ">= 10"),
        ("peak memory over the start / torch-cam's", memory[OWN] / memory["torch-cam"], "<= 0.55"),
        (f"{LAST} alone: time / one forward", seconds[f"{OWN}, {LAST}"] / seconds["forward alone"], "<= 1.15"),
        (f"{LAST} alone: memory / that forward's", last / memory["forward alone"], "<= 1.3"),
        (f"{LOOK} (64), {LAST}: memory / that forward's", masked / memory["forward alone"], "<= 1.3"),
        ("memory of 256 probe images / of 32", many / few, "<= 1.1"),
        ("growth of memory over 200 calls, MB", grown, "none"),
        ("kB in the event file per image, layer and entry of a run of ten", event_file(), "<= 4"),
        *(
            (
                f"{layers}, blocks 1-4 frozen: a later epoch / the first (16 images)",
                frozen_base(name, args.rounds, args.device),
                goal,
            )
            for layers, name, goal in (("block5", "block5", "<= 0.35"), ("all layers", "all", "<= 0.7"))
        ),
    ]
    if BF16 in seconds:
        rows.append(("time with bf16 / limit", seconds[BF16] / seconds["limit"], "<= 0.62"))
    lines = [
        "| what, VGG16 at 224 x 224, 13 layers | measured | goal |",
        "|---|---|---|",
        *(f"| {what} | {value:.2f} | {goal} |" for what, value, goal in rows),
        "",
        f"Seconds for {chunk} images: " + "; ".join(f"{name} {taken:.3g}" for name, taken in seconds.items()) + ".",
        "",
        "Peak memory over the start, MB: "
        + "; ".join(f"{name} {taken:.0f}" for name, taken in memory.items())
        + f"; {OWN}, {LAST} {last:.0f}; {LOOK} {masked:.0f}; {OWN}, 32 images {few:.0f}; {OWN}, 256 images {many:.0f}.",
        "",
        *([] if BF16 in seconds else ["bf16 is not measured: this processor has no instructions for it.", ""]),
        describe_machine("torch", "torchvision", "torchcam", "grad-cam", "captum", "pytorch-lightning"),
    ]
    table = "\n".join(lines)
    print(table)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    title, command = "Benchmark", "make bench"
    if args.device != "cpu":
        title, command = "Benchmark on a GPU", f"python benchmarks/engine.py --device {args.device}"
    args.out.write_text(f"# {title}\n\nMade by `{command}`.\n\n{table}\n")


if __name__ == "__main__":
    main()
