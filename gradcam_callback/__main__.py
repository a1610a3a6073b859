"""``python -m gradcam_callback report RUN_DIR -o focus.html``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gradcam_callback.report import write_report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gradcam_callback")
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report", help="one page of a run, to be opened in any browser or mailed")
    report.add_argument(
        "run", type=Path, metavar="RUN_DIR", help="a TensorBoard run, or a folder of save_dir or save_maps"
    )
    report.add_argument("-o", "--out", type=Path, default=Path("focus.html"))
    report.add_argument(
        "--epochs", type=int, default=12, help="how many to show, evenly spread; more make a larger page"
    )
    args = parser.parse_args()
    try:
        write_report(args.run, args.out, args.epochs)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print(args.out)


if __name__ == "__main__":
    main()
