"""Read the names that this package gives to VGG layers, in the style of Keras: ``block5_conv3``."""

from __future__ import annotations

import re
from collections.abc import Sequence

# As many as a VGG has blocks.
MOST_PICKED = 5


def block_of(layer: str) -> str:
    """Return the block of a VGG layer: ``"block5_conv3"`` -> ``"block5"``; ``""`` for any other name."""
    # Two VGGs in one model have prefixes, which stay with the block: "left.block5_conv3" -> "left.block5".
    match = re.fullmatch(r"(.*block\d+)_conv\d+", layer)
    return match[1] if match else ""


def last_of_blocks(layers: Sequence[str]) -> list[str]:
    """Return the last layer of each block, from input to output. A layer without a block stands for itself."""
    # Later layers of a block replace earlier ones.
    ends = {block_of(layer) or layer: layer for layer in layers}.values()
    return [layer for layer in layers if layer in ends]


def pick_layers(layers: Sequence[str]) -> list[str]:
    """Pick the few layers that stand for all of them, where there is no room for more.

    Args:
        layers: names from input to output.

    Returns:
        Those of `last_of_blocks`. If these are more than `MOST_PICKED`, so many of them, evenly spread, the first and
        the last among them.
    """
    picked = last_of_blocks(layers)
    if len(picked) <= MOST_PICKED:
        return picked
    return [picked[round(i * (len(picked) - 1) / (MOST_PICKED - 1))] for i in range(MOST_PICKED)]
