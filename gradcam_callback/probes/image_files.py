"""Pictures from files, whatever their mode and depth, and masks that follow the geometry of a transform."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gradcam_callback.random_state import seed_everything

Transform = Callable[[Image.Image], Tensor]


class Item(NamedTuple):
    """One image.

    Attributes:
        image: ``(C, H, W)``; label: its class, or that of its classes which it was chosen for.
        source: where it comes from, for messages.
        present: ``(K,)`` bool, all its classes, where it may have several.
    """

    image: Tensor
    label: int
    mask: Any
    source: str
    present: Tensor | None = None


def open_as_tensor(path: Path, transform: Transform) -> Tensor:
    seed_everything(0)
    image = transform(open_image(path, "RGB"))
    if not isinstance(image, Tensor):
        raise ValueError(f"The transform made a {type(image).__name__} of {str(path)!r}. Expected a tensor (C, H, W).")
    return image


def mask_to_image(mask: Tensor) -> Image.Image:
    return Image.fromarray(mask.numpy().astype(np.uint8) * 255)


def transformed_mask(mask: Image.Image, transform: Transform, seed: int = 0) -> Tensor:
    """The mask after the geometry of any transform: a black and white picture goes through it.

    What the transform makes of all black and of all white says where between them each pixel came to lie, whatever
    the normalisation. Where both are alike the pixel is padding.

    Args:
        seed: the one that the image went through with, so that what is random falls out alike.
    """

    def through(value: Callable[[int], int]) -> Tensor:
        seed_everything(seed)
        return transform(mask.point(value).convert("RGB")).double().mean(dim=0)

    black = through(lambda _: 0)
    white = through(lambda _: 255)
    painted = through(lambda level: 255 if level >= 128 else 0)
    return (painted - black).abs() > (white - black).abs() / 2


def open_image(path: Path, mode: str | None = None) -> Image.Image:
    """The first picture of a file, upright: in ``mode`` ``"RGB"``, or, without one, as it is written.

    Raises:
        ValueError: that names the file, whatever is wrong with it.
    """
    try:
        if not path.is_file():  # a pipe would be waited on for ever
            raise FileNotFoundError("it leads nowhere, or to what is no file")
        with warnings.catch_warnings():
            # They are about metadata, and about alpha, which goes as in torchvision's ImageFolder.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image)
                return upright if mode is None else _eight_bits(upright, image).convert(mode)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{str(path)!r} is larger than Pillow takes ({error}). Make it smaller, or set PIL.Image.MAX_IMAGE_PIXELS."
        ) from error
    except Exception as error:  # a broken file makes Pillow stumble in many ways, few of which are an OSError
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"{str(path)!r} cannot be read as an image ({why}). Repair or remove it.") from error


def _eight_bits(picture: Image.Image, file: Image.Image) -> Image.Image:
    """A picture with levels of 0..255. Pillow would clip those of 16 bits there, and leave little but white.

    Args:
        file: the picture as it was opened, whose format and tags say what white is.

    Raises:
        ValueError: nothing says what white is, or there are levels beyond it.
    """
    if not picture.mode.startswith(("I", "F")):
        return picture
    bits, photometric = (getattr(file, "tag_v2", {}).get(tag, other) for tag, other in ((258, (16,)), (262, 1)))
    if picture.mode == "I" and file.format == "TIFF":
        raise ValueError("it holds signed or 32-bit integers, of which nothing says what white is: save it with 8 bits")
    white = 1.0 if picture.mode == "F" else 2.0 ** bits[0] - 1
    shares = np.asarray(picture, dtype=np.float64) / white
    if not (shares.min() >= 0 and shares.max() <= 1):
        raise ValueError(f"its levels go from {shares.min() * white:g} to {shares.max() * white:g}, not 0 to {white:g}")
    # The nearest level, so that 65535 is white, and what was made of 8 bits is again as it was.
    return Image.fromarray(np.rint((1 - shares if photometric == 0 else shares) * 255).astype(np.uint8))


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
