"""All that is read from a Lightning Trainer, or set in it: loggers, data, monitors, stages and states.

Only this sub-package, the callback and `offline.checkpoints` know Lightning.
"""

from gradcam_callback.trainers.announcements import OnShortcut, announce_end
from gradcam_callback.trainers.arguments import check_arguments, resolve_precision
from gradcam_callback.trainers.evaluation import (
    compute_shard,
    log_before_training,
    log_validation,
    revise_verdict,
    write_validation,
)
from gradcam_callback.trainers.loggers import announce, open_session, own_prefix, remove_empty_version
from gradcam_callback.trainers.monitors import refuse_impossible_monitors
from gradcam_callback.trainers.probe_source import ProbeSource
from gradcam_callback.trainers.trainer import (
    find_other_state,
    has_begun,
    is_fitting,
    may_still_refuse,
    refuse_sharded,
    stage_name,
    validating,
)
from gradcam_callback.trainers.validation import check_validation

__all__ = [
    "OnShortcut",
    "ProbeSource",
    "announce",
    "announce_end",
    "check_arguments",
    "check_validation",
    "compute_shard",
    "find_other_state",
    "has_begun",
    "is_fitting",
    "log_before_training",
    "log_validation",
    "may_still_refuse",
    "open_session",
    "own_prefix",
    "refuse_impossible_monitors",
    "refuse_sharded",
    "remove_empty_version",
    "resolve_precision",
    "revise_verdict",
    "stage_name",
    "validating",
    "write_validation",
]
