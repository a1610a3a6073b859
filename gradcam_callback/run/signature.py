"""Recognise the probe set and the layers of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from gradcam_callback.probes import ProbeSet

# Pixels a side of the small copies of the images, and how far they may differ, as a share of their range: other
# machines decode and resize a little differently.
THUMBNAIL, TOLERANCE = 8, 0.03

Signature = Mapping[str, Any]


def sign(probe: ProbeSet, layers: Sequence[str]) -> Signature:
    """Describe a probe set, with the images of its verdict, and a list of layers by tensors and plain values only."""
    probe, n_watched = probe.verdict_set, len(probe)
    return {
        "layers": list(layers),
        "watched": n_watched,
        "labels": probe.labels.tolist(),
        "size": list(probe.images.shape[2:]),
        "thumbnails": make_thumbnails(probe),
    }


def describe_inputs(probe: ProbeSet) -> dict[str, Any]:
    """Describe how images are made for the network, for those who look at a checkpoint later.

    Returns:
        ``"size"``, height and width; ``"mean"`` and ``"std"``, None if they are not known; ``"range"``, the smallest
        and the largest value; and ``"class_names"``.
    """
    return {
        "size": list(probe.images.shape[2:]),
        "mean": None if probe.mean is None else probe.mean.tolist(),
        "std": None if probe.std is None else probe.std.tolist(),
        "range": [float(probe.images.min()), float(probe.images.max())],
        "class_names": probe.class_names,
    }


def read_signature(saved: Any) -> Signature:
    """Check a signature from a checkpoint.

    Raises:
        KeyError, TypeError: it is not what `sign` returns.
    """
    if not isinstance(saved, Mapping):
        raise TypeError("the state does not name its probe set and layers")
    lists = {name: list(saved[name]) for name in ("layers", "labels", "size")}
    n_watched = saved["watched"]
    if not isinstance(n_watched, int) or n_watched < 1:
        raise TypeError("the state does not say how many images are watched")
    thumbnails = saved["thumbnails"]
    if not isinstance(thumbnails, Tensor) or not thumbnails.is_floating_point():
        raise TypeError("the thumbnails of the probe images are no tensor of floating point")
    if not all(isinstance(value, str if name == "layers" else int) for name in lists for value in lists[name]):
        raise TypeError("the layers, labels or image size have the wrong type")
    return {**lists, "watched": n_watched, "thumbnails": thumbnails}


def is_same(saved: Signature, now: Signature) -> bool:
    """Return True if both describe the same layers and, but for small differences of decoding, the same images."""
    before, after = saved["thumbnails"], now["thumbnails"]
    if any(saved[name] != now[name] for name in ("layers", "watched", "labels", "size")) or before.shape != after.shape:
        return False
    value_range = float(after.max() - after.min())
    return bool(((before - after).abs() <= TOLERANCE * value_range).all())


def make_thumbnails(probe: ProbeSet) -> Tensor:
    """Return small copies of all images, with the mask as one more channel.

    Returns:
        ``(N, C + 1, 8, 8)`` float32 on the CPU.
    """
    masks = torch.zeros(len(probe), *probe.images.shape[2:]) if probe.masks is None else probe.masks
    planes = torch.cat([probe.images.float().cpu(), masks[:, None].float().cpu()], dim=1)
    return adaptive_avg_pool2d(planes, THUMBNAIL)
