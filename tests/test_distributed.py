"""Several processes share the work, and all of them know the same as one alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import distributed
import pytest
import pytorch_lightning as pl
from pytorch_lightning.strategies import FSDPStrategy

from gradcam_callback import GradCAMCallback

TESTS = Path(__file__).parent
EMPTY = ("first empty", "given", "skipped")
KINDS = ("still", "watched", "unwatched", "fault", "stream", "generator", *EMPTY, "broken", "refused")


def launch(folder, strategy, *kinds):
    """Run trainings of two processes.

    Returns:
        Kind -> what each of the two processes knows at its end; and what they have printed.
    """
    paths = os.pathsep.join(map(str, (TESTS, TESTS.parent / "examples", TESTS.parent)))
    done = subprocess.run(
        [sys.executable, str(TESTS / "distributed.py"), str(folder), strategy, "2", *kinds],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {kind: [read(folder, kind, rank) for rank in (0, 1)] for kind in kinds}, done.stderr


def read(folder, kind, rank):
    return json.loads((folder / kind / f"{rank}.json").read_text())


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_two_processes_know_what_one_does_and_write_once(tmp_path, events, strategy):
    """All kinds are one test, since two processes need longer to start than to train."""
    distributed.main(tmp_path / "alone", "auto", 1, "still")
    alone = read(tmp_path / "alone", "still", 0)
    known, printed = launch(tmp_path, strategy, *(KINDS if strategy == "ddp" else KINDS[:1]))
    assert_they_know_what_one_does(*known["still"], alone)
    assert_they_wrote_once(tmp_path / "still" / "run", events, known["still"][0])
    said = printed.count("Where `fit` was called, these stay empty")
    assert said == (strategy == "ddp_spawn"), "spawned processes end with what the callback knows"
    if strategy == "ddp":
        assert_the_training_is_the_same(known["watched"], known["unwatched"])
        assert_one_epoch_is_lost_and_none_hangs(*known["fault"])
        assert_they_agree_on_one_probe_set(*known["stream"])
        assert_they_agree_on_one_probe_set(*known["generator"])
        for kind in EMPTY:
            assert_all_have_what_one_has(*known[kind], kind)
        assert_all_lose_what_one_cannot_choose(*known["broken"])
        assert "your batch_transform to take the batch" in known["refused"][0]["raised"]
        assert known["refused"][0] == known["refused"][1]


def assert_they_know_what_one_does(first, second, alone):
    assert first == second, "scalars on every rank"
    assert first["metrics"] == alone["metrics"] and first["evidence"] == alone["evidence"] and first["said"] == []
    assert [entry["epoch"] for entry in first["history"]] == [-1, 0, 1]
    for entry, expected in zip(first["history"], alone["history"], strict=True):
        assert set(entry) == set(expected)
        for name, value in entry.items():
            # Half as many steps: twice as many images in each.
            if name != "step":
                assert value == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name


def assert_they_wrote_once(run, events, knows):
    found = events(run)
    steps = [int(entry["step"]) for entry in knows["history"]]
    assert [event.step for event in found.Images("gradcam/layer/block5_conv3")] == steps
    assert [event.step for event in found.Scalars("gradcam/lift/block5_conv3")] == steps
    assert len(list(run.glob("events*"))) == 1


def assert_the_training_is_the_same(watched, unwatched):
    assert [entry["epoch"] for entry in watched[0]["history"]] == [-1, 0, 1] and "history" not in unwatched[0]
    for with_callback, without in zip(watched, unwatched, strict=True):
        assert with_callback["weights"] == without["weights"] and with_callback["random"] == without["random"]
    assert watched[0]["weights"] == watched[1]["weights"]


def assert_one_epoch_is_lost_and_none_hangs(first, second):
    for knows in (first, second):
        assert [entry["epoch"] for entry in knows["history"]] == [-1, 1]
    assert ["process 1 could not compute its shard" in line for line in first["said"]] == [True]
    assert ["this epoch's maps lost (" in line for line in second["said"]] == [True]


def assert_they_agree_on_one_probe_set(first, second):
    # Of the 24 images, the process has 12; and the two batches of the sanity check have 12.
    assert first["images"] == second["images"] and len(first["images"]) == 12
    assert first["history"] == second["history"] and [entry["epoch"] for entry in first["history"]] == [0, 1]


def assert_all_have_what_one_has(first, second, kind):
    assert first["history"] == second["history"] and first["images"] == second["images"]
    epochs = {"given": [-1, 0], "skipped": []}.get(kind, [0])
    assert [entry["epoch"] for entry in first["history"]] == epochs
    assert second["said"] == [] and len(first["said"]) == (kind == "skipped")
    if kind == "skipped":
        assert "1 of 2 processes, such as process 1, have no validation data" in first["said"][0]


def assert_all_lose_what_one_cannot_choose(first, second):
    for knows in (first, second):
        assert knows["history"] == [] and len(knows["said"]) == 1
        assert "every map of this run lost" in knows["said"][0] and "your batch_transform" in knows["said"][0]


class OwnStrategy(FSDPStrategy):
    pass


@pytest.mark.parametrize("strategy", [FSDPStrategy, OwnStrategy])
def test_strategies_that_cut_the_model_in_parts_are_refused_with_the_reason(monkeypatch, strategy):
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    monkeypatch.setattr(type(trainer), "strategy", strategy())
    with pytest.raises(
        ValueError, match="the whole model to each process, but got (FSDP|Own)Strategy, which shards it"
    ):
        GradCAMCallback(save_dir="unused").setup(trainer, None, "fit")
