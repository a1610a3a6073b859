"""The masking of a folder: what is proposed, decided, written and undone."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from gradcam_callback.masking.lazy_network import LazyNetwork
from gradcam_callback.masking.mask_files import Mask, Record, decode_mask, encode_mask, is_unseen, mark_automatic
from gradcam_callback.masking.photographs import list_photographs, remove, write_file
from gradcam_callback.probes import cut_out, open_image, read_marked

# How many photographs stay decoded: that on the page, and one or two that the background is at.
_KEPT = 3


class Status(StrEnum):
    """The steps of a photograph, from waiting to done."""

    WAITING = "waiting"
    OPEN = "open"
    PROPOSED = "proposed"
    DOUBTFUL = "doubtful"
    DONE = "done"
    NOTHING = "nothing"
    UNREADABLE = "unreadable"


@dataclass
class Progress:
    """The progress of a photograph.

    Attributes:
        status: how far it is.
        reason: why its proposal is doubtful, why it cannot be read, or what but a mask marks its object.
        proposal: the mask of the network as PNG.
        version: it changes whenever the photograph looks different.
        is_unseen: True if it is done by an automatic mask that no person has accepted.
    """

    status: Status = Status.WAITING
    reason: str | None = None
    proposal: bytes | None = None
    version: int = 0
    is_unseen: bool = False


class _Files(NamedTuple):
    """The content of the files that decide on a photograph, to notice what another program does to them."""

    checksum: int | None
    shows_nothing: bool


class _Before(NamedTuple):
    """The state of a photograph before a decision, to undo it."""

    photograph: int
    mask: bytes | None
    shows_nothing: bool
    progress: Progress


class MaskingSession:
    """The masking of the photographs of a folder, safe for several threads.

    Masks that lie there count as done. Other programs may change the files meanwhile, so they are looked at before they
    are written.

    Args:
        folder: holds photographs, or one folder per class.

    Raises:
        ValueError: the folder holds no photographs, or its names clash.
        OSError: the folder is none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.photographs = list_photographs(folder)
        self.network = LazyNetwork()
        self._record = Record(folder)
        self._lock = threading.RLock()
        self._progress = [Progress() for _ in self.photographs]
        self._decoded: dict[int, Image.Image] = {}
        self._undoable: list[list[_Before]] = []
        self._seen = [_Files(None, False) for _ in self.photographs]
        for index in range(len(self.photographs)):
            self._settle(index)

    def __len__(self) -> int:
        return len(self.photographs)

    @property
    def has_classes(self) -> bool:
        """Return True for one folder per class."""
        return bool(self.photographs[0].class_name)

    def count(self, *statuses: Status) -> int:
        """Return how many photographs have one of some statuses."""
        return sum(progress.status in statuses for progress in self._progress)

    @property
    def done(self) -> int:
        """Return the number of photographs that need no more work."""
        return self.count(Status.DONE, Status.NOTHING)

    @property
    def unseen(self) -> int:
        """Return the number of automatic masks that no person has accepted."""
        return sum(progress.is_unseen for progress in self._progress)

    def progress(self, index: int) -> Progress:
        """Return what is known of a photograph."""
        return self._progress[index]

    def describe(self) -> dict[str, Any]:
        """Return all that the page has to know, ready for JSON."""
        with self._lock:
            return {
                "done": self.done,
                "undoable": len(self._undoable),
                "photographs": [
                    {
                        "name": photograph.key,
                        "status": progress.status.value,
                        "reason": progress.reason,
                        "version": progress.version,
                        "unseen": progress.is_unseen,
                    }
                    for photograph, progress in zip(self.photographs, self._progress, strict=True)
                ],
            }

    def read(self, index: int) -> Image.Image:
        """Return a photograph in RGB, as it is shown.

        Raises:
            ValueError: it cannot be read.
        """
        path = self.photographs[index].path
        with self._lock:
            if index not in self._decoded or not path.is_file():
                self._decoded.pop(index, None)
                try:
                    decoded = open_image(path, "RGB")
                except ValueError as error:
                    self._change(index, Status.UNREADABLE, str(error))
                    raise
                while len(self._decoded) >= _KEPT:
                    del self._decoded[next(iter(self._decoded))]
                self._decoded[index] = decoded
            return self._decoded[index]

    def look_again(self, index: int) -> bool:
        """Settle a photograph anew if another program has changed its mask, and return True if so.

        Raises:
            ValueError: the record of the folder cannot be read.
            OSError: the mask cannot be read.
        """
        with self._lock:
            if self._look(index, self._read_file(index)) == self._seen[index]:
                return False
            self._settle(index)
            return True

    def seen(self, index: int) -> str:
        """Return what tells the files of a photograph, as they were looked at last, from those before and after."""
        return "-".join(map(str, self._seen[index]))

    def mask(self, index: int) -> Mask | None:
        """Return the mask that a photograph has, in whatever file, else the one that is proposed, else None."""
        with self._lock:
            size, progress = self.read(index).size, self._progress[index]
            if progress.status is Status.DONE:
                try:
                    mask = self._read_file(index)
                    if mask is not None:
                        return decode_mask(mask, size)
                    marked = read_marked(self.photographs[index].beside)
                    return None if marked is None else marked.mask.numpy()
                except (OSError, ValueError) as error:
                    # No probe set could read it either.
                    self._change(index, Status.DOUBTFUL, f"the mask that is there cannot be used: {error}")
                    return None
            if progress.proposal is None or progress.status is Status.NOTHING:
                return None
            return decode_mask(progress.proposal, size)

    def propose(self, index: int) -> None:
        """Let the network look at a photograph that waits. A photograph that cannot be read says why."""
        try:
            photograph = self.read(index)
            # A mask that was there before may be broken.
            self.mask(index)
            if self._progress[index].status is Status.WAITING and self._is_cut_out(index):
                self._change(index, Status.DONE, "its background is transparent")
        except (OSError, ValueError) as error:
            self._change(index, Status.UNREADABLE, str(error))
            return
        if self._progress[index].status is not Status.WAITING:
            return
        proposal, failure = None, None
        try:
            proposal = self.network.propose(photograph)
        except Exception as error:  # onnxruntime raises errors of its own. Box and brush remain.
            failure = f"the network failed ({type(error).__name__}: {error})"
        with self._lock:
            # A person may have been faster.
            if self._progress[index].status is not Status.WAITING:
                return
            if proposal is None:
                self._change(index, Status.OPEN, failure)
            else:
                if proposal.mask.any():
                    self._progress[index].proposal = encode_mask(proposal.mask.numpy())
                self._change(index, Status.DOUBTFUL if proposal.doubt else Status.PROPOSED, proposal.doubt)

    def _is_cut_out(self, index: int) -> bool:
        return cut_out(open_image(self.photographs[index].path)) is not None

    def accept(self, index: int, data: bytes, seen: str | None = None) -> None:
        """Write the mask that a person has accepted.

        Args:
            index: of the photograph.
            data: PNG in the size of the photograph as it is shown.
            seen: what `seen` has returned when the person saw the photograph. None takes what this session has looked
                at last.

        Raises:
            ValueError: it is no such PNG, or marks nothing, or the photograph or its mask has changed.
            OSError: the file could not be written. Then nothing has changed.
        """
        mask = encode_mask(decode_mask(data, self.read(index).size))
        with self._lock:
            self._refuse_changed(index, seen)
            self._decide([index], lambda _: self._write(index, mask, shows_nothing=False))

    def accept_proposals(self, without: Container[int] = (), is_seen: bool = True) -> int:
        """Write all proposals that passed the gates, and return how many.

        Photographs that another program has masked or removed meanwhile are left as they are.

        Args:
            without: photographs to leave as they are.
            is_seen: False notes in each mask that no person has seen it.

        Raises:
            OSError: one could not be written. Those before it are written.
        """
        with self._lock:
            passed = [i for i, progress in enumerate(self._progress) if progress.status is Status.PROPOSED]
            proposed = [i for i in passed if i not in without and self._is_there(i) and not self.look_again(i)]
            self._decide(proposed, lambda i: self._write(i, self._proposed(i, is_seen), shows_nothing=False))
            return len(proposed)

    def _proposed(self, index: int, is_seen: bool) -> bytes | None:
        proposal = self._progress[index].proposal
        return proposal if is_seen or proposal is None else mark_automatic(proposal)

    def reject(self, index: int, seen: str | None = None) -> None:
        """Remember that a photograph shows no object. A mask that it has is removed. Both arguments are as in `accept`.

        Raises:
            ValueError: something else marks an object, which is not for this page to remove; or the photograph cannot
                be read, or its mask has changed.
            OSError: it could not be written.
        """
        photograph = self.photographs[index]
        self.read(index)
        with self._lock:
            self._refuse_changed(index, seen)
            is_done = self._progress[index].status is Status.DONE
            if photograph.other is not None or (is_done and not photograph.mask_path.exists()):
                raise ValueError(
                    f"Expected a photograph without an object, but {(photograph.other or photograph.path).name!r} "
                    "marks one. Remove or change this file first."
                )
            self._decide([index], lambda _: self._write(index, None, shows_nothing=True))

    def undo(self) -> list[int]:
        """Undo the last decision, and return its photographs; none if there is nothing to undo.

        Those that another program has masked or removed meanwhile are left as they are.

        Raises:
            ValueError: all of them are left.
            OSError: one could not be written.
        """
        with self._lock:
            if not self._undoable:
                return []
            decided = self._undoable[-1]
            unchanged = [b for b in decided if self._is_there(b.photograph) and not self.look_again(b.photograph)]
            for before in unchanged:
                self._write(before.photograph, before.mask, before.shows_nothing)
                version = self._progress[before.photograph].version + 1
                self._progress[before.photograph] = before.progress
                self._progress[before.photograph].version = version
                self._seen[before.photograph] = self._look(before.photograph, before.mask)
            self._undoable.pop()
            if not unchanged:
                name = self.photographs[decided[0].photograph].key
                raise ValueError(
                    f"Expected the files of {name!r} as this page has left them, but another program has changed them. "
                    "The decision cannot be undone, and they stay as they are."
                )
            return [before.photograph for before in unchanged]

    def _is_there(self, index: int) -> bool:
        """Return False for a photograph that has been removed. A mask without its photograph would be refused."""
        if self.photographs[index].path.is_file():
            return True
        with suppress(ValueError):
            self.read(index)  # the status says why
        return False

    def _refuse_changed(self, index: int, seen: str | None) -> None:
        """Refuse a decision on a photograph whose mask is not the one that the person has seen."""
        if self.look_again(index) or seen not in (None, self.seen(index)):
            raise ValueError(
                f"Expected the mask of {self.photographs[index].key!r} as it was when the photograph was opened, but "
                "another program or tab has changed it. Nothing was written. Reload the page to see it, or decide "
                "again to replace it."
            )

    def _decide(self, indices: Iterable[int], write: Callable[[int], None]) -> None:
        with self._lock:
            undoable: list[_Before] = []
            try:
                for index in indices:
                    before = self._remember(index)
                    write(index)
                    undoable.append(before)
                    self._settle(index)
            finally:
                # What was written before an error can be undone, too.
                if undoable:
                    self._undoable.append(undoable)

    def _remember(self, index: int) -> _Before:
        mask = self._read_file(index)
        return _Before(index, mask, self.photographs[index] in self._record, replace(self._progress[index]))

    def _read_file(self, index: int) -> bytes | None:
        """Return the file of a mask, or None if there is none."""
        path = self.photographs[index].mask_path
        return path.read_bytes() if path.exists() else None

    def _look(self, index: int, mask: bytes | None) -> _Files:
        """Return what the files say on a photograph by now, one of which has been read."""
        self._record.read()
        return _Files(None if mask is None else zlib.crc32(mask), self.photographs[index] in self._record)

    def _write(self, index: int, mask: bytes | None, shows_nothing: bool) -> None:
        photograph = self.photographs[index]
        if shows_nothing:
            self._record.set(photograph, True)
        if mask is not None:
            write_file(photograph.mask_path, mask)
        else:
            remove(photograph.mask_path)
        if not shows_nothing:
            self._record.set(photograph, False)

    def _settle(self, index: int) -> None:
        """Set the status of a photograph as its files say."""
        photograph = self.photographs[index]
        mask = self._read_file(index)
        self._seen[index] = self._look(index, mask)
        self._progress[index].is_unseen = mask is not None and is_unseen(mask)
        if mask is not None:
            reason = "made by --auto, not looked at yet" if self._progress[index].is_unseen else None
            self._change(index, Status.DONE, reason)
        elif photograph.other is not None:
            self._change(index, Status.DONE, f"by {photograph.other.name}")
        elif self._seen[index].shows_nothing:
            self._change(index, Status.NOTHING)
        elif self._progress[index].status in (Status.DONE, Status.NOTHING):
            self._change(index, Status.WAITING)

    def _change(self, index: int, status: Status, reason: str | None = None) -> None:
        with self._lock:
            progress = self._progress[index]
            progress.status, progress.reason = status, reason
            progress.version += 1
