"""Read images from a folder with one folder per class, and the masks beside them."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from gradcam_callback.exceptions import GradCAMWarning
from gradcam_callback.formatting import name_some
from gradcam_callback.probes.automatic import propose_of_file
from gradcam_callback.probes.beside import (
    PHOTOGRAPH_SUFFIXES,
    Marked,
    Photograph,
    list_visible,
    mark_of,
    pair_files,
    read_marked,
)
from gradcam_callback.probes.image_files import open_image
from gradcam_callback.probes.items import Item
from gradcam_callback.probes.loaders import Loader, lay_on, read_picture
from gradcam_callback.probes.masks import is_black_and_white, looks_inverted, warn_of_inverted
from gradcam_callback.probes.names import compose, name_class
from gradcam_callback.probes.prompts import refine_boxes
from gradcam_callback.probes.transforms import (
    MaskTransformError,
    Transform,
    mask_to_image,
    read_transformed,
    to_tensor,
    transform_mask,
    transform_mask_of_file,
)
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
    classes = [path.name for path in folders] if class_names is None else [name_class(name) for name in class_names]
    # The first of several equal names counts, and a name that only looks alike comes last.
    numbered = list(enumerate(classes))[::-1]
    indices = {compose(name): i for i, name in numbered} | {name: i for i, name in numbered}
    of_folder = {path: indices.get(path.name, indices.get(compose(path.name))) for path in folders}
    unknown = sorted(path.name for path, index in of_folder.items() if index is None)
    if unknown:
        raise ValueError(
            f"Expected `class_names` to name every folder in {str(root)!r}, but {classes} lacks {unknown}. Add these "
            "names, or move the folders away."
        )
    photographs = [photograph for folder in folders for photograph in pair_files(list_visible(folder))]
    if not photographs:
        raise ValueError(
            f"Expected `folder` to hold <class>/<image>, but {str(root)!r} holds no images. Their names have to end in "
            f"{', '.join(PHOTOGRAPH_SUFFIXES)}."
        )
    _warn_of_unread(folders, {photograph.path.parent for photograph in photographs})
    items, inverted, sources = list[Item](), list[str](), dict[Path, Path]()
    others, painted = dict[Path, tuple[str, ...]](), list[str]()
    with preserved_random_state():
        for photograph in photographs:
            marked, label = read_marked(photograph), of_folder[photograph.path.parent]
            assert label is not None
            items.append(_read_one(photograph, marked, label, transform or to_tensor, loader, automatic))
            if mark_of(photograph.path) is not None and _looks_painted(photograph.path):
                painted.append(str(photograph.path))
            if marked is not None:
                other = sources.setdefault(marked.source, photograph.path)
                if other != photograph.path:
                    raise ValueError(
                        f"Expected a mask of its own for each image, but {str(other)!r} and {photograph.path.name!r} "
                        f"share {marked.source.name!r}. Rename one of them, and give it a mask of its own."
                    )
                inverted += [str(marked.source)] if not marked.is_boxed and looks_inverted(marked.mask) else []
                if marked.annotation is not None and marked.annotation.others:
                    others[marked.source] = marked.annotation.others
    warn_of_inverted(inverted)
    _warn_of_others(others)
    _warn_of_painted(painted)
    return items, classes


def _read_one(
    photograph: Photograph,
    marked: Marked | None,
    label: int,
    transform: Transform,
    loader: Loader | None,
    automatic: bool,
) -> Item:
    """Read a photograph, and bring its mask where the transform brings the photograph."""
    picture = read_picture(photograph.path, loader)
    image = read_transformed(photograph.path, transform, picture)
    item = Item(image, label, None, str(photograph.path), name=photograph.path.stem)
    if automatic and (marked is None or marked.is_boxed):
        item = item._replace(propose=partial(_propose, photograph, marked, transform, loader))
    if marked is None:
        return item
    drawn = lay_on(mask_to_image(marked.mask), photograph.path, picture)
    mask = transform_mask_of_file(drawn, transform, partial(picture.convert, "RGB"), marked.source)
    # What nobody has seen is no better than a mask of `masks="auto"`.
    return item._replace(
        mask=mask, boxed=marked.is_boxed, proposal=Proposal(mask, None) if marked.is_automatic else None
    )


def _propose(
    photograph: Photograph,
    marked: Marked | None,
    transform: Transform,
    loader: Loader | None,
    network: SaliencyNetwork,
) -> Proposal | None:
    """Propose the mask of a photograph, or of the objects inside of its boxes.

    Returns:
        None if the network has no good mask for one of the boxes, or the mask cannot follow its photograph.
    """
    picture = read_picture(photograph.path, loader)
    if marked is None or marked.annotation is None:
        return propose_of_file(network, picture.convert("RGB"), transform)
    # The boxes lie on the upright photograph.
    refined = refine_boxes(network, open_image(photograph.path, "RGB"), marked.annotation.boxes)
    if refined is None:
        return None
    both = lay_on(mask_to_image(marked.annotation.fill(refined)), photograph.path, picture)
    try:
        mask = transform_mask(both, transform, open_photograph=partial(picture.convert, "RGB"))
    except MaskTransformError:
        return None
    return Proposal(mask, None) if mask.any() else None


def _warn_of_unread(folders: Sequence[Path], read: Collection[Path]) -> None:
    """Warn of the folders of classes that hold something, but no images that are read."""
    unread = [(folder, found[0].name) for folder in folders if folder not in read and (found := list_visible(folder))]
    if unread:
        listed = name_some([f"{str(folder)!r} with {name!r}" for folder, name in unread])
        warnings.warn(
            f"GradCAM: these folders of classes hold no images: {listed}. Images lie in <class>/ itself, in no folder "
            f"below, and their names end in {', '.join(PHOTOGRAPH_SUFFIXES)}. Move or convert them.",
            GradCAMWarning,
            stacklevel=2,
        )


def _warn_of_others(others: Mapping[Path, Sequence[str]]) -> None:
    """Warn of annotations whose objects have names, but none that of the class, so that all of them count.

    A single name for all objects of several classes, such as ``"object"``, cannot tell them apart, and is none.
    """
    names = {name for found in others.values() for name in found}
    if others and not (len(names) == 1 and len({source.parent for source in others}) > 1):
        listed = name_some(
            [f"{str(source)!r} with {name_some([*map(repr, found)])}" for source, found in others.items()], "; "
        )
        warnings.warn(
            "GradCAM: none of the objects in these annotations is named like the folder of its class, so all of them "
            f"count: {listed}. If some are of another class, name those that count like the folder.",
            GradCAMWarning,
            stacklevel=2,
        )


def _looks_painted(path: Path) -> bool:
    """Return True for an image of black and white, also of 0 and 1."""
    image = open_image(path)
    return is_black_and_white(image) or (image.mode == "L" and image.getextrema() == (0, 1))


def _warn_of_painted(painted: Sequence[str]) -> None:
    """Warn of black and white images that are called masks, but have no photograph."""
    if painted:
        warnings.warn(
            "GradCAM: these look like masks, but are images of the probe set, since no photograph has their name: "
            f"{name_some(painted)}. Call the mask of a.jpg a.mask.png, or move these files away.",
            GradCAMWarning,
            stacklevel=2,
        )


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
