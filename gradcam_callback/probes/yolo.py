"""Read the text files of YOLO: one object a line, a class and numbers in 0..1."""

from __future__ import annotations

from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gradcam_callback.probes.annotations import Annotation, Shape, collect, complain, read_bytes, to_numbers
from gradcam_callback.probes.outlines import fill_polygon

# Programs list the names of the classes in one of these files, one a line, beside the annotations or one folder above.
# The second is CVAT's.
NAME_FILES = ("classes.txt", "obj.names")
# Rounding leaves 0..1 by this much.
_SLACK = 0.01


def read_yolo(path: Path, class_name: str, size: tuple[int, int]) -> Annotation | None:
    """Read boxes and polygons from a text file of YOLO.

    Args:
        path: of the text file. The names of the classes come from ``classes.txt`` or ``obj.names``, beside it or one
            folder above. Without such a file, every object counts.
        class_name: of the image.
        size: the width and height of the photograph, upright.

    Returns:
        None if it marks no object, or if no line has four numbers or more: it is a caption or another text.

    Raises:
        ValueError: the file cannot be read, or some of its lines are no objects.
    """
    try:
        lines = [line.split() for line in read_bytes(path).decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        return None
    if not any(len(line) >= 4 and to_numbers(line) is not None for line in lines):
        return None
    names = _read_names(path)
    shapes = [_read_line(path, number, line, names, size) for number, line in enumerate(lines, 1)]
    return collect(shapes, class_name, *size)


def _read_line(path: Path, number: int, line: list[str], names: list[str], size: tuple[int, int]) -> Shape:
    """Return the object of a line: a class and a box, perhaps with a confidence, or a class and its points.

    A box may have key points behind it. Their line is one of a pose, and the box counts.
    """
    values = to_numbers(line)
    n_numbers = len(line) - 1
    fits = values is not None and values[0] >= 0 and values[0] == int(values[0])
    with_visibility = values is not None and _has_visible_key_points(values[1:])
    is_box = n_numbers in (4, 5) or with_visibility
    is_polygon = not is_box and n_numbers >= 6 and n_numbers % 2 == 0
    if values is None or not fits or not (is_box or is_polygon):
        raise complain(
            path,
            "a class and four numbers of a box, or a class and the points of a polygon, in each line",
            f"line {number}, {' '.join(line)[:60]!r}",
            "Correct or remove it.",
        )
    index, places = int(values[0]), values[1:5] if with_visibility else values[1:]
    if not all(-_SLACK <= place <= 1 + _SLACK for place in places):
        raise complain(
            path,
            "places in 0 to 1, as shares of the image,",
            f"{min(places):g} to {max(places):g} in line {number}",
            "Export them normalised.",
        )
    label, (width, height) = names[index] if index < len(names) else None, size
    if is_box:
        x1, y1, x2, y2 = _corners(places)
        return Shape(label, box=(x1 * width, y1 * height, x2 * width, y2 * height))
    points = [(x * width, y * height) for x, y in zip(places[::2], places[1::2], strict=True)]
    return Shape(label, outline=partial(fill_polygon, points, height, width))


def _corners(places: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the corners of a box, whose centre and size come first in a line."""
    x, y, width, height = places[:4]
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _hold(places: Sequence[float], points: Sequence[tuple[float, float]]) -> bool:
    """Return True if the numbers of a line start with a box inside of the image that holds all points."""
    x1, y1, x2, y2 = _corners(places)
    inside = -_SLACK <= x1 < x2 <= 1 + _SLACK and -_SLACK <= y1 < y2 <= 1 + _SLACK
    return inside and all(x1 - _SLACK <= x <= x2 + _SLACK and y1 - _SLACK <= y <= y2 + _SLACK for x, y in points)


def _has_visible_key_points(places: Sequence[float]) -> bool:
    """Return True if the numbers of a line are certainly a box and key points: x, y and 0, 1 or 2 for each.

    Key points of two numbers each cannot be told from a polygon.
    """
    shown = places[6::3]
    if len(places) < 7 or len(places) % 3 != 1 or not all(one in (0, 1, 2) for one in shown):
        return False
    if len(places) % 2 == 1:
        return True
    seen = [(x, y) for x, y, one in zip(places[4::3], places[5::3], shown, strict=True) if one]
    return 2 in shown and _hold(places, seen)


def _read_names(path: Path) -> list[str]:
    places = [folder / name for folder in (path.parent, path.parent.parent) for name in NAME_FILES]
    found = next((place for place in places if place.is_file() and place != path), None)
    content = b"" if found is None else read_bytes(found)
    # Some editors begin a file with a mark of its encoding, which would be a part of the first name.
    encoding = "utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    text = content.decode(encoding, errors="replace")
    return [line.strip() for line in text.splitlines()]
