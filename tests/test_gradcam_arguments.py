"""Which models, layers, images and targets GradCAM takes, and what it says of the others."""

import inspect
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

import numpy as np
import pytest
import torch
from conftest import THIN, ThinVGG
from torch import nn
from torchvision.models.vgg import make_layers

from gradcam_callback import GradCAM, GradCAMWarning, maps
from gradcam_callback.exceptions import UserCodeError
from gradcam_callback.maps import GradCAMOptions, check_options

ROOT = Path(__file__).parent.parent


def test_a_module_of_another_model_is_an_error(thin):
    for target_layers in (ThinVGG().features[1], ["block5", ThinVGG().features]):
        with pytest.raises(ValueError, match="modules of the model, but got a .* that is not part of it"):
            GradCAM(thin, target_layers)


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (torch.rand(3, 64, 64), None, r"`images` to be a tensor \(N, C, H, W\) .* but got shape \(3, 64, 64\)"),
        (torch.rand(0, 3, 64, 64), None, r"of sizes >= 1, but got shape \(0, 3, 64, 64\) of float32"),
        (torch.rand(1, 3, 0, 64), None, r"of sizes >= 1, but got shape \(1, 3, 0, 64\) of float32"),
        (torch.rand(1, 0, 64, 64), None, r"of sizes >= 1, but got shape \(1, 0, 64, 64\) of float32"),
        (torch.rand(2, 3, 64, 64), lambda logits, _: logits.argmax(1), r"\(2,\) of floating point, .* \(2,\) of int64"),
        ([1, 2], None, "Expected `images` to be a tensor .* but got list"),
        (torch.rand(2, 3, 64, 64), 3, r"classes from 0 to 2 \(the model returns 3 logits\), but got \[3\]"),
        (torch.rand(2, 3, 64, 64), [0, -1], r"from 0 to 2 .* but got \[-1\]"),
        (torch.rand(2, 3, 64, 64), [0, 1, 2], r"one integer or one per image \(2\), but got shape \(3,\)"),
        (torch.rand(2, 3, 64, 64), [0.5, 1.0], "Expected `targets` to be integers, but got torch.float32"),
    ],
)
def test_errors_of_wrong_arguments_say_what_was_expected_and_what_came(thin, images, targets, message):
    with pytest.raises(ValueError, match=message):
        GradCAM(thin)(images, targets)


def test_errors_name_wrong_models_and_layers(thin):
    with pytest.raises(ValueError, match=r"forward to return logits \(N, K\) .* but got shape \(2, 24, 2, 2\)"):
        GradCAM(nn.Sequential(make_layers(THIN)))(torch.rand(2, 3, 64, 64))
    with pytest.raises(ValueError, match=r"'classifier.2' to return \(N, C, h, w\) with N = 2, but got \(2, 16\)"):
        GradCAM(thin, "classifier.2")(torch.rand(2, 3, 64, 64))
    thin.unused = nn.Conv2d(3, 3, 3)
    with pytest.raises(ValueError, match="'unused' to take part in the model's forward, but it was not called"):
        GradCAM(thin, "unused")(torch.rand(2, 3, 64, 64))
    with pytest.raises(ValueError, match="`chunk_size` to be at least 1 image or None, but got 0"):
        GradCAM(thin, chunk_size=0)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (torch.inference_mode, "layer 'block5_conv3' .* runs it under inference_mode. Use no_grad there"),
        (None, r"to depend on the layers \['block5_conv3'\], but the model's forward detaches"),
    ],
)
def test_a_forward_that_stops_all_gradients_is_an_error(double_thin, cut, message):
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = double_thin

        def forward(self, images):
            if cut is None:
                return self.network.classifier(self.network.features(images).detach())
            with cut():
                return self.network(images)

    with pytest.raises(ValueError, match=message):
        GradCAM(Cut(), "block5_conv3")(torch.rand(1, 3, 64, 64).double(), 0)


@pytest.mark.parametrize(
    "wrap", [lambda logits: logits, lambda logits: {"of": [None, logits]}, lambda logits: SimpleNamespace(of=logits)]
)
def test_of_a_target_and_a_model_that_one_is_named_that_detaches(thin, wrap):
    class Wraps(nn.Module):
        def __init__(self, detaches):
            super().__init__()
            self.network, self.detaches = thin, detaches

        def forward(self, images):
            logits = self.network(images)
            return wrap(logits.detach() if self.detaches else logits)

    def detached(outputs, index):
        return torch.ones(len(index))

    for detaches, message in ((False, "your `target` detaches them. Remove"), (True, "the model's forward detaches")):
        with pytest.raises(ValueError, match=message):
            GradCAM(Wraps(detaches), "block5_conv3")(torch.rand(1, 3, 64, 64), detached)


def test_a_layer_without_influence_on_the_logits_has_an_empty_map():
    class Aside(ThinVGG):
        def __init__(self):
            super().__init__()
            self.aside = nn.Conv2d(3, 2, 3)

        def forward(self, images):
            self.aside(images)
            return super().forward(images)

    with pytest.warns(GradCAMWarning, match=r"does not depend on the layers \['aside'\]"):
        cams = GradCAM(Aside(), ["aside", "block5_conv3"])(torch.rand(1, 3, 64, 64))
    assert not cams.maps["aside"].any()
    assert cams.maps["block5_conv3"].shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (torch.rand(2, 1, 3, 64, 64), None, r"a tensor \(N, C, H, W\) .* but got shape \(2, 1, 3, 64, 64\)"),
        (torch.rand(2, 3, 64, 64), [0], r"one integer or one per image \(2\), but got shape \(1,\)"),
        (torch.rand(2, 3, 64, 64), [[0, 1], [1, 0]], r"one integer or one per image \(2\), but got shape \(2, 2\)"),
        (torch.rand(2, 3, 64, 64), [True, False], "`targets` to be integers, but got torch.bool"),
        (torch.rand(2, 3, 64, 64), [2, 7], r"from 0 to 2 \(the model returns 3 logits\), but got \[7\]"),
    ],
)
def test_other_wrong_arguments_are_errors_as_well(thin, images, targets, message):
    with pytest.raises(ValueError, match=message):
        GradCAM(thin)(images, targets)


@pytest.mark.parametrize("targets", [1, torch.tensor(1), [1, 1], (1, 1), torch.tensor([1, 1]), np.array([1, 1])])
def test_one_target_for_all_and_one_for_each(thin, targets):
    images = torch.rand(2, 3, 64, 64)
    assert GradCAM(thin, "block5")(images, targets).targets.tolist() == [1, 1]


def test_a_single_logit_has_the_classes_0_and_1():
    model, image = ThinVGG(classes=1), torch.rand(1, 3, 64, 64)
    assert [GradCAM(model)(image, target).targets.item() for target in (0, 1)] == [0, 1]
    with pytest.raises(ValueError, match=r"from 0 to 1 \(the model returns 1 logit\), but got \[2\]"):
        GradCAM(model)(image, 2)


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda logits: logits[:1], r"shape \(1, 3\)"),
        (lambda logits: torch.cat([logits, logits]), r"shape \(4, 3\)"),
        (lambda logits: logits[:, 0], r"shape \(2,\)"),
        (lambda logits: logits[:, None], r"shape \(2, 1, 3\)"),
        (lambda logits: [logits], r"list"),
        (lambda logits: logits[:, :0], r"shape \(2, 0\) of float32"),
        (lambda logits: logits > 0, r"shape \(2, 3\) of bool"),
        (lambda logits: logits.to(torch.complex64), r"shape \(2, 3\) of complex64"),
    ],
)
def test_the_error_of_wrong_logits_names_their_source(thin, change, got):
    images = torch.rand(2, 3, 64, 64)
    with pytest.raises(ValueError, match=f"`output_transform` to return logits .* with N = 2, but got {got}"):
        GradCAM(thin, output_transform=change)(images)

    class Changed(ThinVGG):
        def forward(self, images):
            return change(super().forward(images))

    with pytest.raises(ValueError, match=f"model's forward to return logits .* with N = 2, but got {got}") as caught:
        GradCAM(Changed())(images)
    hopeless = got.startswith((r"shape \(1, 3", r"shape \(4, 3", r"shape \(2, 0", r"shape \(2, 3\)"))
    assert ("output_transform" in str(caught.value)) != hopeless, "nothing helps if images or numbers are lost"
    with pytest.raises(ValueError, match="model's forward to return logits"):
        GradCAM(Changed()).predict(images)


def test_an_error_in_output_transform_has_a_class_of_its_own():
    def broken(outputs):
        raise KeyError("logits")

    with pytest.raises(UserCodeError, match="return logits .* but it raised KeyError: 'logits'") as caught:
        GradCAM(ThinVGG(), output_transform=broken)(torch.rand(1, 3, 64, 64))
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(ValueError, match="`output_transform` to be a callable or None, but got str"):
        GradCAM(ThinVGG(), output_transform="logits")


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        (lambda found: found.flatten(2), r"\(2, 24, 4\)"),
        (lambda found: found[:, :, None], r"\(2, 24, 1, 2, 2\)"),
        (lambda found: found[:1], r"\(1, 24, 2, 2\)"),
        (lambda found: torch.cat([found, found]), r"\(4, 24, 2, 2\)"),
    ],
)
def test_a_layer_without_a_spatial_output_per_image_is_an_error(thin, change, shape):
    class Changing(nn.Module):
        def forward(self, found):
            return change(found)

    class Aside(ThinVGG):
        def __init__(self):
            super().__init__()
            self.changing = Changing()

        def forward(self, images):
            found = self.features(images)
            return self.classifier(found) + self.changing(found).mean()

    with pytest.raises(ValueError, match=rf"layer 'changing' to return .* with N = 2, but got {shape}"):
        GradCAM(Aside(), "changing")(torch.rand(2, 3, 64, 64))


@pytest.mark.parametrize("chunk_size", [0, -1, -5])
def test_chunks_without_images_are_an_error(thin, chunk_size):
    with pytest.raises(ValueError, match=f"at least 1 image or None, but got {chunk_size}"):
        GradCAM(thin, chunk_size=chunk_size)


def test_the_options_are_the_keyword_arguments_of_gradcam():
    parameters = inspect.signature(GradCAM).parameters.values()
    expected = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    hints = get_type_hints(GradCAM.__init__)
    assert expected == set(inspect.signature(check_options).parameters)
    assert get_type_hints(GradCAMOptions) == {name: hints[name] for name in expected}
    assert GradCAMOptions.__required_keys__ == frozenset()


def test_the_maps_load_neither_lightning_nor_matplotlib():
    code = "import sys, gradcam_callback.maps; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "torch" in loaded and not loaded & {"pytorch_lightning", "lightning", "matplotlib", "PIL"}
    assert maps.__all__ == sorted(maps.__all__) and all(hasattr(maps, name) for name in maps.__all__)
