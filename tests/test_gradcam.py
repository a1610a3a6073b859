"""Tests that maps equal the formula exactly, and leave the model as it was."""

import copy
import inspect
import random
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import torch
import torchvision
from captum.attr import LayerGradCam
from conftest import THIN, ThinVGG
from pretrained import for_finetuning
from torch import nn
from torch.nn import functional
from torchvision.models.vgg import make_layers

from gradcam_callback import GradCAM, GradCAMWarning, maps
from gradcam_callback.exceptions import UserCodeError
from gradcam_callback.maps import (
    GradCAMOptions,
    check_options,
    class_probability,
    concatenate,
    predicted_class,
)

ROOT = Path(__file__).parent.parent
RELUS = (1, 3, 6, 8, 11, 13, 15, 18, 20, 22, 25, 27, 29)


def naive_maps(features, head, images, targets):
    """Compute the formula without hooks: run each step of the features by itself, in one graph."""
    activations = []
    x = images
    for module in features:
        x = functional.relu(x) if isinstance(module, nn.ReLU) else module(x)
        if isinstance(module, nn.ReLU):
            activations.append(x)
    logits = head(x)
    maps = []
    for activation in activations:
        score = sum(logits[i, target] for i, target in enumerate(targets))
        (gradient,) = torch.autograd.grad(score, activation, retain_graph=True)
        alpha = gradient.mean(dim=(2, 3), keepdim=True)
        maps.append((alpha * activation).sum(dim=1).clamp(min=0).detach())
    return logits.detach(), maps


def assert_close(found, expected, relative=1e-8):
    assert found.shape == expected.shape
    assert expected.abs().max() > 0, "a map of zeros would prove nothing"
    assert (found - expected).abs().max() <= relative * expected.abs().max()


def assert_maps_close(found, expected, relative=1e-8):
    """Compare the maps of all layers. A few maps of a random network may be empty, but then both are."""
    assert list(found) == list(expected)
    filled = [name for name, raw in expected.items() if raw.any()]
    assert len(filled) > len(expected) / 2, "maps of zeros would prove nothing"
    for name, raw in found.items():
        assert (raw - expected[name]).abs().max() <= relative * expected[name].abs().max()


@pytest.fixture
def double_thin():
    torch.manual_seed(0)
    return ThinVGG(batch_norm=True).double().eval()


def test_maps_of_the_pretrained_vgg16_equal_captums_on_all_13_layers(photographs):
    # captum runs the whole network once per layer, so one small photograph has to do.
    torch.manual_seed(0)
    model = for_finetuning("demo", 4).double().eval()
    images, targets = functional.interpolate(photographs[:1].double(), size=(112, 112), mode="area"), [1]
    cams = GradCAM(model)(images, targets)
    assert len(cams.maps) == 13
    for raw, place in zip(cams.maps.values(), RELUS, strict=True):
        captum = LayerGradCam(model, model.features[place])
        expected = captum.attribute(images, torch.tensor(targets), relu_attributions=True)
        assert raw.dtype == torch.float64
        assert_close(raw, expected[:, 0].detach())


def test_maps_equal_a_reference_without_hooks(double_thin):
    images, targets = torch.rand(3, 3, 64, 96).double(), [0, 2, 1]
    cams = GradCAM(double_thin, chunk_size=2)(images, targets)
    logits, expected = naive_maps(double_thin.features, double_thin.classifier, images, targets)
    torch.testing.assert_close(cams.logits, logits)
    for raw, reference in zip(cams.maps.values(), expected, strict=True):
        assert_close(raw, reference)


@pytest.mark.parametrize("layers", ["block5_conv3", ["block2_conv1", "block4_conv2"]])
def test_a_single_layer_has_the_same_map_as_among_all_layers(double_thin, layers):
    images = torch.rand(2, 3, 64, 64).double()
    all_maps = GradCAM(double_thin)(images, 1).maps
    for name, raw in GradCAM(double_thin, layers)(images, 1).maps.items():
        assert_close(raw, all_maps[name])


def test_maps_of_a_batch_equal_the_maps_of_its_images_one_by_one(double_thin):
    images, targets = torch.rand(5, 3, 64, 64).double(), torch.tensor([2, 0, 1, 1, 0])
    batch = GradCAM(double_thin, chunk_size=3)(images, targets)
    for i in range(5):
        alone = GradCAM(double_thin)(images[i : i + 1], int(targets[i]))
        assert_maps_close({name: raw[i : i + 1] for name, raw in batch.maps.items()}, alone.maps, relative=1e-10)


def variants():
    frozen = ThinVGG().requires_grad_(False)
    partly = ThinVGG()
    partly.features[:24].requires_grad_(False)
    not_in_place = ThinVGG()
    for module in not_in_place.features:
        if isinstance(module, nn.ReLU):
            module.inplace = False
    compiled = ThinVGG()
    compiled.features = torch.compile(compiled.features)
    return {
        "frozen": frozen,
        "partly frozen": partly,
        "inplace=False": not_in_place,
        "compiled inside": compiled,
        "channels_last": ThinVGG().to(memory_format=torch.channels_last),
    }


@pytest.mark.parametrize("kind", ["frozen", "partly frozen", "inplace=False", "compiled inside", "channels_last"])
def test_variants_of_a_network_give_the_same_maps(kind):
    torch.manual_seed(0)
    plain = ThinVGG()
    model = variants()[kind]
    model.load_state_dict(dict(zip(model.state_dict(), plain.state_dict().values(), strict=True)))
    images = torch.rand(2, 3, 64, 64)
    expected, found = GradCAM(plain)(images, 1), GradCAM(model)(images, 1)
    assert_maps_close(found.maps, expected.maps, relative=1e-4)


def test_whole_compiled_module_gives_the_same_maps(double_thin):
    images = torch.rand(2, 3, 64, 64).double()
    found, expected = GradCAM(torch.compile(double_thin))(images, 0), GradCAM(double_thin)(images, 0)
    assert_maps_close(found.maps, expected.maps)


def test_features_that_run_under_no_grad_in_forward_have_maps(double_thin):
    class Transfer(nn.Module):
        """A frozen feature extractor, as in Lightning's transfer-learning guide."""

        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, images):
            self.network.eval()
            with torch.no_grad():
                found = self.network.features(images)
            return self.network.classifier(found)

    images = torch.rand(2, 3, 64, 64).double()
    transfer = Transfer(double_thin).train()
    found, expected = GradCAM(transfer)(images, 2), GradCAM(double_thin)(images, 2)
    assert_maps_close(found.maps, expected.maps)
    assert all(module.training for module in transfer.modules()), "the eval() inside forward is undone, too"


def test_a_dotted_name_means_the_modules_own_output_even_if_the_next_module_overwrites_it(double_thin):
    images, place = torch.rand(2, 3, 64, 64).double(), 40  # the last batch norm, before an in-place ReLU
    assert isinstance(double_thin.features[place + 1], nn.BatchNorm2d)
    before = double_thin.features[: place + 2](images).detach().requires_grad_()
    logits = double_thin.classifier(double_thin.features[place + 3 :](functional.relu(before)))
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), before)
    expected = (gradient.mean(dim=(2, 3), keepdim=True) * before).sum(dim=1).clamp(min=0).detach()
    assert_close(GradCAM(double_thin, f"features.{place + 1}")(images, 1).maps[f"features.{place + 1}"], expected)


@pytest.mark.parametrize("layers", [["block5_conv3"], ["block1_conv1", "block5_conv3"]], ids=["alone", "not first"])
def test_a_vgg_layer_that_a_later_operation_overwrites_is_exact(double_thin, layers):
    class Overwriting(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.features, self.classifier = network.features[:-1], network.classifier

        def forward(self, images):
            found = self.features(images)
            return self.classifier(found.mul_(0.5))

    images = torch.rand(2, 3, 64, 64).double()
    found = GradCAM(Overwriting(double_thin), layers)(images, 0).maps["block5_conv3"]
    activation = double_thin.features[:-1](images).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(double_thin.classifier(activation * 0.5)[:, 0].sum(), activation)
    assert_close(found, (gradient.mean(dim=(2, 3), keepdim=True) * activation).sum(dim=1).clamp(min=0).detach())


def test_a_module_that_runs_twice_counts_with_its_last_output():
    torch.manual_seed(0)
    model, images = torchvision.models.resnet18(num_classes=4).double().eval(), torch.rand(2, 3, 64, 64).double()
    # The ReLU of a residual block runs twice. Its second output is the output of the block.
    cams = GradCAM(model, ["layer4.1.relu", "layer4.1", "layer3"])(images, 3)
    assert_close(cams.maps["layer4.1.relu"], cams.maps["layer4.1"])
    captum = LayerGradCam(model, model.layer3).attribute(images, 3, relu_attributions=True)[:, 0]
    assert_close(cams.maps["layer3"], captum.detach())


def test_modules_have_the_same_maps_as_their_names():
    torch.manual_seed(0)
    model, images = torchvision.models.resnet18(num_classes=4).double().eval(), torch.rand(2, 3, 64, 64).double()
    by_name = GradCAM(model, ["layer4.1.relu", "layer3", "conv1"])(images, 3)
    by_module = GradCAM(model, [model.layer4[1].relu, model.layer3, model.conv1])(images, 3)
    assert_maps_close(by_module.maps, by_name.maps, relative=0)
    mixed = GradCAM(model, ["layer4.1.relu", model.layer3, "conv1"])(images, 3)
    assert_maps_close(mixed.maps, by_name.maps, relative=0)
    for module, name in ((model.conv1, "conv1"), (model.layer3, "layer3")):
        alone = GradCAM(model, module)(images, 3)
        assert_maps_close(alone.maps, {name: by_name.maps[name]}, relative=1e-10)
    with_last = GradCAM(model, [model.layer3, "last"])(images, 3)
    assert_maps_close(
        with_last.maps, {name: by_name.maps[name] for name in ("layer3", "layer4.1.relu")}, relative=1e-10
    )


@pytest.mark.parametrize("wrap", [lambda model: model, torch.compile], ids=["plain", "compiled"])
def test_the_relu_of_a_vgg_has_the_same_map_as_its_keras_name(double_thin, wrap):
    images, place = torch.rand(2, 3, 64, 64).double(), len(double_thin.features) - 2
    relu = double_thin.features[place]
    assert isinstance(relu, nn.ReLU)
    (expected,) = GradCAM(double_thin, "block5_conv3")(images, 1).maps.values()
    for target_layers in (relu, ["block5_conv3", relu]):
        maps = GradCAM(wrap(double_thin), target_layers)(images, 1).maps
        assert list(maps)[-1] == f"features.{place}"
        for raw in maps.values():
            assert_close(raw, expected, relative=1e-10)


def test_a_module_of_another_model_is_an_error(thin):
    for target_layers in (ThinVGG().features[1], ["block5", ThinVGG().features]):
        with pytest.raises(ValueError, match="modules of the model, but got a .* that is not part of it"):
            GradCAM(thin, target_layers)


def test_single_logit_explains_both_sides():
    torch.manual_seed(0)
    model, images = ThinVGG(classes=1).double(), torch.rand(2, 3, 64, 64).double()
    cams = GradCAM(model)(images, [1, 0])
    logits, positive = naive_maps(model.eval().features, model.classifier, images, [0, 0])
    negated = copy.deepcopy(model)
    negated.classifier[-1].weight.data.neg_()
    negated.classifier[-1].bias.data.neg_()
    _, negative = naive_maps(negated.features, negated.classifier, images, [0, 0])
    for raw, plus, minus in zip(cams.maps.values(), positive, negative, strict=True):
        torch.testing.assert_close(raw[0], plus[0])
        torch.testing.assert_close(raw[1], minus[1])
    assert GradCAM(model)(images).targets.tolist() == (logits[:, 0] > 0).long().tolist()


def test_targets_default_to_the_predicted_class(double_thin):
    images = torch.rand(3, 3, 64, 64).double()
    cams = GradCAM(double_thin)(images)
    assert cams.targets.tolist() == cams.logits.argmax(dim=1).tolist()
    assert cams.targets.dtype == torch.int64
    asked = GradCAM(double_thin)(images, cams.targets.tolist())
    assert all(torch.equal(asked.maps[name], raw) for name, raw in cams.maps.items())


def test_maps_are_float32_also_for_a_bfloat16_model():
    cams = GradCAM(ThinVGG().bfloat16(), "block5")(torch.rand(1, 3, 64, 64).bfloat16(), 0)
    assert {raw.dtype for raw in cams.maps.values()} == {torch.float32}


def test_all_negative_maps_are_zeros():
    torch.manual_seed(0)
    model = ThinVGG()
    with torch.no_grad():
        model.classifier[-1].weight[0] = 0.0
    cams = GradCAM(model)(torch.rand(2, 3, 64, 64), 0)
    assert all(bool((raw == 0).all()) for raw in cams.maps.values())
    assert not cams.nonfinite.any()


def test_nan_gives_empty_maps_and_is_reported_for_that_image_alone(double_thin):
    images = torch.rand(3, 3, 64, 64).double()
    images[1, 0, 5, 5] = float("nan")
    cams = GradCAM(double_thin)(images, 0)
    assert cams.nonfinite.tolist() == [False, True, False]
    assert all(bool(raw.isfinite().all()) and not raw[1].any() for raw in cams.maps.values())
    assert all(bool(raw[0].any()) for raw in cams.maps.values())


def test_infinite_scores_are_reported_and_empty_only_the_maps_that_they_make_meaningless(double_thin):
    double_thin.classifier[-1].bias.data[2] = float("inf")
    images = torch.rand(1, 3, 64, 64).double()
    broken, sound = GradCAM(double_thin, "block5")(images, 2), GradCAM(double_thin, "block5")(images, 1)
    assert broken.nonfinite.tolist() == sound.nonfinite.tolist() == [True]
    assert not any(raw.any() for raw in broken.maps.values())
    assert any(raw.any() for raw in sound.maps.values())


def snapshot(model):
    return {
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "grads": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "training": {name: module.training for name, module in model.named_modules()},
        "hooks": {
            name: [len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks)]
            for name, module in model.named_modules()
        },
        "random": [torch.get_rng_state(), torch.tensor(np.random.get_state()[1].astype(np.int64)), random.getstate()],
        "modes": [torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")],
    }


def assert_same(before, after):
    for part, value in before.items():
        for key in value if isinstance(value, dict) else range(len(value)):
            old, new = value[key], after[part][key]
            same = torch.equal(old, new) if isinstance(old, torch.Tensor) else old == new
            assert same, f"{part} of {key} has changed"


def half_trained():
    """Return a model in the middle of a step: with gradients, frozen modules, a module in eval mode, and a hook."""
    torch.manual_seed(0)
    model = ThinVGG().train()
    model.features[:10].requires_grad_(False)
    model.features[4].eval()
    model.classifier[4].register_forward_hook(lambda module, inputs, output: None)
    functional.cross_entropy(model(torch.rand(4, 3, 64, 64)), torch.tensor([0, 1, 2, 0])).backward()
    return model


class Noisy(nn.Module):
    """A module that draws from every random generator, and raises an error on demand."""

    def __init__(self, breaks):
        super().__init__()
        self.breaks = breaks

    def forward(self, x):
        noise = torch.rand(1) + np.random.rand() + random.random()
        if self.breaks:
            raise KeyError("broken")
        return x + noise.to(x.dtype)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("breaks", [False, True])
def test_a_map_leaves_everything_as_it_was(mode, breaks):
    model = half_trained()
    model.classifier.append(Noisy(breaks))
    with mode():
        before = snapshot(model)
        if breaks:
            with pytest.raises(KeyError, match="broken"):
                GradCAM(model)(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
        else:
            GradCAM(model)(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
        assert_same(before, snapshot(model))


def test_a_forward_that_writes_into_its_buffers_writes_into_copies():
    class Counting(ThinVGG):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, images):
            self.calls += 1
            return super().forward(images)

    model = Counting()
    GradCAM(model)(torch.rand(1, 3, 64, 64))
    assert model.calls.item() == 0


def test_a_pending_graph_can_still_be_used_after_a_map():
    model = half_trained()
    images, labels = torch.rand(2, 3, 64, 64), torch.tensor([0, 1])
    loss = functional.cross_entropy(model.eval()(images), labels)
    GradCAM(model)(images)
    model.zero_grad()
    loss.backward()
    found = model.classifier[-1].weight.grad.clone()
    model.zero_grad()
    functional.cross_entropy(model(images), labels).backward()
    assert torch.equal(found, model.classifier[-1].weight.grad)


def test_the_users_images_are_not_changed_and_get_no_gradients(double_thin):
    images = torch.rand(1, 3, 64, 64).double().requires_grad_()
    before = images.detach().clone()
    GradCAM(double_thin)(images, 0)
    assert torch.equal(images, before) and images.grad is None


def test_model_and_images_made_under_inference_mode(double_thin):
    with torch.inference_mode():
        model = ThinVGG().double()
        model.load_state_dict(double_thin.state_dict())
        images = torch.rand(1, 3, 64, 64).double()
        found = GradCAM(model)(images, 1)
    expected = GradCAM(double_thin)(images.clone(), 1)
    assert_maps_close(found.maps, expected.maps)


def test_autocast_around_a_map_does_not_coarsen_it(double_thin):
    model, images = copy.deepcopy(double_thin).float(), torch.rand(1, 3, 64, 64)
    expected = GradCAM(model)(images, 0)
    with torch.autocast("cpu", torch.bfloat16):
        found = GradCAM(model)(images, 0)
    for name, raw in found.maps.items():
        assert torch.equal(raw, expected.maps[name])


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (torch.rand(3, 64, 64), None, r"`images` to be a tensor \(N, C, H, W\) .* but got shape \(3, 64, 64\)"),
        (torch.rand(0, 3, 64, 64), None, r"with N >= 1, but got shape \(0, 3, 64, 64\)"),
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


def test_predict_returns_the_logits_of_eval_mode_and_leaves_everything_as_it_was():
    model = half_trained()
    images = torch.rand(5, 3, 64, 64)
    before = snapshot(model)
    found = GradCAM(model, "block5", chunk_size=2).predict(images)
    assert_same(before, snapshot(model))
    with torch.no_grad():
        torch.testing.assert_close(found, model.eval()(images))


def test_probabilities_and_predictions():
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    assert predicted_class(logits).tolist()[1] == 0
    assert class_probability(logits, torch.tensor([1, 0])).tolist() == pytest.approx([0.5, 1 / (1 + np.exp(-2))])
    single = torch.tensor([[2.0], [-2.0]])
    assert predicted_class(single).tolist() == [1, 0]
    probability = 1 / (1 + np.exp(-2))
    assert class_probability(single, torch.tensor([1, 0])).tolist() == pytest.approx([probability, probability])


def test_hundreds_of_small_images_may_form_one_chunk():
    model, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 3)), torch.rand(300, 3, 4, 4)
    at_once, few = (GradCAM(model, "0", chunk_size=size)(images, [1] * 300) for size in (300, 50))
    assert_maps_close(at_once.maps, few.maps, relative=1e-5)


def test_parts_are_concatenated_in_their_order(double_thin):
    images, cam = torch.rand(3, 3, 64, 64).double(), GradCAM(double_thin, "block5")
    images[1] = torch.nan
    whole = cam(images, [0, 1, 2])
    one, two = cam(images[:1], [0]), cam(images[1:], [1, 2])
    assert concatenate([one]) is one
    found = concatenate([one, two])
    assert_maps_close(found.maps, whole.maps)
    torch.testing.assert_close(found.logits, whole.logits, equal_nan=True)
    assert found.targets.tolist() == [0, 1, 2] and found.nonfinite.tolist() == [False, True, False]


class Seen(ThinVGG):
    """A VGG that remembers the memory format of its images, and overwrites its features on demand."""

    def __init__(self, overwrites=False):
        super().__init__()
        self.overwrites, self.channels_last = overwrites, []

    def forward(self, images):
        self.channels_last.append(images.is_contiguous(memory_format=torch.channels_last))
        found = self.features[:-1](images)
        return self.classifier(found.mul_(0.5) if self.overwrites else found)


def test_images_are_channels_last_on_a_cpu_unless_the_model_does_not_support_the_fast_path():
    images = torch.rand(2, 3, 64, 64)
    plain, overwriting = Seen(), Seen(overwrites=True)
    for model in (plain, overwriting):
        cam = GradCAM(model, "block5_conv3")
        for _ in range(2):
            cam(images, 0)
    assert plain.channels_last == [True, True]
    assert overwriting.channels_last == [True, False, False], "the fast path is tried once"


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
    helps = got not in (r"shape \(1, 3\)", r"shape \(4, 3\)")
    assert ("output_transform" in str(caught.value)) == helps, "nothing helps if images are lost"


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


def test_one_nonfinite_logit_is_reported_for_its_image_alone(double_thin):
    def one_infinite(logits):
        return torch.where(torch.tensor([[False, False, True], [False] * 3]), torch.inf, logits)

    cams = GradCAM(double_thin, "block5", output_transform=one_infinite)(torch.rand(2, 3, 64, 64).double(), [0, 0])
    assert cams.nonfinite.tolist() == [True, False]
    assert all(raw.isfinite().all() for raw in cams.maps.values())


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
