"""What the pictures cost: time beside that of the maps, and bytes in a run of 100 epochs.

    python benchmarks/pictures.py [--epochs 100]

Sixteen photographs of 224 px through the 13 layers of a real VGG16, with the callback's defaults. The maps of an epoch
are those of the network times a factor of each map's own, so that every picture is drawn and encoded as in a training.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from pretrained import for_classifying
from pytorch_lightning.loggers import TensorBoardLogger
from skimage import data
from sklearn.datasets import load_sample_image

from gradcam_callback import GradCAM, GradCAMCallback, ProbeSet
from gradcam_callback.drawing.canvas import Encoded, encode_gif, encode_jpeg
from gradcam_callback.maps.gradcam import CAMs
from gradcam_callback.run.album import Album
from gradcam_callback.run.evaluate import Evaluation
from gradcam_callback.run.evolution import Evolution
from gradcam_callback.run.journal import FRAME_SECONDS
from gradcam_callback.run.tags import tag
from gradcam_callback.writers.tensorboard import TensorBoardWriter

IMAGES, SIZE = 16, 224


def photographs() -> torch.Tensor:
    """``(16, 3, 224, 224)`` in 0..1: eight photographs, and a part of each, mirrored."""
    whole = [data.chelsea(), data.coffee(), data.astronaut(), data.rocket(), data.hubble_deep_field(), data.retina()]
    whole += [load_sample_image("flower.jpg"), load_sample_image("china.jpg")]
    pictures = []
    for picture in map(Image.fromarray, whole):
        part = picture.crop((picture.width // 4, picture.height // 4, picture.width, picture.height))
        pictures += [ImageOps.fit(picture, (SIZE, SIZE)), ImageOps.mirror(ImageOps.fit(part, (SIZE, SIZE)))]
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).float() / 255


def median_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=100)
    epochs = parser.parse_args().epochs
    network = for_classifying("demo")
    images = photographs()
    probe = ProbeSet(images, [i % 4 for i in range(IMAGES)], class_names=network.classes)
    cam = GradCAM(network.model.to(memory_format=torch.channels_last))
    cams = cam(images)
    defaults = GradCAMCallback()
    album = Album(probe, list(cams.maps), defaults.style)

    def observed(maps: dict[str, torch.Tensor]) -> Evaluation:
        return Evaluation(CAMs(maps, cams.logits, cams.targets, cams.nonfinite), {}, 0, 0.0, None, [], None)

    def draw(evolution: Evolution) -> list[tuple[tuple[str, ...], Encoded]]:
        drawn = album.entry(observed(cams.maps), evolution, None)
        return [(parts, encode_jpeg(picture, defaults.jpeg_quality)) for parts, picture in drawn]

    evolution = Evolution()
    drawing, computing = median_seconds(lambda: draw(evolution)), median_seconds(lambda: cam(images), 3)
    print(f"drawing and encoding one entry / computing its maps: {drawing / computing:.2f} ({drawing:.2f} s)")

    factors = torch.Generator().manual_seed(0)
    counted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        logger = TensorBoardLogger(folder, name="", version="")
        sink = TensorBoardWriter(logger)

        def write(parts: tuple[str, ...], picture: Encoded, step: int) -> None:
            counted[parts[0]] += len(picture.data)
            sink.picture(tag(*parts), picture, step)

        for epoch in range(epochs):
            maps = {layer: raw * torch.rand(len(raw), 1, 1, generator=factors) ** 2 for layer, raw in cams.maps.items()}
            evolution.add(str(epoch), [0.5] * IMAGES, cams.targets.tolist(), maps)
            for parts, picture in album.entry(observed(maps), evolution, None):
                write(parts, encode_jpeg(picture, defaults.jpeg_quality), epoch)
            if evolution.is_due(at_the_end=epoch == epochs - 1):
                for parts, picture in album.strips(evolution):
                    write(parts, encode_jpeg(picture, defaults.jpeg_quality), epoch)
        for parts, frames in album.animations(evolution):
            write(parts, encode_gif(frames, FRAME_SECONDS), epochs)
        sink.flush()
        size = sum(path.stat().st_size for path in Path(folder).glob("events*"))
    print(f"event file after {epochs} epochs: {size / 1e6:.0f} MB")
    for view, count in counted.items():
        print(f"  {view}: {count / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
