"""What the callback logs in real Trainer runs, with its event files read back."""

import copy
import gc
import io
import json
import re
import weakref
from collections import Counter
from contextlib import nullcontext

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from PIL import Image
from pytorch_lightning.callbacks import EarlyStopping, WeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger
from test_suspicion import ReadsTheGround
from torch.utils.data import DataLoader, Dataset, TensorDataset
from toys import CLASSES

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning, ProbeSet, ShortcutWarning
from gradcam_callback.maps import predicted_class
from gradcam_callback.measures import Counterfactuals, metrics
from gradcam_callback.run.tags import join

ALL = [f"block{b}_conv{c}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)]
ON_MASKS = ("relevance_mass", "lift", "pointing_game")
PER_LAYER = (*ON_MASKS, "entropy", "strength", "drift", "empty")
ACCURACIES = ("probe_accuracy", "swap_accuracy", "background_accuracy", "foreground_accuracy")
SWAP = ("swap_accuracy_low", "swap_accuracy_high", "swap_drop", "swap_control_accuracy", "pasting_cost")
GAP = ("background_gap", "background_gap_low", "background_gap_high")


@pytest.fixture
def probe(toys):
    return ProbeSet.from_dataset(toys, 2)


@pytest.mark.parametrize("views", [None, "all"])
def test_zero_configuration_logs_its_tags_at_lightnings_validation_steps_and_all_views_the_others(
    thin, fit, events, views
):
    callback = GradCAMCallback() if views is None else GradCAMCallback(views=views)
    fit(thin, callback, max_epochs=3)
    found = events()
    names = callback.probe_set.names
    images = [f"gradcam/{view}" for view in ("overview", "counterfactuals")]
    images += [f"gradcam/probe/{name}" for name in names]
    animations = []
    if views == "all":
        images += [f"gradcam/evolution/{name}" for name in names] + [f"gradcam/layer/{layer}" for layer in ALL]
        images.append("gradcam/depth_profile")
        animations += [f"gradcam/animation/{name}" for name in names]
    assert set(found.Tags()["images"]) == {*images, *animations}
    scalars = {f"gradcam/{measure}/{layer}" for measure in PER_LAYER for layer in ALL}
    scalars |= {f"gradcam/{figure}" for figure in (*ACCURACIES, *SWAP, *GAP)}
    scalars |= {f"gradcam/lift_by_class/{ALL[-1]}/{name}" for name in CLASSES}
    assert {tag for tag in found.Tags()["scalars"] if tag.startswith("gradcam/")} == scalars

    steps = [event.step for event in found.Scalars("val_loss")]
    assert len(steps) == 3
    for tag in images:
        assert [event.step for event in found.Images(tag)] == steps
    for tag in animations:
        assert [event.step for event in found.Images(tag)] == steps[-1:]
    for tag in scalars:
        assert [event.step for event in found.Scalars(tag)] == (steps[1:] if "/drift/" in tag else steps)
    assert [event.step for event in found.Tensors("gradcam/verdict")] == steps


def test_pictures_are_webps_or_gifs_of_the_size_that_is_said(thin, fit, events):
    fit(thin, GradCAMCallback(views="all"), max_epochs=1)
    found = events()
    for tag in found.Tags()["images"]:
        (event,) = found.Images(tag)
        picture = Image.open(io.BytesIO(event.encoded_image_string))
        assert picture.format == ("GIF" if "/animation/" in tag else "WEBP") and picture.size == (
            event.width,
            event.height,
        )
        assert np.ptp(np.asarray(picture.convert("RGB"))) > 200


def test_history_holds_what_tensorboard_holds(thin, fit, events):
    callback = GradCAMCallback()
    fit(thin, callback)
    found = events()
    assert [entry["epoch"] for entry in callback.history] == [0, 1]
    for i, entry in enumerate(callback.history):
        for tag, value in entry.items():
            if tag.startswith("gradcam/") and "/drift/" not in tag:
                event = found.Scalars(tag)[i]
                assert (event.step, event.value) == (entry["step"], pytest.approx(value, rel=1e-5))
    assert found.Tensors("gradcam/verdict")[-1].tensor_proto.string_val[0].decode() == callback.verdict.text


def test_scalars_are_what_their_definitions_give_on_the_weights_of_the_validation(thin, fit, toys, probe):
    callback = GradCAMCallback(probe, ["block3_conv1", "block5"])
    fit(thin, callback, max_epochs=1)
    cams = GradCAM(thin, ["block3_conv1", "block5"])(probe.images, probe.labels)
    entry = callback.history[-1]
    for layer, raw in cams.maps.items():
        mass, area = metrics.relevance_mass(raw, probe.masks), metrics.mask_area(probe.masks)
        expected = {
            "relevance_mass": mass.nanmean(),
            "lift": mass[~mass.isnan()].mean() / area[~mass.isnan()].mean(),
            "pointing_game": metrics.pointing_game(raw, probe.masks).mean(),
            "entropy": metrics.entropy(raw).nanmean(),
            "strength": raw.mean(),
        }
        for measure, value in expected.items():
            assert entry[f"gradcam/{measure}/{layer}"] == pytest.approx(float(value), rel=1e-4), measure
    sets = Counterfactuals(probe.images, probe.labels, probe.masks)
    questions = {
        "probe_accuracy": (probe.images, probe.labels),
        "swap_accuracy": (sets.paste(sets.other_class), probe.labels[sets.other_class.objects]),
        "swap_control_accuracy": (sets.paste(sets.same_class), probe.labels[sets.same_class.objects]),
        "background_accuracy": (sets.remove(torch.arange(len(probe))), probe.labels),
        "foreground_accuracy": (sets.isolate(torch.arange(len(probe))), probe.labels),
    }
    thin.eval()
    for name, (images, labels) in questions.items():
        with torch.no_grad():
            right = (predicted_class(thin(images)) == labels).float().mean()
        assert entry[f"gradcam/{name}"] == pytest.approx(float(right))
    control = entry["gradcam/swap_control_accuracy"]
    assert entry["gradcam/background_gap"] == pytest.approx(control - entry["gradcam/swap_accuracy"])
    assert entry["gradcam/pasting_cost"] == pytest.approx(entry["gradcam/probe_accuracy"] - control)
    assert (
        entry["gradcam/background_gap_low"] <= entry["gradcam/background_gap"] <= entry["gradcam/background_gap_high"]
    )


def test_early_stopping_on_a_focus_scalar(thin, fit):
    stopping = EarlyStopping("gradcam/lift/block5_conv3", patience=1, min_delta=1e9, mode="max")
    trainer = fit(thin, GradCAMCallback(), stopping, max_epochs=9)
    assert trainer.current_epoch == 2
    assert "gradcam/lift/block5_conv3" in trainer.callback_metrics


def test_sanity_check_is_skipped(thin, fit):
    callback = GradCAMCallback()
    fit(thin, callback, max_epochs=1, num_sanity_val_steps=2)
    assert len(callback.history) == 1


def test_entry_before_training_is_the_first_column_and_shows_the_untrained_weights(thin, fit, events, probe):
    untrained = GradCAM(copy.deepcopy(thin), "block5_conv3")(probe.images, probe.labels)
    callback = GradCAMCallback(probe, "block5_conv3", log_before_training=True, views="all")
    fit(thin, callback, max_epochs=1)
    assert [(entry["epoch"], entry["step"]) for entry in callback.history] == [(-1, 0), (0, 2)]
    found = events()
    for tag in (f"gradcam/probe/{probe.names[0]}", "gradcam/layer/block5_conv3", f"gradcam/evolution/{probe.names[0]}"):
        assert [event.step for event in found.Images(tag)] == [0, 2]
    strength = found.Scalars("gradcam/strength/block5_conv3")
    assert strength[0].step == 0
    assert strength[0].value == pytest.approx(float(untrained.maps["block5_conv3"].mean()), rel=1e-5)
    before, after = (
        np.asarray(Image.open(io.BytesIO(event.encoded_image_string))).astype(int)
        for event in found.Images(f"gradcam/evolution/{probe.names[0]}")
    )
    cell = round(callback.style.cell_size * 0.58)
    first, second = (slice(left, left + cell) for left in (192, 192 + cell + 4))
    assert (before[-60:, second] > 240).all(), "paper where there is no epoch yet"
    assert np.ptp(after[-60:-16, first]) > 60 and np.ptp(after[-60:-16, second]) > 60, "the strip grew by a column"


@pytest.mark.parametrize(("every", "epochs"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3])])
def test_every_n_epochs(thin, fit, every, epochs):
    callback = GradCAMCallback(target_layers="block5_conv3", every_n_epochs=every)
    fit(thin, callback, max_epochs=5)
    assert [entry["epoch"] for entry in callback.history] == epochs


def test_target_decides_what_the_maps_explain(thin, fit, probe):
    by_target = {}
    for target in ("label", "predicted", 1):
        callback = GradCAMCallback(probe, "block5_conv3", target)
        fit(copy.deepcopy(thin), callback, max_epochs=1)
        by_target[target] = callback.history[0]["gradcam/strength/block5_conv3"]
    trained = copy.deepcopy(thin)
    fit(trained, max_epochs=1)
    for target, asked in (("label", probe.labels), ("predicted", None), (1, 1)):
        expected = GradCAM(trained, "block5_conv3")(probe.images, asked).maps["block5_conv3"].mean()
        assert by_target[target] == pytest.approx(float(expected), rel=1e-4)
    assert len(set(by_target.values())) == 3


@pytest.mark.sixteen_images
@pytest.mark.judges_more
def test_the_probe_set_from_the_validation_data_is_spread_over_16_classes(thin, fit):
    class Many(Dataset):
        classes = [f"kind {i}" for i in range(25)]
        targets = [i % 25 for i in range(100)]

        def __len__(self):
            return 100

        def __getitem__(self, index):
            return torch.full((3, 64, 64), index / 100), self.targets[index]

    probes = []
    for _ in range(2):
        callback = GradCAMCallback(target_layers="block5_conv3")
        fit(ThinVGG(classes=25), callback, val_data=Many(), max_epochs=1, num_sanity_val_steps=0)
        probes.append(callback.probe_set)
    labels = probes[0].labels.tolist()
    assert labels == [round(i * 24 / 15) for i in range(16)]
    assert torch.equal(probes[0].images, probes[1].images)
    assert probes[0].verdict_set.labels.bincount().tolist() == [2] * 25
    assert callback.verdict.basis == "frame" and callback.verdict.control_accuracy is not None
    assert "measured on 50 images" in callback.verdict.evidence
    assert "gradcam/lift/block5_conv3" not in callback.history[0]


class Fails(pl.Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        raise ArithmeticError("an accident")


@pytest.mark.parametrize("fails", [False, True])
def test_after_the_training_the_callback_holds_neither_network_nor_trainer(toys, trainer, fails):
    callback = GradCAMCallback(target_layers="block5_conv3")
    module, trains = ThinVGG(), trainer(callback, *([Fails()] if fails else []), max_epochs=1)
    with pytest.raises(ArithmeticError) if fails else nullcontext():
        trains.fit(module, DataLoader(toys, 6), DataLoader(toys, 6))
    held = weakref.ref(module), weakref.ref(trains)
    # Lightning gives each callback the methods of the module.
    for name in ("log", "log_dict"):
        vars(callback).pop(name, None)
    del module, trains
    gc.collect()
    assert callback.history and [ref() for ref in held] == [None, None]


@pytest.mark.sixteen_images
def test_probe_is_found_when_validation_comes_late(thin, fit):
    callback = GradCAMCallback(target_layers="block5_conv3", every_n_epochs=2)
    fit(thin, callback, max_epochs=4, check_val_every_n_epoch=2, num_sanity_val_steps=0)
    assert Counter(callback.probe_set.labels.tolist()) == {0: 5, 1: 5, 2: 5}
    assert [entry["epoch"] for entry in callback.history] == [1, 3]


def test_validations_within_an_epoch_are_all_logged(thin, fit, events):
    callback = GradCAMCallback(target_layers="block5_conv3", every_n_epochs=2)
    fit(thin, callback, max_epochs=3, val_check_interval=1)
    steps = [event.step for event in events().Scalars("val_loss")]
    assert [entry["epoch"] for entry in callback.history] == [0, 0, 0, 2, 2, 2]
    assert [entry["step"] for entry in callback.history] == steps[:3] + steps[6:]


class Recording(ThinVGG):
    """Keeps the weights that each validation batch saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.seen.append(copy.deepcopy(self.state_dict()))


class InStep(ThinVGG):
    """Logs the scalar "step", by which epochs come on the horizontal axis."""

    def log_step(self):
        self.log("step", 10.0 * (self.current_epoch + 1))

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.log_step()

    def test_step(self, batch, batch_idx):
        self.validation_step(batch, batch_idx)


class AtTheEnd(InStep):
    """Its hook comes after those of all callbacks."""

    validation_step = ThinVGG.validation_step

    def on_validation_epoch_end(self):
        self.log_step()

    on_test_epoch_end = on_validation_epoch_end


class InTrainingToo(AtTheEnd):
    def on_train_epoch_end(self):
        self.log("step", self.current_epoch + 500.0)


class InTrainingOnly(InTrainingToo):
    def log_step(self):
        pass


@pytest.mark.parametrize("kind", [InStep, AtTheEnd, InTrainingToo, InTrainingOnly])
def test_a_step_that_the_user_logs_is_that_of_the_images_too(kind, fit, toys, probe, events, tmp_path):
    module, callback = kind(), GradCAMCallback(probe, "block5_conv3", save_dir=tmp_path / "focus")
    runs = fit(module, callback, max_epochs=3)
    steps = [event.step for event in events().Scalars("val_loss")]
    assert steps == ([2, 5, 8] if kind is InTrainingOnly else [10, 20, 30])
    assert [entry["step"] for entry in callback.history] == steps
    assert [entry["step"] for entry in callback.state_dict()["history"]] == steps
    assert json.loads((tmp_path / "focus" / "history.json").read_text())["history"] == callback.history
    found = events()
    for tag in ("gradcam/lift/block5_conv3", "gradcam/background_gap"):
        assert [event.step for event in found.Scalars(tag)] == steps, tag
    assert [event.step for event in found.Images("gradcam/overview")] == steps
    for tag in ("gradcam/verdict", "gradcam/focus/entry", "gradcam/focus/maps/block5_conv3"):
        assert [event.step for event in found.Tensors(tag)] == steps, tag
    for stage in ("validate", "test"):
        getattr(runs, stage)(module, DataLoader(toys, batch_size=6), verbose=False)
        found = events()
        step = found.Scalars("val_loss")[-1].step
        for tag in (f"gradcam/{stage}/lift/block5_conv3", f"gradcam/{stage}/probe_accuracy"):
            assert [event.step for event in found.Scalars(tag)] == [step], tag
        assert [event.step for event in found.Images(f"gradcam/{stage}/overview")] == [step]


def test_history_has_its_entry_as_soon_as_its_scalars_are_logged(fit, probe):
    seen = []

    class Reads(ThinVGG):
        def on_validation_epoch_end(self):
            if not self.trainer.sanity_checking:
                seen.append((len(callback.history), callback.verdict is not None))

    callback = GradCAMCallback(probe, "block5_conv3", views="overview")
    fit(Reads(), callback)
    assert seen == [(1, True), (2, True)]


def test_an_entry_whose_validation_breaks_off_at_its_end_has_its_images(fit, probe, events):
    class Breaks(ThinVGG):
        def on_validation_epoch_end(self):
            if self.current_epoch == 1:
                raise InterruptedError

    callback = GradCAMCallback(probe, "block5_conv3", views="overview")
    with pytest.raises(InterruptedError):
        fit(Breaks(), callback)
    assert [event.step for event in events().Images("gradcam/overview")] == [2, 5]
    assert [entry["step"] for entry in callback.history] == [2, 5]


@pytest.mark.parametrize("first", ["ours", "averaging"])
def test_maps_explain_the_averaged_weights_that_the_validation_uses(thin, fit, probe, first):
    module = Recording()
    module.load_state_dict(thin.state_dict())
    ours, averaging = GradCAMCallback(probe, "block5_conv3"), WeightAveraging()
    fit(module, *([ours, averaging] if first == "ours" else [averaging, ours]), max_epochs=1)
    validated = ThinVGG()
    validated.load_state_dict(module.seen[-1])
    expected = GradCAM(validated, "block5_conv3")(probe.images, probe.labels).maps["block5_conv3"].mean()
    assert ours.history[-1]["gradcam/strength/block5_conv3"] == pytest.approx(float(expected), rel=1e-4)


def test_validate_alone_logs_too(thin, tmp_path, toys, events):
    callback = GradCAMCallback(target_layers="block5_conv3")
    trainer = pl.Trainer(
        callbacks=[callback],
        logger=TensorBoardLogger(tmp_path, name="run", version=""),
        accelerator="cpu",
        enable_progress_bar=False,
    )
    trainer.validate(thin, DataLoader(toys, batch_size=6), verbose=False)
    assert len(callback.history) == 1
    assert events().Tags()["images"]


def test_state_of_a_long_run_stays_under_20_mb():
    """32 images in 10 classes, 13 layers, 1,000 epochs, and all that can be logged by class."""
    callback = GradCAMCallback()
    names = [(measure, layer) for measure in PER_LAYER for layer in ALL]
    names += [(f"{of}_by_class", layer, str(i)) for of in ON_MASKS for layer in ALL for i in range(10)]
    values = torch.rand(1000, len(names), generator=torch.Generator().manual_seed(0)).tolist()
    # The last entry's maps have their own size, for images of 224 px.
    sides = [224] * 2 + [112] * 2 + [56] * 3 + [28] * 3 + [14] * 3
    last = {layer: torch.rand(32, side, side) for layer, side in zip(ALL, sides, strict=True)}
    # Names are made anew at each entry.
    entries = [
        {"epoch": epoch, "step": 10 * epoch, **dict(zip((join(*parts) for parts in names), row, strict=True))}
        for epoch, row in enumerate(values)
    ]
    state = callback._memory.state
    # Of all but the last, the scalars alone: shrinking the maps of 1,000 epochs would take half a minute.
    state.history = entries[:-1]
    state.add(entries[-1], [0.5] * 32, [0] * 32, last)
    state._snapshots = [copy.deepcopy(state._last) for _ in range(24)]  # as many as there ever are, and as large
    buffer = io.BytesIO()
    torch.save(callback.state_dict(), buffer)
    assert 10e6 < buffer.tell() < 20e6


def test_by_class_adds_the_mask_metrics_of_each_layer_and_the_swap_for_each_class(thin, fit, probe):
    layers = ["block4_conv3", "block5_conv3"]
    few, many = GradCAMCallback(probe, layers), GradCAMCallback(probe, layers, by_class=True, tag_prefix="each")
    fit(thin, few, many, max_epochs=1)
    own = {name.removeprefix("each/") for name in many.history[0] if "_by_class/" in name}
    expected = {f"{of}_by_class/{layer}/{name}" for of in ON_MASKS for layer in layers for name in CLASSES}
    expected |= {f"swap_accuracy_by_class/{name}" for name in CLASSES}
    assert own <= expected and {name for name in expected if not name.startswith(("lift", "relevance"))} <= own
    swaps = [many.history[0][f"each/swap_accuracy_by_class/{name}"] for name in CLASSES]
    assert np.mean(swaps) == pytest.approx(many.history[0]["each/swap_accuracy"]), "each class has as many swaps"
    assert not any("swap_accuracy_by_class" in name for name in few.history[0])


def test_classes_of_one_name_have_tags_of_their_own(thin, fit, toys):
    """As the two cranes of ImageNet: none of them is lost, and a third class keeps a name that looks like a number."""
    whole = ProbeSet.from_dataset(toys, 2)
    names = {"class_names": ["crane", "crane", "crane-2"]}
    masked = ProbeSet(whole.images, whole.labels, whole.masks, **names)
    watches = [
        GradCAMCallback(masked, "block5_conv3", by_class=True, tag_prefix="masked"),
        GradCAMCallback(ProbeSet(whole.images, whole.labels, **names), "block5_conv3", by_class=True),
    ]
    fit(thin, *watches, max_epochs=1)
    for watch, logged in zip(watches, [[*ON_MASKS, "swap_accuracy"], ["frame_accuracy"]], strict=True):
        for metric in logged:
            tags = [tag for tag in watch.history[0] if f"/{metric}_by_class/" in tag]
            named = {tag.rsplit("/", 1)[1] for tag in tags}
            # The lift of a class whose maps are empty is undefined.
            assert named <= {"crane", "crane-3", "crane-2"} and (metric in ON_MASKS[:2] or len(named) == 3), metric
    assert masked.class_names == names["class_names"]


def test_a_run_that_breaks_off_has_its_strips_and_animations(fit, events, probe):
    class Breaking(ThinVGG):
        def on_train_epoch_start(self):
            if self.current_epoch == 8:
                raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError, match="the user's own"):
        fit(Breaking(), GradCAMCallback(probe, "block5_conv3", views="all"), max_epochs=20)
    found = events()
    steps = [event.step for event in found.Images("gradcam/probe/star-1")]
    assert len(steps) == 8
    assert [event.step for event in found.Images("gradcam/evolution/star-1")] == [*steps[:6], steps[-1]]
    assert [event.step for event in found.Images("gradcam/animation/star-1")] == steps[-1:]


def test_nan_weights_give_empty_maps_a_warning_and_training_goes_on(thin, fit, probe):
    class Breaking(ThinVGG):
        def on_validation_start(self):
            if self.current_epoch == 1:
                torch.nn.init.constant_(self.classifier[-1].bias, float("nan"))

    callback = GradCAMCallback(probe, "block5_conv3")
    with pytest.warns(GradCAMWarning, match="6 of 6 images gave NaN"):
        trainer = fit(Breaking(), callback)
    assert trainer.current_epoch == 2
    assert callback.history[-1]["gradcam/strength/block5_conv3"] == 0
    assert all(np.isfinite(value) for value in callback.history[-1].values())


@pytest.mark.sixteen_images
def test_images_without_labels_mask_or_names_need_no_more_than_a_tensor_dataset(thin, fit):
    data = TensorDataset(torch.rand(8, 3, 64, 64), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]))
    callback = GradCAMCallback()
    fit(thin, callback, val_data=data, max_epochs=1)
    assert callback.probe_set.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert callback.verdict.basis == "frame" and "No masks" in callback.verdict.evidence


@pytest.mark.parametrize(("given", "expected"), [("32-true", "full"), ("bf16-mixed", "bf16")])
def test_maps_may_have_the_precision_of_the_trainer(given, expected, thin, fit, probe):
    """Its own weights, afterwards: what was logged is what such maps give, which differ by more than rounding."""
    callback = GradCAMCallback(probe, "block5_conv3", precision="trainer")
    fit(thin, callback, precision=given, max_epochs=1)
    strengths = {
        kind: float(metrics.strength(GradCAM(thin, "block5_conv3", precision=kind)(probe.images, probe.labels)
                                     .maps["block5_conv3"]).mean())
        for kind in ("full", "bf16")
    }  # fmt: skip
    logged = callback.history[-1]["gradcam/strength/block5_conv3"]
    assert logged == pytest.approx(strengths[expected], rel=1e-5)
    assert strengths["full"] != pytest.approx(strengths["bf16"], rel=1e-4)


def test_objects_of_one_class_cannot_be_swapped_which_is_said(thin, fit, toys):
    stars = [index for index, label in enumerate(toys.targets) if label == 0]
    probe = ProbeSet.from_dataset(torch.utils.data.Subset(toys, stars), per_class=4)
    callback = GradCAMCallback(probe, "block5_conv3")
    fit(thin, callback, max_epochs=1)
    assert "so no object could be put on another class's background" in callback.verdict.evidence
    assert callback.verdict.swap_accuracy is None and not callback.verdict.suspected
    entry = callback.history[-1]
    assert "gradcam/background_accuracy" in entry and not any("swap" in name for name in entry)


def test_the_headline_stands_on_a_line_of_its_own_beside_a_progress_bar(fit, toys, capsys):
    callback = GradCAMCallback(ProbeSet.from_dataset(toys, 4), "block5_conv3", views="layer")
    with pytest.warns(ShortcutWarning):
        fit(ReadsTheGround(toys), callback, enable_progress_bar=True)
    printed = capsys.readouterr().out
    assert "Epoch 1" in printed, "there is a bar"
    # The bars that stood there are cleared first, with the cursor at the start of a line; of two bars in the upper one.
    assert re.search(rf"(^|\r|\n|\x1b\[A)GradCAM: {re.escape(callback.verdict.headline)}\n", printed)
