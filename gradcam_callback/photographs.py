"""Any photographs through the layers of a model, without a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn

from gradcam_callback.canvas import Style, stack
from gradcam_callback.gradcam import GradCAM
from gradcam_callback.panels import captions, inputs
from gradcam_callback.probe import ProbeSet, told_apart
from gradcam_callback.render import LayerPanel, ProbePanel
from gradcam_callback.sources import open_picture

Normalisation = tuple[Sequence[float], Sequence[float]]
IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LAST_ENLARGED = 2


def read_photographs(
    paths: Sequence[Path], size: int, normalisation: Normalisation | None, classes: Sequence[str] | None = None
) -> ProbeSet:
    """The middle square of each, ``(N, 3, size, size)``: RGB in 0..1, less the mean, over the standard deviation.

    Their labels are not known, and mean nothing.

    Args:
        classes: names by index; None calls them by their numbers.

    Raises:
        ValueError: one that cannot be read, by its name.
    """
    squares = [ImageOps.fit(open_picture(path, "RGB"), (size, size), Image.Resampling.BICUBIC) for path in paths]
    images = torch.from_numpy(np.stack([np.array(square) for square in squares])).permute(0, 3, 1, 2).float() / 255
    mean, std = normalisation or (None, None)
    if mean is not None and std is not None:
        images = (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    names = told_apart([path.stem for path in paths])
    return ProbeSet(images, [0] * len(images), names=names, class_names=classes, mean=mean, std=std)


def draw_sheets(
    model: nn.Module,
    photographs: ProbeSet,
    layers: str | Sequence[str],
    target: int | None,
    style: Style,
) -> tuple[Image.Image, str, Image.Image]:
    """Each photograph through every layer; the name of the last layer, and all photographs at it.

    Args:
        target: the class to explain; None explains the predicted one.

    Raises:
        ValueError: layers that do not resolve, images that the model cannot take, a class or names outside the logits.
    """
    cams = GradCAM(model, layers)(photographs.images, target)
    count = max(2, cams.logits.shape[1])
    if photographs.class_names is not None and len(photographs.class_names) != count:
        came = len(photographs.class_names)
        raise ValueError(f"{came} names of classes came; the network tells {count} classes apart.")
    words = captions(photographs, cams, labelled=False)
    pictures = inputs(photographs)
    maps = {layer: raw.numpy() for layer, raw in cams.maps.items()}
    panel = ProbePanel(pictures, list(maps), style, max_width=None)
    rows = [panel.draw(i, {layer: raw[i] for layer, raw in maps.items()}, said) for i, said in enumerate(words)]
    last = list(maps)[-1]
    enlarged = Style(style.cell * LAST_ENLARGED, style.colormap)
    return stack(rows), last, LayerPanel(pictures, enlarged).draw(last, maps[last], words)
