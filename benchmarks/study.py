"""The study on toys: how often the verdict is correct, on networks that are fine-tuned on six kinds of shortcut.

    python benchmarks/study.py train|evaluate|report|all [--out runs/study] [--docs docs] [--seeds 1 2]

Every network is the pretrained VGG16 with a fresh head. Blocks 1 to 3 are frozen. The true loss is the accuracy that is
lost if the cue always points to another class. It is measured against validation data, which are biased like the
training data. A part that was stopped continues at the same place.
"""

from __future__ import annotations

from itertools import product

import biased
from finetuning import Finetuning
from judging import Run, Study, parse_arguments
from study_report import TOYS, write_report
from toys import CLASSES

CORRELATIONS = (0.0, 0.5, 0.8, 0.9, 0.95, 1.0)
SEEDS = (1, 2)
# The true loss needs many images: with 720 images a loss of 15 points is known to within 3 points.
EPOCHS, TRAINED_ON, TESTED_ON = 4, 360, 720
# The number of feature modules in blocks 1 to 3.
FROZEN = 17


def images(run: Run, what: str, count: int) -> biased.Images:
    """Make the training, validation or conflicting images of a network; each seed has other images."""
    seed = 1000 * run.seed + ("training", "validation", "conflicting").index(what)
    return biased.make(run.kind, count, run.correlation, seed, conflicting=what == "conflicting")


def main() -> None:
    args = parse_arguments(__doc__, "runs/study")
    study = Study(
        runs=[
            Run(kind, correlation, seed)
            for seed, kind, correlation in product(SEEDS, biased.KINDS, CORRELATIONS)
            if seed in args.seeds
        ],
        epochs=EPOCHS,
        training=lambda run: images(run, "training", TRAINED_ON),
        # The first of the validation images.
        probe=lambda run, count: images(run, "validation", count),
        truth=lambda run: {what: images(run, what, TESTED_ON) for what in ("validation", "conflicting")},
    )
    if args.part != "report":
        study.make(Finetuning(len(CLASSES), FROZEN), args.out, args.part)
    if args.part in ("report", "all"):
        write_report(TOYS, args.out, args.docs)


if __name__ == "__main__":
    main()
