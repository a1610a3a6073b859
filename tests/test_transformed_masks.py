"""Masks lie on their objects after any transform of the images, or are left out with the reason."""

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset
from torchvision import transforms, tv_tensors
from torchvision.datasets import ImageFolder

from gradcam_callback import GradCAMWarning, ProbeSet, UserCodeError
from gradcam_callback.saliency import judge_proposal

WIDTH, HEIGHT = 96, 80
BOX = (34, 26, 61, 49)


def photograph(box=BOX, border=14, level=0):
    """Return a mild photograph with a red box, in a border of one level."""
    coarse = np.random.default_rng(0).integers(60, 200, (HEIGHT // 8, WIDTH // 8, 1), dtype=np.uint8)
    pixels = coarse.repeat(8, axis=0).repeat(8, axis=1).repeat(3, axis=2)
    inner = np.full_like(pixels, level)
    inside = slice(border, HEIGHT - border), slice(border, WIDTH - border)
    inner[inside] = pixels[inside]
    image = Image.fromarray(inner)
    image.paste((255, 0, 0), box)
    return image


def boxes():
    return tv_tensors.BoundingBoxes([BOX], format="XYXY", canvas_size=(HEIGHT, WIDTH))


def drawn(box=BOX):
    mask = Image.new("L", (WIDTH, HEIGHT))
    mask.paste(255, box)
    return mask


def write(folder, box=BOX, **options):
    """Write two classes of one photograph, with its mask."""
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        photograph(box, **options).save(folder / name / "a.png")
        drawn(box).save(folder / name / "a.mask.png")
    return folder


class Drawn(Dataset):
    """The photograph with what marks its object, untransformed. Its file is not known."""

    def __init__(self, transform, marks=drawn):
        self.transform, self.marks = transform, marks

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.transform(photograph()), index % 2, self.marks()


def assert_on_red(probe, least=0.85):
    assert probe.has_mask.all()
    for image, mask in zip(probe.images, probe.masks, strict=True):
        redness = image[0] - image[1]
        red = redness > (redness.max() + redness.min()) / 2
        assert (mask & red).sum() / (mask | red).sum() > least, (int(mask.sum()), int(red.sum()))


def standardise(image):
    return (image - image.mean()) / image.std()


def standardise_channels(image):
    return (image - image.mean((1, 2), keepdim=True)) / (image.std((1, 2), keepdim=True) + 1e-7)


def stretch(image):
    return (image - image.min()) / (image.max() - image.min())


TENSOR = [transforms.Resize((60, 60)), transforms.ToTensor()]
SCALINGS = {
    "standardised": [*TENSOR, standardise],
    "standardised, with an epsilon": [*TENSOR, lambda image: (image - image.mean()) / (image.std() + 1e-7)],
    "standardised, with a floor": [*TENSOR, lambda image: (image - image.mean()) / image.std().clamp_min(0.1)],
    "each channel standardised": [*TENSOR, standardise_channels],
    "stretched": [*TENSOR, stretch],
    "stretched to -1": [*TENSOR, lambda image: 1 - 2 * stretch(image), lambda image: -image],
    "cropped and standardised": [transforms.CenterCrop(60), transforms.ToTensor(), standardise],
    "padded and standardised": [transforms.Pad((9, 0, 20, 5), 255), *TENSOR, standardise],
    "at random": [transforms.RandomResizedCrop(60, (0.5, 1)), transforms.RandomHorizontalFlip(), *TENSOR, standardise],
    "normalised": [*TENSOR, transforms.Normalize([0.5], [0.2])],
    "normalised by a negative std": [*TENSOR, transforms.Normalize([0.5], [-0.2]), lambda image: -image],
    "less contrast": [transforms.ColorJitter(contrast=(0.3, 0.3)), *TENSOR],
    "blurred": [transforms.GaussianBlur(5, 2.0), *TENSOR, standardise],
}


@pytest.mark.parametrize("steps", SCALINGS.values(), ids=SCALINGS)
def test_masks_follow_transforms_that_scale_by_the_image_itself(tmp_path, steps):
    transform = transforms.Compose(steps)
    assert_on_red(ProbeSet.from_folder(write(tmp_path), transform))
    assert_on_red(ProbeSet.from_dataset(Drawn(transform)))
    assert_on_red(ProbeSet.from_dataset(Drawn(transform, boxes)))


def test_padding_and_what_is_erased_is_no_mask(tmp_path):
    steps = [transforms.Pad(30), *TENSOR, standardise, transforms.RandomErasing(1, (0.2, 0.2), value="random")]
    probe = ProbeSet.from_folder(write(tmp_path), transforms.Compose(steps))
    assert 0 < probe.masks.float().mean() < 27 * 23 / (156 * 140)
    assert not probe.masks[:, :12].any() and not probe.masks[:, :, :12].any(), "the padding"


def crop_border(image):
    """Crop black borders away, as is done with pictures of the eye."""
    found = image.convert("L").point(lambda level: 255 * (level > 10)).getbbox()
    return image if found is None else image.crop(found)


def crop_letterbox(image):
    rows = np.nonzero(np.asarray(image.convert("L")).max(axis=1) > 10)[0]
    return image.crop((0, int(rows[0]), image.width, int(rows[-1]) + 1)) if len(rows) else image


@pytest.mark.parametrize("crop", [crop_border, crop_letterbox])
@pytest.mark.parametrize("steps", [TENSOR, [*TENSOR, standardise], [transforms.ToTensor()]])
def test_masks_follow_a_crop_that_depends_on_the_photograph(tmp_path, crop, steps):
    transform = transforms.Compose([crop, *steps])
    assert_on_red(ProbeSet.from_folder(write(tmp_path), transform), 0.8)
    write(tmp_path / "data")
    for path in (tmp_path / "data").rglob("*.mask.png"):
        path.unlink()

    class WithFiles(ImageFolder):
        def __getitem__(self, index):
            return *super().__getitem__(index), drawn()

    assert_on_red(ProbeSet.from_dataset(WithFiles(tmp_path / "data", transform)), 0.8)


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        # The mask reaches into the border, so that a picture of it is cropped in another way.
        ([crop_border, *TENSOR], {"box": (2, 26, 61, 49), "border": 30}),
        ([lambda image: crop_border(Image.eval(image, lambda v: 255 - v)), *TENSOR], {"level": 255}),
        ([*TENSOR, lambda image: image * 0], {}),
    ],
)
def test_a_mask_that_cannot_follow_its_photograph_is_refused_with_the_reason(tmp_path, steps, options):
    folder = write(tmp_path / "probe", **options)
    if "box" in options:
        for path in folder.rglob("a.png"):
            photograph((34, 34, 60, 46), border=30).save(path)
    with pytest.raises(ValueError, match=r"Cannot use the mask in .*a.mask.png'. Expected the transform to move the"):
        ProbeSet.from_folder(folder, transforms.Compose(steps))


def test_masks_of_a_dataset_that_cannot_follow_are_left_out_with_the_reason():
    transform = transforms.Compose([crop_border, *TENSOR])
    with pytest.warns(GradCAMWarning, match="masks of the dataset are left out.*depends on the image, as") as caught:
        assert ProbeSet.from_dataset(Drawn(transform)).masks is None
    assert len(caught) == 1, "told once, of all items"
    columns = {"objects": {"bbox": [[34, 26, 27, 23]], "category": [0]}, "width": WIDTH, "height": HEIGHT}

    class Rows(Drawn):
        def __getitem__(self, index):
            return {"pixel_values": self.transform(photograph()), "label": index % 2, **columns}

    with pytest.warns(GradCAMWarning, match="masks of the dataset are left out.*depends on the image, as"):
        assert ProbeSet.from_dataset(Rows(transform)).masks is None
    assert_on_red(ProbeSet.from_dataset(Rows(transforms.Compose([*TENSOR, standardise]))))


def test_coco_follows_a_crop_that_depends_on_the_photograph(tmp_path):
    photograph().save(tmp_path / "a.png")
    x1, y1, x2, y2 = BOX
    (tmp_path / "a.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
                "categories": [{"id": 1, "name": "cat"}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}],
            }
        )
    )
    transform = transforms.Compose([crop_border, *TENSOR, standardise])
    assert_on_red(ProbeSet.from_coco(tmp_path / "a.json", tmp_path, transform), 0.8)
    wrong = transforms.Compose([*TENSOR, lambda image: image * 0])
    with pytest.raises(ValueError, match=r"Cannot use the mask in .*a.json'. Expected the transform to move"):
        ProbeSet.from_coco(tmp_path / "a.json", tmp_path, wrong)


class Red:
    """Marks what is red in a photograph, and all that is bright in anything else."""

    def __call__(self):
        return self

    def propose(self, image):
        pixels = np.asarray(image).astype(int)
        return judge_proposal((pixels[..., 0] - pixels[..., 1] > 120).astype(np.float32))


@pytest.mark.parametrize("crop", [None, crop_border])
def test_automatic_masks_follow_too(tmp_path, monkeypatch, crop):
    monkeypatch.setattr("gradcam_callback.probes.automatic.SaliencyNetwork", Red())
    folder = write(tmp_path)
    for path in folder.rglob("*.mask.png"):
        path.unlink()
    transform = transforms.Compose([*[step for step in [crop] if step], *TENSOR, standardise])
    for probe in (
        ProbeSet.from_folder(folder, transform, masks="auto"),
        ProbeSet.from_dataset(ImageFolder(folder, transform), masks="auto"),
    ):
        assert probe.has_automatic_masks
        assert_on_red(probe, 0.8)


@pytest.mark.filterwarnings("ignore:GradCAM. . of . classes gave fewer")
def test_each_part_of_a_dataset_has_its_own_transform():
    resize = Drawn(transforms.Compose([transforms.Resize((60, 60)), transforms.ToTensor()]))
    crop = Drawn(transforms.Compose([transforms.CenterCrop(60), transforms.ToTensor()]))
    plain = Drawn(None, marks=lambda: drawn().crop((18, 10, 78, 70)))
    plain.__class__ = type("Plain", (Drawn,), {"__getitem__": lambda self, i: (crop[i][0], i % 2, self.marks())})
    nested = ConcatDataset([Subset(ConcatDataset([resize, crop]), [7, 1, 2, 9, 10, 3]), Subset(crop, [4, 5]), plain])
    assert_on_red(ProbeSet.from_dataset(nested, per_class=7))
    assert_on_red(ProbeSet.from_dataset(Subset(nested, [13, 0, 1, 6, 7, 8]), per_class=3))


class OfFiles(ImageFolder):
    """The photographs of a folder with a value behind the label."""

    def __init__(self, folder, transform, value):
        super().__init__(folder, transform, is_valid_file=lambda path: not path.endswith(".mask.png"))
        self.value = value

    def __getitem__(self, index):
        return *super().__getitem__(index), self.value


class InColumns(Drawn):
    """The value is called a mask. The file is not known."""

    def __getitem__(self, index):
        return {"image": self.transform(photograph()), "label": index % 2, "mask": self.marks()}


MARKED = np.asarray(drawn()) > 0
# All are of the size of the photograph, or have one channel more.
FORMS = {
    "bool array": MARKED,
    "bool with a channel": torch.from_numpy(MARKED)[None],
    "bool with a channel behind": MARKED[..., None],
    "bytes of 0 and 1": MARKED.astype(np.uint8),
    "a picture's array, which cannot be written": np.asarray(drawn()),
    "bytes with a channel": torch.from_numpy(MARKED * np.uint8(255))[None],
    "bytes with a channel behind": MARKED[..., None].astype(np.uint8),
    "integers": torch.from_numpy(MARKED).long(),
    "16 bits": MARKED.astype(np.uint16),
    "numbers of 0 and 1": MARKED.astype(np.float32),
    "numbers of 0 and 255": torch.from_numpy(MARKED)[None] * 255.0,
    "torchvision's, with a channel": tv_tensors.Mask(MARKED[None]),
}


@pytest.mark.parametrize("value", FORMS.values(), ids=FORMS)
def test_masks_of_the_photographs_size_follow_the_transform_whatever_their_type(tmp_path, value):
    transform = transforms.Compose([transforms.CenterCrop(60), transforms.ToTensor()])
    write(tmp_path)
    assert_on_red(ProbeSet.from_dataset(OfFiles(tmp_path, transform, value)))
    assert_on_red(ProbeSet.from_dataset(InColumns(transform, lambda: value)))


@pytest.mark.parametrize("form", FORMS)
def test_masks_of_the_images_size_are_taken_whatever_their_type(form):
    data = [(transforms.functional.to_tensor(photograph()), i % 2, FORMS[form]) for i in range(4)]
    assert torch.equal(ProbeSet.from_dataset(data).masks[0], torch.from_numpy(MARKED))


def test_without_a_file_only_black_and_white_is_certainly_a_mask():
    """Zeros and ones that nothing calls a mask may be a table of anything. A picture says what it needs."""
    transform = transforms.Compose([transforms.CenterCrop(60), transforms.ToTensor()])
    assert_on_red(ProbeSet.from_dataset(Drawn(transform, lambda: MARKED * np.uint8(255))))
    with pytest.warns(GradCAMWarning, match=r"item\[2\], ndarray uint8 .*left out as a mask, in 4 of 4.*as bool"):
        assert ProbeSet.from_dataset(Drawn(transform, lambda: MARKED.astype(np.uint8))).masks is None
    assert_on_red(ProbeSet.from_dataset(Drawn(transform, lambda: MARKED)))
    for table in (torch.ones(1, 77).long(), torch.eye(5), np.array([["a", "b"]]), MARKED * 0):
        assert ProbeSet.from_dataset(Drawn(transform, lambda table=table: table)).masks is None


@pytest.mark.parametrize(
    "value",
    [
        np.linspace(0, 1, WIDTH * HEIGHT, dtype=np.float32).reshape(HEIGHT, WIDTH),
        torch.arange(WIDTH * HEIGHT).view(1, HEIGHT, WIDTH) % 7,
        MARKED[1:].astype(np.uint8),
        MARKED[::2, ::2].astype(np.int64),
        MARKED.T * np.uint8(255),
    ],
    ids=["a depth map", "labels", "a row less", "half as large", "turned"],
)
def test_what_may_be_no_mask_is_left_out_with_a_warning(tmp_path, value):
    transform = transforms.Compose([transforms.CenterCrop(60), transforms.ToTensor()])
    levels = r"(of 0, 1|of 0, 255|from 0 to \d)"
    said = rf"item\[2\], .* {levels}, is left out as a mask, in 2 of 2 items. Exp.* classes, give mask > 0\."
    with pytest.warns(GradCAMWarning, match=said) as told:
        assert ProbeSet.from_dataset(OfFiles(write(tmp_path), transform, value)).masks is None
    assert len(told) == 1
    with pytest.warns(GradCAMWarning, match=r"item\[1\]\['mask'\], .* is left out as a mask"):
        data = [(torch.rand(3, 8, 9), {"label": i % 2, "mask": value + 0}) for i in range(2)]
        ProbeSet.from_dataset(data)


def test_a_mask_that_the_transform_cannot_take_alone_is_left_out_with_a_warning(tmp_path):
    """The transform that the dataset names is one of image and mask together, which gets both elsewhere."""

    class Joint(OfFiles):
        def __getitem__(self, index):
            return transforms.functional.to_tensor(self.loader(self.samples[index][0]))[:, :60], index, self.value

    with pytest.warns(GradCAMWarning, match="is left out as a mask"):
        joint = Joint(write(tmp_path), lambda *, image, mask: (image, mask), MARKED.astype(np.uint8))
        assert ProbeSet.from_dataset(joint).masks is None


class DrawsFirst(Drawn):
    """Draws a random number of one generator before its transform."""

    def __init__(self, transform, draw):
        super().__init__(transform)
        self.draw = draw

    def __getitem__(self, index):
        self.draw()
        return super().__getitem__(index)


@pytest.mark.parametrize("draw", [lambda: torch.rand(1), np.random.rand, random.random])
def test_random_steps_that_cannot_be_repeated_leave_masks_out(draw):
    random_crop = transforms.Compose([transforms.RandomCrop(60), transforms.ToTensor()])
    with pytest.warns(GradCAMWarning, match="left out. Expected random steps .* in `dataset.transform` alone"):
        assert ProbeSet.from_dataset(DrawsFirst(random_crop, draw)).masks is None
    assert_on_red(ProbeSet.from_dataset(DrawsFirst(random_crop, lambda: None)))
    fixed = transforms.Compose([transforms.CenterCrop(60), transforms.ToTensor()])
    assert_on_red(ProbeSet.from_dataset(DrawsFirst(fixed, draw)))


def test_a_transform_that_takes_no_image_alone_is_named():
    class Joint(Drawn):
        def __getitem__(self, index):
            return torch.rand(3, 60, 60), index % 2, self.marks()

    def transform(*, image, mask):
        return image, mask

    with pytest.raises(
        UserCodeError, match=r"Expected the transform to take a mask .*raised TypeError.* Give the mask the size of"
    ):
        ProbeSet.from_dataset(Joint(transform))
    with pytest.raises(UserCodeError, match="Expected the transform to take a mask"):
        ProbeSet.from_dataset(Joint(transform, boxes))
