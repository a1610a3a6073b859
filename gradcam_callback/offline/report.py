"""One page of a run that can be mailed: the verdict, plots, and each probe image over epochs and layers.

    python -m gradcam_callback report RUN_DIR -o focus.html

``RUN_DIR`` is a TensorBoard run, whose event files are read, or the folder of ``save_dir`` or ``save_maps``.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tqdm import tqdm

from gradcam_callback.drawing.canvas import InputImage, Style, encode_jpeg, marked
from gradcam_callback.drawing.heatmap import overlay, scale
from gradcam_callback.drawing.plots import over_time
from gradcam_callback.run.tags import tag
from gradcam_callback.writers.sinks import Manifest, file_name
from gradcam_callback.writers.tensorboard import ACCURACIES, BY_LAYER

# Pixels: a cell drawn from raw maps, and the quality in which pictures are put into the page.
CELL, QUALITY = 160, 80

# Of one logged epoch: each image's overlays, by layer.
Overlays = list[dict[str, Image.Image]]


@dataclass(frozen=True)
class Record:
    """What was logged of a run.

    Attributes:
        scalars: measure, as in a tag behind ``gradcam/`` -> step -> value.
        steps, epochs: of each logged validation.
    """

    manifest: Manifest
    verdict: str | None
    scalars: Mapping[str, Mapping[int, float]]
    steps: Sequence[int]
    epochs: Sequence[str]
    source: Pictures

    def pick(self, most: int) -> list[int]:
        """The places of at most ``most`` entries, evenly spread, the first and the last among them."""
        count = len(self.steps)
        return [int(place) for place in np.unique(np.linspace(0, count - 1, min(most, count)).round())]


class Pictures(Protocol):
    """Where the pictures of a record come from; ``colours`` says what theirs mean."""

    colours: str

    def inputs(self) -> list[Image.Image]:
        """The probe images."""

    def overlays(self, step: int) -> Overlays:
        """Of the entry at a step."""


class Panels:
    """Cut out of the probe panels: image name -> step -> JPEG."""

    colours = "in the colours, and on the scale, in which they were logged"

    def __init__(self, manifest: Manifest, panels: Mapping[str, Mapping[int, bytes]]) -> None:
        self._manifest, self._panels = manifest, panels

    def _panel(self, name: str, step: int) -> Image.Image:
        return Image.open(io.BytesIO(self._panels[name][step])).convert("RGB")

    def inputs(self) -> list[Image.Image]:
        # Without its frame, which says right or wrong of one epoch only.
        left, top, right, bottom = self._manifest.input_box
        box = left + 3, top + 3, right - 3, bottom - 3
        return [self._panel(name, max(self._panels[name])).crop(box) for name in self._manifest.names]

    def overlays(self, step: int) -> Overlays:
        found = []
        for name in self._manifest.names:
            panel = self._panel(name, step)
            found.append({layer: panel.crop(box) for layer, box in self._manifest.overlay_boxes.items()})
        return found


class Maps:
    """Drawn from the raw maps."""

    colours = "drawn from grey, no focus, to bright yellow, each map's own maximum"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        asked = np.load(folder / "probe.npz")
        masked = asked["masks"].any(axis=(1, 2))
        self._pictures = [
            InputImage(pixels, mask if there else None)
            for pixels, mask, there in zip(asked["images"], asked["masks"], masked, strict=True)
        ]
        self._cell = self._pictures[0].fit(CELL)

    def inputs(self) -> list[Image.Image]:
        return [Image.fromarray(picture.outlined(*self._cell)) for picture in self._pictures]

    def overlays(self, step: int) -> Overlays:
        found: Overlays = [{} for _ in self._pictures]
        for layer, maps in np.load(self._folder / "maps" / f"{step:08d}.npz").items():
            heat = scale(maps, *self._cell, smooth=True)
            for i, picture in enumerate(self._pictures):
                pixels = overlay(picture.grey(*self._cell), heat[i], Style().colormap)
                found[i][layer] = Image.fromarray(marked(pixels, heat[i]))
        return found


def read(run: Path) -> Record:
    """Read what was logged in a folder.

    Raises:
        ValueError: there is nothing of this package's in it.
    """
    if (run / "history.json").exists():
        return _read_folder(run)
    if any(run.glob("events.out.tfevents.*")):
        return _read_events(run)
    below = sorted({path.parent for path in (*run.glob("**/events.out.tfevents.*"), *run.glob("**/history.json"))})
    hint = f" Below it there are runs, such as {below[0]}." if below else ""
    raise ValueError(f"{run} holds no event file and no history.json. Expected the folder of one run.{hint}")


def _read_folder(run: Path) -> Record:
    manifest = Manifest.from_json((run / "manifest.json").read_text(encoding="utf-8"))
    kept = json.loads((run / "history.json").read_text(encoding="utf-8"))
    # Where an epoch was validated twice, the later entry of a step is the one whose pictures are there.
    by_step = {int(entry["step"]): entry for entry in kept["history"]}
    scalars: dict[str, dict[int, float]] = {}
    for step, entry in by_step.items():
        for name, value in entry.items():
            if name.startswith(tag("")):
                scalars.setdefault(name.removeprefix(tag("")), {})[step] = value
    if (run / "probe.npz").exists():
        source: Pictures = Maps(run)
        there = {step for step in by_step if (run / "maps" / f"{step:08d}.npz").exists()}
    else:
        panels = {
            name: {int(path.stem): path.read_bytes() for path in (run / file_name(tag("probe", name))).glob("*.jpg")}
            for name in manifest.names
        }
        source, there = Panels(manifest, panels), set.intersection(*(set(of_image) for of_image in panels.values()))
    steps = [step for step in by_step if step in there]
    return _checked(
        run,
        Record(manifest, kept["verdict"], scalars, steps, [_word(by_step[step]["epoch"]) for step in steps], source),
    )


def _read_events(run: Path) -> Record:
    events = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    if tag("manifest") not in tags["tensors"]:
        raise ValueError(f"The event files in {run} hold nothing of gradcam_callback.")

    def words(name: str) -> str | None:
        if tag(name) not in tags["tensors"]:
            return None
        return str(events.Tensors(tag(name))[-1].tensor_proto.string_val[0].decode())

    manifest = Manifest.from_json(words("manifest") or "")
    scalars = {
        name.removeprefix(tag("")): {event.step: event.value for event in events.Scalars(name)}
        for name in tags["scalars"]
        if name.startswith(tag(""))
    }
    panels = {
        name: {event.step: event.encoded_image_string for event in events.Images(tag("probe", name))}
        for name in manifest.names
        if tag("probe", name) in tags["images"]
    }
    steps = sorted(set.intersection(*(set(of_image) for of_image in panels.values()))) if panels else []
    # Lightning logs the epoch of each step beside the scalars; at step 0 that is the first training step's.
    epochs = {event.step: event.value for event in events.Scalars("epoch")} if "epoch" in tags["scalars"] else {}
    return _checked(
        run,
        Record(
            manifest,
            words("verdict"),
            scalars,
            steps,
            ["start" if step == 0 else _word(epochs[step]) if step in epochs else f"step {step}" for step in steps],
            Panels(manifest, panels),
        ),
    )


def _checked(run: Path, record: Record) -> Record:
    if not record.steps:
        raise ValueError(
            f"{run} holds neither probe panels nor raw maps. Expected a run with the view 'probe', or with save_maps."
        )
    return record


def _word(epoch: float) -> str:
    return "start" if epoch < 0 else f"{epoch:.0f}"


def write_report(run: Path, out: Path, most: int = 12) -> None:
    """Write the page of a run.

    Args:
        most: epochs shown, evenly spread; each takes about 20 kB per probe image.

    Raises:
        ValueError: see `read`.
    """
    record = read(run)
    shown = record.pick(most)
    overlays: list[dict[str, list[str]]] = [
        {layer: [] for layer in record.manifest.layers} for _ in record.manifest.names
    ]
    for place in tqdm(shown, "epochs", disable=None):
        for image, found in zip(overlays, record.source.overlays(record.steps[place]), strict=True):
            for layer, picture in found.items():
                image[layer].append(_base64(picture))
    manifest = record.manifest
    inputs = [f"data:image/jpeg;base64,{_base64(picture)}" for picture in record.source.inputs()]
    images = [
        {"name": name, "label": label, "input": source}
        for name, label, source in zip(manifest.names, manifest.classes, inputs, strict=True)
    ]
    # Autoescaped: names come from the user's files.
    environment = Environment(loader=PackageLoader("gradcam_callback", ""), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("report.html.j2").render(
        title=run.resolve().name,
        verdict=record.verdict,
        suspected=record.verdict is not None and "is suspected" in record.verdict,
        plots=list(_plots(record)),
        colours=record.source.colours,
        layers=list(manifest.layers),
        entries=[record.epochs[place] for place in shown],
        logged=len(record.steps),
        images=images,
        overlays=overlays,
    )
    out.write_text(page, encoding="utf-8")


def _plots(record: Record) -> Iterator[dict[str, str]]:
    """The accuracies with the swap's interval, and each measure by layer."""

    def of(name: str) -> list[float]:
        return [record.scalars.get(name, {}).get(step, float("nan")) for step in record.steps]

    def plot(title: str, lines: Mapping[str, list[float]], band: tuple[list[float], list[float]] | None = None) -> Any:
        drawn = over_time(title, record.epochs, lines, band)
        buffer = io.BytesIO()
        drawn.save(buffer, "PNG", optimize=True)
        return {"title": title, "source": f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"}

    there = {name.replace("_", " "): of(name) for name in ACCURACIES if name in record.scalars}
    band = (of("swap_accuracy_low"), of("swap_accuracy_high")) if "swap_accuracy_low" in record.scalars else None
    if there:
        yield plot("accuracies" + (", swap with its 95 % interval" if band else ""), there, band)
    for measure in BY_LAYER:
        lines = {
            layer: of(f"{measure}/{layer}")
            for layer in record.manifest.layers
            if f"{measure}/{layer}" in record.scalars
        }
        if lines:
            yield plot(f"{measure.replace('_', ' ')} by layer", lines)


def _base64(picture: Image.Image) -> str:
    return base64.b64encode(encode_jpeg(picture, QUALITY).data).decode()
