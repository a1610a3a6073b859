"""Read the JSON files of labelme, and of the programs that write its format."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradcam_callback.probes.annotations import (
    Annotation,
    Shape,
    check_size,
    collect,
    complain,
    read_bytes,
    to_numbers,
)
from gradcam_callback.probes.outlines import fill_circle, fill_polygon

# None is a polygon, in old files. X-AnyLabeling calls turned rectangles rotations.
_POLYGONS = (None, "polygon", "oriented_rectangle", "rotation")
# These have no inside.
_WITHOUT_INSIDE = ("line", "linestrip", "point", "points")
# The labels that labelme keeps for what is no object. The first cuts a hole.
_HOLE, _IGNORED = "_background_", "__ignore__"


def read_labelme(path: Path, class_name: str, size: tuple[int, int]) -> Annotation | None:
    """Read polygons, rectangles, circles and painted masks from a JSON file of labelme.

    Args:
        path: of the JSON file.
        class_name: of the image.
        size: the width and height of the photograph, upright.

    Returns:
        None if it marks no object, or if the JSON is no annotation of labelme.

    Raises:
        ValueError: the file is no JSON, belongs to an image of another size, or has a broken shape.
    """
    try:
        content = json.loads(read_bytes(path).decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise complain(path, "JSON, as labelme writes it,", f"{type(error).__name__}: {error}") from error
    if not isinstance(content, Mapping) or not isinstance(content.get("shapes"), list):
        return None
    width, height = (content.get(key) or given for key, given in zip(("imageWidth", "imageHeight"), size, strict=True))
    stored = to_numbers([width, height])
    if stored is None:
        raise complain(path, "numbers as imageWidth and imageHeight", f"{width!r} and {height!r}")
    check_size(path, (int(stored[0]), int(stored[1])), size)
    shapes, holes = list[Shape](), list[Tensor]()
    for number, shape in enumerate(content["shapes"]):
        label, read = _read_shape(path, number, shape, size)
        if read is not None and label == _HOLE:
            holes.append(_draw(read, size))
        elif read is not None and label != _IGNORED:
            shapes.append(read)
    found = collect(shapes, class_name, *size)
    return found if found is None or not holes else found._replace(holes=torch.stack(holes).any(dim=0))


def _read_shape(path: Path, number: int, shape: Any, size: tuple[int, int]) -> tuple[str | None, Shape | None]:
    """Return the label of a shape, and the shape, or None for a shape without an inside."""
    fields = shape if isinstance(shape, Mapping) else {}
    label = fields.get("label") if isinstance(fields.get("label"), str) else None
    kind, points = fields.get("shape_type"), _to_points(fields.get("points"))
    if kind in _WITHOUT_INSIDE:
        return label, None
    width, height = size
    if points is not None and kind in _POLYGONS and len(points) >= 3:
        return label, Shape(label, outline=partial(fill_polygon, points, height, width))
    if points is not None and kind == "rectangle" and len(points) >= 2:
        # Two corners, in any order, or all four.
        xs, ys = zip(*points, strict=True)
        return label, Shape(label, box=(min(xs), min(ys), max(xs), max(ys)))
    if points is not None and kind == "circle" and len(points) == 2:
        # The centre, and a point on the circle.
        return label, Shape(label, outline=partial(fill_circle, points[0], math.dist(*points), height, width))
    if points is not None and kind == "mask":
        painted = _decode(fields.get("mask"))
        if painted is not None:
            return label, Shape(label, outline=partial(_paste, painted, points[0], height, width))
    raise complain(
        path,
        "polygons, rectangles, circles and masks with their points",
        f"shape {number} {str(label)!r} of type {kind!r} with the points {str(fields.get('points'))[:60]}",
        "Correct it in labelme.",
    )


def _draw(shape: Shape, size: tuple[int, int]) -> Tensor:
    """Return the inside of a shape, which may lie outside of the image, as a mask ``(H, W)`` bool."""
    if shape.box is None or shape.outline is not None:
        return shape.outline() if shape.outline is not None else torch.zeros(size[::-1], dtype=torch.bool)
    x1, y1, x2, y2 = shape.box
    return fill_polygon([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], size[1], size[0])


def _to_points(value: Any) -> list[tuple[float, float]] | None:
    """Return points as pairs of numbers; None if there are none, or something else."""
    if not isinstance(value, list) or not value:
        return None
    pairs = [to_numbers(point) for point in value if isinstance(point, list) and len(point) == 2]
    points = [(pair[0], pair[1]) for pair in pairs if pair is not None]
    return points if len(points) == len(value) else None


def _decode(encoded: Any) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
    """Return a painted mask, which labelme stores as a PNG in base 64; None if it is broken."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            return np.asarray(image.convert("L")) > 0
    except Exception:  # Pillow raises many kinds of errors for broken images.
        return None


def _paste(
    painted: np.ndarray[Any, np.dtype[np.bool_]], corner: tuple[float, float], height: int, width: int
) -> Tensor:
    """Lay a painted mask into its image, by its upper left corner."""
    left, top = round(corner[0]), round(corner[1])
    mask = torch.zeros(height, width, dtype=torch.bool)
    part = torch.from_numpy(painted)[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    top, left = max(top, 0), max(left, 0)
    mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    return mask
