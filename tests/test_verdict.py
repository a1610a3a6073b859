"""The verdict states the evidence and its uncertainty, and no more."""

import math
from dataclasses import replace

import pytest
import torch

from gradcam_callback.measures import (
    Focus,
    Swaps,
    SwapTest,
    confirms,
    drop_points_to_background,
    has_sign,
    judge,
    judge_without_swap,
    metrics,
    points_to_background,
    swap_test,
)
from gradcam_callback.measures.basis import AUTOMATIC_MASKS, BASES, BOXES, FRAME, MASKS
from gradcam_callback.measures.reading import LARGE_COST, TOO_WIDE
from gradcam_callback.measures.swaps import ClassGap
from gradcam_callback.measures.verdict import ABOVE_GUESSING

GAP, DROP = BASES[MASKS].gap, BASES[MASKS].drop
FOCUS = Focus("block5_conv3", mass=0.12, area=0.10)


def found(before, control, after, low=None, classes=4, n=64, n_controlled=64):
    """Make a swap test whose lower bound lies a tenth below its gap, or below its drop without a control."""
    gap, drop = None if control is None else control - after, before - after
    size = drop if gap is None else gap
    interval = (size - 0.1 if low is None else low, size + 0.1)
    return SwapTest(
        before,
        after,
        control,
        gap,
        None if control is None else before - control,
        drop,
        swap_interval=(after - 0.1, after + 0.1),
        gap_interval=None if gap is None else interval,
        drop_interval=interval if gap is None else (drop - 0.1, drop + 0.1),
        n=n,
        n_controlled=0 if control is None else n_controlled,
        classes=classes,
        tested=frozenset(range(classes)),
        n_without_same=n if control is None else n - n_controlled,
    )


SHORTCUT = found(1.0, 0.97, 0.22)


def test_verdict_puts_the_evidence_in_words():
    verdict = judge(SHORTCUT, [FOCUS], confirmed=True)
    assert verdict.suspected and verdict.basis == "masks"
    assert (verdict.probe_accuracy, verdict.control_accuracy, verdict.swap_accuracy) == (1.0, 0.97, 0.22)
    assert verdict.background_gap == pytest.approx(0.75) and verdict.gap_interval == SHORTCUT.gap_interval
    assert verdict.lift == FOCUS.lift
    assert verdict.headline == (
        "SHORTCUT SUSPECTED: right in 100 % as they are, 97 % on other backgrounds of their class, 22 % on backgrounds "
        "of other classes."
    )
    assert verdict.evidence == (
        "At block5_conv3, 12 % of the focus lies on the object, which fills 10 %: a lift of 1.20. The choice of the "
        "background decides 75 points (95 % interval 65 to 85), measured on 64 images. The epoch before points the "
        "same way: a shortcut is suspected. Look at the counterfactuals, then train with images of each class on other "
        "backgrounds."
    )
    assert verdict.text == f"{verdict.headline}\n\n{verdict.evidence}"


@pytest.mark.parametrize(
    ("swap", "confirmed", "conclusion"),
    [
        (SHORTCUT, True, "SHORTCUT SUSPECTED"),
        (SHORTCUT, False, "POSSIBLE SHORTCUT, said by a single epoch so far"),
        (found(1.0, 0.98, 0.70, low=-0.02), True, "UNCLEAR, so few images may also say so by chance"),
        (found(0.98, 0.97, 0.97, low=-0.02), True, "NO SIGN OF A SHORTCUT"),
        # A network that is confused by any pasting, and still knows more than guessing.
        (found(0.98, 0.60, 0.58, low=-0.1), True, "NO SIGN OF A SHORTCUT"),
        (found(0.98, 0.30, 0.28, low=-0.1), True, "UNCLEAR, since cutting and pasting alone confuses the network"),
        # It is little more than guessing, also without the few points that pasting costs.
        (found(0.41, 0.39, 0.38, low=-0.1), True, "TOO EARLY, the network hardly knows the classes yet"),
        (found(0.98, 0.0, 0.0, low=-0.1), True, "UNCLEAR, since cutting and pasting alone confuses the network"),
        # Guessing among four classes is right in 25 %. Up to 15 points above it there is too little to lose.
        (found(0.30, 0.28, 0.28, low=-0.1), True, "TOO EARLY, the network hardly knows the classes yet"),
        (found(0.39, 0.39, 0.38, low=-0.1), True, "TOO EARLY, the network hardly knows the classes yet"),
        (found(0.25 + ABOVE_GUESSING, 0.40, 0.40, low=-0.1), True, "NO SIGN OF A SHORTCUT"),
        # Without a control the line is stricter.
        (found(1.0, None, 0.22), True, "SHORTCUT SUSPECTED"),
        (found(1.0, None, 0.85), True, "NO SIGN OF A SHORTCUT"),
        (found(1.0, None, 0.75), True, "UNCLEAR, so few images cannot exclude a shortcut"),
        (found(1.0, None, 0.60, low=0.0), True, "UNCLEAR, so few images may also say so by chance"),
    ],
)
def test_the_headline_opens_with_the_conclusion(swap, confirmed, conclusion):
    verdict = judge(swap, [FOCUS], confirmed)
    assert verdict.headline.split(": ")[0] == conclusion
    assert verdict.suspected == (conclusion == "SHORTCUT SUSPECTED") == ("a shortcut is suspected" in verdict.evidence)


@pytest.mark.parametrize(
    ("basis", "advice"),
    [
        (MASKS, "More images decide it: about {} of each class with a mask."),
        (BOXES, "More images decide it: about {} of each class with a mask."),
        (
            AUTOMATIC_MASKS,
            'More images decide it: probe=ProbeSet.from_dataset(val_dataset, per_class={}, masks="auto").watch(16).',
        ),
        (FRAME, "More images decide it: probe=ProbeSet.from_dataset(val_dataset, per_class={}).watch(16)."),
    ],
)
@pytest.mark.parametrize(("n", "per_class"), [(16, 16), (30, 16), (64, 32)])
def test_where_chance_cannot_be_excluded_more_images_are_asked_for(basis, advice, n, per_class):
    unclear = found(1.0, 0.98, 0.70, low=-0.02, n=n, n_controlled=n - 1)
    assert judge(unclear, [], True, basis).evidence.count(advice.format(per_class)) == 1
    without_control = found(1.0, None, 0.60, low=0.0, n=n)
    assert judge(without_control, [], True, basis).evidence.count(advice.format(per_class)) == 1
    for decided in (SHORTCUT, found(0.98, 0.97, 0.97, low=-0.02), found(0.98, 0.30, 0.28, low=-0.1)):
        assert "More images decide it" not in judge(decided, [], True, basis).evidence


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("n_classes", [4, 7, 100])
def test_images_are_asked_for_once_and_the_data_may_have_no_more(basis, n_classes):
    advice = judge(found(1.0, None, 0.60, low=0.0, n=3), [], True, basis, n_classes=n_classes).advice
    assert "per_class=16" in advice and "If the validation data have fewer, validate on more." in advice
    assert BASES[basis].two_images not in advice and advice.count("ProbeSet.from_dataset") == 1


def test_if_the_network_hardly_knows_the_classes_something_can_be_done():
    early = judge(found(0.30, 0.28, 0.28, low=-0.1), [], True)
    assert early.advice == (
        "Train longer. If your validation accuracy is good already, check the labels and the transform of the probe "
        "images."
    )
    assert "Train longer" not in judge(found(0.98, 0.97, 0.97, low=-0.02), [], True).evidence


def test_a_verdict_on_a_part_of_the_images_acquits_nobody():
    swap = found(0.98, 0.97, 0.97)
    part = judge(replace(swap, n=16), [FOCUS], True, n_all=64)
    assert part.headline.split(": ")[0] == "NO SIGN OF A SHORTCUT in 16 of 64 images" and not part.acquits
    assert part.evidence.endswith("The last validation asks all 64 images, and so does trainer.validate.")
    assert judge(replace(swap, n=64), [FOCUS], True, n_all=64).acquits


@pytest.mark.parametrize("basis", BASES)
def test_a_verdict_on_a_part_of_the_backgrounds_says_when_all_are_asked(basis):
    swap = replace(found(0.98, 0.97, 0.97, n=16, n_controlled=16), gap_interval=(-0.3, TOO_WIDE + 0.01))
    part, whole = (judge(swap, [], True, basis, n_all=16, in_part=in_part) for in_part in (True, False))
    assert part.headline.startswith(BASES[basis].no_sign_yet)
    assert "The last validation asks everything, and so does trainer.validate." in part.advice
    assert whole.headline.startswith("UNCLEAR") and "asks everything" not in whole.evidence


@pytest.mark.parametrize("basis", BASES)
def test_a_verdict_that_finds_nothing_names_the_cues_that_it_cannot_find(basis):
    """A network that needs a logo on the objects has no gap, whatever the masks are."""
    unseen, clean = BASES[basis].unseen, found(0.98, 0.97, 0.97)
    for nothing_found in (judge(clean, [], True, basis), judge(clean, [], True, basis, n_classes=6)):
        assert nothing_found.advice.count(unseen) == 1 and nothing_found.advice.endswith(BASES[basis].caution or unseen)
    for other in (judge(SHORTCUT, [], True, basis), judge(replace(clean, n=16), [], True, basis, n_all=64)):
        assert unseen not in other.evidence
    assert ("in the centre" in unseen) == (basis == FRAME) and ("on the objects" in unseen) == (basis != FRAME)
    assert ("their masks include" in unseen) == (basis == AUTOMATIC_MASKS), "a logo that stands out, for instance"


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("swap", [found(0.98, 0.97, 0.97), found(1.0, None, 0.9)])
def test_images_that_cannot_exclude_a_large_fall_acquit_nobody(swap, basis):
    def widened(high):
        interval = (-0.5, high)
        return replace(swap, **{"drop_interval" if swap.gap is None else "gap_interval": interval})

    verdict = judge(widened(TOO_WIDE), [], True, basis)
    assert verdict.headline.startswith("UNCLEAR, so few images cannot exclude a shortcut: ") and not verdict.acquits
    assert "More images decide it" in verdict.evidence
    part = judge(widened(TOO_WIDE), [], True, basis, in_part=True)
    assert part.headline.startswith(f"{BASES[basis].no_sign_yet}: ") and not part.acquits
    assert "More images decide it" not in part.evidence
    limit = DROP.size if swap.gap is None else TOO_WIDE
    assert judge(widened(limit), [], True, basis).headline == verdict.headline
    narrow = judge(widened(limit - 0.01), [], True, basis)
    assert narrow.headline.startswith(f"{BASES[basis].no_sign}: ") and narrow.acquits == (basis == MASKS)


@pytest.mark.parametrize(("n", "can_acquit"), [(4, False), (6, False), (7, False), (8, True)])
def test_seven_images_or_fewer_acquit_nobody_whatever_they_answer(n, can_acquit):
    """A mistake in the control makes the gap fall below 0, and with it the end of its interval."""
    images, right = torch.arange(n).repeat_interleave(3), torch.ones(n, dtype=torch.bool)
    swaps, on_other = Swaps(images, (images + torch.tensor([1, 2, 3]).repeat(n)) % n), right.repeat(3)
    for n_wrong in (0, 1, 2):
        swap = swap_test(right, torch.arange(n) % 2, swaps, on_other, swaps, torch.arange(3 * n) >= n_wrong)
        assert judge(swap, [], True).acquits == can_acquit


@pytest.mark.parametrize(
    ("guessing", "accuracy", "knows"),
    [
        (0.79, 0.88, False),
        (0.79, 0.9, True),
        (0.94, 0.96, False),
        (0.94, 0.98, True),
        (0.3, 0.44, False),
        (0.3, 0.46, True),
    ],
)
def test_what_is_right_by_chance_is_no_knowledge(guessing, accuracy, knows):
    verdict = judge(found(accuracy, accuracy, accuracy), [], True, guessing=guessing)
    assert verdict.acquits == knows and verdict.headline.startswith("NO SIGN" if knows else "TOO EARLY")


def test_one_class_of_many_that_falls_is_named_and_not_acquitted():
    """One of sixteen classes needs its own background. This moves the gap by six points only."""
    n = 64
    labels, images = torch.arange(n) % 16, torch.arange(n)
    same, other = Swaps(images, (images + 16) % n), Swaps(images, (images + 1) % n)
    right = torch.ones(n, dtype=torch.bool)
    result = swap_test(right, labels, other, labels != 3, same, right)
    worst = result.worst_class
    assert (worst.label, worst.control_accuracy, worst.swap_accuracy, worst.gap) == (3, 1.0, 0.0, 1.0)
    names = ["fox", "owl", "elk", "wolf", *"abcdefghijkl"]
    verdict = judge(result, [FOCUS], True, name_class=names.__getitem__)
    assert verdict.headline.startswith("UNCLEAR, one class falls more than the others: ")
    assert not verdict.acquits and not verdict.suspected
    assert "The class 'wolf' falls most: right in 100 % on other backgrounds of their class, 0 % on" in verdict.evidence
    assert "give more images of it" in verdict.evidence
    # Three of its four objects may fall by chance, and so may all objects a little.
    by_chance = swap_test(right, labels, other, (labels != 3) | (images == 3), same, right)
    assert judge(by_chance, [], True).acquits
    # If the other classes fall, too, no class is named.
    assert "falls most" not in judge(swap_test(right, labels, other, ~right, same, right), [], True).evidence


def test_of_many_classes_one_with_few_objects_falls_by_chance_and_is_not_named():
    """A class of two objects that are right on their own class's background and wrong on the other has no certain fall.

    Of 32 such classes, one nearly always looks so if a quarter of all answers is wrong.
    """
    generator, images, labels = torch.Generator().manual_seed(0), torch.arange(64), torch.arange(64) // 2
    same, other, n_alike, n_named = Swaps(images, images ^ 1), Swaps(images, (images + 2) % 64), 0, 0
    for _ in range(20):
        on_same, on_other = torch.rand(2, 64, generator=generator) < 0.75
        found = swap_test(torch.ones(64), labels, other, on_other, same, on_same)
        n_alike += bool((on_same & ~on_other).view(32, 2).all(dim=1).any())
        n_named += "falls most" in judge(found, [], True).evidence
    assert n_alike >= 10 and n_named <= 1


def test_a_class_that_certainly_falls_is_named_though_a_smaller_one_falls_further_by_chance():
    labels = torch.tensor([0] * 20 + [1] * 2 + [2] * 40)
    images, right = torch.arange(62), torch.ones(62, dtype=torch.bool)
    same = Swaps(images, torch.cat([torch.arange(20).roll(1), torch.tensor([21, 20]), torch.arange(22, 62).roll(1)]))
    # The two objects of the second class share one background, which tells nothing of others.
    other = Swaps(images, torch.cat([torch.arange(22, 42), torch.tensor([22, 22]), torch.arange(20).repeat(2)]))
    wrong = (images < 14) | (labels == 1)
    worst = swap_test(right, labels, other, ~wrong, same, right).worst_class
    assert worst.label == 0 and worst.gap == pytest.approx(0.7)
    assert swap_test(right, labels, other, labels != 1, same, right).worst_class is None


def test_the_class_of_a_suspicion_is_named_if_the_others_fall_less():
    n = 40
    labels, images = torch.arange(n) % 4, torch.arange(n)
    same, other = Swaps(images, (images + 4) % n), Swaps(images, (images + 1) % n)
    right = torch.ones(n, dtype=torch.bool)
    verdict = judge(swap_test(right, labels, other, labels != 2, same, right), [], True)
    assert verdict.suspected and "The class '2' falls most: right in 100 %" in verdict.evidence


@pytest.mark.parametrize(("gap", "is_named"), [(1 / 3, False), (round(1 / 3, 9), False), (0.33, True)])
def test_a_class_that_falls_by_one_and_a_half_times_the_gap_falls_no_more_than_that(gap, is_named):
    swap = replace(found(1.0, 1.0, 0.6), gap=gap, worst_class=ClassGap(2, 1.0, 0.5))
    assert ("The class '2' falls most" in judge(swap, [], True).evidence) == is_named


def test_an_accuracy_at_the_limit_knows_the_classes_whatever_the_last_bits_say():
    """29 of 60 images are 15 points more than one third. As floats, the two differ."""
    right, swaps = torch.arange(60) >= 31, Swaps(torch.arange(60), torch.arange(60).roll(1))
    swap = swap_test(right, torch.arange(60) % 3, swaps, right, swaps, right)
    for limit in (1 / 3, 1 / 3 + 1e-16, 1 / 3 - 1e-16):
        assert not judge(swap, [], True, guessing=limit).headline.startswith("TOO EARLY")
    assert judge(swap, [], True, guessing=1 / 3 + 1e-6).headline.startswith("TOO EARLY")


def test_images_that_contradict_a_shortcut_are_not_called_too_early():
    contrary = found(0.33, 0.36, 0.64, low=-0.4)
    verdict = judge(contrary, [], True)
    assert verdict.headline.split(": ")[0] == "UNCLEAR, the network is right more often on backgrounds of other classes"
    assert "contradict a shortcut" in verdict.evidence and not verdict.acquits and not verdict.suspected
    by_chance = replace(contrary, gap_interval=(-0.6, 0.0))
    too_small = replace(contrary, gap=-GAP.size, gap_interval=(-0.2, -0.01))
    for swap in (by_chance, too_small, replace(too_small, gap=-0.02)):
        verdict = judge(swap, [], True)
        assert verdict.headline.startswith("TOO EARLY") and "contradict a shortcut" not in verdict.evidence


@pytest.mark.parametrize(
    "swap", [replace(found(1.0, 0.98, 0.9, low=-0.1), gap=GAP.size), found(1.0, None, 0.81, low=0.0)]
)
def test_a_fall_that_is_no_larger_than_the_limit_is_not_called_unclear(swap):
    swap = replace(swap, drop=DROP.size)
    verdict = judge(swap, [], True)
    assert verdict.headline.startswith("NO SIGN OF A SHORTCUT: ") and "More images decide it" not in verdict.evidence


@pytest.mark.parametrize(
    ("gap", "words"), [(0.0, "0 points"), (0.01, "1 point"), (-0.01, "-1 point"), (0.02, "2 points")]
)
def test_one_point_is_one(gap, words):
    swap = replace(found(1.0, 0.98, 0.9, low=-0.1), gap=gap)
    assert f"The choice of the background decides {words} (95 % interval" in judge(swap, [], True).evidence


@pytest.mark.parametrize(("low", "words"), [(0.004, "0.4"), (0.0001, "0.1"), (0.0, "0"), (-0.004, "0"), (0.006, "1")])
def test_a_bound_above_0_does_not_look_like_0(low, words):
    swap = replace(SHORTCUT, gap_interval=(low, 0.34))
    assert f"(95 % interval {words} to 34)" in judge(swap, [], True).evidence


@pytest.mark.parametrize("n_all", [64, None])
def test_what_to_do_fits_the_conclusion(n_all):
    train, ask = "then train with images of each class on other backgrounds", "The last validation asks all"
    clean = judge(found(0.98, 0.97, 0.97), [], True, n_all=n_all).evidence
    assert train not in clean and ask not in clean
    single = judge(SHORTCUT, [], False, n_all=n_all).evidence
    assert train not in single and ask not in single
    accused = judge(replace(SHORTCUT, n=16, n_controlled=16), [], True, n_all=n_all).evidence
    assert train in accused and ask not in accused
    thirds = found(1.0, 0.98, 0.70, low=-0.02, classes=3)
    assert "about 43 of each class" in judge(thirds, [], True).evidence, "128 of three classes, rounded up"
    at_the_limit = replace(SHORTCUT, pasting_cost=LARGE_COST)
    assert train in judge(at_the_limit, [], True).evidence


def test_a_single_validation_does_not_speak_of_two_epochs():
    assert "The epoch before" in judge(SHORTCUT, [], True).evidence
    single = judge(SHORTCUT, [], True, standalone=True)
    assert single.suspected and "A shortcut is suspected." in single.evidence and "epoch" not in single.evidence


@pytest.mark.parametrize("basis", BASES)
def test_what_to_do_is_not_glued_to_the_command_at_the_end_of_the_caution(basis):
    verdict = judge(SHORTCUT, [FOCUS], True, basis)
    evidence = verdict.evidence
    assert evidence.endswith(BASES[basis].caution) and evidence.count("Look at the counterfactuals") == 1
    assert verdict.advice.startswith("Look at the counterfactuals") and evidence.endswith(verdict.advice)


def test_the_verdict_says_that_the_next_validation_asks_more_images():
    unclear = found(1.0, 0.98, 0.70, low=-0.02, n=16, n_controlled=16)
    assert judge(unclear, [], True, n_all=64).evidence.endswith("asks 64 images, and so does the end of the training.")
    assert judge(unclear, [], True, n_all=16).evidence.count("More images decide it: about 16 of each class") == 1


def test_boxes_read_too_kindly_so_they_may_suspect_and_not_acquit():
    accused = judge(SHORTCUT, [FOCUS], confirmed=True, basis=BOXES)
    assert accused.suspected and accused.headline.startswith("SHORTCUT SUSPECTED: ") and accused.basis == "masks"
    unsure = judge(found(0.98, 0.97, 0.97, low=-0.02), [FOCUS], confirmed=True, basis=BOXES)
    assert unsure.headline.startswith("NO SIGN OF A SHORTCUT, as far as boxes can tell: ")
    assert "Some masks are boxes, which carry old background along, so this reads too kindly." in unsure.evidence


def test_significance_comes_first_and_size_second():
    assert points_to_background(0.5, 0.3)
    assert not points_to_background(0.5, GAP.sure), "nothing is sure"
    assert not points_to_background(GAP.size, GAP.sure + 0.01), "sure, and too small to matter"
    assert points_to_background(GAP.size + 0.01, GAP.sure + 0.01)
    assert not points_to_background(GAP.size - 0.01, GAP.sure + 0.01)


@pytest.mark.parametrize(("n", "limit"), [(64, GAP.size), (16, 3 / 16), (8, 3 / 8), (4, 0.5), (1, 0.5)])
def test_of_few_images_a_gap_counts_from_three_of_them_on(n, limit):
    """Chance makes some of 16 images wrong, and in the next epoch the same ones."""
    assert points_to_background(limit + 0.01, GAP.sure + 0.01, n=n)
    assert not points_to_background(limit - 0.01, GAP.sure + 0.01, n=n)
    assert confirms(limit + 0.01, 0.0, n=n) and not confirms(limit - 0.01, 1.0, n=n)


def test_a_gap_of_few_images_that_does_not_count_is_explained():
    swap = found(0.98, 0.98, 0.82, low=0.02, n=16, n_controlled=16)
    verdict = judge(swap, [FOCUS], confirmed=True)
    assert verdict.headline.startswith("UNCLEAR, so few images may also say so by chance: ") and not verdict.suspected
    assert "Of so few images, only a gap of more than 19 points counts." in verdict.evidence
    assert judge(replace(swap, n=64, n_controlled=64), [FOCUS], confirmed=True).suspected


def test_without_a_control_only_a_larger_fall_counts():
    assert drop_points_to_background(DROP.size + 0.01, DROP.sure + 0.01)
    assert not drop_points_to_background(DROP.size, DROP.sure + 0.01)
    assert not drop_points_to_background(0.5, DROP.sure)
    assert not drop_points_to_background(DROP.size - 0.01, DROP.sure + 0.01)
    assert DROP.size > GAP.size and DROP.sure > GAP.sure


def test_the_epoch_before_confirms_by_a_gap_of_the_same_size():
    assert confirms(GAP.size + 0.01, 0.0) and not confirms(GAP.size, 1.0)
    assert confirms(None, DROP.size + 0.01) and not confirms(None, DROP.size)
    assert not confirms(GAP.size - 0.01, 1.0) and not confirms(None, DROP.size - 0.01)


def test_a_smaller_gap_is_a_sign_that_more_is_to_be_asked():
    assert has_sign(GAP.sign + 0.01, 0.0) and not has_sign(GAP.sign, 1.0)
    assert has_sign(None, DROP.sign + 0.01) and not has_sign(None, DROP.sign)
    assert not has_sign(GAP.sign - 0.01, 1.0) and not has_sign(None, DROP.sign - 0.01)
    assert GAP.sign < GAP.size and DROP.sign < DROP.size


def test_images_without_a_control_are_counted_and_more_are_asked_for():
    some = judge(found(1.0, 0.97, 0.22, n_controlled=60), [FOCUS], confirmed=True).evidence
    assert "measured on 60 of 64 images; for the others there is no different image of their class. " in some
    swap = replace(found(0.62, 1.0, 0.62, n_controlled=40), paired=(1.0, 1.0, 0.99))
    assert (
        "right in 100 % as they are, 100 % on other backgrounds of their class, 99 %" in judge(swap, [], True).headline
    )
    none = judge(found(1.0, None, 0.22), [FOCUS], confirmed=True)
    assert "No class has two different images, so there is no control" in none.evidence
    assert none.background_gap is none.gap_interval is none.control_accuracy is None
    assert "on other backgrounds of their class" not in none.headline
    for evidence in (some, none.evidence):
        assert "Give each class two or more probe images with a mask: ProbeSet.from_dataset(" in evidence


def test_a_headline_that_says_too_early_has_the_accuracy_that_is_too_small():
    """The two images with a control are right wherever they are, and the other ones are wrong."""
    swap = replace(found(0.25, 1.0, 0.25, n=8, n_controlled=2, low=-0.8), gap=0.0, paired=(1.0, 1.0, 1.0))
    verdict = judge(swap, [], True)
    assert verdict.headline == (
        "TOO EARLY, the network hardly knows the classes yet: right in 25 % as they are, 100 % on other backgrounds of "
        "their class, 100 % on backgrounds of other classes."
    )
    assert "decides 0 points (95 % interval -80 to 85), measured on 2 of 8 images" in verdict.evidence


def test_without_a_control_the_headline_is_of_the_images_that_were_put_elsewhere():
    swap = replace(found(0.9, None, 1.0), n_without_other=60, drop=0.0, paired=(1.0, None, 1.0))
    verdict = judge(swap, [], True)
    assert "right in 100 % as they are, 100 % on backgrounds of other classes." in verdict.headline
    assert "The accuracy of 4 of 64 images on backgrounds of other classes falls by 0 points" in verdict.evidence


def test_what_is_missing_is_what_is_asked_for():
    """Images with several labels may all hold a class. More images of it would not help."""
    swap = replace(found(1.0, 1.0, 1.0, n_controlled=60), n_without_same=0, n_without_other=4)
    evidence = judge(swap, [], True).evidence
    assert "measured on 60 of 64 images; for the others there is no image without their class. " in evidence
    assert " Add images without the classes that all images hold." in evidence and "Give each class" not in evidence
    both = judge(replace(swap, n_without_same=2), [], True).evidence
    assert "there is no different image of their class or no image without their class. " in both
    assert "Give each class two or more probe images with a mask: " in both
    assert "validate on more. Add images without" in both


@pytest.mark.parametrize("basis", BASES)
def test_classes_that_were_not_tested_are_not_acquitted(basis):
    verdict = judge(found(0.98, 0.97, 0.97), [], True, basis, name_class="abcdefghijklm".__getitem__, n_classes=13)
    # Only masks that a person gave acquit at all.
    in_some = " in 4 of 13 classes" if basis == MASKS else ""
    assert verdict.headline.startswith(f"{BASES[basis].no_sign}{in_some}: ") and not verdict.acquits
    assert "Not tested: 'e', 'f', 'g', 'h', 'i' and 4 more of 13 classes. " in verdict.evidence
    call = BASES[basis].choose.format(2)
    assert f"Give each class {BASES[basis].two_images}: {call}." in verdict.advice
    assert call.startswith("ProbeSet.from_dataset(") and ("auto" in call) == (basis == AUTOMATIC_MASKS)
    few = judge(found(0.98, 0.97, 0.97), [], True, basis, n_classes=7)
    assert "Not tested: '4', '5', '6' of 7 classes. " in few.evidence
    later = judge(found(0.98, 0.97, 0.97), [], True, basis, n_all=128, n_classes=10)
    sign = f"{BASES[basis].no_sign} in 64 of 128 images" if basis == MASKS else BASES[basis].no_sign_yet
    assert later.headline.startswith(f"{sign}: ") and "Not tested" not in later.evidence
    assert judge(found(0.98, 0.97, 0.97), [], True, n_classes=4).acquits


@pytest.mark.parametrize(("control", "is_said"), [(0.99 - LARGE_COST, True), (1.01 - LARGE_COST, False)])
def test_a_large_cost_of_pasting_sends_to_masks_and_painting_first(control, is_said):
    verdict = judge(found(1.0, control, 0.2), [FOCUS], confirmed=True)
    assert ("Cutting and pasting alone costs 16 points: look first" in verdict.evidence) == is_said
    assert ("then train with images" in verdict.evidence) != is_said


def test_without_a_swap_the_images_of_the_accuracy_are_counted_if_others_take_no_part():
    few, all_of_them = (judge_without_swap(0.0, "One.", [], counted=(n, 8)).headline for n in (1, 8))
    assert few == "NOT KNOWN if the background decides: right in 0 % as they are, of 1 of 8 images."
    assert all_of_them == "NOT KNOWN if the background decides: right in 0 % as they are."


def test_without_a_swap_nothing_is_known():
    verdict = judge_without_swap(0.98, "They are all of one class.", [FOCUS])
    assert verdict.headline == "NOT KNOWN if the background decides: right in 98 % as they are."
    assert verdict.evidence.startswith("They are all of one class. At block5_conv3, 12 % of the focus")
    assert not verdict.suspected and verdict.swap_accuracy is verdict.swap_interval is verdict.background_gap is None


@pytest.mark.parametrize(
    ("mass", "area", "words"),
    [
        (0.2, 0.001, "20 % of the focus lies on the object, which fills 0.1 %: a lift of 200.00."),
        (0.0, 0.0004, "0 % of the focus lies on the object, which fills 0.04 %: a lift of 0.00."),
        (0.0096, 0.0094, "1 % of the focus lies on the object, which fills 0.9 %: a lift of 1.02."),
    ],
)
def test_a_small_object_does_not_fill_nothing(mass, area, words):
    assert f"At block5_conv3, {words}" in judge(SHORTCUT, [Focus("block5_conv3", mass, area)], True).evidence


def test_lift_is_mass_divided_by_area_also_with_an_empty_map():
    maps = torch.tensor([[[3.0, 1.0]], [[1.0, 1.0]], [[0.0, 0.0]]])
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0, :, :2] = masks[1, :, :1] = masks[2] = True
    focus = Focus.from_maps("block5_conv3", maps, masks)
    # The object of the third image fills it, but its map is empty, so neither mean counts it.
    assert focus.mass == pytest.approx((0.75 + 0.25) / 2) and focus.area == pytest.approx((0.5 + 0.25) / 2)
    assert focus.lift == focus.mass / focus.area == pytest.approx(4 / 3)
    assert focus.lift == float(metrics.lift(metrics.relevance_mass(maps, masks), metrics.mask_area(masks)))
    assert not focus.is_empty


@pytest.mark.parametrize("first_lift", [None, 2.0])
def test_the_verdict_says_if_all_maps_of_the_layer_are_empty(first_lift):
    measured = Focus.from_maps("block5_conv3", torch.zeros(2, 3, 3), torch.ones(2, 6, 6, dtype=torch.bool))
    assert measured.is_empty and math.isnan(measured.mass) and math.isnan(measured.area) and math.isnan(measured.lift)
    empty = Focus(measured.layer, measured.mass, measured.area, first_lift)
    assert empty.lost_share_of_lift == 0
    verdict = judge(SHORTCUT, [FOCUS, empty], confirmed=True)
    assert verdict.evidence.startswith("At block5_conv3, the maps of all these images are empty. ")
    assert "nan" not in verdict.evidence and math.isnan(verdict.lift) and verdict.suspected


def test_the_verdict_names_the_layer_that_lost_most_of_its_first_lift():
    foci = [
        Focus("block4_conv3", 0.2, 0.1, first_lift=4.0),
        Focus("block5_conv2", 0.2, 0.1, first_lift=2.2),
        Focus("block5_conv3", 0.2, 0.1, first_lift=1.5),
    ]
    assert [round(focus.lost_share_of_lift, 2) for focus in foci] == [0.5, 0.09, 0]
    assert FOCUS.lost_share_of_lift == 0, "there is no earlier entry"
    verdict = judge(SHORTCUT, foci, True)
    assert verdict.layer == "block4_conv3" and verdict.lift == 2.0
    assert "the lift at block4_conv3 went from 4.00 to 2.00" in verdict.evidence
    for swap, confirmed in ((found(0.98, 0.97, 0.97), True), (SHORTCUT, False)):
        unsure = judge(swap, foci, confirmed)
        assert unsure.layer == "block5_conv3" and "went from" not in unsure.evidence, "nothing is suspected"
    little = Focus("block4_conv1", 0.2, 0.1, first_lift=2.6)
    unchanged = judge(SHORTCUT, [little, foci[-1]], True)
    assert unchanged.layer == "block5_conv3" and "went from" not in unchanged.evidence, "a quarter is lost by chance"
