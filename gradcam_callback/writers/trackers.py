"""Weights & Biases and MLflow: the same pictures and words, as each of them stores such."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from gradcam_callback.drawing.canvas import Encoded
from gradcam_callback.probes.probe_set import ProbeSet
from gradcam_callback.run.tags import tag
from gradcam_callback.writers.sinks import Entry, Manifest, file_name


class WandbWriter:
    """The run of a WandbLogger; pictures stand at the step by which Lightning's scalars are drawn."""

    def __init__(self, logger: Any, suffix: str = "") -> None:
        self._logger, self._suffix = logger, suffix

    def begin(self, manifest: Manifest, probe: ProbeSet, goes_on: bool) -> None:
        watched = {f"gradcam{self._suffix}": {"layers": list(manifest.layers)}}
        self._logger.experiment.config.update(watched, allow_val_change=True)

    def picture(self, tag: str, picture: Encoded, step: int) -> None:
        import wandb

        # From a file, so that its bytes are kept as they are.
        with tempfile.TemporaryDirectory() as folder:
            path = _written(picture, Path(folder), step)
            image = wandb.Image(str(path)) if picture.suffix == "jpg" else wandb.Video(str(path), format="gif")
            self._log({tag: image}, step)

    def entry(self, entry: Entry) -> None:
        if entry.verdict is not None:
            self._log({tag("verdict") + self._suffix: entry.verdict}, entry.step)

    def flush(self) -> None: ...

    def _log(self, values: dict[str, Any], step: int) -> None:
        self._logger.experiment.log({**values, "trainer/global_step": step})


class MLflowWriter:
    """The artifacts of an MLFlowLogger's run, ``gradcam/<tag>/<step>.jpg``."""

    def __init__(self, logger: Any, suffix: str = "") -> None:
        self._logger, self._suffix = logger, suffix

    def begin(self, manifest: Manifest, probe: ProbeSet, goes_on: bool) -> None:
        self._text(manifest.to_json(), f"manifest{self._suffix}.json")

    def picture(self, tag: str, picture: Encoded, step: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = _written(picture, Path(folder), step)
            self._logger.experiment.log_artifact(self._logger.run_id, str(path), f"gradcam/{file_name(tag)}")

    def entry(self, entry: Entry) -> None:
        if entry.verdict is not None:
            self._text(entry.verdict, f"verdict{self._suffix}/{entry.step:08d}.txt")

    def flush(self) -> None: ...

    def _text(self, text: str, name: str) -> None:
        self._logger.experiment.log_text(self._logger.run_id, text, f"gradcam/{name}")


def _written(picture: Encoded, folder: Path, step: int) -> Path:
    path = folder / f"{step:08d}.{picture.suffix}"
    path.write_bytes(picture.data)
    return path
