"""What is read from a Lightning Trainer: its loggers, its steps, its precision, its validation data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.trainer.states import TrainerFn

from gradcam_callback.probes.datasets import find_class_names, find_transform
from gradcam_callback.probes.probe_set import ProbeSet
from gradcam_callback.writers.sinks import FolderWriter, Writer
from gradcam_callback.writers.tensorboard import TensorBoardWriter
from gradcam_callback.writers.trackers import MLflowWriter, WandbWriter

T = TypeVar("T")

# What is taken by itself from the validation data.
AUTO_PER_CLASS, AUTO_IMAGES, AUTO_SCANNED = 2, 16, 2048


def find_writers(trainer: Trainer, save_dir: Path | None, save_maps: bool, suffix: str, needed: bool) -> list[Writer]:
    """A sink for each of the Trainer's loggers that can show pictures, and the folder.

    Args:
        suffix: what is put behind the names that every callback uses, where it is not the Trainer's first.
        needed: whether there must be one.

    Raises:
        ValueError: there is none, and one is needed.
    """
    sinks: list[Writer] = []
    for logger in trainer.loggers:
        if has_class_named(logger, "TensorBoardLogger"):
            sinks.append(TensorBoardWriter(logger, suffix))
        elif has_class_named(logger, "WandbLogger"):
            sinks.append(WandbWriter(logger, suffix))
        elif has_class_named(logger, "MLFlowLogger"):
            sinks.append(MLflowWriter(logger, suffix))
        elif has_class_named(logger, "CSVLogger") and save_dir is None:
            sinks.append(FolderWriter(Path(str(logger.log_dir)) / f"gradcam{suffix}", maps=save_maps))
    if save_dir is not None:
        sinks.append(FolderWriter(save_dir, maps=save_maps))
    elif save_maps and not any(isinstance(sink, FolderWriter) for sink in sinks):
        sinks.append(FolderWriter(Path(trainer.log_dir or trainer.default_root_dir) / f"gradcam{suffix}", False, True))
    if not sinks and needed:
        came = ", ".join(type(logger).__name__ for logger in trainer.loggers) or "no logger"
        raise ValueError(
            f"The Trainer has {came}. GradCAMCallback expects a TensorBoardLogger, WandbLogger, MLFlowLogger or "
            "CSVLogger, such as Trainer(logger=TensorBoardLogger('runs')), or GradCAMCallback(save_dir='focus')."
        )
    return sinks


def has_class_named(logger: Logger, name: str) -> bool:
    """Whether a logger's class or one of its bases has a name: ``lightning.pytorch`` and ``pytorch_lightning`` each
    have classes of their own under the same names, and both may be installed."""
    return any(base.__name__ == name for base in type(logger).__mro__)


def refuse_sharded(trainer: Trainer) -> None:
    """Raise a ValueError where no process has the whole model, as the maps need it."""
    strategy = type(trainer.strategy).__name__
    if strategy in ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy"):
        raise ValueError(
            f"The Trainer's strategy is {strategy}, which leaves each process a part of the model only, but "
            "GradCAMCallback computes maps on all of it. Expected a strategy that copies the model, such as 'ddp'."
        )


def gather(trainer: Trainer, mine: T) -> list[T]:
    """What every process gives, by rank. All of them must come here, or those that do wait for ever."""
    if trainer.world_size == 1:
        return [mine]
    everyone: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyone, mine)
    return everyone


def is_dry_run(trainer: Trainer) -> bool:
    """``fast_dev_run`` puts a dummy in the place of every logger."""
    return any(has_class_named(logger, "DummyLogger") for logger in trainer.loggers)


def is_fitting(trainer: Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING


def validation_step(trainer: Trainer) -> int:
    """The step at which Lightning itself logs the scalars of the validation under way.

    Lightning counts the optimizer steps of the outer loop for this, not `trainer.global_step`, which counts every
    optimizer's (Lightning #17958, #20346); the counter has no public name.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def precision_of(trainer: Trainer) -> str:
    """The `GradCAM` precision that is the Trainer's."""
    return "bf16" if str(trainer.precision).startswith("bf16") else "full"


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """In the order in which they are called; Lightning sets the attribute without declaring it."""
    found: list[Callback] = getattr(trainer, "callbacks", [])
    return found


def fill_missing_metrics(trainer: Trainer, last: Mapping[str, float], is_ours: Callable[[str], bool]) -> None:
    """Give each scalar of ours that is monitored, and has no value yet, its last one, or the worst that there is.

    Lightning ends a training whose EarlyStopping, ModelCheckpoint or scheduler finds no value under its name.
    """
    worst = torch.finfo(torch.float32).max
    for name, mode in _monitored(trainer).items():
        if name not in trainer.callback_metrics and is_ours(name):
            trainer.callback_metrics[name] = torch.tensor(last.get(name, worst if mode == "min" else -worst))


def _monitored(trainer: Trainer) -> dict[str, str]:
    """The scalars that decide over the training, and whether their ``"min"`` or ``"max"`` is the best."""
    watching: list[tuple[Any, Any]] = [(getattr(one, "monitor", None), one) for one in callbacks_of(trainer)]
    watching += [(one.monitor, one.scheduler) for one in trainer.lr_scheduler_configs if one.reduce_on_plateau]
    return {name: getattr(one, "mode", "min") for name, one in watching if isinstance(name, str)}


def resolve_probe(given: ProbeSet | str | Path | None, trainer: Trainer, seed: int) -> ProbeSet:
    """The probe set that was given; or of the first validation loader's dataset, in ``trainer.test`` of the test's.

    Args:
        given: a folder is read with that dataset's transform and classes; None takes two of its images per class, at
            most 16.

    Raises:
        ValueError: the data cannot be indexed, or has no transform for a folder.
    """
    if isinstance(given, ProbeSet):
        return given
    loader = trainer.test_dataloaders if trainer.state.fn == TrainerFn.TESTING else trainer.val_dataloaders
    while isinstance(loader, (list, tuple, dict)) and loader:
        loader = next(iter(loader.values())) if isinstance(loader, dict) else loader[0]
    dataset = getattr(loader, "dataset", None)
    if dataset is None:
        raise ValueError(
            f"The validation data came as {type(loader).__name__}, from which no probe set can be taken. Expected a "
            "DataLoader over a map-style dataset; otherwise pass GradCAMCallback(probe=ProbeSet(...))."
        )
    if given is not None:
        transform = find_transform(dataset)
        if transform is None:
            raise ValueError(
                f"probe is the folder {str(given)!r}, to be read as the validation data are, but their "
                f"{type(dataset).__name__} has no transform. Expected one; otherwise pass "
                "GradCAMCallback(probe=ProbeSet.from_folder(folder, transform=...))."
            )
        return ProbeSet.from_folder(given, transform, class_names=find_class_names(dataset))
    return ProbeSet.from_dataset(dataset, AUTO_PER_CLASS, seed, max_images=AUTO_IMAGES, max_scanned=AUTO_SCANNED)
