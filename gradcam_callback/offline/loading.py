"""Load models from checkpoints, for ``python -m gradcam_callback``."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import is_zipfile

import torch
from torch import Tensor, nn
from torchvision import models

# torchvision's VGGs by how many convolutions they have.
_VGGS = {8: "vgg11", 10: "vgg13", 13: "vgg16", 16: "vgg19"}
# The last layer of their classifier.
_HEAD = "classifier.6.weight"
# What the files of torch.save begin with: a zip, and a pickle of old versions. To torch, text may look like a pickle.
_HEADS = (b"PK", b"\x80")
# The names under which programs keep the weights in a file, and the prefixes that wrappers put before their names.
_STATE_NAMES = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("", "module.", "model.", "model.module.", "module.model.")
# What torch.compile puts before the names of the part that it has compiled.
_COMPILED = "_orig_mod."


class Inputs(NamedTuple):
    """How the images of a run were made for the network, as a checkpoint of `GradCAMCallback` says.

    Attributes:
        size: height and width in pixels.
        normalisation: mean and std per channel; None if the images are in 0..1.
        class_names: by index; None if they are not known.
    """

    size: tuple[int, int]
    normalisation: tuple[Sequence[float], Sequence[float]] | None
    class_names: list[str] | None


def read_inputs(checkpoint: Path) -> Inputs | None:
    """Read how images are made for the network of a checkpoint; None if the checkpoint does not say it.

    Raises:
        ValueError: the file cannot be read, or its images were normalised in a way that nobody knows.
    """
    content = _content(checkpoint, mmap=is_zipfile(checkpoint))
    states = content.get("callbacks", {}) if isinstance(content, Mapping) else {}
    found = [state.get("inputs") for state in states.values() if isinstance(state, Mapping)]
    saved = next((inputs for inputs in found if isinstance(inputs, Mapping)), None)
    if saved is None:
        return None
    height, width = saved["size"]
    names = saved["class_names"]
    if saved["mean"] is not None:
        return Inputs((height, width), (saved["mean"], saved["std"]), names)
    low, high = saved["range"]
    if low < -0.05 or high > 1.05:
        raise ValueError(
            f"Expected images in 0..1, or a known mean and std, but the images of the run of {str(checkpoint)!r} have "
            f"values from {low:.2g} to {high:.2g}. Say how they are made: --normalise imagenet or --normalise none."
        )
    return Inputs((height, width), None, names)


def load_model(model: str | None, checkpoint: Path | None) -> nn.Module:
    """Load a model in eval mode, on the CPU.

    Args:
        model: ``"package.module:Name"`` or ``"file.py:Name"``. ``Name`` is a class or function that is called without
            arguments, or a LightningModule with saved hyperparameters. None finds the VGG of torchvision whose weights
            the checkpoint holds.
        checkpoint: of Lightning, or a state dict; None keeps the weights that the model starts with.

    Raises:
        ValueError: both are None, one cannot be read, or they do not fit each other.
    """
    if model is None and checkpoint is None:
        raise ValueError("Expected a model, but got none. Pass --checkpoint FILE, --model MODULE:NAME, or both.")
    state, saved_by_lightning = (None, False) if checkpoint is None else _read(checkpoint)
    if model is None:
        assert state is not None
        return _torchvision_vgg(_uncompiled(state), checkpoint).eval()
    make = _find(model)
    restore = getattr(make, "load_from_checkpoint", None)
    try:
        if restore is not None and saved_by_lightning:
            restored: nn.Module = restore(checkpoint, map_location="cpu")
            return restored.eval()
        made = make()
        if state is not None and isinstance(made, nn.Module):
            made.load_state_dict(_fit_names(state, made))
    except (TypeError, RuntimeError) as error:
        source = f" with {str(checkpoint)!r}" if checkpoint else ""
        raise ValueError(
            f"Expected {model} to make a model{source}, but it failed ({_in_one_line(error)}). Pass a class that needs "
            "no arguments, or a LightningModule that calls save_hyperparameters()."
        ) from error
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"Expected {model} to make a torch.nn.Module, but it made a {type(made).__name__}. Pass a model class."
        )
    return made.eval()


def read_progress(checkpoint: Path) -> tuple[int, int] | None:
    """Read the epoch and the step of Lightning's checkpoint; None for a state dict.

    Raises:
        ValueError: the file cannot be read.
    """
    content = _content(checkpoint, mmap=is_zipfile(checkpoint))  # mmap leaves the weights in the file
    if not isinstance(content, Mapping) or not {"state_dict", "epoch", "global_step"} <= set(content):
        return None
    return int(content["epoch"]), int(content["global_step"])


def hold_same_weights(one: Path, other: Path) -> bool:
    """Return True if two files hold the same weights under the same names.

    Raises:
        ValueError: a file cannot be read, or holds no weights.
    """
    (first, _), (second, _) = _read(one), _read(other)
    return first.keys() == second.keys() and all(_are_equal(first[name], second[name]) for name in first)


def _are_equal(one: Tensor, other: Tensor) -> bool:
    """Return True if the values are equal. NaN equals NaN, as in the weights of a training that diverged."""
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


def _read(checkpoint: Path) -> tuple[dict[str, Tensor], bool]:
    """Return the state dict of a file, and True if Lightning wrote the file."""
    content = _content(checkpoint)
    by_lightning = isinstance(content, Mapping) and {"state_dict", "pytorch-lightning_version"} <= set(content)
    state = content
    for name in _STATE_NAMES:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            state = content[name]
            break
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(
            f"Expected names and tensors in {str(checkpoint)!r}, alone or under one of {', '.join(_STATE_NAMES)}, but "
            "found none. Pass a state dict, or Lightning's checkpoint."
        )
    return dict(state), by_lightning


def _content(checkpoint: Path, mmap: bool = False) -> Any:
    if checkpoint.is_dir():
        raise ValueError(
            f"Expected the file of a checkpoint, but {str(checkpoint)!r} is a folder. Pass one of the files in it."
        )
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=mmap)
    except FileNotFoundError as error:
        raise ValueError(f"Expected a checkpoint, but there is no file {str(checkpoint)!r}. Check the path.") from error
    except Exception as error:
        # New versions of torch read them, if safetensors is installed.
        if checkpoint.suffix == ".safetensors":
            raise ValueError(
                f"Expected weights that torch.load reads, but {str(checkpoint)!r} cannot be read "
                f"({_in_one_line(error)}). Save them anew: torch.save(safetensors.torch.load_file(FILE), 'weights.pt')."
            ) from error
        with open(checkpoint, "rb") as file:
            if not file.read(2).startswith(_HEADS):
                raise ValueError(
                    f"Expected a checkpoint, but {str(checkpoint)!r} is none, as torch.save did not write it. Pass the "
                    "file that holds the weights, such as last.ckpt."
                ) from error
        # Torch's message is a page long. A checkpoint may hold code, which must not run only to show the weights.
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason, hint = type(error).__name__, "Save model.state_dict() instead."
        if refused:
            reason = f"it holds an object of {refused[1]}, whose code would have to run"
            hint = (
                "If you trust the file, save it again without this object: "
                "torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pt'), with the name under "
                "which your weights stand."
            )
        raise ValueError(
            f"Expected weights that torch.load reads with weights_only=True, but {str(checkpoint)!r} cannot be read "
            f"({reason}). {hint}"
        ) from error


def _fit_names(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return a state dict under the names of a model, without what wrappers such as DataParallel add to them."""
    names = set(model.state_dict())
    # A part of the model itself may be compiled.
    for saved in (state, _uncompiled(state)):
        for prefix in _PREFIXES:
            own = {name.removeprefix(prefix): value for name, value in saved.items() if name.startswith(prefix)}
            if names == set(own):
                return own
    return state


def _uncompiled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace(_COMPILED, ""): value for name, value in state.items()}


def _torchvision_vgg(state: Mapping[str, Tensor], checkpoint: Path | None) -> nn.Module:
    heads = {name.removesuffix(_HEAD): len(value) for name, value in state.items() if name.endswith(_HEAD)}
    found = [prefix for prefix in heads if f"{prefix}features.0.weight" in state]
    if len(found) > 1:
        raise ValueError(
            f"Expected the weights of one VGG of torchvision, but {str(checkpoint)!r} holds those of {len(found)}: "
            f"{', '.join(map(repr, found))}. Name the model: --model package.module:Name, or --model file.py:Name."
        )
    prefix = found[0] if found else ""
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    convolutions = [name for name, value in own.items() if name.startswith("features.") and value.ndim == 4]
    name = _VGGS.get(len(convolutions))
    if not found or name is None:
        raise ValueError(
            f"Expected the weights of a VGG of torchvision, but {str(checkpoint)!r} has other names or another "
            "classifier. Name the model: --model package.module:Name, or --model file.py:Name."
        )
    name += "_bn" if any(part.endswith("running_mean") for part in own) else ""
    vgg: nn.Module = models.get_model(name, num_classes=heads[prefix], init_weights=False)
    try:
        vgg.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(
            f"Expected {str(checkpoint)!r} to fit torchvision's {name}, but it does not ({_in_one_line(error)}). Name "
            "the model: --model package.module:Name."
        ) from error
    return vgg


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _find(model: str) -> Callable[[], Any]:
    place, _, name = model.rpartition(":")
    if not place or not name:
        raise ValueError(
            f"Expected package.module:Name or file.py:Name, but {model!r} lacks one of the two. Add the name of the "
            "class after a colon."
        )
    if place.endswith(".py") and not Path(place).is_file():
        raise ValueError(f"Expected file.py:Name, but there is no file {place!r}. Check the path.")
    try:
        if place.endswith(".py"):
            # As if the file were run, so that it can import its neighbours.
            sys.path.insert(0, str(Path(place).resolve().parent))
            module = importlib.import_module(Path(place).stem)
        else:
            module = importlib.import_module(place)
        found: Callable[[], Any] = getattr(module, name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"Expected package.module:Name or file.py:Name, but {model!r} cannot be imported ({error}). Check the name."
        ) from error
    return found
