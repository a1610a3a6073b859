"""Log the evaluations of a session: scalars through Lightning, images by the session's writers."""

from __future__ import annotations

from pytorch_lightning import LightningModule, Trainer

from gradcam_callback.run import Evaluation, Session
from gradcam_callback.trainers.announcements import OnShortcut, react_to_shortcut
from gradcam_callback.trainers.loggers import keep_metrics, log_outside_loops, log_scalars
from gradcam_callback.trainers.monitors import fill_missing_metrics
from gradcam_callback.trainers.trainer import (
    count_steps,
    gather,
    has_epochs,
    is_fitting,
    is_last_entry,
    validating,
    validation_step,
)


def compute_shard(trainer: Trainer, session: Session, every_n_epochs: int) -> None:
    """Compute this process's part of the evaluation of a validation."""
    n_entries = sum(entry["epoch"] >= 0 for entry in session.state.history)
    is_last = is_last_entry(trainer, n_entries, every_n_epochs)
    session.compute_shard(trainer.global_rank, trainer.world_size, is_last)


def log_before_training(trainer: Trainer, session: Session) -> None:
    """Evaluate the network once, and log it at step 0 as epoch -1."""
    with validating(trainer):
        session.compute_shard(trainer.global_rank, trainer.world_size)
    evaluation = _merge_shards(trainer, session)
    if evaluation is not None:
        with session.guard("the scalars before training"):
            log_outside_loops(trainer, session.tags.tag_all(evaluation.scalars), step=0)
        session.log(evaluation, epoch=-1, step=0)


def log_validation(trainer: Trainer, module: LightningModule, session: Session) -> None:
    """Log the scalars of a validation under way, if there are any, and add them to the history."""
    session.awaits_validation = False
    evaluation = _merge_shards(trainer, session)
    if evaluation is not None:
        log_scalars(trainer, module, session.tags.tag_all(evaluation.scalars))
        session.add(
            evaluation,
            trainer.current_epoch,
            count_steps(trainer),
            standalone=not is_fitting(trainer),
            has_epochs=has_epochs(trainer),
        )
    fill_missing_metrics(trainer, session, logged=evaluation is not None)


def write_validation(trainer: Trainer, module: LightningModule, session: Session, on_shortcut: OnShortcut) -> None:
    """Write the images of a validation that has ended, and tell the user of a shortcut.

    Its step is known only now. The user's module may log one when all callbacks have done so.
    """
    evaluation = session.unwritten
    if evaluation is None:
        return
    step = session.last_step
    with session.guard("the step that your validation logs"):
        step = validation_step(trainer)
    if not is_fitting(trainer):
        with session.guard("the scalars of this validation"):
            log_outside_loops(trainer, session.tags.tag_all(evaluation.scalars), step)
    session.write(step)
    react_to_shortcut(trainer, module, session, on_shortcut)


def revise_verdict(trainer: Trainer, module: LightningModule, session: Session, on_shortcut: OnShortcut) -> None:
    """Ask about all images at the end of a fit, if the last entry asked about a part of them.

    The end of a fit is not always known at its last validation: early stopping decides after it.
    """
    if not session.asked_a_part:
        return
    with validating(trainer):
        session.compute_shard(trainer.global_rank, trainer.world_size, is_last=True)
    evaluation = _merge_shards(trainer, session, revises=True)
    if evaluation is not None and session.revise(evaluation):
        scalars = session.tags.tag_all(evaluation.scalars)
        keep_metrics(trainer, scalars)
        with session.guard("the scalars of all images"):
            log_outside_loops(trainer, scalars, session.last_step)
        react_to_shortcut(trainer, module, session, on_shortcut)


def _merge_shards(trainer: Trainer, session: Session, revises: bool = False) -> Evaluation | None:
    if session.is_cut_off:
        return None
    # Every rank comes here, also if its own part has failed. Otherwise the other ranks would wait for it forever.
    return session.merge(gather(trainer, session.take_shard()), trainer.global_rank, revises)
