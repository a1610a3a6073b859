"""Draw every image of a run: panels per probe image and per layer, and strips over the epochs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from gradcam_callback.drawing import (
    MOST_IMAGES,
    Animation,
    Caption,
    EvolutionStrip,
    InputImage,
    LayerPanel,
    Map,
    MaskCell,
    Overview,
    ProbePanel,
    Profile,
    Style,
    depth_profile,
    mask_sheet,
    stack,
)
from gradcam_callback.maps import predicted_class
from gradcam_callback.measures import Verdict, mask_area
from gradcam_callback.probes import ProbeSet, Quota, choose_per_class
from gradcam_callback.run import tags
from gradcam_callback.run.captions import OWN_TARGET, caption_maps
from gradcam_callback.run.counterfactual_sheets import CounterfactualSheets
from gradcam_callback.run.evaluate import Evaluation
from gradcam_callback.run.interventions import Interventions
from gradcam_callback.run.state import RunState, epoch_heading
from gradcam_callback.run.tags import join

# The parts of a tag.
Parts = tuple[str, ...]
# The line below the title of the sheet of automatic masks.
MASKS_NOTE = "Bright: taken for the object. If a mask is wrong, or includes a logo, the verdict may be wrong, too."


def input_images(probe: ProbeSet) -> list[InputImage]:
    """Return the probe images with their masks. They remember their sizes, so make them once per run."""
    masks = [
        probe.masks[i].numpy() if probe.masks is not None and probe.has_mask[i] else None for i in range(len(probe))
    ]
    return [InputImage(pixels, mask) for pixels, mask in zip(probe.display_images(), masks, strict=True)]


class Album:
    """The images of a run of one probe set and one list of layers.

    All panels are laid out here, once, and later only filled in.

    Args:
        probe: the images.
        layers: their names, from input to output.
        style: how panels are drawn.
        views: some of `gradcam_callback.run.tags.VIEWS`.
        interventions: of the probe set; None without labels.
    """

    def __init__(
        self,
        probe: ProbeSet,
        layers: Sequence[str],
        style: Style,
        views: Sequence[str] = tags.DEFAULT_VIEWS,
        interventions: Interventions | None = None,
    ) -> None:
        self._probe, self._layers, self._style, self._views = probe, list(layers), style, views
        images = input_images(probe)
        # Laying out text is slow, so each panel is laid out here and only filled in later.
        self._shown = choose_shown(probe)
        self._overview = Overview([images[i] for i in self._shown], layers, style, judged=interventions is not None)
        self.probe_panel = ProbePanel(images, layers, style)
        # The longest texts that can stand below an image decide how far apart the images stand.
        predictions = [f"{name} 100 % ✓" for name in probe.class_names or ()]
        self.layer_panel = LayerPanel(images, style, [*probe.names, *predictions])
        self._strip = EvolutionStrip(images, layers, style)
        self._animation = Animation(images, layers, style)
        self._sheets = None
        if interventions is not None and tags.COUNTERFACTUALS in views:
            # The answers below the images need more room than a heatmap does.
            self._sheets = CounterfactualSheets(interventions, cell=style.cell_size * 5 // 4)

    def entry(
        self,
        evaluation: Evaluation,
        state: RunState,
        first: Mapping[str, float] | None,
        views: Collection[str] = tags.VIEWS,
    ) -> Iterator[tuple[Parts, Image.Image]]:
        """Yield every image of one logged validation, except the strips, with the parts of its tag.

        Args:
            state: holds this entry already.
            first: the scalars of the first entry of the run; None if this is the first one.
            views: those of the album that are wanted.
        """
        wanted = set(self._views) & set(views)
        contrast, vmax = evaluation.rivals is not None, self._vmax(state)
        texts = caption_maps(self._probe, evaluation.cams, contrast=contrast)
        maps = {layer: raw.numpy() for layer, raw in evaluation.cams.maps.items()}
        if tags.OVERVIEW in wanted:
            yield (tags.OVERVIEW,), self._draw_overview(maps, texts, state, vmax)
        if tags.PROBE in wanted:
            for i, name in enumerate(self._probe.names):
                own = {layer: raw[i] for layer, raw in maps.items()}
                panel = self.probe_panel.draw(i, own, texts[i], vmax)
                if evaluation.rivals and i in evaluation.rivals:
                    panel = stack([panel, self._draw_rival(evaluation, i)])
                yield (tags.PROBE, name), panel
        if tags.LAYER in wanted:
            for layer, raw in maps.items():
                yield (tags.LAYER, layer), self.layer_panel.draw(layer, raw, texts, vmax)
        if evaluation.foci and tags.DEPTH_PROFILE in wanted:
            yield (tags.DEPTH_PROFILE,), draw_depth_profile(self._probe, evaluation, first)
        if first is None and self._probe.verdict_set.proposals and tags.MASKS in wanted:
            title, cells = mask_cells(self._probe.verdict_set)
            yield (tags.MASKS,), mask_sheet(title, MASKS_NOTE, cells)
        sheets_of = self._sheets if tags.COUNTERFACTUALS in wanted else None
        if sheets_of is not None and evaluation.answers is not None and state.verdict is not None:
            sheets = sheets_of.draw(evaluation.cams.logits, evaluation.answers, state.verdict)
            for number, sheet in enumerate(sheets, start=1):
                yield tags.sheet_of_counterfactuals(number), sheet

    def _draw_overview(
        self, maps: Mapping[str, Map], texts: Sequence[Caption], state: RunState, vmax: Mapping[str, float] | None
    ) -> Image.Image:
        shown, verdict = self._shown, state.verdict
        own = {layer: maps[layer][shown] for layer in self._overview.layers}
        epoch, note = state.history[-1]["epoch"], "Bright: where the evidence lies"
        title = epoch_heading(epoch) if epoch < 0 else f"epoch {epoch_heading(epoch)}"
        if self._probe.masks is not None:
            note = "Bright: evidence. White line: object"
        if verdict is not None:
            title, note = verdict.headline, f"{title}. {note}"
        return self._overview.draw(own, [texts[i] for i in shown], title, note, tone_of(verdict), vmax)

    def _draw_rival(self, evaluation: Evaluation, i: int) -> Image.Image:
        """Draw why the predicted class and not another, below the panel of a wrong prediction."""
        assert evaluation.rivals is not None
        cams = evaluation.cams
        predicted = replace(cams, targets=predicted_class(cams.logits))
        maps = {layer: raw.numpy() for layer, raw in evaluation.rivals[i].items()}
        # Another map than the run's own, so it has a scale of its own.
        return self.probe_panel.draw(i, maps, caption_maps(self._probe, predicted, contrast=True)[i])

    def strips(self, state: RunState) -> Iterator[tuple[Parts, Image.Image]]:
        """Yield one strip over the logged epochs per probe image."""
        if tags.EVOLUTION in self._views:
            for i, name in enumerate(self._probe.names):
                yield (tags.EVOLUTION, name), self._strip.draw(i, name, *self._over_time(state, i), self._vmax(state))

    def animations(self, state: RunState) -> Iterator[tuple[Parts, list[Image.Image]]]:
        """Yield the frames over the logged epochs of each probe image."""
        if tags.ANIMATION in self._views:
            for i, name in enumerate(self._probe.names):
                frames = self._animation.frames(i, name, *self._over_time(state, i), self._vmax(state))
                yield (tags.ANIMATION, name), frames

    def _over_time(self, state: RunState, i: int) -> tuple[str, list[str], list[float], dict[str, Map]]:
        """Return the class that the maps of an image explain, and heading, probability and maps of each column."""
        snapshots = state.snapshots()
        explained = {snapshot.targets[i] for snapshot in snapshots}
        # With target="predicted" the class may change from one epoch to the next.
        only = explained.pop() if len(explained) == 1 else None
        name = "predicted class" if only is None else OWN_TARGET if only < 0 else self._probe.class_name(only)
        headings = [snapshot.heading for snapshot in snapshots]
        probabilities = [snapshot.probabilities[i] for snapshot in snapshots]
        maps = {layer: np.stack([snapshot.map_of(layer, i) for snapshot in snapshots]) for layer in self._layers}
        return name, headings, probabilities, maps

    def _vmax(self, state: RunState) -> Mapping[str, float] | None:
        return state.vmax if self._style.scaling == "run" else None


def choose_shown(probe: ProbeSet) -> list[int]:
    """Return the numbers of the images of the overview, evenly over the classes. They stay the same over a run."""
    return [i for i, _ in choose_per_class(list(enumerate(probe.labels.tolist())), Quota(None, MOST_IMAGES))]


def tone_of(verdict: Verdict | None) -> str:
    """Return how a verdict is coloured: ``"suspected"``, ``"clear"`` if true masks show no sign, else ``"unknown"``."""
    if verdict is None:
        return "unknown"
    return "suspected" if verdict.suspected else "clear" if verdict.acquits else "unknown"


def mask_cells(probe: ProbeSet) -> tuple[str, list[MaskCell]]:
    """Return every automatic mask that was made, those that were left out first, and a title that counts them."""
    pixels = probe.display_images()
    cells = [
        MaskCell(probe.names[i], InputImage(pixels[i], proposal.mask.numpy()), proposal.doubt)
        for i, proposal in (probe.proposals or {}).items()
    ]
    used = sum(cell.doubt is None for cell in cells)
    title = f"Automatic masks: {used} of {len(cells)} used"
    if probe.replaced:
        many = len(probe.replaced) > 1
        title += f"; {len(probe.replaced)} other image{'s were' if many else ' was'} replaced"
    cells += [
        MaskCell(image.name, InputImage(image.pixels, image.proposal.mask.numpy()), image.proposal.doubt, replaced=True)
        for image in probe.replaced
    ]
    return title, sorted(cells, key=lambda cell: cell.doubt is None)


def draw_depth_profile(probe: ProbeSet, evaluation: Evaluation, first: Mapping[str, float] | None) -> Image.Image:
    """Draw lift and pointing game over the layers, beside their values at the first entry of the run."""
    assert probe.masks is not None
    layers = [focus.layer for focus in evaluation.foci]
    # The chance that any one cell lies on the object.
    area = float(mask_area(probe.masks[probe.has_mask]).mean())

    def at_first(metric: str) -> list[float] | None:
        if first is None:
            return None
        values = [first.get(join(metric, layer), float("nan")) for layer in layers]
        return None if all(map(math.isnan, values)) else values

    rows = [
        Profile(
            "lift: focus on the object, in multiples of chance",
            [focus.lift for focus in evaluation.foci],
            at_first(tags.LIFT),
            chance=1.0,
        ),
        Profile(
            "pointing game: images whose hottest cell lies on the object",
            [evaluation.scalars[join(tags.POINTING_GAME, layer)] for layer in layers],
            at_first(tags.POINTING_GAME),
            chance=area,
            share=True,
        ),
    ]
    return depth_profile(layers, rows)
