"""The plugin of the Focus tab answers with what was logged, and harms no TensorBoard."""

import base64
import importlib.metadata
import json
import shutil
import subprocess
import sys
import types

import pytest
import pytorch_lightning as pl
from conftest import ThinVGG
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.data import DataLoader
from werkzeug.test import Client

from gradcam_callback import GradCAM, GradCAMCallback, ProbeSet, Style
from gradcam_callback.offline.logged_run import read_runs
from gradcam_callback.run import Evaluator, RunLogger, RunState, Tags
from gradcam_callback.run.album import tone_of
from gradcam_callback.writers import TensorBoardWriter
from gradcam_focus import records
from gradcam_focus.loader import FocusLoader

# Of a library inside TensorBoard.
pytestmark = pytest.mark.filterwarnings("ignore:html5lib's sanitizer is deprecated:DeprecationWarning")
LAYERS = ["block4_conv3", "block5_conv3"]
NAMES = ["</script><b>", "../../etc/passwd", "企鹅"]


@pytest.fixture(scope="module")
def logged(toys, tmp_path_factory):
    """The folder of the logs, and the callback."""
    folder = tmp_path_factory.mktemp("focus")
    plain = ProbeSet.from_dataset(toys, 1)
    callback = GradCAMCallback(ProbeSet(plain.images, plain.labels, plain.masks, names=NAMES), LAYERS)
    pl.seed_everything(7, verbose=False)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    logger = TensorBoardLogger(folder, name="run", version="")
    trainer = pl.Trainer(max_epochs=12, callbacks=[callback], logger=logger, accelerator="cpu", **quiet)
    trainer.fit(ThinVGG(), DataLoader(toys, batch_size=6, shuffle=True), DataLoader(toys, batch_size=6))
    return folder, callback


def open_plugin(folder, **samples):
    """Return a client of the plugin, with the data provider that TensorBoard has without its faster server."""
    flags = types.SimpleNamespace(samples_per_plugin=samples)
    FocusLoader().fix_flags(flags)
    guidance = {"tensors": 10, "images": 1, "scalars": 1}
    multiplexer = EventMultiplexer(size_guidance=guidance, tensor_size_guidance=flags.samples_per_plugin)
    multiplexer.AddRunsFromDirectory(str(folder)).Reload()
    context = TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(folder)), flags=flags)
    return FocusLoader().load(context)


def ask(plugin, route, **values):
    answer = Client(plugin.get_plugin_apps()[route]).get(route, query_string=values)
    return answer.status_code, answer.get_json()


def test_the_entry_point_is_installed():
    (found,) = importlib.metadata.entry_points(group="tensorboard_plugins", name="gradcam_focus")
    assert found.load() is FocusLoader


def test_runs_in_one_folder_are_told_apart_by_the_prefix_of_their_loggers(thin, fit, probe, tmp_path):
    loggers = [TensorBoardLogger(tmp_path, name="run", version="", prefix=prefix) for prefix in ("a", "b")]
    fit(thin, GradCAMCallback(probe, LAYERS[1:], views="overview"), logger=loggers)
    prefixes = ["a-gradcam", "b-gradcam"]
    runs = read_runs(tmp_path / "run")
    assert [run.prefix for run in runs] == [run.describe(5)["start"]["prefix"] for run in runs] == prefixes
    assert [(len(run.entries), len(run.maps[LAYERS[1]])) for run in runs] == [(2, 2)] * 2
    plugin = open_plugin(tmp_path)
    _, listed = ask(plugin, "/runs")
    assert sorted(run["prefix"] for run in listed) == prefixes
    for prefix in prefixes:
        assert len(ask(plugin, "/log", run="run", prefix=prefix)[1]["entries"]) == 2
        assert len(ask(plugin, "/maps", run="run", prefix=prefix, layer=LAYERS[1])[1]["steps"]) == 2


def test_runs_are_listed_by_their_numbers(logged, tmp_path):
    folder, _ = logged
    for number in (10, 2, 1):
        shutil.copytree(folder / "run", tmp_path / f"version_{number}")
    _, listed = ask(open_plugin(tmp_path), "/runs")
    assert [run["run"] for run in listed] == ["version_1", "version_2", "version_10"]


def test_it_says_how_it_is_shown_without_looking_at_anything():
    plugin = FocusLoader().load(TBContext())
    metadata = plugin.frontend_metadata()
    assert metadata.tab_name == "Focus" and metadata.es_module_path == "/static/index.js"
    assert not plugin.is_active(), "TensorBoard lights the tab by the data"
    status, answer = ask(plugin, "/runs")
    assert status == 404 and "no data" in answer["error"], "a TensorBoard without a data provider"


def test_a_plugin_that_cannot_be_loaded_leaves_the_others_alone(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "gradcam_focus.plugin", None)
    with caplog.at_level("WARNING", "tensorboard"):
        assert FocusLoader().load(TBContext()) is None
    assert "The Focus tab of gradcam_callback is left out" in caplog.text


def test_it_imports_little():
    code = (
        "import sys, gradcam_focus.loader, gradcam_focus.plugin; print(*{name.split('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "gradcam_callback", "pytorch_lightning", "matplotlib"} & set(loaded)


@pytest.mark.parametrize("given", [{}, {"gradcam_focus": 3}])
def test_all_entries_are_there_unless_somebody_wants_fewer(logged, given):
    folder, callback = logged
    plugin = open_plugin(folder, **given)
    _, log = ask(plugin, "/log", run="run", prefix="gradcam")
    assert len(log["entries"]) == given.get("gradcam_focus", len(callback.history))


def test_the_answers_are_what_was_logged(logged):
    folder, callback = logged
    plugin = open_plugin(folder)
    status, (run,) = ask(plugin, "/runs")
    assert (status, run["run"], run["prefix"]) == (200, "run", "gradcam")
    assert run["newest"] == {"epoch": 11, "headline": callback.verdict.headline, "tone": tone_of(callback.verdict)}
    _, log = ask(plugin, "/log", run="run", prefix="gradcam")
    assert log["start"]["names"] == NAMES and log["start"]["layers"] == LAYERS
    assert (log["began"], log["until"]) == (run["began"], run["last"])
    assert [entry["step"] for entry in log["entries"]] == [entry["step"] for entry in callback.history]
    assert log["entries"][-1]["verdict"]["headline"] == callback.verdict.headline
    _, maps = ask(plugin, "/maps", run="run", prefix="gradcam", layer=LAYERS[1])
    assert maps["began"] == run["began"]
    assert maps["steps"] == [entry["step"] for entry in callback.history] and all(maps["maps"])


def test_only_what_is_new_is_read_of_a_run_that_grows(logged, tmp_path):
    folder, callback = logged
    steps = [int(entry["step"]) for entry in callback.history]
    (path,) = (folder / "run").glob("events*")
    events = list(EventFileLoader(str(path)).Load())
    # The first event after the entry of the ninth epoch.
    cut = 1 + next(i for i, event in enumerate(events) if of_entry(event) and event.step == steps[8])
    copy(events[:cut], tmp_path / "run" / "events.out.tfevents.1.a")
    plugin = open_plugin(tmp_path)
    _, before = ask(plugin, "/log", run="run", prefix="gradcam")
    _, maps_before = ask(plugin, "/maps", run="run", prefix="gradcam", layer=LAYERS[0])
    assert [entry["step"] for entry in before["entries"]] == maps_before["steps"] == steps[:9]
    copy(events[cut:], tmp_path / "run" / "events.out.tfevents.2.b")
    grown = open_plugin(tmp_path)
    _, after = ask(grown, "/log", run="run", prefix="gradcam", since=before["until"])
    _, maps_after = ask(grown, "/maps", run="run", prefix="gradcam", layer=LAYERS[0], since=maps_before["until"])
    assert [entry["step"] for entry in after["entries"]] == maps_after["steps"] == steps[9:]
    assert after["start"] is None, "the images are not sent again"
    assert ask(grown, "/log", run="run", prefix="gradcam", since=after["until"])[1]["entries"] == []


def of_entry(event):
    return any(value.tag == "gradcam/focus/entry" for value in event.summary.value)


def copy(events, path):
    path.parent.mkdir(exist_ok=True)
    writer = RecordWriter(path.open("wb"))
    for event in events:
        writer.write(event.SerializeToString())
    writer.close()


@pytest.mark.parametrize("goes_on", [False, True])
def test_of_a_folder_with_two_trainings_the_last_one_is_shown_and_of_a_resumed_run_all_of_it(
    toys, logged, tmp_path, goes_on
):
    """The second training has other steps, and fewer of them."""
    folder, first = logged
    shutil.copytree(folder / "run", tmp_path / "run")
    earlier = [int(entry["step"]) for entry in first.history]
    state = RunState()
    state.watch(first.probe, LAYERS[:1])
    if goes_on:
        state.history += [{"epoch": epoch, "step": step} for epoch, step in enumerate(earlier[:4])]
        state.in_part += [False] * 4
    evaluator = Evaluator(GradCAM(ThinVGG(), LAYERS[:1]), first.probe)
    logger = TensorBoardLogger(tmp_path, name="run", version="")
    writers = [TensorBoardWriter(logger)]
    log = RunLogger(evaluator, state, writers, Tags(), report=pytest.fail, style=Style(), views=["overview"])
    log.start()
    logger.experiment.flush()
    left = earlier[:4] if goes_on else []
    plugin = open_plugin(tmp_path)
    _, answer = ask(plugin, "/log", run="run", prefix="gradcam")
    assert [entry["step"] for entry in answer["entries"]] == left, "nothing is logged yet"
    _, (run,) = ask(plugin, "/runs")
    assert (run["newest"] or {}).get("epoch") == (3 if goes_on else None)
    steps = [earlier[4] + 1, earlier[5]]
    for epoch, step in enumerate(steps, start=4):
        log.log(evaluator.evaluate(), epoch, step)
    logger.experiment.close()
    _, answer = ask(open_plugin(tmp_path), "/log", run="run", prefix="gradcam")
    assert [entry["step"] for entry in answer["entries"]] == [*left, *steps]
    assert answer["start"]["layers"] == LAYERS[:1]
    (in_file,) = read_runs(tmp_path / "run")
    assert list(in_file.entries) == [*left, *steps] and in_file.start["layers"] == LAYERS[:1]
    packed = log._recorder.maps(evaluator.evaluate())[LAYERS[0]]
    assert in_file.maps[LAYERS[0]][steps[1]] == packed, "the last writer of a step wins"
    _, maps = ask(open_plugin(tmp_path), "/maps", run="run", prefix="gradcam", layer=LAYERS[0])
    assert base64.b64decode(maps["maps"][maps["steps"].index(steps[1])]) == packed


@pytest.mark.parametrize(
    ("route", "values", "status", "message"),
    [
        ("/log", {"run": "run"}, 400, "Expected the argument 'prefix'"),
        ("/log", {"run": "other", "prefix": "gradcam"}, 404, "has not read this run yet"),
        ("/log", {"run": "../run", "prefix": "gradcam"}, 404, "has not read this run yet"),
        ("/maps", {"run": "run", "prefix": "gradcam"}, 400, "Expected the argument 'layer'"),
    ],
)
def test_a_wrong_question_is_answered_with_what_is_wrong(logged, route, values, status, message):
    found, answer = ask(open_plugin(logged[0]), route, **values)
    assert found == status and message in answer["error"]


def test_unknown_layers_have_no_maps(logged):
    status, answer = ask(open_plugin(logged[0]), "/maps", run="run", prefix="gradcam", layer="x")
    assert (status, answer["steps"], answer["maps"], answer["until"]) == (200, [], [], None)


def test_an_error_of_the_data_is_an_answer(logged):
    plugin = open_plugin(logged[0])
    plugin._data = types.SimpleNamespace(list_tensors=lambda *_, **__: 1 / 0)
    assert ask(plugin, "/runs") == (500, {"error": "ZeroDivisionError: division by zero"})


def test_records_of_another_version_are_refused_in_words(logged, monkeypatch):
    own = records.VERSION
    monkeypatch.setattr(records, "VERSION", own + 1)
    status, answer = ask(open_plugin(logged[0]), "/log", run="run", prefix="gradcam")
    assert status == 500 and f"Expected records of version {own + 1}, but got version {own}. Read" in answer["error"]


@pytest.mark.parametrize(
    "path",
    ["index.js", "focus.css", "../plugin.py", "%2e%2e/plugin.py", "..%2fplugin.py", "/etc/passwd", "frozen.html", ""],
)
def test_only_the_files_of_the_page_are_served(logged, path):
    client = Client(open_plugin(logged[0]).get_plugin_apps()["/static/*"])
    answer = client.get(f"/data/plugin/gradcam_focus/static/{path}")
    if path in ("index.js", "focus.css"):
        assert answer.status_code == 200 and answer.headers["X-Content-Type-Options"] == "nosniff"
    else:
        assert answer.status_code == 404 and answer.data == b"not found"


def test_of_steps_that_a_resumed_run_logs_again_the_last_one_wins(logged, tmp_path):
    """The same events in a second file: without its faster server, TensorBoard gives each of them twice."""
    folder, callback = logged
    (events,) = (folder / "run").glob("events*")
    (tmp_path / "run").mkdir()
    shutil.copy(events, tmp_path / "run" / events.name)
    shutil.copy(events, tmp_path / "run" / f"{events.name}.later")
    _, log = ask(open_plugin(tmp_path), "/log", run="run", prefix="gradcam")
    assert [entry["step"] for entry in log["entries"]] == [entry["step"] for entry in callback.history]


def test_answers_are_json_for_any_browser(logged):
    """No NaN, which JSON has not."""
    plugin = open_plugin(logged[0])
    answer = Client(plugin.get_plugin_apps()["/log"]).get("/log", query_string={"run": "run", "prefix": "gradcam"})
    assert answer.content_type.startswith("application/json")
    json.loads(answer.data, parse_constant=lambda name: pytest.fail(name))


def test_of_records_of_one_time_the_last_one_counts():
    """A clock may be too coarse to tell them apart."""
    found = [records.Record(step, 5.0, content) for step, content in ((2, b"z"), (1, b"z"), (2, b"a"))]
    assert [(step, record.content) for step, record in records.newest(found).items()] == [(1, b"z"), (2, b"a")]
