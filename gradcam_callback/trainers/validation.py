"""Look if a training has a validation, without which nothing can be watched."""

from __future__ import annotations

from pytorch_lightning import Trainer

from gradcam_callback.run import Session, warn_lost
from gradcam_callback.trainers.monitors import refuse_monitors_without_validation
from gradcam_callback.trainers.trainer import gather


def check_validation(trainer: Trainer, session: Session) -> None:
    """Warn if a training has no validation, or refuse it if something monitors a scalar of the run.

    Args:
        session: of the run. It is cut off if only some processes have none. Lightning skips the validation there, so
            the others must not wait for them.

    Raises:
        ValueError: a monitor would wait for the validation.
    """
    lacks = not trainer.enable_validation or has_no_validation_data(trainer)
    lacking = [rank for rank, each in enumerate(gather(trainer, lacks)) if each]
    if lacking:
        refuse_monitors_without_validation(trainer, session.tags)
    every, end = trainer.check_val_every_n_epoch or 1, trainer.max_epochs
    ends_before = end is not None and 0 < end < every
    session.awaits_validation = not (lacking or ends_before)
    session.is_cut_off = 0 < len(lacking) < trainer.world_size
    if session.is_cut_off:
        if trainer.is_global_zero:
            warn_lost(
                f"no maps are computed, since {len(lacking)} of {trainer.world_size} processes, such as process "
                f"{lacking[0]}, have no validation data; give each process some, as Lightning's own sampler does"
            )
    elif lacking:
        warn_lost(
            "this training has no validation, so no maps are computed; give it validation data, a validation_step, and "
            "limit_val_batches above 0"
        )
    elif ends_before:
        warn_lost(
            "this training ends before its first validation, so no maps are computed; choose check_val_every_n_epoch "
            f"of {end} or less in place of {every}"
        )


def has_no_validation_data(trainer: Trainer) -> bool:
    """Return True if the list of loaders is empty, or no loader has a batch. Without a list, loaders may still come."""
    loaders = trainer.val_dataloaders
    if isinstance(loaders, (list, tuple, dict)) and not loaders:
        return True
    return loaders is not None and not any(trainer.num_val_batches)
