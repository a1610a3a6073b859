"""The page in one file holds what was logged, whatever it is read from."""

import base64
import json
import re
import shutil
import struct
import sys
import zlib
from dataclasses import replace

import numpy as np
import pytest
import pytorch_lightning as pl
from conftest import ThinVGG
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.summary.writer.record_writer import RecordWriter
from test_suspicion import ReadsTheGround
from torch.utils.data import DataLoader

from gradcam_callback import GradCAM, GradCAMCallback, ProbeSet, write_report
from gradcam_callback.__main__ import main
from gradcam_callback.offline.logged_run import read_runs
from gradcam_callback.run.album import tone_of
from gradcam_focus import records

LAYERS = ["block4_conv3", "block5_conv3"]


@pytest.fixture(scope="module")
def probe(toys):
    chosen = ProbeSet.from_dataset(toys, 2)
    names = ["star <b>&", "企鹅", "moon", "</script><script>alert(1)</script>", "a", "b"]
    return ProbeSet(chosen.images, chosen.labels, chosen.masks, names=names, class_names=chosen.class_names)


@pytest.fixture(scope="module")
def logged(toys, probe, tmp_path_factory):
    """One training, in an event file, in plain files, and in raw maps: the folder, the callback and the network."""
    folder, network = tmp_path_factory.mktemp("report"), ThinVGG()
    callback = GradCAMCallback(probe, LAYERS, log_before_training=True, save_dir=folder / "files")
    saving = GradCAMCallback(probe, LAYERS, tag_prefix="saved", log_before_training=True, save_maps=True)
    pl.seed_everything(7, verbose=False)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    logger = TensorBoardLogger(folder, name="run", version="")
    trainer = pl.Trainer(max_epochs=2, callbacks=[callback, saving], logger=logger, accelerator="cpu", **quiet)
    trainer.fit(network, DataLoader(toys, batch_size=6, shuffle=True), DataLoader(toys, batch_size=6))
    return folder, callback, network.eval()


@pytest.fixture
def run(logged, tmp_path):
    """A copy of what was logged, in the folder of the test; and the callback."""
    shutil.copytree(logged[0], tmp_path, dirs_exist_ok=True)
    return logged[1]


def data_of(page):
    """Return the data that the script of the page reads."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), flags=re.S)
    return json.loads(found)["runs"]


def unpack(packed):
    content = zlib.decompress(base64.b64decode(packed))
    n, height, width = struct.unpack("<3I", content[:12])
    maxima = np.frombuffer(content, "<f4", n, 12)
    units = np.frombuffer(content, np.uint8, offset=12 + 4 * n).reshape(n, height, width)
    return units / 255 * maxima[:, None, None]


@pytest.mark.parametrize("source", ["run", "files"])
def test_the_page_holds_every_image_layer_and_epoch_and_needs_nothing_else(run, tmp_path, probe, source):
    write_report(tmp_path / source, tmp_path / "focus.html", tag_prefix="gradcam")
    (shown,) = data_of(tmp_path / "focus.html")
    assert shown["run"] == source
    assert shown["start"]["names"] == list(probe.names) and shown["start"]["layers"] == LAYERS
    assert [(entry["epoch"], entry["step"]) for entry in shown["entries"]] == [
        (entry["epoch"], entry["step"]) for entry in run.history
    ]
    last = shown["entries"][-1]
    assert last["verdict"]["headline"] == run.verdict.headline and last["verdict"]["evidence"] == run.verdict.evidence
    for name, value in last["scalars"].items():
        assert value == pytest.approx(run.history[-1][f"gradcam/{name}"], abs=1e-6)
    assert len(last["scalars"]) == len(run.history[-1]) - 2
    for maps in shown["maps"].values():
        assert maps["steps"] == [entry["step"] for entry in shown["entries"]] and len(maps["maps"]) == 3
    page = (tmp_path / "focus.html").read_text()
    assert "企鹅" in page and page.count("<script") == 2 and page.count("</script>") == 2, "names run nothing"
    assert not re.search(r"(src|href)=[\"']?(https?:|//)|import .* from", page), "nothing is fetched from anywhere"


@pytest.mark.parametrize("source", ["run", "files"])
def test_maps_are_those_of_the_image_the_layer_and_the_epoch(run, logged, tmp_path, probe, source):
    cams = GradCAM(logged[2], LAYERS)(probe.images, probe.labels)
    write_report(tmp_path / source, tmp_path / "focus.html", tag_prefix="gradcam")
    (shown,) = data_of(tmp_path / "focus.html")
    for layer, maps in cams.maps.items():
        saved = unpack(shown["maps"][layer]["maps"][-1])
        # A unit is a 255th of the maximum, and rounding is half a unit.
        most = maps.amax(dim=(1, 2)).numpy()[:, None, None] / 255 / 2
        assert (np.abs(saved - maps.numpy()) <= most * 1.001).all(), layer


def test_answers_are_those_of_the_network(run, logged, tmp_path, probe):
    write_report(tmp_path / "files", tmp_path / "focus.html")
    (shown,) = data_of(tmp_path / "focus.html")
    entry, sets = shown["entries"][-1], shown["start"]["sets"]
    probabilities = GradCAM(logged[2], LAYERS).predict(probe.images).softmax(dim=1)
    for (prediction, probability, correct, explained), own, label in zip(
        entry["predictions"], probabilities, probe.labels.tolist(), strict=True
    ):
        assert prediction == probe.class_names[int(own.argmax())]
        assert probability == pytest.approx(float(own.max()), abs=1e-4)
        assert correct == (int(own.argmax()) == label) and explained == probe.class_names[label]
    assert set(sets) == set(entry["answers"]) == {"same_class", "other_class", "background", "foreground"}
    for name, scalar in (("background", "background_accuracy"), ("foreground", "foreground_accuracy")):
        right = [answer[2] for answer in entry["answers"][name] if answer]
        assert np.mean(right) == pytest.approx(run.history[-1][f"gradcam/{scalar}"])
    for name, of_set in sets.items():
        assert len(of_set["numbers"]) == len(of_set["images"]) == len(entry["answers"][name]) >= 6


def test_maps_that_were_saved_beside_the_logs_are_a_run_too(run, tmp_path):
    folder = next(path.parent for path in tmp_path.rglob("maps") if path.is_dir())
    write_report(folder, tmp_path / "focus.html")
    (shown,) = data_of(tmp_path / "focus.html")
    assert shown["start"]["prefix"] == "saved" and len(shown["entries"]) == 3


def test_long_runs_are_thinned_from_the_first_to_the_last_epoch(thin, fit, tmp_path, probe):
    fit(thin, GradCAMCallback(probe, LAYERS[1:], views="probe"), max_epochs=6)
    (run,) = read_runs(tmp_path / "run")
    epochs = [run.entries[step]["epoch"] for step in run.pick(3)]
    assert epochs == [0, 2, 5] and run.pick(99) == list(run.entries)
    assert run.pick(1) == list(run.entries)[-1:]
    write_report(tmp_path / "run", tmp_path / "focus.html", max_epochs=3)
    (shown,) = data_of(tmp_path / "focus.html")
    assert [entry["epoch"] for entry in shown["entries"]] == epochs
    assert shown["maps"][LAYERS[1]]["steps"] == run.pick(3)
    # The curves have them all.
    others = [run.entries[step] for step in run.entries if step not in run.pick(3)]
    assert shown["others"]["epoch"] == [entry["epoch"] for entry in others] == [1, 3, 4]
    assert shown["others"]["step"] == [entry["step"] for entry in others]
    assert shown["others"]["judged"] == [entry["judged"] for entry in others]
    assert shown["others"]["probe_accuracy"] == [entry["verdict"]["probe_accuracy"] for entry in others]
    for place, entry in enumerate(others):
        kept = {name: values[place] for name, values in shown["others"]["scalars"].items()}
        assert {name: value for name, value in kept.items() if value is not None} == entry["scalars"]


@pytest.mark.parametrize(("epochs", "tone"), [(1, "unknown"), (2, "suspected")])
@pytest.mark.filterwarnings("ignore::gradcam_callback.ShortcutWarning")
def test_the_box_is_red_only_if_a_shortcut_is_suspected(toys, fit, tmp_path, epochs, tone):
    """The first epoch's headline says "POSSIBLE SHORTCUT, said by a single epoch so far", which accuses nobody."""
    callback = GradCAMCallback(ProbeSet.from_dataset(toys, 4), LAYERS[1:])
    fit(ReadsTheGround(toys), callback, max_epochs=epochs)
    assert "SHORTCUT" in callback.verdict.headline and callback.verdict.suspected == (tone == "suspected")
    (run,) = read_runs(tmp_path / "run")
    assert list(run.entries.values())[-1]["verdict"]["tone"] == tone


@pytest.mark.parametrize(
    ("basis", "headline", "tone"),
    [
        ("masks", "NO SIGN OF A SHORTCUT: right in 100 % as they are", "clear"),
        ("automatic masks", "NO SIGN OF A SHORTCUT, as far as automatic masks can tell: right", "unknown"),
        ("masks", "NO SIGN OF A SHORTCUT, as far as boxes can tell: right", "unknown"),
        ("frame", "NOT KNOWN, only the frame of the picture was tried", "unknown"),
        ("masks", "UNCLEAR, so few images may also say so by chance: right", "unknown"),
    ],
)
def test_the_box_is_green_only_if_given_masks_acquit(logged, basis, headline, tone):
    verdict = replace(logged[1].verdict, basis=basis, headline=headline, suspected=False, acquits=tone == "clear")
    assert tone_of(verdict) == tone
    assert tone_of(replace(verdict, suspected=True)) == "suspected"


def test_of_two_callbacks_the_page_shows_both_or_the_one_that_is_asked_for(thin, fit, tmp_path, probe):
    first, second = GradCAMCallback(probe, LAYERS[0]), GradCAMCallback(probe, LAYERS[1])
    fit(thin, first, second, max_epochs=1)
    for prefix, layers in ((None, LAYERS), ("gradcam", LAYERS[:1]), ("gradcam_2", LAYERS[1:])):
        write_report(tmp_path / "run", tmp_path / "focus.html", tag_prefix=prefix)
        shown = data_of(tmp_path / "focus.html")
        assert [run["start"]["layers"] for run in shown] == [[layer] for layer in layers]
        assert {run["run"] for run in shown} == {"run"}
    with pytest.raises(ValueError, match=r"Expected one of the prefixes 'gradcam', 'gradcam_2', but got 'x'"):
        write_report(tmp_path / "run", tmp_path / "focus.html", tag_prefix="x")


def test_a_callback_without_an_entry_hides_no_other(run, tmp_path):
    """Such as one that waits for its first validation, or a test that was interrupted."""
    (path,) = (tmp_path / "run").glob("events.out.tfevents.*")
    events = list(EventFileLoader(str(path)).Load())
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for event in events:
            if not any(value.tag == "saved/focus/entry" for value in event.summary.value):
                writer.write(event.SerializeToString())
    write_report(tmp_path / "run", tmp_path / "focus.html")
    assert [shown["start"]["prefix"] for shown in data_of(tmp_path / "focus.html")] == ["gradcam"]
    with pytest.raises(ValueError, match="Expected a logged validation, but the run 'saved' in .* has none"):
        write_report(tmp_path / "run", tmp_path / "focus.html", tag_prefix="saved")


def test_a_history_of_another_program_hides_no_event_file(run, tmp_path):
    (tmp_path / "run" / "history.json").write_text("{}")
    assert [logged.prefix for logged in read_runs(tmp_path / "run")] == ["gradcam", "saved"]


def test_several_runs_have_names_of_their_own(run, tmp_path):
    """Each holds two callbacks. The page finds a run by its name and its prefix."""
    copies = ["x/a/version_0", "x/b/version_0", "y/a/version_0", "x/c/run"]
    for copy in copies:
        shutil.copytree(tmp_path / "run", tmp_path / copy)
    for given, names in (
        ([copies[0], copies[1], copies[3], "run"], ["a/version_0", "b/version_0", "c/run", f"{tmp_path.name}/run"]),
        (copies[:3], ["x/a/version_0", "b/version_0", "y/a/version_0"]),
        ([copies[0], copies[0], "x/b/../a/version_0"], ["a/version_0"]),
    ):
        write_report([tmp_path / each for each in given], tmp_path / "new" / "focus.html")
        shown = [(run["run"], run["start"]["prefix"]) for run in data_of(tmp_path / "new" / "focus.html")]
        assert shown == [(name, prefix) for name in names for prefix in ("gradcam", "saved")]


def test_without_masks_the_run_says_what_is_not_known(thin, fit, tmp_path, probe):
    fit(thin, GradCAMCallback(ProbeSet(probe.images, probe.labels), LAYERS))
    (run,) = read_runs(tmp_path / "run")
    assert run.start["caution"].startswith("No masks: whether the background decides is known from the frame only.")
    assert run.start["basis"] == "frame" and set(run.start["sets"]) == {"same_class", "other_class"}
    assert run.start["masks"] == [None] * len(probe)
    last = list(run.entries.values())[-1]
    assert last["verdict"]["tone"] == "unknown" and "frame_gap" in last["scalars"]


def test_without_labels_there_is_no_verdict(thin, fit, tmp_path, probe):
    fit(thin, GradCAMCallback(ProbeSet(probe.images), LAYERS, target="predicted"))
    (run,) = read_runs(tmp_path / "run")
    assert run.start["labels"] is None and run.start["sets"] == {}
    assert [entry["verdict"] for entry in run.entries.values()] == [None, None]
    for entry in run.entries.values():
        assert [correct for _, _, correct, _ in entry["predictions"]] == [None] * len(probe)


def test_records_that_are_no_part_of_the_history_are_not_shown(run, tmp_path):
    """A run that was resumed from an earlier checkpoint leaves some behind."""
    folder = tmp_path / "files"
    history = json.loads((folder / "history.json").read_text())
    dropped = history["history"].pop()
    (folder / "history.json").write_text(json.dumps(history))
    assert (folder / f"focus/{int(dropped['step']):08d}.json").exists()
    (read,) = read_runs(folder)
    assert list(read.entries) == [entry["step"] for entry in history["history"]]


def test_a_run_that_starts_anew_with_other_layers_has_no_entry_yet(run, tmp_path):
    start = tmp_path / "files" / "focus" / "start.json"
    described = json.loads(start.read_text())
    start.write_text(json.dumps({**described, "layers": [*LAYERS, "block3_conv3"]}))
    with pytest.raises(ValueError, match="Expected a logged validation, .* Wait for the first validation"):
        read_runs(tmp_path / "files")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "Expected the folder of one run, but .*empty. holds no event file and no history.json"),
        (lambda folder: (folder / "a").mkdir() or (folder / "a" / "events.out.tfevents.1").touch(), "such as .*a"),
        (lambda folder: (folder / "events.out.tfevents.1").touch(), "records of a GradCAMCallback, but .* holds none"),
        (lambda folder: (folder / "history.json").touch(), "records of a GradCAMCallback, but .* holds none"),
    ],
)
def test_what_is_no_run_is_said(tmp_path, prepare, message):
    (tmp_path / "empty").mkdir()
    prepare(tmp_path / "empty")
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path / "empty", tmp_path / "focus.html")
    with pytest.raises(ValueError, match="Expected the folder of a run, but got none"):
        write_report([], tmp_path / "focus.html")
    with pytest.raises(ValueError, match="Expected `max_epochs` to be 1 or more, but got 0"):
        write_report(tmp_path, tmp_path / "focus.html", max_epochs=0)


def test_records_of_another_version_are_refused(run, tmp_path):
    start = tmp_path / "files/focus/start.json"
    start.write_text(json.dumps({**json.loads(start.read_text()), "version": 99}))
    with pytest.raises(ValueError, match=f"Expected records of version {records.VERSION}, but got version 99"):
        write_report(tmp_path / "files", tmp_path / "focus.html")


def test_a_run_without_an_entry_is_said(run, tmp_path):
    (tmp_path / "files" / "history.json").write_text(json.dumps({"history": [], "verdict": None}))
    with pytest.raises(ValueError, match="Expected a logged validation, but the run 'gradcam' in .* has none"):
        write_report(tmp_path / "files", tmp_path / "focus.html")


def test_command_line(run, tmp_path, monkeypatch, capsys):
    out = tmp_path / "x.html"
    monkeypatch.setattr(sys, "argv", ["", "report", str(tmp_path / "run"), str(tmp_path / "files"), "-o", str(out)])
    main()
    assert capsys.readouterr().out == f"{out}\n"
    assert [shown["start"]["prefix"] for shown in data_of(out)] == ["gradcam", "saved", "gradcam"]
