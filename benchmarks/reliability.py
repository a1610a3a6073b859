"""What a kill leaves of a training with the callback, and whether a long training leaks. For Linux.

    python benchmarks/reliability.py kill [--tries 50] [--write docs/reliability.md]
    python benchmarks/reliability.py leak [--epochs 500] [--write docs/reliability.md]

``kill`` trains in a subprocess, ends that with SIGKILL at a random moment, checks everything that it left on the disk,
and goes on from its newest checkpoint, until the run is through and a new one begins. The moments are spread over what
a training does, since most of it is short: the subprocess says what it begins, and a kill waits for one of these
phases, chosen in turn, and then a random part of the time that this takes. A kill is no power cut: what the process
has given to the operating system stays.

``leak`` trains once with the callback and once without it, each in a process of its own, and counts what they hold.
``--write`` replaces what stands between ``<!-- kill -->`` and ``<!-- /kill -->`` (or ``leak``) in a file by the table.
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
from gradcam_callback.run.tags import tag
from gradcam_callback.writers.sinks import Manifest

# VGG16's 13 convolutions, with few channels.
THIN = [8, 8, "M", 12, 12, "M", 16, 16, 16, "M", 24, 24, 24, "M", 24, 24, 24, "M"]
EPOCHS = 8  # of a run whose processes are killed
PHASES = ("start-up", "training", "maps", "validation", "pictures", "scalars", "checkpoint", "last pictures", "exit")
FRAMING = 16  # bytes of a record of an event file that are not its data: its length, and two checksums
WARM = 100  # epochs after which nothing is to grow; by then the strips' frames have been thinned out twice


class ThinVGG(pl.LightningModule):
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


# What is killed.


def say(*words: object) -> None:
    """A line to the parent: what begins, when, and more of it. Its clock is the parent's."""
    print(time.monotonic(), *words, sep="\t", flush=True)


class Before(pl.Callback):
    """Says what the Grad-CAM callback, which comes behind it in the Trainer, is about to do."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        say("training", trainer.current_epoch)

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        say("maps")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        say("pictures")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        say("last pictures")


class After(pl.Callback):
    """Says what the Grad-CAM callback, which comes before it, has done, and that Lightning's checkpoint comes next."""

    def __init__(self, watch: GradCAMCallback) -> None:
        self.watch = watch

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        say("began", [entry["epoch"] for entry in self.watch.history])

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        say("validation")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        say("flushed", self.watch.history[-1]["step"], self.watch.history[-1]["epoch"])
        say("scalars")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        say("checkpoint")


def victim(folder: Path, resume: str | None) -> None:
    say("start-up")
    toys = Toys(6, bias=1.0, seed=0, size=64)
    watch = GradCAMCallback(ProbeSet.from_dataset(toys, per_class=2), save_dir=folder / "focus")
    # Every epoch's and the last, so that an earlier one is there whatever becomes of the one that is being written.
    saving = ModelCheckpoint(folder / "checkpoints", save_last=True, save_top_k=-1)
    fit(folder, EPOCHS, [Before(), watch, After(watch), saving], toys, resume)
    say("exit")


# What kills it, and looks at what is left.


@dataclass
class Run:
    """A training, over all its processes: what these said that it has, and where the next one goes on."""

    folder: Path
    flushed: Counter[int] = field(default_factory=Counter)
    resume: Path | None = None
    epochs: list[int] = field(default_factory=list)


class Kills:
    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.chance = folder, random.Random(seed)
        self.failures: list[str] = []
        self.counts: Counter[str] = Counter()
        self.phases: Counter[str] = Counter()
        self.no_scalars: set[tuple[Path, int]] = set()
        # Seconds that a phase took, as far as is known; the first guess is soon forgotten.
        self.lengths: defaultdict[str, list[float]] = defaultdict(lambda: [0.1])
        self.run = self.new_run()

    def new_run(self) -> Run:
        self.counts["runs"] += 1
        folder = self.folder / str(self.counts["runs"])
        (folder / "tmp").mkdir(parents=True)
        return Run(folder)

    def demand(self, true: bool, what: str) -> None:
        if not true:
            self.failures.append(f"kill {self.phases.total()}, run {self.run.folder.name}: {what}")

    def once(self, phase: str) -> bool:
        """Start a process, and kill it in that phase or soon after it. False: it came to its end before."""
        command = [sys.executable, __file__, "victim", str(self.run.folder)]
        command += [str(self.run.resume)] if self.run.resume else []
        wanted = self.chance.randint(1, 2) if phase in PHASES[1:-2] else 1
        lines: list[list[str]] = []
        # Lightning writes a checkpoint to the folder for temporary files first.
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
            said = errors.read()
        if process.returncode not in (0, -9):
            sys.exit(f"A process failed by itself, in {command}:\n{said}")
        self.demand("GradCAMWarning" not in said, f"the callback lost something:\n{said}")
        begun = [(float(line[0]), line[1]) for line in lines if line[1] in PHASES]
        for (start, name), (end, _) in zip(begun, begun[1:], strict=False):
            self.lengths[name].append(end - start)
        killed = process.returncode == -9
        if killed:
            self.phases[begun[-1][1]] += 1
        self.check(lines)
        if killed and begun[-1][1] in ("maps", "validation", "pictures"):
            self.counts["entries under way"] += 1
        return killed

    def check(self, lines: list[list[str]]) -> None:
        """Everything that is on the disk after the process that said these lines."""
        run, told = self.run, defaultdict(list)
        for _, word, *rest in lines:
            told[word].append(rest)
        if run.resume is not None and told["began"]:
            went_on = json.loads(told["began"][0][0])
            self.counts["resumed"] += 1
            self.demand(went_on == run.epochs, f"resumed with epochs {went_on}, the checkpoint had {run.epochs}")
        logged = [int(epoch) for _, epoch in told["flushed"]]
        expected = list(range(len(run.epochs), len(run.epochs) + len(logged)))
        self.demand(logged == expected, f"logged epochs {logged} after {run.epochs}")
        run.flushed.update(int(step) for step, _ in told["flushed"])

        self.check_files(begun=bool(told["began"]), entries=len(run.epochs) + len(logged))
        self.check_events()
        finished = max((int(epoch) for (epoch,) in told["training"]), default=0)
        self.check_checkpoints(finished)
        if logged:
            self.counts["entries done again"] += logged[-1] + 1 - len(run.epochs)
        if run.resume is None or len(run.epochs) == EPOCHS:
            self.counts["begun anew"] += run.resume is None
            self.run = self.new_run()

    def check_files(self, begun: bool, entries: int) -> None:
        folder = self.run.folder / "focus"
        if begun or (folder / "manifest.json").exists():
            try:
                Manifest.from_json((folder / "manifest.json").read_text())
            except (OSError, ValueError) as error:
                self.demand(False, f"manifest.json: {error!r}")
        if entries or (folder / "history.json").exists():
            try:
                history = json.loads((folder / "history.json").read_text())["history"]
                epochs = [entry["epoch"] for entry in history]
                complete = epochs == list(range(len(epochs))) and len(epochs) >= entries
                self.demand(complete, f"history.json has epochs {epochs}, there were {entries}")
            except (OSError, ValueError, KeyError) as error:
                self.demand(False, f"history.json: {error!r}")
        pictures = sorted(folder.rglob("*.jpg"), key=lambda path: path.stat().st_mtime_ns)
        for path in pictures[-1:]:  # at most the one that was being written can be cut
            try:
                Image.open(path).load()
            except OSError:
                self.counts["pictures cut"] += 1

    def check_events(self) -> None:
        there: Counter[tuple[str, int]] = Counter()
        for path in self.run.folder.glob("events.out.tfevents.*"):
            size = 0
            for record in RawEventFileLoader(str(path)).Load():
                event = Event.FromString(record)
                there.update({(value.tag, event.step) for value in event.summary.value})
                size += len(record) + FRAMING
            # The reader stops without a word at what it cannot read. Only a record that was cut may be that.
            rest = path.read_bytes()[size:]
            if rest:
                self.counts["event files cut"] += 1
            if len(rest) >= 12:
                (length,), (checksum,) = struct.unpack("<Q", rest[:8]), struct.unpack("<I", rest[8:12])
                cut = masked_crc32c(rest[:8]) == checksum and len(rest) < length + FRAMING
                self.demand(cut, f"{path.name} is damaged at byte {size} of {size + len(rest)}")
        if not self.run.flushed:
            return
        manifest = Manifest.from_json((self.run.folder / "focus" / "manifest.json").read_text())
        tags = [tag("probe", name) for name in manifest.names] + [tag("layer", layer) for layer in manifest.layers]
        for step, times in self.run.flushed.items():
            missing = [one for one in [*tags, tag("verdict")] if there[one, step] < times]
            self.demand(not missing, f"step {step} was flushed {times} times, but missing are {missing}")
            if there[tag("probe_accuracy"), step] < times:
                self.no_scalars.add((self.run.folder, step))

    def check_checkpoints(self, finished: int) -> None:
        """Where the next process goes on; of ``finished`` epochs Lightning has said that they are saved."""
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
        count = self.counts
        rows = [("processes killed", self.phases.total())]
        rows += [(f"- during {phase}", self.phases[phase]) for phase in PHASES]
        rows += [
            (f"runs of {EPOCHS} epochs begun", count["runs"]),
            ("resumed from the newest checkpoint, history complete", count["resumed"]),
            ("killed before the first checkpoint, so begun anew", count["begun anew"]),
            ("checkpoints that could not be loaded", count["checkpoints unreadable"]),
            ("checkpoints left half written among the temporary files", count["checkpoints half written"]),
            ("event files that end in a record cut short", count["event files cut"]),
            ("event files damaged elsewhere, flushed entries missing, JSON unreadable", len(self.failures)),
            ("entries under way when killed, lost whole or in part", count["entries under way"]),
            ("entries whose pictures are in the event file and whose scalars are not", len(self.no_scalars)),
            ("entries flushed but in no checkpoint yet, so done again", count["entries done again"]),
            ("pictures cut short in the `save_dir`", count["pictures cut"]),
        ]
        return ["| | |", "|---|---:|", *(f"| {what} | {number} |" for what, number in rows)]


# What a long training holds.


class Sampler(pl.Callback):
    """Measures the process after each epoch, and all that takes long every ``every`` epochs."""

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
            frames, sample["history MB"] = 0, 0.0
            if self.watch:
                # The strips keep the maps of 13 to 24 entries, and all of the last's, whatever the length of the run.
                kept = self.watch.state_dict()["evolution"]
                frames = sum(len(one["maps"]) + len(one["largest"]) for one in [*kept["kept"], kept["last"]])
                sample["history MB"] = size_of(self.watch.history) / 1e6
            tensors = sum(issubclass(type(one), Tensor) for one in gc.get_objects())
            sample["tensors besides the strips' maps"] = tensors - frames


def size_of(history: list[dict[str, float]]) -> int:
    """Bytes of the list, its dicts, and their keys and values, each object once."""
    objects = {id(one): one for entry in history for pair in entry.items() for one in pair}
    return sum(map(sys.getsizeof, [history, *history, *objects.values()]))


def patient(folder: Path, epochs: int, with_callback: bool) -> None:
    toys = Toys(6, bias=1.0, seed=0, size=64)
    watch = GradCAMCallback(ProbeSet.from_dataset(toys, per_class=2)) if with_callback else None
    sampler = Sampler(watch, every=50 if epochs > WARM else max(1, epochs // 10))
    fit(folder, epochs, [watch, sampler] if watch else [sampler], toys)
    print(json.dumps({"seconds": sampler.seconds, "samples": sampler.samples}))


def leak(epochs: int) -> tuple[list[str], list[str]]:
    """The table, and what grows that must not."""
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
    """Raises: ValueError: the file has no such markers."""
    old, opening, closing = file.read_text(), f"<!-- {name} -->", f"<!-- /{name} -->"
    if opening not in old or closing not in old.split(opening, 1)[1]:
        raise ValueError(f"{file} has no place for the table. Expected {opening} and, after it, {closing}.")
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
        write(args.write, args.name, "(being measured)")  # so that a lack of markers is said before, not after
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
