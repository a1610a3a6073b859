"""Write names in any script, with a font that has their characters or spelt in Latin letters."""

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

from gradcam_callback.exceptions import GradCAMWarning

# This font comes with matplotlib, so every machine has it. It has Latin, Greek, Cyrillic, Arabic and the signs ✓ ✗ …
DEFAULT = "DejaVu Sans"
# Fonts of coloured glyphs, such as emoji, exist in this size only.
COLOUR_FONT_SIZE = 109
# The direction of the whole line, whatever script it begins with; words of Arabic or Hebrew still run from right to
# left. Pillow raises an error for a direction without libraqm, which most of its builds have.
LEFT_TO_RIGHT = "ltr" if features.check("raqm") else None
# The font to install for a script, by the first word of the Unicode names of its characters.
INSTALL = {
    **dict.fromkeys(("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "IDEOGRAPHIC"), "Noto Sans CJK"),
    **{script: f"Noto Sans {script.capitalize()}" for script in ("DEVANAGARI", "THAI", "BENGALI", "TAMIL", "HEBREW")},
}


@dataclass(frozen=True)
class Face:
    """A font in one size.

    Attributes:
        font: the font as Pillow loads it.
        scale: factor for its glyphs, below 1 for a font that exists in a larger size only.
    """

    font: ImageFont.FreeTypeFont
    scale: float = 1.0

    def width(self, text: str) -> float:
        """Return the width of a text in pixels."""
        return self.font.getlength(text) * self.scale


def typeset(text: str, size: int) -> list[tuple[str, Face]]:
    """Cut a line of text into pieces, each with a font that has its characters.

    If no font of this machine has a character, its Unicode name is written ("ペ" as "pe"). A warning then names the
    font to install, once per font.

    Args:
        text: one line.
        size: size of the text in pixels.

    Returns:
        Pieces in order, each with its font.
    """
    default = font_manager.findfont(DEFAULT)
    known_to_default = _characters_of(default)
    pieces = []
    for known, group in groupby(clusters(text), key=lambda cluster: _visible(cluster) <= known_to_default):
        piece = "".join(group)
        path = default if known else _find_font(_visible(piece))
        if path is None:
            _warn_of_missing(piece, default)
            path, piece = default, " ".join(filter(None, map(_spell_out, piece)))
        pieces.append((piece, _load_face(path, size)))
    return pieces


def append_left_to_right(name: str, rest: str) -> str:
    """Append a text to a name, so that it stands at its right even if the name is Arabic or Hebrew."""
    runs_left = any(unicodedata.bidirectional(char) in ("R", "AL") for char in name)
    # Without the mark, numbers and signs after such a name would be drawn at its left.
    return name + ("\N{LEFT-TO-RIGHT MARK}" if runs_left else "") + rest


@lru_cache(maxsize=4096)
def line_width(text: str, size: int) -> int:
    """Return the width of a line as `write_line` draws it, in pixels."""
    return round(sum(face.width(piece) for piece, face in typeset(text, size)))


def write_line(image: Image.Image, text: str, place: tuple[int, int], size: int, colour: tuple[int, int, int]) -> None:
    """Write one line, all pieces on one baseline.

    Args:
        image: RGB or L image, which is changed.
        text: one line.
        place: left and top in pixels.
        size: size of the text in pixels.
        colour: RGB, 0..255.
    """
    letters, left, top = _render(text, size)
    image.paste(colour, (place[0] + left, place[1] + top), letters)
    # The letters are all of one colour. Emoji have their own.
    x, baseline = float(place[0]), place[1] + _ascent(size)
    for piece, face in typeset(text, size) if _has_emoji(text, size) else ():
        if face.scale != 1:
            glyphs = _draw_colour_glyphs(piece, face)
            # Emoji stand a little below the baseline, as the tails of letters do.
            image.paste(glyphs, (round(x), baseline + size // 5 - glyphs.height), glyphs)
        x += face.width(piece)


# Cached, as most lines of a panel are the same at every entry: headings, and names of layers and images.
@lru_cache(maxsize=2048)
def _render(text: str, size: int) -> tuple[Image.Image, int, int]:
    """Draw the letters of a line, but for emoji, as a mask without margins.

    Returns:
        The mask, and how far its left and top lie from those of the line.
    """
    letters = Image.new("L", (line_width(text, size) + 2 * size, 4 * size))
    draw = ImageDraw.Draw(letters)
    x, baseline = float(size), size + _ascent(size)
    for piece, face in typeset(text, size):
        if face.scale == 1:
            draw.text((x, baseline), piece, 255, face.font, anchor="ls", direction=LEFT_TO_RIGHT)
        x += face.width(piece)
    # A margin of one size has room for letters that reach beyond the line. To paste it takes time.
    box = letters.getbbox() or (0, 0, 1, 1)
    return letters.crop(box), box[0] - size, box[1] - size


@lru_cache(maxsize=2048)
def _has_emoji(text: str, size: int) -> bool:
    return any(face.scale != 1 for _, face in typeset(text, size))


@cache
def _ascent(size: int) -> int:
    """Return the height of the baseline below the top of a line, in pixels."""
    return _load_face(font_manager.findfont(DEFAULT), size).font.getmetrics()[0]


def _draw_colour_glyphs(text: str, face: Face) -> Image.Image:
    """Draw coloured glyphs, such as emoji, on a transparent background."""
    left, top, right, bottom = face.font.getbbox(text)
    sheet = Image.new("RGBA", (max(1, round(right)), max(1, round(bottom - top))))
    ImageDraw.Draw(sheet).text((0, -top), text, font=face.font, embedded_color=True)
    size = max(1, round(sheet.width * face.scale)), max(1, round(sheet.height * face.scale))
    return sheet.resize(size, Image.Resampling.LANCZOS)


def clusters(text: str) -> Iterator[str]:
    """Yield each character together with its accents and joiners, which need the same font."""
    cluster = ""
    for char in text:
        # Categories of marks and of format characters, such as joiners.
        joined = unicodedata.category(char) in ("Mn", "Me", "Mc", "Cf") or cluster.endswith("\N{ZERO WIDTH JOINER}")
        if cluster and not joined:
            yield cluster
            cluster = ""
        cluster += char
    if cluster:
        yield cluster


def _visible(text: str) -> frozenset[int]:
    """Return the code points that a font must have: all but joiners and variation selectors."""
    return frozenset(ord(char) for char in text if not _is_invisible(char))


def _is_invisible(char: str) -> bool:
    return unicodedata.category(char) == "Cf" or "\ufe00" <= char <= "\ufe0f"


@lru_cache(maxsize=256)
def _find_font(needed: frozenset[int]) -> str | None:
    """Return the path of the first font that has all code points, or None."""
    return next((path for path in _font_paths() if needed <= _characters_of(path)), None)


@cache
def _font_paths() -> list[str]:
    """Return the paths of matplotlib's and the system's fonts."""
    # matplotlib cannot plot with fonts of coloured glyphs and leaves them out; Pillow can draw them.
    plotted = (entry.fname for entry in font_manager.fontManager.ttflist)
    # The font of last resort claims every character, but draws a box with the name of its script for each.
    return sorted(path for path in {*plotted, *font_manager.findSystemFonts()} if "LastResort" not in path)


@cache
def _characters_of(path: str) -> frozenset[int]:
    """Return the code points that a font has, none if it cannot be read."""
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@lru_cache(maxsize=32)
def _load_face(path: str, size: int) -> Face:
    try:
        return Face(ImageFont.truetype(path, size))
    except OSError:
        # Only fonts of coloured glyphs refuse a size. 1.1 makes emoji as large as the letters beside them.
        return Face(ImageFont.truetype(path, COLOUR_FONT_SIZE), 1.1 * size / COLOUR_FONT_SIZE)


def _spell_out(char: str) -> str:
    """Return the last word of a Unicode name, ``""`` for a control character.

    ``KATAKANA LETTER PE`` gives ``pe``, and ``CJK UNIFIED IDEOGRAPH-4F01`` gives ``u4f01``.
    """
    name = unicodedata.name(char, "")
    if not name or _is_invisible(char):
        return ""
    return name.rsplit(" ", 1)[-1].replace("IDEOGRAPH-", "u").lower()


def _warn_of_missing(text: str, default: str) -> None:
    """Warn of the first character that is not in the default font, with the font that would have it."""
    for char in text:
        name = unicodedata.name(char, "")
        if name and ord(char) not in _characters_of(default):
            # "So" is the category of symbols, with all emoji.
            other = "Noto Color Emoji" if unicodedata.category(char) == "So" else "a font that has them"
            _warn_once(INSTALL.get(name.split(" ")[0], other))
            return


@cache
def _warn_once(font: str) -> None:
    """Warn once for each font; the cache remembers the fonts that were named."""
    warnings.warn(
        "GradCAM: no font on this machine has all characters of the names in the panels, so the missing characters are "
        f"spelt out. Install {font}.",
        GradCAMWarning,
        stacklevel=2,
    )
