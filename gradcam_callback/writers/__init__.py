"""Writers: store images, texts and maps where the user looks for them.

A writer is given encoded images, tags and plain arrays. It knows neither models nor metrics. Scalars are not its
business: they go through Lightning's own logging.
"""

from gradcam_callback.writers.base import Charts, Entry, Manifest, RunStart, Writer, image_path, places_of
from gradcam_callback.writers.folder import (
    HISTORY,
    MANIFEST,
    PROBE,
    START,
    FolderWriter,
    holds_run,
    record_file,
)
from gradcam_callback.writers.tensorboard import TensorBoardWriter
from gradcam_callback.writers.trackers import CometWriter, ImageLoggerWriter, LitWriter, MLflowWriter, WandbWriter

__all__ = [
    "Charts",
    "CometWriter",
    "Entry",
    "FolderWriter",
    "HISTORY",
    "ImageLoggerWriter",
    "LitWriter",
    "MANIFEST",
    "MLflowWriter",
    "Manifest",
    "PROBE",
    "RunStart",
    "START",
    "TensorBoardWriter",
    "WandbWriter",
    "Writer",
    "holds_run",
    "image_path",
    "places_of",
    "record_file",
]
