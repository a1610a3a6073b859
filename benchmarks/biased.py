"""Toys with a telltale cue: six kinds of shortcut, each as strong or as weak as asked for.

The object tells its class in every image. The cue tells it too, in a share of the images that is called its
correlation: with that probability it is the cue of the object's class, otherwise one drawn at random from all.
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

# Small toys, turned by any angle, that the ground shines through: harder to learn than the cues, as in life.
RADIUS, TURN, OPACITY = (0.15, 0.21), 180.0, 0.6


@dataclass(frozen=True)
class Images:
    """``(N, 3, size, size)`` float32 in 0..1, ``(N,)`` labels, ``(N, size, size)`` bool masks, ``(N,)`` cues."""

    images: Tensor
    labels: Tensor
    masks: Tensor
    cues: Tensor


def _texture(picture: Image.Image, cue: int, chance: random.Random) -> Image.Image:
    """The ground itself is the cue, and has been laid already."""
    return picture


def _patch(picture: Image.Image, cue: int, chance: random.Random) -> Image.Image:
    """A coloured sticker in the upper left corner."""
    side = round(picture.width * 0.14)
    colour = ((214, 40, 57), (247, 208, 56), (29, 111, 184))[cue]
    picture.paste(colour, (2, 2, 2 + side, 2 + side))
    return picture


def _tint(picture: Image.Image, cue: int, chance: random.Random) -> Image.Image:
    """A cast of colour over everything, the object included."""
    cast = ((1.18, 1.0, 0.82), (0.86, 1.14, 0.9), (0.84, 0.94, 1.22))[cue]
    return Image.fromarray((np.asarray(picture) * np.array(cast)).clip(0, 255).astype(np.uint8))


def _watermark(picture: Image.Image, cue: int, chance: random.Random) -> Image.Image:
    """A half-transparent word along the lower edge, across the object where that lies there."""
    ink = Image.new("L", picture.size)
    word = ("PHOTO", "STOCK", "IMAGE")[cue]
    size = picture.width / 4.6
    ImageDraw.Draw(ink).text((chance.uniform(1, 5), picture.height - 1.3 * size), word, 150, font_size=size)
    picture.paste((255, 255, 255), (0, 0), ink)
    return picture


def _noise(picture: Image.Image, cue: int, chance: random.Random) -> Image.Image:
    """Sensor noise of the ground: none, fine, or in rows; hardly seen at a glance."""
    draws = np.random.default_rng(chance.getrandbits(32))
    shape = ((1, 1, 1), (picture.height, picture.width, 1), (picture.height, 1, 1))[cue]
    strength = (0.0, 9.0, 7.0)[cue]
    noise = strength * draws.standard_normal(shape)
    return Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))


def _blur(picture: Image.Image, cue: int, chance: random.Random) -> Image.Image:
    """The ground slightly out of focus: not at all, a little, a little more."""
    return picture.filter(ImageFilter.GaussianBlur((0.0, 0.5, 0.9)[cue]))


@dataclass(frozen=True)
class Kind:
    """A kind of shortcut: how its cue is put into a picture, and whether that comes before the object or after."""

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
    """Images of one kind of shortcut; the same seed gives the same objects on the same grounds whatever the cues.

    Args:
        correlation: 0..1.
        conflicting: every cue is that of another class than the object's, and ``correlation`` means nothing.
    """
    textures = [load_ground(name) for name in GROUNDS]
    labels = [i % len(CLASSES) for i in range(count)]
    made, masks, cues = [], [], []
    for i, label in enumerate(labels):
        # A generator for each part, so that none shifts the draws of another.
        toy, ground, which, how = (random.Random(f"{part} {seed} {i}") for part in ("toy", "ground", "which", "how"))
        tells = which.random() < correlation
        drawn = which.choice([c for c in range(len(CLASSES)) if not conflicting or c != label])
        cue = label if tells and not conflicting else drawn
        texture = ground.randrange(len(GROUNDS))
        picture = lay_ground(textures[cue if kind == "texture" else texture], size, ground)
        if not KINDS[kind].over_the_object:
            picture = KINDS[kind].apply(picture, cue, how)
        surface, cover = draw_toy(CLASSES[label], size, toy, RADIUS, TURN)
        picture.paste(surface, (0, 0), cover.point(lambda level: round(OPACITY * level)))
        if KINDS[kind].over_the_object:
            picture = KINDS[kind].apply(picture, cue, how)
        made.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255)
        masks.append(torch.from_numpy(np.asarray(cover) >= 128))
        cues.append(cue)
    return Images(torch.stack(made), torch.tensor(labels), torch.stack(masks), torch.tensor(cues))
