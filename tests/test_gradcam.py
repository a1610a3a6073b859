"""Maps equal the formula exactly, whatever the form of the network."""

import copy

import numpy as np
import pytest
import torch
import torchvision
from captum.attr import LayerGradCam
from conftest import ThinVGG
from pretrained import for_finetuning
from sameness import assert_close, assert_maps_close
from torch import nn
from torch.nn import functional

from gradcam_callback import GradCAM
from gradcam_callback.maps import class_probability, concatenate, is_correct, predicted_class

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


class Fuses(nn.Module):
    """Joins its last features with those that a hook has kept of a layer before."""

    def __init__(self, hook):
        super().__init__()
        # The ReLU writes into what it takes, which is positive already.
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Softplus(), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 3))
        self.head, self.hook = nn.Linear(12, 3), hook
        for parameter in self.parameters():
            parameter.data.abs_()
        self.features[1].register_forward_hook(self.keep)

    def keep(self, module, inputs, output):
        self.kept, output = self.hook(output)
        return output

    def forward(self, images):
        features = self.features(images)
        return self.head(torch.cat([features.mean(dim=(2, 3)), self.kept.mean(dim=(2, 3))], dim=1))


HOOKS = {
    "keeps": lambda output: (output, None),
    "changes": lambda output: (output, output * 2),
    "overwrites": lambda output: (output.mul_(torch.arange(6)[:, None, None] > 2), None),
}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("layers", [["features.1"], ["features.1", "features.3"], ["features.0", "features.1"]])
@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_what_a_hook_of_the_users_keeps_of_a_layer_leads_back_to_it(hook, layers, inside):
    torch.manual_seed(0)
    model, images = Fuses(hook).double().eval(), torch.rand(2, 3, 12, 12).double()
    outputs = {}

    def run(net, images, _):
        # A graph that starts before the first layer.
        return net(images.requires_grad_() if inside else images)

    found = {layer: [] for layer in layers}
    for image in images:
        for layer, raw in GradCAM(model, layers)(image[None], 1, forward=run).maps.items():
            found[layer].append(raw)
    for layer in layers:
        module = model.get_submodule(layer)
        module.register_forward_hook(lambda _, __, output, layer=layer: outputs.setdefault(layer, output).clone())
    gradients = torch.autograd.grad(model(images)[:, 1].sum(), [outputs[layer] for layer in layers])
    for layer, gradient in zip(layers, gradients, strict=True):
        expected = (gradient.mean(dim=(2, 3), keepdim=True) * outputs[layer]).sum(dim=1).relu().detach()
        assert expected.any()
        torch.testing.assert_close(torch.cat(found[layer]), expected)


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


def put(model, place, module):
    model.features[place] = module
    return model


def replace_everything(model):
    torch.manual_seed(1)
    model.features = ThinVGG(batch_norm=False).double().eval().features
    return model


REPLACED = {
    "layer": (["block1_conv1", "block4"], lambda model: put(model, 1, nn.ReLU())),
    "layer by its place": (["features.20"], lambda model: put(model, 20, nn.ReLU())),
    "layer in a container": ("block1", lambda model: put(model, 3, nn.Sequential(nn.ReLU(), nn.Dropout()))),
    "last layer": ("last", lambda model: put(model, 29, nn.ReLU(inplace=True))),
    "all layers": ("all", replace_everything),
}


@pytest.mark.parametrize("kind", REPLACED)
@pytest.mark.parametrize("n_frozen", [0, 12])
def test_a_layer_that_was_replaced_is_found_again_by_its_name(kind, n_frozen):
    torch.manual_seed(0)
    model, images = ThinVGG(batch_norm=False).double().eval(), torch.rand(2, 3, 64, 64).double()
    model.features[:n_frozen].requires_grad_(False)
    layers, replace = REPLACED[kind]
    cam = GradCAM(model, layers)
    before = [cam(images, 1).maps for _ in range(2)][0]
    replace(model)
    after = GradCAM(model, layers, reuse_frozen=False)(images, 1).maps
    assert kind != "all layers" or not torch.equal(before["block5_conv3"], after["block5_conv3"])
    for _ in range(2):
        assert_maps_close(cam(images, 1).maps, after)


def test_the_last_layer_of_another_network_is_found_again_by_its_place():
    torch.manual_seed(0)
    model, images = torchvision.models.resnet18(num_classes=4).double().eval(), torch.rand(2, 3, 64, 64).double()
    cam = GradCAM(model, "last")
    cam(images, 3)
    model.layer4 = torchvision.models.resnet18().double().eval().layer4
    assert_maps_close(cam(images, 3).maps, GradCAM(model, "last")(images, 3).maps)


@pytest.mark.parametrize(
    ("choose", "place", "module"),
    [
        (lambda model: model.features[29], 29, nn.ReLU()),
        (lambda model: "block5_conv3", 29, nn.GELU()),
        # Behind a convolution without a ReLU another VGG would begin, and block3 would be another block.
        (lambda model: ["block1_conv1", "block3_conv1"], 11, nn.GELU()),
        (lambda model: "all", 15, nn.Sequential()),
        (lambda model: ["block2", "features.20"], 20, None),
    ],
)
def test_a_layer_that_is_not_found_again_is_said(choose, place, module):
    model, images = ThinVGG(batch_norm=False).eval(), torch.rand(1, 3, 32, 32)
    cam = GradCAM(model, choose(model))
    cam(images, 1)
    if module is None:
        model.features = model.features[:place]
    else:
        model.features[place] = module
    with pytest.raises(ValueError, match="but it lost the modules of .* and choose it by its name; or begin anew"):
        cam(images, 1)


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


def test_probabilities_and_predictions():
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    assert predicted_class(logits).tolist()[1] == 0
    assert class_probability(logits, torch.tensor([1, 0])).tolist() == pytest.approx([0.5, 1 / (1 + np.exp(-2))])
    single = torch.tensor([[2.0], [-2.0]])
    assert predicted_class(single).tolist() == [1, 0]
    probability = 1 / (1 + np.exp(-2))
    assert class_probability(single, torch.tensor([1, 0])).tolist() == pytest.approx([probability, probability])


def test_logits_without_a_probability_are_neither_right_nor_wrong():
    nan, inf = torch.nan, torch.inf
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [nan, 0.0], [0.0, nan], [nan, nan], [inf, 0.0], [0.0, -inf]])
    labels = torch.zeros(len(logits), dtype=torch.long)
    assert is_correct(logits, labels).tolist() == pytest.approx([1, 0, nan, nan, nan, nan, 1], nan_ok=True)
    single = torch.tensor([[-1.0], [1.0], [nan], [-inf]])
    assert is_correct(single, labels[:4]).tolist() == pytest.approx([1, 0, nan, 1], nan_ok=True)
    # Each class has a sigmoid of its own, so that of another class does not matter.
    several = is_correct(logits, labels, multi_label=True).tolist()
    assert several == pytest.approx([1, 0, nan, 0, nan, 1, 0], nan_ok=True)


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


class Overwriting(ThinVGG):
    """A VGG that overwrites its features."""

    def forward(self, images):
        return self.classifier(self.features[:-1](images).mul_(0.5))


@pytest.mark.parametrize(
    ("model", "expected"),
    [(ThinVGG(), [True, True]), (Overwriting(), [True, False, False])],
    ids=["plain", "overwriting: the fast path is tried once"],
)
def test_images_are_channels_last_unless_the_model_does_not_support_the_fast_path(model, expected):
    channels_last = []

    def remember(_, inputs):
        channels_last.append(inputs[0].is_contiguous(memory_format=torch.channels_last))

    model.register_forward_pre_hook(remember)
    cam = GradCAM(model, "block5_conv3")
    for _ in range(2):
        cam(torch.rand(2, 3, 64, 64), 0)
    assert channels_last == expected


class Flat(nn.Sequential):
    """A network that needs its features in the usual layout."""

    def __init__(self, view):
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(400, 3))
        self.view = view

    def forward(self, images):
        return self[2](self.view(self[1](self[0](images))))


def view_flat(features):
    return features.view(len(features), -1)


def assert_layout(features):
    assert features.is_contiguous(), "as a kernel of its own does"
    return features.flatten(1)


@pytest.mark.parametrize("layer", ["1", "last"])
@pytest.mark.parametrize("view", [view_flat, assert_layout])
def test_the_layout_of_the_images_does_not_matter(view, layer):
    torch.manual_seed(0)
    model, rows = Flat(view), torch.rand(2, 12, 12, 3)  # images of NumPy or Keras are (H, W, C)
    turned = rows.permute(0, 3, 1, 2)
    usual = turned.contiguous()
    logits, expected = model(usual).detach(), GradCAM(model, "1")(usual, 1).maps["1"]
    assert expected.any()
    for images in (turned, usual):
        cams = GradCAM(model, layer)(images, 1)
        torch.testing.assert_close([*cams.maps.values(), cams.logits], [expected, logits])
        torch.testing.assert_close(GradCAM(model, layer).predict(images), logits)
        assert not GradCAM(model, layer).tells_no_logits(images)


class Bytes(nn.Module):
    """A network that takes images of integers, and returns sigmoids."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images.float() / 255).sigmoid()


NETWORKS = {
    "all": ThinVGG,
    "last": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ),
}


@pytest.mark.parametrize("layers", NETWORKS)
def test_images_of_integers_have_the_same_answers_with_and_without_maps(layers):
    model, images = Bytes(NETWORKS[layers]()), torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    logits = GradCAM(model, layers).predict(images)
    torch.testing.assert_close(logits, GradCAM(model, layers)(images).logits)
    torch.testing.assert_close(logits.sigmoid(), model.eval()(images))
    assert not GradCAM(model, layers).tells_no_logits(images)


def test_one_nonfinite_logit_is_reported_for_its_image_alone(double_thin):
    def one_infinite(logits):
        return torch.where(torch.tensor([[False, False, True], [False] * 3]), torch.inf, logits)

    cams = GradCAM(double_thin, "block5", output_transform=one_infinite)(torch.rand(2, 3, 64, 64).double(), [0, 0])
    assert cams.nonfinite.tolist() == [True, False]
    assert all(raw.isfinite().all() for raw in cams.maps.values())
