"""Every picture of one observation: a panel per probe image and per layer, and the strips over the epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from PIL import Image

from gradcam_callback.evolution import Evolution
from gradcam_callback.gradcam import CAMs, class_probability, predicted_class
from gradcam_callback.observation import Observation
from gradcam_callback.plots import Profile, depth_profile
from gradcam_callback.probe import ProbeSet
from gradcam_callback.render import (
    Caption,
    Picture,
    Style,
    contact_sheet,
    evolution_strip,
    layer_panel,
    probe_panel,
)
from gradcam_callback.shortcut import Counterfactuals
from gradcam_callback.verdict import Focus

COUNTERFACTUAL_ROWS = 12


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


def draw_all(
    probe: ProbeSet,
    pictures: Sequence[Picture],
    seen: Observation,
    evolution: Evolution,
    first: Mapping[str, float] | None,
    style: Style,
) -> Iterator[tuple[tuple[str, ...], Image.Image]]:
    """Yield every picture of an entry with the parts of its tag.

    Args:
        first: the scalars of the run's first entry; None where this is the first, which also shows what is asked.
    """
    yield from draw_panels(probe, pictures, seen.cams, evolution, style)
    if seen.foci:
        yield ("depth_profile",), draw_depth_profile(seen.foci, seen.scalars, first)
    if seen.counterfactuals is not None and first is None:
        yield ("counterfactuals",), draw_counterfactuals(probe, seen.counterfactuals, style.cell)


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
        probe.pictures(images) for images in (probe.images[masked], sets.background, sets.foreground)
    )
    swapped = None if sets.swapped is None else probe.pictures(sets.swapped)
    each = 0 if swapped is None else len(swapped) // len(masked)
    rows = []
    for i in shown:
        mine = [] if swapped is None else list(swapped[(sets.objects == i).numpy()])[:each]
        rows.append((probe.names[masked[i]], [own[i], *mine, without[i], alone[i]]))
    headings = ["probe image", *["swapped"] * each, "object out", "ground out"]
    title = "counterfactuals: the same object on other ground, and either painted out" + (
        f" ({len(shown)} of {len(masked)})" if len(shown) < len(masked) else ""
    )
    return contact_sheet(title, headings, rows, cell)
