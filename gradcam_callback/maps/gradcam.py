"""Maps: Grad-CAM of many layers from one forward and one backward, without a trace in the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gradcam_callback.maps.activations import Activations, kept_activations
from gradcam_callback.maps.borrowed import borrowed
from gradcam_callback.maps.chunks import in_chunks, is_out_of_memory
from gradcam_callback.maps.frozen_prefix import FrozenPrefix
from gradcam_callback.maps.layers import LAST, Layer, find_vggs, resolve_layers
from gradcam_callback.maps.logits import predicted_class
from gradcam_callback.maps.methods import METHODS
from gradcam_callback.maps.reshape import RESHAPES, find_last

PRECISIONS = {"full": None, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class CAMs:
    """What one call of `GradCAM` gives, on the device of the images.

    Attributes:
        maps: layer name -> ``(N, h, w)`` at the layer's own resolution, >= 0, raw: never stretched. float32, or
            float64 for a float64 model.
        logits: ``(N, K)``.
        targets: ``(N,)`` int64, the class that each map explains.
        nonfinite: ``(N,)`` bool, True where logits, activations or gradients are NaN or infinite; the maps that this
            makes meaningless are zeros.

    Examples:
        A map by hand: every gradient of class 0 is 0.5, so alpha is, too, and of class 1 it is -1.

        >>> import torch
        >>> from gradcam_callback import GradCAM
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False))
        >>> _ = model[2].weight.data.copy_(torch.tensor([[0.5], [-1.0]]).expand(2, 4))
        >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> cams = GradCAM(model, "0")(image)
        >>> cams.logits.tolist(), cams.targets.tolist()
        ([[5.0, -10.0]], [0])
        >>> cams.maps["0"].tolist()
        [[[0.5, 1.0], [1.5, 2.0]]]
        >>> GradCAM(model, "0")(image, targets=1).maps["0"].tolist()
        [[[0.0, 0.0], [0.0, 0.0]]]
    """

    maps: dict[str, Tensor]
    logits: Tensor
    targets: Tensor
    nonfinite: Tensor


class OutputTransformError(ValueError):
    """The user's ``output_transform`` raised what is its cause."""


class GradCAM:
    """Grad-CAM maps of the chosen layers of a model (Selvaraju et al. 2017, arXiv 1610.02391).

    For the activations ``A_k`` of a layer and the logit ``Y_c`` of the target class before softmax:

        alpha_k = mean over positions of dY_c / dA_k
        map     = ReLU(sum over k of alpha_k A_k)

    All layers come from one forward and one backward. The model runs in eval mode, on detached weights, so weight
    gradients are never computed; its parameters, buffers, ``.grad``, ``requires_grad``, train/eval flags and hooks, the
    random state and the grad mode are afterwards as they were, also after an exception.

    Args:
        model: a module whose ``forward(images)`` gives logits ``(N, K)``. With ``K = 1`` target 1 is the logit and
            target 0 is minus the logit.
        target_layers: see `gradcam_callback.maps.layers.resolve_layers`.
        method: ``"gradcam"``, or another formula of `gradcam_callback.maps.methods`: ``"gradcam++"``, ``"hirescam"``,
            ``"layercam"``.
        precision: ``"full"``, the model's own, also inside autocast; or ``"bf16"``, under autocast, faster where the
            hardware multiplies bfloat16, and coarser.
        chunk_size: how many images go through the model at once, which bounds the memory; None chooses by the device
            and the size of the images. Where memory runs out, it is halved.
        reuse_frozen: whether what the frozen first blocks of the model give is kept, up to 256 MB, and reused as long
            as neither they nor the images have changed, see `gradcam_callback.maps.frozen_prefix`.
        output_transform: makes logits ``(N, K)`` of what ``forward`` gives, where that is a tuple, a dict or anything
            else; differentiable.
        reshape_transform: makes ``(N, C, h, w)`` of what the layers give, where that is something else, and of its
            gradients: ``"tokens"`` (a vision transformer's ``(N, T, C)``, without its class token), ``"channels_last"``
            (``(N, h, w, C)``, as in many Swin transformers), or a callable that moves values and leaves some out.

    Attributes:
        layers: the chosen ones, from input to output; ``"last"`` is among them from the first call on, except in a VGG.

    Raises:
        ValueError: a layer name that does not resolve, an unknown method or precision, with the choices; a chunk size
            below 1.

    Examples:
        >>> import torch
        >>> from torchvision.models import vgg11
        >>> from gradcam_callback import GradCAM
        >>> model = vgg11(num_classes=2)
        >>> cams = GradCAM(model, ["block4", "block5_conv2"])(torch.rand(3, 3, 64, 64), targets=1)
        >>> {layer: tuple(maps.shape) for layer, maps in cams.maps.items()}
        {'block4_conv1': (3, 8, 8), 'block4_conv2': (3, 8, 8), 'block5_conv2': (3, 4, 4)}
        >>> model.training, all(weight.grad is None for weight in model.parameters())
        (True, True)
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: str | Sequence[str] = "all",
        *,
        method: str = "gradcam",
        precision: str = "full",
        chunk_size: int | None = None,
        reuse_frozen: bool = True,
        output_transform: Callable[[Any], Tensor] | None = None,
        reshape_transform: str | Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        check_options(method, precision, chunk_size, reshape_transform)
        self.model = model
        self.target_layers = target_layers
        self.layers = resolve_layers(model, target_layers)
        self._last_is_found = bool(find_vggs(model)) or LAST not in (
            [target_layers] if isinstance(target_layers, str) else target_layers
        )
        self.method = method
        self.precision = precision
        self.chunk_size = chunk_size
        self.output_transform = output_transform
        self.reshape_transform = reshape_transform
        self._frozen = FrozenPrefix() if reuse_frozen else None
        # Set once the model has turned out to overwrite activations or to insist on its own memory format.
        self._careful = False

    def __call__(self, images: Tensor, targets: int | Sequence[int] | Tensor | None = None) -> CAMs:
        """Compute the maps of a batch; each image's maps are what the image alone would give.

        Args:
            images: ``(N, C, H, W)``, already as the model takes them, on the model's device.
            targets: the class to explain: None (each image's predicted class), one for all, or one per image.

        Raises:
            ValueError: images that are not ``(N, C, H, W)``, logits that are not ``(N, K)``, targets outside them, a
                layer that takes no part in the forward or whose output is not ``(N, C, h, w)``.

        Examples:
            >>> import torch
            >>> from gradcam_callback import GradCAM
            >>> class Net(torch.nn.Sequential):
            ...     def forward(self, images):
            ...         return super().forward(images).mean(dim=(2, 3))
            >>> model = Net(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 5, 1))
            >>> cam, images = GradCAM(model, "1"), torch.rand(2, 3, 16, 16)
            >>> torch.equal(cam(images).targets, model(images).argmax(dim=1))
            True
            >>> cam(images, targets=[4, 0]).targets.tolist()
            [4, 0]
        """
        if not isinstance(images, Tensor) or images.ndim != 4 or not len(images):
            came = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise ValueError(f"images came as {came}. Expected a tensor (N, C, H, W) with N of at least 1.")
        with borrowed(self.model, PRECISIONS[self.precision]):
            wanted = _targets_per_image(targets, len(images))
            if not self._last_is_found:
                self._find_last(images[:1])
            logits, classes, nonfinite, *maps = in_chunks(
                lambda chunk: self._chunk(images[chunk], None if wanted is None else wanted[chunk]),
                images,
                self.chunk_size,
            )
        by_name = {layer.name: raw for layer, raw in zip(self.layers, maps, strict=True)}
        return CAMs(by_name, logits, classes, nonfinite)

    def predict(self, images: Tensor) -> Tensor:
        """Logits ``(N, K)`` of a forward alone, computed like those of a map, and as traceless.

        Examples:
            >>> import torch
            >>> from gradcam_callback import GradCAM
            >>> model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Flatten(), torch.nn.Linear(12, 2))
            >>> images = torch.rand(4, 3, 2, 2)
            >>> logits = GradCAM(model, "0").predict(images)
            >>> torch.allclose(logits, model.eval()(images)), logits.requires_grad
            (True, False)
        """
        with borrowed(self.model, PRECISIONS[self.precision]):
            (logits,) = in_chunks(lambda chunk: [self._forward(_usable(images[chunk]), [])[1]], images, self.chunk_size)
        return logits

    def _find_last(self, image: Tensor) -> None:
        size = image.shape[2], image.shape[3]
        with torch.no_grad():
            last = find_last(self.model, lambda: self._detached_forward(_usable(image)), size)
        self.layers = resolve_layers(self.model, self.target_layers, last)
        self._last_is_found = True

    def _chunk(self, images: Tensor, wanted: Tensor | None) -> list[Tensor]:
        """Logits, classes, which images are not finite, and each layer's maps."""
        kept, logits = self._forward(_usable(images), self.layers)
        as_map = self._as_map(images)
        for layer in self.layers:
            kept.check(layer, len(images), as_map)
        classes = predicted_class(logits) if wanted is None else wanted.to(logits.device)
        _check_targets(classes, logits.shape[1])
        scores = _scores(logits, classes)
        maps = _backward_to_maps(scores, kept, METHODS[self.method], as_map)
        nonfinite = ~logits.isfinite().all(dim=1)
        for name, raw in maps.items():
            meaningless = ~(raw.isfinite().flatten(1).all(dim=1) & scores.isfinite())
            maps[name] = raw.masked_fill(meaningless[:, None, None], 0.0)
            nonfinite |= meaningless
        return [logits.detach(), classes, nonfinite, *(maps[layer.name] for layer in self.layers)]

    def _as_map(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        """What makes ``(N, C, h, w)`` of a layer's output for these images."""
        given = self.reshape_transform
        if isinstance(given, str):
            reshape, size = RESHAPES[given], (images.shape[2], images.shape[3])
            return lambda output: reshape(output, size)
        return given or (lambda output: output)

    def _forward(self, images: Tensor, layers: Sequence[Layer]) -> tuple[Activations, Tensor]:
        """Forward on the fast path; where the model does not bear it, from then on with care.

        The fast path hands the activations themselves on, and on a CPU lays the images out channels_last, for which
        its convolutions are faster. A model that writes into an activation gives itself away by the tensor's version
        or by an error of autograd's, one that calls ``view`` on its features by an error too.
        """
        if not self._careful:
            fast = images.contiguous(memory_format=torch.channels_last) if images.device.type == "cpu" else images
            try:
                with self._hooked(layers) as kept:
                    logits = self._detached_forward(fast)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
            else:
                if not kept.overwritten():
                    return kept, logits
        with self._hooked([replace(layer, overwritten=True) for layer in layers]) as kept:
            logits = self._detached_forward(images)
        self._careful = True
        return kept, logits

    def _detached_forward(self, images: Tensor) -> Tensor:
        """Forward with detached parameters, so that no gradient can reach a weight, and with copies of the buffers."""
        state = {name: _usable(parameter) for name, parameter in self.model.named_parameters()}
        state |= {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        logits: Tensor = torch.func.functional_call(self.model, state, (images,))
        if self.output_transform is not None:
            try:
                logits = self.output_transform(logits)
            except Exception as error:
                raise OutputTransformError(f"Your output_transform raised {type(error).__name__}: {error}") from error
        _check_logits(logits, len(images), "forward" if self.output_transform is None else "output_transform")
        return logits

    @contextmanager
    def _hooked(self, layers: Sequence[Layer]) -> Iterator[Activations]:
        with ExitStack() as stack:
            if self._frozen is not None:
                stack.enter_context(self._frozen.reused(self.model, [layer.module for layer in layers]))
            yield stack.enter_context(kept_activations(self.model, layers))


def joined(parts: Sequence[CAMs]) -> CAMs:
    """The maps of several calls for the same layers as those of one, in the order of the images."""
    if len(parts) == 1:
        return parts[0]
    maps = {layer: torch.cat([part.maps[layer] for part in parts]) for layer in parts[0].maps}
    logits, targets, nonfinite = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("logits", "targets", "nonfinite")
    )
    return CAMs(maps, logits, targets, nonfinite)


def check_options(method: str, precision: str, chunk_size: int | None, reshape_transform: object = None) -> None:
    """Raise the ValueError of a wrong option, with what came and the choices."""
    if method not in METHODS:
        raise ValueError(f"method is {method!r}. Expected one of {sorted(METHODS)}.")
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}. Expected one of {sorted(PRECISIONS)}.")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}. Expected a number of images, 1 or more, or None.")
    if not (reshape_transform is None or callable(reshape_transform) or reshape_transform in RESHAPES):
        choices = ", ".join(map(repr, RESHAPES))
        raise ValueError(f"reshape_transform is {reshape_transform!r}. Expected {choices}, a callable, or None.")


def _usable(tensor: Tensor) -> Tensor:
    """Detached, and a copy where the tensor was made under inference_mode, which autograd refuses."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _backward_to_maps(
    scores: Tensor,
    kept: Activations,
    method: Callable[[Tensor, Tensor], Tensor],
    as_map: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Reduce each gradient to its map as it arrives, so that only one is held at a time.

    Images do not mix, so the gradient of the sum of their scores is each image's own. A layer that the scores do not
    depend on has a zero gradient and so a map of zeros.
    """
    if not scores.requires_grad:
        raise ValueError(
            f"The logits depend on none of the layers {list(kept.by_layer)}: the model's forward detaches what "
            "they give. Expected a forward that gradients can pass."
        )
    activations = kept.by_layer
    maps = {name: _empty_map(as_map(activation.detach())) for name, activation in activations.items()}

    def reduce_to_map(name: str, gradient: Tensor) -> None:
        dtype = maps[name].dtype
        # Autocast, where it is on, is for the model and not for the formula.
        with torch.autocast(gradient.device.type, enabled=False):
            activation = as_map(activations.pop(name).detach())
            maps[name] = method(activation.to(dtype), as_map(gradient).to(dtype)).relu()

    for name, activation in activations.items():
        activation.register_hook(partial(reduce_to_map, name))
    torch.autograd.grad(scores.sum(), kept.leaves, allow_unused=True)
    return maps


def _empty_map(activation: Tensor) -> Tensor:
    """Zeros ``(N, h, w)``, float64 for float64 activations and float32 for all others."""
    n, _, h, w = activation.shape
    dtype = torch.float64 if activation.dtype == torch.float64 else torch.float32
    return torch.zeros(n, h, w, dtype=dtype, device=activation.device)


def _scores(logits: Tensor, classes: Tensor) -> Tensor:
    """``(N,)``: each image's logit of its class; of a single logit, the logit for 1 and minus the logit for 0."""
    if logits.shape[1] == 1:
        return logits[:, 0] * (2 * classes - 1)
    return logits.gather(1, classes[:, None])[:, 0]


def _targets_per_image(targets: int | Sequence[int] | Tensor | None, n: int) -> Tensor | None:
    if targets is None:
        return None
    given = _usable(torch.as_tensor(targets))
    if given.is_floating_point() or given.dtype == torch.bool:
        raise ValueError(f"targets came as {given.dtype}. Expected integers: the class that each map explains.")
    if given.ndim > 1 or (given.ndim == 1 and len(given) != n):
        raise ValueError(f"targets came with shape {tuple(given.shape)}. Expected one int, or one per image ({n}).")
    return given.long().expand(n)


def _check_logits(logits: Any, n: int, giver: str) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != n:
        came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        hint = "" if isinstance(logits, Tensor) else " Say how to get them with output_transform=lambda outputs: ..."
        raise ValueError(f"The model's {giver} gave {came}. Expected logits (N, K) with N = {n}.{hint}")


def _check_targets(classes: Tensor, k: int) -> None:
    """Raise a ValueError where a class lies outside ``k`` logits (one logit has the classes 0 and 1)."""
    count = max(k, 2)
    outside = sorted({int(c) for c in classes if not 0 <= int(c) < count})
    if outside:
        raise ValueError(f"Classes {outside} are outside the model's {k} logits. Expected 0 to {count - 1}.")
