"""Tests that the formulas equal pytorch-grad-cam, and results by hand."""

from pathlib import Path

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from conftest import ThinVGG
from torch import nn

from gradcam_callback import GradCAM
from gradcam_callback.maps.methods import METHODS

DOCS = Path(__file__).parent.parent / "docs"
PEERS = {
    "gradcam": pytorch_grad_cam.GradCAM,
    "gradcam++": pytorch_grad_cam.GradCAMPlusPlus,
    "gradcam_elementwise": pytorch_grad_cam.GradCAMElementWise,
    "hirescam": pytorch_grad_cam.HiResCAM,
    "layercam": pytorch_grad_cam.LayerCAM,
    "xgradcam": pytorch_grad_cam.XGradCAM,
    "eigencam": pytorch_grad_cam.EigenCAM,
    "eigengradcam": pytorch_grad_cam.EigenGradCAM,
}
EIGEN = ["eigencam", "eigengradcam"]


def activations_and_gradients(model, place, images, target):
    """Return activations and gradients of the module at ``place``, computed step by step without hooks."""
    activations = model.features[: place + 1](images).detach().requires_grad_()
    # A copy, since the next module may be a ReLU that works in place.
    logits = model.classifier(model.features[place + 1 :](activations.clone()))
    (gradients,) = torch.autograd.grad(logits[:, target].sum(), activations)
    return activations.detach(), gradients


@pytest.mark.parametrize("before", [0, 1], ids=["relu", "signed"])
@pytest.mark.parametrize("method", METHODS)
def test_each_method_equals_the_peer_that_implements_it(method, before):
    torch.manual_seed(0)
    # With such large activations and logits, the 1e-7 and 1e-6 in denominators of the peer do not matter.
    model, images = ThinVGG().double().eval(), torch.rand(3, 3, 64, 64).double() * 1e6
    model.classifier[-1].weight.data.mul_(1e6)
    place = max(i for i, module in enumerate(model.features) if isinstance(module, nn.ReLU)) - before
    activations, gradients = activations_and_gradients(model, place, images, 1)
    assert bool((activations < 0).any()) == bool(before)
    peer = PEERS[method](model=model, target_layers=[model.features[place]])
    raw = peer.get_cam_image(images, model.features[place], [1] * 3, activations.numpy(), gradients.numpy(), False)
    peer.activations_and_grads.release()
    expected, rounding = torch.from_numpy(raw).double(), 1e-8
    if method in EIGEN:
        rounding = 1e-6  # the peer returns float32
        # Its sign is any. Ours makes the map high where the sum over the channels is.
        values = activations if method == "eigencam" else gradients * activations
        expected *= (expected * values.sum(dim=1)).sum(dim=(1, 2), keepdim=True).sign()
    expected = expected.clamp(min=0)
    found = GradCAM(model, f"features.{place}", method=method)(images, 1).maps[f"features.{place}"]
    assert (expected.amax(dim=(1, 2)) > 0).all()
    torch.testing.assert_close(found, expected, rtol=rounding, atol=rounding * float(expected.max()))


def test_methods_by_hand():
    activations = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    gradients = torch.tensor([[[[2.0, -4.0]], [[1.0, 1.0]]]])
    by_hand = {
        "gradcam": [-1 * 1 + 1 * 3, -1 * 2 + 1 * 0],
        "gradcam_elementwise": [2 * 1 + 1 * 3, 0 + 1 * 0],
        "hirescam": [2 * 1 + 1 * 3, -4 * 2 + 1 * 0],
        "layercam": [2 * 1 + 1 * 3, 0 * 2 + 1 * 0],
        # The activations sum to 3 and 3. The weights are 2 / (2 + 2 * 3) = 1/4, and twice 1 / (2 + 1 * 3) = 2/5.
        "gradcam++": [0.25 * 1 + 0.4 * 3, 0.25 * 2 + 0.4 * 0],
        # The weights are (2 * 1 - 4 * 2) / 3 = -2 and (1 * 3 + 1 * 0) / 3 = 1.
        "xgradcam": [-2 * 1 + 1 * 3, -2 * 2 + 1 * 0],
        # Two positions vary along their difference (1, -3). Its sum is negative, so it is turned round.
        "eigencam": [10**0.5 / 2, -(10**0.5) / 2],
        # The same for the products (2, 3) and (-8, 0): the difference is (10, 3).
        "eigengradcam": [109**0.5 / 2, -(109**0.5) / 2],
    }
    assert set(by_hand) == set(METHODS)
    for name, expected in by_hand.items():
        assert METHODS[name](activations, gradients)[0, 0].tolist() == pytest.approx(expected, abs=1e-5), name


def test_grad_cam_plus_plus_ignores_negative_gradients():
    activations, gradients = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[1.0, -0.25]]]])
    # Only the first position contributes to the weight: 1 / (2 + 1 * 3).
    assert METHODS["gradcam++"](activations, gradients)[0, 0].tolist() == pytest.approx([0.2, 0.4])


def test_xgradcam_leaves_out_channels_that_sum_to_zero():
    activations = torch.tensor([[[[0.0, 0.0]], [[-1.0, 1.0]], [[1.0, 1.0]]]])
    gradients = torch.tensor([[[[5.0, 5.0]], [[2.0, 5.0]], [[1.0, 3.0]]]])
    # The third channel has the weight (1 + 3) / 2.
    assert METHODS["xgradcam"](activations, gradients)[0, 0].tolist() == [2, 2]


def svd(values):
    """Return the projection of ``(K, h, w)`` on the first right singular vector, of any sign."""
    matrix = values.double().flatten(1).T.numpy()
    matrix = matrix - matrix.mean(axis=0)
    first = np.linalg.svd(matrix, full_matrices=False)[2][0]
    return torch.from_numpy(matrix @ first).reshape(values.shape[1:])


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
@pytest.mark.parametrize("size", [(3, 9, 9), (40, 3, 5)], ids=["tall", "wide"])
def test_the_first_component_is_that_of_a_singular_value_decomposition(size, dtype, rounding):
    values = torch.rand(4, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = (values**3 * torch.arange(1, size[0] + 1)[:, None, None]).to(dtype)
    found = METHODS["eigencam"](values, torch.zeros_like(values))
    assert found.dtype == dtype
    for one, single in zip(found, values, strict=True):
        expected = svd(single)
        expected *= (expected * single.double().sum(dim=0)).sum().sign()
        assert float((one - expected).abs().max()) <= rounding * float(expected.abs().max())


@pytest.mark.parametrize("method", EIGEN)
def test_the_component_is_high_where_all_channels_together_are_and_turns_with_them(method):
    generator = torch.Generator().manual_seed(0)
    values, ones = torch.randn(20, 6, 4, 4, generator=generator).double(), torch.ones(20, 6, 4, 4).double()
    maps = METHODS[method](values, ones)
    assert ((maps * values.sum(dim=1)).sum(dim=(1, 2)) > 0).all()
    torch.testing.assert_close(METHODS[method](-values, ones), -maps)


def test_if_the_channels_cancel_the_first_strong_one_decides_the_sign():
    for dtype in (torch.float32, torch.float64):
        first = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=dtype) / 3
        # The direction is (-0.1, 1, -1, 0.1) times a length. The second channel is the first strong one.
        weights = torch.tensor([-0.1, 1.0, -1.0, 0.1], dtype=dtype)
        values = (weights[:, None] * first).reshape(1, 4, 2, 2)
        (found,) = METHODS["eigencam"](values, values)
        assert torch.equal(found.flatten().argsort(), torch.arange(4)), "as the second channel, not the third"
        (turned,) = METHODS["eigencam"](values.flip(1), values)
        assert torch.equal(turned.flatten().argsort(), torch.arange(3, -1, -1))
        # A small sum is no rounding: here the third channel outweighs the second.
        weights[2] = -1.001
        (found,) = METHODS["eigencam"]((weights[:, None] * first).reshape(1, 4, 2, 2), values)
        assert torch.equal(found.flatten().argsort(), torch.arange(3, -1, -1))


@pytest.mark.parametrize("method", EIGEN)
def test_maps_without_a_direction_are_zero(method):
    thirds = torch.full((1, 5, 1, 1), 1 / 3).cumsum(dim=1).expand(1, 5, 7, 7).contiguous()
    for values in (torch.zeros(1, 5, 7, 7), thirds, torch.rand(1, 5, 1, 1), thirds * 1e-30):
        assert not METHODS[method](values, torch.ones_like(values)).any()


def test_a_component_of_tiny_values_has_the_shape_of_large_ones():
    values = torch.rand(2, 5, 6, 6, generator=torch.Generator().manual_seed(0))
    maps = METHODS["eigengradcam"](values, torch.full_like(values, 2.0**-100))
    torch.testing.assert_close(maps * 2.0**100, METHODS["eigencam"](values, values))


@pytest.mark.parametrize("method", EIGEN)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_component_of_an_image_that_is_not_finite_spares_the_others(method, value):
    values, ones = torch.rand(3, 5, 6, 6, generator=torch.Generator().manual_seed(0)), torch.ones(3, 5, 6, 6)
    alone = METHODS[method](values[[0, 2]], ones[:2])
    values[1, 2, 3, 4] = value
    maps = METHODS[method](values, ones)
    assert maps[1].isnan().all()
    torch.testing.assert_close(maps[[0, 2]], alone)


def test_the_map_of_eigencam_alone_is_the_same_for_every_target(thin):
    images = torch.rand(2, 3, 64, 64)
    for method in METHODS:
        first, second = (GradCAM(thin, "block4_conv1", method=method)(images, i).maps["block4_conv1"] for i in (0, 1))
        assert torch.equal(first, second) == (method == "eigencam"), method


def test_methods_differ_and_an_unknown_method_is_an_error(thin):
    images = torch.rand(1, 3, 64, 64)
    # Before a ReLU, as after it element-wise Grad-CAM is LayerCAM.
    place = next(i for i, module in enumerate(thin.features) if isinstance(module, nn.ReLU) and i > 20)
    signed, relu = f"features.{place - 1}", f"features.{place}"
    found = {method: GradCAM(thin, [signed, relu], method=method)(images, 0).maps for method in METHODS}
    maps = [each[signed] for each in found.values()]
    assert all(not torch.equal(one, other) for i, one in enumerate(maps) for other in maps[:i])
    torch.testing.assert_close(found["gradcam_elementwise"][relu], found["layercam"][relu])
    with pytest.raises(ValueError, match=r"`method` to be one of \['eigencam', .*'xgradcam'\], but got 'scorecam'"):
        GradCAM(thin, method="scorecam")


def test_the_documentation_names_every_method():
    api = (DOCS / "api.md").read_text()
    for name, formula in METHODS.items():
        for text in (GradCAM.__doc__, api, (DOCS / "getting-started.md").read_text()):
            assert name == "gradcam" or f'"{name}"' in text, name
        assert f"::: gradcam_callback.maps.methods.{formula.__name__}\n" in api
