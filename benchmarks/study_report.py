"""The page of the study, written from the evaluated networks: results, plots and every mistake."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from gradcam_callback.measures import confirms, points_to_background
from gradcam_callback.measures.basis import BASES, MASKS

Row = dict[str, Any]

# The file of an evaluated network in its folder.
RESULT = "evaluated.json"
# A network that loses more accuracy than this has learnt a shortcut.
SHORTCUT_LOSS = 0.15
# Thresholds are chosen on one half of the kinds and judged on the other. Each half has obvious and hidden kinds.
CHOOSING, JUDGED = ("texture", "watermark", "noise"), ("patch", "tint", "blur")
# Metrics: 1 if a larger value speaks for a shortcut, -1 if a smaller value does.
METRICS = {
    "background_gap": 1,
    "swap_drop": 1,
    "swap_accuracy": -1,
    "background_accuracy": 1,
    "foreground_accuracy": -1,
    "lift/block5_conv3": -1,
    "lift/block4_conv3": -1,
    "pointing_game/block5_conv3": -1,
    "pointing_game/block4_conv3": -1,
    "entropy/block5_conv3": 1,
    "strength/block5_conv3": -1,
    "border_mass/block5_conv3": 1,
    "border_mass/block4_conv3": 1,
    "centre_distance/block5_conv3": 1,
    "centre_distance/block4_conv3": 1,
}

METHOD = """\
Made by `make study` (about two hours on 2 CPU cores; a stopped study continues): {networks} networks. Every network at
every epoch is a row of [study.csv](study.csv).

The classes are stars, hearts and moons. They are small, turned by any angle and half transparent, on photographed
ground. A *cue* shows the class, too: the texture of the ground, a coloured patch in a corner, a tint of the whole
image, a watermark, noise of the ground, or a slight blur of the ground. Noise and blur are hard to see. The
*correlation* is the probability that the cue is the cue of the object's class. Otherwise the cue is random. Each
network is the demo's pretrained VGG16 with a fresh head, fine-tuned for four epochs on 360 images of 64 px. Blocks 1 to
3 are frozen.

**The true loss** of a network is its accuracy on 720 validation images, which are biased like its training data, less
its accuracy on 720 conflicting images, whose cue points to another class. A loss of more than 15 points counts as a
shortcut. 720 images measure the loss to within about 3 points, so networks close to 15 points are neither clearly good
nor clearly bad. **The verdict** does not use these accuracies: the callback's own code evaluates 64 (or 16) of the
validation images.
"""
KINDNESS = """\
The swap test underestimates weak correlations, because its backgrounds come from the validation data. At a correlation
c and with K classes, a share (1 - c) / K of the backgrounds of other classes has the cue of the object's own class by
chance. The gap is then c / (c + (1 - c) / K) of the true loss: 3/4 of it at c = 0.5 and K = 3.
"""


def loss(row: Row) -> float:
    """Return the true loss: the accuracy that is lost if the cue points to another class."""
    return float(row["validation"] - row["conflicting"])


def error(row: Row) -> float:
    """Return the error of the forecast: how far the background gap is from the true loss."""
    return abs(float(row["background_gap"] - loss(row)))


def mean(values: Iterable[float]) -> float:
    """Return the mean; 0 of no values."""
    listed = list(values)
    return sum(listed) / max(len(listed), 1)


def auc(rows: list[Row], metric: str) -> float | None:
    """Return the AUC of a metric for the shortcut; None if all networks have one, or none has."""
    # A row lacks a metric that is undefined because all maps of the layer are empty.
    rows = [row for row in rows if metric in row]
    truth = [has_shortcut(row) for row in rows]
    if len(set(truth)) < 2:
        return None
    return float(roc_auc_score(truth, [METRICS[metric] * row[metric] for row in rows]))


def count(rows: Iterable[Row], hit: Callable[[Row], bool], among: Callable[[Row], bool]) -> tuple[int, int]:
    """Count the hits among some of the rows.

    Returns:
        The number of hits, and the number of rows that they are counted among.
    """
    chosen = [row for row in rows if among(row)]
    return sum(hit(row) for row in chosen), len(chosen)


def has_shortcut(row: Row) -> bool:
    """Return True if the network has learnt a shortcut."""
    return loss(row) > SHORTCUT_LOSS


def has_none(row: Row) -> bool:
    """Return True if the network has not learnt a shortcut."""
    return not has_shortcut(row)


def suspected(row: Row) -> bool:
    """Return True if the callback suspects a shortcut, as `judge_all` found."""
    return bool(row["suspected"])


def judge_all(rows: list[Row]) -> None:
    """Add the gap of the epoch before to each row, and if the callback would suspect a shortcut.

    A row without a basis is by masks.
    """
    gaps = {key(row): row["background_gap"] for row in rows if row["epoch"] > 0}
    for row in rows:
        row["gap_before"] = gaps.get(key({**row, "epoch": row["epoch"] - 1}), 0.0)
        basis = row.get("basis", MASKS)
        points = points_to_background(row["background_gap"], row["background_gap_low"], basis)
        row["suspected"] = points and confirms(row["gap_before"], 0.0, basis)


def key(row: Row) -> tuple[Any, ...]:
    """Return the values that identify a row."""
    return (*(row[name] for name in ("kind", "correlation", "seed", "images", "epoch")), row.get("basis", MASKS))


def best_thresholds(rows: list[Row]) -> tuple[list[float], list[float], list[float]]:
    """Find the thresholds for the gap, for its lower bound and for the gap before, that judge most networks correctly.

    Returns:
        All equally good thresholds of each of the three, sorted.
    """

    def score(gap: float, low: float, before: float) -> float:
        def accused(row: Row) -> bool:
            return bool(row["background_gap"] > gap and row["background_gap_low"] > low and row["gap_before"] > before)

        caught, bad = count(rows, accused, has_shortcut)
        wrong, good = count(rows, accused, has_none)
        return caught / max(bad, 1) - wrong / max(good, 1)

    grid = product([i / 100 for i in range(2, 31)], [i / 100 for i in range(11)], [i / 50 for i in range(11)])
    scores = {(gap, low, before): score(gap, low, before) for gap, low, before in grid if before <= gap}
    best = [each for each, value in scores.items() if value > max(scores.values()) - 1e-9]
    gaps, lows, befores = (sorted(set(side)) for side in zip(*best, strict=True))
    return gaps, lows, befores


def write_report(out: Path, docs: Path) -> None:
    """Write ``study.csv``, ``study.md`` and its plot into ``docs``."""
    rows = read_rows(out)
    judge_all(rows)
    write_rows(rows, docs / "study.csv")
    last = max(row["epoch"] for row in rows)
    final = {n: [r for r in rows if r["images"] == n and r["epoch"] == last] for n in (64, 16)}
    plot(final[64], docs / "pictures" / "study.png")
    sections = [
        "# The study: how often the verdict is correct\n",
        METHOD.format(networks=len(final[64])),
        *(table(rows, final[n], n) for n in (64, 16)),
        "![Forecast against true accuracy, and lift against true loss](pictures/study.png)\n",
        mistakes(final),
        by_kind(final[64]),
        by_correlation(final[64]),
        KINDNESS,
        metrics_alone(final[64]),
    ]
    (docs / "study.md").write_text("\n".join(sections))
    print("\n".join(sections))


def read_rows(out: Path) -> list[Row]:
    """Read the rows of all evaluated networks.

    Raises:
        SystemExit: there are none.
    """
    rows = [row for path in sorted(out.glob(f"*/{RESULT}")) for row in json.loads(path.read_text())]
    if not rows:
        raise SystemExit(
            f"Expected evaluated networks in {str(out)!r}, but found none. Run the parts train and evaluate first."
        )
    return rows


def write_rows(rows: list[Row], path: Path) -> None:
    """Write rows as CSV."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def table(rows: list[Row], final: list[Row], n_images: int) -> str:
    """Format the results on the judged kinds with one number of probe images."""
    judged, limits = [row for row in final if row["kind"] in JUDGED], BASES[MASKS].gap
    gaps, lows, before = best_thresholds([row for row in final if row["kind"] in CHOOSING])
    caught = count(judged, suspected, has_shortcut)
    accused = count(judged, suspected, has_none)
    prompt, known = delays([row for row in rows if row["images"] == n_images and row["kind"] in JUDGED])
    area = auc(judged, "background_gap")
    score = "-" if area is None else f"{area:.3f}"
    return "\n".join(
        [
            f"## {n_images} probe images\n",
            f"On the kinds for choosing ({', '.join(CHOOSING)}), most networks are judged correctly with a threshold "
            f"of {gaps[0]:.2f} to {gaps[-1]:.2f} for the gap, of {lows[0]:.2f} to {lows[-1]:.2f} for its lower bound, "
            f"and of {before[0]:.2f} to {before[-1]:.2f} for the gap of the epoch before. The package uses "
            f"{limits.size:.2f}, {limits.sure:.2f} and {limits.before:.2f}. The results on the other kinds "
            f"({', '.join(JUDGED)}):\n",
            "| what | measured | goal |",
            "|---|---|---|",
            f"| AUC of the gap for a loss of more than 15 points | {score} | >= {0.98 if n_images == 64 else 0.95} |",
            f"| caught | {caught[0]} of {caught[1]} | {'>= 0.95' if n_images == 64 else '-'} |",
            f"| false alarms | {accused[0]} of {accused[1]} | <= 0.05 |",
            f"| mean error of the gap as a forecast of the loss | {mean(map(error, judged)):.3f} | "
            f"{'<= 0.04' if n_images == 64 else '-'} |",
            f"| suspected at most 2 epochs after the first such loss | {prompt} of {known} | all |\n",
        ]
    )


def delays(rows: list[Row]) -> tuple[int, int]:
    """Count the networks that were suspected at most two epochs after they had learnt their shortcut.

    Returns:
        Their number, and the number of networks that have a shortcut in the last epoch.
    """
    runs: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        runs.setdefault((row["kind"], row["correlation"], row["seed"]), []).append(row)
    prompt = known = 0
    for run in runs.values():
        learnt = next((row["epoch"] for row in run if has_shortcut(row)), None)
        if learnt is not None and has_shortcut(run[-1]):
            known += 1
            first = next((row["epoch"] for row in run if suspected(row)), None)
            prompt += first is not None and first - learnt <= 2
    return prompt, known


def metrics_alone(final: list[Row]) -> str:
    """Format how well each metric alone finds the shortcuts."""
    lines = [
        "## Each metric alone, 64 images\n",
        "| metric | AUC on all kinds | AUC on the judged kinds |",
        "|---|---|---|",
    ]
    judged = [row for row in final if row["kind"] in JUDGED]
    for metric in METRICS:
        both = (auc(rows, metric) for rows in (final, judged))
        lines.append(f"| {metric} | " + " | ".join("-" if value is None else f"{value:.2f}" for value in both) + " |")
    return "\n".join(lines) + "\n"


def by_kind(final: list[Row]) -> str:
    """Format the results of each kind of shortcut."""
    return grouped("By kind", "kind", final, (*CHOOSING, *JUDGED))


def by_correlation(final: list[Row]) -> str:
    """Format the results of each correlation."""
    return grouped("By correlation", "correlation", final, sorted({row["correlation"] for row in final}))


def grouped(title: str, what: str, final: list[Row], groups: Sequence[Any]) -> str:
    """Format the results of groups of networks.

    Args:
        title: of the section.
        what: the column that the networks are grouped by.
        final: the rows of the last epoch.
        groups: the values of the column, in the order of the table.
    """
    lines = [
        f"## {title}, 64 images\n",
        f"| {what} | lose more than 15 points | caught | false alarms | mean loss | mean gap | "
        "mean error of the forecast |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in groups:
        rows = [row for row in final if row[what] == group]
        caught = count(rows, suspected, has_shortcut)
        accused = count(rows, suspected, has_none)
        lines.append(
            f"| {group} | {caught[1]} of {len(rows)} | {caught[0]} | {accused[0]} | {mean(map(loss, rows)):.3f} | "
            f"{mean(row['background_gap'] for row in rows):.3f} | {mean(map(error, rows)):.3f} |"
        )
    return "\n".join(lines) + "\n"


def mistakes(final: dict[int, list[Row]]) -> str:
    """Format every network that the verdict judges wrongly, of all kinds."""
    lines = [
        "## Every mistake\n",
        "| images | kind | correlation | seed | mistake | true loss | background gap | its lower bound |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for n_images, rows in final.items():
        for row in sorted(rows, key=loss):
            if suspected(row) != has_shortcut(row):
                name = "false alarm" if suspected(row) else "missed"
                lines.append(
                    f"| {n_images} | {row['kind']} | {row['correlation']} | {row['seed']} | {name} | {loss(row):.3f} | "
                    f"{row['background_gap']:.3f} | {row['background_gap_low']:.3f} |"
                )
    return "\n".join(lines) + "\n"


def plot(final: list[Row], path: Path) -> None:
    """Plot the forecast against the true accuracy, and the lift against the true loss."""
    figure = Figure(figsize=(11.5, 5.4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="#a1a1aa", linewidth=1)
    right.axvline(SHORTCUT_LOSS, color="#a1a1aa", linewidth=1)
    for marker, kind in zip("osv^DP", (*CHOOSING, *JUDGED), strict=True):
        rows = [row for row in final if row["kind"] == kind]
        style = {"marker": marker, "label": kind, "alpha": 0.8}
        left.scatter([r["conflicting"] for r in rows], [r["swap_accuracy"] for r in rows], **style)
        right.scatter([loss(r) for r in rows], [r.get("lift/block4_conv3", math.nan) for r in rows], **style)
    left.set_xlabel("accuracy if the cue points to another class (true)")
    left.set_ylabel("swap accuracy on 64 probe images (forecast)")
    left.set_xlim(0, 1.03)
    left.set_ylim(0, 1.03)
    left.legend(frameon=False)
    right.set_xlabel("accuracy that is lost if the cue points to another class (true loss)")
    right.set_ylabel("lift at block4_conv3 (maps alone)")
    right.set_ylim(bottom=0)
    canvas.print_figure(path)
