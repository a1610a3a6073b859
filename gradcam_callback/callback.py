"""`GradCAMCallback`: watches the focus of every layer while a Lightning Trainer trains."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from gradcam_callback import metrics
from gradcam_callback.evolution import Evolution, Frame, shrink
from gradcam_callback.gradcam import CAMs, GradCAM, class_probability, predict, predicted_class
from gradcam_callback.probe import ProbeSet
from gradcam_callback.render import Caption, Style, evolution_strip, layer_panel, probe_panel
from gradcam_callback.shortcut import Counterfactuals, Verdict, accuracy, judge, make_counterfactuals
from gradcam_callback.tensorboard import find_loggers, tag, validation_step, write_image

# What the callback takes by itself from the validation data.
AUTO_PER_CLASS, AUTO_IMAGES, AUTO_SCANNED = 2, 16, 2048


class GradCAMWarning(UserWarning):
    """Something of the callback's was lost, and what; training goes on untouched."""


@dataclass(frozen=True)
class _Entry:
    """What one look at the network gives, before anything is logged."""

    epoch: int
    cams: CAMs
    scalars: dict[str, float]
    verdict: Verdict | None


class GradCAMCallback(Callback):
    """Grad-CAM panels and focus scalars of a fixed probe set in TensorBoard, at every validation.

    The maps explain the very weights that the validation uses: they are computed when its first batch begins, when
    weight averaging has swapped its weights in.

    Args:
        probe: the images to watch; None takes two per class from the validation data, at most 16 in all, classes
            spread evenly, the same ones every time.
        target_layers: see `gradcam_callback.layers.resolve_layers`.
        target: the class that a map explains: ``"label"``, ``"predicted"``, or a class index.
        every_n_epochs: log in epochs 0, n, 2n, ...
        log_before_training: also log once before the first training step, at step 0, so that the focus of the
            pretrained network is the first column; its entry in ``history`` has epoch -1.
        cell_size: the longer side of one heatmap in the panels, in pixels.
        colormap: any of matplotlib's.
        jpeg_quality: 1..95.
        chunk_size: how many images go through the model at once.
        seed: chooses the probe images from the validation data and the backgrounds that objects are put on.

    Attributes:
        history: one dict per logged validation: ``"epoch"``, ``"step"`` and every scalar under its tag.
        verdict: what the last one says of the background; None without masks.

    Raises:
        ValueError: before training starts, for a wrong argument, layers that do not resolve, labels outside the
            logits, images the model cannot take, a Trainer without TensorBoardLogger.
    """

    def __init__(
        self,
        probe: ProbeSet | None = None,
        target_layers: str | Sequence[str] = "all",
        target: str | int = "label",
        every_n_epochs: int = 1,
        *,
        log_before_training: bool = False,
        cell_size: int = 112,
        colormap: str = "inferno",
        jpeg_quality: int = 85,
        chunk_size: int = 8,
        seed: int = 0,
    ) -> None:
        if probe is not None and not isinstance(probe, ProbeSet):
            raise ValueError(f"probe came as {type(probe).__name__}. Expected a ProbeSet, or None to take one.")
        if isinstance(target, bool) or not (target in ("label", "predicted") or isinstance(target, int)):
            raise ValueError(f"target is {target!r}. Expected 'label', 'predicted' or a class index.")
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs is {every_n_epochs}. Expected 1 or more.")
        if cell_size < 16:
            raise ValueError(f"cell_size is {cell_size}. Expected 16 pixels or more.")
        if colormap not in matplotlib.colormaps:
            raise ValueError(f"colormap is {colormap!r}. Expected one of matplotlib's, such as 'inferno' or 'jet'.")
        if not 1 <= jpeg_quality <= 95:
            raise ValueError(f"jpeg_quality is {jpeg_quality}. Expected 1 to 95.")
        if chunk_size < 1:
            raise ValueError(f"chunk_size is {chunk_size}. Expected a number of images, 1 or more.")
        self.probe = probe
        self.target_layers = target_layers
        self.target = target
        self.every_n_epochs = every_n_epochs
        self.log_before_training = log_before_training
        self.style = Style(cell_size, colormap)
        self.jpeg_quality = jpeg_quality
        self.chunk_size = chunk_size
        self.seed = seed
        self.history: list[dict[str, float]] = []
        self.verdict: Verdict | None = None
        self._cam: GradCAM | None = None
        self._counterfactuals: Counterfactuals | None = None
        self._evolution = Evolution()
        self._before: dict[str, Tensor] = {}
        self._pending: _Entry | None = None

    # Lightning's hooks, in the order in which they come.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._cam = self._pending = None
        if stage in ("fit", "validate") and not find_loggers(trainer) and not _is_dry_run(trainer):
            came = [type(logger).__name__ for logger in trainer.loggers] or "no logger"
            raise ValueError(
                f"The Trainer has {came}. GradCAMCallback expects a TensorBoardLogger: "
                "Trainer(logger=TensorBoardLogger('runs'))."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The validation data may come only later, such as with check_val_every_n_epoch; then so does the probe.
        if self.probe is not None or trainer.val_dataloaders is not None:
            self._prepare(trainer, pl_module)
        if self.log_before_training and self._cam is not None and trainer.global_step == 0:
            with self._surviving("the entry before training"):
                entry = self._look(pl_module, epoch=-1)
                for logger in find_loggers(trainer):
                    logger.log_metrics(entry.scalars, step=0)
                self._publish(trainer, entry, step=0)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and self._cam is None:
            self._prepare(trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0 and dataloader_idx == 0 and self.should_log(trainer):
            with self._surviving("this epoch's maps"):
                self._pending = self._look(pl_module, trainer.current_epoch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        entry, self._pending = self._pending, None
        if entry is not None:
            pl_module.log_dict(dict(entry.scalars), rank_zero_only=False)
            with self._surviving("this epoch's panels"):
                self._publish(trainer, entry, validation_step(trainer))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._cam = None

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = list(state_dict["history"])

    def should_log(self, trainer: Trainer) -> bool:
        """Whether the validation that is under way is one to log."""
        return not trainer.sanity_checking and trainer.current_epoch % self.every_n_epochs == 0

    # The work.

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Settle the probe set and try the whole on one image, so that what is wrong is said before training."""
        if self.probe is None:
            self.probe = _probe_from_validation(trainer, self.seed)
        self._cam = GradCAM(pl_module, self.target_layers, chunk_size=self.chunk_size)
        highest = int(self.probe.labels.argmax())
        one = self._on_device(self.probe.images[highest : highest + 1], pl_module)
        try:
            self._cam(one, targets=int(self.probe.labels[highest]))
            if isinstance(self.target, int):
                self._cam(one, targets=self.target)
        except RuntimeError as error:
            shape = tuple(self.probe.images.shape[1:])
            raise ValueError(
                f"The model cannot take probe images of shape {shape}. Expected images as validation gives them. "
                f"It said: {error}"
            ) from error
        masked = self.probe.has_mask
        if self.probe.masks is not None:
            self._counterfactuals = make_counterfactuals(
                self.probe.images[masked], self.probe.labels[masked], self.probe.masks[masked], seed=self.seed
            )
        if trainer.loggers:
            rank_zero_info(
                f"GradCAM: watching {len(self._cam.layers)} layers on {len(self.probe)} images. See them with: "
                f"tensorboard --logdir {trainer.loggers[0].save_dir or trainer.default_root_dir} "
                "--samples_per_plugin images=100 (TensorBoard shows only 10 epochs without it)"
            )

    @staticmethod
    def _on_device(images: Tensor, pl_module: LightningModule) -> Tensor:
        floating = (parameter.dtype for parameter in pl_module.parameters() if parameter.is_floating_point())
        return images.to(pl_module.device, next(floating, images.dtype))

    def _look(self, pl_module: LightningModule, epoch: int) -> _Entry:
        """Maps, measures and interventions of the present weights."""
        assert self.probe is not None and self._cam is not None
        targets: Tensor | int | None = None if self.target == "predicted" else self.probe.labels
        if isinstance(self.target, int):
            targets = self.target
        found = self._cam(self._on_device(self.probe.images, pl_module), targets)
        cams = CAMs(
            {name: raw.cpu() for name, raw in found.maps.items()},
            found.logits.cpu(),
            found.targets.cpu(),
            found.nonfinite.cpu(),
        )
        if bool(cams.nonfinite.any()):
            bad = int(cams.nonfinite.sum())
            self._warn(f"{bad} of {len(self.probe)} images gave NaN or infinity, and have empty maps")
        right = predicted_class(cams.logits) == self.probe.labels
        scalars = {tag("probe_accuracy"): float(right.double().mean())}
        for name, raw in cams.maps.items():
            scalars |= {tag(measure, name): value for measure, value in self._measure(name, raw).items()}
        self._before = cams.maps
        if self._counterfactuals is None:
            return _Entry(epoch, cams, scalars, None)
        answers = self._intervene(pl_module, self._counterfactuals)
        scalars |= {tag(name): value for name, value in answers.items()}
        layer = list(cams.maps)[-1]
        masked = self.probe.has_mask
        assert self.probe.masks is not None
        verdict = judge(
            probe_accuracy=float(right[masked].double().mean()),
            swap_accuracy=answers.get("swap_accuracy"),
            lift=scalars[tag("lift", layer)],
            mass=scalars[tag("relevance_mass", layer)],
            area=float(metrics.mask_area(self.probe.masks[masked]).mean()),
            layer=layer,
            n=int(masked.sum()),
            classes=len(self.probe.labels[masked].unique()),
        )
        return _Entry(epoch, cams, scalars, verdict)

    def _measure(self, layer: str, raw: Tensor) -> dict[str, float]:
        assert self.probe is not None
        figures = {
            "entropy": metrics.mean_of_defined(metrics.entropy(raw)),
            "strength": float(metrics.strength(raw).mean()),
        }
        if layer in self._before:
            figures["drift"] = float(metrics.drift(raw, self._before[layer]).mean())
        if self.probe.masks is not None:
            masked = self.probe.has_mask
            masks = self.probe.masks[masked]
            mass = metrics.relevance_mass(raw[masked], masks)
            figures["relevance_mass"] = metrics.mean_of_defined(mass)
            figures["lift"] = metrics.mean_of_defined(metrics.lift(mass, metrics.mask_area(masks))[None])
            figures["pointing_game"] = float(metrics.pointing_game(raw[masked], masks).mean())
        return figures

    def _intervene(self, pl_module: LightningModule, sets: Counterfactuals) -> dict[str, float]:
        assert self.probe is not None
        labels = self.probe.labels[self.probe.has_mask]

        def accuracy_on(images: Tensor, truth: Tensor) -> float:
            logits = predict(pl_module, self._on_device(images, pl_module), self.chunk_size)
            return accuracy(predicted_class(logits).cpu(), truth)

        answers = {
            "background_accuracy": accuracy_on(sets.background, labels),
            "foreground_accuracy": accuracy_on(sets.foreground, labels),
        }
        if sets.swapped is not None:
            answers["swap_accuracy"] = accuracy_on(sets.swapped, labels[sets.swapped_from])
        return answers

    def _publish(self, trainer: Trainer, entry: _Entry, step: int) -> None:
        """Keep the entry, and write its pictures and words from the first process."""
        self.history.append({"epoch": entry.epoch, "step": step, **entry.scalars})
        self.verdict = entry.verdict
        captions = self._captions(entry.cams)
        small = {name: shrink(raw.numpy(), self.style.cell) for name, raw in entry.cams.maps.items()}
        heading = "start" if entry.epoch < 0 else f"{entry.epoch}"
        self._evolution.add(Frame(heading, [caption.explained_probability for caption in captions], small))
        if not trainer.is_global_zero:
            return
        for logger in find_loggers(trainer):
            writer = logger.experiment
            for name, image in self._pictures(entry, captions):
                write_image(writer, name, image, step, self.jpeg_quality)
            if entry.verdict is not None:
                writer.add_text(tag("verdict"), entry.verdict.evidence, step)
            writer.flush()

    def _pictures(self, entry: _Entry, captions: Sequence[Caption]) -> Iterator[tuple[str, Any]]:
        """Every panel under its tag."""
        assert self.probe is not None
        probe, style = self.probe, self.style
        pictures = probe.pictures()
        masks = [
            probe.masks[i].numpy() if probe.masks is not None and bool(probe.has_mask[i]) else None
            for i in range(len(probe))
        ]
        maps = {name: raw.numpy() for name, raw in entry.cams.maps.items()}
        frames = self._evolution.frames()
        for i, name in enumerate(probe.names):
            one = {layer: raw[i] for layer, raw in maps.items()}
            yield tag("probe", name), probe_panel(pictures[i], one, captions[i], masks[i], style)
            strip = evolution_strip(
                pictures[i],
                name,
                captions[i].explained,
                [(frame.heading, frame.probabilities[i]) for frame in frames],
                {layer: [frame.maps[layer][i] for frame in frames] for layer in maps},
                style,
            )
            yield tag("evolution", name), strip
        for layer, raw in maps.items():
            yield tag("layer", layer), layer_panel(layer, pictures, raw, captions, masks, style)

    def _captions(self, cams: CAMs) -> list[Caption]:
        assert self.probe is not None
        probe = self.probe
        predicted = predicted_class(cams.logits)
        sure = class_probability(cams.logits, predicted).tolist()
        explained = class_probability(cams.logits, cams.targets).tolist()
        return [
            Caption(
                name,
                probe.class_name(int(probe.labels[i])),
                probe.class_name(int(predicted[i])),
                sure[i],
                probe.class_name(int(cams.targets[i])),
                explained[i],
            )
            for i, name in enumerate(probe.names)
        ]

    @contextmanager
    def _surviving(self, what: str) -> Iterator[None]:
        """A failure of ours in a running training becomes a warning that says what is lost."""
        try:
            yield
        except Exception as error:
            self._warn(f"{what} lost ({type(error).__name__}: {error})")

    @staticmethod
    def _warn(lost: str) -> None:
        warnings.warn(f"GradCAM: {lost}. Training goes on untouched.", GradCAMWarning, stacklevel=2)


def _is_dry_run(trainer: Trainer) -> bool:
    """``fast_dev_run`` puts a dummy in the place of every logger."""
    return any(isinstance(logger, DummyLogger) for logger in trainer.loggers)


def _probe_from_validation(trainer: Trainer, seed: int) -> ProbeSet:
    """Two images per class from the first validation loader's dataset, at most 16."""
    loader = trainer.val_dataloaders
    while isinstance(loader, (list, tuple, dict)) and loader:
        loader = next(iter(loader.values())) if isinstance(loader, dict) else loader[0]
    dataset = getattr(loader, "dataset", None)
    if dataset is None:
        raise ValueError(
            f"The validation data came as {type(loader).__name__}, from which no probe set can be taken. Expected a "
            "DataLoader over a map-style dataset; otherwise pass GradCAMCallback(probe=ProbeSet(...))."
        )
    return ProbeSet.from_dataset(dataset, AUTO_PER_CLASS, seed, max_images=AUTO_IMAGES, max_scanned=AUTO_SCANNED)
