"""Every picture of one observation: a panel per probe image and per layer, and the strips over the epochs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PIL import Image

from gradcam_callback.evolution import Evolution
from gradcam_callback.gradcam import CAMs, class_probability, predicted_class
from gradcam_callback.probe import ProbeSet
from gradcam_callback.render import Caption, Picture, Style, evolution_strip, layer_panel, probe_panel


def captions(probe: ProbeSet, cams: CAMs) -> list[Caption]:
    """What is written beside each probe image."""
    predicted = predicted_class(cams.logits)
    sure = class_probability(cams.logits, predicted)
    explained = class_probability(cams.logits, cams.targets)
    return [
        Caption(
            name,
            probe.class_name(int(probe.labels[i])),
            probe.class_name(int(predicted[i])),
            bool(predicted[i] == probe.labels[i]),
            float(sure[i]),
            probe.class_name(int(cams.targets[i])),
            float(explained[i]),
        )
        for i, name in enumerate(probe.names)
    ]


def inputs(probe: ProbeSet) -> list[Picture]:
    """The probe images with their masks, to be made once per run."""
    masks = [
        probe.masks[i].numpy() if probe.masks is not None and probe.has_mask[i] else None for i in range(len(probe))
    ]
    return [Picture(pixels, mask) for pixels, mask in zip(probe.pictures(), masks, strict=True)]


def draw_panels(
    probe: ProbeSet, pictures: Sequence[Picture], cams: CAMs, evolution: Evolution, style: Style
) -> Iterator[tuple[tuple[str, str], Image.Image]]:
    """Yield ``(("probe" | "layer" | "evolution", name), picture)`` for every probe image and every layer."""
    words = captions(probe, cams)
    maps = {layer: raw.numpy() for layer, raw in cams.maps.items()}
    frames = evolution.frames()
    columns = [frame.heading for frame in frames]
    for i, name in enumerate(probe.names):
        of_image = {layer: raw[i] for layer, raw in maps.items()}
        yield ("probe", name), probe_panel(pictures[i], of_image, words[i], style)
    for layer, raw in maps.items():
        yield ("layer", layer), layer_panel(layer, pictures, raw, words, style)
    for i, name in enumerate(probe.names):
        over_time = {layer: [frame.maps[layer][i] for frame in frames] for layer in maps}
        sure = [frame.probabilities[i] for frame in frames]
        strip = evolution_strip(
            pictures[i], name, words[i].explained, list(zip(columns, sure, strict=True)), over_time, style
        )
        yield ("evolution", name), strip
