"""Plots of figures, as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from gradcam_callback.layer_names import block_of

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
    return _picture(canvas)


def over_time(
    title: str,
    epochs: Sequence[str],
    lines: Mapping[str, Sequence[float]],
    band: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Image.Image:
    """Figures over the logged epochs, one line each, NaN where there is none.

    Args:
        lines: name -> a value per epoch; many are taken for layers, their colours from dark at the input to light.
        band: the lower and the upper bound of an interval, shaded.
    """
    figure = Figure(figsize=(7.6, 3.6), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    places = np.arange(len(epochs))
    if band is not None:
        axes.fill_between(places, np.asarray(band[0]), np.asarray(band[1]), color=FIRST, alpha=0.35, linewidth=0)
    few = len(lines) <= 4
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(lines)))
    for (name, values), colour in zip(lines.items(), colours, strict=True):
        axes.plot(places, values, label=name, color=None if few else colour, marker="o", markersize=4, linewidth=1.6)
    shown = np.unique(np.linspace(0, len(epochs) - 1, min(12, len(epochs))).round().astype(int))
    axes.set_xticks(shown, [epochs[place] for place in shown])
    axes.set_xlabel("epoch")
    axes.set_ylim(bottom=0)
    axes.set_title(title, loc="left", fontsize=12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    return _picture(canvas)


def _picture(canvas: FigureCanvasAgg) -> Image.Image:
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
