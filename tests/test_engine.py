"""Tests that the maps of many models are exact, and that their memory is bounded."""

import warnings

import pytest
import timm
import torch
import torchvision
from captum.attr import LayerGradCam
from conftest import ThinVGG
from pretrained import for_finetuning
from sameness import assert_maps_close
from skimage.metrics import structural_similarity
from torch import nn
from torch.nn import functional

from gradcam_callback import GradCAM, GradCAMWarning
from gradcam_callback.maps.chunks import compute_in_chunks


def captum_maps(model, layers, images, targets):
    """Compute each layer's map with captum, which needs a forward and a backward pass per layer."""
    maps = {}
    for layer in layers:
        found = LayerGradCam(model, layer.module).attribute(images, torch.tensor(targets), relu_attributions=True)
        maps[layer.name] = found[:, 0].detach()
    return maps


@pytest.mark.parametrize("suffix", ["", "_bn"])
@pytest.mark.parametrize("kind", ["vgg11", "vgg13", "vgg16", "vgg19"])
def test_every_vgg_of_torchvision_equals_captum(kind, suffix):
    torch.manual_seed(0)
    with torch.device("meta"):
        # Its head has 120 million weights, which would take most of the time.
        model = getattr(torchvision.models, kind + suffix)(num_classes=1)
    model.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(512 * 7 * 7, 5))
    for module in model.features.to_empty(device="cpu"):
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    model = model.double().train()
    model(torch.rand(4, 3, 32, 64).double())  # gives the batch norms their statistics
    images, targets = torch.rand(2, 3, 32, 64).double(), [4, 1]
    cam = GradCAM(model)
    found = cam(images, targets).maps
    assert_maps_close(found, captum_maps(model.eval(), cam.layers, images, targets))


def test_timms_vgg16_equals_captum():
    torch.manual_seed(0)
    model = timm.create_model("vgg16", num_classes=3)
    # Its 119 million weights between features and head would take most of the time.
    model.pre_logits, model.head.fc = nn.Identity(), nn.Linear(512, 3)
    model = model.double().eval()
    images, targets = torch.rand(1, 3, 64, 64).double(), [2]
    cam = GradCAM(model)
    assert len(cam.layers) == 13
    assert_maps_close(cam(images, targets).maps, captum_maps(model, cam.layers, images, targets))


def test_any_cnn_by_dotted_name_equals_captum():
    torch.manual_seed(0)
    for model, names in (
        (torchvision.models.resnet50(num_classes=3), ["layer4", "layer2.0"]),
        (torchvision.models.efficientnet_b0(num_classes=3), ["features.8", "features.4"]),
    ):
        model = model.double().eval()
        images, targets = torch.rand(2, 3, 64, 64).double(), [2, 0]
        cam = GradCAM(model, names)
        assert_maps_close(cam(images, targets).maps, captum_maps(model, cam.layers, images, targets))


class Viewing(ThinVGG):
    """A VGG that needs contiguous features, as many hand-written models do."""

    def forward(self, images):
        return self.classifier[2:](self.features(images).view(len(images), -1)[:, :24])


def test_a_model_that_calls_view_on_its_features_takes_the_safe_path():
    model, images = Viewing().double().eval(), torch.rand(3, 3, 64, 64).double()
    with pytest.raises(RuntimeError, match="view"):
        model(images.contiguous(memory_format=torch.channels_last))
    cam = GradCAM(model)
    assert_maps_close(cam(images, 1).maps, captum_maps(model, cam.layers, images, [1, 1, 1]))
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(cam.predict(images), expected)
    torch.testing.assert_close(GradCAM(model).predict(images), expected)


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100, None])
def test_chunks_do_not_change_the_maps(thin, chunk_size):
    images, targets = torch.rand(7, 3, 64, 64).double(), [0, 1, 2, 0, 1, 2, 0]
    model = thin.double()
    expected = GradCAM(model, chunk_size=7)(images, targets)
    found = GradCAM(model, chunk_size=chunk_size)(images, targets)
    assert_maps_close(found.maps, expected.maps, relative=1e-10)
    torch.testing.assert_close(found.logits, expected.logits)


def sizes(images, chunk_size):
    """Return the number of images in each chunk."""
    counts = []

    def compute(chunk):
        counts.append(chunk.stop - chunk.start)
        return [torch.arange(chunk.start, chunk.stop), images[chunk, :, 0, 0]]

    numbers, pixels = compute_in_chunks(compute, images, chunk_size)
    assert torch.equal(numbers, torch.arange(len(images))) and torch.equal(pixels, images[..., 0, 0])
    return counts


def test_chunks_are_even_and_depend_on_the_size_of_the_images():
    assert sizes(torch.ones(10, 3, 8, 8), 4) == [4, 3, 3]
    assert sizes(torch.ones(16, 1, 224, 224), None) == [8, 8]
    assert sizes(torch.ones(9, 1, 448, 448), None) == [2, 2, 2, 2, 1]
    assert sizes(torch.ones(2, 1, 2000, 2000), None) == [1, 1]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
    ids=["cuda", "python", "host"],
)
def test_out_of_memory_halves_the_chunk_with_one_warning_per_size(thin, error):
    class Tight(ThinVGG):
        def forward(self, images):
            if len(images) > 2:
                raise error
            return super().forward(images)

    model = Tight().eval()
    images = torch.rand(9, 3, 64, 64)
    with pytest.warns(GradCAMWarning, match="out of memory with . images per chunk and continues with") as caught:
        found = GradCAM(model, "block5", chunk_size=9)(images, 0)
    assert len(caught) == 2, "9 -> 4 -> 2"
    expected = GradCAM(model, "block5", chunk_size=1)(images, 0)
    for name, raw in found.maps.items():
        torch.testing.assert_close(raw, expected.maps[name], rtol=1e-4, atol=1e-6)


def test_out_of_memory_with_a_single_image_is_an_error():
    class Full(ThinVGG):
        def forward(self, images):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradCAMWarning)
        with pytest.raises(torch.OutOfMemoryError):
            GradCAM(Full())(torch.rand(3, 3, 64, 64))


def test_reduced_precision_keeps_the_maps(photographs):
    """Compare with float32 by mean structural similarity, on a pretrained network and a real photograph.

    It is small, so its maps vary more; docs/performance.md has the figures at full size.
    """
    torch.manual_seed(0)
    model = for_finetuning("demo", 4).eval()
    # Without hardware for bfloat16, a photograph of full size takes half a minute.
    images = functional.interpolate(photographs[:1], size=(112, 112), mode="area")
    full = GradCAM(model)(images, 1)
    reduced = GradCAM(model, precision="bf16")(images, 1)
    assert reduced.logits.shape == full.logits.shape and not torch.equal(reduced.logits.float(), full.logits)
    by_layer = []
    for name, raw in reduced.maps.items():
        assert raw.dtype == torch.float32
        similar = [
            structural_similarity((a / a.max()).numpy(), (b / b.max()).numpy(), data_range=1.0)
            for a, b in zip(raw, full.maps[name], strict=True)
        ]
        by_layer.append(sum(similar) / len(similar))
    assert min(by_layer) > 0.95 and sum(by_layer) / len(by_layer) >= 0.98


def test_an_unknown_precision_is_an_error(thin):
    with pytest.raises(ValueError, match=r"`precision` to be one of \['bf16', 'full'\], but got 'fp8'"):
        GradCAM(thin, precision="fp8")


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_memory_of_a_failed_attempt_goes_back_to_a_gpu_only(monkeypatch, name):
    class OnDevice(torch.Tensor):
        device = torch.device(name)

    released = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: released.append(True))

    def compute(chunk):
        if chunk.stop - chunk.start > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [torch.zeros(chunk.stop - chunk.start)]

    with pytest.warns(GradCAMWarning, match="ran out of memory with 4 images per chunk and continues with 2"):
        compute_in_chunks(compute, torch.zeros(4, 3, 8, 8).as_subclass(OnDevice), 4)
    assert len(released) == (name == "cuda")
