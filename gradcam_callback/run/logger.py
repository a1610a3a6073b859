"""A run's entries: each look is judged, kept in the record, and its pictures and words are given to the sinks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gradcam_callback.drawing.canvas import Style, encode_gif, encode_jpeg
from gradcam_callback.maps.logits import class_probability
from gradcam_callback.measures.verdict import Verdict, confirms, judge
from gradcam_callback.probes.probe_set import ProbeSet
from gradcam_callback.run.album import VIEWS, Album
from gradcam_callback.run.evaluate import Evaluation
from gradcam_callback.run.record import Record
from gradcam_callback.run.tags import tag
from gradcam_callback.writers.sinks import Entry, Manifest, Writers

FRAME_SECONDS = 0.8


class Journal:
    """Of one probe set and one choice of layers.

    Args:
        record: of earlier entries, to which those to come are added.
        sinks: where pictures and words go.
        views: which pictures, see `gradcam_callback.run.album.VIEWS`.
        name: makes a tag of its parts.
    """

    def __init__(
        self,
        probe: ProbeSet,
        layers: Sequence[str],
        record: Record,
        sinks: Writers,
        *,
        style: Style,
        views: Sequence[str] = VIEWS,
        jpeg_quality: int = 60,
        name: Callable[..., str] = tag,
    ) -> None:
        self._probe, self._layers, self._record, self._sinks = probe, list(layers), record, sinks
        self._quality, self._name = jpeg_quality, name
        self._album = Album(probe, layers, style, views)
        self._first: Mapping[str, float] | None = None

    def begin(self, again: bool = False) -> bool:
        """Tell the sinks what is to come; False where the record's entries are of other images or layers.

        Args:
            again: whether what the sinks hold of an earlier run may be written over.

        Raises:
            ValueError: a sink cannot take this run.
        """
        goes_on = again or bool(self._record.history)
        same = self._record.watch(self._probe, self._layers)
        panel = self._album.probe_panel
        manifest = Manifest(
            self._probe.names,
            self._probe.labels.tolist(),
            [self._probe.class_name(label) for label in self._probe.labels.tolist()],
            self._layers,
            panel.input_box,
            panel.overlay_boxes,
        )
        self._sinks.begin(manifest, self._probe, goes_on)
        return same

    def keep(self, seen: Evaluation, epoch: int, step: int, *, alone: bool) -> Verdict | None:
        """Judge what was seen, and add it to the record.

        Args:
            epoch: -1 is before the training.
            alone: whether this look is to be judged by itself; otherwise the epoch before must say the same.

        Returns:
            None without masks.
        """
        history = self._record.history
        self._first = _untagged(history[0]) if history else None
        verdict = self._judge(seen, epoch, alone)
        history.append({"epoch": epoch, "step": step, **{tag(name): value for name, value in seen.scalars.items()}})
        explained = class_probability(seen.cams.logits, seen.cams.targets, self._probe.multi_label).tolist()
        heading = "start" if epoch < 0 else str(epoch)
        self._record.evolution.add(heading, explained, seen.cams.targets.tolist(), seen.cams.maps)
        return verdict

    def _judge(self, seen: Evaluation, epoch: int, alone: bool) -> Verdict | None:
        if not seen.foci:
            return None
        first = self._first or {}
        foci = [replace(focus, first_lift=first.get(f"lift/{focus.layer}")) for focus in seen.foci]
        # The entry before training is none of an epoch.
        epochs = (entry for entry in reversed(self._record.history) if entry["epoch"] not in (epoch, -1))
        confirmed = alone or confirms(_untagged(next(epochs, {})).get("swap_drop", 0.0))
        return judge(seen.masked_accuracy, seen.masked, seen.swap, foci, confirmed)

    def write(self, seen: Evaluation, verdict: Verdict | None, *, strips: bool, last: bool = False) -> None:
        """Give the sinks the pictures and words of what was kept last.

        Args:
            strips: whether also those over the epochs, if they are due; they are if this entry is the ``last``.
        """
        if not self._sinks:
            return
        self._sinks.flush()  # so that one that has failed may work again from this entry on
        for parts, picture in self._album.entry(seen, self._record.evolution, self._first):
            self._sinks.picture(self._name(*parts), encode_jpeg(picture, self._quality), self._step)
        if strips:
            self._write_strips(last)
        self._sinks.entry(Entry(self._record.history, seen.cams, None if verdict is None else verdict.evidence))

    def _write_strips(self, last: bool) -> None:
        if self._record.evolution.is_due(at_the_end=last):
            for parts, picture in self._album.strips(self._record.evolution):
                self._sinks.picture(self._name(*parts), encode_jpeg(picture, self._quality), self._step)

    def finish(self) -> None:
        """Give the sinks the pictures that show the whole run: the last strips, and the animations."""
        if not self._record.history or not self._sinks:
            return
        self._sinks.flush()
        self._write_strips(last=True)
        for parts, frames in self._album.animations(self._record.evolution):
            self._sinks.picture(self._name(*parts), encode_gif(frames, FRAME_SECONDS), self._step)
        self._sinks.flush()

    @property
    def _step(self) -> int:
        return int(self._record.history[-1]["step"])


def _untagged(entry: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix(tag("")): value for name, value in entry.items()}
