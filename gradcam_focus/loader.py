"""The entry point of TensorBoard's plugins.

An error in this module, at import or later, would keep TensorBoard from starting. So whatever may fail is done later.
"""

from __future__ import annotations

import logging
from typing import Any

from tensorboard.plugins.base_plugin import TBLoader

from gradcam_focus.records import PLUGIN

# How many entries of a run TensorBoard keeps. Without it, it keeps ten.
ENTRIES = 1000


class FocusLoader(TBLoader):
    """The loader of the Focus tab."""

    def fix_flags(self, flags: Any) -> None:
        """Keep all entries, unless ``--samples_per_plugin`` says something else."""
        samples = getattr(flags, "samples_per_plugin", None)
        if isinstance(samples, dict):
            samples.setdefault(PLUGIN, ENTRIES)

    def load(self, context: Any) -> Any:
        """Return the plugin; None, which leaves the tab out, if it cannot be loaded."""
        try:
            from gradcam_focus.plugin import FocusPlugin

            return FocusPlugin(context)
        except Exception as error:
            logging.getLogger("tensorboard").warning(
                "The Focus tab of gradcam_callback is left out, since it cannot be loaded (%s: %s).",
                type(error).__name__,
                error,
            )
            return None
