"""Reshape layer outputs, such as the tokens of a transformer, to ``(N, C, h, w)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

# LightningCLI reads it. It would take the path of a callable for a `str`, and would refuse functions that do not
# declare to return a `Tensor`.
Reshape = Literal["tokens", "channels_last"] | Callable[[Tensor], Any]

# Possible numbers of tokens in front of the patch tokens: 0; 1 class token; 2 with a distillation token (DeiT); 4 or 5
# with four registers (Darcet et al. 2023, arXiv 2309.16588), without or with a class token.
_PREFIX_TOKENS = (0, 1, 2, 4, 5)


def from_tokens(output: Tensor, size: tuple[int, int]) -> Tensor:
    """Reshape tokens ``(N, T, C)`` to ``(N, C, h, w)``; return any other output unchanged.

    The last ``h w`` tokens are square patches in row order. Earlier tokens, such as the class token, are left out.

    Args:
        output: the output of a layer.
        size: height and width of the images in pixels.

    Raises:
        ValueError: no grid of square patches has this number of tokens.

    Examples:
        A class token, and one token for each of six patches:

        >>> import torch
        >>> from gradcam_callback.maps import from_tokens
        >>> tokens = torch.tensor([9.0, 1, 2, 3, 4, 5, 6]).view(1, 7, 1)
        >>> from_tokens(tokens, size=(32, 48)).tolist()
        [[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]]
    """
    if output.ndim != 3:
        return output
    height, width = size
    for count in (output.shape[1] - prefix for prefix in _PREFIX_TOKENS):
        # Square patches: rows / columns = height / width, so rows^2 = rows columns height / width.
        rows = round((max(0, count) * height / width) ** 0.5)
        if rows and count % rows == 0 and rows * width == count // rows * height:
            patches: Tensor = output[:, -count:].transpose(1, 2).unflatten(2, (rows, count // rows))
            return patches
    raise ValueError(
        f"Expected the tokens to form a grid of square patches of {height} x {width} images, but got "
        f"{output.shape[1]} tokens. Pass a callable as `reshape_transform` that returns (N, C, h, w)."
    )


def from_channels_last(output: Tensor, size: tuple[int, int]) -> Tensor:
    """Move the channels of ``(N, h, w, C)`` to ``(N, C, h, w)``; return an output that is not 4-D unchanged.

    Args:
        output: the output of a layer.
        size: height and width of the images in pixels, not used here.

    Examples:
        >>> import torch
        >>> from gradcam_callback.maps import from_channels_last
        >>> tuple(from_channels_last(torch.zeros(2, 7, 9, 64), size=(224, 288)).shape)
        (2, 64, 7, 9)
    """
    return output.permute(0, 3, 1, 2) if output.ndim == 4 else output


RESHAPES: dict[str, Callable[[Tensor, tuple[int, int]], Tensor]] = {
    "tokens": from_tokens,
    "channels_last": from_channels_last,
}
