"""Watch where every layer of a VGG16 looks while it is fine-tuned."""

from gradcam_callback.callback import GradCAMCallback
from gradcam_callback.gradcam import CAMs, GradCAM
from gradcam_callback.notices import GradCAMWarning, ShortcutWarning
from gradcam_callback.probe import ProbeSet
from gradcam_callback.verdict import Verdict

__all__ = ["CAMs", "GradCAM", "GradCAMCallback", "GradCAMWarning", "ProbeSet", "ShortcutWarning", "Verdict"]
