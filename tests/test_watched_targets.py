"""A training is watched with any target: a class, a contrast, a number; and with outputs that are probabilities."""

import json

import pytest
import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from pytorch_lightning.loggers import CSVLogger
from torch.nn import functional
from torch.utils.data import DataLoader
from trainer_runs import AlsoTested

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning, ProbeSet, is_watching
from gradcam_callback.exceptions import UserCodeError

LAYERS = ["block4_conv3", "block5_conv3"]
pytestmark = pytest.mark.sixteen_images


class Binary(ThinVGG):
    """Its forward ends with a sigmoid, as BCELoss needs it."""

    def __init__(self):
        super().__init__(1)

    def forward(self, images):
        return super().forward(images).sigmoid()

    def training_step(self, batch, batch_idx):
        return functional.binary_cross_entropy(self(batch[0]), (batch[1] > 0)[:, None].float())

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", ((self(batch[0])[:, 0] > 0.5) == (batch[1] > 0)).float().mean())


def test_accuracy_of_a_sigmoid_is_by_a_half(toys, fit):
    items = [(image, int(label > 0), mask) for image, label, mask in toys.items]
    model, callback = Binary(), GradCAMCallback(target_layers=LAYERS)
    fit(model, callback, train_data=items, val_data=items)
    model.eval()
    probe = callback.probe_set
    right = (model(probe.images)[:, 0] > 0.5) == (probe.labels == 1)
    assert callback.history[-1]["gradcam/probe_accuracy"] == pytest.approx(float(right.double().mean()))


@pytest.mark.parametrize(
    "end",
    [
        lambda z: z.sigmoid().clamp(0.01, 0.99),
        lambda z: z.exp() / z.exp().sum(1, True),
        lambda z: torch.cat([one.sigmoid() for one in z.split(1, dim=1)], dim=1),
        lambda z: torch.stack([one.sigmoid() for one in z.unbind(1)], dim=1),
    ],
)
def test_probabilities_of_another_making_are_refused_with_the_way_out(toys, fit, end):
    class Odd(ThinVGG):
        def forward(self, images):
            return end(super().forward(images))

    with pytest.raises(ValueError, match=r"to return logits .* as probabilities do. .*output_transform=torch.logit"):
        fit(Odd(), GradCAMCallback(target_layers=LAYERS))
    fit(Odd(), GradCAMCallback(target_layers=LAYERS, output_transform=torch.log), max_epochs=1)


@pytest.mark.parametrize(
    ("end", "transform"),
    [
        (lambda z: z, None),
        (lambda z: z[:, [0, 1, 2]], None),
        (lambda z: z / 1, None),
        (lambda z: z.relu(), lambda outputs: outputs @ torch.eye(3).to(outputs)),
    ],
)
def test_logits_are_never_taken_for_probabilities(toys, fit, end, transform):
    """However small: an untrained network's may all lie in 0..1."""

    class Small(ThinVGG):
        def forward(self, images):
            return end(super().forward(images) * 1e-6 + 0.5)

    callback = GradCAMCallback(target_layers=LAYERS, output_transform=transform)
    fit(Small(), callback, max_epochs=1)
    assert "gradcam/probe_accuracy" in callback.history[0]


def test_the_callbacks_contrast_is_of_the_label(toys, fit):
    module, callback = ThinVGG(), GradCAMCallback(target_layers=LAYERS, target="contrast")
    fit(module, callback, max_epochs=1)
    probe = callback.probe_set

    def difference(outputs, index):
        labels = probe.labels[index][:, None]
        return outputs.gather(1, labels)[:, 0] - outputs.scatter(1, labels, -torch.inf).max(dim=1).values

    cams = GradCAM(module, LAYERS)(probe.images, difference)
    logged = callback.history[-1][f"gradcam/strength/{LAYERS[1]}"]
    assert logged == pytest.approx(float(cams.maps[LAYERS[1]].mean()), rel=1e-4)
    assert "gradcam/swap_accuracy" in callback.history[-1]


def own_logit(outputs, index):
    return outputs.gather(1, index[:, None] % 3)[:, 0]


@pytest.mark.parametrize("verb", ["validate", "test"])
@pytest.mark.parametrize("target", ["label", "predicted", "contrast", 1, own_logit])
def test_any_target_is_explained_outside_of_a_fit_as_in_one(trainer, toys, probe, tmp_path, verb, target):
    """Lightning validates and tests under inference_mode, whose tensors autograd refuses."""
    loader, values = DataLoader(toys, batch_size=6), []
    pl.seed_everything(0, verbose=False)
    module = AlsoTested()
    for mode in (True, False):
        runs = trainer(
            GradCAMCallback(probe, LAYERS[1:], target, views=()), inference_mode=mode, logger=CSVLogger(tmp_path)
        )
        getattr(runs, verb)(module, loader, verbose=False)
        values.append({name: float(value) for name, value in runs.callback_metrics.items() if "gradcam" in name})
    assert values[0] == values[1] and any("strength" in name for name in values[0])


class Age(ThinVGG):
    """A regression: one number per image."""

    def __init__(self):
        super().__init__(1)

    def training_step(self, batch, batch_idx):
        return functional.mse_loss(self(batch[0])[:, 0], batch[1].float())

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))


@pytest.mark.parametrize("labels", ["age", "none"])
def test_a_regression_is_watched_by_a_callable(toys, fit, tmp_path, events, labels):
    items = [(image, 10.5 + i) for i, (image, _, _) in enumerate(toys.items)]
    validation = items if labels == "age" else [(image, "text") for image, _ in items]
    seen = []

    def age(outputs, index):
        seen.append(index.tolist())
        return outputs[:, 0]

    class Silent(Age):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self(batch[0]).mean(), batch_size=len(batch[0]))

    module, callback = Silent(), GradCAMCallback(target_layers=LAYERS, target=age, save_dir=tmp_path / "focus")
    fit(module, callback, train_data=items, val_data=validation)
    probe, entry = callback.probe_set, callback.history[-1]
    assert len(probe) == 16 and not probe.has_labels and callback.verdict is None
    assert not [name for name in entry if "accuracy" in name] and len(callback.history) == 2
    assert {number for numbers in seen for number in numbers} == set(range(16))
    cams = GradCAM(module, LAYERS)(probe.images, 1)
    assert entry[f"gradcam/strength/{LAYERS[1]}"] == pytest.approx(float(cams.maps[LAYERS[1]].mean()), rel=1e-4)
    assert len(events().Images(f"gradcam/probe/{probe.names[0]}")) == 2
    assert probe.names[0] == "image-1" and json.loads((tmp_path / "focus" / "history.json").read_text())


def test_masked_images_without_labels_have_every_metric_of_a_mask(toys, fit):
    images, masks = (torch.stack([item[i] for item in toys.items[:4]]) for i in (0, 2))
    callback = GradCAMCallback(ProbeSet(images, masks=masks), LAYERS, target=2)
    fit(ThinVGG(), callback, max_epochs=1)
    entry = callback.history[0]
    assert {"gradcam/lift/block5_conv3", "gradcam/relevance_mass/block4_conv3"} <= set(entry)
    assert callback.verdict is None and not [name for name in entry if "accuracy" in name]
    for target in ("label", "contrast"):
        with pytest.raises(ValueError, match=f"with labels for target='{target}', but it has none"):
            fit(ThinVGG(), GradCAMCallback(ProbeSet(images), LAYERS, target=target))


@pytest.mark.parametrize("target", [1, "predicted"])
def test_a_class_index_and_the_prediction_need_no_labels_but_use_those_that_are_there(toys, fit, caplog, target):
    caplog.set_level("INFO")
    bare = [image for image, _, _ in toys.items]

    class Bare(ThinVGG):
        def validation_step(self, batch, batch_idx):
            self(batch if isinstance(batch, torch.Tensor) else batch[0])

    callback = GradCAMCallback(target_layers=LAYERS, target=target)
    fit(Bare(), callback, val_data=bare, max_epochs=1)
    assert len(callback.probe_set) == 16 and not callback.probe_set.has_labels
    assert "there is no accuracy and no verdict, since no labels are found. Expected a batch of your" in caplog.text
    callback = GradCAMCallback(target_layers=LAYERS, target=target)
    fit(Bare(), callback, max_epochs=1)
    assert "gradcam/probe_accuracy" in callback.history[0]
    for needs_labels in ("label", "contrast"):
        with pytest.raises(ValueError, match="cannot find one value that is certainly the label"):
            fit(Bare(), GradCAMCallback(target_layers=LAYERS, target=needs_labels), val_data=bare, max_epochs=1)


def test_a_callable_target_that_fails_later_is_a_warning(toys, fit):
    module = ThinVGG()

    def fails(outputs, index):
        if module.losses:
            raise RuntimeError("later")
        return outputs[:, 0]

    with pytest.warns(GradCAMWarning, match="since your code failed. Expected your `target` to take"):
        trainer = fit(module, GradCAMCallback(target_layers=LAYERS, target=fails))
    assert trainer.current_epoch == 2
    with pytest.raises(UserCodeError):
        fit(ThinVGG(), GradCAMCallback(target_layers=LAYERS, target=lambda outputs, index: outputs.no_such))
    with pytest.raises(ValueError, match="check_faithfulness=False with a callable"):
        fit(ThinVGG(), GradCAMCallback(target_layers=LAYERS, target=fails, check_faithfulness=True))


def test_two_callables_can_be_in_one_trainer_and_are_resumed(toys, fit, tmp_path):
    def first(outputs, index):
        return outputs[:, 0]

    def second(outputs, index):
        return outputs[:, 1]

    both = [GradCAMCallback(target_layers=LAYERS, target=target, views="layer") for target in (first, second)]
    trainer = fit(ThinVGG(), *both, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = [GradCAMCallback(target_layers=LAYERS, target=target, views="layer") for target in (first, second)]
    fit(ThinVGG(), *again, max_epochs=2, resume=tmp_path / "last.ckpt")
    assert [len(callback.history) for callback in again] == [2, 2]
    assert both[0].state_key != both[1].state_key == again[1].state_key


def test_a_hook_of_the_users_knows_when_a_map_is_computed(toys, fit):
    features = []
    module = ThinVGG()

    def collect(_module, _inputs, output):
        if not is_watching():
            features.append(len(output))

    module.classifier[2].register_forward_hook(collect)
    fit(module, GradCAMCallback(target_layers=LAYERS), max_epochs=1, num_sanity_val_steps=0)
    assert sum(features) == 18 + 18, "the images of the training and of the validation alone"
    assert not is_watching()
