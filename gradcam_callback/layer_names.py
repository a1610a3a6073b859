"""Read the names of VGG layers, as Keras writes them: ``block5_conv3``."""

from __future__ import annotations

import re


def block_of(layer: str) -> str:
    """Return the block of a layer, ``""`` for a dotted name: ``"block5_conv3"`` -> ``"block5"``."""
    match = re.fullmatch(r"(.*block\d+)_conv\d+", layer)
    return match[1] if match else ""
