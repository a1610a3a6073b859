"""Grad-CAM maps of any layer of a model, from one forward and one backward pass.

`GradCAM` computes the maps, `resolve_layers` finds the layers, and the reshapes turn other outputs into
``(N, C, h, w)``. This wing loads neither Lightning nor matplotlib.
"""

# The four formulas stay in maps.methods: a function `gradcam` here would hide the module of the same name.
from gradcam_callback.maps.cams import CAMs, concatenate
from gradcam_callback.maps.checks import check_options
from gradcam_callback.maps.chunks import is_out_of_memory
from gradcam_callback.maps.gradcam import GradCAM, GradCAMOptions, OutputTransformError
from gradcam_callback.maps.layers import resolve_layers
from gradcam_callback.maps.logits import class_probability, is_correct, predicted_class
from gradcam_callback.maps.reshape import RESHAPES, from_channels_last, from_tokens
from gradcam_callback.maps.vgg import find_vggs

__all__ = [
    "CAMs",
    "GradCAM",
    "GradCAMOptions",
    "OutputTransformError",
    "RESHAPES",
    "check_options",
    "class_probability",
    "concatenate",
    "find_vggs",
    "from_channels_last",
    "from_tokens",
    "is_correct",
    "is_out_of_memory",
    "predicted_class",
    "resolve_layers",
]
