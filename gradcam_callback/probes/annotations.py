"""The objects of a photograph in an annotation file beside it, and what the readers of all formats share.

A file that holds something else, such as a caption, is no annotation and is ignored. An annotation that is broken, or
that belongs to an image of another size, is an error that names the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gradcam_callback.probes.masks import from_boxes
from gradcam_callback.probes.names import compose
from gradcam_callback.saliency import Box


class Shape(NamedTuple):
    """One object of an annotation file.

    Attributes:
        label: the name of its class; None if it is not known.
        box: the object's box, or None if its outline is known.
        outline: draws the object as a mask ``(H, W)``; None for a box.
    """

    label: str | None
    box: Box | None = None
    outline: Callable[[], Tensor] | None = None


class Annotation(NamedTuple):
    """The objects of a photograph.

    Attributes:
        outlined: ``(H, W)`` bool, True on the objects whose outline is known.
        boxes: those of which only the box is known.
        holes: ``(H, W)`` bool, True on what is cut out of all objects; None without any.
        others: the names of the objects if none of them is that of the class. All objects count then.
    """

    outlined: Tensor
    boxes: list[Box]
    holes: Tensor | None = None
    others: tuple[str, ...] = ()

    @property
    def mask(self) -> Tensor:
        """Return all objects as a mask ``(H, W)`` bool, with each box filled.

        Raises:
            ValueError: a box holds no pixel.
        """
        return self.fill(from_boxes(self.boxes, *self.outlined.shape) if self.boxes else self.outlined)

    def fill(self, in_boxes: Tensor) -> Tensor:
        """Return all objects as a mask ``(H, W)`` bool, with those in the boxes as they are given."""
        whole = self.outlined | in_boxes
        return whole if self.holes is None else whole & ~self.holes


def collect(shapes: Sequence[Shape], class_name: str, width: int, height: int) -> Annotation | None:
    """Return the objects of an image's class, or all objects if none has its name. None without any object.

    Args:
        shapes: the objects.
        class_name: of the image.
        width: of the image, in pixels.
        height: of the image, in pixels.
    """
    own = [shape for shape in shapes if is_same_class(shape.label, class_name)]
    chosen = own or shapes
    if not chosen:
        return None
    # A stray click leaves an empty box. Alone, it is an error of its own.
    chosen = [shape for shape in chosen if not _is_empty(shape.box)] or chosen
    others = () if own else tuple(sorted({shape.label for shape in shapes if shape.label}))
    outlined = torch.zeros(height, width, dtype=torch.bool)
    for shape in chosen:
        if shape.outline is not None:
            outlined |= shape.outline()
    return Annotation(outlined, [shape.box for shape in chosen if shape.box is not None], others=others)


def is_same_class(label: object, class_name: str) -> bool:
    """Return True if a label is a text that names a class.

    Capitals, spaces, hyphens, underscores and the form of accents do not matter.
    """
    return isinstance(label, str) and _plain(label) == _plain(class_name)


def check_size(path: Path, stored: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise if an annotation belongs to an image of another size.

    Args:
        path: of the annotation.
        stored: the width and height in it.
        size: the width and height of the photograph, upright.
    """
    if stored != size:
        raise ValueError(
            f"Expected the annotation {str(path)!r} to have the size of its image, {size[0]} x {size[1]}, but got "
            f"{stored[0]} x {stored[1]}. {hint_of_size(stored, size)}"
        )


def hint_of_size(stored: tuple[int, int], size: tuple[int, int]) -> str:
    """Return what to do about an annotation of another size than its image, see `check_size`."""
    if stored == size[::-1]:
        return "Annotate the image as it is shown, after the rotation in its EXIF data."
    return "Use the image that was annotated."


def read_bytes(path: Path) -> bytes:
    """Return the content of an annotation file.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        # Reading a named pipe would wait for ever.
        if not path.is_file():
            raise FileNotFoundError("no such file, a broken link, or no regular file")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"Cannot read the annotation {str(path)!r} ({error.strerror or error}). Repair or remove the file."
        ) from error


def complain(path: Path, expected: str, got: str, hint: str = "Repair or remove the file.") -> ValueError:
    """Return the error of a broken annotation."""
    return ValueError(f"Expected {expected} in {str(path)!r}, but got {got}. {hint}")


def to_numbers(values: Sequence[object]) -> list[float] | None:
    """Return values as finite numbers; None if one of them is no finite number."""
    try:
        numbers = [float(value) for value in values if isinstance(value, (int, float, str))]
    except ValueError:
        return None
    finite = all(abs(number) < float("inf") for number in numbers)
    return numbers if finite and len(numbers) == len(values) else None


def _is_empty(box: Box | None) -> bool:
    """Return True for a box between the centres of pixels. One with its corners swapped is wrong, but not empty."""
    if box is None:
        return False
    sides = [(box[0], box[2]), (box[1], box[3])]
    return all(low <= high for low, high in sides) and any(ceil(low - 0.5) == ceil(high - 0.5) for low, high in sides)


def _plain(name: str) -> str:
    return compose(re.sub(r"[\s_-]+", " ", name).strip().casefold())
