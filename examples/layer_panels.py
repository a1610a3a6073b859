"""Draw photographs through all 13 layers of a pretrained VGG16: heatmap above, overlay below.

    python examples/layer_panels.py IMAGE... --weights FILE|torchvision|demo --out panel.jpg

A few lines of `GradCAM`, `overlay` and matplotlib draw every layer of each photograph. For your own checkpoints
use ``python -m gradcam_callback panel``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from pretrained import WeightsUnavailable, for_classifying
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from gradcam_callback import CAMs, GradCAM, overlay

# The width of one image, and the height of the two rows of one photograph with their titles, in inches.
COLUMN, ROWS = 1.3, 3.1


def read(path: Path, size: int) -> Tensor:
    """Read the central square of a photograph as ``(3, size, size)`` in 0..1."""
    upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    pixels: Tensor = to_tensor(ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC))
    return pixels


def draw(images: Tensor, cams: CAMs, titles: list[str], colormap: str) -> Figure:
    """Draw each image with a column per layer.

    Args:
        images: ``(N, 3, H, W)`` in 0..1.
        cams: the maps of these images.
        titles: one per image.
        colormap: one of matplotlib's.
    """
    figure = Figure(figsize=(COLUMN * (len(cams.maps) + 1), ROWS * len(images)), layout="constrained")
    for part, i in zip(figure.subfigures(len(images), squeeze=False)[:, 0], range(len(images)), strict=True):
        part.suptitle(titles[i])
        axes = part.subplots(2, len(cams.maps) + 1)
        axes[0, 0].imshow(images[i].permute(1, 2, 0).numpy())
        for column, (layer, maps) in enumerate(cams.maps.items(), start=1):
            axes[0, column].set_title(layer, fontsize=9)
            axes[0, column].imshow(maps[i].numpy(), colormap, vmin=0)
            axes[1, column].imshow(overlay(images[i], maps[i], colormap))
        for cell in axes.flat:
            cell.set_axis_off()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--weights", default="demo", help="demo (installed), torchvision (download) or a state dict")
    parser.add_argument("-o", "--out", type=Path, default=Path("panel.jpg"))
    parser.add_argument("--classes", help="class names by index, comma-separated; default: those of the weights")
    parser.add_argument("--target", type=int, help="class index to explain; default: the predicted class")
    parser.add_argument(
        "--colormap",
        default="inferno",
        choices=sorted(matplotlib.colormaps),
        metavar="NAME",
        help="one of matplotlib's; jet for the classic look",
    )
    args = parser.parse_args()
    try:
        network = for_classifying(args.weights)
        images = torch.stack([read(path, network.size) for path in args.images])
        cams = GradCAM(network.model)(images, args.target)
    except (WeightsUnavailable, OSError, ValueError) as error:
        sys.exit(str(error))
    names = network.classes if args.classes is None else [name.strip() for name in args.classes.split(",")]
    if len(names) != cams.logits.shape[1]:
        sys.exit(
            f"Expected {cams.logits.shape[1]} class names, one per logit, but got {len(names)}. Correct --classes."
        )
    probabilities, predicted = cams.logits.softmax(dim=1).max(dim=1)
    titles = [
        f"{path.name}: {names[label]} {probability:.0%}"
        for path, label, probability in zip(args.images, predicted.tolist(), probabilities.tolist(), strict=True)
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw(images, cams, titles, args.colormap).savefig(args.out, dpi=100)
    print(args.out)


if __name__ == "__main__":
    main()
