"""Make the records of a run that the Focus tab and the report show: numbers and small maps in place of pictures.

`gradcam_focus` reads them. A record of the start and of an entry is JSON. The maps of a layer are deflated bytes, all
of them little-endian. First come the number of images N and the shape h, w of a map as three uint32. Then come the
maximum of each map as float32, and the maps ``(N, h, w)`` as uint8 in units of a 255th of their maximum.
"""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradcam_callback.drawing import Caption, InputImage, Pixels, Style, dim_outside, encode_jpeg, paint
from gradcam_callback.layer_names import pick_layers
from gradcam_callback.measures import FRAME, NO_MASKS, Verdict
from gradcam_callback.probes import ProbeSet
from gradcam_callback.run.album import MASKS_NOTE, input_images, mask_cells, tone_of
from gradcam_callback.run.captions import OWN_TARGET, caption_maps, caption_set
from gradcam_callback.run.evaluate import Evaluation
from gradcam_callback.run.interventions import UNCHANGED, Interventions
from gradcam_callback.run.snapshots import shrink
from gradcam_focus import records

# The longer side, in pixels, of a probe image and of an image of the interventions; the quality of both as JPEG.
SIDE, SMALL_SIDE, QUALITY = 288, 112, 82


class Recorder:
    """The records of one probe set and one list of layers.

    Args:
        probe: the images.
        layers: their names, from input to output.
        interventions: of the probe set; None without labels.
        style: its colour map is that of the page, and its ``focus_cells`` the size of the maps.
    """

    def __init__(
        self, probe: ProbeSet, layers: Sequence[str], interventions: Interventions | None, style: Style
    ) -> None:
        self._probe, self._layers, self._interventions, self._style = probe, list(layers), interventions, style
        # Of each set the images of watched objects. The page shows nothing else of a verdict set.
        self._places: dict[str, list[int]] = {}
        if interventions is not None:
            self._places = {
                name: (interventions.numbers_of(name) < interventions.n_watched).nonzero()[:, 0].tolist()
                for name in interventions.sets
                if name != UNCHANGED
            }

    def start(self, prefix: str, goes_on_from: Sequence[int]) -> str:
        """Return the record that describes the run, as JSON.

        Args:
            prefix: of the tags.
            goes_on_from: the places of the entries so far, see `gradcam_callback.writers.places_of`. A reader leaves
                all others out that are older than this record. They are of another training in the same folder, or of
                epochs that are trained again.
        """
        probe, images = self._probe, input_images(self._probe)
        labels = [probe.class_name(label) for label in probe.labels.tolist()] if probe.has_labels else None
        basis = None if self._interventions is None else self._interventions.basis
        record = {
            "version": records.VERSION,
            "prefix": prefix,
            "goes_on_from": list(goes_on_from),
            "layers": self._layers,
            "few_layers": pick_layers(self._layers),
            "names": list(probe.names),
            "labels": labels,
            "images": [_jpeg(image, SIDE) for image in images],
            "masks": [None if image.mask is None else _png(image) for image in images],
            "basis": basis,
            "caution": NO_MASKS if basis == FRAME else "",
            "sets": self._sets(),
            "automatic_masks": self._automatic_masks(),
            "colours": _text(paint(np.arange(256) / 255, self._style.colormap).tobytes()),
            "scaling": self._style.scaling,
        }
        return json.dumps(record, ensure_ascii=False)

    def entry(self, evaluation: Evaluation, scalars: Mapping[str, float], verdict: Verdict | None) -> str:
        """Return the record of a logged validation, as JSON.

        Args:
            evaluation: of the present weights.
            scalars: of this entry, with ``"epoch"``, and with its place as ``"step"``.
            verdict: of this entry.
        """
        probe, cams = self._probe, evaluation.cams
        texts = caption_maps(probe, cams, contrast=evaluation.rivals is not None)
        answers: dict[str, list[list[Any] | None]] = {}
        if self._interventions is not None and evaluation.answers is not None:
            for name, places in self._places.items():
                found = caption_set(self._interventions, evaluation.answers, name)
                if found:
                    # Null for an image that is asked at another entry.
                    answers[name] = [_answer(found[place]) if place in found else None for place in places]
        record = {
            "step": int(scalars["step"]),
            "epoch": scalars["epoch"],
            "predictions": [[*_answer(text), text.explained or OWN_TARGET] for text in texts],
            "answers": answers,
            "judged": None if evaluation.answers is None else evaluation.answers.n_asked,
            "verdict": None if verdict is None else {**verdict_data(verdict), "tone": tone_of(verdict)},
            "scalars": {name: _rounded(value, 6) for name, value in scalars.items() if name not in ("step", "epoch")},
        }
        return json.dumps(record, ensure_ascii=False)

    def maps(self, evaluation: Evaluation) -> dict[str, bytes]:
        """Return layer -> the bytes of its maps."""
        return {layer: pack_maps(raw, self._style.focus_cells) for layer, raw in evaluation.cams.maps.items()}

    def _automatic_masks(self) -> dict[str, Any] | None:
        """Return the sheet ``gradcam/masks`` as images and words; None without automatic masks."""
        if not self._probe.verdict_set.proposals:
            return None
        title, cells = mask_cells(self._probe.verdict_set)
        return {
            "title": title,
            "note": MASKS_NOTE,
            "cells": [
                {"name": cell.name, "image": _dimmed(cell.image), "fate": cell.fate, "used": cell.doubt is None}
                for cell in cells
            ],
        }

    def _sets(self) -> dict[str, dict[str, Any]]:
        """Return the images of the interventions, and the number of the probe image that each of them is about."""
        interventions = self._interventions
        if interventions is None or interventions.counterfactuals is None:
            return {}
        sets = {}
        for name, places in self._places.items():
            if len(places):
                pixels = self._probe.display_images(interventions.images_of(name, torch.tensor(places)))
                sets[name] = {
                    "numbers": interventions.numbers_of(name)[places].tolist(),
                    "images": [_jpeg(InputImage(each), SMALL_SIDE) for each in pixels],
                }
        return sets


def pack_maps(maps: Tensor, cells: int) -> bytes:
    """Return raw maps ``(N, h, w)`` as the bytes of a record.

    Args:
        maps: on the CPU.
        cells: the longer side of a map is at most so many cells. Larger maps are averaged over areas.
    """
    units, maxima = shrink(maps, cells)
    header = struct.pack("<3I", *units.shape)
    return zlib.compress(header + maxima.numpy().astype("<f4").tobytes() + units.numpy().tobytes(), 6)


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as values for JSON, which has no NaN."""
    values = asdict(verdict)
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def _answer(caption: Caption) -> list[Any]:
    return [caption.prediction, _rounded(caption.probability), caption.correct]


def _jpeg(image: InputImage, side: int) -> str:
    return _encoded(image.resized(*image.fit(side)))


def _dimmed(image: InputImage) -> str:
    """Return an image that is dark outside of its mask."""
    return _encoded(dim_outside(image, *image.fit(SMALL_SIDE)))


def _encoded(pixels: Pixels) -> str:
    return _text(encode_jpeg(Image.fromarray(pixels), QUALITY).data)


def _png(image: InputImage) -> str:
    """Return the mask of an image, in the size in which the page shows the image."""
    buffer = io.BytesIO()
    Image.fromarray(image.inside(*image.fit(SIDE))).convert("1").save(buffer, "PNG", optimize=True)
    return _text(buffer.getvalue())


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _rounded(value: float | None, digits: int = 4) -> float | None:
    """Round a number for JSON; None if there is none, or NaN."""
    return None if value is None or not math.isfinite(value) else round(value, digits)
