"""Read the labels that datasets store, and the classes that a label stands for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from gradcam_callback.exceptions import GradCAMWarning
from gradcam_callback.formatting import name_some
from gradcam_callback.probes.pets import is_pets, pets_labels

# The usual names of a label in an item, in lower case; a plural counts, too.
LABEL_KEYS = ("label", "target", "y", "class_label")
# Names, beside `targets`, under which datasets keep labels by index.
_FIELDS = ("labels", "_labels")


def is_named(key: str, names: Sequence[str]) -> bool:
    """Return True if a key is one of the names, also in capitals or as a plural."""
    return key.lower() in names or key.lower().removesuffix("s") in names


def find_label_keys(fields: Mapping[Any, Any]) -> list[Any]:
    """Return the keys of a mapping that are usual names of a label."""
    return [key for key in fields if is_named(str(key), LABEL_KEYS)]


def find_inner(dataset: Any) -> Any:
    """Return what a dataset holds as ``dataset``, or else the only dataset of its length that it holds; None without.

    The usual wrapper of a ``Subset`` that has a transform of its own calls it anything.
    """
    inner = getattr(dataset, "dataset", None)
    if inner is not None or not isinstance(dataset, Sized):
        return inner
    held = [value for value in getattr(dataset, "__dict__", {}).values() if _is_dataset(value)]
    return held[0] if len(held) == 1 and len(held[0]) == len(dataset) else None


def _is_dataset(value: Any) -> bool:
    """Return True for a dataset with a length, of torch or of Hugging Face."""
    is_dataset = isinstance(value, Dataset) or isinstance(getattr(value, "features", None), Mapping)
    return is_dataset and isinstance(value, Sized)


def stored_labels(dataset: Any) -> Any:
    """Return the labels that a dataset stores, or None if it stores none. Its items may have others."""
    labels = pets_labels(dataset) if is_pets(dataset) else getattr(dataset, "targets", None)
    if _are_labels(labels, dataset):
        return labels
    if isinstance(dataset, Subset):
        inner = stored_labels(dataset.dataset)
        return None if inner is None else [int(inner[index]) for index in dataset.indices]
    return None


def tensor_of(numbers: Any) -> Tensor:
    """Return a number, or numbers in any form, as a tensor.

    Raises:
        TypeError, ValueError, RuntimeError: they are no numbers, or of no common form.
    """
    return torch.as_tensor(native_copy(numbers) if isinstance(numbers, (np.generic, np.ndarray)) else numbers)


def native_copy(numbers: np.ndarray[Any, Any] | np.generic) -> np.ndarray[Any, Any]:
    """Return numbers of NumPy as an array that torch takes.

    torch refuses scalars, views that run backwards, the bytes of another machine, as FITS and TIFF hold them, and
    floating point above 64 bits. It warns of arrays that cannot be written.
    """
    is_longer = numbers.dtype.kind == "f" and numbers.dtype.itemsize > 8
    return np.array(numbers, np.float64 if is_longer else numbers.dtype.newbyteorder("="), order="C")


def whole_numbers(label: Any) -> Tensor | None:
    """Return a label in any form as int64 on the CPU; None if it holds anything but whole numbers of this range."""
    try:
        given = tensor_of(label).detach().cpu()
        # torch cannot compare the larger unsigned integers with others.
        is_whole = not given.is_complex() and bool((given.long().double() == given.double()).all())
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None  # also a tensor without values, or of a layout for which torch knows few operations
    return given.long() if is_whole else None


def known_labels(dataset: Any) -> list[int] | None:
    """Return the labels that a dataset stores under any usual name, to compare others with; None if it stores none."""
    if isinstance(dataset, Subset):
        inner = known_labels(dataset.dataset)
        return None if inner is None else [inner[index] for index in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        parts = [known_labels(part) for part in dataset.datasets]
        return None if None in parts else [label for part in parts for label in part or ()]
    candidates = [stored_labels(dataset), *(getattr(dataset, name, None) for name in _FIELDS), _column(dataset)]
    return next(([int(label) for label in labels] for labels in candidates if _are_labels(labels, dataset)), None)


def _column(dataset: Any) -> Any:
    """Return the labels of a dataset of Hugging Face, None for any other dataset."""
    features = getattr(dataset, "features", None)
    keys = find_label_keys(features) if isinstance(features, Mapping) else []
    try:
        # Without its format, since its transform may need the images, too.
        return list(dataset.with_format(None)[keys[0]]) if keys else None
    except Exception:
        return None


def _are_labels(labels: Any, dataset: Any) -> bool:
    values = labels.tolist() if isinstance(labels, (np.ndarray, Tensor)) else labels
    # Detection datasets store whole annotations under the name of labels.
    return isinstance(values, (list, tuple)) and len(values) == len(dataset) and all(map(_is_class, values))


def _is_class(label: Any) -> bool:
    if isinstance(label, float):
        return label.is_integer()
    return isinstance(label, (int, np.integer)) or (getattr(label, "ndim", 1) == 0 and whole_numbers(label) is not None)


def to_classes(label: Any, what: str, name: str) -> list[int]:
    """Return the class, or the several classes, that a label stands for."""
    # Floating point is allowed, since the binary losses of torch need it.
    given = whole_numbers(label)
    if given is not None and given.numel() == 1:
        return [int(given)]
    if given is not None and given.ndim == 1 and bool(((given == 0) | (given == 1)).all()):
        return [int(found) for found in given.nonzero()[:, 0]]
    raise ValueError(
        f"Expected {what} of {name} to be one integer class, or (K,) of 0 and 1, but got {label!r}. Convert it in the "
        "dataset, or by batch_transform=lambda batch: (images, labels), soft labels by labels.argmax(1). For a "
        "regression, pass target=lambda outputs, index: outputs[:, 0]."
    )


def warn_of_negative(labels: Sequence[int]) -> None:
    """Warn of labels below 0, which stand for no class."""
    negative = sorted({label for label in labels if label < 0})
    if negative:
        count = sum(label < 0 for label in labels)
        warnings.warn(
            f"GradCAM: {count} of {len(labels)} images have the label {name_some([*map(str, negative)])}, which is no "
            f"class, and are left out of the probe set.{hint_at_signs(labels)}",
            GradCAMWarning,
            stacklevel=2,
        )


def hint_at_signs(labels: Sequence[int]) -> str:
    """Return what to do with two classes of -1 and 1, as the hinge loss takes them; ``""`` for other labels."""
    return " If -1 and 1 are two classes, make them 0 and 1: (label + 1) // 2." if set(labels) == {-1, 1} else ""


def all_classes(label: Any) -> Tensor | None:
    """Return all classes of an image as ``(K,)`` bool if it may hold several, otherwise None."""
    if label is None:
        return None
    classes = tensor_of(label).detach().cpu()
    return classes.bool() if classes.numel() > 1 else None
