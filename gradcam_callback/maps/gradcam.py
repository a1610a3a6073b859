"""Compute Grad-CAM maps of many layers in one forward and one backward pass, and leave the model as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from gradcam_callback.maps.activations import Activations, recorded_activations
from gradcam_callback.maps.backward import backward_to_maps, select_scores
from gradcam_callback.maps.borrowed import borrowed
from gradcam_callback.maps.cams import CAMs
from gradcam_callback.maps.checks import (
    PRECISIONS,
    check_images,
    check_logits,
    check_options,
    check_targets,
    targets_per_image,
)
from gradcam_callback.maps.chunks import compute_in_chunks, is_out_of_memory
from gradcam_callback.maps.frozen_prefix import FrozenPrefix
from gradcam_callback.maps.last_layer import find_last_layer
from gradcam_callback.maps.layers import Layer, list_targets, resolve_layers
from gradcam_callback.maps.logits import predicted_class
from gradcam_callback.maps.methods import METHODS
from gradcam_callback.maps.reshape import RESHAPES
from gradcam_callback.maps.vgg import LAST, find_vggs


class GradCAMOptions(TypedDict, total=False):
    """The keyword arguments of `GradCAM`, for functions that pass them on as ``**options: Unpack[GradCAMOptions]``."""

    method: str
    precision: str
    chunk_size: int | None
    reuse_frozen: bool
    output_transform: Callable[[Any], Tensor] | None
    reshape_transform: str | Callable[[Tensor], Tensor] | None


class OutputTransformError(ValueError):
    """An error in the user's ``output_transform``. The original error is its ``__cause__``."""


class GradCAM:
    """Grad-CAM maps of chosen layers of a model (Selvaraju et al. 2017, arXiv 1610.02391).

    For the activations ``A_k`` of a layer and the logit ``Y_c`` of the target class before softmax:

        alpha_k = mean over positions of dY_c / dA_k
        map     = ReLU(sum over k of alpha_k A_k)

    One forward and one backward pass serve all layers. The model runs in eval mode and on detached weights, so no
    gradient of a weight is computed. Afterwards everything is as before, even after an error: parameters, buffers,
    ``.grad``, ``requires_grad``, train/eval flags, hooks, the random state and the grad mode.

    Args:
        model: a module whose ``forward(images)`` returns logits ``(N, K)``. If ``K = 1``, target 1 explains the logit
            and target 0 minus the logit.
        target_layers: names of layers or modules of the model, alone or in a sequence, see
            `gradcam_callback.maps.resolve_layers`.
        method: ``"gradcam"``, ``"gradcam++"``, ``"hirescam"`` or ``"layercam"``, see `gradcam_callback.maps.methods`.
        precision: ``"full"`` keeps the model's own precision, even inside autocast. ``"bf16"`` runs the model under
            bfloat16 autocast: faster on hardware that supports it, but less exact.
        chunk_size: the largest number of images that go through the model at once, which bounds the memory. None
            chooses by the device and the size of the images. If memory runs out, the size is halved.
        reuse_frozen: True reuses the outputs of frozen first blocks as long as neither these blocks nor the images
            change. The cache holds up to 256 MB, see `gradcam_callback.maps.frozen_prefix`.
        output_transform: a differentiable function from the model's output to logits ``(N, K)``, needed if ``forward``
            returns a tuple, a dict or another type.
        reshape_transform: needed if layers do not return ``(N, C, h, w)``. ``"tokens"`` takes a vision transformer's
            ``(N, T, C)`` without its class token. ``"channels_last"`` takes ``(N, h, w, C)`` as in many Swin
            transformers. A callable takes a layer's output and returns ``(N, C, h, w)``. It is applied to gradients,
            too, so it may only move values or leave them out.

    Attributes:
        layers: the chosen layers, from input to output. Except in a VGG, ``"last"`` joins them at the first call.

    Raises:
        ValueError: a layer that does not resolve, an unknown method, precision or ``reshape_transform``, a chunk size
            below 1, or an ``output_transform`` that is not callable. The message lists the choices.

    Examples:
        >>> import torch
        >>> from torchvision.models import vgg11
        >>> from gradcam_callback import GradCAM
        >>> model = vgg11(num_classes=2)
        >>> cams = GradCAM(model, ["block4", model.features[19]])(torch.rand(3, 3, 64, 64), targets=1)
        >>> {layer: tuple(maps.shape) for layer, maps in cams.maps.items()}
        {'block4_conv1': (3, 8, 8), 'block4_conv2': (3, 8, 8), 'features.19': (3, 4, 4)}
        >>> model.training, all(weight.grad is None for weight in model.parameters())
        (True, True)
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: str | nn.Module | Sequence[str | nn.Module] = "all",
        *,
        method: str = "gradcam",
        precision: str = "full",
        chunk_size: int | None = None,
        reuse_frozen: bool = True,
        output_transform: Callable[[Any], Tensor] | None = None,
        reshape_transform: str | Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        check_options(method, precision, chunk_size, reshape_transform, output_transform)
        self.model = model
        self.target_layers = list_targets(target_layers)
        self.layers = resolve_layers(model, self.target_layers)
        # Outside a VGG, "last" resolves only with an image, since the shapes of the outputs decide.
        self._last_is_resolved = bool(find_vggs(model)) or LAST not in self.target_layers
        self.method = method
        self.precision = precision
        self.chunk_size = chunk_size
        self.output_transform = output_transform
        self.reshape_transform = reshape_transform
        self._frozen = FrozenPrefix() if reuse_frozen else None
        # False once the model overwrites an activation or fails with the memory format of the fast path.
        self._fast_path = True

    def __call__(self, images: Tensor, targets: int | Sequence[int] | Tensor | None = None) -> CAMs:
        """Compute the maps of a batch. The maps of an image do not depend on the other images.

        Args:
            images: ``(N, C, H, W)``, normalised as the model expects, on the model's device.
            targets: the class to explain: an index for all images, or one per image. None explains the predicted class
                of each image.

        Raises:
            ValueError: images that are not ``(N, C, H, W)``, logits that are not ``(N, K)``, targets outside the
                logits, or a layer that is not called or does not return ``(N, C, h, w)``.
            OutputTransformError: ``output_transform`` failed.

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
        check_images(images)
        with borrowed(self.model, PRECISIONS[self.precision]):
            given = targets_per_image(targets, len(images))
            if not self._last_is_resolved:
                self._resolve_last(images[:1])
            logits, classes, nonfinite, *maps = compute_in_chunks(
                lambda chunk: self._compute_chunk(images[chunk], None if given is None else given[chunk]),
                images,
                self.chunk_size,
            )
        by_layer = {layer.name: raw for layer, raw in zip(self.layers, maps, strict=True)}
        return CAMs(by_layer, logits, classes, nonfinite)

    def predict(self, images: Tensor) -> Tensor:
        """Compute the logits ``(N, K)`` alone, in eval mode, and leave the model as it was.

        Args:
            images: ``(N, C, H, W)``, normalised as the model expects, on the model's device.

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
            (logits,) = compute_in_chunks(
                lambda chunk: [self._forward(_detached(images[chunk]), [])[1]], images, self.chunk_size
            )
        return logits

    def _resolve_last(self, image: Tensor) -> None:
        size = image.shape[2], image.shape[3]
        with torch.no_grad():
            last = find_last_layer(self.model, lambda: self._detached_forward(_detached(image)), size)
        self.layers = resolve_layers(self.model, self.target_layers, last)
        self._last_is_resolved = True

    def _compute_chunk(self, images: Tensor, targets: Tensor | None) -> list[Tensor]:
        """Return logits, targets, nonfinite, and the maps of each layer."""
        activations, logits = self._forward(_detached(images), self.layers)
        reshape = self._reshape_for(images)
        for layer in self.layers:
            activations.check(layer, len(images), reshape)
        targets = predicted_class(logits) if targets is None else targets.to(logits.device)
        check_targets(targets, logits.shape[1])
        scores = select_scores(logits, targets)
        maps = backward_to_maps(scores, activations, METHODS[self.method], reshape)
        nonfinite = ~logits.isfinite().all(dim=1)
        for name, raw in maps.items():
            # Other logits may be infinite; only the score of the target class makes a map meaningless.
            meaningless = ~(raw.isfinite().flatten(1).all(dim=1) & scores.isfinite())
            maps[name] = raw.masked_fill(meaningless[:, None, None], 0.0)
            nonfinite |= meaningless
        return [logits.detach(), targets, nonfinite, *(maps[layer.name] for layer in self.layers)]

    def _reshape_for(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the function from a layer's output for these images to ``(N, C, h, w)``."""
        transform = self.reshape_transform
        if isinstance(transform, str):
            reshape, size = RESHAPES[transform], (images.shape[2], images.shape[3])
            return lambda output: reshape(output, size)
        return transform or (lambda output: output)

    def _forward(self, images: Tensor, layers: Sequence[Layer]) -> tuple[Activations, Tensor]:
        """Run the model on the fast path; if it does not support this, use the safe path from then on.

        The fast path passes the activations on without a copy. On a CPU it also lays the images out as channels_last,
        which makes convolutions faster. Two kinds of models do not support it. A model that writes into an activation
        is known by the tensor's version, or by autograd's error. A model that calls ``view`` on its features fails.
        """
        if self._fast_path:
            fast = images.contiguous(memory_format=torch.channels_last) if images.device.type == "cpu" else images
            try:
                with self._hooks(layers) as activations:
                    logits = self._detached_forward(fast)
            except RuntimeError as error:
                # Out of memory says nothing about the model: smaller chunks may still take the fast path.
                if is_out_of_memory(error):
                    raise
            else:
                if not activations.overwritten():
                    return activations, logits
        with self._hooks([replace(layer, overwritten=True) for layer in layers]) as activations:
            logits = self._detached_forward(images)
        # Only now: if the safe path failed as well, the cause is another.
        self._fast_path = False
        return activations, logits

    def _detached_forward(self, images: Tensor) -> Tensor:
        """Run the model on detached parameters, which no gradient can reach, and on copies of the buffers."""
        # functional_call swaps the tensors in for this one call, so the model keeps its own.
        state = {name: _detached(parameter) for name, parameter in self.model.named_parameters()}
        state |= {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        output = torch.func.functional_call(self.model, state, (images,))
        return self._to_logits(output, len(images))

    def _to_logits(self, output: Any, n: int) -> Tensor:
        if self.output_transform is None:
            check_logits(output, n, "the model's forward")
            logits: Tensor = output
            return logits
        try:
            logits = self.output_transform(output)
        except Exception as error:
            raise OutputTransformError(
                f"Expected `output_transform` to return logits (N, K), but it raised {type(error).__name__}: {error}. "
                "Adapt it to the output of the model's forward."
            ) from error
        check_logits(logits, n, "`output_transform`")
        return logits

    @contextmanager
    def _hooks(self, layers: Sequence[Layer]) -> Iterator[Activations]:
        with ExitStack() as stack:
            if self._frozen is not None:
                stack.enter_context(self._frozen.reused(self.model, [layer.module for layer in layers]))
            yield stack.enter_context(recorded_activations(self.model, layers))


def _detached(tensor: Tensor) -> Tensor:
    """Return the tensor without its graph; a copy if it was made under inference_mode, which autograd refuses."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()
