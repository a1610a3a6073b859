"""Fine-tune a VGG16 on your own photographs, and watch where it looks.

    python examples/finetune_vgg16.py PHOTOGRAPHS [--probe PROBE]

PHOTOGRAPHS holds a folder per class, or two folders ``train`` and ``val`` that do; without these, every fifth
photograph of a class is kept for validation. PROBE holds a folder per class, too, with a few photographs, and for each
``<name>.jpg`` its mask ``<name>.mask.png``, white on the object. With masks you are told how much the background
decides, and the training stops when the focus at block5_conv3 no longer moves towards the object; without them, when
the validation loss no longer falls.
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
VALIDATION_EVERY = 5  # photographs of a class, where no folder says which are for validation
BLOCK_ENDS = (0, 5, 10, 17, 24, 31)  # in torchvision's feature modules: each block ends with its pooling


class FineTuning(pl.LightningModule):
    """A VGG16 whose first blocks stay as they are; the others move slowly, the fresh head fast.

    Args:
        classes: how many.
        weights: ``"torchvision"`` (download), ``"demo"``, a state dict's file, or None, where a checkpoint
            has them all.
        frozen: how many blocks stay as they are, 0..5.
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
        # On a CPU the convolutions of this memory format are the faster ones.
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
        moving = [parameter for parameter in self.network.features.parameters() if parameter.requires_grad]
        return torch.optim.AdamW([*groups, {"params": moving, "lr": self.learning_rate / 30}] if moving else groups)


def transform_for(size: int, augmented: bool = False) -> Callable[[Any], Tensor]:
    """Makes a photograph what the network takes: RGB in 0..1, which it normalises itself."""
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
    """Batches of photographs, loaded by processes that stay; ``options`` are those of ``DataLoader``."""
    return DataLoader(photographs, batch_size, num_workers=workers, persistent_workers=workers > 0, **options)


class Photographs(pl.LightningDataModule):
    """A folder of photographs, in a folder per class; see above how it is divided.

    Args:
        folder: where they are.
        size: side of the images, in pixels.
        batch_size: photographs in a batch.
        workers: processes that load them.

    Raises:
        FileNotFoundError, ValueError: there are none, too few of a class, or one class only.
    """

    def __init__(self, folder: Path, size: int = 224, batch_size: int = 32, workers: int = 2) -> None:
        super().__init__()
        self.batch_size, self.workers = batch_size, workers
        divided = (folder / "train").is_dir() and (folder / "val").is_dir()
        augmented = ImageFolder(str(folder / "train" if divided else folder), transform_for(size, augmented=True))
        plain = ImageFolder(str(folder / "val" if divided else folder), transform_for(size))
        if augmented.classes != plain.classes:
            raise ValueError(f"{folder}: train has the classes {augmented.classes}, but val has {plain.classes}.")
        if len(plain.classes) < 2:
            raise ValueError(f"{folder} has one class, {plain.classes[0]!r}. Expected two folders or more.")
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


def _every_fifth(photographs: ImageFolder) -> list[int]:
    kept: list[int] = []
    for label, name in enumerate(photographs.classes):
        of_class = [index for index, other in enumerate(photographs.targets) if other == label]
        if len(of_class) < 2:
            raise ValueError(f"The class {name!r} has one photograph. Expected one to train and one to validate with.")
        kept += of_class[::VALIDATION_EVERY]
    return kept


def train(args: argparse.Namespace) -> GradCAMCallback:
    """Train, and leave TensorBoard's files and the best checkpoint in ``args.out``.

    Raises:
        FileNotFoundError, ValueError, WeightsUnavailable: what the user can mend.
    """
    pl.seed_everything(args.seed, verbose=False)
    photographs = Photographs(args.photographs, args.size, args.batch_size, args.workers)
    probe = None
    if args.probe is not None:
        probe = ProbeSet.from_folder(args.probe, transform_for(args.size), class_names=photographs.names)
    watch = GradCAMCallback(probe, args.layers, log_before_training=True)
    watched, mode = ("val_loss", "min")
    if probe is not None and probe.masks is not None:
        watched, mode = f"gradcam/lift/{LAYER}", "max"
    print("{} photographs to train with, {} to validate with:".format(*photographs.count), ", ".join(photographs.names))
    print(f"The training stops when {watched} has not improved for {args.patience} epochs.")
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        accelerator="auto",
        devices=1,
        callbacks=[
            watch,
            EarlyStopping(watched, mode=mode, patience=args.patience),
            ModelCheckpoint(monitor="val_loss", filename="best", save_last=True),
        ],
        logger=TensorBoardLogger(args.out.parent, name=args.out.name),
        log_every_n_steps=1,
    )
    trainer.fit(FineTuning(photographs.classes, args.weights, args.freeze, args.learning_rate), datamodule=photographs)
    print(f"\nval_acc {float(trainer.callback_metrics['val_acc']):.0%}; checkpoints are in {trainer.log_dir}")
    return watch


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, help="the folder of photographs, see above")
    parser.add_argument("--probe", type=Path, help="the photographs to watch, with masks; two per class without it")
    parser.add_argument("--patience", type=int, default=4, help="epochs without improvement before it stops")
    add_options(parser)
    args = parser.parse_args(arguments)
    if args.probe is not None and not watches_the_last_layer(args.layers):
        parser.error(f"--probe stops the training by the lift at {LAYER}: let --layers hold it.")
    return args


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that any fine-tuning has."""
    parser.add_argument("--layers", nargs="+", default=["all"], help="such as: --layers block4 block5_conv3")
    parser.add_argument("--weights", default="torchvision", help="torchvision (download), demo, or a state dict's file")
    parser.add_argument("--freeze", type=int, default=3, choices=range(6), help="how many first blocks stay fixed")
    parser.add_argument("--epochs", type=int, default=20, help="at most")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the head")
    parser.add_argument("--size", type=int, default=224, help="side of the images, in pixels")
    parser.add_argument("--workers", type=int, default=2, help="processes that load photographs")
    parser.add_argument("--out", type=Path, default=Path("runs/finetune"), help="TensorBoard's files and checkpoints")
    parser.add_argument("--seed", type=int, default=0)


def watches_the_last_layer(layers: Sequence[str]) -> bool:
    """Whether ``--layers`` holds ``LAYER``."""
    return bool({LAYER, "block5", "all"} & set(layers))


def launch(train: Callable[[argparse.Namespace], GradCAMCallback], args: argparse.Namespace) -> None:
    """Train, and say in one line what the user can mend, or else what was found and how to see it."""
    for noise in (".*does not have many workers.*", ".*LeafSpec.*", ".*in eval mode at the start of training.*"):
        warnings.filterwarnings("ignore", noise)
    try:
        watch = train(args)
    except (FileNotFoundError, ValueError, WeightsUnavailable) as error:
        sys.exit(str(error))
    if watch.verdict is not None:
        print(watch.verdict.evidence)
    print(f"\nSee it:\n\n    tensorboard --logdir {shlex.quote(str(args.out))} --samples_per_plugin images=100\n")


def main() -> None:
    launch(train, parse())


if __name__ == "__main__":
    main()
