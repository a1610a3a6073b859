"""What the event files of TensorBoard hold, and how they are written."""

import html
import importlib.util
import re
import struct
from pathlib import Path

import markdown
import pytest
from conftest import ThinVGG
from pytorch_lightning.loggers import TensorBoardLogger
from reliability import tags_of_an_entry
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from gradcam_callback import GradCAMCallback, ProbeSet
from gradcam_callback.offline.logged_run import read_runs
from gradcam_callback.run.tags import DEFAULT_VIEWS, VIEWS, Tags, names_by_layer
from gradcam_callback.writers import TensorBoardWriter, places_of
from gradcam_callback.writers.event_writer import with_fast_checksums

LAYERS = ["block4_conv3", "block5_conv3"]


def test_views_are_those_that_are_asked_for(thin, fit, events, probe):
    fit(thin, GradCAMCallback(probe, LAYERS, views=["layer", "animation"]))
    assert {tag.split("/")[1] for tag in events().Tags()["images"]} == {"layer", "animation"}
    assert GradCAMCallback(views="all").views == VIEWS
    assert GradCAMCallback().views == DEFAULT_VIEWS


def test_the_study_of_reliability_expects_what_is_written_by_default(thin, fit, events, probe):
    fit(thin, GradCAMCallback(probe, LAYERS))
    found = events().Tags()
    assert set(tags_of_an_entry(probe.names)) <= {*found["images"], *found["tensors"]}


@pytest.mark.parametrize("name", ["__background__", "*any*", "[a](b)", "a `b` c", "back\\slash", "snow_wolf", "_x"])
def test_the_text_tab_shows_the_names_of_classes_as_they_are(name, tmp_path, events):
    headline = f"UNCLEAR, {name} at block5_conv3"
    logger = TensorBoardLogger(tmp_path, name="", version="")
    writer = TensorBoardWriter(logger)
    writer.write_verdict("gradcam/verdict", {"headline": headline, "evidence": "Nothing."}, 0)
    writer.flush()
    (event,) = events(tmp_path).Tensors("gradcam/verdict")
    # As the Text tab does.
    shown = markdown.markdown(event.tensor_proto.string_val[0].decode(), extensions=["tables", "sane_lists"])
    assert html.unescape(re.sub(r"<[^>]*>", "", shown.split("</p>")[0])) == headline


def test_custom_scalars_lay_out_charts_of_what_is_logged(thin, fit, events, toys):
    fit(thin, GradCAMCallback(ProbeSet.from_dataset(toys, 2)))
    found = events()
    (event,) = found.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: chart for chart in layout.category[0].chart}
    scalars = set(found.Tags()["scalars"])
    gap = "background gap with its 95 % interval"
    assert list(charts) == ["accuracies", gap, "lift by layer", "drift by layer"]
    (series,) = charts[gap].margin.series
    names = ("background_gap", "background_gap_low", "background_gap_high")
    assert [series.value, series.lower, series.upper] == [f"gradcam/{name}" for name in names]
    assert set(names) <= {tag.removeprefix("gradcam/") for tag in scalars}
    shown = {
        title: [tag for pattern in chart.multiline.tag for tag in sorted(scalars) if re.match(pattern, tag)]
        for title, chart in charts.items()
    }
    accuracies = ("probe_accuracy", "swap_control_accuracy", "swap_accuracy")
    last = ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3")
    assert shown == {
        "accuracies": [f"gradcam/{name}" for name in accuracies],
        gap: [],
        "lift by layer": [f"gradcam/lift/{layer}" for layer in last],
        "drift by layer": [f"gradcam/drift/{layer}" for layer in last],
    }


def test_with_a_prefix_of_the_logger_all_tags_begin_with_it_and_every_chart_has_its_scalars(
    thin, fit, events, toys, tmp_path
):
    """A plus means something else in a regular expression. Two loggers may share a folder."""
    loggers = [TensorBoardLogger(tmp_path, name="run", version="", prefix=prefix) for prefix in ("a+b", "c")]
    fit(thin, GradCAMCallback(ProbeSet.from_dataset(toys, 2), LAYERS), logger=loggers)
    found = events()
    ours = [tag for kind in ("images", "tensors", "scalars") for tag in found.Tags()[kind] if "gradcam" in tag]
    assert {tag.partition("gradcam/")[0] for tag in ours} == {"a+b-", "c-"}
    scalars = set(found.Tags()["scalars"])
    layouts = [
        layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
        for event in found.Tensors("custom_scalars__config__")
    ]
    assert len(layouts) == 2
    for (category,), before in zip((layout.category for layout in layouts), ("a+b-", "c-"), strict=True):
        assert len(category.chart) == 4
        for chart in category.chart:
            patterns = list(chart.multiline.tag)
            shown = [[tag for tag in scalars if re.match(pattern, tag)] for pattern in patterns]
            assert all(len(tags) == 1 and tags[0].startswith(before) for tags in shown)
            margins = {tag for series in chart.margin.series for tag in (series.value, series.lower, series.upper)}
            assert margins <= scalars and (patterns or margins)


def test_charts_without_masks_and_of_other_layers_have_few_lines_too():
    layers = [f"features.{i}" for i in range(12)]
    loggable = ["probe_accuracy", "frame_accuracy", "frame_control_accuracy", "frame_gap", "frame_gap_low"]
    loggable += ["frame_gap_high", *names_by_layer(layers, masks=False), "lift_by_class/features.11/star"]
    charts = Tags("gradcam_2").charts(loggable)
    gap = "frame gap with its 95 % interval"
    assert list(charts) == ["accuracies by frames", gap, "border mass by layer", "drift by layer"]
    assert charts[gap] == ("Margin", [f"gradcam_2/frame_gap{end}" for end in ("", "_low", "_high")])
    for title, metric in (("border mass by layer", "border_mass"), ("drift by layer", "drift")):
        kind, patterns = charts[title]
        shown = [name for name in loggable for pattern in patterns if re.match(pattern, f"gradcam_2/{name}")]
        assert kind == "Multiline" and len(patterns) == len(shown) == 5
        assert all(name.startswith(f"{metric}/") for name in shown) and shown[-1] == f"{metric}/features.11"
    assert Tags().charts([]) == {}


def test_the_event_file_has_the_records_of_the_focus_tab(thin, fit, events, probe):
    fit(thin, GradCAMCallback(probe, LAYERS))
    found = events()
    names = ["gradcam/focus/start", "gradcam/focus/entry", *(f"gradcam/focus/maps/{layer}" for layer in LAYERS)]
    assert sorted(tag for tag in found.Tags()["tensors"] if tag.startswith("gradcam/focus/")) == sorted(names)
    for name in names:
        about = found.SummaryMetadata(name)
        assert about.plugin_data.plugin_name == "gradcam_focus"
        assert about.data_class == DATA_CLASS_TENSOR, "without it TensorBoard shows no tab"
    steps = [event.step for event in found.Scalars("gradcam/probe_accuracy")]
    for name in names[1:]:
        assert [event.step for event in found.Tensors(name)] == steps


# What the network learns depends on the version of torch.
@pytest.mark.filterwarnings("ignore::gradcam_callback.ShortcutWarning")
def test_event_files_of_long_runs_keep_fewer_panels_and_the_last_one(thin, fit, events, tmp_path, probe):
    callback = GradCAMCallback(probe, LAYERS[1:], save_dir=tmp_path / "files", views=["overview", "probe"])
    fit(thin, callback, max_epochs=12)
    steps = [int(entry["step"]) for entry in callback.history]
    found = events()
    assert [event.step for event in found.Images("gradcam/overview")] == steps
    for name in probe.names:
        assert [event.step for event in found.Images(f"gradcam/probe/{name}")] == [*steps[:10], steps[-1]]
    assert len(list((tmp_path / "files" / "probe" / probe.names[0]).iterdir())) == 12, "a folder has room for all"


def test_a_long_training_has_its_strips_to_the_end(thin, fit, events, probe):
    """Longer than the entries that are all kept, with maps larger than they are kept."""
    one = ProbeSet(probe.images[:1], probe.labels[:1], names=["star-1"])
    fit(thin, GradCAMCallback(one, "block1_conv1", views="evolution"), max_epochs=28, limit_train_batches=1)
    steps = [event.step for event in events().Scalars("val_loss")]
    drawn = [event.step for event in events().Images("gradcam/evolution/star-1")]
    assert drawn == [steps[entry - 1] for entry in (1, 2, 3, 4, 5, 6, 9, 14, 21, 28)]


@pytest.mark.parametrize("content", [b"", b"123456789", bytes(range(256)) * 99])
def test_checksums_are_those_of_tensorboard_without_its_slow_code(content, tmp_path, monkeypatch):
    # A copy of the module in which tests/conftest.py has not put the fast function.
    spec = importlib.util.find_spec("tensorboard.compat.tensorflow_stub.pywrap_tensorflow")
    untouched = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(untouched)
    writer = with_fast_checksums(EventFileWriter(str(tmp_path)))
    monkeypatch.setattr("tensorboard.summary.writer.record_writer.masked_crc32c", None)
    writer.add_event(Event(file_version="brain.Event:2", source_metadata={"writer": content.hex()}))
    writer.close()
    (path,) = tmp_path.iterdir()
    written, start = path.read_bytes(), 0
    records = []
    while start < len(written):
        (length,) = struct.unpack_from("<Q", written, start)
        header, record = written[start : start + 8], written[start + 12 : start + 12 + length]
        found = [struct.unpack_from("<I", written, place)[0] for place in (start + 8, start + 12 + length)]
        assert found == [untouched.masked_crc32c(header), untouched.masked_crc32c(record)]
        records.append(Event.FromString(record))
        start += 16 + length
    assert records[-1].source_metadata.writer == content.hex()


def test_the_event_writer_that_outlives_the_disk_still_says_where_it_writes(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="run", version="")
    TensorBoardWriter(logger).flush()
    assert Path(logger.experiment.file_writer.get_logdir()) == tmp_path / "run"
    logger.experiment.close()


class StepsAreEpochs(ThinVGG):
    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.log("step", float(self.current_epoch))


def test_entries_of_one_step_all_stay(fit, events, probe, tmp_path):
    """A resumed run that logs some of them again replaces these alone."""
    callback, folder, saved = None, tmp_path / "focus", tmp_path / "first.ckpt"
    for epochs, resume in ((1, None), (2, saved), (2, saved)):
        callback = GradCAMCallback(probe, LAYERS, save_dir=folder, save_maps=True, log_before_training=True)
        options = {"max_epochs": epochs, "val_check_interval": 1, "num_sanity_val_steps": 0}
        runs = fit(StepsAreEpochs(), callback, resume=resume, **options)
        if resume is None:
            runs.save_checkpoint(saved)
    epochs = [-1, 0, 0, 0, 1, 1, 1]  # each has three batches
    assert [entry["epoch"] for entry in callback.history] == epochs
    assert [entry["step"] for entry in callback.history] == [0, 0, 0, 0, 1, 1, 1]
    strengths = [entry["gradcam/strength/block5_conv3"] for entry in callback.history]
    for place in (folder, tmp_path / "run"):
        (run,) = read_runs(place)
        found = list(run.entries.values())
        assert [entry["epoch"] for entry in found] == epochs
        assert [entry["scalars"]["strength/block5_conv3"] for entry in found] == pytest.approx(strengths, abs=1e-6)
        assert list(run.maps["block5_conv3"]) == list(run.entries)
    for kind in ("overview/*.jpg", "maps/*.npz"):
        assert len(list(folder.glob(kind))) == 7, kind
    steps = {event.step for event in events().Images("gradcam/overview")}
    assert steps == {0, 1}, "the logger has those of the scalars"


@pytest.mark.parametrize(
    ("steps", "places"),
    [([0, 2, 5], [0, 2, 5]), ([0, 0, 1, 2], [0, 1, 2, 3]), ([7, 3, 7, 8, 4], [7, 3, 8, 9, 4]), ([], [])],
)
def test_each_entry_has_a_place_of_its_own_whatever_follows(steps, places):
    entries = [{"step": step} for step in steps]
    assert places_of(entries) == places and len(set(places)) == len(places)
    for count in range(len(steps)):
        assert places_of(entries[:count]) == places[:count]
