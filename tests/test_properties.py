"""Properties of any input, tried on inputs that nobody thought of: a few by default, many with ``make fuzz``."""

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
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image
from pytorch_lightning.trainer.states import TrainerFn
from test_gradcam import assert_same, snapshot
from torch.utils.data import DataLoader
from toys import Toys

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning, ProbeSet
from gradcam_callback.maps import resolve_layers
from gradcam_callback.maps.methods import METHODS
from gradcam_callback.measures import metrics
from gradcam_callback.run.evaluate import Evaluator, Shard
from gradcam_callback.run.session import Session
from gradcam_callback.run.tags import Tags
from gradcam_callback.writers import image_path

ROUNDING = 1e-9


def tries(times):
    """That many times the number of examples of the profile, which is for properties of middling cost."""
    return settings(max_examples=max(1, round(times * settings.default.max_examples)))


# Measures.

# Nothing, the smallest and the largest that maps may hold, and all between.
SIZES = st.one_of(st.just(0.0), st.sampled_from([1e-30, 1.0, 1e30]), st.floats(0, 1e30), st.floats(1e-30, 1))


@st.composite
def maps_and_masks(draw, values=SIZES):
    """``(N, h, w)`` float32 or float64, and ``(N, H, W)`` bool of any other size, of which none is empty."""
    n, h, w = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    maps = draw(npst.arrays(np.float64, (n, h, w), elements=values)).astype(dtype)
    size = n, draw(st.integers(1, 9)), draw(st.integers(1, 9))
    masks = draw(npst.arrays(bool, size))
    for mask in masks:
        mask[draw(st.integers(0, size[1] - 1)), draw(st.integers(0, size[2] - 1))] = True
    return torch.from_numpy(maps), torch.from_numpy(masks)


def measures(maps, masks):
    """Return the metrics that do not depend on the size of a map's values, NaN if undefined."""
    mass = metrics.relevance_mass(maps, masks)
    return {
        "relevance_mass": mass,
        "lift": metrics.lift(mass, metrics.mask_area(masks))[None],
        "pointing_game": metrics.pointing_game(maps, masks),
        "entropy": metrics.entropy(maps),
        "border_mass": metrics.border_mass(maps),
        "centre_distance": metrics.centre_distance(maps),
    }


def assert_alike(found, expected):
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-7, atol=ROUNDING, equal_nan=True, msg=name)


@tries(10)
@given(maps_and_masks())
def test_measures_are_within_their_documented_ranges(given_both):
    maps, masks = given_both
    empty = metrics.is_empty(maps)
    assert torch.equal(empty, (maps == 0).flatten(1).all(dim=1))
    found = measures(maps, masks)
    for name in ("relevance_mass", "entropy", "border_mass", "centre_distance"):
        assert torch.equal(found[name].isnan(), empty), f"{name} is NaN for empty maps alone"
        defined = found[name][~empty]
        assert bool(((defined >= -ROUNDING) & (defined <= 1 + ROUNDING)).all()), name
    assert bool(((found["pointing_game"] >= 0) & (found["pointing_game"] <= 1)).all())
    assert not found["pointing_game"][empty].any()
    assert bool(found["lift"].isnan()) == bool(empty.all()) and not found["lift"] < 0
    assert bool((metrics.strength(maps) >= 0).all() and metrics.strength(maps).isfinite().all())
    mean = metrics.mean_of_defined(found["entropy"])
    assert math.isnan(mean) if empty.all() else 0 <= mean <= 1 + ROUNDING


@tries(5)
# None so small that it would be rounded when it is multiplied.
@given(maps_and_masks(st.just(0.0) | st.floats(1e-250, 1e30)), st.integers(-60, 60), st.floats(1e-20, 1e20))
def test_measures_do_not_depend_on_how_large_a_maps_values_are(given_both, power, factor):
    maps, masks = given_both[0].double(), given_both[1]
    expected = measures(maps, masks)
    assert_alike(measures(maps * 2.0**power, masks), expected)
    # Multiplied by anything else, two hottest cells may be rounded to one value, and share the point then.
    scaled = measures(maps * factor, masks)
    assert_alike(scaled, {name: values for name, values in expected.items() if name != "pointing_game"})
    torch.testing.assert_close(metrics.strength(maps * factor), metrics.strength(maps) * factor)


@tries(5)
@given(maps_and_masks(), st.sampled_from([(1,), (2,), (1, 2)]))
def test_measures_do_not_depend_on_the_side_that_the_object_is_on(given_both, axes):
    maps, masks = given_both
    expected = measures(maps, masks) | {"strength": metrics.strength(maps)}
    turned = maps.flip(axes), masks.flip(axes)
    assert_alike(measures(*turned) | {"strength": metrics.strength(turned[0])}, expected)
    before = maps.roll(1, dims=2)
    torch.testing.assert_close(metrics.drift(maps, before), metrics.drift(turned[0], before.flip(axes)))


@tries(5)
@given(maps_and_masks())
def test_what_is_on_the_object_and_what_is_not_make_up_the_whole(given_both):
    maps, masks = given_both
    whole = metrics.relevance_mass(maps, masks) + metrics.relevance_mass(maps, ~masks)
    torch.testing.assert_close(
        whole[~metrics.is_empty(maps)], torch.ones(int((~metrics.is_empty(maps)).sum())).double()
    )
    even = torch.ones_like(maps)
    torch.testing.assert_close(metrics.relevance_mass(even, masks), metrics.mask_area(masks))
    assert metrics.lift(metrics.relevance_mass(even, masks), metrics.mask_area(masks)).item() == pytest.approx(1)


@tries(5)
@given(maps_and_masks(), st.integers(1, 3), st.integers(1, 3))
def test_cells_cut_into_cells_of_the_same_value_have_the_same_measures(given_both, rows, columns):
    maps, masks = given_both
    finer = maps.repeat_interleave(rows, dim=1).repeat_interleave(columns, dim=2)
    expected = measures(maps, masks)
    for changes in ("pointing_game", "entropy"):  # the one is of cells, the other of their number
        del expected[changes]
    assert_alike(measures(finer, masks), expected)
    torch.testing.assert_close(metrics.strength(finer), metrics.strength(maps))


@tries(5)
@given(maps_and_masks(st.just(0.0) | st.floats(1e-250, 1e30)), st.data(), st.floats(1e-20, 1e20))
def test_drift_is_a_distance_of_shapes(given_both, data, factor):
    maps = given_both[0]
    before = torch.from_numpy(data.draw(npst.arrays(np.float64, tuple(maps.shape), elements=SIZES)))
    drift = metrics.drift(maps, before)
    assert bool(((drift >= 0) & (drift <= 1)).all())
    torch.testing.assert_close(drift, metrics.drift(before, maps))
    assert bool((metrics.drift(maps, maps.double() * factor) < 1e-6).all())
    one_empty = metrics.is_empty(maps) ^ metrics.is_empty(before)
    assert bool((drift[one_empty] == 1).all())


# Maps.


@st.composite
def models(draw):
    """A thin VGG16 as training may have left it: some of it frozen, in eval mode, with gradients pending."""
    torch.manual_seed(draw(st.integers(0, 5)))
    model = ThinVGG(classes=draw(st.sampled_from([1, 2, 3])), batch_norm=draw(st.booleans())).double()
    parameters, modules = list(model.parameters()), list(model.modules())
    for parameter in parameters[: draw(st.integers(0, len(parameters)))]:
        parameter.requires_grad_(False)
    for parameter in parameters[draw(st.integers(0, len(parameters))) :]:
        parameter.grad = torch.ones_like(parameter)
    for module in draw(st.lists(st.sampled_from(modules), max_size=5)):
        module.training = not module.training
    return model


LAYERS = st.lists(st.sampled_from(["block1_conv1", "block2", "block5_conv3", "block5", "features.4"]), min_size=1)


@tries(1)
@given(
    models(), LAYERS, st.integers(1, 3), st.integers(32, 70), st.integers(32, 70), st.none() | st.integers(1, 4),
    st.sampled_from(list(METHODS)), st.data(),
)  # fmt: skip
def test_maps_of_a_batch_are_those_of_its_images_and_leave_no_trace(model, layers, n, h, w, chunk_size, method, data):
    images = torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(h)).double()
    classes = max(2, model.classifier[-1].out_features)
    one = st.integers(0, classes - 1)
    targets = data.draw(st.none() | one | st.lists(one, min_size=n, max_size=n))
    before = snapshot(model)
    batch = GradCAM(model, layers, chunk_size=chunk_size, method=method)(images, targets)
    assert_same(before, snapshot(model))
    assert batch.logits.shape == (n, model.classifier[-1].out_features) and not batch.nonfinite.any()
    if targets is not None:
        assert batch.targets.tolist() == ([targets] * n if isinstance(targets, int) else targets)
    single = GradCAM(model, layers, method=method)
    for i in range(n):
        alone = single(images[i : i + 1], int(batch.targets[i]) if targets is not None else None)
        torch.testing.assert_close(alone.logits[0], batch.logits[i])
        assert alone.targets[0] == batch.targets[i]
        assert list(alone.maps) == list(batch.maps)
        for layer, raw in batch.maps.items():
            assert len(raw) == n and bool((raw >= 0).all() and raw.isfinite().all())
            scale = float(alone.maps[layer].max())
            assert float((raw[i] - alone.maps[layer][0]).abs().max()) <= 1e-8 * scale, layer
    assert_same(before, snapshot(model))


@pytest.fixture(scope="module")
def idle():
    torch.manual_seed(0)
    return ThinVGG(classes=3)


# Of 3 classes and two images.
WRONG_TARGETS = st.one_of(
    st.integers(max_value=-1, min_value=-(2**63)),
    st.integers(min_value=3, max_value=2**63 - 1),
    st.floats(),
    st.booleans(),
    st.lists(st.integers(0, 2)).filter(lambda targets: len(targets) != 2),
    st.lists(st.integers(3, 9) | st.integers(-9, -1), min_size=2, max_size=2),
    st.lists(st.floats(), min_size=2, max_size=2),
    npst.arrays(np.int64, npst.array_shapes(min_dims=2, max_dims=3, max_side=3), elements=st.integers(0, 2)),
)


@tries(2)
@given(WRONG_TARGETS)
def test_wrong_targets_are_refused_without_a_trace(idle, targets):
    before = snapshot(idle)
    with pytest.raises(ValueError, match="Expected"):
        GradCAM(idle, "block5_conv3")(torch.zeros(2, 3, 32, 32), targets)
    assert_same(before, snapshot(idle))


# Layers.

BLOCKS = (2, 2, 3, 3, 3)
CONVOLUTIONS = [f"block{b}_conv{c}" for b, n in enumerate(BLOCKS, 1) for c in range(1, n + 1)]
DOTTED = [name for name, _ in ThinVGG().named_modules() if name]


def meant(name):
    """The layers that a name means, written down a second time; none where it means nothing."""
    short = name.removeprefix("features.") if name not in DOTTED else ""
    if short == "all":
        return CONVOLUTIONS
    found = [layer for layer in CONVOLUTIONS if short in (layer, layer.split("_")[0])]
    return found or ([name] if name in DOTTED else [])


@tries(3)
@given(st.lists(st.sampled_from(["all", *CONVOLUTIONS, *(f"block{b}" for b in range(1, 6)), *DOTTED]), min_size=1))
def test_valid_names_give_their_layers_in_order_and_each_once(idle, wanted):
    found = resolve_layers(idle, wanted)
    names = [layer.name for layer in found]
    assert sorted(names) == sorted({layer for name in wanted for layer in meant(name)})
    place = {module: i for i, module in enumerate(idle.modules())}
    places = [place[layer.module] for layer in found]
    assert places == sorted(places)
    assert [name for name in names if name in CONVOLUTIONS] == [name for name in CONVOLUTIONS if name in names]
    shuffled = resolve_layers(idle, wanted[::-1])
    assert {layer.name for layer in shuffled} == set(names)


NEARLY = st.tuples(st.sampled_from([*CONVOLUTIONS, *DOTTED]), st.text(max_size=2), st.integers(0, 20)).map(
    lambda parts: parts[0][: parts[2]] + parts[1] + parts[0][parts[2] + 1 :]
)


@tries(3)
@given(st.text() | NEARLY, st.lists(st.sampled_from(CONVOLUTIONS), max_size=2))
def test_any_other_text_is_refused_with_the_choices(idle, text, others):
    assume(not meant(text))
    with pytest.raises(ValueError) as caught:
        resolve_layers(idle, [*others, text])
    assert repr(text) in str(caught.value)
    for choice in ("'all'", "block1", "block5_conv3", "features.0", "classifier.2"):
        assert choice in str(caught.value)


@tries(1)
@given(st.one_of(st.none(), st.integers(), st.lists(st.none() | st.integers() | st.binary(), min_size=1), st.just([])))
def test_what_is_no_text_is_refused_as_a_layer(idle, wanted):
    with pytest.raises(ValueError, match="Expected"):
        resolve_layers(idle, wanted)


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

    keeps_panels = keeps_records = True

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
    session = callback._session = Session(callback._state, Tags(), [counter])
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
        assert "start anew" in str(said[0].message) and callback.history == [] and callback._state.snapshots() == []
    frames = callback._state.snapshots()
    assert all(np.isfinite(frame.map_of(layer, 0)).all() for frame in frames for layer in frame.maps)
    written = io.BytesIO()
    torch.save(callback.state_dict(), written)
    written.seek(0)
    again = GradCAMCallback(trained.probe, trained.evaluator.layers)
    again.load_state_dict(torch.load(written, weights_only=True))
    assert len(again._state.snapshots()) == len(frames) and len(again.history) == len(callback.history)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradCAMWarning)  # that the strips are of other layers
        assert enters(callback, trained) > len(trained.probe)


def test_an_unchanged_checkpoint_goes_on(trained):
    callback = GradCAMCallback(trained.probe, trained.evaluator.layers, views=["evolution", "depth_profile"])
    callback.load_state_dict(trained.state)
    assert len(callback.history) == len(callback._state.snapshots()) == 2
    assert enters(callback, trained) == 1 + len(trained.probe), "a depth profile, and a strip for each image"
    assert [frame.heading for frame in callback._state.snapshots()] == ["0", "1", "99"]


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
