"""The pictures of README and docs: the last panels of the runs that `make demo` leaves, and photographs through all
layers. (docs/pictures/study.png is drawn by `make study`.)

python examples/readme_figures.py [--runs runs/demo] [--out docs/pictures]
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from pretrained import WeightsUnavailable, for_classifying
from skimage import data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gradcam_callback.drawing.canvas import Style, encode_jpeg
from gradcam_callback.offline.photographs import draw_sheets, read_photographs

PANELS = {
    "shortcut_layer": ("shortcut", "gradcam/layer/block5_conv3"),
    "clean_layer": ("clean", "gradcam/layer/block5_conv3"),
    "shortcut_probe": ("shortcut", "gradcam/probe/heart-1"),
    "shortcut_depth": ("shortcut", "gradcam/depth_profile"),
    "shortcut_evolution": ("shortcut", "gradcam/evolution/heart-1"),
    "shortcut_counterfactuals": ("shortcut", "gradcam/counterfactuals"),
    "clean_probe": ("clean", "gradcam/probe/heart-1"),
    "clean_depth": ("clean", "gradcam/depth_profile"),
}
PHOTOGRAPHS = ("chelsea", "rocket")


def last_picture(run: Path, tag: str) -> Image.Image:
    """The last picture that a run logged under a tag."""
    events = EventAccumulator(str(run), size_guidance={"images": 0})
    events.Reload()
    return Image.open(io.BytesIO(events.Images(tag)[-1].encoded_image_string))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"))
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    args = parser.parse_args()
    if not (args.runs / "clean").is_dir():
        sys.exit(f"No runs in {args.runs}: run make demo first.")
    args.out.mkdir(parents=True, exist_ok=True)
    for name, (run, tag) in PANELS.items():
        (args.out / f"{name}.jpg").write_bytes(encode_jpeg(last_picture(args.runs / run, tag), quality=80).data)
    try:
        network = for_classifying("demo")
    except WeightsUnavailable as error:
        sys.exit(str(error))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.png" for name in PHOTOGRAPHS]
        for path in paths:
            Image.fromarray(getattr(data, path.stem)()).save(path)
        photographs = read_photographs(paths, network.size, None, network.classes)
        sheet, _, _ = draw_sheets(network.model, photographs, "all", None, Style(80))
    (args.out / "photographs.jpg").write_bytes(encode_jpeg(sheet, quality=80).data)


if __name__ == "__main__":
    main()
