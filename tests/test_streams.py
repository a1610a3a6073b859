"""Data without an index, such as streams, give the images of their first batches."""

import random
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import transforms
from toys import Toys
from watched_data import Reads, Stream, assert_logged_of, watching

from gradcam_callback import GradCAMWarning

pytestmark = pytest.mark.sixteen_images


class Sized(Stream):
    def __len__(self):
        return len(self.items)


class OwnIterator:
    """A loader that can be read only once per epoch, as those of DALI."""

    def __init__(self, items, batch_size=6):
        self.items, self.batch_size, self.place, self.given = items, batch_size, 0, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.place >= len(self.items):
            self.place = 0
            raise StopIteration
        batch = default_collate(self.items[self.place : self.place + self.batch_size])
        self.place += self.batch_size
        self.given += 1
        return batch


class Batches:
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        for start in range(0, len(self.items), 6):
            yield default_collate(self.items[start : start + 6])


OWN = "own iterator"
READ_AHEAD = ("stream", "sized stream", "batches", "no batching")


@pytest.mark.filterwarnings("ignore:.*IterableDataset.* has .__len__. defined")
@pytest.mark.parametrize("kind, sanity", [*((kind, 0) for kind in (*READ_AHEAD, OWN)), ("stream", 2), (OWN, 2)])
def test_data_without_index_give_the_images_of_the_first_batches(watch, kind, sanity):
    toys = Toys(60, bias=1.0, seed=0, size=64)
    loader = {
        "stream": lambda: DataLoader(Stream(toys.items), batch_size=6),
        "sized stream": lambda: DataLoader(Sized(toys.items), batch_size=6),
        "batches": lambda: Batches(toys.items),
        "no batching": lambda: DataLoader(Stream(list(Batches(toys.items))), batch_size=None),
        OWN: lambda: OwnIterator(toys.items),
    }[kind]()
    module = Reads()
    callback = watch(module, loader, training=DataLoader(toys, 6), num_sanity_val_steps=sanity)
    labels = callback.probe_set.labels.tolist()
    assert Counter(labels) == {0: 5, 1: 5, 2: 5}
    first = [image for image, _, _ in toys.items[:36]]
    assert all(any(torch.equal(own, image) for image in first) for own in callback.probe_set.images)
    assert callback.probe_set.has_mask.all()
    assert_logged_of(callback, module, callback.probe_set.images)
    if kind == OWN:
        assert loader.given == 10, "the validation missed no batch"


def test_a_short_or_sorted_stream_gives_what_there_is(watch):
    toys = Toys(6, bias=1.0, seed=0, size=64)
    ones = [item for item in toys.items if item[1] == 0]
    for loader in (DataLoader(Stream(ones), batch_size=2), OwnIterator(ones, 2)):
        callback = watch(Reads(), loader, training=DataLoader(toys, 6))
        assert callback.probe_set.labels.tolist() == [0, 0] and len(callback.history) == 1


def test_an_empty_stream_is_said(watch, toys):
    with pytest.raises(ValueError, match="Expected your validation data to give images with labels, but got none"):
        watch(Reads(), DataLoader(Stream([])), training=DataLoader(toys, 6))


def test_a_stream_of_several_labels_has_the_masks_of_each_class(toys, watch):
    def planes(label, mask):
        return torch.stack([mask if c == label else mask.roll(c + 1, dims=0) for c in range(3)])

    items = [(x, torch.eye(3)[y] + torch.eye(3)[(y + 1) % 3], planes(y, m)) for x, y, m in toys.items]
    module = Reads()
    module.loss = lambda batch: functional.binary_cross_entropy_with_logits(module(batch[0]), batch[1])
    module.validation_step = lambda batch, batch_idx: None
    callback = watch(module, DataLoader(Stream(items), 6), training=DataLoader(items, 6))
    probe = callback.probe_set
    assert probe.multi_label and (probe.present.sum(dim=1) == 2).all()
    for image, label, mask in zip(probe.images, probe.labels, probe.masks, strict=True):
        own = next(item for item in items if torch.equal(item[0], image))
        assert torch.equal(mask, own[2][label])


def test_masks_of_a_stream_that_cannot_be_read_or_look_inverted_are_told(toys, watch):
    def run(form):
        items = [form(*item) for item in toys.items]
        reads = Reads(lambda batch: (batch["image"], batch["label"]) if isinstance(batch, dict) else batch[:2])
        return watch(reads, DataLoader(Stream(items), 6), training=DataLoader(items, 6))

    with pytest.warns(
        GradCAMWarning, match=r"batch\['mask'\], .*, is left out as a mask, in 15 of 15 items.* mask > 0\."
    ):
        callback = run(lambda image, label, mask: {"image": image, "label": label, "mask": mask * 5})
    assert callback.verdict.basis == "frame"
    with pytest.warns(GradCAMWarning, match=r"batch\[2\], .*, is left out as a mask"):
        run(lambda image, label, mask: (image, label, mask * 5.0))
    told = pytest.warns(GradCAMWarning, match="masks look inverted, .*: image 0 of the first batches")
    with told, pytest.warns(GradCAMWarning, match="take no part in the swap test"):
        run(lambda image, label, mask: (image, label, ~mask))
    # What has another size, and is called something else, is no mask.
    run(lambda image, label, mask: (image, label, torch.full((4, 9), 0.5)))


def test_a_callable_target_needs_no_labels_of_a_stream(toys, watch):
    module = Reads()
    loader = DataLoader(Stream([image for image, _, _ in toys.items]), 6)
    module.validation_step = lambda batch, batch_idx: None
    callback = watching(target=lambda outputs, index: outputs[:, 0])
    watch(module, loader, callback, training=DataLoader(toys, 6))
    assert len(callback.probe_set) == 16 and not callback.probe_set.has_labels


def test_a_folder_needs_data_with_items(toys, tmp_path, watch):
    class Transformed(Stream):
        transform = transforms.ToTensor()

    with pytest.raises(ValueError, match="items by index, to read the folder .* but Transformed has no items by index"):
        watch(Reads(), DataLoader(Transformed(toys.items), 6), watching(tmp_path), training=DataLoader(toys, 6))


def test_the_generator_of_a_loader_is_left_as_it_was(toys, trainer):
    seen = []
    for callbacks in ([], [watching()]):
        pl.seed_everything(0, verbose=False)
        loader = DataLoader(Stream(toys.items), 6, generator=torch.Generator().manual_seed(5))
        trainer(*callbacks, max_epochs=1, num_sanity_val_steps=0).fit(Reads(), DataLoader(toys, 6), loader)
        seen.append(loader.generator.get_state())
    assert torch.equal(*seen)


class Changes(Stream):
    """Gives other images each time: it counts how often it is read, and draws from every random generator."""

    def __init__(self, items):
        super().__init__(items)
        self.times, self.own = 0, np.random.default_rng(5)

    def __iter__(self):
        self.times += 1
        order = torch.randperm(len(self.items)).tolist()
        factor = 1 + 0.1 * self.times + random.random() + np.random.rand() + self.own.random()
        return iter([(self.items[i][0] * factor, self.items[i][1]) for i in order])


class Endless(Changes):
    def __iter__(self):
        while True:
            yield from super().__iter__()


class Tables(Dataset):
    """Its items are whole batches."""

    def __init__(self, items):
        self.stream = Changes(items)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return default_collate(list(islice(self.stream, 6)))


class Keeps(DataLoader):
    """Keeps one iterator for all epochs, as timm's MultiEpochsDataLoader."""

    own = None

    def __iter__(self):
        if self.own is None:
            self.own = super().__iter__()
        return islice(self.own, 3)


class Wraps:
    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)


WORKERS = {"num_workers": 1, "persistent_workers": True}
READ_IN_ORDER = {
    "a stream that changes": lambda items: DataLoader(Changes(items), 6),
    "persistent workers": lambda items: DataLoader(Changes(items), 6, **WORKERS),
    "no batching": lambda items: DataLoader(Tables(items), batch_size=None, **WORKERS),
    "a wrapped loader": lambda items: Wraps(DataLoader(Changes(items), 6, **WORKERS)),
    "a kept iterator": lambda items: Keeps(Endless(items), 6),
}


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
@pytest.mark.parametrize("sanity", [0, 1])
@pytest.mark.parametrize("kind", READ_IN_ORDER)
def test_a_validation_finds_its_data_as_if_nobody_had_read_them(toys, trainer, kind, sanity):
    items, seen = [(image, label) for image, label, _ in toys.items], []
    for callbacks in ([], [watching(target=lambda outputs, index: outputs[:, 0])]):
        pl.seed_everything(0, verbose=False)
        module, loader = ThinVGG(), READ_IN_ORDER[kind](items)
        made = trainer(*callbacks, max_epochs=1, num_sanity_val_steps=sanity)
        made.fit(module, DataLoader(items[:6], 6, shuffle=True), loader)
        drawn = [torch.get_rng_state(), torch.tensor(np.random.get_state()[1].astype(np.int64))]
        seen.append([*drawn, made.callback_metrics["val_loss"], *module.state_dict().values()])
        workers = getattr(getattr(loader, "loader", loader), "_iterator", None)
        if workers is not None:
            workers._shutdown_workers()
    assert all(map(torch.equal, *seen))
    assert len(callbacks[0].history) == 1


def test_masks_of_a_stream_that_mark_nothing_are_no_masks(toys, watch):
    items = [
        (x, y, mask if i % 2 else torch.zeros_like(mask), f"photo_{i}.png") for i, (x, y, mask) in enumerate(toys.items)
    ]
    message = r"images mark nothing after the transform.* photo_0 \(image 0 of the first batches\)"
    with pytest.warns(GradCAMWarning, match=message):
        callback = watch(Reads(), DataLoader(Stream(items), 6), training=DataLoader(toys, 6))
    assert 0 < callback.probe_set.has_mask.sum() < len(callback.probe_set)
