"""The page of the study on photographs, written from the evaluated networks: results by each basis, every mistake."""

from __future__ import annotations

from pathlib import Path

from study_report import (
    METRICS,
    Row,
    auc,
    best_thresholds,
    count,
    error,
    has_none,
    has_shortcut,
    judge_all,
    loss,
    mean,
    read_rows,
    suspected,
    write_rows,
)

from gradcam_callback.measures import AUTOMATIC_MASKS, FRAME, MASKS
from gradcam_callback.measures.basis import BASES

# Limits are chosen on the first kinds and judged on the others, among them all networks that are clean by construction.
CHOOSING, JUDGED = ("scenes", "watermark"), ("frame", "tint", "natural", "random scenes")
# Kinds whose cue lies beside the object, and in the frame of the image: what automatic masks, and the frame test, can
# find at all. The objects of a tint have it, too.
BESIDE = ("frame", "natural", "random scenes")
NAMES = {MASKS: "true masks", AUTOMATIC_MASKS: "automatic masks", FRAME: "the frame"}

METHOD = """\
# The study on photographs

Made by `make photograph-study PHOTOGRAPHS=folder`: {networks} networks. Every network is a row by each basis in
[photograph-study.csv](photograph-study.csv). It is the same question as in [the study on toys](study.md), on real
objects.

The photographs are 345 of `EliSchwartz/imagenet-sample-images`: birds, dogs, other mammals, reptiles and vehicles.
They are for measuring only. The saliency network parted objects from scenes, and its gates let 270 of them pass. Each
object was put on the scene of another photograph, at 96 px, with a cue:

- **scenes:** the scenes of one other group go with each class;
- **frame:** a coloured frame; **watermark:** a word along the lower edge; **tint:** a light tint of the whole image;
- **natural:** the photographs as they are; **random scenes:** no cue at all, so these networks are clean by
  construction.

The *correlation* is the probability that the cue is that of the object's class. Otherwise it is random. Each network
is the demo's pretrained VGG16 with a fresh head. Block 5 is fine-tuned for six epochs on 300 images. A half of the
photographs is for training. The probe set and the truth are of the other half.

**The true loss** is the accuracy on 200 composites that agree with the cue, less the accuracy on 200 that contradict
it. All are pasted alike. More than 15 points are a shortcut. **The verdict** sees 64 (or 16) probe images, in which
the cue is correlated as in training, by three bases: the masks that the objects were cut out by, automatic masks of
the composites, and the frame.
"""


def write_report(out: Path, docs: Path) -> None:
    """Write ``photograph-study.csv`` and ``photograph-study.md`` into ``docs``."""
    rows = [_by_common_names(row) for row in read_rows(out)]
    # With few automatic masks there may be no control, and with it no gap.
    rows = [row for row in rows if "background_gap" in row]
    judge_all(rows)
    write_rows(rows, docs / "photograph-study.csv")
    last = max(row["epoch"] for row in rows)
    final = [row for row in rows if row["epoch"] == last]
    networks = len({(row["kind"], row["correlation"], row["seed"]) for row in final})
    sections = [METHOD.format(networks=networks)]
    for n_images in (64, 16):
        sections += [f"## {n_images} probe images\n", *(table(final, basis, n_images) for basis in NAMES)]
    sections += [clean(final), by_kind(final), mistakes(final), metrics_alone(final)]
    (docs / "photograph-study.md").write_text("\n".join(sections))
    print("\n".join(sections))


def _by_common_names(row: Row) -> Row:
    """Return a row of the frame test with the names of the swap test, so that both are judged by the same code."""
    names = {"frame_gap": "background_gap", "frame_accuracy": "swap_accuracy"}
    names |= {"frame_control_accuracy": "swap_control_accuracy"}
    names |= {f"frame_gap_{end}": f"background_gap_{end}" for end in ("low", "high")}
    return {names.get(name, name): value for name, value in row.items()}


def of(rows: list[Row], basis: str, n_images: int, kinds: tuple[str, ...]) -> list[Row]:
    """Return the rows of one basis, one number of images and some kinds."""
    return [row for row in rows if row["basis"] == basis and row["images"] == n_images and row["kind"] in kinds]


def table(final: list[Row], basis: str, n_images: int) -> str:
    """Format the results by one basis on the judged kinds."""
    gaps, lows, before = best_thresholds(of(final, basis, n_images, CHOOSING))
    limits = BASES[basis].gap
    lines = [
        f"**By {NAMES[basis]}.** On {' and '.join(CHOOSING)}, most networks are judged correctly with a limit of "
        f"{gaps[0]:.2f} to {gaps[-1]:.2f} for the gap, of {lows[0]:.2f} to {lows[-1]:.2f} for its lower bound, and of "
        f"{before[0]:.2f} to {before[-1]:.2f} for the gap of the epoch before. The package uses {limits.size:.2f}, "
        f"{limits.sure:.2f} and {limits.before:.2f}. On the other kinds:\n",
        "| kinds | AUC of the gap | caught | false alarms | mean error as a forecast |",
        "|---|---|---|---|---|",
    ]
    for name, kinds in (("all others", JUDGED), ("cue beside the object", BESIDE)):
        judged = of(final, basis, n_images, kinds)
        area = auc(judged, "background_gap")
        caught, accused = count(judged, suspected, has_shortcut), count(judged, suspected, has_none)
        lines.append(
            f"| {name} | {'-' if area is None else f'{area:.3f}'} | {caught[0]} of {caught[1]} | {accused[0]} of "
            f"{accused[1]} | {mean(map(error, judged)):.3f} |"
        )
    return "\n".join(lines) + "\n"


def clean(final: list[Row]) -> str:
    """Format how many of the networks that are clean by construction are accused."""
    lines = ["## Clean by construction\n", "| basis | images | accused | largest gap |", "|---|---|---|---|"]
    for basis in NAMES:
        for n_images in (64, 16):
            rows = [row for row in final if row["basis"] == basis and row["images"] == n_images]
            rows = [row for row in rows if row["correlation"] == 0]
            accused = sum(map(suspected, rows))
            largest = max((row["background_gap"] for row in rows), default=0.0)
            lines.append(f"| {NAMES[basis]} | {n_images} | {accused} of {len(rows)} | {largest:.2f} |")
    return "\n".join(lines) + "\n"


def by_kind(final: list[Row]) -> str:
    """Format the gaps of each kind and correlation beside the true loss."""
    lines = [
        "## By kind and correlation, 64 images\n",
        "| kind | correlation | mean loss | " + " | ".join(f"gap by {name}" for name in NAMES.values()) + " |",
        "|---|---|---|" + "---|" * len(NAMES),
    ]
    groups = sorted({(row["kind"], row["correlation"]) for row in final})
    for kind, correlation in groups:
        own = [row for row in final if (row["kind"], row["correlation"], row["images"]) == (kind, correlation, 64)]
        lost = mean(loss(row) for row in own if row["basis"] == MASKS)
        gaps = (mean(row["background_gap"] for row in own if row["basis"] == basis) for basis in NAMES)
        lines.append(f"| {kind} | {correlation} | {lost:.2f} | " + " | ".join(f"{gap:.2f}" for gap in gaps) + " |")
    return "\n".join(lines) + "\n"


def mistakes(final: list[Row]) -> str:
    """Format every network that a verdict judges wrongly."""
    lines = [
        "## Every mistake\n",
        "| basis | images | kind | correlation | seed | mistake | true loss | gap | its lower bound |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(final, key=lambda row: (list(NAMES).index(row["basis"]), -row["images"], loss(row))):
        if suspected(row) != has_shortcut(row):
            name = "false alarm" if suspected(row) else "missed"
            lines.append(
                f"| {NAMES[row['basis']]} | {row['images']} | {row['kind']} | {row['correlation']} | {row['seed']} | "
                f"{name} | {loss(row):.2f} | {row['background_gap']:.2f} | {row['background_gap_low']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def metrics_alone(final: list[Row]) -> str:
    """Format how well each metric alone finds the shortcuts."""
    rows = [row for row in final if row["basis"] == MASKS and row["images"] == 64]
    lines = ["## Each metric alone, 64 images, true masks\n", "| metric | AUC on all kinds |", "|---|---|"]
    for metric in METRICS:
        value = auc(rows, metric) if any(metric in row for row in rows) else None
        if value is not None:
            lines.append(f"| {metric} | {value:.2f} |")
    return "\n".join(lines) + "\n"
