"""Metrics of maps, interventions on images, and the verdict on the background.

`metrics` measures maps against masks. `Counterfactuals` and `faithfulness` change the images to test the predictions.
`swap_test` and `judge` turn these predictions into a `Verdict`.
"""

from gradcam_callback.measures import metrics
from gradcam_callback.measures.deletion import faithfulness
from gradcam_callback.measures.interventions import Counterfactuals, make_counterfactuals
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
from gradcam_callback.measures.verdict import (
    Focus,
    SwapTest,
    Verdict,
    confirms,
    judge,
    points_to_background,
    swap_test,
)

__all__ = [
    "Counterfactuals",
    "Focus",
    "SwapTest",
    "Verdict",
    "border_mass",
    "centre_distance",
    "confirms",
    "drift",
    "entropy",
    "faithfulness",
    "judge",
    "lift",
    "make_counterfactuals",
    "mask_area",
    "metrics",
    "pointing_game",
    "points_to_background",
    "relevance_mass",
    "strength",
    "swap_test",
]
