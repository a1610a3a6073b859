"""Try to correct the gap for cues that only go with their class most of the time, on the study on photographs.

    python benchmarks/correlation.py PHOTOGRAPHS [--out runs/photograph_study]

Let c be the correlation, and K the number of classes. By chance, a share (1 - c) / K of the backgrounds of other
classes has the cue of the object's own class. So the gap is c / (c + (1 - c) / K) of the loss. A small classifier that
tells the classes apart by their painted-out backgrounds alone, cross-validated on the probe set, estimates c from its
accuracy. The script prints how far the gap, and the gap divided by the factor, are from the true loss.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from composites import Photographs, read_photographs
from finetuning import Finetuning
from judging import Run
from photograph_study import EPOCHS, FROZEN, all_runs, probe
from saved import MANY, Row
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from study_report import NAMES, error, has_shortcut, loss, mean, of, read_rows

from gradcam_callback.measures import MASKS
from gradcam_callback.measures.inpaint import paint_out

# Below this the backgrounds hardly tell the classes apart, and the factor would blow up the noise.
LEAST = 0.25


def estimate(run: Run, photographs: Photographs, networks: Finetuning) -> float:
    """Return the correlation of the backgrounds with the classes of a probe set, 0..1, as a classifier sees it."""
    data, classes = probe(photographs, run, MANY), len(photographs.classes)
    backgrounds = paint_out(data.images, data.masks)
    with torch.no_grad():
        features = networks.features(backgrounds).amax(dim=(2, 3)).numpy()
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    accuracy = float(cross_val_score(classifier, features, data.labels.numpy(), cv=folds).mean())
    return max(0.0, (accuracy - 1 / classes) / (1 - 1 / classes))


def corrected(row: Row, correlation: float, classes: int) -> Row:
    """Return a row whose gap is divided by the factor of a correlation."""
    if correlation < LEAST:
        return row
    factor = correlation / (correlation + (1 - correlation) / classes)
    return {**row, "background_gap": min(1.0, row["background_gap"] / factor)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/photograph_study"))
    args = parser.parse_args()
    photographs = read_photographs(args.photographs, args.out / "masks.pt")
    classes = len(photographs.classes)
    networks = Finetuning(classes, FROZEN)
    final = of([row for row in read_rows(args.out) if row["epoch"] == EPOCHS], MASKS, 64)
    before, after, known = [], [], []
    for run in all_runs((1, 2, 3, 4, 5, 6)):
        for row in final:
            if (row["kind"], row["correlation"], row["seed"]) == (run.kind, run.correlation, run.seed):
                seen = estimate(run, photographs, networks)
                networks.forget()
                before.append(row)
                after.append(corrected(row, seen, classes))
                known.append(corrected(row, run.correlation, classes))
                print(
                    f"{run.name}: correlation {run.correlation}, seen {seen:.2f}; loss {loss(row):.2f}, gap "
                    f"{row['background_gap']:.2f}, corrected {after[-1]['background_gap']:.2f}",
                    flush=True,
                )
    print(f"by {NAMES[MASKS]}, {len(before)} networks, mean error of the forecast")
    for name, rows in (("gap", before), ("corrected", after), ("corrected by the true correlation", known)):
        lost = [row for row in rows if has_shortcut(row)]
        print(f"  {name}: {mean(map(error, rows)):.3f}; with a shortcut {mean(map(error, lost)):.3f}")


if __name__ == "__main__":
    main()
