"""Round what is compared with a limit."""

from __future__ import annotations

_PLACES = 12


def rounded(share: float) -> float:
    """Round a share so far that equal answers in another order give the same number, and 3 of 12 images give 0.25.

    Sums of thirds differ by the last bits, which would decide about a suspicion otherwise.
    """
    return round(share, _PLACES)
