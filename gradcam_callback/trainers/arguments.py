"""Check the arguments of `GradCAMCallback` before the Trainer is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import Trainer
from torch import nn

from gradcam_callback.drawing import Style
from gradcam_callback.formatting import is_word
from gradcam_callback.maps import GradCAMOptions
from gradcam_callback.maps import check_options as check_map_options
from gradcam_callback.probes import ProbeSet, wants_automatic
from gradcam_callback.run import choose_check

# The types that arguments of `GradCAMCallback` may have.
_TYPES: dict[str, tuple[type, ...]] = {
    "target_layers": (str, nn.Module, Iterable),
    "every_n_epochs": (int, np.integer),
    "views": (str, Iterable),
    "style": (Style, type(None)),
    "save_dir": (str, Path, type(None)),
    "seed": (int, np.integer),
}


def check_arguments(arguments: Mapping[str, Any], options: GradCAMOptions) -> None:
    """Check arguments of `GradCAMCallback` before the Trainer is known.

    Args:
        arguments: by name.
        options: of `GradCAM`.

    Raises:
        TypeError: an unknown option.
        ValueError: a wrong value.
    """
    probe, masks, on_shortcut = arguments["probe"], arguments["masks"], arguments["on_shortcut"]
    _check_probe(probe)
    for name, types in _TYPES.items():
        value = arguments[name]
        if not isinstance(value, types) or isinstance(value, bool):
            expected = " or ".join("None" if each is type(None) else each.__name__ for each in types)
            raise ValueError(
                f"Expected `{name}` to be of type {expected}, but got {type(value).__name__} {value!r:.60}. Leave it "
                "out for the default."
            )
    if arguments["save_dir"] == "":
        raise ValueError(
            "Expected `save_dir` to be a folder or None, but got an empty text. Use '.' for the working directory."
        )
    elsewhere = "Give masks with the images: probe=ProbeSet(images, labels, masks)."
    if wants_automatic(masks, elsewhere) and isinstance(probe, ProbeSet):
        raise ValueError(
            "Expected masks='auto' with images that the callback chooses, but `probe` is a ProbeSet. Pass masks='auto' "
            "to the ProbeSet instead."
        )
    _check_options(options)
    if arguments["every_n_epochs"] < 1:
        raise ValueError(
            f"Expected `every_n_epochs` to be 1 or more, but got {arguments['every_n_epochs']}. Use 1 to log each."
        )
    choose_check(arguments["check_faithfulness"])
    if not (is_word(on_shortcut, ("warn", "stop")) or callable(on_shortcut)):
        raise ValueError(
            f"Expected `on_shortcut` to be 'warn', 'stop' or a callable, but got {on_shortcut!r}. Use 'warn' to only "
            "be told."
        )


def _check_probe(probe: object) -> None:
    if not (probe is None or isinstance(probe, (ProbeSet, str, Path))):
        raise ValueError(
            f"Expected `probe` to be a ProbeSet, a folder or None, but got {type(probe).__name__}. Wrap tensors in "
            "ProbeSet(images, labels), or use None to take images from the validation data."
        )


def _check_options(options: GradCAMOptions) -> None:
    """Check the options of `GradCAM`; ``precision="trainer"`` is one of them here."""
    unknown = sorted(set(options) - set(GradCAMOptions.__annotations__))
    if unknown:
        raise TypeError(
            f"Expected the arguments of GradCAMCallback and the options {sorted(GradCAMOptions.__annotations__)} of "
            f"GradCAM, but got {unknown}. Correct the names."
        )
    # The precision of the Trainer is known only later. GradCAM supports all of them.
    known: GradCAMOptions = (
        {**options, "precision": "full"} if is_word(options.get("precision"), ["trainer"]) else options
    )
    check_map_options(**known)


def resolve_precision(options: GradCAMOptions, trainer: Trainer) -> GradCAMOptions:
    """Replace ``precision="trainer"`` by the precision of `GradCAM` that matches the Trainer's."""
    if options.get("precision") != "trainer":
        return options
    return {**options, "precision": "bf16" if str(trainer.precision).startswith("bf16") else "full"}
