"""Apply an image transform to files and to masks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gradcam_callback.exceptions import blame
from gradcam_callback.probes.batches import is_channels_last
from gradcam_callback.probes.image_files import open_image
from gradcam_callback.random_state import seed_everything

# Turns an RGB image into a tensor (C, H, W), as the model takes it.
Transform = Callable[[Image.Image], Tensor]
# Opens an untransformed image in RGB, or returns None if it is not known.
OpenPhotograph = Callable[[], Image.Image | None]

# The stripes across a picture. Their edges blur, and a pixel with less of the largest contrast than this tells nothing.
_STRIPES, _LEAST_CONTRAST = 8, 0.25
# A transform that moves every picture alike has fewer pixels that do not fit, and this correlation with the photograph.
_MOST_STRAY, _LEAST_CORRELATION = 1 / 3, 0.9

_Array = np.ndarray[Any, np.dtype[np.bool_]]


class MaskTransformError(ValueError):
    """An error that says why a mask cannot follow its image through a transform."""


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as a tensor ``(3, H, W)`` in 0..1. This is the default transform."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def read_transformed(path: Path, transform: Transform, opened: Image.Image | None = None) -> Tensor:
    """Read an image file and apply a transform.

    Args:
        path: the file.
        transform: of the image.
        opened: the image, if it is open already.

    Raises:
        ValueError: the file cannot be read, or the transform does not return a tensor.
        UserCodeError: the transform failed. It is a ValueError, too.
    """
    opened = opened or open_image(path, "RGB")
    # A fixed seed: a transform with random steps then gives the same image in every run.
    seed_everything(0)
    with blame(f"`transform` to take the image {str(path)!r}", "It gets an RGB image of PIL. Correct it."):
        image = transform(opened)
    if not isinstance(image, Tensor):
        raise ValueError(
            f"Expected `transform` to return a tensor (C, H, W), but got {type(image).__name__} for {str(path)!r}. Add "
            "a step such as torchvision's ToTensor()."
        )
    if image.ndim == 3 and is_channels_last(image):
        raise ValueError(
            f"Expected `transform` to return a tensor (C, H, W), but {tuple(image.shape)} for {str(path)!r} looks like "
            "(H, W, C). Add a step such as image.permute(2, 0, 1)."
        )
    return image


def mask_to_image(mask: Tensor) -> Image.Image:
    """Return a mask ``(H, W)``, 0 beside the object, as a black and white image."""
    return Image.fromarray(mask.cpu().numpy() != 0).convert("L")


def transform_mask(
    mask: Image.Image, transform: Transform, seed: int = 0, open_photograph: OpenPhotograph | None = None
) -> Tensor:
    """Apply the geometry of a transform, such as its resizing and cropping, to a mask.

    Pictures of black and white stripes go through the transform: the stripes, their negative, and stripes that are
    negative on the object alone. A pixel belongs to the object if the last picture is nearer to the negative there. A
    normalisation may change both colours in any way, also by the mean and spread of each picture: all pictures have
    nearly the same. A pixel that is alike in the stripes and in their negative is padding.

    A transform may crop black borders away, or look at brightness in another way. Then the photograph itself is striped
    with its own half brightness.

    Args:
        mask: black and white, with the size of the untransformed image.
        transform: the transform of the image.
        seed: the seed of the image, so that random steps do the same to the mask.
        open_photograph: opens the untransformed image, if it is known.

    Returns:
        ``(H, W)`` bool, True on the object.

    Raises:
        MaskTransformError: what the transform does depends on the image, and the mask cannot follow.
        UserCodeError: the transform failed.
    """
    marked = np.asarray(mask) >= 128

    def through(picture: Image.Image) -> Tensor:
        seed_everything(seed)
        with blame_transform():
            return transform(picture).double().mean(dim=-3)

    found = _follow(marked, lambda where: through(_in_white(where).convert("RGB")))
    photograph = open_photograph() if found is None and open_photograph is not None else None
    if photograph is not None and photograph.size == mask.size:
        bright = Image.composite(Image.new("RGB", mask.size, "white"), photograph, _in_white(marked))
        dim = bright.point(lambda level: level // 2)
        found = _follow(marked, lambda where: through(Image.composite(bright, dim, _in_white(where))))
        if found is not None and not _shows(through(photograph), found):
            found = None
    if found is None:
        raise MaskTransformError(
            "Expected the transform to move the pixels of all images alike, so that a mask can follow its image, but "
            "what it does depends on the image, as a crop of dark borders does, or it makes black and white alike. Do "
            "such steps to image and mask beforehand."
        )
    return found.mask


def transform_mask_of_file(
    mask: Image.Image, transform: Transform, open_photograph: OpenPhotograph, source: Path
) -> Tensor:
    """Apply the geometry of a transform to the mask of an image file, see `transform_mask`.

    Args:
        mask: black and white, with the size of the untransformed image.
        transform: of `read_transformed`.
        open_photograph: opens the untransformed image.
        source: the file that the mask was read from, for errors.
    """
    try:
        return transform_mask(mask, transform, open_photograph=open_photograph)
    except MaskTransformError as error:
        raise MaskTransformError(f"Cannot use the mask in {str(source)!r}. {error}") from error


class _Followed(NamedTuple):
    """A mask after a transform.

    Attributes:
        mask: ``(H, W)`` bool, True on the object.
        both: ``(H, W)``, what the transform makes of the bright and of the dim picture, added up.
    """

    mask: Tensor
    both: Tensor


def blame_transform() -> AbstractContextManager[None]:
    """Turn an error of a transform, which gets a picture in place of an image, into a `UserCodeError`."""
    hint = "Give the mask the size of its image, to leave it as it is."
    return blame("the transform to take a mask as an RGB image of PIL", hint)


def _in_white(where: _Array) -> Image.Image:
    return Image.fromarray(where).convert("L")


def _follow(marked: _Array, through: Callable[[_Array], Tensor]) -> _Followed | None:
    """Follow a mask through a transform, in stripes.

    Args:
        marked: ``(H, W)`` bool, True on the object.
        through: returns the ``(H, W)`` that the transform makes of a picture, which is bright at True and dim at False.

    Returns:
        None if the pictures do not come out alike.
    """
    contrasts, sums, nearer = list[Tensor](), list[Tensor](), list[Tensor]()
    # Both ways, since the edges of stripes tell nothing.
    for axis, length in enumerate(marked.shape):
        is_bright = np.arange(length) // -(-length // _STRIPES) % 2 == 0
        stripes = np.broadcast_to(np.expand_dims(is_bright, 1 - axis), marked.shape)
        plain, negative, crossed = (through(where) for where in (stripes, ~stripes, stripes ^ marked))
        if not plain.shape == negative.shape == crossed.shape == (*contrasts, plain)[0].shape:
            return None
        contrasts.append((plain - negative).abs())
        sums.append(plain + negative)
        nearer.append((crossed - plain).abs() > (crossed - negative).abs())
    contrast, best = torch.stack(contrasts).max(dim=0)
    least = contrast.max() * _LEAST_CONTRAST
    seen = contrast > least
    # Written so that NaN fails, too.
    if not seen.any() or ((sums[0] - sums[1]).abs() > least)[seen].double().mean() > _MOST_STRAY:
        return None
    mask = torch.stack(nearer).gather(0, best[None])[0] & seen
    # Where edges of stripes cross each other, the pixels around it tell.
    mask |= ~seen & (avg_pool2d(mask[None].double(), 3, stride=1, padding=1)[0] > 0.5)
    return _Followed(mask, sums[0])


def _shows(image: Tensor, followed: _Followed) -> bool:
    """Return True if an image shows beside the object what the pictures show that a mask was followed in."""
    beside = ~followed.mask
    if image.shape != beside.shape or beside.sum() < 2:
        return False
    values = torch.stack([image[beside], followed.both[beside]])
    # NaN, for an image without any structure, is no proof.
    return bool(torch.corrcoef(values)[0, 1] > _LEAST_CORRELATION)
