"""`GradCAMCallback`: watches the focus of every layer while a Lightning Trainer trains."""

from __future__ import annotations

import shlex
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from gradcam_callback.drawing.canvas import Style
from gradcam_callback.exceptions import GradCAMWarning, ShortcutWarning
from gradcam_callback.maps.chunks import is_out_of_memory
from gradcam_callback.maps.gradcam import GradCAM, OutputTransformError, check_options
from gradcam_callback.measures.verdict import Verdict
from gradcam_callback.probes.probe_set import ProbeSet
from gradcam_callback.run.album import VIEWS
from gradcam_callback.run.evaluate import Evaluation, Evaluator, Share
from gradcam_callback.run.journal import Journal
from gradcam_callback.run.record import Record
from gradcam_callback.run.tags import tag
from gradcam_callback.trainers import (
    callbacks_of,
    fill_missing_metrics,
    find_writers,
    gather,
    has_class_named,
    is_dry_run,
    is_fitting,
    precision_of,
    refuse_sharded,
    resolve_probe,
    validation_step,
)
from gradcam_callback.writers.sinks import Writer, Writers


class GradCAMCallback(Callback):
    """Grad-CAM panels and focus scalars of a fixed probe set in TensorBoard, at every validation.

    The maps explain the very weights that the validation uses: they are computed when its first batch begins, when
    weight averaging has swapped its weights in. ``trainer.validate`` gives one entry more; ``trainer.test`` gives none,
    and its pictures and scalars have tags that end in `` (test)``, its files a folder ``test`` in ``save_dir``.

    Args:
        probe: the images to watch; a folder is read as `ProbeSet.from_folder` does, with the transform and the classes
            of the validation dataset; None takes two images per class from that, at most 16 in all, classes spread
            evenly, the same ones every time. Where it has no ``targets``, 2,048 items are read for them.
        target_layers: see `gradcam_callback.maps.layers.resolve_layers`.
        target: the class that a map explains: ``"label"``, ``"predicted"``, or a class index.
        every_n_epochs: log the first validation, then those of epochs that lie n or more after the last logged one.
        log_before_training: also log once before the first training step, at step 0, so that the focus of the
            pretrained network is the first column; its entry in ``history`` has epoch -1.
        views: which pictures to log: ``"probe"``, ``"layer"``, ``"evolution"``, ``"animation"``, ``"depth_profile"``,
            ``"counterfactuals"``, or a sequence of these; ``"all"`` logs all.
        cell_size: the longer side of one heatmap in the panels, in pixels.
        colormap: any of matplotlib's.
        scaling: what the hottest colour stands for: ``"map"``, each map's own maximum, or ``"run"``, the layer's
            largest value in the run so far.
        jpeg_quality: 1..95.
        save_dir: a folder for the same pictures, and ``history.json``, as plain files; needs no logger.
        save_maps: whether to also save the raw maps of each entry, ``maps/<step>.npz`` in ``save_dir``, or else in
            ``gradcam`` in the logger's folder.
        output_transform: makes logits ``(N, K)`` of what the model's ``forward`` gives, where that is something else.
        reshape_transform: makes ``(N, C, h, w)`` of what the layers give, where that is something else, see `GradCAM`.
        method: the formula of the maps, see `gradcam_callback.maps.methods`.
        precision: ``"full"``, ``"bf16"`` (see `GradCAM`), or ``"trainer"``: bf16 where the Trainer's is.
        chunk_size: how many images go through the model at once; None chooses.
        reuse_frozen: whether what frozen first blocks give for the probe set is kept, up to 256 MB on the model's
            device, and reused as long as they have not changed.
        seed: chooses the probe images from the validation data and the backgrounds that objects are put on.
        check_faithfulness: whether to ask at each entry if the network relies on what its deepest map shows, see
            `gradcam_callback.measures.faithfulness`; two more forwards per image.
        on_shortcut: what happens, once per run, when a shortcut is suspected: ``"warn"`` gives a `ShortcutWarning`;
            ``"stop"`` also ends the training after this epoch; a callable is given the `Verdict` after the warning.

    Attributes:
        history: one dict per logged validation: ``"epoch"``, ``"step"`` and every scalar under its tag.
        verdict: what the last ones say of the background; None without masks. A shortcut is suspected when two epochs
            in a row say so; in ``trainer.validate``, where there are no epochs, when the one look does.

    Raises:
        ValueError: before training starts, for a wrong argument, layers that do not resolve, labels outside the
            logits, images the model cannot take, a Trainer without a logger for pictures, a ``save_dir`` in use.

    Examples:
        >>> import tempfile, torch, pytorch_lightning as pl
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from torchvision.models import vgg11
        >>> from gradcam_callback import GradCAMCallback
        >>> class Net(pl.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.features, self.head = vgg11().features, torch.nn.Linear(512, 2)
        ...     def forward(self, images):
        ...         return self.head(self.features(images).mean(dim=(2, 3)))
        ...     def training_step(self, batch, batch_idx):
        ...         return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
        ...     def validation_step(self, batch, batch_idx):
        ...         pass
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=1e-3)
        >>> data = TensorDataset(torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 0, 1]))
        >>> loader = DataLoader(data, batch_size=2)
        >>> folder = tempfile.mkdtemp()
        >>> watch = GradCAMCallback(target_layers="block5", save_dir=folder, log_before_training=True)
        >>> quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        >>> trainer = pl.Trainer(max_epochs=2, callbacks=[watch], logger=False, accelerator="cpu", **quiet)
        >>> trainer.fit(Net(), loader, loader)
        >>> [(entry["epoch"], entry["step"]) for entry in watch.history]
        [(-1, 0), (0, 1), (1, 3)]
        >>> 0 <= watch.history[-1]["gradcam/drift/block5_conv2"] <= 1
        True
    """

    def __init__(
        self,
        probe: ProbeSet | str | Path | None = None,
        target_layers: str | Sequence[str] = "all",
        target: str | int = "label",
        every_n_epochs: int = 1,
        *,
        log_before_training: bool = False,
        views: str | Sequence[str] = "all",
        cell_size: int = 76,
        colormap: str = "inferno",
        scaling: str = "map",
        jpeg_quality: int = 60,
        save_dir: str | Path | None = None,
        save_maps: bool = False,
        output_transform: Callable[[Any], Tensor] | None = None,
        reshape_transform: str | Callable[[Tensor], Tensor] | None = None,
        method: str = "gradcam",
        precision: str = "full",
        chunk_size: int | None = None,
        reuse_frozen: bool = True,
        seed: int = 0,
        check_faithfulness: bool = False,
        on_shortcut: str | Callable[[Verdict], object] = "warn",
    ) -> None:
        if probe is not None and not isinstance(probe, (ProbeSet, str, Path)):
            came = type(probe).__name__
            raise ValueError(f"probe came as {came}. Expected a ProbeSet, a folder, or None to take one.")
        if isinstance(target, bool) or not (target in ("label", "predicted") or isinstance(target, int)):
            raise ValueError(f"target is {target!r}. Expected 'label', 'predicted' or a class index.")
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs is {every_n_epochs}. Expected 1 or more.")
        if cell_size < 16:
            raise ValueError(f"cell_size is {cell_size}. Expected 16 pixels or more.")
        if colormap not in matplotlib.colormaps:
            raise ValueError(f"colormap is {colormap!r}. Expected one of matplotlib's, such as 'inferno' or 'jet'.")
        if scaling not in ("map", "run"):
            raise ValueError(f"scaling is {scaling!r}. Expected 'map' or 'run'.")
        self.views = VIEWS if views == "all" else (views,) if isinstance(views, str) else tuple(views)
        if not set(self.views) <= set(VIEWS):
            raise ValueError(f"views is {views!r}. Expected 'all', or some of {', '.join(map(repr, VIEWS))}.")
        if not 1 <= jpeg_quality <= 95:
            raise ValueError(f"jpeg_quality is {jpeg_quality}. Expected 1 to 95.")
        if not (on_shortcut in ("warn", "stop") or callable(on_shortcut)):
            raise ValueError(f"on_shortcut is {on_shortcut!r}. Expected 'warn', 'stop' or a callable.")
        # The Trainer's own precision is known only later; whatever it is, the engine has an answer to it.
        check_options(method, "full" if precision == "trainer" else precision, chunk_size, reshape_transform)
        if not (output_transform is None or callable(output_transform)):
            raise ValueError(f"output_transform came as {type(output_transform).__name__}. Expected a callable.")
        self.probe = probe
        self.target_layers = target_layers
        self.target = target
        self.every_n_epochs = every_n_epochs
        self.log_before_training = log_before_training
        self.style = Style(cell_size, colormap, scaling)
        self.jpeg_quality = jpeg_quality
        self.save_dir = None if save_dir is None else Path(save_dir)
        self.save_maps = save_maps
        self.output_transform = output_transform
        self.reshape_transform = reshape_transform
        self.method = method
        self.precision = precision
        self.chunk_size = chunk_size
        self.reuse_frozen = reuse_frozen
        self.seed = seed
        self.check_faithfulness = check_faithfulness
        self.on_shortcut = on_shortcut
        self.verdict: Verdict | None = None
        self._observer: Evaluator | None = None
        self._journal: Journal | None = None
        self._sinks = Writers([], self._lost)
        self._record = Record()
        self._of_test: Record | None = None
        self._share: Share | None = None
        self._given_up = False
        self._begun = False
        # The callbacks of this kind before this one in the Trainer, and what is put behind the tags that they use too,
        # and behind all tags of a test.
        self._earlier: list[GradCAMCallback] = []
        self._number, self._stage = "", ""

    @property
    def history(self) -> list[dict[str, float]]:
        """One dict per logged validation, see above."""
        return self._record.history

    # Lightning's hooks, in the order in which they come.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._observer, self._journal, self._share = None, None, None
        self._given_up, self._begun = False, False
        # A test is a look at other data, or with other weights, that is none of the training's.
        self._of_test = Record() if stage == "test" else None
        if stage in ("fit", "validate", "test"):
            refuse_sharded(trainer)
            ours = [one for one in callbacks_of(trainer) if isinstance(one, GradCAMCallback)]
            self._earlier = ours[: ours.index(self)] if self in ours else []
            self._refuse_shared_folder()
            self._number = f" ({len(self._earlier) + 1})" if self._earlier else ""
            self._stage, folder = "", self.save_dir
            if self._of_test is not None:
                self._stage, folder = " (test)", None if folder is None else folder / "test"
            sinks: list[Writer] = []
            if not is_dry_run(trainer):
                needed = self._of_test is None  # the figures of a test are worth having alone
                sinks = find_writers(trainer, folder, self.save_maps, self._number + self._stage, needed)
            self._sinks = Writers(sinks if trainer.is_global_zero else [], self._lost)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Lightning gives a state only to a callback with the same key, which is of its layers and target.
        keys = {getattr(one, "state_key", None) for one in callbacks_of(trainer)}
        saved = checkpoint.get("callbacks", {})
        others = [key for key in saved if str(key).startswith(f"{type(self).__qualname__}{{") and key not in keys]
        if others and self.state_key not in saved:
            what = "the checkpoint's history and strips, which are of other layers or another target; they start anew"
            self._warn(f"{what} ({others[0]})")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.enable_validation:
            self._warn(
                "there is no validation in this training, so no maps are computed; give it validation data, and "
                "limit_val_batches above 0"
            )
        # The validation data may come only later, such as with check_val_every_n_epoch; then so does the probe.
        if isinstance(self.probe, ProbeSet) or trainer.val_dataloaders is not None:
            self._prepare(trainer, pl_module)
        if self.log_before_training and self._observer is not None and trainer.global_step == 0:
            with self._surviving("the maps before training"):
                self._share = self._observer.share(trainer.global_rank, trainer.world_size)
            seen = self._look(trainer)
            with self._surviving("the entry before training"):
                if seen is not None and trainer.is_global_zero:
                    for logger in trainer.loggers:
                        logger.log_metrics(self._own(seen.scalars), step=0)
                if seen is not None:
                    self._publish(trainer, seen, epoch=-1, step=0)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or self._observer is not None or self._given_up:
            return
        if trainer.global_step == 0 and self._of_test is None:
            self._prepare(trainer, pl_module)
            return
        # The validation data came only after training had begun, which from then on is not to be stopped by us; nor is
        # a test, which mostly comes after it.
        self._given_up = True
        with self._surviving("every map of this run"):
            self._prepare(trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        # Of the first loader that has any batch.
        if not self._begun and self._observer is not None and self.should_log(trainer):
            self._begun = True
            with self._surviving("this epoch's maps"):
                self._share = self._observer.share(trainer.global_rank, trainer.world_size)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._begun = False
        seen = self._look(trainer)
        if seen is not None:
            # The same in every process; Lightning asks for their mean all the same.
            pl_module.log_dict(self._own(seen.scalars), sync_dist=trainer.world_size > 1)
            with self._surviving("this epoch's panels"):
                self._publish(trainer, seen, trainer.current_epoch, validation_step(trainer))
            self._react(trainer)
        if is_fitting(trainer):
            with self._surviving("what is monitored"):
                self._stand_in(trainer, seen)

    # A test is seen as a validation is.
    on_test_start = on_validation_start
    on_test_batch_start = on_validation_batch_start
    on_test_epoch_end = on_validation_epoch_end

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # A run that is broken off with Ctrl-C, or that fails, has its strips too.
        if is_fitting(trainer):
            self._finish()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._observer = None

    @property
    def state_key(self) -> str:
        # Callbacks that watch different layers keep their states apart in a checkpoint.
        return self._generate_state_key(target_layers=self.target_layers, target=self.target)

    def state_dict(self) -> dict[str, Any]:
        return self._record.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        try:
            self._record = Record.from_state_dict(state_dict)
        except (KeyError, TypeError, ValueError) as error:
            self._record = Record()
            what = "the checkpoint's history and strips, which are not as they were written; they start anew"
            self._warn(f"{what} ({type(error).__name__}: {error})")

    def should_log(self, trainer: Trainer) -> bool:
        """Whether the validation that is under way is one to log: the first, and all of each n-th epoch after."""
        history = self._current.history
        last = history[-1]["epoch"] if history else -1
        too_soon = last >= 0 and 0 < trainer.current_epoch - last < self.every_n_epochs
        return not trainer.sanity_checking and not too_soon

    # The work.

    @property
    def _current(self) -> Record:
        return self._record if self._of_test is None else self._of_test

    def _refuse_shared_folder(self) -> None:
        for other in self._earlier:
            if self.save_dir is not None and other.save_dir is not None:
                if self.save_dir.resolve() == other.save_dir.resolve():
                    raise ValueError(
                        f"Two callbacks of the Trainer have the save_dir {str(self.save_dir)!r}. Expected one for each."
                    )

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Settle the probe set, and try the whole on one image, so that what is wrong is said before training."""
        self.probe = probe = resolve_probe(self.probe, trainer, self.seed)
        self._observer = Evaluator(
            GradCAM(
                pl_module,
                self.target_layers,
                method=self.method,
                precision=precision_of(trainer) if self.precision == "trainer" else self.precision,
                chunk_size=self.chunk_size,
                reuse_frozen=self.reuse_frozen,
                output_transform=self.output_transform,
                reshape_transform=self.reshape_transform,
            ),
            probe,
            self.target,
            seed=self.seed,
            check_faithfulness=self.check_faithfulness,
        )
        self._open_journal(probe, self._observer)
        for logger in trainer.loggers:
            if has_class_named(logger, "TensorBoardLogger"):
                rank_zero_info(
                    f"GradCAM: watching {len(self._observer.layers)} layers on {len(probe)} images. See them "
                    f"with: tensorboard --logdir {shlex.quote(str(logger.save_dir))} --samples_per_plugin images=100 "
                    "(without it TensorBoard shows 10 epochs of each picture)"
                )
                break

    def _open_journal(self, probe: ProbeSet, observer: Evaluator) -> None:
        record = self._current
        self._journal = Journal(
            probe,
            observer.layers,
            record,
            self._sinks,
            style=self.style,
            views=self.views,
            jpeg_quality=self.jpeg_quality,
            name=self._own_tag,
        )
        if not self._journal.begin(again=self._of_test is not None):
            self._warn("the checkpoint's history and strips, which are of other images or layers; they start anew")
        if record.history:
            observer.go_on_from(record.evolution.last_maps())

    def _look(self, trainer: Trainer) -> Evaluation | None:
        """Put together what the processes have computed; None where that is nothing, or not all of it."""
        mine, self._share = self._share, None
        # Whatever has failed in one process, all of them come here, so that none waits for another in vain.
        shares = gather(trainer, mine)
        there = [share for share in shares if share is not None]
        if self._observer is None or not there:
            return None
        if len(there) < len(shares):
            if mine is not None:
                missing = [rank for rank, share in enumerate(shares) if share is None]
                self._warn(f"this epoch's maps lost, since process {missing[0]} could not compute its share")
            return None
        with self._surviving("this epoch's figures"):
            seen = self._observer.merge(there)
            bad = int(seen.cams.nonfinite.sum())
            if bad:
                come = f"{bad} of {len(self._observer.probe)} images gave NaN or infinity, and have empty maps"
                self._warn(f"{come}; where the loss does, too, lower the learning rate")
            return seen
        return None

    def _publish(self, trainer: Trainer, seen: Evaluation, epoch: int, step: int) -> None:
        """Keep what was seen, and from the first process write its pictures and words."""
        assert self._journal is not None
        # In trainer.validate nothing comes after; a test is none of several columns.
        alone = not is_fitting(trainer)
        self.verdict = self._journal.keep(seen, epoch, step, alone=alone)
        self._journal.write(seen, self.verdict, strips=self._of_test is None, last=alone)

    def _finish(self) -> None:
        if self._journal is not None:
            with self._surviving("the last strips and the animations"):
                self._journal.finish()

    def _own_tag(self, *parts: str) -> str:
        """A tag; with this callback's number where one before it has the same, and with the word of a test."""
        return self._with_own_ending(tag(*parts))

    def _with_own_ending(self, full: str) -> str:
        taken = {layer for other in self._earlier if other._observer is not None for layer in other._observer.layers}
        names = full.split("/")[1:]
        by_layer = self._observer is not None and len(names) > 1 and names[1] in self._observer.layers
        return full + ("" if by_layer and names[1] not in taken else self._number) + self._stage

    def _own(self, scalars: Mapping[str, float]) -> dict[str, float]:
        return {self._own_tag(name): value for name, value in scalars.items()}

    def _stand_in(self, trainer: Trainer, seen: Evaluation | None) -> None:
        """Give what is monitored, and has no value yet, that of the last entry.

        It may have none as the maps were lost, as a resumed run has yet to log, or as the first entry has no drift.
        """
        entry = self.history[-1] if self.history else {}
        last = {self._with_own_ending(name): value for name, value in entry.items() if name.startswith(tag(""))}
        layers = [] if self._observer is None else self._observer.layers
        ours = set(last) | {self._own_tag("drift", layer) for layer in layers}
        fill_missing_metrics(trainer, last, lambda name: name in ours or (seen is None and name.startswith(tag(""))))

    def _react(self, trainer: Trainer) -> None:
        """Say once per run that a shortcut is suspected, and do what the user wants done then."""
        if self.verdict is None or not self.verdict.suspected or self._record.said:
            return
        self._record.said = True
        rank_zero_warn(f"GradCAM: {self.verdict.evidence}", category=ShortcutWarning)
        if self.on_shortcut == "stop":
            trainer.should_stop = True
        elif callable(self.on_shortcut):
            try:
                self.on_shortcut(self.verdict)
            except Exception:
                self._warn(f"your on_shortcut failed:\n{traceback.format_exc()}")

    @contextmanager
    def _surviving(self, what: str) -> Iterator[None]:
        """A failure of ours in a running training becomes a warning that says what is lost."""
        try:
            yield
        except OutputTransformError:
            self._warn(f"{what} lost, since your output_transform failed:\n{traceback.format_exc()}")
        except Exception as error:
            hint = "; fewer or smaller probe images need less memory" if is_out_of_memory(error) else ""
            self._warn(f"{what} lost ({type(error).__name__}: {error}){hint}")

    def _lost(self, sink: str, error: Exception) -> None:
        self._warn(f"what {sink} is to be given is lost until it works again ({type(error).__name__}: {error})")

    @staticmethod
    def _warn(lost: str) -> None:
        warnings.warn(f"GradCAM: {lost}. Training goes on untouched.", GradCAMWarning, stacklevel=2)
