"""Properties of measures, maps and layers for any input: a few are tried by default, many with ``make fuzz``."""

import math

import numpy as np
import pytest
import torch
from conftest import ThinVGG
from fuzzing import tries
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sameness import assert_same, snapshot

from gradcam_callback import GradCAM
from gradcam_callback.maps import resolve_layers
from gradcam_callback.maps.methods import METHODS
from gradcam_callback.measures import metrics

ROUNDING = 1e-9


# Measures.

# Nothing, the smallest and the largest that maps may hold, and all between.
SIZES = st.one_of(st.just(0.0), st.sampled_from([1e-30, 1.0, 1e30]), st.floats(0, 1e30), st.floats(1e-30, 1))


@st.composite
def maps_and_masks(draw, values=SIZES):
    """``(N, h, w)`` float32 or float64, and ``(N, H, W)`` bool of any other size, of which none is empty."""
    n, h, w = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    maps = draw(npst.arrays(np.float64, (n, h, w), elements=values)).astype(dtype)
    size = n, draw(st.integers(1, 9)), draw(st.integers(1, 9))
    masks = draw(npst.arrays(bool, size))
    for mask in masks:
        mask[draw(st.integers(0, size[1] - 1)), draw(st.integers(0, size[2] - 1))] = True
    return torch.from_numpy(maps), torch.from_numpy(masks)


def measures(maps, masks):
    """Return the metrics that do not depend on the size of a map's values, NaN if undefined."""
    mass = metrics.relevance_mass(maps, masks)
    return {
        "relevance_mass": mass,
        "lift": metrics.lift(mass, metrics.mask_area(masks))[None],
        "pointing_game": metrics.pointing_game(maps, masks),
        "entropy": metrics.entropy(maps),
        "border_mass": metrics.border_mass(maps),
        "centre_distance": metrics.centre_distance(maps),
    }


def assert_alike(found, expected):
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-7, atol=ROUNDING, equal_nan=True, msg=name)


@tries(10)
@given(maps_and_masks())
def test_measures_are_within_their_documented_ranges(given_both):
    maps, masks = given_both
    empty = metrics.is_empty(maps)
    assert torch.equal(empty, (maps == 0).flatten(1).all(dim=1))
    found = measures(maps, masks)
    for name in ("relevance_mass", "entropy", "border_mass", "centre_distance"):
        assert torch.equal(found[name].isnan(), empty), f"{name} is NaN for empty maps alone"
        defined = found[name][~empty]
        assert bool(((defined >= -ROUNDING) & (defined <= 1 + ROUNDING)).all()), name
    assert bool(((found["pointing_game"] >= 0) & (found["pointing_game"] <= 1)).all())
    assert not found["pointing_game"][empty].any()
    assert bool(found["lift"].isnan()) == bool(empty.all()) and not found["lift"] < 0
    assert bool((metrics.strength(maps) >= 0).all() and metrics.strength(maps).isfinite().all())
    mean = float(found["entropy"].nanmean())
    assert math.isnan(mean) if empty.all() else 0 <= mean <= 1 + ROUNDING


@tries(5)
# None so small that it would be rounded when it is multiplied.
@given(maps_and_masks(st.just(0.0) | st.floats(1e-250, 1e30)), st.integers(-60, 60), st.floats(1e-20, 1e20))
def test_measures_do_not_depend_on_how_large_a_maps_values_are(given_both, power, factor):
    maps, masks = given_both[0].double(), given_both[1]
    expected = measures(maps, masks)
    assert_alike(measures(maps * 2.0**power, masks), expected)
    # Multiplied by anything else, two hottest cells may be rounded to one value, and share the point then.
    scaled = measures(maps * factor, masks)
    assert_alike(scaled, {name: values for name, values in expected.items() if name != "pointing_game"})
    torch.testing.assert_close(metrics.strength(maps * factor), metrics.strength(maps) * factor)


@tries(5)
@given(maps_and_masks(), st.sampled_from([(1,), (2,), (1, 2)]))
def test_measures_do_not_depend_on_the_side_that_the_object_is_on(given_both, axes):
    maps, masks = given_both
    expected = measures(maps, masks) | {"strength": metrics.strength(maps)}
    turned = maps.flip(axes), masks.flip(axes)
    assert_alike(measures(*turned) | {"strength": metrics.strength(turned[0])}, expected)
    before = maps.roll(1, dims=2)
    torch.testing.assert_close(metrics.drift(maps, before), metrics.drift(turned[0], before.flip(axes)))


@tries(5)
@given(maps_and_masks())
def test_what_is_on_the_object_and_what_is_not_make_up_the_whole(given_both):
    maps, masks = given_both
    whole = metrics.relevance_mass(maps, masks) + metrics.relevance_mass(maps, ~masks)
    torch.testing.assert_close(
        whole[~metrics.is_empty(maps)], torch.ones(int((~metrics.is_empty(maps)).sum())).double()
    )
    even = torch.ones_like(maps)
    torch.testing.assert_close(metrics.relevance_mass(even, masks), metrics.mask_area(masks))
    assert metrics.lift(metrics.relevance_mass(even, masks), metrics.mask_area(masks)).item() == pytest.approx(1)


@tries(5)
@given(maps_and_masks(), st.integers(1, 3), st.integers(1, 3))
def test_cells_cut_into_cells_of_the_same_value_have_the_same_measures(given_both, rows, columns):
    maps, masks = given_both
    finer = maps.repeat_interleave(rows, dim=1).repeat_interleave(columns, dim=2)
    expected = measures(maps, masks)
    for changes in ("pointing_game", "entropy"):  # the one is of cells, the other of their number
        del expected[changes]
    assert_alike(measures(finer, masks), expected)
    torch.testing.assert_close(metrics.strength(finer), metrics.strength(maps))


@tries(5)
@given(maps_and_masks(st.just(0.0) | st.floats(1e-250, 1e30)), st.data(), st.floats(1e-20, 1e20))
def test_drift_is_a_distance_of_shapes(given_both, data, factor):
    maps = given_both[0]
    before = torch.from_numpy(data.draw(npst.arrays(np.float64, tuple(maps.shape), elements=SIZES)))
    drift = metrics.drift(maps, before)
    assert bool(((drift >= 0) & (drift <= 1)).all())
    torch.testing.assert_close(drift, metrics.drift(before, maps))
    assert bool((metrics.drift(maps, maps.double() * factor) < 1e-6).all())
    one_empty = metrics.is_empty(maps) ^ metrics.is_empty(before)
    assert bool((drift[one_empty] == 1).all())


# Maps.


@st.composite
def models(draw):
    """A thin VGG16 as training may have left it: some of it frozen, in eval mode, with gradients pending."""
    torch.manual_seed(draw(st.integers(0, 5)))
    model = ThinVGG(classes=draw(st.sampled_from([1, 2, 3])), batch_norm=draw(st.booleans())).double()
    parameters, modules = list(model.parameters()), list(model.modules())
    for parameter in parameters[: draw(st.integers(0, len(parameters)))]:
        parameter.requires_grad_(False)
    for parameter in parameters[draw(st.integers(0, len(parameters))) :]:
        parameter.grad = torch.ones_like(parameter)
    for module in draw(st.lists(st.sampled_from(modules), max_size=5)):
        module.training = not module.training
    return model


LAYERS = st.lists(st.sampled_from(["block1_conv1", "block2", "block5_conv3", "block5", "features.4"]), min_size=1)


@tries(1)
@given(
    models(), LAYERS, st.integers(1, 3), st.integers(32, 70), st.integers(32, 70), st.none() | st.integers(1, 4),
    st.sampled_from(list(METHODS)), st.data(),
)  # fmt: skip
def test_maps_of_a_batch_are_those_of_its_images_and_leave_no_trace(model, layers, n, h, w, chunk_size, method, data):
    images = torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(h)).double()
    classes = max(2, model.classifier[-1].out_features)
    one = st.integers(0, classes - 1)
    targets = data.draw(st.none() | one | st.lists(one, min_size=n, max_size=n))
    before = snapshot(model)
    batch = GradCAM(model, layers, chunk_size=chunk_size, method=method)(images, targets)
    assert_same(before, snapshot(model))
    assert batch.logits.shape == (n, model.classifier[-1].out_features) and not batch.nonfinite.any()
    if targets is not None:
        assert batch.targets.tolist() == ([targets] * n if isinstance(targets, int) else targets)
    single = GradCAM(model, layers, method=method)
    for i in range(n):
        alone = single(images[i : i + 1], int(batch.targets[i]) if targets is not None else None)
        torch.testing.assert_close(alone.logits[0], batch.logits[i])
        assert alone.targets[0] == batch.targets[i]
        assert list(alone.maps) == list(batch.maps)
        for layer, raw in batch.maps.items():
            assert len(raw) == n and bool((raw >= 0).all() and raw.isfinite().all())
            scale = float(alone.maps[layer].max())
            assert float((raw[i] - alone.maps[layer][0]).abs().max()) <= 1e-8 * scale, layer
    assert_same(before, snapshot(model))


@pytest.fixture(scope="module")
def idle():
    torch.manual_seed(0)
    return ThinVGG(classes=3)


# Of 3 classes and two images.
WRONG_TARGETS = st.one_of(
    st.integers(max_value=-1, min_value=-(2**63)),
    st.integers(min_value=3, max_value=2**63 - 1),
    st.floats(),
    st.booleans(),
    st.lists(st.integers(0, 2)).filter(lambda targets: len(targets) != 2),
    st.lists(st.integers(3, 9) | st.integers(-9, -1), min_size=2, max_size=2),
    st.lists(st.floats(), min_size=2, max_size=2),
    npst.arrays(np.int64, npst.array_shapes(min_dims=2, max_dims=3, max_side=3), elements=st.integers(0, 2)),
)


@tries(2)
@given(WRONG_TARGETS)
def test_wrong_targets_are_refused_without_a_trace(idle, targets):
    before = snapshot(idle)
    with pytest.raises(ValueError, match="Expected"):
        GradCAM(idle, "block5_conv3")(torch.zeros(2, 3, 32, 32), targets)
    assert_same(before, snapshot(idle))


# Layers.

BLOCKS = (2, 2, 3, 3, 3)
CONVOLUTIONS = [f"block{b}_conv{c}" for b, n in enumerate(BLOCKS, 1) for c in range(1, n + 1)]
DOTTED = [name for name, _ in ThinVGG().named_modules() if name]


def meant(name):
    """The layers that a name means, written down a second time; none where it means nothing."""
    short = name.removeprefix("features.") if name not in DOTTED else ""
    if short == "all":
        return CONVOLUTIONS
    found = [layer for layer in CONVOLUTIONS if short in (layer, layer.split("_")[0])]
    return found or ([name] if name in DOTTED else [])


@tries(3)
@given(st.lists(st.sampled_from(["all", *CONVOLUTIONS, *(f"block{b}" for b in range(1, 6)), *DOTTED]), min_size=1))
def test_valid_names_give_their_layers_in_order_and_each_once(idle, wanted):
    found = resolve_layers(idle, wanted)
    names = [layer.name for layer in found]
    assert sorted(names) == sorted({layer for name in wanted for layer in meant(name)})
    place = {module: i for i, module in enumerate(idle.modules())}
    places = [place[layer.module] for layer in found]
    assert places == sorted(places)
    assert [name for name in names if name in CONVOLUTIONS] == [name for name in CONVOLUTIONS if name in names]
    shuffled = resolve_layers(idle, wanted[::-1])
    assert {layer.name for layer in shuffled} == set(names)


NEARLY = st.tuples(st.sampled_from([*CONVOLUTIONS, *DOTTED]), st.text(max_size=2), st.integers(0, 20)).map(
    lambda parts: parts[0][: parts[2]] + parts[1] + parts[0][parts[2] + 1 :]
)


@tries(3)
@given(st.text() | NEARLY, st.lists(st.sampled_from(CONVOLUTIONS), max_size=2))
def test_any_other_text_is_refused_with_the_choices(idle, text, others):
    assume(not meant(text))
    with pytest.raises(ValueError) as caught:
        resolve_layers(idle, [*others, text])
    assert repr(text) in str(caught.value)
    for choice in ("'all'", "block1", "block5_conv3", "features.0", "classifier.2"):
        assert choice in str(caught.value)


@tries(1)
@given(st.one_of(st.none(), st.integers(), st.lists(st.none() | st.integers() | st.binary(), min_size=1), st.just([])))
def test_what_is_no_text_is_refused_as_a_layer(idle, wanted):
    with pytest.raises(ValueError, match="Expected"):
        resolve_layers(idle, wanted)
