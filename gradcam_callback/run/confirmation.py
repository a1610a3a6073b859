"""Decide from the earlier entries of a run if a suspicion is confirmed, and how much is asked next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gradcam_callback.measures import FRAME, confirms
from gradcam_callback.run import tags
from gradcam_callback.run.turns import Turn

Entry = Mapping[str, float]
BEFORE_TRAINING = -1


def is_confirmed(history: Sequence[Entry], epoch: float, basis: str, step: int | None = None) -> bool:
    """Return True if the last epoch before this one says that the background decides.

    Another validation of the same epoch does not count, and neither does the entry before training. If a training
    has no epochs, the last validation counts if something has been trained since.

    Args:
        history: the entries before this one.
        epoch: of this one.
        basis: what tells the object from the background.
        step: of this one if the training has no epochs.
    """

    def is_earlier(entry: Entry) -> bool:
        is_other = entry["epoch"] != epoch or (step is not None and entry["step"] != step)
        return is_other and entry["epoch"] != BEFORE_TRAINING

    earlier = next(filter(is_earlier, reversed(history)), None)
    return earlier is not None and _confirms(earlier, basis)


def choose_turn(history: Sequence[Entry], basis: str, is_last: bool = False) -> Turn:
    """Return which part of the interventions the next entry asks.

    Most is asked at first, at last, and whenever the next entry might confirm a suspicion. So a suspicion never rests
    on the least.

    Args:
        history: the entries of the run so far. All processes have the same ones.
        basis: what tells the object from the background.
        is_last: True if no entry follows, so that the verdict remains.
    """
    entries = [entry for entry in history if entry["epoch"] != BEFORE_TRAINING]
    if not entries or is_last:
        return Turn(len(entries), has_sign=True)
    # The next entry may be of a new epoch, or be another validation of the last one.
    last = entries[-1]
    may_confirm = _confirms(last, basis) or is_confirmed(entries, last["epoch"], basis)
    return Turn(len(entries), has_sign=may_confirm)


def _confirms(entry: Entry, basis: str) -> bool:
    gap, drop = (tags.FRAME_GAP, tags.FRAME_DROP) if basis == FRAME else (tags.BACKGROUND_GAP, tags.SWAP_DROP)
    return confirms(entry.get(gap), entry.get(drop, 0.0), basis)
