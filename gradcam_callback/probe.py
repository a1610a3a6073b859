"""The fixed images that are looked at in every epoch, with their labels, masks and names."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gradcam_callback.state import preserved_random_state

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MASK_SUFFIX = ".mask.png"

Transform = Callable[[Image.Image], Tensor]


class ProbeSet:
    """Images that stay the same over the whole training, so that their maps can be compared between epochs.

    Args:
        images: ``(N, C, H, W)`` floating point, as the model takes them.
        labels: ``(N,)`` integers, the class of each image.
        masks: ``(N, H, W)`` bool, True on the object; or a sequence with one ``(H, W)`` per image, None where an
            image has none.
        names: one per image, unique; ``"<class>-<i>"`` without them.
        class_names: the name of each class, by its index; ``"class <index>"`` without them.
        mean, std: per channel, the normalisation of the images, undone for display. Without them images in 0..1 or
            0..255 are shown as they are, and any others stretched from their smallest to their largest value.

    Attributes:
        masks: ``(N, H, W)`` bool, all False where ``has_mask`` ``(N,)`` is False; None when no image has one.

    Raises:
        ValueError: wrong shapes or lengths, non-finite pixels, an empty set, an empty mask, doubled names; says what
            came and what was expected.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | Sequence[int],
        masks: Tensor | Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        self.images = _checked_images(images)
        self.labels = _checked_labels(labels, len(self.images), class_names)
        self.masks, self.has_mask = _checked_masks(masks, self.images)
        self.class_names = None if class_names is None else [str(name) for name in class_names]
        self.names = _checked_names(names, self.images, [self.class_name(label) for label in self.labels.tolist()])
        self.mean, self.std = _checked_normalisation(mean, std, self.images.shape[1])

    def __len__(self) -> int:
        return len(self.images)

    def class_name(self, label: int) -> str:
        """What to call a class; a number where it has no name."""
        if self.class_names is not None and 0 <= label < len(self.class_names):
            return self.class_names[label]
        return f"class {label}"

    def pictures(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The images for display, ``(N, H, W, 3)`` uint8, the normalisation undone."""
        pixels = self.images.float().cpu()
        if self.mean is not None and self.std is not None:
            pixels = pixels * self.std[:, None, None] + self.mean[:, None, None]
        low, high = float(pixels.min()), float(pixels.max())
        # A hundredth of slack: undoing a normalisation lands a rounding error outside the range.
        if -0.01 <= low and high <= 1.01:
            pixels = pixels * 255
        elif not (-1 <= low and 2 < high <= 256):
            pixels = (pixels - low) / max(high - low, 1e-12) * 255
        pixels = pixels[:, :3] if pixels.shape[1] >= 3 else pixels[:, :1].expand(-1, 3, -1, -1)
        shown = pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        return np.ascontiguousarray(shown.numpy())

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        per_class: int = 2,
        seed: int = 0,
        *,
        max_images: int | None = None,
        max_scanned: int | None = None,
    ) -> ProbeSet:
        """Take ``per_class`` images of each class, chosen by ``seed``, the same ones every time.

        Labels are read from ``dataset.targets`` where it has them (through ``Subset``), else from the items. Class
        names come from ``dataset.classes``, mean and std from a torchvision ``Normalize`` in its transform.

        Args:
            dataset: map-style, with items ``(image, label)`` or ``(image, label, mask)``.
            max_images: at most so many in all: of many classes, some are taken, spread evenly over their indices.
            max_scanned: read the labels of at most so many items, for datasets that are slow to read.

        Raises:
            ValueError: items of another form, images that differ in shape, an empty dataset, ``per_class`` below 1.
        """
        if per_class < 1:
            raise ValueError(f"per_class is {per_class}. Expected 1 or more.")
        if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
            raise ValueError(
                f"A {type(dataset).__name__} has no length or no items by index. Expected a map-style dataset; from "
                "an iterable one take the images yourself and pass ProbeSet(images, labels)."
            )
        with preserved_random_state():
            order = random.Random(seed).sample(range(len(dataset)), len(dataset))[:max_scanned]
            chosen = _choose(_labels_of(dataset, order), per_class, max_images)
            items = []
            for index in chosen:
                # An augmenting transform gives the same picture every time.
                _seed_everything(seed + index)
                items.append(_item(dataset, index))
        if not items:
            raise ValueError("The dataset is empty. Expected at least one item (image, label).")
        mean, std = find_normalisation(dataset)
        return cls(
            _stack([image for image, _, _ in items], [f"item {index}" for index in chosen]),
            [label for _, label, _ in items],
            [mask for _, _, mask in items],
            class_names=_class_names(dataset),
            mean=mean,
            std=std,
        )

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        transform: Transform | None = None,
        *,
        class_names: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> ProbeSet:
        """Read ``folder/<class>/<name>.jpg``, where there is one with the object's mask beside it, ``<name>.mask.png``.

        Args:
            folder: holds a folder per class; a class's index is its place among their sorted names, as in
                torchvision's ``ImageFolder``.
            transform: the validation transform: takes an RGB ``PIL.Image`` and gives a tensor ``(C, H, W)``. Without
                one the pixels are scaled to 0..1. Masks go through the same geometry.
            class_names: the classes by index, where they are not the sorted folder names.
            mean, std: as in `ProbeSet`; found in the transform where it holds a torchvision ``Normalize``.

        Raises:
            FileNotFoundError: the folder is not there.
            ValueError: no images in it, an unreadable file, a class that is not among ``class_names``, images or a
                mask that differ in size.
        """
        root = Path(folder)
        if not root.is_dir():
            raise FileNotFoundError(
                f"The probe folder {str(root)!r} does not exist. Expected <folder>/<class>/<image>."
            )
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
        apply = transform or _to_tensor
        found_mean, found_std = find_normalisation(transform)
        with preserved_random_state():
            loaded = [_load(path, apply) for path in files]
        return cls(
            _stack([image for image, _ in loaded], [str(path) for path in files]),
            [classes.index(path.parent.name) for path in files],
            [mask for _, mask in loaded],
            names=_unique([f"{path.parent.name}-{path.stem}" for path in files]),
            class_names=classes,
            mean=found_mean if mean is None else mean,
            std=found_std if std is None else std,
        )


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
        # A method called `transforms`, as on a weights class, is not a transform.
        if part is not None and not isinstance(part, type):
            yield from _walk(part, depth + 1)


def _class_names(dataset: Any) -> list[str] | None:
    for part in _walk(dataset):
        names = getattr(part, "classes", None)
        if isinstance(names, (list, tuple)) and names:
            return [str(name) for name in names]
    return None


def _labels_of(dataset: Any, order: Sequence[int]) -> dict[int, int]:
    """Index -> label, in the order given, without loading an image where the labels can be had alone."""
    targets = _targets(dataset)
    if targets is not None:
        return {index: int(targets[index]) for index in order}
    return {index: _item(dataset, index)[1] for index in order}


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


def _item(dataset: Any, index: int) -> tuple[Tensor, int, Any]:
    item = dataset[index]
    if not isinstance(item, (tuple, list)) or len(item) not in (2, 3):
        raise ValueError(
            f"Item {index} of the dataset is a {type(item).__name__}. Expected (image, label) or (image, label, mask); "
            "from another form take the images yourself and pass ProbeSet(images, labels)."
        )
    image, label = item[0], item[1]
    if not isinstance(image, Tensor):
        raise ValueError(
            f"The image of item {index} is a {type(image).__name__}. Expected a tensor (C, H, W): give the dataset a "
            "transform that makes one."
        )
    given = torch.as_tensor(label)
    if given.numel() != 1 or given.is_floating_point():
        raise ValueError(f"The label of item {index} is {label!r}. Expected one integer class.")
    return image, int(given), item[2] if len(item) == 3 else None


def _is_image(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith(IMAGE_SUFFIXES) and not name.endswith(MASK_SUFFIX) and not name.startswith(".")


def _load(path: Path, transform: Transform) -> tuple[Tensor, Tensor | None]:
    _seed_everything(0)
    image = transform(_open(path, "RGB"))
    if not isinstance(image, Tensor):
        raise ValueError(f"The transform made a {type(image).__name__} of {str(path)!r}. Expected a tensor (C, H, W).")
    beside = path.with_name(path.stem + MASK_SUFFIX)
    if not beside.is_file():
        return image, None
    mask, size = _open(beside, "L"), _open(path, "RGB").size
    if mask.size != size:
        raise ValueError(f"The mask {str(beside)!r} is {mask.size} px. Expected the size of its image, {size}.")
    return image, _transformed_mask(mask, transform)


def _transformed_mask(mask: Image.Image, transform: Transform) -> Tensor:
    """The mask after the geometry of any transform: a black and white picture goes through it.

    What the transform makes of all black and of all white says where between them each pixel came to lie, whatever
    the normalisation. Where both are alike the pixel is padding.
    """

    def through(value: Callable[[int], int]) -> Tensor:
        _seed_everything(0)
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


def _stack(images: Sequence[Tensor], sources: Sequence[str]) -> Tensor:
    for image, source in zip(images, sources, strict=True):
        if image.shape != images[0].shape:
            raise ValueError(
                f"Images differ in shape: {sources[0]} is {tuple(images[0].shape)}, {source} is {tuple(image.shape)}. "
                "Expected one shape; resize them in the transform."
            )
    return torch.stack([torch.as_tensor(image) for image in images])


def _unique(names: Iterable[str]) -> list[str]:
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return unique


def _checked_images(images: Any) -> Tensor:
    if not isinstance(images, Tensor):
        raise ValueError(f"images came as {type(images).__name__}. Expected a tensor (N, C, H, W).")
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(f"images came with shape {tuple(images.shape)}. Expected (N, C, H, W).")
    if not len(images):
        raise ValueError("The probe set is empty. Expected at least one image.")
    if not images.is_floating_point():
        raise ValueError(
            f"images came as {images.dtype}. Expected floating point, as the model takes them: apply the validation "
            "transform first."
        )
    bad = [i for i, image in enumerate(images) if not bool(image.isfinite().all())]
    if bad:
        raise ValueError(f"images {bad} hold NaN or infinite pixels. Expected finite values.")
    return images.detach().clone()


def _checked_labels(labels: Any, n: int, class_names: Sequence[str] | None) -> Tensor:
    given = torch.as_tensor(labels).detach().cpu()
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise ValueError(f"labels came as {given.dtype}. Expected integers, one class per image.")
    if given.shape != (n,):
        raise ValueError(f"labels came with shape {tuple(given.shape)}. Expected one per image, ({n},).")
    if int(given.min()) < 0:
        raise ValueError(f"labels hold {int(given.min())}. Expected class indices from 0.")
    if class_names is not None and int(given.max()) >= len(class_names):
        raise ValueError(f"labels hold {int(given.max())}, but class_names has only {len(class_names)} names.")
    return given.long().clone()


def _checked_masks(masks: Any, images: Tensor) -> tuple[Tensor | None, Tensor]:
    n, size = len(images), tuple(images.shape[2:])
    has_mask = torch.zeros(n, dtype=torch.bool)
    if masks is None:
        return None, has_mask
    if len(masks) != n:
        raise ValueError(
            f"masks came with length {len(masks)}. Expected one per image ({n}), None where there is none."
        )
    checked = torch.zeros(n, *size, dtype=torch.bool)
    for i, mask in enumerate(masks):
        if mask is None:
            continue
        given = torch.as_tensor(np.asarray(mask) if not isinstance(mask, Tensor) else mask).detach().cpu()
        if given.ndim == 3 and given.shape[0] == 1:
            given = given[0]
        if tuple(given.shape) != size:
            raise ValueError(f"mask {i} came with shape {tuple(given.shape)}. Expected the image's, {size}.")
        if given.dtype != torch.bool and not bool(((given == 0) | (given == 1)).all()):
            raise ValueError(f"mask {i} holds values other than 0 and 1. Expected bool, True on the object.")
        checked[i] = given.bool()
        if not bool(checked[i].any()):
            raise ValueError(f"mask {i} marks nothing. Expected True on the object, or None for an image without mask.")
        has_mask[i] = True
    return (checked, has_mask) if bool(has_mask.any()) else (None, has_mask)


def _checked_names(names: Sequence[str] | None, images: Tensor, classes: Sequence[str]) -> list[str]:
    if names is None:
        counts: dict[str, int] = {}
        made = []
        for name in classes:
            counts[name] = counts.get(name, 0) + 1
            made.append(f"{name}-{counts[name]}")
        return made
    if len(names) != len(images):
        raise ValueError(f"names came with length {len(names)}. Expected one per image ({len(images)}).")
    doubled = sorted({str(name) for name in names if list(names).count(name) > 1})
    if doubled:
        raise ValueError(f"names {doubled} stand for several images. Expected a name of its own for each.")
    return [str(name) for name in names]


def _checked_normalisation(mean: Any, std: Any, channels: int) -> tuple[Tensor | None, Tensor | None]:
    if (mean is None) != (std is None):
        raise ValueError("Only one of mean and std came. Expected both, or neither.")
    if mean is None:
        return None, None
    pair = []
    for name, values in (("mean", mean), ("std", std)):
        given = torch.as_tensor(values, dtype=torch.float32).flatten()
        if len(given) not in (1, channels) or not bool(given.isfinite().all()):
            raise ValueError(f"{name} came as {values!r}. Expected one finite number per channel ({channels}).")
        pair.append(given.expand(channels).clone())
    if bool((pair[1] == 0).any()):
        raise ValueError(f"std came as {std!r}. Expected numbers other than 0.")
    return pair[0], pair[1]
