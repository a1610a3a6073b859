"""Tests that the frozen prefix is reused while nothing changes, dropped after any change, and bounded in memory."""

import copy
from collections import Counter

import pytest
import torch
from conftest import ThinVGG
from torch import nn
from torch.nn import functional

from gradcam_callback import GradCAM, GradCAMCallback, ProbeSet
from gradcam_callback.maps.frozen_prefix import FrozenPrefix

FROZEN = 34  # features[:34] are blocks 1 to 4 of a thin VGG with batch norm, with 10 of its 13 convolutions
IMAGES = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def model(thin):
    assert isinstance(thin.features[FROZEN - 1], nn.MaxPool2d)
    assert sum(isinstance(module, nn.Conv2d) for module in thin.features[:FROZEN]) == 10
    thin.features[:FROZEN].requires_grad_(False)
    return thin.eval()


@pytest.fixture
def convolutions(monkeypatch):
    """Record the convolutions that are computed."""
    computed = []
    real = functional.conv2d

    def spy(*args, **kwargs):
        computed.append(args[0].shape)
        return real(*args, **kwargs)

    monkeypatch.setattr(functional, "conv2d", spy)
    return computed


def assert_same_bits(found, expected):
    assert torch.equal(found.logits, expected.logits)
    assert found.maps.keys() == expected.maps.keys()
    for name, raw in found.maps.items():
        assert torch.equal(raw, expected.maps[name]), name
        assert raw.count_nonzero(), f"{name}: nothing to compare"


def without_reuse(model, images, layers="block5", **options):
    return GradCAM(model, layers, reuse_frozen=False, **options)(images, 1)


@pytest.mark.parametrize("chunk_size", [2, None])
def test_frozen_blocks_are_computed_once_and_the_maps_stay_the_same_to_the_bit(model, convolutions, chunk_size):
    chunks = 3 if chunk_size else 1
    cam = GradCAM(model, "block5", chunk_size=chunk_size)
    for turn in range(3):
        convolutions.clear()
        found = cam(IMAGES, 1)
        assert len(convolutions) == chunks * (13 if turn == 0 else 3)
        assert_same_bits(found, without_reuse(model, IMAGES, chunk_size=chunk_size))
        with torch.no_grad():  # the unfrozen layers continue to learn
            model.features[FROZEN].weight.mul_(1.5)


def test_predict_reuses_frozen_blocks_too(model, convolutions):
    cam = GradCAM(model, "block5")
    expected = GradCAM(model, reuse_frozen=False).predict(IMAGES)
    cam.predict(IMAGES)
    convolutions.clear()
    assert torch.equal(cam.predict(IMAGES), expected)
    assert len(convolutions) == 3


@pytest.mark.parametrize("layers", ["all", ["block4_conv1", "block5"]], ids=str)
def test_frozen_convolutions_after_the_first_target_are_computed_once(model, convolutions, layers):
    cam = GradCAM(model, layers, chunk_size=3)
    expected = without_reuse(model, IMAGES, layers, chunk_size=3)
    for turn in range(3):
        convolutions.clear()
        assert_same_bits(cam(IMAGES, 1), expected)
        assert len(convolutions) == 2 * (13 if turn == 0 else 3)
        assert torch.equal(cam.predict(IMAGES), GradCAM(model, reuse_frozen=False, chunk_size=3).predict(IMAGES))


@pytest.mark.parametrize("method", ["gradcam++", "layercam", "eigengradcam"])
def test_every_method_gets_the_gradients_of_convolutions_that_are_reused(model, method):
    cam = GradCAM(model, method=method)
    for _ in range(2):
        assert_same_bits(cam(IMAGES, 1), without_reuse(model, IMAGES, "all", method=method))


class Unusual(nn.Sequential):
    """A network whose frozen convolutions have every option, and of which one is called twice."""

    def __init__(self):
        twice = nn.Conv2d(8, 8, 3, padding=1)
        super().__init__(
            nn.Sequential(
                nn.Conv2d(3, 8, 3, padding="same"),
                nn.ReLU(),
                nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
                nn.Conv2d(8, 8, (3, 5), stride=(1, 2), padding=(2, 4), dilation=2, groups=4, bias=False),
                twice,
                nn.ReLU(inplace=True),
                nn.Sequential(twice, nn.MaxPool2d(2)),
                nn.Conv2d(8, 4, 1),
            ),
            nn.Conv2d(4, 4, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


def test_convolutions_with_any_options_are_reused(convolutions):
    torch.manual_seed(0)
    model = Unusual().eval()
    model[0].requires_grad_(False)
    layers = ["0.1", "0.3", "0.5", "0.7", "1"]
    cam = GradCAM(model, layers)
    for _ in range(2):
        convolutions.clear()
        assert_same_bits(cam(IMAGES, 1), without_reuse(model, IMAGES, layers))
    assert len(convolutions) - 7 == 3, "the padded ones, whose padding is another operation, and the one that learns"


def test_a_frozen_convolution_that_learning_layers_call_again_is_computed_there():
    torch.manual_seed(0)
    shared, learning = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1)
    features = nn.Sequential(nn.Conv2d(3, 4, 3), shared, nn.ReLU(), nn.MaxPool2d(2), learning, shared)
    features.requires_grad_(False)
    learning.requires_grad_(True)
    model = nn.Sequential()
    model.features, model.head = features, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.eval()
    cam = GradCAM(model, ["features.2", "features.4"])
    for _ in range(3):
        assert_same_bits(cam(IMAGES, 1), without_reuse(model, IMAGES, ["features.2", "features.4"]))
        learning.weight.data.mul_(1.5)


def test_the_convolutions_that_spare_most_per_byte_are_kept(model, convolutions):
    cam = GradCAM(model, chunk_size=1)
    cam(IMAGES, 1)
    whole = cam._frozen.bytes_held
    expected = without_reuse(model, IMAGES, "all", chunk_size=1)
    computed = []
    for share in (0.3, 0.6):
        cam = GradCAM(model, chunk_size=1)
        cam._frozen.limit = share * whole
        for _ in range(3):
            convolutions.clear()
            assert_same_bits(cam(IMAGES, 1), expected)
            assert cam._frozen.bytes_held <= cam._frozen.limit
        # The side of what a frozen convolution takes tells its block.
        counts = Counter(shape[2] for shape in convolutions)
        shares = [counts[side] / (n * len(IMAGES)) for side, n in ((64, 2), (32, 2), (16, 3), (8, 3))]
        assert shares == sorted(shares, reverse=True) and shares[0] > 0 == shares[-1]
        computed.append(sum(shares))
    assert computed[0] > computed[1]


class Stages(ThinVGG):
    """A VGG with its features in two Sequentials."""

    def __init__(self):
        super().__init__()
        modules = list(self.features)
        self.features = nn.ModuleList([nn.Sequential(*modules[:14]), nn.Sequential(*modules[14:])])

    def forward(self, images):
        return self.classifier(self.features[1](self.features[0](images)))


@pytest.mark.parametrize("layers, spared", [("block5", 10), (["block2_conv1", "block5"], 4), ("all", 4)])
def test_a_frozen_prefix_in_stages_is_reused_stage_by_stage(layers, spared, convolutions):
    torch.manual_seed(0)
    model = Stages().eval()
    model.features[0].requires_grad_(False)
    model.features[1][:20].requires_grad_(False)
    cam = GradCAM(model, layers)
    for _ in range(2):
        convolutions.clear()
        assert_same_bits(cam(IMAGES, 1), without_reuse(model, IMAGES, layers))
    # The second stage is spared if no gradient has to go through it.
    assert len(convolutions) == 13 - spared + 13


class Viewing(ThinVGG):
    """A VGG that needs contiguous features."""

    def forward(self, images):
        return self.classifier[2:](self.features(images).view(len(images), -1)[:, :24])


def test_a_model_that_needs_a_memory_format_gets_it(convolutions):
    model = Viewing().eval()
    model.features.requires_grad_(False)
    cam, expected = GradCAM(model, "block5"), without_reuse(model, IMAGES)
    for _ in range(2):
        convolutions.clear()
        assert_same_bits(cam(IMAGES, 1), expected)
        assert torch.equal(cam.predict(IMAGES), expected.logits)
    assert not convolutions


@pytest.mark.parametrize("layers", ["block5", "all"])
def test_a_change_of_precision_is_noticed(model, layers):
    cam = GradCAM(model, layers)
    cam(IMAGES, 1)
    cam.precision = "bf16"
    for _ in range(2):
        assert_same_bits(cam(IMAGES, 1), without_reuse(model, IMAGES, layers, precision="bf16"))


def test_hooks_on_all_modules_are_called(model):
    cam = GradCAM(model, "block5")
    cam(IMAGES, 1)
    called = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: called.append(module))
    try:
        cam(IMAGES, 1)
    finally:
        handle.remove()
    assert set(model.features) <= set(called)


def swap_averaged_weights(model):
    """Replace the storage of a parameter, as callbacks that average weights do."""
    weight = model.features[3].weight
    weight.data = weight.data.clone() * 1.01


def train_the_prefix(model):
    weight = model.features[3].weight
    optimizer = torch.optim.SGD([weight], lr=0.1)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    weight.grad = None


def load_other_weights(model):
    model.load_state_dict(ThinVGG(3).state_dict())


def nudge_one_weight(model):
    weights = model.features[0].weight.data.view(-1)
    weights[7] = weights[7].nextafter(torch.tensor(9.0))
    weights[8] *= 3


def train_batch_norm(model):
    model.train()
    model(IMAGES * 2)
    model.eval()


def hook_into(model):
    model.features[5].register_forward_hook(lambda module, inputs, output: output * 2)


def replace_forward(model):
    model.features[5].forward = lambda images: functional.relu(images) * 2


def replace_module(model):
    model.features[3] = copy.deepcopy(model.features[3])
    model.features[3].weight.data.mul_(2)


CHANGES = {
    "in place": lambda model: model.features[3].weight.data.mul_(1.5),
    "bias in place": lambda model: model.features[0].bias.data.add_(0.5),
    "one weight": nudge_one_weight,
    "load_state_dict": load_other_weights,
    "averaged weights": swap_averaged_weights,
    "optimizer": train_the_prefix,
    "buffer": lambda model: model.features[1].running_mean.add_(0.5),
    "batch norm in training": train_batch_norm,
    "module": replace_module,
    "option": lambda model: setattr(model.features[1], "eps", 0.5),
    "hook": hook_into,
    "forward": replace_forward,
}


@pytest.mark.parametrize("layers", ["block5", "all"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_of_the_prefix_is_noticed(model, change, layers):
    cam = GradCAM(model, layers)
    before = cam(IMAGES, 1)
    change(model)
    after = cam(IMAGES, 1)
    assert_same_bits(after, without_reuse(model, IMAGES, layers))
    assert not torch.equal(after.logits, before.logits), "without a difference, the test proves nothing"
    assert_same_bits(cam(IMAGES, 1), after)


def test_an_option_of_a_pooling_that_its_text_leaves_out_is_noticed(model):
    model.features[6] = nn.AvgPool2d(2)
    cam = GradCAM(model, "block5")
    before = cam(IMAGES, 1)
    model.features[6].divisor_override = 1
    after = cam(IMAGES, 1)
    assert_same_bits(after, without_reuse(model, IMAGES))
    assert not torch.equal(after.logits, before.logits)


def run_on_two_sets_of_weights(model, images):
    """Average over samples of the weights, as a Bayesian network does."""
    own = dict(model.named_parameters())
    samples = ({name: weight * scale for name, weight in own.items()} for scale in (1.0, 1.1))
    return sum(torch.func.functional_call(model, sample, (images,)) for sample in samples)


def run_on_averaged_weights_too(model, images):
    """Swap other weights in and out, as a context of averaged weights does."""
    logits = model(images)
    weight = model.features[3].weight
    with torch.no_grad():
        own = weight.clone()
        weight.mul_(1.1)
        averaged = model(images)
        weight.copy_(own)
    return logits + averaged


def hook_for_this_run(model, images):
    """Read the features of a layer by a hook for the time of a forward."""
    kept = []
    with model.features[5].register_forward_hook(
        lambda module, inputs, output: kept.append(output.mean(dim=(1, 2, 3)))
    ):
        return model(images) + kept[0][:, None] * torch.tensor([1.0, 2.0, 3.0])


def drop_in_eval_mode(model, images):
    """Turn a dropout on, as for samples of the answers (MC dropout)."""
    model.features[6][1].train()
    return model(images)


WITHIN = [run_on_two_sets_of_weights, run_on_averaged_weights_too, hook_for_this_run, drop_in_eval_mode]


@pytest.mark.parametrize("layers", ["block5", ["block2_conv1", "block5"]], ids=str)
@pytest.mark.parametrize("within", WITHIN)
@pytest.mark.filterwarnings("ignore:.* more than once")
def test_what_a_forward_does_to_its_own_frozen_modules_is_noticed(model, within, layers):
    model.features[6] = nn.Sequential(model.features[6], nn.Dropout2d()).requires_grad_(False)
    cam, always = GradCAM(model, layers), GradCAM(model, layers, reuse_frozen=False)
    for seed in range(2):
        torch.manual_seed(seed)
        found, expected = (
            each(IMAGES, 1, forward=lambda model, images, _: within(model, images)) for each in (cam, always)
        )
        assert_same_bits(found, expected)


def test_a_dropout_that_the_forward_turns_on_in_a_frozen_block_is_random(model):
    model.features[6] = nn.Sequential(model.features[6], nn.Dropout2d()).requires_grad_(False)
    cam = GradCAM(model, "block5")
    assert cam.is_random(IMAGES[:1], forward=lambda model, images, _: drop_in_eval_mode(model, images))
    assert not cam.is_random(IMAGES[:1])


def test_weights_that_are_swapped_in_and_back_have_their_own_maps(model):
    cam = GradCAM(model, "block5")
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = ThinVGG(3).state_dict()
    for _ in range(2):
        for state in (own, other):
            model.load_state_dict(state)
            assert_same_bits(cam(IMAGES, 1), without_reuse(model, IMAGES))


def test_unfrozen_blocks_leave_the_cache(model, convolutions):
    cam = GradCAM(model, "block5")
    cam(IMAGES, 1)
    assert cam._frozen.bytes_held > 0
    model.requires_grad_(True)
    convolutions.clear()
    cam(IMAGES, 1)
    assert len(convolutions) == 13 and cam._frozen.bytes_held == 0
    model.features[:14].requires_grad_(False)  # fewer frozen layers than before
    for _ in range(2):
        convolutions.clear()
        found = cam(IMAGES, 1)
    assert len(convolutions) == 9
    assert_same_bits(found, without_reuse(model, IMAGES))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_other_images_are_computed_even_if_they_differ_by_a_pixel(model, layout):
    cam = GradCAM(model, "block5")
    images = IMAGES.clone(memory_format=layout)
    before = cam(images, 1)
    images[0, :, 20:30, 20:30] = images[0, :, 20:30, 20:30].flip(2)  # the same sum
    after = cam(images, 1)
    assert_same_bits(after, without_reuse(model, images))
    assert not torch.equal(after.logits[0], before.logits[0])
    images[1, 0, 5, 5] += 3
    assert_same_bits(cam(images, 1), without_reuse(model, images))


class DoubleInPlace(nn.Module):
    def forward(self, images):
        return images.mul_(2)


def test_the_next_module_may_write_into_a_reused_output(model):
    model.features[FROZEN].requires_grad_(False)
    model.features[FROZEN + 1] = DoubleInPlace()
    cam = GradCAM(model, "features.36")
    for _ in range(3):
        assert_same_bits(cam(IMAGES, 1), without_reuse(model, IMAGES, "features.36"))


def test_memory_is_bounded_and_old_images_are_dropped(model, convolutions):
    cam = GradCAM(model, "block5", chunk_size=1)
    cam(IMAGES[:1], 1)
    one = cam._frozen.bytes_held
    limit = cam._frozen.limit = one + 200_000
    cam(IMAGES, 1)
    assert one < cam._frozen.bytes_held <= limit
    generator = torch.Generator().manual_seed(5)
    for _ in range(10):
        images = torch.rand(2, 3, 64, 64, generator=generator)
        assert_same_bits(cam(images, 1), without_reuse(model, images, chunk_size=1))
        assert cam._frozen.bytes_held <= limit
    cam(images, 1)
    convolutions.clear()
    cam(images, 1)
    assert len(convolutions) == 2 * 3, "the cache holds the new images, not the old ones"


def test_images_with_nan_take_no_memory(model):
    """They are never found again, as NaN equals nothing."""
    cam, images = GradCAM(model, "block5"), IMAGES.clone()
    cam(IMAGES, 1)
    held = cam._frozen.bytes_held
    images[0, 0, 0, 0] = torch.nan
    cam(images, 1)
    assert cam._frozen.bytes_held == held


def test_a_prefix_larger_than_the_limit_is_not_copied(model):
    cam = GradCAM(model, "block5")
    cam._frozen.limit = 1000
    for _ in range(2):
        assert_same_bits(cam(IMAGES, 1), without_reuse(model, IMAGES))
    assert cam._frozen.bytes_held == 0


def test_reuse_can_be_turned_off(model, convolutions):
    cam = GradCAM(model, "block5", reuse_frozen=False)
    for _ in range(2):
        convolutions.clear()
        cam(IMAGES, 1)
        assert len(convolutions) == 13


def test_the_model_is_restored_even_after_an_exception(model):
    cam = GradCAM(model, "block5")
    cam(IMAGES, 1)
    assert "forward" not in model.features.__dict__
    model.classifier[2].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cam(IMAGES, 1)
    assert "forward" not in model.features.__dict__


def test_a_prefix_without_a_pooling_is_not_cached(thin, convolutions):
    """Before the first pooling, an output is many times larger than its image, and saves one convolution."""
    thin.features[:4].requires_grad_(False)
    prefix = FrozenPrefix()
    for _ in range(2):
        convolutions.clear()
        with prefix.reused(thin, []):
            thin(IMAGES)
        assert len(convolutions) == 13
    assert prefix.bytes_held == 0


def test_a_whole_training_with_frozen_blocks_logs_what_a_recomputation_gives(fit, toys, convolutions):
    """Train with batch norm, whose buffers change at every step even in frozen blocks, and without it."""
    probe = ProbeSet.from_dataset(toys, per_class=2)
    for batch_norm in (True, False):
        logged = {}
        for reuse in (True, False):
            torch.manual_seed(0)
            module = ThinVGG(3, batch_norm=batch_norm)
            pools = [i for i, part in enumerate(module.features) if isinstance(part, nn.MaxPool2d)]
            module.features[: pools[3]].requires_grad_(False)
            watch = GradCAMCallback(probe, "block5", reuse_frozen=reuse)
            convolutions.clear()
            fit(module, watch)
            logged[reuse] = watch.history, len(convolutions)
        assert logged[True][0] == logged[False][0] and len(logged[True][0]) == 2
        # Before the training one image goes through three times, of which two save 10 convolutions. The second
        # validation, the last one, saves 10 in each of 11 chunks: the maps, one control and three swaps per object, and
        # three parts of the images without their object or alone.
        assert logged[False][1] - logged[True][1] == (2 if batch_norm else 2 + 11) * 10
