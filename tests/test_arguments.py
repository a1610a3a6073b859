"""Arguments of the callback and of probe sets that are refused in words, and those that only look unusual."""

import numpy as np
import pytest
import torch
from conftest import ThinVGG
from torch import nn
from torch.utils.data import DataLoader

from gradcam_callback import GradCAM, GradCAMCallback, ProbeSet, Style
from gradcam_callback.probes.batches import take_parts

LAYER = "block5_conv3"


IMAGES = torch.rand(3, 3, 8, 8)
STORED = list(zip(IMAGES, [0, 1, 1], strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_n_epochs": 2.0}, "`every_n_epochs` to be of type int or integer, but got float 2.0"),
        ({"every_n_epochs": True}, "`every_n_epochs` to be of type int or integer, but got bool True"),
        ({"target_layers": 5}, "`target_layers` to be of type str or Module or Iterable, but got int 5"),
        ({"style": "dark"}, "`style` to be of type Style or None, but got str 'dark'"),
        ({"seed": None}, "`seed` to be of type int or integer, but got NoneType None"),
        ({"views": None}, "`views` to be of type str or Iterable"),
        ({"save_dir": 5}, "`save_dir` to be of type str or Path or None"),
        ({"save_dir": ""}, "`save_dir` to be a folder or None, but got an empty text"),
        ({"chunk_size": 2.5}, "`chunk_size` to be at least 1 image or None, but got 2.5"),
    ],
)
def test_arguments_of_a_wrong_type_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=f"Expected {message}"):
        GradCAMCallback(**arguments)


@pytest.mark.parametrize("value", [np.zeros(2), torch.zeros(2), ["gradcam"], {"a": 1}, 0.5])
@pytest.mark.parametrize(
    "name",
    ["target", "masks", "views", "check_faithfulness", "on_shortcut", "method", "precision", "reshape_transform"],
)
def test_what_is_no_word_is_refused_in_words(name, value):
    """A list cannot be looked up in a set, and an array is neither equal to a word nor not."""
    with pytest.raises(ValueError, match=f"Expected `{name}` to be "):
        GradCAMCallback(**{name: value})


@pytest.mark.parametrize("value", [np.zeros(2), ["map"], {"a": 1}])
@pytest.mark.parametrize("name", ["colormap", "scaling"])
def test_what_is_no_word_is_refused_by_a_style(name, value):
    with pytest.raises(ValueError, match=f"Expected `Style.{name}` to be "):
        Style(**{name: value})


def test_views_may_stand_in_an_array():
    assert GradCAMCallback(views=np.array(["overview", "probe"])).views == ("overview", "probe")


def test_numbers_of_numpy_are_numbers():
    callback = GradCAMCallback(target_layers={"block5_conv3"}, every_n_epochs=np.int64(2), seed=np.int64(1))
    assert callback.every_n_epochs == 2
    assert ProbeSet.from_dataset(STORED, np.int64(1), np.int64(2), max_images=np.int64(2)).labels.tolist() == [0, 1]


def test_any_whole_number_is_a_seed(trainer, toys):
    """From the choice of images to the backgrounds that objects are put on."""
    seeds, loader = [np.int64(3), -1, 2**32 - 1, 2**70], DataLoader(toys, 6)
    watches = [GradCAMCallback(target_layers=LAYER, views="overview", seed=seed) for seed in seeds]
    trainer(*watches, max_epochs=1).fit(ThinVGG(), loader, loader)
    assert [len(watch.history) for watch in watches] == [1] * 4
    for seed in seeds:
        first, second = (ProbeSet.from_dataset(toys, 1, seed) for _ in range(2))
        assert torch.equal(first.images, second.images)


def test_a_number_of_numpy_is_a_target(trainer, toys):
    loader = DataLoader(toys, 6)
    watches = [GradCAMCallback(target_layers=LAYER, target=np.int64(i), tag_prefix=f"of_{i}") for i in (0, 1)]
    torch.manual_seed(0)  # the maps of some networks are empty
    trainer(*watches, max_epochs=1).fit(ThinVGG(), loader, loader)
    assert [watch.history[0][f"of_{i}/strength/{LAYER}"] > 0 for i, watch in enumerate(watches)] == [True, True]
    assert watches[0].state_key != watches[1].state_key and watches[1].target == 1
    with pytest.raises(ValueError, match="Expected `target` to be"):
        GradCAMCallback(target=np.float32(1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int16])
def test_labels_may_be_of_any_integer_type(dtype):
    labels = np.array([0, 1, 1], dtype)
    assert ProbeSet(IMAGES, labels).labels.tolist() == [0, 1, 1]
    assert ProbeSet(IMAGES, np.eye(2, dtype=dtype)[labels.astype(int)]).labels.tolist() == [0, 1, 1]
    masks = np.ones((3, 8, 8), dtype)
    masks[:, 4:] = 0
    for given in (labels, np.eye(2, dtype=dtype)[labels.astype(int)]):
        # torch collates no numbers of 64 bits without a sign.
        for transform in (None, tuple)[: 1 if dtype is np.uint64 else 2]:
            dataset = list(zip(IMAGES, given, masks, strict=True))
            probe = ProbeSet.from_dataset(dataset, 1, batch_transform=transform)
            assert probe.labels.tolist() == [0, 1] and probe.has_mask.all()


# What torch itself refuses: the bytes of another machine, as FITS and TIFF hold them, views, long numbers.
@pytest.mark.parametrize("form", [">i2", ">f8", np.longdouble, "backwards"])
def test_numbers_may_have_any_form_that_numpy_has(form):
    def bring(values):
        return np.array(values[::-1])[::-1] if form == "backwards" else np.array(values).astype(form)

    upper = bring(np.arange(8)[:, None].repeat(8, 1) < 4)
    dataset = list(zip(IMAGES, bring([0, 1, 1]), [upper] * 3, strict=True))
    probe = ProbeSet.from_dataset(dataset, 1)
    assert probe.labels.tolist() == [0, 1] and probe.masks[:, :4].all() and not probe.masks[:, 4:].any()
    mean, std = bring([0.0, 1.0, 2.0]), bring([1.0, 2.0, 3.0])
    masks = [upper, bring([0, 0, 8, 4]), None]
    labels = bring([0, 1, 1]) if form in (">i2", "backwards") else bring(np.eye(2)[[0, 1, 1]])
    probe = ProbeSet(IMAGES, labels, masks, mean=mean, std=std)
    assert probe.labels.tolist() == [0, 1, 1] and torch.equal(probe.masks[0], probe.masks[1])
    assert probe.mean.tolist() == [0, 1, 2] and probe.masks[0].sum() == 32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGES, ["cat", "dog", "cat"]), "Expected `labels` to be numbers, .* but got list .'cat'"),
        ((IMAGES, [[0], [1, 2], [1]]), "Expected `labels` to be numbers"),
        ((IMAGES, [0, None, 1]), "Expected `labels` to be numbers"),
        ((IMAGES, {0: 1}), "Expected `labels` to be numbers"),
        ((IMAGES, [0, -1, 1]), "class indices from 0, but got -1. Leave out images without a class"),
        ((IMAGES, [0, 1, 1], True), "Expected `masks` to be .*, but got bool. Make a list"),
        ((IMAGES, [0, 1, 1], None, None, {0: "a", 1: "b"}), "Expected `class_names` to be a list .* but got dict"),
        ((IMAGES, [0, 1, 1], None, None, {"a", "b"}), "Expected `class_names` to be a list .* but got set"),
    ],
)
def test_probe_sets_of_a_wrong_type_are_refused_in_words(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProbeSet(*arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProbeSet(IMAGES, [0, 1, 1], masks=["a.png"] * 3), "but got the text 'a.png'. Open the file"),
        (lambda: ProbeSet(IMAGES, [0, 1, 1], mean=["a"] * 3, std=[1] * 3), "Expected `mean` to hold one finite number"),
        (
            lambda: ProbeSet(IMAGES, [0, 1, 1], masks=[object()] * 3),
            r"Expected `masks\[0\]` to be a mask, a PIL.Image, b",
        ),
        (lambda: ProbeSet(IMAGES, [0, 1, 1], masks=[None, "ab", {1: 2}]), r"`masks\[1\]` to be a mask or None"),
        (lambda: ProbeSet(IMAGES, [0, 1, 1], masks=[None, None, {1: 2}]), r"`masks\[2\]` to be .* but got dict"),
        (lambda: ProbeSet.from_dataset(STORED, "2"), "`per_class` to be a whole number, but got str '2'"),
        (lambda: ProbeSet.from_dataset(STORED, 0), "`per_class` to be 1 or more, but got 0"),
        (lambda: ProbeSet.from_dataset(STORED, max_images=0), "`max_images` to be 1 or more, but got 0"),
        (lambda: ProbeSet.from_dataset(STORED, max_images=-1), "`max_images` to be 1 or more, but got -1"),
        (lambda: ProbeSet.from_dataset(STORED, max_images=2.5), "`max_images` to be a whole number, but got float 2.5"),
        (lambda: ProbeSet.from_dataset(STORED, max_scanned=-1), "`max_scanned` to be 1 or more, but got -1"),
        (lambda: ProbeSet.from_dataset(STORED, max_scanned=2.5), "`max_scanned` to be a whole number"),
        (lambda: ProbeSet.from_dataset(STORED, seed=None), "`seed` to be a whole number, but got NoneType None"),
        (lambda: ProbeSet.from_dataset(STORED, seed=0.5), "`seed` to be a whole number, but got float 0.5"),
        (lambda: GradCAM(ThinVGG().eval())(torch.rand(2, 3, 32, 32), ["a", "b"]), "`targets` to be class indices"),
        (lambda: GradCAM(nn.DataParallel(ThinVGG())), "but got nn.DataParallel. Pass model.module"),
        (lambda: take_parts((IMAGES, [0]), None), "as many labels as images, but got 1 labels for 3 images"),
        (lambda: take_parts((IMAGES, [0, 1, 1], IMAGES[:2, 0]), None), "as many masks as images, but got 2 masks"),
    ],
)
def test_other_wrong_values_are_refused_in_words(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("masks", [True, False, 1, "", "Auto", IMAGES[:, 0] > 0, [None] * 3, {"0": None}])
def test_masks_are_given_to_a_dataset_or_a_folder_in_their_own_places(masks, tmp_path):
    """Refuse what is no word. It would be ignored, so that no image had a mask."""
    expected = "Expected `masks` to be None or 'auto', but got .* Give each mask in its item, as .image, label, mask."
    with pytest.raises(ValueError, match=expected):
        ProbeSet.from_dataset(STORED, masks=masks)
    expected = "Expected `masks` to be None or 'auto', but got .* Put each mask beside its photograph, as <name>.mask"
    with pytest.raises(ValueError, match=expected):
        ProbeSet.from_folder(tmp_path, masks=masks)
