"""Find the VGGs in a model, and name their convolutions as Keras does: ``block5_conv3``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from gradcam_callback.layer_names import block_of

LAST = "last"
# Modules of a VGG's feature stack. Containers do not matter, as only leaf modules are compared.
_STACK_MODULES = (
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.SyncBatchNorm,
    nn.ReLU,
    nn.MaxPool2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
)
# A VGG ends with its fifth pooling. With fewer than three poolings, a few 3 x 3 convolutions do not count as a VGG.
_MAX_POOLINGS, _MIN_POOLINGS = 5, 3


def find_vggs(model: nn.Module) -> dict[str, dict[str, nn.Module]]:
    """Find every VGG feature stack in a model.

    A stack is a run of neighbouring leaf modules: 3 x 3 convolutions, each followed by a ReLU (a batch norm may stand
    between), cut into blocks by max poolings. The runs follow the order in which the modules are registered.

    Returns:
        The dotted name of each stack -> {``"block<b>_conv<c>"``: the ReLU after that convolution}.
    """
    stacks: dict[str, dict[str, nn.Module]] = {}
    for run in _stack_candidates(model):
        relus: dict[str, nn.Module] = {}
        names: list[str] = []
        block, convolution, awaits_relu = 1, 0, False
        for name, module in run:
            if isinstance(module, nn.Conv2d):
                # A convolution without a ReLU, such as an adapter in front of the VGG: the stack starts only here.
                if awaits_relu:
                    relus, names, block, convolution = {}, [], 1, 0
                convolution, awaits_relu = convolution + 1, True
                names.append(name)
            elif isinstance(module, nn.ReLU) and awaits_relu:
                relus[f"block{block}_conv{convolution}"] = module
                awaits_relu = False
            elif isinstance(module, nn.MaxPool2d) and relus:
                block, convolution = block + 1, 0
        # The block number starts at 1 and grows with each pooling.
        if block > _MIN_POOLINGS and not awaits_relu:
            stacks[_common_parent(names)] = relus
    return stacks


def select_convolutions(vggs: Mapping[str, Mapping[str, nn.Module]], name: str) -> dict[str, nn.Module]:
    """Select convolutions by a VGG name: ``"all"``, ``"last"``, a block or a convolution.

    Args:
        vggs: the result of `find_vggs`.
        name: the VGG name, optionally behind the dotted name of a VGG: ``"student.block5"``.

    Returns:
        The full name of each convolution -> the ReLU after it. Empty if ``name`` is not a VGG name.

    Raises:
        ValueError: ``name`` fits several VGGs.
    """
    prefix, _, short = name.rpartition(".")
    candidates = vggs if not prefix else {root: relus for root, relus in vggs.items() if root == prefix}
    matches = {root: _matching(relus, short) for root, relus in candidates.items()}
    matches = {root: convolutions for root, convolutions in matches.items() if convolutions}
    if len(matches) > 1:
        choices = [f"{root}.{short}" if root else short for root in matches]
        raise ValueError(
            f"Expected `target_layers` to name layers of one VGG, but got {name!r} for a model with {len(vggs)} VGGs. "
            f"Choose one of {choices}."
        )
    return {
        f"{prefix}.{convolution}" if prefix else convolution: vggs[root][convolution]
        for root, convolutions in matches.items()
        for convolution in convolutions
    }


def without_compile_wrapper(name: str) -> str:
    """Return a module's dotted name without the part that ``torch.compile`` inserts."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _stack_candidates(model: nn.Module) -> Iterator[list[tuple[str, nn.Module]]]:
    """Yield runs of neighbouring leaf modules that may form a VGG, cut after the fifth pooling."""
    run: list[tuple[str, nn.Module]] = []
    poolings = 0
    for name, module in model.named_modules():
        if list(module.children()):
            continue
        other_kernel = isinstance(module, nn.Conv2d) and module.kernel_size != (3, 3)
        fits = isinstance(module, _STACK_MODULES) and not other_kernel
        if not fits or poolings == _MAX_POOLINGS:
            yield run
            run, poolings = [], 0
        if fits:
            run.append((without_compile_wrapper(name), module))
            poolings += isinstance(module, nn.MaxPool2d)
    yield run


def _matching(convolutions: Mapping[str, nn.Module], short: str) -> list[str]:
    if short == LAST:
        return list(convolutions)[-1:]
    return [name for name in convolutions if short in ("all", name, block_of(name))]


def _common_parent(names: Sequence[str]) -> str:
    """Return the longest dotted prefix of all names."""
    parents = [name.split(".")[:-1] for name in names]
    shared = []
    for parts in zip(*parents, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)
