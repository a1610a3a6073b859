"""The saliency network, loaded when it is first needed, or the reason why there is none."""

from __future__ import annotations

import threading

import numpy as np
from PIL import Image

from gradcam_callback.masking.mask_files import Mask
from gradcam_callback.saliency import Proposal, SaliencyNetwork

# A box is enlarged by this share of its sides before the network sees it: people drag close to the object.
_MARGIN = 0.1
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
        left, top, right, bottom = box
        if self._network is not None:
            wider, higher = _MARGIN * (right - left), _MARGIN * (bottom - top)
            left, top, right, bottom = left - wider, top - higher, right + wider, bottom + higher
        inside = (
            max(0, round(left)),
            max(0, round(top)),
            min(photograph.width, round(right)),
            min(photograph.height, round(bottom)),
        )
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            raise ValueError(f"Expected a box on the photograph, but got {box}. Drag it around the object.")
        mask = np.zeros((photograph.height, photograph.width), bool)
        rows, columns = slice(inside[1], inside[3]), slice(inside[0], inside[2])
        if self._network is None:
            mask[rows, columns] = True
        else:
            mask[rows, columns] = self._network.saliency(photograph.crop(inside)) > _INSIDE
        return mask
