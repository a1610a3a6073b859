"""Automatic masks mark the object, and those that look doubtful are left out, named and shown."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import Toys
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader, IterableDataset
from torchvision import transforms, tv_tensors
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader
from torchvision.ops import masks_to_boxes

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning, ProbeSet
from gradcam_callback.drawing import InputImage, MaskCell, mask_sheet
from gradcam_callback.drawing.canvas import CORRECT, LABEL, MARGIN, TITLE, WRONG
from gradcam_callback.drawing.text import line_width
from gradcam_callback.measures import AUTOMATIC_MASKS, Swaps, judge, swap_test
from gradcam_callback.probes import Item, from_boxes, make_probe_set, progress, read_folder
from gradcam_callback.probes.prompts import refine_boxes
from gradcam_callback.run import Evaluator
from gradcam_callback.run.album import mask_cells
from gradcam_callback.saliency import Proposal, SaliencyNetwork, doubt_size, judge_proposal
from gradcam_callback.saliency.proposals import LARGEST, SMALLEST


@pytest.fixture(scope="module")
def network():
    return SaliencyNetwork()


@pytest.fixture(scope="module")
def large_toys():
    items = Toys(9, bias=1.0, seed=5, size=128).items
    images, labels, masks = zip(*items, strict=True)
    return torch.stack(images), list(labels), torch.stack(masks)


def to_picture(image):
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def overlap(one, other):
    return float((one & other).sum() / (one | other).sum())


def test_the_network_marks_the_toys(network, large_toys):
    images, _, masks = large_toys
    found = [network.propose(to_picture(image)) for image in images]
    assert all(proposal.mask.shape == mask.shape for proposal, mask in zip(found, masks, strict=True))
    assert np.mean([overlap(proposal.mask, mask) for proposal, mask in zip(found, masks, strict=True)]) > 0.85
    assert sum(proposal.doubt is None for proposal in found) >= 8


def test_a_mask_has_the_size_of_its_photograph_and_grey_or_black_ones_are_taken(network):
    picture = Image.new("L", (70, 40), 90)
    ImageDraw.Draw(picture).ellipse((20, 8, 50, 32), 230)
    proposal = network.propose(picture)
    assert proposal.mask.shape == (40, 70) and proposal.mask[20, 35] and not proposal.mask[2, 2]
    black = network.propose(Image.new("RGB", (30, 30)))
    assert black.mask.shape == (30, 30)


def saliency(*boxes, size=(60, 80), inside=0.97, outside=0.02):
    """A map that is sure of its boxes ``(top, left, bottom, right)``."""
    found = np.full(size, outside, np.float32)
    for top, left, bottom, right in boxes:
        found[top:bottom, left:right] = inside
    return found


@pytest.mark.parametrize(
    ("found", "doubt"),
    [
        (saliency((20, 20, 44, 50)), None),
        (saliency((20, 20, 44, 50), (0, 0, 12, 12)), None),
        (saliency(), "the object fills 0 %, less than 2 %"),
        (saliency((20, 20, 25, 30)), "the object fills 1 %, less than 2 %"),
        (saliency((2, 2, 58, 78)), "the object fills 89 %, more than 60 %"),
        (saliency((0, 0, 30, 80)), "the object covers 50 % of the border"),
        (saliency((4, 4, 24, 24), (36, 44, 56, 64)), "the largest part is only 50 % of the mask"),
        (saliency((20, 20, 44, 50), inside=0.6, outside=0.1), "the network is not sure (38 %)"),
        (np.zeros((60, 80), np.float32), "the object fills 0 %, less than 2 %"),
    ],
)
def test_each_gate_says_why(found, doubt):
    proposal = judge_proposal(found)
    assert proposal.doubt == doubt
    assert torch.equal(proposal.mask, torch.from_numpy(found > 0.5))


def test_parts_that_a_thin_gap_parts_are_one():
    assert judge_proposal(saliency((10, 10, 30, 30), (32, 10, 52, 30))).doubt is None


@pytest.mark.parametrize("times", [2, 10])
def test_a_large_photograph_is_judged_like_a_small_one(times):
    gap_of_a_pixel = saliency((40, 40, 120, 160), (121, 40, 200, 160), size=(240, 320))
    two_parts = saliency((16, 16, 96, 96), (144, 176, 224, 256), size=(240, 320))
    for small, doubt in ((gap_of_a_pixel, None), (two_parts, "the largest part is only 50 % of the mask")):
        assert judge_proposal(small).doubt == doubt
        assert judge_proposal(np.kron(small, np.ones((times, times), np.float32))).doubt == doubt


class Bright:
    """Marks what is brighter than half, and is sure of it. It remembers the sizes of what it saw."""

    def __init__(self):
        self.seen = []

    def __call__(self):
        return self

    def propose(self, photograph):
        return judge_proposal(self.saliency(photograph))

    def saliency(self, photograph):
        self.seen.append(photograph.size)
        return (np.asarray(photograph.convert("L")) > 127).astype(np.float32)


@pytest.fixture
def bright(monkeypatch):
    network = Bright()
    for place in ("automatic",):
        monkeypatch.setattr(f"gradcam_callback.probes.{place}.SaliencyNetwork", network)
    return network


def square(top, left, side, shape=(40, 40)):
    image = torch.zeros(3, *shape)
    image[:, top : top + side, left : left + side] = 1
    return image


def test_doubtful_masks_are_left_out_and_named(bright):
    images = torch.stack([square(5, 5, 20), square(0, 0, 2), square(10, 12, 15)])
    with pytest.warns(GradCAMWarning, match=r"1 of 3 automatic masks .* \(cat-2: the object fills 0 %, less") as caught:
        probe = ProbeSet(images, [0, 0, 1], "auto", class_names=["cat", "dog"])
    assert len(caught) == 1
    assert probe.has_mask.tolist() == [True, False, True] and probe.has_automatic_masks
    assert torch.equal(probe.masks, images[:, 0].bool() & torch.tensor([1, 0, 1]).bool()[:, None, None])
    assert set(probe.proposals) == {0, 1, 2} and probe.proposals[1].doubt is not None


def test_without_any_good_mask_there_are_none_and_the_frame_test_remains(bright):
    with pytest.warns(GradCAMWarning, match="3 of 3 automatic masks"):
        probe = ProbeSet(torch.zeros(3, 3, 20, 20), [0, 1, 1], "auto")
    assert probe.masks is None and not probe.has_mask.any() and not probe.has_automatic_masks


def test_the_normalisation_is_undone_before(bright):
    images = torch.stack([square(5, 5, 20), square(8, 8, 20)])
    probe = ProbeSet((images - 0.9) / 0.1, [0, 1], "auto", mean=[0.9], std=[0.1])
    assert torch.equal(probe.masks, images[:, 0].bool())


def test_an_image_of_several_classes_has_no_automatic_mask(bright):
    images = torch.stack([square(5, 5, 20), square(8, 8, 20)])
    with pytest.warns(GradCAMWarning, match="the image holds several classes"):
        probe = ProbeSet(images, torch.tensor([[1, 1], [0, 1]]), "auto")
    assert probe.has_mask.tolist() == [False, False, True]


def photographs(good):
    """A dataset of two classes: photographs whose mask is good or, with too small an object, doubtful."""
    return [(square(5, 5, 10 + i % 9 if is_good else 2), i % 2) for i, is_good in enumerate(good)]


def test_images_with_a_doubtful_mask_give_way_to_others_of_their_class(bright):
    data = photographs([i // 2 not in (1, 4, 6) for i in range(16)])
    plain = ProbeSet.from_dataset(data, per_class=3)
    probe = ProbeSet.from_dataset(data, per_class=3, masks="auto")
    assert plain.labels.tolist() == probe.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert probe.has_mask.all()
    assert probe.replaced
    assert all(image.proposal.doubt.startswith("the object fills 0 %") for image in probe.replaced)
    assert len(bright.seen) == 6 + len(probe.replaced) < 12, "only as many as needed"
    # The first choice is that without masks; only doubtful ones are others.
    stays = [any(torch.equal(image, other) for other in probe.images) for image in plain.images]
    assert 0 < stays.count(False) <= len(probe.replaced)
    few, probe.replaced = probe.replaced, 2 * probe.replaced[:1]
    assert mask_cells(probe)[0] == "Automatic masks: 6 of 6 used; 2 other images were replaced"
    probe.replaced = few[:1]
    assert mask_cells(probe)[0] == "Automatic masks: 6 of 6 used; 1 other image was replaced"
    probe.replaced = few
    sheet = mask_sheet("Automatic masks", "note", mask_cells(probe)[1])
    assert (np.asarray(sheet) == WRONG).all(axis=-1).any(), "the sheet shows them"


def test_without_enough_good_masks_doubtful_ones_stay_and_are_named(bright):
    data = photographs([True, False, False, False])
    with pytest.warns(GradCAMWarning, match="3 of 4 automatic masks look doubtful"):
        probe = ProbeSet.from_dataset(data, per_class=2, masks="auto")
    assert sorted(probe.has_mask.tolist()) == [False, False, False, True] and probe.replaced == []
    assert len(bright.seen) == 4, "each once"


@pytest.mark.parametrize("limit", [SMALLEST, LARGEST])
def test_a_share_near_its_limit_is_not_said_to_be_the_limit(limit):
    for share in (limit * (1 + sign * 10.0**-power) for power in range(1, 5) for sign in (-1, 1)):
        doubt = doubt_size(share)
        if doubt is None:
            continue
        found, than, said = re.fullmatch(r"the object fills (\S+) %, (less|more) than (\d+) %", doubt).groups()
        assert float(found) < float(said) if than == "less" else float(found) > float(said)
        assert float(found) == pytest.approx(100 * share, abs=0.5)


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: torch.utils.data.Subset(data, [3, 0, 1, 2])])
def test_warnings_name_the_file_of_an_image_if_it_is_known(bright, tmp_path, wrap):
    for i in range(4):
        (tmp_path / f"class {i % 2}").mkdir(exist_ok=True)
        to_picture(square(5, 5, 2)).save(tmp_path / f"class {i % 2}" / f"{i}.png")
    with pytest.warns(GradCAMWarning, match="4 of 4 automatic masks look doubtful") as caught:
        ProbeSet.from_dataset(wrap(ImageFolder(tmp_path, transforms.ToTensor())), masks="auto")
    assert all(f"{tmp_path / f'class {i % 2}' / f'{i}.png'}: " in str(caught[0].message) for i in range(4))
    items = [(square(5, 5, 2), i % 2, {"file": f"photo_{i}.png"}) for i in range(4)]
    with pytest.warns(GradCAMWarning, match=r"[(;] ?photo_3 \(item 3\): the object fills"):
        ProbeSet.from_dataset(items, masks="auto")


def test_drawn_masks_and_good_ones_come_before_doubtful_ones(bright):
    drawn = torch.zeros(40, 40, dtype=torch.bool)
    drawn[:9, :9] = True
    data = [(square(5, 5, 2), 0, None if i else drawn) for i in range(4)]
    with pytest.warns(GradCAMWarning, match="1 of 1 automatic masks"):
        probe = ProbeSet.from_dataset(data, per_class=2, masks="auto")
    assert sorted(probe.has_mask.tolist()) == [False, True] and torch.equal(probe.masks[probe.has_mask][0], drawn)


@pytest.fixture
def folder(tmp_path):
    """Photographs of 80 x 40 pixels in two classes, one of them with a drawn mask."""
    for name, left in (("cat", 26), ("dog", 38)):
        (tmp_path / "probe" / name).mkdir(parents=True)
        for i in range(2):
            picture = to_picture(square(10, left, 20, (40, 80)))
            picture.save(tmp_path / "probe" / name / f"{i}.png")
    drawn = Image.new("1", (80, 40))
    drawn.paste(1, (50, 0, 80, 40))
    drawn.save(tmp_path / "probe" / "cat" / "0.mask.png")
    return tmp_path / "probe"


TRANSFORM = transforms.Compose([transforms.CenterCrop(40), transforms.Resize(20), transforms.ToTensor()])


def test_masks_of_a_folder_are_made_of_the_whole_photographs_and_follow_the_transform(bright, folder):
    probe = ProbeSet.from_folder(folder, masks="auto")
    assert bright.seen == [(80, 40)] * 3, "the drawn mask is kept"
    assert probe.masks[0].nonzero()[:, 1].min() == 50 and set(probe.proposals) == {1, 2, 3}
    probe = ProbeSet.from_folder(folder / ".." / "probe", TRANSFORM, masks="auto")
    assert bright.seen[3:] == [(80, 40)] * 3
    for number in (1, 2, 3):
        expected = probe.images[number, 0] > 0.5
        assert overlap(probe.masks[number], expected) > 0.9


def test_masks_of_a_folder_lie_on_what_the_loader_of_the_data_reads(bright, tmp_path):
    """The photograph is stored lying. A box on the upright one is a prompt, and the network sees it as it is shown."""
    (tmp_path / "cat").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in "ab":
        turned = to_picture(square(10, 26, 20, (40, 80))).transpose(Image.Transpose.ROTATE_90)
        turned.save(tmp_path / "cat" / f"{name}.png", exif=exif)
    write_box(tmp_path / "cat", "b", 24, 8, 48, 32)
    items, _ = read_folder(tmp_path, transforms.ToTensor(), None, automatic=True, loader=default_loader)
    probe = make_probe_set(items, automatic=True)
    assert probe.images.shape == (2, 3, 80, 40) and probe.has_automatic_masks and not probe.has_box_masks
    assert all(overlap(mask, image[0] > 0.5) > 0.9 for mask, image in zip(probe.masks, probe.images, strict=True))


def test_an_object_that_the_transform_cuts_off_is_left_out(bright, tmp_path):
    (tmp_path / "cat").mkdir()
    to_picture(square(10, 0, 19, (40, 80))).save(tmp_path / "cat" / "a.png")
    with pytest.warns(GradCAMWarning, match="the transform cuts the object off"):
        assert ProbeSet.from_folder(tmp_path, TRANSFORM, masks="auto").masks is None


def test_an_object_that_fills_the_crop_is_left_out(bright, tmp_path):
    (tmp_path / "cat").mkdir()
    to_picture(square(2, 22, 36, (40, 80))).save(tmp_path / "cat" / "a.png")
    with pytest.warns(GradCAMWarning, match="after the transform the object fills 81 %, more than 60 %"):
        assert ProbeSet.from_folder(tmp_path, TRANSFORM, masks="auto").masks is None


def test_masks_of_a_dataset_are_made_of_its_files(bright, folder):
    (folder / "cat" / "0.mask.png").unlink()
    probe = ProbeSet.from_dataset(ImageFolder(folder, TRANSFORM), 1, masks="auto")
    assert bright.seen == [(80, 40)] * 2
    assert all(overlap(mask, image[0] > 0.5) > 0.9 for mask, image in zip(probe.masks, probe.images, strict=True))


def test_masks_of_a_split_are_made_of_the_files_of_the_dataset_inside(bright, folder):
    class Split(torch.utils.data.Dataset):
        def __init__(self, subset):
            self.subset, self.transform = subset, TRANSFORM

        def __len__(self):
            return len(self.subset)

        def __getitem__(self, index):
            image, label = self.subset[index]
            return self.transform(image), label

    (folder / "cat" / "0.mask.png").unlink()
    data = ImageFolder(folder)
    probe = ProbeSet.from_dataset(Split(torch.utils.data.Subset(data, range(len(data)))), 1, masks="auto")
    assert bright.seen == [(80, 40)] * 2
    assert all(overlap(mask, image[0] > 0.5) > 0.9 for mask, image in zip(probe.masks, probe.images, strict=True))


def test_a_dataset_that_does_more_than_its_transform_has_masks_of_its_own_images(bright, folder):
    class Flipped(ImageFolder):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image.flip(-1), label

    (folder / "cat" / "0.mask.png").unlink()
    probe = ProbeSet.from_dataset(Flipped(folder, TRANSFORM), 1, masks="auto")
    assert bright.seen == [(20, 20)] * 2
    assert torch.equal(probe.masks, probe.images[:, 0] > 0.5)


def write_box(folder, name, x1, y1, x2, y2):
    """Write a box in YOLO's format beside a photograph of 80 x 40 pixels."""
    numbers = ((x1 + x2) / 160, (y1 + y2) / 80, (x2 - x1) / 80, (y2 - y1) / 40)
    (folder / name).write_text("0 " + " ".join(f"{number:.6f}" for number in numbers) + "\n")


def test_boxes_beside_photographs_are_prompts_only_with_automatic_masks(bright, folder):
    write_box(folder, "dog/0.txt", 34, 6, 62, 34)
    write_box(folder, "dog/1.txt", 0, 0, 30, 40)
    plain = ProbeSet.from_folder(folder)
    assert bright.seen == [] and plain.box_masks.tolist() == [False, False, True, True] and plain.has_box_masks
    assert plain.masks[2].sum() == 28 * 28 and plain.proposals is None
    probe = ProbeSet.from_folder(folder, masks="auto")
    assert bright.seen == [(80, 40), (28 + 2 * 7, 40), (38, 40)], "a quarter more on each side, in the photograph"
    assert torch.equal(probe.masks[2], probe.images[2, 0] > 0.5) and probe.proposals[2].doubt is None
    assert torch.equal(probe.masks[3], plain.masks[3]) and 3 not in probe.proposals, "nothing in it is bright"
    assert probe.box_masks.tolist() == [False, False, False, True] and probe.has_automatic_masks
    steps = ProbeSet.from_folder(folder, TRANSFORM, masks="auto")
    assert overlap(steps.masks[2], steps.images[2, 0] > 0.5) > 0.9


def test_outlines_are_no_prompts_and_all_boxes_of_a_photograph_must_be_good(bright, folder):
    write_box(folder, "dog/0.txt", 34, 6, 62, 34)
    with open(folder / "dog" / "0.txt", "a") as file:
        file.write("0 0 0 0.1 0 0.1 0.1 0 0.1\n")
    (folder / "dog" / "1.txt").write_text("0 0.2 0.2 0.6 0.2 0.6 0.9 0.2 0.9\n")
    probe = ProbeSet.from_folder(folder, masks="auto")
    assert not probe.has_box_masks and set(probe.proposals) == {1, 2}
    assert torch.equal(probe.masks[2, 10:], probe.images[2, 0, 10:] > 0.5) and probe.masks[2, :4, :8].all()
    write_box(folder, "dog/0.txt", 34, 6, 62, 34)
    with open(folder / "dog" / "0.txt", "a") as file:
        file.write("0 0.1 0.5 0.1 0.1\n")
    probe = ProbeSet.from_folder(folder, masks="auto")
    assert probe.box_masks.tolist() == [False, False, True, False] and probe.masks[2].sum() == 28 * 28 + 8 * 4


def test_boxes_of_a_dataset_are_prompts_in_its_images(bright):
    images = [square(10, 12, 15), square(5, 5, 20)]
    boxes = [
        tv_tensors.BoundingBoxes([corners], format="XYXY", canvas_size=(40, 40))
        for corners in ([8, 6, 30, 30], [30, 30, 38, 38])
    ]
    data = [(image, i, box) for i, (image, box) in enumerate(zip(images, boxes, strict=True))]
    plain = ProbeSet.from_dataset(data)
    assert bright.seen == [] and plain.box_masks.all()
    probe = ProbeSet.from_dataset(data, masks="auto")
    assert torch.equal(probe.masks[0], images[0][0].bool()) and set(probe.proposals) == {0}
    assert torch.equal(probe.masks[1], plain.masks[1]) and probe.box_masks.tolist() == [False, True]
    assert bright.seen == [(34, 36), (12, 12)]
    # Several classes in an image are no doubt, as the box says which object it is.
    several = [(image, torch.tensor([1.0, 1.0]), box) for image, _, box in data]
    found = ProbeSet.from_dataset(several, masks="auto").proposals
    assert found and all(proposal.doubt is None for proposal in found.values())


def test_items_carry_boxes_and_what_came_of_them():
    """A probe set is made anew where its images go through the hooks of a training."""
    image, mask = square(5, 5, 20), torch.zeros(40, 40, dtype=torch.bool)
    mask[5:30, 5:30] = True
    items = [Item(image, 0, mask, "a", boxed=True), Item(image, 1, [5, 5, 30, 30], "b", proposal=Proposal(mask, None))]
    # A mask in a folder may be automatic, too, though none is asked for.
    probe = make_probe_set(items)
    assert (
        probe.box_masks.tolist() == [True, False] and torch.equal(probe.masks[1], mask) and set(probe.proposals) == {1}
    )


def test_the_network_marks_the_objects_inside_of_boxes(network, large_toys):
    images, _, masks = large_toys
    better, refined = [], 0
    for image, mask in zip(images, masks, strict=True):
        (box,) = masks_to_boxes(mask[None]).tolist()
        corners = (box[0] - 2, box[1] - 2, box[2] + 3, box[3] + 3)
        found = refine_boxes(network, to_picture(image), [corners])
        if found is not None:
            plain = from_boxes(corners, *mask.shape)
            assert not (found & ~plain).any()
            better.append(overlap(found, mask) - overlap(plain, mask))
            refined += 1
    assert refined >= 5 and np.mean(better) > 0.1


def test_another_word_or_a_second_place_is_refused(toys):
    with pytest.raises(ValueError, match="Expected `masks` to be 'auto' or masks, but got 'automatic'"):
        ProbeSet(torch.rand(1, 3, 8, 8), [0], "automatic")
    with pytest.raises(ValueError, match="Expected `masks` to be None or 'auto', but got True"):
        GradCAMCallback(masks=True)
    with pytest.raises(ValueError, match="Pass masks='auto' to the ProbeSet instead"):
        GradCAMCallback(ProbeSet(torch.rand(1, 3, 8, 8), [0]), masks="auto")


def test_without_onnxruntime_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'gradcam-callback\[masks\]'"):
        ProbeSet(torch.rand(1, 3, 8, 8), [0], "auto")


def test_nothing_of_the_extra_is_imported_without_it():
    code = "import sys, gradcam_callback; print('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_the_callback_watches_with_automatic_masks(fit, thin, large_toys, events):
    data = list(zip(large_toys[0], large_toys[1], strict=True))
    callback = GradCAMCallback(target_layers="block5_conv3", masks="auto")
    fit(thin, callback, train_data=data, val_data=data)
    assert callback.probe_set.has_automatic_masks
    assert callback.verdict.basis == "automatic masks" and callback.verdict.lift is not None
    assert "This is measured by automatic masks; look at gradcam/masks." in callback.verdict.evidence
    assert "gradcam/background_gap" in callback.history[-1] and "gradcam/frame_gap" not in callback.history[-1]
    found = events()
    assert [image.step for image in found.Images("gradcam/masks")] == [callback.history[0]["step"]], "once"


class Stream(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


@pytest.mark.judges_more
@pytest.mark.parametrize("streamed", [False, True])
def test_the_callback_replaces_images_with_doubtful_masks(fit, thin, bright, streamed):
    items = photographs([i // 2 % 8 not in (1, 4, 6) for i in range(72)])

    callback = GradCAMCallback(target_layers="block5_conv3", masks="auto")
    fit(thin, callback, train_data=items[:4], val_data=Stream(items) if streamed else items)
    probe = callback.probe_set
    assert probe.has_mask.all() and probe.labels.bincount().tolist() == [3, 3]
    assert probe.verdict_set.has_mask.all() and probe.verdict_set.labels.bincount().tolist() == [12, 12]
    assert len(bright.seen) == 24 + len(probe.replaced) and 0 < len(probe.replaced) <= 24


@pytest.mark.parametrize("shown", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_bars_are_shown_if_the_trainer_shows_its_own(monkeypatch, trainer, thin, bright, shown, streamed):
    bars = {}

    def record(items, **options):
        bars[options["desc"]] = not options["disable"]
        return items

    monkeypatch.setattr(progress, "tqdm", record)
    data = photographs([True] * 4)
    source = DataLoader(Stream(data), 2) if streamed else DataLoader(data, 2)
    callback = GradCAMCallback(target_layers="block5_conv3", masks="auto", views="layer")
    trainer(callback, max_epochs=1, enable_progress_bar=shown).fit(thin, DataLoader(data, 2), source)
    expected = {"your validation data"} if streamed else {"labels of your validation data", "images"}
    assert bars == dict.fromkeys(
        [*(f"GradCAM: reading {what}" for what in expected), "GradCAM: making automatic masks"], shown
    )


def test_automatic_masks_may_suspect_and_never_acquit(thin, bright):
    right, images = torch.ones(32, dtype=torch.bool), torch.arange(32)
    same, other = Swaps(images, images.roll(2)), Swaps(images, images.roll(1))
    of_ground = judge(swap_test(right, images % 2, other, ~right, same, right), [], True, AUTOMATIC_MASKS)
    assert of_ground.suspected and of_ground.headline.startswith("SHORTCUT SUSPECTED: ")
    of_object = judge(swap_test(right, images % 2, other, right, same, right), [], True, AUTOMATIC_MASKS)
    assert of_object.headline.startswith("NO SIGN OF A SHORTCUT, as far as automatic masks can tell: ")
    # A single automatic mask among drawn ones makes them automatic.
    pictures = torch.stack([square(5, 5, 20), square(8, 8, 20)])
    evaluator = Evaluator(GradCAM(thin, "block5_conv3"), ProbeSet(pictures, [0, 1], "auto"))
    assert evaluator.interventions.basis == AUTOMATIC_MASKS


def test_the_sheet_shows_the_mask_bright_and_says_what_was_left_out():
    pixels = np.full((40, 40, 3), 200, np.uint8)
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    cells = [MaskCell("bad", InputImage(pixels, mask), "the network is not sure (25 %)")]
    cells += [MaskCell(f"good-{i}", InputImage(pixels, mask), None) for i in range(6)]
    sheet = np.asarray(mask_sheet("Automatic masks", "note", cells)).astype(int)
    rows, columns = np.nonzero((sheet == WRONG).all(axis=-1))
    left, top = columns.min(), rows.min()
    assert (sheet == CORRECT).all(axis=-1).any()
    side = 184
    assert sheet[top + side // 2, left + side // 2].tolist() == [200] * 3, "the object as it is"
    assert sheet[top + side // 8, left + side // 2].max() < 100, "all else is dim"
    assert len(np.unique(np.nonzero((sheet == CORRECT).all(axis=-1))[0] // 100)) > 2, "in two rows"


@pytest.mark.parametrize("count", [1, 2])
def test_a_sheet_of_few_masks_has_room_for_what_it_says(count):
    pixels = np.zeros((40, 40, 3), np.uint8)
    title, note = (
        "Automatic masks: 1 of 1 used",
        "Bright: what the network takes for the object. " + "It may be wrong. " * 2,
    )
    sheet = mask_sheet(title, note, [MaskCell("a", InputImage(pixels, np.ones((40, 40), bool)), None)] * count)
    assert sheet.width >= 2 * MARGIN + max(line_width(title, TITLE), line_width(note, LABEL))
