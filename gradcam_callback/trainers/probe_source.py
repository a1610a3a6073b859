"""Find the probe set of a run: given, or taken from a folder, from the validation data, or from passing batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info

from gradcam_callback.exceptions import UserCodeError
from gradcam_callback.maps import GradCAM
from gradcam_callback.probes import BatchTransform, Collector, ProbeSet
from gradcam_callback.run import BatchForward, Target, warn_lost
from gradcam_callback.trainers.data import ValidationData
from gradcam_callback.trainers.differences import find_difference
from gradcam_callback.trainers.folder_source import read_probe_folder
from gradcam_callback.trainers.trainer import may_still_refuse
from gradcam_callback.trainers.validation import has_no_validation_data

_ONLY_FIRST = (
    "Of several validation loaders only the first is looked at, and its batches come alone. To watch images of another "
    "one, pass probe=ProbeSet.from_dataset(...)."
)


class ProbeSource:
    """The source of a probe set; the arguments are those of `GradCAMCallback`.

    Attributes:
        collects: True while images are collected from the batches that pass by. This is done with data that can be read
            only once.
    """

    def __init__(
        self,
        probe: ProbeSet | str | Path | None,
        target: Target,
        batch_transform: BatchTransform | None,
        forward: BatchForward | None,
        seed: int,
        masks: str | None,
    ) -> None:
        self._probe, self._target, self._forward, self._seed, self._masks = probe, target, forward, seed, masks
        self._batch_transform = batch_transform
        self._data: ValidationData | None = None
        self._collector: Collector | None = None
        # What ended the collecting.
        self._error: Exception | None = None
        # If the images of a given probe set have been compared with the validation, and what was found.
        self._is_compared = False
        self._difference: str | None = None

    @property
    def collects(self) -> bool:
        return self._collector is not None

    def is_there(self, trainer: Trainer) -> bool:
        """Return True if nothing has to be waited for: with ``check_val_every_n_epoch`` the data may come later."""
        is_there = trainer.val_dataloaders is not None and not has_no_validation_data(trainer)
        return isinstance(self._probe, ProbeSet) or is_there

    def take(self, trainer: Trainer, module: LightningModule, cam: GradCAM) -> ProbeSet | None:
        """Return the probe set, or start to collect it.

        Returns:
            None if it has to be collected.

        Raises:
            ValueError: images and labels cannot be told for certain.
            UserCodeError: code of the user's failed on the way.
        """
        if isinstance(self._probe, ProbeSet):
            if trainer.val_dataloaders is not None:
                self._open(trainer, module).warn_of_other_classes(self._probe)
            return self._probe
        with _saying_which_loader(self._open(trainer, module)) as data:
            if self._probe is not None:
                probe, self._difference = read_probe_folder(self._probe, data, cam, self._forward)
                return probe
            if self.start_collecting(trainer, module, lambda: cam):
                return None
            try:
                return data.take_probe_set(cam, self._forward, self._seed)
            except UserCodeError:
                raise
            except ValueError as error:
                if not (isinstance(self._target, int) or self._target == "predicted"):
                    raise
                # A class index and the predicted class can be explained without labels, too.
                rank_zero_info(f"GradCAM: there is no accuracy and no verdict, since no labels are found. {error}")
                return data.without_labels().take_probe_set(cam, self._forward, self._seed)

    def start_collecting(self, trainer: Trainer, module: LightningModule, make_cam: Callable[[], GradCAM]) -> bool:
        """Start to collect images, if the data allow no other way.

        Images of an earlier pass are dropped: the sanity check shows the first ones of the validation.

        Returns:
            True if images are collected.
        """
        data = self._open(trainer, module)
        collects = self._probe is None and data.pass_by_only
        self._collector = data.collector(make_cam(), self._forward) if collects else None
        self._error = None
        return collects

    def close(self) -> None:
        """Drop what has been collected, and the data, which hold the Trainer and the module."""
        self._collector = self._data = None

    def look_at(self, trainer: Trainer, module: LightningModule, batch: Any) -> ProbeSet | None:
        """Take images from a passing batch if they are collected, or compare a given probe set with the first one.

        Returns:
            The probe set, if this batch has completed it. In several processes it is complete at the end of the epoch.
        """
        if self._collector is not None:
            self._collect(trainer, self._collector, batch)
            return self.finish() if self._collector.is_full and trainer.world_size == 1 else None
        if isinstance(self._probe, ProbeSet) and not self._is_compared:
            self._is_compared = True
            self._difference = find_difference(self._probe, batch, self._open(trainer, module).feed)
        # Not in the sanity check: images that the model cannot take are an error soon after.
        if not trainer.sanity_checking:
            self.warn_of_difference()
        return None

    def _collect(self, trainer: Trainer, collector: Collector, batch: Any) -> None:
        if self._error is not None:
            return
        try:
            assert self._data is not None  # which has made the collector
            with _saying_which_loader(self._data):
                collector.add(batch)
        except Exception as error:
            # In a running training of several processes all of them come to `finish`, this one with its error.
            if trainer.world_size == 1 or may_still_refuse(trainer):
                self._collector = None
                raise
            self._error = error

    def finish(self) -> ProbeSet:
        """Return the probe set of the images that have been collected.

        Raises:
            ValueError: there are none.
        """
        collector, self._collector = self._collector, None
        assert collector is not None and self._data is not None
        with _saying_which_loader(self._data):
            return self._data.finish(collector, self._error)

    def warn_of_difference(self) -> None:
        """Warn once if given probe images are unlike those of the validation, such as not normalised."""
        difference, self._difference = self._difference, None
        if difference is not None:
            hint = "Give images as the model takes them (are these normalised?)"
            if not isinstance(self._probe, ProbeSet):
                hint = (
                    "Their folder is read with the transform of the validation data. If the dataset does more to its "
                    "images, do the same: probe=ProbeSet.from_folder(folder, transform=...)"
                )
            warn_lost(
                f"the probe images are unlike those of the validation, so the maps may mean nothing: {difference}. "
                f"{hint}, or pass probe=None to take them from the validation data"
            )

    def _open(self, trainer: Trainer, module: LightningModule) -> ValidationData:
        needs_labels = not (callable(self._target) or isinstance(self._probe, ProbeSet))
        self._data = ValidationData(trainer, module, self._batch_transform, needs_labels, self._masks is not None)
        return self._data


@contextmanager
def _saying_which_loader(data: ValidationData) -> Iterator[ValidationData]:
    """Let an error of the block say that only the first of several loaders is looked at."""
    try:
        yield data
    except ValueError as error:
        if data.has_several and _ONLY_FIRST not in str(error):
            error.args = (f"{error} {_ONLY_FIRST}",)
        raise
