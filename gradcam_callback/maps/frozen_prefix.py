"""Reuse the outputs of a model's frozen first modules for images that it has seen before.

Fine-tuning usually freezes the early blocks, and the probe set never changes. At every epoch these blocks would
therefore compute the same outputs again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count, takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from gradcam_callback.maps.support import OwnHook

# Bytes that a cache may hold, including the copies of weights and images.
LIMIT = 512_000_000
# Modules whose output depends only on their input, their tensors and their options. Compared by exact type, since a
# subclass may do anything.
_SUPPORTED = {
    nn.AdaptiveAvgPool2d,
    nn.AvgPool2d,
    nn.BatchNorm2d,
    nn.Conv2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
    nn.LeakyReLU,
    nn.MaxPool2d,
    nn.ReLU,
    nn.Sequential,
}


class FrozenPrefix:
    """A cache for the outputs of the frozen modules at the start of each ``nn.Sequential``.

    Before every reuse, the cache compares the images, all parameters and buffers, and the modules' types and options
    with its own copies. It therefore notices any change of a weight: through ``.data``, ``load_state_dict``, averaged
    weights, an optimizer or the forward itself. It then drops the old outputs.

    Before the first target layer, whole modules are spared. From there on the graph is needed, so each module runs, but
    a frozen convolution takes its output from the cache. Convolutions that cost the most per byte of their output come
    first: in a VGG16 those of block 4.

    Some modules are always computed: modules that are not torch's own, that have hooks, that the forward puts in train
    mode, or that have a parameter with ``requires_grad``. So are prefixes without a pooling, as they cost more memory
    than they save time.

    Args:
        limit: bytes that the cache may hold. Outputs beyond the limit are computed each time.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._prefixes: dict[str, _CachedPrefix] = {}

    @property
    def bytes_held(self) -> int:
        """Return the size of the cache in bytes: copies of weights and images, and outputs."""
        return sum(prefix.size for prefix in self._prefixes.values())

    @contextmanager
    def reused(self, model: nn.Module, targets: Iterable[nn.Module]) -> Iterator[None]:
        """Let forward passes of the model, in eval mode, reuse outputs. The target modules themselves always run."""
        target_modules = set(targets)
        found = {
            name: (sequential, frozen)
            for name, sequential, frozen in _find_frozen_prefixes(model)
            if sum(tensor.nbytes for tensor in _tensors(frozen)) < self.limit
        }
        # Prefixes that are no longer frozen are forgotten here.
        self._prefixes = {name: prefix for name, prefix in self._prefixes.items() if name in found}
        with ExitStack() as stack:
            for name, (sequential, frozen) in found.items():
                before = list(takewhile(lambda module: target_modules.isdisjoint(module.modules()), frozen))
                spared = len(before) if _pools(before) else 0
                # An attribute of the instance hides the forward of its class. The Sequential's own hooks still
                # run, and removing the attribute restores everything.
                forward = partial(self._forward, name, list(sequential), spared, len(frozen))
                sequential.__dict__["forward"] = forward
                stack.callback(sequential.__dict__.pop, "forward")
            yield

    def _forward(self, name: str, modules: list[nn.Module], spared: int, frozen: int, images: Tensor) -> Tensor:
        """Run the modules of a Sequential, or reuse what is known.

        Args:
            name: of the Sequential.
            modules: of the Sequential.
            spared: the number of modules before the first target; of these, only the last output is needed.
            frozen: the number of frozen modules.
            images: ``(N, C, H, W)``, or the output of an earlier Sequential.
        """
        convolutions = _reusable_convolutions(modules[spared:frozen])
        # A cached output has no graph, so it would stop the gradient of an earlier layer.
        if images.requires_grad or not (spared or convolutions):
            return _run(modules, images)
        # Only now: a forward may put hooks on its modules, turn a dropout on, or run them on other weights each time.
        if not all(map(_is_supported_and_frozen, modules[:frozen])):
            return _run(modules, images)
        prefix = self._prefix_of(name, modules[:frozen])
        seen = prefix.find(spared, images)
        output = images
        if spared:
            known = seen.outputs.get(_SPARED)
            # A copy, since the next module may write into its input.
            output = _run(modules[:spared], images) if known is None else known.tensor.clone()
            self._keep(prefix, seen, _SPARED, output, float("inf"))
        with ExitStack() as stack:
            next_place = count()
            for convolution in convolutions:
                convolve = partial(self._convolve, prefix, seen, next_place, convolution)
                convolution.__dict__["forward"] = convolve
                stack.callback(convolution.__dict__.pop, "forward")
            output = _run(modules[spared:frozen], output)
        prefix.make_way_for(seen)
        return _run(modules[frozen:], output)

    def _prefix_of(self, name: str, frozen: Sequence[nn.Module]) -> _CachedPrefix:
        """Return the cache of a Sequential, an empty one if its frozen modules have changed."""
        held = self._prefixes.get(name)
        if held is None or not held.matches(frozen):
            held = self._prefixes[name] = _CachedPrefix(frozen)
        return held

    def _convolve(
        self, prefix: _CachedPrefix, seen: _Seen, next_place: Iterator[int], convolution: nn.Conv2d, inputs: Tensor
    ) -> Tensor:
        """Run a frozen convolution, or reuse its output. The order of the calls tells which output it is."""
        place = next(next_place)
        known = seen.outputs.get(place)
        if known is not None:
            reused: Tensor = _KnownConvolution.apply(inputs, convolution.weight, known.tensor, _options(convolution))
            return reused
        output = nn.Conv2d.forward(convolution, inputs)
        # The multiplications for each number of the output.
        self._keep(prefix, seen, place, output, convolution.weight[0].numel())
        return output

    def _keep(self, prefix: _CachedPrefix, seen: _Seen, place: int, output: Tensor, worth: float) -> None:
        """Keep an output if there is room for it, or for less worthy outputs that can make room."""
        # Images with NaN are never found again, since NaN equals nothing.
        if place in seen.outputs or math.isnan(seen.key[-1]):
            return
        needed = output.nbytes + (0 if seen.outputs else seen.images.nbytes)
        if self._make_room(needed, worth):
            prefix.hold(seen)
            seen.outputs[place] = _Known(output.detach().clone(), worth)

    def _make_room(self, needed: int, worth: float) -> bool:
        """Drop outputs of less worth until there is room. Drop none if all of them would not be enough."""
        missing = self.bytes_held + needed - self.limit
        if missing <= 0:
            return True
        less = [
            (known.worth, prefix, seen, place)
            for prefix in self._prefixes.values()
            for seen in prefix.seen.values()
            for place, known in seen.outputs.items()
            if known.worth < worth
        ]
        dropped = []
        for _, prefix, seen, place in sorted(less, key=lambda each: each[0]):
            if missing <= 0:
                break
            dropped.append((prefix, seen, place))
            missing -= seen.outputs[place].tensor.nbytes
        if missing > 0:
            return False
        for prefix, seen, place in dropped:
            prefix.drop(seen, place)
        return True


# The place of the output of the spared modules; those of convolutions are 0, 1, 2 and so on.
_SPARED = -1
# The number of spared modules, the precision of autocast and the sum of the images.
_Key = tuple[int, torch.dtype | None, float]


@dataclass(frozen=True)
class _Known:
    """An output, and how much work it spares per byte."""

    tensor: Tensor
    worth: float


@dataclass(eq=False)
class _Seen:
    """Images that a Sequential was called with, and outputs for them by place.

    Attributes:
        key: of the images.
        images: a copy once it is held.
        outputs: those that are kept.
    """

    key: _Key
    images: Tensor
    outputs: dict[int, _Known] = field(default_factory=dict)


class _CachedPrefix:
    """Copies of the frozen first modules of one Sequential, and their outputs for the images seen so far."""

    def __init__(self, frozen: Sequence[nn.Module]) -> None:
        self._modules = _describe(frozen)
        self._tensors = [tensor.detach().clone() for tensor in _tensors(frozen)]
        self.seen: dict[_Key, _Seen] = {}
        # Calls of which nothing fitted into the cache, since images in it were asked for.
        self._n_refused = 0

    @property
    def size(self) -> int:
        """Return the size in bytes."""
        tensors = [*self._tensors]
        for seen in self.seen.values():
            tensors += [seen.images, *(known.tensor for known in seen.outputs.values())]
        return sum(tensor.nbytes for tensor in tensors)

    def matches(self, frozen: Sequence[nn.Module]) -> bool:
        """Return True if the modules have the copied types and options and, value by value, the copied tensors."""
        tensors = list(_tensors(frozen))
        return (
            _describe(frozen) == self._modules
            and len(tensors) == len(self._tensors)
            and all(_identical(now, then) for now, then in zip(tensors, self._tensors, strict=True))
        )

    def find(self, spared: int, images: Tensor) -> _Seen:
        """Return what is held of these images, or nothing yet."""
        key = (spared, *_fingerprint(images))
        seen = self.seen.get(key)
        if seen is None or not _identical(images, seen.images):
            return _Seen(key, images)
        self._n_refused = 0
        return seen

    def hold(self, seen: _Seen) -> None:
        """Hold images, in place of others with the same key."""
        if self.seen.get(seen.key) is not seen:
            seen.images = seen.images.clone()
            self.seen[seen.key] = seen

    def drop(self, seen: _Seen, place: int) -> None:
        """Drop an output, and with the last one the images."""
        del seen.outputs[place]
        if not seen.outputs:
            del self.seen[seen.key]

    def make_way_for(self, seen: _Seen) -> None:
        """Drop all that is held if nothing of these images fits, and no held image was asked for in a whole round."""
        if not seen.outputs:
            self._n_refused += 1
            if self._n_refused > len(self.seen):
                self.seen.clear()


class _KnownConvolution(torch.autograd.Function):
    """A convolution whose output is known. The backward pass to its input is that of torch."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, known: Tensor, options: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.options = options
        # A copy, since the next module may write into its input.
        return known.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        inputs, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.options
        found, _, _ = torch.ops.aten.convolution_backward(
            *gradients, inputs, weight, None, stride, padding, dilation, False, [0, 0], groups, [True, False, False]
        )
        return found, None, None, None


def _options(convolution: nn.Conv2d) -> tuple[Any, ...]:
    return convolution.stride, convolution.padding, convolution.dilation, convolution.groups


def _reusable_convolutions(modules: Sequence[nn.Module]) -> list[nn.Conv2d]:
    """Return the convolutions among the modules; none if autocast chooses the precision of each call."""
    # One may be called twice.
    convolutions = dict.fromkeys(part for part in _all_modules(modules) if isinstance(part, nn.Conv2d))
    if any(torch.is_autocast_enabled(tensor.device.type) for tensor in _tensors(convolutions)):
        return []
    return [part for part in convolutions if part.padding_mode == "zeros" and not isinstance(part.padding, str)]


def _find_frozen_prefixes(model: nn.Module) -> Iterator[tuple[str, nn.Sequential, list[nn.Module]]]:
    """Yield the name of each Sequential that starts with a frozen convolution, itself, and its frozen first modules."""
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if type(module) is nn.Sequential and module not in inside and "forward" not in module.__dict__:
            frozen = list(takewhile(_is_supported_and_frozen, module))
            # The first module must not write into its input, as a reuse would skip this. A convolution never does.
            if frozen and isinstance(frozen[0], nn.Conv2d) and _pools(frozen):
                inside |= set(_all_modules(frozen))
                yield name, module, frozen


def _is_supported_and_frozen(module: nn.Module) -> bool:
    # Hooks on all modules, such as a profiler's, expect to be called.
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return False
    return all(
        type(part) in _SUPPORTED
        and "forward" not in part.__dict__
        and not part.training
        and all(
            isinstance(hook, OwnHook) for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
        )
        and not any(parameter.requires_grad for parameter in part.parameters(recurse=False))
        # Tensors of other classes, such as sharded tensors, hold only a part of the values to compare.
        and all(type(tensor.detach()) is Tensor for tensor in _tensors([part]))
        for part in module.modules()
    )


def _pools(modules: Iterable[nn.Module]) -> bool:
    """Return True if a pooling is among the modules: outputs before the first one cost much memory for little time."""
    return any(isinstance(module, nn.MaxPool2d) for module in _all_modules(modules))


def _describe(modules: Sequence[nn.Module]) -> tuple[str, list[list[Any]]]:
    """Return the types and the options of modules. The text of an average pooling leaves out some of its options."""
    options = [[getattr(part, name) for name in getattr(part, "__constants__", ())] for part in _all_modules(modules)]
    return repr(modules), options


def _all_modules(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return [part for module in modules for part in module.modules()]


def _tensors(modules: Iterable[nn.Module]) -> Iterator[Tensor]:
    for module in modules:
        yield from module.parameters()
        yield from module.buffers()


def _identical(now: Tensor, then: Tensor) -> bool:
    """Return True if values, dtype, device and strides are equal. NaN never is, so NaN is always computed again."""
    # The strides count, since another memory layout may round differently.
    alike = now.dtype == then.dtype and now.device == then.device and now.stride() == then.stride()
    return alike and torch.equal(now, then)


def _fingerprint(images: Tensor) -> tuple[torch.dtype | None, float]:
    """Return a cheap key for the images under the current autocast; `_identical` decides among equal keys."""
    device = images.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    # Apple's GPU has no float64.
    return autocast, float(images.sum(dtype=torch.float32))


def _run(modules: Iterable[nn.Module], images: Tensor) -> Tensor:
    for module in modules:
        images = module(images)
    return images
