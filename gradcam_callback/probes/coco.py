"""Choose images of each category from COCO annotations, with their masks."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradcam_callback.probes.annotations import complain, hint_of_size, to_numbers
from gradcam_callback.probes.checks import check_count, check_seed
from gradcam_callback.probes.image_files import open_image
from gradcam_callback.probes.items import Item
from gradcam_callback.probes.masks import from_boxes
from gradcam_callback.probes.names import compose, decompose
from gradcam_callback.probes.quotas import Quota, choose_per_class
from gradcam_callback.probes.transforms import (
    Transform,
    mask_to_image,
    read_transformed,
    to_tensor,
    transform_mask_of_file,
)
from gradcam_callback.random_state import preserved_random_state

# The lists of a file, and what each of their entries has: ids, which are numbers or texts, and a name.
_LISTS = {"images": ("id", "file_name"), "annotations": ("image_id", "category_id"), "categories": ("id", "name")}
_CORRECT = "Correct or remove it."


def read_coco(
    annotations: Path,
    folder: Path,
    transform: Transform | None,
    categories: Sequence[str] | None,
    per_class: int,
    seed: int,
) -> tuple[list[Item], list[str]]:
    """Choose ``per_class`` images of each category, see `ProbeSet.from_coco`.

    Returns:
        The images, and the names of the categories by class index.
    """
    check_count("per_class", per_class)
    seed = check_seed(seed)
    coco = _Coco(annotations, folder)
    names = list(coco.names.values())
    classes = names if categories is None else [compose(name) for name in categories]
    unknown = sorted(set(classes) - set(names))
    if unknown:
        raise ValueError(
            f"Expected `categories` to be among {names}, as in {str(annotations)!r}, but got {unknown}. Correct the "
            "names."
        )
    objects = {}
    # Sorted, so that the order in the file does not change the choice.
    for image_id in _sort(coco.images):
        found = coco.largest_category(image_id, classes)
        if found is not None:
            objects[image_id] = found
    if not objects:
        raise ValueError(
            f"Expected objects of {classes} in {str(annotations)!r}, but there are none. Choose other categories, or "
            "another file of annotations."
        )
    order = random.Random(seed).sample(list(objects), len(objects))
    pairs = [(image_id, classes.index(objects[image_id][0])) for image_id in order]
    items = []
    with preserved_random_state():
        for image_id, label in choose_per_class(pairs, Quota(per_class, None)):
            path, shown = coco.find_image(image_id), objects[image_id][1]
            pixels = read_transformed(path, transform or to_tensor)
            size, stored = open_image(path, "RGB").size, coco.size(image_id)
            if stored != size:
                raise ValueError(
                    f"Expected {str(path)!r} to have the size in its annotations, {stored[0]} x {stored[1]}, but got "
                    f"{size[0]} x {size[1]}. {hint_of_size(stored, size)}"
                )
            as_rgb = partial(open_image, path, "RGB")
            drawn = mask_to_image(coco.draw(shown))
            mask = transform_mask_of_file(drawn, transform or to_tensor, as_rgb, annotations)
            boxed = not all(_outline(annotation) for annotation in shown)
            items.append(Item(pixels, label, mask, str(path), name=path.stem, boxed=boxed))
    return items, classes


class _Coco:
    """The content of a file of COCO annotations.

    Args:
        path: of the JSON file.
        folder: of the images.

    Attributes:
        images: by id.
        names: of the categories by id, in the order of their ids.

    Raises:
        ImportError: pycocotools is not installed.
        ValueError: the file is no JSON, or none of COCO.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        # An optional dependency, so it is imported only here.
        try:
            from pycocotools import mask
        except ImportError as error:
            raise ImportError(
                "Reading COCO annotations needs pycocotools. Install it with: pip install 'gradcam-callback[coco]'"
            ) from error
        self._polygons: Any = mask
        self._path, self._folder = path, folder
        images, annotations, categories = _read_lists(path)
        self.images = {image["id"]: image for image in images}
        by_id = {category["id"]: compose(str(category["name"])) for category in categories}
        self.names = {number: by_id[number] for number in _sort(by_id)}
        strange = _sort({one["category_id"] for one in annotations} - set(by_id))
        if strange:
            raise ValueError(
                f"Expected annotations of the categories {[*self.names]} in {str(path)!r}, but some are of {strange}. "
                "Add these to its categories, or export it again."
            )
        # By their images, and not by their ids, which are not unique in the files of some programs.
        self._annotations: dict[Any, list[Any]] = {}
        for annotation in annotations:
            self._annotations.setdefault(annotation["image_id"], []).append(annotation)
        # The categories of which some object is no crowd. CVAT calls an object a crowd if it was painted with a brush.
        # In COCO itself a crowd is a coarse outline of many.
        self._single = {by_id[one["category_id"]] for one in annotations if not one.get("iscrowd")}

    def find_image(self, image_id: Any) -> Path:
        """Return the path of an image."""
        name = str(self.images[image_id]["file_name"])
        for spelling in (name, compose(name), decompose(name)):
            path = self._folder / spelling
            if path.exists() or path.is_symlink():
                return path
        for inner in sorted(self._folder.glob("*/")):
            if (inner / name).exists():
                raise ValueError(
                    f"Expected {name!r} of the annotations in {str(self._folder)!r}, but it lies in {str(inner)!r}. "
                    f"Pass folder={str(inner)!r}."
                )
        raise ValueError(
            f"Expected the image {name!r} of {str(self._path)!r} in the folder {str(self._folder)!r}, but there is no "
            "such file. Correct `folder`, or the `file_name` in the annotations."
        )

    def size(self, image_id: Any) -> tuple[int, int]:
        """Return the width and height of an image: those in the annotations, or of its file."""
        stored = [self.images[image_id].get(side) for side in ("width", "height")]
        if not any(stored):
            return open_image(self.find_image(image_id), "RGB").size
        numbers = to_numbers(stored)
        if numbers is None:
            raise self._complain(image_id, "numbers as width and height", f"{stored[0]!r} and {stored[1]!r}")
        return int(numbers[0]), int(numbers[1])

    def largest_category(self, image_id: Any, classes: Collection[str]) -> tuple[str, list[Any]] | None:
        """Return the category that fills most of an image and its annotations, or None without any of the classes."""
        by_name: dict[str, list[Any]] = {}
        for annotation in self._annotations.get(image_id, []):
            name = self.names[annotation["category_id"]]
            if name in classes and self._area(annotation) > 0:
                by_name.setdefault(name, []).append(annotation)
        # Beside single objects of its category somewhere in the file, a crowd only adds to the mask.
        counted = [
            (name, found)
            for name, found in by_name.items()
            if name not in self._single or not all(annotation.get("iscrowd") for annotation in found)
        ]
        return max(counted, key=lambda pair: sum(map(self._area, pair[1])), default=None)

    def draw(self, annotations: Sequence[Any]) -> Tensor:
        """Return the union of several annotations of an image as a mask ``(H, W)`` bool."""
        return torch.from_numpy(np.any([self._draw(annotation) for annotation in annotations], axis=0))

    def _area(self, annotation: Any) -> float:
        """Return the area of an annotation, or of its box, or of its outline; 0 if it has neither, as of key points."""
        box = self._box(annotation)
        if box is None and not _outline(annotation):
            return 0.0
        area = to_numbers([annotation.get("area")])
        if area is not None and area[0]:
            return area[0]
        return box[2] * box[3] if box is not None else float(self._draw(annotation).sum())

    def _box(self, annotation: Any) -> list[float] | None:
        """Return x, y, width and height of the box of an annotation, or None without any."""
        box = annotation.get("bbox")
        if not box:
            return None
        numbers = to_numbers(box) if isinstance(box, list) and len(box) == 4 else None
        if numbers is None:
            raise self._complain(annotation["image_id"], "x, y, width and height as a bbox", f"{box!r:.60}")
        return numbers

    def _draw(self, annotation: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
        image_id, outline = annotation["image_id"], _outline(annotation)
        width, height = self.size(image_id)
        if isinstance(outline, Mapping):
            drawn = decode_runs(outline, height, width)
            if drawn is None:
                got = f"size {outline.get('size')} and counts {outline.get('counts')!r:.40}"
                raise self._complain(image_id, f"run lengths of all pixels, with the size {[height, width]},", got)
            return drawn
        if outline:
            points = [to_numbers(one) if isinstance(one, list) and len(one) % 2 == 0 else None for one in outline]
            polygons = [one for one in points if one is not None and len(one) >= 6]
            if len(polygons) < len(outline):
                raise self._complain(image_id, "polygons with x and y of three points or more", f"{outline!r:.60}")
            with warnings.catch_warnings():
                # pycocotools calls NumPy in a way that NumPy 2 deprecates.
                warnings.simplefilter("ignore", DeprecationWarning)
                runs = self._polygons.merge(self._polygons.frPyObjects(polygons, height, width))
                return np.asarray(self._polygons.decode(runs), dtype=bool)
        x, y, box_width, box_height = self._box(annotation) or (0, 0, 0, 0)
        try:
            return from_boxes([x, y, x + box_width, y + box_height], height, width).numpy()
        except ValueError as error:
            raise ValueError(f"Cannot read the annotations {str(self._path)!r}. {error}") from error

    def _complain(self, image_id: Any, expected: str, got: str) -> ValueError:
        name = self.images[image_id]["file_name"]
        return complain(self._path, expected, f"{got} for the image {name!r}", _CORRECT)


def _read_lists(path: Path) -> list[list[Any]]:
    """Return the images, annotations and categories of a file."""
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise complain(path, "JSON, as COCO writes it,", f"{type(error).__name__}: {error}") from error
    given = content if isinstance(content, Mapping) else {}
    lacking = [name for name in _LISTS if not isinstance(given.get(name), list)]
    if lacking:
        hint = "Export the annotations as COCO, with their images and categories."
        if "shapes" in given:
            hint = "This is a file of labelme. Put each beside its photograph, and read them with ProbeSet.from_folder."
        got = f"none of {lacking}" if given else type(content).__name__
        raise complain(path, f"the lists {[*_LISTS]}, as COCO has them,", got, hint)
    for name, fields in _LISTS.items():
        for number, entry in enumerate(given[name]):
            values = [entry.get(field) for field in fields] if isinstance(entry, Mapping) else [None]
            if not all(isinstance(value, (int, float, str)) for value in values):
                raise complain(path, f"{' and '.join(fields)} in each of {name!r}", f"{entry!r:.60} as number {number}")
    return [given[name] for name in _LISTS]


def _sort(ids: Collection[Any]) -> list[Any]:
    """Return ids in their order: numbers first, then texts."""
    return sorted(ids, key=lambda one: (isinstance(one, str), one))


def _outline(annotation: Any) -> Any:
    """Return the polygons or run lengths of an annotation; nothing for a box alone, as of a drawn rectangle."""
    outline = annotation.get("segmentation")
    # Some programs write an empty polygon beside a box.
    return [polygon for polygon in outline if polygon != []] if isinstance(outline, list) else outline


def decode_runs(encoded: Mapping[str, Any], height: int, width: int) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
    """Return a mask of run lengths, column by column and background first; None if they do not fit to the image.

    pycocotools returns memory that is not set for lengths that end early.
    """
    counts = encoded.get("counts")
    runs = _read_runs(counts) if isinstance(counts, str) else to_numbers(counts) if isinstance(counts, list) else None
    if runs is None or min(runs, default=-1) < 0 or sum(runs) != height * width:
        return None
    if encoded.get("size") != [height, width] or any(run != int(run) for run in runs):
        return None
    return np.repeat(np.arange(len(runs)) % 2 == 1, np.array(runs, dtype=np.int64)).reshape(width, height).T


def _read_runs(text: str) -> list[float] | None:
    """Return the run lengths that COCO writes as a text: differences in pieces of five bits; None if it is broken."""
    runs, value, shift = list[float](), 0, 0
    for code in (ord(char) - 48 for char in text):
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue  # more pieces follow
        value -= (code & 16) >> 4 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    return None if shift else runs
