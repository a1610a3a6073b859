"""Several processes share the work, and all of them know the same as one alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
from pytorch_lightning.strategies import FSDPStrategy

from gradcam_callback import GradCAMCallback

TESTS = Path(__file__).parent


def train(folder, strategy, processes, fault=""):
    folder.mkdir()
    paths = os.pathsep.join(map(str, (TESTS, TESTS.parent / "examples", TESTS.parent)))
    done = subprocess.run(
        [sys.executable, str(TESTS / "distributed.py"), str(folder), strategy, str(processes), fault],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(processes)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    (knows,) = train(tmp_path_factory.mktemp("alone") / "run", "auto", 1)
    return knows


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_two_processes_know_what_one_does_and_write_once(alone, tmp_path, events, strategy):
    first, second = train(tmp_path / strategy, strategy, 2)
    assert first == second, "scalars on every rank"
    assert first["metrics"] == alone["metrics"] and first["evidence"] == alone["evidence"] and first["said"] == []
    assert [entry["epoch"] for entry in first["history"]] == [-1, 0, 1]
    for entry, expected in zip(first["history"], alone["history"], strict=True):
        assert set(entry) == set(expected)
        for name, value in entry.items():
            # Half as many steps: twice as many images in each.
            if name != "step":
                assert value == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name
    found = events(tmp_path / strategy / "run")
    steps = [int(entry["step"]) for entry in first["history"]]
    assert [event.step for event in found.Images("gradcam/layer/block5_conv3")] == steps
    assert [event.step for event in found.Scalars("gradcam/lift/block5_conv3")] == steps
    assert len(list((tmp_path / strategy / "run").glob("events*"))) == 1


def test_a_training_of_two_processes_is_the_same_with_the_callback(tmp_path):
    watched, unwatched = (train(tmp_path / kind, "ddp", 2, kind) for kind in ("watched", "unwatched"))
    assert [entry["epoch"] for entry in watched[0]["history"]] == [-1, 0, 1] and "history" not in unwatched[0]
    for with_callback, without in zip(watched, unwatched, strict=True):
        assert with_callback["weights"] == without["weights"] and with_callback["random"] == without["random"]
    assert watched[0]["weights"] == watched[1]["weights"]


def test_a_process_that_fails_loses_one_epoch_of_all_and_none_hangs(tmp_path):
    first, second = train(tmp_path / "faulty", "ddp", 2, "fault")
    for knows in (first, second):
        assert [entry["epoch"] for entry in knows["history"]] == [-1, 1]
    assert ["process 1 could not compute its shard" in line for line in first["said"]] == [True]
    assert ["this epoch's maps lost (" in line for line in second["said"]] == [True]


def test_strategies_that_cut_the_model_in_parts_are_refused_with_the_reason(monkeypatch):
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    monkeypatch.setattr(type(trainer), "strategy", FSDPStrategy())
    with pytest.raises(ValueError, match="the whole model to each process, but got FSDPStrategy, which shards it"):
        GradCAMCallback(save_dir="unused").setup(trainer, None, "fit")
