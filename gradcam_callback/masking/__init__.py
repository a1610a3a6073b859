"""Masks by hand, quickly: a local page that proposes, and a person who accepts, corrects or says that there is nothing.

`mask_by_hand` serves the page, `mask_automatically` does without a person, `copy_photographs` picks the photographs.
Masks lie beside the photographs, where `ProbeSet.from_folder` finds them.
"""

from gradcam_callback.masking.automatic import mask_automatically
from gradcam_callback.masking.by_hand import mask_by_hand
from gradcam_callback.masking.choosing import copy_photographs

__all__ = ["copy_photographs", "mask_automatically", "mask_by_hand"]
