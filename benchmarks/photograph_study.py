"""The study on photographs: how often the verdict is correct by true masks, by automatic masks, and by the frame.

    python benchmarks/photograph_study.py PHOTOGRAPHS train|evaluate|report|all [--out runs/photograph_study]

PHOTOGRAPHS is a folder with one folder of photographs per class. Every network is the pretrained VGG16 with a fresh
head, of which block 5 is fine-tuned. The true loss is the accuracy on composites that agree with the cue, less the
accuracy on composites that contradict it. All are pasted alike, of photographs that the network has never seen. A part
that was stopped continues at the same place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from composites import KINDS, NATURAL, Composites, Photographs, as_they_are, compose, read_photographs
from finetuning import Finetuning
from judging import Run, Study, parse_arguments
from study_report import CLEAN, PHOTOGRAPHS, write_report

CORRELATIONS, SEEDS = (0.0, 0.5, 0.8, 0.95, 1.0), (1, 2)
# More networks on random scenes, which are clean by construction, and networks on photographs as they are.
CLEAN_SEEDS, NATURAL_SEEDS = (3, 4, 5, 6), (1, 2, 3)
EPOCHS, TRAINED_ON = 6, 300
# With 1,000 composites each, a loss is known to within 4 points.
TESTED_ON = 1000
# The number of feature modules in blocks 1 to 4.
FROZEN = 24


def all_runs(seeds: Sequence[int]) -> Iterator[Run]:
    """Yield every network of some seeds."""
    for seed in seeds:
        if seed in SEEDS:
            yield from (Run(kind, correlation, seed) for kind, correlation in product(KINDS, CORRELATIONS))
        if seed in NATURAL_SEEDS:
            yield Run(NATURAL, 1.0, seed)
        if seed in CLEAN_SEEDS:
            yield Run(CLEAN, 0.0, seed)


def training(photographs: Photographs, run: Run) -> Composites:
    """Make the images of a training, of one half of the photographs."""
    if run.kind == NATURAL:
        return as_they_are(photographs, run.seed, training=True)
    return compose(photographs, _planted(run), TRAINED_ON, run.correlation, run.seed, training=True)


def probe(photographs: Photographs, run: Run, count: int) -> Composites:
    """Make probe images, of the other half."""
    if run.kind == NATURAL:
        return as_they_are(photographs, run.seed, training=False, count=count)
    return compose(photographs, _planted(run), count, run.correlation, run.seed, training=False)


def truth(photographs: Photographs, run: Run) -> dict[str, Composites]:
    """Make images of the other half that all agree with the cue, and images that all contradict it."""
    return {
        name: compose(photographs, _planted(run), TESTED_ON, 1.0, run.seed, training=False, cues=cues)
        for name, cues in (("validation", "own"), ("conflicting", "other"))
    }


def _planted(run: Run) -> str:
    """Return the kind of the cue. Networks that are clean by construction are tested on the scenes of other groups."""
    return "scenes" if run.kind == CLEAN else run.kind


def main() -> None:
    args = parse_arguments(__doc__, "runs/photograph_study", ("photographs", Path))
    if args.part != "report":
        photographs = read_photographs(args.photographs, args.out / "masks.pt")
        study = Study(
            runs=all_runs(args.seeds),
            epochs=EPOCHS,
            training=lambda run: training(photographs, run),
            probe=lambda run, count: probe(photographs, run, count),
            truth=lambda run: truth(photographs, run),
        )
        study.make(Finetuning(len(photographs.classes), FROZEN), args.out, args.part)
    if args.part in ("report", "all"):
        write_report(PHOTOGRAPHS, args.out, args.docs)


if __name__ == "__main__":
    main()
