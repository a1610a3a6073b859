"""Find what lies beside a photograph, a mask or an annotation, and read the object from it or from its own alpha."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from gradcam_callback.probes.annotations import Annotation
from gradcam_callback.probes.batches import IMAGE_SUFFIXES
from gradcam_callback.probes.image_files import open_image
from gradcam_callback.probes.labelme import read_labelme
from gradcam_callback.probes.masks import cut_out, from_image, from_lossy_image
from gradcam_callback.probes.names import compose
from gradcam_callback.probes.voc import read_voc
from gradcam_callback.probes.yolo import read_yolo

# The endings of photographs, which are those of torchvision's ImageFolder.
PHOTOGRAPH_SUFFIXES = (*IMAGE_SUFFIXES, ".pgm", ".ppm")
# What the stem of a mask ends with, after the stem of its photograph. The first is never a photograph.
MARK = ".mask"
MASK_SUFFIX = f"{MARK}.png"
# What the PNG of an automatic mask says of itself. Most programs drop such texts if they save the file.
AUTOMATIC = ("gradcam_callback", "automatic mask")
_MARKS = (MARK, "_mask", "-mask", " mask")
# The levels of a mask without white that an error names.
_MOST_LEVELS = 6
_LOSSY = (".jpg", ".jpeg")
# The readers of annotations by the ending of the file, in the order in which they are tried.
_READERS: dict[str, Callable[[Path, str, tuple[int, int]], Annotation | None]] = {
    ".json": read_labelme,
    ".txt": read_yolo,
    ".xml": read_voc,
}


class Photograph(NamedTuple):
    """A photograph of a folder, and the files beside it that may mark its object.

    Attributes:
        path: of the photograph.
        mask: of its mask, or None.
        annotations: of files with its name, in the order in which they are tried.
    """

    path: Path
    mask: Path | None
    annotations: tuple[Path, ...]


class Marked(NamedTuple):
    """The object of a photograph.

    Attributes:
        mask: ``(H, W)`` bool, True on the object, with the size of the upright photograph.
        source: the file that it was read from.
        annotation: the objects of an annotation; None for a mask or a cut-out.
        is_automatic: True for a mask of `masks --auto` that no person has accepted or changed.
    """

    mask: Tensor
    source: Path
    annotation: Annotation | None = None
    is_automatic: bool = False

    @property
    def is_boxed(self) -> bool:
        """Return True if some of the objects are boxes."""
        return self.annotation is not None and bool(self.annotation.boxes)


def list_visible(folder: Path) -> list[Path]:
    """Return the content of a folder by name, without hidden files of the system (``.DS_Store``, ``._photo.jpg``).

    Raises:
        ValueError: the folder cannot be listed, or a name is not UTF-8.
    """
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise ValueError(
            f"Cannot list the folder {str(folder)!r} ({error.strerror}). Give this user the right to read it."
        ) from error
    for path in found:
        # Python reads bytes that are not UTF-8 as lone surrogates. No log could store such a name.
        if any("\ud800" <= char <= "\udfff" for char in path.name):
            raise ValueError(f"Expected names in UTF-8, but got {str(path)!r}. Rename it.")
    # File systems list names in different orders.
    return sorted(found, key=lambda path: path.name)


def pair_files(files: Sequence[Path]) -> list[Photograph]:
    """Tell photographs, masks and annotations of one folder apart. Endings may be in capitals.

    Args:
        files: of the folder, by name.

    Raises:
        ValueError: a mask ``<name>.mask.png`` has no photograph.
    """
    images, masks = list[Path](), dict[str, list[Path]]()
    # Shorter names come first, so that the photograph is known before its mask.
    for path in sorted((path for path in files if path.name.lower().endswith(PHOTOGRAPH_SUFFIXES)), key=_stem_length):
        mark, stem = mark_of(path), compose(path.stem)
        of = None if mark is None else stem[: -len(mark)]
        if of is not None and (mark == MARK or of in {compose(image.stem) for image in images}):
            masks.setdefault(of, []).append(path)
        else:
            images.append(path)
    for stem in sorted(set(masks) - {compose(image.stem) for image in images}):
        raise ValueError(
            f"Expected an image beside the mask {str(masks[stem][0])!r}, such as {stem}.jpg, but there is none. Rename "
            "or remove the mask."
        )
    beside = {(compose(path.stem), path.suffix.lower()): path for path in reversed(files) if not path.is_dir()}
    images.sort(key=lambda path: path.name)
    return [
        Photograph(
            path,
            min(masks.get(compose(path.stem), []), key=_rank, default=None),
            tuple(beside[key] for suffix in _READERS if (key := (compose(path.stem), suffix)) in beside),
        )
        for path in images
    ]


def mark_of(path: Path) -> str | None:
    """Return what the stem of a mask ends with, None for other names."""
    return next((mark for mark in _MARKS if path.stem.lower().endswith(mark)), None)


def read_marked(photograph: Photograph) -> Marked | None:
    """Read the object of a photograph: from the mask beside it, its own alpha, or an annotation beside it.

    The first of these that marks anything wins; a black mask beside an annotation marks nothing. The folder of the
    photograph names its class.

    Returns:
        None if nothing marks the object.

    Raises:
        ValueError: a file cannot be read, does not fit to the photograph, or marks nothing.
    """
    path = photograph.path
    own = open_image(path)
    if photograph.mask is not None:
        image = open_image(photograph.mask)
        mask = _read_mask(photograph.mask, image, own.size)
        if mask.any():
            return Marked(mask, photograph.mask, is_automatic=is_automatic(image))
    alpha = cut_out(own)
    if alpha is not None:
        return Marked(alpha, path)
    for source in photograph.annotations:
        annotation = _READERS[source.suffix.lower()](source, path.parent.name, own.size)
        if annotation is not None:
            try:
                mask = annotation.mask
            except ValueError as error:
                raise ValueError(f"Cannot read the annotation {str(source)!r}. {error}") from error
            if not mask.any():
                raise ValueError(
                    f"Expected the annotation {str(source)!r} to mark the object, but it marks nothing. Remove the "
                    "file if the image has no mask."
                )
            return Marked(mask, source, annotation)
    if photograph.mask is not None:
        raise ValueError(
            f"Expected the mask {str(photograph.mask)!r} to mark the object in white, but it marks nothing"
            f"{_say_levels(open_image(photograph.mask))}. Remove the file if the image has no mask."
        )
    return None


def is_automatic(image: Image.Image) -> bool:
    """Return True for the image of a mask that no person has accepted or changed, see `AUTOMATIC`."""
    name, value = AUTOMATIC
    return image.info.get(name) == value


def _read_mask(path: Path, image: Image.Image, size: tuple[int, int]) -> Tensor:
    width, height = size
    if image.size != size:
        # Many programs show a photograph rotated, and some store the mask without this rotation.
        turned = image.size == (height, width)
        hint = "Draw it on the image as it is shown, after the rotation in its EXIF data." if turned else "Resize it."
        raise ValueError(
            f"Expected the mask {str(path)!r} to have the size of its image, {width} x {height}, but got "
            f"{image.width} x {image.height}. {hint}"
        )
    try:
        mask = from_lossy_image(image) if path.suffix.lower() in _LOSSY else from_image(image)
    except ValueError as error:
        raise ValueError(f"Cannot read the mask {str(path)!r}. {error}") from error
    return mask


def _say_levels(image: Image.Image) -> str:
    """Say which greys an image holds in place of white, such as the numbers of labels; nothing if it is black."""
    levels = np.unique(np.asarray(image.convert("L") if image.mode in ("RGB", "RGBA", "P") else image)).tolist()
    if not any(levels):
        return ""
    more = ", ..." if len(levels) > _MOST_LEVELS else ""
    return f", as its levels are {', '.join(f'{level:g}' for level in levels[:_MOST_LEVELS])}{more}: none is white"


def _stem_length(path: Path) -> tuple[int, str]:
    return len(compose(path.stem)), path.name


def _rank(path: Path) -> tuple[int, bool, str]:
    """Return the place of a mask among several of one photograph: by its mark, PNG first."""
    return _MARKS.index(mark_of(path) or MARK), path.suffix.lower() != ".png", path.name
