"""Reuse the outputs of a model's frozen first modules for images that it has seen before.

Fine-tuning usually freezes the early blocks, and the probe set never changes. At every epoch these blocks would
therefore compute the same outputs again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain, takewhile

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

# Bytes that a cache may hold, including the copies of weights and images.
LIMIT = 256_000_000
# Modules whose output depends only on their input, their tensors and the options in their repr. Compared by exact type,
# since a subclass may do anything.
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
    weights or an optimizer. It then drops the old outputs.

    Some modules are always computed: modules that are not torch's own, that have hooks, or that have a parameter with
    ``requires_grad``. So are prefixes without a pooling, as they cost more memory than they save time.

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
        """Let forward passes of the model, in eval mode, reuse outputs from before the first target module."""
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
                if any(isinstance(module, nn.MaxPool2d) for module in _all_modules(before)):
                    if name not in self._prefixes or not self._prefixes[name].matches(frozen):
                        self._prefixes[name] = _CachedPrefix(frozen)
                    # An attribute of the instance hides the forward of its class. The Sequential's own hooks still
                    # run, and removing the attribute restores everything.
                    sequential.__dict__["forward"] = partial(self._forward, name, list(sequential), len(before))
                    stack.callback(sequential.__dict__.pop, "forward")
            yield

    def _forward(self, name: str, modules: list[nn.Module], count: int, images: Tensor) -> Tensor:
        """Run the modules of a Sequential, or reuse the output of the first ``count`` modules and run the rest."""
        # A cached output has no graph, so it would stop the gradient of an earlier layer.
        if images.requires_grad:
            return _run(modules, images)
        prefix, rest = self._prefixes[name], modules[count:]
        key = (count, *_fingerprint(images))
        if key in prefix.outputs and _identical(images, prefix.outputs[key][0]):
            prefix.n_refused = 0
            # A copy, since the next module may write into its input.
            return _run(rest, prefix.outputs[key][1].clone())
        output = _run(modules[:count], images)
        if self.bytes_held + images.nbytes + output.nbytes <= self.limit:
            prefix.outputs[key] = images.clone(), output.clone()
        else:
            prefix.n_refused += 1
            # The cache is full, and for a whole round no image in it was asked for: make room for the new images.
            if prefix.n_refused > len(prefix.outputs):
                prefix.outputs.clear()
        return _run(rest, output)


class _CachedPrefix:
    """Copies of the frozen first modules of one Sequential, and their outputs for the images seen so far."""

    def __init__(self, frozen: Sequence[nn.Module]) -> None:
        self._modules = repr(frozen)
        self._tensors = [tensor.detach().clone() for tensor in _tensors(frozen)]
        # Fingerprint of the images -> the images and their output.
        self.outputs: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}
        # Outputs in a row that did not fit into the cache.
        self.n_refused = 0

    @property
    def size(self) -> int:
        """Return the size in bytes."""
        return sum(tensor.nbytes for tensor in (*self._tensors, *chain(*self.outputs.values())))

    def matches(self, frozen: Sequence[nn.Module]) -> bool:
        """Return True if the modules have the copied types and options and, value by value, the copied tensors."""
        tensors = list(_tensors(frozen))
        return (
            repr(frozen) == self._modules
            and len(tensors) == len(self._tensors)
            and all(_identical(now, then) for now, then in zip(tensors, self._tensors, strict=True))
        )


def _find_frozen_prefixes(model: nn.Module) -> Iterator[tuple[str, nn.Sequential, list[nn.Module]]]:
    """Yield the name of each Sequential that starts with a frozen convolution, itself, and its frozen first modules."""
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if type(module) is nn.Sequential and module not in inside and "forward" not in module.__dict__:
            frozen = list(takewhile(_is_supported_and_frozen, module))
            # The first module must not write into its input, as a reuse would skip this. A convolution never does.
            if frozen and isinstance(frozen[0], nn.Conv2d):
                inside |= set(_all_modules(frozen))
                yield name, module, frozen


def _is_supported_and_frozen(module: nn.Module) -> bool:
    # Hooks on all modules, such as a profiler's, expect to be called.
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return False
    return all(
        type(part) in _SUPPORTED
        and "forward" not in part.__dict__
        and not part._forward_hooks
        and not part._forward_pre_hooks
        and not any(parameter.requires_grad for parameter in part.parameters(recurse=False))
        # Tensors of other classes, such as sharded tensors, hold only a part of the values to compare.
        and all(type(tensor.detach()) is Tensor for tensor in _tensors([part]))
        for part in module.modules()
    )


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


def _fingerprint(images: Tensor) -> tuple[object, ...]:
    """Return a cheap key for the images under the current autocast; `_identical` decides among equal keys."""
    device = images.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return autocast, float(images.sum(dtype=torch.float64))


def _run(modules: Iterable[nn.Module], images: Tensor) -> Tensor:
    for module in modules:
        images = module(images)
    return images
