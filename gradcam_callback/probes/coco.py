"""Probe images and masks out of annotations in the format of COCO."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradcam_callback.probes.datasets import choose
from gradcam_callback.probes.image_files import (
    Item,
    Transform,
    mask_to_image,
    open_as_tensor,
    open_image,
    to_tensor,
    transformed_mask,
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
    """Images of a COCO annotation file, of each category the same ones every time; see `ProbeSet.from_coco`."""
    coco = _read_annotations(annotations)
    names = {int(category["id"]): str(category["name"]) for category in coco.loadCats(sorted(coco.getCatIds()))}
    classes = list(names.values()) if categories is None else list(categories)
    unknown = sorted(set(classes) - set(names.values()))
    if unknown:
        raise ValueError(
            f"The categories {unknown} are not in {str(annotations)!r}. Expected some of {[*names.values()]}."
        )
    outlines = {image: _largest_object(coco, image, names, classes) for image in sorted(coco.getImgIds())}
    labels = {image: classes.index(found[0]) for image, found in outlines.items() if found is not None}
    order = random.Random(seed).sample(sorted(labels), len(labels))
    items = []
    with preserved_random_state():
        for image, _ in choose([(image, labels[image]) for image in order], per_class, None):
            entry, found = coco.loadImgs([image])[0], outlines[image]
            assert found is not None
            path = folder / entry["file_name"]
            pixels = open_as_tensor(path, transform or to_tensor)
            picture = mask_to_image(_mask_of_annotations(coco, found[1]))
            size = open_image(path, "RGB").size
            if picture.size != size:
                raise ValueError(f"{str(path)!r} is {size} px. Expected {picture.size}, as its annotations say.")
            items.append(Item(pixels, labels[image], transformed_mask(picture, transform or to_tensor), str(path)))
    if not items:
        raise ValueError(f"No objects of {classes} in {str(annotations)!r}.")
    return items, classes


def _read_annotations(path: Path) -> Any:
    try:
        from pycocotools.coco import COCO
    except ImportError as error:
        raise ImportError(
            "Reading COCO annotations needs pycocotools: pip install 'gradcam-callback[coco]'."
        ) from error
    with redirect_stdout(io.StringIO()):  # it prints how long it took
        return COCO(str(path))


def _mask_of_annotations(coco: Any, annotations: Sequence[Any]) -> Tensor:
    with warnings.catch_warnings():
        # pycocotools has not yet learnt how NumPy 2 asks for a copy.
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.from_numpy(np.any([coco.annToMask(annotation) for annotation in annotations], axis=0))


def _largest_object(
    coco: Any, image: int, names: dict[int, str], classes: Sequence[str]
) -> tuple[str, list[Any]] | None:
    """The category that fills most of an image, and its annotations; None where it shows none of the classes."""
    by_name: dict[str, list[Any]] = {}
    for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[image], iscrowd=False)):
        name = names[annotation["category_id"]]
        if name in classes and annotation["area"] > 0:
            by_name.setdefault(name, []).append(annotation)
    return max(by_name.items(), key=lambda pair: sum(part["area"] for part in pair[1])) if by_name else None
