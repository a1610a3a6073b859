"""The photographs of a folder, and where their masks lie."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# As `ProbeSet.from_folder` reads them.
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MASK_SUFFIX = ".mask.png"
# What the stem of a mask ends with. The first is never a photograph.
_MARKS = (".mask", "_mask", "-mask", " mask")
# Annotations of labelme, YOLO and Pascal VOC.
_ANNOTATIONS = (".json", ".txt", ".xml")


class Photograph(NamedTuple):
    """A photograph to mask.

    Attributes:
        path: Its file.
        class_name: The name of its folder, or "" in a folder without classes.
        mask_path: Where its mask lies, or will lie.
        other: A mask of another name or an annotation beside it, which counts if there is no mask. None if there is
            none.
    """

    path: Path
    class_name: str
    mask_path: Path
    other: Path | None

    @property
    def key(self) -> str:
        """Its path inside the folder, the same on every system."""
        return f"{self.class_name}/{self.path.name}" if self.class_name else self.path.name


def list_photographs(folder: Path) -> list[Photograph]:
    """Return the photographs of a folder, which holds them itself or in one folder per class.

    Raises:
        ValueError: the folder holds none, or both photographs and folders with photographs, or two that share a mask.
        OSError: the folder is none, or cannot be read.
    """
    if not folder.is_dir():
        reason = "is not a folder" if folder.exists() else "does not exist"
        raise FileNotFoundError(
            f"Expected FOLDER to hold photographs, but {str(folder)!r} {reason}. Correct the path, or copy photographs "
            "into it with --from DATASET_FOLDER."
        )
    flat = list_images(folder)
    sorted_ones = [image for inner in list_classes(folder) for image in list_images(inner)]
    if flat and sorted_ones:
        raise ValueError(
            f"Expected FOLDER to hold photographs or one folder per class, but {str(folder)!r} holds both, such as "
            f"{flat[0].name!r} and {str(sorted_ones[0].relative_to(folder))!r}. Move the photographs into the folders."
        )
    images = flat or sorted_ones
    if not images:
        raise ValueError(
            f"Expected FOLDER to hold photographs or one folder per class, but {str(folder)!r} holds no photographs. "
            f"Their names have to end in {', '.join(SUFFIXES)}."
        )
    _refuse_shared_masks(images)
    beside = {parent: _find_beside(parent) for parent in {path.parent for path in images}}
    return [
        Photograph(path, "" if path.parent == folder else path.parent.name, *_choose(path, beside[path.parent]))
        for path in images
    ]


def list_classes(folder: Path) -> list[Path]:
    """Return the visible folders in a folder by name."""
    return [path for path in _list_visible(folder) if path.is_dir()]


def list_images(folder: Path) -> list[Path]:
    """Return the visible images in a folder by name, without masks."""
    files = [path for path in _list_visible(folder) if path.name.lower().endswith(SUFFIXES) and not path.is_dir()]
    images: dict[str, list[Path]] = {}
    # Shorter names come first, so that a photograph is known before its mask.
    for path in sorted(files, key=lambda path: len(path.stem)):
        stem = next((path.stem[: -len(mark)] for mark in _MARKS if path.stem.lower().endswith(mark)), None)
        if stem is None or (stem not in images and not path.stem.lower().endswith(_MARKS[0])):
            images.setdefault(path.stem, []).append(path)
    return sorted((path for paths in images.values() for path in paths), key=lambda path: path.name)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: it could not be written, and is as it was. The message is a sentence.
    """
    # Hidden, so that no reader of the folder takes it for an image while it grows.
    partial = path.with_name(f".masks-{os.urandom(6).hex()}.part")
    try:
        try:
            with open(partial, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(
            f"Cannot write {str(path)!r} ({error.strerror or error}). Nothing was changed. Make the folder writable, "
            "or free some space, and try again."
        ) from error


def remove(path: Path) -> None:
    """Remove a file if it is there.

    Raises:
        OSError: it could not be removed. The message is a sentence.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            f"Cannot remove {str(path)!r} ({error.strerror or error}). Make the folder writable, and try again."
        ) from error


def _list_visible(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise ValueError(
            f"Cannot list the folder {str(folder)!r} ({error.strerror}). Give this user the right to read it."
        ) from error
    for path in found:
        # Python reads bytes that are not UTF-8 as lone surrogates, which no page can show.
        if any("\ud800" <= char <= "\udfff" for char in path.name):
            raise ValueError(f"Expected names in UTF-8, but got {str(path)!r}. Rename it.")
    return sorted(found, key=lambda path: path.name)


def _refuse_shared_masks(images: Sequence[Path]) -> None:
    first: dict[Path, Path] = {}
    for path in images:
        other = first.setdefault(path.with_suffix(""), path)
        if other != path:
            raise ValueError(
                f"Expected photographs with names of their own, but {str(other)!r} and {path.name!r} would share the "
                f"mask {_mask_of(path).name!r}. Rename one of them."
            )


def _mask_of(path: Path) -> Path:
    return path.with_name(path.stem + MASK_SUFFIX)


def _find_beside(folder: Path) -> dict[str, Path]:
    """Return the visible files of a folder by their names in lower case."""
    return {path.name.lower(): path for path in _list_visible(folder)}


def _choose(path: Path, beside: Mapping[str, Path]) -> tuple[Path, Path | None]:
    """Return where the mask of a photograph lies or will lie, and what else marks its object."""
    stem = path.stem.lower()
    names = [f"{stem}{mark}{suffix}" for mark in _MARKS for suffix in SUFFIXES if mark + suffix != MASK_SUFFIX]
    names += [stem + suffix for suffix in _ANNOTATIONS]
    own = beside.get(stem + MASK_SUFFIX, _mask_of(path))
    return own, next((beside[name] for name in names if name in beside), None)
