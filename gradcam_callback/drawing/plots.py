"""Plots of metrics over the layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from gradcam_callback.drawing.text import line_width
from gradcam_callback.layer_names import block_of

NOW, FIRST, CHANCE, BETWEEN_BLOCKS = "#c2410c", "#a1a1aa", "#52525b", "#e4e4e7"
# Of the depth profile: dots per inch, the angle of the names, the size of titles in points, and the size of the names'
# letters and lengths in pixels.
DPI, ANGLE, TITLE, SIZE = 100, math.radians(40), 12, 14
PLOT_HEIGHT, PLOT_GAP, TOP, RIGHT = 150, 56, 40, 24


@dataclass(frozen=True)
class Profile:
    """One metric over the layers.

    Attributes:
        title: text above the plot.
        now: a value per layer, NaN if undefined.
        first: a value per layer at the first entry of the run, None if this is the first entry.
        chance: value of maps that are the same everywhere.
        share: True if the values are shares, 0..1.
    """

    title: str
    now: Sequence[float]
    first: Sequence[float] | None
    chance: float
    share: bool = False


def depth_profile(layers: Sequence[str], profiles: Sequence[Profile]) -> Image.Image:
    """Plot metrics over the layers, one below the other, to show the depth at which the object takes over.

    Args:
        layers: names from input to output.
        profiles: one per metric.
    """
    # The names of the layers stand at an angle, and the first of them reaches to the left of the plot.
    longest = max(line_width(name, SIZE) for name in layers)
    lean, rise = longest * math.cos(ANGLE), longest * math.sin(ANGLE) + SIZE
    plots = len(profiles) * PLOT_HEIGHT + (len(profiles) - 1) * PLOT_GAP
    # A title begins where the plot does, and may be wider than a plot of few layers. matplotlib moves each letter to a
    # whole pixel, which makes a line a little longer.
    titles = max(line_width(profile.title, math.ceil(TITLE * DPI / 72) + 1) for profile in profiles)
    left, width, height = max(64.0, lean), max(420.0, titles, 60.0 * len(layers)), TOP + plots + rise + 24
    # `Figure` without pyplot: no global state, and no window on a machine with a screen. The margins are given, since a
    # layout engine draws every text once more to find them, which takes as long as the plot itself.
    figure = Figure(figsize=((left + width + RIGHT) / DPI, height / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    grid = {
        "left": left / (left + width + RIGHT),
        "right": (left + width) / (left + width + RIGHT),
        "top": 1 - TOP / height,
        "bottom": (rise + 24) / height,
        "hspace": PLOT_GAP / PLOT_HEIGHT,
    }
    all_axes = figure.subplots(len(profiles), sharex=True, squeeze=False, gridspec_kw=grid)[:, 0]
    for axes, profile in zip(all_axes, profiles, strict=True):
        _plot_profile(axes, layers, profile)
    all_axes[-1].set_xticks(range(len(layers)), layers, rotation=math.degrees(ANGLE), ha="right", fontsize=10)
    return _to_image(canvas)


def _plot_profile(axes: Axes, layers: Sequence[str], profile: Profile) -> None:
    places = range(len(layers))
    axes.axhline(profile.chance, color=CHANCE, linewidth=1, linestyle="--", label="chance")
    if profile.first is not None:
        axes.plot(places, profile.first, color=FIRST, marker="o", markersize=4, label="first entry")
    axes.plot(places, profile.now, color=NOW, marker="o", markersize=6, linewidth=2, label="now")
    for place in places[1:]:
        if block_of(layers[place]) != block_of(layers[place - 1]):
            axes.axvline(place - 0.5, color=BETWEEN_BLOCKS, linewidth=1, zorder=0)
    axes.set_title(profile.title, loc="left", fontsize=TITLE)
    # A layer whose maps are all empty has the value NaN, which must not become the limit of the axis.
    highest = 1.0 if profile.share else np.nanmax([*profile.now, *(profile.first or ()), profile.chance])
    axes.set_ylim(0, 1.3 * highest)  # leaves room for the legend
    if profile.share:
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.tick_params(labelsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", fontsize=10, frameon=False, ncols=3)


def _to_image(canvas: FigureCanvasAgg) -> Image.Image:
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
