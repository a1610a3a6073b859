"""Read what was logged of a run, from event files or from plain files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gradcam_callback.drawing import InputImage, Style, blend, label_if_empty, scale
from gradcam_callback.run import Tags, epoch_heading, tags
from gradcam_callback.writers import HISTORY, MANIFEST, PROBE, Manifest, image_path, map_file

# The longer side, in pixels, of an overlay that is drawn from raw maps.
CELL = 160

# The overlays of one logged epoch: for each image, by layer.
Overlays = list[dict[str, Image.Image]]


class ImageSource(Protocol):
    """The place that the images of a logged run come from.

    Attributes:
        colours: says what the colours of the overlays mean.
    """

    colours: str

    def inputs(self) -> list[Image.Image]:
        """Return the probe images."""

    def overlays(self, step: int) -> Overlays:
        """Return the overlays of the entry at a step."""


@dataclass(frozen=True)
class LoggedRun:
    """A run as it was logged.

    Attributes:
        manifest: names, labels and layers.
        verdict: of the last entry, with ``"suspected"``, ``"headline"`` and ``"evidence"``; None without labels.
        sheets: the counterfactuals with the answers of the last entry, as JPEG; empty without masks.
        scalars: name without prefix -> step -> value.
        steps: of each logged validation.
        epochs: the heading of each logged validation.
        source: of its images.
    """

    manifest: Manifest
    verdict: Mapping[str, Any] | None
    sheets: Sequence[bytes]
    scalars: Mapping[str, Mapping[int, float]]
    steps: Sequence[int]
    epochs: Sequence[str]
    source: ImageSource

    def pick(self, max_epochs: int) -> list[int]:
        """Return the places of at most ``max_epochs`` entries, evenly spread, with the first and the last."""
        count = len(self.steps)
        return [int(place) for place in np.unique(np.linspace(0, count - 1, min(max_epochs, count)).round())]

    def values_of(self, name: str) -> list[float]:
        """Return the value of a scalar at each step, NaN if it has none."""
        values = self.scalars.get(name, {})
        return [values.get(step, float("nan")) for step in self.steps]


class PanelSource:
    """Images that are cut out of the probe panels.

    Args:
        manifest: says where a panel shows the input and the overlays.
        panels: image name -> step -> JPEG.
    """

    colours = "in the colours, and on the scale, in which they were logged"

    def __init__(self, manifest: Manifest, panels: Mapping[str, Mapping[int, bytes]]) -> None:
        self._manifest, self._panels = manifest, panels

    def inputs(self) -> list[Image.Image]:
        # Without the frame, whose colour says correct or wrong of one epoch only.
        left, top, right, bottom = self._manifest.input_box
        box = left + 3, top + 3, right - 3, bottom - 3
        return [self._open(name, max(self._panels[name])).crop(box) for name in self._manifest.names]

    def overlays(self, step: int) -> Overlays:
        boxes = self._manifest.overlay_boxes
        panels = [self._open(name, step) for name in self._manifest.names]
        return [{layer: panel.crop(box) for layer, box in boxes.items()} for panel in panels]

    def _open(self, name: str, step: int) -> Image.Image:
        return Image.open(io.BytesIO(self._panels[name][step])).convert("RGB")


class MapSource:
    """Images that are drawn from raw maps.

    Args:
        folder: of the run.
    """

    colours = "drawn from grey, no focus, to bright yellow, each map's own maximum"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        probe = np.load(folder / PROBE)
        has_mask = probe["masks"].any(axis=(1, 2))
        self._images = [
            InputImage(pixels, mask if masked else None)
            for pixels, mask, masked in zip(probe["images"], probe["masks"], has_mask, strict=True)
        ]
        self._size = self._images[0].fit(CELL)

    def inputs(self) -> list[Image.Image]:
        return [Image.fromarray(image.outlined(*self._size)) for image in self._images]

    def overlays(self, step: int) -> Overlays:
        overlays: Overlays = [{} for _ in self._images]
        for layer, maps in np.load(self._folder / map_file(step)).items():
            heat = scale(maps, *self._size, smooth=True)
            for i, image in enumerate(self._images):
                pixels = blend(image.grey(*self._size), heat[i], Style().colormap)
                overlays[i][layer] = Image.fromarray(label_if_empty(pixels, heat[i]))
        return overlays


def read_run(run: Path, tag_prefix: str | None = None) -> LoggedRun:
    """Read what was logged in a folder.

    Args:
        run: the folder of a TensorBoard run, of ``save_dir`` or of ``save_maps``.
        tag_prefix: see `write_report`.

    Raises:
        ValueError: the folder holds no run of this package, or nothing to draw.
    """
    if (run / HISTORY).exists():
        logged = _read_folder(run)
    elif any(run.glob("events.out.tfevents.*")):
        logged = _read_events(run, tag_prefix)
    else:
        below = sorted({path.parent for path in (*run.glob("**/events.out.tfevents.*"), *run.glob(f"**/{HISTORY}"))})
        hint = f"Below it there are runs, such as {below[0]}." if below else "Check the path."
        raise ValueError(
            f"Expected the folder of one run, but {str(run)!r} holds no event file and no {HISTORY}. {hint}"
        )
    if not logged.steps:
        raise ValueError(
            f"Expected probe panels or raw maps, but {str(run)!r} holds neither. Log the view 'probe', or set "
            "save_maps."
        )
    return logged


def _read_folder(run: Path) -> LoggedRun:
    manifest = Manifest.from_json((run / MANIFEST).read_text(encoding="utf-8"))
    saved = json.loads((run / HISTORY).read_text(encoding="utf-8"))
    # An epoch may be validated twice. The later entry of a step is the one with the images.
    by_step = {int(entry["step"]): entry for entry in saved["history"]}
    below = f"{manifest.tag_prefix}/"
    scalars: dict[str, dict[int, float]] = {}
    for step, entry in by_step.items():
        for tag, value in entry.items():
            if tag.startswith(below):
                scalars.setdefault(tag.removeprefix(below), {})[step] = value
    source: ImageSource
    if (run / PROBE).exists():
        source = MapSource(run)
        complete = {step for step in by_step if (run / map_file(step)).exists()}
    else:
        panels = {name: _read_images(run, manifest, tags.PROBE, name) for name in manifest.names}
        source, complete = PanelSource(manifest, panels), set.intersection(*(set(found) for found in panels.values()))
    steps = [step for step in by_step if step in complete]
    headings = [epoch_heading(by_step[step]["epoch"]) for step in steps]
    sheets = _last_sheets(max(by_step), lambda *parts: _read_images(run, manifest, *parts))
    return LoggedRun(manifest, saved["verdict"], sheets, scalars, steps, headings, source)


def _read_images(run: Path, manifest: Manifest, *parts: str) -> dict[int, bytes]:
    folder = run / image_path(Tags(manifest.tag_prefix)(*parts), manifest.tag_prefix)
    return {int(path.stem): path.read_bytes() for path in folder.glob("*.jpg")}


def _last_sheets(step: int, read: Callable[..., Mapping[int, bytes]]) -> list[bytes]:
    """Return the sheets of counterfactuals at a step.

    Args:
        step: of the last entry.
        read: returns step -> JPEG of the images below parts of a tag.
    """
    sheets: list[bytes] = []
    while (found := read(*tags.sheet_of_counterfactuals(len(sheets) + 1)).get(step)) is not None:
        sheets.append(found)
    return sheets


def _read_events(run: Path, tag_prefix: str | None) -> LoggedRun:
    events = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    events.Reload()  # reads all files of the folder, also those of a resumed run
    found = events.Tags()
    names = Tags(_choose_prefix(run, found["tensors"], tag_prefix))
    manifest = Manifest.from_json(_read_text(events, names("manifest")))
    verdict = names(tags.VERDICT_DATA)
    scalars = {
        tag.removeprefix(names("")): {event.step: event.value for event in events.Scalars(tag)}
        for tag in found["scalars"]
        if tag.startswith(names(""))
    }

    def read_images(*parts: str) -> dict[int, bytes]:
        tag = names(*parts)
        if tag not in found["images"]:
            return {}
        return {event.step: event.encoded_image_string for event in events.Images(tag)}

    panels = {name: panel for name in manifest.names if (panel := read_images(tags.PROBE, name))}
    steps = sorted(set.intersection(*(set(by_step) for by_step in panels.values()))) if panels else []
    # Lightning logs the epoch beside the scalars of each step. At step 0 it is the epoch of the first training step.
    epochs = {event.step: event.value for event in events.Scalars("epoch")} if "epoch" in found["scalars"] else {}
    return LoggedRun(
        manifest,
        json.loads(_read_text(events, verdict)) if verdict in found["tensors"] else None,
        _last_sheets(events.Tensors(verdict)[-1].step, read_images) if verdict in found["tensors"] else [],
        scalars,
        steps,
        ["start" if step == 0 else epoch_heading(epochs[step]) if step in epochs else f"step {step}" for step in steps],
        PanelSource(manifest, panels),
    )


def _choose_prefix(run: Path, tensor_tags: Sequence[str], wanted: str | None) -> str:
    """Return the prefix whose manifest is in the event files."""
    prefixes = [tag.removesuffix("/manifest") for tag in tensor_tags if tag.endswith("/manifest")]
    if wanted in prefixes:
        return wanted
    if wanted is None and prefixes:
        return min(prefixes, key=lambda prefix: (prefix != tags.DEFAULT_PREFIX, prefix))
    if prefixes:
        raise ValueError(
            f"Expected `tag_prefix` to be one of {sorted(prefixes)}, but got {wanted!r}. The event files in {run} hold "
            "only these."
        )
    raise ValueError(
        f"Expected event files with entries of gradcam_callback, but those in {run} hold none. Train with "
        "GradCAMCallback first."
    )


def _read_text(events: EventAccumulator, tag: str) -> str:
    return str(events.Tensors(tag)[-1].tensor_proto.string_val[0].decode())
