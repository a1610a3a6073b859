"""The labels of probe images, and the names of their classes, which nothing but the data themselves can tell."""

import copy
import types

import numpy as np
import pytest
import torch
from conftest import ThinVGG
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torchvision.datasets import ImageFolder

from gradcam_callback import GradCAMCallback, GradCAMWarning, ProbeSet
from gradcam_callback.probes import Feed, Quota, choose_from_batches, find_class_names
from gradcam_callback.probes.transforms import to_tensor

LAYER = "block5_conv3"


@pytest.fixture
def toys(toys):
    """Toys that a test may change. All other tests share theirs."""
    return copy.copy(toys)


def test_a_column_of_labels_is_one_label_per_image():
    probe = ProbeSet(torch.rand(3, 3, 8, 8), torch.tensor([[0], [1], [1]]))
    assert probe.labels.tolist() == [0, 1, 1] and not probe.multi_label


@pytest.mark.parametrize("stored", [True, False])
def test_images_without_a_class_are_left_out(trainer, toys, stored):
    class Data(list):
        pass

    data = Data((image, -1 if i < 6 else label) for i, (image, label, _) in enumerate(toys.items))
    if stored:
        data.targets = [label for _, label in data]
    with pytest.warns(GradCAMWarning, match=r"6 of \d+ images have the label -1, which is no class"):
        assert min(ProbeSet.from_dataset(data, per_class=2).labels) == 0
    with pytest.raises(ValueError, match="all are negative"), pytest.warns(GradCAMWarning):
        ProbeSet.from_dataset(Data(data[:6]), per_class=2)


@pytest.mark.parametrize("one", [1, 2])
def test_classes_of_minus_one_and_one_are_told_apart_from_images_without_a_class(one):
    data = [(torch.rand(3, 8, 8), (-1, one)[i % 2]) for i in range(8)]
    with pytest.warns(GradCAMWarning, match="4 of 8 images have the label -1, which is no class") as caught:
        ProbeSet.from_dataset(data)
    assert ("make them 0 and 1: (label + 1) // 2" in str(caught[0].message)) == (one == 1)
    with pytest.warns(GradCAMWarning, match="4 of 8 images have the label -1, which is no class") as caught:
        choose_from_batches(DataLoader(data, 4), Feed(), Quota(None, 8), 99, lambda sample: 3)
    assert ("make them 0 and 1: (label + 1) // 2" in str(caught[0].message)) == (one == 1)
    with pytest.raises(ValueError, match="class indices from 0, but got -1") as refused:
        ProbeSet(torch.rand(2, 3, 8, 8), [-1, one])
    assert ("make them 0 and 1: (label + 1) // 2" in str(refused.value)) == (one == 1)


class TwoClasses(Dataset):
    """Makes other labels of those of the dataset inside."""

    def __init__(self, toys):
        self.dataset = toys

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        image, label, _ = self.dataset[index]
        return image, int(label == 2)


def test_names_of_other_classes_are_not_shown(trainer, toys):
    toys.classes = ["star", "heart", "moon"]
    callback, loader = GradCAMCallback(target_layers=LAYER), DataLoader(TwoClasses(toys), 6)
    trainer(callback, max_epochs=1).fit(ThinVGG(2), loader, loader)
    assert callback.probe_set.class_names is None


@pytest.mark.parametrize("given", ["nothing", "images", "folder"])
def test_a_head_of_more_outputs_than_the_data_name_classes_is_said(watch, toys, tmp_path, given):
    data = stores(toys, "targets")
    data.transform = to_tensor
    for name in Named.classes if given == "folder" else ():
        (tmp_path / "probe" / name).mkdir(parents=True)
        for colour in ("orange", "green"):
            Image.new("RGB", (48, 48), colour).save(tmp_path / "probe" / name / f"{colour}.png")
    probes = {"nothing": None, "images": ProbeSet.from_dataset(data), "folder": tmp_path / "probe"}
    callback = GradCAMCallback(probes[given], LAYER)
    with pytest.warns(GradCAMWarning, match="names 3 classes, and the model returns 12 numbers.*output_transform"):
        watch(ThinVGG(12), DataLoader(data, 6), callback)
    assert callback.probe_set.class_names == Named.classes
    assert callback.verdict is not None and "of 12 classes" not in callback.verdict.text


def test_classes_that_a_probe_set_lacks_are_not_tested(toys):
    """Its own names need not be all of them."""
    images, labels = torch.stack([item[0] for item in toys.items]), torch.tensor([item[1] for item in toys.items])
    some = labels < 2
    probe = ProbeSet(images[some], labels[some], class_names=["star", "heart"])
    assert probe.n_classes is None and probe.watch(4).n_classes is None


class Relabels(TwoClasses):
    """Gives the labels of the dataset inside other numbers, without another word."""

    def __init__(self, dataset, change):
        super().__init__(dataset)
        self.change = change

    def __getitem__(self, index):
        image, label = self.dataset[index][:2]
        return image, self.change(label)


def same(label):
    return label


def turned(label):
    return 2 - label


class Named(list):
    """Items in memory, with names of their classes; of the kinds of datasets, each stores its labels otherwise."""

    classes = ["star", "heart", "moon"]


def stores(toys, where):
    data = Named((image, label) for image, label, _ in toys.items)
    labels = [label for _, label in data]
    if where in ("label", "Labels"):  # of Hugging Face
        data.classes, data.features = None, {where: types.SimpleNamespace(names=Named.classes)}
        data.with_format = lambda _: {where: labels}
    elif where is not None:
        setattr(data, where, labels)
    return data


@pytest.mark.filterwarnings("ignore:GradCAM. . of . classes gave fewer")
@pytest.mark.parametrize("where", ["targets", "labels", "_labels", "label", "Labels"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda data, change: Relabels(data, change),
        lambda data, change: Relabels(Relabels(data, same), change),
        lambda data, change: Relabels(Subset(data, range(3, 15)), change),
        lambda data, change: Subset(Relabels(data, change), range(3, 15)),
        lambda data, change: ConcatDataset([data, Relabels(data, change)]),
        lambda data, change: Relabels(ConcatDataset([data, data]), change),
        lambda data, change: Relabels(data, lambda label: torch.eye(3)[change(label)]),
    ],
)
def test_names_of_a_dataset_inside_are_shown_only_if_the_labels_are_those_there(toys, where, wrap):
    data = stores(toys, where)
    assert ProbeSet.from_dataset(wrap(data, same), 8).class_names == Named.classes
    assert ProbeSet.from_dataset(wrap(data, turned), 8).class_names is None


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"star": 2, "heart": 0, "moon": 1}, ["heart", "moon", "star"]),
        ({"star": 0, "heart": 1, "moon": 0}, ["star or moon", "heart"]),
        ({"star": 1, "heart": 2, "moon": 3}, None),
        ({"star": np.int64(1), "heart": 0, "moon": 2, "sun": 3}, ["heart", "star", "moon"]),
        ({"star": 2, "heart": 0}, Named.classes),
        ({"star": "2", "heart": "0", "moon": "1"}, Named.classes),
        ({}, Named.classes),
        ([2, 0, 1], Named.classes),
    ],
)
def test_names_have_the_numbers_that_the_dataset_gives_them(toys, numbers, expected):
    """A `find_classes` of the user's lists the classes in one order and numbers them in another."""
    toys.classes, toys.class_to_idx = Named.classes, numbers
    found = find_class_names(toys)
    assert (found and found.names) == expected


def test_a_folder_is_read_with_the_numbers_of_the_data(watch, tmp_path):
    class Renumbered(ImageFolder):
        def find_classes(self, directory):
            return ["abnormal", "normal"], {"normal": 0, "abnormal": 1}

    for name, colour in (("abnormal", "orange"), ("normal", "green")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (48, 48), colour).save(tmp_path / "data" / name / f"{i}.png")
    data = Renumbered(str(tmp_path / "data"), to_tensor)
    callback = watch(ThinVGG(2), DataLoader(data, 4), GradCAMCallback(tmp_path / "data", LAYER))
    for probe in (callback.probe_set, ProbeSet.from_dataset(data)):
        assert {
            name.partition("-")[0]: label for name, label in zip(probe.names, probe.labels.tolist(), strict=True)
        } == {
            "normal": 0,
            "abnormal": 1,
        }


def test_classes_of_several_names_have_the_first(toys, tmp_path):
    """As those of torchvision's `ImageNet` and `Imagenette`."""
    toys.classes = [("star", "Stella"), ("heart", "Cor", "pump"), ("moon",)]
    toys.class_to_idx = {name: i for i, names in enumerate(toys.classes) for name in names}
    assert ProbeSet.from_dataset(toys).class_names == ["star", "heart", "moon"]
    assert ProbeSet(torch.rand(1, 3, 8, 8), [1], class_names=toys.classes).names == ["heart-1"]
    (tmp_path / "heart").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "heart" / "a.png")
    assert ProbeSet.from_folder(tmp_path, class_names=toys.classes).labels.tolist() == [1]


@pytest.mark.parametrize("sequence", [np.array, tuple])
def test_names_may_stand_in_any_sequence(toys, sequence):
    toys.classes = sequence(["star", "heart", "moon"])
    assert ProbeSet.from_dataset(toys).class_names == ["star", "heart", "moon"]
    toys.classes = sequence([])
    assert ProbeSet.from_dataset(toys).class_names is None


@pytest.mark.parametrize(
    "classes", [3, np.array(3), torch.tensor(3), (name for name in "abc"), {"star", "moon"}, {"star": 0}, "star", None]
)
def test_what_a_dataset_calls_its_classes_may_be_anything_else(toys, watch, classes):
    """A training that runs without the callback must not end."""
    toys.classes = toys.features = toys.targets = classes
    assert ProbeSet.from_dataset(toys).class_names is None
    assert watch(ThinVGG(), DataLoader(toys, 6)).probe_set.class_names is None


@pytest.mark.parametrize("bad", [0.5, float("nan"), float("inf"), 2**70, "star"])
@pytest.mark.parametrize("sequence", [list, np.array, lambda labels: np.array(labels, object)])
def test_what_a_dataset_stores_as_its_targets_may_be_no_labels(toys, bad, sequence):
    toys.targets = sequence([bad] * 18)
    assert ProbeSet.from_dataset(toys, 1).labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("form", [float, object, ">i4", torch.tensor, "list of tensors"])
def test_stored_labels_of_any_form_spare_the_items(toys, form):
    """Only the items of the probe set are read."""
    labels, read = [label for _, label, _ in toys.items], []
    if form == "list of tensors":
        toys.targets = list(torch.tensor(labels))
    else:
        toys.targets = form(labels) if form is torch.tensor else np.array(labels, form)

    class Counts(type(toys)):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    toys.__class__ = Counts
    assert ProbeSet.from_dataset(toys, 1).labels.tolist() == [0, 1, 2] and len(read) == 3


def test_names_that_nothing_proves_are_not_shown(toys):
    nothing_stored, stored = stores(toys, None), stores(toys, "targets")
    other = stores(toys, "targets")
    other.classes = ["sun", "heart", "moon"]
    longer = Relabels(stored, same)
    longer.dataset = ConcatDataset([stored, stored])
    longer.__class__ = type("Half", (Relabels,), {"__len__": lambda self: 18})
    for data in (Relabels(nothing_stored, same), ConcatDataset([stored, other]), longer):
        assert ProbeSet.from_dataset(data).class_names is None
    assert ProbeSet.from_dataset(Subset(nothing_stored, range(9))).class_names == Named.classes


def test_a_folder_is_refused_if_the_labels_of_the_data_are_not_those_of_the_names(watch, toys, tmp_path):
    for name in Named.classes:
        (tmp_path / "probe" / name).mkdir(parents=True)
        Image.new("RGB", (48, 48), "orange").save(tmp_path / "probe" / name / "a.png")
    data = Relabels(stores(toys, "targets"), turned)
    data.transform = to_tensor
    with pytest.raises(ValueError, match="labels of the classes star, heart, moon, .* but item 0 has another"):
        watch(ThinVGG(), DataLoader(data, 6), GradCAMCallback(tmp_path / "probe", LAYER))
    # The same names with the numbers of the labels are no mistake.
    named = ProbeSet.from_folder(tmp_path / "probe", class_names=Named.classes[::-1])
    watch(ThinVGG(), DataLoader(data, 6), GradCAMCallback(named, LAYER))
    data.change = same
    with pytest.warns(GradCAMWarning, match="may be of the wrong classes, since 'moon' is class 0 in the probe"):
        watch(ThinVGG(), DataLoader(data, 6), GradCAMCallback(named, LAYER))
    callback = watch(ThinVGG(), DataLoader(data, 6), GradCAMCallback(tmp_path / "probe", LAYER))
    assert callback.probe_set.class_names == Named.classes
