"""Resolve target layers: VGG names as in Keras, dotted module names, and modules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torch.jit import ScriptModule

from gradcam_callback.exceptions import MapError
from gradcam_callback.layer_names import block_of
from gradcam_callback.maps.vgg import LAST, find_vggs, select_convolutions, without_compile_wrapper


@dataclass(frozen=True)
class Layer:
    """A resolved target layer.

    Attributes:
        name: the key of its maps.
        module: the module whose output is the activation.
        needs_copy: True if the forward pass goes on with a copy of this output, since the next module may write into
            it in place. False after the ReLU of a VGG: a convolution or a pooling follows, and neither writes into its
            input.
    """

    name: str
    module: nn.Module
    needs_copy: bool


def resolve_layers(
    model: nn.Module,
    target_layers: str | nn.Module | Sequence[str | nn.Module] = "all",
    last: str | None = None,
    running: Sequence[str] | None = None,
) -> list[Layer]:
    """Find the layers that ``target_layers`` chooses.

    Args:
        model: any module. A VGG may be nested anywhere in it.
        target_layers: one target, or a sequence of targets. A target is a module of the model
            (``model.layer4[1].relu``) or a name:

            - ``"layer4.1.relu"``: the dotted name of any module;
            - ``"all"``: every convolution of a VGG, each after its ReLU;
            - ``"block5"``: the convolutions of one block of a VGG;
            - ``"block5_conv3"``: one convolution of a VGG;
            - ``"last"``: the last convolution of a VGG; in any other model, the last layer with spatial output.

            If the model contains several VGGs, write the dotted name of one in front: ``"student.block5"``.
        last: the dotted name of the last layer with spatial output, see
            `gradcam_callback.maps.last_layer.find_last_layer`. None skips ``"last"``. A VGG does not need it.
        running: the dotted names of the VGGs that the forward runs, see `gradcam_callback.maps.vgg.find_running`. If it
            is only one, names without another in front are of this one. None is not known.

    Returns:
        The layers in the model's order, from input to output, each once. A module is named by its dotted name, without
        the ``_orig_mod`` of ``torch.compile``. A module that is registered twice has its first name.

    Raises:
        ValueError: an unknown name, a module that is not inside the model, an empty sequence, or a VGG name that fits
            several VGGs. The message lists the choices.

    Examples:
        >>> from torchvision.models import vgg11
        >>> from gradcam_callback.maps import resolve_layers
        >>> model = vgg11()
        >>> [layer.name for layer in resolve_layers(model, ["block5", model.features[1]])]
        ['features.1', 'block5_conv1', 'block5_conv2']
        >>> resolve_layers(model, "block1_conv1")[0].module is model.features[1]  # the ReLU after it
        True
        >>> resolve_layers(model, "block9")
        Traceback (most recent call last):
        ValueError: Expected `target_layers` to name layers of the model, but got 'block9'. Choose 'all', 'last', ...
    """
    targets = list_targets(target_layers)
    if not targets:
        raise ValueError(
            "Expected `target_layers` to hold at least one layer, but it is empty. Pass 'all', 'last', a block, a "
            "layer or a module."
        )
    vggs = find_vggs(model)
    modules = {without_compile_wrapper(name): module for name, module in model.named_modules()}
    modules.pop("", None)  # the model itself is not a layer
    layers: dict[str, Layer] = {}
    for target in targets:
        if isinstance(target, str) and target == LAST and not vggs:
            if last is None:
                continue
            target = without_compile_wrapper(last)
        for layer in _resolve_target(model, target, vggs, modules, running):
            layers.setdefault(layer.name, layer)
    # Models register their modules in the order of execution, as a rule. The stages of a VGG may be an exception.
    depth = {module: i for i, module in enumerate(model.modules())}
    for relus in vggs.values():
        depth |= zip(relus.values(), sorted(depth[relu] for relu in relus.values()), strict=True)
    return sorted(layers.values(), key=lambda layer: depth[layer.module])


def find_paths(model: nn.Module, layers: Sequence[Layer]) -> dict[str, str]:
    """Return layer name -> the dotted name of its module, the path to it."""
    names = {module: without_compile_wrapper(name) for name, module in model.named_modules()}
    return {layer.name: names[layer.module] for layer in layers}


def follow_layers(
    model: nn.Module,
    target_layers: Sequence[str | nn.Module],
    last: str | None,
    running: Sequence[str] | None,
    layers: Sequence[Layer],
    paths: Mapping[str, str],
) -> list[Layer]:
    """Find layers again whose modules may have been replaced by others in the same places.

    Args:
        model: this and the next three as in `resolve_layers`.
        layers: as they were found before.
        paths: of these layers at that time, see `find_paths`.

    Raises:
        MapError: a module is gone, and the targets do not choose the same layers any more.
    """
    modules = set(model.modules())
    gone = [layer.name for layer in layers if layer.module not in modules]
    if not gone:
        return list(layers)
    try:
        found = resolve_layers(model, target_layers, last, running)
    except ValueError:
        found = []
    now = find_paths(model, found)
    # If a VGG ends elsewhere, its names may mean other layers. So the path counts, and not the name alone.
    stay = [layer.module for layer in layers if layer.name not in gone]
    moved = [name for name in gone if not f"{now.get(name)}.".startswith(f"{paths[name]}.")]
    if list(now) != list(paths) or moved or stay != [layer.module for layer in found if layer.name not in gone]:
        raise MapError(
            f"Expected the target layers to stay in the model, but it lost the modules of {gone}, and `target_layers` "
            "does not choose the same layers any more. Replace a layer by one of its kind, and choose it by its name; "
            "or begin anew with the changed model."
        )
    return found


def list_targets(target_layers: str | nn.Module | Iterable[str | nn.Module]) -> list[str | nn.Module]:
    """Return the targets as a list, also if there is only one."""
    # An nn.Sequential is iterable, but as a target it is a single module.
    if isinstance(target_layers, (str, nn.Module)) or not isinstance(target_layers, Iterable):
        return [target_layers]
    return list(target_layers)


def _resolve_target(
    model: nn.Module,
    target: str | nn.Module,
    vggs: Mapping[str, Mapping[str, nn.Module]],
    modules: Mapping[str, nn.Module],
    running: Sequence[str] | None,
) -> list[Layer]:
    if isinstance(target, nn.Module):
        name = _name_of(model, target)
        return [Layer(name, modules[name], needs_copy=True)]
    if not isinstance(target, str):
        raise ValueError(
            f"Expected `target_layers` to hold names and modules, but got {target!r} of type {type(target).__name__}. "
            "Pass a name such as 'block5', or a module of the model."
        )
    convolutions = select_convolutions(vggs, target, running)
    if convolutions:
        return [Layer(name, relu, needs_copy=False) for name, relu in convolutions.items()]
    name = without_compile_wrapper(target)
    if name not in modules:
        raise ValueError(_describe_unknown(target, vggs, modules))
    return [Layer(target, modules[name], needs_copy=True)]


def _name_of(model: nn.Module, target: nn.Module) -> str:
    """Return the dotted name of a module in the model."""
    kind = type(target).__name__
    for name, module in model.named_modules():
        if module is target:
            if without_compile_wrapper(name):
                return without_compile_wrapper(name)
            raise ValueError(
                f"Expected `target_layers` to hold modules inside the model, but got the model itself ({kind}). Pass a "
                "module inside it, or the module's dotted name."
            )
    raise ValueError(
        f"Expected `target_layers` to hold modules of the model, but got a {kind} that is not part of it. Pass a "
        "module of this very model, not of a copy, or pass the module's dotted name."
    )


def _describe_unknown(
    target: str, vggs: Mapping[str, Mapping[str, nn.Module]], modules: Mapping[str, nn.Module]
) -> str:
    unexpected = f"Expected `target_layers` to name layers of the model, but got {target!r}"
    scripted = [name for name, module in modules.items() if isinstance(module, ScriptModule)]
    dotted = ", ".join(_list_single(modules))
    if not vggs:
        unread = f" TorchScript, which takes no hooks, is not looked into: {scripted[0]}." if scripted else ""
        return (
            f"{unexpected}, and the model contains no VGG: 3 x 3 convolutions, each with a ReLU of its own, and "
            "poolings. If other modules stand between, only the blocks of a VGG11, 13, 16 or 19 are known for certain."
            f"{unread} Choose 'last', or the dotted name of a module: {dotted}."
        )
    # A name that fits several VGGs needs the name of one in front.
    several = {f"{root}.": relus for root, relus in vggs.items() if root}
    roots = several if len(vggs) > 1 else {"": next(iter(vggs.values()))}
    every = [repr(f"{root}{name}") for name in ("all", LAST) for root in roots]
    layers = [f"{root}{convolution}" for root, relus in roots.items() for convolution in relus]
    blocks = [f"{root}{block}" for root, relus in roots.items() for block in sorted({block_of(each) for each in relus})]
    return (
        f"{unexpected}. Choose {', '.join(every)}, a block ({', '.join(blocks)}), a layer ({', '.join(layers)}), or "
        f"the dotted name of a module: {dotted}."
    )


def _list_single(modules: Mapping[str, nn.Module]) -> list[str]:
    """Return the dotted names of the single layers.

    Left out are what makes their weights: parametrizations, observers of a quantisation, and the parts of a LoRA.
    """
    own = {
        name: module
        for name, module in modules.items()
        if "parametrizations" not in name.split(".") and ".quantization." not in f"{type(module).__module__}."
    }
    found: list[str] = []
    for name, module in own.items():
        parts = [part for other, part in own.items() if other.startswith(f"{name}.")]
        inside = any(name.startswith(f"{layer}.") for layer in found)
        if not inside and not isinstance(module, ScriptModule) and (not parts or _is_lora(name, module, parts)):
            found.append(name)
    return found


def _is_lora(name: str, module: nn.Module, parts: Sequence[nn.Module]) -> bool:
    """Return True for a module of convolutions alone that stands in a sequence, in the place of a layer."""
    leaves = [part for part in parts if not list(part.children())]
    # Elsewhere it may be a network that has no modules for its activations.
    is_in_sequence = name.rpartition(".")[2].isdigit() and not isinstance(module, nn.Sequential)
    return is_in_sequence and all(isinstance(leaf, (nn.Conv2d, nn.Dropout, nn.Identity)) for leaf in leaves)
