"""Remember the run and the probe set of a callback from one stage of a Trainer to the next."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary, ref

from gradcam_callback.probes import ProbeSet
from gradcam_callback.run.session import restore_state
from gradcam_callback.run.state import RunState


class Memory:
    """The state of a run and its probe set, between the stages of a Trainer.

    Attributes:
        state: of the last fit, of a checkpoint, or of a validation without a fit.
        probe_set: the images in use; None until a stage has chosen them.
    """

    def __init__(self) -> None:
        self.state = RunState()
        self.probe_set: ProbeSet | None = None
        # The stage that has chosen the probe set.
        self._chosen_in: str | None = None
        # Whether the state is of a fit, was given by the user for the next stage, and was lent by a checkpoint.
        self._is_of_fit = self._is_given = self._is_lent = False
        # The Trainer of the last fit, and what the fits of others have left, as long as these Trainers are there.
        self._trainer: ref[object] | None = None
        self._others: WeakKeyDictionary[object, tuple[RunState, ProbeSet | None, str | None]] = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        # Weak references cannot be pickled. A copy, such as that of another process, has Trainers of its own.
        return {**vars(self), "_trainer": None, "_others": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _others=WeakKeyDictionary())

    def begin(self, stage: str, trainer: object, *, is_new: bool) -> bool:
        """Start anew if a stage belongs to another run than the state.

        Another Trainer is another run, such as the next fold. Its training images may be those watched so far. If the
        first Trainer fits on later, so does its run. A validation without a fit is a run of its own. A test has other
        images.

        Args:
            stage: ``"fit"``, ``"validate"`` or ``"test"``.
            trainer: of the stage.
            is_new: True if nothing has been trained yet.

        Returns:
            True if no more than a validation has been forgotten, so that its files may be overwritten.
        """
        is_of_validation = bool(self.state.history) and not self._is_of_fit
        forgets = False
        if stage == "fit":
            forgets = self._begin_fit(trainer, is_new)
        elif stage == "validate":
            forgets = self._begin_validation()
        self._is_given = False
        return forgets and is_of_validation

    def _begin_fit(self, trainer: object, is_new: bool) -> bool:
        """Begin a fit, and return True if it starts anew, or goes on with what its Trainer has left."""
        is_others = self._trainer is not None and self._trainer() is not trainer
        if is_others and not self._is_given:
            self._set_aside()
        left, self._trainer = self._others.pop(trainer, None), ref(trainer)
        if (is_new or is_others) and not self._is_given:
            self._start_from(None if is_new else left)
            self._is_of_fit = True
            return True
        if is_others or self._chosen_in == "test":
            self.probe_set = None
        return False

    def _begin_validation(self) -> bool:
        """Begin a validation outside of a fit, and return True if it starts anew."""
        if not self._is_of_fit and not self._is_given:
            self._start_from(None)
            return True
        if self._chosen_in == "test":
            self.probe_set = None
        return False

    def _start_from(self, left: tuple[RunState, ProbeSet | None, str | None] | None) -> None:
        """Go on with what an earlier fit has left; None starts anew."""
        self.state, self.probe_set, self._chosen_in = left or (RunState(), None, None)
        self._is_lent = False

    def choose(self, probe: ProbeSet, stage: str | None) -> None:
        """Remember the probe set of a stage. A later stage that uses the same one has not chosen it."""
        if probe is not self.probe_set:
            self.probe_set, self._chosen_in = probe, stage

    def restore(self, saved: Any, stage: str | None) -> None:
        """Restore the state of a checkpoint.

        Lightning restores callbacks for a test, too, from the best checkpoint. The history ends earlier there, so a
        state with a history stays, unless it was lent by such a checkpoint before.

        Args:
            saved: what `RunState.state_dict` has returned.
            stage: None if the user restores it before a stage, which then goes on with it.
        """
        is_loan = stage in ("validate", "test", "predict")
        if stage is None:
            self._set_aside()
        if not (self.state.history and is_loan and not self._is_lent):
            self.state, self._is_of_fit, self._is_given = restore_state(saved), True, stage is None
            self._is_lent = is_loan

    def _set_aside(self) -> None:
        """Keep what the last fit has left, so that its Trainer may fit on later."""
        trainer = None if self._trainer is None else self._trainer()
        if trainer is not None:
            self._others[trainer] = self.state, self.probe_set, self._chosen_in
