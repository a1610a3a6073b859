"""A session: everything that the callback needs for one stage of a Trainer."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from gradcam_callback.drawing import Style
from gradcam_callback.exceptions import GradCAMWarning, UserCodeError, is_out_of_memory
from gradcam_callback.measures import Verdict
from gradcam_callback.run import tags
from gradcam_callback.run.confirmation import choose_turn
from gradcam_callback.run.evaluate import Evaluation, Evaluator, Shard
from gradcam_callback.run.logger import RunLogger
from gradcam_callback.run.state import RunState
from gradcam_callback.run.tags import Tags
from gradcam_callback.writers import Writer

OF_OTHERS = "the checkpoint's history and strips are of other images or layers; both start anew"


class Session:
    """One stage of a Trainer: a fit, a validation or a test.

    A failure in a session never ends a training. It becomes a warning that says what is lost.

    Args:
        state: of the run; new entries are added to it.
        names: the tags of the stage.
        writers: where images and texts go; none in all processes but the first.
        is_apart: True if the stage is no part of a training, such as a test. It may overwrite the files of an earlier
            one, and has no views over the epochs.
        overwrite: True if the stage may overwrite the files of an earlier run in any case.

    Attributes:
        writers: as given.
        evaluator: None until the session has started, and if it could not start.
        gave_up: True once a start has failed in a running training. It is not tried again.
        is_cut_off: True if some processes skip each validation. The others cannot gather what all have found.
        awaits_validation: False once there was a validation, or it was said that none will come.
        impossible: monitored scalars of this session that never come.
        stand_ins: of monitored scalars without a value so far, what stood in for it last.
    """

    def __init__(
        self,
        state: RunState,
        names: Tags,
        writers: Sequence[Writer],
        is_apart: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.state, self.tags, self.is_apart, self._overwrites = state, names, is_apart, overwrite or is_apart
        self.evaluator: Evaluator | None = None
        self.gave_up = False
        self.is_cut_off = False
        self.awaits_validation = True
        self.impossible: set[str] = set()
        self.stand_ins: dict[str, float] = {}
        self.writers = list(writers)
        self._logger: RunLogger | None = None
        self._shard: Shard | None = None
        self._computed = False
        # The evaluation of the last entry, if it asked about a part of the images only.
        self._in_part: Evaluation | None = None
        # The evaluation of the last entry, and if it stands alone, until its images are written.
        self._unwritten: tuple[Evaluation, bool] | None = None

    def start(self, evaluator: Evaluator, style: Style, views: Sequence[str]) -> None:
        """Start to log the evaluations of an evaluator.

        Args:
            evaluator: a model and its probe set.
            style: this and the next as in `RunLogger`.

        Raises:
            ValueError: a writer cannot take this run.
        """
        logger = RunLogger(
            evaluator,
            self.state,
            self.writers,
            self.tags,
            report=self._report,
            style=style,
            views=[view for view in views if not (self.is_apart and view in tags.OVER_EPOCHS)],
        )
        if not logger.start(overwrite=self._overwrites):
            warn_lost(OF_OTHERS)
        # Only now, so that a session whose start failed has neither of them.
        self.evaluator, self._logger = evaluator, logger

    def go_on_from(self, state: RunState) -> None:
        """Go on from a state that was restored, also while the session runs; a session apart keeps its own.

        Lightning's ``lr_find`` restores the state of now in a running fit, and a callback of the user's may go back.
        """
        if self.is_apart:
            return
        if state.history != self.state.history:
            self._in_part = self._unwritten = None  # the last entry is another one
        self.state = state
        if self.evaluator is not None and self._logger is not None:
            with self.guard("the start of the restored run"):
                if not self._logger.go_on_from(state):
                    warn_lost(OF_OTHERS)

    def history_after(self, left: RunState, names: Tags) -> list[dict[str, float]]:
        """Return the entries that a fit has left, or else those of this session, such as of a test alone.

        Args:
            left: the state of the fit.
            names: its tags.
        """
        return left.tagged_history(names) if left.history else self.state.tagged_history(self.tags)

    def verdict_after(self, left: RunState) -> Verdict | None:
        """Return the verdict of the same entries."""
        return (left if left.history else self.state).verdict

    def compute_shard(self, rank: int, world_size: int, is_last: bool = False) -> None:
        """Compute this process's part of the evaluation, once until the shard is taken.

        Args:
            rank: of this process.
            world_size: the number of processes.
            is_last: True in the last epoch, whose verdict remains.
        """
        if self.evaluator is not None and not self._computed:
            # Before the work, so that a failure is not repeated at each batch of the validation.
            self._computed = True
            with self.guard("this epoch's maps"):
                interventions, turn = self.evaluator.interventions, None
                if interventions is not None and not self.is_apart:
                    turn = choose_turn(self.state.history, self.state.in_part, interventions.basis, is_last)
                self._shard = self.evaluator.compute_shard(rank, world_size, turn)

    def take_shard(self) -> Shard | None:
        """Return this process's shard; None if there is none, or if it failed."""
        shard, self._shard, self._computed = self._shard, None, False
        return shard

    def merge(self, shards: Sequence[Shard | None], rank: int, revises: bool = False) -> Evaluation | None:
        """Merge the shards of all processes.

        Args:
            shards: by rank; None for a process without a shard.
            rank: of this process.
            revises: True if the evaluation is to replace that of the last entry. It then has no drift, which would be
                measured from the same maps.

        Returns:
            None if a shard is missing.
        """
        found = [shard for shard in shards if shard is not None]
        if self.evaluator is None or not found:
            return None
        if len(found) < len(shards):
            # The process that failed has already said why.
            if shards[rank] is not None:
                missing = next(i for i, shard in enumerate(shards) if shard is None)
                warn_lost(f"this epoch's maps lost, since process {missing} could not compute its shard")
            return None
        # The same computation in every process, so that each knows the verdict and no result has to be sent back.
        with self.guard("this epoch's scalars"):
            evaluation = self.evaluator.merge(found, None if revises else self.state.previous)
            self._report_nonfinite(evaluation, len(self.evaluator.probe))
            return evaluation
        return None

    def log(self, evaluation: Evaluation, epoch: int, step: int, *, standalone: bool = False) -> None:
        """Add an evaluation to the state and write its images; arguments as in `RunLogger.log`."""
        self.add(evaluation, epoch, step, standalone=standalone)
        self.write(step)

    def add(
        self, evaluation: Evaluation, epoch: int, step: int, *, standalone: bool = False, has_epochs: bool = True
    ) -> None:
        """Add an evaluation to the state, whose images are to be written; arguments as in `RunLogger.add`."""
        assert self._logger is not None  # an evaluation comes from an evaluator, and both start together
        self._in_part = None
        with self.guard("this epoch's panels"):
            self._logger.add(evaluation, epoch, step, standalone=standalone, has_epochs=has_epochs)
            self._unwritten = evaluation, standalone
            answers = evaluation.answers
            self._in_part = evaluation if answers is not None and answers.in_part else None

    @property
    def unwritten(self) -> Evaluation | None:
        """Return the evaluation of the last entry if its images are still to be written."""
        return None if self._unwritten is None else self._unwritten[0]

    def write(self, step: int) -> None:
        """Write the images of the entry that was added last, unless they are written.

        Args:
            step: of the entry, which may have become known only now.
        """
        if self._unwritten is None or self._logger is None:
            return
        (evaluation, standalone), self._unwritten = self._unwritten, None
        with self.guard("this epoch's panels"):
            self._logger.write(evaluation, step, standalone=standalone)

    @property
    def asked_a_part(self) -> bool:
        """Return True if the last entry asked about a part of the images of the interventions only."""
        return self._in_part is not None and self.evaluator is not None

    @property
    def last_step(self) -> int:
        """Return the step of the last entry."""
        return int(self.state.history[-1]["step"])

    def revise(self, evaluation: Evaluation) -> bool:
        """Replace the last entry, which asked about a part of the images, by one that asked about all.

        Returns:
            False if the network has changed since. The entry then stays as it is.
        """
        assert self._logger is not None and self._in_part is not None
        before, self._in_part = self._in_part.cams.logits, None
        if not torch.allclose(before, evaluation.cams.logits, rtol=1e-3, atol=1e-3):
            return False
        with self.guard("the verdict on all images"):
            self._logger.revise(evaluation)
            return True
        return False

    def take_new_suspicion(self) -> Verdict | None:
        """Return the verdict if it suspects a shortcut for the first time in this run."""
        verdict = self.state.verdict
        if verdict is None or not verdict.suspected or self.state.warned:
            return None
        self.state.warned = True
        return verdict

    def finish(self) -> None:
        """Write the images that show the whole run."""
        if self._unwritten is not None:
            self.write(self.last_step)  # the validation was interrupted
        if self._logger is not None:
            with self.guard("the last strips and the animations"):
                self._logger.finish()

    def last_value(self, tag: str) -> float | None:
        """Return the newest value of a scalar; None if no entry has it."""
        for entry in reversed(self.state.history):
            for name, value in entry.items():
                if self.tags(name) == tag:
                    return value
        return None

    def can_log(self, tag: str) -> bool:
        """Return True if an entry of this session may have a scalar under this tag."""
        if self.last_value(tag) is not None:
            return True
        return self.evaluator is not None and tag in map(self.tags, self.evaluator.scalar_names())

    @contextmanager
    def guard(self, what: str, may_raise: bool = False) -> Iterator[None]:
        """Turn an exception into a warning.

        Args:
            what: is lost if the block raises.
            may_raise: True lets the exception pass, as long as nothing has been trained.
        """
        try:
            yield
        except UserCodeError as error:
            if may_raise:
                raise
            # The traceback of the user's own code helps to find the line.
            cause = "".join(traceback.format_exception(error.__cause__ or error))
            warn_lost(f"{what} lost, since your code failed. {error}\n{cause}")
        except Exception as error:
            if may_raise:
                raise
            hint = "; fewer or smaller probe images need less memory" if is_out_of_memory(error) else ""
            warn_lost(f"{what} lost ({type(error).__name__}: {error}){hint}")

    def _report(self, writer: str, error: Exception) -> None:
        warn_lost(f"images and texts for {writer} are lost until it works again ({type(error).__name__}: {error})")

    def _report_nonfinite(self, evaluation: Evaluation, n: int) -> None:
        bad = int(evaluation.cams.nonfinite.sum())
        if bad:
            warn_lost(
                f"{bad} of {n} images gave NaN or infinity, and have empty maps; if the loss does so, too, lower the "
                "learning rate"
            )


def warn_lost(lost: str) -> None:
    """Warn that something is lost, and that the training goes on."""
    warnings.warn(f"GradCAM: {lost}. Training goes on untouched.", GradCAMWarning, stacklevel=2)


def restore_state(saved: Any) -> RunState:
    """Restore the state of a run from a checkpoint; a state that cannot be read starts anew, with a warning."""
    try:
        return RunState.from_state_dict(saved)
    except (KeyError, TypeError, ValueError) as error:
        warn_lost(
            f"the checkpoint's history and strips cannot be read; both start anew ({type(error).__name__}: {error})"
        )
        return RunState()
