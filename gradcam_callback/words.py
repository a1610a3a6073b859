"""How names and figures are written."""

from __future__ import annotations

import re
import sys
import unicodedata

# Control characters, halves of surrogate pairs, what TensorBoard's data server shows no picture for (it fails to read
# any key that JSON writes with a backslash), what a path would lose, and the start of what all these are written as.
_UNWRITABLE = re.compile(
    r"""[\x00-\x1f\x7f-\x9f\ud800-\udfff"\\] | (?:^|(?<=/))\.{1,2}(?=/|$) | ^/ | /(?=/|$) | %(?=[0-9A-F]{2})""",
    re.VERBOSE,
)


def percent(share: float) -> str:
    """A share 0..1 in words: ``"87 %"``."""
    return f"{100 * share:.0f} %"


def followed(name: str, rest: str) -> str:
    """A name and what follows it, kept at its right also where the name's script runs from right to left."""
    runs_left = any(unicodedata.bidirectional(char) in ("R", "AL") for char in name)
    return name + ("\N{LEFT-TO-RIGHT MARK}" if runs_left else "") + rest


def block_of(layer: str) -> str:
    """The block that a layer's name belongs to, ``""`` for a dotted name: ``"block5_conv3"`` -> ``"block5"``."""
    match = re.fullmatch(r"(.*block\d+)_conv\d+", layer)
    return match[1] if match else ""


def figure(value: float) -> str:
    """A value to two digits that count: ``"0.042"``, ``"13"``, ``"2.1e-05"``."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def tag(*parts: str) -> str:
    """``gradcam/<part>/<part>``; what no log can hold, such as a line's end or ``..``, is written as in a URL, ``%0A``.

    Different parts give different tags.
    """
    return sys.intern("/".join(["gradcam", *(_UNWRITABLE.sub(_escaped, part) for part in parts)]))


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode(errors="surrogatepass"))
