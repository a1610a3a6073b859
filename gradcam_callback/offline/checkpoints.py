"""Checkpoints of a training that nobody watched: the same probe set through each of them, afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from tqdm import tqdm

from gradcam_callback.drawing.canvas import Style
from gradcam_callback.formatting import percent
from gradcam_callback.maps.gradcam import GradCAM
from gradcam_callback.measures.verdict import Verdict
from gradcam_callback.offline.loading import read_progress
from gradcam_callback.probes.probe_set import ProbeSet
from gradcam_callback.run.evaluate import Evaluator
from gradcam_callback.run.journal import Journal
from gradcam_callback.run.record import Record
from gradcam_callback.run.tags import tag
from gradcam_callback.writers.sinks import FolderWriter, Writers
from gradcam_callback.writers.tensorboard import TensorBoardWriter

SUFFIXES = (".ckpt", ".pt", ".pth")


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights, and the ``epoch`` and the ``step`` of the training that it is from."""

    path: Path
    epoch: int
    step: int


@dataclass(frozen=True)
class Look:
    """What a checkpoint's network showed.

    Attributes:
        layer: the deepest of the chosen ones.
        entry: ``"epoch"``, ``"step"``, and every scalar under its tag.
        verdict: None without masks.
    """

    checkpoint: Checkpoint
    layer: str
    entry: dict[str, float]
    verdict: Verdict | None


def find_checkpoints(paths: Sequence[Path]) -> list[Checkpoint]:
    """Checkpoints in the order of their training, of each step one.

    Lightning's say their epoch and step, which is one more than that at which it logs; state dicts do not, and are
    counted from 0 in the order of the numbers in their names, ``epoch9.pt`` before ``epoch10.pt``.

    Args:
        paths: files, and folders that hold some anywhere below them.

    Raises:
        ValueError: there are none, one cannot be read, or some say their step and others do not.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from gradcam_callback.offline.checkpoints import find_checkpoints
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("epoch10.pt", "epoch9.pt"):
        ...     torch.save({"weight": torch.zeros(1)}, folder / name)
        >>> [(one.path.name, one.step) for one in find_checkpoints([folder])]
        [('epoch9.pt', 0), ('epoch10.pt', 1)]
    """
    files: list[Path] = []
    for path in paths:
        found = sorted(below for below in path.glob("**/*") if below.suffix in SUFFIXES) if path.is_dir() else [path]
        if not found:
            raise ValueError(f"{str(path)!r} holds no checkpoint. Expected files that end in {', '.join(SUFFIXES)}.")
        files += [file for file in found if file not in files]
    files.sort(key=lambda file: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(file))])
    progress = [read_progress(file) for file in tqdm(files, "reading", disable=None)]
    if all(when is None for when in progress):
        return [Checkpoint(file, place, place) for place, file in enumerate(files)]
    of_step: dict[int, Checkpoint] = {}
    for file, when in zip(files, progress, strict=True):
        if when is None:
            raise ValueError(
                f"{str(file)!r} does not say the step of the training that it is from, but others do. Expected "
                "checkpoints of Lightning's alone, or state dicts alone."
            )
        # Lightning's last.ckpt is mostly a copy of another.
        of_step.setdefault(when[1], Checkpoint(file, *when))
    return [of_step[step] for step in sorted(of_step)]


def watch_checkpoints(
    checkpoints: Sequence[Checkpoint],
    load: Callable[[Path], nn.Module],
    probe: ProbeSet,
    out: Path,
    *,
    target_layers: str | Sequence[str] = "all",
    target: str | int = "label",
    style: Style | None = None,
    output_transform: Callable[[Any], Tensor] | None = None,
    reshape_transform: str | Callable[[Tensor], Tensor] | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
) -> list[Look]:
    """Write what `GradCAMCallback` would have written of a training, from its checkpoints.

    ``out`` is afterwards a TensorBoard run with the pictures and the scalars, each at its checkpoint's step, and a
    folder of the same pictures as files, ``history.json`` and the raw maps, of which `gradcam_callback.offline.report` makes a
    page.

    Args:
        load: makes the model of a checkpoint; all have the same layers.
        target_layers: this and the others as in `GradCAMCallback`.
        device: where the models run; None takes a GPU where there is one.

    Returns:
        One look per checkpoint. Each verdict is of its checkpoint alone.

    Raises:
        ValueError: no checkpoints; one that the layers or the probe set do not fit; ``out`` holds another run.
        OSError: ``out`` cannot be written to.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from gradcam_callback import ProbeSet
        >>> from gradcam_callback.offline.checkpoints import find_checkpoints, watch_checkpoints
        >>> class Net(torch.nn.Sequential):
        ...     def __init__(self):
        ...         super().__init__(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 30 * 30, 2))
        >>> def load(path):
        ...     net = Net()
        ...     net.load_state_dict(torch.load(path))
        ...     return net
        >>> folder = Path(tempfile.mkdtemp())
        >>> torch.save(Net().state_dict(), folder / "epoch0.pt")
        >>> probe = ProbeSet(torch.rand(2, 3, 32, 32), [0, 1])
        >>> looks = watch_checkpoints(find_checkpoints([folder]), load, probe, folder / "focus", target_layers="0")
        >>> [look.layer for look in looks], 0 <= looks[0].entry["gradcam/entropy/0"] <= 1
        (['0'], True)
        >>> sorted(path.name for path in (folder / "focus" / "layer").iterdir())
        ['0']
    """
    if not checkpoints:
        raise ValueError("No checkpoints came. Expected one or more, such as find_checkpoints([folder]) gives.")
    logger = TensorBoardLogger(out.parent, name=out.name, version="")
    sinks = Writers([FolderWriter(out, maps=True), TensorBoardWriter(logger)], _fail)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    record, looks = Record(), []
    observer: Evaluator | None = None
    journal: Journal | None = None
    for checkpoint in tqdm(checkpoints, "checkpoints", disable=None):
        cam = GradCAM(
            load(checkpoint.path).to(device),
            target_layers,
            output_transform=output_transform,
            reshape_transform=reshape_transform,
        )
        if observer is None or journal is None:
            observer = Evaluator(cam, probe, target, seed=seed)
            journal = Journal(probe, observer.layers, record, sinks, style=style or Style())
            journal.begin()
        observer.cam = cam
        seen = observer.look()
        verdict = journal.keep(seen, checkpoint.epoch, checkpoint.step, alone=True)
        journal.write(seen, verdict, strips=False)
        scalars = {name: value for name, value in record.history[-1].items() if name != "step"}
        logger.log_metrics(scalars, checkpoint.step)
        looks.append(Look(checkpoint, observer.layers[-1], record.history[-1], verdict))
    assert journal is not None
    journal.finish()
    logger.experiment.close()
    return looks


def table(looks: Sequence[Look]) -> str:
    """A line per checkpoint: which it is, its accuracies, and its lift at the deepest layer, where there are masks."""
    layer = looks[0].layer
    columns: list[tuple[str, str, Callable[[float], str]]] = [
        ("accuracy", tag("probe_accuracy"), percent),
        ("after the swap", tag("swap_accuracy"), percent),
        (f"lift at {layer}", tag("lift", layer), "{:.2f}".format),
    ]
    columns = [column for column in columns if column[1] in looks[0].entry]
    rows = [["epoch", "step", *(heading for heading, _, _ in columns), "checkpoint"]]
    for look in looks:
        figures = [write(look.entry[name]) for _, name, write in columns]
        rows.append([str(look.checkpoint.epoch), str(look.checkpoint.step), *figures, str(look.checkpoint.path)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[*map(str.rjust, row[:-1], widths), row[-1]] for row in rows]
    return "\n".join("   ".join(line) for line in lines)


def _fail(sink: str, error: Exception) -> None:
    raise error
