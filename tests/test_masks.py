"""Masks from boxes, trimaps, images and COCO annotations, against pixels counted by hand."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torchvision import transforms, tv_tensors
from torchvision.datasets import OxfordIIITPet

from gradcam_callback import GradCAMWarning, ProbeSet
from gradcam_callback.probes import masks
from gradcam_callback.probes.coco import decode_runs
from gradcam_callback.run.interventions import Interventions


def test_box_holds_the_pixels_whose_centres_lie_in_it():
    mask = masks.from_boxes([1, 2, 3, 5], height=6, width=4)
    assert mask.nonzero().tolist() == [[y, x] for y in (2, 3, 4) for x in (1, 2)]
    assert masks.from_boxes([0.6, 0, 2.4, 1], 1, 4).tolist() == [[False, True, False, False]]
    assert masks.from_boxes([[0, 0, 1, 1], [3, 3, 99, 99]], 4, 4).sum() == 2, "several, clipped to the image"


@pytest.mark.parametrize("form", ["XYXY", "XYWH", "CXCYWH"])
def test_boxes_of_torchvision_may_have_any_format(form):
    numbers = {"XYXY": [1, 2, 3, 5], "XYWH": [1, 2, 2, 3], "CXCYWH": [2, 3.5, 2, 3]}[form]
    boxes = tv_tensors.BoundingBoxes([numbers], format=form, canvas_size=(6, 4), dtype=torch.float32)
    assert torch.equal(masks.from_boxes(boxes, 6, 4), masks.from_boxes([1, 2, 3, 5], 6, 4))


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([3, 2, 1, 5], r"hold a pixel of the image \(4 x 6\), but got \(3.0, 2.0, 1.0, 5.0\). Give x1 < x2"),
        ([10, 10, 20, 20], "hold a pixel"),
        ([float("nan"), 0, 2, 2], "hold a pixel"),
        ([1, 2, 3], r"`boxes` to have shape \(4,\) or \(B, 4\), but got \(3,\)"),
    ],
)
def test_boxes_that_make_no_sense_are_refused(boxes, message):
    with pytest.raises(ValueError, match=message):
        masks.from_boxes(boxes, height=6, width=4)


def test_a_probe_set_takes_masks_boxes_and_images_together():
    mask = torch.zeros(8, 10, dtype=torch.bool)
    mask[2:4, 5:9] = True
    image = Image.fromarray(mask.numpy().astype(np.uint8) * 255)
    ones = Image.fromarray(mask.numpy().astype(np.uint8))
    given = [mask, (5, 2, 9, 4), np.array([[5, 2, 7, 4], [7, 2, 9, 4]]), image, ones, None]
    probe = ProbeSet(torch.rand(6, 3, 8, 10), [0] * 6, given)
    assert probe.has_mask.tolist() == [True] * 5 + [False]
    assert all(torch.equal(found, mask) for found in probe.masks[:5])


def test_a_dataset_may_give_boxes_as_its_third_item():
    box = tv_tensors.BoundingBoxes([1, 1, 4, 5], format="XYXY", canvas_size=(8, 10))
    data = [(torch.rand(3, 8, 10), i % 2, box) for i in range(4)]
    plain = [(image, label, torch.tensor([1, 1, 4, 5])) for image, label, _ in data]
    assert ProbeSet.from_dataset(plain).masks is None, "four numbers may be anything"
    probe = ProbeSet.from_dataset(data)
    assert torch.equal(probe.masks[0], masks.from_boxes([1, 1, 4, 5], 8, 10)) and probe.has_mask.all()


def test_four_by_four_masks_are_masks():
    mask = torch.eye(4).bool()
    assert torch.equal(ProbeSet(torch.rand(1, 3, 4, 4), [0], mask[None]).masks[0], mask)
    assert torch.equal(ProbeSet(torch.rand(1, 3, 4, 4), [0], torch.eye(4)[None]).masks[0], mask)


def write_image(path, size, box):
    """Write a grey image that is red inside the box."""
    pixels = np.full((size[1], size[0], 3), 90, dtype=np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = (255, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=100, subsampling=0)


def assert_masks_lie_on_red(probe):
    red = (probe.images[:, 0] - probe.images[:, 1]) > 0.5
    for mask, expected in zip(probe.masks, red, strict=True):
        assert mask.any() and (mask ^ expected).float().mean() < 0.03


@pytest.fixture
def pets(tmp_path):
    """Write a folder of Oxford-IIIT Pet with three red animals in it."""
    root = tmp_path / "oxford-iiit-pet"
    lines = []
    for i, (breed, label, box) in enumerate(
        [("Abyssinian", 1, (10, 5, 40, 30)), ("beagle", 2, (2, 20, 30, 38)), ("Abyssinian", 1, (30, 0, 58, 20))]
    ):
        name = f"{breed}_{i}"
        write_image(root / "images" / f"{name}.jpg", (60, 40), box)
        trimap = np.full((40, 60), 2, dtype=np.uint8)
        x1, y1, x2, y2 = box
        trimap[y1:y2, x1:x2] = 3
        trimap[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2] = 1
        (root / "annotations" / "trimaps").mkdir(parents=True, exist_ok=True)
        Image.fromarray(trimap).save(root / "annotations" / "trimaps" / f"{name}.png")
        lines.append(f"{name} {label} {label} 1")
    (root / "annotations" / "trainval.txt").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.parametrize("geometry", ["none", "resized", "cropped at random"])
def test_pets_of_torchvision_have_their_masks(pets, geometry):
    steps = {
        "none": [],
        "resized": [transforms.Resize((80, 90))],
        "cropped at random": [transforms.RandomResizedCrop(50, scale=(0.7, 0.9)), transforms.RandomHorizontalFlip()],
    }[geometry]
    data = OxfordIIITPet(
        str(pets),
        target_types=("category", "segmentation"),
        transform=transforms.Compose([*steps, transforms.ToTensor()]),
    )
    for dataset in (data, torch.utils.data.Subset(data, [2, 1])):
        probe = ProbeSet.from_dataset(dataset)
        assert probe.class_names == ["Abyssinian", "Beagle"] and set(probe.labels.tolist()) == {0, 1}
        assert_masks_lie_on_red(probe)


def test_pets_as_cats_and_dogs_are_called_so_and_found_without_opening_photographs(pets, monkeypatch):
    data = OxfordIIITPet(str(pets), target_types=("binary-category", "segmentation"), transform=transforms.ToTensor())
    opened, load = [], OxfordIIITPet.__getitem__
    monkeypatch.setattr(OxfordIIITPet, "__getitem__", lambda self, index: opened.append(index) or load(self, index))
    for dataset in (data, torch.utils.data.Subset(data, [2, 1, 0])):
        opened.clear()
        probe = ProbeSet.from_dataset(dataset, per_class=1)
        assert probe.class_names == ["Cat", "Dog"] and probe.labels.tolist() == [0, 1] and len(opened) == 2
        assert_masks_lie_on_red(probe)


def test_masks_that_a_dataset_makes_of_the_trimaps_of_pets_are_read_as_they_are(pets):
    class Animals(torch.utils.data.Dataset):
        def __init__(self, binary):
            self.dataset = OxfordIIITPet(str(pets), target_types=("category", "segmentation"))
            self.binary = binary

        def __len__(self):
            return len(self.dataset)

        def __getitem__(self, index):
            picture, (label, trimap) = self.dataset[index]
            return transforms.ToTensor()(picture), label, self.binary(np.asarray(trimap) != 2)

    for binary in (torch.from_numpy, lambda mask: mask.astype(np.uint8), lambda mask: Image.fromarray(mask)):
        assert_masks_lie_on_red(ProbeSet.from_dataset(Animals(binary)))
    assert_masks_lie_on_red(
        ProbeSet.from_dataset(Animals(lambda mask: Image.fromarray(np.where(mask, np.uint8(1), np.uint8(2)))))
    )


def test_a_pets_mask_goes_through_the_transform_even_if_it_has_the_size_of_the_image(pets):
    cut = transforms.Compose([transforms.Resize(50), transforms.CenterCrop((40, 60)), transforms.ToTensor()])
    data = OxfordIIITPet(str(pets), target_types=("category", "segmentation"), transform=cut)
    for dataset in (data, torch.utils.data.Subset(data, [2, 1])):
        assert_masks_lie_on_red(ProbeSet.from_dataset(dataset))


@pytest.fixture
def coco(tmp_path):
    """Write three annotated images: a cat, two dogs with a small cat, and a crowd of cats."""
    images = {1: (4, 4, 24, 20), 2: (10, 10, 50, 30), 3: (0, 0, 30, 30)}
    for i, box in images.items():
        write_image(tmp_path / "images" / f"{i}.png", (60, 40), box)

    def annotation(number, image, category, x1, y1, x2, y2, crowd=0):
        outline = [[x1, y1, x2, y1, x2, y2, x1, y2]]
        # A crowd is given as run lengths, column by column.
        shape = {"counts": [0, 40 * 60], "size": [40, 60]} if crowd else outline
        area = (x2 - x1) * (y2 - y1)
        return {
            "id": number, "image_id": image, "category_id": category, "iscrowd": crowd, "area": area,
            "segmentation": shape, "bbox": [x1, y1, x2 - x1, y2 - y1],
        }  # fmt: skip

    (tmp_path / "instances.json").write_text(
        json.dumps(
            {
                "info": {},
                "images": [{"id": i, "file_name": f"{i}.png", "width": 60, "height": 40} for i in images],
                "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
                "annotations": [
                    annotation(1, 1, 17, 4, 4, 24, 20),
                    annotation(2, 2, 18, 10, 10, 30, 30),
                    annotation(3, 2, 18, 30, 10, 50, 30),
                    annotation(4, 2, 17, 52, 32, 58, 38),
                    annotation(5, 3, 17, 0, 0, 60, 40, crowd=1),
                ],
            }
        )
    )
    return tmp_path


def test_coco_gives_the_category_that_fills_most_and_all_its_objects(coco, capsys):
    probe = ProbeSet.from_coco(coco / "instances.json", coco / "images")
    assert probe.names == ["cat-1", "dog-2"], "a crowd does not count"
    assert probe.labels.tolist() == [0, 1] and probe.class_names == ["cat", "dog"]
    assert_masks_lie_on_red(probe)
    assert capsys.readouterr().out == "", "pycocotools prints how long it took"


def test_coco_with_a_transform_and_chosen_categories(coco):
    steps = transforms.Compose([transforms.Resize((64, 64)), transforms.ToTensor(), transforms.Normalize([0.0], [1.0])])
    probe = ProbeSet.from_coco(coco / "instances.json", coco / "images", steps, categories=["dog", "cat"])
    assert probe.images.shape[2:] == (64, 64) and sorted(probe.labels.tolist()) == [0, 1]
    assert [probe.class_name(label) for label in probe.labels] == [name.split("-")[0] for name in probe.names]
    assert_masks_lie_on_red(probe)


def test_coco_says_what_is_wrong(coco):
    with pytest.raises(ValueError, match=r"`categories` to be among \['cat', 'dog'\], .* but got \['bird'\]"):
        ProbeSet.from_coco(coco / "instances.json", coco / "images", categories=["bird"])
    crop = transforms.Compose([transforms.CenterCrop(8), transforms.ToTensor()])
    with pytest.raises(ValueError, match="mask of .*1.png to mark the object, but it marks nothing.* `seed`"):
        ProbeSet.from_coco(coco / "instances.json", coco / "images", crop)
    Image.new("RGB", (30, 20)).save(coco / "images" / "1.png")
    with pytest.raises(ValueError, match=r"1.png' to have the size in its annotations, 60 x 40, but got 30 x 20"):
        ProbeSet.from_coco(coco / "instances.json", coco / "images")


def test_coco_says_what_is_missing(coco, monkeypatch):
    path = coco / "instances.json"
    with pytest.raises(ValueError, match=r"`categories` to be among \['cat', 'dog'\], .* but got \['cow'\]"):
        ProbeSet.from_coco(path, coco / "images", categories=["cow"])
    content = json.loads(path.read_text())
    content["annotations"] = []
    (coco / "empty.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"Expected objects of \['cat', 'dog'\] in '.*empty.json', but there are none"):
        ProbeSet.from_coco(coco / "empty.json", coco / "images")
    only_dogs = ProbeSet.from_coco(path, coco / "images", categories=["dog"])
    assert only_dogs.names == ["dog-2"] and int(only_dogs.masks.sum()) == 40 * 20, "the cat beside them does not count"
    content["annotations"] = [{"id": 1, "image_id": 1, "category_id": 99, "area": 5, "bbox": [0, 0, 9, 9]}]
    (coco / "strange.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"of the categories \[17, 18\] in '.*strange.json', but some are of \[99\]"):
        ProbeSet.from_coco(coco / "strange.json", coco / "images")
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ImportError, match=r"needs pycocotools. .* pip install 'gradcam-callback\[coco\]'"):
        ProbeSet.from_coco(path, coco / "images")


def test_coco_boxes_without_an_outline_are_boxes(coco):
    """Annotation tools export drawn rectangles so, some without an area."""
    content = json.loads((coco / "instances.json").read_text())
    content["annotations"][0]["segmentation"] = []
    for annotation in content["annotations"][:2]:
        del annotation["area"]
    (coco / "boxes.json").write_text(json.dumps(content))
    probe = ProbeSet.from_coco(coco / "boxes.json", coco / "images")
    assert_masks_lie_on_red(probe)
    assert probe.box_masks.tolist() == [True, False] and probe.has_box_masks
    assert not ProbeSet.from_coco(coco / "instances.json", coco / "images").has_box_masks


def test_coco_without_area_and_box_counts_what_is_drawn_and_key_points_mark_nothing(coco):
    content = json.loads((coco / "instances.json").read_text())
    for annotation in content["annotations"]:
        del annotation["area"], annotation["bbox"]
    content["annotations"].append({"id": 9, "image_id": 2, "category_id": 17, "keypoints": [1, 1, 2]})
    (coco / "outlines.json").write_text(json.dumps(content))
    assert ProbeSet.from_coco(coco / "outlines.json", coco / "images").names == ["cat-1", "dog-2"]


def test_coco_of_crowds_alone_takes_them_as_objects(coco):
    """CVAT writes what is painted with a brush as crowds."""
    content = json.loads((coco / "instances.json").read_text())
    content["annotations"] = content["annotations"][1:3] + content["annotations"][-1:]
    (coco / "crowd.json").write_text(json.dumps(content))
    probe = ProbeSet.from_coco(coco / "crowd.json", coco / "images")
    assert probe.names == ["cat-3", "dog-2"] and probe.masks[0].all() and int(probe.masks[1].sum()) == 40 * 20


def test_coco_crowds_beside_other_objects_belong_to_the_mask(coco):
    content = json.loads((coco / "instances.json").read_text())
    content["annotations"][2]["iscrowd"] = 1
    (coco / "beside.json").write_text(json.dumps(content))
    probe = ProbeSet.from_coco(coco / "beside.json", coco / "images")
    assert probe.names == ["cat-1", "dog-2"]
    assert_masks_lie_on_red(probe)


def test_coco_reads_the_annotations_of_an_image_whatever_their_ids(coco):
    """CVAT's exporter repeats the id of an object in another image."""
    content = json.loads((coco / "instances.json").read_text())
    for annotation in content["annotations"]:
        annotation["id"] = 1
    (coco / "ids.json").write_text(json.dumps(content))
    assert_masks_lie_on_red(ProbeSet.from_coco(coco / "ids.json", coco / "images"))


def test_coco_says_in_which_folder_the_images_are(coco):
    """CVAT puts the images into a folder for each subset."""
    (coco / "images").rename(coco / "default")
    (coco / "images").mkdir()
    (coco / "default").rename(coco / "images" / "default")
    with pytest.raises(
        ValueError, match="'1.png' of the annotations in .*images', but it lies in .*default'. Pass folder"
    ):
        ProbeSet.from_coco(coco / "instances.json", coco / "images")


def without(content, name):
    return {key: value for key, value in content.items() if key != name}


def change(content, kind, number, **more):
    """Return annotations with other fields in one entry; None takes a field away."""
    entries = [dict(entry) for entry in content[kind]]
    entries[number] = {key: value for key, value in (entries[number] | more).items() if value is not None}
    return content | {kind: entries}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: "{", "Expected JSON, as COCO writes it, in '.*bad.json', but got JSONDecodeError"),
        (lambda content: b"\xff\xfe", "Expected JSON, .* in '.*bad.json', but got UnicodeDecodeError"),
        (
            lambda content: [content],
            "Expected the lists .'images', 'annotations', 'categories'.*bad.json', but got list",
        ),
        (
            lambda content: without(content, "annotations"),
            "but got none of .'annotations'.. Export the annotations as CO",
        ),
        (
            lambda content: without(content, "categories"),
            "but got none of .'categories'.. Export the annotations as CO",
        ),
        (lambda content: content | {"images": {}}, "but got none of .'images'."),
        (lambda content: {"shapes": [], "imagePath": "1.png"}, "This is a file of labelme.* with ProbeSet.from_folder"),
        (
            lambda content: change(content, "images", 0, file_name=None),
            "id and file_name in each of 'images' .*number 0",
        ),
        (lambda content: change(content, "annotations", 2, category_id=None), "category_id in each of 'anno.*number 2"),
        (
            lambda content: change(content, "images", 0, width="wide"),
            "numbers as width and height .* 'wide' and 40 for .*1.png",
        ),
    ],
)
def test_files_that_are_not_of_coco_are_refused_by_name(coco, edit, message):
    changed = edit(json.loads((coco / "instances.json").read_text()))
    content = changed if isinstance(changed, (str, bytes)) else json.dumps(changed)
    (coco / "bad.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        ProbeSet.from_coco(coco / "bad.json", coco / "images")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"segmentation": [[1, 2, 3, 4]]}, "polygons with x and y of three points or more"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "polygons with x and y of three points or more"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "polygons with x and y of three points or more"),
        ({"segmentation": [["a", 2, 3, 4, 5, 6]]}, "polygons with x and y of three points or more"),
        ({"segmentation": "text"}, "polygons with x and y of three points or more"),
        ({"segmentation": {"counts": [1, 2], "size": [40, 60]}}, "run lengths of all pixels, with the size .40, 60."),
        ({"segmentation": {"counts": "???", "size": [40, 60]}}, "run lengths of all pixels"),
        ({"segmentation": {"counts": [2400], "size": [60, 40]}}, "run lengths of all pixels, with the size .40, 60.,"),
        ({"segmentation": {}, "area": None, "bbox": [1, 2, 3]}, "x, y, width and height as a bbox"),
        ({"segmentation": [], "area": None, "bbox": [1, 2, "x", 3]}, "x, y, width and height as a bbox"),
    ],
)
def test_broken_objects_of_coco_are_refused_by_file_and_image(coco, fields, message):
    content = change(json.loads((coco / "instances.json").read_text()), "annotations", 0, **fields)
    (coco / "bad.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{message}.* in '.*bad.json', but got .* for the image '1.png'. Corr"):
        ProbeSet.from_coco(coco / "bad.json", coco / "images")
    content = change(content, "annotations", 0, segmentation=[], bbox=[70, 50, 3, 3])
    (coco / "bad.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="Cannot read the annotations '.*bad.json'. Expected each box to hold a pixel"):
        ProbeSet.from_coco(coco / "bad.json", coco / "images")


def test_coco_takes_what_some_programs_leave_out(coco):
    """An image without a size, empty outlines beside a box, no box, and run lengths as a text or as lengths."""
    content = json.loads((coco / "instances.json").read_text())
    expected = ProbeSet.from_coco(coco / "instances.json", coco / "images").masks
    drawn = np.zeros((40, 60), dtype=np.uint8, order="F")
    drawn[4:20, 4:24] = 1
    text = coco_mask.encode(drawn)
    lengths = [4 * 40 + 4, *[16, 24] * 19, 16, 36 * 40 + 20]
    for edited in (
        content | {"images": [without(without(image, "width"), "height") for image in content["images"]]},
        content | {"images": [image | {"width": None, "height": 0} for image in content["images"]]},
        change(content, "annotations", 0, segmentation=[[]]),
        change(content, "annotations", 0, segmentation=[[], *content["annotations"][0]["segmentation"]]),
        content | {"annotations": [one | {"bbox": None, "area": None} for one in content["annotations"]]},
        change(content, "annotations", 0, segmentation={"size": [40, 60], "counts": text["counts"].decode()}),
        change(content, "annotations", 0, segmentation={"size": [40, 60], "counts": lengths}, area=None, bbox=None),
    ):
        (coco / "other.json").write_text(json.dumps(edited))
        assert torch.equal(ProbeSet.from_coco(coco / "other.json", coco / "images").masks, expected)


@pytest.mark.parametrize("seed", range(3))
def test_run_lengths_are_read_as_pycocotools_reads_them(seed):
    chance = np.random.default_rng(seed)
    drawn = np.asfortranarray(chance.random((37, 53)) < chance.random((37, 1)) ** 6)
    encoded = coco_mask.encode(drawn.astype(np.uint8))
    assert np.array_equal(decode_runs(encoded | {"counts": encoded["counts"].decode()}, 37, 53), drawn)


def test_coco_takes_names_that_look_alike_for_the_same(coco):
    """An accent is one character, or two as macOS writes them."""
    content = json.loads((coco / "instances.json").read_text())
    one, two = "\xe9", "e\u0301"
    for before, there, stored in (("1", two, one), (two, one, two)):
        (coco / "images" / f"{before}.png").rename(coco / "images" / f"{there}.png")
        edited = change(change(content, "images", 0, file_name=f"{stored}.png"), "categories", 0, name=there)
        (coco / "alike.json").write_text(json.dumps(edited))
        probe = ProbeSet.from_coco(coco / "alike.json", coco / "images", categories=[stored, "dog"])
        assert_masks_lie_on_red(probe)
        assert len(probe) == 2


def test_coco_says_what_to_correct_if_an_image_is_not_there_or_lies(coco):
    path = coco / "instances.json"
    with pytest.raises(
        ValueError, match="image '1.png' of '.*instances.json' in .*but there is no .* Correct `folder`, or"
    ):
        ProbeSet.from_coco(path, coco / "nowhere")
    path.write_text(path.read_text().replace("1.png", "train\\\\1.png"))
    with pytest.raises(ValueError, match="Correct `folder`, or the `file_name` in the annotations"):
        ProbeSet.from_coco(path, coco / "images")
    path.write_text(path.read_text().replace("train\\\\1.png", "1.png"))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(coco / "images" / "1.png", exif=exif)
    with pytest.raises(ValueError, match="1.png' to have .* 60 x 40, but got 40 x 60. Annotate .* its EXIF data"):
        ProbeSet.from_coco(path, coco / "images")


def test_a_probe_set_knows_which_masks_are_boxes():
    mask = torch.ones(8, 10, dtype=torch.bool)
    given = [mask, (5, 2, 9, 4), np.array([[5, 2, 7, 4], [7, 2, 9, 4]]), None]
    probe = ProbeSet(torch.rand(4, 3, 8, 10), [0] * 4, given)
    assert probe.box_masks.tolist() == [False, True, True, False] and probe.has_box_masks
    several = ProbeSet(torch.rand(4, 3, 8, 10), torch.tensor([[1, 1], [0, 1], [1, 0], [1, 1]]), given)
    assert several.box_masks.tolist() == [False, False, True, True, False, False], "repeated with the images"
    assert not ProbeSet(torch.rand(1, 3, 8, 10), [0], [mask]).has_box_masks
    assert not ProbeSet(torch.rand(1, 3, 8, 10), [0]).has_box_masks
    assert not ProbeSet(torch.rand(1, 3, 4, 4), [0], torch.eye(4)[None]).has_box_masks, "a mask of 4 x 4"
    assert ProbeSet(torch.rand(2, 3, 8, 10), [0, 1], torch.tensor([[5, 2, 9, 4], [1, 1, 2, 2]])).box_masks.all()


def test_boxes_of_the_untransformed_image_follow_its_transform():
    class WithBoxes(torch.utils.data.Dataset):
        transform = transforms.Compose([transforms.CenterCrop(20), transforms.Resize(40), transforms.ToTensor()])

        def __init__(self, size):
            self.size = size

        def __len__(self):
            return 2

        def __getitem__(self, index):
            mask = Image.new("L", (32, 24))
            mask.paste(255, (4, 8, 20, 14))
            red = Image.composite(Image.new("RGB", (32, 24), "red"), Image.new("RGB", (32, 24), "gray"), mask)
            numbers = [4, 8, 20, 14] if self.size == (24, 32) else [0, 12, 28, 24]
            box = tv_tensors.BoundingBoxes([numbers], format="XYXY", canvas_size=self.size)
            return self.transform(red), index, box

    for size in ((24, 32), (40, 40)):
        probe = ProbeSet.from_dataset(WithBoxes(size))
        assert_masks_lie_on_red(probe)
        assert probe.has_box_masks


def test_masks_of_a_dataset_that_look_inverted_are_warned_of():
    inverted = torch.ones(8, 10, dtype=torch.bool)
    inverted[2:5, 3:6] = False
    data = [(torch.rand(3, 8, 10), i, ~inverted if i else inverted) for i in range(2)]
    with pytest.warns(GradCAMWarning, match=r"masks look inverted, .*: item 0. An inverted"):
        assert torch.equal(ProbeSet.from_dataset(data).masks[0], inverted)
    ProbeSet.from_dataset(
        [(torch.rand(3, 8, 10), 0, tv_tensors.BoundingBoxes([[0, 0, 10, 8]], format="XYXY", canvas_size=(8, 10)))]
    )


def test_two_warnings_of_the_same_masks_give_them_the_same_names_and_few_of_many():
    large = torch.ones(8, 10, dtype=torch.bool)
    large[3, 4] = False
    with pytest.warns(GradCAMWarning) as caught:
        probe = ProbeSet.from_dataset([(torch.rand(3, 8, 10), i % 2, large) for i in range(60)], per_class=30).watch(8)
        Interventions(probe, seed=0)
    inverted, too_large = [re.findall(r"item \d+|and \d+ more", str(one.message)) for one in caught]
    assert len(inverted) == 6 and inverted[-1] == "and 55 more"
    assert set(too_large[:-1]) <= set(probe.verdict_set.sources) and too_large[-1] == "and 55 more"
    nothing = torch.zeros(8, 10, dtype=torch.bool)
    square = nothing.clone().index_fill_(0, torch.tensor([3]), True)
    with pytest.warns(
        GradCAMWarning, match=r"masks of 7 of 8 images mark nothing.*: (item \d, ){4}item \d and 2 more\."
    ):
        ProbeSet.from_dataset([(torch.rand(3, 8, 10), i, nothing if i else square) for i in range(8)])


def test_a_mask_may_have_a_channel():
    square = torch.zeros(1, 8, 8, dtype=torch.bool)
    square[:, 2:5, 1:3] = True
    assert torch.equal(ProbeSet(torch.rand(1, 3, 8, 8), [0], masks=[square]).masks, square)


@pytest.mark.parametrize("geometry", [[], [transforms.CenterCrop(16)]])
def test_a_datasets_masks_may_be_images_which_follow_its_transform(geometry):
    class WithMaskImages(torch.utils.data.Dataset):
        transform = transforms.Compose([*geometry, transforms.ToTensor()])

        def __len__(self):
            return 2

        def __getitem__(self, index):
            mask = Image.new("L", (32, 24))
            mask.paste(255, (4, 8, 20, 14))
            red = Image.composite(Image.new("RGB", (32, 24), "red"), Image.new("RGB", (32, 24), "gray"), mask)
            return self.transform(red), index, mask

    probe = ProbeSet.from_dataset(WithMaskImages())
    assert_masks_lie_on_red(probe)
    assert int(probe.masks[0].sum()) == (12 * 6 if geometry else 16 * 6)
