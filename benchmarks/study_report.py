"""The page of the study: figures, plots and where it fails, from what was looked at."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from gradcam_callback.measures.verdict import CONFIRMING_DROP, SUSPICIOUS_DROP, confirms, points_to_background

Row = dict[str, Any]

LOSES = 0.15
# Thresholds are chosen on one half of the kinds and judged on the other: in each an obvious one and a hidden one.
CHOOSING, JUDGED = ("texture", "watermark", "noise"), ("patch", "tint", "blur")
# Measures, and whether more of it speaks for a shortcut.
MEASURES = {
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
Made by `make study` (about two hours on 2 CPU cores, in parts): {networks} networks; every one of them at every
epoch is a row of [study.csv](study.csv).

Stars, hearts and moons are to be told apart, drawn small, turned by any angle and half transparent, on photographed
ground. A *cue* tells the class too: the texture of the ground, a coloured patch in a corner, a tint over everything, a
watermark, and two that are hardly seen at a glance, noise and a slight blur of the ground. With the probability called
its *correlation* it is the cue of the object's class, otherwise one drawn at random. Each network is the demo's
pretrained VGG16 with a fresh head, fine-tuned for four epochs on 360 images of 64 px, blocks 1 to 3 frozen.

**Truth** is what such a network loses where the cue points to another class than the object: its accuracy on 720
validation images, which are biased like its training data, less that on 720 conflicting ones. A loss of more than 15
points counts as a shortcut. 720 images tell it to within 3 points or so, so networks close to 15 can be called either
way. **The verdict** sees nothing of that: the callback's own code looks at 64 (or 16) of the validation images.

The lower threshold for the epoch before was added after a first report of these networks, in which the same threshold
for both epochs had caught 17 of the 20 below; the networks for choosing spoke for it too (13 of 15 caught, before 12).
"""
KINDNESS = """\
The swap reads weak correlations too kindly, because it draws its backgrounds from the validation data: at a
correlation c, of K classes, a share (1 - c) / K of the backgrounds of other classes carries the cue of the object's own
class by chance. The drop is then c / (c + (1 - c) / K) of the true loss: 3/4 of it at c = 0.5 and K = 3.
"""


def loss(row: Row) -> float:
    """The truth: how much accuracy is lost where the cue points to another class."""
    return float(row["validation"] - row["conflicting"])


def error(row: Row) -> float:
    """How far the forecast is off."""
    return abs(float(row["swap_accuracy"] - row["conflicting"]))


def mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / max(len(listed), 1)


def auc(rows: list[Row], measure: str) -> float | None:
    truth = [loss(row) > LOSES for row in rows]
    if len(set(truth)) < 2:
        return None
    return float(roc_auc_score(truth, [MEASURES[measure] * row[measure] for row in rows]))


def share(rows: Iterable[Row], of: Callable[[Row], bool], where: Callable[[Row], bool]) -> tuple[int, int]:
    chosen = [row for row in rows if where(row)]
    return sum(of(row) for row in chosen), len(chosen)


def judge_all(rows: list[Row]) -> None:
    """Add to each row whether the callback would suspect a shortcut then, and the drop in the epoch before."""
    falls = {key(row): row["swap_drop"] for row in rows if row["epoch"] > 0}
    for row in rows:
        row["fall_before"] = falls.get(key({**row, "epoch": row["epoch"] - 1}), 0.0)
        row["suspected"] = points_to_background(row["swap_drop"], row["swap_drop_low"]) and confirms(row["fall_before"])


def key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("kind", "correlation", "seed", "images", "epoch"))


def best_thresholds(rows: list[Row]) -> tuple[list[float], list[float]]:
    """The falls, in the epoch and in the one before, that tell the most networks right, each with all of its equals."""

    def right(drop: float, before: float) -> float:
        def accused(row: Row) -> bool:
            return bool(row["swap_drop"] > drop and row["swap_drop_low"] > 0 and row["fall_before"] > before)

        caught, bad = share(rows, accused, lambda row: loss(row) > LOSES)
        wrong, good = share(rows, accused, lambda row: loss(row) <= LOSES)
        return caught / max(bad, 1) - wrong / max(good, 1)

    scores = {(i / 200, j / 40): right(i / 200, j / 40) for i in range(10, 61) for j in range(11) if j / 40 <= i / 200}
    best = [pair for pair, score in scores.items() if score > max(scores.values()) - 1e-9]
    return sorted({drop for drop, _ in best}), sorted({before for _, before in best})


def write_report(out: Path, docs: Path) -> None:
    """Write ``study.csv``, ``study.md`` and its plot into ``docs``."""
    rows = [row for path in sorted(out.glob("*/looked.json")) for row in json.loads(path.read_text())]
    if not rows:
        raise SystemExit(f"Nothing has been looked at in {out}: run the parts train and look first.")
    judge_all(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (docs / "study.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    last = max(row["epoch"] for row in rows)
    final = {count: [r for r in rows if r["images"] == count and r["epoch"] == last] for count in (64, 16)}
    plot(final[64], docs / "pictures" / "study.png")
    sections = [
        "# The study: how often the verdict is right\n",
        METHOD.format(networks=len(final[64])),
        *(table(rows, final[count], count) for count in (64, 16)),
        "![Forecast against truth, and lift against truth](pictures/study.png)\n",
        mistakes(final),
        by_kind(final[64]),
        by_correlation(final[64]),
        KINDNESS,
        measures_alone(final[64]),
    ]
    (docs / "study.md").write_text("\n".join(sections))
    print("\n".join(sections))


def table(rows: list[Row], final: list[Row], count: int) -> str:
    judged = [row for row in final if row["kind"] in JUDGED]
    falls, before = best_thresholds([row for row in final if row["kind"] in CHOOSING])
    caught = share(judged, lambda row: row["suspected"], lambda row: loss(row) > LOSES)
    accused = share(judged, lambda row: row["suspected"], lambda row: loss(row) <= LOSES)
    late, known = delays([row for row in rows if row["images"] == count and row["kind"] in JUDGED])
    area = auc(judged, "swap_drop")
    score = "-" if area is None else f"{area:.3f}"
    return "\n".join(
        [
            f"## {count} probe images\n",
            f"On the kinds used for choosing ({', '.join(CHOOSING)}) a drop of {falls[0]:.3f} to {falls[-1]:.3f} after "
            f"one of {before[0]:.3f} to {before[-1]:.3f} in the epoch before tells most networks right; the package "
            f"uses {SUSPICIOUS_DROP:.2f} and {CONFIRMING_DROP:.2f}. The others ({', '.join(JUDGED)}):\n",
            "| what | measured | goal |",
            "|---|---|---|",
            f"| AUC of the drop for losing more than 15 points | {score} | >= 0.98 |",
            f"| caught | {caught[0]} of {caught[1]} | >= 0.95 |",
            f"| false alarms | {accused[0]} of {accused[1]} | <= 0.05 |",
            f"| mean error of the forecast | {mean(map(error, judged)):.3f} | <= 0.05 |",
            f"| suspected within 2 epochs of the first in which it loses that much | {late} of {known} | all |\n",
        ]
    )


def delays(rows: list[Row]) -> tuple[int, int]:
    """Of the networks that lose too much at the end, how many were suspected within two epochs of when it began."""
    runs: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        runs.setdefault((row["kind"], row["correlation"], row["seed"]), []).append(row)
    within = known = 0
    for run in runs.values():
        learnt = next((row["epoch"] for row in run if loss(row) > LOSES), None)
        if learnt is not None and loss(run[-1]) > LOSES:
            known += 1
            suspected = next((row["epoch"] for row in run if row["suspected"]), None)
            within += suspected is not None and suspected - learnt <= 2
    return within, known


def measures_alone(final: list[Row]) -> str:
    lines = [
        "## Each measure alone, 64 images\n",
        "| measure | AUC on all kinds | AUC on the judged kinds |",
        "|---|---|---|",
    ]
    judged = [row for row in final if row["kind"] in JUDGED]
    for measure in MEASURES:
        both = (auc(rows, measure) for rows in (final, judged))
        lines.append(f"| {measure} | " + " | ".join("-" if value is None else f"{value:.2f}" for value in both) + " |")
    return "\n".join(lines) + "\n"


def by_kind(final: list[Row]) -> str:
    return grouped("By kind", "kind", final, (*CHOOSING, *JUDGED))


def by_correlation(final: list[Row]) -> str:
    return grouped("By correlation", "correlation", final, sorted({row["correlation"] for row in final}))


def grouped(title: str, what: str, final: list[Row], groups: Sequence[Any]) -> str:
    lines = [
        f"## {title}, 64 images\n",
        f"| {what} | lose more than 15 points | caught | false alarms | mean loss | mean drop | "
        "mean error of the forecast |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in groups:
        rows = [row for row in final if row[what] == group]
        caught = share(rows, lambda row: row["suspected"], lambda row: loss(row) > LOSES)
        accused = share(rows, lambda row: row["suspected"], lambda row: loss(row) <= LOSES)
        lines.append(
            f"| {group} | {caught[1]} of {len(rows)} | {caught[0]} | {accused[0]} | {mean(map(loss, rows)):.3f} | "
            f"{mean(row['swap_drop'] for row in rows):.3f} | {mean(map(error, rows)):.3f} |"
        )
    return "\n".join(lines) + "\n"


def mistakes(final: dict[int, list[Row]]) -> str:
    """Every network that the verdict gets wrong, of all kinds."""
    lines = [
        "## Every mistake\n",
        "| images | kind | correlation | seed | mistake | true loss | drop by the swap |",
        "|---|---|---|---|---|---|---|",
    ]
    for count, rows in final.items():
        for row in sorted(rows, key=loss):
            if row["suspected"] != (loss(row) > LOSES):
                name = "false alarm" if row["suspected"] else "missed"
                lines.append(
                    f"| {count} | {row['kind']} | {row['correlation']} | {row['seed']} | {name} | {loss(row):.3f} | "
                    f"{row['swap_drop']:.3f} |"
                )
    return "\n".join(lines) + "\n"


def plot(final: list[Row], path: Path) -> None:
    """The forecast against the truth, and what the maps alone say of it."""
    figure = Figure(figsize=(11.5, 5.4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="#a1a1aa", linewidth=1)
    right.axvline(LOSES, color="#a1a1aa", linewidth=1)
    for marker, kind in zip("osv^DP", (*CHOOSING, *JUDGED), strict=True):
        rows = [row for row in final if row["kind"] == kind]
        style = {"marker": marker, "label": kind, "alpha": 0.8}
        left.scatter([r["conflicting"] for r in rows], [r["swap_accuracy"] for r in rows], **style)
        right.scatter([loss(r) for r in rows], [r["lift/block4_conv3"] for r in rows], **style)
    left.set_xlabel("accuracy where the cue points to another class (truth)")
    left.set_ylabel("swap accuracy on 64 probe images (forecast)")
    left.set_xlim(0, 1.03)
    left.set_ylim(0, 1.03)
    left.legend(frameon=False)
    right.set_xlabel("accuracy lost where the cue points to another class (truth)")
    right.set_ylabel("lift at block4_conv3 (maps alone)")
    right.set_ylim(bottom=0)
    canvas.print_figure(path)
