"""The scalars that decide about a training: EarlyStopping, checkpoints and schedulers wait for them."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Trainer

from gradcam_callback.run import Session
from gradcam_callback.trainers.trainer import callbacks_of, is_fitting


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
