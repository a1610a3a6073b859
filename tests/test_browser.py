"""TensorBoard and the mailed page, as a person sees them in a real browser."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest
import pytorch_lightning as pl
from conftest import ThinVGG
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from gradcam_callback import GradCAMCallback, ProbeSet
from gradcam_callback.offline.report import write_report

EPOCHS = 4
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ,
        reason="no Chromium on this machine: install it, as with 'apt install chromium', to see what a person sees",
    ),
    # Of the driver, when it is closed.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def page():
    from playwright.sync_api import sync_playwright

    assert CHROMIUM is not None, "CI installs Chromium"
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        opened = browser.new_page(viewport={"width": 1440, "height": 1100})
        opened.errors = []
        opened.on("pageerror", lambda error: opened.errors.append(str(error)))
        opened.on("console", lambda said: said.type == "error" and opened.errors.append(said.text))
        yield opened
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Keep one run for all tests, as a TensorBoard takes seconds to start."""
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def logged(toys, folder):
    plain = ProbeSet.from_dataset(toys, 2)
    names = ["star-1", '"><img src=x onerror="document.title = 1">', "heart-1", "../a\nb\\c", "50%", "企鹅"]
    probe = ProbeSet(plain.images, plain.labels, plain.masks, names=names, class_names=plain.class_names)
    callback = GradCAMCallback(probe)
    pl.seed_everything(7, verbose=False)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    logger = TensorBoardLogger(folder, name="run", version="")
    trainer = pl.Trainer(max_epochs=EPOCHS, callbacks=[callback], logger=logger, accelerator="cpu", **quiet)
    trainer.fit(ThinVGG(), DataLoader(toys, batch_size=6, shuffle=True), DataLoader(toys, batch_size=6))
    return callback


@pytest.fixture(scope="module")
def tensorboard(logged, folder):
    """The address of a TensorBoard that shows the run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    with open(folder / "tensorboard.log", "w") as log:
        server = subprocess.Popen([*command, "--samples_per_plugin", "images=100"], stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    for _ in range(120):
        try:
            with urllib.request.urlopen(f"{address}/data/plugin/images/tags", timeout=5) as answer:
                if b"gradcam/probe" in answer.read():
                    break
        except OSError:
            pass
        time.sleep(0.5)
    yield address
    server.terminate()
    server.wait(20)


def choose(page, tags):
    page.get_by_label("Filter tags (regular expressions supported)").first.fill(tags)


def show(page, tags):
    choose(page, tags)
    page.get_by_text("Show actual image size").first.click()


def wait_for(page, picture):
    """Until it has loaded."""
    loaded = "img => img.complete && img.naturalWidth > 0"
    page.wait_for_function(loaded, arg=picture.element_handle(timeout=30_000))


def test_tensorboard_shows_panels_at_their_size_and_a_step_for_each_epoch(page, tensorboard, folder, events):
    page.goto(f"{tensorboard}/#images")
    show(page, "^gradcam/(probe|layer|evolution)/(heart-1|block5_conv3)$")
    found = events(folder / "run")
    for tag in ("gradcam/probe/heart-1", "gradcam/layer/block5_conv3", "gradcam/evolution/heart-1"):
        card = page.locator("tf-image-loader").filter(has_text=tag).first
        picture = card.locator("img")
        page.wait_for_function(
            "img => img.complete && img.naturalWidth > 0", arg=picture.element_handle(timeout=30_000)
        )
        logged_as = found.Images(tag)[-1]
        assert picture.evaluate("img => [img.naturalWidth, img.naturalHeight, img.width]") == [
            logged_as.width, logged_as.height, logged_as.width,
        ], tag  # fmt: skip
        assert picture.evaluate("img => img.getBoundingClientRect().right") <= 1440, "it need not be scrolled"
        assert card.locator("paper-slider").evaluate("slider => slider.max") == EPOCHS - 1


def test_tensorboard_serves_every_picture_whatever_its_name(tensorboard, logged):
    address = f"{tensorboard}/data/plugin/images"
    with urllib.request.urlopen(f"{address}/tags") as answer:
        tags = json.load(answer)["run"]
    assert len(tags) == 3 * len(logged.probe) + 13 + 2
    for tag in tags:
        query = urllib.parse.urlencode({"run": "run", "tag": tag, "sample": 0})
        with urllib.request.urlopen(f"{address}/images?{query}") as answer:
            (last, *_) = reversed(json.load(answer))
        with urllib.request.urlopen(f"{address}/individualImage?ts=1&{last['query']}") as picture:
            assert picture.status == 200 and len(picture.read()) > 1000, tag


def test_tensorboard_plays_the_animations(page, tensorboard):
    page.goto(f"{tensorboard}/#images")
    show(page, "animation/heart-1$")
    picture = page.locator("tf-image-loader").filter(has_text="gradcam/animation/heart-1").first.locator("img")
    wait_for(page, picture)
    first = picture.screenshot()
    page.wait_for_timeout(900)
    assert picture.screenshot() != first


def test_tensorboard_shows_scalars_charts_and_the_verdict(page, tensorboard, logged):
    page.goto(f"{tensorboard}/#scalars")
    choose(page, "gradcam/probe_accuracy")
    page.get_by_text("gradcam/probe_accuracy").first.wait_for(timeout=30_000)
    page.goto(f"{tensorboard}/#custom_scalars")
    for chart in ("accuracies", "lift by layer", "background gap with its 95 % interval"):
        page.get_by_text(chart, exact=True).first.wait_for(timeout=30_000)
    page.goto(f"{tensorboard}/#text")
    page.get_by_text(logged.verdict.headline[:60]).first.wait_for(timeout=30_000)
    assert not page.get_by_text("manifest").count(), "what is for programs is not shown"


def test_report_changes_its_pictures_with_slider_and_layer(page, logged, folder, tmp_path):
    write_report(folder / "run", tmp_path / "focus.html")
    page.goto((tmp_path / "focus.html").as_uri())
    focus = page.locator("img.focus").first
    seen = {}
    for layer in ("block5_conv3", "block1_conv1"):
        page.locator("#layer").select_option(layer)
        for epoch in (EPOCHS - 1, 0):
            page.locator("#epoch").fill(str(epoch))
            assert page.locator("#at").inner_text() == str(epoch)
            wait_for(page, focus)
            seen[layer, epoch] = focus.get_attribute("src")
    assert len(set(seen.values())) == 4, "each layer and epoch has a picture of its own"
    assert page.locator("#epoch").get_attribute("max") == str(EPOCHS - 1)
    assert page.locator("figure").count() == len(logged.probe)
    assert page.errors == []
