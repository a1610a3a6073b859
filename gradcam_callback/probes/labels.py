"""Read the labels that datasets store, and the classes that a label stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradcam_callback.probes.pets import is_pets, pets_labels


def stored_labels(dataset: Any) -> Any:
    """Return the labels that a dataset stores, or None if it stores none. Its items may have others."""
    labels = pets_labels(dataset) if is_pets(dataset) else getattr(dataset, "targets", None)
    if isinstance(labels, (list, tuple, np.ndarray, Tensor)) and len(labels) == len(dataset):
        # Detection datasets store whole annotations under this name.
        if all(isinstance(label, (int, np.integer)) or getattr(label, "ndim", 1) == 0 for label in labels):
            return labels
    if isinstance(dataset, torch.utils.data.Subset):
        inner = stored_labels(dataset.dataset)
        return None if inner is None else [int(inner[index]) for index in dataset.indices]
    return None


def label_tensor(label: Any) -> Tensor:
    """Return a label in any form as a tensor.

    Raises:
        TypeError, ValueError, RuntimeError: it is no number, or several numbers of no common form.
    """
    # torch does not take every number of NumPy, but every array.
    return torch.as_tensor(np.asarray(label) if isinstance(label, np.generic) else label)


def to_classes(label: Any, what: str, name: str) -> list[int]:
    """Return the class, or the several classes, that a label stands for."""
    try:
        given = label_tensor(label)
    except (TypeError, ValueError, RuntimeError):
        given = torch.tensor(torch.nan)
    # Floating point is allowed, since the binary losses of torch need it.
    whole = not given.is_complex() and bool((given == given.floor()).all()) if given.dtype != torch.bool else True
    if whole and given.numel() == 1:
        return [int(given)]
    if whole and given.ndim == 1 and bool(((given == 0) | (given == 1)).all()):
        # torch finds no places in the larger unsigned integers.
        return [int(found) for found in given.bool().nonzero()[:, 0]]
    raise ValueError(
        f"Expected {what} of {name} to be one integer class, or (K,) of 0 and 1, but got {label!r}. Convert it in the "
        "dataset, or by batch_transform=lambda batch: (images, labels). For a regression, pass target=lambda outputs, "
        "index: outputs[:, 0]."
    )


def all_classes(label: Any) -> Tensor | None:
    """Return all classes of an image as ``(K,)`` bool if it may hold several, otherwise None."""
    if label is None:
        return None
    classes = label_tensor(label).detach().cpu()
    return classes.bool() if classes.numel() > 1 else None
