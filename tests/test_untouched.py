"""A map leaves the model, its images and the random generators as they were."""

import random
import threading
from collections import deque
from copy import deepcopy

import numpy as np
import pytest
import torch
from conftest import ThinVGG
from sameness import assert_maps_close, assert_same, snapshot
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset
from torchmetrics import MeanMetric

from gradcam_callback import GradCAM, ProbeSet


def half_trained():
    """Return a model in the middle of a step: with gradients, frozen modules, a module in eval mode, and a hook."""
    torch.manual_seed(0)
    model = ThinVGG().train()
    model.features[:10].requires_grad_(False)
    model.features[4].eval()
    model.classifier[4].register_forward_hook(lambda module, inputs, output: None)
    functional.cross_entropy(model(torch.rand(4, 3, 64, 64)), torch.tensor([0, 1, 2, 0])).backward()
    return model


class Noisy(nn.Module):
    """A module that draws from every random generator, and raises an error on demand."""

    def __init__(self, breaks):
        super().__init__()
        self.breaks = breaks

    def forward(self, x):
        noise = torch.rand(1) + np.random.rand() + random.random()
        if self.breaks:
            raise KeyError("broken")
        return x + noise.to(x.dtype)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("breaks", [False, True])
def test_a_map_leaves_everything_as_it_was(mode, breaks):
    model = half_trained()
    model.classifier.append(Noisy(breaks))
    with mode():
        before = snapshot(model)
        if breaks:
            with pytest.raises(KeyError, match="broken"):
                GradCAM(model)(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
        else:
            GradCAM(model)(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
        assert_same(before, snapshot(model))


def test_a_forward_that_writes_into_its_buffers_writes_into_copies():
    class Counting(ThinVGG):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, images):
            self.calls += 1
            return super().forward(images)

    model = Counting()
    GradCAM(model)(torch.rand(1, 3, 64, 64))
    assert model.calls.item() == 0


class Late(ThinVGG):
    """A network that takes parts of itself from the first images it sees."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", None)
        self.register_parameter("scale", None)
        self.head, self.calls = None, 0

    def forward(self, images):
        self.calls += 1
        if self.mean is None:
            self.mean = images.detach().mean()
            self.scale = nn.Parameter(1 / images.detach().std())
            self.register_buffer("grid", torch.zeros(2), persistent=False)
            self.head = nn.Linear(3, 3)
            self.extra = "an attribute"
        return self.head(super().forward((images - self.mean) * self.scale))


@pytest.mark.parametrize("breaks", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_what_a_forward_makes_of_the_first_images_is_not_made_of_the_probe_images(breaks, nested):
    late = Late()
    model = nn.Sequential(late) if nested else late
    before = {name: dict(table) for name, table in tables_of(late).items()}
    keys = list(model.state_dict())
    if breaks:
        hook = model.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            GradCAM(model)(torch.rand(2, 3, 64, 64))
        hook.remove()
    else:
        GradCAM(model)(torch.rand(2, 3, 64, 64))
    assert list(model.state_dict()) == keys
    for name, table in tables_of(late).items():
        assert list(table) == list(before[name])
        assert all(table[key] is value for key, value in before[name].items()), name
    images = torch.rand(2, 3, 64, 64)
    late(images)
    assert late.calls == 1 and torch.equal(late.mean, images.mean()), "the first images are those of the training"


class Collecting(ThinVGG):
    """A network that collects what it sees, in every way that a module has."""

    def __init__(self):
        super().__init__()
        self.register_buffer("centre", torch.zeros(3))
        self.shared = nn.ReLU()
        self.shared.register_buffer("centre", self.centre)
        self.metric = MeanMetric()
        self.bank, self.seen, self.counts, self.latest, self.calls = torch.zeros(4, 3), [], {}, deque(maxlen=2), 0

    def forward(self, images):
        logits = super().forward(images)
        row = logits.detach().mean(dim=0)
        self.bank[self.calls % 4] = row
        self.calls += 1
        self.centre += row
        assert torch.equal(self.shared.centre, self.centre)
        self.metric.update(row)
        self.seen.append(row)
        self.counts[len(self.seen)] = row
        self.latest.append(row)
        return logits


def test_what_a_forward_collects_is_not_of_the_probe_images():
    looked_at = Collecting().eval()
    alone = deepcopy(looked_at)
    for images in torch.rand(3, 2, 3, 64, 64):
        GradCAM(looked_at)(torch.rand(2, 3, 64, 64))
        looked_at(images), alone(images)
    assert looked_at.calls == len(looked_at.seen) == len(looked_at.counts) == 3 and len(looked_at.latest) == 2
    assert torch.equal(looked_at.bank, alone.bank) and torch.equal(looked_at.centre, alone.centre)
    assert torch.equal(looked_at.metric.compute(), alone.metric.compute())
    assert all(map(torch.equal, looked_at.seen, alone.seen))


def put(kept, features):
    kept.append(features) if isinstance(kept, list) else kept.update({-1: features})


class Encoder(nn.Conv2d):
    """Puts its features where a module outside of it finds them."""

    def __init__(self, kept):
        super().__init__(3, 3, 3)
        self.kept = kept

    def forward(self, images):
        features = super().forward(images)
        put(self.kept, features)
        return features


class Shares(nn.Module):
    """Joins its last features with those that its encoder, or a hook on it, has put into a collection of both."""

    def __init__(self, kept, hooks):
        super().__init__()
        self.kept, self.encoder, self.second = kept, Encoder([] if hooks else kept), nn.Conv2d(3, 3, 3)
        if hooks:
            self.encoder.register_forward_hook(lambda module, inputs, output: put(kept, output))

    def forward(self, images):
        return self.second(self.encoder(images)).mean(dim=(2, 3)) + self.kept[-1].mean(dim=(2, 3))


@pytest.mark.parametrize("hooks", [False, True])
@pytest.mark.parametrize("kind", [list, dict])
def test_a_collection_that_parts_of_a_model_share_stays_one(kind, hooks):
    kept = kind()
    model, images = Shares(kept, hooks).eval(), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        model(torch.rand(2, 3, 16, 16))
    cam, before = GradCAM(model, "second"), kept[-1]
    logits = cam(images).logits, cam.predict(images)
    assert model.kept is kept and len(kept) == 1 and kept[-1] is before
    with torch.no_grad():
        expected = model(images)
    for found in logits:
        torch.testing.assert_close(found, expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_buffers_of_torchscript_stay_the_same_tensors():
    class Shifts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(1))

        def forward(self, images):
            return images - self.mean

    class Scripted(ThinVGG):
        def __init__(self):
            super().__init__()
            self.shift = torch.jit.script(Shifts())

        def forward(self, images):
            return super().forward(self.shift(images))

    model = Scripted()
    place = model.shift.mean.data_ptr()
    GradCAM(model)(torch.rand(1, 3, 64, 64))
    assert model.shift.mean.data_ptr() == place and model.shift.mean.item() == 0


def tables_of(module):
    return {name: getattr(module, name) for name in ("__dict__", "_parameters", "_buffers", "_modules")}


def test_a_pending_graph_can_still_be_used_after_a_map():
    model = half_trained()
    images, labels = torch.rand(2, 3, 64, 64), torch.tensor([0, 1])
    loss = functional.cross_entropy(model.eval()(images), labels)
    GradCAM(model)(images)
    model.zero_grad()
    loss.backward()
    found = model.classifier[-1].weight.grad.clone()
    model.zero_grad()
    functional.cross_entropy(model(images), labels).backward()
    assert torch.equal(found, model.classifier[-1].weight.grad)


def test_parametrized_weights_that_the_training_caches_keep_their_graph():
    model, images = half_trained(), torch.rand(2, 3, 64, 64)
    nn.utils.parametrizations.weight_norm(model.classifier[-1])
    expected = GradCAM(model, "block5")(images, 1).maps
    with parametrize.cached():
        assert_maps_close(GradCAM(model, "block5")(images, 1).maps, expected)
        model(images).sum().backward()
        weight = model.classifier[-1].weight
        GradCAM(model, "block5")(images, 1)
        assert model.classifier[-1].weight is weight, "still cached"
    assert model.classifier[-1].parametrizations.weight.original0.grad.any()


def test_the_users_images_are_not_changed_and_get_no_gradients(double_thin):
    images = torch.rand(1, 3, 64, 64).double().requires_grad_()
    before = images.detach().clone()
    GradCAM(double_thin)(images, 0)
    assert torch.equal(images, before) and images.grad is None


def test_predict_returns_the_logits_of_eval_mode_and_leaves_everything_as_it_was():
    model = half_trained()
    images = torch.rand(5, 3, 64, 64)
    before = snapshot(model)
    found = GradCAM(model, "block5", chunk_size=2).predict(images)
    assert_same(before, snapshot(model))
    with torch.no_grad():
        torch.testing.assert_close(found, model.eval()(images))


class Meets(Noisy):
    """Calls a function in each forward, after it has drawn."""

    def __init__(self, meet):
        super().__init__(breaks=False)
        self.meet = meet

    def forward(self, x):
        drawn = super().forward(x)
        self.meet()
        return drawn


class Once(Dataset):
    """A dataset of one item, which goes through a module when it is read."""

    def __init__(self, module, image):
        self.module, self.image = module, image

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.module(self.image), 0


@pytest.mark.parametrize("chooses", [False, True])
def test_two_threads_leave_the_process_as_it_was(chooses):
    """As in a search with n_jobs=2. The first thread leaves its block while the second one is inside of its own.

    The first one makes a map, or chooses images from a dataset.
    """
    entered, left = threading.Event(), threading.Event()
    model, other, image = half_trained(), half_trained(), torch.rand(1, 3, 32, 32)

    def meet():
        # The second thread may not come in before the first one has left. The wait gives it the chance to.
        if second.ident is None:
            second.start()
            entered.wait(0.3)

    model.classifier.append(Meets(meet))
    other.classifier.append(Meets(lambda: entered.set() or left.wait(10)))

    def work():
        if chooses:
            ProbeSet.from_dataset(Once(model.classifier[-1], image[0]), 1)
        else:
            GradCAM(model, "block5_conv3")(image)
        left.set()

    first = threading.Thread(target=work)
    second = threading.Thread(target=lambda: GradCAM(other, "block5_conv3")(image))
    before, calls, compiled = snapshot(model), [], []
    first.start()
    first.join()
    second.join()
    assert_same(before, snapshot(model))

    def counts(x):
        calls.append(1)
        return x.sin()

    for use_reentrant in (True, False):
        calls.clear()
        checkpoint(counts, torch.rand(3, requires_grad=True), use_reentrant=use_reentrant).sum().backward()
        assert len(calls) == 2, "checkpointing is on again: forward, and once more in the backward pass"
    torch.compile(lambda x: x + 1, backend=lambda graph, _: compiled.append(1) or graph.forward)(torch.rand(3))
    assert compiled == [1], "and so is the compiler"
