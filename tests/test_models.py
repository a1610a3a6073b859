"""Models of other people: outputs that are no tensor, Lightning's other package, two callbacks in one Trainer."""

import dataclasses

import lightning.pytorch as lightning
import pytest
import torch
from conftest import THIN, ThinVGG
from lightning.pytorch.loggers import TensorBoardLogger as OtherTensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.models.vgg import make_layers

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning, ProbeSet


@dataclasses.dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None


OUTPUTS = {
    "tuple": (lambda logits: (logits, None), lambda output: output[0]),
    "dict": (lambda logits: {"logits": logits}, lambda output: output["logits"]),
    "dataclass": (Output, lambda output: output.logits),
}


class Wrapped(ThinVGG):
    """Its forward gives something else than logits."""

    def __init__(self, wrap):
        super().__init__(3)
        self.wrap = wrap

    def forward(self, images):
        return self.wrap(super().forward(images))

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(super().forward(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", functional.cross_entropy(super().forward(batch[0]), batch[1]))


@pytest.fixture
def probe(toys):
    return ProbeSet.from_dataset(toys, 1)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_whatever_forward_gives_the_maps_are_those_of_the_logits_in_it(kind, fit, probe, events):
    wrap, unwrap = OUTPUTS[kind]
    model = Wrapped(wrap)
    fit(model, GradCAMCallback(probe, "block5", output_transform=unwrap), max_epochs=1)
    assert events().Images("gradcam/layer/block5_conv3")
    plain = ThinVGG(3)
    plain.load_state_dict(model.state_dict())
    expected = GradCAM(plain, "block5")(probe.images, probe.labels)
    seen = GradCAM(model, "block5", output_transform=unwrap)(probe.images, probe.labels)
    for layer, maps in expected.maps.items():
        assert torch.equal(seen.maps[layer], maps)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (None, "forward gave dict. Expected logits .N, K. with N = 1. Say how to get them with output_transform"),
        (lambda output: output["logit"], "Your output_transform raised KeyError: 'logit'"),
        (lambda output: output["logits"][0], r"output_transform gave \(3,\). Expected logits"),
    ],
)
def test_outputs_without_logits_are_said_before_training(fit, probe, transform, message):
    model = Wrapped(OUTPUTS["dict"][0])
    with pytest.raises(ValueError, match=message):
        fit(model, GradCAMCallback(probe, "block5", output_transform=transform))
    assert model.losses == []
    with pytest.raises(ValueError, match="output_transform came as str. Expected a callable"):
        GradCAMCallback(output_transform="logits")


def test_a_transform_that_fails_later_is_named_as_the_users_with_its_traceback_and_training_goes_on(fit, probe):
    calls = []

    def transform_of_the_user(output):
        calls.append(1)
        if len(calls) > 1:
            raise LookupError("their own mistake")
        return output["logits"]

    callback = GradCAMCallback(probe, "block5", output_transform=transform_of_the_user)
    with pytest.warns(GradCAMWarning, match="your output_transform failed") as caught:
        trainer = fit(Wrapped(OUTPUTS["dict"][0]), callback)
    assert trainer.current_epoch == 2 and callback.history == []
    said = next(str(warning.message) for warning in caught if warning.category is GradCAMWarning)
    assert "in transform_of_the_user" in said and "LookupError: their own mistake" in said


class Other(lightning.LightningModule):
    """A module of the package that calls itself ``lightning``."""

    def __init__(self):
        super().__init__()
        self.features = make_layers(THIN)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3))

    def forward(self, images):
        return self.head(self.features(images))

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def test_lightning_pytorch_with_both_packages_installed(toys, tmp_path, events):
    callback = GradCAMCallback(target_layers="block5")
    trainer = lightning.Trainer(
        max_epochs=2,
        callbacks=[callback, lightning.callbacks.EarlyStopping("gradcam/lift/block5_conv3", mode="max", patience=9)],
        logger=OtherTensorBoardLogger(tmp_path, name="run", version=""),
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Other(), DataLoader(toys, batch_size=6), DataLoader(toys, batch_size=6))
    found = events()
    steps = [event.step for event in found.Scalars("val_loss")]
    assert [event.step for event in found.Images("gradcam/layer/block5_conv3")] == steps
    assert [event.step for event in found.Scalars("gradcam/lift/block5_conv3")] == steps
    assert [entry["epoch"] for entry in callback.history] == [0, 1]
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    state = torch.load(checkpoint, weights_only=True)["callbacks"][callback.state_key]
    assert state["history"] == callback.history


def test_two_callbacks_in_one_trainer_keep_their_pictures_and_figures_apart(thin, fit, events, toys, probe):
    """The first has the tags that it would have alone; the second its layers' own, and the others with a number."""
    other = ProbeSet.from_dataset(toys, 2)
    first, second = GradCAMCallback(probe, "block4"), GradCAMCallback(other, ["block4_conv3", "block5"])
    fit(thin, first, second)
    found = events()
    tags = found.Tags()
    for tag, count in (
        ("gradcam/probe/star-1", 2),
        ("gradcam/probe/star-1 (2)", 2),
        ("gradcam/layer/block4_conv3", 2),
        ("gradcam/layer/block4_conv3 (2)", 2),
        ("gradcam/layer/block5_conv3", 2),
        ("gradcam/evolution/star-2 (2)", 2),
        ("gradcam/animation/star-1 (2)", 1),
        ("gradcam/depth_profile (2)", 2),
    ):
        assert len(found.Images(tag)) == count, tag
    assert "gradcam/layer/block5_conv3 (2)" not in tags["images"]
    for tag, callback in (
        ("gradcam/probe_accuracy", first),
        ("gradcam/probe_accuracy (2)", second),
        ("gradcam/lift/block4_conv3", first),
        ("gradcam/lift/block4_conv3 (2)", second),
        ("gradcam/lift/block5_conv3", second),
    ):
        values = [entry[tag.removesuffix(" (2)")] for entry in callback.history]
        assert [event.value for event in found.Scalars(tag)] == pytest.approx(values), tag
    for tag, callback in (("gradcam/verdict", first), ("gradcam/verdict (2)", second)):
        assert found.Tensors(tag)[-1].tensor_proto.string_val[0].decode() == callback.verdict.evidence
