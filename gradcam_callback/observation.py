"""One look at the network: the maps, measures and interventions of its present weights on the probe set."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gradcam_callback import metrics
from gradcam_callback.chunks import is_out_of_memory
from gradcam_callback.gradcam import CAMs, GradCAM, predicted_class
from gradcam_callback.probe import ProbeSet
from gradcam_callback.shortcut import Verdict, accuracy, judge, make_counterfactuals


@dataclass(frozen=True)
class Observation:
    """What one look gives.

    Attributes:
        cams: on the CPU.
        scalars: measure -> value, those of a layer as ``"<measure>/<layer>"``.
        verdict: None without masks.
    """

    cams: CAMs
    scalars: dict[str, float]
    verdict: Verdict | None


class Observer:
    """Looks at a model again and again, and remembers the last maps, against which drift is measured.

    Args:
        cam: computes the maps; the parameters of its model decide the device and the type of the images.
        target: the class that a map explains: ``"label"``, ``"predicted"``, or a class index.
        seed: chooses the backgrounds that objects are put on.

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
    ) -> None:
        self.cam, self.probe, self.target = cam, probe, target
        self._try_one_image()
        self._before: dict[str, Tensor] = {}
        masked = probe.has_mask
        self._masks = None if probe.masks is None else probe.masks[masked]
        self._counterfactuals = (
            None
            if self._masks is None
            else make_counterfactuals(probe.images[masked], probe.labels[masked], self._masks, seed=seed)
        )

    @property
    def layers(self) -> list[str]:
        """The names of the chosen layers, from input to output."""
        return [layer.name for layer in self.cam.layers]

    def look(self) -> Observation:
        """Compute maps, measures and interventions of the present weights."""
        cams = self._maps()
        right = predicted_class(cams.logits) == self.probe.labels
        scalars = {"probe_accuracy": float(right.double().mean())}
        for layer, raw in cams.maps.items():
            scalars |= {f"{measure}/{layer}": value for measure, value in self._measure(layer, raw).items()}
        self._before = cams.maps
        if self._masks is None:
            return Observation(cams, scalars, None)
        scalars |= self._intervene()
        deepest = self.layers[-1]
        masked = self.probe.has_mask
        verdict = judge(
            probe_accuracy=float(right[masked].double().mean()),
            swap_accuracy=scalars.get("swap_accuracy"),
            lift=scalars[f"lift/{deepest}"],
            mass=scalars[f"relevance_mass/{deepest}"],
            area=float(metrics.mask_area(self._masks).mean()),
            layer=deepest,
            n=len(self._masks),
            classes=len(set(self.probe.labels[masked].tolist())),
        )
        return Observation(cams, scalars, verdict)

    def _maps(self) -> CAMs:
        targets: Tensor | int | None = self.probe.labels
        if isinstance(self.target, int):
            targets = self.target
        elif self.target == "predicted":
            targets = None
        cams = self.cam(self._as_the_model(self.probe.images), targets)
        maps = {layer: raw.cpu() for layer, raw in cams.maps.items()}
        return CAMs(maps, cams.logits.cpu(), cams.targets.cpu(), cams.nonfinite.cpu())

    def _measure(self, layer: str, raw: Tensor) -> dict[str, float]:
        figures = {
            "entropy": metrics.mean_of_defined(metrics.entropy(raw)),
            "strength": float(metrics.strength(raw).mean()),
        }
        if layer in self._before:
            figures["drift"] = float(metrics.drift(raw, self._before[layer]).mean())
        if self._masks is not None:
            masked = raw[self.probe.has_mask]
            mass = metrics.relevance_mass(masked, self._masks)
            figures["relevance_mass"] = metrics.mean_of_defined(mass)
            figures["lift"] = metrics.mean_of_defined(metrics.lift(mass, metrics.mask_area(self._masks)))
            figures["pointing_game"] = float(metrics.pointing_game(masked, self._masks).mean())
        return figures

    def _intervene(self) -> dict[str, float]:
        assert self._counterfactuals is not None
        sets, labels = self._counterfactuals, self.probe.labels[self.probe.has_mask]
        questions = {"background_accuracy": (sets.background, labels), "foreground_accuracy": (sets.foreground, labels)}
        if sets.swapped is not None:
            questions["swap_accuracy"] = (sets.swapped, labels[sets.swapped_from])
        answers = {}
        for name, (images, truth) in questions.items():
            logits = self.cam.predict(self._as_the_model(images))
            answers[name] = accuracy(predicted_class(logits).cpu(), truth)
        return answers

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
