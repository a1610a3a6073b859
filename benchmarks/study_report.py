"""The pages of both studies, written from the evaluated networks: results by each basis, plots and every mistake."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from composites import NATURAL
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from saved import ANSWERS, FEW, MANY, ONE_EACH, PROBES, SCALARS, TRUTH, Row, read_saved
from sklearn.metrics import roc_auc_score
from turns import judge_networks

from gradcam_callback.measures import AUTOMATIC_MASKS, FRAME, MASKS, confirms, points_to_background
from gradcam_callback.measures.basis import BASES
from gradcam_callback.measures.rounding import rounded

# A network that loses more accuracy than this has learnt a shortcut.
SHORTCUT_LOSS = 0.15
NAMES = {MASKS: "true masks", AUTOMATIC_MASKS: "automatic masks", FRAME: "the frame"}
# Metrics: 1 if a larger value speaks for a shortcut, -1 if a smaller value does.
METRICS = {
    "background_gap": 1,
    "swap_drop": 1,
    "swap_accuracy": -1,
    "background_accuracy": 1,
    "foreground_accuracy": -1,
    "lift/block5_conv3": -1,
    "lift/block4_conv3": -1,
    "relevance_mass/block5_conv3": -1,
    "pointing_game/block5_conv3": -1,
    "pointing_game/block4_conv3": -1,
    "entropy/block5_conv3": 1,
    "strength/block5_conv3": -1,
    "border_mass/block5_conv3": 1,
    "border_mass/block4_conv3": 1,
    "centre_distance/block5_conv3": 1,
    "centre_distance/block4_conv3": 1,
}
# The kind of the networks of the study on photographs that have no cue: every object on a random scene.
CLEAN = "random scenes"


@dataclass(frozen=True)
class Page:
    """The particulars of the page of one study.

    Attributes:
        stem: of its files.
        method: its first section.
        choosing: the kinds of shortcut that limits are chosen on.
        judged: the kinds that the limits are judged on.
        reachable: basis -> those of the judged kinds whose cue it can find at all.
        auc: the goal for the AUC by true masks and 64 images.
        limits: where the limits come from. It takes the kinds that they are chosen on.
        known_to: how far the measured true loss is from the true one at most, in 95 of 100 networks.
    """

    stem: str
    method: str
    choosing: tuple[str, ...]
    judged: tuple[str, ...]
    reachable: dict[str, tuple[str, ...]]
    auc: float
    limits: str
    known_to: float

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return all kinds."""
        return (*self.choosing, *self.judged)


TOYS = Page(
    stem="study",
    # Each half has obvious and hidden kinds.
    choosing=("texture", "watermark", "noise"),
    judged=("patch", "tint", "blur"),
    # The objects of a tint have it, too.
    reachable={MASKS: ("patch", "tint", "blur"), AUTOMATIC_MASKS: ("patch", "blur"), FRAME: ("patch", "blur")},
    auc=0.98,
    limits="Limits are chosen on some kinds, and judged on the others. The first are {}.",
    known_to=0.03,
    method="""\
# The study on toys: how often the verdict is correct

Made by `make study` (about three hours on 2 CPU cores; a stopped study continues): {networks} networks. Every network
is a row by each basis in [study.csv](study.csv).

The classes are stars, hearts and moons. They are small, turned by any angle and half transparent, on photographed
ground. A *cue* shows the class without the object. It is the texture of the ground, its noise, or its slight blur. Or
it is a coloured patch in a corner, a tint of the whole image, or a watermark. Noise and blur are hard to see. The
*correlation* is the probability that the cue is the cue of the object's class. Otherwise the cue is random. Each
network is the demo's pretrained VGG16 with a fresh head, fine-tuned for four epochs on 360 images of 64 px. Blocks 1 to
3 are frozen.

**The true loss** of a network is the accuracy that it loses if the cue points to another class. It is the accuracy on
720 validation images, which are biased like its training data, less that on 720 conflicting images. A loss of more than
15 percentage points counts as a shortcut. 720 images measure the loss to within about 3 points. So networks close to 15
points are neither clearly good nor clearly bad.

**The verdict** does not use these accuracies. The callback's own code evaluates 64 (or 16) of the validation images. It
does so by three bases: the masks that the toys were drawn with, automatic masks, and the frame. With automatic masks,
it chooses among twice as many images: it takes those with a good mask, if there are enough of them.
""",
)
PHOTOGRAPHS = Page(
    stem="photograph-study",
    choosing=("scenes", "watermark"),
    judged=("frame", "tint", NATURAL, CLEAN),
    reachable={
        MASKS: ("frame", "tint", NATURAL, CLEAN),
        AUTOMATIC_MASKS: ("frame", NATURAL, CLEAN),
        FRAME: ("frame", NATURAL, CLEAN),
    },
    auc=0.95,
    limits="The package's limits were set before this study. The results leave out two kinds that limits could have "
    "been chosen on: {}.",
    known_to=0.04,
    method="""\
# The study on photographs: how often the verdict is correct

Made by `make photograph-study PHOTOGRAPHS=folder` (about three hours on 2 CPU cores; a stopped study continues):
{networks} networks. Every network is a row by each basis in [photograph-study.csv](photograph-study.csv). It is the
same question as in [the study on toys](study.md), on real objects.

The photographs are 345 of `EliSchwartz/imagenet-sample-images`: birds, dogs, other mammals, reptiles and vehicles.
They are for measuring only. The saliency network parted objects from scenes, and its gates let 270 of them pass. Each
object was put on the scene of another photograph, at 96 px. A *cue* shows the class without the object:

- **scenes:** the scenes of one other group go with each class;
- **frame:** a coloured frame; **watermark:** a word along the lower edge; **tint:** a light tint of the whole image;
- **natural:** the photographs as they are. Composites on scenes of the own class agree with them, those on scenes of
  other classes contradict them;
- **random scenes:** no cue at all, so these networks are clean by construction.

The *correlation* is the probability that the cue is that of the object's class. Otherwise it is random. Each network
is the demo's pretrained VGG16 with a fresh head. Block 5 is fine-tuned for six epochs on 300 images. A half of the
photographs is for training. The probe set and the truth are of the other half.

**The true loss** is the accuracy on 1,000 composites that agree with the cue, less the accuracy on 1,000 that
contradict it. All are pasted alike. More than 15 percentage points are a shortcut. At an accuracy of 80 %, 1,000 images
each measure the loss to within 4 points. So networks between 11 and 19 points are neither clearly good nor clearly bad.

**The verdict** sees 64 (or 16) probe images, in which the cue is correlated as in training. There are three bases: the
masks that the objects were cut out by, automatic masks of the composites, and the frame. With automatic masks, it
chooses among twice as many images: it takes those with a good mask, if there are enough of them.
""",
)
CAPTION = """\
*(Left: the background gap of each network, which forecasts its true loss. On the diagonal, the forecast is exact.
Right: its lift at block4_conv3. Networks to the right of the vertical line lose more than 15 points.)*
"""
KINDNESS = """\
The swap test underestimates weak correlations, because its backgrounds come from the validation data. Let c be the
correlation, and K the number of classes. By chance, a share (1 - c) / K of the backgrounds of other classes has the cue
of the object's own class. The gap is then c / (c + (1 - c) / K) of the true loss: 3/4 of it at c = 0.5 and K = 3.
"""


def loss(row: Row) -> float:
    """Return the true loss: the accuracy that is lost if the cue points to another class."""
    return rounded(row["validation"] - row["conflicting"])


def error(row: Row) -> float:
    """Return the error of the forecast: how far the background gap is from the true loss."""
    return abs(float(row["background_gap"] - loss(row)))


def error_by_chance(row: Row) -> float:
    """Return the mean error that a forecast without bias has by the choice of its images alone.

    This is that of a normal distribution of which 95 % lie in the interval of the gap.
    """
    deviation = float(row["background_gap_high"] - row["background_gap_low"]) / (2 * 1.96)
    return deviation * math.sqrt(2 / math.pi)


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
    """Add the gap of the epoch before to each row, and if the callback would suspect a shortcut."""
    gaps = {key(row): row["background_gap"] for row in rows}
    for row in rows:
        row["gap_before"] = gaps.get(key({**row, "epoch": row["epoch"] - 1}), 0.0)
        of = row["basis"], row["in the test"]
        points = points_to_background(row["background_gap"], row["background_gap_low"], *of)
        row["suspected"] = points and confirms(row["gap_before"], 0.0, *of)


def key(row: Row) -> tuple[object, ...]:
    """Return the values that identify a row."""
    return tuple(row[name] for name in ("kind", "correlation", "seed", "images", "epoch", "basis"))


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

    grid = product([i / 100 for i in range(2, 31)], [i / 100 for i in range(-10, 11)], [i / 50 for i in range(11)])
    scores = {(gap, low, before): score(gap, low, before) for gap, low, before in grid if before <= gap}
    highest = max(scores.values())
    best = [each for each, value in scores.items() if value > highest - 1e-9]
    gaps, lows, befores = (sorted(set(side)) for side in zip(*best, strict=True))
    return gaps, lows, befores


def write_report(page: Page, out: Path, docs: Path) -> None:
    """Write the page of a study, its table of all networks, and its plot into ``docs``."""
    rows = read_rows(out)
    # With few automatic masks there may be no control, and with it no gap.
    known = [row for row in rows if "background_gap" in row]
    judge_all(known)
    write_rows(rows, docs / f"{page.stem}.csv")
    # Of the epoch before the last, only the gap is needed.
    final = [row for row in known if "validation" in row]
    n_unknown = sum("validation" in row for row in rows) - len(final)
    plot(page, of(final, MASKS, 64), docs / "pictures" / f"{page.stem}.png")
    sections = [
        page.method.format(networks=len({(row["kind"], row["correlation"], row["seed"]) for row in final})),
        limits(page, final),
        *(results(page, final, n_images) for n_images in PROBES),
        f"Without a control, since too few automatic masks passed the gates: {n_unknown} rows. They do not count.\n",
        f"![Background gap against true loss, and lift against true loss](pictures/{page.stem}.png)\n",
        CAPTION,
        clean(final),
        mistakes(final),
        by_kind(page, final),
        KINDNESS,
        by_turns(out),
        metrics_alone(page, of(final, MASKS, 64)),
    ]
    (docs / f"{page.stem}.md").write_text("\n".join(sections))
    print("\n".join(sections))


def read_rows(out: Path) -> list[Row]:
    """Read the rows of all evaluated networks.

    Raises:
        SystemExit: there are none.
    """
    rows = [_by_common_names(row) for basis in NAMES for row in read_saved(out, basis, SCALARS)]
    # Networks that were evaluated long ago have gaps that the last bit of a sum decides about.
    rows = [{name: rounded(v) if isinstance(v, float) else v for name, v in row.items()} for row in rows]
    if not rows:
        raise SystemExit(
            f"Expected evaluated networks in {str(out)!r}, but found none. Run the parts train and evaluate first."
        )
    return rows


def _by_common_names(row: Row) -> Row:
    """Return a row of the frame test with the names of the swap test, so that both are judged by the same code."""
    names = {"frame_gap": "background_gap", "frame_accuracy": "swap_accuracy"}
    names |= {"frame_control_accuracy": "swap_control_accuracy"}
    names |= {f"frame_gap_{end}": f"background_gap_{end}" for end in ("low", "high")}
    return {names.get(name, name): value for name, value in row.items()}


def write_rows(rows: list[Row], path: Path) -> None:
    """Write rows as CSV."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def of(rows: list[Row], basis: str, n_images: int | str, kinds: Sequence[str] | None = None) -> list[Row]:
    """Return the rows of one basis, one number of images and some kinds."""
    return [
        row
        for row in rows
        if row["basis"] == basis and row["images"] == n_images and (kinds is None or row["kind"] in kinds)
    ]


def format_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a table of Markdown."""
    lines = [" | ".join(head), "|".join(["---"] * len(head)), *(" | ".join(map(str, row)) for row in rows)]
    return "\n".join(f"|{line}|" if line.startswith("---") else f"| {line} |" for line in lines) + "\n"


def limits(page: Page, final: list[Row]) -> str:
    """Format the limits that judge most networks correctly, on the kinds for choosing."""
    rows = []
    for basis, n_images in product(NAMES, PROBES):
        best = best_thresholds(of(final, basis, n_images, page.choosing))
        used = BASES[basis].gap_of(FEW if n_images == FEW else MANY)
        rows.append(
            [NAMES[basis], n_images]
            + [
                f"{values[0]:.2f} to {values[-1]:.2f} ({own:.2f})"
                for values, own in zip(best, (used.size, used.sure, used.size), strict=True)
            ]
        )
    return (
        f"## Limits\n\n{page.limits.format(', '.join(page.choosing))} The limits that judge most of their networks "
        "correctly, with the limit of the package in brackets:\n\n"
        + format_table(["basis", "images", "gap", "its lower bound", "gap of the epoch before"], rows)
    )


def results(page: Page, final: list[Row], n_images: int | str) -> str:
    """Format the results on the judged kinds with one number of probe images."""
    rows = []
    for basis, name in NAMES.items():
        groups = {"all": page.judged}
        if page.reachable[basis] != page.judged:
            groups["those that it can find"] = page.reachable[basis]
        for group, kinds in groups.items():
            judged = of(final, basis, n_images, kinds)
            area = auc(judged, "background_gap")
            clear = [row for row in judged if abs(loss(row) - SHORTCUT_LOSS) > page.known_to]
            counts = [count(some, suspected, truth) for some in (judged, clear) for truth in (has_shortcut, has_none)]
            rows.append(
                [name, f"{group}: {', '.join(kinds)}", "-" if area is None else f"{area:.3f}"]
                + [f"{hits} of {among}" for hits, among in counts]
                + [f"{mean(map(each, judged)):.3f}" for each in (error, error_by_chance)]
            )
    head = ["basis", "kinds", "AUC of the gap", "caught", "false alarms", "caught, clearly", "false alarms, clearly"]
    head += ["mean error of the gap as a forecast", "that chance alone gives"]
    goals = f"AUC >= {page.auc}, caught >= 0.95, false alarms <= 0.05, error <= 0.04 by true masks"
    if n_images == FEW:
        goals = "AUC >= 0.95, false alarms <= 0.05 by true masks"
    title = f"{n_images} probe images"
    if n_images == ONE_EACH:
        title = (
            f"{MANY} probe images, one background each\n\nSo the callback asks by default, with {FEW} of the images "
            "watched. Each object is put on one background of each kind in place of three, and at the next epoch on "
            f"another one. These are about as many swaps as of {FEW} images on three backgrounds."
        )
    return (
        f"## {title}\n\nResults on the kinds that no limit was chosen on. A network that loses more "
        f"than 15 points is to be caught, all others are not to be accused. *Clearly* are networks further than "
        f"{100 * page.known_to:.0f} points from this line, as their loss is known to within that. The last "
        "column is the mean error of a forecast without bias, which follows from the widths of the intervals. Goals: "
        f"{goals}.\n\n" + format_table(head, rows)
    )


def clean(final: list[Row]) -> str:
    """Format how many of the networks that are clean by construction are accused."""
    rows = []
    for basis, n_images in product(NAMES, PROBES):
        own = [row for row in of(final, basis, n_images) if row["correlation"] == 0]
        largest = max((row["background_gap"] for row in own), default=math.nan)
        rows.append([NAMES[basis], n_images, f"{sum(map(suspected, own))} of {len(own)}", f"{largest:.2f}"])
    return "## Networks that are clean by construction\n\n" + format_table(
        ["basis", "images", "accused", "largest gap"], rows
    )


def by_kind(page: Page, final: list[Row]) -> str:
    """Format the gaps of each kind and correlation beside the true loss."""
    rows = []
    groups = {(row["kind"], row["correlation"]) for row in final}
    for kind, correlation in sorted(groups, key=lambda group: (page.kinds.index(group[0]), group[1])):
        own = {basis: [r for r in of(final, basis, 64, [kind]) if r["correlation"] == correlation] for basis in NAMES}
        rows.append(
            [kind, correlation, f"{mean(map(loss, own[MASKS])):.2f}"]
            + [f"{mean(row['background_gap'] for row in each):.2f}" for each in own.values()]
        )
    head = ["kind", "correlation", "mean true loss", *(f"mean gap by {name}" for name in NAMES.values())]
    return "## By kind and correlation, 64 images\n\n" + format_table(head, rows)


def order(row: Row) -> tuple[int, int, float]:
    """Return what sorts rows by basis, probe set and true loss."""
    return list(NAMES).index(row["basis"]), PROBES.index(row["images"]), loss(row)


def mistakes(final: list[Row]) -> str:
    """Format every network that a verdict judges wrongly, of all kinds."""
    rows = [
        [NAMES[row["basis"]], row["images"], row["kind"], row["correlation"], row["seed"]]
        + ["false alarm" if suspected(row) else "missed", f"{loss(row):.3f}"]
        + [f"{row['background_gap']:.3f}", f"{row['background_gap_low']:.3f}"]
        for row in sorted(final, key=order)
        if suspected(row) != has_shortcut(row)
    ]
    head = ["basis", "images", "kind", "correlation", "seed", "mistake", "true loss", "gap", "its lower bound"]
    return "## Every mistake\n\n" + format_table(head, rows)


def by_turns(out: Path) -> str:
    """Format how the verdict changes by asking by turns, by each basis whose answers were kept of every network."""
    n_networks = len(list(out.glob(f"*/{TRUTH}")))
    kept = [basis for basis in NAMES if len({key(row)[:3] for row in read_saved(out, basis, ANSWERS)}) == n_networks]
    judged = {basis: list(judge_networks(out, basis)) for basis in kept}
    rows = []
    for basis, n_images in product(kept, (MANY, FEW)):
        own = [each for each in judged[basis] if each.about["images"] == n_images]
        bad, good = ([each for each in own if has_shortcut(each.about) is truth] for truth in (True, False))
        row = [NAMES[basis], n_images]
        for way in (0, 1):
            row += [f"{sum(each.suspected[way] for each in group)} of {len(group)}" for group in (bad, good)]
        changed = mean(abs(each.gaps[0] - each.gaps[1]) for each in own)
        rows.append([*row, f"{changed:.3f}", f"{mean(each.share for each in own):.2f}"])
    if not rows:
        return ""
    head = ["basis", "images", "caught, all asked", "false alarms, all asked", "caught by turns"]
    head += ["false alarms by turns", "mean change of the gap", "share of the swaps asked by turns"]
    return (
        "## Asking by turns\n\nA network without a sign of a shortcut is asked on one background of each kind per "
        "object, and on the others at later epochs. If its gap is larger than 4 points, the next epoch asks all. A "
        "suspicion needs two epochs that ask all. By turns, the last but one epoch is asked in part, and the last one "
        "stands for two. All kinds:\n\n" + format_table(head, rows)
    )


def metrics_alone(page: Page, final: list[Row]) -> str:
    """Format how well each metric alone finds the shortcuts."""
    judged = [row for row in final if row["kind"] in page.judged]
    rows = []
    for metric in METRICS:
        both = (auc(some, metric) for some in (final, judged))
        rows.append([metric, *("-" if value is None else f"{value:.2f}" for value in both)])
    head = ["metric", "AUC on all kinds", "AUC on the judged kinds"]
    return "## Each metric alone, 64 images, true masks\n\n" + format_table(head, rows)


def plot(page: Page, final: list[Row], path: Path) -> None:
    """Plot the background gap, which is the forecast, and the lift against the true loss."""
    figure = Figure(figsize=(11.5, 5.4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot([-0.1, 1], [-0.1, 1], color="#a1a1aa", linewidth=1)
    right.axvline(SHORTCUT_LOSS, color="#a1a1aa", linewidth=1)
    for marker, kind in zip("osv^DP", page.kinds, strict=True):
        rows = [row for row in final if row["kind"] == kind]
        style = {"marker": marker, "label": kind, "alpha": 0.8}
        left.scatter([loss(r) for r in rows], [r["background_gap"] for r in rows], **style)
        right.scatter([loss(r) for r in rows], [r.get("lift/block4_conv3", math.nan) for r in rows], **style)
    left.set_xlabel("accuracy that is lost if the cue points to another class (true loss)")
    left.set_ylabel("background gap on 64 probe images (forecast)")
    left.legend(frameon=False)
    right.set_xlabel("accuracy that is lost if the cue points to another class (true loss)")
    right.set_ylabel("lift at block4_conv3 (maps alone)")
    right.set_ylim(bottom=0)
    canvas.print_figure(path)
