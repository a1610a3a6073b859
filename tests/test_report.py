"""The mailed page says what was logged, whatever it is read from."""

import base64
import io
import json
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from terminal import on_a_terminal
from test_suspicion import ReadsTheGround

from gradcam_callback import GradCAM, GradCAMCallback, ProbeSet, write_report
from gradcam_callback.__main__ import main
from gradcam_callback.offline.logged_run import read_run

LAYERS = ["block4_conv3", "block5_conv3"]


@pytest.fixture
def probe(toys):
    chosen = ProbeSet.from_dataset(toys, 1)
    names = ["star <b>&", "企鹅", "moon"]
    return ProbeSet(chosen.images, chosen.labels, chosen.masks, names=names, class_names=chosen.class_names)


@pytest.fixture
def run(thin, fit, tmp_path, probe):
    """A run in an event file, in plain pictures, and in raw maps."""
    callback = GradCAMCallback(probe, LAYERS, log_before_training=True, save_dir=tmp_path / "maps", save_maps=True)
    fit(thin, callback)
    shutil.copytree(tmp_path / "maps", tmp_path / "files", ignore=shutil.ignore_patterns("*.npz"))
    for picture in (tmp_path / "maps").glob("probe/**/*.jpg"):
        picture.unlink()
    return callback


def pictures_in(page):
    overlays = json.loads(re.search(r"overlays = (\[.*?\]);\n", page, flags=re.S)[1])
    return [
        {layer: [Image.open(io.BytesIO(base64.b64decode(p))) for p in of_layer] for layer, of_layer in image.items()}
        for image in overlays
    ]


@pytest.mark.parametrize("source", ["run", "files", "maps"])
def test_page_holds_the_verdict_every_image_layer_and_epoch_and_needs_nothing_else(run, tmp_path, source):
    write_report(tmp_path / source, tmp_path / "focus.html")
    page = (tmp_path / "focus.html").read_text()
    assert run.verdict.headline in page and run.verdict.evidence in page
    images = pictures_in(page)
    epochs = ["start", "0", "1"]
    assert json.loads(re.search(r"entries = (\[.*?\])", page)[1]) == epochs
    assert len(images) == 3 and all(list(image) == LAYERS for image in images)
    assert all(len(of_layer) == len(epochs) for image in images for of_layer in image.values())
    assert "star &lt;b&gt;&amp;" in page and "企鹅" in page and "<b>" not in page
    assert not re.search(r"(src|href)=[\"']?(https?:|//)", page), "nothing is fetched from anywhere"
    assert ("each map&#39;s own maximum" in page) == (source == "maps"), "raw maps are drawn on a scale of the page's"
    assert page.count('<img alt="lift by layer"') == 1 and page.count('<img alt="accuracies') == 1


def test_overlays_are_those_of_the_image_the_layer_and_the_epoch(run, thin, tmp_path, probe):
    """The last epoch's maps, from the network itself, are found again in the page: bright where they are hot."""
    cams = GradCAM(thin, LAYERS)(probe.images, probe.labels)
    for source in ("run", "maps"):
        write_report(tmp_path / source, tmp_path / "focus.html")
        images = pictures_in((tmp_path / "focus.html").read_text())
        for layer, maps in cams.maps.items():
            for i, raw in enumerate(maps.numpy()):
                if raw.max() > 0:
                    seen = images[i][layer][-1]
                    colour = np.asarray(seen.resize(raw.shape[::-1], Image.Resampling.BOX).convert("RGB")).astype(float)
                    warmth = colour.max(axis=2) - colour.min(axis=2)
                    assert np.corrcoef(warmth.ravel(), raw.ravel())[0, 1] > 0.5, (source, layer, i)


def test_long_runs_are_thinned_from_the_first_to_the_last_epoch(thin, fit, tmp_path, probe):
    fit(thin, GradCAMCallback(probe, LAYERS[1:], views="probe"), max_epochs=6)
    record = read_run(tmp_path / "run")
    assert record.epochs == ["0", "1", "2", "3", "4", "5"]
    assert [record.epochs[place] for place in record.pick(3)] == ["0", "2", "5"]
    assert record.pick(99) == [0, 1, 2, 3, 4, 5]


def test_a_person_sees_how_far_it_is(run, tmp_path):
    command = [sys.executable, "-m", "gradcam_callback", "report", "maps", "-o", "focus.html"]
    printed, seen = on_a_terminal(command, tmp_path)
    assert printed == b"focus.html\n" and re.search(r"epochs: 100%.* 3/3", seen), seen


RED, GREEN, GREY = "#c81e1e", "#15803d", "#71717a"


@pytest.mark.parametrize(("epochs", "colour"), [(1, GREY), (2, RED)])
@pytest.mark.parametrize("source", ["run", "focus"])
@pytest.mark.filterwarnings("ignore::gradcam_callback.ShortcutWarning")
def test_the_box_is_red_only_if_a_shortcut_is_suspected(toys, fit, tmp_path, source, epochs, colour):
    """The first epoch's headline says "POSSIBLE SHORTCUT, if the next epoch says so too", which accuses nobody."""
    probe = ProbeSet.from_dataset(toys, 4)
    callback = GradCAMCallback(probe, LAYERS[1:], save_dir=tmp_path / "focus")
    fit(ReadsTheGround(toys), callback, max_epochs=epochs)
    assert "SHORTCUT" in callback.verdict.headline and callback.verdict.suspected == (colour == RED)
    write_report(tmp_path / source, tmp_path / "focus.html")
    (border,) = re.findall(r"border-left: 5px solid (#\w+)", (tmp_path / "focus.html").read_text())
    assert border == colour


@pytest.mark.parametrize(
    ("basis", "headline", "colour"),
    [
        ("masks", "NO SIGN OF A SHORTCUT: right in 100 % as they are", GREEN),
        ("automatic masks", "NO SIGN OF A SHORTCUT, as far as automatic masks can tell: right", GREY),
        ("masks", "NO SIGN OF A SHORTCUT, as far as boxes can tell: right", GREY),
        ("frame", "NOT KNOWN, only the frame of the picture was tried", GREY),
        ("masks", "UNCLEAR, so few images may also say so by chance: right", GREY),
    ],
)
def test_the_box_is_green_only_if_given_masks_acquit(run, tmp_path, basis, headline, colour):
    shutil.copytree(tmp_path / "maps", tmp_path / "changed")
    history = json.loads((tmp_path / "changed" / "history.json").read_text())
    history["verdict"] |= {"basis": basis, "headline": headline, "suspected": False}
    (tmp_path / "changed" / "history.json").write_text(json.dumps(history))
    write_report(tmp_path / "changed", tmp_path / "focus.html")
    assert re.findall(r"border-left: 5px solid (#\w+)", (tmp_path / "focus.html").read_text()) == [colour]


def test_of_two_callbacks_the_page_shows_the_one_that_is_asked_for(thin, fit, tmp_path, probe):
    first, second = GradCAMCallback(probe, LAYERS[0]), GradCAMCallback(probe, LAYERS[1])
    fit(thin, first, second, max_epochs=1)
    for prefix, layer in ((None, LAYERS[0]), ("gradcam", LAYERS[0]), ("gradcam_2", LAYERS[1])):
        write_report(tmp_path / "run", tmp_path / "focus.html", tag_prefix=prefix)
        assert [list(image) for image in pictures_in((tmp_path / "focus.html").read_text())] == [[layer]] * 3
    with pytest.raises(ValueError, match=r"Expected `tag_prefix` to be one of \['gradcam', 'gradcam_2'\], but got 'x'"):
        write_report(tmp_path / "run", tmp_path / "focus.html", tag_prefix="x")


def test_without_masks_the_page_says_what_is_not_known(thin, fit, tmp_path, probe):
    bare = ProbeSet(probe.images, probe.labels)
    fit(thin, GradCAMCallback(bare, LAYERS))
    write_report(tmp_path / "run", tmp_path / "focus.html")
    page = (tmp_path / "focus.html").read_text()
    assert "No masks: whether the background decides is known from the frame only." in page
    assert "border-left: 5px solid #71717a" in page, "neither red nor green"
    assert page.count('<img alt="entropy by layer"') == 1
    assert 'alt="lift by layer"' not in page


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "Expected the folder of one run, but .*empty. holds no event file and no history.json"),
        (lambda folder: (folder / "a").mkdir() or (folder / "a" / "events.out.tfevents.1").touch(), "such as .*a"),
        (
            lambda folder: (folder / "events.out.tfevents.1").touch(),
            "entries of gradcam_callback, but those in .*empty hold none",
        ),
    ],
)
def test_what_is_no_run_is_said(tmp_path, prepare, message):
    (tmp_path / "empty").mkdir()
    prepare(tmp_path / "empty")
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path / "empty", tmp_path / "focus.html")


def test_a_run_without_panels_or_maps_is_said(thin, fit, tmp_path, probe):
    fit(thin, GradCAMCallback(probe, LAYERS, views="layer"), max_epochs=1)
    with pytest.raises(ValueError, match="panels or raw maps, but .* holds neither. Log the view 'probe'"):
        write_report(tmp_path / "run", tmp_path / "focus.html")


def test_command_line(thin, fit, tmp_path, probe, monkeypatch, capsys):
    fit(thin, GradCAMCallback(probe, LAYERS), max_epochs=1)
    monkeypatch.setattr(
        sys, "argv", ["gradcam_callback", "report", str(tmp_path / "run"), "-o", str(tmp_path / "x.html")]
    )
    main()
    assert capsys.readouterr().out.strip() == str(tmp_path / "x.html") and (tmp_path / "x.html").stat().st_size > 20_000
    monkeypatch.setattr(sys, "argv", ["gradcam_callback", "report", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        main()
    said = str(caught.value.code)
    assert said.startswith(f"Expected the folder of one run, but '{tmp_path}' holds") and "\n" not in said
