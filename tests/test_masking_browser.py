"""The page of the masks, used by keyboard and mouse in a real browser."""

import errno
from pathlib import Path

import numpy as np
import pytest
from browser import needs_browser, open_page
from masking_server import mask_of, overlap, read_mask, save_toys, serving
from PIL import Image, ImageDraw

from gradcam_callback import ProbeSet
from gradcam_callback.masking import mask_automatically
from gradcam_callback.saliency import judge_proposal

pytestmark = needs_browser
# How often a state is asked for, at most, with a tenth of a second between: two minutes.
TRIES = 1200


class Person:
    """A person at a page, with the errors of its console."""

    def __init__(self, page):
        self.page = page
        self.errors = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text))

    def until(self, holds):
        """Wait. Playwright's own waiting runs code that the policy of the page forbids."""
        for _ in range(TRIES):
            if holds():
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{self.count()}; {self.said()}; {self.title()}; {self.errors}")

    def look(self, server):
        self.page.goto(server.address)
        self.until(lambda: self.states() and not any("waiting" in state for state in self.states()))
        self.until(lambda: self.page.evaluate("[...document.images].every(image => image.hidden || image.complete)"))

    def idle(self):
        self.until(lambda: self.page.evaluate("document.body.getAttribute('aria-busy') === 'false'"))

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)
            self.idle()

    def states(self):
        return self.page.locator(".tile .state").all_text_contents()

    def names(self):
        return self.page.locator(".tile .name").all_text_contents()

    def count(self):
        return self.page.locator("#count").inner_text()

    def said(self):
        return self.page.locator("#message").inner_text()

    def title(self):
        return self.page.locator("#name").inner_text() if self.page.locator("#editor").is_visible() else "sheet"

    def click(self, button):
        """Click a button by its name. Sheet and editor each have an "Undo", and the page goes from one to the other."""
        self.page.get_by_role("button", name=button).click()
        self.idle()

    def open(self, name):
        self.page.locator(".tile", has=self.page.get_by_text(name, exact=True)).click()
        self.idle()
        assert self.title().endswith(name)

    def drag(self, start, end, width, button="left"):
        """Drag between two points in pixels of a photograph of some width."""
        place = self.page.locator("#canvas").bounding_box()
        scale = place["width"] / width
        at = [(place["x"] + x * scale, place["y"] + y * scale) for x, y in (start, end)]
        self.page.mouse.move(*at[0])
        self.page.mouse.down(button=button)
        self.page.mouse.move(*at[1], steps=3)
        self.page.mouse.up(button=button)
        self.idle()

    def clicked(self, at, width, button="left"):
        """Click a point in pixels of a photograph of some width."""
        place = self.page.locator("#canvas").bounding_box()
        scale = place["width"] / width
        self.page.mouse.click(place["x"] + at[0] * scale, place["y"] + at[1] * scale, button=button)
        self.idle()

    def label(self):
        return self.page.locator("#canvas").get_attribute("aria-label")


@pytest.fixture
def person(browser):
    with open_page(browser, 1280, 860) as page:
        yield Person(page)


class Bright:
    """A network that marks what is brighter than half, and is sure of it."""

    def saliency(self, photograph):
        return (np.asarray(photograph.convert("L")) > 127).astype(np.float32)

    def propose(self, photograph):
        return judge_proposal(self.saliency(photograph))


@pytest.fixture
def bright(monkeypatch):
    monkeypatch.setattr("gradcam_callback.masking.lazy_network.SaliencyNetwork", Bright)


def white_box(path, box=(20, 10, 50, 40)):
    image = Image.new("RGB", (80, 60))
    ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), "white")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def paint(person, mask, brush=8):
    """Paint a mask from left to right with a brush, whose diameter is in pixels of the photograph."""
    height, width = mask.shape
    slider = person.page.locator("#size")
    wanted = brush * person.page.locator("#canvas").bounding_box()["width"] / width
    slider.fill(str(round(wanted)))
    for row in range(brush // 2, height, 5):
        columns = np.nonzero(mask[row])[0]
        for run in np.split(columns, np.nonzero(np.diff(columns) > 1)[0] + 1):
            if len(run) > brush - 2:
                person.drag((run[0] + 4, row + 0.5), (run[-1] - 3, row + 0.5), width)


def test_sixteen_photographs_are_masked_by_keyboard_and_mouse(person, tmp_path):
    masks = save_toys(tmp_path)
    boxed, painted, bare = (next((tmp_path / kind).iterdir()) for kind in ("star", "heart", "moon"))
    # The ground alone.
    with Image.open(bare) as image:
        ground = image.crop((0, 0, 24, 24)).resize((160, 160))
    ground.save(bare)
    name = {path: f"{path.parent.name}/{path.name}" for path in masks}
    with serving(tmp_path) as (_, server):
        person.look(server)
        assert person.count() == "0 of 16 done" and person.names() == sorted(name.values())

        person.open(name[bare])
        person.press("n")
        assert person.count() == "1 of 16 done" and not mask_of(bare).exists()

        person.press("Escape")
        person.open(name[boxed])
        rows, columns = np.nonzero(masks[boxed])
        person.press("c")
        assert "covers nothing" in person.label()
        person.press("Enter")
        assert person.said().startswith("Nothing is marked.") and person.count() == "1 of 16 done"
        person.drag((columns.min() - 2, rows.min() - 2), (columns.max() + 3, rows.max() + 3), 160)
        person.press("Enter")
        assert overlap(read_mask(mask_of(boxed)), masks[boxed]) > 0.9

        person.press("u")
        assert person.title().endswith(name[boxed]) and person.count() == "1 of 16 done"
        assert not mask_of(boxed).exists()
        person.press("Enter")
        assert overlap(read_mask(mask_of(boxed)), masks[boxed]) > 0.9, "the box is kept after the undo"

        person.press("Escape")
        person.open(name[painted])
        person.press("c", "p")
        paint(person, masks[painted])
        person.press("Enter")
        assert overlap(read_mask(mask_of(painted)), masks[painted]) > 0.75

        person.press("Escape", "a")
        assert "U undoes it" in person.said()
        for _ in range(16):
            if person.title() != "sheet" or person.count() != "16 of 16 done":
                person.press("Enter")
        assert person.count() == "16 of 16 done" and person.title() == "sheet" and "Ctrl-C" in person.said()
        assert all(state.startswith("✓") for state in person.states())
    with serving(tmp_path) as (_, server):
        person.look(server)
        assert person.count() == "16 of 16 done"
        assert [name for name, state in zip(person.names(), person.states(), strict=True) if "no object" in state] == [
            name[bare]
        ]
    probe = ProbeSet.from_folder(tmp_path)
    assert probe.has_mask.sum() == 15
    overlaps = [overlap(read_mask(mask_of(path)), mask) for path, mask in masks.items() if path != bare]
    assert np.mean(overlaps) >= 0.9
    assert person.errors == []


def test_brush_adds_and_removes_and_undo_goes_back_step_by_step(person, bright, tmp_path):
    path = white_box(tmp_path / "cat/a.png")
    for name in "bc":
        white_box(tmp_path / f"cat/{name}.png")
    with serving(tmp_path) as (_, server):
        person.look(server)
        person.press("Enter")
        assert person.title() == "1 of 3: cat/a.png" and "covers 19 %" in person.label()
        person.press("p", "]")
        person.drag((60, 50), (75, 50), 80)
        added = person.label()
        person.drag((20, 25), (50, 25), 80, button="right")
        removed = person.label()
        person.press("x")
        person.drag((20, 35), (50, 35), 80)
        assert len({added, removed, person.label()}) == 3
        person.press("u")
        assert person.label() == removed
        # Another photograph and back: what was drawn stays, though it is not accepted.
        person.press("ArrowRight", "ArrowLeft")
        assert person.title() == "1 of 3: cat/a.png" and person.label() == removed and not mask_of(path).exists()
        person.press("ArrowRight", "u", "ArrowLeft")
        assert person.label() == removed, "nothing was decided or drawn there"
        person.press("Escape")
        assert person.states() == ["✎ changed, not accepted yet", "○ proposal", "○ proposal"]
        person.press("a")
        assert person.count() == "2 of 3 done" and not mask_of(path).exists(), "what a person has changed is theirs"
        person.press("Enter", "Enter")
        mask = read_mask(mask_of(path))
        assert mask[50, 60:75].all() and not mask[25, 20:50].any() and mask[39, 22:48].all()
        # The mouse can do the same.
        person.open("cat/b.png")
        person.click("No object")
        assert not mask_of(tmp_path / "cat/b.png").exists()
        assert person.said().startswith("Noted: no object in cat/b.png. U undoes it. All 3 are done."), "both of it"
        person.click("Undo")
        assert mask_of(tmp_path / "cat/b.png").exists()
    assert person.errors == []


def test_two_tabs_do_not_overwrite_each_other_unseen(person, browser, bright, tmp_path):
    path = white_box(tmp_path / "a.png")
    with serving(tmp_path) as (_, server), open_page(browser, 1280, 860) as page:
        other = Person(page)
        for each in (person, other):
            each.look(server)
            each.press("Enter", "p")
        # A change that is not accepted yet, in a photograph that is left and opened again.
        person.clicked((70, 50), 80)
        person.press("Escape", "Enter")
        other.clicked((5, 5), 80)
        other.press("Enter")
        assert other.count() == "1 of 1 done"
        theirs = mask_of(path).read_bytes()
        person.press("n")
        assert "another program or tab has changed it" in person.said() and mask_of(path).read_bytes() == theirs
        person.press("Enter")
        assert mask_of(path).read_bytes() != theirs, "told once, it is done"
        mask = read_mask(mask_of(path))
        assert mask[50, 70] and not mask[5, 5]
    assert person.errors == other.errors == []


def test_without_the_network_box_and_brush_remain(person, monkeypatch, tmp_path):
    def missing():
        raise ImportError("Install onnxruntime.")

    monkeypatch.setattr("gradcam_callback.masking.lazy_network.SaliencyNetwork", missing)
    path = white_box(tmp_path / "a.png")
    with serving(tmp_path) as (_, server):
        person.look(server)
        assert person.page.locator("#network").inner_text() == "Box and brush alone. Install onnxruntime."
        person.press("Enter")
        person.drag((20, 10), (50, 40), 80)
        person.press("Enter")
    expected = np.zeros((60, 80), bool)
    expected[10:40, 20:50] = True
    assert overlap(read_mask(mask_of(path)), expected) > 0.93
    assert person.errors == []


def test_a_mask_that_is_drawn_smaller_is_written_in_full(person, bright, tmp_path):
    with Image.open(white_box(tmp_path / "a.png")) as image:
        image.resize((2800, 2100), Image.Resampling.NEAREST).save(tmp_path / "a.png")
    with serving(tmp_path) as (_, server):
        person.look(server)
        person.press("Enter", "p")
        person.drag((60, 20), (60, 40), 80)
        person.press("Enter")
    mask = read_mask(mask_of(tmp_path / "a.png"))
    assert mask.shape == (2100, 2800) and mask[700:1400, 2090:2110].all(), "the stroke"
    assert overlap(mask[:, :1800], np.pad(np.ones((1050, 1050), bool), ((350, 700), (700, 50)))) > 0.98
    assert person.errors == []


def test_names_of_files_run_nothing(person, bright, tmp_path):
    names = ['"><img src=x onerror=document.title=1>.png', "<script>document.title=2<!script>.png", "企鹅 ' & 50%.png"]
    for name in names:
        white_box(tmp_path / "<b>class" / name)
    with serving(tmp_path) as (_, server):
        person.look(server)
        assert sorted(person.names()) == sorted(f"<b>class/{name}" for name in names)
        person.press("a", "u", "Enter", "Enter", "n", "Enter")
        assert person.count() == "3 of 3 done"
        assert person.page.title() == "Masks"
    assert person.errors == []


def test_a_write_that_fails_is_told_and_can_be_tried_again(person, bright, monkeypatch, tmp_path):
    path = white_box(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"broken")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with serving(tmp_path) as (_, server):
        person.look(server)
        assert person.states()[1].startswith("! cannot be read: Cannot read ")
        with monkeypatch.context() as patched:
            patched.setattr("os.replace", fail)
            person.press("Enter", "Enter")
            assert "Error: Cannot write" in person.said() and "No space left on device" in person.said()
            assert person.title() == "1 of 2: a.png" and person.count() == "0 of 2 done"
            assert {inner.name for inner in tmp_path.iterdir()} == {"a.png", "b.png"}
        person.press("Enter")
        assert person.count() == "1 of 2 done" and mask_of(path).exists()
        person.open("b.png")
        assert person.said().startswith("Error: Cannot read ")
    assert person.errors == []


def test_a_long_name_keeps_its_end(person, bright, tmp_path):
    """Show the end of a long folder, a long file, and a name in wide letters."""
    long, wide = "a class whose name goes on and on", "企鹅" * 12
    names = [f"{long}/{i}.png" for i in range(2)] + [f"{long} {i}.png" for i in range(2)]
    names += [f"{wide}{i}.png" for i in range(2)] + ["short.png"]
    for name in names:
        white_box(tmp_path / name if "/" in name else tmp_path / "b" / name)
    with serving(tmp_path) as (_, server):
        person.look(server)
        tiles = person.page.locator(".tile .name")
        assert [Path(name).name for name in person.names()] == sorted(Path(name).name for name in names)
        shown = """name => {
            let text = name;
            while (text.lastChild) text = text.lastChild;
            const range = document.createRange();
            range.setStart(text, text.length - 5);
            range.setEnd(text, text.length);
            const [whole, box] = [name, range].map(each => each.getBoundingClientRect());
            return whole.left <= box.left && box.right <= whole.right + 1;
        }"""
        for tile in tiles.all():
            assert tile.evaluate(shown), tile.inner_text()
    assert person.errors == []


def test_a_click_of_the_brush_paints_and_removes_a_disc(person, bright, tmp_path):
    path = white_box(tmp_path / "a.png")
    with serving(tmp_path) as (_, server):
        person.look(server)
        person.press("Enter", "p")
        person.clicked((65, 30), 80)
        person.clicked((35, 25), 80, button="right")
        person.press("Enter")
    mask = read_mask(mask_of(path))
    assert mask[30, 65] and not mask[30, 58] and not mask[25, 35] and mask[12, 22]
    assert person.errors == []


def test_a_broken_photograph_shows_nothing_and_takes_nothing(person, bright, tmp_path):
    for name in "acd":
        white_box(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"broken")
    lit = """() => {
        const { width, height } = canvas;
        return canvas.toDataURL() !== Object.assign(document.createElement("canvas"), { width, height }).toDataURL();
    }"""
    with serving(tmp_path) as (_, server):
        person.look(server)
        person.press("Enter")
        assert person.page.evaluate(lit)
        person.press("ArrowRight")
        assert person.title() == "2 of 4: b.png" and person.said().startswith("Error: Cannot read ")
        assert not person.page.evaluate(lit) and "covers nothing" in person.label()
        person.press("n")
        assert person.said().startswith("Error: Cannot read ") and person.count() == "0 of 4 done"
        person.press("Enter")
        assert person.title() == "3 of 4: c.png" and person.said() == "b.png cannot be read."
        person.press("ArrowRight")
        assert person.title() == "4 of 4: d.png" and person.said() == "", "it was said of another photograph"
        person.press("Escape", "a")
        assert "cannot be read: repair or remove the file" in person.said() and "left: press Enter" not in person.said()
        assert person.page.locator("#open-next").is_disabled()
        person.press("u")
        assert person.said() == "Undone: the 3 decisions." and person.count() == "0 of 4 done"
    assert person.errors == []


def test_masks_of_auto_are_looked_at_one_by_one(person, bright, tmp_path):
    for name in "ab":
        white_box(tmp_path / f"{name}.png")
    list(mask_automatically(tmp_path))
    with serving(tmp_path) as (session, server):
        person.look(server)
        assert person.states() == ["✓ done: made by --auto, not looked at yet"] * 2
        person.press("Enter", "Enter", "Enter")
        assert person.title() == "sheet" and person.states() == ["✓ done"] * 2 and session.unseen == 0
    assert person.errors == []


def test_all_buttons_fit_into_a_low_window(person, bright, tmp_path):
    white_box(tmp_path / "a.png")
    person.page.set_viewport_size({"width": 900, "height": 600})
    with serving(tmp_path) as (_, server):
        person.look(server)
        person.press("Enter", "p")
        assert person.page.evaluate("scrollY") == 0
        for name in ("name", "accept", "next", "all"):
            place = person.page.locator(f"#{name}").bounding_box()
            assert place["y"] >= 0 and place["y"] + place["height"] <= 600, name
    assert person.errors == []


@pytest.mark.parametrize("width", [1280, 800])
def test_all_of_the_page_fits_into_its_width(person, bright, tmp_path, width):
    for i in range(6):
        white_box(tmp_path / "a class with a long name" / f"{'long ' * 12}{i}.png")
    person.page.set_viewport_size({"width": width, "height": 800})
    with serving(tmp_path) as (_, server):
        person.look(server)
        for _ in range(2):
            assert person.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            unnamed = "[...document.querySelectorAll('button, input, canvas')].filter(one => !(one.textContent.trim()"
            unnamed += " || one.getAttribute('aria-label') || one.labels?.length)).length"
            assert person.page.evaluate(unnamed) == 0
            person.press("Enter")
        place = person.page.locator("#canvas").bounding_box()
        assert place["width"] > width / 2 and place["y"] + place["height"] <= 800
    assert person.errors == []
