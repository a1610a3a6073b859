"""The probe set holds items that the sampler of the validation draws, and no others."""

import pytest
import torch
from pytorch_lightning.overrides.distributed import UnrepeatedDistributedSamplerWrapper
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from watched_data import LAYER, Reads

from gradcam_callback import GradCAMCallback
from gradcam_callback.trainers.samplers import drawn_indices

DRAWN = [3, 4, 8, 9, 15]
DATA = TensorDataset(torch.arange(20))


class Every(Sampler):
    """Draws some indices; it has no list of them."""

    def __init__(self, numbers):
        self.numbers = numbers

    def __iter__(self):
        return iter([self.numbers[i] for i in torch.randperm(len(self.numbers)).tolist()])

    def __len__(self):
        return len(self.numbers)


class Endless(Every):
    def __iter__(self):
        while True:
            yield from super().__iter__()


class Counts(Every):
    """Counts its epochs, and so does the sampler inside of it."""

    def __init__(self, numbers, inner=None):
        super().__init__(numbers)
        self.times, self.inner = 0, inner

    def __iter__(self):
        self.times += 1
        return iter(self.numbers if self.inner is None else list(self.inner))


class Wrapped(list):
    """The user's sampler as Lightning hands it to a `DistributedSampler`."""


WEIGHTS = [float(i in DRAWN) for i in range(20)]
LOADERS = {
    "random": {"sampler": SubsetRandomSampler(DRAWN, torch.Generator().manual_seed(0))},
    "list": {"sampler": DRAWN},
    "numbers": {"sampler": torch.tensor(DRAWN).numpy()},
    "tensors": {"sampler": list(torch.tensor(DRAWN))},
    "own": {"sampler": Every(DRAWN)},
    "endless": {"sampler": Endless(DRAWN)},
    "batches": {"batch_sampler": BatchSampler(SubsetRandomSampler(DRAWN), 2, drop_last=False)},
    "own batches": {"batch_sampler": [[3, 4], [8, 9], [15]]},
    "weights of 0": {"sampler": WeightedRandomSampler(WEIGHTS, 2)},
    "weights in batches": {"batch_sampler": BatchSampler(WeightedRandomSampler(WEIGHTS, 2), 2, drop_last=False)},
    "fewer weights": {"sampler": WeightedRandomSampler(WEIGHTS[:16], 99)},
    "distributed weights": {
        "sampler": UnrepeatedDistributedSamplerWrapper(
            WeightedRandomSampler(WEIGHTS, 2), num_replicas=2, rank=1, shuffle=False
        )
    },
    "distributed": {"sampler": DistributedSampler(Wrapped(DRAWN), num_replicas=2, rank=1)},
}


@pytest.mark.parametrize("options", LOADERS.values(), ids=LOADERS)
def test_the_indices_of_a_sampler_are_found(options):
    assert drawn_indices(DataLoader(DATA, **options)) == DRAWN


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shuffle": True},
        {"sampler": RandomSampler(DATA, num_samples=3)},
        {"sampler": WeightedRandomSampler([1.0] * 20, 5)},
        {"sampler": DistributedSampler(DATA, num_replicas=2, rank=1)},
        {
            "sampler": UnrepeatedDistributedSamplerWrapper(
                RandomSampler(DATA, num_samples=3), num_replicas=2, rank=1, shuffle=False
            )
        },
        {"sampler": Every(list(range(20)))},
        {"sampler": iter(DRAWN)},
        {"batch_sampler": BatchSampler(RandomSampler(DATA), 4, drop_last=True)},
        {"batch_sampler": [[(3, 64), (4, 64)], [(8, 96)]]},
        {"sampler": ["a", "b"]},
    ],
)
def test_other_samplers_draw_everything(options):
    assert drawn_indices(DataLoader(DATA, **options)) is None


def test_what_is_drawn_next_stays_the_same():
    used_up, inner = iter(DRAWN), Counts(DRAWN)
    outer = Counts(DRAWN, inner)
    generator, state = torch.Generator().manual_seed(5), torch.get_rng_state()
    before = generator.get_state()
    for sampler in (SubsetRandomSampler(DRAWN, generator), Every(DRAWN), used_up, outer):
        drawn_indices(DataLoader(DATA, sampler=sampler))
    assert torch.equal(generator.get_state(), before) and torch.equal(torch.get_rng_state(), state)
    assert list(used_up) == DRAWN
    assert outer.times == inner.times == 0


@pytest.mark.sixteen_images
@pytest.mark.judges_more
@pytest.mark.parametrize("targets", [True, False])
def test_a_split_by_samplers_is_watched_on_validation_images_alone(watch, targets):
    """Training and validation share the dataset."""
    images, labels = torch.rand(90, 3, 32, 32), torch.arange(90) % 3
    data = TensorDataset(images, labels)
    if targets:
        data.targets = labels.tolist()
    validation = range(0, 30)
    callback = GradCAMCallback(target_layers=LAYER, views="layer")
    training = DataLoader(data, 6, sampler=SubsetRandomSampler(range(30, 90)))
    loader = DataLoader(data, 6, sampler=SubsetRandomSampler(validation))
    watch(Reads(), loader, callback, training=training)
    judged = callback.probe_set.verdict_set
    found = [next(i for i in range(90) if torch.equal(images[i], image)) for image in judged.images]
    assert len(found) == 30 and set(found) == set(validation)
    assert labels[found].tolist() == judged.labels.tolist()
