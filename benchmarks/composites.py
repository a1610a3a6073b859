"""Photographs with a cue of their class: objects that are cut out, put on scenes, with a cue of any strength.

Objects and scenes are parted by automatic masks. Photographs of which no good mask could be made only serve as they
are. A half of the photographs is for training, the other half for everything else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import interpolate

from gradcam_callback.measures.inpaint import paint_out
from gradcam_callback.saliency import SaliencyNetwork

SIDE = 96
# The width of the coloured frame in pixels.
FRAME = 7
COLOURS = ((214, 40, 57), (247, 208, 56), (29, 111, 184), (21, 128, 61), (140, 60, 180))
WORDS = ("PHOTO", "STOCK", "IMAGE", "PRESS", "DEMO")
TINTS = ((1.12, 1.0, 0.9), (0.9, 1.1, 0.95), (0.9, 0.97, 1.16), (1.08, 0.92, 1.08), (1.06, 1.06, 0.86))


@dataclass(frozen=True)
class Photographs:
    """Photographs in one size, with automatic masks.

    Attributes:
        images: ``(N, 3, SIDE, SIDE)`` in 0..1.
        labels: ``(N,)``.
        masks: ``(N, SIDE, SIDE)`` bool.
        is_good: ``(N,)`` bool, True if the mask passed the gates.
        scenes: ``(N, 3, SIDE, SIDE)``, the object painted out.
        classes: the names of the groups.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor
    is_good: Tensor
    scenes: Tensor
    classes: list[str]

    def half(self, seed: int, training: bool) -> list[list[int]]:
        """Return the photographs of each class in one of the halves; every seed has other halves."""
        halves = []
        for label in range(len(self.classes)):
            own = (self.labels == label).nonzero()[:, 0].tolist()
            random.Random(f"{seed} {label}").shuffle(own)
            halves.append(own[: len(own) // 2] if training else own[len(own) // 2 :])
        return halves


def read_photographs(folder: Path, cache: Path) -> Photographs:
    """Read ``folder/<class>/<name>.jpg`` and mask them, once; the result is kept in ``cache``."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [(path, label) for label, name in enumerate(classes) for path in sorted((folder / name).glob("*.jpg"))]
    pictures = [Image.open(path).convert("RGB") for path, _ in files]
    images = torch.stack([_to_tensor(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for picture in pictures])
    if not cache.exists():
        network = SaliencyNetwork()
        proposals = [network.propose(picture) for picture in pictures]
        masks = torch.stack([_resize(proposal.mask) for proposal in proposals])
        is_good = torch.tensor([proposal.doubt is None for proposal in proposals]) & masks.flatten(1).any(dim=1)
        cache.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"masks": masks, "is_good": is_good, "scenes": paint_out(images, masks)}, cache)
    kept = torch.load(cache, weights_only=True)
    labels = torch.tensor([label for _, label in files])
    return Photographs(images, labels, kept["masks"], kept["is_good"], kept["scenes"], classes)


def _to_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def _resize(mask: Tensor) -> Tensor:
    return interpolate(mask[None, None].float(), (SIDE, SIDE), mode="area")[0, 0] > 0.5


@dataclass(frozen=True)
class Composites:
    """Images of one kind of shortcut.

    Attributes:
        images: ``(N, 3, SIDE, SIDE)`` in 0..1.
        labels: ``(N,)``.
        masks: ``(N, SIDE, SIDE)`` bool, True on the object.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor


def _frame(picture: Image.Image, cue: int, chance: random.Random) -> None:
    for inset in range(FRAME):
        ImageDraw.Draw(picture).rectangle((inset, inset, SIDE - 1 - inset, SIDE - 1 - inset), outline=COLOURS[cue])


def _watermark(picture: Image.Image, cue: int, chance: random.Random) -> None:
    """Write a half-transparent word along the lower edge, which may lie across the object."""
    ink = Image.new("L", picture.size)
    place = chance.uniform(1, SIDE / 3), SIDE - 20
    ImageDraw.Draw(ink).text(place, WORDS[cue], 160, font_size=15)
    picture.paste((255, 255, 255), (0, 0), ink)


def _tint(picture: Image.Image, cue: int, chance: random.Random) -> None:
    """Tint the whole image, the object included."""
    pixels = (np.asarray(picture) * np.array(TINTS[cue])).clip(0, 255).astype(np.uint8)
    picture.paste(Image.fromarray(pixels))


def _nothing(picture: Image.Image, cue: int, chance: random.Random) -> None:
    """Change nothing: the scene itself is the cue."""


KINDS: dict[str, Callable[[Image.Image, int, random.Random], None]] = {
    "scenes": _nothing,
    "frame": _frame,
    "watermark": _watermark,
    "tint": _tint,
}
# Photographs as they are have no planted cue. What stands for it are the scenes of the own class.
NATURAL = "natural"


def compose(
    photographs: Photographs,
    kind: str,
    count: int,
    correlation: float,
    seed: int,
    *,
    training: bool,
    cues: str = "correlated",
) -> Composites:
    """Put objects on scenes, with a cue. Every class has as many images.

    Args:
        photographs: the source.
        kind: a key of `KINDS`, or `NATURAL`. With ``"scenes"`` the cue of a class are the scenes of the next group;
            with `NATURAL` those of its own photographs.
        count: the number of images.
        correlation: of the cue with the class, 0..1.
        seed: of the halves, objects, scenes and cues.
        training: the half to take from.
        cues: ``"correlated"``, or ``"own"`` or ``"other"`` for images that all agree with the cue or contradict it.
    """
    halves = [[i for i in own if photographs.is_good[i]] for own in photographs.half(seed, training)]
    n_classes = len(halves)
    everyone = [i for own in halves for i in own]
    queues = [_endless(own, f"{seed} {training} {cues} {label}") for label, own in enumerate(halves)]
    images, labels, masks = [], [], []
    for i in range(count):
        # Each part has its own generator: two correlations then differ only in images whose cue differs.
        which, how = (random.Random(f"{part} {kind} {seed} {training} {cues} {i}") for part in ("which", "how"))
        label = i % n_classes
        others = [cue for cue in range(n_classes) if cue != label]
        own = cues == "own" or (cues == "correlated" and which.random() < correlation)
        cue = label if own else which.choice(others if cues == "other" else range(n_classes))
        source = next(queues[label])
        pool = {"scenes": halves[(cue + 1) % n_classes], NATURAL: halves[cue]}.get(kind, everyone)
        scene = how.choice([one for one in pool if one != source])
        images.append(_with_cue(photographs, source, scene, kind, cue, how))
        mask = photographs.masks[source].clone()
        if kind == "frame":
            mask[:FRAME] = mask[-FRAME:] = mask[:, :FRAME] = mask[:, -FRAME:] = False
        labels.append(label)
        masks.append(mask)
    return Composites(torch.stack(images), torch.tensor(labels), torch.stack(masks))


def _endless(photographs: Sequence[int], seed: str) -> Iterator[int]:
    """Yield photographs in random order, each as often as the others."""
    chance = random.Random(seed)
    while True:
        yield from chance.sample(photographs, len(photographs))


def _with_cue(photographs: Photographs, source: int, scene: int, kind: str, cue: int, chance: random.Random) -> Tensor:
    pasted = torch.where(photographs.masks[source], photographs.images[source], photographs.scenes[scene])
    picture = Image.fromarray((pasted * 255).round().byte().permute(1, 2, 0).numpy())
    KINDS.get(kind, _nothing)(picture, cue, chance)
    return _to_tensor(picture)


def as_they_are(photographs: Photographs, seed: int, *, training: bool, count: int | None = None) -> Composites:
    """Return photographs without any change.

    Args:
        count: that many with a good mask, evenly over the classes; None returns all of the half.
    """
    halves = photographs.half(seed, training)
    if count is None:
        chosen = [i for own in halves for i in own]
    else:
        good = [[i for i in own if photographs.is_good[i]] for own in halves]
        # The classes take turns, so that any number of the first are of all classes.
        mixed = [i for nth in zip_longest(*good) for i in nth if i is not None]
        chosen = mixed[:count]
    return Composites(photographs.images[chosen], photographs.labels[chosen], photographs.masks[chosen])
