"""Type for names in any script: a font that has the characters, or a readable substitute."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont, features

# Comes with matplotlib, so it is always there, and has Latin, Greek, Cyrillic, Arabic and the signs that panels use.
DEFAULT = "DejaVu Sans"
# Fonts of coloured pictures, such as emoji, come in one size.
PICTURE_SIZE = 109
# Of the line as a whole, whatever script it begins with; words of Arabic or Hebrew still run their own way. Without
# libraqm, which most builds of Pillow have, neither can be said or done.
LEFT_TO_RIGHT = "ltr" if features.check("raqm") else None
# What to install for a script, by the first word of its characters' Unicode names.
INSTALL = {
    **dict.fromkeys(("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "IDEOGRAPHIC"), "Noto Sans CJK"),
    **{script: f"Noto Sans {script.capitalize()}" for script in ("DEVANAGARI", "THAI", "BENGALI", "TAMIL", "HEBREW")},
}


@dataclass(frozen=True)
class Face:
    """A font in a size; ``scale`` is below 1 where its pictures are to be made smaller."""

    font: ImageFont.FreeTypeFont
    scale: float = 1.0

    def width(self, text: str) -> float:
        return self.font.getlength(text) * self.scale


def typeset(text: str, size: int) -> list[tuple[str, Face]]:
    """Cut one line into pieces, each with a font that has its characters.

    Where no font of this machine has them, they are spelt by their Unicode names ("ペ" as "pe"), and a warning, once,
    says which font to install.
    """
    default = font_manager.findfont(DEFAULT)
    pieces = []
    for known, group in groupby(_clusters(text), key=lambda cluster: _needed(cluster) <= _characters(default)):
        piece = "".join(group)
        path = default if known else _covering(_needed(piece))
        if path is None:
            _warn(piece, default)
            path, piece = default, " ".join(filter(None, map(_spelt, piece)))
        pieces.append((piece, _load(path, size)))
    return pieces


def append_left_to_right(name: str, rest: str) -> str:
    """A name and what follows it, kept at its right also where the name's script runs from right to left."""
    runs_left = any(unicodedata.bidirectional(char) in ("R", "AL") for char in name)
    return name + ("\N{LEFT-TO-RIGHT MARK}" if runs_left else "") + rest


@lru_cache(maxsize=4096)
def line_width(text: str, size: int) -> int:
    """The width in pixels of a line as it will be drawn."""
    return round(sum(face.width(piece) for piece, face in typeset(text, size)))


def write_line(image: Image.Image, text: str, place: tuple[int, int], size: int, colour: tuple[int, int, int]) -> None:
    """Write one line, its upper left corner at ``place``, all pieces on one baseline."""
    draw = ImageDraw.Draw(image)
    x, baseline = float(place[0]), place[1] + _load(font_manager.findfont(DEFAULT), size).font.getmetrics()[0]
    for piece, face in typeset(text, size):
        if face.scale == 1:
            draw.text((x, baseline), piece, colour, face.font, anchor="ls", direction=LEFT_TO_RIGHT)
        else:
            picture = _picture(piece, face)
            # A picture stands a little below the baseline, as the letters' tails do.
            image.paste(picture, (round(x), baseline + size // 5 - picture.height), picture)
        x += face.width(piece)


def _picture(text: str, face: Face) -> Image.Image:
    """Characters that are coloured pictures, on nothing."""
    left, top, right, bottom = face.font.getbbox(text)
    sheet = Image.new("RGBA", (max(1, round(right)), max(1, round(bottom - top))))
    ImageDraw.Draw(sheet).text((0, -top), text, font=face.font, embedded_color=True)
    size = max(1, round(sheet.width * face.scale)), max(1, round(sheet.height * face.scale))
    return sheet.resize(size, Image.Resampling.LANCZOS)


def _clusters(text: str) -> Iterator[str]:
    """The line's characters, with each its accents and joiners, which belong into the same font."""
    cluster = ""
    for char in text:
        joined = unicodedata.category(char) in ("Mn", "Me", "Mc", "Cf") or cluster.endswith("\N{ZERO WIDTH JOINER}")
        if cluster and not joined:
            yield cluster
            cluster = ""
        cluster += char
    if cluster:
        yield cluster


def _needed(text: str) -> frozenset[int]:
    """The characters that must be in a font; joiners and variation selectors leave no trace where they are not."""
    return frozenset(ord(char) for char in text if not _is_invisible(char))


def _is_invisible(char: str) -> bool:
    return unicodedata.category(char) == "Cf" or "\ufe00" <= char <= "\ufe0f"


@lru_cache(maxsize=256)
def _covering(needed: frozenset[int]) -> str | None:
    """The first of the fonts that matplotlib's font manager finds that has all the characters."""
    return next((path for path in _paths() if needed <= _characters(path)), None)


@cache
def _paths() -> list[str]:
    """Its own fonts and the system's, also those that it cannot plot with, as coloured pictures."""
    own = (entry.fname for entry in font_manager.fontManager.ttflist)
    # The one of last resort claims every character, and draws for each a box that names its script.
    return sorted(path for path in {*own, *font_manager.findSystemFonts()} if "LastResort" not in path)


@cache
def _characters(path: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@lru_cache(maxsize=32)
def _load(path: str, size: int) -> Face:
    try:
        return Face(ImageFont.truetype(path, size))
    except OSError:
        return Face(ImageFont.truetype(path, PICTURE_SIZE), 1.1 * size / PICTURE_SIZE)


def _spelt(char: str) -> str:
    """``KATAKANA LETTER PE`` -> ``pe``, ``CJK UNIFIED IDEOGRAPH-4F01`` -> ``u4f01``, a control character -> nothing."""
    name = unicodedata.name(char, "")
    if not name or _is_invisible(char):
        return ""
    return name.rsplit(" ", 1)[-1].replace("IDEOGRAPH-", "u").lower()


def _warn(text: str, default: str) -> None:
    """Once for each font that would help."""
    for char in text:
        name = unicodedata.name(char, "")
        if name and ord(char) not in _characters(default):
            picture = unicodedata.category(char) == "So"
            _warn_once(INSTALL.get(name.split(" ")[0], "Noto Color Emoji" if picture else "one that has them"))
            return


@cache
def _warn_once(font: str) -> None:
    warnings.warn(
        f"No font on this machine has all characters of the names to be drawn; these are spelt out. Install {font}.",
        UserWarning,
        stacklevel=2,
    )
