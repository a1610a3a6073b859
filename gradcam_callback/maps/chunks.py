"""Process images in chunks that bound the memory, and in smaller chunks if memory runs out."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from gradcam_callback.exceptions import GradCAMWarning, is_out_of_memory
from gradcam_callback.maps.borrowed import interrupt

# Pixels per chunk, by device: 8 images of 224 x 224 on a CPU, where larger chunks are no faster, and 32 on a GPU.
CHUNK_PIXELS = {"cpu": 8 * 224 * 224, "cuda": 32 * 224 * 224}


def compute_in_chunks(compute: Callable[[slice], list[Tensor]], images: Tensor, chunk_size: int | None) -> list[Tensor]:
    """Call ``compute`` on even chunks of the images; if memory runs out, halve the chunks.

    Args:
        compute: takes the slice of a chunk, and returns tensors with one row per image of the chunk.
        images: ``(N, C, H, W)``.
        chunk_size: the largest number of images per chunk; None depends on the device and the size of the images.

    Returns:
        The same tensors with one row for each of the N images.
    """
    size = chunk_size or _default_chunk_size(images)
    results: list[Tensor] = []
    start = 0
    while start < len(images):
        count = _even_count(len(images) - start, size)
        rows: list[Tensor] | None = None
        try:
            rows = compute(slice(start, start + count))
        except (RuntimeError, MemoryError) as error:
            if count == 1 or not is_out_of_memory(error):
                raise
        if rows is None:
            # Free memory outside the handler, since the exception holds the tensors of the failed attempt.
            _release_memory(images.device)
            size = count // 2
            warnings.warn(
                f"GradCAM ran out of memory with {count} images per chunk and continues with {size}. No map is lost. "
                f"Pass chunk_size={size} to avoid the failed attempt.",
                GradCAMWarning,
                stacklevel=3,
            )
            continue
        if count == len(images):
            return rows
        # One tensor for all chunks: small results between the large temporary tensors of each chunk would leave holes
        # in the heap, which are too small for later chunks.
        results = results or [part.new_empty((len(images), *part.shape[1:])) for part in rows]
        for result in results:
            # Popping frees each part before the next chunk needs the memory.
            result[start : start + count] = rows.pop(0)
        start += count
        interrupt.deliver()
    return results


def _default_chunk_size(images: Tensor) -> int:
    pixels = CHUNK_PIXELS.get(images.device.type, CHUNK_PIXELS["cpu"])
    return max(1, pixels // images[0, 0].numel())


def _even_count(remaining: int, size: int) -> int:
    """Return the next chunk's number of images, at most ``size``: 10 images make 4 + 3 + 3 rather than 4 + 4 + 2."""
    n_chunks = -(-remaining // size)  # rounded up
    return -(-remaining // n_chunks)


def _release_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
