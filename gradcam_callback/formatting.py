"""Format numbers and lists of names the same way in images, plots and sentences, and compare words."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

# A sentence names at most so many of many.
_MOST_NAMES = 5


def percent(share: float) -> str:
    """Format a share 0..1: ``0.874`` -> ``"87 %"``."""
    return f"{100 * share:.0f} %"


def fine_percent(share: float) -> str:
    """Format a share 0..1 that may be very small: ``0.0004`` -> ``"0.04 %"``, ``0.034`` -> ``"3 %"``."""
    return f"{100 * share:.1g} %" if 0 < share < 0.0095 else percent(share)


def percent_beside(share: float, limit: float) -> str:
    """Format a share 0..1 so that it does not read like a limit which it is not: ``0.604, 0.6`` -> ``"60.4 %"``."""
    texts = [f"{100 * share:.{digits}f} %" for digits in range(6)]
    return next((text for text in texts if float(text[:-2]) != round(100 * limit, 6)), texts[-1])


def two_digits(value: float) -> str:
    """Format a value >= 0 with two significant digits: ``"0.042"``, ``"13"``, ``"2.1e-05"``."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def name_some(names: Sequence[str], separator: str = ", ") -> str:
    """List the first names and count the others: ``"a, b, c, d, e and 55 more"``."""
    others = len(names) - _MOST_NAMES
    return separator.join(names[:_MOST_NAMES]) + (f" and {others} more" if others > 0 else "")


def is_word(value: object, words: Container[str]) -> bool:
    """Return True if a value is one of some words. Lists cannot be looked up, and arrays are neither equal nor not."""
    return isinstance(value, str) and value in words


def mark_words(text: str) -> str:
    """Enclose each word, number and sign of a text in marks, so that no part of a word is found in it.

    ``mark_words("cat")`` is in ``mark_words("cat_3")``, and not in that of ``"caterpillar"``.
    """
    return re.sub(r"\d+|[^\W\d_]+|[\W_]", "\0\\g<0>\0", text)
