"""Tests of what only a GPU shows. ``pytest --accelerator gpu`` also runs the Trainers of the other tests there."""

import gc
import subprocess
import sys
import warnings

import pytest
import torch
from conftest import ThinVGG
from sameness import assert_close, assert_maps_close
from torch import nn
from toys import CLASSES

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning, ProbeSet
from gradcam_callback.maps.methods import METHODS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def deterministic():
    """Let the GPU compute the same bits each time."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


IMAGES = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_finds_the_maps_of_the_processor(double_thin, method):
    expected = GradCAM(double_thin, method=method)(IMAGES.double(), 1)
    found = GradCAM(double_thin.cuda(), method=method)(IMAGES.double().cuda(), 1)
    assert found.logits.is_cuda
    assert_close(found.logits.cpu(), expected.logits)
    assert_maps_close({name: raw.cpu() for name, raw in found.maps.items()}, expected.maps, 1e-6)


def test_bf16_maps_resemble_those_in_full_precision(double_thin):
    model = double_thin.float().cuda()
    full, reduced = (GradCAM(model, precision=precision)(IMAGES.cuda(), 1) for precision in ("full", "bf16"))
    for name, raw in full.maps.items():
        assert nn.functional.cosine_similarity(raw.flatten(), reduced.maps[name].flatten(), dim=0) > 0.9, name
        assert not torch.equal(raw, reduced.maps[name])


def test_a_map_leaves_the_generator_of_the_gpu_and_the_gradients(thin):
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    thin.classifier.append(Noisy())
    thin.cuda()
    torch.cuda.manual_seed(5)
    before = torch.cuda.get_rng_state()
    GradCAM(thin)(IMAGES.cuda())
    assert torch.equal(before, torch.cuda.get_rng_state())
    assert all(parameter.grad is None and parameter.is_cuda for parameter in thin.parameters())


def test_the_memory_of_the_gpu_is_free_again_after_a_map(thin):
    cam = GradCAM(thin.cuda(), "block5_conv3")
    cam(IMAGES.cuda(), 1)  # what cuDNN keeps
    gc.collect()  # what other tests left
    before = torch.cuda.memory_allocated()
    found = cam(IMAGES.cuda(), 1)
    del found
    assert torch.cuda.memory_allocated() == before


def test_if_the_memory_of_the_gpu_runs_out_chunks_become_smaller():
    # In float64, since in TF32 the maps of chunks of another size differ by a tenth of their maximum.
    model, images = ThinVGG(batch_norm=False).double().eval().cuda(), torch.rand(64, 3, 224, 224).double().cuda()
    expected = GradCAM(model, chunk_size=8)(images, 1)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        # A forward and a backward of 64 images of 224 px through the thin network take more than this.
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 300e6) / total)
        # How often the chunks are halved depends on what cuDNN takes.
        with pytest.warns(GradCAMWarning, match=r"ran out of memory with \d+ images per chunk") as caught:
            found = GradCAM(model, chunk_size=64)(images, 1)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "with 64 images" in str(caught[0].message)
    for name, raw in found.maps.items():
        assert_close(raw, expected.maps[name])


@pytest.mark.parametrize("targets", [None, 1, [0, 1, 2, 0, 1], "contrast"])
def test_the_processor_does_not_wait_for_the_gpu_in_a_map(thin, targets):
    cam, images = GradCAM(thin.cuda()), IMAGES.cuda()
    cam(images, targets)  # sets up cuDNN
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
            torch.cuda.set_sync_debug_mode("error")
        cam(images, targets)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_what_is_kept_of_frozen_blocks_changes_no_bit(thin, deterministic):
    thin.features[:34].requires_grad_(False)
    thin.eval().cuda()
    cam, again = GradCAM(thin), GradCAM(thin, reuse_frozen=False)
    for _ in range(3):
        found, expected = cam(IMAGES.cuda(), 1), again(IMAGES.cuda(), 1)
        for name, raw in found.maps.items():
            assert torch.equal(raw, expected.maps[name]), name
        with torch.no_grad():
            thin.features[-4].weight.mul_(1.1)
    with torch.no_grad():
        thin.features[0].weight.mul_(1.1)
    assert_maps_close(cam(IMAGES.cuda(), 1).maps, again(IMAGES.cuda(), 1).maps, 0)


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("masks", [True, False])
def test_a_training_on_a_gpu_is_the_same_with_the_callback(fit, toys, precision, masks, recwarn):
    trained = []
    for watches in (False, True):
        torch.manual_seed(0)
        module = ThinVGG(len(CLASSES))
        probe = ProbeSet.from_dataset(toys, 2) if masks else None
        callbacks = [GradCAMCallback(probe)] if watches else []
        fit(module, *callbacks, accelerator="gpu", deterministic=True, precision=precision)
        trained.append((module.losses, {name: value.cpu() for name, value in module.state_dict().items()}))
    (losses, expected), (found_losses, found) = trained
    assert found_losses == losses
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name
    assert not [str(one.message) for one in recwarn if "GradCAM" in str(one.message)]


def test_the_callback_leaves_no_memory_on_the_gpu(fit, probe):
    left = []
    for watches in (False, False, True):
        module, callbacks = ThinVGG(len(CLASSES)), [GradCAMCallback(probe)] if watches else []
        fit(module, *callbacks, accelerator="gpu", deterministic=True)
        module.cpu()
        del module, callbacks
        gc.collect()
        left.append(torch.cuda.memory_allocated())
    assert left[2] <= left[1]


@pytest.mark.parametrize("make", ["", "probe = ProbeSet.from_dataset(Toys(18, bias=1.0, seed=0, size=64), 1);"])
def test_a_probe_set_made_before_the_gpu_is_in_use_keeps_its_seed(make):
    lines = (
        "import torch, pytorch_lightning as pl; from toys import Toys; from gradcam_callback import ProbeSet;"
        f"pl.seed_everything(1, verbose=False); {make} print(float(torch.rand(1, device='cuda')))"
    )
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    torch.cuda.manual_seed(1)
    assert float(done.stdout) == pytest.approx(float(torch.rand(1, device="cuda")), abs=1e-12)
