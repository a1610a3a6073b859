"""The command line: ``python -m gradcam_callback layers | panel | compare | report | masks``."""

from __future__ import annotations

import argparse
import io
import os
import shlex
import sys
from pathlib import Path

import matplotlib

from gradcam_callback.drawing import Style
from gradcam_callback.maps import RESHAPES, find_vggs
from gradcam_callback.masking import copy_photographs, mask_automatically, mask_by_hand
from gradcam_callback.offline import (
    IMAGENET,
    Inputs,
    center_crop,
    draw_sheets,
    find_checkpoints,
    format_table,
    load_model,
    read_inputs,
    read_photographs,
    watch_checkpoints,
    write_report,
)
from gradcam_callback.probes import ProbeSet
from gradcam_callback.run import TARGETS, tags
from gradcam_callback.writers import holds_run

# The longer side of a heatmap in pixels, and the JPEG quality. These sheets are looked at alone, so both are high.
CELL, QUALITY = 112, 90
# A JPEG file has no more pixels a side. A sheet of many photographs is longer.
JPEG_LONGEST = 65500
# The side of the images of torchvision's VGGs in pixels.
SIZE = 224
# The photographs that `masks --from` takes of each class.
PER_CLASS = 8


def read_inputs_for(args: argparse.Namespace, checkpoint: Path | None) -> Inputs:
    """Return how to make the images: as the options say, else as the checkpoint says, else as for torchvision's VGGs.

    A checkpoint of a training that the callback watched says it.
    """
    says = None
    if checkpoint is not None and None in (args.size, args.normalise, args.classes):
        try:
            says = read_inputs(checkpoint)
        except ValueError:
            if args.normalise is None:
                raise
    size = (args.size, args.size) if args.size is not None else says.size if says else (SIZE, SIZE)
    if args.normalise is not None:
        normalisation = IMAGENET if args.normalise == "imagenet" else None
    else:
        normalisation = says.normalisation if says else IMAGENET
    if args.classes is not None:
        return Inputs(size, normalisation, [name.strip() for name in args.classes.split(",")])
    return Inputs(size, normalisation, says.class_names if says else None)


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
    photographs = read_photographs(args.images, *read_inputs_for(args, args.checkpoint))
    model = load_model(args.model, args.checkpoint)
    style = Style(CELL, args.colormap, quality=QUALITY)
    all_layers, last, at_last = draw_sheets(model, photographs, args.layers, args.target, style, args.reshape)
    for path, sheet in ((args.out, all_layers), (args.out.with_stem(f"{args.out.stem}.{last}"), at_last)):
        if max(sheet.size) > JPEG_LONGEST:
            path = path.with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, quality=style.quality, optimize=True)
        print(path)


def compare(args: argparse.Namespace) -> None:
    """Run the same probe set through each checkpoint, and write the page."""
    if holds_run(args.out):
        raise ValueError(
            f"Expected --out to be a folder without a run, but {str(args.out)!r} holds another run. Choose another "
            "folder with --out, or delete this one."
        )
    checkpoints = find_checkpoints(args.checkpoints)
    size, normalisation, classes = read_inputs_for(args, checkpoints[-1].path)
    transform = center_crop(size, normalisation)
    # The probe set may show some of the classes only.
    probe = ProbeSet.from_folder(args.probe, transform, masks=args.masks, class_names=classes)
    results = watch_checkpoints(
        checkpoints,
        lambda path: load_model(args.model, path),
        probe,
        args.out,
        target_layers=args.layers,
        target=args.target,
        views=tags.VIEWS if "all" in args.views else args.views,
        style=Style(colormap=args.colormap),
        reshape_transform=args.reshape,
    )
    write_report(args.out, args.out / "focus.html", len(results))
    print(format_table(results))
    last = results[-1]
    if last.verdict is not None:
        print(f"\n{last.checkpoint.path}: {last.verdict.text}")
    print(f"\n{args.out / 'focus.html'}")
    print(f"tensorboard --logdir {shlex.quote(str(args.out))}")


def report(args: argparse.Namespace) -> None:
    """Write the page of one run, or of several."""
    write_report(args.runs, args.out, args.epochs, args.prefix)
    print(args.out)


def masks(args: argparse.Namespace) -> None:
    """Mask photographs on a local page, or automatically."""
    if args.dataset is None and (args.per_class is not None or args.seed is not None):
        raise ValueError(
            "Expected --per-class and --seed beside --from, but got them alone. Add --from DATASET_FOLDER, or leave "
            "them out."
        )
    if args.dataset is not None:
        per_class = PER_CLASS if args.per_class is None else args.per_class
        for line in copy_photographs(args.dataset, args.folder, per_class, args.seed or 0):
            print(line)
    if args.auto:
        for line in mask_automatically(args.folder):
            print(line, flush=True)
    else:
        mask_by_hand(args.folder, not args.no_browser)


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
        "-o",
        "--out",
        type=_read_sheet,
        default=Path("panel.jpg"),
        help="the sheet of all layers, as JPEG or PNG; <out>.<last layer> beside it shows all photographs at the "
        "last layer",
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
        "--masks", choices=("auto",), help="auto: images without a mask get an automatic one (default: none)"
    )
    command.add_argument(
        "--target",
        type=_read_target,
        default="label",
        help="what a map explains: label (the default), predicted, contrast, or the index of a class",
    )
    command.add_argument(
        "--views",
        nargs="+",
        choices=("all", *tags.VIEWS),
        default=tags.DEFAULT_VIEWS,
        metavar="VIEW",
        help=f"the images to write: all, or some of {', '.join(tags.VIEWS)} (default: all but those that the page "
        "shows better)",
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

    command = commands.add_parser("report", help="write one page of some runs, to open in a browser or to mail")
    command.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN_DIR",
        help="a TensorBoard run, or a folder of save_dir or save_maps; several are shown side by side",
    )
    command.add_argument("-o", "--out", type=_read_page, default=Path("focus.html"))
    command.add_argument(
        "--epochs",
        type=_read_count,
        default=12,
        help="how many epochs to show maps of, evenly spread; more make a larger page",
    )
    command.add_argument("--prefix", help="the tag_prefix of the callback, if several logged (default: all)")
    command.set_defaults(run_command=report)

    _add_masks(commands)
    return parser.parse_args()


def _add_masks(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command that masks photographs."""
    command = commands.add_parser("masks", help="mask the photographs of a probe set on a page in the browser")
    command.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="photographs, or one folder per class; it gets <name>.mask.png beside each photograph",
    )
    command.add_argument(
        "--auto", action="store_true", help="without a page: accept all automatic masks that pass the checks"
    )
    command.add_argument(
        "--from",
        dest="dataset",
        type=Path,
        metavar="DATASET_FOLDER",
        help="first copy photographs from here, evenly over its classes; nothing is overwritten",
    )
    command.add_argument(
        "--per-class", type=int, metavar="N", help=f"with --from: how many of each class (default: {PER_CLASS})"
    )
    command.add_argument("--seed", type=int, help="with --from: another seed takes other photographs (default: 0)")
    command.add_argument("--no-browser", action="store_true", help="only print the address of the page")
    command.set_defaults(run_command=masks)


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
    parent.add_argument(
        "--colormap",
        choices=sorted(matplotlib.colormaps),
        default=Style.colormap,
        metavar="NAME",
        help="one of matplotlib's; jet for the classic look",
    )
    parent.add_argument(
        "--size",
        type=_read_count,
        help=f"side of the model's input in pixels (default: as the checkpoint says, else {SIZE})",
    )
    parent.add_argument(
        "--normalise",
        choices=("imagenet", "none"),
        help="imagenet: by ImageNet's mean and standard deviation, as for torchvision's weights; none: by the model "
        "(default: as the checkpoint says, else imagenet)",
    )
    parent.add_argument(
        "--classes", metavar="A,B,...", help="the names of the classes, by their index (default: of the checkpoint)"
    )
    return parent


def _read_count(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number from 1, but got {text!r}; correct it")


def _read_sheet(text: str) -> Path:
    return _read_path(text, ".jpg", ".png", ".jpeg")


def _read_page(text: str) -> Path:
    return _read_path(text, ".html", ".htm")


def _read_path(text: str, *suffixes: str) -> Path:
    if Path(text).suffix.lower() in suffixes:
        return Path(text)
    raise argparse.ArgumentTypeError(
        f"expected a file that ends in {' or '.join(suffixes)}, but got {text!r}; correct it"
    )


def _read_target(text: str) -> str | int:
    if text.isdecimal():
        return int(text)
    if text in TARGETS:
        return text
    raise argparse.ArgumentTypeError(
        f"expected {', '.join(TARGETS)} or the index of a class, but got {text!r}; correct it"
    )


def main() -> None:
    """Run a command; print an error that the user can mend without its traceback."""
    args = parse()
    # Not every terminal or file has the letters of all names.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        args.run_command(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as head, has seen enough. Python would complain once more when it closes the output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ImportError, OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
