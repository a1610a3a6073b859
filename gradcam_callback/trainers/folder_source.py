"""Read a folder of images as the validation data would be read, and take a probe set from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gradcam_callback.formatting import name_some
from gradcam_callback.maps import GradCAM
from gradcam_callback.probes import (
    Feed,
    Item,
    ProbeSet,
    Sample,
    find_class_names,
    find_loader,
    find_parts,
    find_transform,
    make_probe_set,
    read_folder,
    replace_part,
)
from gradcam_callback.random_state import preserved_generators, preserved_random_state
from gradcam_callback.run import BatchForward
from gradcam_callback.trainers.data import ValidationData, count_classes
from gradcam_callback.trainers.differences import describe_difference


def read_probe_folder(
    folder: str | Path, data: ValidationData, cam: GradCAM, forward: BatchForward | None
) -> tuple[ProbeSet, str | None]:
    """Read a folder of images with loader and transform of the data, and send them the way of its items.

    Returns:
        The probe set, and how it differs from the images of the data, see `describe_difference`.

    Raises:
        ValueError: the data have no transform, or its items have a form that no image can be put into. Or the classes
            of the folder cannot be told for certain.
    """
    transform = find_transform(data.dataset)
    if transform is None or not data.can_be_indexed:
        lacking = "has none" if transform is None else "has no items by index"
        raise ValueError(
            f"Expected validation data with a transform, and with items by index, to read the folder "
            f"probe={str(folder)!r} alike, but {type(data.dataset).__name__} {lacking}. Pass "
            "GradCAMCallback(probe=ProbeSet.from_folder(folder, transform=...))."
        )
    with preserved_random_state(), preserved_generators([data.dataset]):
        found, examples = find_class_names(data.dataset), data.load_examples()
        other = data.find_other_label(found, examples) if found and data.feed.needs_labels else None
        if found is not None and other is not None:
            raise ValueError(
                f"Expected the validation data to have the labels of the classes {name_some(found.names)}, which "
                f"the dataset inside of them names, but item {other} has another one. Name all classes in the "
                "order of their labels: probe=ProbeSet.from_folder(folder, transform, class_names=[...])."
            )
        names, loader = found and found.names, find_loader(data.dataset)
        items, classes = read_folder(Path(folder), transform, names, data.automatic_masks, loader)
        read = make_probe_set(items, class_names=classes, sources=[transform], automatic=data.automatic_masks)
        probe = _send(read, data, examples)
        if names is None:
            _refuse_other_classes(probe, cam, forward)
        else:
            probe.n_classes = len(names)
        return probe, _compare(probe, examples, data.feed)


def _compare(probe: ProbeSet, examples: Sequence[tuple[int, Any]], feed: Feed) -> str | None:
    """Say how the images differ from those of the data, if they are not normalised alike."""
    samples = [feed.samples([item], [number])[0].image.float() for number, item in examples]
    # Images of several sizes may be padded to those beside them.
    if len({image.shape for image in samples}) != 1:
        return None
    return describe_difference(probe.images.float(), torch.stack(samples))


def _refuse_other_classes(probe: ProbeSet, cam: GradCAM, forward: BatchForward | None) -> None:
    """Refuse a folder that has another number of classes than the network, if their names are not known."""
    row = None if probe.rows is None else probe.rows[0]
    n_outputs = count_classes(cam, forward, Sample(probe.images[0], None, None, row))
    found = probe.class_names or []
    if len(found) != n_outputs:
        raise ValueError(
            f"Expected a folder for each of the {n_outputs} classes of the model, since the validation data do not "
            f"name their classes, but got {len(found)}: {name_some(found)}. Name all classes in their order: "
            "probe=ProbeSet.from_folder(folder, transform, class_names=[...])."
        )


def _send(probe: ProbeSet, data: ValidationData, examples: Sequence[tuple[int, Any]]) -> ProbeSet:
    """Send images that the transform of the data has made through its collate function and the hooks."""
    # The images take the place of one in an item, as nobody else knows the form of the items.
    number, item = examples[0]
    own = find_parts(item, f"item {number} of {data.feed.name}", batched=False, needs_labels=False).images
    samples = data.feed.samples([replace_part(item, own, image) for image in probe.images], range(len(probe)))
    items = []
    for i, sample in enumerate(samples):
        name, proposal = probe.names[i], (probe.proposals or {}).get(i)
        drawn = probe.masks is not None and bool(probe.has_mask[i]) and proposal is None
        mask = probe.masks[i] if probe.masks is not None and drawn else None
        label, is_box = int(probe.labels[i]), bool(probe.box_masks[i])
        item = Item(sample.image, label, mask, name, name=name, row=sample.row, proposal=proposal, boxed=is_box)
        items.append(item)
    return data.make(items, class_names=probe.class_names, automatic=data.automatic_masks)
