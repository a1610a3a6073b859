"""Which of a model's outputs are laid out in space: the last of a CNN, and the tokens of a transformer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from torch import Tensor, nn

_POOLINGS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.LPPool2d)
# How many tokens may stand in front of the patches': none, a class's, that and a teacher's (DeiT), four registers
# (Darcet et al. 2023, arXiv 2309.16588) without a class's or with one.
_PREFIXES = (0, 1, 2, 4, 5)


def from_tokens(output: Tensor, size: tuple[int, int]) -> Tensor:
    """Tokens ``(N, T, C)`` of images ``size = (H, W)`` -> ``(N, C, h, w)``; any other output as it is.

    The last ``h w`` tokens are those of square patches, row by row; what stands before them, such as the class token,
    is left out.

    Raises:
        ValueError: no grid of square patches has that many.

    Examples:
        A class token, and one for each of six patches.

        >>> import torch
        >>> from gradcam_callback.maps.reshape import from_tokens
        >>> tokens = torch.tensor([9.0, 1, 2, 3, 4, 5, 6]).view(1, 7, 1)
        >>> from_tokens(tokens, size=(32, 48)).tolist()
        [[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]]
    """
    if output.ndim != 3:
        return output
    height, width = size
    for count in (output.shape[1] - prefixes for prefixes in _PREFIXES):
        rows = round((max(0, count) * height / width) ** 0.5)
        if rows and count % rows == 0 and rows * width == count // rows * height:
            patches: Tensor = output[:, -count:].transpose(1, 2).unflatten(2, (rows, count // rows))
            return patches
    raise ValueError(
        f"{output.shape[1]} tokens are no grid of square patches of images of {height} x {width} pixels. Expected "
        "reshape_transform=a callable that makes (N, C, h, w) of them."
    )


def from_channels_last(output: Tensor, size: tuple[int, int]) -> Tensor:
    """``(N, h, w, C)`` -> ``(N, C, h, w)``; an output of another number of dimensions as it is.

    Examples:
        >>> import torch
        >>> from gradcam_callback.maps.reshape import from_channels_last
        >>> tuple(from_channels_last(torch.zeros(2, 7, 9, 64), size=(224, 288)).shape)
        (2, 64, 7, 9)
    """
    return output.permute(0, 3, 1, 2) if output.ndim == 4 else output


RESHAPES: dict[str, Callable[[Tensor, tuple[int, int]], Tensor]] = {
    "tokens": from_tokens,
    "channels_last": from_channels_last,
}


def find_last(model: nn.Module, forward: Callable[[], object], size: tuple[int, int]) -> str:
    """The dotted name of the last module that gives ``(1, C, h, w)`` in the proportions of an image, poolings aside.

    Args:
        forward: runs the model on one image of ``size = (H, W)``.

    Raises:
        ValueError: there is none, or the model goes on with something else that is laid out in space.
    """
    given: list[tuple[str, nn.Module, Tensor, int]] = []

    def note(name: str, module: nn.Module, _inputs: Any, output: Any) -> None:
        # What runs under inference_mode has no version, nor could it have a map.
        if isinstance(output, Tensor) and not output.is_inference():
            given.append((name, module, output, output._version))

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                stack.callback(module.register_forward_hook(partial(note, name)).remove)
        forward()
    first: dict[tuple[int, int], tuple[str, nn.Module]] = {}
    for name, module, output, version in given:
        # A container gives what the last module in it has given; that is the one to name.
        first.setdefault((id(output), version), (name, module))
    for _, _, output, version in reversed(given):
        name, module = first[id(output), version]
        if _is_map(output, size):
            if not isinstance(module, _POOLINGS):
                return name
        elif output.ndim > 2 and output[0].numel() > max(output.shape[1], output.shape[-1]):
            raise ValueError(
                f"The last layer cannot be found by itself: module {name!r} gives {tuple(output.shape)}, which is not "
                "(N, C, h, w). Expected the dotted name of a layer, and reshape_transform='tokens', 'channels_last' or "
                "a callable where it gives such."
            )
    raise ValueError(
        "The last layer cannot be found by itself: no module gives (N, C, h, w). Expected the dotted name of a layer."
    )


def _is_map(output: Tensor, size: tuple[int, int]) -> bool:
    """Whether it has more than one position, in the proportions of the image but for the rounding of a cell."""
    if output.ndim != 4 or output.shape[2] * output.shape[3] < 2:
        return False
    return abs(output.shape[2] - output.shape[3] * size[0] / size[1]) <= 1
