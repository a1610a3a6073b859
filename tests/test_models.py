"""Models of other people: outputs that are no tensor, Lightning's other package, two callbacks in one Trainer."""

import dataclasses
import functools
import inspect
import json
import os
import re
import subprocess
import sys
import types

import lightning.pytorch as lightning
import pytest
import torch
from conftest import THIN, ThinVGG
from lightning.pytorch.loggers import TensorBoardLogger as OtherTensorBoardLogger
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.plugins.custom_scalar import layout_pb2
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.models.vgg import make_layers
from toys import CLASSES

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning, ProbeSet, Style
from gradcam_callback.maps import GradCAMOptions
from gradcam_callback.measures import Counterfactuals, metrics
from gradcam_callback.run import caption_maps


@dataclasses.dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None


OUTPUTS = {
    "tuple": (lambda logits: (logits, None), lambda output: output[0]),
    "dict": (lambda logits: {"logits": logits}, lambda output: output["logits"]),
    "dataclass": (Output, lambda output: output.logits),
}


class Wrapped(ThinVGG):
    """Its forward gives something else than logits."""

    def __init__(self, wrap):
        super().__init__(3)
        self.wrap = wrap

    def forward(self, images):
        return self.wrap(super().forward(images))

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(super().forward(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", functional.cross_entropy(super().forward(batch[0]), batch[1]))


@pytest.mark.parametrize("kind", OUTPUTS)
def test_whatever_forward_gives_the_maps_are_those_of_the_logits_in_it(kind, fit, probe, events):
    wrap, unwrap = OUTPUTS[kind]
    model = Wrapped(wrap)
    fit(model, GradCAMCallback(probe, "block5", output_transform=unwrap), max_epochs=1)
    assert events().Images("gradcam/overview")
    plain = ThinVGG(3)
    plain.load_state_dict(model.state_dict())
    expected = GradCAM(plain, "block5")(probe.images, probe.labels)
    seen = GradCAM(model, "block5", output_transform=unwrap)(probe.images, probe.labels)
    for layer, maps in expected.maps.items():
        assert torch.equal(seen.maps[layer], maps)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (None, "forward to return logits .N, K. with N = 1, but got dict. Extract the logits with output_transform"),
        (lambda output: output["logit"], "`output_transform` to return logits .N, K., but it raised KeyError: 'logit'"),
        (lambda output: output["logits"][0], r"`output_transform` to return logits .* but got shape \(3,\)"),
    ],
)
def test_outputs_without_logits_are_said_before_training(fit, probe, transform, message):
    model = Wrapped(OUTPUTS["dict"][0])
    with pytest.raises(ValueError, match=message):
        fit(model, GradCAMCallback(probe, "block5", output_transform=transform))
    assert model.losses == []
    with pytest.raises(ValueError, match="`output_transform` to be a callable or None, but got str"):
        GradCAMCallback(output_transform="logits")


def test_a_transform_that_fails_later_is_named_as_the_users_with_its_traceback_and_training_goes_on(fit, probe):
    def transform_of_the_user(output):
        if len(output["logits"]) > 1:  # before the training, one image is tried
            raise LookupError("their own mistake")
        return output["logits"]

    callback = GradCAMCallback(probe, "block5", output_transform=transform_of_the_user)
    with pytest.warns(GradCAMWarning, match="since your code failed. Expected `output_transform`") as caught:
        trainer = fit(Wrapped(OUTPUTS["dict"][0]), callback)
    assert trainer.current_epoch == 2 and callback.history == []
    said = next(str(warning.message) for warning in caught if warning.category is GradCAMWarning)
    assert "in transform_of_the_user" in said and "LookupError: their own mistake" in said


class Other(lightning.LightningModule):
    """A module of the package that calls itself ``lightning``."""

    def __init__(self):
        super().__init__()
        self.features = make_layers(THIN)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3))

    def forward(self, images):
        return self.head(self.features(images))

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def test_lightning_pytorch_with_both_packages_installed(toys, tmp_path, events):
    lightning.seed_everything(7, verbose=False)
    callback = GradCAMCallback(target_layers="block5")
    trainer = lightning.Trainer(
        max_epochs=2,
        callbacks=[callback, lightning.callbacks.EarlyStopping("gradcam/lift/block5_conv3", mode="max", patience=9)],
        logger=OtherTensorBoardLogger(tmp_path, name="run", version=""),
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Other(), DataLoader(toys, batch_size=6), DataLoader(toys, batch_size=6))
    found = events()
    steps = [event.step for event in found.Scalars("val_loss")]
    assert [event.step for event in found.Images("gradcam/overview")] == steps
    assert [event.step for event in found.Scalars("gradcam/lift/block5_conv3")] == steps
    assert [entry["epoch"] for entry in callback.history] == [0, 1]
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    state = torch.load(checkpoint, weights_only=True)["callbacks"][callback.state_key]
    assert state["history"] == [untagged(entry) for entry in callback.history]


def untagged(entry):
    return {name.removeprefix("gradcam/"): value for name, value in entry.items()}


def test_two_callbacks_in_one_trainer_each_have_a_prefix(thin, fit, events, toys, probe, tmp_path):
    """The second without its own is numbered: all its tags, images, charts and files stand under that."""
    other = ProbeSet.from_dataset(toys, 2)
    first = GradCAMCallback(probe, "block4", views="all")
    second = GradCAMCallback(other, ["block4_conv3", "block5"], save_maps=True, views="all")
    fit(thin, first, second, logger=[TensorBoardLogger(tmp_path, name="run", version=""), CSVLogger(tmp_path / "csv")])
    found = events()
    tags = found.Tags()
    for tag, count in (
        ("gradcam/probe/star-1", 2),
        ("gradcam_2/probe/star-1", 2),
        ("gradcam/layer/block4_conv3", 2),
        ("gradcam_2/layer/block4_conv3", 2),
        ("gradcam_2/layer/block5_conv3", 2),
        ("gradcam_2/evolution/star-2", 2),
        ("gradcam_2/animation/star-1", 1),
        ("gradcam_2/depth_profile", 2),
    ):
        assert len(found.Images(tag)) == count, tag
    assert "gradcam/layer/block5_conv3" not in tags["images"]
    for prefix, callback in (("gradcam", first), ("gradcam_2", second)):
        for name in ("probe_accuracy", "lift/block4_conv3"):
            values = [entry[f"{prefix}/{name}"] for entry in callback.history]
            assert [event.value for event in found.Scalars(f"{prefix}/{name}")] == pytest.approx(values)
        verdict = found.Tensors(f"{prefix}/verdict")[-1].tensor_proto.string_val[0].decode()
        assert verdict == callback.verdict.text
        folder = tmp_path / "csv" / "lightning_logs" / "version_0" / prefix
        assert json.loads((folder / "history.json").read_text())["history"] == callback.history
        assert (folder / "layer" / "block4_conv3").is_dir()
    own = {tag.split("/")[0] for kind in ("images", "scalars", "tensors") for tag in tags[kind] if "gradcam" in tag}
    assert own == {"gradcam", "gradcam_2"}
    layout = layout_pb2.Layout.FromString(found.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0])
    assert [category.title for category in layout.category] == ["gradcam", "gradcam_2"], "TensorBoard reads the last"
    for category in layout.category:
        shown = [tag for chart in category.chart for tag in chart.multiline.tag]
        matched = {tag.split("/")[0] for pattern in shown for tag in tags["scalars"] if re.match(pattern, tag)}
        assert matched == {category.title}


def test_prefixes_are_as_chosen_and_the_others_numbered_around_them(trainer, toys, probe):
    loader = DataLoader(toys, batch_size=6)
    prefixes = ("gradcam", "gradcam_2", "gradcam", "focus/deep")
    watches = [
        GradCAMCallback(probe, f"block{i + 2}", tag_prefix=name, views="overview") for i, name in enumerate(prefixes)
    ]
    trainer(*watches).fit(ThinVGG(), loader, loader)
    entries = [watch.history[-1] for watch in watches]
    found = [next(tag.removesuffix("/probe_accuracy") for tag in entry if "probe_acc" in tag) for entry in entries]
    assert found == ["gradcam", "gradcam_2", "gradcam_3", "focus/deep"]


def test_two_callbacks_of_one_chosen_prefix_are_refused_before_training(thin, fit):
    watches = [GradCAMCallback(target_layers=block, tag_prefix="mine") for block in ("block4", "block5")]
    with pytest.raises(ValueError, match="`tag_prefix` of its own for each GradCAMCallback, but got 'mine' twice"):
        fit(thin, *watches)
    assert thin.losses == []


@pytest.mark.parametrize("layers", [["block5_conv3"], "block5_conv3"])
def test_an_image_that_is_named_like_a_layer_stays_apart_in_a_second_callback(thin, fit, events, probe, layers):
    named = ProbeSet(probe.images, probe.labels, probe.masks, names=["block5_conv3", "lift", "block4_conv3"])
    fit(thin, GradCAMCallback(named, "block4"), GradCAMCallback(named, layers), max_epochs=1)
    found = events().Tags()["images"]
    for prefix in ("gradcam", "gradcam_2"):
        own = {tag for tag in found if tag.startswith(f"{prefix}/probe/")}
        assert own == {f"{prefix}/probe/{name}" for name in named.names}


def test_callbacks_of_different_probe_sets_can_be_in_one_trainer(thin, fit, toys):
    """Their states stand apart in a checkpoint, by the names and the labels of their images."""
    one, two = ProbeSet.from_dataset(toys, 1), ProbeSet.from_dataset(toys, 2)
    first, second = GradCAMCallback(one, "block5"), GradCAMCallback(two, "block5")
    assert first.state_key != second.state_key == GradCAMCallback(two, "block5").state_key
    fit(thin, first, second)
    assert len(first.history) == len(second.history) == 2


class Pairs(Dataset):
    """Two toys side by side; one item, as torch's binary losses take it, is of all classes, and a mask of each."""

    classes = list(CLASSES)

    def __init__(self, toys):
        self.items = []
        for (left, a, mask_a), (right, b, mask_b) in zip(toys.items[:-1], toys.items[1:], strict=True):
            image, nothing = torch.cat([left, right], dim=2), torch.zeros_like(mask_a)
            masks = torch.zeros(len(CLASSES), *image.shape[1:], dtype=torch.bool)
            masks[a] |= torch.cat([mask_a, nothing], dim=1)
            masks[b] |= torch.cat([nothing, mask_b], dim=1)
            self.items.append((image, masks.flatten(1).any(dim=1).float(), masks))
        self.items.append((torch.rand_like(image), torch.zeros(len(CLASSES)), torch.zeros_like(masks)))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Binary(ThinVGG):
    """One yes or no per logit."""

    def training_step(self, batch, batch_idx):
        return functional.binary_cross_entropy_with_logits(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))


@pytest.mark.sixteen_images
def test_a_model_with_several_labels_per_image_has_a_map_for_each(fit, toys, events):
    pairs = Pairs(toys)
    model, callback = Binary(3), GradCAMCallback(target_layers="block5")
    fit(model, callback, train_data=pairs, val_data=pairs, max_epochs=3)
    probe = callback.probe_set
    assert probe.multi_label and probe.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert probe.present[range(15), probe.labels].all() and (probe.present.sum(dim=1) == 2).all()
    for i, label in enumerate(probe.labels.tolist()):
        item = next(item for item in pairs.items if torch.equal(item[0], probe.images[i]))
        assert torch.equal(probe.masks[i], item[2][label]), "the mask of that class alone"

    model.eval()
    logits = model(probe.images).detach()
    right = logits[range(15), probe.labels] > 0
    entry = callback.history[-1]
    assert entry["gradcam/probe_accuracy"] == pytest.approx(right.double().mean().item())
    seen = GradCAM(model, "block5")(probe.images, probe.labels)
    mass = metrics.relevance_mass(seen.maps["block5_conv3"], probe.masks)
    assert entry["gradcam/relevance_mass/block5_conv3"] == pytest.approx(float(mass.nanmean()), rel=1e-5)

    sets = Counterfactuals(probe.images, probe.labels, probe.masks, present=probe.present)
    of_swaps = probe.labels[sets.other_class.objects]
    assert not probe.present[sets.other_class.donors, of_swaps].any(), "no background that holds the class"
    swapped = model(sets.paste(sets.other_class))[range(len(of_swaps)), of_swaps] > 0
    assert entry["gradcam/swap_accuracy"] == pytest.approx(swapped.double().mean().item())

    found = events()
    assert len(found.Images("gradcam/probe/star-1")) == len(found.Images("gradcam/overview")) == 3
    for caption, of_label, said in zip(caption_maps(probe, seen), logits[range(15), probe.labels], right, strict=True):
        assert caption.prediction == ("" if said else "no ") + caption.label and caption.correct == bool(said)
        assert caption.probability == pytest.approx(float(of_label.abs().sigmoid()))
        assert caption.explained_probability == pytest.approx(float(of_label.sigmoid()))


def test_several_labels_per_image_by_hand(toys):
    items = Pairs(toys).items[:2]
    images, labels, masks = (torch.stack(part) for part in zip(*items, strict=True))
    probe = ProbeSet(images, labels, masks, names=["a", "b"], class_names=CLASSES)
    assert probe.names == ["a (star)", "a (heart)", "b (heart)", "b (moon)"] and probe.labels.tolist() == [0, 1, 1, 2]
    assert torch.equal(probe.masks, torch.stack([masks[0, 0], masks[0, 1], masks[1, 1], masks[1, 2]]))
    whole = ProbeSet(images, labels.int().numpy(), masks.any(dim=1))
    assert torch.equal(whole.masks, masks.any(dim=1)[[0, 0, 1, 1]]), "one mask for all classes of an image"
    for wrong, message in (
        ((images, labels * 2), r"one class per image, .* but got shape \(2, 3\) with values 0.0 to 2.0"),
        ((images, labels[:1]), r"shape \(1, 3\)"),
        ((images, labels * 0), "with at least one 1"),
        ((images, labels, masks[:1]), r"`masks` to have one entry per image \(2\), but got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            ProbeSet(*wrong)


def test_one_hot_labels_are_classes_of_which_the_likeliest_is_the_answer(toys):
    eye = torch.eye(3)
    one_hot = [(image, eye[label], mask) for image, label, mask in toys.items]
    probe = ProbeSet.from_dataset(one_hot)
    assert not probe.multi_label and probe.labels.tolist() == [0, 0, 1, 1, 2, 2]
    for rows in (eye[[2, 0, 0]], eye[[2, 0, 0]].long().tolist(), eye[[2, 0, 0]].bool()):
        given = ProbeSet(probe.images[:3], rows, probe.masks[:3], names=["a", "b", "c"])
        assert not given.multi_label and given.labels.tolist() == [2, 0, 0] and given.names == ["a", "b", "c"]
        assert torch.equal(given.images, probe.images[:3]) and torch.equal(given.masks, probe.masks[:3])
    for row in ([1, 1, 0], [0, 0, 0]):
        assert ProbeSet(probe.images[:2], [row, [0, 0, 1]]).multi_label, "an image with two classes, or none"
    with pytest.raises(ValueError, match="labels with a 1, but all labels that were read are 0"):
        ProbeSet.from_dataset([(image, torch.zeros(3)) for image, _, _ in toys.items])


@pytest.mark.sixteen_images
def test_a_model_with_a_single_logit_says_yes_or_no(fit, toys, events):
    """The labels are floating point, as its loss takes them."""
    items = [(image, torch.tensor([float(label > 0)]), mask) for image, label, mask in toys.items]
    model, callback = Binary(1), GradCAMCallback(target_layers="block5_conv3")
    fit(model, callback, train_data=items, val_data=items, max_epochs=2)
    probe = callback.probe_set
    assert not probe.multi_label and probe.labels.tolist() == [0] * 6 + [1] * 8
    model.eval()
    logit = model(probe.images).detach()[:, 0]
    right = (logit > 0) == (probe.labels == 1)
    assert callback.history[-1]["gradcam/probe_accuracy"] == pytest.approx(right.double().mean().item())
    assert [entry["epoch"] for entry in callback.history] == [0, 1]
    assert len(events().Images("gradcam/probe/class 0-1")) == 2
    for caption, of_label in zip(
        caption_maps(probe, GradCAM(model)(probe.images, probe.labels)), [-1] * 6 + [1] * 8, strict=True
    ):
        chance = float((logit[probe.names.index(caption.name)] * of_label).sigmoid())
        assert caption.explained_probability == pytest.approx(chance)
        assert caption.probability == pytest.approx(max(chance, 1 - chance)) and caption.correct == (chance > 0.5)


class Remembers(ThinVGG):
    """Gives the probe set's features from a store once it has them, without calling its VGG."""

    def __init__(self, calls):
        super().__init__(3)
        # A number of its own would be as before after each map.
        self.left = types.SimpleNamespace(calls=calls)

    def forward(self, images):
        self.left.calls -= len(images) != 6
        if self.left.calls < 0 and len(images) == 3:
            return torch.zeros(3, 3, requires_grad=True) * images.sum()
        return super().forward(images)


class Beside(ThinVGG):
    """Has a VGG that its forward does not call."""

    def __init__(self):
        super().__init__(3)
        self.other = nn.Sequential(nn.Conv2d(3, 3, 32, stride=32), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images):
        return self.other(images)


def test_a_vgg_that_forward_does_not_call_is_said_before_training(fit, probe):
    with pytest.raises(ValueError, match="block5_conv3.*to take part in the model.s forward, but it was not called"):
        fit(Beside(), GradCAMCallback(probe, "block5_conv3"))


def test_a_vgg_that_forward_calls_no_more_is_a_warning_and_training_goes_on(fit, probe, events):
    with pytest.warns(GradCAMWarning, match="this epoch's maps lost .*forward, but it was not called") as caught:
        trainer = fit(Remembers(4), GradCAMCallback(probe, "block5_conv3"))
    assert trainer.current_epoch == 2 and sum(one.category is GradCAMWarning for one in caught) == 1
    assert len(events().Images("gradcam/overview")) == 1


def first_logit(outputs, index):
    return outputs[:, 0]


def pick(number):
    return lambda outputs, index: outputs[:, number]


def times(outputs, index, factor=1):
    return factor * outputs[:, 0]


class Picks:
    def __init__(self, number):
        self.number = number

    def __call__(self, outputs, index):
        return outputs[:, self.number]

    def call(self, outputs, index):
        return self(outputs, index)


# Arguments that do not change what a history is of. A run may be resumed with others.
FREE = [
    {"views": "all"},
    {"every_n_epochs": 2},
    {"by_class": True},
    {"check_faithfulness": "road"},
    {"log_before_training": True},
    {"style": Style(cell=112)},
    {"style": Style(cell=96)},
    {"save_dir": "a"},
    {"save_dir": "b"},
    {"save_maps": True},
    {"batch_transform": lambda batch: (batch[0], batch[1])},
    {"batch_transform": lambda batch: (batch[0], batch[2])},
    {"forward": lambda net, batch: net(batch["image"], batch["age"])},
    {"forward": lambda net, batch: net(batch["image"], batch["size"])},
    {"on_shortcut": "stop"},
    {"on_shortcut": print},
    {"precision": "bf16"},
    {"chunk_size": 2},
    {"reuse_frozen": True},
    {"output_transform": torch.logit},
    {"output_transform": torch.log},
]
MEASURED = [
    {"method": "layercam"},
    {"seed": 1},
    {"masks": "auto"},
    {"target_layers": nn.ReLU()},
    {"target_layers": nn.Conv2d(3, 4, 3)},
    {"target_layers": nn.Conv2d(3, 8, 3)},
    {"target": 1},
    {"target": first_logit},
    {"target": pick(0)},
    {"target": pick(1)},
    {"target": lambda outputs, index: outputs[:, 0] if index.dtype in {torch.int64, torch.int32} else outputs[:, 1]},
    {"target": lambda outputs, index: [outputs[:, i] for i in range(2)][0]},
    {"target": lambda outputs, index: [outputs[:, i] for i in range(3)][0]},
    {"target": functools.partial(times, factor=2)},
    {"target": functools.partial(times, factor=3)},
    {"target": times},
    {"target": Picks(0)},
    {"target": Picks(1)},
    {"target": Picks(0).call},
]


def test_callbacks_that_differ_in_any_argument_can_be_in_one_trainer(trainer):
    """They have different keys, which are the same each time."""
    arguments = [{}, *FREE, *MEASURED]
    callbacks = [GradCAMCallback(**given) for given in arguments]
    keys = [callback.state_key for callback in callbacks]
    assert len(set(keys)) == len(keys) and trainer(*callbacks).callbacks
    assert keys == [GradCAMCallback(**given).state_key for given in arguments]
    assert keys[0] == "GradCAMCallback{'target_layers': 'all', 'target': 'label'}", "as in checkpoints so far"


def test_every_argument_tells_callbacks_apart():
    tested = {name for given in (*FREE, *MEASURED) for name in given}
    untested = set(inspect.signature(GradCAMCallback).parameters) - tested - {"options", "probe", "tag_prefix"}
    assert untested == set()
    assert set(GradCAMOptions.__annotations__) - tested == {"reshape_transform"}


def test_probe_sets_of_other_images_or_masks_can_be_in_one_trainer(trainer, probe):
    """Their names and labels are the same. What another processor rounds differently is no other image."""

    def key(images, masks):
        return GradCAMCallback(ProbeSet(images, probe.labels, masks, names=probe.names)).state_key

    moved = probe.masks.roll(16, dims=2)
    keys = [
        key(probe.images, probe.masks),
        key(probe.images, None),
        key(probe.images, moved),
        key(probe.images, [*probe.masks[:2], None]),
        key(probe.images.flip(3), probe.masks),
        key(torch.cat([probe.images[:2], probe.images[2:].flip(2)]), probe.masks),
    ]
    noise = torch.rand(probe.images.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    blurred = functional.avg_pool2d(probe.images, 3, stride=1, padding=1, count_include_pad=False)
    keys += [key(changed, probe.masks) for changed in (blurred, probe.images + noise * 0.2)]
    assert len(set(keys)) == len(keys)
    assert key(probe.images + noise * 2e-7, probe.masks) == keys[0]
    assert key(torch.zeros(3, 1, 1, 1), None) == key(torch.zeros(3, 1, 1, 1), None) != keys[1]


KEY = """
from functools import partial
from gradcam_callback.run import identify
numbers = {"a": 1, "b": 2}
def target(outputs, index, name="a"):
    return outputs[:, numbers[name]] if name in {"a", "b", "c", "d", "e"} else [outputs for name in "ab"][0]
class Reads:
    def __call__(self, batch):
        return batch["image"], batch["label"]
arguments = {"probe": None, "target_layers": "all", "save_dir": None, "target": partial(target, name="b")}
arguments |= {"batch_transform": Reads(), "forward": lambda net, batch: net(batch, batch["x"] in {1, "x", "y"})}
key = identify(arguments, {})
"""


def test_the_key_is_the_same_in_another_process():
    """Sets and addresses are in another order there."""
    names = {"__name__": "made"}
    exec(KEY, names)
    code = f"names = {{'__name__': 'made'}}; exec({KEY!r}, names); print(names['key'])"
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == str(names["key"])
