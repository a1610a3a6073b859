"""The same images and texts reach whatever the user has: files, Weights & Biases, MLflow, Comet or another logger."""

import json
import logging
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
from conftest import ThinVGG
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

from gradcam_callback import GradCAMCallback, GradCAMWarning
from gradcam_callback.encoded_image import EncodedImage
from gradcam_callback.run.recording import Recorder
from gradcam_callback.writers import Entry, FolderWriter, Manifest, RunStart, TensorBoardWriter, image_path
from gradcam_callback.writers.base import FORMAT

LAYERS = ["block4_conv3", "block5_conv3"]


def pictures_of(folder):
    return {str(path.relative_to(folder)) for suffix in ("jpg", "gif") for path in folder.rglob(f"*.{suffix}")}


def expected(steps):
    """Every picture of three probe images and two layers, of two epochs."""
    each = [f"{view}/{name}" for view in ("probe", "evolution") for name in ("star-1", "heart-1", "moon-1")]
    each += [f"layer/{layer}" for layer in LAYERS] + ["overview", "depth_profile", "counterfactuals"]
    found = {f"{name}/{step:08d}.jpg" for name in each for step in steps}
    return found | {f"animation/{name}/{steps[-1]:08d}.gif" for name in ("star-1", "heart-1", "moon-1")}


def test_without_any_logger_all_is_in_a_folder(thin, fit, tmp_path, probe):
    callback = GradCAMCallback(probe, LAYERS, views="all", save_dir=tmp_path / "focus")
    fit(thin, callback, logger=False)
    folder = tmp_path / "focus"
    steps = [int(entry["step"]) for entry in callback.history]
    assert len(steps) == 2 and pictures_of(folder) == expected(steps)
    assert all(path.read_bytes()[:3] == b"\xff\xd8\xff" for path in folder.rglob("*.jpg"))
    kept = json.loads((folder / "history.json").read_text())
    assert kept["history"] == callback.history
    assert kept["verdict"]["evidence"] == callback.verdict.evidence
    assert kept["verdict"]["suspected"] is callback.verdict.suspected, "as data"
    manifest = Manifest.from_json((folder / "manifest.json").read_text())
    assert list(manifest.layers) == LAYERS and list(manifest.classes) == ["star", "heart", "moon"]


@pytest.mark.parametrize("place", ["save_dir", "csv", "log_image", "tensorboard"])
def test_the_start_says_where_to_look(thin, fit, tmp_path, probe, caplog, place):
    caplog.set_level(logging.INFO, logger="pytorch_lightning.utilities.rank_zero")
    loggers = {"csv": CSVLogger(tmp_path, "csv"), "log_image": WithImages(), "save_dir": False}
    logger = loggers.get(place, TensorBoardLogger(tmp_path, "runs"))
    save_dir = tmp_path / "focus" if place == "save_dir" else None
    fit(thin, GradCAMCallback(probe, LAYERS, save_dir=save_dir), max_epochs=1, logger=logger)
    folder = save_dir or tmp_path / "csv" / "version_0" / "gradcam"
    on_a_page = f"See them in {folder}, and on the page that this makes: python -m gradcam_callback report {folder}"
    where = {
        "log_image": "See them in WithImages.",
        "tensorboard": f"See them in the tab Focus of: tensorboard --logdir {tmp_path / 'runs'}",
    }
    (said,) = [text for text in caplog.messages if "watching 2 layers on 3 images. " in text]
    assert where.get(place, on_a_page) in said


def test_csv_logger_has_the_folder_beside_its_metrics(thin, fit, tmp_path, probe):
    logger = CSVLogger(tmp_path)
    callback = GradCAMCallback(probe, LAYERS, views="all")
    fit(thin, callback, logger=logger)
    found = pictures_of(tmp_path / "lightning_logs" / "version_0" / "gradcam")
    assert found == expected([int(entry["step"]) for entry in callback.history])
    assert "gradcam/lift/block5_conv3" in (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text()


def test_the_home_folder_is_written_as_a_tilde(thin, fit, tmp_path, probe, monkeypatch):
    """As loggers of Lightning take it."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    callbacks = GradCAMCallback(probe, LAYERS[:1], views=[]), GradCAMCallback(probe, LAYERS[1:], save_dir="~/focus")
    fit(thin, *callbacks, logger=CSVLogger("~/logs", name="run", version=0), max_epochs=1)
    for place in ("logs/run/version_0/gradcam", "focus"):
        assert (tmp_path / "home" / place / "history.json").exists()
    assert (tmp_path / "home" / "logs/run/version_0/metrics.csv").exists() and not os.listdir()


def test_maps_are_saved_as_they_are_and_load_in_two_lines(thin, fit, tmp_path, probe):
    callback = GradCAMCallback(probe, LAYERS, save_maps=True)
    fit(thin, callback)
    folder = tmp_path / "run" / "gradcam"
    assert pictures_of(folder) == set(), "these are in TensorBoard"
    for entry in callback.history:
        maps = np.load(folder / "maps" / f"{int(entry['step']):08d}.npz")
        assert list(maps) == LAYERS and maps[LAYERS[1]].shape == (3, 3, 3) and maps[LAYERS[1]].dtype == np.float32
        assert maps[LAYERS[1]].mean() == pytest.approx(entry[f"gradcam/strength/{LAYERS[1]}"], rel=1e-5)
    asked = np.load(folder / "probe.npz")
    assert np.array_equal(asked["images"], probe.display_images()) and np.array_equal(
        asked["masks"], probe.masks.numpy()
    )


def test_a_folder_with_another_run_is_refused_before_training_and_a_resumed_run_goes_on_in_it(
    thin, fit, tmp_path, probe
):
    trainer = fit(thin, GradCAMCallback(probe, LAYERS, save_dir=tmp_path / "focus"), logger=False)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    thin.losses.clear()
    with pytest.raises(ValueError, match="Expected a folder without a run, but .*focus holds another run"):
        fit(thin, GradCAMCallback(probe, LAYERS, save_dir=tmp_path / "focus"), logger=False)
    assert thin.losses == []
    resumed = GradCAMCallback(probe, LAYERS, save_dir=tmp_path / "focus")
    fit(thin, resumed, logger=False, max_epochs=3, resume=tmp_path / "last.ckpt")
    assert [entry["epoch"] for entry in resumed.history] == [0, 1, 2]
    assert json.loads((tmp_path / "focus" / "history.json").read_text())["history"] == resumed.history


@pytest.mark.parametrize("maps", [False, True])
def test_a_folder_that_cannot_be_is_said_before_training(thin, fit, tmp_path, probe, maps):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ValueError, match="file cannot be written to"):
        fit(thin, GradCAMCallback(probe, LAYERS, save_dir=tmp_path / "file", save_maps=maps))
    assert thin.losses == []


def test_weights_and_biases_offline(thin, fit, tmp_path, probe, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=str(tmp_path), offline=True)
    callback = GradCAMCallback(probe, LAYERS, views="all")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        fit(thin, callback, logger=logger)
        logger.experiment.finish()
    media = next((tmp_path / "wandb").glob("offline-run-*")) / "files" / "media"
    pictures = [path for path in media.rglob("*") if path.is_file()]
    assert len(pictures) == len(expected([0, 1]))
    assert {path.suffix for path in pictures} == {".jpg", ".gif"}
    written = [path.parent.name + "/" + path.name for path in pictures]
    assert sum(name.startswith("layer/block5_conv3") for name in written) == 2


def test_mlflow_file_store(thin, fit, tmp_path, probe, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger = MLFlowLogger(tracking_uri=f"file:{tmp_path / 'mlruns'}")
        callback = GradCAMCallback(probe, LAYERS, views="all", save_maps=True)
        fit(thin, callback, logger=logger, default_root_dir=tmp_path / "root")
    (folder,) = (tmp_path / "mlruns").glob("*/*/artifacts/gradcam")
    assert not (tmp_path / "mlruns" / "gradcam").exists(), "MLflow would take it for a broken experiment"
    assert len(list((tmp_path / "root" / "gradcam" / "maps").iterdir())) == 2
    assert pictures_of(folder) == expected([int(entry["step"]) for entry in callback.history])
    assert [path.read_text() for path in sorted((folder / "verdict").iterdir())][-1] == callback.verdict.text


def test_a_logger_that_fails_does_not_keep_the_others_from_theirs(thin, fit, tmp_path, probe, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(TensorBoardWriter, "write_image", full)
    callback = GradCAMCallback(probe, LAYERS, views="all", save_dir=tmp_path / "focus")
    with pytest.warns(GradCAMWarning) as caught:
        fit(thin, callback)
    said = [str(warning.message) for warning in caught if warning.category is GradCAMWarning]
    assert len(said) == 1, "as long as it has not worked again"
    assert (
        "images and texts for TensorBoard are lost until it works again (OSError: No space left on device)" in said[0]
    )
    assert pictures_of(tmp_path / "focus") == expected([int(entry["step"]) for entry in callback.history])


def test_a_folder_that_is_deleted_in_a_running_training_is_made_again(thin, fit, tmp_path, probe):
    class Deletes(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            shutil.rmtree(tmp_path / "focus")

    callback = GradCAMCallback(probe, LAYERS, save_dir=tmp_path / "focus", save_maps=True)
    fit(thin, callback, Deletes(), logger=False)
    last = int(callback.history[-1]["step"])
    assert f"probe/star-1/{last:08d}.jpg" in pictures_of(tmp_path / "focus")
    assert json.loads((tmp_path / "focus" / "history.json").read_text())["history"] == callback.history
    assert (tmp_path / "focus" / "maps" / f"{last:08d}.npz").exists()


def test_manifests_of_another_format_are_refused():
    for other in (FORMAT - 1, FORMAT + 1):
        with pytest.raises(
            ValueError, match=f"Expected a manifest of format {FORMAT}, but got format {other}. Read the"
        ):
            Manifest.from_json(json.dumps({"format": other}))


@pytest.mark.parametrize(
    ("tag", "path"),
    [
        ("gradcam/probe/star-1", "probe/star-1"),
        ("gradcam/probe/企鹅 1", "probe/企鹅 1"),
        ("gradcam/probe/../../etc", "probe/%2E%2E%2F..%2Fetc"),
        ("gradcam/probe/a/b", "probe/a%2Fb"),
        ("gradcam/probe/a:b?", "probe/a%3Ab%3F"),
        ("gradcam/probe/a%2Fb", "probe/a%252Fb"),
        ("gradcam/depth_profile", "depth_profile"),
        ("gradcam/gradcam/x", "gradcam/x"),
    ],
)
def test_tags_become_paths_that_stay_in_their_folder_and_apart(tag, path):
    assert image_path(tag, "gradcam") == path
    below = tag.replace("gradcam/", "gradcam/test/", 1)
    assert image_path(below, "gradcam/test") == path


def test_long_names_are_cut_and_stay_apart(tmp_path):
    names = ["企" * 300 + end for end in ("a", "b")] + ["x" * 300]
    paths = [image_path(f"gradcam/probe/{name}", "gradcam") for name in names]
    assert len(set(paths)) == 3
    for path in paths:
        (tmp_path / path).mkdir(parents=True)


def test_history_is_whole_at_each_entry_also_if_one_was_missed_asked_again_or_taken_back(tmp_path):
    writer = FolderWriter(tmp_path)
    run = RunStart(Manifest("gradcam", [], [], [], []), "{}", np.zeros(0), np.zeros(0), {})

    def write(*values):
        history = [{"epoch": i, "step": i, "gradcam/lift/ü": value} for i, value in enumerate(values)]
        writer.write_entry(Entry(history, {}, "{}", {}))
        assert json.loads((tmp_path / "history.json").read_text()) == {"history": history, "verdict": None}

    writer.start(run, resuming=False)
    write(1.0)
    write(2.0)  # the same entry, asked again
    write(2.0, 3.0)
    write(2.0, 3.0, 4.0, 5.0)
    writer.start(run, resuming=True)
    write(2.5)
    write(2.5, 6.0)


def test_a_file_that_cannot_be_finished_leaves_the_one_before_and_nothing_else(tmp_path, monkeypatch):
    writer = FolderWriter(tmp_path)
    writer.start(RunStart(Manifest("gradcam", [], [], [], []), "{}", None, None, {}), resuming=False)
    writer.write_image("gradcam/probe/a", EncodedImage(b"whole", "jpg", 1, 1), step=3)
    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            writer.write_image("gradcam/probe/a", EncodedImage(b"half", "jpg", 1, 1), step=3)
    assert [path.read_bytes() for path in (tmp_path / "probe" / "a").iterdir()] == [b"whole"]


class Plain(pl.loggers.logger.Logger):
    """Keeps what it is given."""

    name, version = "plain", 0

    def __init__(self, save_dir=None):
        self.scalars, self.images, self.folder = [], [], save_dir

    @property
    def save_dir(self):
        return self.folder

    def log_metrics(self, metrics, step=None):
        self.scalars.append((step, dict(metrics)))

    def log_hyperparams(self, *_):
        pass


class WithImages(Plain):
    def log_image(self, key, images, step=None):
        self.images += [(key, step, image.size) for image in images]


class Experiment:
    """The calls that Comet's experiment takes."""

    def __init__(self):
        self.calls = []

    def log_image(self, image_data, name=None, step=None):
        self.calls.append(("image", name, step, image_data.size))

    def log_asset_data(self, data, name=None, step=None):
        self.calls.append(("asset", name, step, data[:3]))

    def log_text(self, text, step=None, metadata=None):
        self.calls.append(("text", metadata["tag"], step, text))


class CometLogger(Plain):
    """By its own name, as the real one needs an account."""

    def __init__(self):
        super().__init__()
        self.experiment = Experiment()


class LitLogger(Plain):
    def __init__(self, folder):
        super().__init__(folder)
        self.files = []

    @property
    def log_dir(self):
        return self.folder

    def log_file(self, path):
        self.files.append((Path(path).exists(), path))


def test_a_logger_that_is_not_known_gets_a_folder_beside_its_log_and_one_warning(fit, tmp_path, probe):
    for version in (None, 1, 2):
        logger = Plain(tmp_path / "log")
        callback = GradCAMCallback(probe, LAYERS, views="all")
        with pytest.warns(
            GradCAMWarning, match="Plain is not known to take images, so they go to .*log.*gradcam"
        ) as said:
            fit(pl_module(), callback, logger=logger)
        assert sum(warning.category is GradCAMWarning for warning in said) == 1
        folder = tmp_path / "log" / (f"version_{version}" if version else "") / "gradcam"
        assert pictures_of(folder) == expected([int(entry["step"]) for entry in callback.history]), (
            "each run has its own"
        )
        assert any("gradcam/probe_accuracy" in metrics for _, metrics in logger.scalars)


def test_raw_maps_beside_a_logger_that_takes_images_have_a_folder_for_each_run(fit, probe, tmp_path):
    for version in ("", "version_1"):
        callback = GradCAMCallback(probe, LAYERS, views=[], save_maps=True)
        fit(pl_module(), callback, logger=WithImages(tmp_path / "log"), max_epochs=1)
        assert len(list((tmp_path / "log" / version / "gradcam" / "maps").iterdir())) == 1


class Refuses(Plain):
    def log_metrics(self, metrics, step=None):
        if any(name.startswith("gradcam/") for name in metrics):
            raise ValueError("no slashes")


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_a_logger_that_refuses_the_scalars_ends_no_validation_and_no_test(trainer, toys, probe, tmp_path, stage):
    module, callback = pl_module(), GradCAMCallback(probe, LAYERS, save_dir=tmp_path / "focus")
    module.test_step = module.validation_step
    with pytest.warns(GradCAMWarning, match=r"the scalars of this validation lost \(ValueError: no slashes\)"):
        getattr(trainer(callback, logger=Refuses()), stage)(module, DataLoader(toys, 6), verbose=False)
    assert len(callback.history) == 1 and callback.verdict is not None


def pl_module():
    pl.seed_everything(0, verbose=False)
    return ThinVGG(3)


def test_any_logger_with_log_image_is_given_images(thin, fit, probe):
    logger, callback = WithImages(), GradCAMCallback(probe, LAYERS, views="all")
    fit(thin, callback, logger=logger)
    steps = [int(entry["step"]) for entry in callback.history]
    given = {f"{key.removeprefix('gradcam/')}/{step:08d}.jpg" for key, step, _ in logger.images}
    assert given == {path for path in expected(steps) if path.endswith("jpg")}
    assert all(width > 100 for _, _, (width, _) in logger.images)


def test_records_are_made_only_for_those_who_keep_them(thin, fit, probe, tmp_path, monkeypatch):
    made = []
    for name in ("start", "entry", "maps"):
        real = getattr(Recorder, name)
        monkeypatch.setattr(Recorder, name, lambda *given, real=real, name=name: made.append(name) or real(*given))
    fit(thin, GradCAMCallback(probe, LAYERS), logger=[WithImages(), CometLogger()])
    assert made == []
    fit(thin, GradCAMCallback(probe, LAYERS, save_dir=tmp_path / "focus"), logger=CometLogger())
    assert made == ["start", *["entry", "maps"] * 2]


def test_comet_is_given_images_animations_and_the_verdict(thin, fit, probe):
    logger, callback = CometLogger(), GradCAMCallback(probe, LAYERS, views="all")
    fit(thin, callback, logger=logger)
    calls = logger.experiment.calls
    texts, assets = ([call for call in calls if call[0] == kind] for kind in ("text", "asset"))
    assert [call[1] for call in texts] == ["gradcam/verdict"] * 2 and texts[-1][3] == callback.verdict.text
    assert {call[1] for call in assets} == {f"gradcam/animation/{name}.gif" for name in ("star-1", "heart-1", "moon-1")}
    assert all(call[3] == b"GIF" for call in assets)
    assert len({(call[1], call[2]) for call in calls if call[0] == "image"}) == len(
        [path for path in expected([0, 1]) if path.endswith("jpg")]
    )


def test_litlogger_uploads_files_that_stay(thin, fit, probe, tmp_path):
    logger, callback = LitLogger(tmp_path / "lit"), GradCAMCallback(probe, LAYERS, views="all")
    fit(thin, callback, logger=logger)
    files = {str(Path(path).relative_to(tmp_path / "lit" / "gradcam")) for _, path in logger.files}
    assert (
        files
        == expected([int(entry["step"]) for entry in callback.history])
        == pictures_of(tmp_path / "lit" / "gradcam")
    )
    assert all(existed for existed, _ in logger.files)


def test_files_and_classes_whose_names_are_no_utf8_are_watched(fit, tmp_path):
    """The zero-configuration training of somebody who has unpacked an old archive."""
    for folder, name in ((b"zebr\xe0", b"caf\xe9.png"), (b"zebr\xe0", b"b.png"), (b"lion", b"caf\xe9.png")):
        (tmp_path / "data" / os.fsdecode(folder)).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(folder)).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / os.fsdecode(folder) / os.fsdecode(name))
    data = ImageFolder(str(tmp_path / "data"), ToTensor())
    callback = GradCAMCallback(target_layers=LAYERS, save_dir=tmp_path / "focus")
    fit(ThinVGG(2), callback, train_data=data, val_data=data, max_epochs=1)
    manifest = Manifest.from_json((tmp_path / "focus" / "manifest.json").read_text("utf-8"))
    assert sorted(manifest.names) == sorted(callback.probe_set.names)
    assert set(manifest.names) == {r"lion-caf\udce9", r"zebr\udce0-b", r"zebr\udce0-caf\udce9"}
    assert len(list((tmp_path / "focus" / "probe").glob("*/*.jpg"))) == 3
