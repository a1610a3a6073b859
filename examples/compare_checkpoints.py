"""Look back at a training that nobody watched: which of its checkpoints looks at the object?

    python examples/compare_checkpoints.py CHECKPOINTS --probe PROBE

CHECKPOINTS are files, or folders that hold some, of ``finetune_vgg16.py`` (one for each epoch, such as Lightning's
``ModelCheckpoint(save_top_k=-1)`` keeps, tell the most). PROBE holds a folder per class with a few photographs, and for
each ``<name>.jpg`` its mask ``<name>.mask.png``. All go through each checkpoint: you get the pictures, strips and
figures in TensorBoard that the callback would have logged, a page to mail, and the checkpoint to keep, which is the one
that is right most often when the objects stand on other classes' backgrounds. For models of your own there is
``python -m gradcam_callback compare``.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from finetune_vgg16 import FineTuning, transform_for
from torch import nn

from gradcam_callback import ProbeSet
from gradcam_callback.offline.checkpoints import Look, find_checkpoints, table, watch_checkpoints
from gradcam_callback.offline.report import write_report


def load(checkpoint: Path) -> nn.Module:
    """The network as it was, without asking for the weights that it started from."""
    network: nn.Module = FineTuning.load_from_checkpoint(checkpoint, map_location="cpu", weights=None)
    return network


def best(looks: list[Look]) -> Look:
    """The one whose answers depend least on the background; of equals the latest."""
    return max(reversed(looks), key=lambda look: (look.verdict.swap_accuracy if look.verdict else None) or 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path, help="files, or folders that hold some")
    parser.add_argument("--probe", type=Path, required=True, help="photographs with masks, see above")
    parser.add_argument("--layers", nargs="+", default=["all"], help="such as: --layers block4 block5_conv3")
    parser.add_argument("--size", type=int, default=224, help="side of the images, in pixels, as in the training")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="TensorBoard's files and the page")
    args = parser.parse_args()
    try:
        probe = ProbeSet.from_folder(args.probe, transform_for(args.size))
        checkpoints = find_checkpoints(args.checkpoints)
        looks = watch_checkpoints(checkpoints, load, probe, args.out, target_layers=args.layers)
        write_report(args.out, args.out / "focus.html", len(looks))
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print(table(looks))
    kept = best(looks)
    if kept.verdict is not None:
        print(f"\nKeep {kept.checkpoint.path}:\n{kept.verdict.evidence}")
    print(f"\nSee them:\n\n    tensorboard --logdir {shlex.quote(str(args.out))} --samples_per_plugin images=100\n")


if __name__ == "__main__":
    main()
