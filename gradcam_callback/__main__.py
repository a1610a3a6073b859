"""What needs no training: ``python -m gradcam_callback layers | panel | compare | report``."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import matplotlib

from gradcam_callback.drawing.canvas import Style, encode_jpeg
from gradcam_callback.maps.layers import find_vggs
from gradcam_callback.maps.reshape import RESHAPES
from gradcam_callback.offline.checkpoints import find_checkpoints, table, watch_checkpoints
from gradcam_callback.offline.loading import load_model
from gradcam_callback.offline.photographs import IMAGENET, Normalisation, draw_sheets, middle_square, read_photographs
from gradcam_callback.offline.report import write_report
from gradcam_callback.probes.probe_set import ProbeSet

CELL = 112


def normalisation_of(args: argparse.Namespace) -> Normalisation | None:
    return None if args.normalise == "none" else IMAGENET


def classes_of(args: argparse.Namespace) -> list[str] | None:
    return None if args.classes is None else [name.strip() for name in args.classes.split(",")]


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
    photographs = read_photographs(args.images, args.size, normalisation_of(args), classes_of(args))
    model = load_model(args.model, args.checkpoint)
    all_layers, last, at_last = draw_sheets(
        model, photographs, args.layers, args.target, Style(CELL, args.colormap), args.reshape
    )
    for path, sheet in ((args.out, all_layers), (args.out.with_name(f"{args.out.stem}.{last}.jpg"), at_last)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_jpeg(sheet, quality=90).data)
        print(path)


def compare(args: argparse.Namespace) -> None:
    transform = middle_square(args.size, normalisation_of(args))
    probe = ProbeSet.from_folder(args.probe, transform, class_names=classes_of(args))
    checkpoints = find_checkpoints(args.checkpoints)
    looks = watch_checkpoints(
        checkpoints,
        lambda path: load_model(args.model, path),
        probe,
        args.out,
        target_layers=args.layers,
        reshape_transform=args.reshape,
    )
    write_report(args.out, args.out / "focus.html", len(looks))
    print(table(looks))
    if looks[-1].verdict is not None:
        print(f"\n{looks[-1].checkpoint.path}: {looks[-1].verdict.evidence}")
    print(f"\n{args.out / 'focus.html'}")
    print(f"tensorboard --logdir {shlex.quote(str(args.out))} --samples_per_plugin images=100")


def report(args: argparse.Namespace) -> None:
    write_report(args.run, args.out, args.epochs)
    print(args.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gradcam_callback", description="Grad-CAM without a training.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = argparse.ArgumentParser(add_help=False)
    one.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="Lightning's checkpoint, or a state dict; of torchvision's VGG where no --model is given",
    )
    models = argparse.ArgumentParser(add_help=False)
    models.add_argument(
        "--model",
        metavar="MODULE:NAME",
        help="the class, or a function that makes the model, as in my.models:Net or "
        "train.py:Net; a LightningModule with saved hyperparameters, or one that needs no arguments",
    )
    pictures = argparse.ArgumentParser(add_help=False)
    pictures.add_argument(
        "--layers",
        nargs="+",
        default=["all"],
        metavar="LAYER",
        help="such as: block4 block5_conv3; in other models than VGGs: last, or names of modules",
    )
    pictures.add_argument("--reshape", choices=sorted(RESHAPES), help="what the layers of a transformer give")
    pictures.add_argument("--size", type=int, default=224, help="side of the square that the model is given, in pixels")
    pictures.add_argument(
        "--normalise",
        choices=("imagenet", "none"),
        default="imagenet",
        help="with ImageNet's mean and standard "
        "deviation, as torchvision's weights take images, or not at all, where the model does it itself",
    )
    pictures.add_argument("--classes", metavar="A,B,...", help="the names of the classes, by their index")

    command = commands.add_parser(
        "layers", parents=[one, models], help="the names that --layers and target_layers take"
    )
    command.set_defaults(run_command=layers)

    command = commands.add_parser(
        "panel", parents=[one, models, pictures], help="photographs through the layers of a model"
    )
    command.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    command.add_argument("--target", type=int, help="the index of the class to explain; the predicted one without")
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

    command = commands.add_parser(
        "compare",
        parents=[models, pictures],
        help="the same probe set through each checkpoint of a training that was not watched",
    )
    command.add_argument(
        "checkpoints",
        nargs="+",
        type=Path,
        metavar="CHECKPOINT",
        help="files, or folders that hold some anywhere below",
    )
    command.add_argument(
        "--probe",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="<class>/<name>.jpg, and where there is one its mask <class>/<name>.mask.png, white on the object",
    )
    command.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("focus"),
        metavar="FOLDER",
        help="a TensorBoard run, the same pictures as files, and the page focus.html",
    )
    command.set_defaults(run_command=compare)

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
