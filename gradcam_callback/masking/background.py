"""The thread that makes proposals while a person is at work."""

from __future__ import annotations

import threading

from gradcam_callback.masking.session import MaskingSession, Status


class Background:
    """A thread that goes through the photographs of a session, those that are wanted first.

    Use it as a context manager.
    """

    def __init__(self, session: MaskingSession) -> None:
        self._session = session
        self._left = list(range(len(session)))
        self._changed = threading.Condition()
        self._busy = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="masks", daemon=True)

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        # It ends after the photograph that it is at.
        self._thread.join()

    @property
    def is_working(self) -> bool:
        """Return True until every photograph has been looked at."""
        return self._busy or bool(self._left)

    def want(self, index: int) -> None:
        """Take a photograph next, if it is still to be seen."""
        with self._changed:
            if index in self._left:
                self._left.remove(index)
            elif self._session.progress(index).status is not Status.WAITING:
                return
            self._left.insert(0, index)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._left)
                if self._stopped:
                    return
                index = self._left.pop(0)
                self._busy = True
            self._session.propose(index)
            self._busy = False
