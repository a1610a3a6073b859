"""The fixed images of a training, read from datasets, loaders, folders and COCO, with labels, masks and names.

`ProbeSet` holds them. `Feed` is the way of items and batches to the model, in whatever form the user's data come. The
functions look up the transform and class names of a dataset, and read single images.
"""

from gradcam_callback.probes.automatic import SPARE, choose_masked, wants_automatic
from gradcam_callback.probes.batches import BatchTransform, find_parts, replace_part
from gradcam_callback.probes.beside import (
    AUTOMATIC,
    MASK_SUFFIX,
    PHOTOGRAPH_SUFFIXES,
    Photograph,
    is_automatic,
    list_visible,
    pair_files,
    read_marked,
)
from gradcam_callback.probes.columns import find_label_place
from gradcam_callback.probes.datasets import choose_items
from gradcam_callback.probes.feed import Feed, Sample, fill_row
from gradcam_callback.probes.folders import read_folder
from gradcam_callback.probes.image_files import open_image
from gradcam_callback.probes.items import Item
from gradcam_callback.probes.labels import to_classes
from gradcam_callback.probes.lookup import ClassNames, find_class_names, find_loader, find_transform, set_apart
from gradcam_callback.probes.masks import cut_out, from_boxes, from_image
from gradcam_callback.probes.names import make_unique
from gradcam_callback.probes.probe_set import ProbeSet, make_probe_set
from gradcam_callback.probes.quotas import CountClasses, Quota, choose_per_class
from gradcam_callback.probes.streams import Collector, NoImagesError, choose_from_batches
from gradcam_callback.probes.transforms import Transform
from gradcam_callback.probes.yolo import NAME_FILES

__all__ = [
    "AUTOMATIC",
    "BatchTransform",
    "ClassNames",
    "Collector",
    "CountClasses",
    "Feed",
    "Item",
    "MASK_SUFFIX",
    "NAME_FILES",
    "NoImagesError",
    "PHOTOGRAPH_SUFFIXES",
    "Photograph",
    "ProbeSet",
    "Quota",
    "SPARE",
    "Sample",
    "Transform",
    "choose_from_batches",
    "choose_items",
    "choose_masked",
    "choose_per_class",
    "cut_out",
    "fill_row",
    "find_class_names",
    "find_label_place",
    "find_loader",
    "find_parts",
    "find_transform",
    "from_boxes",
    "from_image",
    "is_automatic",
    "list_visible",
    "make_probe_set",
    "make_unique",
    "open_image",
    "pair_files",
    "read_folder",
    "read_marked",
    "replace_part",
    "set_apart",
    "to_classes",
    "wants_automatic",
]
