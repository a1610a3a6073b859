"""Check the arguments of `GradCAM` and the outputs of the model, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from gradcam_callback.exceptions import MapError
from gradcam_callback.formatting import is_word, name_some
from gradcam_callback.maps.methods import METHODS
from gradcam_callback.maps.reshape import RESHAPES

# The dtype of autocast; None is no autocast.
PRECISIONS = {"full": None, "bf16": torch.bfloat16}


def check_options(
    method: str = "gradcam",
    precision: str = "full",
    chunk_size: int | None = None,
    reshape_transform: object = None,
    output_transform: object = None,
    reuse_frozen: bool = True,
) -> None:
    """Check the options of `GradCAM`. ``reuse_frozen`` is accepted, but any value will do.

    Raises:
        ValueError: an unknown method, precision or ``reshape_transform``, a chunk size below 1, or an
            ``output_transform`` that is not callable.
    """
    if not is_word(method, METHODS):
        raise ValueError(
            f"Expected `method` to be one of {sorted(METHODS)}, but got {method!r}. Leave it out for 'gradcam'."
        )
    if not is_word(precision, PRECISIONS):
        raise ValueError(
            f"Expected `precision` to be one of {sorted(PRECISIONS)}, but got {precision!r}. Leave it out for 'full'."
        )
    if chunk_size is not None and (not isinstance(chunk_size, Integral) or chunk_size < 1):
        raise ValueError(
            f"Expected `chunk_size` to be at least 1 image or None, but got {chunk_size!r}. Leave it out for a size "
            "that suits the device."
        )
    if not (reshape_transform is None or callable(reshape_transform) or is_word(reshape_transform, RESHAPES)):
        choices = ", ".join(map(repr, RESHAPES))
        raise ValueError(
            f"Expected `reshape_transform` to be {choices}, a callable or None, but got {reshape_transform!r}. Leave "
            "it out if the layers return (N, C, h, w)."
        )
    if not (output_transform is None or callable(output_transform)):
        raise ValueError(
            f"Expected `output_transform` to be a callable or None, but got {type(output_transform).__name__}. Pass "
            "output_transform=lambda outputs: ..., which returns logits (N, K)."
        )


def check_images(images: object) -> None:
    """Check that the images are a tensor ``(N, C, H, W)``.

    Raises:
        MapError: they are not, or a size is 0.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.numel():
        raise MapError(
            f"Expected `images` to be a tensor (N, C, H, W) of sizes >= 1, but got {describe(images)}. Pass a batch: "
            "for a single image (C, H, W), image[None]."
        )


def check_logits(logits: Any, n: int, source: str) -> None:
    """Check that the model, or its ``output_transform``, returns logits ``(n, K)``.

    Args:
        logits: the output to check.
        n: the number of images.
        source: the name of the function that returned them, for the message.

    Raises:
        MapError: another type, shape or dtype.
    """
    hint = "Return one row of logits per image."
    if isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == n:
        # Integers are told later, by what has cut them off from the layers.
        if logits.shape[1] and not (logits.is_complex() or logits.dtype == torch.bool):
            return
        hint = "Return one number or more per image, of floating point."
    elif isinstance(logits, Tensor) and logits.ndim and len(logits) == n:
        if logits.ndim == 1:
            hint = "For a single logit per image, pass output_transform=lambda outputs: outputs.reshape(-1, 1)."
        elif logits.ndim == 4 and logits.shape[2] * logits.shape[3] > 1:
            hint = (
                "For a map of logits per image, pass output_transform=lambda outputs: outputs.mean(dim=(2, 3)), or a "
                "callable target, such as target=lambda outputs, index: outputs[:, 1].mean(dim=(1, 2))."
            )
        else:
            hint = "Pass output_transform=lambda outputs: outputs.flatten(1)."
    elif isinstance(logits, Tensor) and n == 1 and logits.ndim < 2:
        # A forward that squeezes gives another shape for a single image.
        columns = logits.numel()
        hint = f"If the forward squeezes, pass output_transform=lambda outputs: outputs.reshape(-1, {columns})."
    elif isinstance(logits, Tensor) and not logits.ndim:
        hint = "This is one number for all images, which no output_transform can part. Return one row per image."
    elif isinstance(logits, Mapping) and len(logits):
        # Heads of several tasks may have any name.
        rows = [key for key, value in logits.items() if isinstance(value, Tensor) and value.shape[:1] == (n,)]
        key = next((key for key in logits if "logit" in str(key)), next(iter([*rows, *logits])))
        keys = f" Its keys are {name_some([*map(repr, logits)])}." if len(logits) > 1 else ""
        hint = f"Extract the logits with output_transform=lambda outputs: outputs[{key!r}].{keys}"
    elif hasattr(logits, "logits"):
        hint = "Extract the logits with output_transform=lambda outputs: outputs.logits."
    elif isinstance(logits, (tuple, list)):
        hint = "Extract the logits with output_transform=lambda outputs: outputs[0]."
    raise MapError(f"Expected {source} to return logits (N, K) with N = {n}, but got {describe(logits)}. {hint}")


def check_targets(targets: Tensor, k: int, hint: str = "") -> None:
    """Check that all targets are classes of a model with ``k`` logits. A single logit has the classes 0 and 1.

    Args:
        targets: ``(N,)``.
        k: the number of logits.
        hint: a sentence on where the targets come from.

    Raises:
        MapError: some are not.
    """
    n_classes = max(k, 2)
    outside = targets[(targets < 0) | (targets >= n_classes)].unique().tolist()
    if outside:
        raise MapError(
            f"Expected `targets` to be classes from 0 to {n_classes - 1} (the model returns {k} "
            f"logit{'s' * (k != 1)}), but got {outside}. {hint}{' ' * bool(hint)}Correct the targets or labels, or the "
            "model's last layer. For a regression, pass target=lambda outputs, index: outputs[:, 0]."
        )


def targets_per_image(targets: int | Sequence[int] | Tensor | None, n: int) -> Tensor | None:
    """Return one target per image, ``(n,)`` int64 on the CPU; None stays None.

    Raises:
        MapError: the targets are not integers, or neither one nor ``n``.
    """
    if targets is None:
        return None
    # A clone, as autograd refuses tensors that were made under inference_mode.
    try:
        given = torch.as_tensor(targets).clone().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise MapError(
            f"Expected `targets` to be class indices, one or one per image, but got {type(targets).__name__} "
            f"{targets!r:.60} ({error}). Leave it out for the predicted class."
        ) from error
    if given.is_floating_point() or given.dtype == torch.bool:
        raise MapError(
            f"Expected `targets` to be integers, but got {given.dtype}. Pass the index of the class that each map "
            "explains."
        )
    if given.ndim > 1 or (given.ndim == 1 and len(given) != n):
        raise MapError(
            f"Expected `targets` to be one integer or one per image ({n}), but got shape {tuple(given.shape)}. Pass a "
            "single integer to explain the same class in all images."
        )
    return given.long().expand(n).contiguous()


def describe(value: object) -> str:
    """Return the shape and dtype of a tensor, or the type of anything else."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"shape {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
