"""The strips show an evenly thinned run, first and last always among its columns."""

import io

import numpy as np
import pytest
import torch

from gradcam_callback import ProbeSet
from gradcam_callback.drawing.canvas import InputImage, Style
from gradcam_callback.drawing.panels import Column, EvolutionStrip
from gradcam_callback.run.evolution import KEPT_SIDE, Evolution, shrink
from gradcam_callback.run.record import Record


def lived(epochs, columns=12, evolution=None):
    evolution = evolution or Evolution(columns)
    for epoch in range(evolution._seen, evolution._seen + epochs):
        maps = {"block5_conv3": torch.full((1, 2, 2), 1.0 + epoch)}
        evolution.add(str(epoch), [0.5], [0], maps)
    return evolution


def run_of(epochs, columns=12):
    return [int(frame.heading) for frame in lived(epochs, columns).frames()]


@pytest.mark.parametrize("epochs", [1, 2, 11, 12])
def test_short_runs_are_shown_whole(epochs):
    assert run_of(epochs) == list(range(epochs))


@pytest.mark.parametrize("epochs", [13, 14, 24, 25, 26, 30, 50, 99, 100, 1000, 1001])
def test_long_runs_are_thinned_evenly_from_first_to_last(epochs):
    shown = run_of(epochs)
    assert 6 <= len(shown) <= 12 and shown[0] == 0 and shown[-1] == epochs - 1
    *steps, last = np.diff(shown)
    assert len(set(steps)) == 1, "all as far apart as each other"
    assert steps[0] / 2 <= last < 1.5 * steps[0], "but for the last, which comes when it comes"


def test_strips_of_runs_of_any_length_are_of_maps_of_one_size_and_can_be_drawn():
    evolution, picture = Evolution(), InputImage(np.zeros((64, 64, 3), np.uint8))
    strip = EvolutionStrip([picture], ["l"], Style())
    for epoch in range(60):
        raw = torch.zeros(1, 64, 64)
        raw[0, 40, epoch] = 1.0
        evolution.add(str(epoch), [0.5], [0], {"l": raw})
        frames = evolution.frames()
        assert {tuple(frame.maps["l"].shape) for frame in frames} == {(1, KEPT_SIDE, KEPT_SIDE)}
        hottest = [np.unravel_index(frame.map_of("l", 0).argmax(), (KEPT_SIDE, KEPT_SIDE)) for frame in frames]
        assert hottest == [(20, int(frame.heading) // 2) for frame in frames], "each shows the epoch of its heading"
        strip.draw(0, "x", "x", [Column(frame.heading, 0.5, {"l": frame.map_of("l", 0)}) for frame in frames])


def test_strips_never_have_more_columns_than_asked_for():
    assert max(len(run_of(epochs, columns=5)) for epochs in range(1, 60)) == 5


def test_memory_is_bounded():
    evolution = Evolution()
    for _ in range(10_000):
        lived(1, evolution=evolution)
        assert len(evolution._kept) <= 24


def test_kept_maps_hold_the_raw_values_to_a_step_of_256():
    raw = torch.rand(2, 30, 20, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 0.01])[:, None, None]
    evolution = Evolution()
    evolution.add("0", [0.5, 0.5], [0, 1], {"l": raw})
    (frame,) = evolution.frames()
    for i in range(2):
        np.testing.assert_allclose(frame.map_of("l", i), raw[i].numpy(), atol=float(raw[i].max()) / 255)
    assert evolution.largest == {"l": pytest.approx(float(raw.max()))}


def test_the_largest_value_is_that_of_the_whole_run():
    evolution = Evolution()
    for value in (1.0, 7.0, 2.0):
        evolution.add("x", [0.5], [0], {"l": torch.full((1, 2, 2), value)})
    assert evolution.largest == {"l": 7.0}


def test_strips_are_drawn_at_first_then_when_half_as_much_more_has_come_and_at_the_end():
    evolution, drawn = Evolution(), []
    for epoch in range(1, 101):
        lived(1, evolution=evolution)
        if evolution.is_due(at_the_end=False):
            drawn.append(epoch)
    assert drawn == [1, 2, 3, 4, 5, 6, 9, 14, 21, 32, 48, 72]
    assert evolution.is_due(at_the_end=True)
    assert not evolution.is_due(at_the_end=True), "nothing has come since"


@pytest.mark.parametrize("epochs", [1, 24, 25, 60, 101])
def test_a_run_goes_on_from_its_state_as_if_it_had_not_stopped(epochs):
    stopped = lived(epochs)
    buffer = io.BytesIO()
    torch.save(stopped.state_dict(), buffer)
    buffer.seek(0)
    resumed = Evolution()
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    for evolution in (stopped, resumed):
        lived(30, evolution=evolution)
    assert [f.heading for f in resumed.frames()] == [f.heading for f in stopped.frames()]
    assert resumed.largest == stopped.largest
    assert resumed.frames()[0].map_of("block5_conv3", 0).max() == pytest.approx(1.0)


def test_state_fits_only_the_images_and_layers_that_it_is_of():
    evolution = lived(3)
    assert evolution.fits(1, ["block5_conv3"]) and Evolution().fits(5, ["any"])
    assert not evolution.fits(2, ["block5_conv3"]) and not evolution.fits(1, ["block5_conv2"])


def test_all_but_the_last_are_kept_small():
    evolution = Evolution()
    for epoch in range(3):
        evolution.add(str(epoch), [0.5], [0], {"l": torch.rand(1, 224, 112)})
    assert [tuple(frame.maps["l"].shape) for frame in evolution._kept] == [(1, KEPT_SIDE, KEPT_SIDE // 2)] * 3
    assert evolution.last_maps()["l"].shape == (1, 224, 112) and Evolution().last_maps() == {}


def test_shrinking_keeps_the_place_of_the_hottest_cell_and_its_value():
    maps = torch.zeros(2, 100, 200)
    maps[0, 50:54, 150:154], maps[1, 12:16, 20:24] = 3.0, 1e-5
    small, largest = shrink(maps, 50)
    assert small.shape == (2, 25, 50) and small.dtype == torch.uint8
    for one, (row, column) in zip(small.numpy(), [(13, 38), (3, 5)], strict=True):
        found = np.unravel_index(one.argmax(), one.shape)
        assert one.max() == 255 and np.abs(np.subtract(found, (row, column))).max() <= 1
    assert largest.tolist() == pytest.approx([0.75, 1e-5]), "means of the cells that became one"
    assert not shrink(torch.zeros(1, 7, 7), 50)[0].any()


def changed(change):
    state = lived(3).state_dict()
    state["kept"] = [dict(frame) for frame in state["kept"]]
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.update(largest=[1.0]), "are no mapping"),
        (lambda state: state.update(largest={"block5_conv3": -1.0}), "largest value of layer 'block5_conv3' is -1.0"),
        (lambda state: state["kept"][0].update(maps={}, largest={}), "not all of the same images and layers"),
        (
            lambda state: state["kept"][0].update(largest={"block5_conv3": torch.tensor([1])}),
            "does not hold maps of 1 images at 'block5_conv3'",
        ),
    ],
)
def test_a_state_that_was_changed_is_refused(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Evolution().load_state_dict(changed(change))


@pytest.fixture
def recorded():
    """The state of a run of one image and one layer."""
    record = Record()
    record.watch(ProbeSet(torch.rand(1, 3, 8, 8), [0]), ["block5_conv3"])
    record.history.append({"epoch": 0, "step": 3})
    record.evolution = lived(1)
    return record.state_dict()


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (lambda seen: None, "it does not say what it is of"),
        (lambda seen: {**seen, "thumbnails": [0.0]}, "small copies are no tensor of numbers"),
        (lambda seen: {**seen, "layers": [5]}, "its layers, labels or sizes are none"),
        (lambda seen: {**seen, "layers": ["block4_conv1"]}, "not of the images and layers that it names"),
        (lambda seen: {**seen, "labels": [0, 1]}, "not of the images and layers that it names"),
    ],
)
def test_a_record_of_other_images_than_it_names_is_refused(recorded, seen, message):
    assert Record.from_state_dict(recorded).history == [{"epoch": 0, "step": 3}]
    with pytest.raises((TypeError, ValueError), match=message):
        Record.from_state_dict({**recorded, "seen": seen(recorded["seen"])})
