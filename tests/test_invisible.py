"""Training with the callback ends in the same bits as training without it, however one trains."""

import random

import numpy as np
import pytest
import torch
from conftest import ThinVGG
from pytorch_lightning.callbacks import StochasticWeightAveraging, WeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger
from torch.nn import functional

from gradcam_callback import GradCAMCallback, GradCAMWarning, ProbeSet


class TwoOptimizersByHand(ThinVGG):
    """Steps two optimizers itself, in turn."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self):
        return [
            torch.optim.SGD(self.features.parameters(), lr=1e-3, momentum=0.9),
            torch.optim.AdamW(self.classifier.parameters(), lr=1e-3),
        ]

    def training_step(self, batch, batch_idx):
        loss = functional.cross_entropy(self(batch[0]), batch[1])
        self.losses.append(float(loss.detach()))
        optimizer = self.optimizers()[batch_idx % 2]
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


class WithScheduler(ThinVGG):
    """Lowers its learning rate where the validation loss does not fall."""

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}


class FailsOnTheProbe(ThinVGG):
    """Breaks in the middle of a forward, but only on the probe set."""

    def forward(self, images):
        features = self.features(images)
        if len(images) == 5:
            raise KeyError("broken in the map")
        return self.classifier(features)


class Compiled(ThinVGG):
    """Its features are compiled in place."""

    def __init__(self):
        super().__init__()
        self.features.compile(backend="eager")


# The images that `assert_all_was_logged` looks for.
VIEWS = ("probe", "layer")

CASES = {
    "plain": (ThinVGG, {}, []),
    "mid-accumulation": (ThinVGG, {"accumulate_grad_batches": 3, "val_check_interval": 2}, []),
    "bf16-mixed": (ThinVGG, {"precision": "bf16-mixed"}, []),
    "double precision": (ThinVGG, {"precision": "64-true"}, []),
    "bf16-true": (ThinVGG, {"precision": "bf16-true"}, []),
    "validation every second epoch": (ThinVGG, {"check_val_every_n_epoch": 2, "max_epochs": 4}, []),
    "overfitting two batches": (ThinVGG, {"overfit_batches": 2}, []),
    "clipping, every step": (ThinVGG, {"gradient_clip_val": 0.1, "val_check_interval": 1}, []),
    "anomaly detection": (ThinVGG, {"detect_anomaly": True}, []),
    "deterministic": (ThinVGG, {"deterministic": True}, []),
    "two optimizers by hand": (TwoOptimizersByHand, {"val_check_interval": 1}, []),
    "scheduler on a monitored value": (WithScheduler, {"max_epochs": 4}, []),
    "weight averaging": (ThinVGG, {}, [WeightAveraging]),
    "SWA": (ThinVGG, {"max_epochs": 3}, [lambda: StochasticWeightAveraging(swa_lrs=1e-3, swa_epoch_start=1)]),
    "compiled": (Compiled, {}, []),
    "exception in the map": (FailsOnTheProbe, {}, []),
}


def end_of(module, trainer):
    """All that a training leaves behind, as lists of tensors."""
    return {
        "weights and buffers": [value.clone() for value in module.state_dict().values()],
        "gradients": [torch.zeros(0) if p.grad is None else p.grad for p in module.parameters()],
        "optimizers": [
            value
            for optimizer in trainer.optimizers
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        ],
        "learning rates": [torch.tensor([g["lr"] for o in trainer.optimizers for g in o.param_groups])],
        "losses": [torch.tensor(module.losses), trainer.callback_metrics["val_loss"]],
        "modes": [torch.tensor([m.training for m in module.modules()])],
        "trainable": [torch.tensor([p.requires_grad for p in module.parameters()])],
        "hooks": [torch.tensor([len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()])],
        "random": [torch.get_rng_state(), torch.tensor(np.random.get_state()[1].astype(np.int64)),
                   torch.tensor(random.getstate()[1])],
    }  # fmt: skip


def assert_all_was_logged(callback, found):
    """Pictures and figures of every validation, at the steps of Lightning's own, after the entry before training."""
    steps = [0, *(event.step for event in found.Scalars("val_loss"))]
    assert len(steps) > 1 and [entry["step"] for entry in callback.history] == steps
    for tag in ("gradcam/probe/class 0-1", "gradcam/layer/block5_conv3"):
        assert [event.step for event in found.Images(tag)] == steps
    logged = found.Scalars("gradcam/lift/block5_conv3")
    assert [event.step for event in logged] == steps
    values = [entry["gradcam/lift/block5_conv3"] for entry in callback.history]
    assert [event.value for event in logged] == pytest.approx(values, rel=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:You have turned on:UserWarning", "ignore:You requested to overfit:UserWarning")
def test_training_is_bit_identical_with_and_without_the_callback(case, fit, toys, events, tmp_path):
    make, options, companions = CASES[case]
    images, labels, masks = zip(*toys.items[:5], strict=True)
    probe = ProbeSet(torch.stack(images), list(labels), torch.stack(masks))
    ends = []
    for watched in (False, True):
        torch.manual_seed(0)
        module = make()
        for frozen in list(module.features.children())[:7]:
            frozen.requires_grad_(False)
        module.features[1].eval()
        # Every image of every layer is drawn in one case; the others are about what comes of the maps.
        layers, views = ("all", "all") if case == "plain" else (["block1_conv2", "block5"], VIEWS)
        callback = GradCAMCallback(probe, layers, log_before_training=True, views=views)
        callbacks = [make() for make in companions] + [callback] * watched
        options = {**options, "logger": TensorBoardLogger(tmp_path, name=f"watched-{watched}", version="")}
        if watched and case == "exception in the map":
            with pytest.warns(GradCAMWarning, match="lost .KeyError: 'broken in the map'"):
                trainer = fit(module, *callbacks, **options)
        else:
            trainer = fit(module, *callbacks, **options)
        if watched and case != "exception in the map":
            assert_all_was_logged(callback, events(tmp_path / "watched-True"))
        ends.append(end_of(module, trainer))
    without, with_callback = ends
    for part, values in without.items():
        assert len(values) == len(with_callback[part]) > 0
        assert all(torch.equal(old, new) for old, new in zip(values, with_callback[part], strict=True)), part
    assert len(without["losses"][0]) > 2
