"""Unique names for images, and names that look alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from gradcam_callback.formatting import mark_words


def compose(name: str) -> str:
    """Return a name with its accents in one form. ``é`` may be one character or two, as macOS writes it in names."""
    return unicodedata.normalize("NFC", name)


def decompose(name: str) -> str:
    """Return a name with its accents as characters of their own, see `compose`."""
    return unicodedata.normalize("NFD", name)


def make_storable(name: object) -> str:
    """Return a name as text that every file can hold.

    Bytes of a file name that are no UTF-8 become halves of surrogate pairs in Python. They are written out:
    ``"caf\\udce9"``.
    """
    return str(name).encode(errors="backslashreplace").decode()


def name_class(name: object) -> str:
    """Return the name of a class as text: the first of several, as torchvision's ``ImageNet`` and ``Imagenette`` have.

    Those are a tuple for each class: ``("tench", "Tinca tinca")`` -> ``"tench"``.
    """
    return make_storable(name[0] if isinstance(name, tuple) and name else name)


def make_unique(names: Sequence[str]) -> list[str]:
    """Append ``-2``, ``-3`` and so on to repeated names: ``["a", "a"]`` -> ``["a", "a-2"]``."""
    originals, unique = set(names), dict[str, None]()
    for name in names:
        number, candidate = 1, name
        # A numbered name must not be the own name of another image: ["a", "a", "a-2"] -> ["a", "a-3", "a-2"].
        while candidate in unique or (number > 1 and candidate in originals):
            number += 1
            candidate = f"{name}-{number}"
        unique[candidate] = None
    return list(unique)


def number_by_class(class_names: Sequence[str]) -> list[str]:
    """Number the images of each class: ``["cat", "dog", "cat"]`` -> ``["cat-1", "dog-1", "cat-2"]``."""
    counts: dict[str, int] = {}
    numbered = []
    for name in class_names:
        counts[name] = counts.get(name, 0) + 1
        numbered.append(f"{name}-{counts[name]}")
    return numbered


def name_image(class_name: str, stem: str) -> str:
    """Name an image after its class and its file, with the class once: ``"cat-a"``, but ``"cat_000"``."""
    if not class_name:
        return stem
    begins = mark_words(stem.lower()).startswith(mark_words(class_name.lower()))
    return stem if begins else f"{class_name}-{stem}"
