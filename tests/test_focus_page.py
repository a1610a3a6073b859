"""The page of the Focus tab, as TensorBoard serves it and as a file, in a real browser."""

import base64
import io

import numpy as np
import pytest
from browser import needs_browser, open_page
from focus_tab import (
    CELLS,
    EPOCHS,
    RUNS,
    Tab,
    distance,
    errors_of,
    unpack,
    until,
    watch_with_automatic_masks,
)
from PIL import Image
from torch.nn.functional import adaptive_avg_pool2d

from gradcam_callback import write_report
from gradcam_callback.drawing import scale
from gradcam_callback.offline.logged_run import read_runs
from gradcam_callback.run.album import tone_of

pytestmark = needs_browser


@pytest.fixture(params=["tab", "file"])
def tab(request, browser, runs_folder, watched, tmp_path):
    """The page with the two runs of the demo's network."""
    with open_page(browser) as page:
        if request.param == "file":
            write_report([runs_folder / name for name in RUNS], tmp_path / "focus.html")
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


def test_runs_and_images_are_chosen(tab, runs_folder, watched):
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
    (run,) = read_runs(runs_folder / "shortcut")
    maps = [unpack(packed) for packed in run.maps["block5_conv3"].values()]
    assert distance(maps[0][first], maps[-1][first]) >= distance(maps[0][last], maps[-1][last])


def test_interventions_show_the_answers_and_the_changed_ones_first(tab, runs_folder, watched):
    tab.show("shortcut")
    rows = tab.frame.locator(".interventions tbody tr")
    (run,) = read_runs(runs_folder / "shortcut")
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


def test_what_is_asked_at_other_entries_is_shown_as_such(tab, runs_folder):
    counts = []
    for name in RUNS:
        tab.show(name)
        (run,) = read_runs(runs_folder / name)
        for epoch, entry in enumerate(run.entries.values()):
            tab.choose(epoch=epoch)
            counts.append(sum(answer is None for answers in entry["answers"].values() for answer in answers))
            assert tab.frame.locator(".tile.unasked").count() == counts[-1]
    assert counts[0] == 0, "the first entry asks everything"
    assert any(counts), "and a network without a sign of a shortcut is asked less"


def test_automatic_masks_are_shown_and_what_became_of_them(browser, watched, runs_folder, tmp_path):
    run = watch_with_automatic_masks(tmp_path / "automatic")
    proposals = run.probe_set.verdict_set.proposals
    doubts = {run.probe_set.names[i]: proposal.doubt for i, proposal in proposals.items() if proposal.doubt}
    assert "blank" in doubts and len(doubts) < len(proposals)
    write_report([tmp_path / "automatic", runs_folder / "clean"], tmp_path / "focus.html")
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
