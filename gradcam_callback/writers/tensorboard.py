"""Write a run into TensorBoard's event file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from gradcam_callback.encoded_image import EncodedImage
from gradcam_callback.writers.base import Charts, Entry, RunStart, verdict_text
from gradcam_callback.writers.event_writer import SurvivingEventWriter
from gradcam_focus import records

# The charts of each logger. TensorBoard shows only the last layout of a run, so each writer repeats those before it.
_LAYOUTS: WeakKeyDictionary[Any, dict[str, Charts]] = WeakKeyDictionary()


class TensorBoardWriter:
    """The event file of a TensorBoardLogger.

    TensorBoard shows ten images of a tag at most, and its Focus tab draws the panels itself. All tags begin with the
    ``prefix`` of the logger, as those of its scalars do.
    """

    keeps_panels, keeps_records, keeps_one = False, True, False
    # TensorBoard names no type for WebP, so the browser finds out. Chromium, Firefox and WebKit do.
    takes_webp = True

    def __init__(self, logger: Any) -> None:
        self._logger, self._prefix = logger, ""
        # The logger keeps it to itself.
        self._before = f"{logger._prefix}{logger.LOGGER_JOIN_CHAR}" if logger._prefix else ""

    @property
    def _file(self) -> Any:
        """Return the ``FileWriter`` of the logger, with an event writer that survives a full disk.

        The ``SummaryWriter`` is closed after each run of the Trainer and then opens a new ``FileWriter``, so this one
        is looked up each time. Neither has public types.
        """
        file = self._logger.experiment._get_file_writer()
        if isinstance(file.event_writer, EventFileWriter):
            file.event_writer = SurvivingEventWriter(file.event_writer)
        return file

    def start(self, run: RunStart, resuming: bool) -> None:
        self._prefix = self._before + run.manifest.tag_prefix
        self._write_record(records.start_tag(self._prefix), run.record.encode(), 0)
        layout = _LAYOUTS.setdefault(self._logger, {})
        layout[self._prefix] = {
            title: (kind, [self._in_chart(kind, line) for line in lines]) for title, (kind, lines) in run.charts.items()
        }
        self._logger.experiment.add_custom_scalars(layout)

    def write_image(self, tag: str, image: EncodedImage, step: int) -> None:
        # `SummaryWriter.add_image` would write PNG, several times larger and slower.
        encoded = Summary.Image(height=image.height, width=image.width, colorspace=3, encoded_image_string=image.data)
        self._write(self._before + tag, step, image=encoded)

    def write_verdict(self, tag: str, verdict: Mapping[str, Any], step: int) -> None:
        # `SummaryWriter.add_text` would add ``/text_summary`` to the tag.
        metadata = create_summary_metadata(display_name="", description="")
        text = make_tensor_proto(_without_markdown(verdict_text(verdict)).encode())
        self._write(self._before + tag, step, tensor=text, metadata=metadata)

    def write_entry(self, entry: Entry) -> None:
        for layer, maps in entry.small_maps.items():
            self._write_record(records.maps_tag(self._prefix, layer), maps, entry.place)
        # Last, so that a reader that finds the entry finds its maps, too.
        self._write_record(records.entry_tag(self._prefix), entry.record.encode(), entry.place)

    def flush(self) -> None:
        self._file.event_writer.settle()

    def _in_chart(self, kind: str, line: str) -> str:
        # The lines of a Multiline chart are regular expressions, each from the first character on.
        return f"^{re.escape(self._before)}{line.removeprefix('^')}" if kind == "Multiline" else self._before + line

    def _write_record(self, tag: str, record: bytes, step: int) -> None:
        # TensorBoard lights a tab by the names of plugins in such metadata, and only if their class of data is set.
        metadata = SummaryMetadata(
            plugin_data=SummaryMetadata.PluginData(plugin_name=records.PLUGIN), data_class=DATA_CLASS_TENSOR
        )
        self._write(tag, step, tensor=make_tensor_proto(record), metadata=metadata)

    def _write(self, tag: str, step: int, **value: Any) -> None:
        self._file.add_summary(Summary(value=[Summary.Value(tag=tag, **value)]), step)


def _without_markdown(text: str) -> str:
    """Escape what the Text tab would read as Markdown, such as the class ``__background__``; names of layers stay."""
    return re.sub(r"[\\*`\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", text)
