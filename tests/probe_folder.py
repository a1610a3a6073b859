"""A probe folder of a single class, and photographs and a mask whose pixels are known."""

import numpy as np
import pytest
from PIL import Image

from gradcam_callback import ProbeSet

WIDTH, HEIGHT = 24, 16


def colours(seed=0, size=(HEIGHT, WIDTH)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def square():
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[3:9, 5:20] = True
    return mask


def read(lion, transform=None):
    return ProbeSet.from_folder(lion.parent, transform)


def pixels(lion):
    """Return the only image as ``(H, W, 3)`` in 0..255."""
    (image,) = read(lion).images
    return (image.permute(1, 2, 0) * 255).numpy()


def refuses(lion, *words, kind=ValueError, transform=None):
    """Assert that the folder is refused with all of the words. A warning would be an error of another kind."""
    with pytest.raises(kind) as caught:
        read(lion, transform)
    assert type(caught.value) is kind
    for word in words:
        assert word in str(caught.value)


def write_image(lion, name="a.png"):
    Image.fromarray(colours()).save(lion / name)
    return lion / name
