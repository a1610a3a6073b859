"""The images of the study have the cues that they should have, and its page counts correctly."""

from itertools import product
from pathlib import Path

import biased
import judging
import pytest
import saved
import study_report
import torch
import turns

from gradcam_callback import ProbeSet
from gradcam_callback.measures.basis import AUTOMATIC_MASKS, BASES, FRAME, MASKS
from gradcam_callback.saliency import Proposal


@pytest.mark.parametrize("kind", biased.KINDS)
def test_cues_follow_the_correlation_and_leave_the_objects_unchanged(kind):
    never, always = (biased.make(kind, 40, correlation, seed=1) for correlation in (0.0, 1.0))
    conflicting = biased.make(kind, 40, 1.0, seed=1, conflicting=True)
    assert torch.equal(always.cues, always.labels)
    assert not (conflicting.cues == conflicting.labels).any()
    assert 0.1 < (never.cues == never.labels).double().mean() < 0.6, "a third by chance"
    assert torch.equal(never.masks, always.masks), "the same objects"
    same = never.cues == always.cues
    assert same.any() and torch.equal(never.images[same], always.images[same])
    changed = (never.images != always.images).any(dim=1)[~same]
    assert changed.flatten(1).any(dim=1).double().mean() > 0.9, "cues differ from each other"


ABOUT = ("kind", "correlation", "seed", "epoch", "images", "basis")


def save_network(folder, part, rows):
    """Save rows as those of a network of a study, by their bases."""
    folder.mkdir(parents=True)
    last = max(rows, key=lambda row: row["epoch"])
    truth = ("kind", "correlation", "seed", "epoch", "validation", "conflicting")
    saved.save(folder / saved.TRUTH, {name: last[name] for name in truth})
    for basis in {row["basis"] for row in rows}:
        own = [
            {name: row[name] for name in ABOUT} | {part: {n: v for n, v in row.items() if n not in (*ABOUT, *truth)}}
            for row in rows
            if row["basis"] == basis
        ]
        saved.save(folder / saved.file_of(basis), own)


def test_each_basis_has_its_masks_and_doubtful_automatic_ones_give_way(monkeypatch):
    data = biased.make("texture", 12, 1.0, seed=1)

    class Doubts:
        """A network that is sure of every other photograph it sees."""

        seen = 0

        def propose(self, photograph):
            Doubts.seen += 1
            mask = torch.zeros(64, 64, dtype=torch.bool)
            mask[20:40, 20:40] = True
            return Proposal(mask, "not sure" if Doubts.seen % 2 else None)

    monkeypatch.setattr("gradcam_callback.probes.automatic.SaliencyNetwork", Doubts)
    drawn, automatic, frame = (judging.probe_set(data, basis, 6) for basis in (MASKS, AUTOMATIC_MASKS, FRAME))
    assert torch.equal(drawn.masks, data.masks[:6]) and torch.equal(frame.images, data.images[:6])
    assert frame.masks is None
    assert len(automatic) == 6 and automatic.has_mask.sum() > 3 and automatic.replaced
    assert Doubts.seen == 6 + len(automatic.replaced)
    judging.probe_set(data, AUTOMATIC_MASKS, 6)
    assert Doubts.seen == 6 + len(automatic.replaced), "each image is masked once"


def test_what_has_been_measured_of_a_network_is_not_measured_again(tmp_path, monkeypatch):
    made = []

    class Networks:
        """Always answers the first class."""

        def load(self, path): ...
        def forget(self): ...
        def accuracy(self, images, labels):
            return 0.5

        def predict(self, images, _=None):
            return torch.eye(3)[torch.zeros(len(images), dtype=torch.long)]

    def images(run, count):
        made.append(count)
        return biased.make(run.kind, 6, run.correlation, run.seed)

    run = judging.Run("texture", 1.0, 1)
    study = judging.Study(
        [run], 4, None, images, lambda run: {"validation": images(run, 0), "conflicting": images(run, 0)}
    )
    monkeypatch.setattr(judging, "maps_alone", lambda *_: {})
    monkeypatch.setattr(judging, "probe_set", lambda data, *_: ProbeSet(data.images, data.labels, data.masks))
    (tmp_path / run.name).mkdir()
    (tmp_path / run.name / "4.pt").touch()
    files = {saved.TRUTH, *map(saved.file_of, (MASKS, AUTOMATIC_MASKS, FRAME))}
    study.make(Networks(), tmp_path, "evaluate")
    assert {path.name for path in (tmp_path / run.name).glob("*.json")} == files
    assert made == [0, 0, 128], "the probe images are made once for all bases"
    (tmp_path / run.name / saved.TRUTH).unlink()
    study.make(Networks(), tmp_path, "evaluate")
    assert made == [0, 0, 128, 0, 0]


def row(kind, gap, lost, suspected=None, epoch=4, seed=1):
    metrics = dict.fromkeys(study_report.METRICS, 0.0)
    return {
        **metrics, "kind": kind, "correlation": 1.0, "seed": seed, "epoch": epoch, "images": 64, "basis": MASKS,
        "in the test": 64, "validation": 1.0, "conflicting": 1.0 - lost, "background_gap": gap,
        "background_gap_low": gap - 0.04, "background_gap_high": gap + 0.04, "swap_accuracy": 1.0 - gap,
        "suspected": suspected,
    }  # fmt: skip


def test_counts_and_thresholds_are_those_counted_by_hand():
    rows = [row("patch", 0.4, 0.5, True), row("patch", 0.1, 0.2, False), row("tint", 0.05, 0.0, False)]
    assert study_report.auc(rows, "background_gap") == 1.0
    assert study_report.auc(rows[:2], "background_gap") is None, "all of one truth"
    undefined = {name: value for name, value in rows[0].items() if name != "background_gap"}
    assert study_report.auc([undefined, *rows], "background_gap") == 1.0, "a row without the metric is left out"
    for entry in rows:
        entry["gap_before"] = 0.3
    gaps, lows, _ = study_report.best_thresholds(rows)
    # The smallest gap is told from the next by its size, or by its lower bound of 0.01.
    assert gaps[0] < 0.05 <= gaps[-1] < 0.1 and lows[0] < 0 and 0.01 <= lows[-1] <= 0.06
    rows[0]["gap_before"] = 0.08
    _, _, before = study_report.best_thresholds(rows)
    assert before[-1] < 0.08
    assert study_report.count(rows, study_report.suspected, study_report.has_shortcut) == (1, 2)
    assert study_report.count(rows, study_report.suspected, study_report.has_none) == (0, 1)
    assert [round(study_report.error(entry), 6) for entry in rows] == [0.1, 0.1, 0.05]


def test_the_error_by_chance_is_that_of_draws():
    drawn = 0.04 / 1.96 * torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    expected = float(drawn.abs().mean())
    assert study_report.error_by_chance(row("patch", 0.3, 0.3)) == pytest.approx(expected, rel=0.02)


def test_the_page_judges_as_the_callback_does():
    gaps = [0.3, 0.3, 0.0, 0.2, 0.09, 0.07, 0.3, 0.3]
    lows = [0.1, 0.1, 0.0, 0.1, 0.1, 0.1, -0.1, 0.1]
    rows = [row("patch", gap, 0.5, epoch=epoch) | {"background_gap_low": low} for epoch, (gap, low) in
            enumerate(zip(gaps, lows, strict=True))]  # fmt: skip
    study_report.judge_all(rows)
    assert [entry["suspected"] for entry in rows] == [False, True, False, False, True, False, False, True]


def test_the_last_bit_of_a_saved_gap_or_loss_does_not_decide(tmp_path):
    """Both gaps are three of 16 images, and the network loses 15 points, which is no shortcut yet."""
    gap = 0.1875 + 2**-54
    rows = [{**row("patch", gap, 0.15, epoch=epoch), "images": 16, "in the test": 16} for epoch in (3, 4)]
    assert gap > 0.1875 and 1.0 - rows[0]["conflicting"] > 0.15
    save_network(tmp_path / "patch-1", saved.SCALARS, rows)
    read = study_report.read_rows(tmp_path)
    study_report.judge_all(read)
    assert not any(map(study_report.suspected, read))
    assert not study_report.has_shortcut(rows[0]) and study_report.has_shortcut(row("patch", 0.0, 0.151))


@pytest.mark.parametrize("page", [study_report.TOYS, study_report.PHOTOGRAPHS])
def test_the_page_is_written_from_the_evaluated_networks(page, tmp_path, capsys):
    rows = [
        row(kind, gap, gap, epoch=epoch, seed=seed)
        for kind in page.kinds
        for seed, gap in enumerate((0.5, 0.0))
        for epoch in (3, 4)
    ]
    rows += [{**entry, "images": 16} for entry in rows]
    rows += [{**entry, "basis": AUTOMATIC_MASKS} for entry in rows]
    frame = [{**entry, "basis": FRAME} for entry in rows if entry["basis"] == MASKS]
    for entry in frame:
        # The frame test has names of its own, and misses everything here.
        del entry["background_gap"], entry["background_gap_low"]
    frame = [{**entry, "frame_gap": 0.01, "frame_gap_low": -0.02} for entry in frame]
    unknown = [{name: value for name, value in rows[-1].items() if name != "background_gap"}]
    everything = [*rows, *frame, *unknown]
    for kind, seed in product(page.kinds, (0, 1)):
        own = [entry for entry in everything if (entry["kind"], entry["seed"]) == (kind, seed)]
        save_network(tmp_path / "out" / f"{kind}-{seed}", saved.SCALARS, own)
    (tmp_path / "docs" / "pictures").mkdir(parents=True)
    study_report.write_report(page, tmp_path / "out", tmp_path / "docs")
    text = (tmp_path / "docs" / f"{page.stem}.md").read_text()
    n = len(page.judged)
    kinds = ", ".join(page.judged)
    # The network with the cue loses 50 points, the other one none: both lie clearly off the line.
    assert f"| true masks | all: {kinds} | 1.000 | {n} of {n} | 0 of {n} | {n} of {n} | 0 of {n} | 0.000 |" in text
    assert f"| the frame | all: {kinds} | 0.500 | 0 of {n} | 0 of {n} | 0 of {n} | 0 of {n} | 0.250 |" in text
    many, few = BASES[MASKS].gap_of(64), BASES[MASKS].gap_of(16)
    # Of each basis, two rows of 64 images and one of 16, with the gap and the one before.
    assert text.count(f"({many.size:.2f})") == 3 * 2 * 2 and text.count(f"({few.size:.2f})") == 3 * 2
    missed = [line for line in text.splitlines() if "| missed |" in line]
    assert len(missed) == 2 * len(page.kinds) and all(line.startswith("| the frame") for line in missed)
    assert "gates: 1 rows" in text
    assert "Asking by turns" not in text, "the single answers were not kept"
    table = (tmp_path / "docs" / f"{page.stem}.csv").read_text().splitlines()
    assert len(table) == 1 + len(rows) + len(frame) + len(unknown)
    assert (tmp_path / "docs" / "pictures" / f"{page.stem}.png").stat().st_size > 1000


def test_networks_close_to_the_line_are_not_clearly_good_or_bad():
    # The loss is known to within 3 points: of four networks, the first and the last are clear.
    losses, accused = (0.10, 0.13, 0.17, 0.5), (False, True, False, True)
    rows = [row("patch", 0.1, lost, hit, seed=i) for i, (lost, hit) in enumerate(zip(losses, accused, strict=True))]
    text = study_report.results(study_report.TOYS, rows, 64)
    assert "| 1 of 2 | 1 of 2 | 1 of 1 | 0 of 1 |" in text and "further than 3 points" in text


def test_networks_are_judged_with_all_answers_and_by_turns(tmp_path):
    # Twelve objects of two classes on three backgrounds of each kind. The first background of another class is right.
    labels = [i % 2 for i in range(12)]
    objects = [i for i in range(12) for _ in range(3)]
    same = [(i + 2 * (n % 3 + 1)) % 12 for n, i in enumerate(objects)]
    other = [(i + 2 * (n % 3) + 1) % 12 for n, i in enumerate(objects)]
    about = {"kind": "patch", "correlation": 1.0, "seed": 1, "images": 12, "basis": MASKS}
    about |= {"validation": 1.0, "conflicting": 0.5, "labels": labels, "correct": [1] * 12}

    def answers(epoch, right):
        swaps = {"same_class": [objects, same, [1] * 36], "other_class": [objects, other, right * 12]}
        return {**about, "epoch": epoch, **swaps}

    # At epoch 3 only the first turn, which was asked long ago, knows of the shortcut; or only the second does.
    for seed, before in enumerate(([1, 0, 1], [0, 1, 1])):
        found = [{**answers(epoch, right), "seed": seed} for epoch, right in ((4, [0, 0, 1]), (3, before))]
        save_network(tmp_path / str(seed), saved.ANSWERS, found)
    seen, unseen = turns.judge_networks(tmp_path, MASKS)
    assert seen.suspected == (True, True) and seen.share == 1 and seen.gaps == pytest.approx((2 / 3, 2 / 3))
    assert unseen.suspected == (True, False) and unseen.share == pytest.approx(1 / 3)
    assert unseen.gaps == pytest.approx((2 / 3, 0)), "the third background is asked, and is right"
    text = study_report.by_turns(tmp_path)
    assert "| true masks | 12 |" not in text, "other numbers of images than those of the studies"


def test_a_page_without_evaluated_networks_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="Run the parts train and evaluate first"):
        study_report.write_report(study_report.TOYS, tmp_path, tmp_path)


@pytest.mark.parametrize("page", [study_report.TOYS, study_report.PHOTOGRAPHS], ids=lambda page: page.stem)
def test_a_written_page_has_the_words_of_the_report(page):
    docs = Path(__file__).parent.parent / "docs"
    text, table = ((docs / f"{page.stem}.{kind}").read_text() for kind in ("md", "csv"))
    networks = len({tuple(line.split(",")[:3]) for line in table.splitlines()[1:]})
    limits = page.limits.format(", ".join(page.choosing))
    for words in (page.method.format(networks=networks), limits, study_report.CAPTION, study_report.KINDNESS):
        assert words in text
