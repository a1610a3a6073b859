"""Evaluate a network on the probe set: maps, metrics and interventions of its present weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gradcam_callback.exceptions import GradCAMWarning, MapError, blame
from gradcam_callback.maps import (
    CONTRAST,
    CAMs,
    Contrast,
    Forward,
    GradCAM,
    ScoreFunction,
    as_input,
    class_probability,
    concatenate,
    is_correct,
    look_like_probabilities,
)
from gradcam_callback.measures import Focus, faithfulness, metrics, road
from gradcam_callback.probes import ProbeSet, fill_row
from gradcam_callback.run import tags
from gradcam_callback.run.interventions import Answers, Interventions, mean, tag_classes
from gradcam_callback.run.tags import join, name_by_class, name_by_image
from gradcam_callback.run.turns import Turn

TARGETS = ("label", "predicted", CONTRAST)
# The choices of ``check_faithfulness``: the scalar, and the function that computes it for each image.
CHECKS = {"blur": (tags.FAITHFULNESS, faithfulness), "road": (tags.ROAD, road)}
# Pixels a side, above which "road" takes more than ten seconds per image on one core.
_SLOW_ROAD = 448
_HOW_TO_RUN = (
    'If forward takes other arguments, pass forward=lambda net, batch: net(batch["image"], batch["age"]). If the model '
    "has no forward, pass forward=lambda net, batch: net.model(batch[0]). If the images differ from those of the "
    "validation, correct the probe set."
)
_HOW_TO_FORWARD = (
    "It is given the network, and the batch of this image alone, after the batch hooks. Let it call the network as the "
    "validation does."
)
# Takes the outputs of the model and the numbers (N,) of the probe images, and returns scores (N,).
# LightningCLI reads it. It would take the path of a callable and a class index for a `str`, and would refuse
# functions that do not declare to return a `Tensor`.
Target = Literal["label", "predicted", "contrast"] | int | Callable[[Any, Tensor], Any]
# Runs a model on a batch.
BatchForward = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation.

    Attributes:
        cams: on the CPU.
        scalars: metric -> value; the metrics of a layer are named ``"<metric>/<layer>"``. Undefined ones are left out.
        foci: one per chosen layer, from input to output; empty without masks.
        answers: to the interventions; None if the images have no classes.
        rivals: with ``target="contrast"``, the maps of each image whose prediction is wrong: why the predicted class
            and not another. Number of the image -> layer -> ``(h, w)``. None with any other target.
    """

    cams: CAMs
    scalars: dict[str, float]
    foci: list[Focus]
    answers: Answers | None
    rivals: dict[int, dict[str, Tensor]] | None


@dataclass(frozen=True)
class Shard:
    """The part of an evaluation that one process computes; `Evaluator.merge` makes the whole of all shards.

    Attributes:
        cams: None if no image fell to the process.
        turn: of the interventions; None if everything was asked.
        answers: set -> the logits of its share of each part that was asked.
        faithfulness: ``(n,)``, by the check that was chosen; empty without one.
        rivals: those of its images, see `Evaluation`; empty unless the target is a contrast.
    """

    cams: CAMs | None
    turn: Turn | None
    answers: dict[str, list[Tensor]]
    faithfulness: Tensor
    rivals: dict[int, dict[str, Tensor]]


class Evaluator:
    """A model and the probe set on which it is evaluated again and again.

    Args:
        cam: computes the maps. The parameters of its model decide the device and the dtype of the images.
        probe: the images. The interventions also ask about those of its verdict set.
        target: what each map explains: ``"label"``, ``"predicted"``, ``"contrast"``, a class index, or a callable.
        forward: the user's way to run the model on a batch; None is ``model(images)``.
        seed: chooses the backgrounds that objects are put on.
        by_class: True also returns the mask metrics of every layer, and the swap accuracy, for each class.
        check_faithfulness: see `choose_check`.

    Raises:
        ValueError: labels or a target outside the logits; images that the model cannot take; outputs that look like
            probabilities, but whose logits cannot be told; or ``forward`` with a probe set that is no part of batches.
            One image is tried at once, so that the error comes before anything else happens.
        UserCodeError: the model's forward, ``forward`` or a callable target failed. It is a ValueError, too.
    """

    def __init__(
        self,
        cam: GradCAM,
        probe: ProbeSet,
        target: Target = "label",
        *,
        forward: BatchForward | None = None,
        seed: int = 0,
        by_class: bool = False,
        check_faithfulness: bool | str = False,
    ) -> None:
        self.cam, self.probe, self.target = cam, probe, check_target(target)
        self._forward = forward
        self._by_class, self._check = by_class, choose_check(check_faithfulness)
        # A callable explains any number, so predictions are not compared with labels.
        self._has_accuracy = probe.has_labels and not callable(target)
        _check_needs(probe, self.target, forward, self._check)
        self._try_one_image()
        if self._check == "road" and max(probe.images.shape[2:]) > _SLOW_ROAD:
            _warn_of_slow_road(probe.images)
        masked = probe.has_mask
        self._masks = None if probe.masks is None else probe.masks[masked]
        self._labels, self._class_tags = probe.labels[masked], tag_classes(probe)
        self.interventions: Interventions | None = None
        if self._has_accuracy:
            # Once per run: painting objects out takes longer than a forward, and the images stay comparable.
            self.interventions = Interventions(probe, int(seed), self._by_class)

    @property
    def layers(self) -> list[str]:
        """Return the names of the chosen layers, from input to output."""
        return [layer.name for layer in self.cam.layers]

    def scalar_names(self) -> list[str]:
        """Return the name of every scalar that an evaluation may have, in the order of the layers."""
        names = [tags.PROBE_ACCURACY] if self._has_accuracy else []
        if self.interventions is not None:
            names += self.interventions.scalar_names()
        if self._check:
            tag = CHECKS[self._check][0]
            names += [tag, *(join(name_by_image(tag), name) for name in self.probe.names)]
        names += tags.names_by_layer(self.layers, self.probe.masks is not None)
        if self._masks is not None:
            classes = [self._class_tags[label] for label in self._masked_classes()]
            for layer in self.layers if self._by_class else self.layers[-1:]:
                for metric in tags.MASK_METRICS if self._by_class else (tags.LIFT,):
                    names += [join(name_by_class(metric), layer, name) for name in classes]
        return names

    def evaluate(self, previous: Mapping[str, Tensor] | None = None) -> Evaluation:
        """Evaluate the present weights in a single process; see `merge`."""
        return self.merge([self.compute_shard()], previous)

    def compute_shard(self, rank: int = 0, world_size: int = 1, turn: Turn | None = None) -> Shard:
        """Run the present weights on the images of one process.

        Args:
            rank: of this process.
            world_size: the number of processes; each set of images is cut into as many parts.
            turn: asks a part of the interventions; None asks everything. It is the same in all processes.
        """
        # The parts differ by one image at most. With more processes than images, some are empty.
        own = torch.arange(len(self.probe)).tensor_split(world_size)[rank]
        # A part in place of a choice, which would be a copy.
        images = self.probe.images.tensor_split(world_size)[rank]
        cams = self._compute_maps(images, own) if len(images) else None
        answers = {}
        if self.interventions is not None:
            answers = self.interventions.ask(self._predict, rank, world_size, turn)
        faithful = self._faithfulness_of(images, own, cams) if self._check and cams else torch.empty(0)
        rivals = self._compute_rivals(cams, own) if cams is not None and self.target == CONTRAST else {}
        return Shard(cams, turn, answers, faithful, rivals)

    def merge(self, shards: Sequence[Shard], previous: Mapping[str, Tensor] | None = None) -> Evaluation:
        """Compute the metrics of all shards together.

        Args:
            shards: of every process, by rank.
            previous: layer -> the maps of the last entry, from which the drift is measured; None leaves drift out.
        """
        cams = concatenate([shard.cams for shard in shards if shard.cams is not None])
        scalars = {}
        if self._has_accuracy:
            scalars[tags.PROBE_ACCURACY] = mean(is_correct(cams.logits, self.probe.labels, self.probe.multi_label))
        foci = self._locate_foci(cams.maps)
        for layer, maps in cams.maps.items():
            scalars |= self._map_metrics(layer, maps, previous or {})
        for focus in foci:
            assert self._masks is not None
            found = _mask_metrics(focus, cams.maps[focus.layer][self.probe.has_mask], self._masks)
            scalars |= {join(metric, focus.layer): value for metric, value in found.items()}
        scalars |= self._metrics_by_class(cams.maps)
        if self._check:
            scalars |= self._name_faithfulness(self._check, torch.cat([shard.faithfulness for shard in shards]))
        rivals = None
        if self.target == CONTRAST:
            rivals = {i: maps for shard in shards for i, maps in shard.rivals.items()}
        answers = None
        if self.interventions is not None:
            answers = self.interventions.compare_with_labels(
                cams.logits, [shard.answers for shard in shards], shards[0].turn
            )
            scalars |= self.interventions.scalars(answers)
        return Evaluation(cams, _defined(scalars), foci, answers, rivals)

    def _compute_maps(self, images: Tensor, own: Tensor) -> CAMs:
        """Compute the maps of probe images; ``own`` are their numbers."""
        cams = self.cam(self._as_model_input(images), self._targets(own), forward=self._forward_of(own))
        return self._to_cpu(cams)

    def _compute_rivals(self, cams: CAMs, own: Tensor) -> dict[int, dict[str, Tensor]]:
        """Compute why the predicted class and not another, for the images whose prediction is wrong."""
        wrong = own[is_correct(cams.logits, self.probe.labels[own], self.probe.multi_label) == 0]
        if not len(wrong):
            return {}
        images = self._as_model_input(self.probe.images[wrong])
        found = self._to_cpu(self.cam(images, CONTRAST, forward=self._forward_of(wrong)))
        return {int(i): {layer: raw[n] for layer, raw in found.maps.items()} for n, i in enumerate(wrong)}

    def _to_cpu(self, cams: CAMs) -> CAMs:
        # Metrics need float64, which some devices lack, and drawing needs NumPy.
        maps = {layer: raw.cpu() for layer, raw in cams.maps.items()}
        return CAMs(maps, cams.logits.cpu(), cams.targets.cpu(), cams.nonfinite.cpu())

    def _locate_foci(self, maps: Mapping[str, Tensor]) -> list[Focus]:
        if self._masks is None:
            return []
        return [Focus.from_maps(layer, raw[self.probe.has_mask], self._masks) for layer, raw in maps.items()]

    def _map_metrics(self, layer: str, maps: Tensor, previous: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the metrics of a layer that need no mask."""
        values = {
            tags.ENTROPY: float(metrics.entropy(maps).nanmean()),
            tags.STRENGTH: float(metrics.strength(maps).mean()),
            tags.EMPTY: mean(metrics.is_empty(maps)),
        }
        # The maps of a checkpoint are of the same layers and images, but the model may give them another size now.
        if layer in previous and previous[layer].shape == maps.shape:
            values[tags.DRIFT] = float(metrics.drift(maps, previous[layer]).mean())
        if self._masks is None:
            values[tags.BORDER_MASS] = float(metrics.border_mass(maps).nanmean())
            values[tags.CENTRE_DISTANCE] = float(metrics.centre_distance(maps).nanmean())
        return {join(metric, layer): value for metric, value in values.items()}

    def _metrics_by_class(self, maps: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the lift of the deepest layer by class, and with ``by_class`` all mask metrics of all layers."""
        if self._masks is None:
            return {}
        scalars = {}
        for layer in self.layers if self._by_class else self.layers[-1:]:
            masked = maps[layer][self.probe.has_mask]
            for label in self._masked_classes():
                of_class = self._labels == label
                own, masks = masked[of_class], self._masks[of_class]
                values = _mask_metrics(Focus.from_maps(layer, own, masks), own, masks)
                for metric in tags.MASK_METRICS if self._by_class else (tags.LIFT,):
                    scalars[join(name_by_class(metric), layer, self._class_tags[label])] = values[metric]
        return scalars

    def _masked_classes(self) -> list[int]:
        return sorted(set(self._labels.tolist()))

    def _targets(self, own: Tensor) -> Tensor | Contrast | ScoreFunction | int | None:
        """Return what `GradCAM` explains for the probe images with these numbers."""
        target = self.target
        if callable(target):
            return lambda outputs, indices: target(outputs, own[indices])
        if isinstance(target, int):
            return target
        if target == "predicted":
            return None
        labels = self.probe.labels[own]
        return Contrast(labels) if target == CONTRAST else labels

    def _forward_of(self, own: Tensor) -> Forward | None:
        """Return the forward of images, each of which stands for the probe image with its number in ``own``."""
        # The images of a verdict set have the numbers after those of the probe set.
        forward, rows = self._forward, self.probe.verdict_set.rows
        if forward is None or rows is None:
            return None
        return lambda model, images, indices: forward(model, fill_row(rows[int(own[indices])], images))

    def _faithfulness_of(self, images: Tensor, own: Tensor, cams: CAMs) -> Tensor:
        assert self._check is not None
        _, measure = CHECKS[self._check]
        return measure(
            lambda changed: class_probability(self._predict(changed, own), cams.targets, self.probe.multi_label),
            images,
            cams.maps[self.layers[-1]],
        )

    def _name_faithfulness(self, check: str, values: Tensor) -> dict[str, float]:
        tag, _ = CHECKS[check]
        each = zip(self.probe.names, values.tolist(), strict=True)
        return {tag: float(values.nanmean()), **{join(name_by_image(tag), name): value for name, value in each}}

    def _predict(self, images: Tensor, own: Tensor) -> Tensor:
        """Return logits ``(N, K)`` on the CPU."""
        return self.cam.predict(self._as_model_input(images), forward=self._forward_of(own)).cpu()

    def _as_model_input(self, images: Tensor) -> Tensor:
        return as_input(self.cam.model, images)

    def _try_one_image(self) -> None:
        # The image with the highest label. The labels of images that are not watched are checked below.
        highest = self.probe.labels.argmax()[None]
        one = self._as_model_input(self.probe.images[highest])
        forward = self._forward_of(highest)
        # Here they are refused.
        self.cam.warns_of_probabilities = False
        with blame_forward(one, self._forward):
            is_random = self.cam.is_random(one, self._targets(highest), forward=forward)
            if self._has_accuracy:
                self.cam.check_labels(self.probe.verdict_set.labels.max()[None], self.probe.label_hint)
            n_outputs = self.cam(one, self._targets(highest), forward=forward).logits.shape[1]
            if not callable(self.target) and self.cam.tells_no_logits(one, forward=forward):
                self._refuse_probabilities()
        if is_random:
            _warn_of_randomness()
        if self._has_accuracy and (self.probe.n_classes or n_outputs) < n_outputs:
            _warn_of_more_outputs(self.probe.n_classes, n_outputs)

    def _refuse_probabilities(self) -> None:
        everything = torch.arange(len(self.probe))
        outputs = self._predict(self.probe.images, everything)
        if look_like_probabilities(outputs):
            raise MapError(
                f"Expected the model to return logits (N, K), but all its outputs for the {len(self.probe)} probe "
                f"images lie between {outputs.min():.2g} and {outputs.max():.2g}, as probabilities do. Return the "
                "logits, or pass output_transform=torch.logit for a sigmoid, output_transform=torch.log for a softmax. "
                "If they are logits, say so by a linear layer that changes nothing: "
                f"output_transform=lambda outputs: outputs @ torch.eye({outputs.shape[1]}).to(outputs)."
            )


@contextmanager
def blame_forward(images: Tensor, forward: BatchForward | None) -> Iterator[None]:
    """Turn an error of the model's forward, or of the user's ``forward``, into one that says what to do.

    Raises:
        UserCodeError: the block raised an error that is not ours.
    """
    name = "the model's forward" if forward is None else "your `forward`"
    with blame(
        f"{name} to take probe images as validation gives them, {tuple(images.shape)} {images.dtype}",
        _HOW_TO_RUN if forward is None else _HOW_TO_FORWARD,
    ):
        yield


def check_target(target: Target) -> Target:
    """Check the choice of what each map explains, and return it, a class index as Python's own integer.

    Raises:
        ValueError: neither ``"label"``, ``"predicted"``, ``"contrast"``, a class index, nor a callable.
    """
    if isinstance(target, np.integer):
        target = int(target)
    known = target in TARGETS if isinstance(target, str) else callable(target) or isinstance(target, int)
    if isinstance(target, bool) or not known:
        raise ValueError(
            f"Expected `target` to be 'label', 'predicted', 'contrast', a class index or a callable, but got "
            f"{target!r}. Use 'label' to explain each image's own class."
        )
    return target


def choose_check(check_faithfulness: bool | str) -> str | None:
    """Return how to ask if the network relies on the hottest part of its deepest map; None is not at all.

    Args:
        check_faithfulness: False, ``"blur"`` or ``"road"``. True stands for ``"blur"``.

    Raises:
        ValueError: anything else.
    """
    if isinstance(check_faithfulness, bool):
        return "blur" if check_faithfulness else None
    if not isinstance(check_faithfulness, str) or check_faithfulness not in CHECKS:
        raise ValueError(
            f"Expected `check_faithfulness` to be False, True, {' or '.join(map(repr, CHECKS))}, but got "
            f"{check_faithfulness!r}. Use 'road' to remove the hottest pixels, or 'blur', which has a control."
        )
    return check_faithfulness


def _warn_of_randomness() -> None:
    warnings.warn(
        "GradCAM: the forward of the model is random in eval mode: under another random seed, one image has other "
        "outputs. Maps, accuracies and the verdict are those of one draw. If the forward flips or moves images, a map "
        "does not lie on the image below it. Guard each random step, as by F.dropout(x, 0.5, self.training) or "
        "`if self.training:`.",
        GradCAMWarning,
        stacklevel=2,
    )


def _warn_of_more_outputs(n_classes: int | None, n_outputs: int) -> None:
    warnings.warn(
        f"GradCAM: the dataset names {n_classes} classes, and the model returns {n_outputs} numbers. The first "
        f"{n_classes} count as the logits of these classes. If they are not, pass output_transform=lambda outputs: "
        "..., which returns the logits.",
        GradCAMWarning,
        stacklevel=2,
    )


def _warn_of_slow_road(images: Tensor) -> None:
    height, width = images.shape[2:]
    warnings.warn(
        f'GradCAM: check_faithfulness="road" takes long for probe images of {height} x {width}: half a second per '
        'image at 224 x 224 on one core, and a minute at 800 x 800. Use "blur", smaller probe images or '
        "every_n_epochs.",
        GradCAMWarning,
        stacklevel=2,
    )


def _check_needs(probe: ProbeSet, target: Target, forward: object, check: str | None) -> None:
    if not probe.has_labels and target in ("label", CONTRAST):
        raise ValueError(
            f"Expected a probe set with labels for target={target!r}, but it has none. Give the labels, or choose "
            "target='predicted', a class index, or a callable (outputs, index) -> (N,)."
        )
    if forward is not None and probe.rows is None:
        raise ValueError(
            "Expected probe images that come with their batch, for `forward`, but this probe set has images alone. Use "
            "probe=None, which takes them from the validation data; with a `batch_transform`, its images have to be a "
            "part of the batch itself."
        )
    if check and callable(target):
        raise ValueError(
            "Expected check_faithfulness=False with a callable `target`, since it asks for the probability of a class. "
            "Choose one of them."
        )


def _mask_metrics(focus: Focus, maps: Tensor, masks: Tensor) -> dict[str, float]:
    return {
        tags.RELEVANCE_MASS: focus.mass,
        tags.LIFT: focus.lift,
        tags.POINTING_GAME: float(metrics.pointing_game(maps, masks).mean()),
    }


def _defined(scalars: Mapping[str, float]) -> dict[str, float]:
    """Leave out what is undefined, such as the entropy of a layer whose maps are all empty.

    Lightning's EarlyStopping ends a training at the first NaN.
    """
    return {name: value for name, value in scalars.items() if not math.isnan(value)}
