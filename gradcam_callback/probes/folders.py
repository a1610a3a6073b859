"""Read images from a folder with one folder per class, and the masks beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from gradcam_callback.probes.automatic import propose_of_file
from gradcam_callback.probes.batches import IMAGE_SUFFIXES
from gradcam_callback.probes.image_files import open_image
from gradcam_callback.probes.items import Item
from gradcam_callback.probes.masks import from_image
from gradcam_callback.probes.transforms import Transform, mask_to_image, read_transformed, to_tensor, transform_mask
from gradcam_callback.random_state import preserved_random_state
from gradcam_callback.saliency import SaliencyNetwork

MASK_SUFFIX = ".mask.png"


def read_folder(
    root: Path, transform: Transform | None, class_names: Sequence[str] | None, automatic: bool = False
) -> tuple[list[Item], list[str]]:
    """Read every image of ``root/<class>/`` with its mask, see `ProbeSet.from_folder`.

    Args:
        automatic: True proposes masks for the images without one.

    Returns:
        The images, and the names of the classes by index.
    """
    if not root.is_dir():
        reason = "is not a folder" if root.exists() else "does not exist"
        raise FileNotFoundError(f"Expected `folder` to hold <class>/<image>, but {str(root)!r} {reason}.")
    folders = [path for path in _list_visible(root) if _is_class(path, root)]
    classes = [path.name for path in folders] if class_names is None else list(class_names)
    unknown = sorted({path.name for path in folders} - set(classes))
    if unknown:
        raise ValueError(
            f"Expected `class_names` to name every folder in {str(root)!r}, but {classes} lacks {unknown}. Add these "
            "names, or move the folders away."
        )
    files = [pair for folder in folders for pair in _list_images(folder)]
    if not files:
        raise ValueError(
            f"Expected `folder` to hold <class>/<image>, but {str(root)!r} holds no images. Their names have to end in "
            f"{', '.join(IMAGE_SUFFIXES)}."
        )
    network = SaliencyNetwork() if automatic and any(mask is None for _, mask in files) else None
    items = []
    with preserved_random_state():
        for path, mask_path in files:
            image, mask = _read(path, mask_path, transform or to_tensor)
            item = Item(image, classes.index(path.parent.name), mask, str(path), name=path.stem)
            if network is not None and mask is None:
                item = item._replace(proposal=propose_of_file(network, open_image(path, "RGB"), transform or to_tensor))
            items.append(item)
    return items, classes


def _list_visible(folder: Path) -> list[Path]:
    """Return the content of a folder by name, without hidden files of the system (``.DS_Store``, ``._photo.jpg``)."""
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


def _is_class(path: Path, root: Path) -> bool:
    """Return True if a path in ``root`` is the folder of a class.

    A broken link is an error. Without its class, the classes after it would get other indices than in training.
    """
    try:
        if path.is_symlink() and root.resolve().is_relative_to(path.resolve(strict=True)):
            raise ValueError(
                f"Expected folders of classes, but the link {str(path)!r} leads to a folder that holds it. Remove the "
                "link."
            )
        return path.is_dir()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13.
        raise ValueError(f"Cannot follow {str(path)!r} ({error}). Repair or remove it.") from error


def _list_images(folder: Path) -> list[tuple[Path, Path | None]]:
    """Return the images of a class, each with the path of its mask or None. Suffixes may be in capitals."""
    files = [path for path in _list_visible(folder) if path.name.lower().endswith(IMAGE_SUFFIXES)]
    images = [path for path in files if not path.stem.lower().endswith(".mask")]
    masks = {path.name[: -len(MASK_SUFFIX)]: path for path in files if path.name.lower().endswith(MASK_SUFFIX)}
    # A mask under another name would be ignored silently, and its image would be left out of the metrics.
    not_png = sorted(set(files) - set(images) - set(masks.values()))
    if not_png:
        raise ValueError(f"Expected a mask to be a PNG, <image>{MASK_SUFFIX}, but got {str(not_png[0])!r}.")
    for stem in sorted(set(masks) - {path.stem for path in images}):
        raise ValueError(
            f"Expected an image beside the mask {str(masks[stem])!r}, such as {stem}.jpg, but there is none. Rename or "
            "remove the mask."
        )
    return [(path, masks.get(path.stem)) for path in images]


def _read(path: Path, mask_path: Path | None, transform: Transform) -> tuple[Tensor, Tensor | None]:
    """Return the transformed image, and its mask after the same transform."""
    image = read_transformed(path, transform)
    if mask_path is None:
        return image, None
    # The size before the transform, which the transformed image no longer has.
    mask_image, (width, height) = open_image(mask_path), open_image(path, "RGB").size
    if mask_image.size != (width, height):
        # Many programs show a photograph rotated, and some store the mask without this rotation.
        turned = mask_image.size == (height, width)
        hint = "Draw it on the image as it is shown, after the rotation in its EXIF data." if turned else "Resize it."
        raise ValueError(
            f"Expected the mask {str(mask_path)!r} to have the size of its image, {width} x {height}, but got "
            f"{mask_image.width} x {mask_image.height}. {hint}"
        )
    try:
        mask = from_image(mask_image)
    except ValueError as error:
        raise ValueError(f"Cannot read the mask {str(mask_path)!r}. {error}") from error
    if not mask.any():
        raise ValueError(
            f"Expected the mask {str(mask_path)!r} to mark the object in white, but it marks nothing. Remove the file "
            "if the image has no mask."
        )
    return image, transform_mask(mask_to_image(mask), transform)
