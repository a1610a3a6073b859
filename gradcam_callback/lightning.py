"""The callback for configuration files of ``lightning.pytorch``. It needs the package ``lightning``."""

from lightning.pytorch import Callback

from gradcam_callback.callback import GradCAMCallback as _GradCAMCallback

__all__ = ["GradCAMCallback"]


class GradCAMCallback(_GradCAMCallback, Callback):
    """The same callback as a ``Callback`` of both packages.

    ``lightning.pytorch.cli.LightningCLI`` takes no others from a configuration.
    """
