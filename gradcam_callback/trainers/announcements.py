"""Tell the user what the verdict says."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Literal

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from gradcam_callback.exceptions import GradCAMWarning, ShortcutWarning
from gradcam_callback.measures import Verdict
from gradcam_callback.run import Session, warn_lost

# LightningCLI reads it. It would take the path of a callable for a `str`.
OnShortcut = Literal["warn", "stop"] | Callable[[Verdict], object]


def react_to_shortcut(trainer: Trainer, module: LightningModule, session: Session, on_shortcut: OnShortcut) -> None:
    """Tell the user once per run that a shortcut is suspected, and do what ``on_shortcut`` says."""
    verdict = session.take_new_suspicion()
    if verdict is None:
        return
    # Lightning prints it above the progress bar, while a warning alone would begin in the middle of the bar.
    module.print(f"GradCAM: {verdict.headline}")
    rank_zero_warn(f"GradCAM: {verdict.text}", category=ShortcutWarning)
    if on_shortcut == "stop":
        trainer.should_stop = True
    elif callable(on_shortcut):
        try:
            on_shortcut(verdict)
        except Exception:
            # The user's code failed, so the whole traceback helps to find the line.
            warn_lost(f"your on_shortcut failed:\n{traceback.format_exc()}")


def announce_end(session: Session, verdict: Verdict | None) -> None:
    """Tell the user the headline of a training's last verdict, or that it has ended without a validation."""
    # A fit that goes on has the entries of before.
    if session.awaits_validation and not session.state.history:
        rank_zero_warn(
            "GradCAM: the training has ended before its first validation, so there are no maps and no verdict. "
            "Validate earlier, as by a smaller val_check_interval, or train for longer.",
            category=GradCAMWarning,
        )
    announce_verdict(verdict)


def announce_verdict(verdict: Verdict | None) -> None:
    """Tell the user the headline of a verdict, if there is one."""
    if verdict is not None:
        rank_zero_info(f"GradCAM: {verdict.headline}")
