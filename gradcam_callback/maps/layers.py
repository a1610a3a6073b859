"""Names of layers -> modules: Keras' names for the convolutions of a VGG, dotted names for anything else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from gradcam_callback.layer_names import block_of

# What the feature stack of a VGG is made of, in whatever containers its leaves are wrapped.
_STACK = (nn.Conv2d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.ReLU, nn.MaxPool2d, nn.Dropout, nn.Dropout2d, nn.Identity)
# A VGG ends with its fifth pooling; with fewer than three, a few convolutions of 3 x 3 are not taken for one.
_BLOCKS, _LEAST_POOLS = 5, 3
LAST = "last"


@dataclass(frozen=True)
class Layer:
    """One target: its name, the module whose output is the activation, and whether that output is safe.

    ``overwritten`` is True where the module that follows may write into the output in place. After the ReLU of a
    VGG comes a convolution or a pooling, neither of which does.
    """

    name: str
    module: nn.Module
    overwritten: bool


def resolve_layers(
    model: nn.Module, target_layers: str | Sequence[str] = "all", last: str | None = None
) -> list[Layer]:
    """Find the modules that ``target_layers`` names.

    Args:
        model: any module; a VGG may be nested anywhere in it.
        target_layers: ``"all"``, a block (``"block5"``), a layer (``"block5_conv3"``), the dotted name of any
            module (``"layer4.1.relu"``), ``"last"``, or a sequence of these. Where the model holds several VGGs, all
            but the dotted names take that of one in front: ``"student.block5"``. ``"last"`` is a VGG's last
            convolution; in another model the layer that is laid out in space last.
        last: the dotted name of that layer, see `gradcam_callback.maps.reshape.find_last`; None leaves it out.

    Returns:
        The layers in the model's own order, from input to output, each once.

    Raises:
        ValueError: a name that does not resolve, with the choices; an empty sequence; several VGGs to choose from.

    Examples:
        >>> from torchvision.models import vgg11
        >>> from gradcam_callback.maps.layers import resolve_layers
        >>> model = vgg11()
        >>> [layer.name for layer in resolve_layers(model, ["block5", "block1"])]
        ['block1_conv1', 'block5_conv1', 'block5_conv2']
        >>> resolve_layers(model, "block1_conv1")[0].module is model.features[1]  # the ReLU after it
        True
        >>> resolve_layers(model, "block9")
        Traceback (most recent call last):
        ValueError: target_layers 'block9' is not a layer of this model. Expected 'all', 'last', a block (block1, ...
    """
    many = isinstance(target_layers, Iterable) and not isinstance(target_layers, str)
    wanted = list(target_layers) if many else [target_layers]
    if not wanted:
        raise ValueError("target_layers is empty. Expected 'all', a block, a layer, or a sequence of these.")
    modules = {_plain(name): module for name, module in model.named_modules() if name}
    vggs = find_vggs(model)
    found: dict[str, Layer] = {}
    for name in wanted:
        if not isinstance(name, str):
            raise ValueError(f"target_layers holds {name!r} of type {type(name).__name__}. Expected names (str).")
        if name == LAST and not vggs:
            if last is None:
                continue
            name = _plain(last)
        layers = _vgg_layers(vggs, name) or _dotted_layer(modules, name)
        if not layers:
            raise ValueError(_unknown(name, vggs, modules))
        for layer in layers:
            found.setdefault(layer.name, layer)
    depth = {module: i for i, module in enumerate(model.modules())}
    return sorted(found.values(), key=lambda layer: depth[layer.module])


def find_vggs(model: nn.Module) -> dict[str, dict[str, nn.Module]]:
    """Every VGG feature stack in ``model``: its dotted name -> {``block<b>_conv<c>``: the ReLU after it}.

    A stack is a run of neighbouring leaves that are convolutions of 3 x 3, each followed by its ReLU (perhaps with a
    batch norm between), cut into blocks by max-pools. Runs are taken in the order of registration.
    """
    stacks: dict[str, dict[str, nn.Module]] = {}
    for run in _runs(model):
        names: dict[str, nn.Module] = {}
        paths: list[str] = []
        block, convolution, pending = 1, 0, False
        for path, module in run:
            if isinstance(module, nn.Conv2d):
                if pending:  # a convolution without its ReLU, such as an adapter in front: the stack starts here
                    names, paths, block, convolution = {}, [], 1, 0
                convolution, pending = convolution + 1, True
                paths.append(path)
            elif isinstance(module, nn.ReLU) and pending:
                names[f"block{block}_conv{convolution}"] = module
                pending = False
            elif isinstance(module, nn.MaxPool2d) and names:
                block, convolution = block + 1, 0
        if block > _LEAST_POOLS and not pending:
            stacks[_common_parent(paths)] = names
    return stacks


def _runs(model: nn.Module) -> Iterator[list[tuple[str, nn.Module]]]:
    """Runs of neighbouring leaves that may belong to a VGG, cut after the fifth pooling, where a VGG ends."""
    run: list[tuple[str, nn.Module]] = []
    pools = 0
    for name, module in model.named_modules():
        if list(module.children()):
            continue
        other_kernel = isinstance(module, nn.Conv2d) and module.kernel_size != (3, 3)
        fits = isinstance(module, _STACK) and not other_kernel
        if not fits or pools == _BLOCKS:
            yield run
            run, pools = [], 0
        if fits:
            run.append((_plain(name), module))
            pools += isinstance(module, nn.MaxPool2d)
    yield run


def _vgg_layers(vggs: dict[str, dict[str, nn.Module]], name: str) -> list[Layer]:
    """The layers of ``name`` read as a VGG's, with or without the VGG's own name in front."""
    prefix, _, short = name.rpartition(".")
    candidates = vggs if not prefix else {root: names for root, names in vggs.items() if root == prefix}
    matches = {
        root: list(names)[-1:]
        if short == LAST
        else [layer for layer in names if short in ("all", layer, block_of(layer))]
        for root, names in candidates.items()
    }
    matches = {root: layers for root, layers in matches.items() if layers}
    if len(matches) > 1:
        raise ValueError(
            f"target_layers {name!r} is ambiguous: the model holds {len(vggs)} VGGs. "
            f"Expected one of {[f'{root}.{short}' if root else short for root in matches]}."
        )
    return [
        Layer(f"{prefix}.{layer}" if prefix else layer, vggs[root][layer], overwritten=False)
        for root, layers in matches.items()
        for layer in layers
    ]


def _dotted_layer(modules: dict[str, nn.Module], name: str) -> list[Layer]:
    return [Layer(name, modules[_plain(name)], overwritten=True)] if _plain(name) in modules else []


def _unknown(name: str, vggs: dict[str, dict[str, nn.Module]], modules: dict[str, nn.Module]) -> str:
    came = f"target_layers {name!r} is not a layer of this model."
    dotted = ", ".join(name for name, module in modules.items() if not list(module.children()))
    if not vggs:
        return f"{came} No VGG was found in it; expected 'last', or the dotted name of a module, such as: {dotted}."
    short = [layer for names in vggs.values() for layer in names]
    blocks = sorted({block_of(layer) for layer in short})
    return (
        f"{came} Expected 'all', 'last', a block ({', '.join(blocks)}), a layer ({', '.join(dict.fromkeys(short))}), "
        f"or the dotted name of a module, such as: {dotted}."
    )


def _common_parent(names: Sequence[str]) -> str:
    """The longest dotted prefix that all names share."""
    paths = [name.split(".")[:-1] for name in names]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def _plain(name: str) -> str:
    """A module's name without the wrapper of ``torch.compile``."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
