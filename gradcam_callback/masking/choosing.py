"""Pick photographs of a dataset evenly, and copy them into a folder of their own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from gradcam_callback.masking.photographs import list_classes, list_images, write_whole
from gradcam_callback.probes import MASK_SUFFIX


def copy_photographs(dataset: Path, folder: Path, per_class: int = 8, seed: int = 0) -> Iterator[str]:
    """Copy some photographs of each class, with their masks, and yield a sentence for each class.

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
    classes = {inner.name: list_images(inner) for inner in list_classes(dataset)}
    if not any(classes.values()):
        raise ValueError(
            f"Expected --from to be a folder with one folder per class, but {str(dataset)!r} holds no photographs in "
            "folders. Choose the folder above the classes."
        )
    for name, images in classes.items():
        yield _copy_class(name, images, folder / name, per_class, seed)


def _copy_class(name: str, images: list[Path], target: Path, per_class: int, seed: int) -> str:
    # Photographs of one name would share a mask: only the first of them can be picked.
    unique = list({path.stem: path for path in reversed(images)}.values())[::-1]
    # Each class has a generator of its own, so that a new class changes no other choice.
    chosen = random.Random(f"{seed} {name}").sample(unique, min(per_class, len(unique)))
    # A class without photographs keeps its place among the classes.
    target.mkdir(parents=True, exist_ok=True)
    there = {path.stem for path in list_images(target)}
    new = [path for path in chosen if path.stem not in there]
    for path in new:
        # The mask first: a photograph without it would look new.
        mask = path.with_name(path.stem + MASK_SUFFIX)
        if mask.is_file() and not (target / mask.name).exists():
            write_whole(target / mask.name, mask.read_bytes())
        write_whole(target / path.name, path.read_bytes())
    kept = f", {len(chosen) - len(new)} were there" if len(new) < len(chosen) else ""
    return f"{name}: copied {len(new)} of {len(images)} photographs{kept}"
