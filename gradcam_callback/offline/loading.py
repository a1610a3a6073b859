"""Models out of checkpoints, for what needs no training: ``python -m gradcam_callback``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor, nn
from torchvision import models

# torchvision's VGGs by how many convolutions they have.
_VGGS = {8: "vgg11", 10: "vgg13", 13: "vgg16", 16: "vgg19"}


def load_model(model: str | None, checkpoint: Path | None) -> nn.Module:
    """A model in eval mode, on the CPU.

    Args:
        model: ``"package.module:Name"`` or ``"file.py:Name"``, a class or function that is called without arguments, or
            a LightningModule with saved hyperparameters; None is torchvision's VGG whose weights the checkpoint holds.
        checkpoint: of Lightning, or a state dict; None keeps the weights that the model starts with.

    Raises:
        ValueError: neither came; one of them cannot be read; they do not fit each other.
    """
    if model is None and checkpoint is None:
        raise ValueError("No model came. Expected --checkpoint FILE, --model MODULE:NAME, or both.")
    state, saved_by_lightning = (None, False) if checkpoint is None else _read(checkpoint)
    if model is None:
        assert state is not None
        return _torchvision_vgg(state, checkpoint).eval()
    make = _find(model)
    restore = getattr(make, "load_from_checkpoint", None)
    try:
        if restore is not None and saved_by_lightning:
            restored: nn.Module = restore(checkpoint, map_location="cpu")
            return restored.eval()
        made = make()
        if state is not None:
            made.load_state_dict(state)
    except (TypeError, RuntimeError) as error:
        source = f" with {str(checkpoint)!r}" if checkpoint else ""
        raise ValueError(
            f"{model} cannot be made{source} ({_in_one_line(error)}). Expected a class that needs no arguments, or a "
            "LightningModule that calls save_hyperparameters()."
        ) from error
    if not isinstance(made, nn.Module):
        raise ValueError(f"{model} gives a {type(made).__name__}. Expected a torch.nn.Module.")
    return made.eval()


def read_progress(checkpoint: Path) -> tuple[int, int] | None:
    """The epoch and the step that a checkpoint of Lightning's is from; None where it is a state dict.

    Raises:
        ValueError: it cannot be read.
    """
    content = _content(checkpoint, mmap=is_zipfile(checkpoint))  # so that the weights stay in the file
    if not isinstance(content, Mapping) or not {"state_dict", "epoch", "global_step"} <= set(content):
        return None
    return int(content["epoch"]), int(content["global_step"])


def _read(checkpoint: Path) -> tuple[dict[str, Tensor], bool]:
    """The state dict in a file, and whether Lightning wrote it."""
    content = _content(checkpoint)
    by_lightning = isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping)
    state = content["state_dict"] if by_lightning else content
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{str(checkpoint)!r} holds no state dict. Expected names and tensors, or Lightning's file.")
    return dict(state), by_lightning


def _content(checkpoint: Path, mmap: bool = False) -> Any:
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=mmap)
    except FileNotFoundError as error:
        raise ValueError(f"There is no checkpoint {str(checkpoint)!r}.") from error
    except Exception as error:
        # Torch's words are a page long. A checkpoint may hold code, which is not run for looking at it.
        raise ValueError(
            f"{str(checkpoint)!r} cannot be read as weights ({type(error).__name__}). Expected what torch.load reads "
            "with weights_only=True."
        ) from error


def _torchvision_vgg(state: Mapping[str, Tensor], checkpoint: Path | None) -> nn.Module:
    first = next((name for name in state if name.endswith("features.0.weight")), "")
    prefix = first.removesuffix("features.0.weight")
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    convolutions = [name for name, value in own.items() if name.startswith("features.") and value.ndim == 4]
    head = own.get("classifier.6.weight")
    name = _VGGS.get(len(convolutions))
    if not first or head is None or name is None:
        raise ValueError(
            f"{str(checkpoint)!r} holds no VGG of torchvision's names and classifier. Say whose weights they are: "
            "--model package.module:Name, or --model file.py:Name."
        )
    name += "_bn" if any(part.endswith("running_mean") for part in own) else ""
    vgg: nn.Module = models.get_model(name, num_classes=len(head), init_weights=False)
    try:
        vgg.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(f"{str(checkpoint)!r} does not fit torchvision's {name}: {_in_one_line(error)}") from error
    return vgg


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _find(model: str) -> Callable[[], Any]:
    place, _, name = model.rpartition(":")
    try:
        if place.endswith(".py"):
            # As if it were run: what lies beside it can be imported.
            sys.path.insert(0, str(Path(place).resolve().parent))
            module = importlib.import_module(Path(place).stem)
        else:
            module = importlib.import_module(place)
        found: Callable[[], Any] = getattr(module, name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{model!r} cannot be found ({error}). Expected package.module:Name or file.py:Name."
        ) from error
    return found
