"""The frozen base: what a network's frozen first modules computed for images seen before, given out again.

Fine-tuning usually freezes the early blocks, and a probe set never changes, so at every epoch they compute the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain, takewhile

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

# What is kept may take so many bytes, copies of weights and images included.
LIMIT = 256_000_000
# Modules whose output depends on their input, tensors and printed options alone; subclasses may do anything.
_PLAIN = {
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
    """Keeps what frozen modules at the start of an ``nn.Sequential`` gave, and gives it instead of computing it again.

    Nothing is trusted: whenever something is about to be reused, the images, every parameter and buffer, the kinds of
    modules and their options are compared with copies of those that it was computed from. However a weight changed
    (through ``.data``, ``load_state_dict``, a swap of averaged weights, an optimizer), what was kept is dropped.

    Left alone, and so computed as ever: modules that are not torch's own, that have hooks, or that have a parameter
    with ``requires_grad``; and whatever ends before the first pooling, where keeping costs more than computing.

    Args:
        limit: in bytes. What would exceed it is not kept, and computed each time.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._bases: dict[str, _Base] = {}

    @property
    def bytes_held(self) -> int:
        """The size of everything kept: copies of weights and of images, and outputs."""
        return sum(base.size for base in self._bases.values())

    @contextmanager
    def reused(self, model: nn.Module, targets: Iterable[nn.Module]) -> Iterator[None]:
        """Let forwards of ``model``, in eval mode, reuse what comes before the first of the target modules."""
        not_before = set(targets)
        found = {
            name: (sequential, frozen)
            for name, sequential, frozen in _frozen_bases(model)
            if sum(tensor.nbytes for tensor in _tensors(frozen)) < self.limit
        }
        self._bases = {name: base for name, base in self._bases.items() if name in found}
        with ExitStack() as stack:
            for name, (sequential, frozen) in found.items():
                before = list(takewhile(lambda module: not_before.isdisjoint(module.modules()), frozen))
                if any(isinstance(part, nn.MaxPool2d) for part in _all_modules(before)):
                    if name not in self._bases or not self._bases[name].is_of(frozen):
                        self._bases[name] = _Base(frozen)
                    # For this while the Sequential's forward is ours: its hooks are called, and nothing of it changes.
                    sequential.__dict__["forward"] = partial(self._forward, name, list(sequential), len(before))
                    stack.callback(sequential.__dict__.pop, "forward")
            yield

    def _forward(self, name: str, modules: list[nn.Module], count: int, images: Tensor) -> Tensor:
        """What a Sequential of ``modules`` gives, of which the first ``count`` may have been computed before."""
        if images.requires_grad:  # a gradient has to pass, which cannot pass through what was kept
            return _through(modules, images)
        base, rest = self._bases[name], modules[count:]
        key = (count, *_fingerprint(images))
        if key in base.outputs and _same(images, base.outputs[key][0]):
            base.refused = 0
            # A copy, as the next operation may be in-place.
            return _through(rest, base.outputs[key][1].clone())
        output = _through(modules[:count], images)
        if self.bytes_held + images.nbytes + output.nbytes <= self.limit:
            base.outputs[key] = images.clone(), output.clone()
        else:
            base.refused += 1
            if base.refused > len(base.outputs):
                base.outputs.clear()  # nobody has asked for them for long
        return _through(rest, output)


class _Base:
    """The frozen first modules of one Sequential as they are now, and what they gave for which images."""

    def __init__(self, frozen: Sequence[nn.Module]) -> None:
        self._modules = repr(frozen)
        self._tensors = [tensor.detach().clone() for tensor in _tensors(frozen)]
        self.outputs: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}
        self.refused = 0

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(tensor.nbytes for tensor in (*self._tensors, *chain(*self.outputs.values())))

    def is_of(self, frozen: Sequence[nn.Module]) -> bool:
        """Whether these are modules of the same kind and options with, value by value, the same tensors."""
        tensors = list(_tensors(frozen))
        return (
            repr(frozen) == self._modules
            and len(tensors) == len(self._tensors)
            and all(_same(now, then) for now, then in zip(tensors, self._tensors, strict=True))
        )


def _frozen_bases(model: nn.Module) -> Iterator[tuple[str, nn.Sequential, list[nn.Module]]]:
    """Each Sequential that starts with a convolution and other plain frozen modules: its name, itself, and these."""
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if type(module) is nn.Sequential and module not in inside and "forward" not in module.__dict__:
            frozen = list(takewhile(_is_plain_and_frozen, module))
            # A convolution never writes into its input, so whether it runs can make no difference to who gave it.
            if frozen and isinstance(frozen[0], nn.Conv2d):
                inside |= set(_all_modules(frozen))
                yield name, module, frozen


def _is_plain_and_frozen(module: nn.Module) -> bool:
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return False
    return all(
        type(part) in _PLAIN
        and "forward" not in part.__dict__
        and not part._forward_hooks
        and not part._forward_pre_hooks
        and not any(parameter.requires_grad for parameter in part.parameters(recurse=False))
        # Tensors of other classes, such as sharded ones, cannot be compared without their other parts.
        and all(type(tensor.detach()) is Tensor for tensor in _tensors([part]))
        for part in module.modules()
    )


def _all_modules(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return [part for module in modules for part in module.modules()]


def _tensors(modules: Iterable[nn.Module]) -> Iterator[Tensor]:
    for module in modules:
        yield from module.parameters()
        yield from module.buffers()


def _same(now: Tensor, then: Tensor) -> bool:
    """Whether nothing differs, the layout in memory included; NaN equals nothing, and so is computed again."""
    alike = now.dtype == then.dtype and now.device == then.device and now.stride() == then.stride()
    return alike and torch.equal(now, then)


def _fingerprint(images: Tensor) -> tuple[object, ...]:
    """What images have in common with those that they are worth being compared with, and how they are computed."""
    device = images.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return autocast, float(images.sum(dtype=torch.float64))


def _through(modules: Iterable[nn.Module], images: Tensor) -> Tensor:
    for module in modules:
        images = module(images)
    return images
