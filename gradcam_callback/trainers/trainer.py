"""Read stages, steps, precision and states from a Lightning Trainer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.trainer.states import RunningStage, TrainerFn
from pytorch_lightning.utilities import rank_zero_info

from gradcam_callback.run import closest_keys, warn_lost

T = TypeVar("T")


def refuse_sharded(trainer: Trainer) -> None:
    """Refuse a strategy that leaves no process the whole model.

    Raises:
        ValueError: the strategy shards the model.
    """
    kinds = {base.__name__ for base in type(trainer.strategy).__mro__}
    if not kinds.isdisjoint(("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy")):
        raise ValueError(
            "Expected a strategy that copies the whole model to each process, but got "
            f"{type(trainer.strategy).__name__}, which shards it. "
            "The maps need the whole model: use a strategy such as 'ddp'."
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


@contextmanager
def validating(trainer: Trainer) -> Iterator[None]:
    """Let the Trainer say that it validates, as hooks and a ``forward`` ask it if they are to augment."""
    stage = trainer.state.stage
    with ExitStack() as stack:
        if stage not in (RunningStage.SANITY_CHECKING, RunningStage.VALIDATING, RunningStage.TESTING):
            stack.callback(setattr, trainer.state, "stage", stage)
            trainer.state.stage = RunningStage.VALIDATING
        yield


def is_last_entry(trainer: Trainer, n_entries: int, every_n_epochs: int) -> bool:
    """Return True if no epoch after this one is logged, as far as it is known in advance.

    Early stopping and ``max_time`` end a fit without notice.

    Args:
        n_entries: the number of entries so far, without this one.
        every_n_epochs: as in `GradCAMCallback`.
    """
    steps = trainer.global_step
    if 0 <= trainer.max_steps < steps + steps // (n_entries + 1) or trainer.should_stop:
        return True
    if trainer.max_epochs in (None, -1):
        return False
    if trainer.check_val_every_n_epoch is None and trainer.val_check_batch is not None:
        # Batches are counted over all epochs, so the last epochs may have no validation.
        next_batch = trainer.fit_loop.total_batch_idx + 1 + trainer.val_check_batch
        if next_batch > trainer.max_epochs * trainer.num_training_batches:
            return True
    every = trainer.check_val_every_n_epoch or 1
    later = range(trainer.current_epoch + every_n_epochs, trainer.max_epochs)
    return not any((epoch + 1) % every == 0 for epoch in later)


def has_begun(trainer: Trainer) -> bool:
    """Return True if something has been trained. Lightning does not count the steps of an optimizer of the user's."""
    return trainer.global_step > 0 or trainer.current_epoch > 0


def has_epochs(trainer: Trainer) -> bool:
    """Return False if a fit validates by steps alone, or if nobody can tell when its data end."""
    return trainer.check_val_every_n_epoch is not None and trainer.num_training_batches != math.inf


def may_still_refuse(trainer: Trainer) -> bool:
    """Return True if an error may still end the run of the Trainer, as nothing has been trained yet.

    A test never is ended, since it mostly follows a training in the same script.
    """
    return not has_begun(trainer) and trainer.state.fn != TrainerFn.TESTING


def validation_step(trainer: Trainer) -> int:
    """Return the step at which Lightning has logged the scalars of a validation, when its epoch has ended.

    A scalar ``"step"`` that the user logs in the validation takes the place of the number of steps.
    """
    # These are no public values. They are computed once, so a hook before the end must not ask for them.
    results = trainer._results
    step = None if results is None else results.metrics(on_step=False)["log"].get("step")
    return count_steps(trainer) if step is None else int(step)


def count_steps(trainer: Trainer) -> int:
    """Return the step at which Lightning logs scalars, unless the user logs one.

    This is no public value. Lightning counts the optimizer steps of the outer loop for it; `trainer.global_step` counts
    the steps of every optimizer (Lightning #17958, #20346).
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Return the callbacks in the order in which they are called."""
    # Lightning sets this attribute without declaring it.
    found: list[Callback] = getattr(trainer, "callbacks", [])
    return found


def find_other_state(trainer: Trainer, callback: Callback, checkpoint: Mapping[str, Any]) -> Any | None:
    """Find the state that a checkpoint may have for a callback under another key, and warn of all others.

    Lightning restores a state only into a callback with the same key. All other states would be lost in silence.

    Returns:
        The state of a callback with the same layers and target, whose probe images may be the same under other names.
        Its other arguments may differ. None if there is none, or if the checkpoint has the callback's own state.
    """
    keys = {getattr(one, "state_key", None) for one in callbacks_of(trainer)}
    saved = checkpoint.get("callbacks", {})
    kind = f"{type(callback).__qualname__}{{"
    others = [str(key) for key in saved if str(key).startswith(kind) and key not in keys]
    if not others or callback.state_key in saved:
        return None
    found = closest_keys(callback.state_key, others)
    if len(found) == 1:
        rank_zero_info(
            "GradCAM: history and strips are found in the checkpoint, though arguments or images of the callback are "
            "others now. Lightning's warning of a callback to provide needs no action."
        )
        return saved[found[0]]
    warn_lost(f"the checkpoint's history and strips are of other callbacks ({', '.join(others)}); both start anew")
    return None
