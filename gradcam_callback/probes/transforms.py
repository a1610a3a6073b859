"""Apply an image transform to files and to masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradcam_callback.exceptions import blame
from gradcam_callback.probes.image_files import open_image
from gradcam_callback.random_state import seed_everything

# Turns an RGB image into a tensor (C, H, W), as the model takes it.
Transform = Callable[[Image.Image], Tensor]


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
    return image


def mask_to_image(mask: Tensor) -> Image.Image:
    """Return a mask ``(H, W)``, 0 beside the object, as a black and white image."""
    return Image.fromarray((mask.cpu().numpy() != 0).astype(np.uint8) * 255)


def transform_mask(mask: Image.Image, transform: Transform, seed: int = 0) -> Tensor:
    """Apply the geometry of a transform, such as its resizing and cropping, to a mask.

    The mask goes through the transform as a black and white image. A normalisation may change both colours in any way,
    so an all-black and an all-white image go through the transform, too. A pixel belongs to the object if it is nearer
    to white than to black. A pixel that is alike in the black and the white image is padding.

    Args:
        mask: black and white, with the size of the untransformed image.
        transform: the transform of the image.
        seed: the seed of the image, so that random steps do the same to the mask.

    Returns:
        ``(H, W)`` bool, True on the object.
    """

    def through(level: Callable[[int], int]) -> Tensor:
        seed_everything(seed)
        return transform(mask.point(level).convert("RGB")).double().mean(dim=0)

    black = through(lambda _: 0)
    white = through(lambda _: 255)
    painted = through(lambda level: 255 if level >= 128 else 0)
    # Distances, since a normalisation with a negative std makes white darker than black.
    return (painted - black).abs() > (white - black).abs() / 2
