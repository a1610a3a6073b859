"""Say how probe images differ from those of the validation data, such as by another normalisation."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gradcam_callback.probes import Feed, ProbeSet

# Images look normalised otherwise if a channel's mean is off by so many deviations, or its deviation by this factor.
# Between images that are both normalised, more is needed by the third factor.
FAR_MEAN, FAR_DEVIATION, LENIENT = 1.0, 1.9, 4.0


def find_difference(probe: ProbeSet, batch: Any, feed: Feed) -> str | None:
    """Say how the images of a probe set differ from those of a validation batch, if they are not normalised alike.

    Args:
        batch: after the Trainer's hooks. If its images cannot be told, nothing is said.
    """
    try:
        images = feed.parts(batch).images
    except ValueError:
        return None
    return describe_difference(probe.images.float(), images.detach().float().cpu())


def describe_difference(probe: Tensor, batch: Tensor) -> str | None:
    """Say how images ``(N, C, H, W)`` differ from those of a batch ``(B, C, H, W)``; None if they are alike."""
    if probe.shape[1:] != batch.shape[1:]:
        return f"they have shape {tuple(probe.shape[1:])}, those of the validation {tuple(batch.shape[1:])}"
    plain, plain_batch = (-0.01 <= float(images.min()) and float(images.max()) <= 1.01 for images in (probe, batch))
    if plain and plain_batch:
        return None  # neither is normalised, and photographs may be dark or bright
    # If both are normalised, the mean of a few photographs still says little.
    factor = LENIENT if plain == plain_batch else 1.0
    for channel in range(probe.shape[1]):
        own, other = probe[:, channel], batch[:, channel]
        mean, std, mean_of_batch, std_of_batch = (float(x) for x in (own.mean(), own.std(), other.mean(), other.std()))
        low, high = sorted([std, std_of_batch])
        if abs(mean - mean_of_batch) > factor * FAR_MEAN * high or high > max(1.0, factor / 2) * FAR_DEVIATION * low:
            return (
                f"channel {channel} has mean {mean:.2f} and deviation {std:.2f}, in the validation {mean_of_batch:.2f} "
                f"and {std_of_batch:.2f}"
            )
    return None
