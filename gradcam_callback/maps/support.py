"""What a model must not be, for exact maps: TorchScript, quantised, or mixing the images of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.batchnorm import _BatchNorm

from gradcam_callback.exceptions import MapError


class OwnHook(partial[Any]):
    """A hook of this package on a module. Its class tells it from hooks of the user's."""


def check_support(model: nn.Module) -> None:
    """Check that a model can be run as a map needs it.

    A TorchScript module takes no hooks. Inside of an ordinary model it does no harm, unless it is a target layer.

    Raises:
        MapError: the model is no module, is a TorchScript module, or holds one that was frozen. Or it is wrapped in
            ``nn.DataParallel``, or by Fabric in mixed precision.
    """
    if not isinstance(model, nn.Module):
        loads = isinstance(model, Mapping)
        advice = "Load it into a model: model.load_state_dict(state)." if loads else "Pass the network itself."
        raise MapError(f"Expected a model, an nn.Module, but got a value of type {type(model).__name__}. {advice}")
    if isinstance(model, nn.DataParallel):
        raise MapError("Expected a model that is not wrapped, but got nn.DataParallel. Pass model.module.")
    for module in model.modules():
        precision = _precision_of_fabric(module)
        if precision is not None and not precision.endswith("-true"):
            raise MapError(
                f"Expected a model that is not wrapped, but got one of Fabric.setup in precision {precision!r}, which "
                "allows no backward pass but its own. Pass its attribute: GradCAM(model.module)."
            )
    if isinstance(model, ScriptModule):
        raise MapError(
            "Expected a model of ordinary modules, but it is TorchScript, which takes no hooks. Pass the model as it "
            "was before torch.jit.script or torch.jit.trace."
        )
    for name, module in model.named_modules():
        if isinstance(module, ScriptModule) and not hasattr(module, "training"):
            raise MapError(
                f"Expected modules that can be set to eval mode, but {name!r} is frozen TorchScript. Leave "
                "torch.jit.freeze out."
            )


def _precision_of_fabric(module: nn.Module) -> str | None:
    """Return the precision of a module of Lightning's Fabric, which is not imported for this."""
    if type(module).__name__ != "_FabricModule":
        return None
    strategy = getattr(module, "_strategy", None)
    return str(getattr(getattr(strategy, "precision", None), "precision", "unknown"))


def check_layers(layers: Mapping[str, nn.Module]) -> None:
    """Check that hooks can be put on the target layers, given by name.

    Raises:
        MapError: one is a TorchScript module, or lies in one.
    """
    for name, module in layers.items():
        if isinstance(module, ScriptModule):
            raise MapError(
                f"Expected `target_layers` to be ordinary modules, but {name!r} is TorchScript, which takes no hooks. "
                "Choose another layer, or pass the model as it was before torch.jit.script or torch.jit.trace."
            )


def hookable_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of a model by their dotted names, without those that take no hooks."""
    return {name: module for name, module in model.named_modules() if not isinstance(module, ScriptModule)}


def mixes_images(model: nn.Module) -> bool:
    """Return True if a batch norm uses the statistics of the batch, even in eval mode."""
    return any(isinstance(module, _BatchNorm) and module.running_mean is None for module in model.modules())


def leads_back(tensor: Tensor) -> bool:
    """Return True if a gradient can go back from a tensor.

    Of a view that was made under no_grad, ``requires_grad`` only seems to say so.
    """
    return tensor.requires_grad and not (tensor.grad_fn is None and tensor._is_view())


def has_graph(outputs: object) -> bool:
    """Return True if a gradient can go back from what a model returned, or from a part of it."""
    seen: set[int] = set()

    def search(part: object) -> bool:
        # An output may refer to itself.
        if id(part) in seen:
            return False
        seen.add(id(part))
        if isinstance(part, Tensor):
            return leads_back(part)
        if isinstance(part, Mapping):
            return any(map(search, part.values()))
        return any(map(search, part if isinstance(part, (list, tuple)) else getattr(part, "__dict__", {}).values()))

    return search(outputs)


def name_obstacle(model: nn.Module, target_detaches: bool) -> str:
    """Say why no gradient arrives, and what to do; completes "..., but ".

    Args:
        model: of the maps.
        target_detaches: True if a gradient could go back from the outputs, but not from what a callable made of them.
    """
    if target_detaches:
        return (
            "your `target` detaches them. Remove the detach(), argmax(), torch.no_grad() or conversion to NumPy "
            "between the outputs and its scores."
        )
    for name, module in model.named_modules():
        if ".quantized." in type(module).__module__:
            return (
                f"the quantised layer {name!r} ({type(module).__name__}) has no gradient. Explain the model as it was "
                "before it was quantised."
            )
    return (
        "the model's forward detaches their outputs. Remove the detach(), argmax() or conversion to NumPy between the "
        "layers and the logits."
    )


def as_input(model: nn.Module, images: Tensor) -> Tensor:
    """Move images to the device and the dtype of a model."""
    # Whole models may be in half precision. A quantised model has no floating parameter to go by.
    floating = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    return images.to(floating[0].device, floating[0].dtype) if floating else images
