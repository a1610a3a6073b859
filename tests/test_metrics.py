"""Metrics against values worked out by hand."""

import math

import pytest
import torch

from gradcam_callback.measures import metrics

LEFT_HALF = torch.tensor([[[1, 1, 0, 0]] * 4], dtype=torch.bool)


def maps(*rows):
    return torch.tensor([rows], dtype=torch.float32)


def test_relevance_mass_is_the_share_of_the_mass_on_the_mask():
    assert metrics.relevance_mass(maps([3, 1], [3, 1]), LEFT_HALF).item() == pytest.approx(0.75)
    assert metrics.relevance_mass(maps([0, 1], [0, 1]), LEFT_HALF).item() == 0
    assert metrics.relevance_mass(maps([0, 0], [0, 0]), LEFT_HALF).isnan().item()


def test_mask_edges_count_by_area_also_where_sizes_do_not_divide():
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 0, 0] = True
    # One pixel of the four below the first cell.
    assert metrics.relevance_mass(maps([1, 1], [1, 1]), mask).item() == pytest.approx(1 / 16)
    # Three cells over four pixels: the first covers 4/3 of a pixel, three quarters of it the first one.
    assert metrics.coverage(LEFT_HALF, 1, 3)[0, 0].tolist() == pytest.approx([1, 0.5, 0])
    assert metrics.coverage(mask, 3, 3)[0, 0, 0].item() == pytest.approx(0.75**2)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 7), (14, 9), (40, 31)])
def test_coverage_keeps_the_area_of_the_mask(size):
    mask = torch.rand(2, 17, 23, generator=torch.Generator().manual_seed(0)) > 0.7
    torch.testing.assert_close(metrics.coverage(mask, *size).mean(dim=(1, 2)), metrics.mask_area(mask))


@pytest.mark.parametrize("size", [(1, 1), (6, 9), (12, 36), (24, 18), (24, 36)])
def test_cells_of_whole_pixels_are_covered_by_the_mean_of_their_pixels(size):
    mask = torch.rand(2, 24, 36, generator=torch.Generator().manual_seed(0)) > 0.7
    cells = mask.double().unflatten(2, (size[1], -1)).unflatten(1, (size[0], -1)).mean(dim=(2, 4))
    torch.testing.assert_close(metrics.coverage(mask, *size), cells, rtol=0, atol=1e-12)


def test_lift_of_an_even_map_is_one_and_leaves_empty_maps_out():
    mass = torch.tensor([0.5, float("nan"), 0.1])
    area = torch.tensor([0.2, 0.9, 0.1])
    assert metrics.lift(mass, area).item() == pytest.approx(0.3 / 0.15)
    mask = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0)) > 0.5
    even = metrics.relevance_mass(torch.ones(3, 7, 7), mask)
    assert metrics.lift(even, metrics.mask_area(mask)).item() == pytest.approx(1)
    assert metrics.lift(torch.tensor([float("nan")]), torch.tensor([0.5])).isnan().item()


def test_pointing_game_tests_if_the_hottest_cell_lies_on_the_mask():
    assert metrics.pointing_game(maps([2, 1], [1, 1]), LEFT_HALF).item() == 1
    assert metrics.pointing_game(maps([1, 2], [1, 1]), LEFT_HALF).item() == 0
    assert metrics.pointing_game(maps([2, 2], [1, 1]), LEFT_HALF).item() == 0.5, "equally hot cells share"
    assert metrics.pointing_game(maps([0, 0], [0, 0]), LEFT_HALF).item() == 0, "an empty map points nowhere"


def test_pointing_game_counts_cells_that_the_object_covers_by_half():
    # Four cells side by side over 4 x 12 pixels: covered wholly, by half, by a third and not at all.
    mask = torch.zeros(1, 4, 12, dtype=torch.bool)
    mask[0, :, :3] = mask[0, :2, 3:6] = True
    mask[0, :, 6] = True
    scores = []
    for cell in range(4):
        raw = torch.zeros(1, 1, 4)
        raw[0, 0, cell] = 1
        scores.append(metrics.pointing_game(raw, mask).item())
    assert scores == [1, 1, 0, 0]


def test_pointing_game_can_be_won_on_an_object_smaller_than_a_cell():
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[0, 1:3, 1:3] = True
    hot, cold = torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)
    hot[0, 0, 0], cold[0, 1, 0] = 1, 1
    assert metrics.pointing_game(hot, mask).item() == 1
    assert metrics.pointing_game(cold, mask).item() == 0


def test_entropy_runs_from_one_cell_to_evenly_spread():
    assert metrics.entropy(maps([5, 0], [0, 0])).item() == 0
    assert metrics.entropy(maps([5, 5], [5, 5])).item() == pytest.approx(1)
    assert metrics.entropy(maps([1, 1], [0, 0])).item() == pytest.approx(math.log(2) / math.log(4))
    assert metrics.entropy(maps([0, 0], [0, 0])).isnan().item()
    assert metrics.entropy(maps([1, 1])).item() == pytest.approx(1), "two cells, evenly"
    assert metrics.entropy(maps([5])).item() == 0, "a single cell is one cell, and not NaN"


def test_strength_is_the_raw_mean_so_a_fading_map_fades():
    assert metrics.strength(maps([4, 0], [0, 0])).item() == 1
    assert metrics.strength(maps([0.4, 0], [0, 0])).item() == pytest.approx(0.1)


def test_drift_sees_shape_and_not_strength():
    left, right = maps([1, 0], [0, 0]), maps([0, 1], [0, 0])
    assert metrics.drift(left, 3 * left).item() == pytest.approx(0)
    assert metrics.drift(left, right).item() == pytest.approx(1)
    assert metrics.drift(maps([1, 1], [0, 0]), left).item() == pytest.approx(1 - 1 / math.sqrt(2))
    assert metrics.drift(1e-12 * left, 1e-12 * left).item() == pytest.approx(0), "also of very weak maps"
    faint = maps([3, 1], [0, 2]).double() * 1e-200
    assert metrics.drift(faint, 2 * faint).item() == pytest.approx(0), "also if the squares are too small for a float64"
    assert metrics.drift(faint, 1e-200 * right.double()).item() == pytest.approx(1 - 1 / math.sqrt(14))
    many = torch.rand(10_000, 2, 2, generator=torch.Generator().manual_seed(0))
    assert (metrics.drift(many, 3 * many) >= 0).all(), "rounding makes no drift negative"
    empty = torch.zeros(1, 2, 2)
    assert metrics.drift(empty, empty).item() == 0 and metrics.drift(left, empty).item() == 1


def test_empty_maps_have_neither_a_spread_nor_a_place():
    """An entropy of 0 would be a map of one cell, and a distance of 0 one in the middle."""
    empty = torch.zeros(2, 3, 3)
    assert metrics.entropy(empty).isnan().all() and metrics.centre_distance(empty).isnan().all()


def test_border_mass_counts_cells_by_the_part_that_lies_in_the_border():
    even = torch.ones(1, 5, 8)
    assert metrics.border_mass(even).item() == pytest.approx(0.36)
    assert metrics.border_mass(even, width=0.25).item() == pytest.approx(0.75)
    middle, corner = torch.zeros(1, 5, 5), torch.zeros(1, 5, 5)
    middle[0, 2, 2], corner[0, 0, 0] = 3, 3
    assert metrics.border_mass(middle).item() == pytest.approx(0)
    # A cell is a fifth of a side wide, and the border half a cell: a quarter of the corner cell lies inside.
    assert metrics.border_mass(corner).item() == pytest.approx(0.75)
    assert metrics.border_mass(torch.zeros(1, 5, 5)).isnan().item()
    assert [metrics.border_mass(even, width).item() for width in (0, 0.5)] == [0, 1]
    for width in (-0.1, 0.6, math.nan):
        with pytest.raises(ValueError, match=f"Expected `width` to be a share of 0 to 0.5, but got {width}"):
            metrics.border_mass(even, width)


def test_centre_distance_runs_from_the_centre_to_the_corner():
    assert metrics.centre_distance(torch.ones(1, 3, 7)).item() == pytest.approx(0)
    corner = torch.zeros(1, 4, 4)
    corner[0, 0, 0] = 2
    # The centre of the cell lies at 1/8 of each side, 3/8 away from the middle. The corner lies 1/2 away.
    assert metrics.centre_distance(corner).item() == pytest.approx(0.75)
    side = torch.zeros(1, 1, 4)
    side[0, 0, 3] = 1
    assert metrics.centre_distance(side).item() == pytest.approx(0.375 / math.sqrt(0.5))
    assert metrics.centre_distance(torch.zeros(1, 2, 2)).isnan().item()


TWO, ONE = torch.ones(2, 3, 3), torch.ones(1, 9, 9, dtype=torch.bool)


@pytest.mark.parametrize(
    ("measure", "given", "said"),
    [
        *((measure, (TWO[0],), r"`maps` to be \(N, h, w\), but got \(3, 3\)") for measure in
          (metrics.entropy, metrics.strength, metrics.border_mass, metrics.centre_distance)),
        (metrics.entropy, (TWO[:, :0],), r"`maps` to be \(N, h, w\), but got \(2, 0, 3\)"),
        *((measure, (TWO, ONE), r"`masks` to be \(2, H, W\), one for each map, but got \(1, 9, 9\)") for measure in
          (metrics.relevance_mass, metrics.pointing_game)),
        (metrics.relevance_mass, (TWO, ONE[0]), r"`masks` to be \(2, H, W\), one for each map, but got \(9, 9\)"),
        (metrics.relevance_mass, (TWO[:, None], ONE), r"`maps` to be \(N, h, w\), but got \(2, 1, 3, 3\)"),
        (metrics.mask_area, (ONE[0],), r"`masks` to be \(N, H, W\), but got \(9, 9\)"),
        (metrics.drift, (TWO, TWO[:1]), r"`previous` to be \(2, 3, 3\), as `maps` is, but got \(1, 3, 3\)"),
        (metrics.drift, (TWO, torch.ones(2, 4, 4)), r"`previous` to be \(2, 3, 3\), as `maps` is, but got \(2, 4, 4\)"),
        (metrics.lift, (torch.ones(2), torch.ones(3)), r"`area` to be \(2,\), one for each mass, but got \(3,\)"),
        (metrics.lift, (torch.tensor(1.0), torch.ones(1)), r"`mass` to be \(N,\), but got \(\)"),
    ],
)  # fmt: skip
def test_another_shape_is_refused_with_what_came_and_what_to_do(measure, given, said):
    """A single mask was taken for that of every map."""
    with pytest.raises(ValueError, match=f"^Expected {said}. Give it for the same images"):
        measure(*given)


@pytest.mark.parametrize("masks", [ONE.byte() * 255, -ONE.float(), ONE.float() * math.nan, ONE.long() + 1])
def test_masks_of_other_numbers_than_0_and_1_are_refused(masks):
    """A mask of 0 and 255, as files have it, gave a share of 255."""
    refused = {"match": "^Expected `masks` to be bool, .* Compare them with the value of the object"}
    for measure in (metrics.relevance_mass, metrics.pointing_game):
        with pytest.raises(ValueError, **refused):
            measure(TWO[:1], masks)
    with pytest.raises(ValueError, **refused):
        metrics.mask_area(masks)


def test_masks_of_0_and_1_are_taken():
    masks = ONE.clone()
    masks[:, :4] = False
    for given in (masks.byte(), masks.double()):
        assert metrics.relevance_mass(TWO[:1], given) == metrics.relevance_mass(TWO[:1], masks)
        assert metrics.pointing_game(TWO[:1], given) == metrics.pointing_game(TWO[:1], masks)
        assert metrics.mask_area(given) == metrics.mask_area(masks)


def test_no_maps_have_no_metrics_and_are_no_error():
    assert metrics.relevance_mass(TWO[:0], ONE[:0]).shape == metrics.entropy(TWO[:0]).shape == (0,)


def test_masks_that_cover_nothing_have_no_lift():
    assert metrics.lift(torch.tensor([0.5]), torch.tensor([0.0])).isnan()
    assert metrics.lift(metrics.relevance_mass(TWO, torch.zeros(2, 9, 9).bool()), torch.zeros(2)).isnan()


def test_metrics_of_a_batch_equal_those_of_its_maps_one_by_one():
    generator = torch.Generator().manual_seed(2)
    strengths = torch.tensor([1e-9, 1.0, 0.0, 1e6])[:, None, None]
    raw, previous = (torch.rand(4, 3, 5, generator=generator) * strengths for _ in range(2))
    masks = torch.rand(4, 12, 10, generator=generator) > 0.7
    arguments = {
        "relevance_mass": (raw, masks),
        "mask_area": (masks,),
        "pointing_game": (raw, masks),
        "entropy": (raw,),
        "strength": (raw,),
        "drift": (raw, previous),
        "border_mass": (raw,),
        "centre_distance": (raw,),
    }
    for name, given in arguments.items():
        together = getattr(metrics, name)(*given)
        alone = [getattr(metrics, name)(*(part[i : i + 1] for part in given)) for i in range(4)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=0.0, equal_nan=True, msg=name)


def test_metrics_do_not_change_if_each_cell_becomes_a_square_of_pixels():
    generator = torch.Generator().manual_seed(1)
    raw = torch.rand(3, 6, 8, generator=generator)
    masks = torch.rand(3, 24, 32, generator=generator) > 0.8
    large = raw.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    torch.testing.assert_close(metrics.relevance_mass(large, masks), metrics.relevance_mass(raw, masks))
    for metric in (metrics.border_mass, metrics.centre_distance):
        torch.testing.assert_close(metric(large), metric(raw), rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(metrics.strength(large), metrics.strength(raw))
