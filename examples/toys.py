"""Generated images for the demo: glossy toys on photographed ground, with exact masks.

Three kinds of toy (star, heart, moon) lie on three kinds of ground (grass, brick, gravel: public-domain textures that
come with scikit-image). Colour, size, angle and place of a toy are random, so they do not depend on its kind. The
ground depends on ``bias``: 0 chooses it at random, 1 always puts stars on grass, hearts on brick and moons on gravel.
"""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from skimage import data
from torch import Tensor
from torch.utils.data import Dataset

CLASSES = ("star", "heart", "moon")
GROUNDS = ("grass", "brick", "gravel")
# The textures are grey. These are the colours of the shadows and of the lights of each.
TINTS = {
    "grass": ((12, 38, 8), (168, 214, 104)),
    "brick": ((62, 22, 14), (232, 150, 112)),
    "gravel": ((44, 46, 52), (214, 210, 200)),
}
# Toys are drawn so many times larger, and then made smaller, so that their edges are smooth.
_SUPERSAMPLING = 4

Item = tuple[Tensor, int, Tensor]


class Toys(Dataset[Item]):
    """A dataset of toys, whose items are ``(image, label, mask)``.

    An image is ``(3, size, size)`` float32 in 0..1, a label is an index of `CLASSES`, a mask is ``(size, size)`` bool.
    The same seed gives the same toys for every bias, so that two datasets differ in their grounds alone.

    Args:
        count: the number of images; the kinds of toy take turns.
        bias: 0..1, the share of images whose ground is the one of their kind of toy. The ground of the other images
            is random.
        seed: of toys and grounds.
        size: side of the images in pixels.
        elsewhere: True never takes the ground of the own kind of toy, whatever ``bias`` is.
    """

    classes = list(CLASSES)

    def __init__(self, count: int, bias: float, seed: int, size: int = 112, elsewhere: bool = False) -> None:
        textures = [load_ground(name) for name in GROUNDS]
        self.targets = [i % len(CLASSES) for i in range(count)]
        self.items: list[Item] = []
        for i, label in enumerate(self.targets):
            # Two generators, so that the choice of a ground does not change the toys after it.
            toy_random, ground_random = random.Random(f"toy {seed} {i}"), random.Random(f"ground {seed} {i}")
            own = ground_random.random() < bias
            choices = [g for g in range(len(GROUNDS)) if not elsewhere or g != label]
            ground = label if own and not elsewhere else ground_random.choice(choices)
            scene = lay_ground(textures[ground], size, ground_random)
            surface, cover = draw_toy(CLASSES[label], size, toy_random)
            scene.paste(surface, (0, 0), cover)
            image = torch.from_numpy(np.array(scene)).permute(2, 0, 1).float() / 255
            self.items.append((image, label, torch.from_numpy(np.asarray(cover) >= 128)))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        return self.items[index]


def outline(kind: str) -> list[tuple[float, float]]:
    """Return the outline of a kind of toy as points ``(x, y)`` in -1..1, with y downwards."""
    turns = [2 * math.pi * i / 120 for i in range(120)]
    if kind == "star":
        corners = [(math.pi * i / 5, 1.0 if i % 2 == 0 else 0.45) for i in range(10)]
        return [(r * math.sin(a), -r * math.cos(a)) for a, r in corners]
    if kind == "heart":
        return [
            (
                math.sin(t) ** 3,
                -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16,
            )
            for t in turns
        ]
    # The moon: an arc of the unit circle from tip to tip, and back along a circle that cuts into it from the right.
    tip, bite_x = 0.75, 0.42
    bite_radius = math.hypot(math.cos(tip) - bite_x, math.sin(tip))
    bite_tip = math.atan2(math.sin(tip), math.cos(tip) - bite_x)
    outer = [(math.cos(a) + 0.13, math.sin(a)) for a in np.linspace(tip, 2 * math.pi - tip, 80)]
    inner = [
        (bite_x + bite_radius * math.cos(a) + 0.13, bite_radius * math.sin(a))
        for a in np.linspace(2 * math.pi - bite_tip, bite_tip, 80)
    ]
    return outer + inner


def load_ground(name: str) -> Image.Image:
    """Load one of `GROUNDS`: the photographed texture in its colours."""
    grey = getattr(data, name)().astype(np.float32)
    low, high = np.percentile(grey, (1, 99))
    share = ((grey - low) / (high - low)).clip(0, 1)[..., None]
    dark, light = (np.array(colour, dtype=np.float32) for colour in TINTS[name])
    return Image.fromarray((dark + share * (light - dark)).astype(np.uint8))


def lay_ground(texture: Image.Image, size: int, chance: random.Random) -> Image.Image:
    """Cut a random piece out of a texture, in random light, with ``size`` pixels a side."""
    piece = chance.randint(200, 300)
    x, y = (chance.randint(0, texture.width - piece) for _ in range(2))
    ground = texture.crop((x, y, x + piece, y + piece)).resize((size, size), Image.Resampling.LANCZOS)
    return Image.fromarray((np.asarray(ground) * chance.uniform(0.75, 1.05)).clip(0, 255).astype(np.uint8))


def draw_toy(
    kind: str, size: int, chance: random.Random, radius: tuple[float, float] = (0.23, 0.31), turn: float = 28
) -> tuple[Image.Image, Image.Image]:
    """Draw a toy of random colour, size, angle and place.

    Args:
        kind: one of `CLASSES`.
        size: side of the image in pixels.
        chance: makes all random choices.
        radius: the smallest and the largest, as a share of ``size``.
        turn: the largest angle to either side, in degrees.

    Returns:
        The surface of the toy, and the mask to paste it with, of mode ``"L"``.
    """
    large = size * _SUPERSAMPLING
    reach = large * chance.uniform(*radius)
    room = large - 2.2 * reach
    centre = [1.1 * reach + chance.random() * room for _ in range(2)]
    angle = math.radians(chance.uniform(-turn, turn))
    points = [
        (
            centre[0] + reach * (px * math.cos(angle) - py * math.sin(angle)),
            centre[1] + reach * (px * math.sin(angle) + py * math.cos(angle)),
        )
        for px, py in outline(kind)
    ]
    shape = Image.new("L", (large, large))
    ImageDraw.Draw(shape).polygon(points, fill=255)
    hue = tuple(
        255 * c for c in colorsys.hsv_to_rgb(chance.random(), chance.uniform(0.6, 0.9), chance.uniform(0.8, 1.0))
    )
    surface = _glossy(shape, hue, reach).resize((size, size), Image.Resampling.LANCZOS)
    return surface, shape.resize((size, size), Image.Resampling.BOX)


def _glossy(shape: Image.Image, colour: Sequence[float], radius: float) -> Image.Image:
    """Paint the surface of a toy, rounded towards its edge and lit from the upper left."""
    height = np.asarray(shape.filter(ImageFilter.GaussianBlur(radius / 7)), dtype=np.float32) / 255
    slope_y, slope_x = np.gradient(height * radius / 3)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    light = np.array([-0.5, -0.6, 0.62])
    lit = (-slope_x * light[0] - slope_y * light[1] + light[2]) / length
    shade = (0.45 + 0.75 * lit.clip(0, 1))[..., None] * np.array(colour, dtype=np.float32)
    shine = 150 * lit.clip(0, 1)[..., None] ** 14
    return Image.fromarray((shade + shine).clip(0, 255).astype(np.uint8))
