"""The result of a call of `GradCAM`, and the concatenation of several results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CAMs:
    """The maps of one call of `GradCAM`, on the device of the images.

    Attributes:
        maps: layer name -> ``(N, h, w)`` at the layer's own resolution. The values are >= 0 and raw, that is, never
            rescaled. float32, or float64 for a float64 model.
        logits: ``(N, K)``. With a callable target, whose outputs may be anything: ``(N, 1)``, the scores it returned.
        targets: ``(N,)`` int64, the class that each map explains; -1 with a callable target.
        nonfinite: ``(N,)`` bool, True if the logits, activations or gradients of an image are NaN or infinite. A map
            that becomes meaningless in this way is all zeros.

    Examples:
        Every gradient of class 0 is 0.5, so its alpha is 0.5; the alpha of class 1 is -1.

        >>> import torch
        >>> from gradcam_callback import GradCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False))
        >>> _ = model[2].weight.data.copy_(torch.tensor([[0.5], [-1.0]]).expand(2, 4))
        >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> cams = GradCAM(model, "0")(image)
        >>> cams.logits.tolist(), cams.targets.tolist()
        ([[5.0, -10.0]], [0])
        >>> cams.maps["0"].tolist()
        [[[0.5, 1.0], [1.5, 2.0]]]
        >>> GradCAM(model, "0")(image, targets=1).maps["0"].tolist()
        [[[0.0, 0.0], [0.0, 0.0]]]
    """

    maps: dict[str, Tensor]
    logits: Tensor
    targets: Tensor
    nonfinite: Tensor


def concatenate(parts: Sequence[CAMs]) -> CAMs:
    """Concatenate the results of several calls for the same layers, in the order of the images."""
    if len(parts) == 1:
        return parts[0]
    maps = {layer: torch.cat([part.maps[layer] for part in parts]) for layer in parts[0].maps}
    logits, targets, nonfinite = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("logits", "targets", "nonfinite")
    )
    return CAMs(maps, logits, targets, nonfinite)
