"""Record the activations of chosen layers in a forward pass, with a graph that starts at the first of these layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gradcam_callback.exceptions import MapError
from gradcam_callback.maps.layers import Layer
from gradcam_callback.maps.support import OwnHook, hookable_modules, leads_back


class Activations:
    """The recorded activations of one forward pass.

    Attributes:
        by_layer: layer name -> the layer's output, in the order of recording.
        leaves: the tensors at which the backward pass ends.
        repeated: the layers that ran more than once. Their last output counts.
    """

    def __init__(self) -> None:
        self.by_layer: dict[str, Tensor] = {}
        self.leaves: list[Tensor] = []
        self.repeated: list[str] = []
        self._versions: dict[str, int] = {}
        # True once a layer lies inside of a graph of the forward's own.
        self._is_inside = False

    def begin(self, output: Tensor) -> Tensor:
        """Start a graph at a layer's output if it has none, and return the output with its graph."""
        # Nothing before the first layer needs gradients, so the graph starts here. An output without gradients, such
        # as a parallel branch of the model, starts a graph of its own.
        if not leads_back(output):
            output = output.detach().requires_grad_()
            self.leaves.append(output)
        elif (self._is_inside or not self.leaves) and all(output is not leaf for leaf in self.leaves):
            # The graph starts before the first layer: the forward asks for the gradient of its input. It would find
            # none behind a cut. The way back to one layer need not lead to another, so each is asked for.
            self._is_inside = True
            self.leaves.append(output)
        return output

    def record(self, name: str, output: Tensor) -> None:
        """Record a layer's output, from which a gradient can go back to a leaf."""
        if name in self.by_layer:
            self.repeated.append(name)
        self.by_layer[name] = output
        self._versions[name] = output._version

    def were_overwritten(self) -> bool:
        """Return True if a later operation wrote into a recorded activation in place."""
        return any(self._versions[name] != output._version for name, output in self.by_layer.items())

    def check(self, layer: Layer, n: int, reshape: Callable[[Tensor], Tensor]) -> None:
        """Check that a layer was called, and that ``reshape`` returns ``(n, C, h, w)`` for its output.

        Raises:
            MapError: the layer was not called, ``reshape`` failed, or the shape is another.
        """
        if layer.name not in self.by_layer:
            raise MapError(
                f"Expected layer {layer.name!r} to take part in the model's forward, but it was not called. Choose a "
                "layer that is called, or pass the part of the model that calls it."
            )
        shape = tuple(self.by_layer[layer.name].shape)
        try:
            reshaped = tuple(reshape(self.by_layer[layer.name].detach()).shape)
        except Exception as error:
            raise MapError(
                f"Expected `reshape_transform` to accept the output {shape} of layer {layer.name!r}, but it raised "
                f"{type(error).__name__}: {error}"
            ) from error
        if len(reshaped) != 4 or reshaped[0] != n:
            raise MapError(_describe_wrong_shape(layer.name, n, shape, reshaped))


@contextmanager
def recorded_activations(model: nn.Module, layers: Sequence[Layer]) -> Iterator[Activations]:
    """Record the layers' outputs in a forward pass within the block, and keep gradients on in every module.

    If a module runs more than once, its last output counts: the ReLU of a residual block ends the block. If hooks of
    the user's change an output, the changed one counts.
    """
    activations = Activations()

    def begin(layer: Layer, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        # A hook of the user's may make a tensor of another output.
        if not isinstance(output, Tensor) or output.is_inference() or not output.is_floating_point():
            return output
        # A hook of the user's may write into it, which a leaf refuses.
        began = activations.begin(output)
        return began.clone() if layer.needs_copy and began.is_leaf else began

    def record(layer: Layer, _module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        _check_output(layer.name, output)
        # Again, as a hook of the user's may have returned another tensor.
        activation = activations.begin(output)
        activations.record(layer.name, activation)
        # The next module may write into its input: let it write into a copy.
        return activation.clone() if layer.needs_copy else activation

    def enable_grad(_module: nn.Module, _inputs: Any) -> None:
        # Many transfer-learning models run their frozen features under no_grad inside forward.
        torch.set_grad_enabled(True)

    with ExitStack() as stack:
        for module in hookable_modules(model).values():
            stack.callback(module.register_forward_pre_hook(OwnHook(enable_grad)).remove)
        for layer in layers:
            # Before the hooks of the user's: what they keep for a later part of the forward has to have the graph.
            stack.callback(layer.module.register_forward_hook(OwnHook(begin, layer), prepend=True).remove)
            stack.callback(layer.module.register_forward_hook(OwnHook(record, layer)).remove)
        yield activations


def _check_output(name: str, output: Any) -> None:
    if not isinstance(output, Tensor):
        raise MapError(
            f"Expected layer {name!r} to return one tensor (N, C, h, w), but got {type(output).__name__}. Choose a "
            "module inside it or next to it."
        )
    if not output.is_floating_point():
        raise MapError(
            f"Expected layer {name!r} to return floating point, but got {output.dtype}, which has no gradient. "
            "Choose a layer next to it."
        )
    if output.is_inference():
        raise MapError(
            f"Expected layer {name!r} to run in a mode that allows gradients, but the model's forward runs it under "
            "inference_mode. Use no_grad there instead."
        )


def _describe_wrong_shape(name: str, n: int, shape: tuple[int, ...], reshaped: tuple[int, ...]) -> str:
    if reshaped != shape:
        return (
            f"Expected `reshape_transform` to return (N, C, h, w) with N = {n} for the output {shape} of layer "
            f"{name!r}, but got {reshaped}. Correct it, or choose another layer."
        )
    if len(shape) == 4 and shape[0] < n:
        hint = f"If the forward takes {shape[0]} of the images at a time, pass chunk_size={shape[0]}."
    elif len(shape) == 3:
        hint = "If these are tokens (N, T, C), pass reshape_transform='tokens'."
    else:
        hint = "Choose another layer, or pass a `reshape_transform`."
    return f"Expected layer {name!r} to return (N, C, h, w) with N = {n}, but got {shape}. {hint}"
