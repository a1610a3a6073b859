"""Fine-tune a VGG16 on your own photographs, and watch where it looks.

    python examples/finetune_vgg16.py PHOTOGRAPHS [--probe PROBE] [--masks auto]

PHOTOGRAPHS holds a folder per class, or the folders ``train`` and ``val`` with a folder per class each. Without
``train`` and ``val``, every fifth photograph of a class is used for validation. PROBE holds a folder per class with a
few photographs. The mask of ``<name>.jpg`` is ``<name>.mask.png``, white on the object.

With masks the verdict says how much the background decides; ``--masks auto`` makes them. Without masks it says only
if the frame of the picture decides. The training stops if the lift at block5_conv3 does not improve, and the best
checkpoint is the one with the highest lift. Without masks in PROBE the validation loss decides both.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image, ImageOps
from pretrained import WeightsUnavailable, for_finetuning
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from gradcam_callback import GradCAMCallback, ProbeSet

LAYER = "block5_conv3"
# Every fifth photograph of a class is for validation if there are no folders train and val.
VALIDATION_EVERY = 5
# Each block of torchvision's feature modules ends with its pooling. The first 17 modules are blocks 1 to 3.
BLOCK_ENDS = (0, 5, 10, 17, 24, 31)


class FineTuning(pl.LightningModule):
    """Fine-tuning of a VGG16. The first blocks are frozen; the head learns faster than the other blocks.

    Args:
        classes: the number of classes.
        weights: ``"torchvision"`` (download), ``"demo"``, or the file of a state dict. None loads nothing, since a
            checkpoint holds all weights.
        frozen: the number of frozen blocks, 0..5.
        learning_rate: of the head; the convolutions have a thirtieth of it.
    """

    def __init__(
        self, classes: int, weights: str | None = "torchvision", frozen: int = 3, learning_rate: float = 1e-3
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network, self.learning_rate = for_finetuning(weights, classes), learning_rate
        for module in list(self.network.features.children())[: BLOCK_ENDS[frozen]]:
            module.requires_grad_(False)
        # Convolutions are faster in this memory format on a CPU.
        self.network.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        logits = self(batch[0])
        self.log("val_loss", functional.cross_entropy(logits, batch[1]), prog_bar=True)
        self.log("val_acc", (logits.argmax(dim=1) == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = [{"params": list(self.network.classifier.parameters()), "lr": self.learning_rate}]
        tuned = [parameter for parameter in self.network.features.parameters() if parameter.requires_grad]
        return torch.optim.AdamW([*groups, {"params": tuned, "lr": self.learning_rate / 30}] if tuned else groups)


def transform_for(size: int, augmented: bool = False) -> Callable[[Any], Tensor]:
    """Make the transform from a photograph to ``(3, size, size)`` in 0..1. The network normalises it."""
    steps: list[Callable[[Any], Any]] = [transforms.Resize(size * 8 // 7), transforms.CenterCrop(size)]
    if augmented:
        steps = [
            transforms.RandomResizedCrop(size, scale=(0.5, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.2, 0.2, 0.2),
        ]
    whole: Callable[[Any], Tensor] = transforms.Compose([*steps, transforms.ToTensor()])
    return whole


def loader(photographs: Dataset[Any], batch_size: int, workers: int, **options: Any) -> DataLoader[Any]:
    """Make a `DataLoader` whose worker processes are kept from one epoch to the next."""
    return DataLoader(photographs, batch_size, num_workers=workers, persistent_workers=workers > 0, **options)


class Photographs(pl.LightningDataModule):
    """A folder of photographs with a folder per class, or with ``train`` and ``val``, as described above.

    Args:
        folder: of the photographs.
        size: side of the images in pixels.
        batch_size: photographs in a batch.
        workers: processes that load photographs.

    Raises:
        FileNotFoundError: there are no photographs.
        ValueError: a class has too few photographs, there is only one class, or ``train`` and ``val`` differ.
    """

    def __init__(self, folder: Path, size: int = 224, batch_size: int = 32, workers: int = 2) -> None:
        super().__init__()
        self.batch_size, self.workers = batch_size, workers
        divided = (folder / "train").is_dir() and (folder / "val").is_dir()
        training, validation = (str(folder / part if divided else folder) for part in ("train", "val"))
        # torchvision leaves photographs lying that their EXIF data turn. The probe set has them upright.
        augmented = ImageFolder(training, transform_for(size, augmented=True), loader=read_upright)
        plain = ImageFolder(validation, transform_for(size), loader=read_upright)
        if augmented.classes != plain.classes:
            raise ValueError(
                f"Expected the same classes in train and val of {str(folder)!r}, but train has the classes "
                f"{augmented.classes} and val {plain.classes}. Add the missing folders."
            )
        if len(plain.classes) < 2:
            raise ValueError(
                f"Expected two classes or more in {str(folder)!r}, but got one class, {plain.classes[0]!r}. Add a "
                "folder for each class."
            )
        self.names: list[str] = plain.classes
        self.classes = len(plain.classes)
        self.training: Dataset[Any] = augmented
        self.validation: Dataset[Any] = plain
        self.count = len(augmented), len(plain)
        if not divided:
            kept = _every_fifth(plain)
            others = sorted(set(range(len(plain))) - set(kept))
            self.training, self.validation = Subset(augmented, others), Subset(plain, kept)
            self.count = len(others), len(kept)

    def train_dataloader(self) -> DataLoader[Any]:
        return loader(self.training, self.batch_size, self.workers, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return loader(self.validation, self.batch_size, self.workers)


def read_upright(path: str) -> Image.Image:
    """Return a photograph in RGB as cameras and browsers show it."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def _every_fifth(photographs: ImageFolder) -> list[int]:
    kept: list[int] = []
    for label, name in enumerate(photographs.classes):
        of_class = [index for index, other in enumerate(photographs.targets) if other == label]
        if len(of_class) < 2:
            raise ValueError(
                f"Expected two photographs or more of each class, but the class {name!r} has one. Add photographs: "
                "training and validation need one each."
            )
        kept += of_class[::VALIDATION_EVERY]
    return kept


def train(args: argparse.Namespace) -> GradCAMCallback:
    """Train, and write the TensorBoard run and the best checkpoint into ``args.out``.

    Raises:
        FileNotFoundError: there are no photographs.
        ImportError: ``--masks auto`` without onnxruntime.
        ValueError: photographs or options do not fit.
        WeightsUnavailable: the pretrained weights cannot be loaded.
    """
    pl.seed_everything(args.seed, verbose=False)
    photographs = Photographs(args.photographs, args.size, args.batch_size, args.workers)
    probe = None
    if args.probe is not None:
        transform, names = transform_for(args.size), photographs.names
        probe = ProbeSet.from_folder(args.probe, transform, masks=args.masks, class_names=names)
    masks = args.masks if probe is None else None
    watch = GradCAMCallback(probe, args.layers, masks=masks, log_before_training=True)
    watched, mode = ("val_loss", "min")
    if probe is not None and probe.masks is not None:
        watched, mode = f"gradcam/lift/{LAYER}", "max"
    n_training, n_validation = photographs.count
    print(f"{n_training} photographs for training, {n_validation} for validation: {', '.join(photographs.names)}")
    print(f"The training stops if {watched} has not improved for {args.patience} epochs.")
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        accelerator="auto",
        devices=1,
        callbacks=[
            watch,
            EarlyStopping(watched, mode=mode, patience=args.patience),
            # By the same scalar: the lowest loss is often that of a network which has learnt the background.
            ModelCheckpoint(monitor=watched, mode=mode, filename="best", save_last=True),
        ],
        logger=TensorBoardLogger(args.out.parent, name=args.out.name),
        log_every_n_steps=1,
    )
    module = FineTuning(photographs.classes, args.weights, args.freeze, args.learning_rate)
    if args.resume is None:
        trainer.fit(module, datamodule=photographs)
    else:
        trainer.fit(module, datamodule=photographs, ckpt_path=args.resume, weights_only=True)
    print(f"\nval_acc {float(trainer.callback_metrics['val_acc']):.0%}. The checkpoints are in {trainer.log_dir}.")
    return watch


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, help="the folder of photographs, see above")
    parser.add_argument(
        "--probe",
        type=Path,
        help="photographs with masks; default: up to 64 validation photographs, without masks, of which 16 are watched",
    )
    parser.add_argument("--masks", choices=("auto",), help="give photographs without a mask an automatic one")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="go on from a checkpoint, such as last.ckpt")
    parser.add_argument("--patience", type=int, default=4, help="epochs without improvement before the training stops")
    add_options(parser)
    args = parser.parse_args(arguments)
    if args.resume is not None and not args.resume.is_file():
        parser.error(
            f"Expected --resume to be a checkpoint, but there is no file {str(args.resume)!r}. Check the path."
        )
    if args.probe is not None and not watches_the_last_layer(args.layers):
        parser.error(f"Expected {LAYER} in --layers, since its lift stops the training. Add {LAYER} to --layers.")
    return args


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every fine-tuning has."""
    parser.add_argument("--layers", nargs="+", default=["all"], help="such as: --layers block4 block5_conv3")
    parser.add_argument("--weights", default="torchvision", help="torchvision (download), demo, or a state dict")
    parser.add_argument("--freeze", type=int, default=3, choices=range(6), help="the number of frozen blocks")
    parser.add_argument("--epochs", type=int, default=20, help="the largest number of epochs")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the head")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--workers", type=int, default=2, help="processes that load photographs")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/finetune"), help="folder of the run")
    parser.add_argument("--seed", type=int, default=0)


def watches_the_last_layer(layers: Sequence[str]) -> bool:
    """Return True if ``--layers`` holds `LAYER`."""
    return bool({LAYER, "block5", "all"} & set(layers))


def launch(train: Callable[[argparse.Namespace], GradCAMCallback], args: argparse.Namespace) -> None:
    """Train, then print the command of TensorBoard and the verdict. Errors that the user can fix become one line."""
    for noise in (".*does not have many workers.*", ".*LeafSpec.*", ".*in eval mode at the start of training.*"):
        warnings.filterwarnings("ignore", noise)
    try:
        watch = train(args)
    except (ImportError, OSError, ValueError, WeightsUnavailable) as error:
        sys.exit(str(error))
    folder = shlex.quote(str(args.out))
    print(f"\nOpen TensorBoard:\n\n    tensorboard --logdir {folder}\n")
    if watch.verdict is not None:
        print(f"{watch.verdict.headline}\n{watch.verdict.evidence}")


def main() -> None:
    launch(train, parse())


if __name__ == "__main__":
    main()
