"""Where the items of a dataset come from: their files, the transform of their images and its random steps."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset
from torchvision.datasets import DatasetFolder
from torchvision.datasets.folder import default_loader

from gradcam_callback.exceptions import UserCodeError
from gradcam_callback.probes.batches import find_parts, replace_part
from gradcam_callback.probes.beside import PHOTOGRAPH_SUFFIXES
from gradcam_callback.probes.feed import Feed
from gradcam_callback.probes.labels import find_inner
from gradcam_callback.probes.loaders import Loader, read_picture
from gradcam_callback.probes.lookup import find_loader, find_transform, narrow
from gradcam_callback.probes.transforms import MaskTransformError, Transform, blame_transform
from gradcam_callback.random_state import hash_random_state, seed_everything

# Names under which datasets keep the paths of their images by index.
_PATHS = (
    *("samples", "_samples", "imgs", "_images", "image_paths", "img_paths", "image_files", "_image_files"),
    *("paths", "files", "filenames"),
)
# Files at most that are opened to see if they are those of the items.
_MOST_OPENED = 4


@dataclass(frozen=True)
class Origin:
    """The origin of an item: its dataset, its number and its random steps.

    Attributes:
        dataset: that holds it.
        feed: the way of the items to the model.
        index: of the item.
        seed: of its random steps.
        state: of the random generators after the item was loaded, see `hash_random_state`.
    """

    dataset: Any
    feed: Feed
    index: int
    seed: int
    state: int

    @property
    def part(self) -> Any:
        """Return the part of the dataset that holds the item."""
        return narrow(self.dataset, self.index)[0]

    @property
    def transform(self) -> Transform | None:
        """Return the transform of the image."""
        return find_transform(self.part)

    @property
    def loader(self) -> Loader:
        """Return what reads the file of the item. Most datasets leave photographs lying that their EXIF data turn."""
        return find_loader(self.part) or default_loader

    @property
    def path(self) -> Path | None:
        """Return the path of the file of the item, None if it is not known.

        A dataset inside of another one may have it, and then it is not certain: the other one may change the order.
        """
        return _find_path(self.dataset, self.index, inside=True)

    def open(self) -> Image.Image | None:
        """Return the file of the item in RGB, or None if the dataset does not know it."""
        path = _find_path(self.dataset, self.index, inside=False)
        try:
            return None if path is None else read_picture(path, self.loader).convert("RGB")
        except (UserCodeError, ValueError):
            return None  # the dataset reads it in a way of its own

    def open_source(self, item: Any) -> Image.Image | None:
        """Open the file that the image of the item is certainly made of.

        Args:
            item: as the dataset gave it.

        Returns:
            None unless `dataset.transform` alone makes the image of the item out of the file.
        """
        path, transform = self.path, self.transform
        if path is None or transform is None or not path.is_file():
            return None
        for loader in (self.loader, None):
            try:
                photograph = read_picture(path, loader)
                seed_everything(self.seed)
                image = torch.as_tensor(transform(photograph))
                own = find_parts(item, "", batched=False, needs_labels=False).images
            except Exception:
                # The user's transform may need more than an image. The probe image itself serves as well.
                return None
            if torch.equal(image, torch.as_tensor(own)):
                return photograph
        return None

    def check_steps(self, size: tuple[int, int]) -> None:
        """Refuse a transform with random steps that cannot be repeated.

        Args:
            size: the width and height of the untransformed image.

        Raises:
            MaskTransformError: something else in the item draws random numbers, too.
        """
        transform = self.transform
        if transform is None:
            return
        seed_everything(self.seed)
        before = hash_random_state()
        with blame_transform():
            transform(Image.new("RGB", size))
        if hash_random_state() not in (before, self.state):
            raise MaskTransformError(
                "Expected random steps of the items in `dataset.transform` alone, so that a mask can repeat those of "
                "its image, but the items draw other random numbers, too. Transform image and mask together, and give "
                "the mask the size of its image."
            )


@dataclass(frozen=True)
class PictureOrigin(Origin):
    """The origin of an item that holds its image as a picture, which the collate function or the hooks transform.

    Attributes:
        item: of the dataset.
        picture: the one in the item.
        image: as the model takes it, ``(C, H, W)``.
    """

    item: Any
    picture: Image.Image
    image: Tensor

    @property
    def transform(self) -> Transform:
        """Return the way of a picture through a batch of its own."""
        return self._send

    def open(self) -> Image.Image:
        """Return the picture in RGB."""
        return self.picture.convert("RGB")

    def check_steps(self, size: tuple[int, int]) -> None:
        """Refuse random steps, and what depends on the other images of a batch.

        Raises:
            MaskTransformError: the mask is not that of the picture, or the image cannot be made again.
        """
        seed_everything(self.seed)
        before = hash_random_state()
        made = self._send(self.picture)
        if size != self.picture.size or hash_random_state() != before or not torch.equal(made, self.image):
            raise MaskTransformError(
                "Expected masks of the size of their images, and a collate_fn and batch hooks that transform each "
                "image alone, without random steps, so that a mask can follow its image, but got others. Transform "
                "image and mask together in the dataset."
            )

    def _send(self, picture: Image.Image) -> Tensor:
        given = picture.convert(self.picture.mode)
        return self.feed.samples([replace_part(self.item, self.picture, given)], [self.index])[0].image


def keeps_files_by_index(dataset: Any, origins: Sequence[Origin], items: Sequence[Any]) -> bool:
    """Return True if a dataset certainly keeps the paths of its images by the index of the item.

    A dataset of the user's may draw its items in an order of its own, so some of its files are looked into.

    Args:
        origins: of some items.
        items: as the dataset gave them.
    """
    inner = dataset
    while isinstance(inner, Subset):
        inner = inner.dataset
    if isinstance(inner, DatasetFolder) or type(inner).__module__.startswith("torchvision."):
        return True
    some = list(zip(origins, items, strict=True))[:: math.ceil(len(items) / _MOST_OPENED)]
    return all(origin.open_source(item) is not None for origin, item in some)


def _find_path(dataset: Any, index: int, *, inside: bool) -> Path | None:
    """Return the path of the file of an item, as the dataset has it; None if the dataset does not know it.

    Args:
        inside: True also asks datasets of the same length inside of others.
    """
    dataset, index = narrow(dataset, index)
    if isinstance(dataset, Subset):
        return _find_path(dataset.dataset, dataset.indices[index], inside=inside)
    for name in _PATHS:
        paths = getattr(dataset, name, None)
        if isinstance(paths, (list, tuple, np.ndarray)) and len(paths) == len(dataset):
            path = paths[index][0] if isinstance(paths[index], (list, tuple)) else paths[index]
            if isinstance(path, (str, Path)) and str(path).lower().endswith(PHOTOGRAPH_SUFFIXES):
                return Path(path)
    inner = find_inner(dataset) if inside else None
    # One of another length has other items.
    is_same = isinstance(inner, Sized) and len(inner) == len(dataset)
    return _find_path(inner, index, inside=True) if is_same else None
