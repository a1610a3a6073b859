"""The fixed images that are looked at in every epoch, with their labels, masks and names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradcam_callback.probes import masks as masks_from
from gradcam_callback.probes.coco import read_coco
from gradcam_callback.probes.datasets import choose_items, find_class_names, find_normalisation
from gradcam_callback.probes.folders import read_folder
from gradcam_callback.probes.image_files import Item, Transform


class ProbeSet:
    """Images that stay the same over the whole training, so that their maps can be compared between epochs.

    Args:
        images: ``(N, C, H, W)`` floating point, as the model takes them.
        labels: ``(N,)`` integers, the class of each image. Where several classes may be in one image, ``(N, K)`` of 0
            and 1: an image then comes once for each class it holds, is right where that class's own logit is positive,
            and its mask is ``(H, W)`` for all its classes, or ``(K, H, W)``.
        masks: ``(N, H, W)`` bool, True on the object; or a sequence with one entry per image: ``(H, W)``, a box
            ``(4,)`` or boxes ``(B, 4)`` as ``x1, y1, x2, y2`` in pixels (`gradcam_callback.probes.masks.from_boxes`), or None
            where an image has none.
        names: one per image, unique; ``"<class>-<i>"`` without them.
        class_names: the name of each class, by its index; ``"class <index>"`` without them.
        mean: per channel, the normalisation of the images, undone for display; with ``std``. Without them images in
            0..1 or 0..255 are shown as they are, any others stretched from their smallest to their largest value.
        std: per channel, see ``mean``.

    Attributes:
        masks: ``(N, H, W)`` bool, all False where ``has_mask`` ``(N,)`` is False; None when no image has one.
        present: ``(N, K)`` bool, every class that each image holds; None where that is its label alone.

    Raises:
        ValueError: wrong shapes or lengths, non-finite pixels, an empty set, an empty mask, doubled names; says what
            came and what was expected.

    Examples:
        >>> import torch
        >>> from gradcam_callback import ProbeSet
        >>> boxes = [(4, 4, 20, 28), None, None, None]
        >>> probe = ProbeSet(torch.rand(4, 3, 32, 32), [0, 0, 1, 1], masks=boxes, class_names=["cat", "dog"])
        >>> probe.names
        ['cat-1', 'cat-2', 'dog-1', 'dog-2']
        >>> probe.has_mask.tolist(), int(probe.masks[0].sum())  # 16 x 24 pixels
        ([True, False, False, False], 384)
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
        self.present = None
        if np.ndim(labels) == 2:
            self.present, labels, self.images, masks, names = _one_per_class(
                labels, self.images, masks, names, class_names
            )
        self.labels = _checked_labels(labels, len(self.images), class_names)
        self.masks, self.has_mask = _checked_masks(masks, self.images)
        self.class_names = None
        if class_names is not None:
            self.class_names = [str(name) or f"class {label}" for label, name in enumerate(class_names)]
        self.names = _checked_names(names, self.images, [self.class_name(label) for label in self.labels.tolist()])
        self.mean, self.std = _checked_normalisation(mean, std, self.images.shape[1])

    def __len__(self) -> int:
        return len(self.images)

    @property
    def multi_label(self) -> bool:
        """Whether several classes may be in one image."""
        return self.present is not None

    def class_name(self, label: int) -> str:
        """What to call a class; a number where it has no name.

        Examples:
            >>> import torch
            >>> from gradcam_callback import ProbeSet
            >>> probe = ProbeSet(torch.rand(1, 3, 8, 8), [0], class_names=["cat"])
            >>> probe.class_name(0), probe.class_name(7)
            ('cat', 'class 7')
        """
        if self.class_names is not None and 0 <= label < len(self.class_names):
            return self.class_names[label]
        return f"class {label}"

    def display_images(self, images: Tensor | None = None) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The probe images, or others of their kind, for display: ``(N, H, W, 3)`` uint8, the normalisation undone.

        Examples:
            >>> import torch
            >>> from gradcam_callback import ProbeSet
            >>> grey = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 3, 1, 1)
            >>> ProbeSet(grey, [0, 0, 0], mean=[0.5], std=[0.5]).display_images()[:, 0, 0, 0].tolist()
            [0, 128, 255]
        """
        pixels, own = (self._shown(given) for given in (self.images if images is None else images, self.images))
        low, high = float(own.min()), float(own.max())
        # A hundredth of slack: undoing a normalisation lands a rounding error outside the range.
        if -0.01 <= low and high <= 1.01:
            pixels = pixels * 255
        elif not (-1 <= low and 2 < high <= 256):
            pixels = (pixels - low) / max(high - low, 1e-12) * 255
        pixels = pixels[:, :3] if pixels.shape[1] >= 3 else pixels[:, :1].expand(-1, 3, -1, -1)
        shown = pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        return np.ascontiguousarray(shown.numpy())

    def _shown(self, images: Tensor) -> Tensor:
        pixels = images.float().cpu()
        if self.mean is not None and self.std is not None:
            pixels = pixels * self.std[:, None, None] + self.mean[:, None, None]
        return pixels

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
            dataset: map-style, with items ``(image, label)`` or ``(image, label, mask)``; the label is a class, or
                ``(K,)`` of 0 and 1, one-hot or of several classes in an image, which is then chosen for one of them;
                the mask is an array, boxes, or a black and white picture. torchvision's ``OxfordIIITPet`` with
                ``target_types=("category", "segmentation")`` is one, too. A mask of another size than its image goes
                through the dataset's ``transform`` as the image did.
            max_images: at most so many in all: of many classes, some are taken, spread evenly over their indices.
            max_scanned: where labels have to be read from the items, read at most so many.

        Raises:
            ValueError: items of another form, images that differ in shape, an empty dataset, ``per_class`` below 1.

        Examples:
            >>> import torch
            >>> from torch.utils.data import TensorDataset
            >>> from gradcam_callback import ProbeSet
            >>> dataset = TensorDataset(torch.rand(30, 3, 8, 8), torch.arange(30) % 3)
            >>> probe = ProbeSet.from_dataset(dataset, per_class=2)
            >>> sorted(probe.labels.tolist())
            [0, 0, 1, 1, 2, 2]
            >>> torch.equal(probe.images, ProbeSet.from_dataset(dataset, per_class=2).images)
            True
        """
        items = choose_items(dataset, per_class, seed, max_images, max_scanned)
        mean, std = find_normalisation(dataset)
        probe = cls._of_items(items, class_names=find_class_names(dataset), mean=mean, std=std)
        if items[0].present is not None:
            # Set here, as not every class of an image was chosen.
            probe.present = torch.stack([item.present for item in items if item.present is not None])
        return probe

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
            mean: as in `ProbeSet`; found in the transform where it holds a torchvision ``Normalize``.
            std: see ``mean``.

        Raises:
            FileNotFoundError: the folder is not there.
            ValueError: no images in it, an unreadable file, a class that is not among ``class_names``, images or a
                mask that differ in size.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from PIL import Image
            >>> from gradcam_callback import ProbeSet
            >>> folder = Path(tempfile.mkdtemp())
            >>> for name in ("cat", "dog"):
            ...     (folder / name).mkdir()
            ...     Image.new("RGB", (32, 24), "orange").save(folder / name / "a.jpg")
            >>> mask = Image.new("1", (32, 24))
            >>> mask.paste(1, (0, 0, 16, 24))  # the left half is the object
            >>> mask.save(folder / "dog" / "a.mask.png")
            >>> probe = ProbeSet.from_folder(folder)
            >>> probe.names, tuple(probe.images.shape), probe.masks.float().mean(dim=(1, 2)).tolist()
            (['cat-a', 'dog-a'], (2, 3, 24, 32), [0.0, 0.5])
        """
        items, classes = read_folder(Path(folder), transform, class_names)
        return cls._of_files(items, classes, transform, mean, std)

    @classmethod
    def from_coco(
        cls,
        annotations: str | Path,
        folder: str | Path,
        transform: Transform | None = None,
        per_class: int = 2,
        seed: int = 0,
        *,
        categories: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> ProbeSet:
        """Take images and masks from annotations in the format of COCO; needs ``gradcam-callback[coco]``.

        An image's class is the category that fills most of it, and its mask all objects of that category. Crowds do not
        count.

        Args:
            annotations: the JSON file; folder: where its images are.
            transform: see `from_folder`.
            categories: the classes by index; all of the file by their ids without them.

        Raises:
            ValueError: unknown categories, no objects of theirs, an image that is not as large as its annotations say.

        Examples:
            >>> import json, tempfile
            >>> from pathlib import Path
            >>> from PIL import Image
            >>> from gradcam_callback import ProbeSet
            >>> folder = Path(tempfile.mkdtemp())
            >>> Image.new("RGB", (32, 24), "orange").save(folder / "a.jpg")
            >>> polygon = [0, 0, 16, 0, 16, 24, 0, 24]  # the left half
            >>> annotations = {
            ...     "images": [{"id": 1, "file_name": "a.jpg", "width": 32, "height": 24}],
            ...     "categories": [{"id": 5, "name": "cat"}],
            ...     "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "segmentation": [polygon],
            ...                      "area": 384, "bbox": [0, 0, 16, 24], "iscrowd": 0}],
            ... }
            >>> _ = (folder / "a.json").write_text(json.dumps(annotations))
            >>> probe = ProbeSet.from_coco(folder / "a.json", folder)
            >>> probe.names, int(probe.masks.sum())
            (['cat-a'], 384)
        """
        items, classes = read_coco(Path(annotations), Path(folder), transform, categories, per_class, seed)
        return cls._of_files(items, classes, transform, mean, std)

    @classmethod
    def _of_files(
        cls, items: Sequence[Item], classes: Sequence[str], transform: Transform | None, mean: Any, std: Any
    ) -> ProbeSet:
        found_mean, found_std = find_normalisation(transform)
        return cls._of_items(
            items,
            names=make_unique([f"{classes[item.label]}-{Path(item.source).stem}" for item in items]),
            class_names=classes,
            mean=found_mean if mean is None else mean,
            std=found_std if std is None else std,
        )

    @classmethod
    def _of_items(cls, items: Sequence[Item], **others: Any) -> ProbeSet:
        first = items[0]
        for item in items:
            if item.image.shape != first.image.shape:
                raise ValueError(
                    f"Images differ in shape: {first.source} is {tuple(first.image.shape)}, {item.source} is "
                    f"{tuple(item.image.shape)}. Expected one shape; resize them in the transform."
                )
            mask = item.mask if isinstance(item.mask, Tensor) or item.mask is None else np.asarray(item.mask)
            if mask is not None and not mask.any():
                raise ValueError(
                    f"The mask of {item.source} marks nothing of what the transform leaves of the image. Expected a "
                    "transform that keeps the object, no mask, or, where images are chosen, another seed."
                )
        images = torch.stack([torch.as_tensor(item.image) for item in items])
        return cls(images, [item.label for item in items], [item.mask for item in items], **others)


def make_unique(names: Sequence[str]) -> list[str]:
    """The same names, with ``-2``, ``-3`` and so on behind those that came before."""
    taken, apart = set(names), []
    for name in names:
        number, own = 1, name
        while own in apart or (number > 1 and own in taken):
            number += 1
            own = f"{name}-{number}"
        apart.append(own)
    return apart


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


def _one_per_class(
    labels: Any,
    images: Tensor,
    masks: Tensor | Sequence[Any] | None,
    names: Sequence[str] | None,
    class_names: Sequence[str] | None,
) -> tuple[Tensor, Tensor, Tensor, Sequence[Any] | None, list[str] | None]:
    """Of images with several classes, one image per class: all its classes, its label, and the rest."""
    given = torch.as_tensor(labels).detach().cpu()
    if len(given) != len(images) or not bool(((given == 0) | (given == 1)).all()) or not bool(given.any()):
        raise ValueError(
            f"labels came with shape {tuple(given.shape)}, values {given.min()} to {given.max()}. Expected one class "
            f"per image, ({len(images)},), or ({len(images)}, K) of 0 and 1, somewhere 1."
        )
    for what, values in (("masks", masks), ("names", names)):
        if values is not None and len(values) != len(images):
            raise ValueError(f"{what} came with length {len(values)}. Expected one per image ({len(images)}).")
    rows, classes = given.nonzero(as_tuple=True)
    pairs = list(zip(rows.tolist(), classes.tolist(), strict=True))
    if masks is not None:
        masks = [masks[i][c] if np.shape(masks[i])[:-2] == given.shape[1:] else masks[i] for i, c in pairs]
    renamed = None
    if names is not None:
        words = class_names if class_names is not None and len(class_names) == given.shape[1] else range(given.shape[1])
        renamed = [f"{names[i]} ({words[c]})" if given[i].sum() > 1 else str(names[i]) for i, c in pairs]
    return given[rows].bool(), classes, images[rows], masks, renamed


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
        if isinstance(mask, Image.Image):
            mask = masks_from.from_image(mask)
        elif masks_from.is_box(mask) and tuple(np.shape(mask)) != size:
            mask = masks_from.from_boxes(mask, *size)
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
    if "" in names:
        raise ValueError("names hold an empty one. Expected a name for each image.")
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
