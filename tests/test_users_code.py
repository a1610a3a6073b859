"""Code of the user's that does more than usual when it is called, and is called for probe images, too."""

import logging
import random
import types
import warnings
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from conftest import ThinVGG
from pytorch_lightning.callbacks import EarlyStopping
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate, random_split

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning, ProbeSet, is_watching
from gradcam_callback.exceptions import UserCodeError
from gradcam_callback.probes import Quota
from gradcam_callback.probes.datasets import choose_items
from gradcam_callback.probes.feed import Feed
from gradcam_callback.random_state import hash_random_state
from gradcam_callback.run import Evaluator

LAYER = "block5_conv3"


class Draws(Dataset):
    """Images with noise, which a generator deep inside of the dataset draws."""

    def __init__(self, toys):
        self.toys = toys
        steps = [types.SimpleNamespace(rng=np.random.default_rng(0))]
        self.augment = types.SimpleNamespace(steps=steps, options={"noise": torch.Generator().manual_seed(0)})

    def __len__(self):
        return len(self.toys)

    def __getitem__(self, index):
        image, label, _ = self.toys[index]
        noise = torch.rand(3, 48, 48, generator=self.augment.options["noise"])
        return image + 0.1 * noise + 0.1 * float(self.augment.steps[0].rng.random()), label


class DrawsInForward(ThinVGG):
    def __init__(self):
        super().__init__()
        self.noise = types.SimpleNamespace(rng=torch.Generator().manual_seed(0))

    def forward(self, images):
        return super().forward(images + 0.1 * float(torch.rand(1, generator=self.noise.rng)))


class LogsInForward(ThinVGG):
    def forward(self, images):
        outputs = super().forward(images)
        if not self.training:
            self.log("norm", outputs.norm())
            self.log_dict({"largest": outputs.max()})
        return outputs


class AsksTheTrainer(ThinVGG):
    """Returns a second output in the training, as nets with an auxiliary head do."""

    def __init__(self, told):
        super().__init__(batch_norm=False)
        # A list of its own would be restored after each map.
        self.tell = told.add

    def forward(self, images):
        if is_watching():
            self.tell((self.trainer.training, self.trainer.validating or self.trainer.sanity_checking))
        outputs = super().forward(images)
        return (outputs, outputs) if self.trainer.training else outputs

    def training_step(self, batch, batch_idx):
        assert self.trainer.training
        return nn.functional.cross_entropy(self(batch[0])[0], batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


@pytest.mark.judges_more
@pytest.mark.parametrize(("given", "sanity_steps"), [(True, 0), (False, 1)])
def test_a_forward_that_asks_the_trainer_is_told_that_it_validates(fit, toys, given, sanity_steps):
    """In the trial before training, in the entry before it, at validations, and when the last entry is asked again."""
    probe = ProbeSet.from_dataset(toys, 6).watch(3) if given else None
    told = set()
    callback, module = GradCAMCallback(probe, LAYER, log_before_training=True), AsksTheTrainer(told)
    stop = EarlyStopping("gradcam/probe_accuracy", mode="max", patience=1)
    run = fit(module, callback, stop, max_epochs=9, num_sanity_val_steps=sanity_steps)
    assert [entry["epoch"] for entry in callback.history] == [-1, 0, 1] and run.current_epoch == 2
    assert f"measured on {len(toys)} images" in callback.verdict.evidence
    assert told == {(False, True)}


class Merges(nn.Conv2d):
    """A convolution that takes its branch into its weights when it is evaluated, as LoRA layers may."""

    merged = False

    def train(self, mode=True):
        if self.merged == mode:
            self.weight.data += 0.1 if self.merged is False else -0.1
            self.merged = not mode
        return super().train(mode)


class WithLora(ThinVGG):
    def __init__(self):
        super().__init__()
        self.features[3] = Merges(8, 8, 3, padding=1)


def losses(trainer, module, data, watch, **options):
    torch.manual_seed(0)
    run = trainer(*([GradCAMCallback(target_layers=LAYER)] if watch else []), **options)
    run.fit(module, DataLoader(data[0], 6), DataLoader(data[1], 6))
    return module.losses, {name: float(value) for name, value in run.callback_metrics.items() if "gradcam" not in name}


@pytest.mark.parametrize("module", [DrawsInForward, LogsInForward, WithLora, ThinVGG])
def test_training_and_its_metrics_are_those_without_the_callback(trainer, toys, module):
    found = []
    for watch in (False, True):
        torch.manual_seed(0)
        data = random_split(Draws(toys), [12, len(toys) - 12], torch.Generator().manual_seed(1))
        is_said = watch and module is DrawsInForward
        with pytest.warns(GradCAMWarning, match="random in eval mode") if is_said else nullcontext():
            found.append(losses(trainer, module(), data, watch, max_epochs=2))
    assert found[0] == found[1]


class DropsAlways(ThinVGG):
    def forward(self, images):
        return self.classifier(nn.functional.dropout(self.features(images), 0.5))


class FlipsAtRandom(ThinVGG):
    def __init__(self, draw):
        super().__init__(batch_norm=False)
        self.draw = draw

    def forward(self, images):
        return super().forward(images.flip(-1) if self.draw() < 0.5 else images)


class DrawsInVain(ThinVGG):
    def forward(self, images):
        return super().forward(images + 0 * torch.rand(1))


@pytest.mark.parametrize("target", ["label", lambda outputs, index: outputs[:, 0]])
@pytest.mark.parametrize(
    "make, is_random",
    [
        (DropsAlways, True),
        (DrawsInForward, True),
        (lambda: FlipsAtRandom(lambda: torch.rand(1)), True),
        (lambda: FlipsAtRandom(np.random.rand), True),
        (lambda: FlipsAtRandom(random.random), True),
        (DrawsInVain, False),
        (ThinVGG, False),
    ],
)
def test_a_forward_that_is_random_in_eval_mode_is_said(probe, make, is_random, target):
    torch.manual_seed(0)
    module, state = make().eval(), hash_random_state()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Evaluator(GradCAM(module, LAYER), probe, target)
    assert ["random in eval mode" in str(one.message) for one in said] == [True] * is_random
    assert hash_random_state() == state


def in_a_closure():
    rng = np.random.default_rng(0)
    return lambda image: image + float(rng.random())


def in_a_closure_of_a_function():
    inner = in_a_closure()
    return lambda image: inner(image)


def in_the_module():
    global of_module
    of_module = np.random.RandomState(0)
    return draw_from_the_module


def draw_from_the_module(image):
    return image + float(of_module.rand())


def in_a_default():
    own = random.Random(0)

    def draw(image, rng=own):
        return image + rng.random()

    return draw


def in_a_partial():
    return partial(lambda rng, image: image + rng.random(), random.Random(0))


def in_a_class():
    class Draw:
        rng = random.Random(0)

        def image(self, image):
            return image + self.rng.random()

    return Draw().image


def data_with(toys, draw, place):
    """Return a dataset and a collate function, one of which draws from a generator."""

    class Data(Dataset):
        def __init__(self):
            self.draw = draw if place == "an attribute" else None

        def __len__(self):
            return len(toys)

        def __getitem__(self, index):
            image, label, _ = toys[index]
            if place == "its code":
                return draw(image), label
            return image if self.draw is None else self.draw(image), label

    def collate(items):
        return default_collate([(draw(image), label) for image, label in items])

    return Data(), collate if place == "the collate function" else None


@pytest.mark.parametrize("place", ["an attribute", "its code", "the collate function"])
@pytest.mark.parametrize(
    "make", [in_a_closure, in_a_closure_of_a_function, in_the_module, in_a_default, in_a_partial, in_a_class]
)
def test_generators_that_functions_draw_from_are_as_they_were(toys, make, place):
    expected = make()(0.0)
    draw = make()
    data, collate = data_with(toys, draw, place)
    choose_items(data, Feed(collate=collate), Quota(None, 4), 0, None)
    assert draw(0.0) == expected


def test_a_module_that_logs_in_forward_logs_as_before_afterwards(toys):
    module = LogsInForward().eval()
    module.log = own = print
    GradCAM(module, LAYER)(toys.items[0][0][None])
    assert vars(module)["log"] is own and "log_dict" not in vars(module)


def test_a_layer_that_merges_its_weights_for_evaluation_is_left_alone(toys):
    module = WithLora().train()
    layer = module.features[3]
    before = layer.weight.clone()
    GradCAM(module, LAYER)(toys.items[0][0][None])
    assert layer.training and not layer.merged and torch.equal(layer.weight, before)


class Subtracts(ThinVGG):
    def forward(self, images):
        images.sub_(0.5).mul_(2)
        return super().forward(images)


def test_a_forward_that_begins_in_place_changes_no_probe_image(trainer, toys):
    images = torch.stack([image for image, _, _ in toys.items])
    module, plain = Subtracts().eval(), ThinVGG().eval()
    plain.load_state_dict(module.state_dict())
    for given in (images[:4].clone(), images[:4].clone(memory_format=torch.channels_last)):
        cam = GradCAM(module, LAYER)
        assert torch.equal(cam.predict(given), GradCAM(plain, LAYER).predict((images[:4] - 0.5) * 2))
        maps, expected = cam(given, 0).maps[LAYER], GradCAM(plain, LAYER)((images[:4] - 0.5) * 2, 0).maps[LAYER]
        assert torch.allclose(maps, expected) and torch.equal(given, images[:4])
    loader = DataLoader([(image, label) for image, label, _ in toys.items], 6)
    callback = GradCAMCallback(target_layers=LAYER)
    trainer(callback).fit(Subtracts(), loader, loader)
    assert all(any(torch.equal(probe, image) for image in images) for probe in callback.probe_set.images)


class Mirrors(ThinVGG):
    def forward(self, images):
        return super().forward(images) + super().forward(images.flip(-1))


def test_a_vgg_that_runs_twice_is_said_once(toys):
    cam = GradCAM(Mirrors().eval(), "block5")
    with pytest.warns(GradCAMWarning, match="forward runs block5_conv3 more than once, such as for a mirrored") as said:
        cam(toys.items[0][0][None])
        cam(toys.items[0][0][None])
    assert len(said) == 1


class Distils(ThinVGG):
    """Has a second VGG, which only the training runs."""

    def __init__(self):
        super().__init__(batch_norm=False)
        self.teacher = ThinVGG(batch_norm=False)

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + (self(batch[0]) - self.teacher(batch[0])).pow(2).mean()


class Averages(Distils):
    """Runs another VGG in its validation than in its training."""

    def forward(self, images):
        return super().forward(images) if self.training else self.teacher(images)


class TwoStreams(Distils):
    def forward(self, images):
        return super().forward(images) + self.teacher(images)


@pytest.mark.parametrize("make, name", [(Distils, "features"), (Averages, "teacher.features")])
@pytest.mark.parametrize("layers", ["all", "last", ["block4", "block5_conv3"]])
def test_of_several_vggs_the_one_that_runs_is_watched(trainer, toys, caplog, make, name, layers):
    caplog.set_level(logging.INFO, logger="pytorch_lightning.utilities.rank_zero")
    module, loader = make(), DataLoader([item[:2] for item in toys.items], 6)
    callback = GradCAMCallback(target_layers=layers, views="overview")
    trainer(callback, max_epochs=1).fit(module, loader, loader)
    assert any(f"runs '{name}', so it is watched" in text for text in caplog.messages)
    probe = callback.probe_set
    expected = GradCAM(module, f"{name}.{LAYER}")(probe.images, probe.labels).maps[f"{name}.{LAYER}"]
    strength = callback.history[-1][f"gradcam/strength/{LAYER}"]
    assert strength == pytest.approx(float(expected.mean(dim=(1, 2)).mean()), rel=1e-4)


def test_of_several_vggs_that_run_none_is_guessed(trainer, toys):
    loader = DataLoader([item[:2] for item in toys.items], 6)
    with pytest.raises(ValueError, match=r"its forward runs \['features', 'teacher.features'\]\. Choose one"):
        trainer(GradCAMCallback()).fit(TwoStreams(), loader, loader)
    with pytest.raises(ValueError, match=r"2 VGGs\. Choose one of \['features.all', 'teacher.features.all'\]"):
        GradCAM(Distils())


class Replaces(ThinVGG):
    """Replaces a layer in the second epoch, and takes it out in the fourth one."""

    def __init__(self):
        super().__init__(batch_norm=False)

    def on_train_epoch_start(self):
        if self.current_epoch in (1, 3):
            self.features[3] = nn.ReLU() if self.current_epoch == 1 else nn.Identity()


def test_a_layer_that_is_replaced_in_the_training_goes_on_and_one_that_is_gone_is_said(fit, probe):
    callback = GradCAMCallback(probe, ["block1", LAYER])
    with pytest.warns(GradCAMWarning, match=r"it lost the modules of \['block1_conv2'\], and `target_layers`"):
        run = fit(Replaces(), callback, max_epochs=4)
    assert [entry["epoch"] for entry in callback.history] == [0, 1, 2] and run.current_epoch == 4


class Opens(Dataset):
    """Opens its file at the first item, as datasets in one large file do."""

    def __init__(self, toys):
        self.toys, self.file = toys, None

    def __len__(self):
        return len(self.toys)

    def __getitem__(self, index):
        if self.file is None:
            self.file = open(__file__)
        return self.toys[index][:2]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: random_split(data, [6, len(data) - 6])[1]])
def test_items_are_read_from_a_copy_of_the_dataset(toys, wrap):
    """The dataset of a loader goes to its workers, and an open file cannot be pickled."""
    data = Opens(toys)
    assert len(ProbeSet.from_dataset(wrap(data), per_class=1)) == 3
    assert data.file is None


class OwnLog(ThinVGG):
    def log(self, name, value, prog_bar=False):
        super().log(name, value, prog_bar=prog_bar)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))


def test_a_module_with_a_log_of_its_own_trains_on(trainer, toys, events):
    callback = GradCAMCallback(target_layers=LAYER)
    loader = DataLoader(toys, 6)
    with pytest.warns(GradCAMWarning, match=r"log_dict failed \(TypeError: .*\), so the scalars go to the loggers"):
        trainer(callback, EarlyStopping(f"gradcam/lift/{LAYER}", patience=5)).fit(OwnLog(), loader, loader)
    assert len(callback.history) == 2 == len(events().Scalars("gradcam/probe_accuracy"))


class Once(IterableDataset):
    def __init__(self, items):
        self.items = iter(items)

    def __iter__(self):
        return self.items


class Counts(ThinVGG):
    count = 0

    def validation_step(self, batch, batch_idx):
        self.count += len(batch[0])


def test_data_that_are_used_up_are_left_to_the_validation(trainer, toys):
    module, callback = Counts(), GradCAMCallback(target_layers=LAYER)
    loader = DataLoader(Once([item[:2] for item in toys.items]), 6)
    trainer(callback).validate(module, loader, verbose=False)
    assert module.count == len(toys) and len(callback.history) == 1


@pytest.mark.filterwarnings("ignore:Total length of")
@pytest.mark.parametrize("loader", [[], lambda toys: DataLoader(toys, 99, drop_last=True)])
def test_a_training_without_validation_batches_is_said_and_goes_on(trainer, toys, loader):
    callback = GradCAMCallback(target_layers=LAYER)
    with pytest.warns(GradCAMWarning, match="this training has no validation, so no maps are computed"):
        validation = loader if loader == [] else loader(toys)
        trainer(callback, max_epochs=1).fit(ThinVGG(), DataLoader(toys, 6), validation)
    assert callback.history == []


def test_monitors_of_every_nth_epoch_are_said(trainer, toys, caplog):
    caplog.set_level("INFO", logger="pytorch_lightning.utilities.rank_zero")
    stop = EarlyStopping(f"gradcam/lift/{LAYER}", patience=9)
    loader = DataLoader(toys, 6)
    trainer(GradCAMCallback(target_layers=LAYER, every_n_epochs=2), stop, max_epochs=1).fit(ThinVGG(), loader, loader)
    assert "a patience has to be 2 times as large" in caplog.text


@pytest.mark.parametrize(("layers", "said"), [("all", True), ("last", True), ("block3", False), (["all"], True)])
def test_a_vgg_that_ends_early_is_said(trainer, toys, caplog, layers, said):
    """Modules behind the third block are no part of a VGG here."""
    caplog.set_level("INFO", logger="pytorch_lightning.utilities.rank_zero")
    module, loader = ThinVGG(), DataLoader(toys, 6)
    third = [i for i, each in enumerate(module.features) if isinstance(each, nn.MaxPool2d)][2]
    module.features = module.features[: third + 1].append(nn.Conv2d(16, 24, 1))
    trainer(GradCAMCallback(target_layers=layers), max_epochs=1).fit(module, loader, loader)
    assert ("the VGG of this model ends with block3_conv3" in caplog.text) == said


def test_a_network_without_a_forward_is_told_how_to_be_called(trainer, toys):
    class Holds(ThinVGG):
        forward = nn.Module.forward

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.classifier(self.features(batch[0])), batch[1])

        def validation_step(self, batch, batch_idx):
            pass

    loader = DataLoader(toys, 6)
    with pytest.raises(UserCodeError, match=r"has no forward, pass forward=lambda net, batch: net.model\(batch\[0\]\)"):
        trainer(GradCAMCallback(target_layers=LAYER)).fit(Holds(), loader, loader)
