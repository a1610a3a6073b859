"""An event writer that survives a full disk: only the events that cannot be written are lost."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.event_file_writer import EventFileWriter

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
        self._writer: EventFileWriter | None = writer
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
        self._writer = EventFileWriter(self._folder)
