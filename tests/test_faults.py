"""Whatever fails in a running training, the training is none the worse."""

import copy
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from PIL import Image
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from test_gradcam import assert_same, snapshot

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning, ProbeSet

TESTS = Path(__file__).parent


@pytest.fixture
def probe(toys):
    return ProbeSet.from_dataset(toys, 1)


def run(folder, kind):
    folder.mkdir()
    paths = os.pathsep.join(map(str, (TESTS, TESTS.parent / "examples", TESTS.parent)))
    done = subprocess.run(
        [sys.executable, str(TESTS / "outage.py"), str(folder), "65534", kind],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "knows.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run(tmp_path_factory.mktemp("undisturbed") / "log", "nothing")


@pytest.fixture
def reachable(tmp_path):
    """A folder that another user may enter, too."""
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    return tmp_path / "log"


@pytest.mark.parametrize(
    ("kind", "losers", "word", "lost"),
    [
        ("disk", ["TensorBoard"], "File too large", [2, 3]),
        ("folder", ["Folder", "TensorBoard"], "Not a directory", [0, 1, 2, 3]),
        ("permission", ["Folder", "TensorBoard"], "Permission denied", [2, 3]),
    ],
)
def test_what_cannot_be_written_is_said_once_and_logging_goes_on_when_the_disk_is_back(
    undisturbed, reachable, events, kind, losers, word, lost
):
    """A real outage of a real disk, in a process of its own, in the third and the fourth of six epochs."""
    knows = run(reachable, kind)
    for name in ("losses", "weights", "random", "history"):
        assert knows[name] == undisturbed[name], name
    assert undisturbed["said"] == [] and len(knows["said"]) == len(losers)
    for line, loser in zip(knows["said"], losers, strict=True):
        assert f"what {loser} is to be given is lost until it works again" in line and word in line
    # The last entry of an outage comes to its end after the disk is back, so nothing is demanded of its scalars.
    found, steps = events(reachable / "run"), [int(entry["step"]) for entry in knows["history"]]
    there = [step for epoch, step in enumerate(steps) if epoch not in lost]
    for tag in ("gradcam/layer/block5_conv3", "gradcam/probe/star-1"):
        assert [event.step for event in found.Images(tag)] == there
        for event in found.Images(tag):
            Image.open(io.BytesIO(event.encoded_image_string)).load()
    assert set(there) <= {event.step for event in found.Scalars("gradcam/lift/block5_conv3")} <= set(steps)
    assert set(there) <= {event.step for event in found.Scalars("val_loss")} <= set(steps), "Lightning's own, too"
    focus = reachable / "run" / "focus"
    assert json.loads((focus / "history.json").read_text())["history"] == knows["history"]
    pictures = list(focus.rglob("*.jpg"))
    assert pictures and not list(focus.rglob("*.partial"))
    for picture in pictures:
        Image.open(picture).load()


def test_where_memory_runs_out_an_epochs_maps_are_lost_and_no_more(undisturbed, tmp_path):
    """It really does: the process may have no more than it has."""
    knows = run(tmp_path / "log", "memory")
    assert knows["losses"] == undisturbed["losses"] and knows["weights"] == undisturbed["weights"]
    assert knows["random"] == undisturbed["random"]
    assert knows["said"] and all("can't allocate memory" in line or "memory ran out" in line for line in knows["said"])
    assert "maps lost" in knows["said"][-1]
    assert [entry["epoch"] for entry in knows["history"]][-4:] == [2, 3, 4, 5]
