"""Each row of the table of data in getting-started works, and so does a forward of several arguments."""

from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ThinVGG
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from toys import CLASSES
from watched_data import LAYER, PATHS, AfterTransfer, Reads, Stream, watching

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning, ProbeSet
from gradcam_callback.exceptions import UserCodeError

pytestmark = [pytest.mark.sixteen_images, pytest.mark.judges_more]


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
    with pytest.raises(UserCodeError, match="your `forward` to take .* it raised KeyError: 'weight'.* Let it") as said:
        watch(WithAge(), DataLoader(aged, 6), broken)
    assert "forward=" not in str(said.value)
    alone = GradCAMCallback(ProbeSet.from_dataset(toys), LAYER, forward=lambda net, batch: net(*batch))
    with pytest.raises(ValueError, match="probe images that come with their batch, for `forward`"):
        watch(WithAge(), DataLoader(aged, 6), alone)


class Siamese(Reads):
    def forward(self, first, second):
        return super().forward(first), super().forward(second)

    def loss(self, batch):
        return -similarity(self(*batch[:2]), None).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))


def similarity(outputs, index):
    return -(outputs[0] - outputs[1]).norm(dim=1)


def test_a_siamese_network_is_watched_on_the_image_that_runs_last(toys, watch):
    images = torch.stack([image for image, _, _ in toys.items])
    loader = DataLoader([(x, images[i - 1], i % 2) for i, x in enumerate(images)], 6)
    # As the warning and docs/getting-started.md say.
    callback = watching(
        target=similarity,
        batch_transform=lambda batch: (batch[0], batch[2]),
        forward=lambda net, batch: net(batch[1], batch[0]),
    )
    module = Siamese()
    with pytest.warns(GradCAMWarning, match=r"runs block5_conv3 more than once, .*net\(batch\[1\], batch\[0\]\)"):
        watch(module, loader, callback)
    probe = callback.probe_set.images
    second = images[[int((images == image).flatten(1).all(1).nonzero()) - 1 for image in probe]]
    plain = ThinVGG()
    plain.load_state_dict(module.state_dict())
    with torch.no_grad():
        known = plain.eval()(second)
    expected = GradCAM(plain, LAYER)(probe, lambda outputs, index: similarity((outputs, known[index]), index))
    strength = expected.maps[LAYER].mean(dim=(1, 2)).mean()
    assert callback.history[-1][f"gradcam/strength/{LAYER}"] == pytest.approx(float(strength), rel=1e-4)


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
        "the label is not": lambda: (Reads(lambda b: (b[0], b[2])), [(x, i % 2, y) for i, (x, y) in enumerate(pairs)]),
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
    assert len(rows_of_the_table()) == 17
