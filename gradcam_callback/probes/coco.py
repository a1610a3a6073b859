"""Choose images of each category from COCO annotations, with their masks."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Collection, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradcam_callback.probes.checks import check_count, check_seed
from gradcam_callback.probes.image_files import open_image
from gradcam_callback.probes.items import Item, choose_per_class
from gradcam_callback.probes.masks import from_boxes
from gradcam_callback.probes.transforms import (
    Transform,
    mask_to_image,
    read_transformed,
    to_tensor,
    transform_mask_of_file,
)
from gradcam_callback.random_state import preserved_random_state


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
    coco = _read_annotations(annotations)
    names = {int(category["id"]): str(category["name"]) for category in coco.loadCats(sorted(coco.getCatIds()))}
    classes = list(names.values()) if categories is None else list(categories)
    unknown = sorted(set(classes) - set(names.values()))
    if unknown:
        raise ValueError(
            f"Expected `categories` to be among {[*names.values()]}, as in {str(annotations)!r}, but got {unknown}."
        )
    strange = sorted({one["category_id"] for one in coco.dataset["annotations"]} - set(names))
    if strange:
        raise ValueError(
            f"Expected annotations of the categories {[*names]} in {str(annotations)!r}, but some are of {strange}. "
            "Add these to its categories, or export it again."
        )
    # CVAT calls an object a crowd if it was painted with a brush. In COCO itself a crowd is a coarse outline of many.
    single = {names[one["category_id"]] for one in coco.dataset["annotations"] if not one.get("iscrowd")}
    objects = {}
    # Sorted, so that the order in the file does not change the choice.
    for image_id in sorted(coco.getImgIds()):
        found = _largest_category(coco, image_id, names, classes, single)
        if found is not None:
            objects[image_id] = found
    if not objects:
        raise ValueError(f"Expected objects of {classes} in {str(annotations)!r}, but there are none.")
    order = random.Random(seed).sample(list(objects), len(objects))
    pairs = [(image_id, classes.index(objects[image_id][0])) for image_id in order]
    items = []
    with preserved_random_state():
        for image_id, label in choose_per_class(pairs, per_class, None):
            path = _find_image(folder, coco.loadImgs([image_id])[0]["file_name"])
            pixels = read_transformed(path, transform or to_tensor)
            mask = _draw_mask(coco, objects[image_id][1])
            boxed = not all(_has_outline(annotation) for annotation in objects[image_id][1])
            width, height = open_image(path, "RGB").size
            if mask.shape != (height, width):
                raise ValueError(
                    f"Expected {str(path)!r} to have the size in its annotations, {mask.shape[1]} x {mask.shape[0]}, "
                    f"but got {width} x {height}. Use the images that were annotated."
                )
            as_rgb = partial(open_image, path, "RGB")
            after = transform_mask_of_file(mask_to_image(mask), transform or to_tensor, as_rgb, annotations)
            items.append(Item(pixels, label, after, str(path), name=path.stem, boxed=boxed))
    return items, classes


def _read_annotations(path: Path) -> Any:
    # An optional dependency, so it is imported only here.
    try:
        from pycocotools.coco import COCO
    except ImportError as error:
        raise ImportError(
            "Reading COCO annotations needs pycocotools. Install it with: pip install 'gradcam-callback[coco]'"
        ) from error
    # pycocotools prints how long it took.
    with redirect_stdout(io.StringIO()):
        return COCO(str(path))


def _find_image(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        for inner in sorted(folder.glob("*/")):
            if (inner / name).exists():
                raise ValueError(
                    f"Expected {name!r} of the annotations in {str(folder)!r}, but it lies in {str(inner)!r}. Pass "
                    f"folder={str(inner)!r}."
                )
    return path


def _largest_category(
    coco: Any, image_id: int, names: dict[int, str], classes: Sequence[str], single: Collection[str]
) -> tuple[str, list[Any]] | None:
    """Return the category that fills most of an image and its annotations, or None without any of the classes.

    Args:
        single: the categories of which some object is no crowd. In an image, a crowd of these only adds to the mask.
    """
    by_name: dict[str, list[Any]] = {}
    # Not by their ids, which are not unique in the files of some programs.
    for annotation in coco.imgToAnns[image_id]:
        name = names[annotation["category_id"]]
        if name in classes and _area(coco, annotation) > 0:
            by_name.setdefault(name, []).append(annotation)
    counted = [
        (name, found)
        for name, found in by_name.items()
        if name not in single or not all(annotation.get("iscrowd") for annotation in found)
    ]
    return max(counted, key=lambda pair: sum(_area(coco, part) for part in pair[1]), default=None)


def _area(coco: Any, annotation: Any) -> float:
    """Return the area of an annotation, or of its box, or of its outline; 0 if it has neither, as of key points."""
    box = annotation.get("bbox")
    if not box and not _has_outline(annotation):
        return 0.0
    return float(annotation.get("area") or (box[2] * box[3] if box else _draw_mask(coco, [annotation]).sum()))


def _has_outline(annotation: Any) -> bool:
    """Return False for an annotation that is a box alone, as programs write it for a drawn rectangle."""
    return bool(annotation.get("segmentation"))


def _draw_mask(coco: Any, annotations: Sequence[Any]) -> Tensor:
    """Return the union of several annotations as a mask ``(H, W)`` bool."""
    with warnings.catch_warnings():
        # pycocotools calls NumPy in a way that NumPy 2 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.from_numpy(np.any([_draw(coco, annotation) for annotation in annotations], axis=0))


def _draw(coco: Any, annotation: Any) -> Any:
    if _has_outline(annotation):
        return coco.annToMask(annotation)
    image, (x, y, width, height) = coco.imgs[annotation["image_id"]], annotation["bbox"]
    return from_boxes([x, y, x + width, y + height], image["height"], image["width"]).numpy()
