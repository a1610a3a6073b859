"""The bars of slow work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

_Item = TypeVar("_Item")


def show_progress(items: Iterable[_Item], what: str, *, is_shown: bool) -> Iterable[_Item]:
    """Return items with a bar over them, as slow work would look like a hang. It appears after two seconds only.

    Args:
        what: is done with the items, such as ``"reading images"``.
        is_shown: False returns them without a bar.
    """
    bar: Iterable[_Item] = tqdm(items, desc=f"GradCAM: {what}", delay=2, leave=False, disable=not is_shown)
    return bar
