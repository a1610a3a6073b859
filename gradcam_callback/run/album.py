"""Every picture of a run: a panel per probe image and per layer, and what shows the whole training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from PIL import Image

from gradcam_callback.drawing.canvas import InputImage, Style
from gradcam_callback.drawing.panels import (
    Animation,
    Caption,
    Column,
    EvolutionStrip,
    LayerPanel,
    ProbePanel,
    contact_sheet,
)
from gradcam_callback.drawing.plots import Profile, depth_profile
from gradcam_callback.maps.gradcam import CAMs
from gradcam_callback.maps.logits import class_probability, is_correct, predicted_class
from gradcam_callback.measures.interventions import Counterfactuals
from gradcam_callback.measures.verdict import Focus
from gradcam_callback.probes.probe_set import ProbeSet
from gradcam_callback.run.evaluate import Evaluation
from gradcam_callback.run.evolution import Evolution

VIEWS = ("probe", "layer", "evolution", "animation", "depth_profile", "counterfactuals")
COUNTERFACTUAL_ROWS = 12

# The parts of a picture's tag, and the picture.
Drawn = tuple[tuple[str, ...], Image.Image]


def captions(probe: ProbeSet, cams: CAMs, labelled: bool = True) -> list[Caption]:
    """What is written beside each probe image; where they are not ``labelled``, nothing of their labels."""
    right = is_correct(cams.logits, probe.labels, probe.multi_label)
    explained = class_probability(cams.logits, cams.targets, probe.multi_label)
    if probe.multi_label:
        # What is asked is whether the label's class is there, and the surer of the two answers is the network's.
        of_label = class_probability(cams.logits, probe.labels, multi_label=True)
        sure = torch.where(right, of_label, 1 - of_label)
        answers = [
            probe.class_name(label) if found else f"no {probe.class_name(label)}"
            for label, found in zip(probe.labels.tolist(), right.tolist(), strict=True)
        ]
    else:
        predicted = predicted_class(cams.logits)
        sure = class_probability(cams.logits, predicted)
        answers = [probe.class_name(answer) for answer in predicted.tolist()]
    return [
        Caption(
            name,
            probe.class_name(int(probe.labels[i])) if labelled else None,
            answers[i],
            bool(right[i]) if labelled else None,
            float(sure[i]),
            probe.class_name(int(cams.targets[i])),
            float(explained[i]),
        )
        for i, name in enumerate(probe.names)
    ]


def inputs(probe: ProbeSet) -> list[InputImage]:
    """The probe images with their masks, to be made once per run."""
    masks = [
        probe.masks[i].numpy() if probe.masks is not None and probe.has_mask[i] else None for i in range(len(probe))
    ]
    return [InputImage(pixels, mask) for pixels, mask in zip(probe.display_images(), masks, strict=True)]


class Album:
    """Draws the pictures of a run of one probe set and one choice of layers, all laid out here, once.

    Args:
        views: which of `VIEWS` to draw.
    """

    def __init__(self, probe: ProbeSet, layers: Sequence[str], style: Style, views: Sequence[str] = VIEWS) -> None:
        self._probe, self._layers, self._style, self._views = probe, list(layers), style, views
        pictures = inputs(probe)
        self.probe_panel = ProbePanel(pictures, layers, style)
        answers = [f"{name} 100 % ✓" for name in probe.class_names or ()]
        self.layer_panel = LayerPanel(pictures, style, [*probe.names, *answers])
        self._strip = EvolutionStrip(pictures, layers, style)
        self._animation = Animation(pictures, layers, style)

    def entry(self, seen: Evaluation, evolution: Evolution, first: Mapping[str, float] | None) -> Iterator[Drawn]:
        """Yield every picture of one logged validation but the strips, with the parts of its tag.

        Args:
            evolution: to which the entry has been added.
            first: the scalars of the run's first entry; None where this is the first, which also shows what is asked.
        """
        words, largest = captions(self._probe, seen.cams), self._largest(evolution)
        maps = {layer: raw.numpy() for layer, raw in seen.cams.maps.items()}
        if "probe" in self._views:
            for i, name in enumerate(self._probe.names):
                of_image = {layer: raw[i] for layer, raw in maps.items()}
                yield ("probe", name), self.probe_panel.draw(i, of_image, words[i], largest)
        if "layer" in self._views:
            for layer, raw in maps.items():
                yield ("layer", layer), self.layer_panel.draw(layer, raw, words, largest)
        if seen.foci and "depth_profile" in self._views:
            yield ("depth_profile",), draw_depth_profile(seen.foci, seen.scalars, first)
        if seen.counterfactuals is not None and first is None and "counterfactuals" in self._views:
            yield ("counterfactuals",), draw_counterfactuals(self._probe, seen.counterfactuals, self._style.cell)

    def strips(self, evolution: Evolution) -> Iterator[Drawn]:
        """Yield one strip over the logged epochs per probe image."""
        if "evolution" in self._views:
            for i, name, explained, columns in self._over_time(evolution):
                yield (
                    ("evolution", name),
                    self._strip.draw(i, name, explained, columns, self._largest(evolution)),
                )

    def animations(self, evolution: Evolution) -> Iterator[tuple[tuple[str, ...], list[Image.Image]]]:
        """Yield the frames over the logged epochs of each probe image."""
        if "animation" in self._views:
            for i, name, explained, columns in self._over_time(evolution):
                yield (
                    ("animation", name),
                    self._animation.frames(i, name, explained, columns, self._largest(evolution)),
                )

    def _over_time(self, evolution: Evolution) -> Iterator[tuple[int, str, str, list[Column]]]:
        frames = evolution.frames()
        for i, name in enumerate(self._probe.names):
            explained = {frame.targets[i] for frame in frames}
            # With target="predicted" the class may change from one epoch to the next.
            word = self._probe.class_name(explained.pop()) if len(explained) == 1 else "predicted class"
            columns = [
                Column(frame.heading, frame.probabilities[i], {layer: frame.map_of(layer, i) for layer in self._layers})
                for frame in frames
            ]
            yield i, name, word, columns

    def _largest(self, evolution: Evolution) -> Mapping[str, float] | None:
        return evolution.largest if self._style.scaling == "run" else None


def draw_depth_profile(
    foci: Sequence[Focus], scalars: Mapping[str, float], first: Mapping[str, float] | None
) -> Image.Image:
    """Lift and pointing game over the layers, beside those of the run's first entry, where this is another."""
    layers = [focus.layer for focus in foci]

    def at_first(measure: str) -> list[float] | None:
        values = [value for layer in layers if (value := (first or {}).get(f"{measure}/{layer}")) is not None]
        return values if len(values) == len(layers) else None

    rows = [
        Profile(
            "lift: focus on the object, in multiples of chance",
            [focus.lift for focus in foci],
            at_first("lift"),
            chance=1.0,
        ),
        Profile(
            "pointing game: images whose hottest cell lies on the object",
            [scalars[f"pointing_game/{layer}"] for layer in layers],
            at_first("pointing_game"),
            chance=foci[0].area,
            share=True,
        ),
    ]
    return depth_profile(layers, rows)


def draw_counterfactuals(probe: ProbeSet, sets: Counterfactuals, cell: int) -> Image.Image:
    """What the network is asked: of a dozen images at most, the object on other backgrounds, and either painted out."""
    masked = probe.has_mask.nonzero()[:, 0].tolist()
    shown = sorted({round(i * (len(masked) - 1) / (COUNTERFACTUAL_ROWS - 1)) for i in range(COUNTERFACTUAL_ROWS)})
    own, without, alone = (
        probe.display_images(images) for images in (probe.images[masked], sets.background, sets.foreground)
    )
    swapped = None if sets.swapped is None else probe.display_images(sets.swapped)
    each = 0 if swapped is None else len(swapped) // len(masked)
    rows = []
    for i in shown:
        mine = [] if swapped is None else list(swapped[(sets.objects == i).numpy()])[:each]
        rows.append((probe.names[masked[i]], [own[i], *mine, without[i], alone[i]]))
    headings = ["input", *["swapped"] * each, "no object", "no ground"]
    title = "counterfactuals: the same object on other ground, and either painted out" + (
        f" ({len(shown)} of {len(masked)})" if len(shown) < len(masked) else ""
    )
    return contact_sheet(title, headings, rows, cell)
