"""Read loggers, steps, precision and data from a Lightning Trainer."""

from __future__ import annotations

import shlex
import traceback
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from gradcam_callback.exceptions import ShortcutWarning
from gradcam_callback.maps import GradCAMOptions
from gradcam_callback.maps import check_options as check_map_options
from gradcam_callback.measures import Verdict
from gradcam_callback.probes import ProbeSet, find_class_names, find_transform
from gradcam_callback.run import Session, differ_in_probe_only, warn_lost
from gradcam_callback.run.tags import DEFAULT_PREFIX
from gradcam_callback.writers import FolderWriter, MLflowWriter, TensorBoardWriter, WandbWriter, Writer

T = TypeVar("T")

# The automatic probe set: images per class, images at most, and items at most that are read for their labels.
AUTO_PER_CLASS, AUTO_IMAGES, AUTO_SCANNED = 2, 16, 2048


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


def refuse_sharded(trainer: Trainer) -> None:
    """Refuse a strategy that leaves no process the whole model.

    Raises:
        ValueError: the strategy shards the model.
    """
    strategy = type(trainer.strategy).__name__
    if strategy in ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy"):
        raise ValueError(
            f"Expected a strategy that copies the whole model to each process, but got {strategy}, which shards it. "
            "The maps need the whole model: use a strategy such as 'ddp'."
        )


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


def gather(trainer: Trainer, value: T) -> list[T]:
    """Collect a value from every rank, by rank. Every rank must call this; otherwise the others deadlock."""
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def stage_name(stage: str) -> str:
    """Return a stage as ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.

    Lightning passes a string that is also an enum, whose text in a path would be ``"TrainerFn.TESTING"``.
    """
    return str(TrainerFn(stage).value)


def is_fitting(trainer: Trainer) -> bool:
    """Return True inside ``trainer.fit``, in its validations too."""
    return trainer.state.fn == TrainerFn.FITTING


def may_still_refuse(trainer: Trainer) -> bool:
    """Return True if an error may still end the run of the Trainer, as nothing has been trained yet.

    A test never is ended, since it mostly follows a training in the same script.
    """
    return trainer.global_step == 0 and trainer.state.fn != TrainerFn.TESTING


def check_on_shortcut(on_shortcut: object) -> None:
    """Check the reaction to a shortcut.

    Raises:
        ValueError: neither ``"warn"``, ``"stop"`` nor a callable.
    """
    if not (on_shortcut in ("warn", "stop") or callable(on_shortcut)):
        raise ValueError(
            f"Expected `on_shortcut` to be 'warn', 'stop' or a callable, but got {on_shortcut!r}. Use 'warn' to only "
            "be told."
        )


def react_to_shortcut(trainer: Trainer, session: Session, on_shortcut: str | Callable[[Verdict], object]) -> None:
    """Tell the user once per run that a shortcut is suspected, and do what ``on_shortcut`` says."""
    verdict = session.take_new_suspicion()
    if verdict is None:
        return
    rank_zero_warn(f"GradCAM: {verdict.evidence}", category=ShortcutWarning)
    if on_shortcut == "stop":
        trainer.should_stop = True
    elif callable(on_shortcut):
        try:
            on_shortcut(verdict)
        except Exception:
            # The user's code failed, so the whole traceback helps to find the line.
            warn_lost(f"your on_shortcut failed:\n{traceback.format_exc()}")


def validation_step(trainer: Trainer) -> int:
    """Return the step at which Lightning logs the scalars of the validation under way.

    This is no public value. Lightning counts the optimizer steps of the outer loop for it; `trainer.global_step` counts
    the steps of every optimizer (Lightning #17958, #20346).
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def check_options(options: GradCAMOptions) -> None:
    """Check the options of `GradCAM` when the Trainer is not known yet; ``precision="trainer"`` is one of them.

    Raises:
        TypeError: an unknown option.
        ValueError: a wrong value.
    """
    unknown = sorted(set(options) - set(GradCAMOptions.__annotations__))
    if unknown:
        raise TypeError(
            f"Expected the arguments of GradCAMCallback and the options {sorted(GradCAMOptions.__annotations__)} of "
            f"GradCAM, but got {unknown}. Correct the names."
        )
    # The precision of the Trainer is known only later. GradCAM supports all of them.
    known: GradCAMOptions = {**options, "precision": "full"} if options.get("precision") == "trainer" else options
    check_map_options(**known)


def resolve_precision(options: GradCAMOptions, trainer: Trainer) -> GradCAMOptions:
    """Replace ``precision="trainer"`` by the precision of `GradCAM` that matches the Trainer's."""
    if options.get("precision") != "trainer":
        return options
    return {**options, "precision": "bf16" if str(trainer.precision).startswith("bf16") else "full"}


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Return the callbacks in the order in which they are called."""
    # Lightning sets this attribute without declaring it.
    found: list[Callback] = getattr(trainer, "callbacks", [])
    return found


def warn_without_validation(trainer: Trainer) -> None:
    """Warn if a training has no validation, so that nothing can be watched."""
    if not trainer.enable_validation:
        warn_lost(
            "this training has no validation, so no maps are computed; give it validation data, and limit_val_batches "
            "above 0"
        )


def find_other_state(trainer: Trainer, callback: Callback, checkpoint: Mapping[str, Any]) -> Any | None:
    """Find the state that a checkpoint may have for a callback under another key, and warn of all others.

    Lightning restores a state only into a callback with the same key. All other states would be lost in silence.

    Returns:
        The state of a callback with the same layers and target, whose probe images may be the same under other names;
        None if there is none, or if the checkpoint has the callback's own state.
    """
    keys = {getattr(one, "state_key", None) for one in callbacks_of(trainer)}
    saved = checkpoint.get("callbacks", {})
    kind = f"{type(callback).__qualname__}{{"
    others = [str(key) for key in saved if str(key).startswith(kind) and key not in keys]
    if not others or callback.state_key in saved:
        return None
    found = [key for key in others if differ_in_probe_only(key, callback.state_key)]
    if len(found) == 1:
        return saved[found[0]]
    warn_lost(f"the checkpoint's history and strips are of other callbacks ({', '.join(others)}); both start anew")
    return None


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


def fill_missing_metrics(trainer: Trainer, session: Session, logged: bool) -> None:
    """Give every monitored scalar of a session that has no value now its last value, or else the worst possible one.

    A scalar is missing if the maps were lost, if a resumed run has not logged yet, or at the first entry for drift.
    Lightning ends a training if EarlyStopping, ModelCheckpoint or a scheduler finds no value under its name. A misspelt
    name stays missing, so that it is still an error.

    Args:
        logged: False if the maps of this epoch were lost; any scalar below the prefix might then have come.
    """
    if not is_fitting(trainer):
        return
    worst = torch.finfo(torch.float32).max
    with session.guard("the values of monitored metrics"):
        for name, mode in _monitored(trainer).items():
            is_ours = session.can_log(name) or (not logged and name.startswith(f"{session.tags.prefix}/"))
            if is_ours and name not in trainer.callback_metrics:
                last = session.last_value(name)
                value = (worst if mode == "min" else -worst) if last is None else last
                # EarlyStopping and the like compare tensors.
                trainer.callback_metrics[name] = torch.tensor(value)


def _monitored(trainer: Trainer) -> dict[str, str]:
    """Return the scalars that decide about the training, and if their ``"min"`` or their ``"max"`` is best."""
    monitors: list[tuple[Any, Any]] = [(getattr(one, "monitor", None), one) for one in callbacks_of(trainer)]
    monitors += [(one.monitor, one.scheduler) for one in trainer.lr_scheduler_configs if one.reduce_on_plateau]
    return {name: getattr(one, "mode", "min") for name, one in monitors if isinstance(name, str)}


def check_probe(probe: object) -> None:
    """Check the type of a probe argument.

    Raises:
        ValueError: neither a probe set, a folder nor None.
    """
    if not (probe is None or isinstance(probe, (ProbeSet, str, Path))):
        raise ValueError(
            f"Expected `probe` to be a ProbeSet, a folder or None, but got {type(probe).__name__}. Wrap tensors in "
            "ProbeSet(images, labels), or use None to take images from the validation data."
        )


def resolve_probe(given: ProbeSet | str | Path | None, trainer: Trainer, seed: int) -> ProbeSet:
    """Return the probe set that was given, or take it from the validation data; in ``trainer.test`` from the test data.

    Args:
        given: a probe set is returned as it is. A folder is read with the transform and the classes of the data. None
            takes two images per class, at most 16.
        seed: chooses the images.

    Raises:
        ValueError: the data cannot be indexed, or have no transform for a folder.
    """
    if isinstance(given, ProbeSet):
        return given
    dataset = _first_dataset(trainer)
    if given is None:
        return ProbeSet.from_dataset(dataset, AUTO_PER_CLASS, seed, max_images=AUTO_IMAGES, max_scanned=AUTO_SCANNED)
    transform = find_transform(dataset)
    if transform is None:
        raise ValueError(
            f"Expected validation data with a transform, to read the folder probe={str(given)!r} alike, but "
            f"{type(dataset).__name__} has none. Pass "
            "GradCAMCallback(probe=ProbeSet.from_folder(folder, transform=...))."
        )
    return ProbeSet.from_folder(given, transform, class_names=find_class_names(dataset))


def _first_dataset(trainer: Trainer) -> Any:
    loader = trainer.test_dataloaders if trainer.state.fn == TrainerFn.TESTING else trainer.val_dataloaders
    # Several loaders come as a list or a dict, perhaps nested. The first one counts.
    while isinstance(loader, (list, tuple, dict)) and loader:
        loader = next(iter(loader.values())) if isinstance(loader, dict) else loader[0]
    dataset = getattr(loader, "dataset", None)
    if dataset is None:
        raise ValueError(
            f"Expected a DataLoader over a map-style dataset, to take a probe set from, but got "
            f"{type(loader).__name__}. Pass GradCAMCallback(probe=ProbeSet(...))."
        )
    return dataset
