"""Where probe images come from: items chosen from a dataset, or a folder of files with masks beside them."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.datasets import OxfordIIITPet

from gradcam_callback import masks
from gradcam_callback.state import preserved_random_state

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MASK_SUFFIX = ".mask.png"

Transform = Callable[[Image.Image], Tensor]


class Item(NamedTuple):
    """One image ``(C, H, W)``, its class, its mask where it has one, and where it comes from, for messages."""

    image: Tensor
    label: int
    mask: Any
    source: str


def find_normalisation(source: Any) -> tuple[list[float] | None, list[float] | None]:
    """Mean and std of the torchvision ``Normalize`` (v1 or v2) in a transform, or in a dataset's, however wrapped.

    Also finds the presets that come with torchvision's weights, which hold ``mean`` and ``std`` themselves.
    """
    for part in _walk(source):
        mean, std = getattr(part, "mean", None), getattr(part, "std", None)
        if type(part).__module__.startswith("torchvision.transforms") and mean is not None and std is not None:
            return [float(value) for value in mean], [float(value) for value in std]
    return None, None


def _walk(source: Any, depth: int = 0) -> Iterator[Any]:
    """A dataset or transform and everything wrapped in it, by the names that torch and torchvision use."""
    if source is None or depth > 8:
        return
    yield source
    inner: list[Any] = [getattr(source, name, None) for name in ("transform", "dataset")]
    for name in ("transforms", "datasets"):
        value = getattr(source, name, None)
        inner += value if isinstance(value, (list, tuple)) else [value]
    for part in inner:
        yield from _walk(part, depth + 1)


def find_class_names(dataset: Any) -> list[str] | None:
    for part in _walk(dataset):
        names = getattr(part, "classes", None)
        if isinstance(names, (list, tuple)) and names:
            return [str(name) for name in names]
    return None


def choose_items(
    dataset: Any, per_class: int, seed: int, max_images: int | None, max_scanned: int | None
) -> list[Item]:
    """``per_class`` items of each class of a map-style dataset; see `ProbeSet.from_dataset`."""
    if per_class < 1:
        raise ValueError(f"per_class is {per_class}. Expected 1 or more.")
    if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
        raise ValueError(
            f"A {type(dataset).__name__} has no length or no items by index. Expected a map-style dataset; from "
            "an iterable one take the images yourself and pass ProbeSet(images, labels)."
        )
    if not len(dataset):
        raise ValueError("The dataset is empty. Expected at least one item (image, label).")
    with preserved_random_state():
        order = random.Random(seed).sample(range(len(dataset)), len(dataset))
        items = []
        for index in _choose(_labels_of(dataset, order, max_scanned), per_class, max_images):
            # Seeded, an augmenting transform gives the same picture every time.
            items.append(_item(dataset, index, seed + index))
    return items


def _labels_of(dataset: Any, order: Sequence[int], max_scanned: int | None) -> dict[int, int]:
    """Index -> label, in the order given, without loading an image where the labels can be had alone."""
    targets = _targets(dataset)
    if targets is not None:
        return {index: int(targets[index]) for index in order}
    return {index: _item(dataset, index, seed=0).label for index in order[:max_scanned]}


def _targets(dataset: Any) -> Any:
    targets = getattr(dataset, "targets", None)
    if isinstance(targets, (list, tuple, np.ndarray, Tensor)) and len(targets) == len(dataset):
        # Only plain class indices: detection datasets call whole annotations targets.
        if all(isinstance(value, (int, np.integer)) or getattr(value, "ndim", 1) == 0 for value in targets):
            return targets if getattr(dataset, "target_transform", None) is None else None
    if isinstance(dataset, torch.utils.data.Subset):
        inner = _targets(dataset.dataset)
        return None if inner is None else [int(inner[index]) for index in dataset.indices]
    return None


def _choose(labels: dict[int, int], per_class: int, max_images: int | None) -> list[int]:
    by_class: dict[int, list[int]] = {}
    for index, label in labels.items():
        by_class.setdefault(label, []).append(index)
    classes = sorted(by_class)
    if max_images is not None:
        per_class = min(per_class, max_images)
        room = max_images // per_class
        if len(classes) > room:
            classes = [classes[round(i * (len(classes) - 1) / max(room - 1, 1))] for i in range(room)]
    return [index for label in classes for index in by_class[label][:per_class]]


def _item(dataset: Any, index: int, seed: int) -> Item:
    _seed_everything(seed)
    item = dataset[index]
    if not isinstance(item, (tuple, list)) or len(item) not in (2, 3):
        raise ValueError(
            f"Item {index} of the dataset is a {type(item).__name__}. Expected (image, label) or (image, label, mask); "
            "from another form take the images yourself and pass ProbeSet(images, labels)."
        )
    if len(item) == 2 and isinstance(item[1], (tuple, list)) and len(item[1]) == 2 and len(np.shape(item[1][1])) > 1:
        item = (item[0], *item[1])  # (image, (label, mask)), as torchvision's datasets give several targets
    image, label = item[0], item[1]
    if not isinstance(image, Tensor):
        raise ValueError(
            f"The image of item {index} is a {type(image).__name__}. Expected a tensor (C, H, W): give the dataset a "
            "transform that makes one."
        )
    given = torch.as_tensor(label)
    if given.numel() != 1 or given.is_floating_point():
        raise ValueError(f"The label of item {index} is {label!r}. Expected one integer class.")
    mask = item[2] if len(item) == 3 else None
    if mask is not None and any(isinstance(part, OxfordIIITPet) for part in _walk(dataset)):
        mask = masks.from_trimap(mask)
    elif isinstance(mask, Image.Image):
        mask = masks.from_picture(mask)
    transform = next((part.transform for part in _walk(dataset) if getattr(part, "transform", None)), None)
    if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape != image.shape[1:] and transform is not None:
        # The dataset's transform was for the image alone.
        mask = _transformed_mask(_as_picture(mask), transform, seed)
    return Item(image, int(given), mask, f"item {index}")


def read_folder(
    root: Path, transform: Transform | None, class_names: Sequence[str] | None
) -> tuple[list[Item], list[str]]:
    """Every image of ``root/<class>/`` with its mask, and the names of the classes by index."""
    if not root.is_dir():
        raise FileNotFoundError(f"The probe folder {str(root)!r} does not exist. Expected <folder>/<class>/<image>.")
    found = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    classes = list(found if class_names is None else class_names)
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise ValueError(f"The folders {unknown} are not among class_names. Expected some of {classes}.")
    files = [path for name in found for path in sorted((root / name).iterdir()) if _is_image(path)]
    if not files:
        raise ValueError(
            f"No images in {str(root)!r}. Expected <folder>/<class>/<image> ({', '.join(IMAGE_SUFFIXES)})."
        )
    with preserved_random_state():
        loaded = [_load(path, transform or _to_tensor) for path in files]
    items = [
        Item(image, classes.index(path.parent.name), mask, str(path))
        for path, (image, mask) in zip(files, loaded, strict=True)
    ]
    return items, classes


def _is_image(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith(IMAGE_SUFFIXES) and not name.endswith(MASK_SUFFIX) and not name.startswith(".")


def _load(path: Path, transform: Transform) -> tuple[Tensor, Tensor | None]:
    image = _open_as_tensor(path, transform)
    beside = path.with_name(path.stem + MASK_SUFFIX)
    if not beside.is_file():
        return image, None
    mask, size = _open(beside, "L"), _open(path, "RGB").size
    if mask.size != size:
        raise ValueError(f"The mask {str(beside)!r} is {mask.size} px. Expected the size of its image, {size}.")
    return image, _transformed_mask(mask, transform)


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
        for image in _choose({image: labels[image] for image in order}, per_class, None):
            entry, found = coco.loadImgs([image])[0], outlines[image]
            assert found is not None
            path = folder / entry["file_name"]
            pixels = _open_as_tensor(path, transform or _to_tensor)
            picture = _as_picture(_mask_of_annotations(coco, found[1]))
            if picture.size != _open(path, "RGB").size:
                raise ValueError(
                    f"{str(path)!r} is {_open(path, 'RGB').size} px. Expected {picture.size}, as its annotations say."
                )
            items.append(Item(pixels, labels[image], _transformed_mask(picture, transform or _to_tensor), str(path)))
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


def _open_as_tensor(path: Path, transform: Transform) -> Tensor:
    _seed_everything(0)
    image = transform(_open(path, "RGB"))
    if not isinstance(image, Tensor):
        raise ValueError(f"The transform made a {type(image).__name__} of {str(path)!r}. Expected a tensor (C, H, W).")
    return image


def _as_picture(mask: Tensor) -> Image.Image:
    return Image.fromarray(mask.numpy().astype(np.uint8) * 255)


def _transformed_mask(mask: Image.Image, transform: Transform, seed: int = 0) -> Tensor:
    """The mask after the geometry of any transform: a black and white picture goes through it.

    What the transform makes of all black and of all white says where between them each pixel came to lie, whatever
    the normalisation. Where both are alike the pixel is padding.

    Args:
        seed: the one that the image went through with, so that what is random falls out alike.
    """

    def through(value: Callable[[int], int]) -> Tensor:
        _seed_everything(seed)
        return transform(mask.point(value).convert("RGB")).double().mean(dim=0)

    black = through(lambda _: 0)
    white = through(lambda _: 255)
    painted = through(lambda level: 255 if level >= 128 else 0)
    return (painted - black).abs() > (white - black).abs() / 2


def _open(path: Path, mode: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert(mode)
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read as an image ({error}). Repair or remove it.") from error


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
