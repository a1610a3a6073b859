"""TensorBoard: finding the writers, tags, steps, and pictures as small encoded files."""

from __future__ import annotations

import re
from typing import Any

from PIL import Image
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary

from gradcam_callback.render import encode_jpeg


def find_loggers(trainer: Trainer) -> list[TensorBoardLogger]:
    """The Trainer's TensorBoard loggers."""
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def validation_step(trainer: Trainer) -> int:
    """The step at which Lightning itself logs the scalars of the validation under way.

    Lightning counts the optimizer steps of the outer loop for this, not `trainer.global_step`, which counts every
    optimizer's (Lightning #17958, #20346); the counter has no public name.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def tag(*parts: str) -> str:
    """``gradcam/<part>/<part>``; whatever could end a path or a line in a part is replaced."""
    return "/".join(["gradcam", *(re.sub(r"[\x00-\x1f\x7f/\\]+", "_", part) or "_" for part in parts)])


def write_image(writer: Any, name: str, image: Image.Image, step: int, quality: int) -> None:
    """Add a picture as JPEG. `SummaryWriter.add_image` would write PNG, several times larger and slower."""
    encoded = Summary.Image(
        height=image.height, width=image.width, colorspace=3, encoded_image_string=encode_jpeg(image, quality)
    )
    writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=encoded)]), step)
