"""The Focus tab with two runs of 100 epochs: its bytes in the event file, and how long a person waits for it.

    python benchmarks/focus.py [--epochs 100]

Sixteen photographs of 224 px with masks go through the 13 layers of a trained VGG16. The maps and answers of an epoch
are those of the network, each map times a random factor. They are logged as in a training, with all defaults: the
interventions by turns from the second epoch on. Then TensorBoard opens in Chromium, and a person moves the epoch
slider. Nothing else should run.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from images import IMAGES, SIZE, photographs
from playwright.sync_api import Frame, Page, sync_playwright
from pretrained import for_classifying
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from gradcam_callback import GradCAM, GradCAMCallback, ProbeSet, write_report
from gradcam_callback.run import Evaluator, RunLogger, RunState, Tags
from gradcam_callback.run.turns import Turn
from gradcam_callback.writers import TensorBoardWriter

MOVES = 20


def log_run(folder: Path, epochs: int) -> None:
    """Log a run as a training does."""
    network = for_classifying("demo")
    rows = torch.arange(SIZE)[:, None] - SIZE / 2
    disc = (rows**2 + rows.T**2 < (SIZE / 4) ** 2).expand(IMAGES, -1, -1)
    classes = len(network.classes)
    probe = ProbeSet(photographs(), [i % classes for i in range(IMAGES)], disc, class_names=network.classes)
    evaluator = Evaluator(GradCAM(network.model.to(memory_format=torch.channels_last)), probe)
    first, later = (evaluator.merge([evaluator.compute_shard(turn=turn)]) for turn in (None, Turn(1)))
    factors = torch.Generator().manual_seed(0)
    callback, logger = GradCAMCallback(), TensorBoardLogger(folder, name="", version="")

    def report(writer: str, error: Exception) -> None:
        raise error

    log = RunLogger(
        evaluator,
        RunState(),
        [TensorBoardWriter(logger)],
        Tags(),
        report=report,
        style=callback.style,
        views=callback.views,
    )
    log.start()
    for epoch in range(epochs):
        evaluation = later if epoch else first
        maps = {
            layer: raw * torch.rand(len(raw), 1, 1, generator=factors) ** 2
            for layer, raw in evaluation.cams.maps.items()
        }
        log.log(replace(evaluation, cams=replace(evaluation.cams, maps=maps)), epoch, 100 * (epoch + 1))
    log.finish()
    logger.experiment.close()


def count_bytes(folder: Path) -> Counter[str]:
    """Return the bytes of the event file by the second part of their tags."""
    counted: Counter[str] = Counter()
    for path in folder.glob("events*"):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                # Without the prefix of the callback; the charts have none.
                parts = value.tag.removeprefix("gradcam/").split("/")
                counted["/".join(parts[: 2 if parts[0] == "focus" else 1])] += value.ByteSize()
    return counted


def serve(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a TensorBoard, and wait until it has read both runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(30)
    return server, f"http://127.0.0.1:{port}"


def drawn(frame: Page | Frame, epoch: int) -> bool:
    """Return True once every overlay is that of an epoch."""
    script = """epoch => {
        const canvases = [...document.querySelectorAll('.card canvas[aria-label^="focus on"]')];
        const isDrawn = canvas => canvas.width > 0 && canvas.width !== 300;
        return canvases.length > 0 && canvases.every(c => c.ariaLabel.includes(`epoch ${epoch}:`) && isDrawn(c));
    }"""
    return bool(frame.evaluate(script, epoch))


def measure(address: str, epochs: int) -> None:
    """Print how long the first picture and each move of the slider take."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(address)
        tab = page.get_by_role("tab", name="Focus")
        tab.wait_for()
        page.wait_for_timeout(3000)
        start = time.perf_counter()
        tab.click()
        while not any("plugin_entry" in frame.url for frame in page.frames):
            page.wait_for_timeout(5)
        frame = next(frame for frame in page.frames if "plugin_entry" in frame.url)
        while not drawn(frame, epochs - 1):
            page.wait_for_timeout(5)
        print(f"all first images after the tab is opened: {time.perf_counter() - start:.2f} s")
        page.wait_for_timeout(8000)  # the other layers are read in the meantime
        # In the page itself, since a question from outside takes as long as a move.
        script = """async count => {
            const slider = document.querySelector('.epoch input'), times = [];
            const isDrawn = () => document.documentElement.dataset.drawn;
            for (let place = 0; place < count; place++) {
                const start = performance.now();
                delete document.documentElement.dataset.drawn;
                slider.value = place;
                slider.dispatchEvent(new Event('input'));
                while (!isDrawn()) await new Promise(done => setTimeout(done, 1));
                times.push(performance.now() - start);
            }
            return times;
        }"""
        times = frame.evaluate(script, MOVES)
        print(f"a move of the slider: median {statistics.median(times):.0f} ms, longest {max(times):.0f} ms")
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=100)
    epochs = parser.parse_args().epochs
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        log_run(folder / "first", epochs)
        shutil.copytree(folder / "first", folder / "second")
        size = sum(path.stat().st_size for path in (folder / "first").glob("events*"))
        print(f"event file after {epochs} epochs: {size / 1e6:.1f} MB")
        for kind, count in count_bytes(folder / "first").most_common():
            print(f"  {kind}: {count / 1e6:.2f} MB")
        write_report(folder / "first", folder / "focus.html")
        print(f"report of 12 epochs: {(folder / 'focus.html').stat().st_size / 1e6:.2f} MB")
        server, address = serve(folder)
        try:
            measure(address, epochs)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
