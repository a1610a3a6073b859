"""Tell the callbacks of a Trainer apart by their arguments, and recognise one in a checkpoint."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from inspect import Parameter
from itertools import islice
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from gradcam_callback.probes import ProbeSet
from gradcam_callback.random_state import closure_values
from gradcam_callback.run.signature import make_thumbnails

# Pixels a side, levels, and levels of a mask of still smaller copies, which a hash is made of: it bears no difference.
COARSE, LEVELS, FINE = 4, 8, 64
# The arguments that a history depends on, beside the images and the layers.
_MEASURED = ("target_layers", "target", "tag_prefix", "masks", "seed", "method")
_PLAIN = (str, bytes, bool, int, float, complex)
# Deeper nesting means that an object refers to itself, and longer lists hold data.
_DEEPEST, _LONGEST = 8, 50


def identify(arguments: Mapping[str, Any], defaults: Mapping[str, Parameter]) -> dict[str, Any]:
    """Describe the arguments of a callback, in the same way when a run is resumed.

    Two callbacks with the same description cannot be in one Trainer. Arguments that have their defaults are left out,
    so that the description stays the same in a later version with more of them.

    Args:
        arguments: all of `GradCAMCallback` by their names, also the options of `GradCAM`.
        defaults: the parameters of `GradCAMCallback`.

    Returns:
        What the maps are of, as plain values. A hash of the probe set, or the name of its folder. A hash of all other
        arguments.
    """
    plain = {name: _describe(value) for name, value in arguments.items() if name not in ("self", "options", "probe")}
    probe, layers, target = arguments["probe"], arguments["target_layers"], arguments["target"]
    # A run may get a folder of its own, with the time in its path, each time that it is resumed.
    plain["save_dir"] = arguments["save_dir"] and Path(arguments["save_dir"]).name
    given = {
        name: value
        for name, value in plain.items()
        if name not in defaults or value != _describe(defaults[name].default)
    }
    if not isinstance(layers, str):
        each = [layers] if isinstance(layers, nn.Module) else layers
        # The name of a module in its model is not known yet.
        layers = [layer if isinstance(layer, str) else type(layer).__name__ for layer in each]
    explained = f"callable {getattr(target, '__qualname__', type(target).__name__)}" if callable(target) else target
    identity = {name: value for name, value in given.items() if name in _MEASURED}
    identity |= {"target_layers": layers, "target": _describe(explained)}
    # What a module or a callable is, beyond its name.
    others = {name: value for name, value in given.items() if value != identity.get(name)}
    if others:
        identity["others"] = _hash(others)
    if isinstance(probe, ProbeSet):
        identity["probe"] = _hash(_describe_probe(probe))
    elif probe is not None:
        identity["probe"] = Path(probe).name
    return identity


def closest_keys(own: str, keys: Sequence[str]) -> list[str]:
    """Return the state keys of callbacks whose history another callback may go on with: those most like its own.

    Its images may have been read a little differently on another machine. Its other arguments, such as ``views``, may
    be others when a run is resumed.

    Args:
        own: the name of a class followed by what `identify` returns, as Lightning writes it.
        keys: the same of callbacks in a checkpoint.
    """
    likeness: dict[str, int] = {}
    for key in keys:
        try:
            one, two = (ast.literal_eval(text[text.index("{") :]) for text in (key, own))
            free = ("probe", "others")
            if {**one, **dict.fromkeys(free)} == {**two, **dict.fromkeys(free)}:
                likeness[key] = sum(one.get(name) == two.get(name) for name in free)
        except (SyntaxError, TypeError, ValueError):
            continue  # another version wrote it
    return [key for key, value in likeness.items() if value == max(likeness.values())]


def _describe_probe(probe: ProbeSet) -> list[Any]:
    """Describe a probe set by plain values, which are the same if another processor rounds a little differently."""
    judged = probe.verdict_set
    small = adaptive_avg_pool2d(make_thumbnails(judged), COARSE)
    images, masks = small[:, :-1], small[:, -1]
    value_range = (images.max() - images.min()).clamp(min=1e-12)
    # A blurred or noisy copy has the same means, but other differences between neighbours.
    whole = judged.images.float().cpu()
    changes = sum(whole.diff(dim=side).abs().flatten(1).sum(dim=1) for side in (2, 3)) / whole[0].numel()
    roughness = (changes / value_range).clamp(min=1e-3).log2()
    scaled = ((images - images.min()) / value_range * LEVELS, masks * FINE, roughness * LEVELS)
    return [judged.names, judged.labels.tolist(), len(probe), *(part.round().int().tolist() for part in scaled)]


def _describe(value: Any, depth: int = 0) -> Any:
    """Describe any value by plain ones, the same in each process: a callable by its name, its code and its values."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, _PLAIN):
        return value
    if depth > _DEEPEST:
        return type(value).__name__

    def inside(values: Iterable[Any]) -> list[Any]:
        return [_describe(one, depth + 1) for one in values]

    if isinstance(value, (list, tuple)):
        return inside(value[:_LONGEST])
    if isinstance(value, (set, frozenset)):
        # Their order is another one in each process.
        return sorted(map(repr, inside(value))) if len(value) <= _LONGEST else len(value)
    if isinstance(value, Mapping):
        return inside(islice(value.items(), _LONGEST))
    if isinstance(value, CodeType):
        return [value.co_code, list(value.co_names), *inside(value.co_consts)]
    if isinstance(value, partial):
        return inside([value.func, value.args, value.keywords])
    if isinstance(value, MethodType):
        return inside([value.__func__, value.__self__])
    if isinstance(value, FunctionType):
        held = inside([value.__code__, value.__defaults__, value.__kwdefaults__, *closure_values(value)])
        return [value.__module__, value.__qualname__, *held]
    if isinstance(value, (nn.Module, Tensor, np.ndarray)):
        return repr(value)
    if hasattr(value, "__qualname__"):
        return [str(value.__module__), value.__qualname__]
    attributes = {name: one for name, one in getattr(value, "__dict__", {}).items() if isinstance(one, _PLAIN)}
    return [type(value).__module__, type(value).__qualname__, *inside(attributes.items())]


def _hash(content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:8]
