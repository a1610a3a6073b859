"""Probe images out of a folder of files, with masks beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from gradcam_callback.probes import masks
from gradcam_callback.probes.image_files import (
    Item,
    Transform,
    mask_to_image,
    open_as_tensor,
    open_image,
    to_tensor,
    transformed_mask,
)
from gradcam_callback.random_state import preserved_random_state

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MASK_SUFFIX = ".mask.png"


def read_folder(
    root: Path, transform: Transform | None, class_names: Sequence[str] | None
) -> tuple[list[Item], list[str]]:
    """Every image of ``root/<class>/`` with its mask, and the names of the classes by index."""
    if not root.is_dir():
        came = "is no folder" if root.exists() else "does not exist"
        raise FileNotFoundError(f"The probe folder {str(root)!r} {came}. Expected <folder>/<class>/<image>.")
    folders = [path for path in _visible(root) if _is_class(path, root)]
    classes = [path.name for path in folders] if class_names is None else list(class_names)
    unknown = sorted({path.name for path in folders} - set(classes))
    if unknown:
        raise ValueError(f"The folders {unknown} are not among class_names. Expected some of {classes}.")
    files = [pair for folder in folders for pair in _images_of(folder)]
    if not files:
        raise ValueError(
            f"No images in {str(root)!r}. Expected <folder>/<class>/<image> ({', '.join(IMAGE_SUFFIXES)})."
        )
    items = []
    with preserved_random_state():
        for path, beside in files:
            image, mask = _load(path, beside, transform or to_tensor)
            items.append(Item(image, classes.index(path.parent.name), mask, str(path)))
    return items, classes


def _visible(folder: Path) -> list[Path]:
    """What a folder holds, by name, but for hidden files, which are the system's (``.DS_Store``, ``._photo.jpg``)."""
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise ValueError(
            f"The folder {str(folder)!r} cannot be read ({error.strerror}). Expected one that this user may list."
        ) from error
    for path in found:
        if any("\ud800" <= char <= "\udfff" for char in path.name):
            # What Python makes of bytes that are no UTF-8; no log could hold such a name.
            raise ValueError(f"The name of {str(path)!r} is no valid UTF-8. Rename it.")
    return sorted(found, key=lambda path: path.name)


def _is_class(path: Path, root: Path) -> bool:
    """Whether what lies in ``root`` is the folder of a class.

    A link that is broken is not passed over: without its class, those after it would have other indices.
    """
    try:
        if path.is_symlink() and root.resolve().is_relative_to(path.resolve(strict=True)):
            raise ValueError(f"The link {str(path)!r} leads back to a folder that it lies in. Remove it.")
        return path.is_dir()
    except (OSError, RuntimeError) as error:  # the latter, before Python 3.13, of links that lead to each other
        raise ValueError(f"{str(path)!r} leads nowhere, or cannot be read ({error}). Repair or remove it.") from error


def _images_of(folder: Path) -> list[tuple[Path, Path | None]]:
    """The images of a class, each with the path of its mask; suffixes may be in capitals."""
    files = [path for path in _visible(folder) if path.name.lower().endswith(IMAGE_SUFFIXES)]
    images = [path for path in files if not path.stem.lower().endswith(".mask")]
    beside = {path.name[: -len(MASK_SUFFIX)]: path for path in files if path.name.lower().endswith(MASK_SUFFIX)}
    lossy = sorted(set(files) - set(images) - set(beside.values()))
    if lossy:
        raise ValueError(f"{str(lossy[0])!r} has a mask's name, but is no PNG. Expected <image>{MASK_SUFFIX}.")
    for stem in sorted(set(beside) - {path.stem for path in images}):
        raise ValueError(f"The mask {str(beside[stem])!r} has no image beside it. Expected {stem}.jpg, or the like.")
    return [(path, beside.get(path.stem)) for path in images]


def _load(path: Path, beside: Path | None, transform: Transform) -> tuple[Tensor, Tensor | None]:
    image = open_as_tensor(path, transform)
    if beside is None:
        return image, None
    picture, size = open_image(beside), open_image(path, "RGB").size
    if picture.size != size:
        hint = " Masks belong on the image as it is shown, turned by its EXIF." if picture.size == size[::-1] else ""
        raise ValueError(
            f"The mask {str(beside)!r} is {picture.size} px. Expected the size of its image, {size}.{hint}"
        )
    try:
        mask = masks.from_image(picture)
    except ValueError as error:
        raise ValueError(f"The mask {str(beside)!r} cannot be read. {error}") from error
    if not mask.any():
        raise ValueError(
            f"The mask {str(beside)!r} marks nothing. Expected white on the object, or no mask where there is none."
        )
    return image, transformed_mask(mask_to_image(mask), transform)
