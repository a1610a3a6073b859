"""What the callback refuses before a training, and what it warns of during one."""

import re

import pytest
import torch
from conftest import ThinVGG
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import Dataset

from gradcam_callback import GradCAMCallback, GradCAMWarning, ProbeSet


class Unfit(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return {"image": torch.rand(3, 64, 64)}


class Lenient(ThinVGG):
    def validation_step(self, batch, batch_idx):
        pass


LATE = {"check_val_every_n_epoch": 2, "num_sanity_val_steps": 0}


class Reduces(Lenient):
    """Lowers its learning rate at the first validation that does not improve."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1e-3)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        plan = {"scheduler": scheduler, "monitor": "gradcam/strength/block5_conv3", "frequency": 2}
        return {"optimizer": optimizer, "lr_scheduler": plan}


def test_validation_that_comes_late_and_gives_no_probe_does_not_change_the_training(fit):
    callback = GradCAMCallback()
    least = EarlyStopping("gradcam/entropy/block5_conv3", mode="min", patience=1)
    most = EarlyStopping("gradcam/probe_accuracy", mode="max", patience=1)
    with pytest.warns(
        GradCAMWarning, match="every map of this run lost .*cannot find one value that is cert"
    ) as caught:
        trainer = fit(Reduces(), callback, least, most, val_data=Unfit(), max_epochs=6, **LATE)
    assert trainer.current_epoch == 6 and callback.history == []
    assert trainer.optimizers[0].param_groups[0]["lr"] == 1e-3
    assert len([warning for warning in caught if warning.category is GradCAMWarning]) == 1


def test_a_monitor_that_is_found_late_to_never_come_finds_no_value(fit, toys):
    unmasked = [(image, label) for image, label, _ in toys]
    stop = EarlyStopping("gradcam/lift/block5_conv3", patience=0)
    with pytest.warns(GradCAMWarning, match="'gradcam/lift/block5_conv3' never comes: the probe set has no masks"):
        with pytest.raises(RuntimeError, match="conditioned on metric `gradcam/lift/block5_conv3` which is not avail"):
            fit(ThinVGG(), GradCAMCallback(), stop, val_data=unmasked, **LATE)


@pytest.mark.parametrize(("options", "data"), [({"limit_val_batches": 0}, None), ({}, [])])
@pytest.mark.filterwarnings("ignore:Total length of")
def test_a_monitor_without_validation_is_said_before_the_first_step(fit, tmp_path, options, data):
    module, logger = ThinVGG(), TensorBoardLogger(tmp_path, name="refused")
    stop = EarlyStopping("gradcam/entropy/block5_conv3")
    with pytest.raises(ValueError, match="the monitor of EarlyStopping .* never comes, since this training has no val"):
        fit(module, GradCAMCallback(), stop, val_data=data, logger=logger, **options)
    assert module.losses == [] and not list((tmp_path / "refused").glob("version_*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probe": [1, 2]}, "Expected `probe` to be a ProbeSet, a folder or None, but got list."),
        (
            {"target": "labels"},
            "Expected `target` to be 'label', 'predicted', 'contrast', a class index or a callable, but got 'labels'.",
        ),
        ({"target": True}, "a callable, but got True."),
        ({"every_n_epochs": 0}, "Expected `every_n_epochs` to be 1 or more, but got 0."),
        ({"views": "layers"}, "Expected `views` to be 'all' or some of 'overview', 'probe', 'layer', "),
        ({"tag_prefix": ""}, "Expected `tag_prefix` to be a name such as 'gradcam', but got ''."),
        ({"tag_prefix": "../up"}, "such as 'gradcam', but got '../up'."),
        ({"chunk_size": 0}, "Expected `chunk_size` to be at least 1 image or None, but got 0"),
        ({"method": "scorecam"}, "'layercam', 'xgradcam'], but got 'scorecam'"),
        (
            {"check_faithfulness": "roar"},
            "Expected `check_faithfulness` to be False, True, 'blur' or 'road', but got 'roar'.",
        ),
        ({"check_faithfulness": 1}, "'blur' or 'road', but got 1."),
        ({"check_faithfulness": ["road"]}, "'blur' or 'road', but got ['road']."),
        ({"precision": "fp8"}, "Expected `precision` to be one of ['bf16', 'full'], but got 'fp8'"),
        ({"on_shortcut": "explode"}, "Expected `on_shortcut` to be 'warn', 'stop' or a callable, but got 'explode'."),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        GradCAMCallback(**arguments)


def test_an_unknown_argument_is_refused_by_its_name():
    with pytest.raises(TypeError, match=r"GradCAM, but got \['cell_size'\]. Correct the names"):
        GradCAMCallback(cell_size=112)


def shapes(*size):
    return ProbeSet(torch.rand(2, *size), [0, 1])


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (lambda: GradCAMCallback(target_layers="block9"), "layers of the model, but got 'block9'.* block5_conv3"),
        (lambda: GradCAMCallback(ProbeSet(torch.rand(2, 3, 64, 64), [0, 7])), r"returns 3 logits\), but got \[7\]"),
        (lambda: GradCAMCallback(target=5), r"Expected `targets` to be classes .* but got \[5\]"),
        (
            lambda: GradCAMCallback(shapes(1, 64, 64)),
            r"as validation gives them, \(1, 1, 64, 64\) .*but it raised RuntimeError",
        ),
        (
            lambda: GradCAMCallback(shapes(3, 8, 8)),
            r"as validation gives them, \(1, 3, 8, 8\) .*but it raised RuntimeError",
        ),
    ],
)
def test_what_is_wrong_is_said_before_training_starts(thin, fit, callback, message):
    with pytest.raises(ValueError, match=message):
        fit(thin, callback())
    assert thin.losses == [], "no training step was taken"


def test_missing_logger_is_said_before_training_starts(thin, fit):
    with pytest.raises(ValueError, match="with a logger for images.* but got no logger. .*save_dir"):
        fit(thin, GradCAMCallback(), logger=False)
    assert thin.losses == []


@pytest.mark.filterwarnings("ignore:.*val_dataloader")
def test_a_training_without_validation_is_said(thin, fit):
    callback = GradCAMCallback()
    with pytest.warns(GradCAMWarning, match="this training has no validation, so no maps are computed"):
        fit(thin, callback, limit_val_batches=0)
    assert callback.history == []


def test_a_training_that_ends_before_its_first_validation_is_said(thin, fit):
    callback = GradCAMCallback()
    with pytest.warns(GradCAMWarning, match="check_val_every_n_epoch of 2 or less in place of 3") as caught:
        fit(thin, callback, max_epochs=2, check_val_every_n_epoch=3)
    assert callback.history == [] and sum(warning.category is GradCAMWarning for warning in caught) == 1


@pytest.mark.parametrize(
    "options", [{"max_steps": 2, "max_epochs": -1}, {"val_check_interval": 50, "check_val_every_n_epoch": None}]
)
def test_a_training_that_has_ended_without_a_validation_is_said_at_its_end(thin, fit, options):
    """How long a training takes, such as until its max_time, is not always known before."""
    callback = GradCAMCallback(target_layers="block5_conv3")
    with pytest.warns(GradCAMWarning, match="has ended before its first validation, so there are no maps"):
        fit(thin, callback, **options)
    assert callback.history == [] and callback.verdict is None


def test_fast_dev_run_works_without_loggers(thin, fit):
    callback = GradCAMCallback()
    fit(thin, callback, fast_dev_run=True, check_val_every_n_epoch=3)
    assert len(callback.history) == 1


def test_failure_of_ours_in_a_running_training_is_a_warning_and_training_goes_on(thin, fit, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    callback = GradCAMCallback(target_layers="block5_conv3", views="all")
    monkeypatch.setattr("gradcam_callback.run.logger.encode_webp", full)
    with pytest.warns(GradCAMWarning) as caught:
        trainer = fit(thin, callback)
    lost = [str(warning.message) for warning in caught if warning.category is GradCAMWarning]
    why = "lost (OSError: No space left on device). Training goes on untouched."
    assert lost == [f"GradCAM: this epoch's panels {why}"] * 2 + [f"GradCAM: the last strips and the animations {why}"]
    assert trainer.current_epoch == 2 and len(callback.history) == 2
