"""Read the text files of YOLO: one object a line, a class and numbers in 0..1."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from gradcam_callback.probes.annotations import Annotation, Shape, collect, complain, read_bytes, to_numbers
from gradcam_callback.probes.outlines import fill_polygon

# Programs list the names of the classes in one of these files, one a line. The second is CVAT's.
_NAMES = ("classes.txt", "obj.names")
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
    """Return the object of a line: a class and a box, perhaps with a confidence, or a class and its points."""
    values = to_numbers(line)
    n_numbers = len(line) - 1
    fits = values is not None and values[0] >= 0 and values[0] == int(values[0])
    is_box, is_polygon = n_numbers in (4, 5), n_numbers >= 6 and n_numbers % 2 == 0
    if values is None or not fits or not (is_box or is_polygon):
        raise complain(
            path,
            "a class and four numbers of a box, or a class and the points of a polygon, in each line",
            f"line {number}, {' '.join(line)[:60]!r}",
            "Correct or remove it.",
        )
    index, places = int(values[0]), values[1:]
    if not all(-_SLACK <= place <= 1 + _SLACK for place in places):
        raise complain(
            path,
            "places in 0 to 1, as shares of the image,",
            f"{min(places):g} to {max(places):g} in line {number}",
            "Export them normalised.",
        )
    label, (width, height) = names[index] if index < len(names) else None, size
    if is_box:
        x, y, box_width, box_height = (
            place * side for place, side in zip(places[:4], (width, height) * 2, strict=True)
        )
        corners = (x - box_width / 2, y - box_height / 2, x + box_width / 2, y + box_height / 2)
        return Shape(label, box=corners)
    points = [(x * width, y * height) for x, y in zip(places[::2], places[1::2], strict=True)]
    return Shape(label, outline=partial(fill_polygon, points, height, width))


def _read_names(path: Path) -> list[str]:
    places = [folder / name for folder in (path.parent, path.parent.parent) for name in _NAMES]
    found = next((place for place in places if place.is_file() and place != path), None)
    # Some editors begin a file with a mark of its encoding, which would be a part of the first name.
    text = "" if found is None else read_bytes(found).decode("utf-8-sig", errors="replace")
    return [line.strip() for line in text.splitlines()]
