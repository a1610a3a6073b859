"""Read images from a folder with one folder per class, and the masks beside them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gradcam_callback.probes.automatic import propose_of_file
from gradcam_callback.probes.batches import IMAGE_SUFFIXES
from gradcam_callback.probes.beside import Marked, Photograph, list_visible, pair_files, read_marked
from gradcam_callback.probes.image_files import open_image
from gradcam_callback.probes.items import Item
from gradcam_callback.probes.loaders import Loader, lay_on, read_picture
from gradcam_callback.probes.masks import looks_inverted, warn_of_inverted
from gradcam_callback.probes.prompts import refine_boxes
from gradcam_callback.probes.transforms import Transform, mask_to_image, read_transformed, to_tensor, transform_mask
from gradcam_callback.random_state import preserved_random_state
from gradcam_callback.saliency import Proposal, SaliencyNetwork


def read_folder(
    root: Path,
    transform: Transform | None,
    class_names: Sequence[str] | None,
    automatic: bool = False,
    loader: Loader | None = None,
) -> tuple[list[Item], list[str]]:
    """Read every image of ``root/<class>/`` with its mask, see `ProbeSet.from_folder`.

    Args:
        automatic: True lets images without a drawn mask make one of their file.
        loader: reads a file for the transform. By default it is read upright and in RGB.

    Returns:
        The images, and the names of the classes by index.
    """
    if not root.is_dir():
        reason = "is not a folder" if root.exists() else "does not exist"
        raise FileNotFoundError(f"Expected `folder` to hold <class>/<image>, but {str(root)!r} {reason}.")
    folders = [path for path in list_visible(root) if _is_class(path, root)]
    classes = [path.name for path in folders] if class_names is None else list(class_names)
    unknown = sorted({path.name for path in folders} - set(classes))
    if unknown:
        raise ValueError(
            f"Expected `class_names` to name every folder in {str(root)!r}, but {classes} lacks {unknown}. Add these "
            "names, or move the folders away."
        )
    photographs = [photograph for folder in folders for photograph in pair_files(list_visible(folder))]
    if not photographs:
        raise ValueError(
            f"Expected `folder` to hold <class>/<image>, but {str(root)!r} holds no images. Their names have to end in "
            f"{', '.join(IMAGE_SUFFIXES)}."
        )
    items, inverted = list[Item](), list[str]()
    with preserved_random_state():
        for photograph in photographs:
            marked, picture = read_marked(photograph), read_picture(photograph.path, loader)
            image = read_transformed(photograph.path, transform or to_tensor, picture)
            item = Item(
                image, classes.index(photograph.path.parent.name), None, str(photograph.path), name=photograph.path.stem
            )
            if automatic and (marked is None or marked.annotation is not None):
                item = item._replace(propose=partial(_propose, photograph, marked, transform or to_tensor, loader))
            if marked is not None:
                drawn = lay_on(mask_to_image(marked.mask), photograph.path, picture)
                mask = transform_mask(drawn, transform or to_tensor)
                item = item._replace(mask=mask, boxed=marked.annotation is not None)
                inverted += [str(marked.source)] if marked.annotation is None and looks_inverted(marked.mask) else []
            items.append(item)
    warn_of_inverted(inverted)
    return items, classes


def _propose(
    photograph: Photograph,
    marked: Marked | None,
    transform: Transform,
    loader: Loader | None,
    network: SaliencyNetwork,
) -> Proposal | None:
    """Propose the mask of a photograph, or of the objects inside of its boxes.

    Returns:
        None if the network has no good mask for one of the boxes.
    """
    picture = read_picture(photograph.path, loader)
    if marked is None or marked.annotation is None:
        return propose_of_file(network, picture.convert("RGB"), transform)
    # The boxes lie on the upright photograph.
    refined = refine_boxes(network, open_image(photograph.path, "RGB"), marked.annotation.boxes)
    if refined is None:
        return None
    found = lay_on(mask_to_image(refined | marked.annotation.outlined), photograph.path, picture)
    mask = transform_mask(found, transform)
    return Proposal(mask, None) if mask.any() else None


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
