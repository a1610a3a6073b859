"""The probe set: the fixed images of a training, with their labels, masks and names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from gradcam_callback.probes.automatic import Replaced, add_automatic_masks, choose_masked, wants_automatic
from gradcam_callback.probes.batches import BatchTransform
from gradcam_callback.probes.checks import (
    check_class_names,
    check_images,
    check_labels,
    check_mask,
    check_masks,
    check_names,
    check_normalisation,
    read_labels,
    read_names,
    refuse_channels_last,
    repeat_per_class,
)
from gradcam_callback.probes.coco import read_coco
from gradcam_callback.probes.datasets import choose_items
from gradcam_callback.probes.feed import Feed
from gradcam_callback.probes.folders import read_folder
from gradcam_callback.probes.items import Item
from gradcam_callback.probes.lookup import find_fitting_normalisations, set_apart, white_of
from gradcam_callback.probes.masks import is_box
from gradcam_callback.probes.names import make_storable, make_unique, name_image
from gradcam_callback.probes.quotas import DEFAULT_PER_CLASS, Quota, choose_per_class, warn_of_few
from gradcam_callback.probes.transforms import Transform
from gradcam_callback.saliency import Proposal


class ProbeSet:
    """Images that stay the same over a training, so that their maps can be compared between epochs.

    Args:
        images: ``(N, C, H, W)`` floating point, transformed and normalised as the model takes them. They are copied.
        labels: ``(N,)`` integers, the class of each image from 0. If an image may hold several of K classes: ``(N, K)``
            of 0 and 1. The image is then repeated once for each class that it holds, and a prediction is correct if the
            logit of that class is positive. If every image has exactly one 1, the labels are one-hot, and mean the same
            as integers. None if the images have no classes. The maps then explain the predicted class, a class index or
            a callable ``target``, and there is no accuracy.
        masks: the object in each image: ``(N, H, W)`` bool, True on the object, or a sequence with one entry per image.
            An entry is a mask ``(H, W)`` of bool or of 0 and 1, or a black and white ``PIL.Image``. Or it is a box
            ``(4,)`` or boxes ``(B, 4)`` as ``x1, y1, x2, y2`` in pixels (`gradcam_callback.probes.from_boxes`). None is
            an image without a mask. With labels ``(N, K)``, an entry may be ``(K, H, W)`` with one mask per class.
            ``"auto"`` lets a saliency network make the masks, which needs ``pip install '.[masks]'`` in a checkout.
            Doubtful masks are left out, with a warning.
        names: one unique name per image. By default ``"<class>-<i>"``, or ``"image-<i>"`` without labels.
        class_names: the name of each class by its index. By default ``"class <index>"``.
        mean: one value per channel, or one for all channels. This normalisation of the images is undone for display.
            Without mean and std, images in 0..1 or 0..255 are displayed as they are. Other images are stretched from
            their smallest to their largest value.
        std: as ``mean``. Both must be given together.

    Attributes:
        images: ``(M, C, H, W)``. M is N, or with labels ``(N, K)`` the number of pairs of image and class.
        labels: ``(M,)`` int64, one class per image; all 0 if no labels were given.
        has_labels: True if labels were given.
        masks: ``(M, H, W)`` bool, all False for an image without a mask. None if no image has a mask.
        has_mask: ``(M,)`` bool, True for images with a mask.
        box_masks: ``(M,)`` bool, True for images whose mask is made of plain boxes, in part at least.
        proposals: with automatic masks, the number of each image without another mask -> the `Proposal` for it, also a
            doubtful one. The same for an image whose boxes the network has refined, and for the masks in a folder that
            `masks --auto` has written and nobody has accepted. Otherwise None.
        replaced: images that `from_dataset` or the callback would have chosen, if their automatic masks looked good.
        present: ``(M, K)`` bool, all classes of each image. None unless an image may hold several classes.
        names: the M names.
        class_names: the names of the classes, or None.
        mean: ``(C,)``, or None.
        std: ``(C,)``, or None.
        rows: with each image, the batch of this image alone, for a `forward` that takes more than the image. None if
            the images are no part of batches.
        sources: where each image comes from, for warnings: its file, or its number in the dataset, or else its name.
        n_classes: the number of classes that the dataset names; None if nobody has named all of them.
        label_hint: where the labels come from, and what to do if they are wrong, for errors; ``""`` if they were given.

    Raises:
        ImportError: ``masks="auto"`` without onnxruntime.
        OSError: ``masks="auto"``, and the weights of the network are found nowhere.
        ValueError: an argument has a wrong type, shape or length; ``images`` is empty or not finite; a mask marks
            nothing; or a name is repeated.

    Examples:
        >>> import torch
        >>> from gradcam_callback import ProbeSet
        >>> boxes = [(4, 4, 20, 28), None, None, None]
        >>> probe = ProbeSet(torch.rand(4, 3, 32, 32), [0, 0, 1, 1], masks=boxes, class_names=["cat", "dog"])
        >>> probe.names
        ['cat-1', 'cat-2', 'dog-1', 'dog-2']
        >>> probe.has_mask.tolist(), int(probe.masks[0].sum())  # 16 x 24 pixels
        ([True, False, False, False], 384)
        >>> probe.has_box_masks
        True
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | Sequence[int] | None = None,
        masks: Tensor | Sequence[Any] | str | None = None,
        names: Iterable[str] | None = None,
        class_names: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        refuse_channels_last(images)
        self._fill(images, labels, masks, names, class_names, mean, std)

    def _fill(
        self,
        images: Tensor,
        labels: Tensor | Sequence[int] | None,
        masks: Tensor | Sequence[Any] | str | None,
        names: Iterable[str] | None,
        class_names: Sequence[str] | None,
        mean: Any,
        std: Any,
    ) -> None:
        automatic = wants_automatic(masks)
        masks = None if isinstance(masks, str) else masks
        self.images = check_images(images)
        self.present = None
        # Masks and names are given per image, so they are repeated before they are checked.
        labels = None if labels is None else read_labels(labels)
        class_names, names = check_class_names(class_names), read_names(names)
        # A column of classes, as binary losses take them, is no choice of several.
        if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels is not None and labels.ndim == 2:
            one_hot = bool((labels.sum(dim=1) == 1).all())
            present, labels, self.images, masks, names = repeat_per_class(
                labels, self.images, masks, names, class_names
            )
            self.present = None if one_hot else present
        self.has_labels = labels is not None
        self.labels = check_labels([0] * len(self.images) if labels is None else labels, len(self.images), class_names)
        self.masks, self.has_mask = check_masks(masks, self.images)
        size = self.images.shape[2:]
        self.box_masks = torch.tensor([masks is not None and is_box(masks[i], size) for i in range(len(self.images))])
        self.class_names = None
        if class_names is not None:
            # An empty name would make an empty tag.
            self.class_names = [name or f"class {label}" for label, name in enumerate(class_names)]
        words = [self.class_name(label) if self.has_labels else "image" for label in self.labels.tolist()]
        self.names = check_names(names, words)
        self.rows: list[Any] | None = None
        self.mean, self.std = check_normalisation(mean, std, self.images.shape[1])
        self.proposals: dict[int, Proposal] | None = None
        self.replaced: list[Replaced] = []
        self.sources = list(self.names)
        self.n_classes: int | None = None
        self.label_hint = ""
        self._verdict_set: ProbeSet | None = None
        if automatic:
            add_automatic_masks(self)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def verdict_set(self) -> ProbeSet:
        """Return the images that the verdict rests on: these, or after `watch` these first and then the others."""
        return self._verdict_set or self

    @property
    def multi_label(self) -> bool:
        """Return True if an image may hold several classes."""
        return self.present is not None

    @property
    def has_automatic_masks(self) -> bool:
        """Return True if a saliency network has made some of the masks."""
        return any(proposal.doubt is None for proposal in (self.proposals or {}).values())

    @property
    def has_box_masks(self) -> bool:
        """Return True if some masks are plain boxes, which hold old background and read too kindly."""
        return bool(self.box_masks.any())

    @property
    def is_stretched(self) -> bool:
        """Return True if the images are displayed stretched, since nothing says how they were normalised."""
        return white_of(*self._ends()) is None

    def watch(self, n: int) -> ProbeSet:
        """Return a probe set of a few of the images. Maps are made of these only, and the verdict still rests on all.

        Of a set that is watched in part already, all images are chosen from.

        Args:
            n: the largest number of images, 1 or more. They are chosen evenly over the classes, images with a mask
                first. With several classes per image, a photograph is chosen twice only if no other one is left.

        Raises:
            ValueError: ``n`` is no integer, or below 1.

        Examples:
            >>> import torch
            >>> from gradcam_callback import ProbeSet
            >>> probe = ProbeSet(torch.rand(40, 3, 8, 8), torch.arange(40) % 2).watch(4)
            >>> probe.labels.tolist(), len(probe.verdict_set)
            ([0, 0, 1, 1], 40)
        """
        if not isinstance(n, Integral) or n < 1:
            raise ValueError(
                f"Expected `n` to be an integer of 1 or more, but got {n!r}. Give the number of images to watch."
            )
        whole = self.verdict_set
        photographs, labels = whole._photographs(), whole.labels.tolist()
        masked_first = sorted(range(len(whole)), key=lambda i: not whole.has_mask[i])
        # Two images are the same pair only if they are the same photograph given twice.
        places = {(photographs[i], labels[i]): i for i in reversed(masked_first)}
        pairs = [(photographs[i], labels[i]) for i in masked_first]
        numbers = [places[pair] for pair in choose_per_class(pairs, Quota(None, n))]
        others = sorted(set(range(len(whole))) - set(numbers))
        watched = whole._select(numbers)
        watched._verdict_set = whole._select([*numbers, *others]) if others else None
        return watched

    def _photographs(self) -> list[int]:
        """Return the number of the photograph of each image. With several classes, an image stands here for each."""
        if self.present is None:
            return list(range(len(self)))
        prints = [image.contiguous().view(torch.uint8).numpy().tobytes() for image in self.images]
        first: dict[bytes, int] = {}
        return [first.setdefault(each, i) for i, each in enumerate(prints)]

    def _select(self, numbers: Sequence[int]) -> ProbeSet:
        selected = copy(self)
        selected._verdict_set = None
        selected.images, selected.labels = self.images[numbers], self.labels[numbers]
        selected.has_mask, selected.box_masks = self.has_mask[numbers], self.box_masks[numbers]
        selected.masks = self.masks[numbers] if self.masks is not None and selected.has_mask.any() else None
        selected.present = None if self.present is None else self.present[numbers]
        selected.names = [self.names[i] for i in numbers]
        selected.sources = [self.sources[i] for i in numbers]
        selected.rows = None if self.rows is None else [self.rows[i] for i in numbers]
        if self.proposals is not None:
            places = {number: place for place, number in enumerate(numbers)}
            selected.proposals = {places[i]: found for i, found in self.proposals.items() if i in places}
        return selected

    def class_name(self, label: int) -> str:
        """Return the name of a class, or ``"class <label>"`` if it has none.

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
        """Return images for display, with the normalisation undone.

        Args:
            images: ``(M, C, H, W)``, normalised like the probe images. By default the probe images.

        Returns:
            ``(M, H, W, 3)`` uint8. Channels after the third are left out; one or two channels are displayed in grey.

        Examples:
            >>> import torch
            >>> from gradcam_callback import ProbeSet
            >>> grey = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 3, 1, 1)
            >>> ProbeSet(grey, [0, 0, 0], mean=[0.5], std=[0.5]).display_images()[:, 0, 0, 0].tolist()
            [0, 128, 255]
        """
        pixels = self._denormalise(self.images if images is None else images)
        low, high = self._ends()
        white = white_of(low, high)
        pixels = pixels * (255 / white) if white else (pixels - low) / max(high - low, 1e-12) * 255
        pixels = pixels[:, :3] if pixels.shape[1] >= 3 else pixels[:, :1].expand(-1, 3, -1, -1)
        displayed = pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        return np.ascontiguousarray(displayed.numpy())

    def _ends(self) -> tuple[float, float]:
        """Return the smallest and the largest value of the images, with the normalisation undone.

        All images of the verdict decide it, so that images of all sheets are displayed in the same colours.
        """
        # The extremes of each channel tell it; a copy of all images would take much memory.
        own = self.verdict_set.images
        ends = self._denormalise(torch.stack([own.amin(dim=(0, 2, 3)), own.amax(dim=(0, 2, 3))])[..., None, None])
        return float(ends.min()), float(ends.max())

    def _denormalise(self, images: Tensor) -> Tensor:
        pixels = images.float().cpu()
        if self.mean is not None and self.std is not None:
            pixels = pixels * self.std[:, None, None] + self.mean[:, None, None]
        return pixels

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        per_class: int = DEFAULT_PER_CLASS,
        seed: int = 0,
        *,
        max_images: int | None = None,
        max_scanned: int | None = None,
        masks: str | None = None,
        batch_transform: BatchTransform | None = None,
    ) -> ProbeSet:
        """Choose ``per_class`` images of each class from a dataset, the same images every time.

        The label of an image is that of its item. ``dataset.targets`` only saves reading every item, also through a
        ``Subset``, as long as the items agree. Class names come from ``dataset.classes``, also of a dataset inside of
        it, unless the items have other labels than those stored there. Mean and std come from a ``Normalize`` in its
        transform, or in anything else that it or its functions hold. The state of the random generators does not
        change.

        Args:
            dataset: map-style. An item is ``(image, label)``, with a mask or anything else behind it. Or it is a
                mapping or named tuple with the usual names, such as ``"image"``, ``"label"`` and ``"mask"``, or one in
                another. The image is a tensor ``(C, H, W)``. The label is a class, or ``(K,)`` of 0 and 1: one-hot, or
                several classes, for one of which the image is chosen. A mask is bool or 0 and 1 of the image's size, a
                ``PIL.Image``, or a mask or boxes of ``torchvision.tv_tensors``. A mask ``(H, W)`` or ``PIL.Image`` of
                another size than its image goes through ``dataset.transform``. So do boxes of another ``canvas_size``,
                and boxes ``item["objects"]["bbox"]`` of Hugging Face, which are x, y, width and height in the
                untransformed image. Such a mask that is not bool has to be 0 and 255, or 0 and 1. The latter needs a
                usual name or the size of the image's file. Also torchvision's ``OxfordIIITPet`` with
                ``target_types=("category", "segmentation")``. A mask that marks nothing is no mask, and a warning names
                it.
            per_class: the number of images per class, 1 or more. A class with fewer images gives all of them. If more
                than 2 were asked for, a warning names it.
            seed: chooses the images, and seeds random steps of the transform.
            max_images: the largest number of images. If there are more classes, the chosen classes are spread evenly
                over their indices.
            max_scanned: the largest number of items to load for their labels. Stored labels have no limit.
            masks: ``"auto"`` gives images without a mask an automatic one, see `ProbeSet`. It is made of the file if
                the dataset names it, as an ``ImageFolder`` does. Boxes are refined, as in `from_folder`. An image
                whose mask looks doubtful gives way to another one of its class: up to three times as many are tried.
            batch_transform: for items of any other form: a function from the items of a batch, after torch's
                ``default_collate``, to ``(images, labels)`` or ``(images, labels, masks)``.

        Raises:
            ValueError: the dataset is empty or not map-style, its images or labels cannot be told for certain, or the
                images differ in shape. Or ``per_class``, ``max_images`` or ``max_scanned`` is below 1, or ``masks`` is
                neither None nor ``"auto"``.
            UserCodeError: the dataset or ``batch_transform`` failed. It is a ValueError, too.

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
        automatic = wants_automatic(masks, "Give each mask in its item, as (image, label, mask).")
        feed = Feed(collate=default_collate if batch_transform else None, batch_transform=batch_transform)
        quota = Quota(per_class, max_images)
        chosen = choose_items(set_apart(dataset), feed, quota, seed, max_scanned, automatic=automatic)
        make = partial(make_probe_set, class_names=chosen.class_names, sources=[dataset])
        probe = choose_masked(chosen.items, quota, make) if automatic else make(chosen.items)
        probe.n_classes = len(probe.class_names) if probe.class_names else None
        warn_of_few(probe.labels.tolist(), quota.of_each(1), probe.class_name)
        return probe

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        transform: Transform | None = None,
        *,
        masks: str | None = None,
        class_names: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> ProbeSet:
        """Read all images ``<folder>/<class>/<name>.jpg``, with their masks ``<name>.mask.png`` if these exist.

        The mask of an image is the first of these that exists. It may be a mask ``<name>.mask.png``,
        ``<name>_mask.png`` or ``<name>-mask.png``, or the image's own alpha, if it is a cut-out. Then come
        ``<name>.json`` of labelme, ``<name>.txt`` of YOLO, and ``<name>.xml`` of Pascal VOC. In an annotation file, the
        objects with the name of the folder count, or all objects if none has it. A warning tells of these, and of masks
        that look inverted.

        Photographs are read upright. torchvision's own loader ignores the EXIF rotation, so give the ``ImageFolder`` of
        a training a loader that does the same. Or pass the folder to ``GradCAMCallback(probe=folder)``, which reads it
        with the loader of the validation data.

        Args:
            folder: holds one folder per class. The index of a class is its place among the sorted names, as in
                torchvision's ``ImageFolder``. Images may be BMP, JPEG, PGM, PNG, PPM, TIFF or WebP. A mask is white on
                the object, black elsewhere, and has the size of its untransformed image. No two images share one.
            transform: the validation transform, from an RGB ``PIL.Image`` to a tensor ``(C, H, W)``. By default pixels
                are scaled to 0..1. Masks follow its geometry, such as resizing and cropping.
            masks: ``"auto"`` gives images without a mask beside them an automatic one, see `ProbeSet`. It is made of
                the untransformed image. A box of an annotation is then only the place to look for the object. It
                remains the mask if no good one is found in it.
            class_names: the classes by index, if they are not the sorted names of the folders.
            mean: as in `ProbeSet`. By default found in the transform, if it holds a torchvision ``Normalize``.
            std: as ``mean``.

        Raises:
            FileNotFoundError: the folder does not exist.
            ValueError: the folder holds no images, a file cannot be read, ``class_names`` lacks a folder, or the images
                differ in shape. Or a mask or annotation marks nothing or differs in size from its image, or ``masks``
                is neither None nor ``"auto"``.

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
        automatic = wants_automatic(masks, "Put each mask beside its photograph, as <name>.mask.png.")
        items, classes = read_folder(Path(folder), transform, class_names, automatic)
        return cls._from_files(items, classes, transform, mean, std, automatic)

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
        """Choose ``per_class`` images of each category from COCO annotations, with their masks.

        The class of an image is the category that fills most of it. Its mask holds all objects of that category. An
        object without an outline is its box. A crowd belongs to the mask beside other objects of its category. Alone it
        counts only if all objects of its category are crowds, as CVAT writes brush strokes. This needs
        ``pip install '.[coco]'`` in a checkout.

        Args:
            annotations: the JSON file.
            folder: the folder of the images.
            transform: as in `from_folder`.
            per_class: the number of images per category, 1 or more.
            seed: chooses the images.
            categories: the names of the classes by index. By default all categories of the file, ordered by their ids.
            mean: as in `from_folder`.
            std: as ``mean``.

        Raises:
            ImportError: pycocotools is not installed.
            OSError: the annotations cannot be opened.
            ValueError: the annotations are none of COCO, or broken, a category is not in the file, or no image shows
                any category. Or an image is not in the folder, cannot be read, or differs in size from its annotations.
                Or the transformed images differ in shape, the transform cuts an object off, or ``per_class`` is below
                1.

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
        return cls._from_files(items, classes, transform, mean, std)

    @staticmethod
    def _from_files(
        items: Sequence[Item],
        classes: Sequence[str],
        transform: Transform | None,
        mean: Any,
        std: Any,
        automatic: bool = False,
    ) -> ProbeSet:
        if mean is not None or std is not None:
            return make_probe_set(items, class_names=classes, mean=mean, std=std, automatic=automatic)
        return make_probe_set(items, class_names=classes, sources=[transform], automatic=automatic)


def make_probe_set(
    items: Sequence[Item],
    *,
    class_names: Sequence[str] | None = None,
    sources: Sequence[Any] = (),
    other_sources: Sequence[Any] = (),
    labelled: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    automatic: bool = False,
) -> ProbeSet:
    """Make a probe set of chosen items.

    Args:
        class_names: as in `ProbeSet`; left out if they do not name every label.
        sources: datasets, transforms or functions that may hold the normalisation of the images.
        other_sources: the same, as ``others`` of `find_fitting_normalisations`.
        labelled: False leaves the labels out.
        mean: as in `ProbeSet`.
        std: as in `ProbeSet`.
        automatic: True gives images without a mask an automatic one.
    """
    first = items[0]
    # The constructor would find these mistakes, too, but cannot name the file or item.
    for item in items:
        if item.image.shape != first.image.shape:
            raise ValueError(
                f"Expected images of one shape, but {first.source} is {tuple(first.image.shape)} and {item.source} "
                f"is {tuple(item.image.shape)}. Resize the images in the transform."
            )
        mask = item.mask if isinstance(item.mask, Tensor) or item.mask is None else np.asarray(item.mask)
        if mask is not None and not mask.any():
            raise ValueError(
                f"Expected the mask of {item.source} to mark the object, but it marks nothing after the transform. "
                "Use a transform that keeps the object, remove the mask, or choose other images by `seed`."
            )
        if not bool(torch.as_tensor(item.image).isfinite().all()):
            raise ValueError(
                f"Expected images to be finite, but {item.source} holds NaN or infinity. Check it and the transform."
            )
        if item.mask is not None:
            check_mask(item.mask, tuple(item.image.shape[1:]), f"the mask of {item.source}")
    items = [item if item.proposal is None else item._replace(mask=None, boxed=False) for item in items]
    images = torch.stack([torch.as_tensor(item.image) for item in items])
    labels = [item.label for item in items] if labelled else None
    if class_names is not None and (labels is None or max(labels) >= len(class_names)):
        class_names = None
    if mean is None and std is None:
        mean, std = next(find_fitting_normalisations(images, sources, other_sources), (None, None))
    # A batch transform says what the images are, also if they look like (H, W, C).
    probe = ProbeSet.__new__(ProbeSet)
    probe._fill(images, labels, [item.mask for item in items], None, class_names, mean, std)
    probe.box_masks |= torch.tensor([item.boxed for item in items])
    stems = [make_storable(item.name) for item in items if item.name]
    if len(stems) == len(items):
        words = [probe.class_name(item.label) if class_names else "" for item in items]
        probe.names = make_unique([name_image(*pair) for pair in zip(words, stems, strict=True)])
    probe.sources = [item.source for item in items]
    if first.present is not None:
        # The constructor would repeat each image for all its classes, but only one of them was chosen.
        probe.present = torch.stack([item.present for item in items if item.present is not None])
    if all(item.row is not None for item in items):
        probe.rows = [item.row for item in items]
    if automatic or any(item.proposal is not None for item in items):
        add_automatic_masks(probe, items, makes=automatic)
    return probe
