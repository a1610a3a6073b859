"""Without masks, the frame around the centre of the images is exchanged, and no more is claimed than that tells."""

import pytest
import torch
from conftest import ThinVGG
from torch.utils.data import DataLoader

from gradcam_callback import GradCAM, GradCAMCallback, ProbeSet, ShortcutWarning
from gradcam_callback.measures import FRAME, Swaps, centre_masks, confirms, judge, swap_test
from gradcam_callback.measures.basis import BASES
from gradcam_callback.measures.interventions import KEPT_CENTRE
from gradcam_callback.run import Evaluator
from gradcam_callback.run.interventions import OTHER_CLASS, SAME_CLASS, Interventions

COLOURS = torch.eye(3)[:, :, None, None]


def draw(centres, frames, side=32):
    """Draw images whose centre has the colour of one class, and whose frame has that of another: ``(N, 3, s, s)``."""
    images = COLOURS[torch.tensor(frames)].repeat(1, 1, side, side)
    quarter = side // 4
    images[:, :, quarter:-quarter, quarter:-quarter] = COLOURS[torch.tensor(centres)]
    # No two images are alike.
    return images * torch.linspace(0.8, 1, len(images))[:, None, None, None]


LABELS = [0, 1, 2] * 4


class Reads(ThinVGG):
    """Answers by the colour of one pixel, whatever else there is; its VGG runs along."""

    def __init__(self, row, column):
        super().__init__()
        self.place = row, column

    def forward(self, images):
        return 0.01 * super().forward(images) + 50 * images[:, :, *self.place]


READS_FRAME, READS_CENTRE = (1, 1), (16, 16)


@pytest.fixture
def data():
    return list(zip(draw(LABELS, LABELS), LABELS, strict=True))


@pytest.mark.parametrize("shape", [(32, 48), (60, 20), (33, 33)])
def test_the_centre_is_a_rectangle_of_half_the_image(shape):
    (mask,) = centre_masks(torch.zeros(1, 3, *shape))
    assert float(mask.double().mean()) == pytest.approx(KEPT_CENTRE, abs=0.03) and KEPT_CENTRE == 0.5
    rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
    for places, side in ((rows, shape[0]), (columns, shape[1])):
        assert places.diff().eq(1).all() and abs(int(places[0]) - (side - 1 - int(places[-1]))) <= 1, "in the middle"
    assert mask[rows][:, columns].all(), "without holes"


def test_the_centre_stays_and_the_frame_is_that_of_the_right_class():
    images = draw(LABELS, LABELS)
    tested = Interventions(ProbeSet(images, LABELS), seed=0)
    assert tested.basis == FRAME and tested.sets == (SAME_CLASS, OTHER_CLASS)
    assert tested.numbers.tolist() == list(range(len(LABELS))), "all images take part"
    inside = centre_masks(images[:1])[0]
    for name, same in ((SAME_CLASS, True), (OTHER_CLASS, False)):
        pasted, owners = tested.images_of(name), tested.numbers_of(name)
        assert len(pasted) == 3 * len(images)
        assert torch.equal(pasted[:, :, inside], images[owners][:, :, inside])
        frames = pasted[:, :, 0, 0].argmax(dim=1)
        assert ((frames == torch.tensor(LABELS)[owners]) == same).all()
        assert not (pasted == images[owners]).flatten(1).all(dim=1).any(), "never its own frame"


def scalars_of(place, labels=LABELS):
    probe = ProbeSet(draw(labels, labels), labels)
    evaluator = Evaluator(GradCAM(Reads(*place), "block5_conv3"), probe, by_class=True)
    scalars = evaluator.evaluate().scalars
    assert set(scalars) <= set(evaluator.scalar_names())
    return scalars


def test_the_scalars_tell_a_network_that_reads_the_frame_from_one_that_does_not():
    frame, centre = scalars_of(READS_FRAME), scalars_of(READS_CENTRE)
    names = ("frame_control_accuracy", "frame_accuracy", "frame_gap", "frame_gap_low", "frame_gap_high")
    # Nine images of nine: the exact binomial interval.
    low = 0.025 ** (1 / 9)
    assert [frame[name] for name in names] == pytest.approx([1, 0, 1, low, 1])
    assert [centre[name] for name in names] == pytest.approx([1, 1, 0, low - 1, 1 - low])
    assert frame["frame_accuracy_by_class/class 1"] == 0 and centre["frame_accuracy_by_class/class 1"] == 1
    assert not any(name.startswith(("swap", "background", "foreground", "pasting")) for name in frame)


def test_without_a_second_image_of_a_class_there_is_no_control():
    scalars = scalars_of(READS_FRAME, [0, 1, 2])
    assert scalars["frame_accuracy"] == 0 and "frame_gap" not in scalars and "frame_control_accuracy" not in scalars


def test_images_of_one_class_say_why_nothing_is_known(fit, data):
    callback = GradCAMCallback(ProbeSet(draw([1, 1], [1, 1]), [1, 1]), "block5_conv3")
    fit(Reads(*READS_FRAME), callback, val_data=data, train_data=data, max_epochs=1)
    assert callback.verdict.basis == FRAME and callback.verdict.headline.startswith("NOT KNOWN")
    assert "all of one class" in callback.verdict.evidence


def test_masks_of_one_class_alone_say_what_to_do_if_the_other_shows_no_object(fit, data):
    box = (4, 4, 20, 20)
    probe = ProbeSet(draw([0, 0, 1, 1], [0, 0, 1, 1]), [0, 0, 1, 1], [None, None, box, box])
    callback = GradCAMCallback(probe, "block5_conv3")
    fit(Reads(*READS_FRAME), callback, val_data=data, train_data=data, max_epochs=1)
    assert "Only images of the class 'class 1' have a mask" in callback.verdict.evidence
    assert "If these show no object, leave all masks out: the frame test needs none." in callback.verdict.evidence


def test_a_network_that_reads_the_frame_is_suspected_in_its_second_epoch(fit, data, events):
    callback = GradCAMCallback(target_layers="block5_conv3")
    with pytest.warns(ShortcutWarning, match="the frame of the picture decides") as caught:
        fit(Reads(*READS_FRAME), callback, train_data=data, val_data=data, max_epochs=3)
    assert len([warning for warning in caught if warning.category is ShortcutWarning]) == 1
    verdict = callback.verdict
    assert verdict.suspected and verdict.basis == "frame"
    assert verdict.headline == (
        "SHORTCUT SUSPECTED, the frame of the picture decides: right in 100 % as they are, 100 % in other frames of "
        "their class, 0 % in frames of other classes."
    )
    assert (verdict.probe_accuracy, verdict.control_accuracy, verdict.swap_accuracy) == (1, 1, 0)
    assert (verdict.background_gap, verdict.gap_interval[1]) == (1, 1) and 0.4 < verdict.gap_interval[0] < 1
    assert verdict.lift is None and verdict.layer is None
    assert "The choice of the background" not in verdict.text, "the frame is all that was tried"
    assert "The choice of the frame around the centre of the image decides 100 points" in verdict.evidence
    assert "No masks: whether the background decides is known from the frame only." in verdict.evidence
    assert callback.history[-1]["gradcam/frame_gap"] == 1
    logged = events().Tags()
    assert "gradcam/frame_gap" in logged["scalars"] and "gradcam/verdict" in logged["tensors"]
    assert "gradcam/counterfactuals" in logged["images"] and "gradcam/masks" not in logged["images"]


@pytest.mark.sixteen_images
def test_a_network_that_reads_the_centre_is_neither_accused_nor_acquitted(fit, data):
    callback = GradCAMCallback(target_layers="block5_conv3")
    fit(Reads(*READS_CENTRE), callback, train_data=data, val_data=data)
    verdict = callback.verdict
    assert not verdict.suspected and verdict.background_gap == 0
    assert verdict.headline.startswith("NOT KNOWN, only the frame of the picture was tried and does not decide: ")
    assert "NO SIGN" not in verdict.text


def test_one_epoch_is_no_suspicion_and_the_frame_of_the_epoch_before_counts(fit, data):
    callback = GradCAMCallback(target_layers="block5_conv3")
    fit(Reads(*READS_FRAME), callback, train_data=data, val_data=data, max_epochs=1)
    assert not callback.verdict.suspected and callback.verdict.headline.startswith("POSSIBLE SHORTCUT")
    limits = BASES[FRAME]
    assert confirms(limits.gap.size + 0.01, 0, FRAME) and not confirms(limits.gap.size, 1, FRAME)
    assert confirms(None, limits.drop.size + 0.01, FRAME) and not confirms(None, limits.drop.size, FRAME)


def test_with_masks_there_is_no_frame_test():
    masks = torch.zeros(len(LABELS), 32, 32, dtype=torch.bool)
    masks[:, 10:20, 10:20] = True
    probe = ProbeSet(draw(LABELS, LABELS), LABELS, masks)
    evaluator = Evaluator(GradCAM(Reads(*READS_FRAME), "block5_conv3"), probe)
    assert not any(name.startswith("frame") for name in [*evaluator.evaluate().scalars, *evaluator.scalar_names()])


def test_frames_of_several_labels_come_from_images_without_the_class():
    # Class 0 is in the images 0 and 1, class 1 in 1 and 2, class 2 in 3.
    labels = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]])
    probe = ProbeSet(torch.rand(4, 3, 16, 16), labels)
    other = Interventions(probe, seed=0).counterfactuals.other_class
    for one, donor in zip(other.objects.tolist(), other.donors.tolist(), strict=True):
        assert not probe.present[donor, probe.labels[one]]


def test_scores_without_labels_have_no_frame_test(fit, data):
    callback = GradCAMCallback(target_layers="block5_conv3", target=lambda outputs, index: outputs[:, 0])
    fit(Reads(*READS_CENTRE), callback, train_data=data, val_data=data, max_epochs=1)
    assert callback.verdict is None and not any("frame" in name for name in callback.history[0])


def test_another_frame_alone_may_confuse_the_network():
    right, images = torch.ones(8, dtype=torch.bool), torch.arange(8)
    same, other = Swaps(images, images.roll(2)), Swaps(images, images.roll(1))
    swap = swap_test(right, images % 2, other, ~right, same, ~right)
    verdict = judge(swap, [], confirmed=True, basis=FRAME)
    assert not verdict.suspected and verdict.headline.startswith("UNCLEAR, since another frame alone confuses")
    assert "Another frame alone costs 100 points: the network needs more of the image than its centre" in verdict.text


def test_a_frame_gap_can_be_monitored(fit, data):
    from pytorch_lightning.callbacks import EarlyStopping

    stopping = EarlyStopping("gradcam/frame_gap", mode="min", patience=5)
    fit(Reads(*READS_CENTRE), GradCAMCallback(target_layers="block5_conv3"), stopping, train_data=data, val_data=data)
    assert float(stopping.best_score) == 0


def test_a_loader_of_another_size_of_images_is_fine(fit):
    wide = torch.nn.functional.interpolate(draw(LABELS, LABELS), (32, 56))
    data = DataLoader(list(zip(wide, LABELS, strict=True)), batch_size=6)
    callback = GradCAMCallback(target_layers="block5_conv3")
    fit(Reads(*READS_FRAME), callback, train_data=data.dataset, val_data=data.dataset, max_epochs=1)
    assert callback.history[0]["gradcam/frame_gap"] == 1
