"""Find the transform, the normalisation and the class names of a dataset, however it is wrapped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gradcam_callback.probes.pets import is_pets, pets_class_names
from gradcam_callback.probes.transforms import Transform

# Deeper nesting means that an object refers to itself.
_MAX_DEPTH = 8


def find_transform(dataset: Any) -> Transform | None:
    """Return the transform of the images of a dataset, or None if it has none."""
    return next((part.transform for part in unwrap(dataset) if callable(getattr(part, "transform", None))), None)


def find_normalisation(source: Any) -> tuple[list[float] | None, list[float] | None]:
    """Return mean and std of the torchvision ``Normalize`` in a transform or a dataset.

    Both versions of ``Normalize`` are found, and the presets of torchvision's weights, which hold mean and std.

    Returns:
        One value per channel for mean and for std, or ``(None, None)``.
    """
    for part in unwrap(source):
        mean, std = getattr(part, "mean", None), getattr(part, "std", None)
        # Other classes use the names mean and std for something else.
        if type(part).__module__.startswith("torchvision.transforms") and mean is not None and std is not None:
            return [float(value) for value in mean], [float(value) for value in std]
    return None, None


def find_class_names(dataset: Any) -> list[str] | None:
    """Return the names of the classes of a dataset by index, or None if it has none."""
    for part in unwrap(dataset):
        names = pets_class_names(part) if is_pets(part) else getattr(part, "classes", None)
        if isinstance(names, (list, tuple)) and names:
            return [str(name) for name in names]
    return None


def unwrap(source: Any, depth: int = 0) -> Iterator[Any]:
    """Yield a dataset or transform, then everything wrapped in it under the names that torch and torchvision use."""
    if source is None or depth > _MAX_DEPTH:
        return
    yield source
    inner: list[Any] = [getattr(source, name, None) for name in ("transform", "dataset")]
    # Either a list, as in Compose and ConcatDataset, or a single object, as in VisionDataset.
    for name in ("transforms", "datasets"):
        value = getattr(source, name, None)
        inner += value if isinstance(value, (list, tuple)) else [value]
    for part in inner:
        yield from unwrap(part, depth + 1)
