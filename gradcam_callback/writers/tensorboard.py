"""TensorBoard: pictures as small encoded files, the verdict as text, and charts of the scalars that belong together."""

from __future__ import annotations

from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from gradcam_callback.drawing.canvas import Encoded
from gradcam_callback.probes.probe_set import ProbeSet
from gradcam_callback.run.tags import tag
from gradcam_callback.writers.event_writer import SurvivingEventWriter
from gradcam_callback.writers.sinks import Entry, Manifest

# Of no plugin of TensorBoard's, so that it shows nothing of it; `gradcam_callback.offline.report` reads it.
MANIFEST_PLUGIN = "gradcam_callback"
BY_LAYER = ("lift", "pointing_game", "entropy", "strength", "drift")
ACCURACIES = ("probe_accuracy", "swap_accuracy", "background_accuracy", "foreground_accuracy")


class TensorBoardWriter:
    """The event file of a TensorBoardLogger."""

    def __init__(self, logger: Any, suffix: str = "") -> None:
        self._logger, self._suffix = logger, suffix

    @property
    def _file(self) -> Any:
        """The ``FileWriter`` of the logger's ``SummaryWriter``, made to outlive the disk.

        Closed, as after each of the Trainer's runs, a ``SummaryWriter`` opens a new one; neither has public types.
        """
        file = self._logger.experiment._get_file_writer()
        if isinstance(file.event_writer, EventFileWriter):
            file.event_writer = SurvivingEventWriter(file.event_writer)
        return file

    def begin(self, manifest: Manifest, probe: ProbeSet, goes_on: bool) -> None:
        # Under a plugin's name that TensorBoard does not know.
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=MANIFEST_PLUGIN))
        self._write_text("manifest", manifest.to_json(), 0, metadata)
        if not self._suffix:  # TensorBoard takes one layout per run
            self._logger.experiment.add_custom_scalars({"gradcam": charts(probe.masks is not None)})

    def picture(self, tag: str, picture: Encoded, step: int) -> None:
        # `SummaryWriter.add_image` would write PNG, several times larger and slower.
        image = Summary.Image(
            height=picture.height, width=picture.width, colorspace=3, encoded_image_string=picture.data
        )
        self._write(tag, step, image=image)

    def entry(self, entry: Entry) -> None:
        if entry.verdict is not None:
            # Under just this tag; `SummaryWriter.add_text` would put ``/text_summary`` behind it.
            metadata = create_summary_metadata(display_name="", description="")
            self._write_text("verdict", entry.verdict, entry.step, metadata)

    def flush(self) -> None:
        self._file.event_writer.settle()

    def _write_text(self, name: str, text: str, step: int, metadata: SummaryMetadata) -> None:
        self._write(tag(name) + self._suffix, step, tensor=make_tensor_proto(text.encode()), metadata=metadata)

    def _write(self, name: str, step: int, **value: Any) -> None:
        self._file.add_summary(Summary(value=[Summary.Value(tag=name, **value)]), step)


def charts(masks: bool) -> dict[str, tuple[str, list[str]]]:
    """The layout of TensorBoard's Custom Scalars: title -> kind and tags, which are regular expressions."""
    accuracies = {
        "accuracies": ("Multiline", [f"{tag(name)}$" for name in ACCURACIES]),
        "swap accuracy with its 95 % interval": (
            "Margin",
            [tag("swap_accuracy"), tag("swap_accuracy_low"), tag("swap_accuracy_high")],
        ),
    }
    measures = BY_LAYER if masks else ("border_mass", "centre_distance", *BY_LAYER[2:])
    by_layer = {f"{measure} by layer".replace("_", " "): ("Multiline", [f"{tag(measure)}/.*"]) for measure in measures}
    return (accuracies if masks else {"accuracy": ("Multiline", [f"{tag('probe_accuracy')}$"])}) | by_layer
