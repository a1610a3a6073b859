"""Place the columns of layers on a panel, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from gradcam_callback.drawing.canvas import BLOCK_GAP, GAP, MARGIN
from gradcam_callback.layer_names import block_of


def place_columns(
    layers: Sequence[str], left: int, width: int, max_width: int | None
) -> tuple[list[tuple[int, int]], int]:
    """Place one column per layer, with thin gaps within a block and wider gaps between blocks.

    Blocks that do not fit into one line go on in further lines: as few as possible, and as even as possible.

    Args:
        layers: Names in order. A layer without a block is a block of its own.
        left: Left end of each line, in pixels.
        width: Width of a column.
        max_width: Width of the whole panel. None keeps all columns in one line.

    Returns:
        Number of its line and left edge for each layer, and the right end of the longest line.
    """
    counts = [
        len(list(group)) for _, group in groupby(enumerate(layers), key=lambda item: block_of(item[1]) or item[0])
    ]
    widths = [count * (width + GAP) - GAP for count in counts]
    lines = _break_evenly(widths, None if max_width is None else max_width - left - MARGIN)
    places: list[tuple[int, int]] = []
    right = left
    for number, blocks in enumerate(lines):
        x = left
        for block in blocks:
            places += [(number, x + i * (width + GAP)) for i in range(counts[block])]
            x += widths[block] + BLOCK_GAP
        right = max(right, x - BLOCK_GAP)
    return places, right


def _break_evenly(widths: Sequence[int], room: int | None) -> list[list[int]]:
    """Break blocks into lines within a width, by their index; None keeps them in one line."""
    if room is None:
        return [list(range(len(widths)))]
    # A block wider than the page is not broken, so the other lines may be as wide.
    room = max(room, *widths)
    fewest = len(_break(widths, room))
    # The narrowest room with the same number of lines gives the most even lines.
    return next(lines for r in range(max(widths), room + 1) if len(lines := _break(widths, r)) == fewest)


def _break(widths: Sequence[int], room: int) -> list[list[int]]:
    """Break blocks into lines within a width, by their index: each line takes as many as fit."""
    lines: list[list[int]] = [[]]
    x = 0
    for block, width in enumerate(widths):
        if lines[-1] and x + width > room:
            lines.append([])
            x = 0
        lines[-1].append(block)
        x += width + BLOCK_GAP
    return lines
