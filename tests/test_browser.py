"""The Focus tab in a real TensorBoard, and the same page in one file, as a person sees them in a real browser."""

import base64
import contextlib
import io
import itertools
import json
import threading
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from browser import needs_browser, open_page
from focus_tab import (
    CONTRAST,
    EPOCHS,
    Records,
    Tab,
    Watched,
    distance,
    errors_of,
    frame_of,
    maps_in,
    open_tab,
    read,
    serving,
    unpack,
    until,
    watch_hostile,
    watch_with_automatic_masks,
)
from PIL import Image
from torch.nn.functional import adaptive_avg_pool2d

from gradcam_callback import border_mass, write_report
from gradcam_callback.drawing import scale
from gradcam_callback.offline.logged_run import read_runs
from gradcam_callback.run.album import tone_of
from gradcam_callback.run.recording import pack_maps
from gradcam_focus.frozen import frozen_page

# The most cells a side that a map has on the page.
CELLS = 28
RUNS = ["clean", "shortcut"]
pytestmark = needs_browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Keep the runs for all tests, as trainings and a TensorBoard take seconds."""
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def watched(folder):
    return {name: Watched(folder, name, bias) for name, bias in zip(RUNS, (0.0, 1.0), strict=True)}


@pytest.fixture(scope="module")
def hostile(toys, folder):
    return watch_hostile(folder, toys)


@pytest.fixture(scope="module")
def tensorboard(watched, hostile, folder):
    with serving(folder) as address:
        until(lambda: len(json.loads(read(f"{address}/data/plugin/gradcam_focus/runs"))) == 3)
        yield address


@pytest.fixture(params=["tab", "file"])
def tab(request, browser, folder, watched, tmp_path):
    """The page with the two runs of the demo's network."""
    with open_page(browser) as page:
        if request.param == "file":
            write_report([folder / name for name in RUNS], tmp_path / "focus.html")
            page.goto((tmp_path / "focus.html").as_uri())
            opened = Tab(page, page.main_frame)
        else:
            # The frame alone, as TensorBoard around it takes seconds to load. Other tests click on the tab.
            page.goto(f"{request.getfixturevalue('tensorboard')}/data/plugin_entry.html?name=gradcam_focus")
            opened = Tab(page, page.main_frame)
        opened.show(*RUNS)
        yield opened
        assert errors_of(page) == []


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
            return "not asked at this entry"
        return f"{answer[0]} {round(100 * answer[1])} % {'✓' if answer[2] else '✗'}"

    def look(answer):
        return f"tile {'right' if answer[2] else 'wrong'}" if answer else "tile unasked"

    headings = tab.texts(".interventions th")[:3]
    as_they_are = np.mean([entry["predictions"][number][2] for number in set(sets["other_class"]["numbers"])])
    accuracies = [as_they_are, *(entry["scalars"][name] for name in ("swap_control_accuracy", "swap_accuracy"))]
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


def test_automatic_masks_are_shown_and_what_became_of_them(browser, watched, folder, tmp_path):
    run = watch_with_automatic_masks(tmp_path / "automatic")
    proposals = run.probe_set.verdict_set.proposals
    doubts = {run.probe_set.names[i]: proposal.doubt for i, proposal in proposals.items() if proposal.doubt}
    assert "blank" in doubts and len(doubts) < len(proposals)
    write_report([tmp_path / "automatic", folder / "clean"], tmp_path / "focus.html")
    with open_page(browser) as page:
        page.goto((tmp_path / "focus.html").as_uri())
        tab = Tab(page, page.main_frame)
        tab.show_alone("automatic")
        tab.settle()
        shown = tab.texts("#masks figcaption")
        assert sorted(text.split("\n")[0] for text in shown) == sorted(run.probe_set.names[i] for i in proposals)
        assert set(shown[: len(doubts)]) == {f"{name}\nleft out: {doubt}" for name, doubt in doubts.items()}
        assert all(text.endswith("\nused") for text in shown[len(doubts) :])
        assert tab.frame.locator("#masks .tile.wrong").count() == len(doubts)
        used = len(proposals) - len(doubts)
        assert (
            f"Automatic masks: {used} of {len(proposals)} used. Bright: " in tab.frame.locator("#masks p").inner_text()
        )
        # Inside of the mask, the image is as bright as it is. Outside, it is dim.
        i = next(i for i, proposal in proposals.items() if proposal.doubt is None)
        image = tab.frame.locator("#masks .tile", has_text=run.probe_set.names[i]).locator("img")
        page_pixels = np.asarray(page_image(image)).astype(int)
        pixels, mask = run.probe_set.display_images()[i].astype(int), proposals[i].mask.numpy()
        inside, outside = (pixels[where].mean() for where in (mask, ~mask))
        assert abs(page_pixels[resized(mask, page_pixels)].mean() - inside) < 0.25 * inside
        assert page_pixels[~resized(mask, page_pixels)].mean() < 0.6 * outside
        assert tab.frame.locator(".verdict:not(.line)").first.locator("a", has_text="the masks").count() == 1
        tab.show("clean")
        assert not tab.frame.locator("#masks").is_visible()
        assert errors_of(page) == []


def page_image(image):
    """Return the pixels of an image of the page."""
    return Image.open(io.BytesIO(base64.b64decode(image.get_attribute("src").partition(",")[2])))


def resized(mask, pixels):
    """Return a mask in the size of pixels ``(h, w, 3)``."""
    return np.asarray(Image.fromarray(mask).resize(pixels.shape[1::-1]))


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


def test_the_theme_follows_tensorboard(browser, tensorboard):
    with open_page(browser) as page:
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


def test_a_run_that_grows_is_followed_and_only_what_is_new_is_read(browser, tensorboard, folder, watched):
    """A third run appears while the page is open, and then gets the rest of its epochs."""
    (events,) = (folder / "shortcut").glob("events*")
    content = events.read_bytes()
    growing = folder / "growing"
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


def test_a_run_that_starts_anew_in_its_folder_is_shown_alone(browser, tensorboard, folder, watched):
    """The second training has the same names, layers and steps, but other images."""
    first, second = (Records(next((folder / name).glob("events*"))) for name in ("clean", "shortcut"))
    anew = folder / "anew"
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


def test_a_run_that_has_no_entry_at_the_chosen_epoch_says_which_one_is_shown(browser, folder, watched, tmp_path):
    (logged,) = read_runs(folder / "clean")
    long, short = ({**logged.describe(EPOCHS), "run": name} for name in ("clean", "short"))
    short["entries"] = short["entries"][:-1]
    (tmp_path / "focus.html").write_text(frozen_page([long, short]))
    with open_page(browser) as page:
        page.goto((tmp_path / "focus.html").as_uri())
        tab = Tab(page, page.main_frame)
        for epoch, shown in ((EPOCHS - 1, f"short, epoch {EPOCHS - 2}"), (EPOCHS - 2, "short")):
            tab.choose(epoch=epoch)
            assert set(tab.texts(".card .caption .run")) == {"clean", shown}
            assert tab.texts("#interventions + div h3") == ["clean", shown]
        assert page.errors == []


def test_what_to_do_stands_below_the_headline_and_the_rest_is_folded(tab, watched):
    for place, name in enumerate(RUNS):
        verdict = watched[name].callback.verdict
        box = tab.frame.locator(".verdict:not(.line)").nth(place)
        paragraphs = box.locator("> p").all_inner_texts()
        advice = verdict.advice.replace("the counterfactuals", "the objects on other backgrounds")
        assert paragraphs[1:] == ([advice] if advice else [])
        assert not box.locator("details p").is_visible()
        folded = box.locator("details p").evaluate("text => text.textContent")
        sentence = paragraphs[0].partition(" See ")[0]
        rest = verdict.evidence.removesuffix(verdict.advice).replace(sentence, "")
        assert folded.split() == rest.split(), "nothing is said twice"


@contextlib.contextmanager
def page_of(browser, path, *runs, **options):
    """Open the page of some runs as they are described."""
    path.write_text(frozen_page(runs))
    with open_page(browser, **options) as page:
        page.goto(path.as_uri())
        tab = Tab(page, page.main_frame)
        tab.settle()
        yield tab
        assert errors_of(page) == []


@pytest.fixture
def described(folder, watched):
    """A run as a page reads it, to be changed."""
    (logged,) = read_runs(folder / "clean")
    return json.loads(json.dumps(logged.describe(EPOCHS) | {"run": "clean"}))


def test_a_single_run_has_no_checkbox_and_space_and_escape_work_its_folds(browser, described, tmp_path):
    with page_of(browser, tmp_path / "focus.html", described) as tab:
        assert not tab.frame.locator(".controls fieldset").is_visible(), "there is nothing to choose"
        folds = tab.frame.locator("summary:visible")
        assert folds.count() == 2
        for fold in folds.all():
            fold.press("Space")
            assert fold.evaluate("fold => fold.parentElement.open"), "as the keyboard says"
            assert tab.frame.get_by_role("button", name="Play").count() == 1, "and nothing plays"
        menu = tab.frame.locator(".more:visible")
        tab.frame.get_by_label("answered wrongly").focus()
        tab.page.keyboard.press("Escape")
        assert not menu.evaluate("menu => menu.open")
        assert menu.evaluate("menu => document.activeElement === menu.firstElementChild")


def test_answers_that_are_not_finite_are_neither_right_nor_wrong(browser, described, tmp_path):
    entry, none = described["entries"][0], ["no answer (NaN)", None, None]
    entry["predictions"] = [[*none, explained] for *_, explained in entry["predictions"]]
    # Of one set, an answer is left.
    entry["answers"] = {name: [none] * len(answers) for name, answers in entry["answers"].items()}
    entry["answers"]["foreground"][2] = ["star", 0.9, True]
    entry["scalars"] = {name: value for name, value in entry["scalars"].items() if "accuracy" not in name}
    entry["verdict"]["probe_accuracy"] = None
    with page_of(browser, tmp_path / "focus.html", described) as tab:
        tab.choose(epoch=0)
        assert tab.frame.locator(".card .answer.right, .card .answer.wrong").count() == 0
        answers = tab.texts(".card .answer")
        assert answers and all(text.startswith("no answer (NaN); map of ") for text in answers)
        shares = [text.splitlines()[-1] for text in tab.texts(".interventions th")]
        assert shares == ["no answer"] * 4 + ["100 % of 1 image right"]
        assert tab.frame.locator(".tile.wrong").count() == 0 and tab.frame.locator(".tile.right").count() == 1
        accuracies = tab.frame.locator(".plot", has_text="Accuracy on the probe images")
        assert accuracies.locator("circle").count() == 3 * (EPOCHS - 1), "a gap"


def test_accuracies_are_of_the_same_images_and_those_of_a_part_have_hollow_points(browser, described, tmp_path):
    names, last = ("probe_accuracy", "swap_control_accuracy", "swap_accuracy"), described["entries"][-1]
    for entry in described["entries"]:
        entry["judged"] = 60
        # The scalar is that of the six watched images, of which the other accuracies are not.
        entry["scalars"] |= dict.fromkeys(names[1:], 0.5) | {"probe_accuracy": 1.0}
        entry["verdict"]["probe_accuracy"] = 0.5
    plots = ("Accuracy on the probe images", "What the background decides, in points")
    with page_of(browser, tmp_path / "focus.html", described) as tab:
        accuracies, gap = (tab.frame.locator(".plot", has_text=title) for title in plots)
        heights = accuracies.locator("circle").evaluate_all("all => all.map(one => one.getAttribute('cy'))")
        assert len(heights) == 3 * EPOCHS and len(set(heights)) == 1, "one of each line at each entry"
        assert accuracies.locator(".legend span").all_inner_texts()[0] == "as they are"
        assert not accuracies.locator("circle[stroke]").count() and "images" not in gap.locator(".legend").inner_text()
    last["judged"] = 6
    steps = [entry["step"] for entry in described["entries"]]
    described["others"] = {
        "epoch": [EPOCHS], "step": [steps[-1] + 1], "judged": [6], "probe_accuracy": [0.5],
        "scalars": {name: [0.5] for name in (*names, "background_gap")},
    }  # fmt: skip
    with page_of(browser, tmp_path / "focus.html", described) as tab:
        accuracies, gap = (tab.frame.locator(".plot", has_text=title) for title in plots)
        assert [each.locator(".legend span").last.inner_text() for each in (accuracies, gap)] == ["6 of 60 images"] * 2
        assert accuracies.locator("svg[role=img] circle[stroke]").count() == 3 * 2
        assert gap.locator("svg[role=img] circle[stroke]").count() == 2


@pytest.mark.parametrize("basis", ["masks", "frame"])
def test_advice_on_sheets_of_the_training_leads_to_the_parts_of_the_page(browser, described, tmp_path, basis):
    entry = described["entries"][-1]
    advice = "Look at the counterfactuals. This is measured by automatic masks; look at gradcam/masks."
    entry["verdict"] |= {"advice": advice, "evidence": f"The background decides. {advice}"}
    entry["judged"], described["start"]["basis"] = 60, basis
    with page_of(browser, tmp_path / "focus.html", described) as tab:
        paragraph = tab.frame.locator(".verdict > p").nth(1)
        others = "objects on other backgrounds" if basis == "masks" else "images in other frames"
        assert paragraph.inner_text() == (
            f"Look at the {others}. This is measured by automatic masks; look at the automatic masks."
        )
        links = paragraph.locator("a").evaluate_all("all => all.map(one => one.getAttribute('href'))")
        assert links == ["#interventions", "#masks"]
        assert "gradcam/" not in tab.frame.locator("main").inner_text(), "a page that is mailed has no sheets"


def test_the_colours_of_runs_that_differ_are_explained_for_each(browser, described, tmp_path):
    other = json.loads(json.dumps(described)) | {"run": "other"}
    blue = [channel for level in range(256) for channel in (0, 0, level)]
    other["start"] |= {"colours": base64.b64encode(bytes(blue)).decode(), "scaling": "run", "basis": "frame"}
    with page_of(browser, tmp_path / "focus.html", described, other) as tab:
        legends = tab.frame.locator(".colours")
        each, whole = "the maximum of each map", "the maximum of the layer over the run"
        assert tab.texts(".colours span") == [f"{each} (clean)", f"{whole} (other)"]
        shown = [tab.pixels(legend.locator("canvas"))[0] for legend in legends.all()]
        for run, pixels in zip((described, other), shown, strict=True):
            assert pixels.tobytes() == base64.b64decode(run["start"]["colours"])
        tab.frame.get_by_text("Filter and look").click()
        scaling = tab.frame.get_by_label("Hottest colour")
        before = tab.seen()[1]
        assert scaling.input_value() == ""
        scaling.select_option("run")
        until(lambda: tab.texts(".colours span") == [f"{whole} (clean)", f"{whole} (other)"])
        scaling.select_option("")
        until(lambda: tab.texts(".colours span") == [f"{each} (clean)", f"{whole} (other)"])
        tab.settle()
        assert tab.seen()[1] == before, "each run is drawn by its own style again"
        # The sets of the other run are said to be frames.
        texts = tab.frame.locator(".interventions img").evaluate_all("images => images.map(image => image.alt)")
        for words, run in (("on backgrounds of its class", described), ("in frames of its class", other)):
            assert any(words in text for text in texts), run["run"]
        for box in tab.frame.locator(".controls fieldset input").all():
            box.uncheck()
        tab.frame.get_by_text("No run is chosen. Click on a verdict below, or check a run.").wait_for()
        assert legends.count() == 0
        tab.frame.locator(".verdict.line").first.click()
        tab.frame.locator(".card").first.wait_for()
        assert tab.texts(".colours span") == [each]


def test_long_names_are_neither_cut_off_nor_mixed_up_on_a_phone(browser, described, tmp_path):
    start = described["start"]
    longest = "a_very_long_name_without_any_breaks_that_goes_on_and_on_and_on_for_ever" * 2
    layers = {layer: f"backbone.{longest}.{i}.activation" for i, layer in enumerate(start["layers"])}
    text = json.dumps(described)
    for name in ("star", "heart", "moon"):
        text = text.replace(f'"{name}"', f'"{name}_{longest}"')
    for layer in sorted(layers, key=len, reverse=True):
        text = text.replace(layer, layers[layer])
    described = json.loads(text) | {"run": longest}
    with page_of(browser, tmp_path / "focus.html", described, width=390, height=800) as tab:
        inside = "one => one.getBoundingClientRect().right <= innerWidth && one.scrollWidth <= one.clientWidth"
        assert tab.frame.locator("html").evaluate("html => html.scrollWidth <= innerWidth")
        tab.frame.get_by_text("Filter and look").click()
        for element in tab.frame.locator(".controls select, .more[open] > div, .legend, .verdict").all():
            assert not element.is_visible() or element.evaluate(inside), element.inner_text()
        through = tab.frame.locator(".plot", has_text="through the layers")
        ticks = through.locator("svg text[text-anchor=middle]")
        boxes = sorted((box["x"], box["x"] + box["width"]) for box in (tick.bounding_box() for tick in ticks.all()))
        assert len(boxes) > 3 and all(end < start for (_, end), (start, _) in itertools.pairwise(boxes))
        names = [layers[start["layers"][int(number) - 1]] for number in ticks.all_text_contents()]
        assert through.locator("li").all_inner_texts() == names
        tab.page.keyboard.press("Escape")
        tab.frame.locator(".card").first.click()
        dialog = tab.frame.locator("dialog[open]")
        dialog.locator(".strip").first.wait_for()
        for element in (dialog, *dialog.locator("h2, h3, h4, p, figcaption").all()):
            assert element.evaluate(inside), element.inner_text()


# Whether a name stands before the number that follows it in each of some elements. They may be in two lines.
IN_ORDER = """(elements, name) => elements.map(element => {
    const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    const boxes = [];
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        for (const found of node.data.matchAll(new RegExp(`${name}|[0-9]+`, "g"))) {
            const range = document.createRange();
            range.setStart(node, found.index);
            range.setEnd(node, found.index + found[0].length);
            boxes.push({ text: found[0], box: range.getBoundingClientRect() });
        }
    }
    const i = boxes.findIndex(({ text }) => text === name);
    const [before, after] = [boxes[i]?.box, boxes[i + 1]?.box];
    return before && after ? before.right <= after.left + 1 || before.bottom <= after.top + 1 : null;
})"""


def test_names_from_right_to_left_leave_the_numbers_in_their_place(browser, described, tmp_path):
    name = "كلب صغير"
    described = json.loads(json.dumps(described, ensure_ascii=False).replace('"star"', f'"{name}"'))
    described |= {"run": f"{name} 7"}
    for entry in described["entries"]:
        said = {"headline": f"UNCLEAR: {name} 70 % as it is", "evidence": f"{name} decides 30 points.", "advice": ""}
        entry["verdict"] |= said
    with page_of(browser, tmp_path / "focus.html", described) as tab:
        tab.frame.locator(".card").first.click()
        tab.frame.locator("dialog[open] .strip").first.wait_for()
        for selector in (".answer", ".tile figcaption", ".verdict strong", ".verdict p"):
            held = [found for found in tab.frame.locator(selector).evaluate_all(IN_ORDER, name) if found is not None]
            assert held and all(held), selector


def test_a_page_of_some_epochs_has_the_curves_of_all_and_says_so(browser, folder, watched, tmp_path):
    (logged,) = read_runs(folder / "clean")
    for most, through, said in ((2, f"2 of {EPOCHS} epochs", True), (EPOCHS, "all epochs", False)):
        run = {**logged.describe(most), "run": "clean"}
        with page_of(browser, tmp_path / "focus.html", run) as tab:
            assert tab.frame.locator(".epoch input").get_attribute("max") == str(most - 1)
            notes = tab.frame.get_by_text(f"Maps and answers of {through}. The curves below show all.")
            assert notes.count() == said
            for layer, kept in logged.maps.items():
                assert set(run["maps"][layer]["steps"]) <= set(kept)
            gap = tab.frame.locator(".plot", has_text="What the background decides")
            values = [entry["scalars"]["background_gap"] for entry in logged.entries.values()]
            titles = [f"background gap, {epoch}: {round(100 * value)}" for epoch, value in enumerate(values)]
            assert gap.locator("circle title").all_text_contents() == titles
            tab.frame.locator(".card").first.click()
            tab.frame.locator("dialog[open] .strip").first.wait_for()
            assert tab.texts("dialog h4")[1] == f"Through {through} at block5_conv3"


def test_points_of_a_plot_stand_at_their_epoch(browser, described, tmp_path):
    entries = described["entries"]

    def places(tab, title):
        plot = tab.frame.locator(".plot", has_text=title)
        points = plot.locator("circle").evaluate_all("all => all.map(one => Number(one.getAttribute('cx')))")
        return points, plot.locator("svg text[text-anchor=middle]").all_text_contents()

    for epochs in ([0, 1, 9], [-1, 0, 40]):
        for entry, epoch in zip(entries, epochs, strict=True):
            entry["epoch"] = epoch
        with page_of(browser, tmp_path / "focus.html", described) as tab:
            found, ticks = places(tab, "What the background decides, in points")
            share = (found[1] - found[0]) / (found[2] - found[0])
            assert share == pytest.approx((epochs[1] - epochs[0]) / (epochs[2] - epochs[0]))
            assert ticks == (["start", "40"] if epochs[0] < 0 else ["0", "1", "9"]), "none covers another one"
    # Of many, round numbers.
    others = {"epoch": list(range(1, 40)), "step": list(range(entries[1]["step"] + 1, entries[1]["step"] + 40))}
    entries[2]["step"] = others["step"][-1] + 1
    for maps in described["maps"].values():
        maps["steps"] = [entry["step"] for entry in entries]
    described["others"] = others | {"scalars": {"background_gap": [0.1] * 39}}
    with page_of(browser, tmp_path / "focus.html", described) as tab:
        found, ticks = places(tab, "What the background decides, in points")
        assert np.diff(found) == pytest.approx(np.full(41, np.diff(found).mean())) and len(found) == 42
        assert ticks == ["start", "10", "20", "30", "40"]
    # Several validations of an epoch stand at their steps.
    described["others"] = {"epoch": [], "step": [], "scalars": {}}
    for entry, step in zip(entries, (0, 100, 400), strict=True):
        entry |= {"epoch": 0, "step": step}
    for maps in described["maps"].values():
        maps["steps"] = [0, 100, 400]
    with page_of(browser, tmp_path / "focus.html", described) as tab:
        found, ticks = places(tab, "What the background decides, in points")
        assert (found[1] - found[0]) / (found[2] - found[0]) == pytest.approx(0.25) and ticks == ["0", "100", "400"]
        assert tab.frame.locator(".plot", has_text="1 is chance, over the steps").count() == 1


def test_a_run_without_masks_is_told_in_the_words_of_the_frame(browser, described, tmp_path):
    frame = json.loads(json.dumps(described).replace('"lift/', '"border_mass/')) | {"run": "frame"}
    frame["start"]["basis"] = "frame"
    even = f"{float(border_mass(torch.ones(1, CELLS, CELLS))):.2f}"
    with page_of(browser, tmp_path / "focus.html", described, frame) as tab:
        tab.show("frame")
        assert tab.texts("h2#interventions") == ["The same images in other frames"]
        link = tab.frame.locator(".verdict:not(.line) a").first
        assert link.inner_text() == "the images in other frames"
        border = tab.frame.locator(".plot", has_text=f"Share of the focus at the border, {even} is an even map")
        assert border.count() == border.locator(".reference").count() == 2
        tab.show("clean")
        assert tab.texts("h2#interventions") == ["The same objects on other backgrounds"]
        tab.show("clean", "frame")
        both = "The same objects on other backgrounds, the same images in other frames"
        assert tab.texts("h2#interventions") == [both]


def test_if_no_image_is_answered_wrongly_the_page_says_why(browser, described, tmp_path):
    unknown = "It is not known which images are answered wrongly. "
    for correct, of_all, of_class in (
        (
            True,
            "No image is answered wrongly at this epoch.",
            "No image of this class is answered wrongly at this epoch.",
        ),
        (None, unknown, unknown),
    ):
        for entry in described["entries"]:
            entry["predictions"] = [[*answer[:2], correct, answer[3]] for answer in entry["predictions"]]
        with page_of(browser, tmp_path / "focus.html", described) as tab:
            tab.frame.get_by_text("Filter and look").click()
            tab.frame.get_by_label("answered wrongly").check()
            tab.frame.get_by_text(of_all).wait_for()
            tab.frame.locator(".more select").nth(0).select_option("moon")
            tab.frame.get_by_text(of_class).wait_for()
            tab.frame.get_by_label("answered wrongly").uncheck()
            until(lambda tab=tab: len(tab.texts(".card")) == 2)
            assert not tab.frame.get_by_text(of_class).is_visible()


def test_on_a_phone_links_land_below_the_bar_and_the_columns_that_decide_are_seen(browser, described, tmp_path):
    runs = [described | {"run": f"run_{i}"} for i in range(4)]
    with page_of(browser, tmp_path / "focus.html", *runs, width=390, height=800) as tab:
        for target in ("interventions", "plots"):
            tab.frame.evaluate(
                "() => { window.ended = false; addEventListener('scrollend', () => { ended = true; }); }"
            )
            tab.frame.locator(f".verdict a[href='#{target}']").first.evaluate("link => link.click()")
            until(lambda: tab.frame.evaluate("ended"))
            bar, heading = (tab.frame.locator(each).bounding_box() for each in (".controls", f"#{target}"))
            assert bar["height"] > 120 and 0 <= heading["y"] - bar["y"] - bar["height"] < 30, target
        table = tab.frame.locator(".interventions").first
        table.evaluate("table => scrollTo(0, table.offsetTop)")
        heads = [head.bounding_box() for head in table.locator("th").all()]
        assert heads[2]["x"] + heads[2]["width"] <= 380, "as it is, its own class, other classes"
        assert heads[3]["x"] + 20 < 380 < heads[3]["x"] + heads[3]["width"], "the next column looks in"
        letters = """head => {
            const range = document.createRange();
            range.selectNodeContents(head);
            return range.getBoundingClientRect().top;
        }"""
        tops = [head.evaluate(letters) for head in table.locator("th").all()]
        assert max(tops) - table.bounding_box()["y"] < 10, "nothing is blank above them"


@pytest.mark.parametrize("size", [(32, 256), (256, 32)])
def test_very_wide_and_very_tall_images_leave_the_page_usable(browser, described, tmp_path, size):
    """All maps are empty, and the second run watched another layer. Both is said in letters that can be read."""
    start, n = described["start"], len(described["start"]["names"])
    image = io.BytesIO()
    Image.new("RGB", size).save(image, "JPEG")
    start |= {"images": [base64.b64encode(image.getvalue()).decode()] * n, "masks": [None] * n}
    for maps in described["maps"].values():
        packed = base64.b64encode(pack_maps(torch.zeros(n, size[1] // 16, size[0] // 16), CELLS)).decode()
        maps["maps"] = [packed] * len(maps["steps"])
    other = described | {"run": "other", "start": start | {"layers": start["layers"][:1]}}
    with page_of(browser, tmp_path / "focus.html", described, other) as tab:
        card = tab.frame.locator(".card").first
        assert card.bounding_box()["height"] < 600
        for canvas in card.locator("canvas[aria-label^='focus on']").all():
            pixels = tab.pixels(canvas)
            rows, columns = np.nonzero((pixels > 200).all(axis=2))
            assert 0 < rows.min() and rows.max() < pixels.shape[0] - 1, "nothing of the letters is cut off"
            assert 0 < columns.min() and columns.max() < pixels.shape[1] - 1
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            # The letters are as wide as they are high at least, and the page shows them in this size.
            shown = min(
                canvas.bounding_box()["width"] / pixels.shape[1], canvas.bounding_box()["height"] / pixels.shape[0]
            )
            assert min(height, width) * shown > 7
        card.click()
        dialog = tab.frame.locator("dialog[open]")
        dialog.locator(".strip canvas").first.wait_for()
        for canvas in dialog.locator("canvas").all():
            assert canvas.bounding_box()["height"] <= 300


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_twenty_runs_are_folded_and_counted(browser, folder, watched, tmp_path, scheme):
    (logged,) = read_runs(folder / "clean")
    tones = ["suspected"] * 7 + ["clear"] * 3 + ["unknown"] * 10
    runs = [{**logged.describe(1), "run": f"learning_rate_{i / 1000}/version_{i}"} for i in range(len(tones))]
    for run, tone in zip(runs, tones, strict=True):
        (entry,) = run["entries"]
        run["entries"] = [{**entry, "verdict": {**entry["verdict"], "tone": tone}}]
    (tmp_path / "focus.html").write_text(frozen_page(runs))
    with open_page(browser, color_scheme=scheme) as page:
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


def test_hostile_names_are_shown_and_run_nothing(browser, tensorboard, folder, hostile, tmp_path):
    with open_page(browser) as page:
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


def test_the_other_tabs_show_scalars_charts_and_the_verdict(browser, tensorboard, watched):
    with open_page(browser) as page:
        page.goto(f"{tensorboard}/#custom_scalars")
        page.get_by_text("accuracies", exact=True).first.wait_for()
        page.goto(f"{tensorboard}/#text")
        page.get_by_text(watched["shortcut"].callback.verdict.headline[:60]).first.wait_for()
        assert not page.get_by_text("focus/start").count(), "what is for programs is not shown"
