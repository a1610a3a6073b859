"""Tests that maps of other models than VGGs equal pytorch-grad-cam's. The cases are the rows of docs/models.md."""

import re
from pathlib import Path

import pytest
import pytorch_lightning as pl
import timm
import torch
import torchvision
from pytorch_grad_cam import GradCAM as PytorchGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.nn import functional
from torchvision.models import VisionTransformer, resnet18

from gradcam_callback import GradCAM, GradCAMCallback, ProbeSet

PAGE = (Path(__file__).parent.parent / "docs" / "models.md").read_text()
ROWS = re.findall(r"^\| (torchvision|timm) \| (\S+) \| (\S+) \| (yes)? ?\| (\w+)? ?\| (\d+) \|$", PAGE, flags=re.M)
PREFIXES = {"deit_tiny_distilled_patch16_224": 2}


def make_model(library, name):
    torch.manual_seed(0)
    if library == "timm":
        model = timm.create_model(name, pretrained=False, num_classes=5)
    else:
        quick = {"init_weights": False} if name == "googlenet" else {}
        model = torchvision.models.get_model(name, weights=None, num_classes=5, **quick)
    model = model.double().eval()
    for module in model.modules():
        # Some fresh weights are so small that the logits hardly depend on the image; trained weights are larger.
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module.weight.std() < 0.03:
            nn.init.kaiming_normal_(module.weight)
    return model


def reshaped(name, kind):
    """Return an independent reshape for the models of the table, with their numbers of tokens."""
    if kind == "tokens":
        skipped, side = PREFIXES.get(name, 1), 7 if name == "vit_b_32" else 14
        return lambda x: x[:, skipped:].reshape(len(x), side, side, -1).permute(0, 3, 1, 2)
    return (lambda x: x.movedim(-1, 1)) if kind == "channels_last" else None


def peer_maps(model, name, layer, kind, images):
    # If a module runs several times, the peer takes its first output. The block around it returns the last output.
    module = model.get_submodule(layer.removesuffix(".relu"))
    peer = PytorchGradCAM(model, [module], reshape_transform=reshaped(name, kind))
    targets = [ClassifierOutputTarget(k) for k in range(len(images))]
    peer(images, targets)
    recorded = peer.activations_and_grads
    raw = peer.get_cam_image(
        images, module, targets, recorded.activations[0].numpy(), recorded.gradients[0].numpy(), False
    )
    recorded.release()
    return torch.from_numpy(raw).clamp(min=0)


def densenet_maps(model, images):
    """Compute the formula, as the peer takes norm5 after the in-place ReLU behind it has changed the output."""
    activations = model.features(images).detach().requires_grad_()
    logits = model.classifier(functional.relu(activations).mean(dim=(2, 3)))
    (gradients,) = torch.autograd.grad(logits[range(len(images)), range(len(images))].sum(), activations)
    return (activations * gradients.mean(dim=(2, 3), keepdim=True)).sum(dim=1).clamp(min=0).detach()


@pytest.mark.parametrize(("library", "name", "layer", "last", "kind", "pixels"), ROWS)
def test_layers_are_found_and_maps_equal_the_peers(library, name, layer, last, kind, pixels):
    side, count = int(pixels), 2 if pixels == "224" else 4
    model, images = make_model(library, name), torch.rand(count, 3, side, side).double()
    cam = GradCAM(model, "last" if last else layer, reshape_transform=kind or None)
    cams = cam(images, list(range(count)))
    assert [found.name for found in cam.layers] == [layer] == list(cams.maps)
    raw = cams.maps[layer]
    expected = densenet_maps(model, images) if name == "densenet121" else peer_maps(model, name, layer, kind, images)
    assert raw.shape == expected.shape and expected.any(), "maps of zeros would prove nothing"
    assert (raw - expected).abs().max() <= 1e-6 * expected.max()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_every_row_of_the_table_is_tested():
    assert len(ROWS) == len(re.findall(r"^\| (torchvision|timm) ", PAGE, flags=re.M)) >= 20


def test_last_is_a_vggs_last_convolution_and_mixes_with_other_names():
    model = torchvision.models.vgg11(weights=None, init_weights=False)
    assert [layer.name for layer in GradCAM(model, ["block1", "last"]).layers] == ["block1_conv1", "block5_conv2"]
    cam = GradCAM(resnet18(weights=None), ["last", "layer2"])
    assert [layer.name for layer in cam.layers] == ["layer2"], "the last layer is not known before the first image"
    for _ in range(2):
        assert list(cam(torch.rand(1, 3, 64, 64)).maps) == ["layer2", "layer4.1.relu"]


def test_finding_the_last_layer_leaves_the_model_as_it_was_for_images_of_any_proportions():
    model = resnet18(weights=None).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cam = GradCAM(model, "last")
    assert cam(torch.rand(2, 3, 64, 160)).maps["layer4.1.relu"].shape == (2, 2, 5)
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def small_transformer():
    torch.manual_seed(0)
    return VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3)


LAYER = "encoder.layers.encoder_layer_1.ln_1"


class Patches(nn.Module):
    """The first step of a transformer, with ``before`` tokens in front of the patch tokens."""

    def __init__(self, before):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.tokens, self.head = nn.Conv2d(3, 7, 8, 8), nn.Identity(), nn.Linear(7, 3)
        self.before = nn.Parameter(torch.rand(1, before, 7))

    def forward(self, images):
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.before.expand(len(images), -1, -1), patches], dim=1)
        return self.head(self.tokens(tokens).square().mean(dim=1))


def test_tokens_of_wide_images_have_the_same_maps_as_their_patches():
    model, images = Patches(2), torch.rand(3, 3, 24, 40)
    maps = GradCAM(model, "patches")(images, 1).maps["patches"]
    assert maps.shape == (3, 3, 5) and maps.any()
    found = GradCAM(model, "tokens", reshape_transform="tokens")(images, 1).maps["tokens"]
    torch.testing.assert_close(found, maps)


def test_the_last_layer_is_searched_once():
    forwards = []
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model[3].register_forward_hook(lambda _module, given, _output: forwards.append(len(given[0])))
    cam = GradCAM(model, "last")
    for _ in range(2):
        cam(torch.rand(5, 3, 16, 16))
    assert forwards == [1, 5, 5]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            small_transformer,
            {"target_layers": "last"},
            r"'encoder.ln' returns \(1, 17, 8\).*reshape_transform='tokens'",
        ),
        (
            small_transformer,
            {"target_layers": LAYER},
            r"but got \(2, 17, 8\).*tokens .* pass reshape_transform='tokens'",
        ),
        (
            small_transformer,
            {"target_layers": LAYER, "reshape_transform": lambda tokens: tokens[:, 0]},
            r"with N = 2 for the output \(2, 17, 8\) of layer .* but got \(2, 8\)\.",
        ),
        (
            small_transformer,
            {"target_layers": LAYER, "reshape_transform": lambda tokens: tokens[..., None, None]},
            r"with N = 2 for the output \(2, 17, 8\) of layer .* but got \(2, 17, 8, 1, 1\)\.",
        ),
        (
            small_transformer,
            {"target_layers": LAYER, "reshape_transform": lambda tokens: tokens.unflatten(1, (5, 5))},
            rf"the output \(2, 17, 8\) of layer '{LAYER}', but it raised RuntimeError: .*unflatten",
        ),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)),
            {"target_layers": "last"},
            r"\(N, C, h, w\), but no module returns this shape. Pass the dotted name",
        ),
    ],
)
def test_a_layer_without_a_spatial_output_is_an_error(model, options, message):
    with pytest.raises(ValueError, match=message):
        GradCAM(model(), **options)(torch.rand(2, 3, 32, 32))


def test_a_wrong_reshape_transform_is_an_error_at_once():
    with pytest.raises(
        ValueError, match="`reshape_transform` to be 'tokens', 'channels_last', a callable or None, but got 'token'"
    ):
        GradCAMCallback(reshape_transform="token")


class Trained(pl.LightningModule):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


@pytest.mark.filterwarnings("ignore::gradcam_callback.ShortcutWarning")
@pytest.mark.parametrize(
    ("network", "options", "layer"),
    [
        (lambda: resnet18(weights=None, num_classes=3), {"target_layers": "last"}, "network.layer4.1.relu"),
        (
            lambda: VisionTransformer(48, 16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3),
            {"target_layers": f"network.{LAYER}", "reshape_transform": "tokens"},
            f"network.{LAYER}",
        ),
    ],
)
def test_a_training_of_another_network_is_watched(network, options, layer, fit, toys, events):
    callback = GradCAMCallback(ProbeSet.from_dataset(toys, 2), **options)
    stop = pl.callbacks.EarlyStopping(f"gradcam/lift/{layer}", mode="max")
    fit(Trained(network()), callback, stop)
    found = events()
    assert len(found.Images("gradcam/overview")) == len(found.Scalars(f"gradcam/lift/{layer}")) == 2
    assert callback.verdict is not None and callback.history[-1][f"gradcam/drift/{layer}"] > 0


def test_a_layer_that_returns_a_tuple_is_an_error():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows, self.head = nn.LSTM(24, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, images):
            return self.head(self.rows(images.flatten(2))[0][:, -1])

    with pytest.raises(ValueError, match="layer 'rows' to return one tensor .* but got tuple"):
        GradCAM(Net(), "rows")(torch.rand(1, 3, 4, 6))
