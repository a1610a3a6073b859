"""Write the page of the Focus tab as one file, which can be mailed and opens without a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gradcam_callback.offline.logged_run import read_runs
from gradcam_focus.frozen import frozen_page


def write_report(
    runs: str | Path | Sequence[str | Path], out: str | Path, max_epochs: int = 12, tag_prefix: str | None = None
) -> None:
    """Write the page of one run, or of several runs side by side.

    The page is that of TensorBoard's Focus tab, with the same keys.

    Args:
        runs: the folder of a TensorBoard run, of ``save_dir`` or of ``save_maps``, or several of them.
        out: the HTML file.
        max_epochs: how many epochs of each run to show, evenly spread. Each takes about 100 kB for 16 images and 13
            layers.
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
    found = [run for folder in folders for run in read_runs(Path(folder), tag_prefix)]
    same_name = Counter(run.name for run in found)
    # Runs of one name, such as the callbacks of one training, are told apart by folder and prefix.
    same_place = Counter(str(run.folder) for run in found)
    described = []
    for run in found:
        name = run.name if same_name[run.name] == 1 or same_place[str(run.folder)] > 1 else str(run.folder)
        described.append({"run": name, **run.describe(max_epochs)})
    Path(out).write_text(frozen_page(described), encoding="utf-8")
