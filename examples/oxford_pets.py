"""Fine-tune a VGG16 on cats and dogs, and ask whether it knows the animals or the rooms that they sit in.

    python examples/oxford_pets.py --download

takes the photographs of Oxford-IIIT Pet (Parkhi et al. 2012) through torchvision. With ``--task species`` cats are told
from dogs, with ``--task breed`` the 37 breeds from each other. The training uses the split ``trainval`` and is measured
on the split ``test``, which decides nothing, not even when to stop. From ``test`` come the watched photographs, too,
with the masks that the dataset brings: each animal is put on another class's backgrounds, and the share of the
focus that lies on the animals is compared with the share of the photograph that they fill.

The masks are trimaps. The rim that they draw around an animal, and which shows its fur, counts as animal.

By default an epoch is a few hundred photographs, which is for trying it out on a laptop; ``--limit 0`` takes them all.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from finetune_vgg16 import LAYER, FineTuning, add_options, launch, loader, transform_for, watches_the_last_layer
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import RandomSampler, Subset
from torchvision.datasets import OxfordIIITPet

from gradcam_callback import GradCAMCallback, ProbeSet

# What torchvision calls the label of each task, and the watched photographs of a class.
TASKS = {"species": ("binary-category", 16), "breed": ("category", 2)}


def read(args: argparse.Namespace, split: str, masks: bool = False) -> Any:
    """The photographs of a split, each with its class, and its mask where asked for.

    Raises:
        FileNotFoundError: they are not there, or not whole.
    """
    kind, where = TASKS[args.task][0], f"{str(args.root)!r}"
    kinds = (kind, "segmentation") if masks else kind
    transform = transform_for(args.size, augmented=split == "trainval")
    if not args.download and not (args.root / "oxford-iiit-pet").is_dir():
        raise FileNotFoundError(
            f"There is no oxford-iiit-pet in {where}: pass --download, or as --root the folder that holds it."
        )
    try:
        return OxfordIIITPet(str(args.root), split, kinds, transform=transform, download=args.download)
    except (OSError, RuntimeError, ValueError) as error:
        raise FileNotFoundError(
            f"The oxford-iiit-pet in {where} could not be fetched, or is not whole ({error}): check the network and "
            "the room on the disk, remove it, and pass --download."
        ) from error


def watched(args: argparse.Namespace) -> ProbeSet:
    """Photographs of the test split with their masks, of each class as many, the same ones every time."""
    per_class = TASKS[args.task][1] if args.per_class is None else args.per_class
    return ProbeSet.from_dataset(read(args, "test", masks=True), per_class, args.seed)


def train(args: argparse.Namespace) -> GradCAMCallback:
    """Train, print what was measured, and leave TensorBoard's files and the last checkpoint in ``args.out``.

    Raises:
        FileNotFoundError, ValueError, WeightsUnavailable: what the user can mend.
    """
    pl.seed_everything(args.seed, verbose=False)
    training, test = read(args, "trainval"), read(args, "test")
    names = test.bin_classes if args.task == "species" else test.classes
    probe = watched(args)
    # Other ones in each epoch to train with, the same ones to measure with.
    count, measured = (min(args.limit or len(part), len(part)) for part in (training, test))
    chosen = random.Random(args.seed).sample(range(len(test)), measured)
    print(f"{count} of {len(training)} photographs in an epoch, {measured} of {len(test)} to measure with,")
    print(f"{len(probe)} to watch, {len(names)} classes:", ", ".join(names))
    watch = GradCAMCallback(probe, args.layers, log_before_training=True)
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        accelerator="auto",
        devices=1,
        callbacks=[watch],
        logger=TensorBoardLogger(args.out.parent, name=args.out.name),
        log_every_n_steps=1,
    )
    trainer.fit(
        FineTuning(len(names), args.weights, args.freeze, args.learning_rate),
        loader(training, args.batch_size, args.workers, sampler=RandomSampler(training, num_samples=count)),
        loader(Subset(test, chosen), args.batch_size, args.workers),
    )
    last = watch.history[-1]
    print(
        f"\naccuracy       {float(trainer.callback_metrics['val_acc']):.0%} on {measured} photographs of the test split"
    )
    print(f"swap accuracy  {last['gradcam/swap_accuracy']:.0%} with the animals on other classes' backgrounds")
    print(f"lift           {last[f'gradcam/lift/{LAYER}']:.2f} at {LAYER}; 1 is chance\n")
    return watch


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", type=Path, default=Path("data"), help="the folder that holds oxford-iiit-pet; ./data without it"
    )
    parser.add_argument("--download", action="store_true", help="fetch the photographs where they are not there yet")
    parser.add_argument("--task", choices=TASKS, default="species", help="what is told apart; species without it")
    parser.add_argument("--limit", type=int, default=400, help="photographs in an epoch and to measure with; 0: all")
    parser.add_argument("--per-class", type=int, help="photographs to watch; 16 of a species, 2 of a breed without it")
    add_options(parser)
    parser.set_defaults(epochs=3, freeze=4, out=Path("runs/pets"))
    args = parser.parse_args(arguments)
    if args.limit < 0:
        parser.error(f"--limit is {args.limit}. Expected a number of photographs, or 0 for all.")
    if not watches_the_last_layer(args.layers):
        parser.error(f"The lift at {LAYER} is printed at the end: let --layers hold it.")
    return args


def main() -> None:
    launch(train, parse())


if __name__ == "__main__":
    main()
