"""Make the page of the Focus tab as one file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "page"
# In the order in which they import each other.
MODULES = ("dom.js", "data.js", "heat.js", "plots.js", "images.js", "interventions.js", "masks.js", "focus.js")


def frozen_page(runs: Sequence[dict[str, Any]]) -> str:
    """Return the page as HTML that needs no other file.

    Args:
        runs: each has its name as ``"run"``, ``"start"`` as in `gradcam_focus.records.describe_start`, and its
            ``"entries"``. ``"maps"`` is layer -> the maps as in `gradcam_focus.records.describe_maps`. ``"others"`` are
            the numbers of the entries that are left out, a list for each.
    """
    parts = {
        "STYLE": (PAGE / "focus.css").read_text(encoding="utf-8"),
        "SCRIPT": "\n".join(map(_as_value, MODULES)),
        # A script element ends at the first "</script", wherever it stands.
        "DATA": json.dumps({"runs": list(runs)}, ensure_ascii=False).replace("<", "\\u003c"),
    }
    page = (PAGE / "frozen.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], page)


def _as_value(name: str) -> str:
    """Return a module as a value with its exports, since a page from disk may not import another file."""
    script = (PAGE / name).read_text(encoding="utf-8")
    exports = re.findall(r"^export (?:async )?(?:function|class|const) (\w+)", script, flags=re.MULTILINE)
    script = re.sub(r'^import (\{[^}]*\}) from "\./(\w+)\.js";$', r"const \1 = \2Module;", script, flags=re.MULTILINE)
    script = re.sub(r"^export ", "", script, flags=re.MULTILINE)
    return f"const {name.removesuffix('.js')}Module = (() => {{\n{script}\nreturn {{ {', '.join(exports)} }};\n}})();"
