"""An event writer that survives a full disk: only the events that cannot be written are lost."""

from __future__ import annotations

import struct
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.summary.writer.record_writer import RecordWriter

# Bytes that must be free before a new file is started. With less, the next outage would follow at once.
ROOM = 1_000_000


class SurvivingEventWriter:
    """A replacement for the event writer of a ``SummaryWriter``.

    TensorBoard's event writer has a thread that ends at the first error of the disk. From then on every scalar that
    anybody logs raises this error, and the training ends. This writer keeps the error for `settle`, and drops events
    until the disk works again. Then it starts a new file beside the old one, whose last record may be cut off:
    TensorBoard reads all files of a folder, but nothing behind a cut.

    Args:
        writer: the event writer to replace; new files are started in its folder.
    """

    def __init__(self, writer: EventFileWriter) -> None:
        self._writer: EventFileWriter | None = with_fast_checksums(writer)
        self._folder = writer.get_logdir()
        self._error: Exception | None = None

    def get_logdir(self) -> str:
        folder: str = self._folder
        return folder

    def add_event(self, event: Event) -> None:
        if self._writer is not None:
            try:
                self._writer.add_event(event)
            except OSError as error:
                self._give_up(error)

    def flush(self) -> None:
        """Write all waiting events; `settle` raises the error if this fails."""
        if self._writer is not None:
            try:
                self._writer.flush()
            except OSError as error:
                self._give_up(error)

    def settle(self) -> None:
        """Write all waiting events, in a new file if the old one failed and the disk works again.

        Raises:
            OSError: events since the last call are lost, all or in part.
        """
        self.flush()
        error, self._error = self._error, None
        if self._writer is None:
            try:
                self._start_new_file()
            except OSError as still:
                error = error or still
        if error is not None:
            raise error

    def close(self) -> None:
        if self._writer is not None:
            self.flush()
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()

    def _give_up(self, error: OSError) -> None:
        # Not closed: this would write to its file once more, and the file must stay as it is. Its thread has ended.
        self._error, self._writer = error, None

    def _start_new_file(self) -> None:
        Path(self._folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._folder) as trial:
            trial.write(bytes(ROOM))
        self._writer = with_fast_checksums(EventFileWriter(self._folder))


def with_fast_checksums(writer: EventFileWriter) -> EventFileWriter:
    """Let an event writer compute its checksums in C, and return it.

    TensorBoard computes them byte by byte in Python, in a thread beside the training: seconds for the panels of a look.
    """
    # Neither has a public name. Without them the file is the same, and slower.
    records = getattr(getattr(writer, "_async_writer", None), "_writer", None)
    if isinstance(records, RecordWriter):
        records.write = partial(_write_record, records._writer)
    return writer


def _write_record(file: Any, content: bytes) -> None:
    """Write a record of an event file: its length and the content, each with its checksum."""
    length = struct.pack("<Q", len(content))
    file.write(length + _masked_checksum(length) + content + _masked_checksum(content))


def _masked_checksum(content: bytes) -> bytes:
    # The mask of TensorFlow's records, so that a checksum in the content is not taken for one of the content.
    checksum = google_crc32c.value(content)
    rotated = (checksum >> 15 | checksum << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)
