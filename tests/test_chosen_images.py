"""Which images of the data are chosen, and which labels, names and classes they have."""

from collections import Counter

import pytest
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from toys import CLASSES, Toys
from watched_data import LAYER, NORMALISE, Reads, Regrouped, assert_logged_of, watching

from gradcam_callback import GradCAMCallback, GradCAMWarning, ProbeSet
from gradcam_callback.probes import find_transform

pytestmark = pytest.mark.sixteen_images


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


@pytest.mark.judges_more
def test_reading_labels_stops_when_the_probe_set_is_full(watch, toys):
    many = Toys(300, bias=1.0, seed=0, size=64)
    data = Regrouped(many)
    data.targets = None
    reads = []
    callback = watching()
    validation = DataLoader(data, batch_size=6)
    callback.on_validation_batch_start = lambda *_: reads.append(data.reads)
    watch(Reads(), validation, callback, training=DataLoader(toys, 6), num_sanity_val_steps=0)
    assert len(callback.probe_set) == 15 and reads[0] <= 130 + 6, "two reads per image and a few more, of 300"


def test_a_binary_task_has_eight_images_of_each_class(watch):
    toys = Toys(60, bias=1.0, seed=0, size=64)
    items = [(image, int(label > 0)) for image, label, _ in toys.items]
    callback = watch(Reads(classes=2), DataLoader(items, 6))
    assert Counter(callback.probe_set.labels.tolist()) == {0: 8, 1: 8}


def test_images_are_named_after_their_files_with_the_class_once(tmp_path, watch):
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


class Listed(Dataset):
    """Keeps a sorted list of its files beside an order of its items."""

    transform = transforms.ToTensor()

    def __init__(self, files, order, attribute):
        self.order, self.attribute = order, attribute
        setattr(self, attribute, [(path, 0) for path in files] if attribute == "samples" else files)

    def __len__(self):
        return len(self.order)

    def __getitem__(self, index):
        entry = getattr(self, self.attribute)[self.order[index]]
        path = entry[0] if self.attribute == "samples" else entry
        return self.transform(Image.open(path).convert("RGB")), index % 2


@pytest.mark.filterwarnings("ignore:GradCAM. . of . classes gave fewer")
@pytest.mark.parametrize("attribute", ["files", "samples", "image_paths"])
@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: Subset(data, range(4, 12))])
def test_a_list_of_files_names_the_images_only_if_it_has_the_order_of_the_items(tmp_path, attribute, wrap):
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(12):
        # What is stored lying is read as it is stored.
        Image.new("RGB", (16, 8), (20 * i, 100, 50)).save(tmp_path / f"{i:02}.png", exif=exif)
    files = sorted(tmp_path.iterdir())
    for order in (list(range(12)), [*range(6), *range(11, 5, -1)]):
        data = Listed(files, order, attribute)
        probe = ProbeSet.from_dataset(wrap(data), per_class=6)
        if order == sorted(order):
            shown = [f"{round(float(image[0, 0, 0]) * 255) // 20:02}" for image in probe.images]
            assert [name[-2:] for name in probe.names] == shown
        else:
            assert probe.names[:2] == ["class 0-1", "class 0-2"]
    data = Listed(files, list(range(12)), attribute)
    data.transform = None
    data.__class__ = type("Untransformed", (Listed,), {"__getitem__": lambda self, index: (torch.rand(3, 8, 8), 0)})
    assert ProbeSet.from_dataset(wrap(data)).names == ["class 0-1", "class 0-2"], "nothing tells what becomes of a file"


def test_an_items_own_file_names_it_if_a_list_does_not(tmp_path):
    class Paths(Listed):
        def __getitem__(self, index):
            return torch.rand(3, 8, 8), 0, f"photo_{index}.jpg"

    probe = ProbeSet.from_dataset(Paths(["a.png", "b.png"], [1, 0], "files"))
    assert sorted(probe.names) == ["photo_0", "photo_1"]


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


def test_a_file_that_is_no_image_names_no_probe_image(toys, watch):
    class Listed(Dataset):
        samples = [(f"{i}.npy", 0) for i in range(18)]

        def __len__(self):
            return 18

        def __getitem__(self, index):
            return toys[index]

    assert ProbeSet.from_dataset(Listed(), 1).names[0] == "class 0-1"


@pytest.mark.judges_more
def test_images_that_are_padded_to_the_largest_of_their_batch_are_padded_alike(watch):
    images = [torch.rand(3, 40 + i % 24, 40 + i % 17) for i in range(72)]
    items = [(image, i % 3) for i, image in enumerate(images)]

    def pad(batch):
        height, width = (max(image.shape[side] for image, _ in batch) for side in (1, 2))
        padded = [functional.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image, _ in batch]
        return torch.stack(padded), torch.tensor([label for _, label in batch])

    loader = DataLoader(items, 6, collate_fn=pad)
    callback = watch(Reads(), loader, training=loader)
    assert len(callback.probe_set.verdict_set) == 63 and len(callback.probe_set) == 15


def test_masks_that_mark_nothing_are_no_masks_and_said(toys):
    items = [
        (image, label, mask if i % 2 else torch.zeros_like(mask)) for i, (image, label, mask) in enumerate(toys.items)
    ]
    with pytest.warns(GradCAMWarning, match=r"masks of 9 of 18 images mark nothing .* have no mask: item \d"):
        probe = ProbeSet.from_dataset(items, 6)
    assert probe.has_mask.sum() == 9 and probe.masks[~probe.has_mask].sum() == 0
    with pytest.warns(GradCAMWarning, match="masks of 3 of 3 images"):
        assert (
            ProbeSet.from_dataset([(image, label, torch.zeros(48, 48)) for image, label, _ in items[:3]], 1).masks
            is None
        )


class Wrapper(Dataset):
    """A split as many write it, with a name of its own for what is inside."""

    def __init__(self, inner, transform):
        self.inner, self.transform = inner, transform

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        image, label = self.inner[index][:2]
        return image if isinstance(image, torch.Tensor) else self.transform(image), label


@pytest.fixture
def two_of_three(toys, tmp_path):
    """A folder of photographs that lacks the first class."""
    for label, name in list(enumerate(CLASSES))[1:]:
        for i, (image, _, _) in enumerate([item for item in toys.items if item[1] == label][:3]):
            (tmp_path / "probe" / name).mkdir(parents=True, exist_ok=True)
            transforms.functional.to_pil_image(image).save(tmp_path / "probe" / name / f"{i}.png")
    return tmp_path / "probe"


@pytest.mark.filterwarnings("ignore:GradCAM. 1 of 2 classes gave fewer")
def test_a_split_has_the_classes_and_files_of_the_only_dataset_inside_if_its_items_are_those(tmp_path):
    names = ["husky", "wolf"]
    for name in names:
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (64, 64), (40 * i, 100, 200 if name == names[0] else 20)).save(
                tmp_path / name / f"{i}.png"
            )
    data, to_tensor = ImageFolder(tmp_path), transforms.ToTensor()

    class Turned(Wrapper):
        def __getitem__(self, index):
            return super().__getitem__(len(self) - 1 - index)

    class Two(Wrapper):
        def __init__(self, inner, transform):
            super().__init__(inner, transform)
            self.backgrounds = inner

    class Short(Wrapper):
        def __len__(self):
            return 4

    files = [f"{name}-{i}" for name in names for i in range(3)]
    for inner in (data, Subset(data, range(6)), Wrapper(Subset(data, [5, 4, 3, 2, 1, 0]), lambda image: image)):
        probe = ProbeSet.from_dataset(Wrapper(inner, to_tensor), 3)
        assert probe.class_names == names and sorted(probe.names) == files
        for image, name in zip(probe.images, probe.names, strict=True):
            stem = name.rpartition("-")[2]
            assert round(float(image[0, 0, 0]) * 255) == 40 * int(stem)
    for other in (Turned, Two, Short):
        probe = ProbeSet.from_dataset(other(data, to_tensor), 3)
        assert probe.class_names is None and "class 0-1" in probe.names, other


def test_the_method_of_an_object_that_a_dataset_holds_is_no_transform_of_its_images():
    class Table:
        def transform(self, function):
            return function

    class Holds(Dataset):
        pass

    class Own(Dataset):
        def transform(self, image):
            return image

    data, own = Holds(), Own()
    for held in (v2.Compose([v2.ToImage()]), Table()):
        data.transforms = data.dataset = held
        assert find_transform(data) is None
    assert find_transform(own) == own.transform == find_transform(Subset(own, [0]))


def test_a_folder_without_a_class_is_refused_if_nobody_names_the_classes(watch, toys, two_of_three):
    data = Wrapper(toys.items, transforms.ToTensor())
    with pytest.raises(ValueError, match=r"each of the 3 classes of the model, .* but got .*class_names=\[\.\.\.\]"):
        watch(Reads(), DataLoader(data, 6), GradCAMCallback(two_of_three, LAYER))


def test_a_probe_set_whose_classes_have_other_numbers_is_said(watch, toys, two_of_three):
    data = Wrapper(toys, transforms.ToTensor())
    data.classes = list(CLASSES)
    shifted = ProbeSet.from_folder(two_of_three)
    with pytest.warns(GradCAMWarning, match="may be of the wrong classes, since .* is class 0 in the probe set and"):
        watch(Reads(), DataLoader(data, 6), GradCAMCallback(shifted, LAYER))
    right = ProbeSet.from_folder(two_of_three, class_names=CLASSES)
    callback = watch(Reads(), DataLoader(data, 6), GradCAMCallback(right, LAYER))
    assert set(callback.probe_set.labels.tolist()) == {1, 2}


def test_a_class_of_a_name_that_another_class_has_too_is_no_wrong_class(watch, toys):
    data = Wrapper(toys, transforms.ToTensor())
    data.classes = ["crane", "crane", "dog"]
    watch(Reads(), DataLoader(data, 6), GradCAMCallback(ProbeSet.from_dataset(data, 1), LAYER))
