"""The page of the Focus tab in a browser, the TensorBoard that serves it, and the trainings that it shows."""

import base64
import contextlib
import io
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import warnings
import zlib

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from PIL import Image
from pretrained import for_finetuning
from pytorch_lightning.loggers import TensorBoardLogger
from shortcut_demo import FineTuning
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.data import DataLoader
from toys import CLASSES, Toys

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning, ProbeSet, ShortcutWarning

EPOCHS = 3
# The most cells a side that a map has on the page.
CELLS = 28
RUNS = ["clean", "shortcut"]


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
        with warnings.catch_warnings():
            # One of the networks learns the ground.
            warnings.simplefilter("ignore", ShortcutWarning)
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


def watch_with_automatic_masks(folder):
    """Return the callback of a run on large toys and one blank image."""
    items = Toys(9, bias=1.0, seed=5, size=128).items
    images, labels, _ = zip(*items, strict=True)
    names = [*(f"{CLASSES[label]}-{i}" for i, label in enumerate(labels)), "blank"]
    with pytest.warns(GradCAMWarning, match="blank: the object fills 0 %"):
        probe = ProbeSet(torch.stack([*images, torch.full_like(images[0], 0.5)]), [*labels, 0], "auto", names=names)
    callback = GradCAMCallback(probe, target_layers="block5")
    pl.seed_everything(7, verbose=False)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    logger = TensorBoardLogger(folder, name="", version="")
    trainer = pl.Trainer(max_epochs=1, callbacks=[callback], logger=logger, accelerator="cpu", **quiet)
    data = list(zip(images, labels, strict=True))
    trainer.fit(ThinVGG(), DataLoader(data, batch_size=6, shuffle=True), DataLoader(data, batch_size=6))
    return callback


def watch_hostile(folder, toys):
    """Return the callback of a run whose names are chosen to do harm."""
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


@contextlib.contextmanager
def serving(folder):
    """Start a TensorBoard without any option, except that it lies below a path prefix. Its address is given."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    with open(folder / "tensorboard.log", "w") as log:
        server = subprocess.Popen([*command, "--path_prefix", "/board"], stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}/board"
    finally:
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
        """Return the pixels of a canvas, ``(height, width, 3)``."""
        address = canvas.evaluate("canvas => canvas.toDataURL()")
        return np.array(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


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


def unpack(packed):
    content = zlib.decompress(packed)
    n, height, width = np.frombuffer(content, "<u4", 3)
    return np.frombuffer(content, np.uint8, offset=12 + 4 * int(n)).reshape(n, height, width).astype(float)


def distance(before, after):
    return 1 - (before * after).sum() / np.sqrt((before**2).sum() * (after**2).sum())


def maps_in(page, answers):
    """Return the layers and steps of all maps that some answers hold, sorted."""
    page.wait_for_timeout(200)
    found = []
    for answer in answers:
        if "/maps?" in answer.url:
            (layer,) = urllib.parse.parse_qs(urllib.parse.urlsplit(answer.url).query)["layer"]
            found += [(layer, step) for step in answer.json()["steps"]]
    return sorted(found)


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
