"""Recognise outputs that are probabilities, and go back to their logits.

A model that ends with a sigmoid or softmax, as BCELoss and NLLLoss need it, returns no logits. Its maps would be of
another function, whose gradient vanishes if the model is sure. The last operation of the graph tells it for certain.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

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
# Operations that take some of the values, move them or join them. Behind a softmax they may leave a part of its
# classes, which no longer tells the logits.
_SELECT = (
    "CatBackward",
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
# What makes probabilities. A softmax may be written as exp(z) / exp(z).sum().
_MAKERS = (*_FUNCTIONS, "ExpBackward", "HardsigmoidBackward")
# What makes logits of anything: a linear layer, a convolution, a normalisation, the inverse of what is above.
_LINEAR = (
    "AddmmBackward",
    "BaddbmmBackward",
    "BmmBackward",
    "ConvolutionBackward",
    "CudnnBatchNormBackward",
    "LinearBackward",
    "LogBackward",
    "LogitBackward",
    "MmBackward",
    "MvBackward",
    "NativeBatchNormBackward",
    "NativeGroupNormBackward",
    "NativeLayerNormBackward",
)
# What makes logits unless it is done with probabilities alone: a mean over positions, a sum of two heads, a scale. A
# division may make probabilities also of other numbers, by their sum.
_ARITHMETIC = (
    "AddBackward",
    "MeanBackward",
    "MulBackward",
    "NegBackward",
    "SubBackward",
    "SumBackward",
)
LINEAR, PROBABILITIES, UNKNOWN = "linear", "probabilities", "unknown"


class Ending(NamedTuple):
    """The end of a model's graph.

    Attributes:
        kind: ``"sigmoid"``, ``"softmax"`` or ``"log_softmax"``; ``"linear"`` for logits; else ``"unknown"``.
            ``"probabilities"`` are made of several such functions or of a part of one, and so do not tell their logits.
        function: the place of this function's output in the graph; None for the other kinds.
        logits: the place of its input.
    """

    kind: str
    function: GradientEdge | None = None
    logits: GradientEdge | None = None


def find_ending(outputs: Tensor) -> Ending:
    """Return how a model ends, from the graph of its outputs ``(N, K)``."""
    last = outputs.grad_fn
    if last is None:
        return Ending(UNKNOWN)
    found = (
        _end_at(_FUNCTIONS, _ends(last, lambda node: _name(node) in _KEEP))
        or _end_at(["SigmoidBackward"], _ends(last, lambda node: _name(node) in _KEEP + _SELECT))
        # p and 1 - p of one sigmoid. Their sum tells them from other differences.
        or _add_to_one(outputs)
        and _end_at(["SigmoidBackward"], _ends(last, lambda node: _name(node) in (*_KEEP, *_SELECT, "RsubBackward")))
    )
    if found:
        return found
    sources = _ends(last, lambda node: bool(node.next_functions) and _name(node) not in _MAKERS + _LINEAR)
    if _are(_MAKERS, sources):
        return Ending(PROBABILITIES)
    selected = _ends(last, lambda node: _name(node) in _KEEP + _SELECT)
    scaled = _ends(last, lambda node: _name(node) in (*_KEEP, *_SELECT, *_ARITHMETIC, "DivBackward"))
    return Ending(LINEAR if _are(_LINEAR + _ARITHMETIC, selected) or _are(_LINEAR, scaled) else UNKNOWN)


def _end_at(functions: Collection[str], ends: Sequence[Node]) -> Ending | None:
    """Return the ending if all ways back through a graph end at the same one of some functions."""
    if len(ends) != 1 or _name(ends[0]) not in functions:
        return None
    before, place = ends[0].next_functions[0]
    if before is None:
        return None
    return Ending(_FUNCTIONS[_name(ends[0])], GradientEdge(ends[0], 0), GradientEdge(before, place))


def _add_to_one(outputs: Tensor) -> bool:
    """Return True for two outputs per image whose sum is 1; those that are no numbers do not count."""
    return outputs.shape[1:] == (2,) and not bool(((outputs.sum(dim=1) - 1).abs() > 0.01).any())


def _name(node: Node) -> str:
    return node.name().rstrip("0123456789")


def _are(names: Sequence[str], nodes: Sequence[Node]) -> bool:
    return bool(nodes) and all(_name(node) in names for node in nodes)


def _ends(last: Node, leads_on: Callable[[Node], bool]) -> list[Node]:
    """Return where the ways back through a graph end.

    Args:
        last: where they start.
        leads_on: True for a node that is not an end itself. A division leads to what is divided.
    """
    ends, seen, ahead = [], set(), [last]
    while ahead:
        node = ahead.pop()
        if node in seen:
            continue
        seen.add(node)
        if leads_on(node):
            before = [other for other, _ in node.next_functions if other is not None]
            ahead += before[:1] if _name(node) == "DivBackward" else before
        else:
            ends.append(node)
    return ends


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
