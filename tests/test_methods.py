"""Tests that the formulas equal pytorch-grad-cam, and results by hand."""

import pytest
import pytorch_grad_cam
import torch
from conftest import ThinVGG
from torch import nn

from gradcam_callback import GradCAM
from gradcam_callback.maps.methods import METHODS

PEERS = {
    "gradcam": pytorch_grad_cam.GradCAM,
    "gradcam++": pytorch_grad_cam.GradCAMPlusPlus,
    "hirescam": pytorch_grad_cam.HiResCAM,
    "layercam": pytorch_grad_cam.LayerCAM,
}


def activations_and_gradients(model, place, images, target):
    """Return activations and gradients of the ReLU at ``place``, computed step by step without hooks."""
    activations = model.features[: place + 1](images).detach().requires_grad_()
    logits = model.classifier(model.features[place + 1 :](activations))
    (gradients,) = torch.autograd.grad(logits[:, target].sum(), activations)
    return activations.detach(), gradients


@pytest.mark.parametrize("method", METHODS)
def test_each_method_equals_the_peer_that_implements_it(method):
    torch.manual_seed(0)
    model, images = ThinVGG().double().eval(), torch.rand(3, 3, 64, 64).double()
    # With such large logits, the 1e-6 in the denominator of the peer's Grad-CAM++ does not matter.
    model.classifier[-1].weight.data.mul_(1e6)
    place = max(i for i, module in enumerate(model.features) if isinstance(module, nn.ReLU))
    activations, gradients = activations_and_gradients(model, place, images, 1)
    peer = PEERS[method](model=model, target_layers=[model.features[place]])
    raw = peer.get_cam_image(images, model.features[place], [1] * 3, activations.numpy(), gradients.numpy(), False)
    peer.activations_and_grads.release()
    expected = torch.from_numpy(raw).clamp(min=0)
    found = GradCAM(model, "block5_conv3", method=method)(images, 1).maps["block5_conv3"]
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8 * float(expected.max()))


def test_methods_by_hand():
    activations = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    gradients = torch.tensor([[[[2.0, -4.0]], [[1.0, 1.0]]]])
    by_hand = {
        "gradcam": [-1 * 1 + 1 * 3, -1 * 2 + 1 * 0],
        "hirescam": [2 * 1 + 1 * 3, -4 * 2 + 1 * 0],
        "layercam": [2 * 1 + 1 * 3, 0 * 2 + 1 * 0],
        # The activations sum to 3 and 3. The weights are 2 / (2 + 2 * 3) = 1/4, and twice 1 / (2 + 1 * 3) = 2/5.
        "gradcam++": [0.25 * 1 + 0.4 * 3, 0.25 * 2 + 0.4 * 0],
    }
    assert set(by_hand) == set(METHODS)
    for name, expected in by_hand.items():
        assert METHODS[name](activations, gradients)[0, 0].tolist() == pytest.approx(expected), name


def test_grad_cam_plus_plus_ignores_negative_gradients():
    activations, gradients = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[1.0, -0.25]]]])
    # Only the first position contributes to the weight: 1 / (2 + 1 * 3).
    assert METHODS["gradcam++"](activations, gradients)[0, 0].tolist() == pytest.approx([0.2, 0.4])


def test_methods_differ_and_an_unknown_method_is_an_error(thin):
    images = torch.rand(1, 3, 64, 64)
    maps = [GradCAM(thin, "block4_conv1", method=method)(images, 0).maps["block4_conv1"] for method in METHODS]
    assert all(not torch.equal(one, other) for i, one in enumerate(maps) for other in maps[:i])
    with pytest.raises(ValueError, match=r"`method` to be one of \['gradcam', 'gradcam\+\+', .* but got 'eigencam'"):
        GradCAM(thin, method="eigencam")
