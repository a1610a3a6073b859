"""Watch where every layer of a VGG16 looks while it is fine-tuned."""

from gradcam_callback.callback import GradCAMCallback
from gradcam_callback.exceptions import GradCAMWarning, ShortcutWarning
from gradcam_callback.maps.gradcam import CAMs, GradCAM
from gradcam_callback.measures.verdict import Verdict
from gradcam_callback.probes.probe_set import ProbeSet

__all__ = ["CAMs", "GradCAM", "GradCAMCallback", "GradCAMWarning", "ProbeSet", "ShortcutWarning", "Verdict"]
