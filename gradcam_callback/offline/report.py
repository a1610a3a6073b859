"""Write the page of the Focus tab as one file, which can be mailed and opens without a network."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from gradcam_callback.offline.logged_run import LoggedRun, read_runs
from gradcam_focus.frozen import frozen_page


def write_report(
    runs: str | Path | Sequence[str | Path], out: str | Path, max_epochs: int = 12, tag_prefix: str | None = None
) -> None:
    """Write the page of one run, or of several runs side by side.

    The page is that of TensorBoard's Focus tab, with the same keys.

    Args:
        runs: the folder of a TensorBoard run, of ``save_dir`` or of ``save_maps``, or several of them.
        out: the HTML file.
        max_epochs: how many epochs of each run to show maps of, evenly spread. The curves have all. Each takes
            about 100 kB for 16 images and 13 layers.
        tag_prefix: whose entries to show, if several callbacks logged into the event file. None shows all.

    Raises:
        ValueError: a folder holds no run, or no logged validation; or ``max_epochs`` is below 1.

    Examples:
        >>> from gradcam_callback import write_report
        >>> write_report("/no/run/here", "focus.html")
        Traceback (most recent call last):
        ValueError: Expected the folder of one run, but '/no/run/here' holds no event file and no history.json. ...
    """
    if max_epochs < 1:
        raise ValueError(f"Expected `max_epochs` to be 1 or more, but got {max_epochs!r}. Choose the epochs to show.")
    folders = [runs] if isinstance(runs, str | Path) else list(runs)
    if not folders:
        raise ValueError("Expected the folder of a run, but got none. Pass one or more.")
    # A folder that is given twice counts once, however it is spelt.
    by_place = {Path(folder).resolve(): read_runs(Path(folder), tag_prefix) for folder in folders}
    # The callbacks of one training have one name. The page tells them apart by their prefixes.
    described = [
        {"run": _shortest_name(run, by_place), **run.describe(max_epochs)}
        for of_place in by_place.values()
        for run in of_place
    ]
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(frozen_page(described), encoding="utf-8")


def _shortest_name(run: LoggedRun, places: Collection[Path]) -> str:
    """Return the name of a run, with as many of the folders above it as it needs to be the only one of its name."""
    own = run.folder.resolve()
    others = [place.parts for place in places if place != own]
    length = len(Path(run.name).parts)
    while any(parts[-length:] == own.parts[-length:] for parts in others):
        length += 1
    return Path(*own.parts[-length:]).as_posix()
