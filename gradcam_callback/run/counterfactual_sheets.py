"""Draw the sheets of counterfactuals: each object on other backgrounds, with the network's answers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

import torch
from PIL import Image
from torch import Tensor

from gradcam_callback.drawing import AnswerRow, Caption, Group, InputImage, Pixels, answer_sheet
from gradcam_callback.formatting import percent
from gradcam_callback.measures import FRAME, Verdict
from gradcam_callback.run.captions import caption_answers, caption_set
from gradcam_callback.run.interventions import (
    BACKGROUND,
    FOREGROUND,
    OTHER_CLASS,
    SAME_CLASS,
    UNCHANGED,
    Answers,
    Interventions,
)

ROWS = 12
INPUT = "input"
HEADINGS = {
    INPUT: "as it is",
    SAME_CLASS: "on backgrounds of its class",
    OTHER_CLASS: "on backgrounds of other classes",
    BACKGROUND: "no object",
    FOREGROUND: "object alone",
}
FRAME_HEADINGS = {
    INPUT: "as it is",
    SAME_CLASS: "in frames of its class",
    OTHER_CLASS: "in frames of other classes",
}


class CounterfactualSheets:
    """The sheets of the interventions of one probe set.

    Args:
        interventions: of the probe set.
        cell: longer side of an image, in pixels.
    """

    def __init__(self, interventions: Interventions, cell: int) -> None:
        self._probe, self._interventions, self._cell = interventions.probe, interventions, cell
        self._numbers = interventions.numbers.tolist()
        self._thumbnails: dict[str, dict[int, Pixels]] = defaultdict(dict)
        self._headings = FRAME_HEADINGS if interventions.basis == FRAME else HEADINGS
        # Which images of each set belong to which row: object, background or unchanged image.
        self._places = {
            name: [(self._owners(name) == number).nonzero()[:, 0].tolist() for number in self._numbers]
            for name in self._headings
        }

    def draw(self, logits: Tensor, answers: Answers, verdict: Verdict) -> Iterator[Image.Image]:
        """Yield as many sheets as the objects need. Those whose answer the background changed come first.

        Of a verdict set, there are as many objects as are watched.

        Args:
            logits: ``(N, K)``, of the unchanged images that are watched.
            answers: to the interventions.
            verdict: of these answers.
        """
        if not self._numbers:
            return
        captions = {name: caption_set(self._interventions, answers, name) for name in self._headings if name != INPUT}
        captions[INPUT] = self._caption_unchanged(logits, answers)
        captions = {name: found for name, found in captions.items() if found}
        shares = {name: _share_right(found.values()) for name, found in captions.items()}
        if not isinstance(answers.swap, str):
            # Every object counts the same there, however many donors it has.
            shares[OTHER_CLASS] = answers.swap.swap_accuracy
            if answers.swap.control_accuracy is not None:
                shares[SAME_CLASS] = answers.swap.control_accuracy
        # The place of an unchanged image is its row.
        asked = sorted(captions[INPUT], key=lambda row: -self._change(row, captions))
        order = asked[: self._interventions.n_watched]
        groups = {}
        for name, heading in self._headings.items():
            columns = max(len(self._asked(name, row, captions.get(name, {}))) for row in order)
            if columns:
                share = shares[name]
                groups[name] = Group(heading, "no answer" if math.isnan(share) else f"{percent(share)} right", columns)
        shown = {name: [place for row in order for place in self._asked(name, row, captions[name])] for name in groups}
        self._prepare(shown)
        pages = [order[start : start + ROWS] for start in range(0, len(order), ROWS)]
        what = "frame" if self._interventions.basis == FRAME else "background"
        for number, page in enumerate(pages, start=1):
            note = f"Green frames: right. Red frames: wrong. First those whose answer the {what} changed."
            if len(order) < len(asked):
                note += f" The other {len(asked) - len(order)} images are not shown."
            if UNCHANGED in self._interventions.sets and BACKGROUND in groups:
                note += f" No object, and object alone: of the {self._interventions.n_watched} watched images only."
            if any(len(captions[name]) < len(self._owners(name)) for name in captions):
                note += f" Other {what}s were not asked at this entry."
            if len(pages) > 1:
                note = f"Sheet {number} of {len(pages)}. {note}"
            rows = [self._row(row, list(groups), captions) for row in page]
            yield answer_sheet(verdict.headline, verdict.suspected, note, list(groups.values()), rows)

    def _caption_unchanged(self, logits: Tensor, answers: Answers) -> dict[int, Caption]:
        interventions = self._interventions
        watched = interventions.numbers[interventions.numbers < interventions.n_watched]
        found = caption_answers(self._probe, logits[watched], watched)
        if UNCHANGED in interventions.sets:
            found += caption_set(interventions, answers, UNCHANGED).values()
        return dict(enumerate(found))

    def _owners(self, name: str) -> Tensor:
        return self._interventions.numbers if name == INPUT else self._interventions.numbers_of(name)

    def _asked(self, name: str, row: int, captions: Mapping[int, Caption]) -> list[int]:
        return [place for place in self._places[name][row] if place in captions]

    def _row(self, row: int, names: list[str], captions: Mapping[str, Mapping[int, Caption]]) -> AnswerRow:
        number = self._numbers[row]
        places = {name: self._asked(name, row, captions[name]) for name in names}
        return AnswerRow(
            self._probe.names[number],
            self._probe.class_name(int(self._probe.labels[number])),
            [[self._thumbnails[name][place] for place in places[name]] for name in names],
            [[captions[name][place] for place in places[name]] for name in names],
        )

    def _change(self, row: int, captions: Mapping[str, Mapping[int, Caption]]) -> float:
        """Return how far the answers of an object get worse on backgrounds of other classes, -1..1."""
        own = SAME_CLASS if self._places[SAME_CLASS][row] else INPUT
        before, after = (
            [captions[name][place] for place in self._asked(name, row, captions.get(name, {}))]
            for name in (own, OTHER_CLASS)
        )
        change = _share_right(before) - _share_right(after)
        return 0.0 if math.isnan(change) else change

    def _prepare(self, shown: Mapping[str, list[int]]) -> None:
        """Make the images that are shown for the first time, in the size of the sheet."""
        for name, places in shown.items():
            known = self._thumbnails[name]
            new = torch.tensor([place for place in places if place not in known], dtype=torch.long)
            if len(new):
                if name == INPUT:
                    images = self._probe.images[self._interventions.numbers[new]]
                else:
                    images = self._interventions.images_of(name, new)
                pixels = self._probe.display_images(images)
                known |= {place: self._shrink(each) for place, each in zip(new.tolist(), pixels, strict=True)}

    def _shrink(self, pixels: Pixels) -> Pixels:
        image = InputImage(pixels)
        return image.resized(*image.fit(self._cell))


def _share_right(captions: Collection[Caption]) -> float:
    """Return how many answers are right, 0..1; NaN if there is none."""
    correct = [caption.correct for caption in captions if caption.correct is not None]
    return sum(correct) / len(correct) if correct else math.nan
