"""A stage of a Trainer starts anew, or goes on with what an earlier one left."""

import pytest
import torch
from conftest import ThinVGG
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import CSVLogger
from test_suspicion import ReadsTheGround
from torch.utils.data import DataLoader
from toys import Toys

from gradcam_callback import GradCAMCallback, ProbeSet

LAYER = "block5_conv3"


@pytest.fixture
def other(toys):
    """Return test data of which no image is in the validation data."""
    return Toys(18, bias=1.0, seed=7, size=64)


def images_of(data, probe):
    """Return how many images of a probe set are those of some data."""
    return sum(any(torch.equal(image, own) for own, _, _ in data.items) for image in probe.images)


@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_the_images_of_an_earlier_test_are_not_those_of_a_fit_or_a_validation(trainer, toys, other, stage):
    callback, module = GradCAMCallback(target_layers=LAYER), ThinVGG()
    module.test_step = module.validation_step
    trainer(callback).test(module, DataLoader(other, 6), verbose=False)
    assert images_of(other, callback.probe_set) == len(callback.probe_set)
    run = trainer(callback)
    validation = DataLoader(toys, 6)
    run.fit(module, DataLoader(toys, 6), validation) if stage == "fit" else run.validate(module, validation)
    assert images_of(toys, callback.probe_set) == len(callback.probe_set)
    assert len(callback.history) == (2 if stage == "fit" else 1)


@pytest.mark.parametrize("where", ["csv", "folder", "maps"])
def test_a_validation_before_the_fit_is_no_other_run(trainer, toys, tmp_path, where):
    options = {"folder": {"save_dir": tmp_path / "files"}, "maps": {"save_maps": True}, "csv": {}}[where]
    callback, loader = GradCAMCallback(target_layers=LAYER, **options), DataLoader(toys, 6)
    run = trainer(callback, logger=CSVLogger(tmp_path)) if where == "csv" else trainer(callback)
    module = ThinVGG()
    run.validate(module, loader, verbose=False)
    run.fit(module, loader, loader)
    assert [entry["epoch"] for entry in callback.history] == [0, 1]


@pytest.mark.filterwarnings("ignore::gradcam_callback.ShortcutWarning")
def test_each_validation_without_a_fit_has_a_verdict_of_its_own(trainer, toys, probe):
    callback, loader = GradCAMCallback(ProbeSet.from_dataset(toys, 4), LAYER), DataLoader(toys, 6)
    suspected = []
    for module in (ThinVGG(), ReadsTheGround(toys), ThinVGG()):
        trainer(callback).validate(module, loader, verbose=False)
        suspected.append(callback.verdict.suspected)
        assert len(callback.history) == 1 and set(callback.history[0]) >= {"gradcam/probe_accuracy"}
    assert suspected == [False, True, False]


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_each_checkpoint_that_is_looked_at_brings_its_own_history(trainer, toys, tmp_path, stage):
    loader, paths = DataLoader(toys, 6), []
    for epochs in (1, 2):
        run = trainer(GradCAMCallback(target_layers=LAYER), max_epochs=epochs)
        run.fit(ThinVGG(), loader, loader)
        paths.append(tmp_path / f"{epochs}.ckpt")
        run.save_checkpoint(paths[-1])
    callback, module = GradCAMCallback(target_layers=LAYER), ThinVGG()
    module.test_step = module.validation_step
    for path, epochs in ((paths[0], 1), (paths[1], 2), (paths[0], 1)):
        getattr(trainer(callback), stage)(module, loader, ckpt_path=path, verbose=False)
        assert len(callback.history) == epochs
    # A history of its own stays, also if the best checkpoint has less.
    run = trainer(callback, max_epochs=2)
    run.fit(module, loader, loader)
    getattr(run, stage)(module, loader, ckpt_path=paths[0], verbose=False)
    assert len(callback.history) == 2


def test_a_fit_goes_on_if_lightning_counts_no_steps(trainer, toys):
    """The optimizer is the module's own, so `global_step` stays 0."""

    class Steps(ThinVGG):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self.own.zero_grad()
            super().training_step(batch, batch_idx).backward()
            self.own.step()

        def configure_optimizers(self):
            self.own = torch.optim.SGD(self.parameters(), 1e-3)
            return torch.optim.SGD(self.parameters(), 1e-3)

    module, loader = Steps(), DataLoader(toys, 6)
    callback = GradCAMCallback(target_layers=LAYER, log_before_training=True)
    run = trainer(callback, max_epochs=2)
    run.fit(module, loader, loader)
    assert run.global_step == 0
    run.fit_loop.max_epochs = 3
    run.fit(module, loader, loader)
    assert [entry["epoch"] for entry in callback.history] == [-1, 0, 1, 2]


def test_a_resumed_fit_with_nothing_left_to_do_has_the_verdict(trainer, fit, toys, tmp_path):
    first = GradCAMCallback(ProbeSet.from_dataset(toys, 4), LAYER)
    fit(ThinVGG(), first, max_epochs=2).save_checkpoint(tmp_path / "last.ckpt")
    second = GradCAMCallback(ProbeSet.from_dataset(toys, 4), LAYER)
    fit(ThinVGG(), second, max_epochs=2, resume=tmp_path / "last.ckpt")
    assert second.history == first.history and second.verdict == first.verdict is not None


@pytest.mark.sixteen_images
@pytest.mark.judges_more
def test_a_fit_that_stops_early_ends_with_a_verdict_on_all_images(fit, events):
    """Early stopping decides after a validation, which has asked about the watched images only."""
    many = Toys(72, bias=1.0, seed=3, size=64)
    callback = GradCAMCallback(target_layers=LAYER, views="counterfactuals")
    stop = EarlyStopping("gradcam/probe_accuracy", mode="min", patience=1)
    module = ThinVGG()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), 0.0)
    run = fit(module, callback, stop, max_epochs=9, val_data=many)
    assert len(callback.history) == run.current_epoch < 9
    assert f"measured on {len(callback.probe_set.verdict_set)} images" in callback.verdict.evidence
    last, found = callback.history[-1], events()
    assert last["gradcam/background_gap"] == callback.verdict.background_gap
    told = found.Scalars("gradcam/background_gap")[-1].value, float(run.callback_metrics["gradcam/background_gap"])
    assert told == pytest.approx([last["gradcam/background_gap"]] * 2)
    drifts = [entry[f"gradcam/drift/{LAYER}"] for entry in callback.history[1:]]
    assert min(drifts) > 1e-9, "batch norms have drifted, also before the entry that was asked again"
    assert [event.value for event in found.Scalars(f"gradcam/drift/{LAYER}")] == pytest.approx(drifts)
    said = found.Tensors("gradcam/verdict")[-1].tensor_proto.string_val[0].decode()
    assert said == callback.verdict.text
