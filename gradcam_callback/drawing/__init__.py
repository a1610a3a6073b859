"""Panels, strips, animations and plots, drawn from maps and images as NumPy arrays, and encoded as files.

`panels`, `strips`, `sheets` and `plots` draw all that a run logs, from the parts in the other files. Nothing here
imports torch.
"""

from gradcam_callback.drawing.caption import Caption
from gradcam_callback.drawing.encoding import encode_ahead, encode_gif, encode_jpeg, encode_webp
from gradcam_callback.drawing.heatmap import Map, Pixels, blend, paint, scale
from gradcam_callback.drawing.input_image import InputImage
from gradcam_callback.drawing.overlays import overlay
from gradcam_callback.drawing.overview import MOST_IMAGES, Overview
from gradcam_callback.drawing.panels import LayerPanel, ProbePanel
from gradcam_callback.drawing.plots import Profile, depth_profile
from gradcam_callback.drawing.proposals import MaskCell, dim_outside, mask_sheet
from gradcam_callback.drawing.sheets import AnswerRow, Group, answer_sheet, stack
from gradcam_callback.drawing.strips import Animation, EvolutionStrip
from gradcam_callback.drawing.style import Style

__all__ = [
    "Animation",
    "AnswerRow",
    "Caption",
    "EvolutionStrip",
    "Group",
    "InputImage",
    "LayerPanel",
    "MOST_IMAGES",
    "Map",
    "MaskCell",
    "Overview",
    "Pixels",
    "ProbePanel",
    "Profile",
    "Style",
    "answer_sheet",
    "blend",
    "depth_profile",
    "dim_outside",
    "encode_ahead",
    "encode_gif",
    "encode_jpeg",
    "encode_webp",
    "mask_sheet",
    "overlay",
    "paint",
    "scale",
    "stack",
]
