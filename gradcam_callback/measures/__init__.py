"""Metrics of maps, interventions on images, and the verdict on the background.

`metrics` measures maps against masks. `Counterfactuals`, `faithfulness` and `road` change the images to test the
predictions. `swap_test` and `judge` turn these predictions into a `Verdict`.
"""

from gradcam_callback.measures import metrics
from gradcam_callback.measures.basis import AUTOMATIC_MASKS, BOXES, FRAME, MASKS, NO_MASKS
from gradcam_callback.measures.deletion import faithfulness
from gradcam_callback.measures.focus import Focus
from gradcam_callback.measures.interventions import LARGEST_OBJECT, Counterfactuals, Swaps, centre_masks
from gradcam_callback.measures.metrics import (
    border_mass,
    centre_distance,
    drift,
    entropy,
    lift,
    mask_area,
    pointing_game,
    relevance_mass,
    strength,
)
from gradcam_callback.measures.removal import road
from gradcam_callback.measures.swaps import SwapTest, swap_test
from gradcam_callback.measures.verdict import (
    Verdict,
    confirms,
    drop_points_to_background,
    has_sign,
    judge,
    judge_without_swap,
    points_to_background,
)

__all__ = [
    "AUTOMATIC_MASKS",
    "BOXES",
    "Counterfactuals",
    "FRAME",
    "Focus",
    "LARGEST_OBJECT",
    "MASKS",
    "NO_MASKS",
    "SwapTest",
    "Swaps",
    "Verdict",
    "border_mass",
    "centre_distance",
    "centre_masks",
    "confirms",
    "drift",
    "drop_points_to_background",
    "entropy",
    "faithfulness",
    "has_sign",
    "judge",
    "judge_without_swap",
    "lift",
    "mask_area",
    "metrics",
    "pointing_game",
    "points_to_background",
    "relevance_mass",
    "road",
    "strength",
    "swap_test",
]
