"""TensorBoard: finding the writers, tags, steps, and pictures as small encoded files."""

from __future__ import annotations

import re
from typing import Any

from PIL import Image
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.util.tensor_util import make_tensor_proto

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
    """``gradcam/<part>/<part>``; control characters, such as a line's end, are replaced."""
    return "/".join(["gradcam", *(re.sub(r"[\x00-\x1f\x7f]+", "_", part) for part in parts)])


def write_image(writer: Any, name: str, image: Image.Image, step: int, quality: int) -> None:
    """Add a picture as JPEG. `SummaryWriter.add_image` would write PNG, several times larger and slower."""
    encoded = Summary.Image(
        height=image.height, width=image.width, colorspace=3, encoded_image_string=encode_jpeg(image, quality)
    )
    writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=encoded)]), step)


def write_text(writer: Any, name: str, text: str, step: int) -> None:
    """Add a text under just this tag; `SummaryWriter.add_text` would put ``/text_summary`` behind it."""
    value = Summary.Value(
        tag=name,
        metadata=create_summary_metadata(display_name="", description=""),
        tensor=make_tensor_proto(text.encode()),
    )
    writer.file_writer.add_summary(Summary(value=[value]), step)
