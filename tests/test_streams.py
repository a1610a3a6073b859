"""Data without an index, such as streams, give the images of their first batches."""

from collections import Counter

import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, default_collate
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


@pytest.mark.filterwarnings("ignore:.*IterableDataset.* has .__len__. defined")
@pytest.mark.parametrize("sanity", [0, 2])
@pytest.mark.parametrize("kind", ["stream", "sized stream", "batches", "no batching", "own iterator"])
def test_data_without_index_give_the_images_of_the_first_batches(watch, kind, sanity):
    toys = Toys(60, bias=1.0, seed=0, size=64)
    loader = {
        "stream": lambda: DataLoader(Stream(toys.items), batch_size=6),
        "sized stream": lambda: DataLoader(Sized(toys.items), batch_size=6),
        "batches": lambda: Batches(toys.items),
        "no batching": lambda: DataLoader(Stream(list(Batches(toys.items))), batch_size=None),
        "own iterator": lambda: OwnIterator(toys.items),
    }[kind]()
    module = Reads()
    callback = watch(module, loader, training=DataLoader(toys, 6), num_sanity_val_steps=sanity)
    labels = callback.probe_set.labels.tolist()
    assert Counter(labels) == {0: 5, 1: 5, 2: 5}
    first = [image for image, _, _ in toys.items[:36]]
    assert all(any(torch.equal(own, image) for image in first) for own in callback.probe_set.images)
    assert callback.probe_set.has_mask.all()
    assert_logged_of(callback, module, callback.probe_set.images)
    if kind == "own iterator":
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


def test_masks_of_a_stream_that_mark_nothing_are_no_masks(toys, watch):
    items = [(x, y, mask if i % 2 else torch.zeros_like(mask)) for i, (x, y, mask) in enumerate(toys.items)]
    with pytest.warns(GradCAMWarning, match="images mark nothing after the transform"):
        callback = watch(Reads(), DataLoader(Stream(items), 6), training=DataLoader(toys, 6))
    assert 0 < callback.probe_set.has_mask.sum() < len(callback.probe_set)
