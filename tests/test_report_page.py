"""The page of runs of all kinds, as a report has it, in a real browser."""

import base64
import contextlib
import io
import itertools
import json

import numpy as np
import pytest
import torch
from browser import needs_browser, open_page
from focus_tab import (
    CELLS,
    CONTRAST,
    EPOCHS,
    Tab,
    errors_of,
    until,
)
from PIL import Image

from gradcam_callback import border_mass
from gradcam_callback.offline.logged_run import read_runs
from gradcam_callback.run.recording import pack_maps
from gradcam_focus.frozen import frozen_page

pytestmark = needs_browser


def test_a_run_that_has_no_entry_at_the_chosen_epoch_says_which_one_is_shown(browser, runs_folder, watched, tmp_path):
    (logged,) = read_runs(runs_folder / "clean")
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
def described(runs_folder, watched):
    """A run as a page reads it, to be changed."""
    (logged,) = read_runs(runs_folder / "clean")
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


def test_a_page_of_some_epochs_has_the_curves_of_all_and_says_so(browser, runs_folder, watched, tmp_path):
    (logged,) = read_runs(runs_folder / "clean")
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
def test_twenty_runs_are_folded_and_counted(browser, runs_folder, watched, tmp_path, scheme):
    (logged,) = read_runs(runs_folder / "clean")
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


def test_what_the_keyboard_is_at_and_what_is_unfolded_stay(browser, described, tmp_path):
    runs = [described | {"run": f"run_{i}"} for i in range(3)]
    with page_of(browser, tmp_path / "focus.html", *runs) as tab:
        last = tab.frame.get_by_label("run_2")
        for shown in (3, 2):
            last.press("Space")
            until(lambda shown=shown: tab.frame.locator(".verdict:not(.line)").count() == shown)
            tab.settle()
            assert last.evaluate("box => box === document.activeElement")
        box = tab.frame.get_by_label("a line for every layer")
        box.press("Space")
        tab.settle()
        assert box.evaluate("box => box === document.activeElement && box.checked")
        tab.frame.locator(".verdict summary").first.click()
        tab.page.keyboard.press("ArrowLeft")
        until(lambda: tab.texts(".controls output") == [f"epoch {EPOCHS - 2}"])
        tab.settle()
        folds = tab.frame.locator(".verdict details").evaluate_all("folds => folds.map(fold => fold.open)")
        assert folds == [True, False]


def test_images_of_one_name_but_of_other_classes_have_their_own_labels(browser, described, tmp_path):
    other = described | {"run": "other", "start": {**described["start"], "labels": ["zebra"] * 6}}
    label = described["start"]["labels"][0]
    with page_of(browser, tmp_path / "focus.html", described, other) as tab:
        card = tab.frame.locator(".card").first
        assert card.locator(".name").inner_text() == described["start"]["names"][0]
        said = [text.splitlines()[:2] for text in card.locator(".caption > span:last-child").all_inner_texts()]
        assert ["clean", f"label: {label}"] in said and ["other", "label: zebra"] in said


def test_validations_of_one_epoch_are_told_apart(browser, described, tmp_path):
    for entry in described["entries"]:
        entry["epoch"] = 0
    steps = [entry["step"] for entry in described["entries"]]
    with page_of(browser, tmp_path / "focus.html", described) as tab:
        assert tab.texts(".verdict .run") == [f"clean, epoch 0, step {steps[-1]}"]
        tab.frame.locator(".card").first.click()
        epochs = tab.frame.locator("dialog[open] .strip").nth(1).locator("figcaption")
        until(lambda: epochs.count() == EPOCHS)
        headings = [text.splitlines()[0] for text in epochs.all_inner_texts()]
        assert headings == [f"epoch 0, step {step}" for step in steps]


def test_maps_that_are_damaged_are_said_until_others_are_shown(browser, described, tmp_path):
    layers = described["start"]["layers"]
    described["maps"][layers[-1]]["maps"][-1] = base64.b64encode(b"no maps").decode()
    with page_of(browser, tmp_path / "focus.html", described) as tab:
        step = described["entries"][-1]["step"]
        assert tab.texts("[role=alert]") == [f"The maps of clean at {layers[-1]}, step {step}, are damaged."]
        tab.choose(layers[-2])
        assert tab.texts("[role=alert]") == [""]


def test_a_bar_that_would_cover_much_of_a_small_window_scrolls_away(browser, described, tmp_path):
    runs = [described | {"run": f"experiments/2026/vgg16_bn_finetune_{'x' * 40}_seed_{i}"} for i in range(6)]
    bar = "bar => Math.round(bar.getBoundingClientRect().top)"
    with page_of(browser, tmp_path / "focus.html", *runs, width=640, height=360) as tab:
        tab.frame.locator("#plots").evaluate("plots => plots.scrollIntoView()")
        assert tab.frame.locator(".controls").evaluate(bar) < -300
        assert tab.frame.locator("#plots").bounding_box()["y"] < 30
        tab.page.set_viewport_size({"width": 1280, "height": 1000})
        tab.settle()
        tab.frame.locator("#plots").evaluate("plots => plots.scrollIntoView()")
        assert tab.frame.locator(".controls").evaluate(bar) == 0, "there, it stays"
