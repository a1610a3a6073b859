"""Compute Grad-CAM maps of many layers in one forward and one backward pass, and leave the model as it was."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from gradcam_callback.exceptions import GradCAMWarning, MapError, UserCodeError, blame, is_out_of_memory
from gradcam_callback.layer_names import block_of
from gradcam_callback.maps.activations import Activations, recorded_activations
from gradcam_callback.maps.backward import Root, backward_to_maps
from gradcam_callback.maps.borrowed import borrowed
from gradcam_callback.maps.cams import CAMs
from gradcam_callback.maps.checks import (
    PRECISIONS,
    check_images,
    check_logits,
    check_options,
    check_targets,
)
from gradcam_callback.maps.chunks import compute_in_chunks
from gradcam_callback.maps.frozen_prefix import FrozenPrefix
from gradcam_callback.maps.last_layer import find_last_layer
from gradcam_callback.maps.layers import Layer, find_paths, follow_layers, list_targets, resolve_layers
from gradcam_callback.maps.methods import METHODS
from gradcam_callback.maps.probabilities import (
    PROBABILITIES,
    UNKNOWN,
    Ending,
    find_ending,
    gradient_before,
    look_like_probabilities,
    to_logits,
)
from gradcam_callback.maps.reshape import RESHAPES, Reshape
from gradcam_callback.maps.support import (
    check_layers,
    check_support,
    has_graph,
    leads_back,
    mixes_images,
    name_obstacle,
)
from gradcam_callback.maps.targets import (
    Contrast,
    ReadTargets,
    Targets,
    call_score_function,
    read_targets,
    rows_of,
    select_scores,
)
from gradcam_callback.maps.vgg import LAST, SeveralVGGsError, find_running, find_vggs
from gradcam_callback.random_state import hash_random_state, seed_everything

# The random seeds under which a model is tried. Under all of them, a flip of half of the images hardly ever does the
# same.
_SEEDS = range(16)
# Outputs that differ by a larger share of the largest one do so by more than rounding.
_ROUNDING = 1e-3

# Runs a model on images (N, C, H, W); the last argument are their indices (N,).
Forward = Callable[[nn.Module, Tensor, Tensor], Any]


class GradCAMOptions(TypedDict, total=False):
    """The keyword arguments of `GradCAM`, for functions that pass them on as ``**options: Unpack[GradCAMOptions]``."""

    method: str
    precision: str
    chunk_size: int | None
    reuse_frozen: bool
    output_transform: Callable[[Any], Any] | None
    reshape_transform: Reshape | None


class _Call(nn.Module):
    """A model with another way to call it, as a module, whose parameters can be replaced for one call."""

    def __init__(self, model: nn.Module, forward: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.model = model
        self._call = forward

    def forward(self, images: Tensor) -> Any:
        return self._call(self.model, images)


class GradCAM:
    """Grad-CAM maps of chosen layers of a model (Selvaraju et al. 2017, arXiv 1610.02391).

    For the activations ``A_k`` of a layer and the logit ``Y_c`` of the target class before softmax:

        alpha_k = mean over positions of dY_c / dA_k
        map     = ReLU(sum over k of alpha_k A_k)

    A model that ends with a sigmoid, a softmax or a log-softmax is explained by its logits before this function. If
    several of them are joined or averaged, the outputs are explained as they are, with a `GradCAMWarning`. One forward
    and one backward pass serve all layers. The model runs in eval mode and on detached weights, so no
    gradient of a weight is computed. Afterwards everything is as before, even after an error: parameters, buffers,
    ``.grad``, ``requires_grad``, train/eval flags, hooks, the random state and the grad mode.

    Args:
        model: a module whose ``forward(images)`` returns logits ``(N, K)``, or their probabilities. If ``K = 1``,
            target 1 explains the logit and target 0 minus the logit.
        target_layers: names of layers or modules of the model, alone or in a sequence, see
            `gradcam_callback.maps.resolve_layers`.
        method: the formula, ``"gradcam"``, ``"gradcam++"``, ``"gradcam_elementwise"``, ``"hirescam"``, ``"layercam"``,
            ``"xgradcam"``, ``"eigencam"`` or ``"eigengradcam"``, see `gradcam_callback.maps.methods`. ``"eigencam"``
            gives the same map for every target.
        precision: ``"full"`` keeps the model's own precision, even inside autocast. ``"bf16"`` runs the model under
            bfloat16 autocast: faster on hardware that supports it, but less exact.
        chunk_size: the largest number of images that go through the model at once, which bounds the memory. None
            chooses by the device and the size of the images. If memory runs out, the size is halved. A model that mixes
            the images of a batch, by a batch norm without running statistics, gets them one by one.
        reuse_frozen: True reuses the outputs of frozen first blocks as long as neither these blocks nor the images
            change. The cache holds up to 512 MB, see `gradcam_callback.maps.frozen_prefix`.
        output_transform: a differentiable function from the model's output to logits ``(N, K)``, needed if ``forward``
            returns a tuple, a dict or another type.
        reshape_transform: needed if layers do not return ``(N, C, h, w)``. ``"tokens"`` takes a vision transformer's
            ``(N, T, C)`` without its class token. ``"channels_last"`` takes ``(N, h, w, C)`` as in many Swin
            transformers. A callable takes a layer's output and returns ``(N, C, h, w)``. It is applied to gradients,
            too, so it may only move values or leave them out.

    Attributes:
        layers: the chosen layers, from input to output. Except in a VGG, ``"last"`` joins them at the first call.

    Raises:
        ValueError: a layer that does not resolve, or lies in a TorchScript module, which takes no hooks. Or an unknown
            method, precision or ``reshape_transform``, a chunk size below 1, or an ``output_transform`` that is not
            callable. The message lists the choices.

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

    # True looks with the first image which of several VGGs the model runs.
    _waits_for_images = False

    def __init__(
        self,
        model: nn.Module,
        target_layers: str | nn.Module | Sequence[str | nn.Module] = "all",
        *,
        method: str = "gradcam",
        precision: str = "full",
        chunk_size: int | None = None,
        reuse_frozen: bool = True,
        output_transform: Callable[[Any], Any] | None = None,
        reshape_transform: Reshape | None = None,
    ) -> None:
        check_options(method, precision, chunk_size, reshape_transform, output_transform)
        check_support(model)
        self.model = model
        self.target_layers = list_targets(target_layers)
        # Outside a VGG, "last" resolves only with an image, since the shapes of the outputs decide.
        self._last: str | None = None
        self._is_resolved = bool(find_vggs(model)) or LAST not in self.target_layers
        self._running: list[str] | None = None
        try:
            self._take_layers(resolve_layers(model, self.target_layers))
        except SeveralVGGsError:
            if not self._waits_for_images:
                raise
            self._take_layers([])
            self._is_resolved = False
        self.method = method
        self.precision = precision
        self.chunk_size = chunk_size
        self.output_transform = output_transform
        self.reshape_transform = reshape_transform
        self._frozen = FrozenPrefix() if reuse_frozen else None
        self._said_repeated = False
        # Whoever refuses probabilities himself, see `tells_no_logits`, sets it to False.
        self.warns_of_probabilities = True
        # False once the model overwrites an activation or fails with the memory format of the fast path.
        self._fast_path = True
        # How the model ends, see `probabilities`; None until the first call.
        self._ending: str | None = None
        self._n_logits: int | None = None
        self._unreached: set[str] = set()

    def __call__(self, images: Tensor, targets: Targets | Contrast = None, *, forward: Forward | None = None) -> CAMs:
        """Compute the maps of a batch. The maps of an image do not depend on the other images.

        Args:
            images: ``(N, C, H, W)``, normalised as the model expects, on the model's device.
            targets: what to explain. A class index for all images, or one per image. None explains the predicted class
                of each image. ``"contrast"`` explains why the predicted class and not another: its logit minus the
                strongest other one. A single logit has no other one, and has the map of the predicted class. A callable
                ``(outputs, index) -> (N,)`` explains any score, such as a number of a regression: ``outputs`` is what
                the model or its ``output_transform`` returns for some of the images, ``index`` holds their indices in
                ``images``, ``(N,)`` int64 on the CPU.
            forward: runs the model on images in another way than ``model(images)``, one image at a time. It is called
                with the model, the image ``(1, C, H, W)`` and its index in ``images``, ``(1,)``.

        Raises:
            ValueError: images that are not ``(N, C, H, W)``, outputs that are not logits ``(N, K)``, or targets outside
                the logits. Or a layer that is not called or does not return ``(N, C, h, w)``.
            UserCodeError: ``output_transform`` or a callable target failed. It is a ValueError, too.

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
            given = read_targets(targets, len(images))
            found = self._last, self._running, self.layers, self._paths
            self._take_layers(follow_layers(self.model, self.target_layers, *found))
            if not self._is_resolved:
                self._resolve(images[:1], forward)
            logits, classes, nonfinite, *maps = compute_in_chunks(
                lambda chunk: self._compute_chunk(images[chunk], _indices(chunk), rows_of(given, chunk), forward),
                images,
                self._largest_chunk(forward),
            )
        if not callable(given):
            self._warn_of_probabilities(logits)
        by_layer = {layer.name: raw for layer, raw in zip(self.layers, maps, strict=True)}
        return CAMs(by_layer, logits, classes, nonfinite)

    def predict(self, images: Tensor, *, forward: Forward | None = None) -> Tensor:
        """Compute the logits ``(N, K)`` alone, in eval mode, and leave the model as it was.

        Args:
            images: ``(N, C, H, W)``, normalised as the model expects, on the model's device.
            forward: as in a call.

        Examples:
            >>> import torch
            >>> from gradcam_callback import GradCAM
            >>> model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Flatten(), torch.nn.Linear(12, 2))
            >>> images = torch.rand(4, 3, 2, 2)
            >>> logits = GradCAM(model, "0").predict(images)
            >>> torch.allclose(logits, model.eval()(images)), logits.requires_grad
            (True, False)
        """
        check_images(images)
        with borrowed(self.model, PRECISIONS[self.precision]):
            kind = self._kind_of_ending(images, forward)
            (logits,) = compute_in_chunks(
                lambda chunk: [to_logits(self._logits(images[chunk], _indices(chunk), forward), kind)],
                images,
                self._largest_chunk(forward),
            )
        return logits

    def check_labels(self, labels: Tensor, hint: str = "") -> None:
        """Check that labels are classes of the model, once it has been called.

        Args:
            labels: ``(N,)``.
            hint: a sentence on where they come from.

        Raises:
            ValueError: some are not.
        """
        if self._n_logits is not None:
            check_targets(labels, self._n_logits, hint)

    def tells_no_logits(self, images: Tensor, *, forward: Forward | None = None) -> bool:
        """Return True if the model may return probabilities whose logits cannot be told."""
        with borrowed(self.model, PRECISIONS[self.precision]):
            return self._kind_of_ending(images, forward) in (PROBABILITIES, UNKNOWN)

    def is_random(self, image: Tensor, targets: Targets | Contrast = None, *, forward: Forward | None = None) -> bool:
        """Return True if the model answers differently under another random seed, though it is in eval mode.

        A model that draws no random numbers runs twice.

        Args:
            image: ``(1, C, H, W)``.
            targets: this and ``forward`` as in a call. If it is a callable, its scores are the answer.
        """

        def answer(seed: int) -> tuple[Tensor, bool]:
            seed_everything(seed)
            before = hash_random_state(self.model.modules())
            indices = _indices(slice(0, 1))
            _, outputs = self._forward(_detached(image), indices, [], forward)
            if callable(targets):
                found = call_score_function(targets, outputs, indices)
            else:
                found = self._accept_logits(outputs, 1)
            return found.detach().float(), hash_random_state(self.model.modules()) != before

        with borrowed(self.model, PRECISIONS[self.precision]):
            first, _ = answer(_SEEDS[0])
            for seed in _SEEDS[1:]:
                other, draws = answer(seed)
                if bool((other - first).abs().max() > _ROUNDING * first.abs().max()):
                    return True
                if not draws:
                    break
        return False

    def _take_layers(self, layers: list[Layer]) -> None:
        check_layers({layer.name: layer.module for layer in layers})
        self.layers, self._paths = layers, find_paths(self.model, layers)

    def _largest_chunk(self, forward: Forward | None) -> int | None:
        return 1 if forward is not None or mixes_images(self.model) else self.chunk_size

    def _logits(self, images: Tensor, indices: Tensor, forward: Forward | None) -> Tensor:
        _, outputs = self._forward(_detached(images), indices, [], forward)
        return self._accept_logits(outputs, len(images))

    def _kind_of_ending(self, images: Tensor, forward: Forward | None) -> str:
        """Return how the model ends. Only a graph tells, so one image goes through with gradients once."""
        if self._ending is None:
            image = _detached(images[:1]).contiguous()
            floats = image.is_floating_point()
            if not (floats or self._is_resolved):
                self._resolve(image, forward)
            # The graph starts at the image, or at the layers if this is of integers.
            with self._hooks([] if floats else _with_copies(self.layers)):
                outputs = self._detached_forward(image.requires_grad_(floats), _indices(slice(0, 1)), forward)
            self._ending = find_ending(self._accept_logits(outputs, 1)).kind
        return self._ending

    def _resolve(self, image: Tensor, forward: Forward | None) -> None:
        """Resolve layers for which an image has to go through the model."""
        size, indices = (image.shape[2], image.shape[3]), _indices(slice(0, 1))
        vggs = find_vggs(self.model)

        def run() -> None:
            self._detached_forward(_detached(image).contiguous(), indices, forward)

        if vggs:
            self._running = find_running(vggs, run)
        else:
            self._last = find_last_layer(self.model, run, size)
        self._take_layers(resolve_layers(self.model, self.target_layers, self._last, self._running))
        self._is_resolved = True

    def _compute_chunk(
        self,
        images: Tensor,
        indices: Tensor,
        targets: ReadTargets,
        forward: Forward | None,
    ) -> list[Tensor]:
        """Return logits, targets, nonfinite, and the maps of each layer."""
        activations, outputs = self._forward(_detached(images), indices, self.layers, forward)
        reshape = self._reshape_for(images)
        for layer in self.layers:
            activations.check(layer, len(images), reshape)
        if targets is None or isinstance(targets, (Tensor, Contrast)):
            logits, classes, scores, root = self._start_at_logits(outputs, targets, len(images))
        else:
            scores = call_score_function(targets, outputs, indices)
            logits, classes = scores.detach()[:, None], torch.full_like(indices, -1, device=scores.device)
            root = Root(scores, torch.ones_like(scores))
        if isinstance(root.at, Tensor) and not leads_back(root.at):
            raise self._refuse_unreached(list(activations.by_layer), callable(targets) and has_graph(outputs))
        maps = backward_to_maps(root, activations, METHODS[self.method], reshape)
        if len(activations.by_layer) == len(self.layers):
            raise self._refuse_unreached(list(activations.by_layer))
        self._warn_unreached(list(activations.by_layer))
        self._warn_repeated(activations.repeated)
        # The maximum of a map is NaN or infinite if any value of the map is.
        peaks = torch.stack([raw.amax(dim=(1, 2)) for raw in maps.values()])
        # Other logits may be infinite; only the score of the target class makes a map meaningless.
        meaningless = ~(peaks.isfinite() & scores.isfinite())
        for raw, images_without in zip(maps.values(), meaningless[:, :, None, None], strict=True):
            raw.masked_fill_(images_without, 0.0)
        nonfinite = meaningless.any(dim=0) | ~logits.isfinite().all(dim=1)
        return [logits.detach(), classes, nonfinite, *(maps[layer.name] for layer in self.layers)]

    def _start_at_logits(
        self, outputs: Any, targets: Tensor | Contrast | None, n: int
    ) -> tuple[Tensor, Tensor, Tensor, Root]:
        """Return logits, classes and scores, and the start of the backward pass: before a sigmoid or softmax."""
        returned = self._accept_logits(outputs, n)
        ending = find_ending(returned) if returned.requires_grad else Ending(UNKNOWN)
        if returned.requires_grad:
            self._ending = ending.kind
        if ending.logits is None:
            scores, classes = select_scores(returned, targets)
            return returned, classes, scores, Root(scores, torch.ones_like(scores))
        logits = to_logits(returned.detach(), ending.kind).requires_grad_()
        scores, classes = select_scores(logits, targets)
        (gradient,) = torch.autograd.grad(scores.sum(), logits)
        return logits, classes, scores.detach(), Root(ending.logits, gradient_before(returned, ending, gradient))

    def _refuse_unreached(self, names: Sequence[str], target_detaches: bool = False) -> MapError:
        obstacle = name_obstacle(self.model, target_detaches)
        return MapError(f"Expected the scores to depend on the layers {names}, but {obstacle}")

    def _warn_unreached(self, names: Sequence[str]) -> None:
        new = [name for name in names if name not in self._unreached]
        if new:
            self._unreached.update(new)
            warnings.warn(
                f"GradCAM: what the maps explain does not depend on the layers {new}, so their maps are empty. No "
                "gradient reaches them: a later layer is skipped, detached or not differentiable.",
                GradCAMWarning,
                stacklevel=3,
            )

    def _warn_of_probabilities(self, outputs: Tensor) -> None:
        if self._ending == PROBABILITIES and self.warns_of_probabilities and look_like_probabilities(outputs):
            self.warns_of_probabilities = False
            warnings.warn(
                "GradCAM: the model returns probabilities whose logits cannot be told, such as sigmoids that torch.cat "
                "has joined, or a mean of softmaxes. The maps explain these probabilities, and fade where the model is "
                "sure. Return the logits, or pass output_transform=torch.logit for sigmoids, "
                "output_transform=torch.log for softmaxes.",
                GradCAMWarning,
                stacklevel=3,
            )

    def _warn_repeated(self, names: Sequence[str]) -> None:
        # The ReLU of a residual block runs several times by design, the layers of a VGG do not.
        of_vgg = [name for name in dict.fromkeys(names) if block_of(name)]
        if of_vgg and not self._said_repeated:
            self._said_repeated = True
            warnings.warn(
                f"GradCAM: the model's forward runs {of_vgg[-1]} more than once, such as for a mirrored image, or for "
                "two images that it compares. The maps are those of the last time, and may not lie on the image as it "
                "is. Let the forward run on this image last, or pass a `forward` that does so: a callback that watches "
                "batch[0] takes forward=lambda net, batch: net(batch[1], batch[0]).",
                GradCAMWarning,
                stacklevel=3,
            )

    def _reshape_for(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the function from a layer's output for these images to ``(N, C, h, w)``."""
        transform = self.reshape_transform
        if isinstance(transform, str):
            reshape, size = RESHAPES[transform], (images.shape[2], images.shape[3])
            return lambda output: reshape(output, size)
        return transform or (lambda output: output)

    def _forward(
        self, images: Tensor, indices: Tensor, layers: Sequence[Layer], forward: Forward | None
    ) -> tuple[Activations, Any]:
        """Run the model on the fast path; if it does not support this, use the safe path from then on.

        The fast path passes the activations on without a copy. It also lays the images out as channels_last, which
        makes convolutions faster on a CPU and on a GPU. Two kinds of models do not support it. A model that writes into
        an activation is known by the tensor's version, or by autograd's error. A model that calls ``view`` on its
        features fails, or asserts a layout. On the safe path the images are contiguous, whatever their layout was.
        """
        if self._fast_path:
            fast = images.contiguous(memory_format=torch.channels_last)
            try:
                with self._hooks(layers) as activations:
                    outputs = self._detached_forward(fast, indices, forward)
            except (MapError, UserCodeError):
                raise
            except Exception as error:
                # Out of memory says nothing about the model: smaller chunks may still take the fast path.
                if is_out_of_memory(error):
                    raise
            else:
                if not activations.were_overwritten():
                    return activations, outputs
        with self._hooks(_with_copies(layers)) as activations:
            outputs = self._detached_forward(images.contiguous(), indices, forward)
        # Only now: if the safe path failed as well, the cause is another.
        self._fast_path = False
        return activations, outputs

    def _detached_forward(self, images: Tensor, indices: Tensor, forward: Forward | None) -> Any:
        """Run the model on detached parameters, which no gradient can reach, and on copies of the buffers."""
        called = self.model
        if forward is not None:
            called = _Call(self.model, lambda model, images: forward(model, images, indices))
        # functional_call swaps the tensors in for this one call, so the model keeps its own.
        state = {name: _detached(parameter) for name, parameter in called.named_parameters()}
        state |= {name: buffer.clone() for name, buffer in called.named_buffers()}
        # A copy, since a forward may begin with an in-place operation.
        outputs = torch.func.functional_call(called, state, (images.clone(),))
        return outputs if self.output_transform is None else self._transformed(outputs)

    def _transformed(self, outputs: Any) -> Any:
        assert self.output_transform is not None
        hint = "Adapt it to the output of the model's forward."
        with blame("`output_transform` to return logits (N, K)", hint):
            return self.output_transform(outputs)

    def _accept_logits(self, outputs: Any, n: int) -> Tensor:
        """Check logits, and remember their number for `check_labels`."""
        check_logits(outputs, n, "the model's forward" if self.output_transform is None else "`output_transform`")
        logits: Tensor = outputs
        self._n_logits = logits.shape[1]
        return logits

    @contextmanager
    def _hooks(self, layers: Sequence[Layer]) -> Iterator[Activations]:
        with ExitStack() as stack:
            if self._frozen is not None:
                stack.enter_context(self._frozen.reused(self.model, [layer.module for layer in layers]))
            yield stack.enter_context(recorded_activations(self.model, layers))


class LateGradCAM(GradCAM):
    """A `GradCAM` that takes, of several VGGs, the only one that the model runs. Its first images tell which it is.

    The others may be a teacher, a perceptual loss or the other copy of averaged weights. Layers have the same names as
    in a model of one VGG.
    """

    _waits_for_images = True

    @property
    def running(self) -> str | None:
        """Return the dotted name of this VGG; None if there was no choice."""
        return None if self._running is None else self._running[0]


def _detached(tensor: Tensor) -> Tensor:
    """Return the tensor without its graph; a copy if it was made under inference_mode, which autograd refuses."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _with_copies(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers as they are recorded if anything may write into their outputs."""
    return [replace(layer, needs_copy=True) for layer in layers]


def _indices(chunk: slice) -> Tensor:
    """Return the indices of a chunk's images, ``(N,)`` int64."""
    return torch.arange(chunk.start, chunk.stop)
