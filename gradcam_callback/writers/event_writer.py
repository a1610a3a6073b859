"""An event file that outlives its disk: what cannot be written is lost, and nothing else is."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.event_file_writer import EventFileWriter

# Before a new file is begun, so much must fit; room for a few bytes would only be an outage again.
ROOM = 1_000_000


class SurvivingEventWriter:
    """Stands in the place of a ``SummaryWriter``'s own event writer.

    That one writes in a thread of its own, which ends at the first error of the disk; from then on every scalar that
    anybody logs raises this error, and the training ends. Here it is kept for `settle`, and events are dropped until
    the disk works again. Then a new file is begun beside the old one, whose last record may be cut: TensorBoard reads
    one after the other, but nothing behind a cut.

    Args:
        writer: in whose folder the new files are begun.
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
                self._break_off(error)

    def flush(self) -> None:
        """Write what waits; where that fails, `settle` will say so."""
        if self._writer is not None:
            try:
                self._writer.flush()
            except OSError as error:
                self._break_off(error)

    def settle(self) -> None:
        """Write what waits, or begin a new file, if the disk works again.

        Raises:
            OSError: what was written since this was last called is lost, all or in part.
        """
        self.flush()
        error, self._error = self._error, None
        if self._writer is None:
            try:
                self._begin_anew()
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

    def _break_off(self, error: OSError) -> None:
        # Not closed, which would write once more to a file that must stay as it is; its thread has ended.
        self._error, self._writer = error, None

    def _begin_anew(self) -> None:
        Path(self._folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._folder) as trial:
            trial.write(bytes(ROOM))
        self._writer = EventFileWriter(self._folder)
