"""Counterfactual images: objects on other backgrounds, backgrounds alone, and objects alone."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from gradcam_callback.measures.inpaint import paint_out
from gradcam_callback.measures.metrics import mask_area

# The largest share of an image that an object may fill. Up to the second share, painted ground can hardly be told from
# true ground, so such images are the first choice as donors. docs/probe-set.md has the measurement.
LARGEST_OBJECT, GOOD_DONOR = 0.6, 0.35
# The share of an image that the frame test keeps around its centre.
KEPT_CENTRE = 0.5
# Images that are painted at once. On 16 cores, 4 at once took 0.31 of the time, and 8 or 16 took longer than 4.
MOST_PAINTERS = 4


@dataclass(frozen=True)
class Swaps:
    """Pairs of an object and the image on whose background it is put.

    Attributes:
        objects: ``(S,)`` int64, the number of the image that each object comes from.
        donors: ``(S,)`` int64, the number of the image that each background comes from.
    """

    objects: Tensor
    donors: Tensor

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, places: Tensor) -> Swaps:
        return Swaps(self.objects[places], self.donors[places])


class Counterfactuals:
    """The images of the interventions, made from M images with masks.

    Each image has the label of its object, or of the object that was removed.

    The four sets resemble the sets Mixed-Rand, Mixed-Same, Only-BG-T and Only-FG of ImageNet-9 (Xiao, Engstrom, Ilyas
    and Madry 2021, "Noise or signal: the role of image backgrounds in object recognition", arXiv 2006.09994). They
    differ in detail: Mixed-Rand takes the background of a random class, here it is always another class. The paper
    covers the box of a removed object with tiles of the background, here the object is painted out. Only-FG has a black
    background, here it has one mean colour.

    Args:
        images: ``(M, C, H, W)``, in any unit.
        labels: ``(M,)`` int64.
        masks: ``(M, H, W)`` bool, True on the object.
        n_donors: the number of backgrounds per object, of the same class and of other classes. It is smaller if there
            are fewer images.
        seed: chooses the backgrounds.
        present: ``(M, K)`` bool, all classes that each image holds, for images that may hold several. Each object of
            such an image is an image of its own here, with its own label and mask. A background of another class comes
            from an image that does not hold the object's class at all.
        paint: False puts the objects on the other images as these are, with their objects.
        balanced: True if each object is asked on one background at a time, the first, the second and so on. Each
            background then belongs to about one object at a time.

    Attributes:
        photographs: ``(M,)`` int64, the number of the first image with the same pixels. Objects of one photograph
            share it.
        same_class: the control: pairs whose background comes from another image of the same class.
        other_class: pairs whose background comes from an image of another class.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        masks: Tensor,
        n_donors: int = 3,
        seed: int = 0,
        present: Tensor | None = None,
        paint: bool = True,
        balanced: bool = False,
    ) -> None:
        self._images, self._masks = images, masks
        # One colour for all images: a colour per image could still tell the class by its background.
        exact = torch.promote_types(images.dtype, torch.float32)  # a sum of many pixels overflows half precision
        total = sum((image * ~mask).sum(dim=(1, 2), dtype=exact) for image, mask in zip(images, masks, strict=True))
        self._colour = (total / max(1, masks.numel() - int(masks.count_nonzero()))).to(images.dtype)
        present = one_hot(labels).bool() if present is None else present
        # The same photograph may stand here once for each of its objects. It is no donor of itself.
        prints = [_fingerprint(image) for image in images]
        self.photographs = torch.tensor([prints.index(each) for each in prints])
        self._painted = _paint(images, masks, self.photographs) if paint else None
        is_same = (labels[:, None] == labels) & (self.photographs[:, None] != self.photographs)
        rng, is_good = random.Random(seed), (mask_area(masks) <= GOOD_DONOR).tolist()
        choose = _choose_balanced_pairs if balanced else _choose_pairs
        self.other_class = choose(labels.tolist(), ~present[:, labels].T, is_good, n_donors, rng)
        self.same_class = choose(labels.tolist(), is_same, is_good, n_donors, rng)

    def paste(self, swaps: Swaps) -> Tensor:
        """Put objects on backgrounds.

        The donor's own object is painted out, so that the image holds a single object.

        Returns:
            ``(S, C, H, W)``, in the unit of the images.
        """
        return self._compose(swaps.objects, (self._background(donor) for donor in swaps.donors.tolist()))

    def remove(self, objects: Tensor) -> Tensor:
        """Show backgrounds alone: the object is painted out.

        Args:
            objects: ``(S,)`` int64, the number of the image that each background comes from.

        Returns:
            ``(S, C, H, W)``, in the unit of the images.
        """
        return self._collect(len(objects), map(self._background, objects.tolist()))

    def isolate(self, objects: Tensor) -> Tensor:
        """Show objects alone: everything else is replaced by one colour.

        Args:
            objects: ``(S,)`` int64, the number of the image that each object comes from.

        Returns:
            ``(S, C, H, W)``, in the unit of the images.
        """
        return self._compose(objects, repeat(self._colour[:, None, None]))

    def _background(self, number: int) -> Tensor:
        """Return ``(C, H, W)``, what objects are put on; it may be the image itself."""
        if self._painted is None:
            return self._images[number]
        return self._images[number].masked_scatter(*self._painted[number])

    def _compose(self, objects: Tensor, grounds: Iterable[Tensor]) -> Tensor:
        pairs = zip(objects.tolist(), grounds, strict=False)
        return self._collect(
            len(objects), (torch.where(self._masks[i], self._images[i], ground) for i, ground in pairs)
        )

    def _collect(self, count: int, images: Iterable[Tensor]) -> Tensor:
        """Return ``(count, C, H, W)``. Images that are made one by one take half the memory of a stack of all."""
        result = self._images.new_empty(count, *self._images.shape[1:])
        for place, image in zip(result, images, strict=True):
            place.copy_(image)
        return result


def _paint(images: Tensor, masks: Tensor, photographs: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Paint objects out. Return, for each image, where it changes, ``(H, W)`` bool, and its new pixels there.

    Args:
        images: ``(M, C, H, W)``.
        masks: ``(M, H, W)`` bool.
        photographs: ``(M,)``, the same number for objects of one photograph. They do not fill each other's place.
    """

    def paint(number: int) -> tuple[Tensor, Tensor]:
        image = images[number]
        of_photograph = masks[photographs == photographs[number]].any(dim=0)
        painted = paint_out(image[None], masks[number][None], of_photograph[None])[0]
        changed = (painted != image).any(dim=0)
        return changed, painted[:, changed].flatten()

    # The operations are too small to keep many cores busy. But each thread keeps the memory that painting takes,
    # several times that of an image, so a small machine has none.
    painters = min(MOST_PAINTERS, torch.get_num_threads() // 4)
    if painters > 1:
        with ThreadPoolExecutor(painters) as pool:
            painted = list(pool.map(paint, range(len(images))))
    else:
        painted = [paint(number) for number in range(len(images))]
    # In one tensor each: many small ones keep holes in the heap, into which no activation fits.
    changed, pixels = zip(*painted, strict=True)
    return list(zip(torch.stack(changed), torch.cat(pixels).split([len(each) for each in pixels]), strict=True))


def _fingerprint(image: Tensor) -> bytes:
    return hashlib.sha256(image.contiguous().view(torch.uint8).numpy().tobytes()).digest()


def centre_masks(images: Tensor) -> Tensor:
    """Return ``(N, H, W)`` bool, True in a rectangle around the centre of each image, with the shape of the image.

    It fills `KEPT_CENTRE` of the image.

    Args:
        images: ``(N, C, H, W)``.
    """
    masks = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
    height, width = (max(1, round(side * KEPT_CENTRE**0.5)) for side in images.shape[2:])
    top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
    masks[:, top : top + height, left : left + width] = True
    return masks


def _choose_pairs(labels: list[int], allowed: Tensor, is_good: list[bool], n_donors: int, rng: random.Random) -> Swaps:
    """Choose the images on whose backgrounds each object is put; their classes take turns.

    Args:
        labels: of the M images.
        allowed: ``(M, M)`` bool, True if the object of the image of a row may be put on the background of a column.
        is_good: True for an image that is better as a donor than the others of its class.
        n_donors: per object at most.
        rng: chooses among the images of a class.
    """
    pairs = []
    for i in range(len(labels)):
        n_queued: dict[int, int] = {}
        queue = []
        for j in sorted(rng.sample(range(len(labels)), len(labels)), key=lambda j: not is_good[j]):
            if allowed[i, j]:
                turn = n_queued.get(labels[j], 0)
                n_queued[labels[j]] = turn + 1
                queue.append((turn, j))
        # Both sorts are stable: among equals the images keep their random order.
        queue.sort(key=lambda entry: entry[0])
        pairs += [(i, j) for _, j in queue[:n_donors]]
    return _to_swaps(pairs)


def _choose_balanced_pairs(
    labels: list[int], allowed: Tensor, is_good: list[bool], n_donors: int, rng: random.Random
) -> Swaps:
    """Choose the same, so that few objects share a background at a time. Those that share one say less together."""
    left = [row.nonzero()[:, 0].tolist() for row in allowed]
    chosen: list[list[int]] = [[] for _ in labels]
    for _ in range(n_donors):
        uses = [0] * len(labels)
        for i in rng.sample(range(len(labels)), len(labels)):
            if left[i]:
                # A good one serves twice before another one does.
                j = min(left[i], key=lambda j: (uses[j] // (1 + is_good[j]), rng.random()))
                left[i].remove(j)
                chosen[i].append(j)
                uses[j] += 1
    return _to_swaps([(i, j) for i, own in enumerate(chosen) for j in own])


def _to_swaps(pairs: list[tuple[int, int]]) -> Swaps:
    table = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    return Swaps(table[:, 0], table[:, 1])
