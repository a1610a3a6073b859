"""Find the VGGs in a model, and name their convolutions as Keras does: ``block5_conv3``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import nn

from gradcam_callback.exceptions import MapError
from gradcam_callback.layer_names import block_of

LAST = "last"
# The numbers of convolutions in the blocks of a VGG11, 13, 16 and 19.
_KNOWN = ((1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4))
_BLOCKS = 5
# With fewer poolings, a few 3 x 3 convolutions do not count as a VGG.
_MIN_POOLINGS = 3
# What may stand between a convolution and its ReLU.
_BEFORE_RELU = (
    nn.BatchNorm2d,
    nn.SyncBatchNorm,
    nn.InstanceNorm2d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
)
# What begins a decoder, which is no part of the VGG in front of it.
_DECODES = (nn.ConvTranspose2d, nn.Upsample, nn.PixelShuffle)


class _Convolution(NamedTuple):
    """A convolution with its dotted name, and the ReLU after it."""

    name: str
    module: nn.Conv2d
    relu: nn.ReLU


@dataclass(eq=False)
class _Chain:
    """Convolutions, each of which takes as many channels as the one before gives.

    Attributes:
        blocks: of convolutions, between poolings.
        channels: of the last output.
        follows: True if another convolution gives the channels that the first one takes.
        interrupted: True if another module stands behind the last convolution.
        has_gaps: True if other modules stand between the convolutions, or in place of a pooling.
        passes: the channels that another convolution behind the last one gives, if it takes those of the chain.
        is_uncertain: True if such a convolution lies between, so that one may be missing.
    """

    blocks: list[list[_Convolution]] = field(default_factory=lambda: [[]])
    channels: int = 0
    follows: bool = False
    interrupted: bool = False
    has_gaps: bool = False
    passes: int | None = None
    is_uncertain: bool = False

    def add(self, convolution: _Convolution) -> None:
        """Add a convolution to the last block."""
        if len(self.blocks) <= _BLOCKS:
            self.has_gaps |= self.interrupted
            self.is_uncertain |= self.passes == convolution.module.in_channels
        self.interrupted, self.passes, self.channels = False, None, convolution.module.out_channels
        self.blocks[-1].append(convolution)

    def pool(self) -> None:
        """Begin another block."""
        if self.blocks[-1]:
            self.has_gaps |= self.interrupted
            self.blocks.append([])

    def shrink(self, channels: int) -> None:
        """Begin another block by a convolution with a stride, which gives so many channels."""
        self.pool()
        self.has_gaps, self.channels = True, channels

    def interrupt(self, module: nn.Module) -> None:
        """Note that another module stands behind the last convolution."""
        self.interrupted = True
        if isinstance(module, nn.Conv2d) and module.in_channels == self.channels:
            self.passes = module.out_channels

    def name(self) -> str:
        """Return the dotted name of the last convolution."""
        return next(block[-1].name for block in reversed(self.blocks) if block)


def find_vggs(model: nn.Module) -> dict[str, dict[str, nn.Module]]:
    """Find every VGG feature stack in a model.

    A stack is a chain of 3 x 3 convolutions, each followed by a ReLU; a norm may stand between. Poolings, or
    convolutions with a stride in their place, cut it into blocks. The chain follows the order in which modules are
    registered, unless two stages make a whole VGG only the other way round.

    Some stacks have to have the blocks of a VGG11, 13, 16 or 19, as the names would not be certain otherwise. These are
    stacks with other modules between the convolutions, such as attention, and stacks behind another convolution. With
    another convolution between that may be a part of it, a stack is no VGG. An adapter of the channels in front and a
    head behind do not count.

    Returns:
        The dotted name of each stack -> {``"block<b>_conv<c>"``: the ReLU after that convolution}.
    """
    stacks: dict[str, dict[str, nn.Module]] = {}
    for chain in _in_order([chain for chain in _find_chains(model) if not chain.is_uncertain]):
        blocks = _cut_to_known(chain.blocks)
        if chain.has_gaps or chain.follows:
            is_vgg = blocks is not None and _counts(blocks) in _KNOWN
        else:
            is_vgg = len(chain.blocks) > _MIN_POOLINGS
        if is_vgg:
            blocks = blocks or [block for block in chain.blocks if block][:_BLOCKS]
            stacks[_common_parent([convolution.name for block in blocks for convolution in block])] = {
                f"block{b}_conv{c}": convolution.relu
                for b, block in enumerate(blocks, 1)
                for c, convolution in enumerate(block, 1)
            }
    return stacks


class SeveralVGGsError(MapError):
    """An error that says that a name fits several VGGs."""


def find_running(vggs: Mapping[str, Mapping[str, nn.Module]], forward: Callable[[], object]) -> list[str]:
    """Return the dotted names of the VGGs that a forward pass runs, such as a student, but not its teacher.

    Args:
        vggs: the result of `find_vggs`.
        forward: runs the model on one image.
    """
    running: list[str] = []
    with ExitStack() as stack:
        for root, relus in vggs.items():
            first = next(iter(relus.values()))
            stack.callback(first.register_forward_hook(lambda *_, root=root: running.append(root)).remove)
        forward()
    return list(dict.fromkeys(running))


def select_convolutions(
    vggs: Mapping[str, Mapping[str, nn.Module]], name: str, running: Sequence[str] | None = None
) -> dict[str, nn.Module]:
    """Select convolutions by a VGG name: ``"all"``, ``"last"``, a block or a convolution.

    Args:
        vggs: the result of `find_vggs`.
        name: the VGG name, optionally behind the dotted name of a VGG: ``"student.block5"``.
        running: the VGGs that the forward runs. A name without a prefix means the only one of them. None is not known.

    Returns:
        The full name of each convolution -> the ReLU after it. Empty if ``name`` is not a VGG name.

    Raises:
        SeveralVGGsError: ``name`` fits several VGGs.
    """
    prefix, _, short = name.rpartition(".")
    only = prefix or (running[0] if running is not None and len(running) == 1 else "")
    candidates = vggs if not only else {root: relus for root, relus in vggs.items() if root == only}
    matches = {root: _matching(relus, short) for root, relus in candidates.items()}
    matches = {root: convolutions for root, convolutions in matches.items() if convolutions}
    if len(matches) > 1:
        choices = [f"{root}.{short}" for root in matches if root]
        which = "" if running is None else f", of which its forward runs {running or 'none'}"
        raise SeveralVGGsError(
            f"Expected `target_layers` to name layers of one VGG, but got {name!r} for a model with {len(vggs)} VGGs"
            f"{which}. Choose one of {choices}, or the dotted name of a module."
        )
    return {
        f"{prefix}.{convolution}" if prefix else convolution: vggs[root][convolution]
        for root, convolutions in matches.items()
        for convolution in convolutions
    }


def without_compile_wrapper(name: str) -> str:
    """Return a module's dotted name without the part that ``torch.compile`` inserts."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _find_chains(model: nn.Module) -> list[_Chain]:
    """Return all chains, in the order in which they begin."""
    chains: list[_Chain] = []
    open_chains: list[_Chain] = []  # the one that went on last is the last one
    outputs: set[int] = set()  # the channels that convolutions have given so far
    waiting: tuple[str, nn.Conv2d] | None = None  # a convolution whose ReLU has not come yet
    for name, module in _leaves(model):
        if isinstance(module, _BEFORE_RELU):
            continue
        if isinstance(module, nn.ReLU):
            if waiting is not None:
                chain = _take(open_chains, *waiting)
                if chain is None:
                    # An adapter gives the three channels of an image.
                    chain = _Chain(follows=waiting[1].in_channels in outputs - {3})
                    chains.append(chain)
                chain.add(_Convolution(*waiting, module))
                open_chains.append(chain)
                outputs.add(chain.channels)
                waiting = None
            continue
        if waiting is not None:
            _interrupt(open_chains, waiting[1])
            outputs.add(waiting[1].out_channels)
            waiting = None
        if isinstance(module, nn.MaxPool2d) or (isinstance(module, nn.AvgPool2d) and _has_stride(module)):
            if open_chains:
                open_chains[-1].pool()
        elif isinstance(module, nn.Conv2d):
            chain = _take(open_chains, name, module) if _has_stride(module) else None
            if chain is not None:
                chain.shrink(module.out_channels)
                open_chains.append(chain)
            elif module.kernel_size == (3, 3) and module.groups == 1:
                waiting = name, module
            else:
                _interrupt(open_chains, module)
                outputs.add(module.out_channels)
        else:
            _interrupt(open_chains, module)
            if isinstance(module, _DECODES):
                open_chains.clear()
    return chains


def _leaves(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield modules without parts, each with its dotted name.

    Parametrizations are no parts of a convolution. An adapter of peft's, such as a LoRA, stands in the place of the
    convolution that it holds.
    """
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        adapted = getattr(module, "base_layer", None)
        leaf = adapted if isinstance(adapted, nn.Conv2d) else module
        if module not in inside and (isinstance(leaf, nn.Conv2d) or not list(module.children())):
            inside |= set(module.modules())
            yield without_compile_wrapper(name), leaf


def _has_stride(module: nn.Conv2d | nn.AvgPool2d) -> bool:
    stride = module.stride if isinstance(module.stride, tuple) else (module.stride,)
    return min(stride) > 1


def _take(chains: list[_Chain], name: str, convolution: nn.Conv2d) -> _Chain | None:
    """Remove and return the chain that goes on with a convolution; None if there is none.

    Of several, it is the one in the same part of the model. If nothing tells them apart, it is none of them.
    """
    fitting = [chain for chain in chains if chain.channels == convolution.in_channels]
    if not fitting:
        return None
    shared = [len(_common_parent([name, chain.name()])) for chain in fitting]
    nearest = [chain for chain, length in zip(fitting, shared, strict=True) if length == max(shared)]
    if len(nearest) > 1:
        return None
    chains.remove(nearest[0])
    return nearest[0]


def _interrupt(chains: Sequence[_Chain], module: nn.Module) -> None:
    for chain in chains:
        chain.interrupt(module)


def _in_order(chains: Sequence[_Chain]) -> list[_Chain]:
    """Join stages that are registered in another order than they run, if they make a whole VGG."""
    left = list(chains)
    for late in chains:
        for early in chains:
            if late in left and early in left and early.blocks[0][0].module.in_channels == late.channels:
                blocks = [*late.blocks[:-1], late.blocks[-1] + early.blocks[0], *early.blocks[1:]]
                if early is not late and _counts(blocks) in _KNOWN:
                    left[left.index(early)] = _Chain(blocks, early.channels)
                    left.remove(late)
    return left


def _cut_to_known(blocks: Sequence[list[_Convolution]]) -> list[list[_Convolution]] | None:
    """Leave out convolutions in front and behind until the blocks are those of a known VGG, or of its first blocks.

    Returns:
        As many convolutions as possible; None if they are no VGG's.
    """
    blocks = [block for block in blocks if block]
    found = []
    for start in range(max(1, len(blocks) - _BLOCKS + 1)):
        for known in _KNOWN:
            cut = _cut_to(known, blocks[start : start + _BLOCKS], has_front=start > 0)
            if cut is not None:
                found.append(cut)
    return max(found, key=lambda cut: sum(_counts(cut)), default=None)


def _cut_to(
    known: Sequence[int], blocks: Sequence[list[_Convolution]], has_front: bool
) -> list[list[_Convolution]] | None:
    """Return the blocks without an adapter in front and a head behind; None if the others are not those of this VGG.

    Args:
        known: the numbers of convolutions in the blocks of a VGG.
        blocks: at most as many.
        has_front: True if other blocks stand in front of these.
    """
    # What is no part of the VGG makes three channels for it, since it was trained on colour images.
    takes_colours = blocks[0][-known[0] :][0].module.in_channels == 3
    if has_front and not takes_colours:
        return None
    cut = [blocks[0][-known[0] :] if takes_colours else blocks[0], *blocks[1:]]
    wanted = known[len(cut) - 1]
    own = [*cut[:-1], cut[-1][:wanted]]
    inside = _common_parent([convolution.name for block in own for convolution in block])
    # A head lies in another part of the model.
    if inside and not any(convolution.name.startswith(f"{inside}.") for convolution in cut[-1][wanted:]):
        cut = own
    counts = _counts(cut)
    # A VGG that ends early has fewer convolutions in its last block.
    fits = counts[:-1] == tuple(known[: len(cut) - 1]) and counts[-1] <= wanted
    return cut if fits and (counts == tuple(known) or not has_front) else None


def _counts(blocks: Sequence[list[_Convolution]]) -> tuple[int, ...]:
    return tuple(len(block) for block in blocks if block)


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
