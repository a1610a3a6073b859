"""The network is shown what the validation shows it, whatever the form of the user's data."""

from collections import Counter, UserDict, namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, default_collate
from torchvision import transforms
from torchvision.transforms import v2
from toys import CLASSES, Toys

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning, ProbeSet
from gradcam_callback.exceptions import UserCodeError, blame
from gradcam_callback.probes import batches
from gradcam_callback.probes.batches import describe, find_parts, is_label, row_of
from gradcam_callback.probes.feed import Feed
from gradcam_callback.probes.labels import all_classes, to_classes
from gradcam_callback.probes.lookup import find_normalisations, undoing
from gradcam_callback.trainers import find_difference

LAYER = "block5_conv3"
pytestmark = pytest.mark.sixteen_images
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
NORMALISE = transforms.Normalize(MEAN, STD)


def watching(probe=None, **options):
    return GradCAMCallback(probe, LAYER, views="layer", **options)


class Reads(ThinVGG):
    """Takes what `read` makes of a batch."""

    def __init__(self, read=lambda batch: (batch[0], batch[1]), classes=3):
        super().__init__(classes)
        self.read = read

    def loss(self, batch):
        images, labels = self.read(batch)
        return functional.cross_entropy(self(images), labels)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        images, labels = self.read(batch)
        self.log("val_acc", (self(images).argmax(dim=1) == labels).float().mean(), batch_size=len(images))
        self.log("val_loss", self.loss(batch), batch_size=len(images))


@pytest.fixture
def watch(trainer):
    """Fit a module on a loader with a callback, which is returned."""

    def run(module, loader, callback=None, training=None, **options):
        callback = callback or watching()
        pl.seed_everything(0, verbose=False)
        trainer(callback, **({"max_epochs": 1} | options)).fit(module, training or loader, loader)
        return callback

    return run


def assert_logged_of(callback, module, images):
    """The history holds what the network, as it is now, says about these images with their labels."""
    probe = callback.probe_set
    torch.testing.assert_close(probe.images, images)
    seen = GradCAM(module, LAYER)(images, probe.labels)
    right = (seen.logits.argmax(dim=1) == probe.labels).double().mean()
    assert callback.history[-1]["gradcam/probe_accuracy"] == pytest.approx(float(right))
    strength = seen.maps[LAYER].mean(dim=(1, 2)).mean()
    assert callback.history[-1][f"gradcam/strength/{LAYER}"] == pytest.approx(float(strength), rel=1e-4)


class AfterTransfer(Reads):
    def __init__(self):
        super().__init__()
        self.normalise = NORMALISE

    def on_after_batch_transfer(self, batch, dataloader_idx):
        images, *rest = batch
        if self.trainer.training:
            images = images.flip(3)  # an augmentation, which the validation does not have
        assert self.trainer.training == self.training, "the network is in the mode of the stage"
        return [self.normalise(images), *rest]


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


def normalise_in_collate(items, normalise):
    images, *rest = default_collate(items)
    return [normalise(images), *rest]


@pytest.mark.parametrize("place", ["module, after", "module, before", "data module", "collate_fn", "lambda", "dataset"])
def test_images_are_normalised_where_the_validation_normalises_them(toys, trainer, watch, place):
    plain, items = (
        DataLoader(toys, batch_size=6),
        [(NORMALISE(image), label, mask) for image, label, mask in toys.items],
    )
    expected = ProbeSet.from_dataset(toys, 5)
    normalise = NORMALISE
    if place == "data module":
        module, callback = Reads(), watching()
        trainer(callback, max_epochs=1).fit(module, datamodule=Module(toys))
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
    if place in ("module, before", "dataset"):
        assert shown.min() == 0 and shown.max() == 255, "nobody says how to undo it, so it is stretched"
    else:
        assert abs(shown.astype(int) - expected.display_images()).max() <= 1, "undone for display"


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


Sample = namedtuple("Sample", "image label")
Odd = namedtuple("Odd", "pixels number")
PATHS = [f"somewhere/photo_{i}.jpg" for i in range(18)]

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


def test_hugging_face_names_its_classes_in_the_features_of_the_dataset(toys):
    class ClassLabel:
        names = list(CLASSES)

    class Arrow(Regrouped):
        classes = None
        features = {"image": object(), "label": ClassLabel()}

        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return {"image": image, "label": label}

    data = Arrow(toys)
    data.targets = None
    assert ProbeSet.from_dataset(data).class_names == list(CLASSES)


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
    message = r"cannot find one .*Tensor float32 \(.*64, 64\).*batch_transform=lambda batch: \(images, labels\)"
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


def test_a_batch_transform_may_give_masks(toys, watch):
    items = [{"a": image, "b": label, "c": mask} for image, label, mask in toys.items]
    callback = watching(batch_transform=lambda b: (b["a"], b["b"], b["c"]))
    watch(Reads(lambda b: (b["a"], b["b"])), DataLoader(items, 6), callback)
    assert torch.equal(callback.probe_set.masks, ProbeSet.from_dataset(toys, 5).masks)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda batch: batch[0], r"to return \(images, labels\) or .* but got Tensor float32 \(15, 3, 64, 64\)"),
        (lambda batch: (batch[0][0], batch[1]), r"but got \(Tensor float32 \(3, 64, 64\), Tensor int64 \(15,\)\)"),
        (lambda batch: batch["image"], r"your batch_transform to take the batch \[.*but it raised TypeError"),
    ],
)
def test_a_batch_transform_that_is_wrong_is_named(toys, watch, transform, message):
    with pytest.raises(ValueError, match=message):
        watch(Reads(), DataLoader(toys, 6), watching(batch_transform=transform))


class WithAge(Reads):
    """Its forward takes more than the image."""

    def __init__(self):
        super().__init__()
        self.of_age = torch.nn.Linear(1, 3)

    def forward(self, image, age):
        return super().forward(image) + self.of_age(age[:, None].float())

    def loss(self, batch):
        return functional.cross_entropy(self(batch["image"], batch["age"]), batch["label"])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))


@pytest.fixture
def aged(toys):
    return [{"image": x, "age": i, "label": y, "mask": m} for i, (x, y, m) in enumerate(toys.items)]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_forward_of_several_arguments_gets_all_of_its_batch_with_each_image(aged, watch, streamed):
    module = WithAge()

    def forward(net, batch):
        return net(batch["image"], batch["age"])

    data = Stream(aged) if streamed else aged
    callback = watch(module, DataLoader(data, 6), watching(forward=forward))
    probe, entry = callback.probe_set, callback.history[-1]
    ages = torch.tensor([next(item["age"] for item in aged if torch.equal(item["image"], x)) for x in probe.images])
    assert len(set(ages.tolist())) == len(probe)
    module.eval()
    with torch.no_grad():
        right = module(probe.images, ages).argmax(dim=1) == probe.labels
    assert entry["gradcam/probe_accuracy"] == pytest.approx(float(right.double().mean()))

    class Fixed(torch.nn.Module):
        def __init__(self, age):
            super().__init__()
            self.net, self.age = module, age

        def forward(self, images):
            return self.net(images, self.age.expand(len(images)))

    maps = [
        GradCAM(Fixed(age), LAYER)(image[None], int(label)).maps[LAYER]
        for image, age, label in zip(probe.images, ages, probe.labels, strict=True)
    ]
    assert entry[f"gradcam/strength/{LAYER}"] == pytest.approx(float(torch.cat(maps).mean()), rel=1e-4)
    sets = callback._session  # freed with the model after the fit
    assert sets.evaluator is None and 0 <= entry["gradcam/swap_accuracy"] <= 1


def test_a_forward_that_lacks_its_arguments_is_said_with_the_way_out(aged, toys, watch):
    with pytest.raises(
        UserCodeError, match=r"model's forward to take .*missing 1 required .*forward=lambda net, batch"
    ):
        watch(WithAge(), DataLoader(aged, 6))
    broken = watching(forward=lambda net, batch: net(batch["image"], batch["weight"]))
    with pytest.raises(UserCodeError, match="Expected your `forward` to take .* but it raised KeyError: 'weight'"):
        watch(WithAge(), DataLoader(aged, 6), broken)
    alone = GradCAMCallback(ProbeSet.from_dataset(toys), LAYER, forward=lambda net, batch: net(*batch))
    with pytest.raises(ValueError, match="probe images that come with their batch, for `forward`"):
        watch(WithAge(), DataLoader(aged, 6), alone)


class Stream(IterableDataset):
    def __init__(self, items, size=None):
        self.items = items

    def __iter__(self):
        return iter(self.items)


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


class Regrouped(Dataset):
    """Its items have other labels than its targets, as a user's own ``__getitem__`` makes them."""

    classes = ["kind a", "kind b", "kind c", "kind d", "kind e", "kind f"]

    def __init__(self, toys):
        self.toys, self.reads = toys, 0
        self.targets = [label + 3 for label in toys.targets]

    def __len__(self):
        return len(self.toys)

    def __getitem__(self, index):
        self.reads += 1
        image, label, _ = self.toys[index]
        return image, label


def test_the_label_is_the_items_own(toys, watch):
    module = Reads()
    callback = watch(module, DataLoader(Regrouped(toys), batch_size=6))
    expected = ProbeSet.from_dataset(toys, 5)
    assert callback.probe_set.labels.tolist() == expected.labels.tolist()
    assert callback.probe_set.class_names is None, "the names are of the other labels"
    assert_logged_of(callback, module, expected.images)
    assert ProbeSet.from_dataset(Subset(Regrouped(toys), range(9)), 1).labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("change", [lambda label: label, lambda label: 2 - label])
def test_a_target_transform_decides_about_names_and_labels(toys, change):
    class Transformed(Regrouped):
        classes = CLASSES

        def __init__(self, toys):
            super().__init__(toys)
            self.targets, self.target_transform = toys.targets, change

        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image, self.target_transform(label)

    probe = ProbeSet.from_dataset(Transformed(toys), 2)
    assert probe.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert probe.class_names == (list(CLASSES) if change(0) == 0 else None)
    own = [next(label for x, label, _ in toys.items if torch.equal(x, image)) for image in probe.images]
    assert [change(label) for label in own] == probe.labels.tolist()


def test_reading_labels_stops_when_the_probe_set_is_full(watch, toys):
    many = Toys(300, bias=1.0, seed=0, size=64)
    data = Regrouped(many)
    data.targets = None
    reads = []
    callback = watching()
    validation = DataLoader(data, batch_size=6)
    callback.on_validation_batch_start = lambda *_: reads.append(data.reads)
    watch(Reads(), validation, callback, training=DataLoader(toys, 6), num_sanity_val_steps=0)
    assert len(callback.probe_set) == 15 and reads[0] <= 60 + 6, "a few reads per image, of 300"


def test_a_binary_task_has_eight_images_of_each_class(watch):
    toys = Toys(60, bias=1.0, seed=0, size=64)
    items = [(image, int(label > 0)) for image, label, _ in toys.items]
    callback = watch(Reads(classes=2), DataLoader(items, 6))
    assert Counter(callback.probe_set.labels.tolist()) == {0: 8, 1: 8}


def test_images_are_named_after_their_files_with_the_class_once(tmp_path, watch):
    from torchvision.datasets import ImageFolder

    for name in ("husky", "wolf"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            color = (40 * i, 100, 200 if name == "wolf" else 20)
            Image.new("RGB", (64, 64), color).save(
                tmp_path / "data" / name / f"{'husky_' if name == 'husky' else ''}00{i}.png"
            )
    data = ImageFolder(tmp_path / "data", transforms.ToTensor())
    callback = watch(Reads(classes=2), DataLoader(data, 2))
    names = ["husky_000", "husky_001", "husky_002", "wolf-000", "wolf-001", "wolf-002"]
    assert sorted(callback.probe_set.names) == names
    assert sorted(ProbeSet.from_folder(tmp_path / "data").names) == names


def test_a_folder_goes_the_way_of_the_validation_data(toys, tmp_path, watch):
    class Files(Dataset):
        classes, transform = CLASSES, transforms.ToTensor()

        def __len__(self):
            return len(toys)

        def __getitem__(self, index):
            image, label, _ = toys[index]
            return {"image": self.transform(transforms.functional.to_pil_image(image)), "label": label, "age": index}

    class Normalises(Reads):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return {**batch, "image": NORMALISE(batch["image"])}

    folder = tmp_path / "probe"
    for image, label, mask in toys.items[:6]:
        (folder / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        stem = str(folder / CLASSES[label] / f"{len(list((folder / CLASSES[label]).iterdir()))}")
        transforms.functional.to_pil_image(image).save(stem + ".png")
        Image.fromarray(mask.numpy()).save(stem + ".mask.png")
    module = Normalises(lambda b: (b["image"], b["label"]))
    callback = watch(module, DataLoader(Files(), 6), GradCAMCallback(folder, LAYER))
    plain = ProbeSet.from_folder(folder, class_names=CLASSES)
    assert_logged_of(callback, module, NORMALISE(plain.images))
    assert torch.equal(callback.probe_set.masks, plain.masks) and callback.probe_set.names == plain.names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (NORMALISE, r"channel 0 has mean .* \(are these normalised\?\)"),
        (lambda images: images * 255, r"\(are these normalised\?\)"),
        (lambda images: images.repeat_interleave(2, 3), r"shape \(3, 64, 128\), those of the validation \(3, 64, 64\)"),
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


class Ends(Reads):
    """Its forward returns what `end` makes of the logits."""

    def __init__(self, end, classes=3):
        super().__init__(classes=classes)
        self.end = end

    def forward(self, images):
        return self.end(super().forward(images))

    def loss(self, batch):
        return self.classifier(self.features(batch[0] if isinstance(batch, (list, tuple)) else batch)).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch), batch_size=6)


def rows_of_the_table():
    page = (Path(__file__).parent.parent / "docs" / "getting-started.md").read_text()
    table = page.partition("## Your data look like this")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return [(left.strip(), right.strip().strip("`")) for left, right in rows[1:]]


def case_of(row, toys):
    """Return the network and the loader of a row, and if it has labels."""
    triples = [(image, label, mask) for image, label, mask in toys.items]
    pairs = [(image, label) for image, label, _ in triples]
    cases = {
        "`(image, label)`, with": lambda: (Reads(), [(x, y, PATHS[i], i, 0.5) for i, (x, y) in enumerate(pairs)]),
        "`(image, label, mask)`": lambda: (Reads(), triples),
        "a mapping": lambda: (Reads(lambda b: (b["img"], b["y"])), [{"img": x, "y": y} for x, y in pairs]),
        "normalised in": lambda: (AfterTransfer(), pairs),
        "an iterable": lambda: (Reads(), Stream(pairs)),
        "items of any other": lambda: (
            Reads(lambda b: (b["photo"], b["breed"])),
            [{"photo": x, "breed": y, "number": i} for i, (x, y) in enumerate(pairs)],
        ),
        "several labels": lambda: (Reads(lambda b: (b[0], b[1][0])), [(x, (y, 50)) for x, y in pairs]),
        "`forward` takes more": lambda: (WithAge(), [{"image": x, "age": 7, "label": y} for x, y in pairs]),
        "`forward` returns a tuple": lambda: (Ends(lambda z: {"logits": z}), pairs),
        "`forward` returns one number": lambda: (Ends(lambda z: z[:, 0], classes=1), [(x, y % 2) for x, y in pairs]),
        "`forward` ends with": lambda: (Ends(torch.sigmoid, classes=1), [(x, y % 2) for x, y in pairs]),
        "a regression": lambda: (Ends(lambda z: z, classes=1), [(x, 20.5) for x, _ in pairs]),
        "no labels at all": lambda: (Ends(lambda z: z), [x for x, _ in pairs]),
        "a folder": lambda: (Reads(), WithTransform(pairs)),
        "tensors": lambda: (Reads(), pairs),
    }
    (found,) = (make for start, make in cases.items() if row.startswith(start))
    return found()


class WithTransform(Dataset):
    classes, transform = CLASSES, transforms.ToTensor()

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.mark.parametrize(("row", "code"), rows_of_the_table())
def test_every_row_of_the_table_in_getting_started_works(toys, watch, tmp_path, monkeypatch, row, code):
    monkeypatch.chdir(tmp_path)
    for image, label, _ in toys.items[:6]:
        (tmp_path / "probe" / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        transforms.functional.to_pil_image(image).save(tmp_path / "probe" / CLASSES[label] / f"{len(image)}{label}.png")
    images, labels = torch.stack([item[0] for item in toys.items[:3]]), [item[1] for item in toys.items[:3]]
    module, data = case_of(row, toys)
    names = {"GradCAMCallback": partial(GradCAMCallback, target_layers=LAYER, views="layer"), "ProbeSet": ProbeSet}
    callback = eval(code, {**names, "images": images, "labels": labels})
    watch(module, DataLoader(data, 6), callback)
    assert len(callback.history) == 1 and f"gradcam/strength/{LAYER}" in callback.history[0]
    has_labels = "a regression" not in row and "no labels" not in row
    assert ("gradcam/probe_accuracy" in callback.history[0]) == has_labels


def test_the_table_of_getting_started_has_a_case_for_each_row():
    assert len(rows_of_the_table()) == 15


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
        torch.zeros(2, 2),
        torch.zeros(0),
        torch.tensor([2, 3, 4]),
    ],
)
def test_what_is_no_label_of_an_item(value):
    assert not is_label(value, 0)


@pytest.mark.parametrize(
    "value", [3, True, 2.0, np.int64(1), torch.tensor(1), torch.tensor([1]), [0, 1, 1], np.eye(3)[0]]
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


def test_a_collate_function_may_make_everything_of_pictures(toys, watch):
    items = [{"picture": transforms.functional.to_pil_image(image), "class": y} for image, y, _ in toys.items]

    def collate(items):
        images = [transforms.functional.to_tensor(item["picture"]) for item in items]
        return torch.stack(images), torch.tensor([item["class"] for item in items])

    module = Reads()
    callback = watch(module, DataLoader(items, 6, collate_fn=collate))
    assert_logged_of(callback, module, ProbeSet.from_dataset(toys, 5).images)


def test_a_hook_that_drops_images_is_said(toys, watch):
    class Drops(Reads):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return [part[:2] for part in batch]

    with pytest.raises(ValueError, match="the batch of 15 items of your validation data to hold 15 images, but got 2"):
        watch(Drops(), DataLoader(toys, 6))


def test_a_mask_and_a_label_in_different_places(toys):
    image, label, mask = toys.items[0]
    found = find_parts(({"image": image, "label": label}, 5), "an item", batched=False)
    assert found.labels == label, "by its name"
    found = find_parts((label, mask, image), "an item", batched=False)
    assert found.labels == label and found.masks is mask, "nothing else could be either"
    bytes_of_mask = (mask.int() * 255).to(torch.uint8)
    assert torch.equal(ProbeSet.from_dataset([(image, 0, bytes_of_mask)]).masks[0], mask)


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


def test_a_batch_that_cannot_be_told_is_not_compared(toys):
    assert find_difference(ProbeSet.from_dataset(toys), {"left": 1}, Feed()) is None


def test_names_of_too_few_classes_and_a_normalisation_that_is_given(tmp_path, toys):
    class Few(Regrouped):
        targets, classes = None, ["only"]

        def __init__(self, toys):
            super().__init__(toys)
            self.targets = None

    assert ProbeSet.from_dataset(Few(toys)).class_names is None
    for i in range(2):
        (tmp_path / "cat").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (10 * i, 90, 30)).save(tmp_path / "cat" / f"{i}.png")
    assert ProbeSet.from_folder(tmp_path, mean=[0.5] * 3, std=[0.5] * 3).mean.tolist() == [0.5] * 3


def test_a_name_without_a_value_hides_no_normalisation():
    def collate(items):
        return later, NORMALISE

    assert not list(find_normalisations(collate))
    later = 1

    def normalises(items):
        return own(items)

    own = transforms.Normalize(MEAN, STD)
    assert next(find_normalisations(normalises))[0] == pytest.approx(MEAN)
    assert next(undoing(torch.rand(2, 1, 8, 8), [own]), None) is None, "of three channels"
    assert next(undoing(-100 * torch.rand(2, 3, 8, 8), [own]), None) is None, "the pixels would be no pixels"


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
        (torch.zeros(0, 8), False),
    ],
)
def test_a_mask_is_true_and_false_or_two_values_of_the_size_of_the_image(given, expected):
    assert batches.is_mask(given, torch.rand(3, 8, 8), lead=0) is expected


def test_without_a_label_there_are_no_classes():
    assert all_classes(None) is None and all_classes(3) is None
    assert all_classes([0, 1, 1]).tolist() == [False, True, True]


def test_a_file_that_is_no_image_names_no_probe_image(toys, watch):
    class Listed(Dataset):
        samples = [(f"{i}.npy", 0) for i in range(18)]

        def __len__(self):
            return 18

        def __getitem__(self, index):
            return toys[index]

    assert ProbeSet.from_dataset(Listed(), 1).names[0] == "class 0-1"
