"""Images in chunks, which bound the memory, and smaller ones where it runs out."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from gradcam_callback.exceptions import GradCAMWarning
from gradcam_callback.maps.borrowed import interrupt

# How many pixels go through the model at once, by device: 8 images of 224 x 224 on a CPU, whose caches gain nothing
# from more, and 32 on a GPU.
CHUNK_PIXELS = {"cpu": 8 * 224 * 224, "cuda": 32 * 224 * 224}


def in_chunks(compute: Callable[[slice], list[Tensor]], images: Tensor, chunk_size: int | None) -> list[Tensor]:
    """Call ``compute`` on even chunks of the images; where memory runs out, on chunks of half the size.

    Args:
        compute: gives tensors with a row per image of the chunk.
        images: ``(N, C, H, W)``.
        chunk_size: None chooses by the device and the size of the images.

    Returns:
        The same tensors with a row for each of the N images.
    """
    size = chunk_size or max(1, CHUNK_PIXELS.get(images.device.type, CHUNK_PIXELS["cpu"]) // images[0, 0].numel())
    whole: list[Tensor] = []
    start = 0
    while start < len(images):
        left = len(images) - start
        even = -(-left // -(-left // size))
        try:
            rows = compute(slice(start, start + even))
        except (RuntimeError, MemoryError) as error:
            if even == 1 or not is_out_of_memory(error):
                raise
            size = even // 2
        else:
            # Into one place for all chunks: many small results between the large short-lived tensors of the chunks
            # would leave holes in the heap that nothing fits into.
            whole = whole or [part.new_empty((len(images), *part.shape[1:])) for part in rows]
            for to in whole:
                to[start : start + even] = rows.pop(0)  # and let go of, before the next chunk needs the memory
            start += even
            interrupt.give_way()
            continue
        # Outside the handler, where the failed attempt's tensors are no longer held by the exception.
        _release_memory(images.device)
        warnings.warn(
            f"GradCAM: memory ran out with {even} images at once; it goes on with {size}. Set chunk_size={size} to "
            "have it so from the start.",
            GradCAMWarning,
            stacklevel=3,
        )
    return whole


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device or the host, for which torch has no class of its own."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _release_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
