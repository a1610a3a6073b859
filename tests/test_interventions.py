"""Interventions change the part of an image that they promise to change, and nothing else."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import Toys

from gradcam_callback import ProbeSet
from gradcam_callback.measures import BOXES, FRAME, MASKS
from gradcam_callback.measures.inpaint import _reach_counter, _usable, paint_out
from gradcam_callback.measures.interventions import GOOD_DONOR, Counterfactuals
from gradcam_callback.run.interventions import Interventions
from gradcam_callback.run.turns import Turn


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


def test_a_hole_is_filled_from_inside_the_image_and_outside_of_the_hole():
    hole = torch.zeros(4, 5, dtype=torch.bool)
    hole[1:3, 2:] = True
    places, shifts = (
        torch.cartesian_prod(torch.arange(4), torch.arange(5)),
        torch.cartesian_prod(*2 * [torch.arange(-4, 5)]),
    )
    shifts = shifts[shifts[:, 0].abs() < 4]
    expected = [
        [0 <= y + dy < 4 and 0 <= x + dx < 5 and not hole[y + dy, x + dx] for y, x in places.tolist()]
        for dy, dx in shifts.tolist()
    ]
    assert _usable(places, shifts, hole).tolist() == expected
    counts = _reach_counter(~hole)(places)[shifts[:, 0], shifts[:, 1]]
    assert counts.tolist() == [sum(of_one_shift) for of_one_shift in expected]


@pytest.mark.parametrize("size", [(32, 48), (33, 31)])
def test_places_that_a_shift_reaches_are_counted_exactly_for_all_shifts(size):
    hole = torch.rand(size) < 0.4
    places = (torch.rand(size) < 0.3).nonzero()
    shifts = torch.cartesian_prod(torch.arange(1 - size[0], size[0]), torch.arange(1 - size[1], size[1]))
    counts = _reach_counter(~hole)(places)[shifts[:, 0], shifts[:, 1]]
    assert torch.equal(counts.long(), _usable(places, shifts, hole).sum(dim=1))


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_of_any_precision_are_painted_and_shown_alone(dtype):
    torch.manual_seed(0)
    images, masks = torch.rand(4, 3, 224, 224) * 100, torch.zeros(4, 224, 224, dtype=torch.bool)
    masks[:, 40:200, 40:200] = True
    exact, found = (Counterfactuals(each, torch.tensor([0, 0, 1, 1]), masks) for each in (images, images.to(dtype)))
    for changed in (found.remove(torch.tensor([0])), found.isolate(torch.tensor([0])), found.paste(found.other_class)):
        assert changed.dtype == dtype and changed.isfinite().all()
    torch.testing.assert_close(found._colour.float(), exact._colour, rtol=0.01, atol=0)


def test_the_basis_says_what_told_the_object_from_the_background():
    images, labels = torch.rand(4, 3, 16, 16), [0, 0, 1, 1]
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[4:10, 4:10] = True
    box = (4, 4, 10, 10)
    for masks, basis in (([mask] * 4, MASKS), ([mask, mask, mask, box], BOXES), (None, FRAME)):
        assert Interventions(ProbeSet(images, labels, masks), seed=0).basis == basis


def means(images):
    return images.mean(dim=(0, 2, 3))


@pytest.mark.parametrize("kind", ["same_class", "other_class"])
def test_pasted_images_hold_the_object_whole_on_ground_of_the_right_class(toys, kind):
    images, labels, masks = toys
    sets = Counterfactuals(images, labels, masks, n_donors=2, seed=0)
    swaps = getattr(sets, kind)
    pasted = sets.paste(swaps)
    assert pasted.shape == (18, 3, 96, 96)
    assert swaps.objects.tolist() == [i for i in range(9) for _ in range(2)]
    ground = torch.stack([means(sets.remove((labels == c).nonzero()[:, 0])) for c in range(3)])
    for image, source in zip(pasted, swaps.objects.tolist(), strict=True):
        assert torch.equal(image[:, masks[source]], images[source][:, masks[source]])
        outside = image[:, ~masks[source]].mean(dim=1)
        is_own = int((ground - outside).norm(dim=1).argmin()) == int(labels[source])
        assert is_own == (kind == "same_class")


def test_the_control_is_pasted_as_the_swap_is(toys):
    """Both paint out the donor and cut the object with the same mask, so that only the background differs."""
    images, labels, masks = toys
    sets = Counterfactuals(images, labels, masks)
    for swaps in (sets.same_class, sets.other_class):
        for image, i, j in zip(sets.paste(swaps), swaps.objects.tolist(), swaps.donors.tolist(), strict=True):
            assert i != j, "never its own background"
            assert torch.equal(image, torch.where(masks[i], images[i], sets.remove(torch.tensor([j]))[0]))


def test_a_part_of_the_swaps_gives_a_part_of_the_images(toys):
    sets = Counterfactuals(*toys)
    swaps = sets.other_class
    assert torch.equal(sets.paste(swaps[3:7]), sets.paste(swaps)[3:7]) and len(swaps[3:7]) == 4


def test_images_that_are_painted_several_at_a_time_are_painted_alike(toys, monkeypatch):
    alone = Counterfactuals(*toys)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    started = []
    monkeypatch.setattr(
        "gradcam_callback.measures.interventions.ThreadPoolExecutor",
        lambda count: started.append(count) or ThreadPoolExecutor(count),
    )
    objects = torch.arange(len(toys[0]))
    assert torch.equal(Counterfactuals(*toys).remove(objects), alone.remove(objects))
    # As in a validation of Lightning: this mode is one of a thread.
    with torch.inference_mode():
        assert torch.equal(Counterfactuals(*(each.clone() for each in toys)).remove(objects), alone.remove(objects))
    assert started == [4, 4]


def test_donors_are_fixed_by_the_seed(toys):
    # With one donor of each kind there is a choice, also of the two other images of a class.
    for kind in ("same_class", "other_class"):
        first, again, other = (getattr(Counterfactuals(*toys, n_donors=1, seed=seed), kind) for seed in (4, 4, 5))
        assert torch.equal(first.donors, again.donors) and not torch.equal(first.donors, other.donors)


def test_the_other_classes_take_turns_as_donors_of_an_object(toys):
    swaps = Counterfactuals(*toys, n_donors=4, seed=1).other_class
    labels = toys[1]
    for i in range(9):
        donors = swaps.donors[swaps.objects == i]
        assert len(set(donors.tolist())) == 4, "four different images"
        others = sorted({0, 1, 2} - {int(labels[i])})
        assert sorted(labels[donors].tolist()) == [others[0]] * 2 + [others[1]] * 2


def test_foreground_has_the_same_colour_around_every_object(toys):
    images, labels, masks = toys
    foreground = Counterfactuals(images, labels, masks).isolate(torch.arange(len(images)))
    outside = torch.cat([image[:, ~mask] for image, mask in zip(foreground, masks, strict=True)], dim=1)
    assert (outside.amax(dim=1) - outside.amin(dim=1)).max() < 1e-5
    assert torch.equal(foreground[0][:, masks[0]], images[0][:, masks[0]])


@pytest.mark.parametrize("turn", [None, Turn(1)])
def test_images_that_are_made_a_few_at_a_time_get_the_same_answers(toys, monkeypatch, turn):
    interventions, sizes = Interventions(ProbeSet(*toys), seed=0), []

    def predict(images, numbers):
        sizes.append(len(images))
        return torch.cat([images.mean(dim=(2, 3)), numbers[:, None]], dim=1)

    at_once = interventions.ask(predict, turn=turn)
    assert max(sizes) > 2
    monkeypatch.setattr("gradcam_callback.run.interventions._AT_ONCE", 2)
    sizes.clear()
    for name, parts in interventions.ask(predict, turn=turn).items():
        assert all(torch.equal(*each) for each in zip(parts, at_once[name], strict=True))
    assert max(sizes) == 2


def test_objects_of_one_class_have_a_control_only(toys):
    images, labels, masks = toys
    one = labels == 0
    sets = Counterfactuals(images[one], labels[one], masks[one])
    assert len(sets.other_class) == 0 and len(sets.paste(sets.other_class)) == 0
    assert sets.same_class.objects.tolist() == [0, 0, 1, 1, 2, 2], "a class of three images has two donors"


def test_a_class_with_a_single_image_has_no_control(toys):
    images, _, masks = toys
    sets = Counterfactuals(images[:5], torch.tensor([0, 0, 1, 2, 2]), masks[:5])
    assert set(sets.same_class.objects.tolist()) == {0, 1, 3, 4}
    assert set(sets.other_class.objects.tolist()) == set(range(5))


def pairs_of(swaps):
    return set(zip(swaps.objects.tolist(), swaps.donors.tolist(), strict=True))


def test_with_several_labels_no_donor_shows_the_object_a_second_time(toys):
    images, _, masks = toys
    labels = torch.tensor([0, 0, 1, 0, 1])
    # The third and the fourth are one photograph that holds both classes.
    present = torch.tensor([[1, 0], [1, 0], [1, 1], [1, 1], [0, 1]]).bool()
    sets = Counterfactuals(images[[0, 1, 2, 2, 3]], labels, masks[:5], present=present)
    # An object of class 0 is put on images whose own object of class 0 is painted out, and not on its own photograph.
    assert pairs_of(sets.same_class) == {(0, 1), (0, 3), (1, 0), (1, 3), (3, 0), (3, 1), (2, 4), (4, 2)}
    assert pairs_of(sets.other_class) == {(0, 4), (1, 4), (3, 4), (2, 0), (2, 1), (4, 0), (4, 1)}
    assert sets.photographs.tolist() == [0, 1, 2, 2, 4]


def test_another_object_of_the_photograph_does_not_fill_the_hole():
    """Both objects are cyan squares on a white square. The copy that fits best around one of them is the other one."""
    image = 0.5 + 0.1 * torch.randn(3, 48, 96, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 48, 96, dtype=torch.bool)
    for mask, left in zip(masks, (10, 60), strict=True):
        mask[14:34, left : left + 20] = True
        image[:, 9:39, left - 5 : left + 25] = 1
        image[:, mask] = torch.tensor([0.0, 1.0, 1.0])[:, None]
    without = Counterfactuals(torch.stack([image] * 2), torch.tensor([0, 1]), masks).remove(torch.arange(2))
    for shown, mask, other in zip(without, masks, masks.flip(0), strict=True):
        assert shown[0, mask].min() > 0.1 and torch.equal(shown[:, other], image[:, other])
    assert paint_out(image[None], masks[:1])[0, 0, masks[0]].min() == 0, "unless it is told of it"


def test_a_photograph_is_no_donor_of_its_other_object(toys):
    images, _, masks = toys
    # Two objects of one class on the first photograph, each with its own mask.
    sets = Counterfactuals(images[[0, 0, 1]], torch.tensor([0, 0, 0]), masks[:3])
    assert pairs_of(sets.same_class) == {(0, 2), (1, 2), (2, 0), (2, 1)}


def test_images_with_much_true_background_are_the_first_choice_as_donors(toys):
    images, _, masks = toys
    large = masks[:8].clone()
    large[::2, :40] = True  # these fill 42 % or more of the image
    assert ((large.double().mean(dim=(1, 2)) > GOOD_DONOR) == torch.tensor([True, False] * 4)).all()
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    for seed in range(4):
        sets = Counterfactuals(images[:8], labels, large, n_donors=2, seed=seed)
        assert (sets.other_class.donors % 2 == 1).all(), "both small ones of the other class"
        for i in range(8):
            own = set(sets.same_class.donors[sets.same_class.objects == i].tolist())
            small = {1, 3} if i < 4 else {5, 7}
            assert len(own) == 2 and (own == small if i % 2 == 0 else small - {i} < own), "as many as there are"
