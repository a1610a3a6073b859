"""What a map explains: a class, a contrast of classes, any number; and outputs that are probabilities."""

from types import SimpleNamespace

import pytest
import torch
from conftest import ThinVGG
from PIL import Image
from torch import nn
from torch.nn import functional

from gradcam_callback import GradCAM, GradCAMCallback, GradCAMWarning, ProbeSet, is_watching
from gradcam_callback.maps import CAMs, predicted_class
from gradcam_callback.maps.probabilities import LINEAR, PROBABILITIES, UNKNOWN, find_ending
from gradcam_callback.run import Evaluator, caption_maps

LAYERS = ["block4_conv3", "block5_conv3"]
pytestmark = pytest.mark.sixteen_images


def assert_close(found, expected, rtol=1e-6):
    for layer, raw in expected.items():
        torch.testing.assert_close(found[layer], raw, rtol=rtol, atol=rtol * float(raw.max()))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ThinVGG(4).double().eval()


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.rand(5, 3, 64, 64).double()


class Ends(nn.Module):
    """A network with something behind its logits."""

    def __init__(self, network, end):
        super().__init__()
        self.network, self.end = network, end

    def forward(self, images):
        return self.end(self.network(images))


ENDS = {
    "softmax": lambda z: z.softmax(dim=1),
    "log_softmax": lambda z: functional.log_softmax(z, dim=1),
    "sigmoid": torch.sigmoid,
    "a module": nn.Softmax(dim=-1),
    "then float": lambda z: torch.sigmoid(z).float(),
    "then turned": lambda z: torch.stack(torch.sigmoid(z).T.unbind(0), dim=1)[:, [0, 1, 2, 3]],
    "then squeezed and back": lambda z: torch.sigmoid(z).squeeze(0)[None] if len(z) == 1 else torch.sigmoid(z),
}


@pytest.mark.parametrize("scale", [1, 40])
@pytest.mark.parametrize("end", ENDS)
def test_probabilities_are_explained_by_their_logits(network, images, end, scale):
    with torch.no_grad():
        network.classifier[-1].weight *= scale
    model = Ends(network, ENDS[end])
    for targets in (None, [0, 1, 2, 3, 0], "contrast"):
        expected = GradCAM(network, LAYERS)(images, targets)
        # A sigmoid's own answer is the class with the highest logit, too.
        found = GradCAM(model, LAYERS)(images, targets)
        assert found.targets.tolist() == expected.targets.tolist()
        # In float32 the gradient before the function is exact, the probability is not.
        assert_close(found.maps, expected.maps, 1e-5 if end == "then float" else 1e-9)
    logits = found.logits if end.startswith(("sigmoid", "then")) else found.logits - found.logits.logsumexp(1)[:, None]
    own = expected.logits
    own = own if end.startswith(("sigmoid", "then")) else own - own.logsumexp(dim=1)[:, None]
    if scale == 1:
        torch.testing.assert_close(logits.double(), own, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(GradCAM(model, LAYERS).predict(images), found.logits, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("end", [torch.sigmoid, lambda z: torch.sigmoid(z)[:, 0].reshape(-1, 1)])
def test_a_single_probability_is_that_of_class_one(images, end):
    torch.manual_seed(0)
    network = ThinVGG(1).double().eval()
    model = Ends(network, end)
    for target in (0, 1):
        assert_close(GradCAM(model, LAYERS)(images, target).maps, GradCAM(network, LAYERS)(images, target).maps, 1e-9)


def test_no_map_vanishes_because_the_network_is_sure(images):
    torch.manual_seed(0)
    network = ThinVGG(1).float().eval()
    with torch.no_grad():
        network.classifier[-1].weight *= 1e6
    model, images = Ends(network, torch.sigmoid), images.float()
    assert {0.0, 1.0} >= set(model(images).flatten().tolist()), "nothing but 0 and 1"
    cams = GradCAM(model, LAYERS)(images)
    assert cams.logits.isfinite().all() and not cams.nonfinite.any()
    assert_close(cams.maps, GradCAM(network, LAYERS)(images).maps, 1e-5)


def test_contrast_explains_the_difference_to_the_strongest_other_class(network, images):
    cams = GradCAM(network, LAYERS)(images, "contrast")
    logits = network(images)
    best = logits.topk(2, dim=1).indices
    assert cams.targets.tolist() == best[:, 0].tolist()

    def difference(outputs, index):
        return outputs.gather(1, best[index, :1])[:, 0] - outputs.gather(1, best[index, 1:])[:, 0]

    by_hand = GradCAM(network, LAYERS)(images, difference)
    assert_close(cams.maps, by_hand.maps, 1e-9)
    one = GradCAM(network, LAYERS)(images[2:3], "contrast")
    assert_close(one.maps, {layer: raw[2:3] for layer, raw in cams.maps.items()}, 1e-9)
    single = ThinVGG(1).double().eval()
    assert_close(GradCAM(single, LAYERS)(images, "contrast").maps, GradCAM(single, LAYERS)(images).maps, 1e-9)
    with pytest.raises(ValueError, match="to be classes, 'contrast', a callable or None, but got 'label'"):
        GradCAM(network)(images, "label")


def test_a_wrong_prediction_shows_why_the_predicted_class_and_why_the_label(toys, fit, events, tmp_path):
    module = ThinVGG()
    with torch.no_grad():
        module.classifier[-1].bias += torch.tensor([5.0, 0, 0])  # everything is a star
    still = GradCAMCallback(target_layers=LAYERS, target="contrast", views="probe", save_dir=tmp_path / "focus")
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.0)
    fit(module, still, max_epochs=1)
    probe, folder = still.probe_set, tmp_path / "focus" / "probe"
    heights = {}
    for name, label in zip(probe.names, probe.labels.tolist(), strict=True):
        with Image.open(next((folder / name).iterdir())) as panel:
            heights.setdefault(label, set()).add(panel.height)
    (one,), (both,), (same,) = (heights[label] for label in (0, 1, 2))
    assert both == same == 2 * one
    evaluator = Evaluator(GradCAM(module, LAYERS), probe, "contrast")
    evaluation = evaluator.evaluate()
    wrong = [i for i, label in enumerate(probe.labels.tolist()) if label]
    assert sorted(evaluation.rivals) == wrong
    predicted = GradCAM(module, LAYERS)(probe.images, "contrast")
    for i in wrong:
        assert_close(evaluation.rivals[i], {layer: raw[i] for layer, raw in predicted.maps.items()}, 1e-4)
    said = caption_maps(probe, evaluation.cams, contrast=True)
    assert {text.explained for text in said if text.label == "heart"} == {"heart, not star"}
    split = [evaluator.compute_shard(rank, 2) for rank in range(2)]
    assert sorted(evaluator.merge(split).rivals) == wrong


def test_a_callable_knows_its_image(network, images):
    wanted = torch.tensor([3, 1, 2, 0, 3])
    cams = GradCAM(network, LAYERS, chunk_size=2)(
        images, lambda outputs, index: outputs[range(len(index)), wanted[index]]
    )
    expected = GradCAM(network, LAYERS)(images, wanted)
    assert_close(cams.maps, expected.maps, 1e-9)
    torch.testing.assert_close(cams.logits[:, 0], expected.logits[range(5), wanted])
    assert cams.targets.tolist() == [-1] * 5


def test_a_pixel_of_a_segmentation_can_be_explained(images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 2, 1)).double()
    with pytest.raises(ValueError, match=r"a map of logits per image.*output_transform=lambda outputs: outputs.mean"):
        GradCAM(model, "1")(images)
    cams = GradCAM(model, "1")(images, lambda outputs, index: outputs[:, 1, 10, 20])
    weight = model[2].weight[1, :, 0, 0]
    # Only one position has a gradient, so every weight is divided by the number of positions.
    expected = (weight[None, :, None, None] / 64**2 * model[1](model[0](images))).sum(dim=1).relu()
    torch.testing.assert_close(cams.maps["1"], expected.detach())


@pytest.mark.parametrize(
    ("output", "hint"),
    [
        (lambda z: z[:, 0], "output_transform=lambda outputs: outputs.reshape(-1, 1)"),
        (lambda z: z.mean(), "which no output_transform can part"),
        (
            lambda z: z[:, :, None, None].expand(-1, -1, 4, 4),
            "output_transform=lambda outputs: outputs.mean(dim=(2, 3))",
        ),
        (lambda z: z[:, None], "output_transform=lambda outputs: outputs.flatten(1)"),
        (lambda z: (z, z), "output_transform=lambda outputs: outputs[0]"),
        (lambda z: {"logits": z, "loss": 0}, "output_transform=lambda outputs: outputs['logits']"),
        (lambda z: {"n": 5, "kind": z, "size": z[:, :2]}, "output_transform=lambda outputs: outputs['kind']"),
        (lambda z: {"out": z}, "output_transform=lambda outputs: outputs['out']"),
        (lambda z: SimpleNamespace(logits=z), "output_transform=lambda outputs: outputs.logits"),
    ],
)
def test_outputs_of_another_shape_name_a_line_that_works(network, images, output, hint):
    model = Ends(network, output)
    with pytest.raises(ValueError) as caught:
        GradCAM(model, LAYERS)(images)
    assert hint in str(caught.value)
    assert ("Its keys are 'n', 'kind', 'size'." in str(caught.value)) == ("kind" in hint)
    if hint.startswith("output_transform=lambda"):
        transform = eval(hint.partition("=")[2])
        assert GradCAM(model, LAYERS, output_transform=transform)(images).logits.shape[0] == 5


@pytest.mark.parametrize("classes", [1, 4])
def test_a_forward_that_squeezes_is_said_for_a_single_image_too(images, classes):
    model = Ends(ThinVGG(classes).double().eval(), torch.squeeze)
    with pytest.raises(ValueError) as caught:
        GradCAM(model, LAYERS)(images[:1])
    line = f"output_transform=lambda outputs: outputs.reshape(-1, {classes})"
    assert line in str(caught.value)
    transform = eval(line.partition("=")[2])
    for some in (images, images[:1]):
        assert GradCAM(model, LAYERS, output_transform=transform)(some).logits.shape == (len(some), classes)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda outputs, index: outputs, r"one score per image, \(5,\) of floating point, but got shape \(5, 4\)"),
        (lambda outputs, index: outputs["age"], "your `target` to take the outputs shape .* but it raised"),
        (lambda outputs: outputs[:, 0], "but it raised TypeError"),
    ],
)
def test_a_callable_that_is_wrong_is_named(network, images, target, message):
    with pytest.raises(ValueError, match=message):
        GradCAM(network, LAYERS)(images, target)


def test_watching_ends_after_an_error():
    class Fails(ThinVGG):
        def forward(self, images):
            assert is_watching()
            raise LookupError

    with pytest.raises(LookupError):
        GradCAM(Fails())(torch.rand(1, 3, 64, 64))
    assert not is_watching()


def test_a_single_logit_knows_two_classes_of_which_each_is_the_others_contrast(toys):
    images, _, _ = zip(*toys.items[:2], strict=True)
    probe = ProbeSet(torch.stack(images), [0, 1], class_names=["cat", "dog"])
    maps = {"block5_conv3": torch.rand(2, 4, 4)}
    cams = CAMs(maps, torch.tensor([[-1.0], [2.0]]), torch.tensor([0, 1]), torch.zeros(2, dtype=torch.bool))
    said = caption_maps(probe, cams, contrast=True)
    assert [caption.explained for caption in said] == ["cat, not dog", "dog, not cat"]
    assert all(caption.correct for caption in said)


def test_outputs_without_a_graph_do_not_tell_how_they_were_made():
    assert find_ending(torch.rand(2, 3)).kind == UNKNOWN
    outputs = torch.rand(2, 3, requires_grad=True)
    assert find_ending(outputs.sigmoid()).kind != UNKNOWN != find_ending(outputs @ torch.rand(3, 3)).kind


@pytest.mark.parametrize(
    "end",
    [
        lambda z: z[:, 0][:, None],
        lambda z: z[:, 1:],
        lambda z: z[:, [2, 0]],
        lambda z: z.split(1, dim=1)[0],
        lambda z: torch.stack(z.unbind(1)).T.contiguous(),
        lambda z: z[:, :1].expand(-1, 2),
        lambda z: -z,
        lambda z: functional.layer_norm(z, (3,)),
        lambda z: z + nn.Linear(3, 3)(z.relu()),
        lambda z: (z + z.flip(1) @ torch.rand(3, 3)) / 2,
        lambda z: z / 0.07,
        lambda z: z / 2 - torch.rand(3),
        lambda z: torch.cat([z[:, :1], z[:, 1:] * 3], dim=1),
        lambda z: torch.stack([z, z @ torch.rand(3, 3)]).mean(0),
        lambda z: 20 * functional.normalize(z) @ torch.rand(3, 3),
        lambda z: (z @ torch.rand(3, 3)) / z.norm(dim=1, keepdim=True),
        lambda z: functional.cosine_similarity(z[:, None], torch.rand(3, 3)[None], dim=2),
        lambda z: z.relu()[:, :, None].mean(dim=2),
        lambda z: z * z.sigmoid(),
        lambda z: (z[:, :, None] * torch.rand(5)).exp().mean(dim=2).log(),
        lambda z: torch.stack([z.softmax(dim=1), z.flip(1).softmax(dim=1)]).mean(0).log(),
        lambda z: torch.cat([z.sigmoid(), (2 * z).sigmoid()], dim=1).logit(),
    ],
)
def test_logits_of_any_form_are_logits(end):
    logits = nn.Linear(4, 3)(torch.rand(2, 4))
    assert find_ending(end(logits)).kind == LINEAR
    assert find_ending(end(logits).softmax(dim=1)).kind == "softmax"


def test_a_part_of_a_softmax_does_not_tell_its_logits():
    for part in (lambda p: p[:, 1], lambda p: p[:, :2], lambda p: p.gather(1, torch.tensor([[0], [1]]))):
        assert find_ending(part(nn.Linear(4, 3)(torch.rand(2, 4)).softmax(dim=1))).kind == PROBABILITIES


def written_in_place(z):
    outputs = torch.zeros(len(z), z.shape[1])
    for i in range(z.shape[1]):
        outputs[:, i] = z[:, i].sigmoid()
    return outputs


JOINED = {
    "cat": lambda z: torch.cat([one.sigmoid() for one in z.split(1, dim=1)], dim=1),
    "stack": lambda z: torch.stack([one.sigmoid() for one in z.unbind(1)], dim=1),
    "written in place": written_in_place,
    "softmax of pairs": lambda z: torch.stack([torch.stack([one, -one], 1).softmax(1)[:, 0] for one in z.unbind(1)], 1),
    "mean of two": lambda z: (z.softmax(dim=1) + z.flip(1).softmax(dim=1)) / 2,
    "mean of a stack": lambda z: torch.stack([z.softmax(dim=1), z.flip(1).softmax(dim=1)]).mean(0),
    "weighted": lambda z: 0.3 * z.softmax(dim=1) + 0.7 * z.flip(1).sigmoid(),
    "experts": lambda z: z.softmax(dim=1) * z.softmax(dim=1)[:, :1] + z.flip(1).softmax(1) * z.softmax(dim=1)[:, 1:2],
    "scaled": lambda z: z.softmax(dim=1) * 1.0,
    "clamped": lambda z: z.sigmoid().clamp(1e-6, 1 - 1e-6),
    "by hand": lambda z: z.exp() / z.exp().sum(dim=1, keepdim=True),
    "sigmoid by hand": lambda z: 1 / (1 + (-z).exp()),
    "noisy or": lambda z: 1 - (1 - torch.stack([z, z.flip(1)]).sigmoid()).prod(dim=0),
    "at most a half": lambda z: 0.5 - z.sigmoid() * 0.5,
}


@pytest.mark.parametrize("end", JOINED)
def test_probabilities_that_do_not_tell_their_logits_are_explained_as_they_are_and_said(network, images, end):
    """No class has an empty map because another one's function is taken for the end of the whole model."""
    if end == "written in place":
        network, images = network.float(), images.float()
    cam = GradCAM(Ends(network, JOINED[end]), LAYERS)
    with pytest.warns(
        GradCAMWarning, match="returns probabilities whose logits cannot be told.*output_transform=torch"
    ):
        found = [cam(images, 0)]
    found += [cam(images, target) for target in range(1, 4)]
    for target, cams in enumerate(found):
        expected = cam(images, lambda outputs, index, target=target: outputs[:, target])
        assert_close(cams.maps, expected.maps, 1e-5)
        torch.testing.assert_close(cams.logits, cam.model(images).detach())


@pytest.mark.parametrize("join", [torch.stack, torch.cat])
@pytest.mark.parametrize("first", [0, 1])
def test_a_probability_beside_its_rest_to_one_has_the_maps_of_its_logit(images, join, first):
    torch.manual_seed(0)
    network = ThinVGG(1).double().eval()

    def end(z):
        p = z.sigmoid() if join is torch.cat else z.sigmoid()[:, 0]
        return join([p, 1 - p] if first else [1 - p, p], dim=1)

    cam = GradCAM(Ends(network, end), LAYERS)
    for target in (0, 1):
        expected = GradCAM(network, LAYERS)(images, target)
        found = cam(images, 1 - target if first else target)
        assert_close(found.maps, expected.maps, 1e-9)
    torch.testing.assert_close(cam.predict(images)[:, 1 - first], network(images)[:, 0])


def test_small_logits_of_ordinary_heads_are_explained_without_a_word(network, images):
    """All of them lie in 0..1, by chance."""
    for end in (lambda z: (z + z.flip(1)) / 2, lambda z: torch.cat([z[:, :2], z[:, 2:]], 1), lambda z: z * z.sigmoid()):
        model = Ends(network, lambda z, end=end: end(z * 1e-6 + 0.5))
        cams = GradCAM(model, LAYERS)(images, 1)
        assert ((cams.logits > 0) & (cams.logits < 1)).all()


def test_labels_are_checked_once_the_number_of_classes_is_known(thin):
    cam = GradCAM(thin, "block5_conv3")
    cam.check_labels(torch.tensor([99]))
    cam(torch.rand(1, 3, 64, 64), 0)
    with pytest.raises(ValueError, match="99"):
        cam.check_labels(torch.tensor([99]))


def test_with_several_labels_any_of_them_is_right_and_has_no_rival(thin, toys):
    probe = ProbeSet(torch.stack([image for image, _, _ in toys.items[:2]]), torch.tensor([[1, 1, 0], [0, 1, 1]]))
    with torch.no_grad():
        thin.classifier[-1].bias.copy_(torch.tensor([9.0, 8.0, -9.0]))
    evaluation = Evaluator(GradCAM(thin, "block5_conv3"), probe, "contrast").evaluate()
    assert probe.labels.tolist() == [0, 1, 1, 2] and sorted(evaluation.rivals) == [3]


def test_without_a_wrong_prediction_there_are_no_rivals(thin, toys):
    images = torch.stack([image for image, _, _ in toys.items[:2]])
    predicted = predicted_class(GradCAM(thin, "block5_conv3").predict(images))
    evaluator = Evaluator(GradCAM(thin, "block5_conv3"), ProbeSet(images, predicted), "contrast")
    assert evaluator.evaluate().rivals == {}
