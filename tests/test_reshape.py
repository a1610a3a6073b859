"""Tests that the last spatial layer is found, and that other outputs are reshaped to ``(N, C, h, w)``."""

import pytest
import torch
from torch import nn

from gradcam_callback import GradCAM
from gradcam_callback.maps import from_channels_last, from_tokens
from gradcam_callback.maps.last_layer import find_last_layer


class Returns(nn.Module):
    """A module that returns zeros of a given shape."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def forward(self, _input):
        return torch.zeros(self.shape)


def last_of(size, *shapes):
    model = nn.Sequential(*(shape if isinstance(shape, nn.Module) else Returns(shape) for shape in shapes))
    return find_last_layer(model, lambda: model(None), size)


VECTOR = (1, 8)


@pytest.mark.parametrize(
    ("size", "shapes", "name"),
    [
        ((32, 32), [(1, 4, 16, 16), (1, 8, 8, 8), VECTOR], "1"),
        ((32, 32), [(1, 4, 16, 16), (1, 8, 8, 8), nn.AvgPool2d(2), VECTOR], "1"),
        ((32, 32), [(1, 4, 16, 16), (1, 8, 1, 1), VECTOR], "0"),
        ((32, 32), [(1, 4, 16, 16), (1, 1, 1, 8), VECTOR], "0"),
        ((32, 32), [(1, 4, 16, 16), (1, 512, 1, 1), (1, 512)], "0"),
        ((32, 32), [(1, 4, 16, 16), (1, 1, 8), VECTOR], "0"),
        ((32, 32), [(1, 4, 16, 16), (1, 8, 1), VECTOR], "0"),
        ((32, 32), [(1, 4, 16, 16), (), VECTOR], "0"),
        ((32, 64), [(1, 4, 8, 16), (1, 8, 1, 2), VECTOR], "1"),
        ((64, 32), [(1, 4, 16, 8), (1, 8, 2, 1), VECTOR], "1"),
        ((32, 48), [(1, 4, 11, 16), VECTOR], "0"),
        ((32, 48), [(1, 4, 10, 16), VECTOR], "0"),
        ((32, 32), [(1, 4, 15, 16), VECTOR], "0"),
        ((32, 32), [(1, 4, 17, 16), VECTOR], "0"),
    ],
)
def test_the_last_layer_has_the_proportions_of_the_image_and_is_not_a_pooling(size, shapes, name):
    assert last_of(size, *shapes) == name


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((32, 32), (1, 17, 8)),
        ((32, 32), (1, 7, 7, 64)),
        ((32, 32), (1, 2, 4, 4, 4)),
        ((32, 32), (1, 8, 14, 16)),
        ((32, 32), (1, 8, 18, 16)),
        ((32, 48), (1, 8, 9, 16)),
        ((32, 48), (1, 8, 12, 16)),
        ((32, 64), (1, 8, 6, 4)),
    ],
)
def test_a_later_module_with_another_layout_is_an_error(size, shape):
    with pytest.raises(ValueError) as caught:
        last_of(size, (1, 8, size[0] // 4, size[1] // 4), shape, VECTOR)
    assert f"output (N, C, h, w), but the later module '1' returns {shape}." in str(caught.value)
    assert "reshape_transform='tokens', 'channels_last' or a callable" in str(caught.value)


def test_a_model_without_a_spatial_layer_is_an_error():
    for shape in (VECTOR, (1, 8, 1, 1)):
        with pytest.raises(
            ValueError,
            match=r"\(N, C, h, w\), but no module returns this shape\. Pass the dotted name of a layer\.$",
        ):
            last_of((32, 32), shape)


class AddsInPlace(nn.Module):
    """A model whose last block writes a sum into the output of its last leaf module."""

    def __init__(self):
        super().__init__()
        self.first, self.block, self.head = nn.Conv2d(3, 4, 3), Sums(), nn.Linear(4, 2)

    def forward(self, images):
        return self.head(self.block(self.first(images)).mean(dim=(2, 3)))


class Sums(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 1)

    def forward(self, features):
        output = self.convolution(features)
        output += features
        return output


def test_a_block_that_adds_in_place_is_the_last_layer_rather_than_its_branch():
    cam = GradCAM(AddsInPlace(), "last")
    cam(torch.rand(1, 3, 8, 8))
    assert cam.layers[0].name == "block"


class PartlyInference(nn.Sequential):
    """A model whose second module runs under inference_mode."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 2))

    def forward(self, images):
        seen = self[0](images)
        with torch.inference_mode():
            shift = self[1](seen).mean()
        return self[2](seen.mean(dim=(2, 3)) + shift.clone())


def test_a_module_under_inference_mode_is_not_the_last_layer():
    assert list(GradCAM(PartlyInference(), "last")(torch.rand(1, 3, 12, 12)).maps) == ["0"]


def test_the_last_layer_of_a_compiled_model_has_its_plain_name():
    network = torch.compile(AddsInPlace(), backend="eager")
    assert list(GradCAM(network, "last")(torch.rand(1, 3, 8, 8)).maps) == ["block"]


@pytest.mark.parametrize("before", [0, 1, 2, 4, 5])
def test_tokens_become_patches_in_row_order(before):
    patches = torch.arange(2 * 7 * 3 * 5.0).reshape(2, 7, 3, 5)
    others = torch.full((2, before, 7), -1.0)
    tokens = torch.cat([others, patches.flatten(2).transpose(1, 2)], dim=1)
    for side in (1, 16, 160):
        assert torch.equal(from_tokens(tokens, (3 * side, 5 * side)), patches)


def test_other_outputs_than_tokens_are_unchanged_or_an_error():
    for output in (torch.zeros(2, 6), torch.zeros(2, 6, 3, 5)):
        assert from_tokens(output, (32, 48)) is output, "a vector, or already spatial"
    for count in (1, 9):
        with pytest.raises(ValueError, match=f"grid of square patches of 32 x 48 images, but got {count} tokens"):
            from_tokens(torch.zeros(1, count, 2), (32, 48))


def test_channels_last_become_channels_first():
    output = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    moved = from_channels_last(output, (48, 64))
    assert moved.shape == (2, 5, 3, 4)
    assert all(torch.equal(moved[:, channel], output[..., channel]) for channel in range(5))
    for other in (torch.zeros(2, 5), torch.zeros(2, 5, 3), torch.zeros(2, 5, 3, 4, 1)):
        assert from_channels_last(other, (48, 64)) is other
