"""Recognise the run of a checkpoint: its callback, its probe set and its layers."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from gradcam_callback.probes import ProbeSet
from gradcam_callback.run.tags import DEFAULT_PREFIX

# Pixels a side of the small copies of the images, and how far they may differ, as a share of their range: other
# machines decode and resize a little differently.
THUMBNAIL, TOLERANCE = 8, 0.03

Signature = Mapping[str, Any]


def identify(
    probe: ProbeSet | str | Path | None,
    target_layers: str | nn.Module | Sequence[str | nn.Module],
    target: object,
    tag_prefix: str,
    **others: object,
) -> dict[str, Any]:
    """Describe the arguments that tell the callbacks of a Trainer apart, in the same way when a run is resumed.

    The arguments are those of `GradCAMCallback`. Two callbacks with the same description cannot be in one Trainer.

    Args:
        others: more arguments, by their names. None and 0 are their defaults, and left out.
    """
    layers: str | list[str]
    if isinstance(target_layers, str):
        layers = target_layers
    else:
        each = [target_layers] if isinstance(target_layers, nn.Module) else target_layers
        # The name of a module in its model is not known yet.
        layers = [layer if isinstance(layer, str) else type(layer).__name__ for layer in each]
    # A function is known by its name alone, as its address is another one in each process.
    explained = f"callable {getattr(target, '__qualname__', type(target).__name__)}" if callable(target) else target
    identity: dict[str, Any] = {"target_layers": layers, "target": explained}
    if tag_prefix != DEFAULT_PREFIX:
        identity["tag_prefix"] = tag_prefix
    identity |= {name: value for name, value in others.items() if value}
    if isinstance(probe, ProbeSet):
        judged = probe.verdict_set
        content = repr((judged.names, judged.labels.tolist(), len(probe)))
        identity["probe"] = hashlib.sha256(content.encode()).hexdigest()[:8]
    elif probe is not None:
        identity["probe"] = Path(probe).name
    return identity


def differ_in_probe_only(key: str, other: str) -> bool:
    """Return True if two state keys are of callbacks with the same layers, target and prefix.

    Args:
        key: the name of a class followed by what `identify` returns, as Lightning writes it.
        other: another one.
    """
    try:
        one, two = ({**ast.literal_eval(text[text.index("{") :]), "probe": None} for text in (key, other))
    except (SyntaxError, TypeError, ValueError):
        return False  # another version wrote it
    return one == two


def sign(probe: ProbeSet, layers: Sequence[str]) -> Signature:
    """Describe a probe set, with the images of its verdict, and a list of layers by tensors and plain values only."""
    probe, n_watched = probe.verdict_set, len(probe)
    masks = torch.zeros(len(probe), *probe.images.shape[2:]) if probe.masks is None else probe.masks
    planes = torch.cat([probe.images.float().cpu(), masks[:, None].float().cpu()], dim=1)
    return {
        "layers": list(layers),
        "watched": n_watched,
        "labels": probe.labels.tolist(),
        "size": list(probe.images.shape[2:]),
        "thumbnails": adaptive_avg_pool2d(planes, THUMBNAIL),
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
