"""The strips show an evenly thinned run, first and last always among its columns."""

import numpy as np
import pytest

from gradcam_callback.evolution import Evolution, Frame, shrink


def run_of(epochs, columns=12):
    evolution = Evolution(columns)
    for epoch in range(epochs):
        evolution.add(Frame(str(epoch), [], {}))
    return [int(frame.heading) for frame in evolution.frames()]


@pytest.mark.parametrize("epochs", [1, 2, 11, 12])
def test_short_runs_are_shown_whole(epochs):
    assert run_of(epochs) == list(range(epochs))


@pytest.mark.parametrize("epochs", [13, 24, 25, 26, 50, 99, 100, 1000])
def test_long_runs_are_thinned_evenly_from_first_to_last(epochs):
    shown = run_of(epochs)
    assert len(shown) == 12 and shown[0] == 0 and shown[-1] == epochs - 1
    steps = np.diff(shown)
    assert steps.min() >= 1 and steps.max() <= 2 * max(1, np.median(steps)) + 1
    assert max(steps) <= 2.5 * epochs / 11


def test_memory_is_bounded():
    evolution = Evolution()
    for epoch in range(10_000):
        evolution.add(Frame(str(epoch), [], {}))
        assert len(evolution._kept) <= 24


def test_shrinking_keeps_the_place_of_the_hottest_cell():
    maps = np.zeros((2, 100, 200))
    maps[0, 50:54, 150:154], maps[1, 10:14, 20:24] = 3.0, 1e-5
    small = shrink(maps, 50)
    assert small.shape == (2, 25, 50) and small.dtype == np.uint8
    for one, (row, column) in zip(small, [(13, 38), (3, 5)], strict=True):
        found = np.unravel_index(one.argmax(), one.shape)
        assert one.max() == 255 and np.abs(np.subtract(found, (row, column))).max() <= 1
    assert not shrink(np.zeros((1, 7, 7)), 50).any()
