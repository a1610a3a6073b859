"""Tests that target layers resolve to the right modules: Keras names, dotted names and modules."""

import copy
import re
from collections import OrderedDict

import pytest
import timm
import torch
import torchvision
from conftest import THIN
from torch import nn
from torchvision.models.vgg import make_layers

from gradcam_callback.maps import resolve_layers

VGG16_NAMES = [f"block{b}_conv{c}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)]
CONVOLUTIONS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


def names(model, target_layers="all"):
    return [layer.name for layer in resolve_layers(model, target_layers)]


def thin_vgg(features=None):
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3))
    return nn.Sequential(features or make_layers(THIN), head)


def test_vgg16_names_resolve_to_torchvisions_relus():
    with torch.device("meta"):
        model = torchvision.models.vgg16()
    places = {module: i for i, module in enumerate(model.features)}
    found = {layer.name: places[layer.module] for layer in resolve_layers(model)}
    assert found == dict(zip(VGG16_NAMES, (1, 3, 6, 8, 11, 13, 15, 18, 20, 22, 25, 27, 29), strict=True))


@pytest.mark.parametrize("library", [torchvision.models, timm.models])
@pytest.mark.parametrize("suffix", ["", "_bn"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_every_vgg_of_torchvision_and_timm(library, kind, suffix):
    with torch.device("meta"):
        model = getattr(library, kind + suffix)()
    expected = [f"block{b}_conv{c}" for b, n in enumerate(CONVOLUTIONS[kind], 1) for c in range(1, n + 1)]
    layers = resolve_layers(model)
    assert [layer.name for layer in layers] == expected
    assert all(isinstance(layer.module, nn.ReLU) for layer in layers)


def test_nested_cut_and_frozen_vggs_keep_their_names():
    whole = thin_vgg()
    nested = nn.ModuleDict({"student": nn.ModuleDict({"net": nn.ModuleDict({"backbone": whole})})})
    assert names(nested) == VGG16_NAMES
    features = make_layers(THIN)
    stages = nn.Sequential(*(features[start:end] for start, end in ((0, 5), (5, 10), (10, 17), (17, 24), (24, 31))))
    assert names(thin_vgg(stages)) == VGG16_NAMES
    assert names(thin_vgg().requires_grad_(False)) == VGG16_NAMES


def test_an_adapter_in_front_and_a_convolution_behind_do_not_shift_the_names():
    head = nn.Sequential(nn.Conv2d(24, 8, 3), nn.ReLU())
    adapter = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
    for front in (adapter[:1], adapter, nn.MaxPool2d(2), nn.Sequential(*adapter, nn.MaxPool2d(2))):
        for features in (make_layers(THIN), make_layers(THIN)[:-1]):
            layers = resolve_layers(nn.Sequential(front, features, head))
            assert [layer.name for layer in layers] == VGG16_NAMES
            assert layers[0].module is features[1] and layers[-1].module is features[29]


class Attention(nn.Module):
    """A squeeze and excitation block. Its convolutions belong to no block of a VGG."""

    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 2, 1), nn.ReLU(), nn.Conv2d(2, channels, 1), nn.Sigmoid()
        )


@pytest.mark.parametrize("place", [5, 10, 17, 24])
@pytest.mark.parametrize("what", ["attention", "group norm", "average pooling", "strided convolution"])
def test_other_modules_between_the_blocks_do_not_shift_the_names(place, what):
    features = make_layers(THIN)
    channels = features[place - 3].out_channels
    pooling = {
        "attention": [features[place - 1], Attention(channels)],
        "group norm": [features[place - 1], nn.GroupNorm(1, channels)],
        "average pooling": [nn.AvgPool2d(2)],
        "strided convolution": [nn.Conv2d(channels, channels, 3, stride=2), nn.ReLU()],
    }[what]
    changed = nn.Sequential(*features[: place - 1], *pooling, *features[place:])
    layers = resolve_layers(nn.Sequential(changed, nn.Flatten()))
    assert {layer.name: layer.module for layer in layers} == {
        layer.name: layer.module for layer in resolve_layers(nn.Sequential(features, nn.Flatten()))
    }


def test_reparametrized_convolutions_are_convolutions_of_a_vgg():
    model = thin_vgg()
    nn.utils.parametrizations.weight_norm(model[0][0])
    nn.utils.parametrizations.spectral_norm(model[0][28])
    assert names(model) == VGG16_NAMES


class Adapted(nn.Module):
    """A convolution with a LoRA beside it, as peft builds it."""

    def __init__(self, convolution):
        super().__init__()
        self.base_layer = convolution
        self.lora_dropout = nn.ModuleDict({"default": nn.Identity()})
        self.lora_A = nn.ModuleDict({"default": nn.Conv2d(convolution.in_channels, 4, 3, padding=1, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Conv2d(4, convolution.out_channels, 1, bias=False)})
        self.lora_embedding_A = nn.ParameterDict()


@pytest.mark.parametrize("places", [(28,), (24, 26, 28), (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)], ids=len)
def test_convolutions_with_an_adapter_of_peft_are_convolutions_of_a_vgg(places):
    features = make_layers(THIN[:-1])
    for place in places:
        features[place] = Adapted(features[place])
    layers = resolve_layers(thin_vgg(features))
    assert [layer.name for layer in layers] == VGG16_NAMES
    assert [layer.module for layer in layers] == [module for module in features if isinstance(module, nn.ReLU)]


def test_stages_that_are_registered_in_another_order_are_found_as_they_run():
    features = make_layers(THIN)
    model = nn.ModuleDict({"top": features[17:], "bottom": features[:17]})
    layers = resolve_layers(model)
    assert [layer.name for layer in layers] == VGG16_NAMES
    relus = [module for module in features if isinstance(module, nn.ReLU)]
    assert [layer.module for layer in layers] == relus


class Other(nn.Module):
    """A convolution with another activation, so that its place in a block is not certain."""

    def __init__(self, convolution):
        super().__init__()
        self.convolution, self.activation = convolution, nn.GELU()


@pytest.mark.parametrize("place", [2, 5, 12, 28])
def test_a_stack_whose_names_are_not_certain_is_no_vgg(place):
    features = make_layers(THIN)
    changed = nn.Sequential(*features[:place], Other(features[place]), *features[place + 2 :])
    with pytest.raises(ValueError, match="contains no VGG"):
        names(nn.Sequential(changed, nn.Flatten()))


def test_a_decoder_is_no_part_of_the_encoder_in_front():
    def double(before, after):
        return nn.Sequential(nn.Conv2d(before, after, 3), nn.ReLU(), nn.Conv2d(after, after, 3), nn.ReLU())

    widths = (3, 8, 16, 24, 32, 48)
    encoder = [part for i in range(4) for part in (double(*widths[i : i + 2]), nn.MaxPool2d(2))]
    decoder = [
        part for i in range(5, 1, -1) for part in (nn.ConvTranspose2d(8, 4, 2), double(widths[i], widths[i - 1]))
    ]
    found = names(nn.Sequential(nn.ModuleList(encoder), double(32, 48), nn.ModuleList(decoder)))
    assert found == [f"block{b}_conv{c}" for b in range(1, 6) for c in (1, 2)]


class ConvBlock(nn.Module):
    """A convolution with its norm and ReLU, as a module of its own."""

    def __init__(self, before, after, relu_first=False, kernel=3):
        super().__init__()
        if relu_first:
            self.relu = nn.ReLU()
        self.conv, self.norm = nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.BatchNorm2d(after)
        self.relu = nn.ReLU()


def conv_blocks(counts, make=ConvBlock):
    modules, channels = [], 3
    for number, count in enumerate(counts):
        for _ in range(count):
            modules.append(make(channels, 4 * (number + 2)))
            channels = 4 * (number + 2)
        modules.append(nn.MaxPool2d(2))
    return nn.Sequential(nn.Sequential(*modules), nn.Flatten())


@pytest.mark.parametrize("counts", [(2, 2, 2, 3), (1, 1, 3), (2, 2, 2, 2, 4), (2, 2, 3, 3, 5), (2, 2, 3, 3, 3)])
def test_a_network_of_blocks_keeps_all_its_convolutions(counts):
    expected = [f"block{b}_conv{c}" for b, n in enumerate(counts, 1) for c in range(1, n + 1)]
    assert names(conv_blocks(counts)) == expected


@pytest.mark.parametrize("counts", [(1, 2, 2, 2, 2, 2), (2, 2, 2, 3, 3, 3)])
def test_of_six_blocks_the_first_five_have_names(counts):
    layers = resolve_layers(conv_blocks(counts))
    assert [layer.name for layer in layers][: counts[0]] == [f"block1_conv{c}" for c in range(1, counts[0] + 1)]
    assert layers[-1].name == f"block5_conv{counts[4]}"


def test_a_skipped_convolution_that_may_be_a_part_of_the_vgg_makes_it_none():
    """Without this, a VGG16 has the names of a VGG11 or VGG13."""

    def with_relu_first(before, after):
        return ConvBlock(before, after, relu_first=True)

    features = make_layers(THIN)
    for i in (14, 21, 28):
        features[i] = nn.Conv2d(features[i].in_channels, features[i].out_channels, 1)
    strided = nn.Sequential()
    for i in range(5):
        strided += nn.Sequential(ConvBlock(3 if not i else 8, 8), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU())
    for model in (conv_blocks((2, 2, 3, 3, 3), with_relu_first), nn.Sequential(features, nn.Flatten()), strided):
        with pytest.raises(ValueError, match="contains no VGG"):
            names(model)


def test_two_streams_that_are_registered_stage_by_stage_are_no_vgg():
    streams = [make_layers(THIN), make_layers(THIN)]
    model = nn.ModuleDict(
        {
            f"{name}{number}": features[start:end]
            for number, (start, end) in enumerate(((0, 5), (5, 10), (10, 17), (17, 24), (24, 31)))
            for name, features in zip(("rgb", "flow"), streams, strict=True)
        }
    )
    with pytest.raises(ValueError, match="contains no VGG"):
        names(model)


def test_blocks_layers_and_sequences_are_found_in_the_networks_order():
    model = thin_vgg()
    assert names(model, "block4") == ["block4_conv1", "block4_conv2", "block4_conv3"]
    assert names(model, ["block5_conv3", "0.1", "block5", "block1_conv2"]) == [
        "0.1", "block1_conv2", "block5_conv1", "block5_conv2", "block5_conv3",
    ]  # fmt: skip


def test_names_do_not_contain_the_wrapper_of_compile():
    assert names(torch.compile(thin_vgg()), "all") == VGG16_NAMES
    assert names(torch.compile(thin_vgg()), "0.1") == ["0.1"]


def test_errors_of_unknown_names_list_the_choices():
    with pytest.raises(ValueError, match=r"'block6'.*block1, block2.*block5_conv3.*dotted name") as caught:
        names(thin_vgg(), "block6")
    assert "block5_conv3" in str(caught.value)
    with pytest.raises(ValueError, match=r"'block5', and the model contains no VGG.*layer4\.1\.relu"):
        names(torchvision.models.resnet18(), "block5")
    with pytest.raises(ValueError, match="at least one layer, but it is empty"):
        names(thin_vgg(), [])
    with pytest.raises(ValueError, match="names and modules, but got 5 of type int"):
        names(thin_vgg(), [5])


def test_each_name_that_the_error_lists_can_be_chosen():
    for model in (thin_vgg(), nn.ModuleDict({"student": thin_vgg(), "teacher": thin_vgg()})):
        with pytest.raises(ValueError, match="Expected `target_layers` to name layers of the model") as caught:
            names(model, "student.block5")
        listed, dotted = str(caught.value).partition("Choose ")[2].split(", or the dotted name of a module: ")
        chosen = [
            *re.findall(r"[\w.]*(?:all|last|block)[\w]*", listed.replace("a block", "")),
            *dotted[:-1].split(", "),
        ]
        assert len(chosen) > 2 + 5 + 13 and all(names(model, name) for name in chosen)


def test_one_unknown_name_among_known_names_is_an_error():
    with pytest.raises(ValueError, match="'block5_conv4'"):
        names(thin_vgg(), ["block5_conv3", "block5_conv4"])


def test_a_name_that_fits_several_vggs_is_an_error():
    both = nn.ModuleDict({"student": thin_vgg(), "teacher": thin_vgg()})
    with pytest.raises(ValueError, match=r"2 VGGs.*student\.0\.block5.*teacher\.0\.block5"):
        names(both, "block5")
    chosen = resolve_layers(both, "teacher.0.block5_conv3")
    assert [layer.name for layer in chosen] == ["teacher.0.block5_conv3"]
    assert chosen[0].module is both["teacher"][0][29]


def test_no_vgg_is_found_in_other_models():
    for model in (
        torchvision.models.resnet18,
        torchvision.models.resnet50,
        torchvision.models.densenet121,
        torchvision.models.alexnet,
    ):
        with torch.device("meta"), pytest.raises(ValueError, match="contains no VGG"):
            names(model())


def test_extra_relus_do_not_shift_the_names():
    relu_first = nn.Sequential(nn.ReLU(), make_layers(THIN))
    assert names(nn.Sequential(relu_first, nn.Flatten())) == VGG16_NAMES
    doubled = nn.Sequential()
    for module in make_layers(THIN):
        doubled.extend([module, nn.ReLU()] if isinstance(module, (nn.ReLU, nn.MaxPool2d)) else [module])
    layers = resolve_layers(doubled)
    assert [layer.name for layer in layers] == VGG16_NAMES
    convolutions = [i for i, module in enumerate(doubled) if isinstance(module, nn.Conv2d)]
    assert [layer.module for layer in layers] == [doubled[i + 1] for i in convolutions], "the first ReLU after each"


def plain_stack(pools, kernel=3):
    modules = []
    for _ in range(pools):
        modules += [nn.Conv2d(3, 3, kernel, padding=kernel // 2), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*modules, nn.Flatten())


def test_a_vgg_has_at_least_three_poolings_and_convolutions_of_3_by_3():
    assert names(plain_stack(3)) == ["block1_conv1", "block2_conv1", "block3_conv1"]
    for other in (plain_stack(2), plain_stack(4, kernel=1), plain_stack(4, kernel=5)):
        with pytest.raises(ValueError, match="contains no VGG"):
            names(other)


def test_a_vgg_right_behind_another_has_its_own_five_blocks():
    one_after_the_other = nn.ModuleDict({"first": make_layers(THIN), "second": make_layers(THIN), "head": nn.ReLU()})
    one_after_the_other["further"] = nn.Sequential(nn.Conv2d(24, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
    for root in ("first", "second"):
        assert names(one_after_the_other, f"{root}.all") == [f"{root}.{layer}" for layer in VGG16_NAMES]


def staged():
    """Return a VGG16 in two stages of similar structure; the second stage is nested deeper."""
    features = make_layers(THIN)
    deeper = nn.Sequential(features[17:])
    return nn.Sequential(nn.ModuleDict({"layers": features[:17]}), nn.ModuleDict({"layers": deeper}))


def test_each_of_several_vggs_is_named_by_the_common_parent_of_its_parts():
    both = nn.ModuleDict({"student": nn.ModuleDict({"net": staged()}), "teacher": nn.ModuleDict({"net": staged()})})
    with pytest.raises(ValueError, match=r"Choose one of \['student\.net\.block5', 'teacher\.net\.block5'\]"):
        names(both, "block5")
    for root in ("student.net", "teacher.net"):
        assert names(both, f"{root}.block1") == [f"{root}.block1_conv1", f"{root}.block1_conv2"]


def test_a_partly_nested_vgg_has_the_name_of_its_outer_container():
    features = make_layers(THIN)
    nested = nn.Sequential(*features[:17], features[17:])
    both = nn.ModuleDict({"student": nested, "teacher": thin_vgg()})
    assert names(both, "student.all") == [f"student.{layer}" for layer in VGG16_NAMES]


def test_only_layers_by_dotted_name_need_a_copy():
    layers = resolve_layers(thin_vgg(), ["block5_conv3", "0.28"])
    assert {layer.name: layer.needs_copy for layer in layers} == {"0.28": True, "block5_conv3": False}


def test_last_is_the_last_convolution_of_a_vgg_and_the_given_layer_of_other_models():
    last = "".join(["la", "st"])  # an equal string, but not the same object, as if read from a file
    assert names(thin_vgg(), last) == ["block5_conv3"]
    vgg = nn.Sequential(OrderedDict(features=thin_vgg(), zoom=nn.Identity()))
    assert names(vgg, "zoom") == ["zoom"]
    network = nn.Sequential(OrderedDict(layer1=nn.Conv2d(3, 4, 3), layer2=nn.ReLU(), zoom=nn.AvgPool2d(2)))
    assert names(network, ["layer1", "zoom"]) == ["layer1", "zoom"], (
        'names after "last" in the alphabet are no special case'
    )
    assert names(network, [last, "layer1"]) == ["layer1"], "the last layer is not known yet"
    assert [layer.name for layer in resolve_layers(network, ["layer1", last], last="layer2")] == ["layer1", "layer2"]


def test_a_module_resolves_to_its_dotted_name():
    model = thin_vgg()
    (layer,) = resolve_layers(model, model[0][29])
    assert (layer.name, layer.module, layer.needs_copy) == ("0.29", model[0][29], True)
    assert [layer.module for layer in resolve_layers(model, "block5_conv3")] == [layer.module]
    assert names(model, model[0]) == ["0"], "a Sequential is iterable, but one target"
    assert names(model, [model[1], "block5", model[0][3], "0.3"]) == [
        "0.3", "block5_conv1", "block5_conv2", "block5_conv3", "1",
    ]  # fmt: skip


def test_a_module_of_a_compiled_model_has_its_plain_name():
    model = thin_vgg()
    relu = model[0][29]
    assert names(torch.compile(model), relu) == ["0.29"]
    model[0] = torch.compile(model[0])
    assert names(model, [relu, model[0]]) == ["0", "0.29"], "the wrapper itself stands for the wrapped module"


def test_a_module_that_is_registered_twice_has_its_first_name():
    shared = nn.ReLU()
    model = nn.Sequential(OrderedDict(first=nn.Conv2d(3, 4, 3), relu=shared, second=nn.Conv2d(4, 4, 3), again=shared))
    assert names(model, shared) == names(model, model.again) == ["relu"]


def test_modules_mix_with_last():
    model = nn.Sequential(OrderedDict(layer1=nn.Conv2d(3, 4, 3), layer2=nn.ReLU(), pool=nn.AvgPool2d(2)))
    assert names(model, [model.layer1, "last"]) == ["layer1"], "the last layer is not known yet"
    found = resolve_layers(model, [model.layer1, "last", model.layer2], last="layer2")
    assert [layer.name for layer in found] == ["layer1", "layer2"]
    vgg = thin_vgg()
    assert names(vgg, [vgg[0][0], "last"]) == ["0.0", "block5_conv3"]


def test_a_module_that_is_not_inside_the_model_is_an_error():
    model = thin_vgg()
    for foreign in (nn.ReLU(), copy.deepcopy(model)[0][29], [model[0][29], nn.ReLU()]):
        with pytest.raises(
            ValueError, match="modules of the model, but got a ReLU that is not part of it. Pass a module"
        ):
            names(model, foreign)
    compiled = torch.compile(model)
    for whole, target in ((model, model), (model, [model]), (compiled, compiled), (compiled, model)):
        with pytest.raises(ValueError, match=r"inside the model, but got the model itself \(\w+\). Pass a module"):
            names(whole, target)


class LoRA(nn.Module):
    """A convolution with an adapter beside it, in its place."""

    def __init__(self, convolution):
        super().__init__()
        self.base, self.dropout = convolution, nn.Dropout()
        self.down, self.up = nn.Conv2d(convolution.in_channels, 2, 1), nn.Conv2d(2, convolution.out_channels, 1)


def observed(convolution):
    convolution.weight_fake_quant = torch.ao.quantization.FakeQuantize()
    return convolution


@pytest.mark.parametrize("change", [nn.utils.parametrizations.weight_norm, LoRA, observed])
def test_the_choices_are_layers_and_no_parts_of_one(change):
    features = make_layers(THIN)
    for i, module in enumerate(features):
        if isinstance(module, nn.Conv2d):
            features[i] = change(module)
        elif isinstance(module, nn.ReLU):
            features[i] = nn.Tanh()  # so that it is no VGG
    model = nn.Module()
    model.features, model.net = features, nn.Module()
    # A network that has no modules for its activations.
    model.net.first, model.net.second = change(nn.Conv2d(3, 4, 1)), nn.Conv2d(4, 2, 1)
    with pytest.raises(ValueError, match="the dotted name of a module: ") as raised:
        resolve_layers(model)
    listed = str(raised.value).partition("the dotted name of a module: ")[2].rstrip(".").split(", ")
    inside = [f"net.first.{name}" for name in ("base", "dropout", "down", "up")] if change is LoRA else ["net.first"]
    assert listed == [*(f"features.{i}" for i in range(len(features))), *inside, "net.second"]
