"""Interventions change the part of an image that they promise to change, and nothing else."""

import pytest
import torch
from conftest import Toys

from gradcam_callback.measures.inpaint import paint_out
from gradcam_callback.measures.interventions import make_counterfactuals


@pytest.fixture(scope="module")
def toys():
    items = Toys(9, bias=1.0, seed=3, size=96).items
    images, labels, masks = zip(*items, strict=True)
    return torch.stack(images), torch.tensor(labels), torch.stack(masks)


def colourfulness(images):
    """Tell the toys, which are colourful, from the gravel, which is grey."""
    return images.amax(dim=1) - images.amin(dim=1)


def test_painting_out_leaves_neither_object_nor_outline(toys):
    images, labels, masks = toys
    gravel = labels == 2
    painted = paint_out(images[gravel], masks[gravel])
    before, after = colourfulness(images[gravel]), colourfulness(painted)
    assert before[masks[gravel]].mean() > 0.4
    assert after.max() < 0.2, "no colour of the toy is left anywhere"
    # A smooth fill would show the outline, so the painted area must be as rough as its surroundings.
    rough = (painted[:, :, 1:] - painted[:, :, :-1]).abs().mean(dim=1)
    inside = masks[gravel][:, 1:]
    assert 0.7 < rough[inside].mean() / rough[~inside].mean() < 1.4


def test_painting_out_keeps_pixels_away_from_the_mask(toys):
    images, _, masks = toys
    far = ~(torch.nn.functional.max_pool2d(masks[:, None].float(), 25, 1, 12)[:, 0] > 0)
    changed = (paint_out(images, masks) - images).abs().sum(dim=1)
    assert far.any() and changed[far].max() == 0


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 1.0])
def test_painting_out_large_objects_gives_finite_colours_of_the_surroundings(share):
    image = torch.full((1, 3, 40, 40), 0.25)
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[:, :, : round(40 * share)] = True
    image[:, :, :, : round(40 * share)] = 9.0
    painted = paint_out(image, mask)
    assert painted.isfinite().all()
    if share < 1:
        torch.testing.assert_close(painted, torch.full_like(painted, 0.25), atol=1e-4, rtol=0)


def test_swapped_images_hold_the_object_whole_on_ground_of_another_class(toys):
    images, labels, masks = toys
    sets = make_counterfactuals(images, labels, masks, n_donors=2, seed=0)
    assert sets.swapped.shape == (18, 3, 96, 96)
    assert sets.objects.tolist() == [i for i in range(9) for _ in range(2)]
    ground = torch.stack([sets.background[labels == c].mean(dim=(0, 2, 3)) for c in range(3)])
    for image, source in zip(sets.swapped, sets.objects.tolist(), strict=True):
        assert torch.equal(image[:, masks[source]], images[source][:, masks[source]])
        outside = image[:, ~masks[source]].mean(dim=1)
        assert int((ground - outside).norm(dim=1).argmin()) != int(labels[source])


def test_donors_are_fixed_by_the_seed(toys):
    first, again = make_counterfactuals(*toys, seed=4).swapped, make_counterfactuals(*toys, seed=4).swapped
    assert torch.equal(first, again)
    assert not torch.equal(first, make_counterfactuals(*toys, seed=5).swapped)


def test_the_other_classes_take_turns_as_donors_of_an_object(toys):
    sets = make_counterfactuals(*toys, n_donors=4, seed=1)
    labels = toys[1]
    for i in range(9):
        donors = sets.donors[sets.objects == i]
        assert len(set(donors.tolist())) == 4, "four different images"
        others = sorted({0, 1, 2} - {int(labels[i])})
        assert sorted(labels[donors].tolist()) == [others[0]] * 2 + [others[1]] * 2


def test_foreground_has_the_same_colour_around_every_object(toys):
    images, labels, masks = toys
    foreground = make_counterfactuals(images, labels, masks).foreground
    outside = torch.cat([image[:, ~mask] for image, mask in zip(foreground, masks, strict=True)], dim=1)
    assert (outside.amax(dim=1) - outside.amin(dim=1)).max() < 1e-5
    assert torch.equal(foreground[0][:, masks[0]], images[0][:, masks[0]])


def test_objects_of_one_class_cannot_be_swapped(toys):
    images, labels, masks = toys
    one = labels == 0
    sets = make_counterfactuals(images[one], labels[one], masks[one])
    assert sets.swapped is None and len(sets.objects) == len(sets.donors) == 0
