"""Watch where every layer of a VGG16 looks while it is fine-tuned."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradcam_callback.callback import GradCAMCallback
    from gradcam_callback.drawing import Style, overlay
    from gradcam_callback.exceptions import GradCAMWarning, ShortcutWarning, UserCodeError
    from gradcam_callback.maps import CAMs, GradCAM, is_watching
    from gradcam_callback.measures import (
        Verdict,
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
    from gradcam_callback.offline import find_checkpoints, watch_checkpoints, write_report
    from gradcam_callback.probes import ProbeSet

__all__ = [
    "CAMs",
    "GradCAM",
    "GradCAMCallback",
    "GradCAMWarning",
    "ProbeSet",
    "ShortcutWarning",
    "Style",
    "UserCodeError",
    "Verdict",
    "border_mass",
    "centre_distance",
    "drift",
    "entropy",
    "find_checkpoints",
    "is_watching",
    "lift",
    "mask_area",
    "overlay",
    "pointing_game",
    "relevance_mass",
    "strength",
    "watch_checkpoints",
    "write_report",
]

# Where each name is defined. A name is loaded at its first use, so that GradCAM alone does not load Lightning.
_NAMES = {
    "callback": ["GradCAMCallback"],
    "drawing": ["Style", "overlay"],
    "exceptions": ["GradCAMWarning", "ShortcutWarning", "UserCodeError"],
    "maps": ["CAMs", "GradCAM", "is_watching"],
    "measures": [
        "Verdict",
        "border_mass",
        "centre_distance",
        "drift",
        "entropy",
        "lift",
        "mask_area",
        "pointing_game",
        "relevance_mass",
        "strength",
    ],
    "offline": ["find_checkpoints", "watch_checkpoints", "write_report"],
    "probes": ["ProbeSet"],
}
_HOME = {name: package for package, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
