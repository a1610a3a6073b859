"""All that is read from a Lightning Trainer, or set in it: loggers, data, monitors, stages and states.

Only this wing, the callback and `offline.checkpoints` know Lightning.
"""

from gradcam_callback.trainers.data import check_probe, find_difference
from gradcam_callback.trainers.loggers import (
    announce,
    find_writers,
    log_outside_loops,
    log_scalars,
    own_prefix,
    remove_empty_version,
)
from gradcam_callback.trainers.monitors import fill_missing_metrics, refuse_impossible_monitors
from gradcam_callback.trainers.probe_source import ProbeSource
from gradcam_callback.trainers.trainer import (
    announce_verdict,
    check_on_shortcut,
    check_options,
    find_other_state,
    gather,
    is_fitting,
    may_still_refuse,
    react_to_shortcut,
    refuse_sharded,
    resolve_precision,
    stage_name,
    validation_step,
    warn_without_validation,
)

__all__ = [
    "ProbeSource",
    "announce",
    "announce_verdict",
    "check_on_shortcut",
    "check_options",
    "check_probe",
    "fill_missing_metrics",
    "find_difference",
    "find_other_state",
    "find_writers",
    "gather",
    "is_fitting",
    "log_outside_loops",
    "log_scalars",
    "may_still_refuse",
    "own_prefix",
    "react_to_shortcut",
    "refuse_impossible_monitors",
    "refuse_sharded",
    "remove_empty_version",
    "resolve_precision",
    "stage_name",
    "validation_step",
    "warn_without_validation",
]
