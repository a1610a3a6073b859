"""The saliency network U2-Net-p on onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from gradcam_callback.saliency.proposals import Proposal, judge_proposal
from gradcam_callback.saliency.weights import VARIABLE, find_weights

# The network takes images of this side, normalised with ImageNet's statistics.
_SIDE = 320
_MEAN, _STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


class SaliencyNetwork:
    """A network that marks what stands out in a photograph. It knows no classes.

    Raises:
        ImportError: onnxruntime is not installed.
        OSError: the weights are found nowhere, see `gradcam_callback.saliency.weights.find_weights`, or cannot be read.
    """

    def __init__(self) -> None:
        # An optional dependency, so it is imported only here.
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                "Automatic masks need onnxruntime. Install it with: pip install 'gradcam-callback[masks]'"
            ) from error
        options = onnxruntime.SessionOptions()
        # The user's number of threads also holds here.
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        weights = find_weights()
        try:
            self._session = onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # onnxruntime has an exception for each kind of damage, and none in common.
            raise OSError(
                f"Expected {str(weights)!r} to be u2netp.onnx, but onnxruntime cannot read it ({error}). If the "
                f"environment variable {VARIABLE} names it, correct the variable, or unset it."
            ) from error

    def propose(self, photograph: Image.Image) -> Proposal:
        """Mark the object of a photograph; the mask has its size."""
        return judge_proposal(self.saliency(photograph))

    def saliency(self, photograph: Image.Image) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return how much each pixel stands out: ``(H, W)``, 0..1, stretched to this range.

        Args:
            photograph: in any mode of PIL.
        """
        small = photograph.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        pixels = np.asarray(small, np.float32)
        pixels = (pixels / max(float(pixels.max()), 1.0) - _MEAN) / _STD
        (name,) = (put.name for put in self._session.get_inputs())
        found = self._session.run(None, {name: pixels.transpose(2, 0, 1)[None]})[0][0, 0]
        low, high = float(found.min()), float(found.max())
        stretched = (found - low) / max(high - low, 1e-6)
        full = Image.fromarray(stretched.astype(np.float32)).resize(photograph.size, Image.Resampling.BILINEAR)
        return np.asarray(full)
