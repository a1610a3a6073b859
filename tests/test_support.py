"""Models that compute again in the backward pass, mix images, or have no gradient: exact maps, or a sentence."""

import warnings
from functools import partial

import pytest
import timm
import torch
from conftest import THIN, ThinVGG
from lightning_fabric import Fabric
from sameness import assert_maps_close, assert_same, snapshot
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
from torchvision.models.vgg import make_layers

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning

LAYERS = ["block3_conv1", "block4_conv3", "block5_conv3"]


class Checkpointed(nn.Module):
    def __init__(self, network, kind):
        super().__init__()
        self.features, self.classifier, self.kind = network.features, network.classifier, kind

    def forward(self, images):
        if self.kind == "sequential":
            features = checkpoint_sequential(self.features, 3, images, use_reentrant=False)
        elif self.kind == "sequential, reentrant":
            features = checkpoint_sequential(self.features, 3, images, use_reentrant=True)
        else:
            features = checkpoint(self.features, images, use_reentrant=self.kind == "reentrant")
        return self.classifier(features)


@pytest.mark.parametrize("kind", ["reentrant", "not reentrant", "sequential", "sequential, reentrant"])
def test_maps_of_checkpointed_layers_are_those_without(kind):
    torch.manual_seed(0)
    network, images = ThinVGG().double().eval(), torch.rand(3, 3, 64, 64).double()
    plain = GradCAM(network, LAYERS)(images, 1).maps
    model = Checkpointed(network, kind)
    before = snapshot(model)
    for raw, expected in zip(GradCAM(model, LAYERS)(images, 1).maps.values(), plain.values(), strict=True):
        assert float(expected.max()) > 0
        torch.testing.assert_close(raw, expected, rtol=1e-6, atol=1e-9)
    assert_same(before, snapshot(model))
    assert all(parameter.grad is None for parameter in model.parameters()), "no gradient is left behind"


@pytest.mark.parametrize("kind", ["reentrant", "not reentrant"])
def test_checkpointing_is_back_for_the_training(kind):
    calls = []

    class Counts(nn.Module):
        def forward(self, features):
            calls.append(1)
            return features * 2

    counted = Checkpointed(ThinVGG(), kind)
    counted.features = nn.Sequential(Counts(), counted.features)
    GradCAM(counted, "block5")(torch.rand(2, 3, 64, 64))
    calls.clear()
    counted(torch.rand(2, 3, 64, 64, requires_grad=True)).sum().backward()
    assert len(calls) == 2, "forward, and once more in the backward pass"


def test_timms_checkpointing_changes_no_map():
    torch.manual_seed(0)
    model, images = timm.create_model("resnet18", num_classes=3).double().eval(), torch.rand(2, 3, 64, 64).double()
    plain = GradCAM(model, "layer3.1")(images, 1).maps["layer3.1"]
    model.set_grad_checkpointing()
    torch.testing.assert_close(GradCAM(model, "layer3.1")(images, 1).maps["layer3.1"], plain, rtol=1e-6, atol=1e-12)


def test_a_checkpointed_training_is_watched(toys, fit):
    class Trains(ThinVGG):
        def forward(self, images):
            return self.classifier(checkpoint(self.features, images, use_reentrant=False))

    callback = GradCAMCallback(target_layers=LAYERS)
    fit(Trains(), callback, max_epochs=1)
    assert callback.history[0]["gradcam/empty/block5_conv3"] < 1


class Detached(nn.Module):
    """The way from the first layer to the logits is cut, that of the second is not."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, images):
        return self.second(self.first(images).detach()).mean(dim=(2, 3))


def test_a_layer_that_no_gradient_reaches_is_named_once():
    cam, images = GradCAM(Detached(), ["first", "second"]), torch.rand(2, 3, 16, 16)
    with pytest.warns(GradCAMWarning, match=r"does not depend on the layers \['first'\], so their maps are empty"):
        cams = cam(images)
    assert not cams.maps["first"].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cam(images)


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, partial(nn.BatchNorm2d, affine=False)])
def test_a_batch_norm_without_statistics_does_not_mix_the_images(kind):
    torch.manual_seed(0)
    features = [
        kind(part.num_features, track_running_stats=False) if isinstance(part, nn.BatchNorm2d) else part
        for part in make_layers(THIN[:-3], batch_norm=True)
    ]
    model = nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3)).double().eval()
    cam, images = GradCAM(model, "block3"), torch.rand(4, 3, 64, 64).double()
    together = cam(images, 1)
    for i in range(4):
        alone = cam(images[i : i + 1], 1)
        torch.testing.assert_close(alone.logits, together.logits[i : i + 1])
        for layer, raw in alone.maps.items():
            torch.testing.assert_close(raw, together.maps[layer][i : i + 1])
    torch.testing.assert_close(cam.predict(images), together.logits)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_layer_in_torchscript_is_refused_by_name():
    whole = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    with pytest.raises(ValueError, match="but it is TorchScript, which takes no hooks. .* before torch.jit.script"):
        GradCAM(whole, "0")
    for target in ("0", "0.1"):
        with pytest.raises(ValueError, match=f"but '{target}' is TorchScript, which takes no hooks. Choose another"):
            GradCAM(nn.Sequential(whole, nn.Flatten()), target)
    with pytest.raises(ValueError, match=r"is not looked into: 0. Choose 'last', or the .* a module: 1\.$"):
        GradCAM(nn.Sequential(whole, nn.Flatten()), "all")
    frozen = torch.jit.freeze(whole.eval())
    with pytest.raises(ValueError, match="'0' is frozen TorchScript. Leave torch.jit.freeze out"):
        GradCAM(nn.Sequential(frozen, nn.Conv2d(4, 2, 3)), "1")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("vgg16", "an nn.Module, but got a value of type str. Pass the network itself."),
        (ThinVGG, "but got a value of type .*. Pass the network itself."),
        (nn.Linear(2, 2).state_dict(), "type OrderedDict. Load it into a model: model.load_state_dict"),
    ],
)
def test_what_is_no_model_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        GradCAM(model)


class Drops(nn.Module):
    """Counts its calls in a buffer, and drops values unless it is in eval mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.scale, self.drop = nn.Conv2d(3, 3, 1), nn.Dropout(0.5)

    def forward(self, images):
        self.calls += 1
        return self.drop(self.scale(images))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("layers", [LAYERS, ["last"], ["1.0.28"]])
def test_torchscript_before_and_behind_the_layers_changes_no_map(layers):
    torch.manual_seed(0)
    network, images = ThinVGG(batch_norm=False).double().train(), torch.rand(2, 3, 64, 64).double()
    drops, head = Drops().double(), network.classifier
    plain = nn.Sequential(drops, nn.Sequential(network.features), head)
    model = nn.Sequential(torch.jit.script(drops), nn.Sequential(network.features), torch.jit.script(head))
    before = snapshot(model)
    found = GradCAM(model, layers)(images, 1).maps
    assert_same(before, snapshot(model))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert_maps_close(found, GradCAM(plain, layers)(images, 1).maps)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_the_last_layer_is_found_among_those_that_take_hooks():
    net = nn.Sequential(torch.jit.script(nn.Hardtanh()), nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert list(GradCAM(net, "last")(torch.rand(1, 3, 16, 16)).maps) == ["1"]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_training_that_augments_by_torchscript_is_watched(fit, probe):
    class Augments(ThinVGG):
        def __init__(self):
            super().__init__()
            self.augment = torch.jit.script(nn.Sequential(nn.Hardtanh(0.0, 1.0)))

        def on_after_batch_transfer(self, batch, dataloader_idx):
            return self.augment(batch[0]), *batch[1:]

    callback = GradCAMCallback(probe, LAYERS)
    fit(Augments(), callback, max_epochs=1)
    assert len(callback.history) == 1


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization", "ignore:.*deprecated")
def test_a_quantised_layer_is_named_as_the_cause():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    with pytest.raises(ValueError, match=r"the quantised layer '4' \(Linear\) has no gradient. Explain the"):
        GradCAM(quantised, "1")(torch.rand(1, 3, 16, 16))


def test_a_layer_that_returns_a_tuple_is_said():
    class Pair(nn.Module):
        def forward(self, images):
            return images, images

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = Pair()

        def forward(self, images):
            return self.pair(images)[0].mean(dim=(2, 3))

    with pytest.raises(ValueError, match="layer 'pair' to return one tensor .* but got tuple. Choose a module inside"):
        GradCAM(Net(), "pair")(torch.rand(1, 3, 8, 8))


class Around(nn.Module):
    """A network in another one, which works on its input and its output."""

    def __init__(self, before=None, behind=None):
        super().__init__()
        self.before, self.behind, self.inside = before or nn.Identity(), behind or nn.Identity(), nn.Conv2d(3, 4, 3)

    def forward(self, images):
        self.before(images)
        return self.behind(self.inside(images).mean(dim=(2, 3)))


class Truncates(nn.Module):
    def forward(self, images):
        return images.long()


class OneByOne(Around):
    def forward(self, images):
        return torch.cat([super(OneByOne, self).forward(image[None]) for image in images])


def test_a_layer_of_integers_or_of_single_images_is_said():
    images = torch.rand(2, 3, 16, 16)
    with pytest.raises(
        ValueError, match="'before' to return floating point, but got torch.int64.* Choose a layer next"
    ):
        GradCAM(Around(Truncates()), "before")(images)
    with pytest.raises(ValueError, match=r"got \(1, 4, 14, 14\). If the forward takes 1 .* pass chunk_size=1\.$"):
        GradCAM(OneByOne(), "inside")(images)
    assert GradCAM(OneByOne(), "inside", chunk_size=1)(images).maps["inside"].shape == (2, 14, 14)


class Relates(nn.Module):
    """Mixes classes by sparse matrices, in a buffer and in an attribute, as a graph network of labels does."""

    def __init__(self):
        super().__init__()
        self.register_buffer("graph", torch.eye(4).to_sparse())
        self.links = torch.ones(4, 4).to_sparse_csr()

    def forward(self, logits):
        return (self.links @ (self.graph @ logits.T)).T


@pytest.mark.filterwarnings("ignore:.*Sparse CSR")
def test_a_model_with_sparse_tensors_has_maps():
    torch.manual_seed(0)
    model, images = Around(behind=Relates()), torch.rand(2, 3, 16, 16)
    kept = model.behind.graph, model.behind.links
    cams = GradCAM(model, "inside")(images, 1)
    torch.testing.assert_close(cams.logits, model(images))
    assert model.behind.graph is kept[0] and model.behind.links is kept[1]


class Sensitive(nn.Module):
    """Adds to its logits what the gradient of its input says, in several ways."""

    def __init__(self, network, kind):
        super().__init__()
        self.network, self.kind = network, kind

    def forward(self, images):
        with torch.enable_grad():
            inputs = images.detach().requires_grad_()
            outputs = self.network(inputs)
            if self.kind == "backward":
                outputs.sum().backward()
                return self.network(images) + inputs.grad.mean()
            keeps, differentiable = self.kind != "runs twice" or self.training, self.kind == "twice differentiable"
            (gradient,) = torch.autograd.grad(
                outputs.sum(), inputs, retain_graph=keeps, create_graph=differentiable or self.training
            )
        if self.kind == "runs twice":
            outputs = self.network(images)
        return outputs + gradient.pow(2).sum(dim=(1, 2, 3))[:, None] * torch.tensor([0.0, 10.0, 0.0])


class Branches(nn.Module):
    """No way leads from one of its layers to the other."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)

    def forward(self, images):
        return (self.left(images).sigmoid() * self.right(images).relu()).mean(dim=(2, 3))


@pytest.mark.parametrize("kind", ["runs once", "runs twice", "twice differentiable", "backward"])
@pytest.mark.parametrize("layers", [["features.6", "features.28"], ["features.29"], ["left", "right"]])
def test_a_forward_that_takes_the_gradient_of_its_input_has_the_maps_of_the_definition(kind, layers):
    torch.manual_seed(0)
    network = Branches() if layers == ["left", "right"] else ThinVGG(batch_norm=False)
    model, images = Sensitive(network, kind).double().eval(), torch.rand(2, 3, 64, 64).double()
    layers, before, outputs = [f"network.{layer}" for layer in layers], snapshot(model), {}
    found = GradCAM(model, layers)(images, 1).maps
    assert_same(before, snapshot(model))
    model.requires_grad_(False)
    for layer in layers:
        # A copy goes on, since a ReLU writes into its input. An output without a graph has to have one.
        def keep(module, inputs, output, layer=layer):
            outputs[layer] = output if output.requires_grad else output.detach().requires_grad_()
            return outputs[layer].clone()

        model.get_submodule(layer).register_forward_hook(keep)
    gradients = torch.autograd.grad(model(images)[:, 1].sum(), [outputs[layer] for layer in layers])
    expected = {
        layer: (gradient.mean(dim=(2, 3), keepdim=True) * outputs[layer]).sum(dim=1).relu().detach()
        for layer, gradient in zip(layers, gradients, strict=True)
    }
    assert_maps_close(found, expected)


def test_the_last_layer_of_a_forward_that_takes_the_gradient_of_its_input_is_found():
    class Penalised(nn.Sequential):
        def forward(self, images):
            inputs = images.detach().requires_grad_()
            outputs = super().forward(inputs)
            # Outside of no_grad, it need not turn gradients on.
            (gradient,) = torch.autograd.grad(outputs.sum(), inputs, create_graph=True)
            return outputs + gradient.pow(2).sum()

    torch.manual_seed(0)
    model = Penalised(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    images = torch.rand(1, 3, 16, 16)
    assert_maps_close(GradCAM(model, "last")(images, 1).maps, GradCAM(model, "1")(images, 1).maps)


def test_a_training_whose_forward_takes_the_gradient_of_its_input_is_watched(fit, probe):
    class Trains(ThinVGG):
        def forward(self, images):
            return Sensitive(super().forward, "runs once").train(self.training)(images)

    callback = GradCAMCallback(probe, LAYERS)
    fit(Trains(), callback, max_epochs=1, inference_mode=False)
    assert [entry["epoch"] for entry in callback.history] == [0]


class Put(torch.autograd.Function):
    """A mean over positions. Its backward pass has no deterministic algorithm, as that of pooling on a GPU."""

    @staticmethod
    def forward(ctx, x):
        ctx.shape = x.shape
        return x.mean(dim=(2, 3))

    @staticmethod
    def backward(ctx, gradient):
        share = gradient / (ctx.shape[2] * ctx.shape[3])
        return torch.empty_like(share).put_(torch.arange(share.numel()), share)[:, :, None, None].expand(ctx.shape)


class Pools(nn.Module):
    def forward(self, x):
        return Put.apply(x)


@pytest.fixture
def any_mode():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("warn_only", [False, True])
@pytest.mark.parametrize("breaks", [False, True])
def test_a_map_may_use_what_the_strict_mode_of_torch_refuses(any_mode, warn_only, breaks):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Pools(), nn.Linear(4, 2))
    images = torch.rand(2, 3, 8, 8)
    expected = GradCAM(model, "1")(images, 1).maps
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    if breaks:
        with pytest.raises(ValueError, match=r"but got \[9\]"):
            GradCAM(model, "1")(images, 9)
    else:
        assert_maps_close(GradCAM(model, "1")(images, 1).maps, expected)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled() == warn_only
    refused = pytest.warns(UserWarning, match="put_") if warn_only else pytest.raises(RuntimeError, match="put_")
    with refused:
        model(images).sum().backward()


def test_a_deterministic_training_of_a_head_is_watched(any_mode, fit, probe):
    class Head(ThinVGG):
        def __init__(self):
            super().__init__(batch_norm=False)
            self.features.requires_grad_(False)
            self.classifier[0] = Pools()

    callback = GradCAMCallback(probe, LAYERS)
    fit(Head(), callback, max_epochs=1, deterministic=True)
    assert len(callback.history) == 1


class Views(nn.Module):
    """Returns a view that was made under no_grad: autograd says that it requires a gradient, but it has no graph."""

    def forward(self, x):
        with torch.no_grad():
            return x.view(x.shape)


def test_a_view_made_under_no_grad_is_known_as_detached():
    features = [nn.Conv2d(3, 4, 3), nn.ReLU()]
    head, images = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)], torch.rand(2, 3, 8, 8)

    def detaches(outputs, index):
        with torch.no_grad():
            return outputs[:, 1]

    for target in (detaches, torch.no_grad()(lambda outputs, index: outputs.T[0])):
        with pytest.raises(ValueError, match="but your `target` detaches them. Remove the detach"):
            GradCAM(nn.Sequential(*features, *head), "1")(images, target)
    behind = nn.Sequential(*features, Views(), *head)
    for target in (1, "contrast", lambda outputs, index: outputs[:, 1]):
        with pytest.warns(GradCAMWarning, match=r"does not depend on the layers \['1'\]"):
            cams = GradCAM(behind, ["1", "2"])(images, target)
        # What is behind the cut has the maps of a network that starts there.
        alone = GradCAM(nn.Sequential(nn.Identity(), *head), "0")(behind[:3](images).detach(), target)
        torch.testing.assert_close(cams.maps["2"], alone.maps["0"])
    last = nn.Sequential(*features, *head, Views())
    for target in (1, lambda outputs, index: outputs[:, 1], detaches):
        with pytest.raises(ValueError, match="but the model's forward detaches their outputs"):
            GradCAM(last, "1")(images, target)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_module_of_fabric_has_exact_maps_or_is_refused(precision, nested):
    torch.manual_seed(0)
    network, images = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)),
        torch.rand(2, 3, 8, 8),
    )
    expected = GradCAM(network, "1")(images, 1).maps["1"]
    wrapped = Fabric(accelerator="cpu", precision=precision).setup(network)
    model = nn.Sequential(wrapped) if nested else wrapped
    if precision == "bf16-mixed":
        with pytest.raises(
            ValueError, match=r"Fabric.setup in precision 'bf16-mixed', .* Pass .*: GradCAM\(model.module"
        ):
            GradCAM(model, network[1])
        assert torch.equal(GradCAM(wrapped.module, "1")(images, 1).maps["1"], expected)
    else:
        (found,) = GradCAM(model, network[1])(images, 1).maps.values()
        assert torch.equal(found, expected)
