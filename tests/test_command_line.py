"""The command line: layers and panel, called as a user types them."""

import argparse
import io
import json
import runpy
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ThinVGG
from PIL import Image
from skimage import data
from torch import nn
from torchvision import transforms
from torchvision.models import VGG, VisionTransformer
from torchvision.models.vgg import make_layers
from toys import Toys

from gradcam_callback import GradCAM, GradCAMCallback, ProbeSet
from gradcam_callback.__main__ import main, read_inputs_for
from gradcam_callback.drawing import Style
from gradcam_callback.maps import find_vggs
from gradcam_callback.offline.loading import load_model, read_inputs
from gradcam_callback.offline.photographs import IMAGENET, draw_sheets, read_photographs

VGG11 = [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"]


@pytest.fixture
def output_of(monkeypatch, capsys):
    """Return a function that runs a command and returns the text that it prints."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gradcam_callback", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def error_of(monkeypatch):
    """Return a function that runs a command and returns its error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gradcam_callback", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return str(caught.value.code)

    return run


@pytest.fixture
def checkpoint(tmp_path, fit, thin):
    """Make a checkpoint of a module whose argument is saved as a hyperparameter."""
    trainer = fit(Saves(classes=3), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


class Saves(ThinVGG):
    def __init__(self, classes):
        super().__init__(classes)
        self.save_hyperparameters()


class Bare(ThinVGG):
    """A module that needs no arguments."""


class NoVGG(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def needs_arguments(classes):
    return ThinVGG(classes)


@pytest.fixture
def photographs(tmp_path):
    for name in ("chelsea", "coffee"):
        Image.fromarray(getattr(data, name)()).save(tmp_path / f"{name}.png")
    return [tmp_path / "chelsea.png", tmp_path / "coffee.png"]


def test_layers_lists_the_names_that_can_be_chosen(output_of, checkpoint):
    lines = output_of("layers", "--model", "test_command_line:Saves", "--checkpoint", checkpoint).splitlines()
    assert [line.split()[0] for line in lines] == list(find_vggs(ThinVGG())["features"])
    assert lines[-1].split() == ["block5_conv3", "features.42"]
    for line in lines:
        assert GradCAM(ThinVGG(), line.split()[0]).layers[0].module is not None
    other = output_of("layers", "--model", f"{__file__}:NoVGG").splitlines()
    assert other == ["0", "1", "2", "3", "4"]


def test_panel_shows_photographs_through_the_layers_of_a_checkpoint(output_of, checkpoint, photographs, tmp_path):
    out = tmp_path / "sheets" / "panel.jpg"
    arguments = ["--checkpoint", checkpoint, "--layers", "block4", "block5", "--classes", "a,b,c", "--size", "64"]
    printed = output_of("panel", *photographs, "--model", "test_command_line:Saves", *arguments, "-o", out)
    assert printed.split() == [str(out), str(out.with_name("panel.block5_conv3.jpg"))]
    for path in printed.split():
        sheet = Image.open(path)
        assert sheet.width > 300 and sheet.height > 200 and np.ptp(np.asarray(sheet)) > 200


@pytest.mark.parametrize(("name", "kind"), [("p.png", "PNG"), ("p.JPEG", "JPEG")])
def test_sheets_are_what_their_names_say(output_of, photographs, tmp_path, name, kind):
    arguments = ["--model", f"{__file__}:NoVGG", "--layers", "1", "--size", "32", "-o", tmp_path / name]
    printed = output_of("panel", photographs[0], *arguments).split()
    assert printed == [str(tmp_path / name), str(tmp_path / name.replace(".", ".1."))]
    for path in printed:
        with Image.open(path) as sheet:
            assert sheet.format == kind


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["panel", "a.jpg", "-o", "panel.pdf"],
            "-o/--out: expected a file that ends in .jpg or .png or .jpeg, but got 'panel.pdf'",
        ),
        (["panel", "a.jpg", "-o", "panel"], "expected a file that ends in .jpg or .png or .jpeg, but got 'panel'"),
        (["report", "run", "-o", "run.pdf"], "-o/--out: expected a file that ends in .html or .htm, but got 'run.pdf'"),
        (["panel", "a.jpg", "--size", "0"], "--size: expected a whole number from 1, but got '0'"),
        (["report", "run", "--epochs", "0"], "--epochs: expected a whole number from 1, but got '0'"),
        (["report", "run", "--epochs", "2.5"], "--epochs: expected a whole number from 1, but got '2.5'"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(error_of, capsys, arguments, message):
    assert error_of(*arguments) == "2" and message in capsys.readouterr().err


def test_panel_finds_the_last_layer_of_other_networks_and_takes_tokens(output_of, photographs, tmp_path):
    common = ["panel", *photographs, "--size", "32", "-o", tmp_path / "panel.jpg"]
    printed = output_of(*common, "--model", f"{__file__}:NoVGG", "--layers", "last")
    assert printed.split()[1] == str(tmp_path / "panel.1.jpg"), "the ReLU, before the pooling"
    layer = "encoder.layers.encoder_layer_0.ln_1"
    printed = output_of(*common, "--model", f"{__file__}:transformer", "--layers", layer, "--reshape", "tokens")
    assert printed.split()[1] == str(tmp_path / f"panel.{layer}.jpg")


def transformer():
    return VisionTransformer(32, 8, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=2)


def test_sheets_show_the_maps_of_the_checkpoints_weights_on_normalised_photographs(checkpoint, photographs):
    model = load_model("test_command_line:Saves", checkpoint)
    assert not model.training
    probe = read_photographs(photographs, (64, 64), IMAGENET)
    upright = torch.from_numpy(np.array(Image.open(photographs[0]).convert("RGB")))
    middle = (upright.float() / 255).mean(dim=(0, 1))
    undone = probe.images[0] * torch.tensor(IMAGENET[1])[:, None, None] + torch.tensor(IMAGENET[0])[:, None, None]
    assert (undone.mean(dim=(1, 2)) - middle).abs().max() < 0.1
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    sheet, last, _ = draw_sheets(model, probe, "block5", 1, Style(60))
    assert last == "block5_conv3"
    other = draw_sheets(model, read_photographs(photographs, (64, 64), None), "block5", 1, Style(60))[0]
    assert np.abs(np.asarray(sheet).astype(int) - np.asarray(other)).max() > 50


@pytest.mark.parametrize(("batch_norm", "by_lightning"), [(True, True), (False, False)])
def test_torchvisions_vggs_are_known_by_their_weights_alone(tmp_path, output_of, batch_norm, by_lightning):
    """The VGG may be an attribute of a LightningModule."""
    whole = VGG(make_layers(VGG11, batch_norm), num_classes=5, init_weights=False)
    # Its large weights are one number each, which makes the file small.
    state = {
        name: torch.full((1,), 0.5).expand(value.shape) if value.numel() > 1e6 else value
        for name, value in whole.state_dict().items()
    }
    content = {"state_dict": {f"net.{name}": value for name, value in state.items()}} if by_lightning else state
    torch.save(content, tmp_path / "weights.pt")
    loaded = load_model(None, tmp_path / "weights.pt")
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    lines = output_of("layers", "--checkpoint", tmp_path / "weights.pt").splitlines()
    assert len(lines) == 8 and lines[0].startswith("block1_conv1")


def test_of_two_vggs_in_a_checkpoint_none_is_taken_by_chance(tmp_path, error_of):
    """A student and its teacher, say."""
    layers = {"features.0.weight": torch.zeros(8, 3, 3, 3), "classifier.6.weight": torch.zeros(2, 4)}
    state = {f"{who}.{name}": value for who in ("teacher", "student") for name, value in layers.items()}
    torch.save({"state_dict": state}, tmp_path / "both.pt")
    said = error_of("layers", "--checkpoint", tmp_path / "both.pt")
    assert "holds those of 2: 'teacher.', 'student.'. Name the model: --model" in said


def test_a_state_dict_goes_into_a_model_that_needs_no_arguments(tmp_path):
    torch.save(ThinVGG().state_dict(), tmp_path / "weights.pt")
    assert isinstance(load_model("test_command_line:Bare", tmp_path / "weights.pt"), Bare)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["layers"], "Expected a model, but got none. Pass --checkpoint FILE, --model MODULE:NAME, or both"),
        (["layers", "--checkpoint", "."], "Expected the file of a checkpoint, but '.' is a folder"),
        (["panel", "."], "Expected the files of photographs, but '.' is a folder"),
        (["layers", "--checkpoint", "nowhere.ckpt"], "Expected a checkpoint, but there is no file 'nowhere.ckpt'"),
        (["layers", "--checkpoint", __file__], f"Expected a checkpoint, but {__file__!r} is none, as torch.save did"),
        (["layers", "--model", "nowhere:Net"], "but 'nowhere:Net' cannot be imported"),
        (["layers", "--model", "test_command_line:Net"], "but 'test_command_line:Net' cannot be imported"),
        (["layers", "--model", "Net"], "but 'Net' lacks one of the two. Add the name of the class after a colon."),
        (["layers", "--model", __file__], f"but {__file__!r} lacks one of the two"),
        (["layers", "--model", "nowhere.py:Net"], "but there is no file 'nowhere.py'. Check the path."),
        (["layers", "--model", "test_command_line:needs_arguments"], "Pass a class that needs no arguments"),
        (["layers", "--model", "test_command_line:dict_of_nothing"], "torch.nn.Module, but it made a dict"),
        (["layers", "--model", "test_command_line:dict_of_nothing", "--checkpoint", "WEIGHTS"], "but it made a dict"),
        (["panel", "nowhere.png", "--model", "test_command_line:Bare"], "Cannot read 'nowhere.png' as an image"),
    ],
)
def test_errors_are_one_line(error_of, tmp_path, arguments, message):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pt")
    line = error_of(*(tmp_path / "weights.pt" if each == "WEIGHTS" else each for each in arguments))
    assert message in line and "\n" not in line.strip()


dict_of_nothing = dict


def test_arguments_that_do_not_fit_are_errors(error_of, checkpoint, photographs, tmp_path, capsys):
    common = ["panel", *photographs, "--checkpoint", checkpoint, "--size", "64"]
    saves = ["--model", "test_command_line:Saves"]
    assert "Name the model: --model" in error_of(*common)
    assert "layers of the model, but got 'block9'" in error_of(*common, *saves, "--layers", "block9")
    assert "Expected 3 class names, one for each class of the model, but got 2" in error_of(
        *common, *saves, "--classes", "a,b"
    )
    for target in ("7", "-1"):
        said = f"Expected --target to be a class from 0 to 2, but got {target}. Correct it."
        assert error_of(*common, *saves, "--target", target).endswith(said)
    too_small = error_of(*common[:-1], "8", *saves)
    assert too_small.startswith("Expected the model to take RGB images of 8 x 8 pixels, but it raised RuntimeError: ")
    assert too_small.endswith("Choose their size with --size, and check that --model is the right one.")
    for size in ("0", "-3", "8.5"):
        assert error_of(*common[:-1], size, *saves) == "2"
        assert f"argument --size: expected a whole number from 1, but got '{size}'" in capsys.readouterr().err
    torch.save([1, 2], tmp_path / "list.pt")
    said = error_of("layers", "--checkpoint", tmp_path / "list.pt")
    assert "list.pt', alone or under one of state_dict, model_state_dict, model, but found none" in said
    misfit = VGG(make_layers(VGG11), num_classes=2, init_weights=False).state_dict()
    torch.save({**misfit, "features.0.weight": torch.zeros(8, 3, 5, 5)}, tmp_path / "misfit.pt")
    assert "to fit torchvision's vgg11, but it does not" in error_of("layers", "--checkpoint", tmp_path / "misfit.pt")
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "other.pt")
    error = error_of("layers", "--model", "test_command_line:Bare", "--checkpoint", tmp_path / "other.pt")
    assert "Expected test_command_line:Bare to make a model with" in error and "but it failed" in error


def test_help_explains_every_option(monkeypatch, capsys):
    for command in ("layers", "panel", "compare", "report"):
        monkeypatch.setattr(sys, "argv", ["gradcam_callback", command, "--help"])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 0 and "--" in capsys.readouterr().out


def test_it_runs_as_a_module(checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gradcam_callback", "layers", "--checkpoint", str(checkpoint)])
    # Otherwise a warning says that the module has been imported before.
    monkeypatch.delitem(sys.modules, "gradcam_callback.__main__")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("gradcam_callback", run_name="__main__")
    assert str(ended.value.code).startswith("Expected the weights of a VGG of torchvision")


@pytest.mark.parametrize("key", ["model_state_dict", "model", None])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "model.module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
def test_weights_are_read_as_other_programs_save_them(tmp_path, key, prefix):
    model = Bare()
    state = {prefix + name: value for name, value in model.state_dict().items()}
    torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / "saved.pt")
    loaded = load_model(f"{__file__}:Bare", tmp_path / "saved.pt")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def compiled_in_part():
    model = Bare()
    model.features = torch.compile(model.features)
    return model


def test_weights_of_a_part_that_was_compiled_fit_with_and_without_it(tmp_path):
    model = compiled_in_part()
    torch.save(model.state_dict(), tmp_path / "saved.pt")
    for name in ("Bare", "compiled_in_part"):
        loaded = load_model(f"{__file__}:{name}", tmp_path / "saved.pt").state_dict()
        assert all(torch.equal(*pair) for pair in zip(model.state_dict().values(), loaded.values(), strict=True))


class Refused:
    """An object that torch.load may not make."""


@pytest.mark.parametrize("text", [b"model: x", b"classes: 3\nnames: a\n", b"{}", b"", b"\x89PNG"])
def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path, text):
    """Letters of a text are commands of a pickle, such as to import."""
    (tmp_path / "config.yaml").write_bytes(text)
    with pytest.raises(ValueError, match=r"Expected a checkpoint, but .*config.yaml' is none, as torch.save did not"):
        load_model(f"{__file__}:Bare", tmp_path / "config.yaml")


def test_safetensors_that_torch_cannot_read_are_told_how_to_be_saved(tmp_path, error_of):
    (tmp_path / "model.safetensors").write_bytes(b"\x80\0\0\0\0\0\0\0{" + b" " * 127)
    said = error_of("layers", "--checkpoint", tmp_path / "model.safetensors")
    assert said.endswith("Save them anew: torch.save(safetensors.torch.load_file(FILE), 'weights.pt').")


def test_what_weights_only_refuses_is_named(tmp_path):
    torch.save({"state_dict": Bare().state_dict(), "config": Refused()}, tmp_path / "saved.pt")
    message = r"it holds an object of .*Refused, whose code would have to run\). If you trust the file, save it again"
    with pytest.raises(ValueError, match=message):
        load_model(f"{__file__}:Bare", tmp_path / "saved.pt")


class Labelled(torch.utils.data.Dataset):
    """Toys of another size, normalised by a mean and a deviation of their own."""

    classes = ["a star", "a heart", "a moon"]

    def __init__(self):
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.2] * 3, [0.1] * 3)])
        self.toys = Toys(18, 1.0, seed=0, size=48)

    def __len__(self):
        return len(self.toys)

    def __getitem__(self, index):
        image, label, _ = self.toys[index]
        return self.transform(transforms.functional.to_pil_image(image)), label


def test_the_checkpoint_says_how_images_are_made(fit, tmp_path, output_of, monkeypatch):
    labelled = Labelled()
    module = Saves(classes=3)
    callback = GradCAMCallback(target_layers="block5", views="layer")
    fit(module, callback, train_data=labelled, val_data=labelled).save_checkpoint(tmp_path / "last.ckpt")
    inputs = read_inputs(tmp_path / "last.ckpt")
    assert inputs.size == (48, 48) and inputs.class_names == labelled.classes
    assert inputs.normalisation == (pytest.approx([0.2] * 3), pytest.approx([0.1] * 3))

    for i, (image, label, _) in enumerate(labelled.toys.items):
        (tmp_path / "probe" / labelled.classes[label]).mkdir(parents=True, exist_ok=True)
        transforms.functional.to_pil_image(image).save(tmp_path / "probe" / labelled.classes[label] / f"{i}.png")
    model = ["--model", f"{__file__}:Saves", "--layers", "block5"]
    out = tmp_path / "focus"
    output_of("compare", tmp_path / "last.ckpt", "--probe", tmp_path / "probe", *model, "--out", out)
    module.eval()
    with torch.no_grad():
        right = [int(module(image[None]).argmax()) == label for image, label in (labelled[i] for i in range(18))]
    (entry,) = json.loads((out / "history.json").read_text())["history"]
    assert entry["gradcam/probe_accuracy"] == pytest.approx(sum(right) / 18)
    photograph = next((tmp_path / "probe" / "a star").iterdir())
    output_of("panel", photograph, "--checkpoint", tmp_path / "last.ckpt", *model, "-o", out / "panel.jpg")
    with Image.open(out / "panel.jpg") as sheet:
        assert sheet.width > 300
    # An option that is given counts.
    args = argparse.Namespace(size=32, normalise="none", classes=None)
    assert read_inputs_for(args, tmp_path / "last.ckpt") == ((32, 32), None, labelled.classes)
    args = argparse.Namespace(size=None, normalise=None, classes=None)
    torch.save({}, tmp_path / "other.ckpt")
    assert read_inputs_for(args, tmp_path / "other.ckpt") == ((224, 224), IMAGENET, None)


def test_images_that_nobody_can_make_again_are_said(fit, tmp_path, toys):
    images = torch.stack([image for image, _, _ in toys.items[:3]]) * 2 - 1
    data = [(image * 2 - 1, label) for image, label, _ in toys.items]
    callback = GradCAMCallback(ProbeSet(images, [0, 1, 2]), "block5", views="layer")
    fit(Saves(classes=3), callback, val_data=data, max_epochs=1).save_checkpoint(tmp_path / "last.ckpt")
    message = f"have values from {images.min():.2g} to 1. Say how they are made: --normalise imagenet"
    with pytest.raises(ValueError, match=message):
        read_inputs(tmp_path / "last.ckpt")
    args = argparse.Namespace(size=None, normalise=None, classes=None)
    with pytest.raises(ValueError, match="Say how they are made"):
        read_inputs_for(args, tmp_path / "last.ckpt")
    args.normalise = "none"
    assert read_inputs_for(args, tmp_path / "last.ckpt").normalisation is None


def test_images_between_0_and_1_need_no_normalisation(fit, tmp_path):
    callback = GradCAMCallback(target_layers="block5", views="layer")
    fit(Saves(classes=3), callback, max_epochs=1).save_checkpoint(tmp_path / "last.ckpt")
    inputs = read_inputs(tmp_path / "last.ckpt")
    assert inputs.size == (48, 48) and inputs.normalisation is None


def test_comparing_into_a_used_folder_is_refused_before_the_work(error_of, checkpoint, tmp_path):
    (tmp_path / "focus").mkdir()
    (tmp_path / "focus" / "history.json").write_text("{}")
    arguments = ["compare", checkpoint, "--probe", tmp_path / "nowhere", "--out", tmp_path / "focus"]
    assert "Expected --out to be a folder without a run, but " in error_of(*arguments)


def test_names_that_a_terminal_cannot_write_end_no_command(monkeypatch, photographs, tmp_path):
    written = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", written)
    out = tmp_path / "\u732b.jpg"
    arguments = ["--model", f"{__file__}:NoVGG", "--layers", "1", "--size", "32", "-o", str(out)]
    monkeypatch.setattr(sys, "argv", ["gradcam_callback", "panel", str(photographs[0]), *arguments])
    main()
    assert out.exists() and written.buffer.getvalue().decode().splitlines()[0] == str(tmp_path / r"\u732b.jpg")


def test_a_sheet_that_is_too_long_for_jpeg_is_written_as_png(monkeypatch, output_of, photographs, tmp_path):
    monkeypatch.setattr("gradcam_callback.__main__.JPEG_LONGEST", 640)
    arguments = ["--model", f"{__file__}:NoVGG", "--layers", "1", "--size", "32", "-o", tmp_path / "p.jpg"]
    printed = output_of("panel", *photographs, *arguments).split()
    assert printed == [str(tmp_path / "p.png"), str(tmp_path / "p.1.jpg")]
    with Image.open(tmp_path / "p.png") as sheet:
        assert sheet.format == "PNG" and max(sheet.size) > 640


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-m", "gradcam_callback", "layers", "--model", "torchvision.models:squeezenet1_1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # before the first line, which is the worst case
        said = process.stderr.read().decode()
        assert process.wait(60) == 0 and said == ""
