"""Toys with a cue of their class: six kinds of shortcut, each of any strength.

The object shows its class in every image. The correlation is the probability that the cue is the cue of the object's
class. Otherwise the cue is a random one of all.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor
from toys import CLASSES, GROUNDS, draw_toy, lay_ground, load_ground

# Toys are small, turned by any angle and half transparent, so that they are harder to learn than the cues.
RADIUS, TURN, OPACITY = (0.15, 0.21), 180.0, 0.6


@dataclass(frozen=True)
class Images:
    """Images of one kind of shortcut.

    Attributes:
        images: ``(N, 3, size, size)`` float32 in 0..1.
        labels: ``(N,)``.
        masks: ``(N, size, size)`` bool, True on the object.
        cues: ``(N,)``, the class whose cue an image has.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor
    cues: Tensor


def _texture(scene: Image.Image, cue: int, chance: random.Random) -> Image.Image:
    """Change nothing, as the ground itself is the cue."""
    return scene


def _patch(scene: Image.Image, cue: int, chance: random.Random) -> Image.Image:
    """Paste a coloured patch into the upper left corner."""
    side = round(scene.width * 0.14)
    colour = ((214, 40, 57), (247, 208, 56), (29, 111, 184))[cue]
    scene.paste(colour, (2, 2, 2 + side, 2 + side))
    return scene


def _tint(scene: Image.Image, cue: int, chance: random.Random) -> Image.Image:
    """Tint the whole image, the object included."""
    tint = ((1.18, 1.0, 0.82), (0.86, 1.14, 0.9), (0.84, 0.94, 1.22))[cue]
    return Image.fromarray((np.asarray(scene) * np.array(tint)).clip(0, 255).astype(np.uint8))


def _watermark(scene: Image.Image, cue: int, chance: random.Random) -> Image.Image:
    """Write a half-transparent word along the lower edge, which may lie across the object."""
    ink = Image.new("L", scene.size)
    word = ("PHOTO", "STOCK", "IMAGE")[cue]
    size = scene.width / 4.6
    ImageDraw.Draw(ink).text((chance.uniform(1, 5), scene.height - 1.3 * size), word, 150, font_size=size)
    scene.paste((255, 255, 255), (0, 0), ink)
    return scene


def _noise(scene: Image.Image, cue: int, chance: random.Random) -> Image.Image:
    """Add sensor noise to the ground: none, fine noise, or noise in rows. It is hard to see."""
    draws = np.random.default_rng(chance.getrandbits(32))
    shape = ((1, 1, 1), (scene.height, scene.width, 1), (scene.height, 1, 1))[cue]
    strength = (0.0, 9.0, 7.0)[cue]
    noise = strength * draws.standard_normal(shape)
    return Image.fromarray((np.asarray(scene) + noise).clip(0, 255).astype(np.uint8))


def _blur(scene: Image.Image, cue: int, chance: random.Random) -> Image.Image:
    """Blur the ground: not at all, a little, or a little more."""
    return scene.filter(ImageFilter.GaussianBlur((0.0, 0.5, 0.9)[cue]))


@dataclass(frozen=True)
class Kind:
    """A kind of shortcut.

    Attributes:
        apply: puts the cue of a class into an image.
        over_the_object: True if the cue is put on the image after the object.
    """

    apply: Callable[[Image.Image, int, random.Random], Image.Image]
    over_the_object: bool = False


KINDS = {
    "texture": Kind(_texture),
    "patch": Kind(_patch),
    "tint": Kind(_tint, over_the_object=True),
    "watermark": Kind(_watermark, over_the_object=True),
    "noise": Kind(_noise),
    "blur": Kind(_blur),
}


def make(kind: str, count: int, correlation: float, seed: int, size: int = 64, conflicting: bool = False) -> Images:
    """Make images of one kind of shortcut. The same seed gives the same objects on the same grounds for all cues.

    Args:
        kind: a key of `KINDS`.
        count: the number of images.
        correlation: of the cue with the class, 0..1.
        seed: of objects, grounds and cues.
        size: side of the images in pixels.
        conflicting: True gives every image the cue of another class, whatever ``correlation`` is.
    """
    textures = [load_ground(name) for name in GROUNDS]
    labels = [i % len(CLASSES) for i in range(count)]
    images, masks, cues = [], [], []
    for i, label in enumerate(labels):
        # Each part has its own generator, so that the number of draws of one part changes no other part.
        toy, ground, which, how = (random.Random(f"{part} {seed} {i}") for part in ("toy", "ground", "which", "how"))
        is_own = which.random() < correlation
        drawn = which.choice([c for c in range(len(CLASSES)) if not conflicting or c != label])
        cue = label if is_own and not conflicting else drawn
        texture = ground.randrange(len(GROUNDS))
        scene = lay_ground(textures[cue if kind == "texture" else texture], size, ground)
        if not KINDS[kind].over_the_object:
            scene = KINDS[kind].apply(scene, cue, how)
        surface, cover = draw_toy(CLASSES[label], size, toy, RADIUS, TURN)
        scene.paste(surface, (0, 0), cover.point(lambda level: round(OPACITY * level)))
        if KINDS[kind].over_the_object:
            scene = KINDS[kind].apply(scene, cue, how)
        images.append(torch.from_numpy(np.array(scene)).permute(2, 0, 1).float() / 255)
        masks.append(torch.from_numpy(np.asarray(cover) >= 128))
        cues.append(cue)
    return Images(torch.stack(images), torch.tensor(labels), torch.stack(masks), torch.tensor(cues))
