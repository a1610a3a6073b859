"""Read torchvision's ``OxfordIIITPet``, which keeps its labels private and gives its masks as trimaps.

The dataset is by Parkhi et al., "Cats and Dogs", CVPR 2012. Only this file knows its private fields.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import OxfordIIITPet

# A trimap is 1 on the animal, 2 on the background and 3 on the rim of the animal, which shows fur.
_BACKGROUND = 2


def is_pets(dataset: Any) -> bool:
    """Return True if a dataset is torchvision's ``OxfordIIITPet``, not wrapped in another one."""
    return isinstance(dataset, OxfordIIITPet)


def pets_labels(dataset: Any) -> Any:
    """Return the labels of all pets without opening a file, or None if they can only be read from the items."""
    field = {"category": "_labels", "binary-category": "_bin_labels"}.get(_first_target_type(dataset))
    # torchvision has no public name for the labels. The default keeps this working if the private names change.
    return None if field is None else getattr(dataset, field, None)


def pets_class_names(dataset: Any) -> Any:
    """Return the names of the breeds, or ``["Cat", "Dog"]`` if the label is the species."""
    return dataset.bin_classes if _first_target_type(dataset) == "binary-category" else dataset.classes


def is_trimap(mask: Any) -> bool:
    """Return True if a mask holds the values of a trimap. A dataset around the pets may give masks of its own."""
    levels = np.asarray(mask)
    return levels.dtype != bool and bool(np.isin(levels, (1, 2, 3)).all())


def trimap_to_mask(trimap: Any) -> Tensor:
    """Return the animal and its rim as a mask ``(H, W)`` bool, from a segmentation target."""
    return torch.from_numpy(np.asarray(trimap) != _BACKGROUND)


def leaves_masks_untransformed(dataset: Any) -> bool:
    """Return True if the masks of a dataset of pets, or of its ``Subset``, do not follow the transform of the images.

    The size does not always show it: a transformed image may happen to be as large as its untransformed mask.
    """
    while isinstance(dataset, torch.utils.data.Subset):
        dataset = dataset.dataset
    return is_pets(dataset) and dataset.transform is not None and dataset.target_transform is None


def _first_target_type(dataset: Any) -> str:
    """Return the target type that serves as the label, ``""`` if the dataset has none."""
    target_types = getattr(dataset, "_target_types", None)
    return str(target_types[0]) if target_types else ""
