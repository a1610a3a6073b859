"""Make the images of README and docs, from the runs that ``make demo`` leaves and from two photographs.

    python examples/readme_figures.py [--runs runs/demo] [--out docs/pictures]

The Focus tab is photographed in Chromium. ``make study`` draws ``docs/pictures/study.png``.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from PIL import Image
from playwright.sync_api import ViewportSize, sync_playwright
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
# The window of the browser in pixels.
WINDOW: ViewportSize = {"width": 1280, "height": 1060}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


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


def focus_tab(runs: Path) -> Image.Image:
    """Open TensorBoard on the runs of the demo, and take a picture of its Focus tab."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs), "--port", address.rpartition(":")[2]]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_runs(f"{address}/data/plugin/gradcam_focus/runs")
        with sync_playwright() as playwright:
            arguments = ["--no-sandbox", "--disable-gpu"]
            page = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments).new_page(viewport=WINDOW)
            page.goto(address)
            page.get_by_role("tab", name="Focus").click()
            page.wait_for_timeout(8000)
            return Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    finally:
        server.terminate()


def _wait_for_runs(address: str) -> None:
    """Wait until TensorBoard has read both runs, for two minutes at most."""
    for _ in range(240):
        try:
            with urllib.request.urlopen(address) as answer:
                if len(json.load(answer)) == 2:
                    return
        except OSError:
            pass
        time.sleep(0.5)
    sys.exit("Expected TensorBoard to read two runs, but it did not within two minutes. Run make demo again.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"))
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/pictures"))
    args = parser.parse_args()
    if not (args.runs / "clean").is_dir():
        sys.exit(f"Expected the runs of the demo, but {str(args.runs)!r} does not hold them. Run make demo first.")
    if CHROMIUM is None:
        sys.exit("Expected Chromium for the picture of the Focus tab, but there is none. Install it.")
    images = {name: last_image(args.runs / run, tag) for name, (run, tag) in PANELS.items()}
    try:
        images["photographs"] = photographs_through_layers()
    except WeightsUnavailable as error:
        sys.exit(str(error))
    images["focus_tab"] = focus_tab(args.runs)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        image.save(args.out / f"{name}.jpg", "JPEG", quality=QUALITY, optimize=True, progressive=True)


if __name__ == "__main__":
    main()
