"""The Focus tab in a real TensorBoard, and the same page in one file, as a person sees them in a real browser."""

import base64
import io
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import pytorch_lightning as pl
from browser import needs_browser, open_page
from conftest import ThinVGG
from PIL import Image
from pretrained import for_finetuning
from pytorch_lightning.loggers import TensorBoardLogger
from shortcut_demo import FineTuning
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.nn.functional import adaptive_avg_pool2d
from torch.utils.data import DataLoader
from toys import CLASSES, Toys

from gradcam_callback import GradCAM, GradCAMCallback, ProbeSet, write_report
from gradcam_callback.drawing import scale
from gradcam_callback.offline.logged_run import read_runs
from gradcam_callback.run.recording import tone_of
from gradcam_focus.frozen import frozen_page

EPOCHS = 3
# The most cells a side that a map has on the page.
CELLS = 28
RUNS = ["clean", "shortcut"]
pytestmark = needs_browser


class Watched:
    """A training of the demo's network, and what the page should show of it."""

    def __init__(self, folder, name, bias):
        self.name, toys = name, Toys(12, bias, seed=1, size=64)
        self.probe = ProbeSet.from_dataset(toys, 2)
        self.callback = GradCAMCallback(self.probe)
        pl.seed_everything(1, verbose=False)
        self.network = for_finetuning("demo", len(CLASSES))
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        logger = TensorBoardLogger(folder, name=name, version="")
        trainer = pl.Trainer(max_epochs=EPOCHS, callbacks=[self.callback], logger=logger, accelerator="cpu", **quiet)
        loader = DataLoader(toys, batch_size=6, shuffle=True)
        trainer.fit(FineTuning(self.network), loader, DataLoader(toys, batch_size=6))
        self.network.eval()
        self.probabilities = GradCAM(self.network, "block5_conv3").predict(self.probe.images).softmax(dim=1)
        self.maps = GradCAM(self.network)(self.probe.images, self.probe.labels).maps

    def answer(self, i):
        """Return the words of the page on an image at the last epoch."""
        best = int(self.probabilities[i].argmax())
        sign = "✓ right" if best == int(self.probe.labels[i]) else "✗ wrong"
        explained = self.probe.class_name(int(self.probe.labels[i]))
        why = "" if explained == self.probe.class_name(best) else f"; map of {explained}"
        return f"{self.probe.class_name(best)} {round(100 * float(self.probabilities[i][best]))} % {sign}{why}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Keep the runs for all tests, as trainings and a TensorBoard take seconds."""
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def watched(folder):
    return {name: Watched(folder, name, bias) for name, bias in zip(RUNS, (0.0, 1.0), strict=True)}


@pytest.fixture(scope="module")
def hostile(toys, folder):
    """A run whose names are chosen to do harm."""
    plain = ProbeSet.from_dataset(toys, 2)
    names = ["star-1", '"><img src=x onerror="document.title = 1">', "heart-1", "../a\nb\\c", "50%", "企鹅"]
    classes = ["<b>star</b>", "</script><script>document.title = 2</script>", "moon"]
    probe = ProbeSet(plain.images, plain.labels, plain.masks, names=names, class_names=classes)
    callback = GradCAMCallback(probe)
    pl.seed_everything(7, verbose=False)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    logger = TensorBoardLogger(folder, name="hostile", version="")
    trainer = pl.Trainer(max_epochs=EPOCHS, callbacks=[callback], logger=logger, accelerator="cpu", **quiet)
    trainer.fit(ThinVGG(), DataLoader(toys, batch_size=6, shuffle=True), DataLoader(toys, batch_size=6))
    return callback


@pytest.fixture(scope="module")
def tensorboard(watched, hostile, folder):
    """The address of a TensorBoard without any option, except that it lies below a path prefix."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    with open(folder / "tensorboard.log", "w") as log:
        server = subprocess.Popen([*command, "--path_prefix", "/board"], stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}/board"
    until(lambda: len(json.loads(read(f"{address}/data/plugin/gradcam_focus/runs"))) == 3)
    yield address
    server.terminate()
    server.wait(20)


def read(address):
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.read()
    except OSError:
        return b"[]"


def until(holds, seconds=60):
    """Wait. Playwright's own waiting runs code that the policy of the page forbids."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.1)


class Tab:
    """The page, in TensorBoard or in a file."""

    def __init__(self, page, frame):
        self.page, self.frame = page, frame
        frame.locator(".card").first.wait_for()
        self.layer = frame.locator(".controls > label select")

    def show(self, *runs):
        """Show these runs only."""
        for box in self.frame.locator(".controls fieldset label").all():
            box.locator("input").set_checked(box.inner_text().strip() in runs)
        self.wait_for_verdicts(*(f"{run}, epoch {EPOCHS - 1}" for run in sorted(runs)))
        self.settle()

    def wait_for_verdicts(self, *runs):
        """Wait until the verdicts of these runs, at these epochs, are shown in full."""
        until(lambda: self.texts(".verdict:not(.line) .run") == list(runs))

    def show_alone(self, run):
        """Show one run as soon as it is there, at whatever epoch."""
        boxes = self.frame.locator(".controls fieldset label")
        until(lambda: run in [text.strip() for text in boxes.all_inner_texts()])
        for box in boxes.all():
            box.locator("input").set_checked(box.inner_text().strip() == run)
        verdicts = ".verdict:not(.line) .run"
        until(lambda: len(self.texts(verdicts)) == 1 and self.texts(verdicts)[0].startswith(run))

    def seen(self):
        """Return what the page shows of a single run: its verdict, answers, photographs and overlays."""
        canvases = self.frame.locator(".card canvas").all()
        texts = self.texts(".verdict:not(.line) strong") + self.texts(".card .name") + self.texts(".card .answer")
        return texts, [canvas.evaluate("canvas => canvas.toDataURL()") for canvas in canvases]

    def settle(self):
        """Wait until nothing changes any more."""
        before = None
        while before != (before := self.frame.locator("main").evaluate("main => main.innerHTML.length")) or not before:
            self.page.wait_for_timeout(400)

    def texts(self, selector):
        return self.frame.locator(selector).all_inner_texts()

    def choose(self, layer=None, epoch=None):
        if layer is not None:
            self.layer.select_option(layer)
        if epoch is not None:
            self.frame.locator(".epoch input").fill(str(epoch))
            until(lambda: self.texts(".controls output") == [f"epoch {epoch}"])
        self.settle()

    def pixels(self, canvas):
        """The pixels of a canvas, ``(height, width, 3)``."""
        address = canvas.evaluate("canvas => canvas.toDataURL()")
        return np.array(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


@pytest.fixture(params=["tab", "file"])
def tab(request, folder, watched, tmp_path):
    """The page with the two runs of the demo's network."""
    with open_page() as page:
        if request.param == "file":
            write_report([folder / name for name in RUNS], tmp_path / "focus.html")
            page.goto((tmp_path / "focus.html").as_uri())
            opened = Tab(page, page.main_frame)
        else:
            opened = open_tab(page, request.getfixturevalue("tensorboard"))
        opened.show(*RUNS)
        yield opened
        assert errors_of(page) == []


def errors_of(page):
    """Return the errors of the console. TensorBoard itself misses some of its own files below a path prefix."""
    return [error for error in page.errors if "404" not in error or "gradcam_focus" in error]


def open_tab(page, address):
    """Open TensorBoard and click on the tab, which is there by itself."""
    page.goto(address)
    page.get_by_role("tab", name="Focus").click()
    return Tab(page, frame_of(page))


def frame_of(page):
    """Return the frame of the tab as soon as it is there."""
    # Frames are noticed while the driver waits.
    until(lambda: page.wait_for_timeout(100) or any("plugin_entry" in frame.url for frame in page.frames))
    return next(frame for frame in page.frames if "plugin_entry" in frame.url)


def test_verdicts_and_answers_are_those_of_the_training(tab, watched):
    assert tab.texts(".verdict:not(.line) strong") == [watched[name].callback.verdict.headline for name in RUNS]
    for i, card in enumerate(tab.frame.locator(".card").all()):
        assert card.locator(".answer").all_inner_texts() == [watched[name].answer(i) for name in RUNS]


def test_the_hottest_cell_is_the_brightest_place(tab, watched):
    """At the last epoch, of every image and run, at a deep layer and at one whose maps were made smaller."""
    for layer in ("block5_conv3", "block1_conv2"):
        tab.choose(layer)
        for i, card in enumerate(tab.frame.locator(".card").all()):
            canvases = card.locator("canvas[aria-label^='focus on']").all()
            for name, canvas in zip(RUNS, canvases, strict=True):
                raw = watched[name].maps[layer][i]
                if len(raw) > CELLS:
                    raw = adaptive_avg_pool2d(raw[None], CELLS)[0]
                raw = raw.numpy()
                if raw.max() == 0:
                    continue
                pixels = tab.pixels(canvas).astype(float)
                heat = scale(raw, pixels.shape[1], pixels.shape[0], smooth=True)
                colour = pixels.max(axis=2) - pixels.min(axis=2)
                # The outline of the mask is white.
                bare = pixels.min(axis=2) <= 240
                assert np.corrcoef(colour[bare], heat[bare])[0, 1] > 0.6, (layer, name, i)
                bright = pixels.sum(axis=2) * bare
                found = np.unravel_index(bright.argmax(), bright.shape)
                assert heat[found] > 0.75, (layer, name, i)


def test_slider_and_layer_change_the_pictures(tab):
    canvas = tab.frame.locator(".card canvas[aria-label^='focus on']").first
    seen = set()
    for layer in ("block5_conv3", "block1_conv1"):
        for epoch in (EPOCHS - 1, 0):
            tab.choose(layer, epoch)
            assert f"at {layer}, epoch {epoch}" in canvas.get_attribute("aria-label")
            seen.add(tab.pixels(canvas).tobytes())
    assert len(seen) == 4, "each layer and epoch has a picture of its own"
    assert tab.texts(".verdict:not(.line) .run") == [f"{name}, epoch 0" for name in RUNS]


def test_it_is_worked_by_keys(tab):
    at = tab.frame.locator(".controls output")
    tab.frame.locator("h2").first.click()
    tab.page.keyboard.press("ArrowLeft")
    until(lambda: at.inner_text() == f"epoch {EPOCHS - 2}")
    tab.page.keyboard.press("ArrowUp")
    until(lambda: tab.layer.input_value() == "block5_conv2")
    tab.page.keyboard.press("Space")
    until(lambda: at.inner_text() == f"epoch {EPOCHS - 1}")
    assert tab.frame.get_by_role("button", name="Newest").get_attribute("aria-pressed") == "true"


def test_an_image_opens_through_all_layers_and_epochs(tab, watched):
    tab.frame.locator(".card").nth(2).click()
    dialog = tab.frame.locator("dialog[open]")
    strips = dialog.locator(".strip")
    until(lambda: strips.count() == 2 * len(RUNS))
    layers = list(watched["clean"].maps)
    for run in range(len(RUNS)):
        assert strips.nth(2 * run).locator("figcaption").all_inner_texts() == layers
        assert strips.nth(2 * run).locator("canvas").count() == 2 * len(layers), "heatmap above, overlay below"
        epochs = strips.nth(2 * run + 1).locator("figcaption").all_inner_texts()
        assert [text.splitlines()[0] for text in epochs] == [f"epoch {epoch}" for epoch in range(EPOCHS)]
    assert dialog.locator("h2").inner_text() == watched["clean"].probe.names[2]
    heatmap, overlay = (tab.pixels(strips.nth(0).locator("canvas").nth(i)) for i in (24, 25))
    assert heatmap.shape == overlay.shape and (heatmap != overlay).any()
    tab.page.keyboard.press("Escape")
    until(lambda: dialog.count() == 0)


def test_runs_and_images_are_chosen(tab, folder, watched):
    tab.show("shortcut")
    assert tab.texts(".verdict:not(.line) .run") == [f"shortcut, epoch {EPOCHS - 1}"]
    tab.frame.get_by_text("Filter and look").click()
    tab.frame.locator(".more select").nth(0).select_option("moon")
    names = list(watched["shortcut"].probe.names)
    until(lambda: len(tab.texts(".card")) == 2)
    assert all(text.startswith("moon-") for text in tab.texts(".card .name"))
    tab.frame.locator(".more select").nth(0).select_option("")
    until(lambda: len(tab.texts(".card")) == len(names))
    tab.frame.get_by_label("answered wrongly").check()
    wrong = [i for i in range(len(names)) if "wrong" in watched["shortcut"].answer(i)]
    until(lambda: len(tab.texts(".card")) == len(wrong))
    tab.frame.get_by_label("answered wrongly").uncheck()
    tab.frame.locator(".more select").nth(1).select_option("changed")
    until(lambda: len(tab.texts(".card")) == len(names))
    tab.settle()
    shown = tab.frame.locator(".card .name").evaluate_all("names => names.map(name => name.firstChild.textContent)")
    first, last = (names.index(shown[place]) for place in (0, -1))
    (run,) = read_runs(folder / "shortcut")
    maps = [unpack(packed) for packed in run.maps["block5_conv3"].values()]
    assert distance(maps[0][first], maps[-1][first]) >= distance(maps[0][last], maps[-1][last])


def unpack(packed):
    content = zlib.decompress(packed)
    n, height, width = np.frombuffer(content, "<u4", 3)
    return np.frombuffer(content, np.uint8, offset=12 + 4 * int(n)).reshape(n, height, width).astype(float)


def distance(before, after):
    return 1 - (before * after).sum() / np.sqrt((before**2).sum() * (after**2).sum())


def test_interventions_show_the_answers_and_the_changed_ones_first(tab, folder, watched):
    tab.show("shortcut")
    rows = tab.frame.locator(".interventions tbody tr")
    (run,) = read_runs(folder / "shortcut")
    entry, sets = list(run.entries.values())[-1], run.start["sets"]
    assert rows.count() == len(watched["shortcut"].probe)

    def answers_of(name, number):
        of_set = zip(entry["answers"][name], sets[name]["numbers"], strict=True)
        # Those that are asked at another entry stand last.
        return sorted((answer for answer, about in of_set if about == number), key=lambda answer: answer is None)

    def share(name, number):
        return np.mean([answer[2] for answer in answers_of(name, number) if answer])

    def caption(answer):
        if not answer:
            return "asked at other epochs"
        return f"{answer[0]} {round(100 * answer[1])} % {'✓' if answer[2] else '✗'}"

    def look(answer):
        return f"tile {'right' if answer[2] else 'wrong'}" if answer else "tile unasked"

    headings = tab.texts(".interventions th")[1:3]
    accuracies = [entry["scalars"][name] for name in ("swap_control_accuracy", "swap_accuracy")]
    assert [text.splitlines()[-1] for text in headings] == [f"{round(100 * share)} % right" for share in accuracies]
    falls = []
    for row in rows.all():
        number = run.start["names"].index(row.locator("td .name").evaluate("name => name.firstChild.textContent"))
        falls.append(share("same_class", number) - share("other_class", number))
        expected = [entry["predictions"][number][:3]]
        for name in ("same_class", "other_class", "background", "foreground"):
            expected += answers_of(name, number)
        assert row.locator("figcaption").all_inner_texts() == list(map(caption, expected))
        frames = row.locator(".tile").evaluate_all("tiles => tiles.map(tile => tile.className)")
        assert frames == list(map(look, expected))
    assert falls == sorted(falls, reverse=True)


def test_what_is_asked_at_other_entries_is_shown_as_such(tab, folder):
    counts = []
    for name in RUNS:
        tab.show(name)
        (run,) = read_runs(folder / name)
        for epoch, entry in enumerate(run.entries.values()):
            tab.choose(epoch=epoch)
            counts.append(sum(answer is None for answers in entry["answers"].values() for answer in answers))
            assert tab.frame.locator(".tile.unasked").count() == counts[-1]
    assert counts[0] == 0, "the first entry asks everything"
    assert any(counts), "and a network without a sign of a shortcut is asked less"


def test_plots_have_few_lines_and_all_on_demand(tab):
    tab.show("clean")
    assert tab.frame.locator(".plot").count() == 4
    lift = tab.frame.locator(".plot", has_text="Lift").first
    assert lift.locator(".legend span").all_inner_texts() == [
        "block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3",
    ]  # fmt: skip
    assert lift.locator("svg .cursor").count() == 1, "a line at the chosen epoch"
    tab.frame.get_by_label("a line for every layer").check()
    until(lambda: tab.frame.locator(".plot", has_text="Lift").first.locator(".legend span").count() == 13)


def test_the_theme_follows_tensorboard(tensorboard):
    with open_page() as page:
        tab = open_tab(page, tensorboard)
        colour = "body => getComputedStyle(body).backgroundColor"
        light = tab.frame.locator("body").evaluate(colour)
        page.evaluate("document.body.classList.toggle('dark-mode')")
        until(lambda: tab.frame.locator("body").evaluate(colour) != light)
        assert {light, tab.frame.locator("body").evaluate(colour)} == {"rgb(255, 255, 255)", "rgb(48, 48, 48)"}


def test_nothing_is_cut_off_in_a_narrow_window(tab):
    tab.page.set_viewport_size({"width": 800, "height": 900})
    tab.settle()
    wide = "main => main.scrollWidth - main.clientWidth"
    assert tab.frame.locator("main").evaluate(wide) <= 0
    for table in tab.frame.locator(".interventions").all():
        assert table.evaluate(wide) <= 0
    for canvas in tab.frame.locator(".card canvas").all()[:4]:
        box = canvas.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 800


def test_a_run_that_grows_is_followed_and_only_what_is_new_is_read(tensorboard, folder, watched):
    """A third run appears while the page is open, and then gets the rest of its epochs."""
    (events,) = (folder / "shortcut").glob("events*")
    content = events.read_bytes()
    growing = folder / "growing"
    growing.mkdir()
    with open_page() as page:
        answers = []
        page.on("response", lambda answer: "run=growing&" in answer.url and answers.append(answer))
        tab = open_tab(page, tensorboard)
        # A part that ends in the middle of a record, as a reader may see it.
        (growing / events.name).write_bytes(content[: len(content) * 2 // 3])
        tab.show_alone("growing")
        assert tab.texts(".verdict:not(.line) .run") != [f"growing, epoch {EPOCHS - 1}"]
        tab.settle()
        before = len(answers)
        with (growing / events.name).open("ab") as file:
            file.write(content[len(content) * 2 // 3 :])
        until(lambda: tab.texts(".verdict:not(.line) .run") == [f"growing, epoch {EPOCHS - 1}"])
        (run,) = read_runs(folder / "shortcut")
        wanted = sorted((layer, step) for layer, of_layer in run.maps.items() for step in of_layer)
        # The layers that are not shown are read in the meantime.
        until(lambda: maps_in(page, answers) == wanted)
        tab.settle()
        assert maps_in(page, answers) == wanted, "each of the maps is read once"
        assert maps_in(page, answers[:before]), "some of them before the run grew"
        logs = [answer.json() for answer in answers if "/log?" in answer.url]
        steps = [entry["step"] for log in logs for entry in log["entries"]]
        assert steps == list(run.entries), "and so is each of the entries"
        assert [log["start"] is not None for log in logs] == [True] + [False] * (len(logs) - 1), "and so are the images"
        assert errors_of(page) == []


def maps_in(page, answers):
    """Return the layers and steps of all maps that some answers hold, sorted."""
    page.wait_for_timeout(200)
    found = []
    for answer in answers:
        if "/maps?" in answer.url:
            (layer,) = urllib.parse.parse_qs(urllib.parse.urlsplit(answer.url).query)["layer"]
            found += [(layer, step) for step in answer.json()["steps"]]
    return sorted(found)


def test_a_run_that_starts_anew_in_its_folder_is_shown_alone(tensorboard, folder, watched):
    """The second training has the same names, layers and steps, but other images."""
    first, second = (Records(next((folder / name).glob("events*"))) for name in ("clean", "shortcut"))
    anew = folder / "anew"
    first.write(anew / "events.out.tfevents.1.first")
    with open_page() as page:
        tab = open_tab(page, tensorboard)
        expected = {}
        for name in RUNS:
            tab.show(name)
            for epoch in range(EPOCHS):
                tab.choose("block5_conv3", epoch)
                expected[name, epoch] = tab.seen()
        tab.frame.get_by_role("button", name="Newest").click()
        tab.show_alone("anew")
        tab.wait_for_verdicts(f"anew, epoch {EPOCHS - 1}")
        tab.settle()
        assert tab.seen() == expected["clean", EPOCHS - 1]
        tab.frame.locator(".card").first.click()
        # Lightning starts a new file. So far it holds the description of the run alone.
        second.write(anew / "events.out.tfevents.2.second", until_entry=0)
        until(lambda: tab.texts(".verdict.line .run").count("anew") == 1)
        assert tab.frame.locator(".card, dialog[open]").count() == 0, "nothing of the first training is left"
        for epoch in range(EPOCHS):
            second.write(anew / "events.out.tfevents.2.second", until_entry=epoch + 1)
            tab.wait_for_verdicts(f"anew, epoch {epoch}")
            tab.settle()
            assert tab.frame.locator(".epoch input").get_attribute("max") == str(epoch), (
                "no entry of the first training"
            )
            assert tab.seen() == expected["shortcut", epoch]
        tab.choose(epoch=0)
        assert tab.seen() == expected["shortcut", 0]
        assert errors_of(page) == []


class Records:
    """The events of a file, to be written as if they were logged now."""

    def __init__(self, path):
        self.events = list(EventFileLoader(str(path)).Load())
        # Behind which event each of the entries ends. The verdict and the scalars of an entry may come later.
        self.ends = [i + 1 for i, event in enumerate(self.events) if has_tag(event, "gradcam/focus/entry")]
        self.start = next(i + 1 for i, event in enumerate(self.events) if has_tag(event, "gradcam/focus/start"))
        self.written = 0

    def write(self, path, until_entry=None):
        """Append what has not been written yet, up to the end of an entry; number 0 is the start of the run."""
        end = len(self.events) if until_entry is None else [self.start, *self.ends][until_entry]
        path.parent.mkdir(exist_ok=True)
        writer = RecordWriter(path.open("ab"))
        for event in self.events[self.written : end]:
            moved = Event()
            moved.CopyFrom(event)
            moved.wall_time = time.time()
            writer.write(moved.SerializeToString())
        writer.close()
        self.written = end


def has_tag(event, tag):
    return any(value.tag == tag for value in event.summary.value)


def test_runs_that_are_not_shown_have_their_verdict_in_a_line(tab, watched, hostile):
    tab.show("shortcut")
    callbacks = {"clean": watched["clean"].callback, "hostile": hostile}
    lines = tab.frame.locator(".verdict.line")
    there = [name for name in callbacks if f"{name}, epoch {EPOCHS - 1}" in tab.texts(".verdict.line .run")]
    assert there == (["clean", "hostile"] if lines.count() > 1 else ["clean"])
    for name in there:
        verdict = callbacks[name].verdict
        line = tab.frame.locator(".verdict.line", has=tab.frame.get_by_text(f"{name}, epoch", exact=False))
        assert line.locator("strong").inner_text() == verdict.headline
        assert tone_of(verdict) in line.get_attribute("class").split()
    tab.frame.locator(".verdict.line", has_text="clean, epoch").click()
    tab.wait_for_verdicts(*(f"{name}, epoch {EPOCHS - 1}" for name in RUNS))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_twenty_runs_are_folded_and_counted(folder, watched, tmp_path, scheme):
    (logged,) = read_runs(folder / "clean")
    tones = ["suspected"] * 7 + ["clear"] * 3 + ["unknown"] * 10
    runs = [{**logged.describe(1), "run": f"learning_rate_{i / 1000}/version_{i}"} for i in range(len(tones))]
    for run, tone in zip(runs, tones, strict=True):
        (entry,) = run["entries"]
        run["entries"] = [{**entry, "verdict": {**entry["verdict"], "tone": tone}}]
    (tmp_path / "focus.html").write_text(frozen_page(runs))
    with open_page(color_scheme=scheme) as page:
        page.goto((tmp_path / "focus.html").as_uri())
        tab = Tab(page, page.main_frame)
        tab.settle()
        summary = tab.frame.locator(".others > summary")
        # Two of the first kind are shown in full.
        assert summary.inner_text().split() == "18 more runs: 5 with a suspicion 3 without a sign 10 not known".split()
        lines = tab.frame.locator(".verdict.line")
        assert lines.count() == 18 and not lines.first.is_visible()
        summary.click()
        lines.first.wait_for()
        for width in (1280, 800):
            page.set_viewport_size({"width": width, "height": 900})
            tab.settle()
            assert tab.frame.locator("main").evaluate("main => main.scrollWidth - main.clientWidth") <= 0
            assert tab.frame.locator(".controls").bounding_box()["height"] < 120, "the bar leaves room for the images"
            for line in [*lines.all(), summary]:
                assert line.evaluate("line => line.scrollWidth - line.clientWidth") <= 0
        for text in tab.frame.locator(".verdict.line strong, .verdict.line .run, .count").all():
            assert text.evaluate(CONTRAST) >= 4.5, "as WCAG asks for"
        lines.last.click()
        until(lambda: lines.count() == 17)
        assert tab.texts(".verdict:not(.line) .run")[-1].startswith(runs[-1]["run"])
        tab.frame.locator(".runs > summary").click()
        boxes = tab.frame.locator(".runs input")
        assert boxes.count() == 20
        for box in (boxes.nth(0), boxes.nth(1)):
            box.uncheck()
        until(lambda: lines.count() == 19)
        assert tab.frame.locator(".runs > summary").inner_text() == "Runs: 1 of 20"
        assert errors_of(page) == []


# The contrast of the text of an element with what is behind it, 1..21.
CONTRAST = """element => {
    const channels = colour => colour.match(/[0-9.]+/g).map(Number);
    const ground = element => getComputedStyle(element).backgroundColor;
    let behind = element;
    while (behind.parentElement && channels(ground(behind))[3] === 0) behind = behind.parentElement;
    const linear = c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const light = colour => {
        const [red, green, blue] = channels(colour).map(channel => linear(channel / 255));
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05;
    };
    const pair = [getComputedStyle(element).color, ground(behind)].map(light);
    return Math.max(...pair) / Math.min(...pair);
}"""


def test_hostile_names_are_shown_and_run_nothing(tensorboard, folder, hostile, tmp_path):
    with open_page() as page:
        tab = open_tab(page, tensorboard)
        tab.show("hostile")
        shown = tab.texts(".card .name")
        write_report(folder / "hostile", tmp_path / "focus.html")
        page.goto((tmp_path / "focus.html").as_uri())
        in_file = Tab(page, page.main_frame)
        in_file.settle()
        assert page.title() == "Focus of hostile"
        for names in (shown, in_file.texts(".card .name")):
            assert any("onerror" in name for name in names) and any("企鹅" in name for name in names)
        assert errors_of(page) == []


@pytest.mark.parametrize("sandbox", ["", 'sandbox="allow-scripts allow-same-origin"'])
def test_it_works_in_a_notebook(tensorboard, watched, sandbox):
    """Notebooks show TensorBoard in a frame of a page of another origin."""
    content = f'<iframe {sandbox} width="100%" height="900" src="{tensorboard}/#gradcam_focus"></iframe>'

    class Notebook(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_): ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Notebook)
    threading.Thread(target=server.serve_forever).start()
    try:
        with open_page() as page:
            page.goto(f"http://127.0.0.1:{server.server_port}/")
            tab = Tab(page, frame_of(page))
            tab.show(*RUNS)
            tab.choose("block4_conv3", 1)
            canvas = tab.frame.locator(".card canvas[aria-label^='focus on']").first
            assert "at block4_conv3, epoch 1" in canvas.get_attribute("aria-label")
            assert len(np.unique(tab.pixels(canvas))) > 20, "a picture"
            assert errors_of(page) == []
    finally:
        server.shutdown()
        server.server_close()


def test_an_error_is_shown_in_the_tab(tensorboard):
    with open_page() as page:
        page.route("**/gradcam_focus/log*", lambda route: route.fulfill(status=500, json={"error": "no more memory"}))
        page.goto(tensorboard)
        page.get_by_role("tab", name="Focus").click()
        frame = frame_of(page)
        frame.get_by_role("alert").get_by_text("no more memory").wait_for()


def test_tensorboard_serves_every_picture_whatever_its_name(tensorboard, hostile):
    address = f"{tensorboard}/data/plugin/images"
    with urllib.request.urlopen(f"{address}/tags") as answer:
        tags = json.load(answer)["hostile"]
    assert len([tag for tag in tags if tag.startswith("gradcam/probe/")]) == len(hostile.probe)
    for tag in tags:
        query = urllib.parse.urlencode({"run": "hostile", "tag": tag, "sample": 0})
        with urllib.request.urlopen(f"{address}/images?{query}") as answer:
            (last, *_) = reversed(json.load(answer))
        with urllib.request.urlopen(f"{address}/individualImage?ts=1&{last['query']}") as picture:
            assert picture.status == 200 and len(picture.read()) > 1000, tag


def test_the_other_tabs_show_scalars_charts_and_the_verdict(tensorboard, watched):
    with open_page() as page:
        page.goto(f"{tensorboard}/#custom_scalars")
        page.get_by_text("accuracies", exact=True).first.wait_for()
        page.goto(f"{tensorboard}/#text")
        page.get_by_text(watched["shortcut"].callback.verdict.headline[:60]).first.wait_for()
        assert not page.get_by_text("focus/start").count(), "what is for programs is not shown"
