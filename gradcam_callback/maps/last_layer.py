"""Find the last layer of a model with spatial output, for ``target_layers="last"``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from gradcam_callback.maps.support import hookable_modules

_POOLINGS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.LPPool2d)


class _Output(NamedTuple):
    """The output of one module in a forward pass, and the tensor's version when the module returned it."""

    name: str
    module: nn.Module
    tensor: Tensor
    version: int


def find_last_layer(model: nn.Module, forward: Callable[[], object], size: tuple[int, int]) -> str:
    """Return the dotted name of the last module with output ``(1, C, h, w)`` in the image's proportions.

    Poolings do not count, as their input is the finer map.

    Args:
        model: any module.
        forward: runs the model on one image.
        size: height and width of this image in pixels.

    Raises:
        ValueError: no module returns this shape, or a later module returns positions in another layout, such as tokens.
    """
    outputs = _record_outputs(model, forward)
    # A container returns the very tensor of the last module in it. The innermost module returned it first. After an
    # operation in place, the tensor is the same object, but with another version and therefore another origin.
    origins: dict[tuple[int, int], _Output] = {}
    for output in outputs:
        origins.setdefault((id(output.tensor), output.version), output)
    for output in reversed(outputs):
        origin = origins[id(output.tensor), output.version]
        if _is_spatial(output.tensor, size):
            if not isinstance(origin.module, _POOLINGS):
                return origin.name
        elif _has_positions(output.tensor):
            raise ValueError(
                f"Expected target_layers='last' to find a layer with output (N, C, h, w), but the later module "
                f"{origin.name!r} returns {tuple(output.tensor.shape)}. Pass the dotted name of a layer, and if its "
                "output is not (N, C, h, w), reshape_transform='tokens', 'channels_last' or a callable."
            )
    raise ValueError(
        "Expected target_layers='last' to find a layer with output (N, C, h, w), but no module returns this shape. "
        "Pass the dotted name of a layer."
    )


def _record_outputs(model: nn.Module, forward: Callable[[], object]) -> list[_Output]:
    """Run the model, and list the tensors that its modules return, in the order of return."""
    outputs: list[_Output] = []

    def record(name: str, module: nn.Module, _inputs: Any, output: Any) -> None:
        # Tensors made under inference_mode have no version, and without a gradient they cannot have a map.
        if isinstance(output, Tensor) and not output.is_inference():
            outputs.append(_Output(name, module, output, output._version))

    with ExitStack() as stack:
        for name, module in hookable_modules(model).items():
            if name:
                stack.callback(module.register_forward_hook(partial(record, name)).remove)
        forward()
    return outputs


def _is_spatial(tensor: Tensor, size: tuple[int, int]) -> bool:
    """Return True for several positions in the proportions of the image, give or take one row for rounding."""
    if tensor.ndim != 4 or tensor.shape[2] * tensor.shape[3] < 2:
        return False
    return abs(tensor.shape[2] - tensor.shape[3] * size[0] / size[1]) <= 1


def _has_positions(tensor: Tensor) -> bool:
    """Return True if an image has more values than channels, be they first or last."""
    return tensor.ndim > 2 and tensor[0].numel() > max(tensor.shape[1], tensor.shape[-1])
