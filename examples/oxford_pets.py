"""Fine-tune a VGG16 on cats and dogs, and test if it has learnt the animals or their backgrounds.

    python examples/oxford_pets.py --download

The photographs are those of Oxford-IIIT Pet (Parkhi et al. 2012), which torchvision downloads. ``--task species`` has
the classes cat and dog, ``--task breed`` the 37 breeds. The training uses the split ``trainval`` and never the split
``test``, which measures the network.

The probe images come from ``test``, too, with the masks of the dataset. The callback puts each animal on the
backgrounds of other classes, and compares the focus on the animals with their share of the image. The masks are
trimaps. The rim around an animal shows its fur, so it counts as animal.

An epoch has a few hundred photographs, enough to try the example on a laptop. ``--limit 0`` takes all of them.
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

# For each task, torchvision's name of its labels, and the number of probe images per class.
TASKS = {"species": ("binary-category", 16), "breed": ("category", 2)}


def read(args: argparse.Namespace, split: str, masks: bool = False) -> Any:
    """Read the photographs of a split with their classes, and with their masks if ``masks`` is True.

    Raises:
        FileNotFoundError: the dataset is missing or incomplete.
    """
    kind = TASKS[args.task][0]
    kinds = (kind, "segmentation") if masks else kind
    transform = transform_for(args.size, augmented=split == "trainval")
    if not args.download and not (args.root / "oxford-iiit-pet").is_dir():
        raise FileNotFoundError(
            f"Expected a folder oxford-iiit-pet in {str(args.root)!r}, but there is none. Pass --download, or pass its "
            "folder as --root."
        )
    try:
        return OxfordIIITPet(str(args.root), split, kinds, transform=transform, download=args.download)
    except (OSError, RuntimeError, ValueError) as error:
        raise FileNotFoundError(
            f"Expected the whole dataset in {str(args.root / 'oxford-iiit-pet')!r}, but it cannot be downloaded or is "
            f"incomplete ({error}). Check the network and the disk, delete the folder, and pass --download."
        ) from error


def choose_probe(args: argparse.Namespace) -> ProbeSet:
    """Choose the probe images, with masks: the same number of each class, and the same images every time."""
    per_class = TASKS[args.task][1] if args.per_class is None else args.per_class
    return ProbeSet.from_dataset(read(args, "test", masks=True), per_class, args.seed)


def train(args: argparse.Namespace) -> GradCAMCallback:
    """Train, print the metrics, and write the TensorBoard run and the last checkpoint into ``args.out``.

    Raises:
        FileNotFoundError: the dataset is missing or incomplete.
        ValueError: the options do not fit.
        WeightsUnavailable: the pretrained weights cannot be loaded.
    """
    pl.seed_everything(args.seed, verbose=False)
    training, test = read(args, "trainval"), read(args, "test")
    names = test.bin_classes if args.task == "species" else test.classes
    probe = choose_probe(args)
    # Each epoch trains on other photographs, but every validation uses the same ones.
    count, measured = (min(args.limit or len(part), len(part)) for part in (training, test))
    chosen = random.Random(args.seed).sample(range(len(test)), measured)
    print(f"{count} of {len(training)} photographs per epoch, {measured} of {len(test)} for validation,")
    print(f"{len(probe)} probe images, {len(names)} classes: {', '.join(names)}")
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
        "--root", type=Path, default=Path("data"), help="the folder that holds oxford-iiit-pet; default: data"
    )
    parser.add_argument("--download", action="store_true", help="download the photographs if they are missing")
    parser.add_argument("--task", choices=TASKS, default="species", help="the classes; default: species")
    parser.add_argument("--limit", type=int, default=400, help="photographs per epoch and per validation; 0: all")
    parser.add_argument("--per-class", type=int, help="probe images; default: 16 of a species, 2 of a breed")
    add_options(parser)
    parser.set_defaults(epochs=3, freeze=4, out=Path("runs/pets"))
    args = parser.parse_args(arguments)
    if args.limit < 0:
        parser.error(f"Expected --limit to be 0 or more, but got {args.limit}. Use 0 for all photographs.")
    if not watches_the_last_layer(args.layers):
        parser.error(f"Expected {LAYER} in --layers, since its lift is printed at the end. Add {LAYER} to --layers.")
    return args


def main() -> None:
    launch(train, parse())


if __name__ == "__main__":
    main()
