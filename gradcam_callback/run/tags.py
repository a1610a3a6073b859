"""Tags: the names under which the images, scalars and texts of a run are logged."""

from __future__ import annotations

import re
import sys

# Control characters, halves of surrogate pairs, what TensorBoard's data server shows no picture for (it fails to read
# any key that JSON writes with a backslash), what a path would lose, and the start of what all these are written as.
_UNWRITABLE = re.compile(
    r"""[\x00-\x1f\x7f-\x9f\ud800-\udfff"\\] | (?:^|(?<=/))\.{1,2}(?=/|$) | ^/ | /(?=/|$) | %(?=[0-9A-F]{2})""",
    re.VERBOSE,
)


def tag(*parts: str) -> str:
    """``gradcam/<part>/<part>``; what no log can hold, such as a line's end or ``..``, is written as in a URL, ``%0A``.

    Different parts give different tags.
    """
    return sys.intern("/".join(["gradcam", *(_UNWRITABLE.sub(_escaped, part) for part in parts)]))


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode(errors="surrogatepass"))
