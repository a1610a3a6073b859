"""Two tests of reliability: trainings that are killed at any moment, and a long training that must not leak. For Linux.

    python benchmarks/reliability.py kill [--tries 50] [--write docs/reliability.md]
    python benchmarks/reliability.py leak [--epochs 500] [--write docs/reliability.md]

``kill`` trains in a subprocess, ends the subprocess with SIGKILL at a random moment, and checks all files that it left.
The next subprocess resumes from the newest checkpoint. After the last epoch a new run begins. Most phases of a training
are short, so the subprocess prints the phase that it begins. Each kill waits for one phase, in turn, and then for a
random part of the time that this phase takes. A kill is no power cut: data that the operating system has received stay.

``leak`` trains once with the callback and once without it, each in a separate process, and counts the objects that they
hold. ``--write`` writes the table into a file, between the marks ``<!-- kill -->`` and ``<!-- /kill -->`` (or
``leak``).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.models.vgg import make_layers
from toys import CLASSES, Item, Toys

from gradcam_callback import GradCAMCallback, GradCAMWarning, ProbeSet
from gradcam_callback.run import Tags, tags
from gradcam_callback.writers import HISTORY, MANIFEST, Manifest

# VGG16's 13 convolutions, with few channels.
THIN = [8, 8, "M", 12, 12, "M", 16, 16, 16, "M", 24, 24, 24, "M", 24, 24, 24, "M"]
# The number of epochs of a run whose processes are killed.
EPOCHS = 8
PHASES = ("start-up", "training", "maps", "validation", "scalars", "images", "checkpoint", "last images", "exit")
# Bytes of a record of an event file besides its data: its length, and two checksums.
FRAMING = 16
# After this epoch nothing may grow. By then the strips have dropped every second epoch twice.
WARM = 100


class ThinVGG(pl.LightningModule):
    """A VGG16 with few channels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = make_layers(THIN, batch_norm=True)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, len(CLASSES))
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def fit(folder: Path, epochs: int, callbacks: list[pl.Callback], toys: Toys, resume: str | None = None) -> None:
    """Train, and log into ``folder``.

    Args:
        folder: of the TensorBoard run.
        epochs: the number of epochs.
        callbacks: of the Trainer.
        toys: for training and validation.
        resume: a checkpoint, or None for a new run.
    """
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("always", category=GradCAMWarning)
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=TensorBoardLogger(folder, name="", version=""),
        callbacks=callbacks,
        enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    train: DataLoader[Item] = DataLoader(toys, batch_size=6, shuffle=True)
    trainer.fit(ThinVGG(), train, DataLoader(toys, batch_size=6), ckpt_path=resume, weights_only=True)


# The process that is killed.


def say(*words: object) -> None:
    """Print a line for the parent: the time on the clock that both share, and some words."""
    print(time.monotonic(), *words, sep="\t", flush=True)


class Before(pl.Callback):
    """A callback before `GradCAMCallback` in the Trainer. It says which phase begins."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        say("training", trainer.current_epoch)

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        say("maps")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        say("scalars")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        say("images")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        say("last images")


class After(pl.Callback):
    """A callback after `GradCAMCallback` in the Trainer. It says what was logged, and which phase begins."""

    def __init__(self, watch: GradCAMCallback) -> None:
        self.watch = watch

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        say("began", [entry["epoch"] for entry in self.watch.history])

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        say("validation")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        say("flushed", self.watch.history[-1]["step"], self.watch.history[-1]["epoch"])
        say("checkpoint")


def victim(folder: Path, resume: str | None) -> None:
    """Train until the parent kills this process."""
    say("start-up")
    toys = Toys(6, bias=1.0, seed=0, size=64)
    watch = GradCAMCallback(ProbeSet.from_dataset(toys, per_class=2), save_dir=folder / "focus")
    # All checkpoints are kept, so that an earlier one is there if the newest is cut short.
    saving = ModelCheckpoint(folder / "checkpoints", save_last=True, save_top_k=-1)
    fit(folder, EPOCHS, [Before(), watch, After(watch), saving], toys, resume)
    say("exit")


# The process that kills it, and checks the files.


@dataclass
class Run:
    """A training over all its processes.

    Attributes:
        folder: of its files.
        flushed: step -> how often a process said that the entry of this step is written.
        resume: the checkpoint from which the next process resumes.
        epochs: in the history of this checkpoint.
    """

    folder: Path
    flushed: Counter[int] = field(default_factory=Counter)
    resume: Path | None = None
    epochs: list[int] = field(default_factory=list)


def tags_of_an_entry(names: Sequence[str]) -> list[str]:
    """Return the tags of the images and texts that each entry has by default.

    Args:
        names: of the probe images.
    """
    tag = Tags()
    images = [tag(tags.PROBE, name) for name in names]
    return [*images, tag(tags.OVERVIEW), tag(tags.COUNTERFACTUALS), tag(tags.VERDICT)]


class Kills:
    """The killed processes, and all that is found on the disk after them.

    Args:
        folder: for the runs.
        seed: of the moments.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.chance = folder, random.Random(seed)
        self.failures: list[str] = []
        self.counts: Counter[str] = Counter()
        self.phases: Counter[str] = Counter()
        self.no_scalars: set[tuple[Path, int]] = set()
        # The seconds that each phase took so far. The first value is a guess, which soon has no weight.
        self.lengths: defaultdict[str, list[float]] = defaultdict(lambda: [0.1])
        self.run = self.new_run()

    def new_run(self) -> Run:
        """Begin a run."""
        self.counts["runs"] += 1
        folder = self.folder / str(self.counts["runs"])
        (folder / "tmp").mkdir(parents=True)
        return Run(folder)

    def demand(self, condition: bool, what: str) -> None:
        """Note a failure if the condition is False."""
        if not condition:
            self.failures.append(f"kill {self.phases.total()}, run {self.run.folder.name}: {what}")

    def once(self, phase: str) -> bool:
        """Start a process, and kill it in a phase or soon after it.

        Returns:
            False if the process ended before.
        """
        command = [sys.executable, __file__, "victim", str(self.run.folder)]
        command += [str(self.run.resume)] if self.run.resume else []
        wanted = self.chance.randint(1, 2) if phase in PHASES[1:-2] else 1
        lines: list[list[str]] = []
        # Lightning first writes a checkpoint into the folder for temporary files.
        environment = os.environ | {"TMPDIR": str(self.run.folder / "tmp")}
        with (
            (self.run.folder / "stderr.txt").open("w+") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip("\n").split("\t"))
                wanted -= lines[-1][1] == phase
                if not wanted:
                    time.sleep(self.chance.uniform(0, 1) * statistics.median(self.lengths[phase][-9:]))
                    process.kill()
                    break
            lines += [line.rstrip("\n").split("\t") for line in process.stdout]
            process.wait()
            errors.seek(0)
            warned = errors.read()
        if process.returncode not in (0, -9):
            sys.exit(f"Expected a process that ends or is killed, but {command} failed by itself:\n{warned}")
        self.demand("GradCAMWarning" not in warned, f"the callback lost something:\n{warned}")
        begun = [(float(line[0]), line[1]) for line in lines if line[1] in PHASES]
        for (start, name), (end, _) in zip(begun, begun[1:], strict=False):
            self.lengths[name].append(end - start)
        killed = process.returncode == -9
        if killed:
            self.phases[begun[-1][1]] += 1
        self.check(lines)
        if killed and begun[-1][1] in ("maps", "validation", "scalars", "images"):
            self.counts["entries under way"] += 1
        return killed

    def check(self, lines: list[list[str]]) -> None:
        """Check all files after a process.

        Args:
            lines: that the process printed.
        """
        run, said = self.run, defaultdict(list)
        for _, word, *rest in lines:
            said[word].append(rest)
        if run.resume is not None and said["began"]:
            resumed = json.loads(said["began"][0][0])
            self.counts["resumed"] += 1
            self.demand(resumed == run.epochs, f"resumed with epochs {resumed}, the checkpoint had {run.epochs}")
        logged = [int(epoch) for _, epoch in said["flushed"]]
        expected = list(range(len(run.epochs), len(run.epochs) + len(logged)))
        self.demand(logged == expected, f"logged epochs {logged} after {run.epochs}")
        run.flushed.update(int(step) for step, _ in said["flushed"])

        self.check_files(begun=bool(said["began"]), entries=len(run.epochs) + len(logged))
        self.check_events()
        finished = max((int(epoch) for (epoch,) in said["training"]), default=0)
        self.check_checkpoints(finished)
        if logged:
            self.counts["entries done again"] += logged[-1] + 1 - len(run.epochs)
        if run.resume is None or len(run.epochs) == EPOCHS:
            self.counts["begun anew"] += run.resume is None
            self.run = self.new_run()

    def check_files(self, begun: bool, entries: int) -> None:
        """Check the files of ``save_dir``.

        Args:
            begun: True if the training has begun, so that there must be a manifest.
            entries: that there must be at least in the history.
        """
        folder = self.run.folder / "focus"
        if begun or (folder / MANIFEST).exists():
            try:
                Manifest.from_json((folder / MANIFEST).read_text())
            except (OSError, ValueError) as error:
                self.demand(False, f"{MANIFEST}: {error!r}")
        if entries or (folder / HISTORY).exists():
            try:
                history = json.loads((folder / HISTORY).read_text())["history"]
                epochs = [entry["epoch"] for entry in history]
                complete = epochs == list(range(len(epochs))) and len(epochs) >= entries
                self.demand(complete, f"{HISTORY} has epochs {epochs}, there were {entries}")
            except (OSError, ValueError, KeyError) as error:
                self.demand(False, f"{HISTORY}: {error!r}")
        images = sorted(folder.rglob("*.jpg"), key=lambda path: path.stat().st_mtime_ns)
        for path in images[-1:]:  # only the image that was being written can be cut
            try:
                Image.open(path).load()
            except OSError:
                self.counts["images cut"] += 1

    def check_events(self) -> None:
        """Check that the event files are readable, and hold every entry that was flushed."""
        there: Counter[tuple[str, int]] = Counter()
        for path in self.run.folder.glob("events.out.tfevents.*"):
            size = 0
            for record in RawEventFileLoader(str(path)).Load():
                event = Event.FromString(record)
                there.update({(value.tag, event.step) for value in event.summary.value})
                size += len(record) + FRAMING
            # The reader stops silently at a record that it cannot read. Only a record that was cut may be unreadable.
            rest = path.read_bytes()[size:]
            if rest:
                self.counts["event files cut"] += 1
            if len(rest) >= 12:
                (length,), (checksum,) = struct.unpack("<Q", rest[:8]), struct.unpack("<I", rest[8:12])
                cut = masked_crc32c(rest[:8]) == checksum and len(rest) < length + FRAMING
                self.demand(cut, f"{path.name} is damaged at byte {size} of {size + len(rest)}")
        if not self.run.flushed:
            return
        manifest = Manifest.from_json((self.run.folder / "focus" / MANIFEST).read_text())
        tag, expected = Tags(), tags_of_an_entry(manifest.names)
        for step, times in self.run.flushed.items():
            missing = [name for name in expected if there[name, step] < times]
            self.demand(not missing, f"step {step} was flushed {times} times, but lacks {missing}")
            if there[tag(tags.PROBE_ACCURACY), step] < times:
                self.no_scalars.add((self.run.folder, step))

    def check_checkpoints(self, finished: int) -> None:
        """Find the checkpoint from which the next process resumes.

        Args:
            finished: the number of epochs whose checkpoint Lightning has saved.
        """
        run, unreadable = self.run, 0
        saved = sorted(run.folder.glob("checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
        for path in reversed(saved):
            try:
                checkpoint = torch.load(path, weights_only=True)
            except Exception:
                unreadable += 1
                continue
            (state,) = [value for key, value in checkpoint["callbacks"].items() if key.startswith("GradCAMCallback")]
            run.resume, run.epochs = path, [entry["epoch"] for entry in state["history"]]
            break
        self.counts["checkpoints unreadable"] += unreadable
        self.demand(
            unreadable < 2 and (unreadable < len(saved) or not finished),
            f"{unreadable} unreadable checkpoints",
        )
        whole = run.epochs == list(range(len(run.epochs))) and len(run.epochs) >= finished
        self.demand(whole, f"the checkpoint has epochs {run.epochs}, but {finished} were finished")
        for partial in (run.folder / "tmp").glob("tmp*"):
            self.counts["checkpoints half written"] += partial.is_file()
            partial.unlink() if partial.is_file() else None

    def table(self) -> list[str]:
        """Format the counts as lines of Markdown."""
        count = self.counts
        rows = [("processes killed", self.phases.total())]
        rows += [(f"- during {phase}", self.phases[phase]) for phase in PHASES]
        rows += [
            (f"runs of {EPOCHS} epochs begun", count["runs"]),
            ("processes that resumed from the newest checkpoint, with the complete history", count["resumed"]),
            ("processes killed before the first checkpoint, so that the run began anew", count["begun anew"]),
            ("checkpoints that could not be loaded", count["checkpoints unreadable"]),
            ("half-written checkpoints in the folder for temporary files", count["checkpoints half written"]),
            ("event files that end in a record cut short", count["event files cut"]),
            ("other damage: event files, missing entries, unreadable JSON", len(self.failures)),
            ("entries lost in whole or in part, as the kill came during them", count["entries under way"]),
            ("entries with images but without scalars in the event file", len(self.no_scalars)),
            ("entries logged again, as no checkpoint had them yet", count["entries done again"]),
            ("images cut short in `save_dir`", count["images cut"]),
        ]
        return ["| | |", "|---|---:|", *(f"| {what} | {number} |" for what, number in rows)]


# The long training.


class Sampler(pl.Callback):
    """A callback that measures the process after each epoch, and its memory every few epochs.

    Args:
        watch: the callback under test; None in the training without it.
        every: the number of epochs between two measurements of the memory.

    Attributes:
        seconds: of each epoch.
        samples: epoch -> name -> value.
    """

    def __init__(self, watch: GradCAMCallback | None, every: int) -> None:
        self.watch, self.every = watch, every
        self.seconds: list[float] = []
        self.samples: dict[int, dict[str, float]] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds.append(time.perf_counter() - self.began)
        epoch = trainer.current_epoch + 1
        descriptors, threads = (len(os.listdir(f"/proc/self/{kind}")) for kind in ("fd", "task"))
        sample: dict[str, float] = {"file descriptors": descriptors, "threads": threads}
        self.samples[epoch] = sample
        sample["hooks on the model"] = sum(
            len(getattr(module, name))
            for module in pl_module.modules()
            for name in vars(module)
            if name.endswith("_hooks")
        )
        sample["entries of the history"] = len(self.watch.history) if self.watch else 0
        if epoch % self.every == 0:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            sample["resident MB"] = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
            of_strips, sample["history MB"] = 0, 0.0
            if self.watch:
                of_strips = tensors_of_strips(self.watch)
                sample["history MB"] = size_of(self.watch.state_dict()["history"]) / 1e6
            tensors = sum(issubclass(type(one), Tensor) for one in gc.get_objects())
            sample["tensors besides the strips' maps"] = tensors - of_strips


def tensors_of_strips(watch: GradCAMCallback) -> int:
    """Count the tensors that the strips keep. In a run of any length these are the maps of 25 entries at most."""
    state = watch.state_dict()
    snapshots = [*state["snapshots"], state["last"]]
    # The last entry may be among the kept ones, so tensors are counted by identity.
    return len(
        {id(one) for kept in snapshots for by_layer in (kept["maps"], kept["vmax"]) for one in by_layer.values()}
    )


def size_of(history: list[dict[str, float]]) -> int:
    """Return the bytes of the list, its dicts, and their keys and values, each object once."""
    objects = {id(one): one for entry in history for pair in entry.items() for one in pair}
    return sum(map(sys.getsizeof, [history, *history, *objects.values()]))


def patient(folder: Path, epochs: int, with_callback: bool) -> None:
    """Train, and print the samples as JSON."""
    toys = Toys(6, bias=1.0, seed=0, size=64)
    watch = GradCAMCallback(ProbeSet.from_dataset(toys, per_class=2)) if with_callback else None
    sampler = Sampler(watch, every=50 if epochs > WARM else max(1, epochs // 10))
    fit(folder, epochs, [watch, sampler] if watch else [sampler], toys)
    print(json.dumps({"seconds": sampler.seconds, "samples": sampler.samples}))


def leak(epochs: int) -> tuple[list[str], list[str]]:
    """Train with and without the callback.

    Returns:
        The lines of the table, and the values that have grown but must not.
    """
    measured, failures = [], []
    rows: defaultdict[str, list[str]] = defaultdict(list)
    for kind in ("with", "without"):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "patient", folder, str(epochs), kind]
            found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])
        samples = {int(epoch): sample for epoch, sample in found["samples"].items()}
        whole = [epoch for epoch, sample in samples.items() if "resident MB" in sample]
        start = WARM if epochs > WARM else whole[0]
        first, last = samples[start], samples[whole[-1]]
        for name in first:
            rows[name].append(f"{first[name]:.4g} → {last[name]:.4g}")
        grown = last["resident MB"] - first["resident MB"]
        history = last["history MB"] - first["history MB"]
        rows["resident MB per 100 epochs"].append(f"{100 * grown / max(1, whole[-1] - start):+.2f}")
        seconds = found["seconds"]
        span = min(50, len(seconds) // 2)
        early, late = statistics.median(seconds[1 : span + 1]), statistics.median(seconds[-span:])
        rows[f"seconds per epoch, the first and the last {span}"].append(f"{early:.3f} → {late:.3f}")
        measured.append((kind, start, whole[-1]))
        if kind == "with":
            names = "file descriptors", "threads", "hooks on the model", "tensors besides the strips' maps"
            failures += [f"{name}: {first[name]} → {last[name]}" for name in names if last[name] > first[name]]
            if grown - history > 10:
                failures.append(f"memory grew by {grown:.1f} MB, the history by {history:.1f} MB")
    _, start, end = measured[0]
    table = [f"| epoch {start} → epoch {end} | with the callback | without |", "|---|---:|---:|"]
    return [*table, *(f"| {name} | {' | '.join(values)} |" for name, values in rows.items())], failures


def write(file: Path, name: str, text: str) -> None:
    """Write a text between the marks ``<!-- name -->`` and ``<!-- /name -->`` of a file.

    Raises:
        ValueError: the file has no such marks.
    """
    old, opening, closing = file.read_text(), f"<!-- {name} -->", f"<!-- /{name} -->"
    if opening not in old or closing not in old.split(opening, 1)[1]:
        raise ValueError(
            f"Expected the marks {opening} and {closing}, but {str(file)!r} does not have them in this order. Add them "
            "around the place for the table."
        )
    before, rest = old.split(opening, 1)
    file.write_text(f"{before}{opening}\n{text}\n{closing}{rest.split(closing, 1)[1]}")


def main() -> None:
    if sys.argv[1:2] == ["victim"]:
        return victim(Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
    if sys.argv[1:2] == ["patient"]:
        return patient(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "with")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="name", required=True)
    killing, leaking = commands.add_parser("kill"), commands.add_parser("leak")
    killing.add_argument("--tries", type=int, default=50)
    killing.add_argument("--seed", type=int, default=0)
    leaking.add_argument("--epochs", type=int, default=500)
    for command in (killing, leaking):
        command.add_argument("--write", type=Path, metavar="FILE")
    args = parser.parse_args()
    if args.write:
        write(args.write, args.name, "(being measured)")  # missing marks are then an error before the long work
    began = time.monotonic()
    if args.name == "kill":
        with tempfile.TemporaryDirectory() as folder:
            kills, aims = Kills(Path(folder), args.seed), PHASES[:-1]
            for number in range(args.tries):
                while not kills.once(aims[number % len(aims)]):
                    pass
        table, failures = kills.table(), kills.failures
        call = f"kill --tries {args.tries} --seed {args.seed}"
    else:
        table, failures = leak(args.epochs)
        call = f"leak --epochs {args.epochs}"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "pytorch-lightning", "tensorboard"))
    note = f"`python benchmarks/reliability.py {call}`, {(time.monotonic() - began) / 60:.0f} minutes on "
    note += f"{os.cpu_count()} CPU cores; Python {platform.python_version()}, {versions}."
    text = "\n".join([*table, "", note])
    print(text)
    if failures:
        sys.exit("\n".join(["", "Failed:", *failures]))
    if args.write:
        write(args.write, args.name, text)


if __name__ == "__main__":
    main()
