"""Tests of the swap test: what it counts, and its intervals."""

import math

import pytest
import torch
from scipy import stats

from gradcam_callback.measures import Swaps, confirms, judge, points_to_background, swap_test

OTHER = Swaps(torch.arange(6).repeat_interleave(2), torch.tensor([3, 4, 4, 5, 5, 3, 0, 1, 1, 2, 2, 0]))
SAME = Swaps(torch.arange(6).repeat_interleave(2), torch.tensor([1, 2, 0, 2, 0, 1, 4, 5, 3, 5, 3, 4]))
LABELS = torch.tensor([0, 0, 0, 1, 1, 1])
NONE = Swaps(*torch.empty(2, 0, dtype=torch.long))


def test_swap_test_counts_correct_predictions():
    before = torch.tensor([1, 1, 1, 1, 1, 0]).bool()
    after, control = torch.tensor([1, 1, 0, 0] * 3).bool(), torch.tensor([1, 1, 1, 0] * 3).bool()
    result = swap_test(before, LABELS, OTHER, after, SAME, control)
    assert result.probe_accuracy == pytest.approx(5 / 6) and result.swap_accuracy == pytest.approx(0.5)
    assert result.control_accuracy == pytest.approx(0.75) and result.gap == pytest.approx(0.25)
    assert result.pasting_cost == pytest.approx(5 / 6 - 0.75)
    assert result.drop == pytest.approx(1 / 3) and (result.n, result.n_controlled, result.classes) == (6, 6, 2)
    assert 0 <= result.swap_interval[0] < 0.5 < result.swap_interval[1] <= 1
    assert result.drop_interval[0] < result.drop < result.drop_interval[1]
    assert result.gap_interval[0] < result.gap < result.gap_interval[1]


@pytest.mark.parametrize("n_before", range(7))
@pytest.mark.parametrize("n_after", [0, 5, 12])
def test_accuracies_count_every_image_once(n_before, n_after):
    before, after = torch.arange(6) < n_before, torch.arange(12) < n_after
    result = swap_test(before, LABELS, OTHER, after, NONE, after[:0])
    assert result.probe_accuracy == pytest.approx(n_before / 6)
    assert result.swap_accuracy == pytest.approx(n_after / 12)
    assert result.drop == pytest.approx(n_before / 6 - n_after / 12)
    assert result.gap is result.gap_interval is result.control_accuracy is result.pasting_cost is None
    if {n_before, n_after} <= {0, 6, 12}:
        # All six images agree.
        half = 1 - stats.beta.ppf(0.025, 6, 1)
        swap, drop = result.swap_accuracy, result.drop
        assert result.swap_interval == pytest.approx((max(0, swap - half), min(1, swap + half)))
        assert result.drop_interval == pytest.approx((max(-1, drop - half), min(1, drop + half)))


def test_the_gap_is_paired_by_object():
    """Easy objects are right on any background and difficult ones on none, so the background decides nothing."""
    objects = torch.arange(64).repeat_interleave(3)
    shifts = torch.tensor([1, 2, 4]).repeat(64)
    same, other = Swaps(objects, (objects + shifts) % 64), Swaps(objects, (objects - shifts) % 64)
    is_easy = torch.rand(64, generator=torch.Generator().manual_seed(0)) < 0.5
    result = swap_test(is_easy, torch.zeros(64), other, is_easy[other.objects], same, is_easy[same.objects])
    (low, high), (swap_low, swap_high) = result.gap_interval, result.swap_interval
    assert result.gap == result.drop == 0 and -0.08 < low <= 0 <= high < 0.08
    assert swap_high - swap_low > 0.2, "which objects were chosen decides the accuracy itself"


def test_the_gap_compares_the_same_objects():
    """The single image of class 2 is wrong everywhere. Without a control it must not enter the gap."""
    labels = torch.tensor([0, 0, 1, 1, 2])
    same = Swaps(torch.tensor([0, 1, 2, 3]), torch.tensor([1, 0, 3, 2]))
    other = Swaps(torch.arange(5), torch.tensor([2, 3, 4, 0, 1]))
    after = torch.tensor([1, 1, 1, 1, 0]).bool()
    result = swap_test(torch.ones(5).bool(), labels, other, after, same, torch.ones(4).bool())
    half = 1 - stats.beta.ppf(0.025, 4, 1)
    assert result.gap == 0 and result.gap_interval == pytest.approx((-half, half)) and result.n_controlled == 4
    assert result.swap_accuracy == pytest.approx(0.8) and result.drop == pytest.approx(0.2)
    unknown = swap_test(torch.arange(5) < 4, labels, other, after, same, torch.ones(4).bool())
    assert unknown.probe_accuracy == pytest.approx(0.8) and unknown.pasting_cost == 0, "of the same objects, too"


def test_a_class_is_tested_if_an_object_of_it_was_asked_on_both_kinds_of_background():
    right = torch.ones(5, dtype=torch.bool)
    labels, same = torch.tensor([0, 0, 1, 1, 2]), Swaps(torch.arange(4), torch.tensor([1, 0, 3, 2]))
    other = Swaps(torch.tensor([0, 1, 4]), torch.tensor([2, 3, 0]))
    found = swap_test(right, labels, other, right[:3], same, right[:4])
    assert found.tested == {0} and (found.n_without_same, found.n_without_other) == (1, 2)
    without_control = swap_test(right, labels, other, right[:3], NONE, right[:0])
    assert without_control.tested == {0, 2} and without_control.n_without_same == 5


def test_the_order_of_the_answers_does_not_decide():
    """A gap of 25 points of 12 images is no larger than 25 points, whichever of the 36 answers are wrong."""
    labels, objects = torch.arange(12) // 4, torch.arange(12).repeat_interleave(3)
    shifts, right = torch.arange(3).repeat(12), torch.ones(36, dtype=torch.bool)
    same, other = Swaps(objects, objects // 4 * 4 + (objects + 1 + shifts) % 4), Swaps(objects, (objects + 4) % 12)
    generator, gaps = torch.Generator().manual_seed(0), {}
    for n_wrong in (9, 10) * 20:
        on_other = torch.randperm(36, generator=generator) >= n_wrong
        found = swap_test(torch.ones(12), labels, other, on_other, same, right)
        gaps.setdefault(n_wrong, set()).add(found.gap)
        assert judge(found, [], True).suspected == (n_wrong == 10)
    assert gaps[9] == {0.25} and len(gaps[10]) == 1


@pytest.mark.parametrize("n", range(6, 65))
def test_three_images_of_any_number_are_three_images(n):
    swaps, right = Swaps(torch.arange(n), torch.arange(n).roll(1)), torch.ones(n, dtype=torch.bool)
    for n_wrong, counts in ((3, False), (4, n < 50)):  # of 50 images, four are 8 points, which is the other limit
        gap = swap_test(right, torch.zeros(n), swaps, torch.arange(n) >= n_wrong, swaps, right).gap
        assert points_to_background(gap, 0.01, n=n) == confirms(gap, 0.0, n=n) == counts


def test_every_object_counts_the_same_however_many_donors_it_has():
    same = Swaps(torch.tensor([0, 0, 0, 1]), torch.tensor([1, 2, 3, 0]))
    other = Swaps(torch.tensor([0, 1]), torch.tensor([2, 3]))
    right = torch.tensor([1, 1, 1, 0]).bool()
    result = swap_test(torch.ones(4).bool(), torch.tensor([0, 0, 1, 1]), other, right[2:], same, right)
    assert result.control_accuracy == pytest.approx(0.5)


def least_certain(n):
    """Return the share that n tries without a hit leave possible: the exact binomial interval."""
    return 1 - stats.beta.ppf(0.025, n, 1)


def exact_interval(hits, tries):
    """Return the interval of Clopper and Pearson, also of numbers that are not whole."""
    low = stats.beta.ppf(0.025, hits, tries - hits + 1) if hits else 0.0
    return low, stats.beta.ppf(0.975, hits + 1, tries - hits) if tries - hits > 1e-9 else 1.0


def test_intervals_equal_a_calculation_answer_by_answer():
    """Compare with the definition: covariances of all pairs of answers that share an object or a background."""
    generator = torch.Generator().manual_seed(0)
    for n, n_donors in ((5, 1), (8, 3), (16, 2)):
        objects = torch.arange(n).repeat_interleave(n_donors)
        shifts = torch.randint(1, n, (2, len(objects)), generator=generator)
        on_same, on_other = torch.rand(2, len(objects), generator=generator) < 0.6
        same, other = (Swaps(objects, (objects + shift) % n) for shift in shifts)
        labels = torch.zeros(n)
        found = swap_test(torch.ones(n).bool(), labels, other, on_other, same, on_same)
        answers = [
            (int(i), int(j), sign * (float(right) - float(all_right.double().mean())) / len(objects))
            for swaps, all_right, sign in ((same, on_same, 1), (other, on_other, -1))
            for i, j, right in zip(swaps.objects, swaps.donors, all_right, strict=True)
        ]
        shared = sum(a * b for i, j, a in answers for k, m, b in answers if i == k or j == m)
        own = sum(a * b for i, _, a in answers for k, _, b in answers if i == k)
        # A background that many objects share counts for less.
        shares = [torch.bincount(swaps.donors, minlength=n) / len(objects) for swaps in (same, other)]
        n_grounds = min(1 / float(share.square().sum()) for share in shares)
        effective = round(min(n, n_grounds))
        half = stats.t.ppf(0.975, effective - 1) * math.sqrt(max(shared, own) * n / (n - 1))
        largest = min(found.gap, 0) + least_certain(effective)
        expected = max(-1, found.gap - half), min(1, max(found.gap + half, largest))
        assert found.gap_interval == pytest.approx(expected, abs=1e-3)


def test_objects_of_one_photograph_say_as_much_as_one():
    """Each photograph stands twice in the set, once for each of two objects, whose answers are the same."""
    generator, n = torch.Generator().manual_seed(0), 12
    objects = torch.arange(n).repeat_interleave(2)
    same, other = (Swaps(objects, (objects + torch.randint(1, n, (2 * n,), generator=generator)) % n) for _ in "12")
    on_same, on_other = torch.rand(2, 2 * n, generator=generator) < 0.6
    once = swap_test(torch.ones(n).bool(), torch.zeros(n), other, on_other, same, on_same)

    def double(swaps):
        return Swaps(torch.cat([swaps.objects, swaps.objects + n]), torch.cat([swaps.donors, swaps.donors + n]))

    twice = [torch.ones(2 * n).bool(), torch.zeros(2 * n), double(other), on_other.repeat(2), double(same)]
    of_photographs = swap_test(*twice, on_same.repeat(2), torch.arange(n).repeat(2))
    assert of_photographs.gap_interval == pytest.approx(once.gap_interval)
    assert of_photographs.swap_interval == pytest.approx(once.swap_interval)
    low, high = swap_test(*twice, on_same.repeat(2)).gap_interval
    assert high - low < 0.8 * (once.gap_interval[1] - once.gap_interval[0]), "as independent images they said more"


def test_with_a_background_of_its_own_for_each_object_the_interval_is_that_of_a_mean():
    falls = torch.tensor([1, 0, 0, 1, 1, 0, 0, 0, 0, 0]).bool()
    swaps = Swaps(torch.arange(10), torch.arange(10).roll(1))
    found = swap_test(torch.ones(10).bool(), torch.zeros(10), swaps, ~falls, swaps, torch.ones(10).bool())
    expected = stats.t.interval(0.95, 9, loc=0.3, scale=stats.sem(falls.double()))
    assert found.gap_interval == found.drop_interval == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n", [2, 3, 4, 8, 40])
def test_intervals_of_few_images_are_wide(n):
    """With two images, hardly anything is known. With few, the quantile is that of Student's t distribution."""
    swaps = Swaps(torch.arange(n), torch.arange(n).roll(1))
    on_other = torch.arange(n) > 0
    found = swap_test(torch.ones(n).bool(), torch.zeros(n), swaps, on_other, swaps, torch.ones(n).bool())
    low, high = stats.t.interval(0.95, n - 1, loc=1 / n, scale=stats.sem((~on_other).double()))
    assert found.gap_interval == pytest.approx((max(-1, low), min(1, max(high, least_certain(n)))), rel=1e-6)
    # That of an accuracy is the exact binomial interval of as many answers as have the width of the other one.
    tries = (n - 1) * (1.96 / stats.t.ppf(0.975, n - 1)) ** 2
    expected = exact_interval((1 - 1 / n) * tries, tries)
    assert found.swap_interval == pytest.approx((min(expected[0], 1 - least_certain(n)), expected[1]), abs=1e-3)


@pytest.mark.parametrize("n", [3, 8, 16, 64])
def test_more_right_answers_never_lower_the_interval_and_it_is_never_narrower_than_the_binomial_one(n):
    """The lower end was 95 % if 63 of 64 were right, and 94 % if all were."""
    swaps, before = Swaps(torch.arange(n), torch.arange(n).roll(1)), (0.0, 0.0)
    for hits in range(n + 1):
        right = torch.arange(n) < hits
        low, high = swap_test(right, torch.zeros(n), swaps, right, NONE, right[:0]).swap_interval
        exact_low, exact_high = exact_interval(hits, n)
        assert low <= exact_low + 1e-6 and high >= exact_high - 1e-6
        assert low >= before[0] and high >= before[1]
        before = low, high


@pytest.mark.parametrize("n", [6, 16, 64])
def test_one_wrong_answer_of_many_makes_an_accuracy_no_more_certain(n):
    """Each object stands on three backgrounds, so that the answers are more than the objects."""
    objects = torch.arange(n).repeat_interleave(3)
    swaps, right = Swaps(objects, (objects + torch.arange(3 * n) % 3 + 1) % n), torch.ones(n).bool()
    ends = [swap_test(right, torch.zeros(n), swaps, torch.arange(3 * n) >= wrong, NONE, right[:0]) for wrong in (0, 1)]
    (all_low, _), (low, high) = (found.swap_interval for found in ends)
    assert low <= all_low == pytest.approx(1 - least_certain(n)) and high >= 1 - 1 / (3 * n)
    assert low <= exact_interval(3 * n - 1, 3 * n)[0]


@pytest.mark.parametrize("n_wrong", [0, 1, 2])
@pytest.mark.parametrize("n", [6, 8, 16])
def test_an_object_that_is_always_wrong_makes_a_gap_no_more_certain(n, n_wrong):
    """Without this, eight images of which one is always wrong acquitted a network."""
    objects = torch.arange(n).repeat_interleave(2)
    same, other = (Swaps(objects, (objects + torch.tensor(shifts).repeat(n)) % n) for shifts in ((2, 4), (1, 3)))
    right = torch.arange(n) >= n_wrong
    found = swap_test(right, torch.arange(n) % 2, other, right[objects], same, right[objects])
    assert found.gap == 0 and found.gap_interval[1] == pytest.approx(least_certain(n))
    assert found.gap_interval[0] == -found.gap_interval[1]


def test_figures_of_the_objects_with_a_control_are_told_apart():
    """Two of three objects have a control. The third one is wrong wherever it is."""
    right = torch.tensor([True, True, False])
    same, other = Swaps(torch.tensor([0, 1]), torch.tensor([1, 0])), Swaps(torch.arange(3), torch.tensor([2, 2, 0]))
    found = swap_test(right, torch.tensor([0, 0, 1]), other, right, same, right[:2])
    assert (found.probe_accuracy, found.swap_accuracy) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found.paired == (1.0, 1.0, 1.0) and found.control_accuracy == 1.0


@pytest.mark.parametrize("n", [2, 4, 16, 64])
@pytest.mark.parametrize("falls", [True, False])
def test_that_all_answers_agree_makes_few_images_not_certain(n, falls):
    swaps = Swaps(torch.arange(n), torch.arange(n).roll(1))
    right = torch.ones(n).bool()
    found = swap_test(right, torch.zeros(n), swaps, right ^ falls, swaps, right)
    # The exact binomial interval of n hits in n tries.
    low = stats.beta.ppf(0.025, n, 1)
    expected = (low, 1) if falls else (low - 1, 1 - low)
    assert found.gap_interval == found.drop_interval == pytest.approx(expected)
    assert found.swap_interval == pytest.approx((0, 1 - low) if falls else (low, 1))


def test_a_single_object_says_nothing():
    labels, right = torch.tensor([0, 0, 1]), torch.ones(1).bool()
    same, other = Swaps(torch.tensor([0]), torch.tensor([1])), Swaps(torch.tensor([0]), torch.tensor([2]))
    result = swap_test(torch.tensor([1.0, math.nan, math.nan]), labels, other, ~right, same, right)
    assert (result.gap, result.n, result.n_controlled) == (1, 1, 1)
    assert result.gap_interval == result.drop_interval == (-1, 1) and result.swap_interval == (0, 1)


@pytest.mark.parametrize("n, n_donors", [(16, 3), (64, 3), (48, 1)])
@pytest.mark.parametrize("of_object, of_ground", [(1.0, 0.0), (0.7, 0.7)])
def test_intervals_hold_the_truth_as_often_as_they_say(n, n_donors, of_object, of_ground):
    """Draw many probe sets. Objects and backgrounds both decide if a prediction is correct, and chance does, too.

    An interval that always holds the truth would be too wide, and miss shortcuts.
    """
    generator, n_tries, fall = torch.Generator().manual_seed(0), 200, 0.8

    def noise(*size):
        return torch.randn(*size, generator=generator)

    # The sum of three numbers is above 0, or above the fall.
    spread = torch.distributions.Normal(0.0, math.sqrt(of_object**2 + of_ground**2 + 1))
    truths = {"swap": 0.5, "gap": float(spread.cdf(torch.tensor(fall))) - 0.5}
    held = {"swap": 0, "gap": 0}
    objects = torch.arange(n).repeat_interleave(n_donors)
    donors = torch.stack([(torch.arange(n) + 1 + shift) % n for shift in range(n_donors)], dim=1).flatten()
    swaps = Swaps(objects, donors)
    for _ in range(n_tries):
        own, of_same, of_other = of_object * noise(n), of_ground * noise(n), of_ground * noise(n)
        on_same = own[objects] + of_same[donors] + noise(len(objects)) > -fall
        on_other = own[objects] + of_other[donors] + noise(len(objects)) > 0
        found = swap_test(torch.ones(n).bool(), torch.zeros(n), swaps, on_other, swaps, on_same)
        for name, (low, high) in (("swap", found.swap_interval), ("gap", found.gap_interval)):
            held[name] += low <= truths[name] <= high
    for name, count in held.items():
        assert 0.9 < count / n_tries < 0.99, f"95 % are promised for the {name}"


def test_more_objects_narrow_an_interval_more_than_more_backgrounds():
    """The same number of swaps: 16 objects on three backgrounds, or 48 on one."""
    generator, widths = torch.Generator().manual_seed(0), {16: 0.0, 48: 0.0}
    for n, n_donors in ((16, 3), (48, 1)) * 20:
        objects = torch.arange(n).repeat_interleave(n_donors)
        swaps = Swaps(objects, (objects + torch.arange(len(objects)) % n_donors + 1) % n)
        is_easy = torch.rand(n, generator=generator)
        on_same, on_other = torch.rand(2, len(objects), generator=generator) < is_easy[objects]
        low, high = swap_test(torch.ones(n).bool(), torch.zeros(n), swaps, on_other, swaps, on_same).swap_interval
        widths[n] += high - low
    assert widths[48] < 0.8 * widths[16]


def test_a_few_images_give_an_interval_too():
    before, after = torch.tensor([True, True]), torch.tensor([True, False])
    swaps = Swaps(torch.tensor([0, 1]), torch.tensor([1, 0]))
    result = swap_test(before, torch.tensor([0, 1]), swaps, after, NONE, after[:0])
    assert result.swap_accuracy == 0.5 and result.swap_interval == (0.0, 1.0), "two images say hardly anything"
