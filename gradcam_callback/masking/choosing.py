"""Pick photographs of a dataset evenly, and copy them into a folder of their own."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from gradcam_callback.masking.photographs import list_classes, list_pairs, write_file
from gradcam_callback.probes import NAME_FILES, Photograph


def copy_photographs(dataset: Path, folder: Path, per_class: int = 8, seed: int = 0) -> Iterator[str]:
    """Copy some photographs of each class, with what marks their objects, and yield a sentence for each class.

    A file that is there is never overwritten. The same seed picks the same photographs.

    Args:
        dataset: holds one folder per class, as torchvision's ``ImageFolder``.
        folder: gets the same folders, and is made where needed.
        per_class: how many to copy of each class, at most.
        seed: of the choice.

    Raises:
        ValueError: the dataset holds no photographs in folders, or ``per_class`` is below 1, or the folders overlap.
        OSError: a file cannot be read or written.
    """
    if per_class < 1:
        raise ValueError(f"Expected --per-class to be 1 or more, but got {per_class}. Say how many to take.")
    if not dataset.is_dir():
        raise FileNotFoundError(
            f"Expected --from to be a folder with one folder per class, but {str(dataset)!r} is no folder. Correct the "
            "path."
        )
    if folder.resolve().is_relative_to(dataset.resolve()) or dataset.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"Expected FOLDER and --from to be apart, but one of {str(folder)!r} and {str(dataset)!r} holds the other. "
            "Choose another FOLDER."
        )
    classes = {inner.name: list_pairs(inner) for inner in list_classes(dataset)}
    if not any(classes.values()):
        raise ValueError(
            f"Expected --from to be a folder with one folder per class, but {str(dataset)!r} holds no photographs in "
            "folders. Choose the folder above the classes."
        )
    for name, photographs in classes.items():
        yield _copy_class(name, photographs, folder / name, per_class, seed)
        _copy([dataset / name / one for one in NAME_FILES], folder / name)
    _copy([dataset / one for one in NAME_FILES], folder)


def _copy_class(name: str, photographs: list[Photograph], target: Path, per_class: int, seed: int) -> str:
    # Photographs of one name would share a mask: only the first of them can be picked.
    unique = list({one.path.stem: one for one in reversed(photographs)}.values())[::-1]
    # Each class has a generator of its own, so that a new class changes no other choice.
    chosen = random.Random(f"{seed} {name}").sample(unique, min(per_class, len(unique)))
    # A class without photographs keeps its place among the classes.
    target.mkdir(parents=True, exist_ok=True)
    there = {one.path.stem for one in list_pairs(target)}
    new = [one for one in chosen if one.path.stem not in there]
    for one in new:
        # The photograph comes last: without its mask it would look new.
        _copy([*([one.mask] if one.mask else []), *one.annotations, one.path], target)
    kept = f", {len(chosen) - len(new)} were there" if len(new) < len(chosen) else ""
    return f"{name}: copied {len(new)} of {len(photographs)} photographs{kept}"


def _copy(paths: Iterable[Path], target: Path) -> None:
    """Copy those of some files that exist. A file that is there is left as it is."""
    for path in paths:
        if path.is_file() and not (target / path.name).exists():
            write_file(target / path.name, path.read_bytes())
