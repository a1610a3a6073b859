"""Read the XML files of Pascal VOC, as LabelImg, CVAT and Label Studio write them, too."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from gradcam_callback.probes.annotations import (
    Annotation,
    Shape,
    check_size,
    collect,
    complain,
    read_bytes,
    to_numbers,
)


def read_voc(path: Path, class_name: str, size: tuple[int, int]) -> Annotation | None:
    """Read boxes from an XML file of Pascal VOC.

    Args:
        path: of the XML file.
        class_name: of the image.
        size: the width and height of the photograph, upright.

    Returns:
        None if it marks no object, or if the XML is no annotation of VOC.

    Raises:
        ValueError: the file is no XML, declares entities, belongs to an image of another size, or has a broken object.
    """
    content = read_bytes(path)
    declared = content.upper()
    # Entities can grow without end or read other files. VOC has none. Another encoding could hide them.
    if b"<!DOCTYPE" in declared or b"<!ENTITY" in declared or b"\0" in content:
        raise complain(
            path, "XML in UTF-8 without a document type, as VOC writes it,", "another kind", "Remove the declaration."
        )
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise complain(path, "XML, as Pascal VOC writes it,", str(error)) from error
    if root.tag != "annotation":
        return None
    texts = [root.findtext(f"size/{side}") or "0" for side in ("width", "height")]
    stored = to_numbers(texts)
    if stored is None:
        raise complain(path, "numbers in <size>", f"{' x '.join(texts)!r}")
    # Some programs write no size, or 0.
    if all(stored):
        check_size(path, (int(stored[0]), int(stored[1])), size)
    return collect([_read_object(path, one) for one in root.iter("object")], class_name, *size)


def _read_object(path: Path, element: ElementTree.Element) -> Shape:
    name = (element.findtext("name") or "").strip()
    corners = to_numbers([element.findtext(f"bndbox/{key}", "") for key in ("xmin", "ymin", "xmax", "ymax")])
    if corners is None:
        raise complain(
            path,
            "a <bndbox> with numbers in each <object>",
            f"none in that of {name!r}",
            "Correct it, or export as VOC, as labelme's JSON, or as COCO.",
        )
    x1, y1, x2, y2 = corners
    # VOC counts pixels from 1, and the last one belongs to the box.
    return Shape(name, box=(x1 - 1, y1 - 1, x2, y2))
