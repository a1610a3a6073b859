"""Make the images of README and docs, from the runs that ``make demo`` leaves and from two photographs.

    python examples/readme_figures.py [--runs runs/demo] [--out docs/pictures]

``make study`` draws ``docs/pictures/study.png``.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from pretrained import WeightsUnavailable, for_classifying
from skimage import data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# The name of each figure, its run, and its tag.
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
QUALITY = 80


def last_image(run: Path, tag: str) -> Image.Image:
    """Return the last image that a run logged under a tag."""
    events = EventAccumulator(str(run), size_guidance={"images": 0})
    events.Reload()
    return Image.open(io.BytesIO(events.Images(tag)[-1].encoded_image_string))


def photographs_through_layers() -> Image.Image:
    """Draw the photographs through all layers of the demo's network, with the command line of the package.

    Raises:
        WeightsUnavailable: the demo's weights are not installed.
    """
    network = for_classifying("demo")
    model = f"{Path(__file__).with_name('pretrained.py')}:demo_network"
    options = ["--size", str(network.size), "--normalise", "none", "--classes", ",".join(network.classes)]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.png" for name in PHOTOGRAPHS]
        for path in paths:
            Image.fromarray(getattr(data, path.stem)()).save(path)
        sheet = Path(folder) / "panel.jpg"
        command = [sys.executable, "-m", "gradcam_callback", "panel", *map(str, paths), "--model", model, *options]
        subprocess.run([*command, "--out", str(sheet)], check=True)
        return Image.open(sheet).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"))
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/pictures"))
    args = parser.parse_args()
    if not (args.runs / "clean").is_dir():
        sys.exit(f"Expected the runs of the demo, but {str(args.runs)!r} does not hold them. Run make demo first.")
    images = {name: last_image(args.runs / run, tag) for name, (run, tag) in PANELS.items()}
    try:
        images["photographs"] = photographs_through_layers()
    except WeightsUnavailable as error:
        sys.exit(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        image.save(args.out / f"{name}.jpg", "JPEG", quality=QUALITY, optimize=True, progressive=True)


if __name__ == "__main__":
    main()
