"""Properties of names, checkpoints and folders for any input: a few are tried by default, many with ``make fuzz``."""

import copy
import io
import math
import os
import posixpath
import shutil
import tempfile
import unicodedata
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from fuzzing import tries
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pytorch_lightning.trainer.states import TrainerFn
from torch.utils.data import DataLoader
from toys import Toys

from gradcam_callback import GradCAMCallback, GradCAMWarning, ProbeSet
from gradcam_callback.run.evaluate import Evaluator, Shard
from gradcam_callback.run.session import Session
from gradcam_callback.run.tags import Tags
from gradcam_callback.writers import image_path

# Names.

# Any character, halves of surrogate pairs too, and those that mean something to a file system or a log.
NAMES = st.one_of(
    st.text(st.characters()),
    st.text(st.characters(categories=["Cc", "Cs", "Cf", "Zl", "Zp"])),
    st.text(st.sampled_from('./\\%<>:"|?*\0\n\r\t ~aA0xé')),
    st.text(st.characters(), min_size=1, max_size=3).map(lambda text: text * 200),
    st.sampled_from(
        ["", ".", "..", "../..", "../../etc/passwd", "/etc/passwd", "CON", "nul", "a/../b", "%0A", '"', "\\"]
    ),
)


@tries(5)
@given(NAMES, NAMES)
@example("a\n", "a_")
@example("\n", "%0A")
@example("x" * 300, "x" * 301)
def test_names_become_tags_and_paths_that_stay_apart_and_in_their_folder(name, other):
    tags = [Tags()("probe", each) for each in (name, other)]
    paths = [image_path(each, "gradcam") for each in tags]
    assert not {unicodedata.category(char) for char in "".join(tags)} & {"Cc", "Cs"}
    assert not set('"\\') & set("".join(tags)), "TensorBoard's data server shows no picture of these"
    assert all(posixpath.normpath(each) == each for each in tags if each != "gradcam/probe/"), "as MLflow demands"
    assert (tags[0] == tags[1]) == (name == other) == (paths[0] == paths[1])
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            assert not set('<>:"\\|?*') & set(path)
            parts = path.split("/")
            assert parts[0] == "probe" and len(parts) <= 2 and not {"", ".", ".."} & set(parts)
            assert max(len(part.encode()) for part in parts) <= 255
            whole = Path(folder) / path
            whole.mkdir(parents=True, exist_ok=True)
            (whole / "00000001.jpg").write_bytes(b"")
            assert whole.resolve().is_relative_to(Path(folder).resolve() / "probe")


# Checkpoints.


class Counter:
    """A writer that counts what it is given."""

    keeps_panels = keeps_records = keeps_one = True
    takes_webp = False

    def __init__(self):
        self.images = 0

    def start(self, *_): ...

    def write_image(self, tag, image, step):
        self.images += 1

    def write_verdict(self, tag, verdict, step): ...

    def write_entry(self, entry): ...

    def flush(self): ...


@pytest.fixture(scope="module")
def trained():
    """A callback that has seen two epochs of a real training, and the shard of another entry."""
    pl.seed_everything(0, verbose=False)
    toys = Toys(6, bias=1.0, seed=0, size=64)
    model, callback = ThinVGG(), GradCAMCallback(ProbeSet.from_dataset(toys, 1), ["block4_conv3", "block5_conv3"])
    trainer = pl.Trainer(
        max_epochs=2, logger=False, accelerator="cpu", callbacks=[callback, Keeps()], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        callback.save_dir = Path(folder) / "focus"
        trainer.fit(model, DataLoader(toys, batch_size=6), DataLoader(toys, batch_size=6))
    evaluator = next(one for one in trainer.callbacks if isinstance(one, Keeps)).evaluator
    return Trained(callback.state_dict(), evaluator, evaluator.compute_shard(), callback.probe_set)


@dataclass(repr=False)  # which would be pages of numbers in a report of a failure
class Trained:
    state: dict
    evaluator: Evaluator
    shard: Shard
    probe: ProbeSet


class Keeps(pl.Callback):
    """Takes the evaluator while there is one."""

    def on_train_end(self, trainer, pl_module):
        self.evaluator = next(one for one in trainer.callbacks if isinstance(one, GradCAMCallback))._session.evaluator


TENSORS = st.tuples(
    st.lists(st.integers(0, 3), max_size=4),
    st.sampled_from([torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool, torch.float16]),
    st.sampled_from([0, 1, 200, -1, math.nan, math.inf]),
).map(lambda made: torch.full(made[0], made[2], dtype=torch.float32).to(made[1]))
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), TENSORS)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
    max_leaves=4,
)


def mutated(node, data):
    """A state with one place in it changed, whichever, its containers being new."""
    children = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, (list, tuple)) else []
    if not len(children) or not data.draw(st.integers(0, 4)):
        if isinstance(node, torch.Tensor) and node.numel() and data.draw(st.booleans()):
            changes = [lambda t: t[:-1], lambda t: t[None], lambda t: t.double(), lambda t: t * math.nan, lambda t: -t,
                       lambda t: t[..., :0], lambda t: t[..., :1], lambda t: t.flatten()]  # fmt: skip
            return data.draw(st.sampled_from(changes))(node)
        return data.draw(VALUES)
    child = data.draw(st.sampled_from(children))
    changed = dict(node) if isinstance(node, dict) else list(node)
    how = data.draw(st.sampled_from(["change"] * 6 + ["remove", "double", "rename"]))
    if how == "remove":
        del changed[child]
    elif how == "double" and isinstance(changed, list):
        changed.insert(child, changed[child])
    elif how == "rename" and isinstance(changed, dict):
        changed[data.draw(st.text(max_size=4) | st.integers() | st.sampled_from(children))] = changed.pop(child)
    else:
        changed[child] = mutated(node[child], data)
    return changed


def enters(callback, trained):
    """Do what a resumed training does at its next validation and at its end; return the number of images."""
    counter, failures = Counter(), []
    session = callback._session = Session(callback._memory.state, Tags(), [counter])
    session.start(trained.evaluator, callback.style, callback.views)
    session._logger._report = lambda writer, error: failures.append(error)
    trainer = SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.FITTING), current_epoch=99, sanity_checking=False)
    assert callback.should_log(trainer) in (True, False)
    seen = session.merge([trained.shard], rank=0)
    session.log(seen, epoch=99, step=990)
    session.finish()
    assert failures == []
    return counter.images


@tries(3)
@given(st.data())
def test_a_changed_checkpoint_is_usable_or_said_and_started_anew(trained, data):
    state = trained.state
    for _ in range(data.draw(st.integers(1, 3))):
        state = mutated(state, data)
    callback = GradCAMCallback(trained.probe, trained.evaluator.layers, views=["evolution", "depth_profile"])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        callback.load_state_dict(copy.deepcopy(state))
    assert all(warning.category is GradCAMWarning for warning in said)
    if said:
        assert (
            "start anew" in str(said[0].message) and callback.history == [] and callback._memory.state.snapshots() == []
        )
    frames = callback._memory.state.snapshots()
    assert all(np.isfinite(frame.map_of(layer, 0)).all() for frame in frames for layer in frame.maps)
    written = io.BytesIO()
    torch.save(callback.state_dict(), written)
    written.seek(0)
    again = GradCAMCallback(trained.probe, trained.evaluator.layers)
    again.load_state_dict(torch.load(written, weights_only=True))
    assert len(again._memory.state.snapshots()) == len(frames) and len(again.history) == len(callback.history)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradCAMWarning)  # that the strips are of other layers
        assert enters(callback, trained) > len(trained.probe)


def test_an_unchanged_checkpoint_goes_on(trained):
    callback = GradCAMCallback(trained.probe, trained.evaluator.layers, views=["evolution", "depth_profile"])
    callback.load_state_dict(trained.state)
    assert len(callback.history) == len(callback._memory.state.snapshots()) == 2
    assert enters(callback, trained) == 1 + len(trained.probe), "a depth profile, and a strip for each image"
    assert [frame.heading for frame in callback._memory.state.snapshots()] == ["0", "1", "99"]


# Folders.

MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F", "HSV", "LAB"]
ENDINGS = [".jpg", ".png", ".PNG", ".bmp", ".tif", ".tiff", ".webp", ".jpeg"]


@st.composite
def pictures(draw, size, suffix):
    """The bytes of a picture of any mode, mostly of that size, in the format of the suffix where it can hold it."""
    size = draw(st.just(size) | st.just(size) | st.tuples(st.integers(1, 9), st.integers(1, 9)))
    mode = draw(st.sampled_from(MODES))
    rgb = np.frombuffer(draw(st.binary(min_size=1, max_size=12)), np.uint8)
    picture = Image.fromarray(np.resize(rgb, (size[1], size[0], 3)))
    if mode in ("I;16", "I", "F"):
        levels = np.resize(rgb, (size[1], size[0])).astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
        picture = Image.fromarray(levels * {"I;16": 257, "I": 300, "F": draw(st.sampled_from([1 / 255, 1, -1]))}[mode])
    elif mode != "LAB":
        picture = picture.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = draw(st.integers(0, 9))
    written = io.BytesIO()
    file_format = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}.get(suffix, suffix[1:].upper())
    try:
        picture.save(written, file_format, exif=exif)
    except (OSError, ValueError):  # a format that does not hold the mode
        written = io.BytesIO()
        picture.convert("RGB").save(written, "PNG")
    return written.getvalue()


@st.composite
def contents(draw, size, suffix):
    """Draw the content of an image's file: mostly an image, else a cut or overwritten one, or anything."""
    whole = draw(pictures(size, suffix))
    kind = draw(st.sampled_from(["whole"] * 7 + ["cut", "overwritten", "anything"]))
    if kind == "cut":
        return whole[: draw(st.integers(0, len(whole)))]
    if kind == "overwritten":
        start = draw(st.integers(0, len(whole)))
        return whole[:start] + draw(st.binary(max_size=8)) + whole[start + draw(st.integers(0, 8)) :]
    return draw(st.binary(max_size=64)) if kind == "anything" else whole


@st.composite
def mask_pictures(draw, size):
    """The bytes of a mask: mostly of the size and marking something, of any of the kinds that there are."""
    if not draw(st.integers(0, 6)):
        return draw(contents(size, ".png"))
    levels = np.zeros(size[::-1], np.uint8)
    levels[draw(st.integers(0, size[1] - 1)) :] = draw(st.sampled_from([1, 255, 255, 7]))
    picture = Image.fromarray(levels)
    if draw(st.booleans()):
        picture.putpalette(
            draw(st.lists(st.integers(0, 255), min_size=3, max_size=30).map(lambda p: p[: len(p) // 3 * 3]))
        )
    written = io.BytesIO()
    picture.save(written, "PNG")
    return written.getvalue()


# Names that file systems take; what is no UTF-8 comes as halves of surrogate pairs.
PARTS = st.one_of(
    st.sampled_from(["a", "a-2", "b", "ライオン", "\N{LION FACE}", "100%", "a b", ".hidden", "Thumbs.db", "x" * 245]),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8),
    st.binary(min_size=1, max_size=4).map(os.fsdecode).map(lambda text: text.replace("/", "_").replace("\0", "_")),
).filter(lambda name: name not in (".", ".."))
KINDS = ["image"] * 8 + ["masked"] * 5 + ["file", "folder", "link", "mask alone"]


def fill(folder, size, data):
    """Put up to four things into the folder of a class."""
    for _ in range(data.draw(st.integers(1, 4))):
        stem, suffix = data.draw(PARTS), data.draw(st.sampled_from(ENDINGS))
        kind = data.draw(st.sampled_from(KINDS))
        path, beside = folder / (stem + suffix), folder / f"{stem}{data.draw(st.sampled_from(['.mask', '.MASK']))}.png"
        try:
            if kind == "folder":
                path.mkdir()
            elif kind == "link":
                path.symlink_to(data.draw(st.sampled_from([".", "..", "a.png", "nowhere", path.name])))
            elif kind == "file":
                (folder / stem).write_bytes(b"anything")
            elif kind != "mask alone":
                path.write_bytes(data.draw(contents(size, suffix)))
            if kind in ("masked", "mask alone"):
                beside.write_bytes(data.draw(mask_pictures(size)))
        except OSError:  # a name that is taken, or longer than the file system takes
            continue


@settings(tries(5), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_folders_are_read_or_refused_with_a_path(data):
    root = Path(tempfile.mkdtemp())
    try:
        size = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
        for name in data.draw(st.lists(PARTS, min_size=1, max_size=3, unique=True)):
            if data.draw(st.integers(0, 12)):
                (root / name).mkdir()
                fill(root / name, size, data)
            else:
                (root / name).symlink_to(data.draw(st.sampled_from([".", "..", "a", "nowhere", name])))
        try:
            probe = ProbeSet.from_folder(root)
        except (ValueError, FileNotFoundError) as error:
            assert type(error) in (ValueError, FileNotFoundError) and str(root) in str(error), repr(error)
            return
        assert len(probe) and bool(((probe.images >= 0) & (probe.images <= 1)).all())
        assert len(set(probe.names)) == len(probe.names) and probe.labels.max() < len(probe.class_names)
        if probe.masks is not None:
            assert torch.equal(probe.masks.flatten(1).any(dim=1), probe.has_mask)
        for name in probe.names:
            Tags()("probe", name).encode()
    finally:
        shutil.rmtree(root)
