"""Annotations beside a photograph mark the same pixels as the program that wrote them, or are refused by name."""

import base64
import io
import itertools
import json
import os
import sys
import unicodedata
from functools import partial

import numpy as np
import pytest
import torch
from boxes import HEIGHT, WIDTH, box, overlap
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from torchvision import transforms

from gradcam_callback import GradCAMWarning, ProbeSet
from gradcam_callback.probes.labelme import read_labelme
from gradcam_callback.probes.masks import from_boxes
from gradcam_callback.probes.outlines import fill_circle, fill_polygon
from gradcam_callback.probes.voc import read_voc
from gradcam_callback.probes.yolo import read_yolo

OTHER = {"NFC": "NFD", "NFD": "NFC"}
SQUARE = [(10, 5), (40, 5), (40, 30), (10, 30)]


@pytest.fixture
def lion(tmp_path):
    """The folder of the class, with one photograph of 60 x 40 pixels."""
    (tmp_path / "mountain_lion").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT), "olive").save(tmp_path / "mountain_lion" / "a.jpg")
    return tmp_path / "mountain_lion"


def read(lion, transform=None, **options):
    return ProbeSet.from_folder(lion.parent, transform, **options)


def mask_of(lion):
    probe = read(lion)
    return None if probe.masks is None else probe.masks[0]


def refuses(lion, *words, **options):
    with pytest.raises(ValueError) as caught:
        read(lion, **options)
    assert type(caught.value) is ValueError
    for word in words:
        assert word in str(caught.value)


# Outlines.


def test_polygons_hold_the_pixels_whose_centres_lie_inside():
    square = fill_polygon([(1, 2), (3, 2), (3, 5), (1, 5)], 6, 5)
    assert torch.equal(square, from_boxes([1, 2, 3, 5], 6, 5)) and square.sum() == 6
    assert torch.equal(fill_polygon([(3, 5), (3, 2), (1, 2), (1, 5)], 6, 5), square), "in any direction"
    assert torch.equal(fill_polygon([(-9, -9), (99, -9), (99, 99), (-9, 99)], 6, 5), torch.ones(6, 5).bool())
    triangle = fill_polygon([(0, 0), (4, 0), (0, 4)], 4, 4)
    assert triangle.int().tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    eight = fill_polygon([(0, 0), (8, 0), (8, 8), (0, 8), (0, 0), (2, 2), (2, 6), (6, 6), (6, 2), (2, 2)], 8, 8)
    assert eight.sum() == 64 - 16, "a hole, joined to the outline by a line"


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
@pytest.mark.parametrize("seed", range(5))
def test_polygons_are_filled_as_pycocotools_and_pillow_fill_them(seed):
    chance = np.random.default_rng(seed)
    angles = np.sort(chance.uniform(0, 2 * np.pi, 12))
    points = np.stack([100 + np.cos(angles) * chance.uniform(30, 90, 12), 80 + np.sin(angles) * 60], axis=1)
    filled = fill_polygon(points.tolist(), 160, 200)
    (runs,) = coco_mask.frPyObjects([points.ravel().tolist()], 160, 200)
    assert overlap(filled, torch.from_numpy(coco_mask.decode(runs)).bool()) > 0.985
    # Pillow draws eight times as large, where its rounding to whole pixels hardly counts.
    large = Image.new("1", (1600, 1280))
    ImageDraw.Draw(large).polygon([tuple(point) for point in points * 8], fill=1)
    shares = torch.from_numpy(np.array(large)).float().view(160, 8, 200, 8).mean(dim=(1, 3))
    assert torch.equal(filled[shares > 0.9], torch.ones(int((shares > 0.9).sum())).bool())
    assert not filled[shares < 0.1].any()


def test_a_circle_has_its_area():
    circle = fill_circle((30.0, 20.0), 15, HEIGHT, WIDTH)
    assert abs(int(circle.sum()) - np.pi * 15**2) < 10 and circle[20, 44] and not circle[20, 46]


# labelme.


def shape(kind, points, label="mountain_lion", **more):
    return {
        "label": label, "points": [list(point) for point in points], "group_id": None, "description": "",
        "shape_type": kind, "flags": {}, "mask": None,
    } | more  # fmt: skip


def write_labelme(lion, *shapes, **more):
    """Write a file as labelme 5 does."""
    content = {
        "version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": "a.jpg", "imageData": None,
        "imageHeight": HEIGHT, "imageWidth": WIDTH,
    } | more  # fmt: skip
    (lion / "a.json").write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")


def png(mask):
    stream = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode()


def test_labelmes_shapes_mark_the_object(lion):
    cases = {
        "polygon": (shape("polygon", SQUARE), box(10, 5, 40, 30)),
        "old polygon": (shape(None, SQUARE), box(10, 5, 40, 30)),
        "rectangle": (shape("rectangle", [(40, 30), (10, 5)]), box(10, 5, 40, 30)),
        "four corners": (shape("rectangle", SQUARE), box(10, 5, 40, 30)),
        "circle": (shape("circle", [(30, 20), (30, 32)]), fill_circle((30, 20), 12, HEIGHT, WIDTH)),
        "turned": (shape("oriented_rectangle", SQUARE), box(10, 5, 40, 30)),
        "painted": (shape("mask", [(10, 5), (39, 29)], mask=png(np.ones((25, 30)))), box(10, 5, 40, 30)),
        "painted, over the edge": (shape("mask", [(-5, 30)], mask=png(np.full((20, 15), 255))), box(0, 30, 10, 40)),
    }
    for name, (one, expected) in cases.items():
        write_labelme(lion, one)
        assert torch.equal(mask_of(lion), expected), name
        assert read(lion).has_box_masks == (name in ("rectangle", "four corners")), name


def test_shapes_without_an_inside_are_ignored_and_the_kept_labels_of_labelme_obeyed(lion):
    lines = [shape(kind, SQUARE[:2]) for kind in ("line", "linestrip", "points")] + [shape("point", SQUARE[:1])]
    write_labelme(lion, *lines)
    assert mask_of(lion) is None
    hole = shape("polygon", [(20, 10), (30, 10), (30, 20), (20, 20)], "_background_")
    write_labelme(lion, hole, shape("polygon", SQUARE), *lines, shape("rectangle", [(0, 0), (60, 40)], "__ignore__"))
    assert torch.equal(mask_of(lion), box(10, 5, 40, 30) & ~box(20, 10, 30, 20))
    write_labelme(lion)
    assert mask_of(lion) is None, "an image without an object"


def test_objects_of_the_class_count_or_all_if_none_has_its_name(lion):
    other = shape("rectangle", [(50, 30), (58, 38)], "dog")
    write_labelme(lion, shape("polygon", SQUARE, "Mountain Lion"), other)
    assert torch.equal(mask_of(lion), box(10, 5, 40, 30)) and not read(lion).has_box_masks
    write_labelme(lion, shape("polygon", SQUARE, "puma"), other)
    with pytest.warns(GradCAMWarning, match=r"so all of them count: '.*a.json' with 'dog', 'puma'. If some are of an"):
        probe = read(lion)
    assert torch.equal(probe.masks[0], box(10, 5, 40, 30) | box(50, 30, 58, 38)) and probe.has_box_masks


def test_annotations_without_an_object_of_the_class_are_told_at_once(lion):
    """Their objects all count. A name that all objects of several classes have tells nothing."""
    Image.new("RGB", (WIDTH, HEIGHT)).save(lion / "b.jpg")
    write_yolo(lion, "0 0.5 0.5 0.5 0.5")
    (lion / "classes.txt").write_text("puma")
    (lion / "b.xml").write_text(voc(("puma", 1, 1, 9, 9)))
    with pytest.warns(GradCAMWarning, match=r"none of the objects .*a.txt' with 'puma'; '.*b.xml' with 'puma'") as told:
        assert read(lion).has_mask.all()
    assert len(told) == 1
    (lion.parent / "dog").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(lion.parent / "dog" / "c.jpg")
    (lion.parent / "dog" / "c.xml").write_text(voc(("object", 1, 1, 9, 9)))
    with pytest.warns(GradCAMWarning, match=r"c.xml' with 'object'; .*b.xml' with 'puma'"):
        read(lion)
    (lion.parent / "dog" / "c.xml").write_text(voc(("puma", 1, 1, 9, 9)))
    assert read(lion).has_mask.all(), "all are called a puma"
    (lion / "classes.txt").unlink()
    (lion / "b.xml").unlink()
    (lion.parent / "dog" / "c.xml").unlink()
    assert read(lion).has_mask.sum() == 1, "without names"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_that_look_alike_are_the_same(tmp_path, form):
    """Accents in one character or in two, as macOS writes them, and the mark of an encoding at the start of a file."""
    one, other = (partial(unicodedata.normalize, name) for name in (form, OTHER[form]))
    lion = tmp_path / one("Löwe")
    lion.mkdir()
    for name, size in {"é-json": 1, "é-txt": 2, "é-xml": 3, "ééééééé": 4}.items():
        Image.new("RGB", (WIDTH, HEIGHT), (9 * size, 0, 0)).save(lion / f"{one(name)}.jpg")
    write_labelme(lion, shape("polygon", SQUARE, other("löwe")), shape("rectangle", [(50, 30), (58, 38)], "Blatt"))
    (lion / "a.json").rename(lion / f"{other('é-json')}.json")
    (lion / f"{other('é-txt')}.txt").write_text("1 0.5 0.5 0.5 0.5\n0 0.1 0.1 0.1 0.1\n")
    (tmp_path / "classes.txt").write_text(f"Blatt\n{other('Löwe')}\n", encoding="utf-8-sig")
    (lion / f"{other('é-xml')}.xml").write_text(voc((other("Löwe"), 11, 6, 40, 30), ("Blatt", 50, 30, 58, 38)))
    drawn = Image.new("1", (WIDTH, HEIGHT))
    drawn.paste(1, (10, 5, 40, 30))
    drawn.save(lion / f"{other('ééééééé')}_mask.png")
    probe = ProbeSet.from_folder(tmp_path, class_names=[other("Löwe")])
    expected = [box(10, 5, 40, 30), box(15, 10, 45, 30), box(10, 5, 40, 30), box(10, 5, 40, 30)]
    assert len(probe) == 4 and torch.equal(probe.masks, torch.stack(expected))
    write_labelme(lion, shape("polygon", SQUARE, None))
    (lion / "a.json").rename(lion / f"{other('é-json')}.json")
    names = f"{other('Löwe')}\nBlatt\n"
    (lion / f"{other('é-txt')}.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.1 0.1 0.1 0.1\n")
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "classes.txt").write_text(names, encoding=encoding)
        assert torch.equal(read(lion).masks, torch.stack(expected)), "also the first name of the file"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ["JSON, as labelme writes it, in '", "JSONDecodeError", "Repair or remove the file."]),
        (b"\xff\xfe\0", ["UnicodeDecodeError"]),
        ("[" * 100_000, ["JSON, as labelme writes it"]),
        ({"imageWidth": 30}, ["to have the size of its image, 60 x 40, but got 30 x 40. Use the image that was"]),
        ({"imageWidth": "wide"}, ["numbers as imageWidth and imageHeight", "'wide' and 40"]),
        ({"imageWidth": 40, "imageHeight": 60}, ["but got 40 x 60", "its EXIF data"]),
        ({"shapes": [{}]}, ["polygons, rectangles, circles and masks", "shape 0 'None' of type None with"]),
        ({"shapes": [shape("polygon", SQUARE[:2])]}, ["shape 0 'mountain_lion' of type 'polygon'", "Correct it in"]),
        ({"shapes": [shape("polygon", [("x", 1)] * 3)]}, ["of type 'polygon'"]),
        ({"shapes": [shape("polygon", [(float("nan"), 1)] * 3)]}, ["of type 'polygon'"]),
        ({"shapes": [shape("circle", SQUARE)]}, ["of type 'circle'"]),
        ({"shapes": [shape("mask", SQUARE[:2], mask="no PNG")]}, ["of type 'mask'"]),
        ({"shapes": [shape("blob", SQUARE)]}, ["of type 'blob'"]),
        ({"shapes": ["text"]}, ["shape 0"]),
        ({"shapes": [shape("rectangle", [(70, 50), (80, 60)])]}, ["Cannot read the annotation", "to hold a pixel"]),
        ({"shapes": [shape("polygon", [(70, 50), (80, 60), (70, 60)])]}, ["to mark the object, but it marks nothing"]),
    ],
)  # fmt: skip
def test_broken_files_of_labelme_are_refused_by_name(lion, content, words):
    if isinstance(content, dict):
        write_labelme(lion, shape("polygon", SQUARE))
        stored = json.loads((lion / "a.json").read_text()) | content
        (lion / "a.json").write_text(json.dumps(stored))
    else:
        (lion / "a.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    refuses(lion, "a.json'", *words)


def test_a_black_mask_leaves_the_object_to_the_annotation(lion):
    Image.new("L", (60, 40)).save(lion / "a.mask.png")
    refuses(lion, "a.mask.png' to mark the object in white, but it marks nothing. Remove the file")
    write_labelme(lion, shape("rectangle", [(10, 5), (40, 30)]))
    assert torch.equal(mask_of(lion), box(10, 5, 40, 30))


def test_json_of_other_programs_is_ignored(lion):
    for content in ('{"title": "A lion", "geoData": {}}', "[1, 2]", '{"shapes": {"a": 1}}'):
        (lion / "a.json").write_text(content)
        assert mask_of(lion) is None


# YOLO.


def write_yolo(lion, *lines):
    (lion / "a.txt").write_text("\n".join(lines) + "\n")


def test_yolos_boxes_and_polygons_are_shares_of_the_image(lion):
    write_yolo(lion, "0 0.5 0.5 0.5 0.5")
    assert torch.equal(mask_of(lion), box(15, 10, 45, 30)) and read(lion).has_box_masks
    write_yolo(lion, "0 0.5 0.5 0.5 0.5 0.93", "", "7 0.0 0.0 0.2 0.2")
    assert torch.equal(mask_of(lion), box(15, 10, 45, 30) | box(0, 0, 6, 4)), "with a confidence, and over the edge"
    write_yolo(lion, "2 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75")
    assert torch.equal(mask_of(lion), box(15, 10, 45, 30)) and not read(lion).has_box_masks
    write_yolo(lion, "1 0.25 0.25 0.75 0.25 0.75 1.0004", "1 0 0 0.1 0 0.1 0.1")
    assert 0 < mask_of(lion).sum() < 60 * 40 / 2, "triangles, one a rounding beyond the edge"


BODY = [(0.5, 0.1), (0.6, 0.2), (0.4, 0.2), (0.8, 0.4), (0.2, 0.4), (0.6, 0.6), (0.4, 0.6), (0.7, 0.9), (0.3, 0.9)]


def pose(*seen, points=BODY):
    """Return a line of a pose in a box of half the image, with one of ``seen`` in turn behind each point."""
    behind = itertools.cycle(seen or [""])
    places = " ".join(f"{0.25 + x / 2:g} {0.25 + y / 2:g} {next(behind)}" for x, y in points)
    return f"0 0.5 0.5 0.5 0.5 {places}"


@pytest.mark.parametrize("n", range(1, 10))
@pytest.mark.parametrize("seen", [(2,), (2, 1), (0, 2), (2, 1, 1)])
def test_key_points_of_yolo_with_their_visibility_leave_the_box(lion, n, seen):
    write_yolo(lion, pose(*seen, points=BODY[:n]))
    assert torch.equal(mask_of(lion), box(15, 10, 45, 30)) and read(lion).has_box_masks


@pytest.mark.parametrize("seed", range(10))
def test_polygons_of_yolo_are_no_poses(lion, seed):
    """Also those that touch the edges, have noise, or lie in the middle where their first numbers could be a box."""
    chance = np.random.default_rng(seed)
    n = int(chance.integers(3, 30))
    angles, sizes = np.sort(chance.uniform(0, 2 * np.pi, n)), chance.uniform(0.1, 0.9, n) * chance.uniform(0.3, 1)
    points = 0.5 + np.stack([np.cos(angles), np.sin(angles)], axis=1) * sizes[:, None] + chance.normal(0, 0.004, (n, 2))
    points = np.clip(points, 0, 1) if seed % 2 else np.clip(points, 0, 1).round()
    (lion / "a.txt").write_text("3 " + " ".join(f"{place:.6f}" for place in points.ravel()))
    found = read_yolo(lion / "a.txt", "lion", (WIDTH, HEIGHT))
    assert not found.boxes
    expected = fill_polygon([(x * WIDTH, y * HEIGHT) for x, y in points.round(6)], HEIGHT, WIDTH)
    assert torch.equal(found.mask, expected)


def test_yolos_classes_are_known_by_classes_txt(lion):
    write_yolo(lion, "0 0.1 0.1 0.1 0.1", "1 0.5 0.5 0.5 0.5")
    assert torch.equal(mask_of(lion), box(3, 2, 9, 6) | box(15, 10, 45, 30)), "all, without names"
    for names in (lion.parent / "classes.txt", lion / "classes.txt", lion.parent / "obj.names"):
        names.write_text("dog\nmountain lion\n")
        assert torch.equal(mask_of(lion), box(15, 10, 45, 30))
        names.write_text("dog\n")
        with pytest.warns(GradCAMWarning, match="a.txt' with 'dog'"):
            assert mask_of(lion).sum() > 20 * 30, "a class without a name is another class"
        names.unlink()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 0.5 0.5", ["a class and four numbers of a box", "line 2, '0 0.5 0.5 0.5'", "Correct or remove it."]),
        ("lion 0.5 0.5 0.5 0.5", ["line 2, 'lion 0.5"]),
        ("0.5 0.5 0.5 0.5 0.5", ["line 2"]),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", ["line 2"]),
        ("0 30 20 30 20", ["places in 0 to 1", "20 to 30 in line 2", "Export them normalised."]),
        ("0 0.5 0.5 0.5 nan", ["line 2"]),
        ("some words", ["line 2, 'some words'"]),
        ("0 1.5 0.5 0.1 0.1", ["places in 0 to 1"]),
    ],
)
def test_broken_lines_of_yolo_are_refused_by_name_and_number(lion, line, words):
    write_yolo(lion, "0 0.5 0.5 0.5 0.5", line)
    refuses(lion, "a.txt'", *words)


@pytest.mark.parametrize("text", ["", "A lion in 2 fields.\n", "1\n", "0.5 0.4\n0.3 0.2\n", "\ufeffcaption: 1 2 3\n"])
def test_captions_and_empty_texts_are_no_annotations(lion, text):
    (lion / "a.txt").write_text(text)
    assert mask_of(lion) is None
    (lion / "a.txt").write_bytes(b"\xff\xfe caption")
    assert mask_of(lion) is None


# Pascal VOC.


def voc(*objects, width=WIDTH, height=HEIGHT):
    """Return a file as LabelImg writes it."""
    parts = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><bndbox>"
        f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in objects
    )
    return (
        "<annotation><folder>lions</folder><filename>a.jpg</filename><source><database>Unknown</database></source>"
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size><segmented>0</segmented>{parts}"
        "</annotation>"
    )


def test_boxes_of_voc_count_from_one_and_include_the_last_pixel(lion):
    (lion / "a.xml").write_text('<?xml version="1.0" encoding="utf-8"?>\n' + voc(("mountain lion", 11, 6, 40, 30)))
    assert torch.equal(mask_of(lion), box(10, 5, 40, 30)) and read(lion).has_box_masks
    (lion / "a.xml").write_text(voc(("dog", 1, 1, 60, 40), ("Mountain-Lion", "11.0", 6, 40, 30)))
    assert torch.equal(mask_of(lion), box(10, 5, 40, 30)), "the class"
    (lion / "a.xml").write_text(voc(("mountain lion", 0, 0, 60, 40), width=0, height=0))
    assert mask_of(lion).all(), "some programs write no size"
    (lion / "a.xml").write_text(voc())
    assert mask_of(lion) is None
    (lion / "a.xml").write_text("<xmp><size/></xmp>")
    assert mask_of(lion) is None, "another kind of XML"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("<annotation>", ["XML, as Pascal VOC writes it", "no element found"]),
        ("", ["XML, as Pascal VOC writes it"]),
        (voc(("mountain lion", 1, 1, 9, 9), width=99), ["to have the size of its image, 60 x 40, but got 99 x 40"]),
        (voc(("mountain lion", 1, 1, 9, 9), width="wide"), ["numbers in <size>", "'wide x 40'"]),
        (
            voc(("mountain lion", 1, "", 9, 9)),
            ["a <bndbox> with numbers", "that of 'mountain lion'", "as COCO"],
        ),
        (voc(("mountain lion", 9, 9, 1, 1)), ["Cannot read the annotation", "to hold a pixel"]),
        ('<!DOCTYPE a [<!ENTITY b "bb">]><annotation>&b;</annotation>', ["without a document type", "Remove the"]),
        ('<!doctype a SYSTEM "http://example.org/a.dtd"><annotation/>', ["without a document type"]),
        (voc().encode("utf-16"), ["XML in UTF-8"]),
    ],
)
def test_broken_files_of_voc_are_refused_by_name(lion, content, words):
    (lion / "a.xml").write_bytes(content if isinstance(content, bytes) else content.encode())
    refuses(lion, "a.xml'", *words)


# Boxes that hold nothing, and holes.


def test_a_stray_click_beside_an_object_is_ignored_and_boxes_are_told_in_pixels_of_the_photograph(lion):
    click = shape("rectangle", [(20, 10), (20.3, 10.2)])
    write_labelme(lion, click, shape("polygon", SQUARE), shape("rectangle", [(50, 30), (50, 38)]))
    assert torch.equal(mask_of(lion), box(10, 5, 40, 30)) and not read(lion).has_box_masks
    told = "Cannot read the annotation", "a pixel of the image (60 x 40)", "in pixels of this image."
    steps = transforms.Compose([transforms.Resize((20, 20)), transforms.ToTensor()])
    write_labelme(lion, click)
    refuses(lion, "a.json'", *told, transform=steps)
    write_labelme(lion, shape("polygon", SQUARE), shape("rectangle", [(70, 50), (80, 60)]))
    refuses(lion, "a.json'", *told, transform=steps)
    (lion / "a.json").unlink()
    write_yolo(lion, "0 0.5 0.5 0 0", "0 0.5 0.5 0.5 0.5")
    assert torch.equal(mask_of(lion), box(15, 10, 45, 30))
    write_yolo(lion, "0 0.5 0.5 0 0")
    refuses(lion, "a.txt'", *told, transform=steps)
    (lion / "a.txt").unlink()
    (lion / "a.xml").write_text(voc(("mountain lion", 61, 41, 70, 50)))
    refuses(lion, "a.xml'", *told, transform=steps)


@pytest.mark.parametrize("kind", ["polygon", "rectangle", "circle", "mask"])
@pytest.mark.parametrize("cut", ["polygon", "rectangle", "mask"])
def test_holes_are_cut_out_of_shapes_of_every_kind(lion, kind, cut):
    """In labelme what is called a background."""
    painted = {"mask": png(np.ones((25, 30)))}
    points = {"rectangle": SQUARE[::2], "circle": [(25, 17), (25, 30)], "mask": SQUARE[:1]}
    whole = shape(kind, points.get(kind, SQUARE), **(painted if kind == "mask" else {}))
    write_labelme(lion, whole)
    expected, hole = mask_of(lion), [(20, 10), (50, 10), (50, 20), (20, 20)]
    drawn = {"mask": png(np.ones((10, 30)))} if cut == "mask" else {}
    stray = shape("rectangle", [(70, 50), (80, 60)], "_background_")
    points = {"rectangle": hole[::2], "mask": hole[:1]}.get(cut, hole)
    write_labelme(lion, shape(cut, points, "_background_", **drawn), whole, stray)
    assert torch.equal(mask_of(lion), expected & ~box(20, 10, 50, 20))
    assert read(lion).has_box_masks == (kind == "rectangle")


# What belongs to a photograph, and which comes first.


def test_the_first_that_exists_wins(lion):
    (lion / "a.xml").write_text(voc(("mountain lion", 1, 1, 10, 10)))
    assert torch.equal(mask_of(lion), box(0, 0, 10, 10))
    write_yolo(lion, "0 0.25 0.25 0.5 0.5")
    assert torch.equal(mask_of(lion), box(0, 0, 30, 20))
    write_labelme(lion, shape("polygon", SQUARE))
    assert torch.equal(mask_of(lion), box(10, 5, 40, 30))
    photograph = Image.new("RGBA", (WIDTH, HEIGHT), (90, 90, 20, 0))
    photograph.paste((40, 30, 20, 255), (20, 10, 50, 35))
    photograph.save(lion / "a.png")
    (lion / "a.jpg").unlink()
    assert torch.equal(mask_of(lion), box(20, 10, 50, 35)), "its own alpha"
    drawn = Image.new("1", (WIDTH, HEIGHT))
    drawn.paste(1, (1, 1, 9, 9))
    drawn.save(lion / "a-mask.png")
    assert torch.equal(mask_of(lion), box(1, 1, 9, 9)) and not read(lion).has_box_masks
    write_labelme(lion)
    for name in ("a-mask.png", "a.png"):
        (lion / name).unlink()
    Image.new("RGB", (WIDTH, HEIGHT)).save(lion / "a.jpg")
    assert torch.equal(mask_of(lion), box(0, 0, 30, 20)), "one that marks nothing is passed over"


def test_files_of_no_photograph_are_ignored_and_capitals_count(lion):
    (lion / "A.JSON").write_text("broken")
    (lion / "notes.txt").write_text("0 0.5 0.5 0.5")
    (lion / "other.xml").write_text("broken")
    (lion / "a.json").mkdir()
    assert mask_of(lion) is None
    (lion / "a.XML").write_text(voc(("mountain lion", 1, 1, 10, 10)))
    assert torch.equal(mask_of(lion), box(0, 0, 10, 10))


def test_files_that_cannot_be_opened_are_refused(lion):
    (lion / "a.json").symlink_to(lion / "nowhere.json")
    refuses(lion, "Cannot read the annotation", "a.json'", "broken link")
    (lion / "a.json").unlink()
    os.mkfifo(lion / "a.txt")
    refuses(lion, "Cannot read the annotation", "a.txt'", "no regular file")


def test_annotations_follow_the_transform_and_the_rotation_of_the_photograph(lion):
    write_labelme(lion, shape("polygon", SQUARE))
    steps = transforms.Compose([transforms.Resize((80, 120)), transforms.CenterCrop(80), transforms.ToTensor()])
    assert overlap(read(lion, steps).masks[0], from_boxes([0, 10, 60, 60], 80, 80)) > 0.95
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(lion / "a.jpg", exif=exif)
    assert torch.equal(mask_of(lion), box(10, 5, 40, 30)), "labelme shows the photograph upright"


@pytest.mark.parametrize("kind", ["json", "txt", "xml"])
def test_bytes_that_are_overwritten_give_objects_or_a_refusal(lion, kind):
    path, chance = lion / f"a.{kind}", np.random.default_rng(0)
    write_labelme(lion, shape("rectangle", SQUARE), shape("mask", [(1, 1)], mask=png(np.ones((9, 9)))))
    write_yolo(lion, "0 0.5 0.5 0.5 0.5", "1 0.1 0.1 0.2 0.1 0.2 0.2")
    (lion / "a.xml").write_text(voc(("mountain lion", 1, 1, 9, 9)))
    whole, reader = path.read_bytes(), {"json": read_labelme, "txt": read_yolo, "xml": read_voc}[kind]
    refused = 0
    for _ in range(400):
        changed = bytearray(whole)
        start, length = int(chance.integers(len(whole))), int(chance.integers(1, 4))
        changed[start : start + length] = bytes(chance.integers(256, size=int(chance.integers(0, 4)), dtype=np.uint8))
        if chance.random() < 0.5:
            changed[start : start + 1] = str(chance.integers(10)).encode()
        path.write_bytes(changed)
        try:
            found = reader(path, "lion", (WIDTH, HEIGHT))
            assert found is None or found.mask.shape == (HEIGHT, WIDTH)
        except ValueError as error:
            assert str(error).startswith(("Expected", "Cannot read"))
            refused += 1
    assert refused > 20


def test_annotations_need_no_package_of_an_extra(lion, monkeypatch):
    for name in ("onnxruntime", "pycocotools", "pycocotools.coco"):
        monkeypatch.setitem(sys.modules, name, None)
    write_labelme(lion, shape("rectangle", [(10, 5), (40, 30)]))
    assert int(mask_of(lion).sum()) == 30 * 25
    with pytest.raises(ImportError, match="need onnxruntime"):
        read(lion, masks="auto")
