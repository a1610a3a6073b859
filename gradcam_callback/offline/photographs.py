"""Draw photographs through the layers of a model, without a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torchvision import transforms
from tqdm import tqdm

from gradcam_callback.drawing import LayerPanel, ProbePanel, Style, stack
from gradcam_callback.exceptions import blame
from gradcam_callback.maps import GradCAM, Reshape, concatenate
from gradcam_callback.probes import ProbeSet, make_unique, open_image
from gradcam_callback.run import caption_maps, input_images

# Mean and standard deviation per channel.
Normalisation = tuple[Sequence[float], Sequence[float]]
IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# The sheet of the last layer shows its overlays so many times larger.
LAST_ENLARGED = 2


def center_crop(size: tuple[int, int], normalisation: Normalisation | None) -> Callable[[Image.Image], Tensor]:
    """Return a transform from an image to ``(3, H, W)``: its central part, RGB in 0..1, then normalised.

    Args:
        size: H and W.
        normalisation: None keeps 0..1.
    """

    def fit(image: Image.Image) -> Image.Image:
        return ImageOps.fit(image, size[::-1], Image.Resampling.BICUBIC)

    steps: list[Callable[[Any], Any]] = [fit, transforms.ToTensor()]
    transform: Callable[[Image.Image], Tensor] = transforms.Compose(
        steps if normalisation is None else [*steps, transforms.Normalize(*normalisation)]
    )
    return transform


def read_photographs(
    paths: Sequence[Path],
    size: tuple[int, int],
    normalisation: Normalisation | None,
    classes: Sequence[str] | None = None,
) -> ProbeSet:
    """Read the central part of each photograph. The labels are unknown, so they mean nothing.

    Args:
        size: height and width in pixels.
        normalisation: mean and std per channel; None keeps 0..1.
        classes: the name of each class by index; None calls them by their numbers.

    Raises:
        ValueError: a file cannot be read, or is a folder.
    """
    folder = next((path for path in paths if path.is_dir()), None)
    if folder is not None:
        raise ValueError(
            f"Expected the files of photographs, but {str(folder)!r} is a folder. Pass its files, such as "
            f"{str(folder / '*.jpg')}."
        )
    transform = center_crop(size, normalisation)
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
    reshape_transform: Reshape | None = None,
) -> tuple[Image.Image, str, Image.Image]:
    """Draw each photograph through every layer, and all photographs at the last layer.

    Args:
        layers: this and ``reshape_transform`` as in `GradCAM`.
        target: the class to explain; None explains the predicted class.

    Returns:
        The sheet of all layers, the name of the last layer, and its sheet.

    Raises:
        ValueError: layers that do not resolve, images that the model cannot take, or a class outside the logits.
    """
    cam = GradCAM(model, layers, reshape_transform=reshape_transform)
    height, width = photographs.images.shape[2:]
    taken = partial(
        blame,
        f"the model to take RGB images of {height} x {width} pixels",
        "Choose their size with --size, and check that --model is the right one.",
    )
    if target is not None:
        with taken():
            n_classes = max(2, cam.predict(photographs.images[:1]).shape[1])
        if not 0 <= target < n_classes:
            raise ValueError(
                f"Expected --target to be a class from 0 to {n_classes - 1}, but got {target}. Correct it."
            )
    with taken():
        # One by one, with the same result, so that the progress bar moves.
        cams = concatenate([cam(image[None], target) for image in tqdm(photographs.images, "maps", disable=None)])
    _check_class_names(photographs, max(2, cams.logits.shape[1]))
    texts = caption_maps(photographs, cams, labelled=False)
    images = input_images(photographs)
    maps = {layer: raw.numpy() for layer, raw in cams.maps.items()}
    panel = ProbePanel(images, list(maps), style, max_width=None)
    rows = [
        panel.draw(i, {layer: raw[i] for layer, raw in maps.items()}, text)
        for i, text in enumerate(tqdm(texts, "panels", disable=None))
    ]
    last = list(maps)[-1]
    enlarged = replace(style, cell=style.cell_size * LAST_ENLARGED)
    return stack(rows), last, LayerPanel(images, enlarged).draw(last, maps[last], texts)


def _check_class_names(photographs: ProbeSet, count: int) -> None:
    names = photographs.class_names
    if names is not None and len(names) != count:
        raise ValueError(
            f"Expected {count} class names, one for each class of the model, but got {len(names)}. Correct --classes."
        )
