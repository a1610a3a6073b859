"""Work on files, without a training: checkpoints, photographs and logged runs.

``python -m gradcam_callback`` is made of this sub-package.
"""

from gradcam_callback.offline.checkpoints import (
    Checkpoint,
    CheckpointResult,
    find_checkpoints,
    format_table,
    watch_checkpoints,
)
from gradcam_callback.offline.loading import Inputs, load_model, read_inputs
from gradcam_callback.offline.photographs import (
    IMAGENET,
    center_crop,
    draw_sheets,
    read_photographs,
)
from gradcam_callback.offline.report import write_report

__all__ = [
    "Checkpoint",
    "CheckpointResult",
    "IMAGENET",
    "Inputs",
    "center_crop",
    "draw_sheets",
    "find_checkpoints",
    "format_table",
    "load_model",
    "read_inputs",
    "read_photographs",
    "watch_checkpoints",
    "write_report",
]
