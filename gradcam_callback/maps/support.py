"""What a model must not be, for exact maps: TorchScript, quantised, or mixing the images of a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gradcam_callback.exceptions import MapError


def check_support(model: nn.Module) -> None:
    """Check that hooks can be put on a model.

    Raises:
        MapError: it is a TorchScript module, or holds one; or it is wrapped in ``nn.DataParallel``.
    """
    if isinstance(model, nn.DataParallel):
        raise MapError("Expected a model that is not wrapped, but got nn.DataParallel. Pass model.module.")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            place = f"its module {name!r} is" if name else "it is"
            raise MapError(
                f"Expected a model of ordinary modules, but {place} TorchScript, which takes no hooks. Pass the model "
                "as it was before torch.jit.script or torch.jit.trace."
            )


def mixes_images(model: nn.Module) -> bool:
    """Return True if a batch norm uses the statistics of the batch, even in eval mode."""
    return any(isinstance(module, _BatchNorm) and module.running_mean is None for module in model.modules())


def name_obstacle(model: nn.Module) -> str:
    """Say why no gradient arrives, and what to do; completes "..., but "."""
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
