"""Grad-CAM maps of any layer of a model, from one forward and one backward pass.

`GradCAM` computes the maps, `resolve_layers` finds the layers, and the reshapes turn other outputs into
``(N, C, h, w)``. This sub-package loads neither Lightning nor matplotlib.
"""

# The formulas stay in maps.methods: a function `gradcam` here would hide the module of the same name.
from gradcam_callback.maps.borrowed import borrowed, is_watching
from gradcam_callback.maps.cams import CAMs, concatenate
from gradcam_callback.maps.checks import check_options
from gradcam_callback.maps.gradcam import Forward, GradCAM, GradCAMOptions, LateGradCAM
from gradcam_callback.maps.layers import resolve_layers
from gradcam_callback.maps.logits import (
    agreement_by_chance,
    class_probability,
    false_yes_rate,
    is_correct,
    predicted_class,
    rival_class,
)
from gradcam_callback.maps.probabilities import look_like_probabilities
from gradcam_callback.maps.reshape import RESHAPES, Reshape, from_channels_last, from_tokens
from gradcam_callback.maps.support import as_input
from gradcam_callback.maps.targets import CONTRAST, Contrast, ScoreFunction
from gradcam_callback.maps.vgg import find_vggs

__all__ = [
    "CAMs",
    "CONTRAST",
    "Contrast",
    "Forward",
    "GradCAM",
    "GradCAMOptions",
    "LateGradCAM",
    "RESHAPES",
    "Reshape",
    "ScoreFunction",
    "agreement_by_chance",
    "as_input",
    "borrowed",
    "check_options",
    "class_probability",
    "concatenate",
    "false_yes_rate",
    "find_vggs",
    "from_channels_last",
    "from_tokens",
    "is_correct",
    "is_watching",
    "look_like_probabilities",
    "predicted_class",
    "resolve_layers",
    "rival_class",
]
