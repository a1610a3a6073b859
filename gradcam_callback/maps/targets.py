"""Choose the score that each map explains: a logit, a difference of logits, or what a callable returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from gradcam_callback.exceptions import MapError, blame
from gradcam_callback.maps.checks import check_targets, describe, targets_per_image
from gradcam_callback.maps.logits import predicted_class, rival_class

CONTRAST = "contrast"
# Takes the outputs of the model and the indices (N,) of their images, and returns scores (N,).
ScoreFunction = Callable[[object, Tensor], Tensor]
# What `GradCAM` takes; None is the predicted class.
Targets = int | str | Sequence[int] | Tensor | ScoreFunction | None


@dataclass(frozen=True)
class Contrast:
    """Targets that explain why one class and not another: its logit minus the strongest other logit.

    The idea is that of Finer-CAM (Zhang et al. 2025, arXiv 2501.11309), which compares a class with those most alike.

    Attributes:
        classes: ``(N,)`` int64 on the CPU; None takes the predicted class of each image.
    """

    classes: Tensor | None = None


# The same after `read_targets`.
ReadTargets = Tensor | Contrast | ScoreFunction | None


def read_targets(targets: Targets | Contrast, n: int) -> ReadTargets:
    """Check the targets of ``n`` images, and bring class indices into the form ``(n,)`` int64 on the CPU.

    Raises:
        MapError: another type, or neither one nor ``n`` of them.
    """
    if isinstance(targets, Contrast):
        return Contrast(targets_per_image(targets.classes, n))
    if callable(targets):
        return targets
    if isinstance(targets, str):
        if targets != CONTRAST:
            raise MapError(
                f"Expected `targets` to be classes, 'contrast', a callable or None, but got {targets!r}. Leave it out "
                "for the predicted class."
            )
        return Contrast()
    return targets_per_image(targets, n)


def rows_of(targets: ReadTargets, chunk: slice) -> ReadTargets:
    """Return the targets of a chunk of the images."""
    if isinstance(targets, Tensor):
        return targets[chunk]
    if isinstance(targets, Contrast) and targets.classes is not None:
        return Contrast(targets.classes[chunk])
    return targets


def select_scores(logits: Tensor, targets: Tensor | Contrast | None) -> tuple[Tensor, Tensor]:
    """Return the score of each image, and the class that it stands for.

    Args:
        logits: ``(N, K)``. A single logit is the score of class 1, and minus the logit that of class 0.
        targets: ``(N,)`` int64 on the CPU, or `Contrast`; None takes the predicted class.

    Returns:
        ``(N,)``, and ``(N,)`` int64.

    Raises:
        MapError: a class outside the logits.
    """
    given = targets.classes if isinstance(targets, Contrast) else targets
    if given is None:
        classes = predicted_class(logits)
    else:
        check_targets(given, logits.shape[1])
        # To wait for the GPU here, it would have to finish the forward pass before it hears of the backward pass.
        classes = given.to(logits.device, non_blocking=logits.is_cuda)
    if logits.shape[1] == 1:
        # Only one score of two classes is known, so it is its own contrast.
        return logits[:, 0] * (2 * classes - 1), classes
    own = logits.gather(1, classes[:, None])[:, 0]
    if isinstance(targets, Contrast):
        return own - logits.gather(1, rival_class(logits, classes)[:, None])[:, 0], classes
    return own, classes


def call_score_function(function: ScoreFunction, outputs: object, index: Tensor) -> Tensor:
    """Return the scores ``(N,)`` that the user's callable makes of the outputs.

    Args:
        outputs: what the model, or its ``output_transform``, returned.
        index: ``(N,)`` int64 on the CPU, the images.

    Raises:
        UserCodeError: the callable failed.
        MapError: it returned something else.
    """
    expected = f"your `target` to take the outputs {describe(outputs)} and the indices of {len(index)} images"
    with blame(expected, "It gets what your model returns, and returns one score per image, (N,)."):
        scores = function(outputs, index)
    if not isinstance(scores, Tensor) or scores.shape != index.shape or not scores.is_floating_point():
        raise MapError(
            f"Expected your `target` to return one score per image, ({len(index)},) of floating point, but got "
            f"{describe(scores)}. For example: target=lambda outputs, index: outputs[:, 0]."
        )
    return scores
