"""A run's state: strips show an evenly thinned run, and a checkpoint carries all of it."""

import io

import numpy as np
import pytest
import torch

from gradcam_callback import ProbeSet, Style
from gradcam_callback.drawing import EvolutionStrip, InputImage
from gradcam_callback.run import closest_keys
from gradcam_callback.run.snapshots import KEPT_SIDE, shrink
from gradcam_callback.run.state import FORMAT, RunState

LAYER = "block5_conv3"


def add(state, epoch, maps):
    n = len(next(iter(maps.values())))
    state.add({"epoch": epoch, "step": epoch}, [0.5] * n, list(range(n)), maps)


def lived(epochs, columns=12, state=None):
    state = state or RunState(columns)
    for epoch in range(len(state.history), len(state.history) + epochs):
        add(state, epoch, {LAYER: torch.full((1, 2, 2), 1.0 + epoch)})
    return state


def run_of(epochs, columns=12):
    return [int(snapshot.heading) for snapshot in lived(epochs, columns).snapshots()]


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
    state, image = RunState(), InputImage(np.zeros((64, 64, 3), np.uint8))
    strip = EvolutionStrip([image], ["l"], Style())
    for epoch in range(60):
        raw = torch.zeros(1, 64, 64)
        raw[0, 40, epoch] = 1.0
        add(state, epoch, {"l": raw})
        snapshots = state.snapshots()
        assert {tuple(one.maps["l"].shape) for one in snapshots} == {(1, KEPT_SIDE, KEPT_SIDE)}
        maps = np.stack([one.map_of("l", 0) for one in snapshots])
        hottest = [np.unravel_index(raw.argmax(), raw.shape) for raw in maps]
        headings = [one.heading for one in snapshots]
        assert hottest == [(20, int(heading) // 2) for heading in headings], "each shows the epoch of its heading"
        strip.draw(0, "x", "x", headings, [0.5] * len(headings), {"l": maps})


def test_strips_never_have_more_columns_than_asked_for():
    assert max(len(run_of(epochs, columns=5)) for epochs in range(1, 60)) == 5


def test_memory_is_bounded():
    state = RunState()
    for _ in range(10_000):
        lived(1, state=state)
        assert len(state._snapshots) <= 24


def test_kept_maps_hold_the_raw_values_to_a_step_of_256():
    raw = torch.rand(2, 30, 20, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 0.01])[:, None, None]
    state = RunState()
    add(state, 0, {"l": raw})
    (snapshot,) = state.snapshots()
    for i in range(2):
        np.testing.assert_allclose(snapshot.map_of("l", i), raw[i].numpy(), atol=float(raw[i].max()) / 255)
    assert state.vmax == {"l": pytest.approx(float(raw.max()))}


def test_vmax_is_that_of_the_whole_run():
    state = RunState()
    for epoch, value in enumerate((1.0, 7.0, 2.0)):
        add(state, epoch, {"l": torch.full((1, 2, 2), value)})
    assert state.vmax == {"l": 7.0}


def test_strips_are_drawn_at_first_then_when_half_as_much_more_has_come_and_at_the_end():
    state, drawn = RunState(), []
    for epoch in range(1, 101):
        lived(1, state=state)
        if state.strips_are_due(at_end=False):
            drawn.append(epoch)
    assert drawn == [1, 2, 3, 4, 5, 6, 9, 14, 21, 32, 48, 72]
    assert state.strips_are_due(at_end=True)
    assert not state.strips_are_due(at_end=True), "nothing has come since"


def test_panels_are_due_ten_times_and_then_when_half_as_much_more_has_come():
    state, due = RunState(), []
    for epoch in range(1, 101):
        lived(1, state=state)
        if state.panels_are_due():
            due.append(epoch)
    assert due[:10] == list(range(1, 11))
    ratios = [later / earlier for earlier, later in zip(due[9:], due[10:], strict=False)]
    assert all(1.4 < ratio < 1.6 for ratio in ratios) and 65 < due[-1] <= 100
    assert state.panels_are_due() == (due[-1] == 100), "asking changes nothing"


PROBE = ProbeSet(torch.rand(1, 3, 8, 8), [0])


def saved(epochs, layer=LAYER):
    """A state as a checkpoint has it."""
    state = RunState()
    state.watch(PROBE, [layer])
    return lived(epochs, state=state)


@pytest.mark.parametrize("epochs", [1, 24, 25, 60, 101])
def test_a_run_goes_on_from_its_state_as_if_it_had_not_stopped(epochs):
    stopped = saved(epochs)
    stopped.warned = True
    buffer = io.BytesIO()
    torch.save(stopped.state_dict(), buffer)
    buffer.seek(0)
    resumed = RunState.from_state_dict(torch.load(buffer, weights_only=True))
    assert resumed.history == stopped.history and resumed.warned and resumed.watch(PROBE, [LAYER])
    torch.testing.assert_close(resumed.previous, stopped.previous, rtol=1 / 255, atol=0)
    for state in (stopped, resumed):
        lived(30, state=state)
    assert [one.heading for one in resumed.snapshots()] == [one.heading for one in stopped.snapshots()]
    assert resumed.vmax == stopped.vmax
    assert resumed.snapshots()[0].map_of(LAYER, 0).max() == pytest.approx(1.0)


def test_a_state_of_other_layers_or_images_starts_anew():
    for probe, layers in ((PROBE, ["block4_conv3"]), (ProbeSet(torch.rand(2, 3, 8, 8), [0, 1]), [LAYER])):
        state = saved(3)
        state.warned = True
        assert not state.watch(probe, layers)
        assert (state.history, state.snapshots(), state.previous, state.vmax, state.warned) == ([], [], {}, {}, False)
        assert state.watch(probe, layers), "which it is of from now on"


def test_snapshots_are_small_and_the_previous_maps_whole():
    state = RunState()
    assert state.previous == {}
    for epoch in range(3):
        maps = {"l": torch.rand(1, 224, 112)}
        add(state, epoch, maps)
    assert [tuple(one.maps["l"].shape) for one in state.snapshots()] == [(1, KEPT_SIDE, KEPT_SIDE // 2)] * 3
    assert torch.equal(state.previous["l"], maps["l"]), "drift is measured against the maps themselves"


def test_shrinking_keeps_the_place_of_the_hottest_cell_and_its_value():
    maps = torch.zeros(2, 100, 200)
    maps[0, 50:54, 150:154], maps[1, 12:16, 20:24] = 3.0, 1e-5
    small, vmax = shrink(maps, 50)
    assert small.shape == (2, 25, 50) and small.dtype == torch.uint8
    for one, (row, column) in zip(small.numpy(), [(13, 38), (3, 5)], strict=True):
        found = np.unravel_index(one.argmax(), one.shape)
        assert one.max() == 255 and np.abs(np.subtract(found, (row, column))).max() <= 1
    assert vmax.tolist() == pytest.approx([0.75, 1e-5]), "means of the cells that became one"
    assert not shrink(torch.zeros(1, 7, 7), 50)[0].any()


def changed(change):
    state = saved(3).state_dict()
    state["snapshots"] = [dict(snapshot) for snapshot in state["snapshots"]]
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.update(vmax=[1.0]), "are no mapping"),
        (lambda state: state.update(vmax={LAYER: -1.0}), f"largest value of layer '{LAYER}' is -1.0"),
        (lambda state: state["snapshots"][0].update(maps={}, vmax={}), "not all of the same images and layers"),
        (lambda state: state.update(previous=None), "has 3 snapshots of 3 entries"),
        (lambda state: state["snapshots"].pop(), "has 2 snapshots of 3 entries"),
        (lambda state: state.update(counts=(0, 0)), r"counts of the snapshots are \(0, 0\)"),
        (lambda state: state.update(warned=1), "does not say whether a shortcut was suspected"),
        (lambda state: state["history"].append({"epoch": 1.5, "step": 1}), "not an epoch, a step and numbers"),
        (
            lambda state: state["snapshots"][0].update(vmax={LAYER: torch.tensor([1])}),
            f"expected maps of 1 images at '{LAYER}'",
        ),
    ],
)
def test_a_state_that_was_changed_is_refused(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        RunState.from_state_dict(changed(change))


@pytest.mark.parametrize("found", [None, FORMAT + 1])
def test_a_state_of_another_version_is_refused_by_its_format(found):
    """Among them those of before there was a format."""
    state = saved(1).state_dict()
    del state["format"]
    state |= {} if found is None else {"format": found}
    with pytest.raises(ValueError, match=f"the state has format {found}; this version reads format {FORMAT}"):
        RunState.from_state_dict(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda signature: None, "does not name its probe set and layers"),
        (lambda signature: {**signature, "thumbnails": [0.0]}, "are no tensor of floating point"),
        (lambda signature: {**signature, "watched": 0}, "does not say how many images are watched"),
        (lambda signature: {**signature, "layers": [5]}, "layers, labels or image size have the wrong type"),
        (lambda signature: {**signature, "layers": ["block4_conv1"]}, "not of the images and layers that the state"),
        (lambda signature: {**signature, "labels": []}, "not of the images and layers that the state names"),
    ],
)
def test_a_state_of_other_images_than_it_names_is_refused(change, message):
    state = saved(1).state_dict()
    assert RunState.from_state_dict(state).history == [{"epoch": 0, "step": 0}]
    with pytest.raises((TypeError, ValueError), match=message):
        RunState.from_state_dict({**state, "signature": change(state["signature"])})


def test_a_history_goes_on_under_another_key_only_if_layers_and_target_are_the_same():
    own = "GradCAMCallback{'target_layers': 'all', 'target': 'label', 'probe': 'a'}"
    other, fewer = own.replace("'a'", "'b'"), own.replace("}", ", 'others': 'c'}")
    assert closest_keys(own, [other]) == [other] and closest_keys(own, [fewer]) == [fewer]
    assert closest_keys(own, [other, fewer]) == [other, fewer], "each is as like as the other"
    assert closest_keys(own, [other, fewer, fewer.replace("'a'", "'b'")]) == [other, fewer]
    assert closest_keys(own, [own.replace("'all'", "'block5'"), "GradCAMCallback{written otherwise", "5"]) == []
