"""Accept all proposals that pass the gates, without a person."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from gradcam_callback.drawing import InputImage, MaskCell, encode_jpeg, mask_sheet
from gradcam_callback.masking.by_hand import conclude
from gradcam_callback.masking.photographs import write_file
from gradcam_callback.masking.pixels import SMALL, pad_to_square
from gradcam_callback.masking.session import MaskingSession, Status

# Hidden, so that the sheet is not taken for a photograph.
SHEET = ".masks-sheet.jpg"
_QUALITY = 90
# More cells would make a JPEG larger than its format allows.
_MOST_CELLS = 200


def mask_automatically(folder: Path) -> Iterator[str]:
    """Write the proposals that pass the gates, and a sheet of all new proposals; yield what to print.

    Photographs that have a mask, or show no object, are left as they are. So are earlier sheets: the next one has the
    next number.

    Args:
        folder: holds photographs, or one folder per class.

    Raises:
        ValueError: the folder holds no photographs, or its names clash, or there is no network.
        OSError: the folder is none, or a file cannot be written.
    """
    session = MaskingSession(folder)
    session.network.load()
    if session.network.missing is not None:
        raise ValueError(f"Expected --auto to find the network, but there is none. {session.network.missing}")
    waiting = [i for i in range(len(session)) if session.progress(i).status is Status.WAITING]
    cells: list[MaskCell] = []
    for index in waiting:
        session.propose(index)
        progress = session.progress(index)
        name = session.photographs[index].key
        if progress.status is Status.UNREADABLE:
            yield f"left out: {progress.reason}"
            continue
        if progress.status is Status.DONE:
            continue  # a cut-out is its own mask
        if progress.status is not Status.PROPOSED:
            yield f"left out: {name}: {progress.reason}"
        if len(cells) < _MOST_CELLS:
            cells.append(_draw_cell(session, index))
    n_new = sum(session.progress(index).status not in (Status.DONE, Status.UNREADABLE) for index in waiting)
    accepted = session.accept_proposals(is_seen=False)
    yield f"Accepted {accepted} of {n_new} automatic masks."
    sheet_path = _next_sheet(folder)
    # Of doubtful ones alone, a sheet would be written at each run.
    if cells and (accepted or sheet_path.name == SHEET):
        shown = f"; the first {len(cells)} are shown" if _MOST_CELLS == len(cells) < n_new else ""
        note = f"bright: the mask; {accepted} of {n_new} are used{shown}; look for wrong ones"
        sheet = mask_sheet("Automatic masks", note, sorted(cells, key=lambda cell: cell.doubt is None))
        write_file(sheet_path, encode_jpeg(sheet, _QUALITY).data)
        yield f"Look at them{shown}: {sheet_path}"
    yield conclude(session)


def _next_sheet(folder: Path) -> Path:
    """Return the first path of a sheet that is free, since earlier sheets show masks that nobody may have looked at."""
    named = SHEET.removesuffix(".jpg")
    paths = (folder / (SHEET if number == 1 else f"{named}-{number}.jpg") for number in itertools.count(1))
    return next(path for path in paths if not path.exists())


def _draw_cell(session: MaskingSession, index: int) -> MaskCell:
    """Return a photograph with its proposal in a square, since all cells of a sheet have one shape."""
    photograph, mask = session.read(index), session.mask(index)
    found = np.zeros(photograph.size[::-1], bool) if mask is None else mask
    white = Image.fromarray(found).convert("L")
    squares = np.asarray(pad_to_square(photograph, SMALL)), np.asarray(pad_to_square(white, SMALL)) > 127
    return MaskCell(session.photographs[index].key, InputImage(*squares), session.progress(index).reason)
