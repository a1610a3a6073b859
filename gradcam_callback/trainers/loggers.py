"""Find what can write images for a Trainer, and log beside its loops."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gradcam_callback.exceptions import GradCAMWarning
from gradcam_callback.layer_names import block_of
from gradcam_callback.maps import LateGradCAM
from gradcam_callback.measures import FRAME, NO_MASKS
from gradcam_callback.run import Evaluator, RunState, Session, Tags, warn_lost
from gradcam_callback.run.tags import DEFAULT_PREFIX
from gradcam_callback.trainers.trainer import callbacks_of, count_steps, is_fitting
from gradcam_callback.writers import (
    CometWriter,
    FolderWriter,
    ImageLoggerWriter,
    LitWriter,
    MLflowWriter,
    TensorBoardWriter,
    WandbWriter,
    Writer,
    holds_run,
)


def find_writers(trainer: Trainer, save_dir: Path | None, save_maps: bool, prefix: str, required: bool) -> list[Writer]:
    """Make a writer for each logger of the Trainer that can show images, and for the folder.

    A logger that is not known gets a folder beside its log, with a warning. Only the first process writes, and nobody
    with ``fast_dev_run``.

    Args:
        save_dir: the user's folder for images, or None.
        save_maps: True if raw maps are to be saved, in a folder beside the log if there is no ``save_dir``.
        prefix: of the tags; folders beside a log are named after it.
        required: True if there must be a writer.

    Raises:
        ValueError: the Trainer has no logger, there is no folder, and a writer is required.
    """
    # With ``fast_dev_run``, Lightning replaces the loggers before the callbacks see them.
    if any(has_class_named(logger, "DummyLogger") for logger in trainer.loggers):
        return []
    found = [_find_writer(logger, prefix, save_maps, has_folder=save_dir is not None) for logger in trainer.loggers]
    writers = [writer for writer in found if writer is not None]
    beside = Path(os.path.expanduser(trainer.log_dir or trainer.default_root_dir))
    if save_dir is not None:
        writers.append(FolderWriter(save_dir, maps=save_maps))
    elif trainer.loggers and not writers:
        folder = _unused(beside, prefix)
        writers.append(FolderWriter(folder, maps=save_maps))
        if trainer.is_global_zero:
            names = ", ".join(type(logger).__name__ for logger in trainer.loggers)
            warnings.warn(
                f"GradCAM: {names} is not known to take images, so they go to {folder}. Choose another folder with "
                "GradCAMCallback(save_dir=...), or add a TensorBoardLogger.",
                GradCAMWarning,
                stacklevel=2,
            )
    elif save_maps and not any(isinstance(writer, FolderWriter) for writer in writers):
        writers.append(FolderWriter(_place_of_maps(trainer, beside, prefix), images=False, maps=True))
    if not writers and required:
        raise ValueError(
            "Expected a Trainer with a logger for images, such as TensorBoardLogger, but got no logger. Use "
            "Trainer(logger=TensorBoardLogger('runs')), or GradCAMCallback(save_dir='focus')."
        )
    # Lightning sets this attribute without declaring it.
    is_dry = bool(getattr(trainer, "fast_dev_run", False))
    return writers if trainer.is_global_zero and not is_dry else []


def _find_writer(logger: Logger, prefix: str, save_maps: bool, has_folder: bool) -> Writer | None:
    """Make the writer of a logger; None if it is not known, or if a folder of the user's takes its place."""
    if has_class_named(logger, "TensorBoardLogger"):
        return TensorBoardWriter(logger)
    if has_class_named(logger, "WandbLogger"):
        return WandbWriter(logger)
    if has_class_named(logger, "MLFlowLogger"):
        return MLflowWriter(logger)
    if has_class_named(logger, "CometLogger"):
        return CometWriter(logger)
    if has_class_named(logger, "LitLogger"):
        return LitWriter(logger, Path(str(logger.log_dir)) / prefix, maps=save_maps)
    if has_class_named(logger, "CSVLogger"):
        return None if has_folder else FolderWriter(Path(str(logger.log_dir)) / prefix, maps=save_maps)
    return ImageLoggerWriter(logger) if callable(getattr(logger, "log_image", None)) else None


def _place_of_maps(trainer: Trainer, beside: Path, prefix: str) -> Path:
    """Return the folder of raw maps beside the log of a logger that takes the images itself."""
    for logger in trainer.loggers:
        if has_class_named(logger, "TensorBoardLogger"):
            return Path(str(logger.log_dir)) / prefix  # a folder of this run alone
    # MLflow takes each folder in its own one for an experiment.
    is_of_mlflow = has_class_named(trainer.loggers[0], "MLFlowLogger")
    return _unused(Path(trainer.default_root_dir) if is_of_mlflow else beside, prefix)


def _unused(folder: Path, prefix: str) -> Path:
    """Return ``<folder>/<prefix>``, or if it holds a run, ``<folder>/version_<n>/<prefix>``."""
    versions = (folder / f"version_{number}" for number in count(1))
    return next(place / prefix for place in chain([folder], versions) if not holds_run(place / prefix))


def has_class_named(logger: Logger, name: str) -> bool:
    """Return True if a logger's class or one of its bases has this name.

    ``lightning.pytorch`` and ``pytorch_lightning`` each have their own classes of the same names, and both may be
    installed, so `isinstance` would miss half of them.
    """
    return any(base.__name__ == name for base in type(logger).__mro__)


def open_session(
    trainer: Trainer,
    stage: str,
    state: RunState,
    names: Tags,
    save_dir: Path | None,
    save_maps: bool,
    *,
    overwrite: bool = False,
) -> Session:
    """Open the session of a stage.

    A test has other data, and a validation after a training mostly other weights. Both have a state of their own, and
    tags and a folder with their name.

    Args:
        stage: ``"fit"``, ``"validate"`` or ``"test"``.
        state: of the training.
        names: the tags of the training.
        save_dir: this and ``save_maps`` as in `GradCAMCallback`.
        overwrite: True lets writers replace what they hold of an earlier run.

    Raises:
        ValueError: no logger takes images, and there is no ``save_dir``.
    """
    is_apart = stage == "test" or (stage == "validate" and bool(state.history))
    if is_apart:
        state, names = RunState(), names.below(stage)
        save_dir = None if save_dir is None else save_dir / stage
    # The scalars of a test are worth having alone, so a test needs no place for images.
    writers = find_writers(trainer, save_dir, save_maps, names.prefix, required=stage != "test")
    return Session(state, names, writers, is_apart, overwrite)


def announce(trainer: Trainer, evaluator: Evaluator, writers: Sequence[Writer]) -> None:
    """Tell the user where to look, and what is not known without masks."""
    n_layers, n_images = len(evaluator.layers), len(evaluator.probe)
    n_judged = 0 if evaluator.interventions is None else len(evaluator.interventions.numbers)
    layers = f"{n_layers} layer{'s' * (n_layers != 1)}"
    deepest = evaluator.layers[-1]
    if block_of(deepest)[-1:] in tuple("1234") and evaluator.cam.target_layers in (["all"], ["last"]):
        rank_zero_info(
            f"GradCAM: the VGG of this model ends with {deepest}, as what follows is no part of one. Watch a later "
            "layer by its dotted name, such as target_layers=['all', 'features.30']."
        )
    if isinstance(evaluator.cam, LateGradCAM) and evaluator.cam.running:
        rank_zero_info(f"GradCAM: of several VGGs, the forward runs {evaluator.cam.running!r}, so it is watched.")
    rest = f". The verdict rests on {n_judged}" if n_judged > n_images else ""
    if evaluator.interventions is not None and evaluator.interventions.basis == FRAME:
        rank_zero_info(f"GradCAM: {NO_MASKS}")
    if evaluator.probe.is_stretched:
        rank_zero_info(
            "GradCAM: no Normalize is found that undoes the normalisation of the images, so they are displayed "
            "stretched. Hold it in an attribute of your dataset, or pass a ProbeSet with mean and std."
        )
    # Lightning brings weights and metrics back from spawned and forked processes, and no state of callbacks.
    if is_fitting(trainer) and "MultiProcessing" in type(trainer.strategy.launcher).__name__:
        rank_zero_warn(
            "GradCAM: the processes of this strategy end with the training, and `history`, `verdict` and `probe_set` "
            "of the callback with them. Where `fit` was called, these stay empty. Use strategy='ddp', or restore the "
            "first two from a checkpoint: callback.load_state_dict(torch.load(path)['callbacks'][callback.state_key]).",
            category=GradCAMWarning,
        )
    where = _say_where_to_look(trainer, writers)
    if where:
        rank_zero_info(f"GradCAM: watching {layers} on {n_images} images{rest}. {where}")


def _say_where_to_look(trainer: Trainer, writers: Sequence[Writer]) -> str:
    """Say how to see the images; nothing if no writer takes them."""
    for logger in trainer.loggers:
        if has_class_named(logger, "TensorBoardLogger"):
            return f"See them in the tab Focus of: tensorboard --logdir {shlex.quote(str(logger.root_dir))}"
    folder = next((writer.folder for writer in writers if isinstance(writer, FolderWriter)), None)
    if folder is not None:
        command = f"python -m gradcam_callback report {shlex.quote(str(folder))}"
        return f"See them in {folder}, and on the page that this makes: {command}"
    return f"See them in {', '.join(type(logger).__name__ for logger in trainer.loggers)}." if writers else ""


def log_scalars(trainer: Trainer, module: LightningModule, scalars: Mapping[str, float]) -> None:
    """Log the scalars of a validation under way.

    In a fit they go through Lightning's own logging. ``trainer.validate`` and ``trainer.test`` print what goes this
    way as a table, in which a hundred scalars would hide the user's own. There they go to
    ``trainer.callback_metrics`` only, and to the loggers once the step is known.
    """
    if is_fitting(trainer):
        try:
            # The values are the same in every process. Lightning asks for sync_dist all the same.
            module.log_dict(dict(scalars), sync_dist=trainer.world_size > 1)
        except Exception as error:
            # The module may have a `log` of its own.
            warn_lost(
                f"Lightning's log_dict failed ({type(error).__name__}: {error}), so the scalars go to the loggers "
                "directly; let your `log` take all arguments of LightningModule.log"
            )
            log_outside_loops(trainer, scalars, count_steps(trainer))
        else:
            return
    keep_metrics(trainer, scalars)


def keep_metrics(trainer: Trainer, scalars: Mapping[str, float]) -> None:
    """Put scalars where other callbacks, and users after a run, look for them."""
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in scalars.items()})


def log_outside_loops(trainer: Trainer, scalars: Mapping[str, float], step: int) -> None:
    """Log scalars where ``pl_module.log`` is not allowed, such as before training."""
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_metrics(dict(scalars), step=step)


def remove_empty_version(trainer: Trainer) -> None:
    """Remove the folder ``version_<n>`` of a start that was refused, if nothing has been logged to it.

    Lightning makes the folder before any callback is asked.
    """
    for logger in trainer.loggers if trainer.is_global_zero else []:
        folder = Path(str(getattr(logger, "log_dir", None) or ""))
        numbered = re.fullmatch(r"version_\d+", folder.name) is not None
        if has_class_named(logger, "TensorBoardLogger") and numbered and folder.is_dir() and _is_empty(folder):
            events: Any = logger
            events.experiment.close()
            shutil.rmtree(folder, ignore_errors=True)


def _is_empty(folder: Path) -> bool:
    """Return True if a folder holds hyperparameters and event files without any event of this process alone."""
    for path in folder.rglob("*"):
        if path.name != "hparams.yaml" and f".{os.getpid()}." not in path.name:
            return False
    found = EventAccumulator(str(folder)).Reload().Tags()
    # Lightning writes hp_metric at once, with the hyperparameters.
    logged = [
        tag for kind in ("scalars", "images", "tensors") for tag in found[kind] if not tag.startswith("hp_metric")
    ]
    return not [tag for tag in logged if not tag.startswith("_hparams_")]


def own_prefix(trainer: Trainer, callback: Any) -> str:
    """Return the tag prefix of a callback, after comparing the callback with the others of its kind.

    Callbacks that share the default are numbered in the Trainer's order: ``"gradcam"``, ``"gradcam_2"``, ...

    Args:
        callback: has a ``tag_prefix`` and a ``save_dir``.

    Raises:
        ValueError: two callbacks have the same ``save_dir``, or the same ``tag_prefix`` that is not the default.
    """
    # This file cannot import the callback, which imports this file.
    others = [one for one in callbacks_of(trainer) if hasattr(one, "tag_prefix")]
    for name in ("save_dir", "tag_prefix"):
        values = [getattr(one, name) for one in others]
        _refuse_doubled(name, [value.resolve() if isinstance(value, Path) else value for value in values])
    if callback.tag_prefix != DEFAULT_PREFIX:
        return str(callback.tag_prefix)
    taken = {one.tag_prefix for one in others}
    numbered = (f"{DEFAULT_PREFIX}_{number}" for number in count(2))
    free = chain([DEFAULT_PREFIX], (prefix for prefix in numbered if prefix not in taken))
    defaults = [one for one in others if one.tag_prefix == DEFAULT_PREFIX]
    return next(prefix for one, prefix in zip(defaults, free, strict=False) if one is callback)


def _refuse_doubled(name: str, values: Sequence[object]) -> None:
    chosen = [value for value in values if value not in (None, DEFAULT_PREFIX)]
    doubled = [value for value in chosen if chosen.count(value) > 1]
    if doubled:
        raise ValueError(
            f"Expected a `{name}` of its own for each GradCAMCallback, but got {str(doubled[0])!r} twice. Choose "
            f"another {name} for one of them."
        )
