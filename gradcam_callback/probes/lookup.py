"""Find the transform, the normalisation and the class names of a dataset, however it is wrapped."""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Hashable, Iterator, Mapping, Sequence, Sized
from functools import partial
from itertools import chain, islice
from numbers import Integral
from types import FunctionType, MethodType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from gradcam_callback.probes.labels import find_inner, find_label_keys, known_labels, tensor_of
from gradcam_callback.probes.loaders import Loader
from gradcam_callback.probes.names import name_class
from gradcam_callback.probes.pets import is_pets, pets_class_names
from gradcam_callback.probes.transforms import Transform
from gradcam_callback.random_state import closure_values, find_inside

# Deeper nesting means that an object refers to itself.
_DEEPEST = 8
# Longer lists and mappings hold data, not transforms.
_LONGEST = 50
# Other packages use the names mean and std for something else.
_PACKAGES = ("torchvision", "timm", "albumentations", "kornia", "monai")


def find_transform(dataset: Any) -> Transform | None:
    """Return the transform of the images of a dataset, or None if it has none. Of several, the first counts.

    A method ``transform`` counts only if it is a dataset's. Those of torchvision's own transforms, and the tables of
    pandas, take other things than an image.
    """
    for part in unwrap(dataset):
        found = getattr(part, "transform", None)
        if callable(found) and (part is dataset or isinstance(part, Dataset) or not isinstance(found, MethodType)):
            return cast(Transform, found)
    return None


def narrow(dataset: Any, index: int) -> tuple[Any, int]:
    """Return the part of a dataset that an item comes from, and the index of the item in it.

    Parts of ``Subset`` and ``ConcatDataset`` are looked for, up to one with a transform of its own.
    """
    while not callable(getattr(dataset, "transform", None)):
        if isinstance(dataset, torch.utils.data.Subset):
            dataset, index = dataset.dataset, dataset.indices[index]
        elif isinstance(dataset, torch.utils.data.ConcatDataset):
            ends = [0, *dataset.cumulative_sizes]
            part = bisect_right(dataset.cumulative_sizes, index)
            dataset, index = dataset.datasets[part], index - ends[part]
        else:
            break
    return dataset, index


def find_fitting_normalisations(
    images: Tensor, sources: Sequence[Any], others: Sequence[Any] = ()
) -> Iterator[tuple[list[float], list[float]]]:
    """Yield each mean and std in the sources that bring images back into 0..1 or 0..255.

    Others are no proof: the images may have been normalised somewhere else, or twice. Nor is what the sources hold
    under names of the user's own, or what their functions use of a module: it may be for other images.

    Args:
        images: ``(N, C, H, W)``, as the model takes them.
        sources: datasets, transforms or functions that have made the images, and may hold their normalisation.
        others: what may normalise later, such as a module in its forward. They count only if the images are no pixels.
    """
    further: Iterator[tuple[list[float], list[float]]] = iter(())
    if white_of(float(images.min()), float(images.max())) is None:
        sources = [*sources, *others]
        further = (found for part in _search(sources) for found in (*_find_chains(part), *find_normalisations(part)))
    # Several that are applied one after the other are undone together. One of them alone may seem to do, too.
    chains = (found for source in sources for found in _find_chains(source))
    nearby = (found for source in sources for found in find_normalisations(source))
    for mean, std in chain(chains, nearby, further):
        if len(mean) in (1, images.shape[1]) and len(mean) == len(std):
            pixels = images.float() * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
            if white_of(float(pixels.min()), float(pixels.max())) is not None:
                yield mean, std


def _search(sources: Sequence[Any]) -> Iterator[Any]:
    """Yield the transforms and modules that sources lead to by any attribute or variable, the nearest first."""
    for part in find_inside(sources, (object,), _DEEPEST):
        if isinstance(part, nn.Module) or type(part).__module__.partition(".")[0] in _PACKAGES:
            yield part


def _find_chains(source: Any) -> Iterator[tuple[list[float], list[float]]]:
    """Yield the mean and std that undo all normalisations of a ``Compose`` together, if it holds several."""
    for part in _unwrap_everything(source):
        if type(part).__name__ == "Compose":
            steps = [found for step in part.transforms for found in find_normalisations(step)]
            if len(steps) > 1 and len({len(values) for pair in steps for values in pair if len(values) > 1}) < 2:
                mean, std = torch.zeros(1), torch.ones(1)
                for own_mean, own_std in steps:
                    mean, std = mean + std * torch.tensor(own_mean), std * torch.tensor(own_std)
                mean, std = torch.broadcast_tensors(mean, std)
                yield mean.tolist(), std.tolist()


def white_of(low: float, high: float) -> int | None:
    """Return the level of white of images, 1 or 255, from their extremes; None if they are no pixels.

    Rounding, and the overshoot of a bicubic resize, leave the range a little.
    """
    if low >= -0.05 and high <= 1.05:
        return 1
    # Images of mean 0 and deviation 1 reach 3, and rarely 20. Below 0, pixels come by an overshoot beside bright ones.
    return 255 if low >= -5 and (20 if low >= -0.05 else 100) < high <= 260 else None


def find_normalisations(source: Any) -> Iterator[tuple[list[float], list[float]]]:
    """Yield mean and std of each ``Normalize`` in a dataset, transform, module or function once, one value per channel.

    Known are both versions of torchvision's, the presets of its weights, timm's, albumentations', kornia's and MONAI's
    ``NormalizeIntensity``. kornia's may be among the children of a module.
    """
    # Kept, so that no number of an object is used again.
    seen: dict[int, Any] = {}
    for part in _unwrap_everything(source):
        # Several ways may lead to a part.
        if id(part) in seen:
            continue
        seen[id(part)] = part
        if type(part).__module__.partition(".")[0] in _PACKAGES:
            flags = getattr(part, "flags", None)
            holder = flags if isinstance(flags, Mapping) else vars(part) if hasattr(part, "__dict__") else {}
            for mean_name, std_name in (("mean", "std"), ("subtrahend", "divisor")):
                mean = holder.get(mean_name, getattr(part, mean_name, None))
                std = holder.get(std_name, getattr(part, std_name, None))
                pair = _to_floats(mean), _to_floats(std)
                if pair[0] and pair[1]:
                    yield pair[0], pair[1]


def _to_floats(values: Any) -> list[float]:
    """Return numbers, or no number at all for anything else."""
    try:
        return [float(value) for value in tensor_of(values).detach().cpu().flatten().tolist()]
    except (TypeError, ValueError, RuntimeError):
        return []


def find_loader(dataset: Any) -> Loader | None:
    """Return what reads the files of a dataset like torchvision's ``ImageFolder``, None for any other dataset."""
    holders = (part for part in unwrap(dataset) if hasattr(part, "samples") or hasattr(part, "imgs"))
    return next((part.loader for part in holders if callable(getattr(part, "loader", None))), None)


class ClassNames(NamedTuple):
    """The names of the classes of a dataset.

    Attributes:
        names: by class index.
        labels: one per item, the label that its name belongs to, if the names are those of a dataset inside. None, for
            an item or for all, if the names are the dataset's own.
    """

    names: list[str]
    labels: Sequence[int | None] | None

    def fit(self, index: int, classes: Sequence[int]) -> bool:
        """Return True if the names may belong to an item of these classes."""
        expected = None if self.labels is None else self.labels[index]
        return expected is None or expected in classes


def find_class_names(dataset: Any, depth: int = 0) -> ClassNames | None:
    """Return the names of the classes of a dataset, or None if it has none.

    A dataset around the one with the names may give its items other labels. So the labels of the inner dataset come
    along: its names are only those of items with these labels.
    """
    names = _own_names(dataset)
    if names or dataset is None or depth > _DEEPEST:
        return ClassNames(names, None) if names else None
    if isinstance(dataset, ConcatDataset):
        parts = [find_class_names(part, depth + 1) for part in dataset.datasets]
        first = parts[0]
        if first is None or any(part is None or part.names != first.names for part in parts):
            return None
        labels: list[int | None] = []
        for part, end in zip(parts, dataset.cumulative_sizes, strict=True):
            labels += [None] * (end - len(labels)) if part is None or part.labels is None else part.labels
        return ClassNames(first.names, None if set(labels) == {None} else labels)
    inside = find_inner(dataset)
    found = find_class_names(inside, depth + 1)
    if found is None or not isinstance(inside, Sized):
        return None
    if isinstance(dataset, Subset):
        return found if found.labels is None else found._replace(labels=[found.labels[i] for i in dataset.indices])
    known = known_labels(inside) or found.labels
    same = known is not None and isinstance(dataset, Sized) and len(dataset) == len(known)
    return found._replace(labels=known) if same else None


def _own_names(dataset: Any) -> list[str]:
    names: Any = pets_class_names(dataset) if is_pets(dataset) else getattr(dataset, "classes", None)
    if not _is_sequence(names) or not len(names):
        names = _feature_names(dataset)
    return _by_index(names, getattr(dataset, "class_to_idx", None)) if _is_sequence(names) else []


def _by_index(names: Sequence[Any], indices: Any) -> list[str]:
    """Return names of classes as text, in the order of the indices; none if some index has no name.

    A user's ``find_classes`` may number the classes of an ``ImageFolder`` in another order than it lists them, or give
    several of them one number.

    Args:
        indices: the index of each name, as ``class_to_idx`` of torchvision has them. Anything else says nothing.
    """
    words = [name_class(name) for name in names]
    given = indices if isinstance(indices, Mapping) else {}
    numbers = [given.get(name) if isinstance(name, Hashable) else None for name in names]
    of_index: dict[int, list[str]] = {}
    for word, number in zip(words, numbers, strict=True):
        if not isinstance(number, Integral):
            return words
        of_index.setdefault(int(number), []).append(word)
    return [" or ".join(of_index[i]) for i in sorted(of_index)] if set(of_index) == {*range(len(of_index))} else []


def _is_sequence(names: Any) -> bool:
    # NumPy and pandas have sequences of their own, which have no truth value. A dataset may call anything "classes",
    # such as their number.
    return isinstance(names, (list, tuple)) or getattr(names, "ndim", 0) == 1


def _feature_names(dataset: Any) -> Any:
    """Return the names that a dataset of Hugging Face gives to its label, None for any other dataset."""
    features = getattr(dataset, "features", None)
    if not isinstance(features, Mapping):
        return None
    return next((names for key in find_label_keys(features) if (names := getattr(features[key], "names", None))), None)


def set_apart(dataset: Any, depth: int = 0) -> Any:
    """Return a shallow copy of a dataset and of the datasets in it, so that to read items leaves the dataset as it is.

    A dataset may open its file at the first item. Loaders that start their workers by spawn pickle the dataset, which
    fails if the file is open.
    """
    if not isinstance(dataset, torch.utils.data.Dataset) or depth > _DEEPEST:
        return dataset
    try:
        copied = copy.copy(dataset)
        for name, value in list(vars(copied).items()):
            if isinstance(value, torch.utils.data.Dataset):
                vars(copied)[name] = set_apart(value, depth + 1)
            elif isinstance(value, list) and value and isinstance(value[0], torch.utils.data.Dataset):
                vars(copied)[name] = [set_apart(part, depth + 1) for part in value]
    except Exception:
        # The dataset may have a way of copying of its own.
        return dataset
    return copied


def unwrap(source: Any, depth: int = 0) -> Iterator[Any]:
    """Yield a dataset or transform, then everything wrapped in it under the names that torch and torchvision use.

    The dataset inside of another one may have any name.
    """
    if source is None or depth > _DEEPEST:
        return
    yield source
    inner: list[Any] = [getattr(source, "transform", None), find_inner(source)]
    # Either a list, as in Compose and ConcatDataset, or a single object, as in VisionDataset.
    for name in ("transforms", "datasets"):
        value = getattr(source, name, None)
        inner += value if isinstance(value, (list, tuple)) else [value]
    for part in inner:
        yield from unwrap(part, depth + 1)


def _unwrap_everything(source: Any, depth: int = 0) -> Iterator[Any]:
    """Yield what `unwrap` yields, and what modules, functions, containers and MONAI's transforms of dicts hold."""
    if depth > _DEEPEST:
        return
    for part in unwrap(source):
        yield part
        inner: list[Any] = [getattr(part, "normalizer", None)]
        if isinstance(part, nn.Module):
            inner += part.children()
        elif isinstance(part, Mapping):
            inner += islice(part.values(), _LONGEST)
        elif isinstance(part, (list, tuple)):
            inner += part[:_LONGEST]
        elif isinstance(part, partial):
            inner += [part.func, *part.args, *part.keywords.values()]
        elif isinstance(part, FunctionType):
            inner += closure_values(part)
        elif isinstance(part, MethodType):
            inner.append(part.__self__)
        for one in inner:
            if one is not None and not isinstance(one, (Tensor, str, int, float)):
                yield from _unwrap_everything(one, depth + 1)
