"""Names in any script are readable with any fonts of the machine."""

import warnings

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image

from gradcam_callback import GradCAMWarning
from gradcam_callback.drawing import text as fonts
from gradcam_callback.drawing.canvas import cut
from gradcam_callback.drawing.text import append_left_to_right


@pytest.fixture
def only_the_default(monkeypatch):
    """Hide all fonts of this machine but the font that comes with matplotlib."""
    own = [entry.fname for entry in font_manager.fontManager.ttflist if entry.name == fonts.DEFAULT]
    monkeypatch.setattr(fonts, "_font_paths", lambda: sorted(own))
    for cached in (fonts._find_font, fonts._warn_once, fonts.line_width):
        cached.cache_clear()
    yield
    for cached in (fonts._find_font, fonts._warn_once, fonts.line_width):
        cached.cache_clear()


def pieces(text):
    return [piece for piece, _ in fonts.typeset(text, 16)]


@pytest.mark.parametrize("text", ["star 87 % ✓ ✗ → …", "Ärztin, λέων, лев"])
def test_default_font_has_what_the_panels_use_and_european_names(text):
    assert pieces(text) == [text]


@pytest.mark.parametrize(
    ("name", "spelt", "font"),
    [
        ("ペンギン", "pe n gi n", "Noto Sans CJK"),
        ("企鹅", "u4f01 u9e45", "Noto Sans CJK"),
        ("🐧", "penguin", "Noto Color Emoji"),
        ("เพนกวิน", "e phan nu kai waen i nu", "Noto Sans Thai"),
    ],
)
def test_missing_characters_are_spelt_with_one_warning_that_names_a_font(only_the_default, name, spelt, font):
    with pytest.warns(GradCAMWarning, match=f"GradCAM: no font on this machine .* Install {font}.") as caught:
        assert "".join(pieces(f"→ {name} 9 %")) == f"→ {spelt} 9 %"
        pieces(f"{name} again")
    assert len(caught) == 1


def test_control_characters_leave_no_trace(only_the_default):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "".join(pieces("pen\nguin")) == "penguin"


def test_accents_joiners_and_selectors_stay_with_what_they_belong_to():
    assert list(fonts.clusters("é👨‍👩‍👧✌️x")) == ["é", "👨‍👩‍👧", "✌️", "x"]


def drawn(text, size=20):
    image = Image.new("RGB", (400, 60), "white")
    fonts.write_line(image, text, (20, 10), size, (0, 0, 0))
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("name", ["पेंगुइन पेंगुइन", "e\N{COMBINING ACUTE ACCENT}" * 12, "👨‍👩‍👧" * 8])
@pytest.mark.filterwarnings("ignore:.*no font on this machine")
def test_a_cut_leaves_every_character_whole(name):
    whole = set(fonts.clusters(name))
    for width in range(20, fonts.line_width(name, 16), 7):
        shown = cut(name, 16, width)
        assert shown.count("…") == 1 and set(fonts.clusters(shown)) <= whole | {"…"}


def test_arabic_is_joined_and_runs_from_right_to_left():
    """Arabic letters change their shapes with their neighbours, and the first letter stands at the right."""
    word, first = drawn("البطريق"), drawn("ا")
    apart = sum(fonts.line_width(letter, 20) for letter in "البطريق")
    assert fonts.line_width("البطريق", 20) < 0.9 * apart
    dark = (word < 128).any(axis=(0, 2)).nonzero()[0]
    alef = (first < 128).any(axis=2)
    height = alef.any(axis=1).sum()
    last_stroke = (word < 128).any(axis=2)[:, dark[-1] - 1 : dark[-1] + 1]
    assert last_stroke.any(axis=1).sum() >= 0.9 * height, "the tall alef, which begins the word"


def test_a_line_that_begins_in_arabic_still_runs_from_left_to_right():
    line, word = append_left_to_right("البطريق", " 87 %"), drawn("البطريق")
    width = fonts.line_width("البطريق", 20)
    assert np.array_equal(drawn(line)[:, : 20 + width], word[:, : 20 + width])


def test_the_font_of_last_resort_counts_as_none():
    assert not [path for path in fonts._font_paths() if "LastResort" in path]


def test_a_font_of_coloured_glyphs_is_drawn_in_colour_and_to_the_size_of_the_line(monkeypatch):
    """Noto Color Emoji has size 109 only. A stand-in refuses every other size."""
    default = font_manager.findfont(fonts.DEFAULT)
    real = fonts.ImageFont.truetype

    def truetype(path, size):
        if path == "emoji" and size != fonts.COLOUR_FONT_SIZE:
            raise OSError("invalid pixel size")
        return real(default, size)

    monkeypatch.setattr(fonts.ImageFont, "truetype", truetype)
    fonts._load_face.cache_clear()
    face = fonts._load_face("emoji", 20)
    fonts._load_face.cache_clear()
    assert face.width("O") == pytest.approx(1.1 * real(default, 20).getlength("O"), rel=0.05)
    glyphs = fonts._draw_colour_glyphs("O", face)
    assert 12 <= glyphs.height <= 24 and np.asarray(glyphs)[..., 3].max() > 200


def test_a_font_that_has_the_characters_is_found_by_coverage(only_the_default, monkeypatch):
    monkeypatch.setattr(fonts, "_characters_of", lambda path: frozenset(map(ord, "ab")) | (
        frozenset(map(ord, "ペン")) if path.endswith("-Bold.ttf") else frozenset()
    ))  # fmt: skip
    (latin, latin_font), (kana, kana_font), (rest, _) = fonts.typeset("aペンb", 16)
    assert (latin, kana, rest) == ("a", "ペン", "b")
    assert kana_font.font.path.endswith("-Bold.ttf") and not latin_font.font.path.endswith("-Bold.ttf")


def test_line_is_drawn_as_wide_as_it_is_measured():
    image = Image.new("L", (400, 60))
    fonts.write_line(image, "HOH heart 87 % ✓H", (20, 10), 20, 255)
    columns = np.asarray(image).any(axis=0).nonzero()[0]
    rows = np.asarray(image).any(axis=1).nonzero()[0]
    assert columns[-1] - columns[0] == pytest.approx(fonts.line_width("HOH heart 87 % ✓H", 20), abs=6)
    assert 20 <= columns[0] <= 24 and 10 <= rows[0] <= 16
