"""The deletion test, on networks of which it is known which part of the image they rely on."""

import pytest
import torch

from gradcam_callback.measures.deletion import faithfulness, regions


def spot(h, w, row, column):
    maps = torch.zeros(1, h, w)
    maps[0, row, column] = 1
    return maps


def test_both_regions_are_a_fifth_and_have_no_pixel_in_common():
    maps = torch.rand(4, 7, 9, generator=torch.Generator().manual_seed(0))
    hottest, elsewhere = regions(maps, 56, 90)
    assert not (hottest & elsewhere).any()
    assert torch.equal(hottest.sum(dim=(1, 2)), elsewhere.sum(dim=(1, 2)))
    assert (hottest.float().mean(dim=(1, 2)) <= 0.2 + 1e-3).all()
    hottest, elsewhere = regions(spot(8, 8, 1, 6), 64, 64)
    assert hottest.float().mean() == pytest.approx(0.2, abs=1e-3), "a blob that is moved away does not overlap itself"
    assert hottest[0, 12, 52] and not elsewhere[0, 12, 52]


def test_a_network_that_relies_on_the_spot_is_told_from_one_that_relies_on_another():
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    def sharpness(area):
        """Return a probability that drops if the area is blurred."""
        return lambda given: given[:, :, area].std(dim=(1, 2))

    maps = spot(8, 8, 1, 1).expand(3, -1, -1)
    hottest, elsewhere = regions(maps, 64, 64)
    assert (faithfulness(sharpness(hottest[0]), images, maps) > 0.1).all()
    assert (faithfulness(sharpness(elsewhere[0]), images, maps) < -0.1).all()
    assert faithfulness(lambda given: given.new_full((3,), 0.7), images, maps).abs().max() == 0


def test_a_map_that_ranks_no_pixel_shows_nothing_to_rely_on():
    maps = torch.cat([spot(8, 8, 1, 1), torch.zeros(1, 8, 8), torch.full((1, 8, 8), 0.37)])
    values = faithfulness(lambda given: given.mean(dim=(1, 2, 3)), torch.rand(3, 3, 32, 32), maps)
    assert values.isnan().tolist() == [False, True, True]


@pytest.mark.parametrize("size", [(8, 8), (33, 20)])
def test_small_and_long_images_can_be_blurred(size):
    values = faithfulness(lambda given: given.mean(dim=(1, 2, 3)), torch.rand(1, 3, *size), spot(2, 2, 0, 1))
    assert values.isfinite().all()
