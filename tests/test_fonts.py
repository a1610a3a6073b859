"""Names in any script come out readable, whatever fonts the machine has."""

import warnings

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image, ImageDraw

from gradcam_callback import fonts


@pytest.fixture
def only_the_default(monkeypatch):
    """A machine with no font but the one that comes with matplotlib."""
    own = [entry for entry in font_manager.fontManager.ttflist if entry.name == fonts.DEFAULT]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    for cached in (fonts._covering, fonts._warn_once):
        cached.cache_clear()
    yield
    for cached in (fonts._covering, fonts._warn_once):
        cached.cache_clear()


def pieces(text):
    return [piece for piece, _ in fonts.typeset(text, 16)]


@pytest.mark.parametrize("text", ["star 87 % ✓ ✗ → …", "Ärztin, λέων, лев"])
def test_default_font_has_what_the_panels_use_and_european_names(text):
    assert pieces(text) == [text]


@pytest.mark.parametrize(
    ("name", "spelt"),
    [("ペンギン", "pe n gi n"), ("企鹅", "u4f01 u9e45"), ("🐧", "penguin"), ("pen\nguin", "penguin")],
)
def test_missing_characters_are_spelt_with_one_warning(only_the_default, name, spelt):
    if name == "pen\nguin":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert "".join(pieces(name)) == spelt
        return
    with pytest.warns(UserWarning, match="Install one that has them, such as Noto Sans CJK") as caught:
        assert "".join(pieces(f"→ {name} 9 %")) == f"→ {spelt} 9 %"
        pieces(f"{name} again")
    assert len(caught) == 1


def test_a_font_that_has_the_characters_is_found_by_coverage(only_the_default, monkeypatch):
    monkeypatch.setattr(fonts, "_characters", lambda path: frozenset(map(ord, "ab")) | (
        frozenset(map(ord, "ペン")) if path.endswith("-Bold.ttf") else frozenset()
    ))  # fmt: skip
    (latin, latin_font), (kana, kana_font), (rest, _) = fonts.typeset("aペンb", 16)
    assert (latin, kana, rest) == ("a", "ペン", "b")
    assert kana_font.path.endswith("-Bold.ttf") and not latin_font.path.endswith("-Bold.ttf")


def test_line_is_drawn_as_wide_as_it_is_measured():
    image = Image.new("L", (400, 60))
    fonts.write_line(ImageDraw.Draw(image), "HOH heart 87 % ✓H", (20, 10), 20, 255)
    columns = np.asarray(image).any(axis=0).nonzero()[0]
    rows = np.asarray(image).any(axis=1).nonzero()[0]
    assert columns[-1] - columns[0] == pytest.approx(fonts.line_width("HOH heart 87 % ✓H", 20), abs=6)
    assert 20 <= columns[0] <= 24 and 10 <= rows[0] <= 16
