"""The fixed images of a training, read from datasets, folders and COCO annotations, with labels, masks and names.

`ProbeSet` holds them. The functions look up the transform and class names of a dataset, and read single images.
"""

from gradcam_callback.probes.image_files import open_image
from gradcam_callback.probes.lookup import find_class_names, find_transform
from gradcam_callback.probes.masks import from_boxes
from gradcam_callback.probes.names import make_unique
from gradcam_callback.probes.probe_set import ProbeSet
from gradcam_callback.probes.transforms import Transform

__all__ = [
    "ProbeSet",
    "Transform",
    "find_class_names",
    "find_transform",
    "from_boxes",
    "make_unique",
    "open_image",
]
