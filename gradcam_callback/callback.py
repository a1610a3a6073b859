"""Watch the focus of every layer while a Lightning Trainer trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, Unpack

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from gradcam_callback import trainers
from gradcam_callback.drawing import Style
from gradcam_callback.maps import GradCAM, GradCAMOptions, LateGradCAM
from gradcam_callback.measures import Verdict
from gradcam_callback.probes import BatchTransform, ProbeSet
from gradcam_callback.run import BatchForward, Evaluator, Memory, Session, Tags, Target, check_target, identify, tags
from gradcam_callback.trainers import OnShortcut, ProbeSource


class GradCAMCallback(Callback):
    """Grad-CAM panels and focus scalars of a fixed probe set in TensorBoard, at every validation.

    The maps explain the same weights that the validation uses. They are computed when its first batch begins, after
    weight averaging has swapped its weights in.

    A fit that is neither resumed nor continued on its Trainer starts anew, with a history and an automatic probe set.
    ``trainer.test`` and ``trainer.validate`` leave what a fit has left. Their tags and folders are
    ``<tag_prefix>/test/...`` and ``<tag_prefix>/validate/...``. A validation without a fit before has those of a fit.

    Args:
        probe: the images to watch: a `ProbeSet`, or a folder for `ProbeSet.from_folder`, with transform, classes and
            file loader of the validation dataset. None takes up to 16 images of the validation data, evenly over the
            classes, and 64 for the verdict (`ProbeSet.watch`). They go the way of its batches: collate function and
            batch hooks.
        target_layers: names of layers or modules, see `GradCAM`. Of several VGGs, the only one that runs in eval mode.
        target: what a map explains: ``"label"``, ``"predicted"``, a class index, ``"contrast"`` (the label's logit
            minus the strongest other one), or a callable ``(outputs, index) -> (N,)`` for anything else. ``outputs`` is
            what the model returns, ``index`` holds the numbers of the probe images, ``(N,)`` int64. A callable needs no
            labels, and logs no accuracy.
        every_n_epochs: log the first validation, then the validation of every n-th epoch after a logged one. In
            between, ``EarlyStopping`` finds the last value again, so its patience has to be n times as large.
        masks: ``"auto"`` gives probe images without a mask an automatic one, see `ProbeSet`. Without any masks, the
            frame test takes the place of the swap test.
        batch_transform: says what is what in a batch of another form: a function from the batch, after the hooks, to
            ``(images, labels)`` or ``(images, labels, masks)``.
        forward: runs the model if ``model(images)`` does not: ``lambda net, batch: net(batch["image"], batch["age"])``.
            Each probe image, also a changed one, comes alone and with all else of its batch.
        tag_prefix: the first part of all tags. A second callback with the default gets ``"gradcam_2"``. Two callbacks
            of the same arguments need one of their own: without it, Lightning cannot tell them apart.
        log_before_training: True also logs the pretrained network, at step 0. The epoch of this entry is -1.
        views: the images to log, some of ``"overview"``, ``"probe"``, ``"counterfactuals"``, ``"masks"``, and
            ``"depth_profile"``, ``"layer"``, ``"evolution"``, ``"animation"``. ``"all"`` adds the last four.
        style: how panels are drawn; None is ``Style()``.
        save_dir: a folder for the images and ``history.json`` as plain files; needs no logger.
        save_maps: True saves the raw maps as ``maps/<step>.npz``, in ``save_dir`` or beside the logger's files.
        seed: chooses the probe images from the validation data, and the backgrounds that objects are put on.
        by_class: True logs the mask metrics of every layer, and the swap accuracy, for each class. The lift of the
            deepest layer is always logged by class.
        check_faithfulness: ``"blur"`` (or True) or ``"road"`` asks if the network relies on what its deepest map shows.
        on_shortcut: what happens, once per run, when a shortcut is suspected. ``"warn"`` gives a `ShortcutWarning`.
            ``"stop"`` also ends the training after this epoch. A callable is given the `Verdict` after the warning.
        **options: ``method``, ``precision``, ``chunk_size``, ``reuse_frozen``, ``output_transform`` and
            ``reshape_transform`` of `GradCAM`. Here ``precision="trainer"`` is bf16 if the Trainer's precision is.

    Attributes:
        probe_set: the `ProbeSet` in use; None until it has been chosen.
        history: one dict per logged validation, or test alone: ``"epoch"``, ``"step"`` and every scalar under its tag.
        verdict: the `Verdict` of the last entry; None without labels. To suspect a shortcut takes two epochs in a row.

    Raises:
        ValueError: before training starts: a wrong argument, unknown layers, labels outside the logits, images that the
            model cannot take, no logger for images, a used ``save_dir``, or data whose images or labels are not told.
        UserCodeError: the same for an error in code of yours: dataset, collate function, hook or forward.
        TypeError: an unknown argument.

    Examples:
        >>> import pytorch_lightning as pl
        >>> from gradcam_callback import GradCAMCallback
        >>> watch = GradCAMCallback(target_layers="block5", save_dir="focus", every_n_epochs=2)
        >>> trainer = pl.Trainer(callbacks=[watch], logger=False)
        >>> watch.history, watch.verdict  # filled by trainer.fit
        ([], None)
    """

    def __init__(
        self,
        probe: ProbeSet | str | Path | None = None,
        target_layers: str | nn.Module | Sequence[str | nn.Module] = "all",
        target: Target = "label",
        every_n_epochs: int = 1,
        *,
        masks: str | None = None,
        batch_transform: BatchTransform | None = None,
        forward: BatchForward | None = None,
        tag_prefix: str = "gradcam",
        log_before_training: bool = False,
        views: str | Sequence[str] = tags.DEFAULT_VIEWS,
        style: Style | None = None,
        save_dir: str | Path | None = None,
        save_maps: bool = False,
        seed: int = 0,
        by_class: bool = False,
        check_faithfulness: bool | str = False,
        on_shortcut: OnShortcut = "warn",
        **options: Unpack[GradCAMOptions],
    ) -> None:
        arguments = {**locals(), **options}  # first, while there are no other names
        trainers.check_arguments(arguments, options)
        self.probe = probe
        self.target_layers = target_layers
        self.target = check_target(target)
        self.every_n_epochs = every_n_epochs
        self.masks = masks
        self.batch_transform = batch_transform
        self.forward = forward
        self.tag_prefix = tags.check_prefix(tag_prefix)
        self.log_before_training = log_before_training
        self.views = tags.resolve_views(views)
        self.style = style or Style()
        self.save_dir = None if save_dir is None else Path(save_dir)
        self.save_maps = save_maps
        self.seed = int(seed)
        self.by_class = by_class
        self.check_faithfulness = check_faithfulness
        self.on_shortcut = on_shortcut
        self.options = options
        self._identity = identify(arguments, signature(GradCAMCallback).parameters)
        self._tags = Tags(tag_prefix)
        self._memory = Memory()
        self._stage: str | None = None
        # True while an error of ours would end a training that has not begun, and after such an error.
        self._is_refusing = False
        self._session = Session(self._memory.state, self._tags, [])
        self._source = ProbeSource(probe, self.target, batch_transform, forward, self.seed, masks)

    @property
    def probe_set(self) -> ProbeSet | None:
        """Return the probe set in use; None until it has been chosen."""
        return self._memory.probe_set

    @property
    def history(self) -> list[dict[str, float]]:
        """Return one dict per logged validation."""
        return self._session.history_after(self._memory.state, self._tags)

    @property
    def verdict(self) -> Verdict | None:
        """Return the verdict of the last entry."""
        return self._session.verdict_after(self._memory.state)

    def should_log(self, trainer: Trainer) -> bool:
        """Return True if the validation under way is to be logged: the first, then those of every n-th epoch."""
        return not trainer.sanity_checking and self._session.state.is_due(trainer.current_epoch, self.every_n_epochs)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stage = trainers.stage_name(stage)
        if self._stage != "predict":
            with self._refusing():
                trainers.refuse_sharded(trainer)
                overwrite = self._memory.begin(self._stage, trainer, is_new=not trainers.has_begun(trainer))
                self._session = self._open_session(trainer, overwrite)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        state = trainers.find_other_state(trainer, self, checkpoint) if self._stage == "fit" else None
        if state is not None:
            self.load_state_dict(state)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with self._refusing():
            trainers.check_validation(trainer, self._session)
        # Validation data that come later start the session later, too.
        if not self._session.is_cut_off and (self.probe_set is not None or self._source.is_there(trainer)):
            self._start_session(trainer, pl_module)
        if self.log_before_training and not trainers.has_begun(trainer):
            trainers.log_before_training(trainer, self._session)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._session.evaluator is not None or self._session.gave_up or self._session.is_cut_off:
            return
        if trainer.sanity_checking:
            self._source.start_collecting(trainer, pl_module, lambda: self._make_cam(trainer, pl_module))
        else:
            self._start_late(trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if dataloader_idx == 0:
            with self._session.guard("every map of this run", trainers.may_still_refuse(trainer)):
                self._start_evaluating(trainer, pl_module, self._source.look_at(trainer, pl_module, batch))
        # The session computes at the first batch only. Before, weight averaging has not swapped its weights in yet.
        self._compute_shard(trainer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._evaluate_rest(trainer, pl_module)
            trainers.log_validation(trainer, pl_module, self._session)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainers.write_validation(trainer, pl_module, self._session, self.on_shortcut)

    on_test_start = on_validation_start
    on_test_batch_start = on_validation_batch_start
    on_test_epoch_end = on_validation_epoch_end
    on_test_end = on_validation_end

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainers.revise_verdict(trainer, pl_module, self._session, self.on_shortcut)
        self._session.finish()
        trainers.announce_end(self._session, self.verdict)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainers.is_fitting(trainer):
            self._session.finish()  # a training that fails or is interrupted gets its strips, too
        if self._is_refusing and not trainers.has_begun(trainer):
            trainers.remove_empty_version(trainer)
        self.teardown(trainer, pl_module, str(self._stage))  # Lightning leaves it out

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._session.evaluator = None  # so that the model can be freed
        self._source.close()
        self._stage = None

    @property
    def state_key(self) -> str:
        """Return what tells this callback from others in a checkpoint."""
        return self._generate_state_key(**self._identity)

    def state_dict(self) -> dict[str, Any]:
        return self._memory.state.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._memory.restore(state_dict, self._stage)
        self._session.go_on_from(self._memory.state)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        self._is_refusing = True
        yield
        self._is_refusing = False

    def _open_session(self, trainer: Trainer, overwrite: bool = False) -> Session:
        self._tags = Tags(trainers.own_prefix(trainer, self))
        state, stage = self._memory.state, str(self._stage)
        where = self.save_dir, self.save_maps
        return trainers.open_session(trainer, stage, state, self._tags, *where, overwrite=overwrite)

    def _start_session(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the probe set, and try everything on one image, so that errors come before training."""
        with self._refusing(), trainers.validating(trainer):
            if self._stage == "validate" and self._memory.state.history and not self._session.is_apart:
                # A checkpoint has brought the history of a fit since `setup`.
                self._session = self._open_session(trainer)
            # The sanity check may have given all images.
            if self._session.evaluator is None:
                taken = self.probe_set or self._source.take(trainer, pl_module, self._make_cam(trainer, pl_module))
                self._start_evaluating(trainer, pl_module, taken)
        self._source.warn_of_difference()

    def _start_late(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start at a validation, such as one whose data were not there before; try only once in a training."""
        may_raise = trainers.may_still_refuse(trainer)
        self._session.gave_up = not may_raise
        with self._session.guard("every map of this run", may_raise):
            self._start_session(trainer, pl_module)

    def _evaluate_rest(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate what no batch has led to: collected images, or the share of a process without a batch."""
        with self._session.guard("every map of this run"):
            if self._source.collects:
                self._start_evaluating(trainer, pl_module, self._source.finish())
            self._compute_shard(trainer)

    def _compute_shard(self, trainer: Trainer) -> None:
        if self.should_log(trainer):
            trainers.compute_shard(trainer, self._session, self.every_n_epochs)

    def _start_evaluating(self, trainer: Trainer, pl_module: LightningModule, probe: ProbeSet | None) -> None:
        if probe is None:
            return  # it is still being collected
        self._memory.choose(probe, self._stage)
        evaluator = Evaluator(
            self._make_cam(trainer, pl_module),
            probe,
            self.target,
            forward=self.forward,
            seed=self.seed,
            by_class=self.by_class,
            check_faithfulness=self.check_faithfulness,
        )
        trainers.refuse_impossible_monitors(trainer, self._session, evaluator, self.every_n_epochs)
        self._session.start(evaluator, self.style, self.views)
        trainers.announce(trainer, evaluator, self._session.writers)

    def _make_cam(self, trainer: Trainer, pl_module: LightningModule) -> GradCAM:
        return LateGradCAM(pl_module, self.target_layers, **trainers.resolve_precision(self.options, trainer))
