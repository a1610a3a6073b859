"""Read image files of any mode and bit depth."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# Numbers of TIFF tags, and the value of the second one if 0 means white.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def open_image(path: Path, mode: str | None = None) -> Image.Image:
    """Return the first frame of an image file, rotated upright as its EXIF data say.

    Args:
        path: the file.
        mode: ``"RGB"`` converts the image, with levels scaled to 8 bits. None keeps the mode of the file.

    Raises:
        ValueError: the file cannot be read. The message names the file.
    """
    try:
        # Pillow would wait for ever on a named pipe.
        if not path.is_file():
            raise FileNotFoundError("no such file, a broken link, or no regular file")
        with warnings.catch_warnings():
            # Pillow warns of odd metadata and of transparency, which torchvision's ImageFolder drops, too.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image)
                return upright if mode is None else _to_eight_bits(upright, image).convert(mode)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"Cannot read {str(path)!r}, since it is larger than Pillow allows ({error}). Make the image smaller, or "
            "raise PIL.Image.MAX_IMAGE_PIXELS."
        ) from error
    except Exception as error:  # Pillow raises many kinds of errors for broken files; few of them are an OSError.
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"Cannot read {str(path)!r} as an image ({reason}). Repair or remove the file.") from error


def _to_eight_bits(image: Image.Image, file: Image.Image) -> Image.Image:
    """Return an image with levels in 0..255.

    Pillow converts 16 bits by clipping at 255, which turns nearly every pixel white. The levels are scaled instead.

    Args:
        image: the upright image.
        file: the image as it was opened. Only this one knows its format and TIFF tags.

    Raises:
        ValueError: the level of white is not known, or some levels are outside the range of the format.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    tags = getattr(file, "tag_v2", {})
    bits, photometric = tags.get(_BITS_PER_SAMPLE, (16,)), tags.get(_PHOTOMETRIC, 1)
    if image.mode == "I" and file.format == "TIFF":
        raise ValueError(
            "its levels are signed or 32-bit integers, for which white is not defined; save it with 8 bits"
        )
    # Floating point files hold 0..1 by convention. Integers use all bits of the file, such as 12 or 16.
    white = 1.0 if image.mode == "F" else 2.0 ** bits[0] - 1
    shares = np.asarray(image, dtype=np.float64) / white
    # Written so that NaN fails, too.
    if not (shares.min() >= 0 and shares.max() <= 1):
        lowest, highest = shares.min() * white, shares.max() * white
        raise ValueError(f"its levels are {lowest:g} to {highest:g}, outside 0 to {white:g}")
    if photometric == _WHITE_IS_ZERO:
        shares = 1 - shares
    # Rounding to the nearest level restores images that were made of 8 bits.
    return Image.fromarray(np.rint(shares * 255).astype(np.uint8))
