"""The network is shown images as the validation normalises them, and a probe set unlike these images is said."""

import logging
import random
from collections.abc import Mapping
from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Subset, default_collate
from torchvision import transforms
from torchvision.transforms import v2
from watched_data import LAYER, MEAN, NORMALISE, STD, AfterTransfer, Reads, Regrouped, assert_logged_of, watching

from gradcam_callback import GradCAMCallback, GradCAMWarning, ProbeSet
from gradcam_callback.probes.feed import Feed
from gradcam_callback.probes.lookup import find_fitting_normalisations, find_normalisations
from gradcam_callback.trainers.differences import find_difference

pytestmark = pytest.mark.sixteen_images


class BeforeTransfer(Reads):
    def on_before_batch_transfer(self, batch, dataloader_idx):
        return [NORMALISE(batch[0]), *batch[1:]]


class Module(pl.LightningDataModule):
    def __init__(self, data):
        super().__init__()
        self.data, self.normalise = data, v2.Normalize(MEAN, STD)

    def train_dataloader(self):
        return DataLoader(self.data, batch_size=6)

    val_dataloader = train_dataloader

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return [self.normalise(batch[0]), *batch[1:]]


class ModuleWithAGlobal(Module):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return [NORMALISE(batch[0]), *batch[1:]]

    def __init__(self, data):
        super().__init__(data)
        del self.normalise


def normalise_in_collate(items, normalise):
    images, *rest = default_collate(items)
    return [normalise(images), *rest]


@pytest.mark.parametrize(
    "place",
    ["module, after", "module, before", "data module", "data module, global", "collate_fn", "lambda", "dataset"],
)
def test_images_are_normalised_where_the_validation_normalises_them(toys, trainer, watch, caplog, place):
    caplog.set_level(logging.INFO, logger="pytorch_lightning.utilities.rank_zero")
    plain, items = (
        DataLoader(toys, batch_size=6),
        [(NORMALISE(image), label, mask) for image, label, mask in toys.items],
    )
    expected = ProbeSet.from_dataset(toys, 5)
    normalise = NORMALISE
    if place.startswith("data module"):
        module, callback = Reads(), watching()
        data = Module(toys) if place == "data module" else ModuleWithAGlobal(toys)
        trainer(callback, max_epochs=1).fit(module, datamodule=data)
    else:
        module, loader = {
            "module, after": (AfterTransfer(), plain),
            "module, before": (BeforeTransfer(), plain),
            "collate_fn": (Reads(), DataLoader(toys, 6, collate_fn=partial(normalise_in_collate, normalise=NORMALISE))),
            "lambda": (Reads(), DataLoader(toys, 6, collate_fn=lambda items: normalise_in_collate(items, normalise))),
            "dataset": (Reads(), DataLoader(items, batch_size=6)),
        }[place]
        callback = watch(module, loader)
    assert_logged_of(callback, module, NORMALISE(expected.images))
    assert callback.probe_set.labels.tolist() == expected.labels.tolist()
    assert torch.equal(callback.probe_set.masks, expected.masks), "they lie on the same pixels"
    shown = callback.probe_set.display_images()
    stretched = [text for text in caplog.messages if "displayed stretched" in text]
    if place == "dataset":
        (sentence,) = stretched
        assert "Hold it in an attribute of your dataset" in sentence
        assert shown.min() == 0 and shown.max() == 255, "nobody says how to undo it, so it is stretched"
    else:
        assert not stretched
        assert abs(shown.astype(int) - expected.display_images()).max() <= 1, "undone for display"


class Holds(Dataset):
    """Items that `normalise` has made, and attributes of any name."""

    def __init__(self, toys, normalise=NORMALISE, **attributes):
        self.items = [(normalise(image), label) for image, label, _ in toys.items]
        vars(self).update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]

    @property
    def broken(self):
        raise AssertionError("nothing of the user's is called")


class UsesAGlobal(Holds):
    def __init__(self, toys):
        super().__init__(toys, lambda image: image)

    def __getitem__(self, index):
        return [NORMALISE(image) for image in self.items[index][:1]][0], self.items[index][1]


def use_a_global(examples):
    return [NORMALISE(image) for image in examples]


FULL = transforms.Compose([transforms.Resize(48), NORMALISE])
PLACES = {
    **{name: {name: FULL} for name in ("aug", "preprocess", "tfms", "tf", "img_transform", "_transform", "transform")},
    "inside of a dataset": lambda toys: Holds(toys, subset=Subset(Holds(toys, base=Holds(toys, aug=FULL)), [0])),
    "inside of an object": lambda toys: Holds(toys, config={"steps": [FULL]}),
    "a bound method": lambda toys: Holds(toys, aug=FULL.forward if hasattr(FULL, "forward") else FULL.__call__),
    "a function of set_transform": lambda toys: Holds(toys, _format_kwargs={"transform": use_a_global}),
    "a global of __getitem__": UsesAGlobal,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_normalisation_is_undone_wherever_a_dataset_holds_it(toys, place):
    make = PLACES[place]
    dataset = make(toys) if callable(make) else Holds(toys, **make)
    probe = ProbeSet.from_dataset(dataset)
    assert not probe.is_stretched
    plain = ProbeSet.from_dataset(toys).display_images()
    assert np.abs(probe.display_images().astype(int) - plain).max() <= 1


def test_a_normalisation_under_any_name_is_no_proof_and_the_nearest_that_fits_counts(toys):
    """It may belong to other images, such as those of the training."""
    half = transforms.Normalize([0.5] * 3, [0.5] * 3)
    assert ProbeSet.from_dataset(Holds(toys, lambda image: image, for_training=half)).mean is None
    found = ProbeSet.from_dataset(Holds(toys, for_training=half, inside=Holds(toys, aug=FULL)))
    assert found.mean.tolist() == pytest.approx(MEAN)
    wide, wider = transforms.Normalize([0.5] * 3, [0.1] * 3), transforms.Normalize([0.5] * 3, [0.05] * 3)
    nearest = ProbeSet.from_dataset(Holds(toys, wide, inside=Holds(toys, aug=wider), aug=wide))
    assert nearest.std.tolist() == pytest.approx([0.1] * 3)


class InForward(Reads):
    def __init__(self, white):
        super().__init__()
        self.normalise, self.white = NORMALISE, white

    def forward(self, images):
        return super().forward(self.normalise(images / self.white))


@pytest.mark.parametrize("white", [1, 255])
def test_a_normalisation_in_the_forward_is_not_undone_in_images_that_never_had_it(toys, watch, white):
    data = [(image * white, label) for image, label, _ in toys.items]
    probe = watch(InForward(white), DataLoader(data, 6)).probe_set
    assert probe.mean is None
    expected = (probe.images * 255 / white).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(probe.display_images(), expected)


def test_the_normalisation_of_a_dataset_is_undone_also_if_its_images_then_look_like_pixels():
    """Normalised images of bright photographs may lie in 0..1."""
    bright, half = 0.5 + 0.5 * torch.rand(2, 3, 8, 8), transforms.Normalize([0.5] * 3, [0.5] * 3)
    assert next(find_fitting_normalisations(half(bright), [half])) == ([0.5] * 3, [0.5] * 3)
    assert next(find_fitting_normalisations(half(bright), [], [half]), None) is None
    assert next(find_fitting_normalisations(half(bright - 0.4), [], [half])) == ([0.5] * 3, [0.5] * 3)


def test_training_is_the_same_with_hooks_that_draw_random_numbers(toys, trainer):
    class Noisy(Reads):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return [batch[0] + 0.01 * torch.randn_like(batch[0]), *batch[1:]]

    ends = []
    for callbacks in ([], [watching()]):
        pl.seed_everything(3, verbose=False)
        module = Noisy()
        trainer(*callbacks).fit(module, DataLoader(toys, batch_size=6, shuffle=True), DataLoader(toys, batch_size=6))
        ends.append(module.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.mark.parametrize(
    "steps",
    [
        [transforms.Normalize([0.5] * 3, [0.5] * 3), NORMALISE],
        [transforms.Normalize([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]), v2.Normalize([0.5], [2.0])],
        [NORMALISE, transforms.Normalize([0.5] * 3, [0.5] * 3), transforms.Normalize([-1.0] * 3, [0.25] * 3)],
    ],
)
def test_several_normalisations_are_undone_together(toys, steps):
    class Normalised(Dataset):
        transform = transforms.Compose(steps)

        def __init__(self):
            # torchvision's datasets hold their transform a second time.
            self.transforms = transforms.Compose([self.transform])

        def __len__(self):
            return len(toys)

        def __getitem__(self, index):
            return self.transform(toys.items[index][0]), toys.items[index][1]

    shown, plain = (ProbeSet.from_dataset(data).display_images() for data in (Normalised(), toys))
    assert np.abs(shown.astype(int) - plain).max() <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (NORMALISE, r"channel 0 has mean .* \(are these normalised\?\)"),
        (lambda images: images * 255, r"\(are these normalised\?\)"),
        (lambda images: images.repeat_interleave(2, 3), r"shape \(3, 48, 96\), those of the validation \(3, 48, 48\)"),
    ],
)
@pytest.mark.parametrize("sanity", [0, 1])
def test_a_probe_set_unlike_the_validation_is_said_once(toys, watch, change, message, sanity):
    plain = ProbeSet.from_dataset(toys)
    probe = ProbeSet(change(plain.images), plain.labels)
    with pytest.warns(GradCAMWarning, match=message) as caught:
        watch(Reads(), DataLoader(toys, 6), GradCAMCallback(probe, LAYER), num_sanity_val_steps=sanity, max_epochs=2)
    assert sum(warning.category is GradCAMWarning for warning in caught) == 1


@pytest.mark.parametrize("normalise", [lambda images: images, NORMALISE, transforms.Normalize([0.5] * 3, [0.5] * 3)])
def test_a_probe_set_of_darker_or_fewer_images_is_none_to_be_said(toys, normalise):
    images = normalise(torch.stack([image for image, _, _ in toys.items]))
    dark = normalise(torch.stack([image * 0.6 for image, _, _ in toys.items[:5]]))
    for probe in (images[:6], images[:1], dark):
        for batch in (images[6:], images[7:8]):
            data = Feed(needs_labels=False)
            assert find_difference(ProbeSet(probe), batch, data) is None
    raw = torch.stack([image for image, _, _ in toys.items])
    for other in (raw, raw * 255, normalise(raw)):
        alike = torch.equal(other, images)
        assert (find_difference(ProbeSet(other), images, Feed(needs_labels=False)) is None) == alike


def test_a_hook_that_drops_images_is_said(toys, watch):
    class Drops(Reads):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return [part[:2] for part in batch]

    with pytest.raises(ValueError, match="the batch of 15 items of your validation data to hold 15 images, but got 2"):
        watch(Drops(), DataLoader(toys, 6))


def test_a_batch_that_cannot_be_told_is_not_compared(toys):
    assert find_difference(ProbeSet.from_dataset(toys), {"left": 1}, Feed()) is None


class Annotations(Mapping):
    """Many annotations by their ids, each of which is read from a file."""

    def __init__(self, ids):
        self.ids, self.read = ids, 0

    def __len__(self):
        return len(self.ids)

    def __iter__(self):
        return iter(self.ids)

    def __getitem__(self, number):
        self.read += 1
        return {"file": f"{number}.jpg", "boxes": [[1, 2, 3, 4]]}


def test_a_large_mapping_that_a_dataset_holds_is_no_place_of_a_normalisation(toys):
    """A search through all of it took minutes."""
    data = Regrouped(toys)
    data.dataset = Annotations(range(5000))
    assert len(ProbeSet.from_dataset(data)) == 6 and data.dataset.read < 500


def test_a_name_without_a_value_hides_no_normalisation():
    def collate(items):
        return later, NORMALISE

    assert not list(find_normalisations(collate))
    later = 1

    def normalises(items):
        return own(items)

    own = transforms.Normalize(MEAN, STD)
    assert next(find_normalisations(normalises))[0] == pytest.approx(MEAN)
    assert next(find_fitting_normalisations(torch.rand(2, 1, 8, 8), [own]), None) is None, "of three channels"
    assert next(find_fitting_normalisations(-100 * torch.rand(2, 3, 8, 8), [own]), None) is None, (
        "the pixels would be no pixels"
    )


GENERATORS = {
    "torch": (lambda: torch.Generator().manual_seed(3), lambda own: float(torch.rand(1, generator=own))),
    "python": (lambda: random.Random(3), lambda own: own.random()),
    "numpy": (lambda: np.random.default_rng(3), lambda own: own.random()),
    "numpy, old": (lambda: np.random.RandomState(3), lambda own: own.rand()),
}


@pytest.mark.parametrize(("make", "draw"), GENERATORS.values(), ids=GENERATORS)
def test_a_generator_of_the_datasets_own_draws_what_it_would_draw(toys, trainer, make, draw):
    class Noisy(Dataset):
        def __init__(self):
            self.own = make()

        def __len__(self):
            return len(toys)

        def __getitem__(self, index):
            image, label, _ = toys.items[index]
            return image + 0.1 * draw(self.own), label

    losses = []
    for callbacks in ([], [GradCAMCallback(target_layers=LAYER, views="layer")]):
        pl.seed_everything(0, verbose=False)
        module, data = Reads(), Noisy()
        run = trainer(*callbacks, max_epochs=2)
        run.fit(
            module, DataLoader(Subset(data, range(12)), 6, shuffle=True), DataLoader(Subset(data, range(12, 18)), 6)
        )
        losses.append((float(run.callback_metrics["val_loss"]), draw(data.own)))
    assert losses[0] == losses[1]
