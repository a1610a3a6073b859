"""Arrange several images on one sheet: one below the other, or as a table of images with the network's answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from gradcam_callback.drawing.canvas import (
    BETWEEN,
    BLOCK_GAP,
    FAINT,
    GAP,
    GRID,
    INK,
    LABEL,
    MARGIN,
    PAPER,
    SMALL,
    TITLE,
    WRONG,
    blank,
    framed,
    put,
    write,
)
from gradcam_callback.drawing.caption import Caption
from gradcam_callback.drawing.heatmap import Pixels
from gradcam_callback.drawing.text import line_width, write_line

# The width of the names at the left of a table, and the height of a line of headings and of an answer of two lines, in
# pixels.
NAMES, LINE, ANSWER = 112, 20, 36
# The least width of a column: "100 % right" and "backgrounds" have room above a tall image, and an answer below it.
LEAST_COLUMN = 92


def stack(panels: Sequence[Image.Image]) -> Image.Image:
    """Arrange panels one below the other on one sheet."""
    sheet = Image.new("RGB", (max(p.width for p in panels), sum(p.height for p in panels)), PAPER)
    y = 0
    for panel in panels:
        sheet.paste(panel, (0, y))
        y += panel.height
    return sheet


@dataclass(frozen=True)
class Group:
    """Neighbouring columns of an answer sheet, under one heading.

    Attributes:
        heading: text above the columns, in as many lines as it needs.
        remark: a fainter line below the heading.
        columns: number of columns. A row may have fewer images.
    """

    heading: str
    remark: str
    columns: int


@dataclass(frozen=True)
class AnswerRow:
    """A row of an answer sheet: variants of one image, each with the network's answer.

    Attributes:
        name: name of the image.
        label: name of its class.
        images: images of each group of columns, ``(h, w, 3)`` uint8.
        answers: what the network says of each of these images.
    """

    name: str
    label: str
    images: Sequence[Sequence[Pixels]]
    answers: Sequence[Sequence[Caption]]


def answer_sheet(
    headline: str, is_alarm: bool, note: str, groups: Sequence[Group], rows: Sequence[AnswerRow]
) -> Image.Image:
    """Draw a table of images. Each has a green or red frame and the network's answer below it.

    Args:
        headline: text above the table, in as many lines as it needs.
        is_alarm: True writes the headline in red.
        note: smaller text below the headline.
        groups: columns, from left to right.
        rows: all images have one shape. They are drawn as large as they are.
    """
    height, width = rows[0].images[0][0].shape[:2]
    width = max(width, LEAST_COLUMN)
    lefts: list[list[int]] = []
    x = MARGIN + NAMES
    for group in groups:
        lefts.append([x + column * (width + BETWEEN) for column in range(group.columns)])
        x = lefts[-1][-1] + width + BLOCK_GAP
    page = x - BLOCK_GAP + MARGIN
    title, notes = wrap(headline, TITLE, page - 2 * MARGIN), wrap(note, LABEL, page - 2 * MARGIN)
    notes_top = MARGIN + len(title) * (TITLE + GAP) + GAP
    rooms = [min(places[-1] + width + BLOCK_GAP - GAP, page - MARGIN) - places[0] for places in lefts]
    headings = [wrap(group.heading, LABEL, room) for group, room in zip(groups, rooms, strict=True)]
    remarks_top = notes_top + len(notes) * LINE + GRID - GAP + max(map(len, headings)) * LINE
    top = remarks_top + LINE + GAP
    pitch = height + ANSWER + BETWEEN
    canvas = blank(page, top + len(rows) * pitch + MARGIN)
    for i, row in enumerate(rows):
        for places, images, answers in zip(lefts, row.images, row.answers, strict=True):
            # A row may have fewer images than its group has columns.
            for left, pixels, answer in zip(places, images, answers, strict=False):
                put(canvas, framed(pixels, answer.frame_colour), (left, top + i * pitch))
    sheet = Image.fromarray(canvas)
    for i, line in enumerate(title):
        top_of_line = MARGIN + i * (TITLE + GAP)
        write(sheet, line, (MARGIN, top_of_line), TITLE, WRONG if is_alarm else INK, page - 2 * MARGIN)
    for i, line in enumerate(notes):
        write(sheet, line, (MARGIN, notes_top + i * LINE), LABEL, FAINT, page - 2 * MARGIN)
    for places, group, heading, room in zip(lefts, groups, headings, rooms, strict=True):
        # The last lines are level, next to the images.
        for i, line in enumerate(reversed(heading), start=1):
            write(sheet, line, (places[0], remarks_top - i * LINE), LABEL, INK, room)
        write(sheet, group.remark, (places[0], remarks_top), LABEL, FAINT, room)
    for i, row in enumerate(rows):
        # In the middle of the image, unless the image is lower than the two lines.
        y = top + i * pitch + max(0, height // 2 - LABEL - GAP)
        write(sheet, row.name, (MARGIN, y), LABEL, INK, NAMES - GRID)
        write(sheet, row.label, (MARGIN, y + LABEL + 2 * GAP), SMALL, FAINT, NAMES - GRID)
        for places, answers in zip(lefts, row.answers, strict=True):
            for left, answer in zip(places, answers, strict=False):
                # Two lines, so that a name has the whole width.
                below = top + i * pitch + height + 1
                write(sheet, answer.prediction, (left, below), SMALL, answer.text_colour, width)
                write_line(sheet, answer.certainty.strip(), (left, below + SMALL + 3), SMALL, answer.text_colour)
    return sheet


def wrap(text: str, size: int, width: int) -> list[str]:
    """Break a text into lines of a width in pixels. A word that is wider gets a line of its own, and "87 %" is one."""
    lines = [""]
    for word in re.split(r"\s+(?!%)", text.strip()):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and line_width(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
