"""Photographs through all 13 layers of a VGG16 whose weights need not be found first.

    python examples/layer_panels.py IMAGE... --weights FILE|torchvision|demo --out panel.jpg

Writes two sheets: ``panel.jpg``, each photograph through every layer, heatmap above, overlay below; and
``panel.block5_conv3.jpg``, each photograph under its last layer. For checkpoints of your own there is
``python -m gradcam_callback panel``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pretrained import WeightsUnavailable, for_classifying

from gradcam_callback.drawing.canvas import Style, encode_jpeg
from gradcam_callback.offline.photographs import draw_sheets, read_photographs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--weights", default="demo", help="demo (installed), torchvision (download) or a state dict")
    parser.add_argument("--out", type=Path, default=Path("panel.jpg"))
    parser.add_argument("--classes", help="names by index, comma-separated, where the weights bring none")
    parser.add_argument("--target", type=int, help="class index to explain; the predicted one without")
    parser.add_argument("--colormap", default="inferno", help="'jet' for the classic look")
    args = parser.parse_args()
    try:
        network = for_classifying(args.weights)
        names = network.classes if args.classes is None else [name.strip() for name in args.classes.split(",")]
        photographs = read_photographs(args.images, network.size, None, names)
        rows, last, at_last = draw_sheets(network.model, photographs, "all", args.target, Style(112, args.colormap))
    except (WeightsUnavailable, OSError, ValueError) as error:
        sys.exit(str(error))
    for path, sheet in ((args.out, rows), (args.out.with_name(f"{args.out.stem}.{last}.jpg"), at_last)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_jpeg(sheet, quality=90).data)
        print(path)


if __name__ == "__main__":
    main()
