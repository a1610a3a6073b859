"""Write a run to Weights & Biases, MLflow, Comet, Lightning's own tracker, or any logger that takes images."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from gradcam_callback.encoded_image import EncodedImage
from gradcam_callback.writers.base import Entry, RunStart, image_path, verdict_text
from gradcam_callback.writers.folder import FolderWriter


class WandbWriter:
    """The run of a WandbLogger.

    Images are logged at the step by which Lightning's scalars are drawn.
    """

    keeps_panels, keeps_records, keeps_one = True, False, False
    takes_webp = False

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def start(self, run: RunStart, resuming: bool) -> None:
        watched = {run.manifest.tag_prefix: {"layers": list(run.manifest.layers)}}
        self._logger.experiment.config.update(watched, allow_val_change=True)

    def write_image(self, tag: str, image: EncodedImage, step: int) -> None:
        import wandb

        # From a file: W&B would decode and encode an array anew.
        with _as_file(image, step) as path:
            shown = wandb.Image(str(path)) if image.suffix == "jpg" else wandb.Video(str(path), format="gif")
            self._log({tag: shown}, step)

    def write_verdict(self, tag: str, verdict: Mapping[str, Any], step: int) -> None:
        self._log({tag: verdict_text(verdict)}, step)

    def write_entry(self, entry: Entry) -> None: ...

    def flush(self) -> None: ...

    def _log(self, values: dict[str, Any], step: int) -> None:
        self._logger.experiment.log({**values, "trainer/global_step": step})


class MLflowWriter:
    """The artifacts of an MLFlowLogger's run, ``<prefix>/<tag>/<step>.jpg``."""

    keeps_panels, keeps_records, keeps_one = True, False, True
    takes_webp = False

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._prefix = ""

    def start(self, run: RunStart, resuming: bool) -> None:
        self._prefix = run.manifest.tag_prefix
        self._log_text(run.manifest.to_json(), "manifest.json")

    def write_image(self, tag: str, image: EncodedImage, step: int) -> None:
        folder = f"{self._prefix}/{image_path(tag, self._prefix)}"
        with _as_file(image, step) as path:
            self._logger.experiment.log_artifact(self._logger.run_id, str(path), folder)

    def write_verdict(self, tag: str, verdict: Mapping[str, Any], step: int) -> None:
        self._log_text(verdict_text(verdict), f"{image_path(tag, self._prefix)}/{step:08d}.txt")

    def write_entry(self, entry: Entry) -> None: ...

    def flush(self) -> None: ...

    def _log_text(self, text: str, name: str) -> None:
        self._logger.experiment.log_text(self._logger.run_id, text, f"{self._prefix}/{name}")


class CometWriter:
    """The experiment of a CometLogger."""

    keeps_panels, keeps_records, keeps_one = True, False, False
    takes_webp = False

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def start(self, run: RunStart, resuming: bool) -> None: ...

    def write_image(self, tag: str, image: EncodedImage, step: int) -> None:
        if image.suffix == "jpg":
            self._logger.experiment.log_image(_decode(image), name=tag, step=step)
        else:
            self._logger.experiment.log_asset_data(image.data, name=f"{tag}.{image.suffix}", step=step)

    def write_verdict(self, tag: str, verdict: Mapping[str, Any], step: int) -> None:
        self._logger.experiment.log_text(verdict_text(verdict), step=step, metadata={"tag": tag})

    def write_entry(self, entry: Entry) -> None: ...

    def flush(self) -> None: ...


class ImageLoggerWriter:
    """Any logger with a method ``log_image(key, images, step)``, as W&B's has. It gets no animations and no texts."""

    keeps_panels, keeps_records, keeps_one = True, False, False
    takes_webp = False

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def start(self, run: RunStart, resuming: bool) -> None: ...

    def write_image(self, tag: str, image: EncodedImage, step: int) -> None:
        if image.suffix == "jpg":
            self._logger.log_image(key=tag, images=[_decode(image)], step=step)

    def write_verdict(self, tag: str, verdict: Mapping[str, Any], step: int) -> None: ...

    def write_entry(self, entry: Entry) -> None: ...

    def flush(self) -> None: ...


class LitWriter(FolderWriter):
    """The folder of a LitLogger, whose files it uploads.

    Args:
        logger: uploads each image.
        folder: beside the logger's own files.
        maps: as in `FolderWriter`.
    """

    def __init__(self, logger: Any, folder: Path, maps: bool = False) -> None:
        super().__init__(folder, maps=maps)
        self._logger = logger

    def write_image(self, tag: str, image: EncodedImage, step: int) -> None:
        super().write_image(tag, image, step)
        self._logger.log_file(str(self.image_file(tag, image, step)))


def _decode(image: EncodedImage) -> Image.Image:
    return Image.open(io.BytesIO(image.data)).convert("RGB")


@contextmanager
def _as_file(image: EncodedImage, step: int) -> Iterator[Path]:
    """Keep the image in a temporary file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{step:08d}.{image.suffix}"
        path.write_bytes(image.data)
        yield path
