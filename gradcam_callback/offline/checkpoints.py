"""Watch a training afterwards: run the same probe set through each of its checkpoints."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from tqdm import tqdm

from gradcam_callback.drawing import Style
from gradcam_callback.exceptions import GradCAMWarning
from gradcam_callback.formatting import name_some, percent
from gradcam_callback.maps import GradCAMOptions, LateGradCAM
from gradcam_callback.measures import Verdict
from gradcam_callback.offline.loading import hold_same_weights, read_progress
from gradcam_callback.probes import ProbeSet
from gradcam_callback.run import Evaluator, RunLogger, RunState, Tags, Target, tags
from gradcam_callback.run.tags import join
from gradcam_callback.writers import FolderWriter, TensorBoardWriter, Writer
from gradcam_focus.records import by_number

SUFFIXES = (".ckpt", ".pt", ".pth")


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights, and the epoch and the step of the training at which it was saved."""

    path: Path
    epoch: int
    step: int


@dataclass(frozen=True)
class CheckpointResult:
    """The evaluation of one checkpoint.

    Attributes:
        checkpoint: the file.
        layer: the deepest of the chosen layers.
        entry: ``"epoch"``, ``"step"``, and every scalar under its tag.
        verdict: None without labels.
    """

    checkpoint: Checkpoint
    layer: str
    entry: dict[str, float]
    verdict: Verdict | None


def find_checkpoints(paths: str | Path | Sequence[str | Path]) -> list[Checkpoint]:
    """Find the checkpoints of a training and sort them by their step. A copy, such as ``last.ckpt``, counts once.

    A training that was resumed may have several folders. A warning names them, as they may also be of two trainings.

    Lightning's checkpoints hold their epoch and step; the step is one more than that of the logged scalars. State dicts
    hold neither. They are counted from 0, in the order of the numbers in their names: ``epoch9.pt`` before
    ``epoch10.pt``.

    Args:
        paths: files, and folders that hold files anywhere below them; or one of these.

    Raises:
        ValueError: no checkpoint is found, or a file cannot be read. Or only some of the files hold their step, or two
            with different weights hold the same one.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from gradcam_callback import find_checkpoints
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("epoch10.pt", "epoch9.pt"):
        ...     torch.save({"weight": torch.zeros(1)}, folder / name)
        >>> [(found.path.name, found.step) for found in find_checkpoints([folder])]
        [('epoch9.pt', 0), ('epoch10.pt', 1)]
    """
    files = _find_files([Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)])
    progress = [read_progress(file) for file in tqdm(files, "reading", disable=None)]
    if all(found is None for found in progress):
        _warn_of_several_folders(files)
        return [Checkpoint(file, place, place) for place, file in enumerate(files)]
    by_step: dict[int, Checkpoint] = {}
    for file, found in zip(files, progress, strict=True):
        if found is None:
            raise ValueError(
                f"Expected Lightning's checkpoints alone or state dicts alone, but got both: {str(file)!r} does not "
                "hold its step. Pass files of one kind."
            )
        epoch, step = found
        known = by_step.setdefault(step, Checkpoint(file, epoch, step)).path
        # Lightning's last.ckpt is mostly a copy of another checkpoint.
        if known != file and not hold_same_weights(known, file):
            raise ValueError(
                f"Expected checkpoints of one training, but {str(known)!r} and {str(file)!r} hold different weights at "
                f"step {step}. Look at each training by itself. Its report may show several: python -m "
                "gradcam_callback report FOLDER FOLDER."
            )
    found_by_step = [by_step[step] for step in sorted(by_step)]
    _warn_of_several_folders([found.path for found in found_by_step])
    return found_by_step


def watch_checkpoints(
    checkpoints: Sequence[Checkpoint],
    load: Callable[[Path], nn.Module],
    probe: ProbeSet,
    out: str | Path,
    *,
    target_layers: str | nn.Module | Sequence[str | nn.Module] = "all",
    target: Target = "label",
    views: str | Sequence[str] = tags.DEFAULT_VIEWS,
    style: Style | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    by_class: bool = False,
    **options: Unpack[GradCAMOptions],
) -> list[CheckpointResult]:
    """Write what `GradCAMCallback` would have written during the training.

    ``out`` becomes a TensorBoard run with images and scalars, each at the step of its checkpoint. It also holds the
    same images as files, ``history.json`` and the raw maps, from which `write_report` makes a page.

    Args:
        checkpoints: see `find_checkpoints`.
        load: makes the model of a checkpoint; all models have the same layers.
        probe: the images.
        out: a folder without another run.
        target_layers: this and the other arguments are those of `GradCAMCallback`. A module belongs to one model, so
            give names if ``load`` makes a new model each time.
        device: where the models run; None takes a GPU if there is one.
        **options: those of `GradCAM`.

    Returns:
        One result per checkpoint. Each verdict is of its checkpoint alone.

    Raises:
        ValueError: no checkpoints, layers or a probe set that do not fit a model, or another run in ``out``.
        OSError: ``out`` cannot be written to.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from gradcam_callback import ProbeSet, find_checkpoints, watch_checkpoints
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
        >>> results = watch_checkpoints(find_checkpoints([folder]), load, probe, folder / "focus", target_layers="0")
        >>> [result.layer for result in results], results[0].entry["gradcam/strength/0"] >= 0
        (['0'], True)
        >>> sorted(path.name for path in (folder / "focus" / "probe").iterdir())
        ['class 0-1', 'class 1-1']
    """
    if not checkpoints:
        raise ValueError("Expected one or more checkpoints, but got none. Use find_checkpoints([folder]).")
    out, names, state, views = Path(out), Tags(), RunState(), tags.resolve_views(views)
    logger = TensorBoardLogger(out.parent, name=out.name, version="")
    writers: list[Writer] = [FolderWriter(out, maps=True), TensorBoardWriter(logger)]
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    evaluator: Evaluator | None = None
    run: RunLogger | None = None
    results = []
    for checkpoint in tqdm(checkpoints, "checkpoints", disable=None):
        cam = LateGradCAM(load(checkpoint.path).to(device), target_layers, **options)
        if evaluator is None or run is None:
            evaluator = Evaluator(cam, probe, target, seed=seed, by_class=by_class)
            run = RunLogger(evaluator, state, writers, names, report=_fail, style=style or Style(), views=views)
            run.start()
        # The probe set and its counterfactuals stay; only the model changes.
        evaluator.cam = cam
        evaluation = evaluator.evaluate(state.previous)
        verdict = run.log(evaluation, checkpoint.epoch, checkpoint.step, standalone=True, strips=False)
        entry = state.tagged_history(names)[-1]
        logger.log_metrics({name: value for name, value in entry.items() if name != "step"}, checkpoint.step)
        results.append(CheckpointResult(checkpoint, evaluator.layers[-1], entry, verdict))
    assert run is not None
    run.finish()
    logger.experiment.close()  # otherwise a reader may miss the last events
    return results


def format_table(results: Sequence[CheckpointResult]) -> str:
    """Format a line per checkpoint: its accuracies, and with masks its lift.

    Own backgrounds or frames come from other images of the object's class, and other ones from images of other classes.
    """
    layer, names = results[0].layer, Tags()
    columns: list[tuple[str, str, Callable[[float], str]]] = [
        ("accuracy", names(tags.PROBE_ACCURACY), percent),
        ("own backgrounds", names(tags.SWAP_CONTROL_ACCURACY), percent),
        ("other backgrounds", names(tags.SWAP_ACCURACY), percent),
        ("own frames", names(tags.FRAME_CONTROL_ACCURACY), percent),
        ("other frames", names(tags.FRAME_ACCURACY), percent),
        (f"lift at {layer}", names(join(tags.LIFT, layer)), "{:.2f}".format),
    ]
    columns = [column for column in columns if any(column[1] in result.entry for result in results)]
    rows = [["epoch", "step", *(heading for heading, _, _ in columns), "checkpoint"]]
    for result in results:
        # A lift is undefined, and not in the entry, if all maps of the layer are empty.
        cells = [write(result.entry[tag]) if tag in result.entry else "-" for _, tag, write in columns]
        found = result.checkpoint
        rows.append([str(found.epoch), str(found.step), *cells, str(found.path)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[*map(str.rjust, row[:-1], widths), row[-1]] for row in rows]
    return "\n".join("   ".join(line) for line in lines)


def _find_files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        found = sorted(below for below in path.glob("**/*") if below.suffix in SUFFIXES) if path.is_dir() else [path]
        if not found:
            raise ValueError(
                f"Expected checkpoints ({', '.join(SUFFIXES)}) in {str(path)!r}, but found none. Check the folder."
            )
        files += [file for file in found if file not in files]
    return sorted(files, key=lambda file: by_number(str(file)))


def _warn_of_several_folders(files: Sequence[Path]) -> None:
    # A name of a checkpoint may hold a slash, as in "epoch=0-val/loss=0.5.ckpt", which makes folders in Lightning's.
    places = {next((above for above in file.parents if above.name == "checkpoints"), file.parent) for file in files}
    apart = sorted(str(place) for place in places if places.isdisjoint(place.parents))
    if len(apart) > 1:
        warnings.warn(
            f"GradCAM: the checkpoints in {len(apart)} folders are taken for those of one training: "
            f"{name_some(apart)}. If they are of several trainings, look at each by itself.",
            GradCAMWarning,
            stacklevel=2,
        )


def _fail(writer: str, error: Exception) -> None:
    # No training has to be protected here, so a failure is an error.
    raise error
