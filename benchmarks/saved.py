"""The files of a network of a study in its folder: its true accuracies, and what the callback found by each basis.

Each is a file of its own, so that one can be measured again without the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# The true accuracies at the last epoch.
TRUTH = "truth.json"
# For each of the last two epochs and each number of images: the scalars, and the answer to each single swap.
SCALARS, ANSWERS = "scalars", "answers"

# The probe sets that each network is asked on, by their number of images. Each object is put on three backgrounds of
# each kind, or on one, as in a verdict set.
MANY, ONE_EACH, FEW = 64, "64, one background each", 16
PROBES: tuple[int | str, ...] = (MANY, ONE_EACH, FEW)

Row = dict[str, Any]


def file_of(basis: str) -> str:
    """Return the name of the file of a basis."""
    return f"{basis.replace(' ', '_')}.json"


def save(path: Path, content: object) -> None:
    """Save as JSON, whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content))
    partial.rename(path)


def read_saved(out: Path, basis: str, part: str) -> Iterator[Row]:
    """Yield what was found by one basis, with the true accuracies of the last epoch.

    Args:
        out: the folder of the networks.
        basis: see `gradcam_callback.measures.basis`.
        part: `SCALARS`, or `ANSWERS`, of which networks that were evaluated long ago have none.
    """
    for path in sorted(out.glob(f"*/{TRUTH}")):
        truth, found = json.loads(path.read_text()), path.with_name(file_of(basis))
        for row in json.loads(found.read_text()) if found.exists() else ():
            if part in row:
                known = truth if row["epoch"] == truth["epoch"] else {}
                about = {name: value for name, value in row.items() if name not in (SCALARS, ANSWERS)}
                yield {**about, **known, **row[part]}
