"""Place the columns of layers on a panel, block by block, and break the names of layers into lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from gradcam_callback.drawing.canvas import BLOCK_GAP, GAP, LABEL, MARGIN, cut, on_grid
from gradcam_callback.drawing.text import line_width
from gradcam_callback.layer_names import block_of

# The most lines of a layer's name above a column, and the most that names widen a column, in pixels.
MOST_LINES, MOST_COLUMN = 8, 108


def break_name(name: str, width: int, most: int = MOST_LINES) -> list[str]:
    """Break the name of a layer into lines of a width in pixels, if possible behind a dot or an underscore.

    A name that needs more than ``most`` lines is cut in the last of them.
    """
    lines = [""]
    for part in _parts(name):
        # A part that is wider than a line is broken anywhere.
        for piece in part if line_width(part, LABEL) > width else [part]:
            if lines[-1] and line_width(lines[-1] + piece, LABEL) > width:
                lines.append("")
            lines[-1] += piece
    return lines if len(lines) <= most else [*lines[: most - 1], cut("".join(lines[most - 1 :]), LABEL, width)]


def least_column(names: Iterable[str], least: int) -> int:
    """Return the width of a column in which names break behind their dots only, in pixels.

    Args:
        names: names of layers.
        least: the smallest width.
    """
    longest = max(line_width(part, LABEL) for name in names for part in _parts(name))
    return max(least, min(MOST_COLUMN, on_grid(longest + GAP) - GAP))


def _parts(name: str) -> list[str]:
    return re.findall(r"[^._]*[._]+|[^._]+", name) or [""]


def place_columns(
    layers: Sequence[str], left: int, width: int, max_width: int | None
) -> tuple[list[tuple[int, int]], int]:
    """Place one column per layer, with thin gaps within a block and wider gaps between blocks.

    Blocks that do not fit into one line go on in further lines: as few as possible, and as even as possible.

    Args:
        layers: names in order. A layer without a block is a block of its own.
        left: left end of each line, in pixels.
        width: width of a column.
        max_width: width of the whole panel. None keeps all columns in one line.

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
