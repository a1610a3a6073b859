"""Plots of figures, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from gradcam_callback.words import block_of

NOW, FIRST, CHANCE, BETWEEN_BLOCKS = "#c2410c", "#a1a1aa", "#52525b", "#e4e4e7"


@dataclass(frozen=True)
class Profile:
    """One measure over the layers.

    Attributes:
        now: a value per layer; first: the same at the run's first entry, None where this is the first.
        chance: what looking nowhere in particular would give.
        share: whether the values are shares, 0..1.
    """

    title: str
    now: Sequence[float]
    first: Sequence[float] | None
    chance: float
    share: bool = False


def depth_profile(layers: Sequence[str], profiles: Sequence[Profile]) -> Image.Image:
    """Measures over the layers, from input to output, so that the depth can be seen at which the object takes over."""
    figure = Figure(
        figsize=(max(6.0, 1.8 + 0.6 * len(layers)), 1.2 + 2.2 * len(profiles)),
        dpi=100,
        layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12),
    )
    canvas = FigureCanvasAgg(figure)
    panes = figure.subplots(len(profiles), sharex=True, squeeze=False)[:, 0]
    for axes, profile in zip(panes, profiles, strict=True):
        _draw(axes, layers, profile)
    panes[-1].set_xticks(range(len(layers)), layers, rotation=40, ha="right", fontsize=10)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _draw(axes: Axes, layers: Sequence[str], profile: Profile) -> None:
    places = range(len(layers))
    axes.axhline(profile.chance, color=CHANCE, linewidth=1, linestyle="--", label="chance")
    if profile.first is not None:
        axes.plot(places, profile.first, color=FIRST, marker="o", markersize=4, label="first entry")
    axes.plot(places, profile.now, color=NOW, marker="o", markersize=6, linewidth=2, label="now")
    for place in places[1:]:
        if block_of(layers[place]) != block_of(layers[place - 1]):
            axes.axvline(place - 0.5, color=BETWEEN_BLOCKS, linewidth=1, zorder=0)
    axes.set_title(profile.title, loc="left", fontsize=12)
    highest = 1.0 if profile.share else max(*profile.now, *(profile.first or ()), profile.chance)
    axes.set_ylim(0, 1.3 * highest)  # with room for the legend
    if profile.share:
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.tick_params(labelsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", fontsize=10, frameon=False, ncols=3)
