"""Read photographs as the loader of a dataset does, and lay the masks of upright photographs on what it returns."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from gradcam_callback.exceptions import blame
from gradcam_callback.probes.image_files import open_image

# Reads the file of an image, as the argument `loader` of torchvision's ImageFolder.
Loader = Callable[[str], Any]
# What turns an upright photograph back as it is stored, by the orientation in its EXIF data.
_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
# The side to which two pictures are resized to compare them.
_SIDE = 32


def read_picture(path: Path, loader: Loader | None) -> Image.Image:
    """Return a photograph as the loader reads it, or upright and in RGB if there is no loader of pictures."""
    if loader is None:
        return open_image(path, "RGB")
    with blame(f"the loader of your data to read {str(path)!r}", "Correct the loader, or remove the file."):
        picture = loader(str(path))
    return picture if isinstance(picture, Image.Image) else open_image(path, "RGB")


def lay_on(mask: Image.Image, path: Path, picture: Image.Image) -> Image.Image:
    """Lay a mask of an upright photograph on a picture that a loader has made of the file.

    torchvision's own loader leaves photographs as they are stored, whatever their EXIF data say.

    Args:
        mask: black and white.
        path: of the photograph.
        picture: of `read_picture`.

    Raises:
        ValueError: the loader has changed the shape of the photograph, so where the mask lies is not known.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata.
        with Image.open(path) as file:
            back = _BACK.get(file.getexif().get(ExifTags.Base.Orientation, 1))
    if back is not None and not _is_upright(picture, open_image(path), back):
        mask = mask.transpose(back)
    # A pixel more or less comes by rounding.
    if abs(mask.height * picture.width / mask.width - picture.height) > 1:
        raise ValueError(
            f"Expected the loader of your data to keep the shape of {str(path)!r}, {mask.width} x {mask.height}, since "
            f"a mask lies beside it, but got {picture.width} x {picture.height}. Crop in the transform, or pass "
            "probe=ProbeSet.from_folder(folder, transform=...)."
        )
    return mask.resize(picture.size, Image.Resampling.NEAREST)


def _is_upright(picture: Image.Image, upright: Image.Image, back: Image.Transpose) -> bool:
    stored = upright.transpose(back)
    if stored.size != upright.size:
        return (picture.width > picture.height) == (upright.width > upright.height)
    # A loader may change the levels, such as those of a scan, so that only the places of bright and dark tell.
    own = _contrasts(picture)
    return bool(abs((own * _contrasts(upright)).sum()) >= abs((own * _contrasts(stored)).sum()))


def _contrasts(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.float64]]:
    small = np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.NEAREST), dtype=np.float64)
    levels = small.reshape(_SIDE**2, -1).mean(axis=1)
    return np.asarray(levels - levels.mean())
