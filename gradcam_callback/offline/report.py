"""Write one page of a run that can be mailed: the verdict, plots, and each probe image over epochs and layers.

The run is a TensorBoard run, whose event files are read, or the folder of ``save_dir`` or ``save_maps``.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from tqdm import tqdm

from gradcam_callback.drawing import encode_jpeg, over_time
from gradcam_callback.measures import MASKS
from gradcam_callback.offline.logged_run import LoggedRun, read_run
from gradcam_callback.run import tags
from gradcam_callback.run.tags import join

QUALITY = 80


def write_report(run: str | Path, out: str | Path, max_epochs: int = 12, tag_prefix: str | None = None) -> None:
    """Write the page of a run.

    Args:
        run: the folder of a TensorBoard run, of ``save_dir`` or of ``save_maps``.
        out: the HTML file.
        max_epochs: how many epochs to show, evenly spread. Each takes about 20 kB per probe image.
        tag_prefix: whose entries to show, if several callbacks logged into the event file. None takes the first.

    Raises:
        ValueError: the folder holds no run, or nothing to draw.

    Examples:
        >>> from gradcam_callback import write_report
        >>> write_report("/no/run/here", "focus.html")
        Traceback (most recent call last):
        ValueError: Expected the folder of one run, but '/no/run/here' holds no event file and no history.json. ...
    """
    run, out = Path(run), Path(out)
    logged = read_run(run, tag_prefix)
    # All overlays of all epochs are in the page, so their number decides its size.
    shown = logged.pick(max_epochs)
    manifest = logged.manifest
    overlays: list[dict[str, list[str]]] = [{layer: [] for layer in manifest.layers} for _ in manifest.names]
    for place in tqdm(shown, "epochs", disable=None):
        for image, drawn in zip(overlays, logged.source.overlays(logged.steps[place]), strict=True):
            for layer, overlay in drawn.items():
                image[layer].append(_base64(overlay))
    inputs = [f"data:image/jpeg;base64,{_base64(image)}" for image in logged.source.inputs()]
    images = [
        {"name": name, "label": label, "input": source}
        for name, label, source in zip(manifest.names, manifest.classes, inputs, strict=True)
    ]
    # Autoescaped, since names come from the user's files.
    environment = Environment(
        loader=PackageLoader("gradcam_callback.offline", ""), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        title=run.resolve().name,
        verdict=logged.verdict,
        colour=_colour(logged.verdict),
        sheets=[f"data:image/jpeg;base64,{base64.b64encode(sheet).decode()}" for sheet in logged.sheets],
        plots=list(_plots(logged)),
        colours=logged.source.colours,
        layers=list(manifest.layers),
        entries=[logged.epochs[place] for place in shown],
        logged=len(logged.steps),
        images=images,
        overlays=overlays,
    )
    out.write_text(page, encoding="utf-8")


def _colour(verdict: Mapping[str, Any] | None) -> str:
    """Return the colour of a verdict: red for a suspicion, green for no sign by given masks, grey for anything else."""
    if verdict is not None and verdict["suspected"]:
        return "#c81e1e"
    acquits = (
        verdict is not None and verdict["basis"] == MASKS and verdict["headline"].startswith("NO SIGN OF A SHORTCUT:")
    )
    return "#15803d" if acquits else "#71717a"


def _plots(logged: LoggedRun) -> Iterator[dict[str, str]]:
    """Yield a plot of the accuracies, of the background gap with its interval, and of each metric by layer."""
    accuracies = {name.replace("_", " "): logged.values_of(name) for name in tags.ACCURACIES if name in logged.scalars}
    if accuracies:
        yield _plot("accuracies", logged, accuracies)
    for gap, low, high in (tags.GAP, tags.FRAME_GAPS):
        if gap in logged.scalars:
            name, band = gap.replace("_", " "), (logged.values_of(low), logged.values_of(high))
            yield _plot(f"{name} with its 95 % interval", logged, {name: logged.values_of(gap)}, band)
    for metric in tags.CHARTED:
        names = {layer: join(metric, layer) for layer in logged.manifest.layers}
        lines = {layer: logged.values_of(name) for layer, name in names.items() if name in logged.scalars}
        if lines:
            yield _plot(f"{metric.replace('_', ' ')} by layer", logged, lines)


def _plot(
    title: str,
    logged: LoggedRun,
    lines: Mapping[str, list[float]],
    band: tuple[list[float], list[float]] | None = None,
) -> dict[str, str]:
    buffer = io.BytesIO()
    over_time(title, logged.epochs, lines, band).save(buffer, "PNG", optimize=True)
    return {"title": title, "source": f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"}


def _base64(image: Image.Image) -> str:
    return base64.b64encode(encode_jpeg(image, QUALITY).data).decode()
