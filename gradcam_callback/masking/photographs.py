"""The photographs of a folder, and where their masks lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gradcam_callback import probes
from gradcam_callback.probes import MASK_SUFFIX, PHOTOGRAPH_SUFFIXES, list_visible, pair_files, read_marked
from gradcam_callback.whole_file import write_whole


class PhotographToMask(NamedTuple):
    """A photograph to mask.

    Attributes:
        path: its file.
        class_name: the name of its folder, or "" in a folder without classes.
        mask_path: where its mask lies, or will lie.
        other: what marks its object if there is no mask at this path: a mask of another name, or an annotation. None if
            there is none.
        beside: it with all files that may mark its object, as a probe set reads them.
    """

    path: Path
    class_name: str
    mask_path: Path
    other: Path | None
    beside: probes.Photograph

    @property
    def key(self) -> str:
        """Return its path inside the folder, the same on every system."""
        return f"{self.class_name}/{self.path.name}" if self.class_name else self.path.name


def list_photographs(folder: Path) -> list[PhotographToMask]:
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
    flat = list_pairs(folder)
    sorted_ones = [pair for inner in list_classes(folder) for pair in list_pairs(inner)]
    if flat and sorted_ones:
        raise ValueError(
            f"Expected FOLDER to hold photographs or one folder per class, but {str(folder)!r} holds both, such as "
            f"{flat[0].path.name!r} and {str(sorted_ones[0].path.relative_to(folder))!r}. Move the photographs into "
            "the folders."
        )
    pairs = flat or sorted_ones
    if not pairs:
        raise ValueError(
            f"Expected FOLDER to hold photographs or one folder per class, but {str(folder)!r} holds no photographs. "
            f"Their names have to end in {', '.join(PHOTOGRAPH_SUFFIXES)}."
        )
    _refuse_shared_masks([pair.path for pair in pairs])
    return [
        PhotographToMask(
            pair.path, "" if pair.path.parent == folder else pair.path.parent.name, *_find_marks(pair), pair
        )
        for pair in pairs
    ]


def list_classes(folder: Path) -> list[Path]:
    """Return the visible folders in a folder by name."""
    return [path for path in list_visible(folder) if path.is_dir()]


def list_pairs(folder: Path) -> list[probes.Photograph]:
    """Return the photographs of a folder as a probe set reads them, each with the files that may mark its object."""
    return pair_files([path for path in list_visible(folder) if not path.is_dir()])


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: it could not be written, and is as it was. The message is a sentence.
    """
    try:
        write_whole(path, data, synced=True)
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


def _find_marks(pair: probes.Photograph) -> tuple[Path, Path | None]:
    """Return where the mask of a photograph lies or will lie, and what else marks its object."""
    if pair.mask is not None and pair.mask.name.lower().endswith(MASK_SUFFIX):
        return pair.mask, _find_annotation(pair._replace(mask=None))
    return _mask_of(pair.path), pair.mask or _find_annotation(pair)


def _find_annotation(pair: probes.Photograph) -> Path | None:
    """Return the annotation that marks the object; a caption, such as a text of words, marks nothing."""
    if not pair.annotations:
        return None
    try:
        marked = read_marked(pair)
    except ValueError:
        # A probe set refuses it, with a sentence that says why.
        return pair.annotations[0]
    return None if marked is None or marked.source == pair.path else marked.source
