"""Compare the checkpoints of a training that ran without the callback: which of them looks at the object?

    python examples/compare_checkpoints.py CHECKPOINTS --probe PROBE

CHECKPOINTS are files of ``finetune_vgg16.py``, or folders of such files. One checkpoint per epoch tells the most, as
``ModelCheckpoint(save_top_k=-1)`` keeps them. PROBE holds a folder per class with a few photographs. The mask of
``<name>.jpg`` is ``<name>.mask.png``.

The same photographs go through each checkpoint. TensorBoard then shows the images and metrics that the callback would
have logged, and ``focus.html`` the same on one page. The last lines name the checkpoint to keep. This is the checkpoint
that is correct most often if the objects stand on other classes' backgrounds.

For your own models use ``python -m gradcam_callback compare``.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune_vgg16 import FineTuning, transform_for
from torch import nn

from gradcam_callback import ProbeSet, Verdict, find_checkpoints, watch_checkpoints, write_report


def load(checkpoint: Path) -> nn.Module:
    """Load the network of a checkpoint, without the pretrained weights that the training started from."""
    network: nn.Module = FineTuning.load_from_checkpoint(checkpoint, map_location="cpu", weights=None)
    return network


def best(verdicts: Sequence[Verdict | None]) -> int:
    """Return the index of the checkpoint that depends least on the background; the latest of equal checkpoints."""
    accuracies = [(verdict.swap_accuracy if verdict else None) or 0.0 for verdict in verdicts]
    return max(reversed(range(len(accuracies))), key=accuracies.__getitem__)


def percent(entry: Mapping[str, float], tag: str) -> str:
    """Format an accuracy of an entry; ``"-"`` if the entry does not have it."""
    return f"{entry[tag]:.0%}" if tag in entry else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path, help="files, and folders of files")
    parser.add_argument("--probe", type=Path, required=True, help="photographs with masks, see above")
    parser.add_argument("--layers", nargs="+", default=["all"], help="such as: --layers block4 block5_conv3")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels, as in the training")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("runs/compare"), help="folder for TensorBoard and the page"
    )
    args = parser.parse_args()
    try:
        probe = ProbeSet.from_folder(args.probe, transform_for(args.size))
        checkpoints = find_checkpoints(args.checkpoints)
        results = watch_checkpoints(checkpoints, load, probe, args.out, target_layers=args.layers)
        write_report(args.out, args.out / "focus.html", len(results))
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print(f"{'epoch':>5}{'step':>8}{'accuracy':>11}{'own backgrounds':>18}{'other backgrounds':>20}   checkpoint")
    for result in results:
        names = ("probe_accuracy", "swap_control_accuracy", "swap_accuracy")
        accuracy, own, other = (percent(result.entry, f"gradcam/{name}") for name in names)
        found = result.checkpoint
        print(f"{found.epoch:>5}{found.step:>8}{accuracy:>11}{own:>18}{other:>20}   {found.path}")
    kept = results[best([result.verdict for result in results])]
    if kept.verdict is not None:
        print(f"\nKeep {kept.checkpoint.path}:\n{kept.verdict.headline}\n{kept.verdict.evidence}")
    folder = shlex.quote(str(args.out))
    print(f"\nOpen TensorBoard:\n\n    tensorboard --logdir {folder}\n")


if __name__ == "__main__":
    main()
