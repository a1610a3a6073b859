"""Measure how well an object is painted out: can a classifier tell painted ground from true ground?

    python benchmarks/painting.py PHOTOGRAPHS [--each 40]

PHOTOGRAPHS holds photographs with masks, as for `ProbeSet.from_folder`: ``<class>/<name>.jpg`` and ``<name>.mask.png``.
On photographs with a small object, the mask of another photograph is laid as a hole. So the true ground below the hole
is known, at the same place in the same photograph. A logistic regression, trained on other photographs, tells painted
from true ground in the features of the pretrained VGG16's block 3. An AUC of 0.5 means that nobody can tell.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pretrained import for_finetuning
from skimage.restoration import inpaint_biharmonic
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional
from torchvision import transforms

from gradcam_callback import ProbeSet
from gradcam_callback.measures import mask_area
from gradcam_callback.measures.inpaint import fill_smoothly, paint_out, widen

SIDE, CELL, REACH, CELLS = 224, 8, 5, 12
# Shares of the image that the hole fills. Scenes are photographs whose own object fills less than the last number.
SIZES, SMALL_OBJECT = (0.08, 0.2, 0.35, 0.5, 0.65, 0.8), 0.22

# Takes an image (3, H, W) in 0..1 and its hole (H, W) bool.
Paint = Callable[[Tensor, Tensor], Tensor]


def _with_opencv(method: int) -> Paint:
    def paint(image: Tensor, hole: Tensor) -> Tensor:
        pixels = (image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        painted = cv2.inpaint(pixels, hole.numpy().astype(np.uint8), 3, method)
        return torch.from_numpy(painted).permute(2, 0, 1).float() / 255

    return paint


def _with_scikit_image(image: Tensor, hole: Tensor) -> Tensor:
    return torch.from_numpy(inpaint_biharmonic(image.numpy(), hole.numpy(), channel_axis=0)).float()


WAYS: dict[str, Paint] = {
    "this package": lambda image, hole: paint_out(image[None], hole[None])[0],
    "smooth, from coarse to fine": lambda image, hole: fill_smoothly(image[None], hole[None])[0],
    "OpenCV, Telea": _with_opencv(cv2.INPAINT_TELEA),
    "OpenCV, Navier-Stokes": _with_opencv(cv2.INPAINT_NS),
    "scikit-image, biharmonic": _with_scikit_image,
}


def _cells(pixels: Tensor) -> Tensor:
    """Return the row and the column of each cell of the features that holds only such pixels."""
    return (functional.max_pool2d((~pixels).float()[None, None], CELL)[0, 0] == 0).nonzero()


def _auc(painted: list[np.ndarray[Any, Any]], true: list[np.ndarray[Any, Any]]) -> float:
    values = np.concatenate([*painted, *true])
    truth = np.repeat([1, 0], len(values) // 2)
    groups = np.tile(np.repeat(np.arange(len(painted)), [len(part) for part in painted]), 2)
    scores = np.zeros(len(values))
    for seen, unseen in GroupKFold(5).split(values, truth, groups):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
        scores[unseen] = model.fit(values[seen], truth[seen]).decision_function(values[unseen])
    return float(roc_auc_score(truth, scores))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--each", type=int, default=40, help="photographs for each size of the hole")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    args = parser.parse_args()
    transform = transforms.Compose([transforms.Resize((SIDE, SIDE)), transforms.ToTensor()])
    probe = ProbeSet.from_folder(args.photographs, transform)
    assert probe.masks is not None
    masks, areas = probe.masks, mask_area(probe.masks)
    network = for_finetuning("demo", 2).eval()
    block3 = nn.Sequential(*list(network.features.children())[:17])

    def features(image: Tensor) -> Tensor:
        found: Tensor = block3((image[None].clamp(0, 1) - network.mean) / network.std)
        return found[0]

    chance = np.random.default_rng(0)
    scenes = ((areas < SMALL_OBJECT) & probe.has_mask).nonzero()[:, 0].numpy()
    # Sizes of which the photographs have a mask.
    sizes = [(low, high) for low, high in pairwise(SIZES) if ((areas > low) & (areas < high)).any()]
    print(f"| way | {' | '.join(f'{low:.0%}-{high:.0%}' for low, high in sizes)} | s |")
    print("|---|" + "---|" * (len(sizes) + 1), flush=True)
    found: dict[str, list[str]] = {way: [] for way in args.ways}
    seconds = dict.fromkeys(args.ways, 0.0)
    count = 0
    for low, high in sizes:
        holes = ((areas > low) & (areas < high)).nonzero()[:, 0].numpy()
        painted: dict[str, list[np.ndarray[Any, Any]]] = {way: [] for way in args.ways}
        true: list[np.ndarray[Any, Any]] = []
        for scene in chance.permutation(scenes)[: args.each]:
            image, own, imposed = probe.images[scene], masks[scene], masks[int(chance.choice(holes))]
            # Ground that is known, but lies in the hole; what is beside the scene's own object is not counted.
            cells = _cells(imposed & ~widen(own[None], 2 * REACH)[0])
            if len(cells) < CELLS:
                continue
            cells = cells[torch.from_numpy(chance.permutation(len(cells))[:CELLS])]
            count += 1
            hole = widen((imposed | own)[None], REACH)[0]
            true.append(features(image)[:, cells[:, 0], cells[:, 1]].T.numpy())
            for way in args.ways:
                start = time.perf_counter()
                result = WAYS[way](image, (imposed | own) if way == "this package" else hole)
                seconds[way] += time.perf_counter() - start
                painted[way].append(features(result)[:, cells[:, 0], cells[:, 1]].T.numpy())
        for way in args.ways:
            found[way].append(f"{_auc(painted[way], true):.2f}")
    for way in args.ways:
        print(f"| {way} | {' | '.join(found[way])} | {seconds[way] / count:.2f} |", flush=True)


if __name__ == "__main__":
    main()
