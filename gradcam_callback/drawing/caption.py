"""The text beside an image: its name, its label, the prediction and the class that the map explains."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from gradcam_callback.drawing.canvas import CORRECT, FAINT, GRID, INK, LABEL, MARGIN, TITLE, WRONG, Colour, cut, write
from gradcam_callback.drawing.text import append_left_to_right, line_width, write_line
from gradcam_callback.formatting import mark_words, percent

# Distance of two texts on one line, in pixels.
TITLE_GAP = 28


@dataclass(frozen=True)
class Caption:
    """The text beside one image.

    Attributes:
        name: name of the image.
        label: name of its class, None if unknown.
        prediction: name of the predicted class, or the score if the network predicts no class.
        correct: True if the prediction is the label, None if the label is unknown.
        probability: probability of the prediction, 0..1; None for a score.
        explained: name of what the map explains, mostly a class.
        explained_probability: probability of that class, 0..1; None for anything else.
    """

    name: str
    label: str | None
    prediction: str
    correct: bool | None
    probability: float | None
    explained: str
    explained_probability: float | None

    def format_prediction(self, size: int, width: int) -> str:
        """Return the prediction with its probability and a sign, ``"heart 87 % ✓"``, cut to a width in pixels.

        Only the name is cut, as the sign tells if the prediction is correct.
        """
        ending = self.certainty
        return append_left_to_right(cut(self.prediction, size, width - line_width(ending, size)), ending)

    @property
    def certainty(self) -> str:
        """Return what follows the prediction: its probability and a sign, ``" 87 % ✓"``."""
        return _format_probability(self.probability) + {None: "", True: " ✓", False: " ✗"}[self.correct]

    @property
    def title(self) -> str:
        """Return the name, followed by the label if no word of the name says it."""
        if self.label is None or mark_words(self.label) in mark_words(self.name):
            return self.name
        return append_left_to_right(self.name, f" ({self.label})")

    @property
    def frame_colour(self) -> Colour | None:
        """Return the colour of a correct or a wrong prediction, None if the label is unknown."""
        return {None: None, True: CORRECT, False: WRONG}[self.correct]

    @property
    def text_colour(self) -> Colour:
        """Return the colour of the prediction's text: only a wrong prediction stands out."""
        return WRONG if self.correct is False else INK


def write_caption(sheet: Image.Image, caption: Caption, width: int) -> None:
    """Write a caption as two lines at the top of a sheet: name and label, then prediction and explained class."""
    label = "" if caption.label is None else f"label: {caption.label}"
    _write_pair(sheet, (caption.name, INK), (label, FAINT), MARGIN, TITLE, width)
    says, explains = "prediction: ", "maps explain: "
    half = (width - TITLE_GAP) // 2
    prediction = says + caption.format_prediction(LABEL, half - line_width(says, LABEL))
    probability = _format_probability(caption.explained_probability)
    # The name is cut here, as `_write_pair` would cut from the middle and might lose the probability.
    name = cut(caption.explained, LABEL, half - line_width(explains + probability, LABEL))
    explained = explains + append_left_to_right(name, probability)
    _write_pair(sheet, (prediction, caption.text_colour), (explained, FAINT), 3 * GRID, LABEL, width)


def _format_probability(probability: float | None) -> str:
    return "" if probability is None else f" {percent(probability)}"


def _write_pair(
    sheet: Image.Image, first: tuple[str, Colour], second: tuple[str, Colour], top: int, size: int, width: int
) -> None:
    """Write two texts on one line.

    If both are too long together, each keeps at least half of the width or its whole text.
    """
    half = (width - TITLE_GAP) // 2
    room = max(half, width - TITLE_GAP - line_width(second[0], size))
    shown = cut(first[0], size, room)
    write_line(sheet, shown, (MARGIN, top), size, first[1])
    left = line_width(shown, size) + TITLE_GAP
    write(sheet, second[0], (MARGIN + left, top), size, second[1], width - left)
