"""A session loses what fails and nothing else: shards, evaluations, images."""

import pytest
import torch
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from gradcam_callback import GradCAM, GradCAMWarning, ProbeSet, Style
from gradcam_callback.exceptions import UserCodeError
from gradcam_callback.run import Evaluator, RunState, Session, Tags
from gradcam_callback.writers.event_writer import SurvivingEventWriter


@pytest.fixture
def evaluator(thin, toys):
    return Evaluator(GradCAM(thin, "block5_conv3"), ProbeSet.from_dataset(toys, 1))


@pytest.fixture
def session():
    return Session(RunState(), Tags("gradcam"), [])


def test_more_processes_than_images_give_the_evaluation_of_one(evaluator):
    whole = evaluator.evaluate()
    shards = [evaluator.compute_shard(rank, 8) for rank in range(8)]
    assert [shard.cams is None for shard in shards].count(True) == 8 - len(evaluator.probe)
    merged = evaluator.merge(shards)
    assert merged.scalars == pytest.approx(whole.scalars, rel=1e-5)


def test_without_the_shard_of_one_process_there_is_no_evaluation_and_the_others_say_why(session, evaluator):
    session.evaluator = evaluator
    shard = evaluator.compute_shard()
    with pytest.warns(GradCAMWarning, match="process 1 could not compute its shard"):
        assert session.merge([shard, None], rank=0) is None
    # The process that failed has said so before.
    assert session.merge([shard, None], rank=1) is None


def test_an_evaluation_that_fails_is_lost_with_a_warning(session, evaluator, monkeypatch):
    session.evaluator = evaluator

    def fail(*_):
        raise ArithmeticError("an accident")

    monkeypatch.setattr(evaluator, "merge", fail)
    with pytest.warns(GradCAMWarning, match=r"this epoch's scalars lost \(ArithmeticError: an accident\)"):
        assert session.merge([evaluator.compute_shard()], rank=0) is None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserCodeError("no logits"), "every map lost, since your code failed. no logits"),
        (torch.OutOfMemoryError("CUDA out of memory"), "fewer or smaller probe images need less memory"),
        (KeyError("layer"), r"every map lost \(KeyError: 'layer'\)"),
    ],
)
def test_an_error_is_raised_before_training_and_a_warning_later(session, error, message):
    with pytest.raises(type(error)), session.guard("every map", may_raise=True):
        raise error
    with pytest.warns(GradCAMWarning, match=message), session.guard("every map"):
        raise error


def test_an_entry_that_was_lost_is_not_revised_in_place_of_the_one_before(thin, toys, session, monkeypatch):
    session.start(Evaluator(GradCAM(thin, "block5_conv3"), ProbeSet.from_dataset(toys, 2)), Style(), ("overview",))

    def add(epoch):
        session.compute_shard(0, 1)
        session.add(session.merge([session.take_shard()], 0), epoch, epoch + 1)

    add(0)
    add(1)
    assert session.asked_a_part

    def fail(*_, **__):
        raise ArithmeticError("an accident")

    add(2)
    monkeypatch.setattr(RunState, "add", fail)
    with pytest.warns(GradCAMWarning, match="an accident"):
        add(3)
    assert [entry["epoch"] for entry in session.state.history] == [0, 1, 2] and not session.asked_a_part


def test_a_device_without_memory_is_not_blamed_on_the_images(thin, toys, monkeypatch):
    cam = GradCAM(thin, "block5_conv3")

    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(cam), "__call__", fail)
    with pytest.raises(torch.OutOfMemoryError):
        Evaluator(cam, ProbeSet.from_dataset(toys, 1))


def test_before_it_starts_a_session_logs_nothing(session):
    assert not session.can_log("gradcam/probe_accuracy")


def test_a_flush_that_fails_is_told_when_the_writer_settles(tmp_path, monkeypatch):
    writer = SurvivingEventWriter(EventFileWriter(str(tmp_path)))

    def fail():
        raise OSError("No space left on device")

    monkeypatch.setattr(writer._writer, "flush", fail)
    with pytest.raises(OSError, match="No space left"):
        writer.settle()
    # The next file works again.
    writer.settle()
    writer.close()
    assert len(list(tmp_path.glob("events*"))) == 2


def test_closing_a_writer_whose_disk_is_full_raises_nothing(tmp_path, monkeypatch):
    writer = SurvivingEventWriter(EventFileWriter(str(tmp_path)))

    def fail():
        raise OSError("No space left on device")

    monkeypatch.setattr(writer._writer, "flush", fail)
    writer.close()
