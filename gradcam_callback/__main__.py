"""What needs no training: ``python -m gradcam_callback layers | panel | report``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib

from gradcam_callback.canvas import Style, encode_jpeg
from gradcam_callback.layers import find_vggs
from gradcam_callback.loading import load_model
from gradcam_callback.photographs import IMAGENET, draw_sheets, read_photographs
from gradcam_callback.report import write_report

CELL = 112


def layers(args: argparse.Namespace) -> None:
    model = load_model(args.model, args.checkpoint)
    vggs = find_vggs(model)
    for root, names in vggs.items():
        for name, module in names.items():
            dotted = next(path for path, other in model.named_modules() if other is module)
            print(f"{root + '.' if len(vggs) > 1 else ''}{name:<14} {dotted}")
    if not vggs:
        for name, module in model.named_modules():
            if name and not list(module.children()):
                print(name)


def panel(args: argparse.Namespace) -> None:
    classes = None if args.classes is None else [name.strip() for name in args.classes.split(",")]
    photographs = read_photographs(args.images, args.size, None if args.normalise == "none" else IMAGENET, classes)
    model = load_model(args.model, args.checkpoint)
    all_layers, last, at_last = draw_sheets(model, photographs, args.layers, args.target, Style(CELL, args.colormap))
    for path, sheet in ((args.out, all_layers), (args.out.with_name(f"{args.out.stem}.{last}.jpg"), at_last)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_jpeg(sheet, quality=90).data)
        print(path)


def report(args: argparse.Namespace) -> None:
    write_report(args.run, args.out, args.epochs)
    print(args.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gradcam_callback", description="Grad-CAM without a training.")
    commands = parser.add_subparsers(dest="command", required=True)
    models = argparse.ArgumentParser(add_help=False)
    models.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="Lightning's checkpoint, or a state dict; of torchvision's VGG where no --model is given",
    )
    models.add_argument(
        "--model",
        metavar="MODULE:NAME",
        help="the class, or a function that makes the model, as in my.models:Net or "
        "train.py:Net; a LightningModule with saved hyperparameters, or one that needs no arguments",
    )
    command = commands.add_parser("layers", parents=[models], help="the names that --layers and target_layers take")
    command.set_defaults(run_command=layers)

    command = commands.add_parser("panel", parents=[models], help="photographs through the layers of a model")
    command.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    command.add_argument("--layers", nargs="+", default=["all"], metavar="LAYER", help="such as: block4 block5_conv3")
    command.add_argument("--size", type=int, default=224, help="side of the square that the model is given, in pixels")
    command.add_argument(
        "--normalise",
        choices=("imagenet", "none"),
        default="imagenet",
        help="with ImageNet's mean and standard "
        "deviation, as torchvision's weights take images, or not at all, where the model does it itself",
    )
    command.add_argument("--target", type=int, help="the index of the class to explain; the predicted one without")
    command.add_argument("--classes", metavar="A,B,...", help="the names of the classes, by their index")
    command.add_argument(
        "--colormap",
        choices=sorted(matplotlib.colormaps),
        default="inferno",
        metavar="NAME",
        help="any of matplotlib's; jet for the classic look",
    )
    command.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("panel.jpg"),
        help="beside it, <out>.<last layer>.jpg shows all photographs at the last layer",
    )
    command.set_defaults(run_command=panel)

    command = commands.add_parser("report", help="one page of a run, to be opened in any browser or mailed")
    command.add_argument(
        "run", type=Path, metavar="RUN_DIR", help="a TensorBoard run, or a folder of save_dir or save_maps"
    )
    command.add_argument("-o", "--out", type=Path, default=Path("focus.html"))
    command.add_argument(
        "--epochs", type=int, default=12, help="how many to show, evenly spread; more make a larger page"
    )
    command.set_defaults(run_command=report)
    return parser.parse_args()


def main() -> None:
    args = parse()
    try:
        args.run_command(args)
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
