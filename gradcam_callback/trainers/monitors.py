"""The scalars that decide about a training: EarlyStopping, checkpoints and schedulers wait for them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_info

from gradcam_callback.probes import ProbeSet
from gradcam_callback.run import Evaluator, Session, Tags, tags
from gradcam_callback.trainers.trainer import callbacks_of, is_fitting

# By what a stand-in is multiplied each time. It is more than any scheduler takes for a plateau by default.
_BETTER = 0.999
# How far a stand-in stays from the threshold of an EarlyStopping, and from the one before, as a share of the threshold.
_NEAR = 1e-6


def fill_missing_metrics(trainer: Trainer, session: Session, logged: bool) -> None:
    """Give every monitored scalar of a session that has no value now its last value, or else a value worse than any.

    A scalar is missing if the maps were lost, if a resumed run has not logged yet, or at the first entry for drift.
    Lightning ends a training if EarlyStopping, ModelCheckpoint or a scheduler finds no value under its name. A name
    under which nothing ever comes stays missing, so that it is still an error.

    Args:
        logged: False if the maps of this epoch were lost; any scalar below the prefix might then have come.
    """
    if not is_fitting(trainer):
        return
    with session.guard("the values of monitored metrics"):
        for name, monitor in _monitored(trainer).items():
            if not name.startswith(f"{session.tags.prefix}/"):
                continue  # of somebody else, for which a long history would be searched in vain
            may_come = not logged and name not in session.impossible
            if not (session.can_log(name) or may_come):
                continue
            last = session.last_value(name)
            # Lightning keeps what stands in for a value as it keeps a value.
            stands_in = last is None and name in session.stand_ins
            if stands_in or name not in trainer.callback_metrics:
                value = _stand_in(session, monitor) if last is None else last
                # EarlyStopping and the like compare tensors.
                trainer.callback_metrics[name] = torch.tensor(value)


def _stand_in(session: Session, monitor: _Monitor) -> float:
    """Return a value worse than any, and a little better than the one before. No patience would outlast the same.

    If a monitor ends the training at values beyond a threshold, the value stays within it.
    """
    before, worse = session.stand_ins.get(monitor.name), 1 if monitor.mode == "min" else -1
    if monitor.threshold is not None:
        value = monitor.threshold if before is None else before
        value -= worse * _NEAR * max(1.0, abs(monitor.threshold))
    else:
        value = torch.finfo(torch.float32).max * worse if before is None else before * _BETTER
    session.stand_ins[monitor.name] = value
    return value


def refuse_monitors_without_validation(trainer: Trainer, names: Tags) -> None:
    """Refuse a monitor on a scalar of a run, if its training has no validation.

    Raises:
        ValueError: there is such a monitor.
    """
    for name, owner, _, is_strict, _ in _own_monitors(trainer, names):
        if is_strict:
            raise ValueError(
                f"Expected the monitor of {type(owner).__name__} to be a scalar of this run, but {name!r} never comes, "
                "since this training has no validation. Give it validation data, a validation_step, and "
                "limit_val_batches above 0, or leave the monitor out."
            )


def refuse_impossible_monitors(trainer: Trainer, session: Session, evaluator: Evaluator, every_n_epochs: int) -> None:
    """Refuse a monitor that waits for a scalar which the evaluations of a fit never have.

    Lightning would end the training after its first epoch. A monitor that says ``strict=False`` can wait. A
    monitor counts each validation, also if its scalar is new at every n-th one only. This is said.

    Args:
        session: of the run. It takes note of the scalars that never come.
        evaluator: makes the evaluations of the run.
        every_n_epochs: as in `GradCAMCallback`.

    Raises:
        ValueError: there is such a monitor.
    """
    if not is_fitting(trainer):
        return
    names = session.tags
    loggable = [names(name) for name in evaluator.scalar_names()]
    monitors = _own_monitors(trainer, names)
    session.impossible = {one.name for one in monitors} - set(loggable)
    for name, owner, _, is_strict, _ in monitors:
        if is_strict and name in session.impossible:
            metric = name.removeprefix(f"{names.prefix}/").partition("/")[0]
            raise ValueError(
                f"Expected the monitor of {type(owner).__name__} to be a scalar of this run, but {name!r} never comes: "
                f"{_reason_against(metric, evaluator.probe)}. Choose one of: {', '.join(loggable)}."
            )
        if every_n_epochs > 1:
            rank_zero_info(
                f"GradCAM: {name} is new every {every_n_epochs} epochs only. In between {type(owner).__name__} "
                f"finds its last value again, so a patience has to be {every_n_epochs} times as large."
            )


def _reason_against(metric: str, probe: ProbeSet) -> str:
    if metric in tags.NEED_MASKS and probe.masks is None:
        return "the probe set has no masks; give some, such as <name>.mask.png beside the images of a folder"
    if metric in (*tags.MASKLESS_METRICS, *tags.FRAME_SCALARS) and probe.masks is not None:
        return "it is logged if no probe image has a mask"
    return "there is no such scalar; check its name, the layer, and the options of the callback"


def _monitored(trainer: Trainer) -> dict[str, _Monitor]:
    """Return the scalars that decide about the training, and a monitor of each, if possible with a threshold."""
    return {one.name: one for one in sorted(_monitors(trainer), key=lambda one: one.threshold is not None)}


class _Monitor(NamedTuple):
    """A scalar that decides about the training.

    Attributes:
        name: of the scalar.
        owner: what monitors it.
        mode: ``"min"`` or ``"max"``, which is best.
        is_strict: False if the training goes on without the scalar.
        threshold: a worse value ends the training; None without such values.
    """

    name: str
    owner: Any
    mode: str
    is_strict: bool
    threshold: float | None


def _own_monitors(trainer: Trainer, names: Tags) -> list[_Monitor]:
    """Return the monitors that wait for a scalar of a run, and for none of another one below its prefix."""
    others = [one.tag_prefix for one in callbacks_of(trainer) if hasattr(one, "tag_prefix")]
    longer = tuple(f"{prefix}/" for prefix in others if len(prefix) > len(names.prefix))
    own = f"{names.prefix}/"
    return [one for one in _monitors(trainer) if one.name.startswith(own) and not one.name.startswith(longer)]


def _monitors(trainer: Trainer) -> list[_Monitor]:
    owners: list[tuple[Any, Any, Any]]
    owners = [(getattr(one, "monitor", None), one, getattr(one, "strict", True)) for one in callbacks_of(trainer)]
    # That a scheduler may wait for its scalar stands in Lightning's configuration of it.
    configs = [one for one in trainer.lr_scheduler_configs if one.reduce_on_plateau]
    owners += [(one.monitor, one.scheduler, one.strict) for one in configs]
    return [
        _Monitor(
            name, owner, getattr(owner, "mode", "min"), bool(is_strict), getattr(owner, "divergence_threshold", None)
        )
        for name, owner, is_strict in owners
        if isinstance(name, str)
    ]
