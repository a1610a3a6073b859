"""Any photographs through the layers of a model, without a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torchvision import transforms
from tqdm import tqdm

from gradcam_callback.drawing.canvas import Style, stack
from gradcam_callback.drawing.panels import LayerPanel, ProbePanel
from gradcam_callback.maps.gradcam import GradCAM, joined
from gradcam_callback.probes.image_files import open_image
from gradcam_callback.probes.probe_set import ProbeSet, make_unique
from gradcam_callback.run.album import captions, inputs

Normalisation = tuple[Sequence[float], Sequence[float]]
IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LAST_ENLARGED = 2


def middle_square(size: int, normalisation: Normalisation | None) -> Callable[[Image.Image], Tensor]:
    """Makes a photograph ``(3, size, size)``: RGB in 0..1, less the mean, over the standard deviation."""

    def fit(picture: Image.Image) -> Image.Image:
        return ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)

    steps: list[Callable[[Any], Any]] = [fit, transforms.ToTensor()]
    whole: Callable[[Image.Image], Tensor] = transforms.Compose(
        steps if normalisation is None else [*steps, transforms.Normalize(*normalisation)]
    )
    return whole


def read_photographs(
    paths: Sequence[Path], size: int, normalisation: Normalisation | None, classes: Sequence[str] | None = None
) -> ProbeSet:
    """The `middle_square` of each. Their labels are not known, and mean nothing.

    Args:
        classes: names by index; None calls them by their numbers.

    Raises:
        ValueError: one that cannot be read, by its name.
    """
    transform = middle_square(size, normalisation)
    images = torch.stack([transform(open_image(path, "RGB")) for path in tqdm(paths, "photographs", disable=None)])
    mean, std = normalisation or (None, None)
    names = make_unique([path.stem for path in paths])
    return ProbeSet(images, [0] * len(images), names=names, class_names=classes, mean=mean, std=std)


def draw_sheets(
    model: nn.Module,
    photographs: ProbeSet,
    layers: str | Sequence[str],
    target: int | None,
    style: Style,
    reshape_transform: str | None = None,
) -> tuple[Image.Image, str, Image.Image]:
    """Each photograph through every layer; the name of the last layer, and all photographs at it.

    Args:
        target: the class to explain; None explains the predicted one.
        reshape_transform: see `GradCAM`.

    Raises:
        ValueError: layers that do not resolve, images that the model cannot take, a class or names outside the logits.
    """
    cam = GradCAM(model, layers, reshape_transform=reshape_transform)
    # One by one, which gives the same, so that it can be seen how far it is.
    each = [cam(image[None], target) for image in tqdm(photographs.images, "maps", disable=None)]
    cams = joined(each)
    count = max(2, cams.logits.shape[1])
    if photographs.class_names is not None and len(photographs.class_names) != count:
        came = len(photographs.class_names)
        raise ValueError(f"{came} names of classes came; the network tells {count} classes apart.")
    words = captions(photographs, cams, labelled=False)
    pictures = inputs(photographs)
    maps = {layer: raw.numpy() for layer, raw in cams.maps.items()}
    panel = ProbePanel(pictures, list(maps), style, max_width=None)
    rows = [
        panel.draw(i, {layer: raw[i] for layer, raw in maps.items()}, said)
        for i, said in enumerate(tqdm(words, "panels", disable=None))
    ]
    last = list(maps)[-1]
    enlarged = Style(style.cell * LAST_ENLARGED, style.colormap)
    return stack(rows), last, LayerPanel(pictures, enlarged).draw(last, maps[last], words)
