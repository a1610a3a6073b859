"""Checks that maps are equal, and that a model is what it was."""

import random

import numpy as np
import torch


def assert_close(found, expected, relative=1e-8):
    assert found.shape == expected.shape
    assert expected.abs().max() > 0, "a map of zeros would prove nothing"
    assert (found - expected).abs().max() <= relative * expected.abs().max()


def assert_maps_close(found, expected, relative=1e-8):
    """Compare the maps of all layers. A few maps of a random network may be empty, but then both are."""
    assert list(found) == list(expected)
    filled = [name for name, raw in expected.items() if raw.any()]
    assert len(filled) > len(expected) / 2, "maps of zeros would prove nothing"
    for name, raw in found.items():
        assert (raw - expected[name]).abs().max() <= relative * expected[name].abs().max()


def snapshot(model):
    return {
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "grads": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "training": {name: module.training for name, module in model.named_modules()},
        "hooks": {
            name: [len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks)]
            for name, module in model.named_modules()
        },
        "random": [torch.get_rng_state(), torch.tensor(np.random.get_state()[1].astype(np.int64)), random.getstate()],
        "modes": [torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")],
    }


def assert_same(before, after):
    for part, value in before.items():
        for key in value if isinstance(value, dict) else range(len(value)):
            old, new = value[key], after[part][key]
            same = torch.equal(old, new) if isinstance(old, torch.Tensor) else old == new
            assert same, f"{part} of {key} has changed"
