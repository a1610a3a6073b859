"""The examples, run as a new user runs them."""

import random
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import compare_checkpoints
import finetune_vgg16
import layer_panels
import numpy as np
import oxford_pets
import pytest
import shortcut_demo
import torch
from PIL import Image, ImageFilter
from pretrained import for_finetuning
from shortcut_demo import LAYER, Result, report
from skimage import data
from torchvision import transforms
from toys import CLASSES, GROUNDS, Toys, lay_ground, load_ground

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(*arguments, **options):
    """Run a program in a process of its own, as users do."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, **options)


@pytest.fixture
def run_here(monkeypatch, capsys, tmp_path):
    """Run a program in this process, in ``tmp_path``, and return what it prints. Its imports alone take 8 s elsewhere.

    Takes the program's module, or the path of a script.
    """

    def run(program, *arguments):
        path = program if isinstance(program, Path) else program.__file__
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        runpy.run_path(str(path), run_name="__main__") if path is program else program.main()
        return capsys.readouterr().out

    return run


def test_demo_finetunes_the_real_vgg16_and_ends_with_table_sentence_and_command(tmp_path, events):
    out = tmp_path / "demo"
    done = run(EXAMPLES / "shortcut_demo.py", "--out", out, "--images", "18", "--epochs", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("shortcut", "clean"):
        found = events(out / name)
        steps = [event.step for event in found.Scalars("val_acc")]
        assert len(found.Tags()["images"]) == 3 * 3 * 2 + 13 + 3, "images, layers, overview, profile, counterfactuals"
        for tag in found.Tags()["images"]:
            at_end = tag.split("/")[1] == "animation"
            assert [event.step for event in found.Images(tag)] == (steps[-1:] if at_end else [0, *steps])
        state = torch.load(out / name / "vgg16.pt", weights_only=True)
        base = for_finetuning("demo", 3).state_dict()
        assert torch.equal(state["features.7.weight"], base["features.7.weight"]), "block 2 is frozen"
        assert not torch.equal(state["features.28.weight"], base["features.28.weight"]), "block 5 is tuned"
        lift = found.Scalars(f"gradcam/lift/{LAYER}")[-1].value
        assert re.search(rf"^{name} .*{lift:.2f}$", done.stdout, flags=re.M), "the table shows what was logged"
        bare = events(tmp_path / "demo_without_masks" / name)
        assert set(bare.Tags()["images"]) == {"automatic/masks", "automatic/counterfactuals", "frame/counterfactuals"}
        of_run = {"masks": (found, "gradcam"), "automatic masks": (bare, "automatic"), "frame": (bare, "frame")}
        for basis, (log, prefix) in of_run.items():
            said = log.Tensors(f"{prefix}/verdict")[-1].tensor_proto.string_val[0].decode()
            assert f"\n  {name}, by {basis}: {said.splitlines()[0]}\n" in done.stdout
    assert f"tensorboard --logdir {out}\n" in done.stdout and f"are in {out}_without_masks.\n" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == ["clean", "shortcut"], "TensorBoard compares these alone"


def test_the_report_depends_on_the_results():
    clean = Result("clean", 0.97, 0.95, 0.96, 0.96, 2.0, {"masks": "NO SIGN"})
    assert "has learnt the ground" in report(
        Result("shortcut", 0.98, 0.35, 0.95, 0.1, 0.8, {"masks": "SUSPECTED"}), clean
    )
    assert "has not learnt a shortcut" in report(
        Result("shortcut", 0.98, 0.93, 0.93, 0.9, 1.9, {"frame": "NOT KNOWN"}), clean
    )


def test_the_error_of_unavailable_weights_has_no_traceback(tmp_path, monkeypatch):
    for program, arguments in ((shortcut_demo, []), (layer_panels, [__file__])):
        monkeypatch.setattr(sys, "argv", ["program", *arguments, "--weights", str(tmp_path / "missing.pt")])
        with pytest.raises(SystemExit) as caught:
            program.main()
        assert re.match("Expected `--weights` to be.* there is no file", str(caught.value.code))


def test_layer_panels_draws_heatmaps_and_overlays_of_real_photographs(tmp_path, run_here):
    for name in ("chelsea", "coffee"):
        Image.fromarray(getattr(data, name)()).save(tmp_path / f"{name}.png")
    run_here(layer_panels, "chelsea.png", "coffee.png", "--weights", "demo", "--out", "panel.jpg")
    sheet = Image.open(tmp_path / "panel.jpg")
    assert sheet.width > 13 * 112 and sheet.height > 4 * 112
    # Columns of colour: heatmaps are bright and saturated, overlays half as much, and the paper not at all.
    pixels = np.asarray(sheet.convert("HSV")).astype(int)
    assert (pixels[..., 1] > 150).mean() > 0.1 and (pixels[..., 1] < 10).mean() > 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # Old versions of Pillow name the whole path.
        (["nowhere.png"], "No such file or directory: '.*nowhere.png'"),
        (["text.png"], "cannot identify image file '.*text.png'"),
        (["photo.png", "--target", "9"], r"\(the model returns 4 logits\), but got \[9\]"),
        (["photo.png", "--classes", "a,b"], "Expected 4 class names, one per logit, but got 2"),
        (["photo.png", "--colormap", "gold"], "invalid choice: 'gold'"),
    ],
)
def test_the_errors_of_layer_panels_have_no_traceback(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["layer_panels.py", *arguments])
    Image.fromarray(data.chelsea()).save("photo.png")
    Path("text.png").write_text("no image")
    with pytest.raises(SystemExit) as caught:
        layer_panels.main()
    assert re.search(message, f"{caught.value.code} {capsys.readouterr().err}")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Make ``all`` with 10 images of each class, and ``probe`` with two images of each class and their masks."""
    root = tmp_path_factory.mktemp("photographs")
    for name, count, seed in (("all", 30, 1), ("probe", 6, 2)):
        for i, (image, label, mask) in enumerate(Toys(count, 1.0, seed, 96).items):
            folder = root / name / CLASSES[label]
            folder.mkdir(parents=True, exist_ok=True)
            transforms.functional.to_pil_image(image).save(folder / f"{i}.png")
            if name == "probe":
                Image.fromarray(mask.numpy()).save(folder / f"{i}.mask.png")
    return root


SMALL = ["--weights", "demo", "--size", "64", "--workers", "0", "--batch-size", "8"]


def test_finetuning_on_a_folder_stops_by_the_lift(photographs, tmp_path, events, run_here):
    """A learning rate of 0 never improves anything, so the training stops after its patience."""
    still = ["--learning-rate", "0", "--epochs", "5", "--patience", "1"]
    arguments = [photographs / "all", "--probe", photographs / "probe", "--layers", "block5", *SMALL, *still]
    said = run_here(finetune_vgg16, *arguments, "--out", "runs/mine")
    assert "24 photographs for training, 6 for validation: heart, moon, star" in said
    assert "gradcam/lift/block5_conv3 has not improved for 1 epochs" in said
    assert "tensorboard --logdir runs/mine" in said
    found = events(tmp_path / "runs" / "mine" / "version_0")
    assert len(found.Scalars("val_loss")) == 2, "stopped after the second epoch"
    assert len(found.Images("gradcam/probe/heart-1")) == 3 and "measured on 6 images" in said
    for name in ("best", "last"):
        checkpoint = tmp_path / "runs" / "mine" / "version_0" / "checkpoints" / f"{name}.ckpt"
        restored = finetune_vgg16.FineTuning.load_from_checkpoint(checkpoint, weights_only=True)
        assert restored(torch.rand(1, 3, 64, 64)).shape == (1, 3)
    # Nothing improves, so both checkpoints are of the first epoch, and only one of them is evaluated.
    compare = [tmp_path / "runs", "--probe", photographs / "probe", "--layers", "block5", "--size", "64"]
    said = run_here(compare_checkpoints, *compare)
    lines = said.splitlines()
    assert lines[1].split()[:2] == ["0", "3"] and lines[2] == ""
    assert f"Keep {checkpoint.with_name('best.ckpt')}:" in lines and "--logdir runs/compare" in said
    (lift,) = events(tmp_path / "runs" / "compare").Scalars("gradcam/lift/block5_conv3")
    before_training, first_epoch, _ = found.Scalars("gradcam/lift/block5_conv3")
    assert lift.value == pytest.approx(first_epoch.value, abs=1e-5)
    assert (tmp_path / "runs" / "compare" / "focus.html").exists()
    with pytest.raises(SystemExit, match="compare holds another run"):
        run_here(compare_checkpoints, *compare)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # Lightning's, since the resumed run is a new version
def test_finetuning_freezes_blocks_and_reads_train_and_val(photographs, tmp_path, events, run_here):
    for part in ("train", "val"):
        shutil.copytree(photographs / "all", tmp_path / "mine" / part)
    options = ["--epochs", "1", "--freeze", "4", "--layers", "block5_conv3"]
    said = run_here(finetune_vgg16, tmp_path / "mine", *SMALL, *options)
    assert "30 photographs for training, 30 for validation" in said and "val_loss has not" in said
    run_folder = tmp_path / "runs" / "finetune" / "version_0"
    state = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    base = for_finetuning("demo", 3).state_dict()
    assert torch.equal(state["network.features.21.weight"], base["features.21.weight"]), "block 4 stays"
    assert not torch.equal(state["network.features.28.weight"], base["features.28.weight"]), "block 5 moves"
    assert len(events(run_folder).Images("gradcam/overview")) == 2

    last = run_folder / "checkpoints" / "last.ckpt"
    options[1] = "2"
    run_here(finetune_vgg16, tmp_path / "mine", *SMALL, *options, "--resume", last)
    resumed = events(run_folder.with_name("version_1"))
    assert [event.step for event in resumed.Images("gradcam/overview")] == [7], "the second epoch alone"
    assert resumed.Scalars("gradcam/drift/block5_conv3"), "measured against the first epoch"


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (lambda folder: None, [], "Couldn't find any class folder"),
        (lambda folder: (folder / "a").mkdir(), [], "Found no valid file for the classes a"),
        (lambda folder: save(folder / "a", 2), [], "but got one class, 'a'. Add a folder for each class"),
        (
            lambda folder: save(folder / "a", 1) or save(folder / "b", 2),
            [],
            "but the class 'a' has one. Add photographs",
        ),
        (
            lambda folder: save(folder / "train" / "a", 2) or save(folder / "val" / "b", 2),
            [],
            "but train has the classes",
        ),
        (lambda folder: None, ["--probe", "p", "--layers", "block4"], "Expected block5_conv3 in --layers"),
    ],
)
def test_the_errors_of_finetuning_are_one_line(tmp_path, monkeypatch, capsys, prepare, arguments, message):
    (tmp_path / "mine").mkdir()
    prepare(tmp_path / "mine")
    monkeypatch.setattr(sys, "argv", ["finetune_vgg16.py", str(tmp_path / "mine"), *SMALL, *arguments])
    with pytest.raises(SystemExit) as caught:
        finetune_vgg16.main()
    assert message in str(caught.value.code) + capsys.readouterr().err


def save(folder, count):
    """Save black images."""
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", (64, 64)).save(folder / f"{i}.png")


# A box of a photograph: left, upper, right, lower. A cup stands in for the dogs: no package has a photograph of a dog.
OVALS = {"cat": (data.chelsea, (125, 20, 325, 270)), "dog": (data.coffee, (190, 70, 420, 330))}
# As in the lists of the dataset: the breed, its number, 1 for a cat or 2 for a dog, its number among cats or dogs.
BREEDS = (("Abyssinian", 1, 1, 1), ("beagle", 2, 2, 1), ("Bengal", 3, 1, 2), ("pug", 4, 2, 2))


def oval(width, height, centre, radii):
    """Return the pixels whose centres lie in an oval, ``(height, width)`` bool."""
    y, x = np.mgrid[:height, :width] + 0.5
    return ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 <= 1


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """Make a dataset in torchvision's layout, of photographs on photographed ground.

    Returns:
        The root folder, and the oval of each image of ``test``: ``[(path, label, centre, radii), ...]``, in pixels.
    """
    root, placed = tmp_path_factory.mktemp("pets"), []
    folder = root / "data" / "oxford-iiit-pet"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations" / "trimaps").mkdir(parents=True)
    for split, numbers in (("trainval", range(3)), ("test", range(100, 102))):
        lines = []
        for breed, number, species, among in BREEDS:
            photograph, box = OVALS["cat" if species == 1 else "dog"]
            for i in numbers:
                name, chance = f"{breed}_{i}", random.Random(f"{breed} {i}")
                lines.append(f"{name} {number} {species} {among}")
                ground = lay_ground(load_ground(GROUNDS[(i + species) % 3]), 200, chance)
                ground = ground.resize((300, 200) if i % 2 else (200, 260))
                radii = chance.randint(36, 60), chance.randint(36, 60)
                centre = [side // 2 + chance.randint(-30, 30) for side in ground.size]
                animal = Image.fromarray(photograph()).crop(box).resize((2 * radii[0], 2 * radii[1]))
                mask = oval(*ground.size, centre, radii)
                inner = np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MinFilter(7))) > 0
                corner = centre[0] - radii[0], centre[1] - radii[1]
                whole = ground.copy()
                whole.paste(animal, corner)
                Image.composite(whole, ground, Image.fromarray(mask)).save(folder / "images" / f"{name}.jpg")
                trimap = np.where(inner, 1, np.where(mask, 3, 2)).astype(np.uint8)
                Image.fromarray(trimap).save(folder / "annotations" / "trimaps" / f"{name}.png")
                if split == "test":
                    placed.append((folder / "images" / f"{name}.jpg", species - 1, centre, radii))
        (folder / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root, placed


def as_the_network_sees_it(path, centre, radii, size):
    """Return a photograph as ``(size, size, 3)``, resized and cropped as in the example, and its oval."""
    photograph = Image.open(path)
    scale = size * 8 // 7 / min(photograph.size)
    width, height = (int(side * scale) for side in photograph.size)
    left, upper = round((width - size) / 2), round((height - size) / 2)
    pixels = np.asarray(photograph.resize((width, height)).crop((left, upper, left + size, upper + size)))
    moved = centre[0] * scale - left, centre[1] * scale - upper
    return pixels / 255, oval(size, size, moved, [radius * scale for radius in radii])


def test_the_probe_images_of_pets_have_the_masks_of_the_dataset(pets):
    root, placed = pets
    options = ["--root", str(root / "data"), "--size", "64"]
    probe = oxford_pets.choose_probe(oxford_pets.parse([*options, "--per-class", "4"]))
    assert [name.split("-")[0] for name in probe.names] == ["Cat"] * 4 + ["Dog"] * 4
    seen = [as_the_network_sees_it(path, centre, radii, 64) for path, _, centre, radii in placed]
    found = []
    for image, mask, label in zip(probe.images, probe.masks, probe.labels, strict=True):
        distances = [np.abs(image.permute(1, 2, 0).numpy() - pixels).mean() for pixels, _ in seen]
        found.append(int(np.argmin(distances)))
        assert min(distances) < 0.02 < sorted(distances)[1] and placed[found[-1]][1] == label
        expected = seen[found[-1]][1]
        assert (mask.numpy() & expected).sum() / (mask.numpy() | expected).sum() > 0.95, "the rim is animal, too"
    assert sorted(found) == list(range(8))
    breeds = oxford_pets.choose_probe(oxford_pets.parse([*options, "--task", "breed"]))
    assert breeds.class_names == ["Abyssinian", "Beagle", "Bengal", "Pug"]
    assert breeds.names[-1].startswith("pug_"), "named after its file, which names the breed"


def test_the_training_on_pets_prints_the_logged_metrics(pets, tmp_path, events, run_here):
    root, placed = pets
    options = ["--epochs", "1", "--freeze", "5", "--layers", "block5", "--limit", "6", "--per-class", "4"]
    output = run_here(oxford_pets, "--root", root / "data", *SMALL, *options)
    assert "6 of 12 photographs per epoch, 6 of 8 for validation,\n8 probe images, 2 classes: Cat, Dog\n" in output
    found = events(tmp_path / "runs" / "pets" / "version_0")
    assert len(found.Scalars("train_loss")) == 1, "6 photographs are one batch"
    printed = dict(re.findall(r"^(accuracy|swap accuracy|lift) +([\d.]+)", output, flags=re.M))
    last = {name: found.Scalars(name)[-1].value for name in found.Tags()["scalars"]}
    assert printed["lift"] == f"{last['gradcam/lift/block5_conv3']:.2f}"
    assert printed["swap accuracy"] == f"{100 * last['gradcam/swap_accuracy']:.0f}"
    assert printed["accuracy"] == f"{100 * last['val_acc']:.0f}"
    area = np.mean([as_the_network_sees_it(path, *where, 64)[1].mean() for path, _, *where in placed])
    said = re.search(r"of the focus lies on the object, which fills (\d+) %", output)
    assert abs(int(said[1]) - 100 * area) < 1
    mass = last["gradcam/relevance_mass/block5_conv3"]
    assert last["gradcam/lift/block5_conv3"] == pytest.approx(mass / area, rel=0.03)
    panels = [tag for tag in found.Tags()["images"] if tag.startswith("gradcam/probe/")]
    assert len(panels) == 8 and {tag.split("/")[2].split("-")[0] for tag in panels} == {"Cat", "Dog"}
    for tag in (*panels, "gradcam/overview"):
        assert len(found.Images(tag)) == 2, "before the training, and after its epoch"
    assert len(found.Images("gradcam/counterfactuals")) == 2
    assert "tensorboard --logdir runs/pets" in output
    checkpoint = next((tmp_path / "runs" / "pets" / "version_0" / "checkpoints").glob("*.ckpt"))
    assert finetune_vgg16.FineTuning.load_from_checkpoint(checkpoint, weights_only=True).hparams.classes == 2


@pytest.mark.parametrize(
    ("folders", "arguments", "message"),
    [
        ([], [], "in 'data', but there is none. Pass --download, or pass its folder as --root."),
        (["images", "annotations"], [], "trainval.txt'). Check the network"),
        (["images"], [], "is incomplete (Dataset not found"),
        ([], ["--layers", "block4"], "Expected block5_conv3 in --layers"),
        ([], ["--limit", "-1"], "Expected --limit to be 0 or more, but got -1. Use 0 for all photographs."),
    ],
)
def test_the_errors_of_pets_are_one_line(tmp_path, monkeypatch, capsys, folders, arguments, message):
    for name in folders:
        (tmp_path / "data" / "oxford-iiit-pet" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["oxford_pets.py", *SMALL, *arguments])
    with pytest.raises(SystemExit) as caught:
        oxford_pets.main()
    said = str(caught.value.code)
    assert message in said + capsys.readouterr().err and "\n" not in said


@pytest.mark.filterwarnings("ignore:(?s).*(deprecated in v4|JsonargparseDeprecation)")
def test_the_yaml_file_trains_too(photographs, tmp_path, events, run_here):
    configuration = EXAMPLES / "cli" / "config.yaml"
    small = ["--model.weights", "demo", "--data.size", "64", "--data.workers", "0", "--trainer.max_epochs", "1"]
    data_folder = ["--data.folder", photographs / "all"]
    run_here(EXAMPLES / "cli" / "train.py", "fit", "--config", configuration, *data_folder, *small)
    found = events(tmp_path / "runs" / "cli" / "version_0")
    assert len(found.Images("gradcam/overview")) == 2
    assert len(found.Scalars("gradcam/entropy/block3_conv1")) == 2
    assert "gradcam/entropy/block2_conv1" not in found.Tags()["scalars"]
    assert "block3" in (tmp_path / "runs" / "cli" / "version_0" / "config.yaml").read_text()


def test_toys_are_the_same_every_time_on_every_ground():
    first, again, other = Toys(9, 1.0, seed=1), Toys(9, 1.0, seed=1), Toys(9, 0.0, seed=1)
    for (image, label, mask), (image2, label2, mask2), (_, label3, mask3) in zip(first, again, other, strict=True):
        assert torch.equal(image, image2) and label == label2 == label3
        assert torch.equal(mask, mask2) and torch.equal(mask, mask3)
    assert not torch.equal(first[0][0], Toys(9, 1.0, seed=2)[0][0])


def test_bias_is_the_share_of_toys_on_the_ground_of_their_class():
    def own_ground(bias):
        toys = Toys(90, bias, seed=0, size=32)
        reference = {g: Toys(len(CLASSES), 1.0, seed=5, size=32).items[g] for g in range(len(GROUNDS))}
        colours = torch.stack([image[:, ~mask].mean(dim=1) for image, _, mask in reference.values()])
        found = [int((colours - image[:, ~mask].mean(dim=1)).norm(dim=1).argmin()) for image, _, mask in toys]
        return np.mean([ground == label for ground, (_, label, _) in zip(found, toys, strict=True)])

    assert own_ground(1.0) > 0.9
    assert 0.2 < own_ground(0.0) < 0.5


def test_toys_masks_are_exact():
    # The same toy on two grounds: the pixels of the toy do not change with the ground.
    one, two = Toys(9, 1.0, seed=3), Toys(9, 0.0, seed=3)
    for (image, _, mask), (image2, _, _) in zip(one, two, strict=True):
        same = (image - image2).abs().sum(dim=0) < 0.02
        if (image - image2).abs().mean() > 0.05:
            assert same[mask].float().mean() > 0.85, "but for its soft edge"
            assert same[~mask].float().mean() < 0.3
