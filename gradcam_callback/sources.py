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
    """One image.

    Attributes:
        image: ``(C, H, W)``; label: its class, or that of its classes which it was chosen for.
        source: where it comes from, for messages.
        present: ``(K,)`` bool, all its classes, where it may have several.
    """

    image: Tensor
    label: int
    mask: Any
    source: str
    present: Tensor | None = None


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


def find_transform(dataset: Any) -> Transform | None:
    """What makes a tensor of a dataset's picture, however the dataset is wrapped."""
    return next((part.transform for part in _walk(dataset) if callable(getattr(part, "transform", None))), None)


def find_class_names(dataset: Any) -> list[str] | None:
    for part in _walk(dataset):
        names = getattr(part, "bin_classes" if _class_of_pets(part) == "binary-category" else "classes", None)
        if isinstance(names, (list, tuple)) and names:
            return [str(name) for name in names]
    return None


def _class_of_pets(dataset: Any) -> str | None:
    """What torchvision's ``OxfordIIITPet`` gives as the class, ``"category"`` or ``"binary-category"``: cat or dog."""
    return (getattr(dataset, "_target_types", None) or [None])[0] if isinstance(dataset, OxfordIIITPet) else None


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
        pairs = _labels_of(dataset, order, max_scanned)
        # Where every item has just one of its classes, they are one-hot rather than several.
        one_each = [index for index, _ in pairs] == order[: len(pairs)] and len(pairs) >= len(order[:max_scanned])
        items = []
        for index, label in _choose(pairs, per_class, max_images):
            # Seeded, an augmenting transform gives the same picture every time.
            item = _item(dataset, index, label, seed + index)
            items.append(item._replace(present=None) if one_each else item)
    if not items:
        raise ValueError("None of the items that were read holds any class. Expected labels that are not all 0.")
    return items


def _labels_of(dataset: Any, order: Sequence[int], max_scanned: int | None) -> list[tuple[int, int]]:
    """Pairs of index and label, in the order given, without loading an image where the labels can be had alone."""
    targets = _targets(dataset)
    if targets is not None:
        return [(index, int(targets[index])) for index in order]
    return [
        (index, label) for index in order[:max_scanned] for label in _classes_of(_parts(dataset, index, 0)[1], index)
    ]


def _classes_of(label: Any, index: int) -> list[int]:
    """An item's class, or its several classes."""
    given = torch.as_tensor(label)
    # The binary losses of torch take labels as floating point.
    whole = not given.is_complex() and bool((given == given.round()).all())
    if whole and given.numel() == 1:
        return [int(given)]
    if whole and given.ndim == 1 and bool(((given == 0) | (given == 1)).all()):
        return [int(found) for found in given.nonzero()[:, 0]]
    raise ValueError(f"The label of item {index} is {label!r}. Expected one integer class, or (K,) of 0 and 1.")


def _targets(dataset: Any) -> Any:
    targets = getattr(dataset, "targets", None)
    if isinstance(dataset, OxfordIIITPet):
        # Torchvision keeps them to itself; should it call them otherwise one day, they are read from the items.
        own = {"category": "_labels", "binary-category": "_bin_labels"}
        targets = getattr(dataset, own.get(_class_of_pets(dataset) or "", ""), None)
    if isinstance(targets, (list, tuple, np.ndarray, Tensor)) and len(targets) == len(dataset):
        # Only plain class indices: detection datasets call whole annotations targets.
        if all(isinstance(value, (int, np.integer)) or getattr(value, "ndim", 1) == 0 for value in targets):
            return targets if getattr(dataset, "target_transform", None) is None else None
    if isinstance(dataset, torch.utils.data.Subset):
        inner = _targets(dataset.dataset)
        return None if inner is None else [int(inner[index]) for index in dataset.indices]
    return None


def _choose(pairs: Sequence[tuple[int, int]], per_class: int, max_images: int | None) -> list[tuple[int, int]]:
    """Of pairs of index and label the first of each label; no index twice, as long as there are enough."""
    by_class: dict[int, list[int]] = {}
    for index, label in pairs:
        by_class.setdefault(label, []).append(index)
    classes = sorted(by_class)
    if max_images is not None:
        per_class = min(per_class, max_images)
        room = max_images // per_class
        if len(classes) > room:
            classes = [classes[round(i * (len(classes) - 1) / max(room - 1, 1))] for i in range(room)]
    chosen: list[tuple[int, int]] = []
    for label in classes:
        taken = {index for index, _ in chosen}
        fresh_first = sorted(by_class[label], key=lambda index: index in taken)
        chosen += [(index, label) for index in fresh_first[:per_class]]
    return chosen


def _parts(dataset: Any, index: int, seed: int) -> tuple[Any, ...]:
    """Image, label and, where there is one, mask."""
    _seed_everything(seed)
    item = dataset[index]
    if not isinstance(item, (tuple, list)) or len(item) not in (2, 3):
        raise ValueError(
            f"Item {index} of the dataset is a {type(item).__name__}. Expected (image, label) or (image, label, mask); "
            "from another form take the images yourself and pass ProbeSet(images, labels)."
        )
    if len(item) == 2 and isinstance(item[1], (tuple, list)) and len(item[1]) == 2 and len(np.shape(item[1][1])) > 1:
        return (item[0], *item[1])  # (image, (label, mask)), as torchvision's datasets give several targets
    return tuple(item)


def _item(dataset: Any, index: int, label: int, seed: int) -> Item:
    image, given, *rest = _parts(dataset, index, seed)
    if not isinstance(image, Tensor):
        raise ValueError(
            f"The image of item {index} is a {type(image).__name__}. Expected a tensor (C, H, W): give the dataset a "
            "transform that makes one."
        )
    classes = torch.as_tensor(given)
    present = classes.bool() if classes.numel() > 1 else None
    mask: Any = rest[0] if rest else None
    if mask is not None and any(isinstance(part, OxfordIIITPet) for part in _walk(dataset)):
        mask = masks.from_trimap(mask)
    elif isinstance(mask, Image.Image):
        mask = masks.from_picture(mask)
    elif mask is not None and present is not None and np.shape(mask)[:-2] == present.shape:
        mask = mask[label]
    transform = find_transform(dataset)
    if isinstance(mask, Tensor) and mask.ndim == 2 and transform is not None:
        # The dataset's transform was for the image alone.
        if mask.shape != image.shape[1:] or _leaves_masks_alone(dataset):
            mask = _transformed_mask(_as_picture(mask), transform, seed)
    return Item(image, label, mask, f"item {index}", present)


def _leaves_masks_alone(dataset: Any) -> bool:
    """Whether masks are surely as they were, even one that happens to have the size of its transformed image."""
    while isinstance(dataset, torch.utils.data.Subset):
        dataset = dataset.dataset
    return isinstance(dataset, OxfordIIITPet) and dataset.transform is not None and dataset.target_transform is None


def read_folder(
    root: Path, transform: Transform | None, class_names: Sequence[str] | None
) -> tuple[list[Item], list[str]]:
    """Every image of ``root/<class>/`` with its mask, and the names of the classes by index."""
    if not root.is_dir():
        came = "is no folder" if root.exists() else "does not exist"
        raise FileNotFoundError(f"The probe folder {str(root)!r} {came}. Expected <folder>/<class>/<image>.")
    folders = [path for path in _visible(root) if _is_class(path, root)]
    classes = [path.name for path in folders] if class_names is None else list(class_names)
    unknown = sorted({path.name for path in folders} - set(classes))
    if unknown:
        raise ValueError(f"The folders {unknown} are not among class_names. Expected some of {classes}.")
    files = [pair for folder in folders for pair in _images_of(folder)]
    if not files:
        raise ValueError(
            f"No images in {str(root)!r}. Expected <folder>/<class>/<image> ({', '.join(IMAGE_SUFFIXES)})."
        )
    items = []
    with preserved_random_state():
        for path, beside in files:
            image, mask = _load(path, beside, transform or _to_tensor)
            items.append(Item(image, classes.index(path.parent.name), mask, str(path)))
    return items, classes


def _visible(folder: Path) -> list[Path]:
    """What a folder holds, by name, but for hidden files, which are the system's (``.DS_Store``, ``._photo.jpg``)."""
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise ValueError(
            f"The folder {str(folder)!r} cannot be read ({error.strerror}). Expected one that this user may list."
        ) from error
    for path in found:
        if any("\ud800" <= char <= "\udfff" for char in path.name):
            # What Python makes of bytes that are no UTF-8; no log could hold such a name.
            raise ValueError(f"The name of {str(path)!r} is no valid UTF-8. Rename it.")
    return sorted(found, key=lambda path: path.name)


def _is_class(path: Path, root: Path) -> bool:
    """Whether what lies in ``root`` is the folder of a class.

    A link that is broken is not passed over: without its class, those after it would have other indices.
    """
    try:
        if path.is_symlink() and root.resolve().is_relative_to(path.resolve(strict=True)):
            raise ValueError(f"The link {str(path)!r} leads back to a folder that it lies in. Remove it.")
        return path.is_dir()
    except (OSError, RuntimeError) as error:  # the latter, before Python 3.13, of links that lead to each other
        raise ValueError(f"{str(path)!r} leads nowhere, or cannot be read ({error}). Repair or remove it.") from error


def _images_of(folder: Path) -> list[tuple[Path, Path | None]]:
    """The images of a class, each with the path of its mask; suffixes may be in capitals."""
    files = [path for path in _visible(folder) if path.name.lower().endswith(IMAGE_SUFFIXES)]
    images = [path for path in files if not path.stem.lower().endswith(".mask")]
    beside = {path.name[: -len(MASK_SUFFIX)]: path for path in files if path.name.lower().endswith(MASK_SUFFIX)}
    lossy = sorted(set(files) - set(images) - set(beside.values()))
    if lossy:
        raise ValueError(f"{str(lossy[0])!r} has a mask's name, but is no PNG. Expected <image>{MASK_SUFFIX}.")
    for stem in sorted(set(beside) - {path.stem for path in images}):
        raise ValueError(f"The mask {str(beside[stem])!r} has no image beside it. Expected {stem}.jpg, or the like.")
    return [(path, beside.get(path.stem)) for path in images]


def _load(path: Path, beside: Path | None, transform: Transform) -> tuple[Tensor, Tensor | None]:
    image = _open_as_tensor(path, transform)
    if beside is None:
        return image, None
    picture, size = open_picture(beside), open_picture(path, "RGB").size
    if picture.size != size:
        hint = " Masks belong on the image as it is shown, turned by its EXIF." if picture.size == size[::-1] else ""
        raise ValueError(
            f"The mask {str(beside)!r} is {picture.size} px. Expected the size of its image, {size}.{hint}"
        )
    try:
        mask = masks.from_picture(picture)
    except ValueError as error:
        raise ValueError(f"The mask {str(beside)!r} cannot be read. {error}") from error
    if not mask.any():
        raise ValueError(
            f"The mask {str(beside)!r} marks nothing. Expected white on the object, or no mask where there is none."
        )
    mask = _transformed_mask(_as_picture(mask), transform)
    if not mask.any():
        raise ValueError(
            f"The mask {str(beside)!r} marks nothing of what the transform leaves of the image. Expected a transform "
            "that keeps the object, or no mask."
        )
    return image, mask


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
        for image, _ in _choose([(image, labels[image]) for image in order], per_class, None):
            entry, found = coco.loadImgs([image])[0], outlines[image]
            assert found is not None
            path = folder / entry["file_name"]
            pixels = _open_as_tensor(path, transform or _to_tensor)
            picture = _as_picture(_mask_of_annotations(coco, found[1]))
            size = open_picture(path, "RGB").size
            if picture.size != size:
                raise ValueError(f"{str(path)!r} is {size} px. Expected {picture.size}, as its annotations say.")
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
    image = transform(open_picture(path, "RGB"))
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


def open_picture(path: Path, mode: str | None = None) -> Image.Image:
    """The first picture of a file, upright: in ``mode`` ``"RGB"``, or, without one, as it is written.

    Raises:
        ValueError: that names the file, whatever is wrong with it.
    """
    try:
        if not path.is_file():  # a pipe would be waited on for ever
            raise FileNotFoundError("it leads nowhere, or to what is no file")
        with warnings.catch_warnings():
            # They are about metadata, and about alpha, which goes as in torchvision's ImageFolder.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image)
                return upright if mode is None else _eight_bits(upright, image).convert(mode)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{str(path)!r} is larger than Pillow takes ({error}). Make it smaller, or set PIL.Image.MAX_IMAGE_PIXELS."
        ) from error
    except Exception as error:  # a broken file makes Pillow stumble in many ways, few of which are an OSError
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"{str(path)!r} cannot be read as an image ({why}). Repair or remove it.") from error


def _eight_bits(picture: Image.Image, file: Image.Image) -> Image.Image:
    """A picture with levels of 0..255. Pillow would clip those of 16 bits there, and leave little but white.

    Args:
        file: the picture as it was opened, whose format and tags say what white is.

    Raises:
        ValueError: nothing says what white is, or there are levels beyond it.
    """
    if not picture.mode.startswith(("I", "F")):
        return picture
    bits, photometric = (getattr(file, "tag_v2", {}).get(tag, other) for tag, other in ((258, (16,)), (262, 1)))
    if picture.mode == "I" and file.format == "TIFF":
        raise ValueError("it holds signed or 32-bit integers, of which nothing says what white is: save it with 8 bits")
    white = 1.0 if picture.mode == "F" else 2.0 ** bits[0] - 1
    shares = np.asarray(picture, dtype=np.float64) / white
    if not (shares.min() >= 0 and shares.max() <= 1):
        raise ValueError(f"its levels go from {shares.min() * white:g} to {shares.max() * white:g}, not 0 to {white:g}")
    # The nearest level, so that 65535 is white, and what was made of 8 bits is again as it was.
    return Image.fromarray(np.rint((1 - shares if photometric == 0 else shares) * 255).astype(np.uint8))


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
