"""Checks that are run on this package and on other libraries: the first table of docs/comparison.md.

    python benchmarks/comparison.py [--write docs/comparison.md]

Each library is used as its documentation shows. The network has VGG16's 13 convolutions, in-place ReLUs as in
torchvision, a small head and random weights. The batch has two images of 64 px. tf-explain is for TensorFlow and is not
run: its column was read in its source. bnnr is left out if it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import inspect
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from captum.attr import LayerGradCam
from engine import RELUS
from pytorch_grad_cam import GradCAM as PytorchGradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from reliability import write
from torch import Tensor, nn
from torch.nn import functional
from torchcam.methods import GradCAM as TorchCAM
from torchvision.models.vgg import cfgs, make_layers

from gradcam_callback import GradCAM

LAYERS = [f"features.{i}" for i in RELUS]
LAST_CONVOLUTION, LAST_RELU = "features.28", "features.29"
# Runs a library, and returns the text of its cell.
Check = Callable[["Library"], str]


@dataclass(frozen=True)
class Library:
    """A library that computes Grad-CAM maps.

    Attributes:
        name: in the heading of the table.
        package: its name in the package registry.
        maps: takes a model, dotted names of modules, images and one class per image. Returns the map of each module, as
            raw as the library allows.
        default: takes a model, the name of one module, images, and classes or None. Returns the map with the library's
            defaults.
    """

    name: str
    package: str
    maps: Callable[[nn.Module, Sequence[str], Tensor, list[int]], list[Tensor]]
    default: Callable[[nn.Module, str, Tensor, list[int] | None], Tensor]


def _this_package(model: nn.Module, names: Sequence[str], images: Tensor, classes: list[int]) -> list[Tensor]:
    return list(GradCAM(model, names)(images, classes).maps.values())


def _this_package_default(model: nn.Module, name: str, images: Tensor, classes: list[int] | None) -> Tensor:
    return GradCAM(model, name)(images, classes).maps[name]


def _torchcam(model: nn.Module, names: Sequence[str], images: Tensor, classes: list[int]) -> list[Tensor]:
    with TorchCAM(model, target_layer=list(names)) as cam:
        maps: list[Tensor] = cam(classes, model(images), normalized=False)
    return maps


def _torchcam_default(model: nn.Module, name: str, images: Tensor, classes: list[int] | None) -> Tensor:
    with TorchCAM(model, target_layer=name) as cam:
        maps: list[Tensor] = cam(classes, model(images))
    return maps[0]


def _pytorch_grad_cam(model: nn.Module, names: Sequence[str], images: Tensor, classes: list[int]) -> list[Tensor]:
    return [_pytorch_grad_cam_default(model, name, images, classes) for name in names]


def _pytorch_grad_cam_default(model: nn.Module, name: str, images: Tensor, classes: list[int] | None) -> Tensor:
    targets = None if classes is None else [ClassifierOutputTarget(index) for index in classes]
    with PytorchGradCAM(model=model, target_layers=[model.get_submodule(name)]) as cam:
        return torch.from_numpy(cam(input_tensor=images, targets=targets))


def _captum(model: nn.Module, names: Sequence[str], images: Tensor, classes: list[int]) -> list[Tensor]:
    maps = [
        LayerGradCam(model, model.get_submodule(name)).attribute(images, classes, relu_attributions=True)
        for name in names
    ]
    return [raw[:, 0].detach() for raw in maps]


def _captum_default(model: nn.Module, name: str, images: Tensor, classes: list[int] | None) -> Tensor:
    raw: Tensor = LayerGradCam(model, model.get_submodule(name)).attribute(images, classes)
    return raw[:, 0].detach()


def _bnnr(model: nn.Module, names: Sequence[str], images: Tensor, classes: list[int]) -> list[Tensor]:
    from bnnr import GradCAMExplainer

    # By default it smooths by the first principal component, which is another formula.
    explainer, labels = GradCAMExplainer(eigen_smooth=False), torch.tensor(classes)
    return [torch.from_numpy(explainer.explain(model, images, labels, [model.get_submodule(name)])) for name in names]


def _bnnr_default(model: nn.Module, name: str, images: Tensor, classes: list[int] | None) -> Tensor:
    from bnnr import GradCAMExplainer

    labels: Any = None if classes is None else torch.tensor(classes)
    return torch.from_numpy(GradCAMExplainer().explain(model, images, labels, [model.get_submodule(name)]))


THIS_PACKAGE = Library("gradcam_callback", "gradcam-callback", _this_package, _this_package_default)
LIBRARIES = [
    THIS_PACKAGE,
    Library("torch-cam", "torchcam", _torchcam, _torchcam_default),
    Library("pytorch-grad-cam", "grad-cam", _pytorch_grad_cam, _pytorch_grad_cam_default),
    Library("captum", "captum", _captum, _captum_default),
]
if importlib.util.find_spec("bnnr"):
    LIBRARIES.append(Library("bnnr", "bnnr", _bnnr, _bnnr_default))
else:
    print("bnnr is not installed, so its column is left out. Install the extra `bench`.")


def network() -> nn.Module:
    """Make the network, with the same weights every time."""
    torch.manual_seed(0)
    parts = {
        "features": make_layers(cfgs["D"]),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "dropout": nn.Dropout(0.5),
        "head": nn.Linear(512, 5),
    }
    for module in parts["features"]:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(OrderedDict(parts)).eval()


def images(count: int = 2) -> Tensor:
    """Return ``(count, 3, 64, 64)`` in 0..1."""
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


# The class of each image.
CLASSES = [3, 1]


def reference(model: nn.Module, batch: Tensor, classes: list[int]) -> dict[str, Tensor]:
    """Compute the map of every feature module, without hooks and without in-place operations."""
    outputs: dict[str, Tensor] = {}
    x = batch.clone().requires_grad_()
    for name, module in model.get_submodule("features").named_children():
        x = functional.relu(x) if isinstance(module, nn.ReLU) else module(x)
        outputs[f"features.{name}"] = x
    scores = model.get_submodule("head")(x.mean(dim=(2, 3))).gather(1, torch.tensor(classes)[:, None]).sum()
    gradients = torch.autograd.grad(scores, list(outputs.values()))
    return {
        name: (gradient.mean(dim=(2, 3), keepdim=True) * output).sum(dim=1).relu().detach()
        for (name, output), gradient in zip(outputs.items(), gradients, strict=True)
    }


def same(library: Library, given: Tensor, expected: Tensor) -> bool:
    """Return True if a map is as expected, but for rounding in float32."""
    # These only return stretched maps, so the expected map is stretched by the same function. bnnr calls the other one.
    if library.name in ("pytorch-grad-cam", "bnnr"):
        expected = torch.from_numpy(scale_cam_image(scale_cam_image(expected.numpy(), (64, 64))))
    return given.shape == expected.shape and bool((given - expected).abs().max() <= 1e-3 * expected.max())


def attempt(check: Check, library: Library) -> str:
    """Return the text of a check, or the name of the error that the library raises."""
    try:
        return check(library)
    except Exception as error:
        return f"no: `{type(error).__name__}`"


def yes(condition: bool) -> str:
    """Return ``"yes"`` or ``"no"``."""
    return "yes" if condition else "no"


def at_the_relu(library: Library) -> str:
    """Check the maps at all ReLUs against the reference."""
    model = network()
    given = library.maps(model, LAYERS, images(), CLASSES)
    expected = reference(model, images(), CLASSES)
    return yes(all(same(library, one, expected[name]) for one, name in zip(given, LAYERS, strict=True)))


def at_the_convolution(library: Library) -> str:
    """Check the map of a convolution's own output, which the in-place ReLU then overwrites."""
    model = network()
    (given,) = library.maps(model, [LAST_CONVOLUTION], images(), CLASSES)
    expected = reference(model, images(), CLASSES)
    if same(library, given, expected[LAST_CONVOLUTION]):
        return "yes"
    return "no, that of the ReLU" if same(library, given, expected[LAST_RELU]) else "no, a mixture of both"


def forwards(library: Library) -> str:
    """Count the forwards for the maps of all layers."""
    model, count = network(), 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    model.register_forward_hook(counted)
    library.maps(model, LAYERS, images(), CLASSES)
    return str(count)


def flags(library: Library) -> str:
    """Check if a model in train mode is still in train mode afterwards."""
    model = network().train()
    library.maps(model, [LAST_RELU], images(), CLASSES)
    return yes(all(module.training for module in model.modules()))


def without_dropout(library: Library) -> str:
    """Check if dropout is off, by computing the same map twice."""
    model = network().train()
    first, second = (library.maps(model, [LAST_RELU], images(), CLASSES)[0] for _ in range(2))
    return yes(torch.equal(first, second))


def gradients(library: Library) -> str:
    """Check if every ``.grad`` is unchanged."""
    model = network()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    library.maps(model, [LAST_RELU], images(), CLASSES)
    return yes(all(p.grad is not None and bool((p.grad == 7).all()) for p in model.parameters()))


def hooks_on(model: nn.Module) -> int:
    """Count the hooks on all modules of a model."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def hooks(library: Library) -> str:
    """Count the hooks that are left on the model."""
    model = network()
    library.maps(model, [LAST_RELU], images(), CLASSES)
    return str(hooks_on(model))


def hooks_after_an_error(library: Library) -> str:
    """Count the hooks that are left on the model after its forward has failed."""
    model = network()
    try:
        library.maps(model, [LAST_RELU], torch.rand(2, 4, 64, 64), CLASSES)
    except Exception:
        return str(hooks_on(model))
    raise AssertionError("Expected an error, but the network for three channels took images of four channels.")


def under_no_grad(library: Library) -> str:
    """Check the map inside ``torch.no_grad()``."""
    with torch.no_grad():
        return at_the_relu_of(library, network(), images())


def under_inference_mode(library: Library) -> str:
    """Check the map inside ``torch.inference_mode()``."""
    model, batch = network(), images()
    with torch.inference_mode():
        given = library.maps(model, [LAST_RELU], batch, CLASSES)
    return yes(same(library, given[0], reference(model, batch, CLASSES)[LAST_RELU]))


def frozen(library: Library) -> str:
    """Check the map of a model whose weights are all frozen."""
    model = network().requires_grad_(False)
    try:
        return at_the_relu_of(library, model, images())
    except RuntimeError:
        return f"if the images require gradients: {at_the_relu_of(library, model, images().requires_grad_())}"


def at_the_relu_of(library: Library, model: nn.Module, batch: Tensor) -> str:
    """Check the map of a model at its last ReLU against the reference."""
    given = library.maps(model, [LAST_RELU], batch, CLASSES)
    with torch.enable_grad():
        return yes(same(library, given[0], reference(model, batch, CLASSES)[LAST_RELU]))


def without_class(library: Library) -> str:
    """Check if the map explains the predicted class by default."""
    model = network()
    predicted = model(images()).argmax(dim=1).tolist()
    given = library.default(model, LAST_RELU, images(), None)
    return yes(torch.equal(given, library.default(model, LAST_RELU, images(), predicted)))


def raw_by_default(library: Library) -> str:
    """Describe the values and the size of a map by default."""
    model = network()
    given = library.default(model, LAST_RELU, images(), CLASSES)
    expected = reference(model, images(), CLASSES)[LAST_RELU]
    if given.shape == expected.shape and torch.allclose(given.relu(), expected, rtol=1e-3, atol=1e-6):
        return "raw, the layer's size" if bool((given >= 0).all()) else "raw, signed, the layer's size"
    size = "the layer's size" if given.shape == expected.shape else "the image's size"
    return f"stretched to 0..1, {size}" if 0.99 <= float(given.max()) <= 1 else "neither"


def flat(library: Library) -> str:
    """Describe the map of a class whose logit depends on nothing, so that the map is zero everywhere."""
    model: Any = network()
    nn.init.zeros_(model.head.weight)
    given = library.default(model, LAST_RELU, images(), CLASSES)
    return "NaN" if bool(given.isnan().any()) else "zeros" if not bool(given.any()) else "something else"


def formulas(library: Library) -> str:
    """Count the methods of a library that compute class activation maps; for captum, attributions of any kind."""
    if library is THIS_PACKAGE:
        from gradcam_callback.maps.methods import METHODS

        return str(len(METHODS))
    if library.name == "torch-cam":
        import torchcam.methods

        return str(sum(inspect.isclass(thing) for thing in vars(torchcam.methods).values()))
    if library.name == "pytorch-grad-cam":
        import pytorch_grad_cam
        from pytorch_grad_cam.base_cam import BaseCAM

        # These three refine the maps of another method, so they are no subclasses of its base class.
        others = (pytorch_grad_cam.FinerCAM, pytorch_grad_cam.RefineCAM, pytorch_grad_cam.SESS)
        found = (thing for thing in vars(pytorch_grad_cam).values() if inspect.isclass(thing))
        return str(sum(issubclass(thing, (BaseCAM, *others)) for thing in found))
    if library.name == "bnnr":
        import bnnr.xai

        found = (thing for thing in vars(bnnr.xai).values() if inspect.isclass(thing))
        return str(sum(hasattr(thing, "explain") and not inspect.isabstract(thing) for thing in found))
    import captum.attr
    from captum.attr import Attribution

    found = (thing for thing in vars(captum.attr).values() if inspect.isclass(thing))
    count = sum(issubclass(thing, Attribution) and thing is not Attribution for thing in found)
    return f"{count} attributions"


def mentions(*words: str) -> Check:
    """Make the check if any source file of the installed library has one of the words."""

    def check(library: Library) -> str:
        files = importlib.metadata.files(library.package) or []
        sources = [Path(str(file.locate())) for file in files if file.suffix == ".py"]
        if library is THIS_PACKAGE:
            import gradcam_callback

            # It may be installed from a checkout, and its metadata then lists no files.
            sources = sorted(Path(gradcam_callback.__path__[0]).rglob("*.py"))
        return yes(any(word in source.read_text(encoding="utf-8").lower() for source in sources for word in words))

    return check


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        what: the heading of the row.
        check: makes the cell of each library that is run.
        read: the cell of tf-explain, from its source.
        how: the explanation below the table.
    """

    what: str
    check: Check
    read: str
    how: str


ROWS = [
    Row(
        "Grad-CAM's formula at all 13 ReLUs",
        at_the_relu,
        "no: guided gradients, no final ReLU",
        "All maps are compared with the formula, computed without hooks and in-place operations, to 0.1 % of the map's "
        "maximum. For pytorch-grad-cam, and bnnr which calls it, the reference is stretched and enlarged by the "
        "former's own `scale_cam_image`. bnnr ran with `eigen_smooth=False`, as in all rows but 4, 5 and 6. "
        "tf-explain's guided gradients can be switched off with `use_guided_grads=False`.",
    ),
    Row(
        "Formula at a convolution whose in-place ReLU follows",
        at_the_convolution,
        "-",
        "The layer is `features.28`, and the reference is the convolution's own output. Row 1 shows the way around.",
    ),
    Row(
        "Forwards for the maps of 13 layers",
        forwards,
        "13",
        "A hook on the model counts. pytorch-grad-cam, and so bnnr, needs one object per layer for a map of each "
        "layer. One object for all layers returns their mean.",
    ),
    Row(
        "Values by default",
        raw_by_default,
        "an image, stretched",
        "The map with default options is compared with the reference. torch-cam returns raw maps with "
        "`normalized=False`. captum returns maps without negative values with `relu_attributions=True`. bnnr smooths "
        "by the first principal component.",
    ),
    Row(
        "Map of a class with a constant logit",
        flat,
        "0 / 0, so NaN",
        "The head's weights are zero, so every gradient is zero.",
    ),
    Row(
        "Explains the predicted class by default",
        without_class,
        "no",
        "The map without a class equals the map of the predicted class. bnnr's explainers always take labels.",
    ),
    Row(
        "Train/eval flags unchanged afterwards",
        flags,
        "-",
        "The model is in train mode.",
    ),
    Row(
        "Dropout off if the model is in train mode",
        without_dropout,
        "-",
        "The model is in train mode, with dropout in its head. Its map is computed twice.",
    ),
    Row(
        "`.grad` unchanged afterwards",
        gradients,
        "-",
        "Every `.grad` is set to 7 and compared afterwards.",
    ),
    Row(
        "Hooks left afterwards",
        hooks,
        "uses none",
        "Hooks are counted on all modules, after the `with` block if the library has one. Inside it two libraries have "
        "hooks.",
    ),
    Row(
        "Hooks left after an error in the forward",
        hooks_after_an_error,
        "uses none",
        "The images have four channels, but the network takes three.",
    ),
    Row(
        "Inside `torch.no_grad()`",
        under_no_grad,
        "-",
        "The map is compared with the reference. With torch-cam users call the forward themselves. It was called "
        "inside, too.",
    ),
    Row(
        "Inside `torch.inference_mode()`",
        under_inference_mode,
        "-",
        "The same check. The images were made outside.",
    ),
    Row(
        "All weights frozen",
        frozen,
        "yes",
        "The same check, with `requires_grad=False` for every parameter.",
    ),
    Row(
        "Formulas to choose from",
        formulas,
        "1, and 6 other methods",
        "Classes of the public namespace are counted. bnnr has Grad-CAM, Opti-CAM and three explainers of concepts. "
        "captum's attribute to inputs, layers or neurons.",
    ),
    Row("Mentions TensorBoard", mentions("tensorboard"), "yes", "The source of the installed package has the word."),
    Row("Mentions Lightning", mentions("lightning"), "no", "The same check."),
]


def table() -> str:
    """Run all checks, and format them as Markdown."""
    versions = {library.package: importlib.metadata.version(library.package) for library in LIBRARIES[1:]}
    names = [
        library.name + (f" {versions[library.package]}" if library is not THIS_PACKAGE else "") for library in LIBRARIES
    ]
    lines = [f"| | {' | '.join(names)} | tf-explain 0.3.1, read |", "|---" * (len(names) + 2) + "|"]
    for number, row in enumerate(ROWS, start=1):
        cells = [attempt(row.check, library) for library in LIBRARIES]
        lines.append(f"| {number}. {row.what} | {' | '.join(cells)} | {row.read} |")
        print(lines[-1])
    lines += ["", "How each row was checked:", ""]
    lines += [f"{number}. {row.how}" for number, row in enumerate(ROWS, start=1)]
    torch_version = importlib.metadata.version("torch")
    lines += ["", f"`python benchmarks/comparison.py`, torch {torch_version}, on a CPU."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the table between the markers of a page")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    text = table()
    if args.write:
        write(args.write, "checks", text)


if __name__ == "__main__":
    main()
