"""The saliency network, loaded when it is first needed, or the reason why there is none."""

from __future__ import annotations

import threading

import numpy as np
from PIL import Image

from gradcam_callback.masking.mask_files import Mask
from gradcam_callback.saliency import Box, Proposal, SaliencyNetwork, enlarge_box, propose_in_box

# People drag close to the object, or a little inside of it. The mask may leave the box by this share of its sides.
_MARGIN = 0.1


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
                except (ImportError, OSError) as error:
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
        left, top, right, bottom = enlarge_box(box, 0 if self._network is None else _MARGIN, photograph)
        mask = np.zeros((photograph.height, photograph.width), bool)
        mask[top:bottom, left:right] = True
        return mask if self._network is None else mask & propose_in_box(self._network, photograph, box).mask.numpy()
