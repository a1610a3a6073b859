"""Find what can write images for a Trainer, and log beside its loops."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_info

from gradcam_callback.run.tags import DEFAULT_PREFIX
from gradcam_callback.trainers.trainer import callbacks_of
from gradcam_callback.writers import FolderWriter, MLflowWriter, TensorBoardWriter, WandbWriter, Writer


def find_writers(trainer: Trainer, save_dir: Path | None, save_maps: bool, prefix: str, required: bool) -> list[Writer]:
    """Make a writer for each logger of the Trainer that can show images, and for the folder.

    Only the first process writes, and nobody with ``fast_dev_run``, which replaces every logger by a dummy.

    Args:
        save_dir: the user's folder for images, or None.
        save_maps: True if raw maps are to be saved, in a folder beside the log if there is no ``save_dir``.
        prefix: of the tags; folders beside a log are named after it.
        required: True if there must be a writer.

    Raises:
        ValueError: there is no writer, and one is required.
    """
    # Lightning replaces the loggers before the callbacks see them.
    if any(has_class_named(logger, "DummyLogger") for logger in trainer.loggers):
        return []
    writers: list[Writer] = []
    for logger in trainer.loggers:
        if has_class_named(logger, "TensorBoardLogger"):
            writers.append(TensorBoardWriter(logger))
        elif has_class_named(logger, "WandbLogger"):
            writers.append(WandbWriter(logger))
        elif has_class_named(logger, "MLFlowLogger"):
            writers.append(MLflowWriter(logger))
        elif has_class_named(logger, "CSVLogger") and save_dir is None:
            writers.append(FolderWriter(Path(str(logger.log_dir)) / prefix, maps=save_maps))
    if save_dir is not None:
        writers.append(FolderWriter(save_dir, maps=save_maps))
    elif save_maps and not any(isinstance(writer, FolderWriter) for writer in writers):
        folder = Path(trainer.log_dir or trainer.default_root_dir) / prefix
        writers.append(FolderWriter(folder, images=False, maps=True))
    if not writers and required:
        found = ", ".join(type(logger).__name__ for logger in trainer.loggers) or "no logger"
        raise ValueError(
            "Expected a Trainer with a TensorBoardLogger, WandbLogger, MLFlowLogger or CSVLogger, but got "
            f"{found}. Use Trainer(logger=TensorBoardLogger('runs')), or GradCAMCallback(save_dir='focus')."
        )
    return writers if trainer.is_global_zero else []


def has_class_named(logger: Logger, name: str) -> bool:
    """Return True if a logger's class or one of its bases has this name.

    ``lightning.pytorch`` and ``pytorch_lightning`` each have their own classes of the same names, and both may be
    installed, so `isinstance` would miss half of them.
    """
    return any(base.__name__ == name for base in type(logger).__mro__)


def announce(trainer: Trainer, n_layers: int, n_images: int) -> None:
    """Tell the user how to open TensorBoard, if the Trainer logs to it."""
    for logger in trainer.loggers:
        if has_class_named(logger, "TensorBoardLogger"):
            rank_zero_info(
                f"GradCAM: watching {n_layers} layers on {n_images} images. See them with: tensorboard --logdir "
                f"{shlex.quote(str(logger.save_dir))} --samples_per_plugin images=100 (without this option TensorBoard "
                "shows 10 epochs of each image)"
            )
            return


def log_outside_loops(trainer: Trainer, scalars: Mapping[str, float], step: int) -> None:
    """Log scalars where ``pl_module.log`` is not allowed, such as before training."""
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_metrics(dict(scalars), step=step)


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
