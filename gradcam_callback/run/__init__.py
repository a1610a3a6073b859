"""A run: evaluate the network on the probe set again and again, and log what is found.

This sub-package ties the leaves together. It knows tags, state and images of a run, but neither Lightning nor files.
"""

from gradcam_callback.run import tags
from gradcam_callback.run.album import Album, input_images
from gradcam_callback.run.captions import caption_maps
from gradcam_callback.run.evaluate import (
    TARGETS,
    BatchForward,
    Evaluation,
    Evaluator,
    Target,
    blame_forward,
    check_target,
    choose_check,
)
from gradcam_callback.run.identity import closest_keys, identify
from gradcam_callback.run.logger import RunLogger
from gradcam_callback.run.memory import Memory
from gradcam_callback.run.session import Session, warn_lost
from gradcam_callback.run.state import RunState
from gradcam_callback.run.tags import Tags

__all__ = [
    "Album",
    "BatchForward",
    "Evaluation",
    "Evaluator",
    "Memory",
    "RunLogger",
    "RunState",
    "Session",
    "TARGETS",
    "Tags",
    "Target",
    "blame_forward",
    "caption_maps",
    "check_target",
    "choose_check",
    "closest_keys",
    "identify",
    "input_images",
    "tags",
    "warn_lost",
]
