"""One look at the network: the maps, measures and interventions of its present weights on the probe set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradcam_callback.maps.chunks import is_out_of_memory
from gradcam_callback.maps.gradcam import CAMs, GradCAM, joined
from gradcam_callback.maps.logits import class_probability, is_correct
from gradcam_callback.measures import metrics
from gradcam_callback.measures.faithfulness import faithfulness
from gradcam_callback.measures.interventions import Counterfactuals, make_counterfactuals
from gradcam_callback.measures.verdict import Focus, SwapTest, swap_test
from gradcam_callback.probes.probe_set import ProbeSet


@dataclass(frozen=True)
class Evaluation:
    """What one look gives.

    Attributes:
        cams: on the CPU.
        scalars: measure -> value, those of a layer as ``"<measure>/<layer>"``.
        masked, masked_accuracy: how many probe images have a mask, and the accuracy, 0..1, on those.
        swap: None without masks, and where the masked images are all of one class.
        foci: one per chosen layer, from input to output; empty without masks.
        counterfactuals: what the network was asked; None without masks.
    """

    cams: CAMs
    scalars: dict[str, float]
    masked: int
    masked_accuracy: float
    swap: SwapTest | None
    foci: list[Focus]
    counterfactuals: Counterfactuals | None


@dataclass(frozen=True)
class Share:
    """What the model gave for one process's share of the images; of all shares `Evaluator.merge` makes the rest.

    Attributes:
        cams: None where no image fell to the process.
        swapped, background, foreground: ``(n,)`` bool, whether it is right on its share of each counterfactual set.
        faithfulness: ``(n,)``, where that was asked.
    """

    cams: CAMs | None
    swapped: Tensor
    background: Tensor
    foreground: Tensor
    faithfulness: Tensor


class Evaluator:
    """Looks at a model again and again, and remembers the last maps, against which drift is measured.

    Args:
        cam: computes the maps; the parameters of its model decide the device and the type of the images.
        target: the class that a map explains: ``"label"``, ``"predicted"``, or a class index.
        seed: chooses the backgrounds that objects are put on.
        check_faithfulness: whether to ask if the network relies on what its deepest map shows; two more forwards.

    Raises:
        ValueError: labels or a target outside the logits, images that the model cannot take; found by trying one
            image, so that it is said before anything else happens.
    """

    def __init__(
        self,
        cam: GradCAM,
        probe: ProbeSet,
        target: str | int = "label",
        *,
        seed: int = 0,
        check_faithfulness: bool = False,
    ) -> None:
        self.check_faithfulness, self._seed = check_faithfulness, seed
        self.cam, self.probe, self.target = cam, probe, target
        self._try_one_image()
        self._before: dict[str, Tensor] = {}
        masked = probe.has_mask
        self._masks = None if probe.masks is None else probe.masks[masked]
        self._counterfactuals = (
            None
            if self._masks is None
            else make_counterfactuals(
                probe.images[masked],
                probe.labels[masked],
                self._masks,
                present=probe.present[masked] if probe.present is not None else None,
                seed=seed,
            )
        )

    @property
    def layers(self) -> list[str]:
        """The names of the chosen layers, from input to output."""
        return [layer.name for layer in self.cam.layers]

    def look(self) -> Evaluation:
        """Compute maps, measures and interventions of the present weights."""
        return self.merge([self.share()])

    def go_on_from(self, maps: dict[str, Tensor]) -> None:
        """Measure the next drift against these maps, layer -> ``(N, h, w)``."""
        self._before = maps

    def share(self, rank: int = 0, processes: int = 1) -> Share:
        """Run the present weights on one process's share of the images, which come in as many parts as processes."""

        def mine(images: Tensor) -> Tensor:
            return images.tensor_split(processes)[rank]

        images = mine(self.probe.images)
        cams = self._maps(images, mine(self.probe.labels)) if len(images) else None
        sets, nothing = self._counterfactuals, torch.empty(0, dtype=torch.bool)
        swapped = background = foreground = nothing
        if sets is not None:
            background, foreground = (
                self._is_right(mine(asked), mine(self._labels)) for asked in (sets.background, sets.foreground)
            )
            if sets.swapped is not None:
                swapped = self._is_right(mine(sets.swapped), mine(self._labels[sets.objects]))
        faithful = self._check_faithfulness(images, cams) if self.check_faithfulness and cams else torch.empty(0)
        return Share(cams, swapped, background, foreground, faithful)

    def merge(self, shares: Sequence[Share]) -> Evaluation:
        """Measure what all processes' shares give together."""
        cams = joined([share.cams for share in shares if share.cams is not None])
        right = is_correct(cams.logits, self.probe.labels, self.probe.multi_label)
        scalars = {"probe_accuracy": float(right.double().mean())}
        foci = []
        for layer, raw in cams.maps.items():
            scalars |= {f"{measure}/{layer}": value for measure, value in self._measure(layer, raw).items()}
            if self._masks is not None:
                mass, area = scalars[f"relevance_mass/{layer}"], float(metrics.mask_area(self._masks).mean())
                foci.append(Focus(layer, mass, area, scalars[f"lift/{layer}"]))
                scalars |= self._measure_by_class(layer, raw)
        self._before = cams.maps
        if self.check_faithfulness:
            scalars |= self._name_faithfulness(torch.cat([share.faithfulness for share in shares]))
        if self._counterfactuals is None:
            return Evaluation(cams, scalars, 0, 0.0, None, foci, None)
        masked_right = right[self.probe.has_mask]
        swap = self._swap(masked_right, torch.cat([share.swapped for share in shares]), scalars)
        for name in ("background", "foreground"):
            right_without = torch.cat([getattr(share, name) for share in shares])
            scalars[f"{name}_accuracy"] = float(right_without.double().mean())
        accuracy = float(masked_right.double().mean())
        return Evaluation(cams, scalars, len(masked_right), accuracy, swap, foci, self._counterfactuals)

    def _maps(self, images: Tensor, labels: Tensor) -> CAMs:
        targets: Tensor | int | None = labels
        if isinstance(self.target, int):
            targets = self.target
        elif self.target == "predicted":
            targets = None
        cams = self.cam(self._as_the_model(images), targets)
        maps = {layer: raw.cpu() for layer, raw in cams.maps.items()}
        return CAMs(maps, cams.logits.cpu(), cams.targets.cpu(), cams.nonfinite.cpu())

    def _measure(self, layer: str, raw: Tensor) -> dict[str, float]:
        figures = {
            "entropy": metrics.mean_of_defined(metrics.entropy(raw)),
            "strength": float(metrics.strength(raw).mean()),
            "empty": float(metrics.is_empty(raw).double().mean()),
        }
        # A checkpoint's are of the same layers and images, but may be of another size.
        if layer in self._before and self._before[layer].shape == raw.shape:
            figures["drift"] = float(metrics.drift(raw, self._before[layer]).mean())
        if self._masks is None:
            figures["border_mass"] = metrics.mean_of_defined(metrics.border_mass(raw))
            figures["centre_distance"] = metrics.mean_of_defined(metrics.centre_distance(raw))
            return figures
        return figures | _measure_on_masks(raw[self.probe.has_mask], self._masks)

    def _measure_by_class(self, layer: str, raw: Tensor) -> dict[str, float]:
        assert self._masks is not None
        masked, labels = raw[self.probe.has_mask], self._labels
        return {
            f"{measure}_by_class/{layer}/{self.probe.class_name(label)}": value
            for label in sorted(set(labels.tolist()))
            for measure, value in _measure_on_masks(masked[labels == label], self._masks[labels == label]).items()
        }

    @property
    def _labels(self) -> Tensor:
        """Of the images that have a mask."""
        return self.probe.labels[self.probe.has_mask]

    def _swap(self, right: Tensor, correct_after: Tensor, scalars: dict[str, float]) -> SwapTest | None:
        """What being right or not on objects on other backgrounds says; its figures go to ``scalars``."""
        sets = self._counterfactuals
        if sets is None or sets.swapped is None:
            return None
        truth = self._labels[sets.objects]
        swap = swap_test(right, correct_after, sets.objects, sets.donors, self._labels, self._seed)
        scalars |= {
            "swap_accuracy": swap.swap_accuracy,
            "swap_accuracy_low": swap.swap_interval[0],
            "swap_accuracy_high": swap.swap_interval[1],
            "swap_drop": swap.drop,
            "swap_drop_low": swap.drop_interval[0],
        }
        for label in sorted(set(truth.tolist())):
            name = f"swap_accuracy_by_class/{self.probe.class_name(label)}"
            scalars[name] = float(correct_after[truth == label].double().mean())
        return swap

    def _check_faithfulness(self, images: Tensor, cams: CAMs) -> Tensor:
        return faithfulness(
            lambda blurred: class_probability(self._predict(blurred), cams.targets, self.probe.multi_label),
            images,
            cams.maps[self.layers[-1]],
        )

    def _name_faithfulness(self, values: Tensor) -> dict[str, float]:
        by_image = {
            f"faithfulness_by_image/{name}": value
            for name, value in zip(self.probe.names, values.tolist(), strict=True)
            if math.isfinite(value)
        }
        return {"faithfulness": metrics.mean_of_defined(values), **by_image}

    def _is_right(self, images: Tensor, labels: Tensor) -> Tensor:
        """``(N,)`` bool."""
        if not len(images):
            return torch.empty(0, dtype=torch.bool)
        return is_correct(self._predict(images), labels, self.probe.multi_label)

    def _predict(self, images: Tensor) -> Tensor:
        """Logits ``(N, K)`` on the CPU."""
        return self.cam.predict(self._as_the_model(images)).cpu()

    def _as_the_model(self, images: Tensor) -> Tensor:
        """On the model's device, and in its precision."""
        floating = [parameter for parameter in self.cam.model.parameters() if parameter.is_floating_point()]
        return images.to(floating[0].device, floating[0].dtype) if floating else images

    def _try_one_image(self) -> None:
        # The image with the highest label: where that fits into the logits, all do.
        highest = int(self.probe.labels.argmax())
        one = self._as_the_model(self.probe.images[highest : highest + 1])
        try:
            self.cam(one, targets=int(self.probe.labels[highest]))
            if isinstance(self.target, int):
                self.cam(one, targets=self.target)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise ValueError(
                f"The model cannot take probe images of shape {tuple(one.shape[1:])}. Expected images as validation "
                f"gives them. It said: {error}"
            ) from error


def _measure_on_masks(maps: Tensor, masks: Tensor) -> dict[str, float]:
    mass = metrics.relevance_mass(maps, masks)
    return {
        "relevance_mass": metrics.mean_of_defined(mass),
        "lift": metrics.mean_of_defined(metrics.lift(mass, metrics.mask_area(masks))),
        "pointing_game": float(metrics.pointing_game(maps, masks).mean()),
    }
