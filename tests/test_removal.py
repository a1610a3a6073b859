"""ROAD equals pytorch-grad-cam's, results by hand, and networks of which it is known what they rely on."""

import numpy as np
import pytest
import torch
from conftest import ThinVGG
from pytorch_grad_cam.metrics.perturbation_confidence import PerturbationConfidenceMetric, RemoveMostRelevantFirst
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch.nn import functional

from gradcam_callback import GradCAM, GradCAMWarning, ProbeSet
from gradcam_callback.measures.removal import SHARES, hottest, impute, road
from gradcam_callback.run import Evaluator

# The peer calls NumPy on tensors.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")


def blobs(n, height, width, seed=0):
    """Return smooth maps of the size of the image, without two equal pixels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 1, 5, 5, generator=generator)
    smooth = functional.interpolate(coarse, (height, width), mode="bicubic")[:, 0].abs()
    return smooth + 1e-3 * torch.rand(n, height, width, generator=generator)


HOLES = {
    "blobs": lambda h, w: hottest(blobs(1, h, w), 30, h, w)[0],
    "most": lambda h, w: hottest(blobs(1, h, w), 95, h, w)[0],
    "scattered": lambda h, w: torch.rand(h, w, generator=torch.Generator().manual_seed(2)) < 0.5,
    "one stays": lambda h, w: torch.arange(h * w).reshape(h, w) != 7,
    "rows": lambda h, w: torch.arange(h)[:, None].expand(h, w) % 3 > 0,
    "border": lambda h, w: functional.pad(torch.zeros(h - 4, w - 4), (2, 2, 2, 2), value=1) > 0,
    "corner": lambda h, w: (torch.arange(h)[:, None] < 3) & (torch.arange(w) < 4),
}


@pytest.mark.parametrize("size", [(24, 24), (17, 30), (30, 17)])
@pytest.mark.parametrize("name", HOLES)
def test_imputed_images_equal_those_of_the_peer(name, size):
    image = torch.randn(3, *size, generator=torch.Generator().manual_seed(1))
    hole = HOLES[name](*size)
    expected = NoisyLinearImputer(noise=0)(image, (~hole).float())
    (found,) = impute(image[None], hole[None], noise=0)
    assert hole.any() and torch.equal(found[:, ~hole], image[:, ~hole])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_road_equals_the_change_of_confidence_of_the_peer():
    torch.manual_seed(0)
    model, images, maps = ThinVGG().eval(), torch.rand(3, 3, 40, 56), blobs(3, 40, 56)
    # With random weights, the image hardly matters.
    model.classifier[-1].weight.data.mul_(100)
    model.classifier[-1].bias.data.sub_(model(images).detach().mean(dim=0))
    classes = [2, 0, 1]
    targets = [ClassifierOutputSoftmaxTarget(index) for index in classes]
    changes = [
        PerturbationConfidenceMetric(RemoveMostRelevantFirst(100 - share, NoisyLinearImputer(noise=0)))(
            images, maps.numpy(), targets, model
        )
        for share in (10, 30, 50)
    ]

    def probability(given):
        with torch.no_grad():
            return model(given).softmax(dim=1)[torch.arange(3), classes]

    found = road(probability, images, maps, noise=0)
    expected = -np.mean(changes, axis=0)
    assert np.abs(expected).min() > 1e-3
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-5)


def test_a_single_removed_pixel_is_the_weighted_mean_of_its_neighbours():
    image = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0], [64.0, 128.0, 256.0]])
    by_hand = {
        (1, 1): (2 * (2 + 8 + 32 + 128) + 1 + 4 + 64 + 256) / 12,
        (0, 1): (2 * (1 + 4 + 16) + 8 + 32) / 8,
        (2, 2): (2 * (128 + 32) + 16) / 5,
    }
    for (row, column), expected in by_hand.items():
        removed = torch.zeros(1, 3, 3, dtype=torch.bool)
        removed[0, row, column] = True
        assert float(impute(image[None, None], removed, noise=0)[0, 0, row, column]) == pytest.approx(expected)


def test_noise_lies_on_removed_pixels_only_and_is_the_same_for_every_image_alone_or_together():
    images, removed = torch.rand(3, 3, 60, 60), hottest(blobs(3, 60, 60), 40, 60, 60)
    state = torch.get_rng_state()
    found = impute(images, removed, noise=0.01)
    assert torch.equal(torch.get_rng_state(), state)
    noise = found - impute(images, removed, noise=0)
    assert not noise.masked_select(~removed[:, None]).any()
    on_removed = noise.masked_select(removed[:, None])
    assert float(on_removed.std()) == pytest.approx(0.01, rel=0.05) and abs(float(on_removed.mean())) < 5e-4
    both = removed[0] & removed[1]
    torch.testing.assert_close(noise[0][:, both], noise[1][:, both], rtol=0, atol=1e-6)
    assert torch.equal(impute(images[1:2], removed[1:2])[0], found[1])
    assert not torch.equal(impute(images, removed, seed=1), found)


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    images, maps = torch.rand(1, 1, 9, 9), blobs(1, 9, 9)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    road(lambda given: given.mean(dim=(1, 2, 3)), images, maps)
    assert torch.equal(torch.get_rng_state(), states[0]) and (np.random.get_state()[1] == states[1]).all()


@pytest.mark.parametrize("share", [*SHARES, 75])
def test_the_hottest_share_is_removed(share):
    maps = blobs(2, 20, 20)
    areas = hottest(maps, share, 20, 20)
    assert (areas.sum(dim=(1, 2)) == 4 * share).all()
    for area, raw in zip(areas, maps, strict=True):
        assert raw[area].min() > raw[~area].max()


def test_equal_pixels_are_removed_together_and_the_lowest_never():
    maps = torch.zeros(2, 10, 10)
    maps[:, :4] = 1
    maps[:, 0, 0] = 2
    maps[1] += 3  # the lowest are no longer 0
    for share, expected in [(1, 1), (30, 40), (50, 40)]:
        assert hottest(maps, share, 10, 10).sum(dim=(1, 2)).tolist() == [expected] * 2, share


def test_a_network_that_relies_on_the_hottest_pixels_is_told_from_one_that_does_not():
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    maps = torch.zeros(2, 8, 8)
    maps[:, 2, 2] = 1
    there = hottest(maps, SHARES[0], 32, 32)[0]

    def texture(area):
        """Return a probability that falls if the texture of an area goes."""
        return lambda given: given[:, :, area].std(dim=(1, 2))

    assert (road(texture(there), images, maps) > 0.1).all()
    assert road(texture(there.flip(0, 1)), images, maps).abs().max() == 0
    assert road(lambda given: given.new_full((2,), 0.7), images, maps).abs().max() == 0


def test_maps_that_rank_no_pixel_have_no_value():
    maps = torch.stack([torch.zeros(4, 4), torch.ones(4, 4), torch.eye(4)])
    values = road(lambda given: given.mean(dim=(1, 2, 3)), torch.rand(3, 1, 12, 12), maps)
    assert values.isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("size", [(32, 32), (24, 36), (50, 41)])
@pytest.mark.parametrize("heat", [0.3, 0.37, 1.0, 2.7, 1e-6])
def test_between_cells_of_equal_heat_rounding_ranks_no_pixel(heat, size):
    for cells in ((1, 1), (2, 2), (5, 5), (7, 3)):
        even = torch.full((1, *cells), heat)
        assert road(lambda given: given.mean(dim=(1, 2, 3)), torch.rand(1, 1, *size), even).isnan().all()
    # Only the last quarter of the rows is not even. Above it, the lowest heat stays, and the highest goes together.
    steps = torch.full((2, 8, 8), heat)
    steps[0, 6:], steps[1, 6:] = 3 * heat, 0
    low, high = hottest(steps, 50, *size)
    even_rows = size[0] * 5 // 8
    assert low.any() and not low[:even_rows].any()
    assert high[:even_rows].all()


def test_road_on_large_images_is_said_to_take_long(thin):
    large, small = (ProbeSet(torch.rand(2, 3, side, 32), [0, 1]) for side in (449, 448))
    with pytest.warns(GradCAMWarning, match="takes long for probe images of 449 x 32: .* a minute at 800 x 800"):
        Evaluator(GradCAM(thin, "block5_conv3"), large, check_faithfulness="road")
    Evaluator(GradCAM(thin, "block5_conv3"), small, check_faithfulness="road")
    Evaluator(GradCAM(thin, "block5_conv3"), large, check_faithfulness="blur")
