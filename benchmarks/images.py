"""The cost of the logged images: their time beside that of the maps, and their bytes in a run of 100 epochs.

    python benchmarks/images.py [--epochs 100]

Sixteen photographs of 224 px go through the 13 layers of a trained VGG16, and all views of the maps are drawn. The maps
of an epoch are those of the network, each times a random factor. So every image is drawn and encoded anew, as in a
training.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from pretrained import for_classifying
from pytorch_lightning.loggers import TensorBoardLogger
from skimage import data
from sklearn.datasets import load_sample_image

from gradcam_callback import CAMs, GradCAM, GradCAMCallback, ProbeSet
from gradcam_callback.drawing import encode_gif, encode_jpeg
from gradcam_callback.encoded_image import EncodedImage
from gradcam_callback.run import Album, Evaluation, RunState, Tags, tags
from gradcam_callback.run.logger import FRAME_SECONDS
from gradcam_callback.writers import TensorBoardWriter

IMAGES, SIZE = 16, 224
VIEWS = {"default views": tags.DEFAULT_VIEWS, "all views": tags.VIEWS}


def photographs() -> torch.Tensor:
    """Return ``(16, 3, 224, 224)`` in 0..1: eight photographs, and a part of each, mirrored."""
    arrays = [data.chelsea(), data.coffee(), data.astronaut(), data.rocket(), data.hubble_deep_field(), data.retina()]
    arrays += [load_sample_image("flower.jpg"), load_sample_image("china.jpg")]
    images = []
    for whole in map(Image.fromarray, arrays):
        part = whole.crop((whole.width // 4, whole.height // 4, whole.width, whole.height))
        images += [ImageOps.fit(whole, (SIZE, SIZE)), ImageOps.mirror(ImageOps.fit(part, (SIZE, SIZE)))]
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() / 255


def median_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the median time of a function over some calls, in seconds."""
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
    style = GradCAMCallback().style
    albums = {name: Album(probe, list(cams.maps), style, views) for name, views in VIEWS.items()}
    album, state = albums["all views"], RunState()

    def evaluation(maps: dict[str, torch.Tensor]) -> Evaluation:
        return Evaluation(CAMs(maps, cams.logits, cams.targets, cams.nonfinite), {}, [], None, None)

    def add_entry(epoch: int, maps: dict[str, torch.Tensor]) -> None:
        state.add({"epoch": epoch, "step": epoch}, [0.5] * IMAGES, cams.targets.tolist(), maps)

    def draw_entry(album: Album, maps: dict[str, torch.Tensor]) -> list[tuple[tuple[str, ...], EncodedImage]]:
        drawn = album.entry(evaluation(maps), state, None)
        return [(parts, encode_jpeg(image, style.quality)) for parts, image in drawn]

    add_entry(-1, cams.maps)
    computing = median_seconds(lambda: cam(images), 3)
    for name, of_views in albums.items():
        drawing = median_seconds(partial(draw_entry, of_views, cams.maps))
        print(f"{name}: drawing and encoding / computing an entry: {drawing / computing:.2f} ({drawing:.2f} s)")

    factors = torch.Generator().manual_seed(0)
    counted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        writer, names = TensorBoardWriter(TensorBoardLogger(folder, name="", version="")), Tags()

        def write(parts: tuple[str, ...], image: EncodedImage, step: int) -> None:
            counted[parts[0]] += len(image.data)
            writer.write_image(names(*parts), image, step)

        for epoch in range(epochs):
            maps = {layer: raw * torch.rand(len(raw), 1, 1, generator=factors) ** 2 for layer, raw in cams.maps.items()}
            add_entry(epoch, maps)
            for parts, encoded in draw_entry(album, maps):
                write(parts, encoded, epoch)
            if state.strips_are_due(at_end=epoch == epochs - 1):
                for parts, image in album.strips(state):
                    write(parts, encode_jpeg(image, style.quality), epoch)
        for parts, frames in album.animations(state):
            write(parts, encode_gif(frames, FRAME_SECONDS), epochs)
        writer.flush()
        size = sum(path.stat().st_size for path in Path(folder).glob("events*"))
    print(f"event file after {epochs} epochs: {size / 1e6:.0f} MB")
    for view, count in counted.items():
        print(f"  {view}: {count / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
