"""Any photographs through all 13 layers of a VGG16: heatmap above, overlay below, a column per layer.

    python examples/layer_panels.py IMAGE... --weights FILE|torchvision|demo --out panel.jpg

Writes two sheets: ``panel.jpg``, each photograph through every layer, and ``panel.block5_conv3.jpg``, each photograph
under its last layer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from pretrained import Classifier, WeightsUnavailable, for_classifying

from gradcam_callback import GradCAM, ProbeSet
from gradcam_callback.answers import class_probability, predicted_class
from gradcam_callback.canvas import Style, encode_jpeg, stack
from gradcam_callback.panels import inputs
from gradcam_callback.render import Caption, LayerPanel, ProbePanel

LAST = "block5_conv3"


def load(path: Path, size: int) -> torch.Tensor:
    """A photograph's middle square, ``(3, size, size)`` in 0..1."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    square = ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255


def draw(
    paths: Sequence[Path], network: Classifier, target: int | None, style: Style
) -> tuple[Image.Image, Image.Image]:
    """Both sheets: all layers, and each photograph under the last one."""
    images = torch.stack([load(path, network.size) for path in paths])
    cams = GradCAM(network.model)(images, target)
    predicted = predicted_class(cams.logits)
    sure, explained = class_probability(cams.logits, predicted), class_probability(cams.logits, cams.targets)
    captions = [
        Caption(
            path.stem,
            None,
            network.classes[int(predicted[i])],
            None,
            float(sure[i]),
            network.classes[int(cams.targets[i])],
            float(explained[i]),
        )
        for i, path in enumerate(paths)
    ]
    pictures = inputs(ProbeSet(images, [0] * len(images)))
    maps = {layer: raw.numpy() for layer, raw in cams.maps.items()}
    panel = ProbePanel(pictures, list(maps), style, max_width=None)
    rows = [panel.draw(i, {layer: raw[i] for layer, raw in maps.items()}, words) for i, words in enumerate(captions)]
    last = LayerPanel(pictures, Style(style.cell * 2, style.colormap)).draw(LAST, maps[LAST], captions)
    return stack(rows), last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--weights", default="demo", help="demo (installed), torchvision (download) or a state dict")
    parser.add_argument("--out", type=Path, default=Path("panel.jpg"))
    parser.add_argument("--classes", help="names by index, comma-separated, where the weights bring none")
    parser.add_argument("--target", type=int, help="class index to explain; the predicted one without")
    parser.add_argument("--colormap", default="inferno", help="'jet' for the classic look")
    args = parser.parse_args()
    missing = [str(path) for path in args.images if not path.is_file()]
    if missing:
        sys.exit(f"No such image: {', '.join(missing)}.")
    try:
        network = for_classifying(args.weights)
    except WeightsUnavailable as error:
        sys.exit(str(error))
    if args.classes:
        names = [name.strip() for name in args.classes.split(",")]
        if len(names) != len(network.classes):
            sys.exit(f"--classes has {len(names)} names; the network tells {len(network.classes)} classes apart.")
        network = Classifier(network.model, network.size, names)
    try:
        sheets = draw(args.images, network, args.target, Style(112, args.colormap))
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    for path, sheet in zip((args.out, args.out.with_name(f"{args.out.stem}.{LAST}.jpg")), sheets, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_jpeg(sheet, quality=90).data)
        print(path)


if __name__ == "__main__":
    main()
