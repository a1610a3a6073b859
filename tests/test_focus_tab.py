"""The Focus tab in a real TensorBoard, in a real browser."""

import json
import threading
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from browser import needs_browser, open_page
from focus_tab import (
    EPOCHS,
    RUNS,
    Records,
    Tab,
    errors_of,
    frame_of,
    maps_in,
    open_tab,
    read,
    until,
)

from gradcam_callback import write_report
from gradcam_callback.offline.logged_run import read_runs

pytestmark = needs_browser


def test_the_theme_follows_tensorboard(browser, tensorboard):
    with open_page(browser) as page:
        tab = open_tab(page, tensorboard)
        colour = "body => getComputedStyle(body).backgroundColor"
        light = tab.frame.locator("body").evaluate(colour)
        page.evaluate("document.body.classList.toggle('dark-mode')")
        until(lambda: tab.frame.locator("body").evaluate(colour) != light)
        assert {light, tab.frame.locator("body").evaluate(colour)} == {"rgb(255, 255, 255)", "rgb(48, 48, 48)"}


def test_the_two_newest_runs_are_shown_at_first(browser, tensorboard):
    listed = json.loads(read(f"{tensorboard}/data/plugin/gradcam_focus/runs"))
    newest = {run["run"] for run in sorted(listed, key=lambda run: run["began"])[-2:]}
    assert "clean" not in newest, "it is the first by its name, and the oldest"
    with open_page(browser) as page:
        page.goto(f"{tensorboard}/data/plugin_entry.html?name=gradcam_focus")
        tab = Tab(page, page.main_frame)
        boxes = tab.frame.locator(".controls fieldset label").all()
        assert {box.inner_text().strip() for box in boxes if box.locator("input").is_checked()} == newest


def test_a_run_that_grows_is_followed_and_only_what_is_new_is_read(browser, tensorboard, runs_folder, watched):
    """A third run appears while the page is open, and then gets the rest of its epochs."""
    (events,) = (runs_folder / "shortcut").glob("events*")
    content = events.read_bytes()
    growing = runs_folder / "growing"
    growing.mkdir()
    with open_page(browser) as page:
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
        (run,) = read_runs(runs_folder / "shortcut")
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


def test_a_run_that_starts_anew_in_its_folder_is_shown_alone(browser, tensorboard, runs_folder, watched):
    """The second training has the same names, layers and steps, but other images."""
    first, second = (Records(next((runs_folder / name).glob("events*"))) for name in ("clean", "shortcut"))
    anew = runs_folder / "anew"
    with open_page(browser) as page:
        tab = open_tab(page, tensorboard)
        expected = {}
        for name in RUNS:
            tab.show(name)
            for epoch in range(EPOCHS):
                tab.choose("block5_conv3", epoch)
                expected[name, epoch] = tab.seen()
        tab.frame.get_by_role("button", name="Newest").click()
        # Not before, as a run that has just begun is shown by itself.
        first.write(anew / "events.out.tfevents.1.first")
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


def test_hostile_names_are_shown_and_run_nothing(browser, tensorboard, runs_folder, hostile, tmp_path):
    with open_page(browser) as page:
        tab = open_tab(page, tensorboard)
        tab.show("hostile")
        shown = tab.texts(".card .name")
        write_report(runs_folder / "hostile", tmp_path / "focus.html")
        page.goto((tmp_path / "focus.html").as_uri())
        in_file = Tab(page, page.main_frame)
        in_file.settle()
        assert page.title() == "Focus of hostile"
        for names in (shown, in_file.texts(".card .name")):
            assert any("onerror" in name for name in names) and any("企鹅" in name for name in names)
        assert errors_of(page) == []


@pytest.mark.parametrize("sandbox", ["", 'sandbox="allow-scripts allow-same-origin"'])
def test_it_works_in_a_notebook(browser, tensorboard, watched, sandbox):
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
        with open_page(browser) as page:
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


def test_an_error_is_shown_in_the_tab(browser, tensorboard):
    with open_page(browser) as page:
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


def test_the_other_tabs_show_scalars_charts_pictures_and_the_verdict(browser, tensorboard, watched):
    with open_page(browser) as page:
        page.goto(f"{tensorboard}/#images")
        picture = page.locator("tf-image-loader img").first
        until(lambda: picture.count() and picture.evaluate("image => image.complete && image.naturalWidth") > 500)
        page.goto(f"{tensorboard}/#custom_scalars")
        page.get_by_text("accuracies", exact=True).first.wait_for()
        page.goto(f"{tensorboard}/#text")
        page.get_by_text(watched["shortcut"].callback.verdict.headline[:60]).first.wait_for()
        assert not page.get_by_text("focus/start").count(), "what is for programs is not shown"
