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
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from conftest import ThinVGG
from PIL import Image
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger
from sameness import assert_same, snapshot

from gradcam_callback import GradCAM, GradCAMCallback, ProbeSet, write_report

TESTS = Path(__file__).parent


OUTAGES = {
    "disk": (["TensorBoard"], "File too large", [2, 3]),
    "folder": (["Folder", "TensorBoard"], "Not a directory", [0, 1, 2, 3]),
    "permission": (["Folder", "TensorBoard"], "Permission denied", [2, 3]),
}


def test_a_training_survives_real_outages_of_disk_and_memory(reachable, events):
    """All kinds are one test, as a process needs longer to start than to train."""
    kinds = ["memory", "nothing", *OUTAGES]
    paths = os.pathsep.join(map(str, (TESTS, TESTS.parent / "examples", TESTS.parent)))
    done = subprocess.run(
        [sys.executable, str(TESTS / "outage.py"), str(reachable), "65534", *kinds],
        capture_output=True,
        text=True,
        timeout=600,
        # With threads of its own, torch's memory would be another on each machine; and what is let go of has to go back
        # at once, or a map might find room in it beyond the limit.
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    knows = {kind: json.loads((reachable / kind / "knows.json").read_text()) for kind in kinds}
    assert knows["nothing"]["said"] == []
    for kind in ("memory", *OUTAGES):
        for name in ("losses", "weights", "random"):
            assert knows[kind][name] == knows["nothing"][name], (kind, name)
    assert_an_epochs_maps_are_lost_and_no_more(knows["memory"])
    for kind, (losers, word, lost) in OUTAGES.items():
        assert knows[kind]["history"] == knows["nothing"]["history"]
        assert_it_is_said_once(knows[kind]["said"], losers, word)
        assert_logging_goes_on_when_the_disk_is_back(reachable / kind / "run", events, knows[kind]["history"], lost)


def assert_an_epochs_maps_are_lost_and_no_more(knows):
    said = knows["said"]
    assert said and all("can't allocate memory" in line or "out of memory" in line for line in said)
    assert "maps lost" in said[-1] and "smaller probe images need less memory" in said[-1]
    assert [entry["epoch"] for entry in knows["history"]][-4:] == [2, 3, 4, 5]


def assert_it_is_said_once(said, losers, word):
    assert len(said) == len(losers)
    for line, loser in zip(said, losers, strict=True):
        assert f"images and texts for {loser} are lost until it works again" in line and word in line


def assert_logging_goes_on_when_the_disk_is_back(run, events, history, lost):
    # The last entry of an outage comes to its end after the disk is back, so nothing is demanded of its scalars.
    found, steps = events(run), [int(entry["step"]) for entry in history]
    there = [step for epoch, step in enumerate(steps) if epoch not in lost]
    for tag in ("gradcam/layer/block5_conv3", "gradcam/probe/star-1"):
        assert [event.step for event in found.Images(tag)] == there
        for event in found.Images(tag):
            Image.open(io.BytesIO(event.encoded_image_string)).load()
    assert set(there) <= {event.step for event in found.Scalars("gradcam/lift/block5_conv3")} <= set(steps)
    assert set(there) <= {event.step for event in found.Scalars("val_loss")} <= set(steps), "Lightning's own, too"
    assert json.loads((run / "focus" / "history.json").read_text())["history"] == history
    pictures = list((run / "focus").rglob("*.jpg"))
    assert pictures and not list((run / "focus").rglob("*.partial"))
    for picture in pictures:
        Image.open(picture).load()


class Compares(GradCAMCallback):
    """A callback that checks that it leaves everything as it was, also when it is interrupted."""

    def on_validation_batch_start(self, trainer, pl_module, *arguments):
        before = copy.deepcopy(snapshot(pl_module)), torch.get_rng_state()
        try:
            super().on_validation_batch_start(trainer, pl_module, *arguments)
        finally:
            assert_same(before[0], snapshot(pl_module))
            assert torch.equal(before[1], torch.get_rng_state())

    def on_exception(self, trainer, pl_module, exception):
        super().on_exception(trainer, pl_module, exception)
        assert isinstance(exception, KeyboardInterrupt)


@pytest.fixture
def interrupts():
    """Ctrl-C raises, also in a shell's background, and is after the test as it was; Lightning ignores it at its end."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


class Interrupted(ThinVGG):
    """The user loses patience while the probe set is looked at, in the second epoch."""

    def forward(self, images):
        features = self.features(images)
        if self.trainer.current_epoch == 1 and len(images) == 5:
            signal.raise_signal(signal.SIGINT)
        return self.classifier(features)


def test_ctrl_c_in_a_map_gives_everything_back_and_lightning_shuts_down(toys, fit, events, interrupts, tmp_path):
    images, labels, masks = zip(*toys.items[:5], strict=True)
    probe = ProbeSet(torch.stack(images), list(labels), torch.stack(masks))
    callback = Compares(probe, save_dir=tmp_path / "focus", views="all")
    saves = ModelCheckpoint(tmp_path / "kept", filename="on-interrupt", save_on_exception=True)
    module = Interrupted()
    module.features[1].eval()
    with pytest.raises(SystemExit):
        fit(module, callback, saves, enable_checkpointing=True)
    assert [entry["epoch"] for entry in callback.history] == [0]
    found = events()
    assert len(found.Images("gradcam/layer/block5_conv3")) == len(found.Images("gradcam/animation/class 0-1")) == 1
    checkpoint = next((tmp_path / "kept").glob("*.ckpt"))
    state = torch.load(checkpoint, weights_only=True)["callbacks"][callback.state_key]
    entries = [{name.removeprefix("gradcam/"): value for name, value in entry.items()} for entry in callback.history]
    assert state["history"] == entries


def test_ctrl_c_between_any_two_lines_of_a_map_leaves_no_trace(thin, interrupts):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for parameter in list(thin.parameters())[5:]:
        parameter.grad = torch.ones_like(parameter)
    thin.features[1].eval()
    images, cam, moments = torch.rand(3, 3, 48, 48), GradCAM(thin, chunk_size=1), random.Random(0)
    cam(images)
    before, state, stopped = snapshot(thin), torch.get_rng_state(), 0
    earlier = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        for _ in range(150):
            try:
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-5, 0.03))
                cam(images)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                stopped += 1
            assert_same(before, snapshot(thin))
            assert torch.equal(state, torch.get_rng_state()) and torch.is_grad_enabled()
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    assert stopped > 20


def test_a_users_own_handler_of_ctrl_c_is_called_after_the_chunk_and_threads_change_none(thin, interrupts):
    calls, done = [], []
    signal.signal(signal.SIGINT, lambda *_: calls.append(len(done)))
    handle = thin.features[0].register_forward_hook(lambda *_: done.append(1) or signal.raise_signal(signal.SIGINT))
    GradCAM(thin, "block5_conv3", chunk_size=1, reuse_frozen=False)(torch.rand(3, 3, 32, 32))
    handle.remove()
    assert calls == [1, 2, 3]
    maps = []
    thread = threading.Thread(target=lambda: maps.append(GradCAM(thin, "block5_conv3")(torch.rand(1, 3, 32, 32))))
    thread.start()
    thread.join()
    assert len(maps) == 1


# What others wait for.


class LosesMaps(GradCAMCallback):
    """Has no maps in some epochs."""

    lost = (0,)

    def should_log(self, trainer):
        return super().should_log(trainer) and trainer.current_epoch not in self.lost


class Scheduled(ThinVGG):
    def __init__(self, monitor="gradcam/lift/block5_conv3", strict=True):
        super().__init__()
        self.monitor, self.strict = monitor, strict

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=9)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": self.monitor, "strict": self.strict},
        }


def test_lost_maps_end_no_training_that_monitors_them(fit, probe, tmp_path, events):
    """Lightning ends one whose EarlyStopping, ModelCheckpoint or scheduler finds no value."""
    saves = ModelCheckpoint(
        tmp_path / "kept", monitor="gradcam/probe_accuracy", mode="max", save_top_k=-1, filename="{epoch}"
    )
    lift = EarlyStopping("gradcam/lift/block5_conv3", mode="max", patience=9)
    drift = EarlyStopping("gradcam/drift/block5_conv3", mode="min", patience=9)
    callback = LosesMaps(probe, "block5")
    trainer = fit(Scheduled(), lift, drift, saves, callback, max_epochs=4, enable_checkpointing=True)
    assert trainer.current_epoch == 4 and [entry["epoch"] for entry in callback.history] == [1, 2, 3]
    assert [path.stem for path in sorted((tmp_path / "kept").iterdir())] == [f"epoch={epoch}" for epoch in range(4)]
    lifts = [entry["gradcam/lift/block5_conv3"] for entry in callback.history]
    assert float(lift.best_score) == pytest.approx(max(lifts), rel=1e-5), "what stood in for a value was none"
    drifts = [entry["gradcam/drift/block5_conv3"] for entry in callback.history[1:]]
    assert float(drift.best_score) == pytest.approx(min(drifts), rel=1e-5)
    assert [event.value for event in events().Scalars("gradcam/drift/block5_conv3")] == pytest.approx(drifts)


def test_what_stands_in_for_a_value_is_no_divergence(fit, probe):
    """EarlyStopping ends a training whose metric is worse than its threshold."""
    lift = EarlyStopping("gradcam/lift/block5_conv3", mode="max", patience=9, divergence_threshold=0.0)
    drift = EarlyStopping("gradcam/drift/block5_conv3", mode="min", patience=1, divergence_threshold=2.5)
    trainer = fit(ThinVGG(), lift, drift, LosesMaps(probe, "block5", views=[]), max_epochs=3)
    assert trainer.current_epoch == 3 and drift.wait_count == 0, "nor did it use up patience"
    assert float(lift.best_score) > 0.01 and float(drift.best_score) < 2.01, "real values are better"


@pytest.mark.parametrize(
    ("name", "masked", "reason", "kind"),
    [
        ("gradcam/lift/block5", True, "there is no such scalar", "EarlyStopping"),
        ("gradcam/drift/block9_conv1", True, "there is no such scalar", "ModelCheckpoint"),
        ("gradcam/lift/block5_conv3", False, "the probe set has no masks; give some, such as", "EarlyStopping"),
        ("gradcam/swap_accuracy", False, "the probe set has no masks", "ReduceLROnPlateau"),
        ("gradcam/border_mass/block5_conv3", True, "it is logged if no probe image has a mask", "ModelCheckpoint"),
    ],
)
def test_a_monitor_that_can_never_come_is_said_before_the_first_step(fit, probe, tmp_path, name, masked, reason, kind):
    probe = ProbeSet(probe.images, probe.labels, probe.masks if masked else None)
    module, waiting = ThinVGG(), []
    if kind == "ReduceLROnPlateau":
        module = Scheduled(name)
    else:
        waiting = [EarlyStopping(name) if kind == "EarlyStopping" else ModelCheckpoint(tmp_path / "kept", monitor=name)]
    logger = TensorBoardLogger(tmp_path, name="refused")
    with pytest.raises(ValueError, match=f"the monitor of {kind} .* but '{name}' never comes: {reason}.*Choose one of"):
        fit(module, GradCAMCallback(probe, "block5"), *waiting, logger=logger, enable_checkpointing=True)
    assert module.losses == []
    assert not list((tmp_path / "refused").glob("version_*")), "a start that was refused leaves no empty folder"


def test_a_monitor_that_need_not_come_or_belongs_to_another_is_left_alone(fit, probe):
    unmasked = ProbeSet(probe.images, probe.labels)
    lenient = EarlyStopping("gradcam/lift/block5_conv3", strict=False)
    fit(ThinVGG(), GradCAMCallback(unmasked, "block5", views="layer"), lenient, max_epochs=1)
    with pytest.warns(RuntimeWarning, match="ReduceLROnPlateau conditioned on metric"):
        fit(Scheduled(strict=False), GradCAMCallback(unmasked, "block5", views="layer"), max_epochs=1)
    below = GradCAMCallback(probe, "block5", tag_prefix="gradcam/masked", views="layer")
    of_other = EarlyStopping("gradcam/masked/lift/block5_conv3", mode="max")
    fit(ThinVGG(), GradCAMCallback(unmasked, "block5", views="layer"), below, of_other, max_epochs=1)


def test_of_two_monitors_of_one_scalar_each_counts(fit, probe):
    unmasked = ProbeSet(probe.images, probe.labels)
    stop = EarlyStopping("gradcam/lift/block5_conv3", mode="max")
    with pytest.raises(ValueError, match="the monitor of EarlyStopping .* never comes"):
        fit(Scheduled(strict=False), GradCAMCallback(unmasked, "block5"), stop)


def test_a_folder_with_logs_of_before_stays_when_a_start_is_refused(fit, probe, tmp_path):
    logger = TensorBoardLogger(tmp_path, name="kept")
    fit(ThinVGG(), GradCAMCallback(probe, "block5", views="layer"), logger=logger, max_epochs=1)
    with pytest.raises(ValueError, match="never comes"):
        fit(ThinVGG(), GradCAMCallback(probe, "block5"), EarlyStopping("gradcam/none"), logger=logger)
    assert list((tmp_path / "kept" / "version_0").glob("events*"))


@pytest.mark.parametrize("name", ["gradcam/lift/block5_conv3", "gradcam/lift_by_class/block5_conv3/%2E%2E"])
def test_a_resumed_run_that_has_yet_to_log_has_the_values_of_before(thin, fit, probe, tmp_path, name):
    probe = ProbeSet(probe.images, probe.labels, probe.masks, class_names=["..", "heart", "moon"])
    stop = EarlyStopping(name, mode="max", patience=9)
    first = GradCAMCallback(probe, "block5", every_n_epochs=3)
    fit(thin, first, stop, max_epochs=1).save_checkpoint(tmp_path / "last.ckpt")
    second = GradCAMCallback(probe, "block5", every_n_epochs=3)
    trainer = fit(ThinVGG(), second, stop, max_epochs=3, resume=tmp_path / "last.ckpt")
    assert trainer.current_epoch == 3 and second.history == first.history
    assert float(trainer.callback_metrics[name]) == pytest.approx(first.history[0][name])


@pytest.mark.parametrize("masked", [True, False])
def test_maps_that_are_all_empty_have_no_place_and_stop_nothing(thin, fit, probe, events, masked):
    """Its last block gives nothing, so no map has a place; a NaN would end an EarlyStopping's training."""
    torch.nn.init.constant_(thin.features[-3].weight, 0.0)
    torch.nn.init.constant_(thin.features[-3].bias, -1.0)
    probe = probe if masked else ProbeSet(probe.images, probe.labels)
    callback = GradCAMCallback(probe, ["block5_conv2", "block5_conv3"], views="all")
    metric = "lift" if masked else "centre_distance"
    trainer = fit(thin, callback, EarlyStopping(f"gradcam/{metric}/block5_conv3", mode="max", patience=9))
    assert trainer.current_epoch == 2
    scalars = events().Tags()["scalars"]
    assert [event.value for event in events().Scalars("gradcam/empty/block5_conv3")] == [1, 1]
    measures = {tag.split("/")[1] for tag in scalars if tag.endswith("/block5_conv3")}
    defined = {"empty", "strength", "drift"} | ({"pointing_game"} if masked else set())
    assert measures == defined, "an entropy of 0 would say: one cell; a distance of 0: in the middle; a lift: not there"
    assert all(value == value for entry in callback.history for value in entry.values())
    if masked:
        assert "At block5_conv3, the maps of all these images are empty." in callback.verdict.evidence
        assert "gradcam/depth_profile" in events().Tags()["images"], "and what is there is still drawn"


# Names that would do harm.

HOSTILE = [
    "<script>document.title = 'pwned'</script>",
    '"><img src=x onerror="document.title = 1">',
    "../../../escaped",
    "..",
    "a\nb",
    "nul\0nul",
    "x" * 300,
    "</script><script>alert(1)",
]


def test_hostile_names_stay_names(thin, fit, tmp_path, events):
    """As names of images and of classes, through a real training, into all that it writes."""
    images = torch.rand(len(HOSTILE), 3, 48, 48)
    masks = torch.zeros(len(HOSTILE), 48, 48, dtype=torch.bool)
    masks[:, 20:40, 20:40] = True
    labels = [i % 3 for i in range(len(HOSTILE))]
    probe = ProbeSet(images, labels, masks, names=HOSTILE, class_names=HOSTILE[:3])
    inside = tmp_path / "deep" / "down"
    callback = GradCAMCallback(probe, "block5", save_dir=inside / "focus", save_maps=True, check_faithfulness=True)
    loggers = [TensorBoardLogger(inside, name="run", version=""), CSVLogger(inside, name="csv", version="")]
    fit(thin, callback, logger=loggers)
    outside = {path for path in tmp_path.rglob("*") if path.is_file() and inside not in path.parents}
    assert outside == set() and not (tmp_path.parent / "escaped").exists()

    tags = events(inside / "run").Tags()
    shown = [tag.removeprefix("gradcam/probe/") for tag in tags["images"] if tag.startswith("gradcam/probe/")]
    assert len(shown) == len(HOSTILE)
    for tag in [*tags["images"], *tags["scalars"]]:
        assert tag.isprintable() and not set('"\\') & set(tag), "TensorBoard's data server shows no picture of these"
    for source in ("run", "focus"):
        write_report(inside / source, tmp_path / f"{source}.html")
        page = Names()
        page.feed((tmp_path / f"{source}.html").read_text())
        assert page.scripts == 2 and page.attributes == [], "the data and our script; nothing that runs by itself"
        assert "document.title" in page.text and "pwned" in page.text, "it is there to be read"


class Names(HTMLParser):
    """The scripts that a browser would run, and the text that it would show."""

    def __init__(self):
        super().__init__()
        self.scripts, self.attributes, self.text = 0, [], ""

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"
        self.attributes += [name for name, _ in attributes if name == "onerror"]

    def handle_data(self, data):
        self.text += data


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:MLFlow only allows:RuntimeWarning")
def test_hostile_names_end_no_training_that_mlflow_logs(thin, fit, tmp_path, monkeypatch):
    """MLflow takes no metric whose name is a way out of its folder, and Lightning gives it all scalars."""
    masks = torch.zeros(3, 48, 48, dtype=torch.bool)
    masks[:, 20:40, 20:40] = True
    probe = ProbeSet(torch.rand(3, 3, 48, 48), [0, 1, 2], masks, class_names=["..", "a/../../x", "a\nb"])
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger("focus", tracking_uri=f"file:{tmp_path / 'mlruns'}")
    trainer = fit(thin, GradCAMCallback(probe, "block5_conv3"), logger=logger)
    assert trainer.current_epoch == 2


def test_two_callbacks_may_not_write_to_one_folder(thin, fit, probe, tmp_path):
    first = GradCAMCallback(probe, "block4", save_dir=tmp_path / "focus")
    second = GradCAMCallback(probe, "block5", save_dir=tmp_path / "other" / ".." / "focus")
    with pytest.raises(
        ValueError, match="Expected a `save_dir` of its own for each GradCAMCallback, but got .*focus. twice"
    ):
        fit(thin, first, second)
    assert thin.losses == []
