"""Items and batches of any usual form are recognised. Others are refused with the way out."""

import dataclasses
import types
from collections import UserDict, namedtuple

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate
from torchvision import transforms
from watched_data import PATHS, Reads, Regrouped, assert_logged_of, watching

from gradcam_callback import GradCAMWarning, ProbeSet
from gradcam_callback.exceptions import UserCodeError, blame
from gradcam_callback.probes import batches
from gradcam_callback.probes.batches import describe, find_parts, is_label, row_of
from gradcam_callback.probes.feed import Feed, fill_row
from gradcam_callback.probes.labels import all_classes, to_classes

pytestmark = pytest.mark.sixteen_images
Sample = namedtuple("Sample", "image label")
Odd = namedtuple("Odd", "pixels number")
# What an item is made of (image, label, mask, i), how the network reads a batch, and if it has a mask.
FORMS = {
    "image, label": (lambda x, y, m, i: (x, y), lambda b: (b[0], b[1]), False),
    "a list": (lambda x, y, m, i: [x, y], lambda b: (b[0], b[1]), False),
    "with a mask": (lambda x, y, m, i: (x, y, m), lambda b: (b[0], b[1]), True),
    "with a mask of one channel": (lambda x, y, m, i: (x, y, m[None].float()), lambda b: (b[0], b[1]), True),
    "with a file name": (lambda x, y, m, i: (x, y, PATHS[i]), lambda b: (b[0], b[1]), False),
    "with index and weight": (lambda x, y, m, i: (x, y, i, 0.5), lambda b: (b[0], b[1]), False),
    "with four numbers": (lambda x, y, m, i: (x, y, torch.tensor([1, 2, 30, 40])), lambda b: (b[0], b[1]), False),
    "with metadata": (lambda x, y, m, i: (x, y, {"age": i, "path": PATHS[i]}), lambda b: (b[0], b[1]), False),
    "label and mask": (lambda x, y, m, i: (x, (y, m)), lambda b: (b[0], b[1][0]), True),
    "label and mask by name": (lambda x, y, m, i: (x, {"y": y, "mask": m}), lambda b: (b[0], b[1]["y"]), True),
    "label first": (lambda x, y, m, i: (y, x), lambda b: (b[1], b[0]), False),
    "image, label by name": (lambda x, y, m, i: {"image": x, "label": y}, lambda b: (b["image"], b["label"]), False),
    "Hugging Face": (
        lambda x, y, m, i: {"pixel_values": x, "labels": y},
        lambda b: (b["pixel_values"], b["labels"]),
        False,
    ),
    "all by name": (
        lambda x, y, m, i: {"id": i, "img": x, "target": y, "mask": m, "path": PATHS[i]},
        lambda b: (b["img"], b["target"]),
        True,
    ),
    "upper case": (lambda x, y, m, i: {"Image": x, "Y": y}, lambda b: (b["Image"], b["Y"]), False),
    "image by name, then label": (
        lambda x, y, m, i: ({"image": x, "mask": m}, y),
        lambda b: (b[0]["image"], b[1]),
        True,
    ),
    "named tuple": (lambda x, y, m, i: Sample(x, y), lambda b: (b.image, b.label), False),
    "named tuple of other names": (lambda x, y, m, i: Odd(x, y), lambda b: (b.pixels, b.number), False),
    "a column of labels": (lambda x, y, m, i: (x, torch.tensor([y])), lambda b: (b[0], b[1][:, 0]), False),
}


@pytest.mark.parametrize("form", FORMS)
def test_items_of_any_usual_form_are_recognised(toys, watch, form):
    make, read, has_mask = FORMS[form]
    items = [make(image, label, mask, i) for i, (image, label, mask) in enumerate(toys.items)]
    module = Reads(read)
    callback = watch(module, DataLoader(items, batch_size=6))
    expected = ProbeSet.from_dataset(toys, 5)
    assert_logged_of(callback, module, expected.images)
    assert callback.probe_set.labels.tolist() == expected.labels.tolist()
    masks = callback.probe_set.masks
    assert torch.equal(masks, expected.masks) if has_mask else masks is None
    names = callback.probe_set.names
    assert all("photo_" in name for name in names) == ("photo_" in str(items[0])), names


class Streamed(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def read_first(batch):
    """Return the images of a batch, and classes for the loss."""
    images = find_parts(batch, "", needs_labels=False).images
    return images, torch.zeros(len(images), dtype=torch.long)


@pytest.mark.parametrize(
    "make, second",
    [
        (lambda x, y, i: (x, i % 2, y), 2),
        (lambda x, y, i: (x, torch.tensor(i % 2), "a.png", np.int64(y)), 3),
        (lambda x, y, i: (x, i % 2, i, y), 3),
        (lambda x, y, i: ({"image": x}, i % 2, y), 2),
        (lambda x, y, i: (x, y, i), None),
        (lambda x, y, i: (x, y, 1), None),
        (lambda x, y, i: (x, y, y), None),
        (lambda x, y, i: (x, y, 0.5 * i), None),
        (lambda x, y, i: (x, y, 1.0 + i % 2), None),
        (lambda x, y, i: {"image": x, "label": y, "place": i % 2}, None),
        (lambda x, y, i: ({"image": x, "label": y}, i % 2, y), None),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_second_value_that_may_be_the_label_is_said(toys, watch, make, second, is_stream):
    items = [make(image, label, i) for i, (image, label, _) in enumerate(toys.items)]

    module, loader = Reads(read_first), DataLoader(Streamed(items) if is_stream else items, batch_size=6)
    if second is None:
        watch(module, loader)
        return
    place = "batch[0]['image']" if isinstance(items[0][0], dict) else "batch[0]"
    with pytest.warns(GradCAMWarning) as said:
        watch(module, loader)
    assert [str(one.message) for one in said if one.category is GradCAMWarning] == [
        f"GradCAM: batch[1] of your validation data is taken as the label, but batch[{second}] may be the label, too. "
        f"If it is, maps, accuracies and verdict are of wrong classes: pass batch_transform=lambda batch: ({place}, "
        f"batch[{second}]). If it is not, batch_transform=lambda batch: ({place}, batch[1]) says so."
    ]
    watch(module, loader, watching(batch_transform=lambda batch: (read_first(batch)[0], batch[second])))


@pytest.mark.parametrize(
    "make, batch_transform, said",
    [
        (
            lambda x, y, i: (x, i, y),
            None,
            r"The labels are batch\[1\] of your validation data; if batch\[2\] holds them, pass batch_transform=lambda "
            r"batch: \(batch\[0\], batch\[2\]\)\. Correct",
        ),
        (
            lambda x, y, i: {"image": x, "label": y + 1},
            None,
            r"The labels are batch\['label'\] of your validation data; for others, pass batch_transform=",
        ),
        (lambda x, y, i: (x, y), lambda batch: (batch[0], batch[1] + 1), r"The labels come from your batch_transform"),
    ],
)
def test_labels_that_are_no_classes_are_said_with_their_place(toys, watch, make, batch_transform, said):
    items = [make(image, label, i) for i, (image, label, _) in enumerate(toys.items)]
    with pytest.raises(ValueError, match=rf"to be classes from 0 to 2 .*, but got \[\d+\]\. {said}"):
        watch(Reads(read_first), DataLoader(items, batch_size=6), watching(batch_transform=batch_transform))


class StoresLabels(list):
    """Items whose labels are known without loading them."""

    def __init__(self, items, labels):
        super().__init__(items)
        self.targets = labels


def test_items_that_are_none_are_left_out_by_their_number(toys, watch):
    """A dataset gives None for a broken file, and its collate function leaves it out."""

    def collate(items):
        return default_collate([item[:2] for item in items if item is not None])

    items = [None if i in (2, 7) else item for i, item in enumerate(toys.items)]
    labels = [label for _, label, _ in toys.items]
    with pytest.warns(GradCAMWarning, match=r"2 of 15 items of your validation data are None .*: (2, 7|7, 2)\.$"):
        callback = watch(Reads(), DataLoader(StoresLabels(items, labels), batch_size=6, collate_fn=collate))
    assert len(callback.probe_set) == 13
    # If labels are read from the items, others take their place.
    assert len(watch(Reads(), DataLoader(items, batch_size=6, collate_fn=collate)).probe_set) == 15
    with pytest.raises(ValueError, match="of the dataset to hold images, but all 6 that were read are None. Try"):
        ProbeSet.from_dataset(StoresLabels([None] * 15, labels[:15]), per_class=2)


def test_a_collate_function_that_drops_items_is_said_with_their_numbers(toys, watch):
    loader = DataLoader(toys, batch_size=6, collate_fn=lambda items: default_collate(items[1:]))
    with pytest.raises(ValueError, match=r"to hold 15 images, but got 14 in .* These are items \d+, \d+, .*\. Correct"):
        watch(Reads(), loader)


def test_a_userdict_is_a_mapping_too():
    batch = UserDict({"image": torch.rand(2, 3, 8, 8), "label": torch.tensor([0, 1])})
    assert find_parts(batch, "a batch").labels.tolist() == [0, 1]


UNCLEAR = {
    "two labels": lambda x, y: {"image": x, "label": y, "target": y},
    "two tasks": lambda x, y: (x, (y, y, y)),
    "two images": lambda x, y: {"left": x, "right": x, "label": y},
    "a number of no name": lambda x, y: {"image": x, "breed": y},
    "an index before the image": lambda x, y: (7, x, y),
    "text": lambda x, y: (x, "star"),
    "a measure": lambda x, y: (x, 0.5),
    "no label": lambda x, y: {"image": x},
}


@pytest.mark.parametrize("form", UNCLEAR)
def test_what_is_not_certain_is_an_error_that_shows_the_item_and_the_way_out(toys, watch, form):
    items = [UNCLEAR[form](image, label) for image, label, _ in toys.items]
    module = Reads(lambda batch: (toys.items[0][0][None], torch.tensor([0])))
    message = r"cannot find one .*Tensor float32 \(.*48, 48\).*batch_transform=lambda batch: \(images, labels\)"
    with pytest.raises(ValueError, match=message) as caught:
        watch(module, DataLoader(items, batch_size=6))
    assert "tensor(" not in str(caught.value), "never the pixels"


@pytest.mark.parametrize("form", ["two labels", "two images", "an index before the image", "a number of no name"])
def test_a_batch_transform_says_what_is_what(toys, watch, form):
    items = [UNCLEAR[form](image, label) for image, label, _ in toys.items]
    read = {
        "two labels": lambda b: (b["image"], b["target"]),
        "two images": lambda b: (b["right"], b["label"]),
        "an index before the image": lambda b: (b[1], b[2]),
        "a number of no name": lambda b: (b["image"], b["breed"]),
    }[form]
    module = Reads(read)
    callback = watch(module, DataLoader(items, 6), watching(batch_transform=read))
    expected = ProbeSet.from_dataset(toys, 5)
    assert_logged_of(callback, module, expected.images)
    own = ProbeSet.from_dataset(items, 5, batch_transform=read)
    assert torch.equal(own.images, expected.images) and own.labels.tolist() == expected.labels.tolist()


@dataclasses.dataclass
class Record:
    photo: torch.Tensor
    about: types.SimpleNamespace

    @classmethod
    def of(cls, item):
        return cls(item[0], types.SimpleNamespace(breed=item[1], _hidden=0))


SHOWN = r"Record\(photo=Tensor float32 \({}3, 48, 48\), about=SimpleNamespace\(breed={}\)\)"


def test_objects_as_items_are_shown_and_what_to_do(toys):
    data = [Record.of(item) for item in toys.items]
    with pytest.raises(ValueError, match=f"{SHOWN.format('', 'int')}. Let the dataset give .image, label. or .image, "):
        ProbeSet.from_dataset(data)
    message = (
        f"items such as {SHOWN.format('', 'int')}, but it raised TypeError: default_collate.* Let the dataset give"
    )
    with pytest.raises(UserCodeError, match=message):
        ProbeSet.from_dataset(data, batch_transform=lambda batch: (batch.photo, batch.about.breed))


def test_objects_as_batches_are_shown_and_a_batch_transform_takes_them(toys, watch):
    def read(batch):
        return batch.photo, batch.about.breed

    loader = DataLoader(toys, 6, collate_fn=lambda items: Record.of(default_collate(items)))
    with pytest.raises(ValueError, match=SHOWN.format(r"\d+, ", r"Tensor int64 \(\d+,\)") + ". Say which they are"):
        watch(Reads(read), loader)
    callback = watch(Reads(read), loader, watching(batch_transform=read))
    assert callback.probe_set.labels.bincount().tolist() == [5, 5, 5]


def test_a_batch_transform_may_give_masks(toys, watch):
    items = [{"a": image, "b": label, "c": mask} for image, label, mask in toys.items]
    callback = watching(batch_transform=lambda b: (b["a"], b["b"], b["c"]))
    watch(Reads(lambda b: (b["a"], b["b"])), DataLoader(items, 6), callback)
    assert torch.equal(callback.probe_set.masks, ProbeSet.from_dataset(toys, 5).masks)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda batch: batch[0], r"to return \(images, labels\) or .* but got Tensor float32 \(15, 3, 48, 48\)"),
        (lambda batch: (batch[0][0], batch[1]), r"but got \(Tensor float32 \(3, 48, 48\), Tensor int64 \(15,\)\)"),
        (lambda batch: batch["image"], r"your batch_transform to take the batch \[.*but it raised TypeError"),
    ],
)
def test_a_batch_transform_that_is_wrong_is_named(toys, watch, transform, message):
    with pytest.raises(ValueError, match=message):
        watch(Reads(), DataLoader(toys, 6), watching(batch_transform=transform))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (lambda b: b[1][0], r"labels as images, but got Tensor int64 \(\) for 2 images"),
        (lambda b: {"breed": b[1]}, r"labels as images, but got \{'breed': Tensor int64 \(2,\)\} for 2 images"),
        (lambda b: 1, "labels as images, but got int for 2 images"),
        (lambda b: "star", "labels as images, but got str for 2 images"),
        (lambda b: b[1][:1], "labels as images, but got 1 labels for 2 images"),
    ],
)
def test_labels_of_a_batch_transform_that_are_not_one_per_image_are_said(toys, labels, said):
    feed = Feed(batch_transform=lambda batch: (batch[0], labels(batch)))
    with pytest.raises(ValueError, match=f"as many {said}. Correct it"):
        feed.samples_of(default_collate([item[:2] for item in toys.items[:2]]))


@pytest.mark.parametrize("place", ["batch transform", "collate function", "hook"])
@pytest.mark.parametrize("name", [None, "label"])
def test_labels_that_are_squeezed_are_those_of_a_single_image_too(toys, watch, place, name):
    """The callback also makes batches of one image."""

    def read(batch):
        return (batch["image"], batch[name]) if name else batch[:2]

    def squeeze(batch):
        images, labels = read(batch)
        return {"image": images, name: labels.squeeze()} if name else (images, labels.squeeze())

    class Squeezes(Reads):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return squeeze(batch) if place == "hook" else batch

    columns = [(image, torch.tensor([label])) for image, label, _ in toys.items]
    items = [{"image": image, name: label} for image, label in columns] if name else columns
    collate = (lambda rows: squeeze(default_collate(rows))) if place == "collate function" else None
    options = {"batch_transform": lambda batch: read(squeeze(batch))} if place == "batch transform" else {}
    module = Squeezes(lambda batch: (read(batch)[0], read(batch)[1].reshape(-1)))
    callback = watch(module, DataLoader(items, 6, collate_fn=collate), watching(**options))
    assert callback.probe_set.labels.tolist() == ProbeSet.from_dataset(toys, 5).labels.tolist()


def test_a_mask_that_is_squeezed_is_that_of_a_single_image_too(toys):
    items = [{"x": image, "y": label, "m": mask[None]} for image, label, mask in toys.items]
    probe = ProbeSet.from_dataset(items[:1], batch_transform=lambda b: (b["x"], b["y"], b["m"].squeeze()))
    assert torch.equal(probe.masks[0], items[0]["m"][0])


def test_soft_labels_are_said_with_the_way_out(toys, watch):
    soft = DataLoader([(image, torch.eye(3)[label] * 0.8 + 0.1) for image, label, _ in toys.items], batch_size=6)
    module = Reads(read_first)
    with pytest.raises(ValueError, match=r"Soft labels \(N, K\) become classes by labels\.argmax\(1\)\. Say which"):
        watch(module, soft)
    with pytest.raises(ValueError, match=r"to be one integer class, .* soft labels by labels\.argmax\(1\)\."):
        watch(module, soft, watching(batch_transform=lambda batch: (batch[0], batch[1])))
    callback = watch(module, soft, watching(batch_transform=lambda batch: (batch[0], batch[1].argmax(1))))
    assert callback.probe_set.labels.unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize("collate", [None, lambda items: default_collate(items)])
def test_images_of_several_sizes_are_said_with_their_sizes(toys, watch, collate):
    """A training with batches of one image takes them."""
    items = [(image[:, : 48 - 8 * (i % 2)], label) for i, (image, label, _) in enumerate(toys.items)]
    message = r"images of your validation data to have one size, .* but got \(3, 4[08], 48\), \(3, 4[08], 48\)\. Resize"
    with pytest.raises(ValueError, match=message):
        watch(Reads(), DataLoader(items, batch_size=1, collate_fn=collate))


BROKEN = {
    "item": r"Expected item \d+ of your validation data to load, but it raised OSError: truncated file",
    "collate": r"Expected the collate_fn of your validation data to make a batch .* but it raised IndexError: no such",
    "hook": r"Expected your batch hooks, such as on_after_batch_transfer, .* but it raised NotImplementedError",
    "forward": r"Expected the model's forward to take probe images .* but it raised KeyError: 'state'",
}


@pytest.mark.parametrize("place", BROKEN)
def test_an_error_of_the_users_code_is_named_before_training(toys, trainer, place):
    """One that comes only when the callback asks, such as an item that the sanity check did not reach."""

    class Data(Regrouped):
        def __getitem__(self, index):
            if place == "item" and torch.is_grad_enabled() is not None and self.broken:
                raise OSError("truncated file")
            return super().__getitem__(index)

    class Fails(Reads):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            if place == "hook" and data.broken:
                raise NotImplementedError
            return batch

        def forward(self, images):
            if place == "forward" and data.broken:
                raise KeyError("state")
            return super().forward(images)

    def collate(items):
        if place == "collate" and data.broken:
            raise IndexError("no such thing")
        return default_collate(items)

    class Breaks(pl.Callback):
        def on_sanity_check_end(self, trainer, pl_module):
            data.broken = True

    data = Data(toys)
    data.broken = False
    module = Fails()
    runs = trainer(Breaks(), watching(), max_epochs=1, num_sanity_val_steps=1)
    with pytest.raises(UserCodeError, match=BROKEN[place]) as caught:
        runs.fit(module, DataLoader(toys, 6), DataLoader(data, 6, collate_fn=collate))
    assert caught.value.__cause__ is not None and runs.global_step == 0


def test_structures_are_shown_without_their_pixels():
    value = {"image": torch.zeros(2, 3, 4, 4), "more": [1, "a", None], "many": list(range(20)), "deep": [[[[[0]]]]]}
    text = describe(value)
    assert text.startswith(
        "{'image': Tensor float32 (2, 3, 4, 4), 'more': [int, str, NoneType], 'many': list of 20 int"
    )
    assert "list of 1 list" in text and len(describe({str(i): i for i in range(50)})) < 200


def test_a_batch_is_cut_into_the_batches_of_its_images():
    images = torch.rand(3, 1, 2, 2)
    batch = {"x": images, "names": ["a", "b", "c"], "pair": (torch.arange(3), torch.arange(3)), "scale": 2.0}
    row = row_of(batch, 1, 3)
    assert torch.equal(row["x"], images[1:2]) and row["names"] == ["b"] and row["scale"] == 2.0
    assert [part.tolist() for part in row["pair"]] == [[1], [1]]
    assert row_of(Sample(images, torch.arange(3)), 2, 3).label.tolist() == [2]
    data = TensorDataset(images, torch.arange(3))
    assert row_of(next(iter(DataLoader(data, batch_size=3))), 0, 3)[1].tolist() == [0]


class Encoding(UserDict):
    """A mapping whose values are attributes, too, as that of a tokenizer of Hugging Face."""

    def __getattr__(self, name):
        if name in self.__dict__.get("data", ()):
            return self.data[name]
        raise AttributeError(name)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_row_of_a_batch_that_passes_by_has_the_form_of_the_batch(n):
    images, paths = torch.rand(n, 3, 4, 4), [f"{i}.jpg" for i in range(n)]
    three = namedtuple("Three", "image label path")
    feed = Feed(collate=None)
    for make in (lambda *parts: parts, lambda *parts: [*parts], three):
        for i, sample in enumerate(feed.samples_of(make(images, torch.arange(n), paths))):
            image, label, path = row = fill_row(sample.row, sample.image[None])
            assert type(row) is type(make(1, 2, 3))
            assert torch.equal(image, images[i : i + 1]) and label.tolist() == [i] and path == [paths[i]]
    for sample in feed.samples_of(Encoding(pixel_values=images, labels=torch.arange(n))):
        assert fill_row(sample.row, sample.image[None]).pixel_values.shape == (1, 3, 4, 4)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_metadata_in_a_list_of_mappings_are_cut_and_views_of_all_images_are_not(n):
    images, several = torch.rand(n, 1, 2, 2), {"views": [{"zoom": torch.rand(n)} for _ in range(n)]}
    meta = [{"age": i, "place": torch.rand(7, 2)} for i in range(n)]
    for i in range(n):
        assert row_of({"x": images, "meta": meta}, i, n)["meta"] == [meta[i]]
        views = row_of(several, i, n)["views"]
        assert len(views) == n and all(view["zoom"].shape == (1,) for view in views)


@pytest.mark.parametrize("n", [1, 2, 3, 16])
@pytest.mark.parametrize("length", [1, 2, 3, 16])
def test_what_the_images_of_a_batch_share_stays_whole_whatever_its_length(n, length):
    shared = {"prior": torch.rand(length), "words": [str(i) for i in range(length)], "table": torch.rand(length, 3)}

    def collate(items):
        labels = [label for _, label in items]
        return [*default_collate(items), [{"age": i} for i in labels], [f"{i}.jpg" for i in labels], shared]

    items = [(torch.rand(3, 4, 4), i) for i in range(n)]
    for i, sample in enumerate(Feed(collate=collate).samples(items, range(n))):
        place, label, meta, files, own = sample.row
        assert isinstance(place, batches.ImagePlace) and label.tolist() == [i]
        assert meta == [{"age": i}] and files == [f"{i}.jpg"]
        assert own["words"] == shared["words"]
        assert all(torch.equal(own[name], shared[name]) for name in ("prior", "table"))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_as_many_images_as_a_batch_has_parts_are_cut_too(n):
    batch = [torch.rand(n, 3, 4, 4), torch.arange(n), torch.arange(n)][: max(n, 2)]
    for i, sample in enumerate(Feed().samples_of(batch)):
        assert [part.tolist() for part in sample.row[1:]] == [[i]] * (len(batch) - 1)


def test_a_collate_function_that_takes_no_single_item_is_asked_for_many(toys):
    def collate(items):
        assert len(items) > 1
        return default_collate(items)

    rows = [sample.row for sample in Feed(collate=collate).samples([item[:2] for item in toys.items[:4]], range(4))]
    assert [row[1].tolist() for row in rows] == [[item[1]] for item in toys.items[:4]]


@pytest.mark.parametrize(
    "value",
    [
        "text",
        None,
        {"a": 1},
        [],
        ["a"],
        np.array(["a"]),
        0.5,
        float("inf"),
        2**70,
        [2**70, 1],
        np.array(2**64 - 1, np.uint64),
        torch.zeros(2, 2),
        torch.zeros(0),
        torch.tensor([2, 3, 4]),
        torch.ones(2).to_sparse(),
        torch.ones(2, device="meta"),
    ],
)
def test_what_is_no_label_of_an_item(value):
    assert not is_label(value, 0)
    # It is no label of an item whose label stands before it, either, and no error.
    items = [(torch.rand(3, 8, 8), i % 2, value) for i in range(4)]
    assert ProbeSet.from_dataset(items, 1).labels.tolist() == [0, 1]


@pytest.mark.parametrize("label", [float("inf"), float("nan"), 2**70, np.array(2**64 - 1, np.uint64)])
def test_a_label_without_end_is_refused_in_words(label):
    with pytest.raises(ValueError, match="cannot find one value that is certainly the label"):
        ProbeSet.from_dataset([(torch.rand(3, 8, 8), label)] * 2)
    with pytest.raises(ValueError, match="Expected the label of it to be one integer class"):
        to_classes(label, "the label", "it")


@pytest.mark.parametrize(
    "value",
    [3, True, 2.0, np.int64(1), torch.tensor(1), torch.tensor([1]), [0, 1, 1], np.eye(3)[0], np.eye(3)[0, ::-1]]
    + [np.array(5, dtype) for dtype in (">i4", np.uint64, np.longdouble)],
)
def test_what_is_a_label_of_an_item(value):
    assert is_label(value, 0) and to_classes(value, "the label", "it")


@pytest.mark.parametrize("label", ["text", None, torch.tensor([0.5, 1])])
def test_a_batch_transform_that_gives_no_labels_is_said(toys, watch, label):
    callback = watching(batch_transform=lambda batch: (batch[0], [label] * len(batch[0])))
    with pytest.raises(ValueError, match=r"label.* of your validation data to be one integer class, or \(K,\)"):
        watch(Reads(), DataLoader(toys, 6), callback)


def test_uint8_images_are_said(toys, watch):
    items = [((image * 255).to(torch.uint8), label) for image, label, _ in toys.items]
    module = Reads(lambda batch: (batch[0].float(), batch[1]))
    with pytest.raises(ValueError, match="Images of uint8 become floating point by a transform such as torchvision's"):
        watch(module, DataLoader(items, 6))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_with_channels_last_are_said_and_narrow_ones_may_be_meant(toys, watch, channels):
    class Permutes(Reads):
        def forward(self, images):
            return super().forward(images[..., :1].expand(-1, -1, -1, 3).permute(0, 3, 1, 2))

    items = [(torch.rand(48, 48, channels), label) for _, label, _ in toys.items]
    module = Permutes()
    message = rf"Tensor float32 \((1, )?48, 48, {channels}\), .*\. Images \(H, W, C\) .* batch_transform"
    with pytest.raises(ValueError, match=message):
        watch(module, DataLoader(items, 6))
    with pytest.raises(ValueError, match=message):
        ProbeSet.from_dataset(items)
    assert module.losses == []
    meant = ProbeSet.from_dataset(items, batch_transform=lambda batch: (batch[0], batch[1]))
    assert meant.images.shape[1:] == (48, 48, channels)
    assert ProbeSet.from_dataset([(image[:4], label) for image, label in items]).images.shape[1:] == (4, 48, channels)


def test_a_collate_function_may_make_everything_of_pictures(toys, watch):
    items = [{"picture": transforms.functional.to_pil_image(image), "class": y} for image, y, _ in toys.items]

    def collate(items):
        images = [transforms.functional.to_tensor(item["picture"]) for item in items]
        return torch.stack(images), torch.tensor([item["class"] for item in items])

    module = Reads()
    callback = watch(module, DataLoader(items, 6, collate_fn=collate))
    assert_logged_of(callback, module, ProbeSet.from_dataset(toys, 5).images)


def test_a_mask_and_a_label_in_different_places(toys):
    image, label, mask = toys.items[0]
    found = find_parts(({"image": image, "label": label}, 5), "an item", batched=False)
    assert found.labels == label, "by its name"
    found = find_parts((label, mask, image), "an item", batched=False)
    assert found.labels == label and found.masks is mask, "nothing else could be either"
    bytes_of_mask = (mask.int() * 255).to(torch.uint8)
    assert torch.equal(ProbeSet.from_dataset([(image, 0, bytes_of_mask)]).masks[0], mask)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("can't allocate memory")])
def test_a_lack_of_memory_is_nobodys_fault(error):
    with pytest.raises(type(error)) as caught, blame("it to work", "Correct it."):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.rand(5, 7) > 0.5, True),
        (torch.rand(5, 7), False),
        ((torch.rand(8, 8) > 0.5).float(), True),
        (torch.rand(8, 8), False),
        (255 * (torch.rand(8, 8) > 0.5).byte(), True),
        (255 * (torch.rand(8, 8) > 0.5).float(), True),
        (255 * (torch.rand(8, 8) > 0.5).long(), False),
        (torch.tensor([0.0, 1.0, 255.0, 0.0]).repeat(16).view(8, 8), False),
        (torch.zeros(0, 8), False),
    ],
)
def test_a_mask_is_true_and_false_or_two_values_of_the_size_of_the_image(given, expected):
    assert batches.is_mask(given, torch.rand(3, 8, 8), lead=0) is expected


def test_without_a_label_there_are_no_classes():
    assert all_classes(None) is None and all_classes(3) is None
    assert all_classes([0, 1, 1]).tolist() == [False, True, True]
