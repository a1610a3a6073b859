"""The command line: ``python -m gradcam_callback layers | panel | compare | report``."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import matplotlib

from gradcam_callback.drawing import Style, encode_jpeg
from gradcam_callback.maps import RESHAPES, find_vggs
from gradcam_callback.offline import (
    IMAGENET,
    Normalisation,
    center_crop,
    draw_sheets,
    find_checkpoints,
    format_table,
    load_model,
    read_photographs,
    watch_checkpoints,
    write_report,
)
from gradcam_callback.probes import ProbeSet

# The longer side of a heatmap in pixels, and the JPEG quality. These sheets are looked at alone, so both are high.
CELL, QUALITY = 112, 90


def read_normalisation(args: argparse.Namespace) -> Normalisation | None:
    """Return the mean and the standard deviation that ``--normalise`` names."""
    return None if args.normalise == "none" else IMAGENET


def read_classes(args: argparse.Namespace) -> list[str] | None:
    """Return the class names of ``--classes``."""
    return None if args.classes is None else [name.strip() for name in args.classes.split(",")]


def layers(args: argparse.Namespace) -> None:
    """Print the names that ``--layers`` takes."""
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
    """Draw photographs through the layers of a model."""
    photographs = read_photographs(args.images, args.size, read_normalisation(args), read_classes(args))
    model = load_model(args.model, args.checkpoint)
    style = Style(CELL, args.colormap, jpeg_quality=QUALITY)
    all_layers, last, at_last = draw_sheets(model, photographs, args.layers, args.target, style, args.reshape)
    for path, sheet in ((args.out, all_layers), (args.out.with_name(f"{args.out.stem}.{last}.jpg"), at_last)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_jpeg(sheet, style.jpeg_quality).data)
        print(path)


def compare(args: argparse.Namespace) -> None:
    """Run the same probe set through each checkpoint, and write the page."""
    transform = center_crop(args.size, read_normalisation(args))
    probe = ProbeSet.from_folder(args.probe, transform, class_names=read_classes(args))
    results = watch_checkpoints(
        find_checkpoints(args.checkpoints),
        lambda path: load_model(args.model, path),
        probe,
        args.out,
        target_layers=args.layers,
        reshape_transform=args.reshape,
    )
    write_report(args.out, args.out / "focus.html", len(results))
    print(format_table(results))
    last = results[-1]
    if last.verdict is not None:
        print(f"\n{last.checkpoint.path}: {last.verdict.evidence}")
    print(f"\n{args.out / 'focus.html'}")
    print(f"tensorboard --logdir {shlex.quote(str(args.out))} --samples_per_plugin images=100")


def report(args: argparse.Namespace) -> None:
    """Write the page of a run."""
    write_report(args.run, args.out, args.epochs, args.prefix)
    print(args.out)


def parse() -> argparse.Namespace:
    """Read the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="python -m gradcam_callback", description="Grad-CAM without a training.")
    commands = parser.add_subparsers(dest="command", required=True)
    checkpoint, model, images = _checkpoint_arguments(), _model_arguments(), _image_arguments()

    command = commands.add_parser(
        "layers", parents=[checkpoint, model], help="print the names that --layers and target_layers take"
    )
    command.set_defaults(run_command=layers)

    command = commands.add_parser(
        "panel", parents=[checkpoint, model, images], help="draw photographs through the layers of a model"
    )
    command.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    command.add_argument("--target", type=int, help="the index of the class to explain (default: the predicted class)")
    command.add_argument(
        "--colormap",
        choices=sorted(matplotlib.colormaps),
        default=Style.colormap,
        metavar="NAME",
        help="one of matplotlib's; jet for the classic look",
    )
    command.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("panel.jpg"),
        help="the sheet of all layers; <out>.<last layer>.jpg beside it shows all photographs at the last layer",
    )
    command.set_defaults(run_command=panel)

    command = commands.add_parser(
        "compare", parents=[model, images], help="run the same probe set through each checkpoint of a training"
    )
    command.add_argument(
        "checkpoints",
        nargs="+",
        type=Path,
        metavar="CHECKPOINT",
        help="files, and folders that hold checkpoints anywhere below them",
    )
    command.add_argument(
        "--probe",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="<class>/<name>.jpg, and if there is a mask, <class>/<name>.mask.png, white on the object",
    )
    command.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("focus"),
        metavar="FOLDER",
        help="becomes a TensorBoard run, with the same images as files and the page focus.html",
    )
    command.set_defaults(run_command=compare)

    command = commands.add_parser("report", help="write one page of a run, to open in a browser or to mail")
    command.add_argument(
        "run", type=Path, metavar="RUN_DIR", help="a TensorBoard run, or a folder of save_dir or save_maps"
    )
    command.add_argument("-o", "--out", type=Path, default=Path("focus.html"))
    command.add_argument(
        "--epochs", type=int, default=12, help="how many epochs to show, evenly spread; more make a larger page"
    )
    command.add_argument("--prefix", help="the tag_prefix of the callback, if several logged (default: the first)")
    command.set_defaults(run_command=report)
    return parser.parse_args()


def _checkpoint_arguments() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="Lightning's checkpoint, or a state dict; without --model, the weights of a VGG of torchvision",
    )
    return parent


def _model_arguments() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--model",
        metavar="MODULE:NAME",
        help="a class, or a function that makes the model: my.models:Net or train.py:Net. A LightningModule needs "
        "saved hyperparameters; any other class is called without arguments",
    )
    return parent


def _image_arguments() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--layers",
        nargs="+",
        default=["all"],
        metavar="LAYER",
        help="such as: block4 block5_conv3; without a VGG: last, or names of modules",
    )
    parent.add_argument("--reshape", choices=sorted(RESHAPES), help="the layout of a transformer's layers")
    parent.add_argument("--size", type=int, default=224, help="side of the model's input, in pixels")
    parent.add_argument(
        "--normalise",
        choices=("imagenet", "none"),
        default="imagenet",
        help="imagenet: by ImageNet's mean and standard deviation, as for torchvision's weights; none: by the model",
    )
    parent.add_argument("--classes", metavar="A,B,...", help="the names of the classes, by their index")
    return parent


def main() -> None:
    """Run a command; print an error that the user can mend without its traceback."""
    args = parse()
    try:
        args.run_command(args)
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
