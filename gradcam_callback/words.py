"""How names and figures are written."""

from __future__ import annotations

import re


def percent(share: float) -> str:
    """A share 0..1 in words: ``"87 %"``."""
    return f"{100 * share:.0f} %"


def block_of(layer: str) -> str:
    """The block that a layer's name belongs to, ``""`` for a dotted name: ``"block5_conv3"`` -> ``"block5"``."""
    match = re.fullmatch(r"(.*block\d+)_conv\d+", layer)
    return match[1] if match else ""
