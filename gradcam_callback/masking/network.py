"""The saliency network, loaded when it is first needed, or the reason why there is none."""

from __future__ import annotations

import threading

import numpy as np
from PIL import Image

from gradcam_callback.masking.mask_files import Mask
from gradcam_callback.saliency import Proposal, SaliencyNetwork

# People drag close to the object, or a little inside of it. The mask may leave the box by this share of its sides. The
# network sees more, so that the object stands out from something: on toys, this raised the IoU from 0.92 to 0.96.
_MARGIN, _SEEN = 0.1, 0.25
_INSIDE = 0.5

# Left, top, right and bottom in pixels of the photograph as it is shown.
Box = tuple[float, float, float, float]


class LazyNetwork:
    """A saliency network for several threads, which is loaded once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._network: SaliencyNetwork | None = None
        self._tried = False
        # The reason why there is no network, once this is known.
        self.missing: str | None = None

    def load(self) -> None:
        """Load the network, or find out why there is none."""
        with self._lock:
            if not self._tried:
                try:
                    self._network = SaliencyNetwork()
                except Exception as error:  # Broken weights raise onnxruntime's own errors.
                    self.missing = str(error)
                self._tried = True

    def propose(self, photograph: Image.Image) -> Proposal | None:
        """Return a proposal for a photograph in RGB, or None without a network."""
        self.load()
        return None if self._network is None else self._network.propose(photograph)

    def mask_box(self, photograph: Image.Image, box: Box) -> Mask:
        """Return the mask of the object in a box; without a network, the box itself.

        Raises:
            ValueError: the box holds no pixel of the photograph.
        """
        self.load()
        mask = np.zeros((photograph.height, photograph.width), bool)
        if self._network is None:
            left, top, right, bottom = _clip(photograph, box, 0)
            mask[top:bottom, left:right] = True
            return mask
        left, top, right, bottom = seen = _clip(photograph, box, _SEEN)
        mask[top:bottom, left:right] = self._network.saliency(photograph.crop(seen)) > _INSIDE
        left, top, right, bottom = _clip(photograph, box, _MARGIN)
        kept = np.zeros_like(mask)
        kept[top:bottom, left:right] = mask[top:bottom, left:right]
        return kept


def _clip(photograph: Image.Image, box: Box, margin: float) -> tuple[int, int, int, int]:
    """Return a box that is enlarged by a share of its sides, in whole pixels of the photograph."""
    left, top, right, bottom = box
    wider, higher = margin * (right - left), margin * (bottom - top)
    inside = (
        max(0, round(left - wider)),
        max(0, round(top - higher)),
        min(photograph.width, round(right + wider)),
        min(photograph.height, round(bottom + higher)),
    )
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise ValueError(f"Expected a box on the photograph, but got {box}. Drag it around the object.")
    return inside
