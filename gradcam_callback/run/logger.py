"""Log a run: judge each evaluation, add it to the state, and give its images and texts to the writers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from gradcam_callback.drawing import Style, encode_ahead, encode_gif, encode_jpeg, encode_webp
from gradcam_callback.encoded_image import EncodedImage
from gradcam_callback.maps import class_probability, false_yes_rate
from gradcam_callback.measures import Verdict, judge, judge_without_swap
from gradcam_callback.run import tags
from gradcam_callback.run.album import Album, Parts
from gradcam_callback.run.captions import explains_classes
from gradcam_callback.run.confirmation import is_confirmed
from gradcam_callback.run.evaluate import Evaluation, Evaluator
from gradcam_callback.run.recording import Recorder, verdict_data
from gradcam_callback.run.state import RunState
from gradcam_callback.run.tags import Tags, join
from gradcam_callback.writers import Entry, Manifest, RunStart, Writer, places_of

FRAME_SECONDS = 0.8

# Takes the name of a writer and its error.
Report = Callable[[str, Exception], None]


class RunLogger:
    """The log of one probe set and one list of layers.

    A writer that fails is left out until the end of the entry, and does not keep the other writers from their work.

    Args:
        evaluator: its probe set, layers and interventions are those of the log. Its model is not kept.
        state: of earlier entries; new entries are added to it.
        writers: where images and texts go.
        names: the tags.
        report: is called once when a writer fails, and again only after the writer has worked for a whole entry.
        style: how panels are drawn.
        views: which images to draw, see `gradcam_callback.run.tags.VIEWS`.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        state: RunState,
        writers: Sequence[Writer],
        names: Tags,
        *,
        report: Report,
        style: Style,
        views: Sequence[str] = tags.DEFAULT_VIEWS,
    ) -> None:
        self._probe, self._layers, self._state, self._tags = evaluator.probe, evaluator.layers, state, names
        self._writers, self._report, self._quality = list(writers), report, style.quality
        self._working = list(writers)
        self._reported: list[Writer] = []
        # The last entry, while some writers lack its panels.
        self._waiting: tuple[Evaluation, RunState, Mapping[str, float] | None] | None = None
        self._has_epochs = True
        self._charts = names.charts(evaluator.scalar_names())
        # Trackers have no use for records, and they take time to make.
        self._recorder = None
        if any(writer.keeps_records for writer in writers):
            self._recorder = Recorder(self._probe, self._layers, evaluator.interventions, style)
        self._album = Album(self._probe, self._layers, style, views, evaluator.interventions)

    def start(self, overwrite: bool = False) -> bool:
        """Announce the run to the writers.

        Args:
            overwrite: True lets a writer replace what it holds of an earlier run.

        Returns:
            False if the entries of the state are of other images or layers; the state then starts anew.

        Raises:
            ValueError: a writer cannot take this run.
        """
        resuming = overwrite or bool(self._state.history)
        same = self._state.watch(self._probe, self._layers)
        if not self._writers:
            return same
        labels = self._probe.labels.tolist()
        classes = [self._probe.class_name(label) for label in labels]
        images, masks = self._probe.display_images(), self._probe.masks
        run = RunStart(
            Manifest(self._tags.prefix, self._probe.names, labels, classes, self._layers),
            "" if self._recorder is None else self._recorder.start(self._tags.prefix, places_of(self._state.history)),
            images,
            np.zeros(images.shape[:3], bool) if masks is None else masks.numpy(),
            self._charts,
        )
        for writer in self._writers:
            writer.start(run, resuming)
        return same

    def go_on_from(self, state: RunState) -> bool:
        """Go on from another state. The writers are told if its entries are not those so far.

        Returns:
            False if its entries are of other images or layers; the state then starts anew.
        """
        is_same, self._state = state.history == self._state.history, state
        if is_same:
            return state.watch(self._probe, self._layers)
        self._waiting = None
        return self.start(overwrite=True)

    def log(
        self, evaluation: Evaluation, epoch: int, step: int, *, standalone: bool = False, strips: bool = True
    ) -> Verdict | None:
        """Judge an evaluation, add it to the state, and write its images and texts; see `add` and `write`."""
        verdict = self.add(evaluation, epoch, step, standalone=standalone)
        self.write(evaluation, step, standalone=standalone, strips=strips)
        return verdict

    def add(
        self, evaluation: Evaluation, epoch: int, step: int, *, standalone: bool = False, has_epochs: bool = True
    ) -> Verdict | None:
        """Judge an evaluation, and add it to the state.

        Args:
            epoch: -1 before training.
            standalone: True if no epoch belongs before or after: the verdict then needs no confirmation by an earlier
                epoch, and the strips are drawn at once.
            has_epochs: False if each validation counts as one of another epoch does.

        Returns:
            The verdict, which is also the state's; None without labels.
        """
        if self._writers:
            self._flush()  # a writer that failed may work again from here on, also for the scalars of this entry
        state, self._has_epochs = self._state, has_epochs
        state.verdict = verdict = self._judge(evaluation, epoch, step, standalone)
        cams = evaluation.cams
        probabilities = [math.nan] * len(cams.targets)
        if explains_classes(cams):
            probabilities = class_probability(cams.logits, cams.targets, self._probe.multi_label).tolist()
        scalars = {"epoch": epoch, "step": step, **evaluation.scalars}
        answers = evaluation.answers
        in_part = answers is not None and answers.in_part
        state.add(scalars, probabilities, cams.targets.tolist(), cams.maps, in_part)
        return verdict

    def write(self, evaluation: Evaluation, step: int, *, standalone: bool = False, strips: bool = True) -> None:
        """Write the images and texts of the entry that was added last.

        Args:
            step: of the entry, which may have become known only now.
            standalone: as when it was added.
            strips: False never draws strips.
        """
        state = self._state
        entry = state.history[-1]
        entry["step"] = step
        if self._writers:
            self._write_entry(evaluation, self._first)
            if strips and state.strips_are_due(at_end=standalone):
                self._write_images(self._album.strips(state))
            self._end_entry(evaluation, entry, state.verdict)

    def revise(self, evaluation: Evaluation) -> None:
        """Judge the last entry again, by an evaluation of the same network that asked more, and write it again.

        The maps are the same, so their panels, strips and drift stay. The evaluation has no drift of its own.
        """
        state, entry = self._state, self._state.history[-1]
        state.verdict = verdict = self._judge(evaluation, int(entry["epoch"]), int(entry["step"]), standalone=False)
        entry |= evaluation.scalars
        state.in_part[-1] = False
        if self._writers:
            self._flush()
            first = self._first
            if self._waiting is not None:
                self._waiting = evaluation, state, first
            self._write_images(self._album.entry(evaluation, state, first, (tags.OVERVIEW, tags.COUNTERFACTUALS)))
            self._end_entry(evaluation, entry, verdict)

    def finish(self) -> None:
        """Write the last entry's panels, the last strips, and the animations."""
        if not self._state.history or not self._writers:
            return
        self._flush()
        if self._waiting is not None:
            thrifty = [writer for writer in self._writers if not writer.keeps_panels]
            self._write_images(self._album.entry(*self._waiting, tags.THINNED), thrifty)
            self._waiting = None
        if self._state.strips_are_due(at_end=True):
            self._write_images(self._album.strips(self._state))
        for parts, frames in self._album.animations(self._state):
            self._write_image(parts, encode_gif(frames, FRAME_SECONDS))
        self._flush()

    def _judge(self, evaluation: Evaluation, epoch: int, step: int, standalone: bool) -> Verdict | None:
        answers = evaluation.answers
        if answers is None:
            return None
        history, in_part = self._state.history, self._state.in_part
        first = history[0] if history else {}
        foci = [replace(focus, first_lift=first.get(join(tags.LIFT, focus.layer))) for focus in evaluation.foci]
        if isinstance(answers.swap, str):
            return judge_without_swap(answers.accuracy, answers.swap, foci, answers.basis, answers.counted)
        confirmed = standalone or is_confirmed(
            history, in_part, epoch, answers.basis, None if self._has_epochs else step, answers.swap.n_controlled
        )
        # A single logit stands for two classes. A head may have been made for more classes than the data have.
        n_outputs = max(2, evaluation.cams.logits.shape[1])
        present = self._probe.present
        false_yes = math.nan if present is None else false_yes_rate(evaluation.cams.logits, present)
        return judge(
            answers.swap,
            foci,
            confirmed,
            answers.basis,
            n_all=answers.n_all,
            in_part=answers.in_part,
            standalone=standalone,
            guessing=answers.guessing,
            false_yes=false_yes,
            name_class=self._probe.class_name,
            n_classes=min(n_outputs, self._probe.n_classes or n_outputs),
        )

    def _write_entry(self, evaluation: Evaluation, first: Mapping[str, float] | None) -> None:
        """Write the images of an entry. Writers without much room get most of them only if they are due."""
        entry = evaluation, self._state, first
        self._waiting = None
        if self._state.panels_are_due():
            self._write_images(self._album.entry(*entry))
            return
        self._write_images(self._album.entry(*entry, tags.EVERY_ENTRY))
        roomy = [writer for writer in self._writers if writer.keeps_panels]
        if roomy:
            self._write_images(self._album.entry(*entry, tags.THINNED), roomy)
        if len(roomy) < len(self._writers):
            self._waiting = entry

    def _write_images(self, images: Iterator[tuple[Parts, Image.Image]], to: Sequence[Writer] | None = None) -> None:
        takers = self._writers if to is None else to
        kinds = (
            (encode_webp, [writer for writer in takers if writer.takes_webp]),
            (encode_jpeg, [writer for writer in takers if not writer.takes_webp]),
        )
        needed = [(encode, writers) for encode, writers in kinds if writers]
        for parts, files in encode_ahead(images, lambda image: [encode(image, self._quality) for encode, _ in needed]):
            for file, (_, writers) in zip(files, needed, strict=True):
                self._write_image(parts, file, writers)

    def _write_image(self, parts: Parts, image: EncodedImage, to: Sequence[Writer] | None = None) -> None:
        self._give(lambda writer: writer.write_image(self._tags(*parts), image, self._number_for(writer)), to)

    def _number_for(self, writer: Writer) -> int:
        return self._place if writer.keeps_one else self._step

    def _end_entry(self, evaluation: Evaluation, scalars: Mapping[str, float], verdict: Verdict | None) -> None:
        if verdict is not None:
            data = verdict_data(verdict)
            self._give(lambda writer: writer.write_verdict(self._tags(tags.VERDICT), data, self._number_for(writer)))
        entry = Entry(
            self._state.tagged_history(self._tags),
            {layer: raw.float().numpy() for layer, raw in evaluation.cams.maps.items()},
            ""
            if self._recorder is None
            else self._recorder.entry(evaluation, {**scalars, "step": self._place}, verdict),
            {} if self._recorder is None else self._recorder.maps(evaluation),
        )
        self._give(lambda writer: writer.write_entry(entry))
        given = self._working  # those that have not failed in this entry so far
        self._flush()
        # A writer that took the whole entry is healthy again; its next failure is news.
        self._reported = [writer for writer in self._reported if writer not in given or writer not in self._working]

    def _flush(self) -> None:
        """Flush all writers. A writer that failed gets another chance."""
        self._working = list(self._writers)
        self._give(lambda writer: writer.flush())

    def _give(self, write: Callable[[Writer], None], to: Sequence[Writer] | None = None) -> None:
        """Let all writers write that have not failed in this entry, or those of them in ``to``."""
        # A copy, since a writer that fails is removed.
        for writer in [each for each in self._working if to is None or each in to]:
            try:
                write(writer)
            except Exception as error:
                self._working.remove(writer)
                if writer not in self._reported:
                    self._reported.append(writer)
                    self._report(type(writer).__name__.removesuffix("Writer"), error)

    @property
    def _first(self) -> Mapping[str, float] | None:
        """Return the first entry; None if it is the only one, since the first column is not compared with itself."""
        history = self._state.history
        return history[0] if len(history) > 1 else None

    @property
    def _step(self) -> int:
        return int(self._state.history[-1]["step"])

    @property
    def _place(self) -> int:
        return places_of(self._state.history)[-1]
