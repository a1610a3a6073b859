"""Recognise outputs that are probabilities, and go back to their logits.

A model that ends with a sigmoid or softmax, as BCELoss and NLLLoss need it, returns no logits. Its maps would be of
another function, whose gradient vanishes if the model is sure. The last operation of the graph tells it for certain.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

# Operations that keep the values, by their names in the graph of autograd.
_KEEP = (
    "AliasBackward",
    "CloneBackward",
    "ReshapeAliasBackward",
    "SqueezeBackward",
    "ToCopyBackward",
    "UnsafeViewBackward",
    "UnsqueezeBackward",
    "ViewBackward",
)
# Operations that take some of the values, or move them. Behind a softmax they may leave a part of its classes, which no
# longer tells the logits.
_SELECT = (
    "ExpandBackward",
    "GatherBackward",
    "IndexBackward",
    "IndexSelectBackward",
    "PermuteBackward",
    "SelectBackward",
    "SliceBackward",
    "SplitBackward",
    "StackBackward",
    "TransposeBackward",
    "UnbindBackward",
)
_FUNCTIONS = {"SigmoidBackward": "sigmoid", "SoftmaxBackward": "softmax", "LogSoftmaxBackward": "log_softmax"}
# The last operations of models that surely return logits: a linear layer, a convolution, a mean over positions, a sum,
# a normalisation. A division is none, as probabilities may be made by it.
_LINEAR = (
    "AddBackward",
    "AddmmBackward",
    "BaddbmmBackward",
    "BmmBackward",
    "CatBackward",
    "ConvolutionBackward",
    "CudnnBatchNormBackward",
    "LinearBackward",
    "MeanBackward",
    "MmBackward",
    "MulBackward",
    "NativeBatchNormBackward",
    "NativeLayerNormBackward",
    "NegBackward",
    "SubBackward",
    "SumBackward",
)
LINEAR, UNKNOWN = "linear", "unknown"


class Ending(NamedTuple):
    """The end of a model's graph.

    Attributes:
        kind: ``"sigmoid"``, ``"softmax"`` or ``"log_softmax"``; ``"linear"`` for logits; else ``"unknown"``.
        function: the place of this function's output in the graph; None for the other kinds.
        logits: the place of its input.
    """

    kind: str
    function: GradientEdge | None = None
    logits: GradientEdge | None = None


def find_ending(outputs: Tensor) -> Ending:
    """Return how a model ends, from the graph of its outputs ``(N, K)``."""
    node, is_whole = outputs.grad_fn, True
    while node is not None:
        name = node.name().rstrip("0123456789")
        if name in _FUNCTIONS and (is_whole or _FUNCTIONS[name] == "sigmoid"):
            before, place = node.next_functions[0]
            if before is not None:
                return Ending(_FUNCTIONS[name], GradientEdge(node, 0), GradientEdge(before, place))
        if name in _LINEAR:
            return Ending(LINEAR)
        is_whole &= name in _KEEP
        if name not in _KEEP + _SELECT:
            break
        node = node.next_functions[0][0]
    return Ending(UNKNOWN)


def to_logits(outputs: Tensor, kind: str) -> Tensor:
    """Undo the function at the end of a model; those of a softmax are known up to a constant per image.

    Args:
        outputs: ``(N, K)``.
        kind: of `Ending`.

    Returns:
        ``(N, K)``, finite where the outputs are.
    """
    if kind not in ("sigmoid", "softmax"):
        return outputs
    # In float32, a sure network has probabilities of exactly 0 and 1.
    tiny = torch.finfo(outputs.dtype).tiny
    if kind == "softmax":
        return outputs.clamp_min(tiny).log()
    nearest = 1 - torch.finfo(outputs.dtype).eps / 2
    return outputs.clamp(tiny, nearest).logit()


def look_like_probabilities(outputs: Tensor) -> bool:
    """Return True if all outputs ``(N, K)`` lie in 0..1."""
    return bool(((outputs >= 0) & (outputs <= 1)).all())


def gradient_before(outputs: Tensor, ending: Ending, gradient: Tensor) -> Tensor:
    """Carry a gradient of the outputs back over the operations after the function; the function itself is skipped.

    Args:
        outputs: of the model, with their graph.
        ending: of this graph; it has a function.
        gradient: of the score by the logits, in the form of the outputs.
    """
    assert ending.function is not None
    (carried,) = torch.autograd.grad(outputs, [ending.function], gradient.to(outputs.dtype), retain_graph=True)
    return carried
