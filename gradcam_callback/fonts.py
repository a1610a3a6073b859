"""Type for names in any script: a font that has the characters, or a readable substitute."""

from __future__ import annotations

import unicodedata
import warnings
from functools import cache, lru_cache
from itertools import groupby

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageDraw, ImageFont

# Comes with matplotlib, so it is always there, and has Latin, Greek, Cyrillic and the signs that the panels use.
DEFAULT = "DejaVu Sans"


def typeset(text: str, size: int) -> list[tuple[str, ImageFont.FreeTypeFont]]:
    """Cut one line into pieces, each with a font that has its characters.

    Where no font of this machine has them, they are spelt by their Unicode names ("ペ" as "pe"), and a warning, once,
    says so.
    """
    default = font_manager.findfont(DEFAULT)
    pieces = []
    for known, group in groupby(text, key=lambda char: ord(char) in _characters(default)):
        piece = "".join(group)
        path = default if known else _covering(frozenset(piece))
        if path is None:
            path, piece = default, " ".join(filter(None, map(_spelt, piece)))
            _warn_once()
        pieces.append((piece, _load(path, size)))
    return pieces


@lru_cache(maxsize=4096)
def line_width(text: str, size: int) -> int:
    """The width in pixels of a line as it will be drawn."""
    return round(sum(font.getlength(piece) for piece, font in typeset(text, size)))


def write_line(
    draw: ImageDraw.ImageDraw, text: str, place: tuple[int, int], size: int, colour: tuple[int, int, int]
) -> None:
    """Write one line, its upper left corner at ``place``, all pieces on one baseline."""
    x, baseline = float(place[0]), place[1] + _load(font_manager.findfont(DEFAULT), size).getmetrics()[0]
    for piece, font in typeset(text, size):
        draw.text((x, baseline), piece, colour, font, anchor="ls")
        x += font.getlength(piece)


@lru_cache(maxsize=256)
def _covering(needed: frozenset[str]) -> str | None:
    """The first of the fonts that matplotlib finds that has all the characters."""
    codes = {ord(char) for char in needed}
    paths = sorted({entry.fname for entry in font_manager.fontManager.ttflist})
    return next((path for path in paths if codes <= _characters(path)), None)


@cache
def _characters(path: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@lru_cache(maxsize=32)
def _load(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _spelt(char: str) -> str:
    """``KATAKANA LETTER PE`` -> ``pe``, ``CJK UNIFIED IDEOGRAPH-4F01`` -> ``u4f01``, a control character -> nothing."""
    name = unicodedata.name(char, "")
    if not name:
        return ""
    return name.rsplit(" ", 1)[-1].replace("IDEOGRAPH-", "u").lower()


@lru_cache(maxsize=1)
def _warn_once() -> None:
    warnings.warn(
        "No font on this machine has all characters of the names to be drawn; the missing ones are spelt out. Install "
        "one that has them, such as Noto Sans CJK for Chinese, Japanese and Korean.",
        UserWarning,
        stacklevel=2,
    )
