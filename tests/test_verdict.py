"""The verdict states the evidence and its uncertainty, and no more."""

import math

import pytest
import torch

from gradcam_callback.measures import Focus, SwapTest, confirms, judge, metrics, points_to_background, swap_test
from gradcam_callback.measures.verdict import CONFIRMING_DROP, SUSPICIOUS_DROP

FOCUS = Focus("block5_conv3", mass=0.12, area=0.10)


def found(before, after, interval=(0.25, 0.43), low=0.4, classes=4):
    return SwapTest(before, after, interval, (low, 1.0), n=64, classes=classes)


def test_verdict_puts_the_evidence_in_words():
    verdict = judge(0.98, 64, found(0.98, 0.34), [FOCUS], confirmed=True)
    assert verdict.suspected
    assert (verdict.probe_accuracy, verdict.swap_accuracy, verdict.lift) == (0.98, 0.34, FOCUS.lift)
    assert verdict.evidence.startswith(
        "On these 64 images the network is right in 98 %. Put the same objects on other classes' backgrounds and it is "
        "right in 34 % (25-43 %). At block5_conv3, 12 % of the focus lies on the object, which fills 10 %."
    )
    assert verdict.evidence.endswith(" Its predictions depend on the background: a shortcut is suspected.")


@pytest.mark.parametrize(
    ("swap", "confirmed", "suspected", "words"),
    [
        (found(0.98, 0.34), True, True, "a shortcut is suspected"),
        (found(0.98, 0.34), False, False, "if the next epoch says so too"),
        (found(0.98, 0.70, low=-0.02), True, False, "may also say so by chance"),
        (found(0.98, 0.97, low=-0.02), True, False, "No sign"),
        (found(0.30, 0.28, low=-0.1), True, False, "hardly knows the classes yet"),
        # Guessing among four classes is right in 25 %. Up to 15 points above it there is too little to drop.
        (found(0.39, 0.38, low=-0.1), True, False, "hardly knows the classes yet"),
        (found(0.25 + SUSPICIOUS_DROP, 0.38, low=-0.1), True, False, "No sign"),
        (found(SUSPICIOUS_DROP, 0.0, low=-0.1), True, False, "hardly knows the classes yet"),
        (found(0.98, 0.97, (0.98, 1.0), low=-0.02), True, False, "right in 97 % (98-100 %)."),
        (None, True, False, "cannot be said"),
    ],
)
def test_a_shortcut_is_suspected_after_a_large_and_sure_drop_in_two_epochs(swap, confirmed, suspected, words):
    probe_accuracy = 0.98 if swap is None else swap.probe_accuracy
    verdict = judge(probe_accuracy, 64, swap, [FOCUS], confirmed)
    assert verdict.suspected is suspected and words in verdict.evidence
    assert suspected == ("shortcut is suspected" in verdict.evidence and confirmed)


def test_only_a_large_and_sure_drop_points_to_the_background():
    assert points_to_background(0.5, 0.3)
    assert not points_to_background(0.5, 0.0), "nothing is sure"
    assert not points_to_background(0.02, 0.01), "sure, and too small to matter"
    assert not points_to_background(SUSPICIOUS_DROP, 0.1), "the threshold itself is not enough"


def test_a_drop_of_more_than_five_points_confirms_the_next():
    assert confirms(0.06) and confirms(1.0)
    assert not confirms(CONFIRMING_DROP) and not confirms(0.04) and not confirms(-0.5)


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
    verdict = judge(0.98, 64, found(0.98, 0.34), [FOCUS, empty], confirmed=True)
    assert " At block5_conv3, the maps of all these images are empty. " in verdict.evidence
    assert "nan" not in verdict.evidence and math.isnan(verdict.lift) and verdict.suspected


def test_the_verdict_names_the_layer_that_lost_most_of_its_first_lift():
    foci = [
        Focus("block4_conv3", 0.2, 0.1, first_lift=4.0),
        Focus("block5_conv2", 0.2, 0.1, first_lift=2.2),
        Focus("block5_conv3", 0.2, 0.1, first_lift=1.5),
    ]
    assert [round(focus.lost_share_of_lift, 2) for focus in foci] == [0.5, 0.09, 0]
    assert FOCUS.lost_share_of_lift == 0, "there is no earlier entry"
    verdict = judge(0.98, 64, found(0.98, 0.34), foci, True)
    assert verdict.layer == "block4_conv3" and verdict.lift == 2.0
    assert "the lift at block4_conv3 went from 4.00 to 2.00" in verdict.evidence
    clean = judge(0.98, 64, found(0.98, 0.97), foci, True)
    assert clean.layer == "block5_conv3" and "went from" not in clean.evidence, "no drop, so no layer to name"
    grown = Focus("block4_conv1", 0.2, 0.1, first_lift=1.9)
    unchanged = judge(0.98, 64, found(0.98, 0.34), [grown, foci[-1]], True)
    assert unchanged.layer == "block5_conv3" and "went from" not in unchanged.evidence


OBJECTS = torch.arange(6).repeat_interleave(2)
DONORS = torch.tensor([3, 4, 4, 5, 5, 3, 0, 1, 1, 2, 2, 0])
LABELS = torch.tensor([0, 0, 0, 1, 1, 1])


def test_swap_test_counts_correct_predictions():
    before = torch.tensor([1, 1, 1, 1, 1, 0]).bool()
    after = torch.tensor([1, 0] * 6).bool()
    result = swap_test(before, after, OBJECTS, DONORS, LABELS)
    assert result.probe_accuracy == pytest.approx(5 / 6) and result.swap_accuracy == pytest.approx(0.5)
    assert result.drop == pytest.approx(1 / 3) and (result.n, result.classes) == (6, 2)
    assert 0 <= result.swap_interval[0] < 0.5 < result.swap_interval[1] <= 1
    assert result.drop_interval[0] < result.drop < result.drop_interval[1]
    assert swap_test(before, after, OBJECTS, DONORS, LABELS) == result, "the same draws every time"


@pytest.mark.parametrize("n_before", range(7))
@pytest.mark.parametrize("n_after", [0, 5, 12])
def test_accuracies_count_every_image_once_and_not_the_draws(n_before, n_after):
    before, after = torch.arange(6) < n_before, torch.arange(12) < n_after
    result = swap_test(before, after, OBJECTS, DONORS, LABELS)
    assert result.probe_accuracy == pytest.approx(n_before / 6)
    assert result.swap_accuracy == pytest.approx(n_after / 12)
    assert result.drop == pytest.approx(n_before / 6 - n_after / 12)
    if {n_before, n_after} <= {0, 6, 12}:
        # All images agree, and so do all draws.
        assert result.swap_interval == (result.swap_accuracy,) * 2
        assert result.drop_interval == (result.drop,) * 2


def test_intervals_leave_the_random_state_alone():
    state = torch.get_rng_state()
    swap_test(torch.ones(6).bool(), torch.ones(12).bool(), OBJECTS, DONORS, LABELS)
    assert torch.equal(torch.get_rng_state(), state)


def test_intervals_hold_the_truth_as_often_as_they_say_and_shrink_with_more_images():
    """Draw many probe sets for networks of a known accuracy; each object decides if its predictions are correct."""
    generator = torch.Generator().manual_seed(0)
    widths = {}
    for n in (16, 64):
        objects = torch.arange(n).repeat_interleave(3)
        held, spans = [], []
        for _ in range(150):
            donors = (objects + torch.randint(1, n, (3 * n,), generator=generator)) % n
            correct = torch.rand(n, generator=generator) < 0.6
            low, high = swap_test(torch.ones(n).bool(), correct[objects], objects, donors, LABELS).swap_interval
            held.append(low <= 0.6 <= high)
            spans.append(high - low)
        assert sum(held) / len(held) > 0.88, f"95 % are promised, with {n} images"
        widths[n] = sum(spans) / len(spans)
    assert 0.4 < widths[64] / widths[16] < 0.6, "four times the images, half the width"


def test_a_few_images_give_an_interval_too():
    before, after = torch.tensor([True, True]), torch.tensor([True, False])
    result = swap_test(before, after, torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0, 1]))
    assert result.swap_accuracy == 0.5 and result.swap_interval == (0.5, 0.5)
