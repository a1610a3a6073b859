"""A training that nobody watched is looked back at as if it had been."""

import re
import sys
from pathlib import Path

import compare_checkpoints
import pytest
import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from PIL import Image
from terminal import on_a_terminal
from test_suspicion import AlwaysTheSame, ReadsTheGround
from torchvision import transforms
from toys import CLASSES, Toys

from gradcam_callback import (
    GradCAM,
    GradCAMCallback,
    GradCAMWarning,
    ProbeSet,
    find_checkpoints,
    strength,
    watch_checkpoints,
)
from gradcam_callback.__main__ import main
from gradcam_callback.offline import Checkpoint, format_table
from gradcam_callback.offline.logged_run import read_runs
from gradcam_callback.run import tags


class Saves(ThinVGG):
    def __init__(self, classes):
        super().__init__(classes)
        self.save_hyperparameters()


def restored(path):
    return Saves.load_from_checkpoint(path, weights_only=True)


@pytest.fixture
def probe(toys):
    return ProbeSet.from_dataset(toys, per_class=2)


@pytest.fixture
def watched(tmp_path, fit, probe):
    """Train three epochs with the callback, and keep a checkpoint of each."""
    callback = GradCAMCallback(probe, ["block4", "block5"], save_dir=tmp_path / "watched")
    keep = pl.callbacks.ModelCheckpoint(tmp_path / "kept", "{epoch}", save_top_k=-1, save_last=True)
    pl.seed_everything(0, verbose=False)  # some networks of chance have maps that only rounding keeps from being empty
    fit(Saves(3), callback, keep, max_epochs=3, enable_checkpointing=True)
    return callback


def test_looking_back_gives_what_the_callback_would_have_logged(watched, probe, tmp_path, events):
    found = find_checkpoints([tmp_path / "kept"])
    assert [(one.path.name, one.epoch, one.step) for one in found] == [
        (f"epoch={epoch}.ckpt", epoch, 3 * (epoch + 1)) for epoch in range(3)
    ], "18 images in batches of 6, and last.ckpt, which is the third again, once"
    out = tmp_path / "afterwards"
    looks = watch_checkpoints(found, restored, probe, out, target_layers=["block4", "block5"])
    # The training asks these by turns after its first entry, and looking back asks all of them.
    by_turns = {*tags.SWAP_SCALARS, *tags.CONTROL_SCALARS, tags.BACKGROUND_ACCURACY, tags.FOREGROUND_ACCURACY}
    for entry, look in zip(watched.history, looks, strict=True):
        assert entry["epoch"] == look.checkpoint.epoch and entry.keys() == look.entry.keys()
        assert look.checkpoint.step == entry["step"] + 1, "Lightning logs before it counts the step"
        other = set() if entry is watched.history[0] else {f"gradcam/{name}" for name in by_turns}
        for name in entry.keys() - {"step"} - other:
            assert look.entry[name] == pytest.approx(entry[name], abs=1e-6), name
        assert look.layer == "block5_conv3" and look.verdict.swap_accuracy == look.entry["gradcam/swap_accuracy"]
    logged = events(out)
    assert [event.step for event in logged.Scalars("gradcam/lift/block5_conv3")] == [3, 6, 9]
    assert set(logged.Tags()["scalars"]) == looks[-1].entry.keys() - {"step"}
    theirs, ours = (
        {path.relative_to(root).parent for path in root.glob("**/*.*") if path.suffix in (".jpg", ".gif")}
        for root in (tmp_path / "watched", out)
    )
    assert ours == theirs and len(ours) == 6 + 2, "a panel of each image, overview and counterfactuals"
    assert {f"gradcam/{path}" for path in map(str, ours)} == set(logged.Tags()["images"])
    for place, look in zip(sorted((tmp_path / "watched" / "probe" / "heart-1").glob("*.jpg")), looks, strict=True):
        assert place.read_bytes() == (out / "probe" / "heart-1" / f"{look.checkpoint.step:08d}.jpg").read_bytes()


def test_the_options_of_gradcam_reach_the_maps(tmp_path, probe):
    module = ThinVGG(3)
    cam = GradCAM(module, "block5_conv3", method="layercam", precision="bf16", output_transform=lambda y: 2 * y)
    maps = cam(probe.images, probe.labels).maps["block5_conv3"]
    for layers in ("block5_conv3", module.features[-2]):
        out = tmp_path / type(layers).__name__
        (result,) = watch_checkpoints(
            [Checkpoint(Path("a"), 0, 0)], lambda path: module, probe, out, target_layers=layers, method="layercam",
            precision="bf16", chunk_size=2, reuse_frozen=False, output_transform=lambda y: 2 * y,
        )  # fmt: skip
        logged = result.entry[f"gradcam/strength/{result.layer}"]
        assert logged == pytest.approx(float(strength(maps).mean()), rel=1e-2)


def test_other_views_are_written_if_they_are_asked_for(tmp_path, probe):
    out, checkpoints = tmp_path / "out", [Checkpoint(Path("a"), 0, 0), Checkpoint(Path("b"), 1, 1)]
    views = ["layer", "animation"]
    watch_checkpoints(checkpoints, lambda path: ThinVGG(3), probe, out, target_layers="block5_conv3", views=views)
    found = {str(path.relative_to(out).parent) for path in out.rglob("*.*") if path.suffix in (".jpg", ".gif")}
    assert found == {"layer/block5_conv3", *(f"animation/{name}" for name in probe.names)}
    with pytest.raises(ValueError, match="Expected `views` to be 'all' or some of 'overview', .* but got 'layers'"):
        watch_checkpoints(checkpoints, lambda path: ThinVGG(3), probe, tmp_path / "other", views="layers")
    assert not (tmp_path / "other").exists()


def test_each_verdict_is_of_its_checkpoint_alone(tmp_path, probe, toys):
    """A training would need two epochs in a row."""
    made = {Path("a"): AlwaysTheSame(), Path("b"): ReadsTheGround(toys)}
    checkpoints = [Checkpoint(path, epoch, epoch) for epoch, path in enumerate(made)]
    looks = watch_checkpoints(checkpoints, made.__getitem__, probe, tmp_path / "out", target_layers="block5_conv3")
    assert [look.verdict.suspected for look in looks] == [False, True]
    assert compare_checkpoints.best([look.verdict for look in looks]) == 0


def test_state_dicts_are_counted_in_the_order_of_the_numbers_in_their_names(tmp_path):
    for name in ("epoch10.pt", "epoch9.pt", "deeper/epoch1.pth", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        torch.save({"weight": torch.zeros(1)}, tmp_path / name)
    found = find_checkpoints([tmp_path])
    assert [one.path.name for one in found] == ["epoch1.pth", "epoch9.pt", "epoch10.pt"]
    assert [(one.epoch, one.step) for one in found] == [(0, 0), (1, 1), (2, 2)]
    assert len(find_checkpoints([tmp_path, tmp_path / "epoch9.pt"])) == 3, "each file once"
    for path in (tmp_path, str(tmp_path)):
        assert find_checkpoints(path) == found
    (one,) = find_checkpoints(tmp_path / "epoch9.pt")
    assert one.path.name == "epoch9.pt"


def test_signs_that_only_look_like_digits_are_no_numbers(tmp_path):
    for name in ("epoch1²2.pt", "epoch١٢.pt", "epoch2.pt"):
        torch.save({"weight": torch.zeros(1)}, tmp_path / name)
    assert [one.path.name for one in find_checkpoints(tmp_path)] == ["epoch1²2.pt", "epoch2.pt", "epoch١٢.pt"]


@pytest.mark.parametrize("progress", [{}, {"epoch": 0, "pytorch-lightning_version": "2.6"}])
def test_folders_that_may_be_of_two_trainings_are_named(tmp_path, progress):
    for version in (0, 1):
        for step in (3 + version, 13 + version):
            file = tmp_path / f"version_{version}" / "checkpoints" / f"val/loss={step}.ckpt"
            file.parent.mkdir(exist_ok=True, parents=True)
            torch.save({**progress, "global_step": step, "state_dict": {"weight": torch.rand(3)}}, file)
        assert len(find_checkpoints([tmp_path / f"version_{version}"])) == 2, "one training has one folder"
    folders = ", ".join(str(tmp_path / f"version_{version}" / "checkpoints") for version in (0, 1))
    with pytest.warns(GradCAMWarning, match=re.escape(f"in 2 folders are taken for those of one training: {folders}.")):
        assert len(find_checkpoints([tmp_path])) == 4


def test_files_of_two_trainings_are_not_taken_for_copies(tmp_path):
    weights = {"weight": torch.tensor([0.0, 1.0, torch.nan]), "count": torch.tensor(3)}
    of_lightning = {"epoch": 0, "global_step": 3, "pytorch-lightning_version": "2.6"}
    for name, state in (
        ("a", weights),
        ("last", weights),
        ("b", {"weight": torch.ones(3)}),
        ("c", {"bias": torch.ones(3)}),
    ):
        torch.save({**of_lightning, "state_dict": state}, tmp_path / f"{name}.ckpt")
    same, other, named_otherwise = (tmp_path / f"{name}.ckpt" for name in ("last", "b", "c"))
    assert [found.path for found in find_checkpoints([tmp_path / "a.ckpt", same])] == [tmp_path / "a.ckpt"]
    for file in (other, named_otherwise):
        with pytest.raises(
            ValueError, match=rf"a\.ckpt' and .*{file.name}' hold different weights at step 3\. Look at"
        ):
            find_checkpoints([tmp_path / "a.ckpt", file])


def test_old_files_and_those_of_other_programs_say_no_step(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, tmp_path / "other.pt")
    assert [one.path.stem for one in find_checkpoints([tmp_path])] == ["old", "other"]


def test_what_cannot_be_looked_back_at_is_said(tmp_path, probe):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "plain.pt")
    torch.save({"state_dict": {}, "epoch": 1, "global_step": 9}, tmp_path / "lightning.ckpt")
    with pytest.raises(ValueError, match=r"alone or state dicts alone, but got both: .*plain.pt'"):
        find_checkpoints([tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"Expected checkpoints \(.ckpt, .pt, .pth\) in '.*empty', but found none"):
        find_checkpoints([tmp_path / "empty"])
    with pytest.raises(ValueError, match="Expected a checkpoint, but there is no file 'nowhere.pt'"):
        find_checkpoints([Path("nowhere.pt")])
    with pytest.raises(ValueError, match="Expected one or more checkpoints, but got none"):
        watch_checkpoints([], restored, probe, tmp_path / "out")
    one = [Checkpoint(Path("a"), 0, 0)]
    with pytest.raises(ValueError, match=r"from 0 to 1 \(the model returns 2 logits\), but got \[2\]"):
        watch_checkpoints(one, lambda path: ThinVGG(2), probe, tmp_path / "out", target_layers="block5_conv3")
    assert not (tmp_path / "out").exists(), "what does not fit leaves nothing behind"
    watch_checkpoints(one, lambda path: ThinVGG(3), probe, tmp_path / "out", target_layers="block5_conv3")
    with pytest.raises(ValueError, match="holds another run"):
        watch_checkpoints(one, lambda path: ThinVGG(3), probe, tmp_path / "out", target_layers="block5_conv3")
    with pytest.raises(OSError, match="No space left|File name too long"):
        watch_checkpoints(one, lambda path: ThinVGG(3), probe, tmp_path / ("x" * 300), target_layers="block5_conv3")


@pytest.fixture
def folder(tmp_path):
    """Two photographs of each class, with masks, and one without."""
    for i, (image, label, mask) in enumerate(Toys(6, 1.0, seed=2, size=64).items):
        place = tmp_path / "probe" / CLASSES[label]
        place.mkdir(parents=True, exist_ok=True)
        transforms.functional.to_pil_image(image).save(place / f"{i}.png")
        Image.fromarray(mask.numpy()).save(place / f"{i}.mask.png")
    return tmp_path / "probe"


def test_the_command_compares_and_ends_with_table_verdict_and_page(watched, folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "focus"
    model = ["--model", f"{__file__}:Saves", "--layers", "block5", "--size", "64", "--normalise", "none"]
    arguments = ["compare", tmp_path / "kept", "--probe", folder, "--classes", ",".join(CLASSES), *model, "--out", out]
    monkeypatch.setattr(sys, "argv", ["gradcam_callback", *map(str, arguments)])
    main()
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    headings = ["accuracy", "own backgrounds", "other backgrounds", "lift at block5_conv3", "checkpoint"]
    assert lines[0].split("   ")[-5:] == headings
    assert [line.split()[-1] for line in lines[1:4]] == [str(tmp_path / "kept" / f"epoch={n}.ckpt") for n in range(3)]
    assert "measured on 6 images" in printed and f"tensorboard --logdir {out}" in printed
    page = (out / "focus.html").read_text()
    assert page.count("heart-") >= 2


def test_the_command_takes_the_views_the_target_and_the_colours(watched, folder, tmp_path, monkeypatch, capsys):
    model = ["--model", f"{__file__}:Saves", "--layers", "block5_conv3", "--size", "64", "--normalise", "none"]
    arguments = ["compare", tmp_path / "kept", "--probe", folder, "--classes", ",".join(CLASSES), *model]

    def compare(out, *options):
        command = ["gradcam_callback", *arguments, "--out", tmp_path / out, *options]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        main()
        return tmp_path / out, read_runs(tmp_path / out)[0]

    usual, usual_run = compare("usual")
    layers, layers_run = compare("layers", "--views", "layer", "evolution", "--colormap", "jet")
    everything, moon = compare("everything", "--views", "all", "--target", CLASSES.index("moon"))
    images = {place: {path.name for path in place.iterdir() if path.is_dir()} for place in (usual, layers, everything)}
    assert images[usual] == {"overview", "probe", "counterfactuals", "maps", "focus"}
    assert images[layers] == {"layer", "evolution", "maps", "focus"}
    assert images[everything] == images[usual] | images[layers] | {"animation", "depth_profile"}
    assert layers_run.start["colours"] != usual_run.start["colours"]
    assert layers_run.maps == usual_run.maps != moon.maps
    explained = {prediction[3] for entry in moon.entries.values() for prediction in entry["predictions"]}
    assert explained == {"moon"}
    with pytest.raises(SystemExit):
        compare("wrong", "--target", "moon")
    assert "expected label, predicted, contrast or the index of a class, but got 'moon'" in capsys.readouterr().err


def test_the_command_masks_automatically(watched, folder, tmp_path, monkeypatch, capsys):
    """Check the call of `ProbeSet.from_folder` alone, as the network of the masks is large."""
    told = {}

    def read(*_, **options):
        told.update(options)
        raise ValueError("enough is seen")

    monkeypatch.setattr(ProbeSet, "from_folder", read)
    model = ["--model", f"{__file__}:Saves", "--size", "64", "--normalise", "none"]
    arguments = ["compare", tmp_path / "kept", "--probe", folder, "--masks", "auto", *model, "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["gradcam_callback", *map(str, arguments)])
    with pytest.raises(SystemExit, match="enough is seen"):
        main()
    assert told["masks"] == "auto"


def test_the_table_shows_what_there_is(tmp_path, toys):
    probe = ProbeSet(torch.stack([image for image, _, _ in toys.items[:4]]), toys.targets[:4])
    one = [Checkpoint(Path("a"), 3, 40)]
    looks = watch_checkpoints(one, lambda path: ThinVGG(3), probe, tmp_path / "out", target_layers="block5_conv3")
    assert looks[0].verdict.basis == "frame"
    heading, row = format_table(looks).splitlines()
    assert heading.split("   ")[-4:] == ["accuracy", "own frames", "other frames", "checkpoint"]
    names = ("probe_accuracy", "frame_control_accuracy", "frame_accuracy")
    shares = (looks[0].entry[f"gradcam/{name}"] for name in names)
    assert row.split() == ["3", "40", *(word for share in shares for word in (f"{100 * share:.0f}", "%")), "a"]


def test_long_work_shows_its_progress_to_a_person_and_nothing_to_a_file(folder, tmp_path, monkeypatch, capfd):
    layers = "nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)"
    (tmp_path / "net.py").write_text(f"from torch import nn\n\n\ndef make():\n    return nn.Sequential({layers})\n")
    images = sorted(folder.glob("*/?.png"))
    arguments = ["panel", *map(str, images), "--size", "64", "--model", "net.py:make", "--layers", "1"]
    printed, seen = on_a_terminal([sys.executable, "-m", "gradcam_callback", *arguments], tmp_path)
    for work in ("photographs", "maps", "panels"):
        assert re.search(rf"{work}: 100%.* 6/6", seen), seen
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gradcam_callback", *arguments])
    main()
    quiet = capfd.readouterr()
    assert quiet.err == "" and quiet.out.encode() == printed


def test_a_folder_that_cannot_be_written_to_is_an_error_and_no_warning(watched, probe, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("gradcam_callback.writers.folder.FolderWriter.write_image", fail)
    found = find_checkpoints([tmp_path / "kept"])[:1]
    with pytest.raises(OSError, match="No space left"):
        watch_checkpoints(found, restored, probe, tmp_path / "looked", target_layers="block5_conv3")
