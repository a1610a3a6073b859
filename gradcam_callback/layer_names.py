"""Read the names that this package gives to VGG layers, in the style of Keras: ``block5_conv3``."""

from __future__ import annotations

import re


def block_of(layer: str) -> str:
    """Return the block of a VGG layer: ``"block5_conv3"`` -> ``"block5"``; ``""`` for any other name."""
    # Two VGGs in one model have prefixes, which stay with the block: "left.block5_conv3" -> "left.block5".
    match = re.fullmatch(r"(.*block\d+)_conv\d+", layer)
    return match[1] if match else ""
