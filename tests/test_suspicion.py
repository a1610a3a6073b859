"""The callback's reaction to networks that are known to have a shortcut, or to have none."""

import pytest
import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from gradcam_callback import GradCAMCallback, GradCAMWarning, ProbeSet, ShortcutWarning


class ReadsTheGround(ThinVGG):
    """Answers by the colour of the image's edge, whatever lies in the middle; its VGG runs along."""

    def __init__(self, toys):
        super().__init__()
        images, labels, _ = zip(*toys.items, strict=True)
        colours, labels = self.edge(torch.stack(images)), torch.tensor(labels)
        self.register_buffer("colours", torch.stack([colours[labels == c].mean(dim=0) for c in range(3)]))

    @staticmethod
    def edge(images):
        return torch.cat([images[:, :, :3].flatten(2), images[:, :, -3:].flatten(2)], dim=2).mean(dim=2)

    def forward(self, images):
        return 0.01 * super().forward(images) - 50 * torch.cdist(self.edge(images), self.colours)


class AlwaysTheSame(ThinVGG):
    def forward(self, images):
        return 0.0 * super().forward(images) + torch.tensor([1.0, 0.0, 0.0])


@pytest.fixture
def ground(toys):
    torch.manual_seed(0)
    return ReadsTheGround(toys)


def watch(toys, **options):
    return GradCAMCallback(ProbeSet.from_dataset(toys, 4), "block5_conv3", **options)


@pytest.mark.parametrize("before", [False, True])
def test_a_network_that_reads_the_ground_is_suspected_in_its_second_epoch_and_said_so_once(ground, fit, toys, before):
    callback = watch(toys, log_before_training=before)
    suspected = []

    class Listens(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            suspected.append(callback.verdict.suspected)

    with pytest.warns(ShortcutWarning, match="a shortcut is suspected") as caught:
        trainer = fit(ground, callback, Listens(), max_epochs=4)
    assert suspected == [False, True, True, True]
    assert len([warning for warning in caught if warning.category is ShortcutWarning]) == 1
    assert trainer.current_epoch == 4, "by default it only warns"
    verdict = callback.verdict
    assert (verdict.probe_accuracy, verdict.swap_accuracy) == (1.0, 0.0)
    said = next(str(warning.message) for warning in caught if warning.category is ShortcutWarning)
    assert "the network is right in 100 %" in said and "it is right in 0 % (0-0 %)" in said


def test_a_network_that_does_not_is_not(fit, toys):
    callback = watch(toys)
    fit(AlwaysTheSame(), callback, max_epochs=3)
    assert callback.verdict.swap_accuracy == pytest.approx(callback.verdict.probe_accuracy, abs=0.05)
    assert not callback.verdict.suspected


def test_training_can_be_stopped(ground, fit, toys):
    with pytest.warns(ShortcutWarning):
        trainer = fit(ground, watch(toys, on_shortcut="stop"), max_epochs=5)
    assert trainer.current_epoch == 2


def test_a_callable_is_given_the_verdict_once(ground, fit, toys):
    given = []
    callback = watch(toys, on_shortcut=given.append)
    with pytest.warns(ShortcutWarning):
        fit(ground, callback, max_epochs=4)
    assert len(given) == 1 and given[0].suspected


def test_a_callable_that_fails_is_named_as_the_users_and_training_goes_on(ground, fit, toys):
    def send_a_mail(verdict):
        raise ConnectionError("no network")

    with pytest.warns(ShortcutWarning), pytest.warns(GradCAMWarning, match="your on_shortcut failed") as caught:
        trainer = fit(ground, watch(toys, on_shortcut=send_a_mail), max_epochs=3)
    assert trainer.current_epoch == 3
    (message,) = (str(warning.message) for warning in caught if warning.category is GradCAMWarning)
    assert "in send_a_mail" in message and "ConnectionError: no network" in message


def test_two_validations_of_one_epoch_are_not_two_epochs(ground, fit, toys):
    callback = watch(toys)
    fit(ground, callback, max_epochs=1, val_check_interval=1)
    assert len(callback.history) == 3 and not callback.verdict.suspected
    assert "if the next epoch says so too" in callback.verdict.evidence


def test_one_look_is_enough_where_nothing_is_trained(ground, tmp_path, toys):
    callback = watch(toys)
    trainer = pl.Trainer(
        callbacks=[callback],
        logger=TensorBoardLogger(tmp_path, name="run", version=""),
        accelerator="cpu",
        enable_progress_bar=False,
    )
    with pytest.warns(ShortcutWarning):
        trainer.validate(ground, DataLoader(toys, batch_size=6), verbose=False)
    assert callback.verdict.suspected


def test_suspicion_goes_on_from_a_checkpoint(ground, fit, tmp_path, toys):
    first = watch(toys)
    fit(ground, first, max_epochs=1).save_checkpoint(tmp_path / "last.ckpt")
    assert not first.verdict.suspected
    second = watch(toys)
    with pytest.warns(ShortcutWarning):
        fit(ReadsTheGround(toys), second, max_epochs=2, resume=tmp_path / "last.ckpt")
    assert second.verdict.suspected


def test_faithfulness_is_asked_where_wanted(thin, fit, toys, events):
    callback = watch(toys, check_faithfulness=True)
    fit(thin, callback, max_epochs=1)
    by_image = [f"gradcam/faithfulness_by_image/{name}" for name in callback.probe_set.names]
    values = [callback.history[0][name] for name in by_image if name in callback.history[0]]
    assert values and all(-1 <= value <= 1 for value in values)
    assert callback.history[0]["gradcam/faithfulness"] == pytest.approx(sum(values) / len(values))
    assert "gradcam/faithfulness" in events().Tags()["scalars"]


def test_probes_without_masks_are_measured_by_place(thin, fit, toys):
    images, labels, _ = zip(*toys.items[:4], strict=True)
    callback = GradCAMCallback(ProbeSet(torch.stack(images), list(labels)), "block5_conv3")
    fit(thin, callback, max_epochs=1)
    entry = callback.history[0]
    assert 0 <= entry["gradcam/border_mass/block5_conv3"] <= 1
    assert 0 <= entry["gradcam/centre_distance/block5_conv3"] <= 1
    assert callback.verdict is None and not any("by_class" in tag for tag in entry)
