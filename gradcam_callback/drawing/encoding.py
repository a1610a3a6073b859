"""Encode images as the bytes of JPEG, WebP and GIF files."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from PIL import Image

from gradcam_callback.drawing.sheets import stack
from gradcam_callback.encoded_image import EncodedImage

Name = TypeVar("Name")
Encoded = TypeVar("Encoded")

# Colours of a GIF, which may have 256 at most. Fewer colours give smaller files.
PALETTE_SIZE = 200
# A WebP file has no more pixels a side.
WEBP_LONGEST = 16383
# Encoding takes longer than drawing, so one thread would not keep up. Each thread may have one image that waits.
_THREADS = 2


def encode_jpeg(image: Image.Image, quality: int) -> EncodedImage:
    """Encode an image as JPEG, which is smaller than PNG for photographs and many times faster.

    Args:
        image: RGB.
        quality: 1..95.
    """
    buffer = io.BytesIO()
    # Progressive files are 3 % smaller, and take two and a half times as long.
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return EncodedImage(buffer.getvalue(), "jpg", image.width, image.height)


def encode_webp(image: Image.Image, quality: int) -> EncodedImage:
    """Encode an image as WebP: two thirds of the bytes of a JPEG of this quality, and at least as similar to the image.

    Very long images, which WebP cannot hold, become JPEG.

    Args:
        image: RGB.
        quality: 1..95, of such a JPEG.
    """
    if max(image.size) > WEBP_LONGEST:
        return encode_jpeg(image, quality)
    buffer = io.BytesIO()
    # On panels, a WebP of quality q * q / 100 has about the structural similarity of a JPEG of quality q. Some panels
    # are harder, so it gets 8 more.
    image.save(buffer, "WEBP", quality=round(min(100, quality**2 / 100 + 8)), method=1)
    return EncodedImage(buffer.getvalue(), "webp", image.width, image.height)


def encode_ahead(
    images: Iterable[tuple[Name, Image.Image]], encode: Callable[[Image.Image], Encoded]
) -> Iterator[tuple[Name, Encoded]]:
    """Encode images in their order, by threads that end with the last one, while the next image is drawn.

    Args:
        images: name -> image, drawn as they are asked for.
        encode: is called in the threads.
    """
    waiting: deque[tuple[Name, Future[Encoded]]] = deque()
    with ThreadPoolExecutor(_THREADS) as threads:
        for name, image in images:
            waiting.append((name, threads.submit(encode, image)))
            if len(waiting) > 2 * _THREADS:
                name, encoded = waiting.popleft()
                yield name, encoded.result()
        for name, encoded in waiting:
            yield name, encoded.result()


def encode_gif(frames: Sequence[Image.Image], seconds: float) -> EncodedImage:
    """Encode frames of one size as a GIF that repeats forever.

    Args:
        frames: RGB.
        seconds: duration of a frame. The last frame stays three times as long.
    """
    # One palette for all frames: parts that stay the same neither flicker nor take bytes.
    palette = stack(frames).quantize(PALETTE_SIZE, dither=Image.Dither.NONE)
    first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    durations = [round(1000 * seconds)] * len(frames)
    durations[-1] *= 3
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    return EncodedImage(buffer.getvalue(), "gif", first.width, first.height)
