"""Broken files, odd names and links in a probe folder are read correctly, or refused with their name."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile
from probe_folder import HEIGHT, WIDTH, colours, pixels, read, refuses, square, write_image

from gradcam_callback import ProbeSet

FORMATS = ("bmp", "jpg", "png", "tif", "webp")


# Broken files.


@pytest.mark.parametrize("suffix", FORMATS)
def test_truncated_files_are_refused_wherever_they_end(lion, suffix):
    path = lion / f"broken.{suffix}"
    Image.fromarray(colours()).save(path)
    whole, complete = path.read_bytes(), pixels(lion)
    refused = 0
    for end in [*range(0, 40), *range(40, len(whole), max(1, len(whole) // 60))]:
        path.write_bytes(whole[:end])
        try:
            assert np.array_equal(pixels(lion), complete), f"{end} of {len(whole)} bytes"
        except ValueError as error:
            assert "broken." in str(error) and "Repair or remove the file" in str(error)
            refused += 1
    assert refused > 80, "a file may be read if only its end mark is missing"


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("content", [b"", b"Not an image, but a text.\n" * 9, bytes(range(256)) * 4])
def test_files_that_are_no_images_are_refused(lion, suffix, content):
    (lion / f"broken.{suffix}").write_bytes(content)
    refuses(lion, f"broken.{suffix}' as an image", "Cannot read", "Repair or remove the file")


@pytest.mark.parametrize("suffix", FORMATS)
def test_bytes_that_are_overwritten_give_pixels_or_a_refusal(lion, suffix):
    """Pillow raises errors of many kinds for broken headers, chunks and tags."""
    path, chance = lion / f"broken.{suffix}", np.random.default_rng(0)
    Image.fromarray(colours()).save(path)
    whole = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    refused = 0
    for place in range(150):
        changed = whole.copy()
        # Mostly in the header, where a byte decides most.
        start = place if place < 100 else int(chance.integers(len(whole)))
        changed[start : start + int(chance.integers(1, 5))] = chance.integers(256)
        path.write_bytes(changed.tobytes())
        try:
            assert np.isfinite(pixels(lion)).all()
        except ValueError as error:
            assert "broken." in str(error)
            refused += 1
    assert refused > 10


def test_files_that_are_cut_are_read_if_the_user_has_asked_pillow_to(lion, monkeypatch):
    path = lion / "a.bmp"
    Image.fromarray(colours()).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert np.array_equal(pixels(lion)[-8:], colours()[-8:]), "BMP stores the last row first"


@pytest.mark.parametrize("limit", [100, 300])
def test_a_huge_image_is_refused_with_what_to_do(lion, monkeypatch, limit):
    """Pillow warns above its limit and raises an error above twice the limit. Both are refused here."""
    write_image(lion, "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        refuses(
            lion,
            "huge.png', since it is larger than Pillow allows",
            f"{WIDTH * HEIGHT} pixels",
            "PIL.Image.MAX_IMAGE_PIXELS",
        )
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert np.array_equal(pixels(lion), colours())


# Folders and names.


@pytest.mark.parametrize("name", ["a.JPG", "A.Png", "a.TIFF", "a.WebP"])
def test_suffixes_in_capitals_with_masks_that_have_them_too(lion, name):
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 120, np.uint8)).save(lion / name)
    Image.fromarray(square()).save(lion / f"{name[0]}.MASK.PNG")
    probe = read(lion)
    assert np.abs(probe.display_images().astype(int) - 120).max() <= 1
    assert np.array_equal(probe.masks[0].numpy(), square())


@pytest.mark.parametrize(
    "name",
    [
        "ライオン", "\N{LION FACE}\N{ZERO WIDTH JOINER}\N{BLACK HEART SUIT}", "a b  c", "100%", "%2F", "a'b\"c", "-rf",
        "x" * 200 + "-" + "x" * 50, "獅" * 81, "a.tar", "con", "a\nb", "*?<>|:",
    ],
)  # fmt: skip
def test_names_in_any_script_and_of_any_length(tmp_path, name):
    folder = tmp_path / name[:200]
    folder.mkdir()
    write_image(folder, f"{name}.png")
    if len(f"{name}.mask.png".encode()) <= 255:
        Image.fromarray(square()).save(folder / f"{name}.mask.png")
    probe = ProbeSet.from_folder(tmp_path)
    # The class once: the file's name begins with it.
    assert probe.names == [name] and probe.class_names == [name[:200]]
    assert np.array_equal(probe.display_images()[0], colours())
    assert probe.has_mask.all() == (len(f"{name}.mask.png".encode()) <= 255)


def test_names_that_are_no_utf8_are_refused(lion):
    write_image(lion, os.fsdecode(b"l\xf6we.png"))
    refuses(lion, "Expected names in UTF-8", r"l\udcf6we.png'. Rename it")


def test_files_of_the_system_are_ignored(lion):
    write_image(lion)
    for name in ("Thumbs.db", ".DS_Store", "._a.png", ".hidden.png", "desktop.ini", "notes.txt", "b.json", "a"):
        (lion / name).write_bytes(b"\0\5\26\7 no image")
        (lion.parent / name).write_bytes(b"\0\5\26\7 no image")
    (lion.parent / ".ipynb_checkpoints").mkdir()
    (lion / "more").mkdir()
    probe = read(lion)
    assert probe.names == ["lion-a"] and probe.class_names == ["lion"]
    assert np.array_equal(probe.display_images()[0], colours())


def test_folders_and_pipes_with_an_images_name_are_refused(lion):
    write_image(lion)
    (lion / "x.jpg").mkdir()
    refuses(lion, "x.jpg' as an image", "Cannot read", "Repair or remove the file")
    (lion / "x.jpg").rmdir()
    os.mkfifo(lion / "x.jpg")
    refuses(lion, "x.jpg' as an image", "Cannot read")


def test_a_class_may_be_called_like_an_image(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    write_image(tmp_path / "x.jpg")
    assert ProbeSet.from_folder(tmp_path).class_names == ["x.jpg"]


def test_links_are_followed_and_broken_links_refused(lion, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_image(elsewhere)
    (lion / "b.png").symlink_to(elsewhere / "a.png")
    (lion.parent / "ostrich").symlink_to(elsewhere)
    probe = read(lion)
    assert probe.names == ["lion-b", "ostrich-a"] and probe.labels.tolist() == [0, 1]
    assert all(np.array_equal(image, colours()) for image in probe.display_images())
    (lion / "c.png").symlink_to(elsewhere / "nowhere.png")
    refuses(lion, "c.png' as an image", "Cannot read", "broken link")
    (lion / "c.png").unlink()
    (lion / "c.png").symlink_to(lion / "d.png")
    (lion / "d.png").symlink_to(lion / "c.png")
    refuses(lion, "c.png' as an image", "Cannot read")


@pytest.mark.parametrize("kind", ["dangling", "each other", "itself", "parent", "above"])
def test_classes_that_are_links_to_nowhere_or_in_a_loop_are_refused(lion, kind):
    """If they were ignored, the classes after them would have other indices than in training."""
    root = lion.parent
    write_image(lion)
    targets = {"dangling": "nowhere", "each other": "bear", "itself": "ape", "parent": ".", "above": ".."}
    (root / "ape").symlink_to(targets[kind])
    if kind == "each other":
        (root / "bear").symlink_to("ape")
    refuses(lion, str(root / "ape"), "emove ")


def test_a_link_to_its_own_parent_within_a_class_is_no_image(lion):
    write_image(lion)
    (lion / "loop").symlink_to(lion)
    (lion / "up").symlink_to(lion.parent)
    assert read(lion).names == ["lion-a"]


@pytest.mark.parametrize("locked", ["root", "class", "image", "mask"])
def test_paths_without_permission_are_refused(reachable, monkeypatch, locked):
    lion = reachable / "probe" / "lion"
    lion.mkdir(parents=True)
    write_image(lion)
    Image.fromarray(square()).save(lion / "a.mask.png")
    monkeypatch.chdir(lion.parent)
    path = {"root": ".", "class": "lion", "image": "lion/a.png", "mask": "lion/a.mask.png"}[locked]
    os.chmod(path, 0o111 if locked == "root" else 0)
    administrator = os.geteuid() == 0
    if administrator:  # An administrator may read everything, so act as another user.
        os.seteuid(65534)
    try:
        with pytest.raises(ValueError, match="Permission denied") as caught:
            ProbeSet.from_folder(".")
    finally:
        if administrator:
            os.seteuid(0)
        os.chmod(path, 0o755)
    assert repr(path) in str(caught.value)


def test_a_file_in_place_of_the_folder_and_no_folder_at_all(lion):
    path = write_image(lion)
    with pytest.raises(
        FileNotFoundError, match="Expected `folder` to hold <class>/<image>, but .*a.png' is not a folder"
    ):
        ProbeSet.from_folder(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ProbeSet.from_folder(lion / "b")
