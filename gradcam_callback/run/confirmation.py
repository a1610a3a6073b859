"""Decide from the earlier entries of a run if a suspicion is confirmed, and how much is asked next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gradcam_callback.measures import FRAME, confirms, has_sign
from gradcam_callback.run import tags
from gradcam_callback.run.turns import Turn

Entry = Mapping[str, float]
BEFORE_TRAINING = -1


def is_confirmed(
    history: Sequence[Entry],
    in_part: Sequence[bool],
    epoch: float,
    basis: str,
    step: int | None = None,
    n: int | None = None,
) -> bool:
    """Return True if the last epoch before this one points to the background, and asked most.

    An entry that asked a part confirms nothing, since one answer of few decides if it has a gap. Over many epochs such
    gaps come by chance.

    Another validation of the same epoch does not count, and neither does the entry before training. If a training
    has no epochs, the last validation counts if something has been trained since.

    Args:
        history: the entries before this one.
        in_part: for each of them, True if it asked a part of the interventions.
        epoch: of this one.
        basis: what tells the object from the background.
        step: of this one if the training has no epochs.
        n: the number of images that the gap is measured on; None takes many.
    """

    for entry, asked_a_part in zip(reversed(history), reversed(in_part), strict=True):
        is_other = entry["epoch"] != epoch or (step is not None and entry["step"] != step)
        if is_other and entry["epoch"] != BEFORE_TRAINING:
            return not asked_a_part and confirms(*_falls(entry, basis), basis, n)
    return False


def choose_turn(history: Sequence[Entry], in_part: Sequence[bool], basis: str, is_last: bool = False) -> Turn:
    """Return which part of the interventions the next entry asks.

    Most is asked at first, at last, and whenever the last entry has a sign of a shortcut.

    Args:
        history: the entries of the run so far. All processes have the same ones.
        in_part: for each of them, True if it asked a part of the interventions.
        basis: what tells the object from the background.
        is_last: True if no entry follows, so that the verdict remains.
    """
    entries = [entry for entry in history if entry["epoch"] != BEFORE_TRAINING]
    if not entries or is_last:
        return Turn(len(entries), thorough=True)
    # The next entry may be of a new epoch, or be another validation of the last one.
    last = entries[-1]
    is_thorough = has_sign(*_falls(last, basis), basis) or is_confirmed(history, in_part, last["epoch"], basis)
    return Turn(len(entries), thorough=is_thorough)


def _falls(entry: Entry, basis: str) -> tuple[float | None, float]:
    """Return the gap of an entry, None without a control, and its drop."""
    gap, drop = (tags.FRAME_GAP, tags.FRAME_DROP) if basis == FRAME else (tags.BACKGROUND_GAP, tags.SWAP_DROP)
    return entry.get(gap), entry.get(drop, 0.0)
