"""Put the answers of a network into the captions of images."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gradcam_callback.drawing import Caption
from gradcam_callback.maps import CAMs, class_probability, is_correct, predicted_class, rival_class
from gradcam_callback.probes import ProbeSet
from gradcam_callback.run.interventions import Answers, Interventions

# What is explained by a callable target.
OWN_TARGET = "your target"
# What stands in place of a prediction if the outputs are not finite.
NO_ANSWER = "no answer (NaN)"


def explains_classes(cams: CAMs) -> bool:
    """Return True if maps explain classes, False if they explain the scores of the user's own target."""
    return bool((cams.targets >= 0).all())


def caption_maps(probe: ProbeSet, cams: CAMs, labelled: bool = True, contrast: bool = False) -> list[Caption]:
    """Make the caption of each probe image and its maps.

    Args:
        labelled: False leaves the labels out, and with them correct and wrong.
        contrast: True if the maps explain why a class and not the strongest other one.
    """
    if not explains_classes(cams):
        scores = [f"score {score:.4g}" for score in cams.logits[:, 0].tolist()]
        pairs = zip(probe.names, scores, strict=True)
        return [Caption(name, None, score, None, None, OWN_TARGET, None) for name, score in pairs]
    explained = class_probability(cams.logits, cams.targets, probe.multi_label)
    answers = caption_answers(probe, cams.logits, torch.arange(len(probe)), labelled)
    return [
        replace(
            answer,
            explained=_explained(probe, cams, i, contrast),
            explained_probability=None if contrast else _known(explained[i]),
        )
        for i, answer in enumerate(answers)
    ]


def caption_answers(probe: ProbeSet, logits: Tensor, numbers: Tensor, labelled: bool = True) -> list[Caption]:
    """Make the caption of each answer of a network.

    Args:
        logits: ``(n, K)``.
        numbers: ``(n,)``, the number of the probe image that each answer is about.
        labelled: False leaves the labels out, and with them correct and wrong.
    """
    labelled = labelled and probe.has_labels
    labels = probe.labels[numbers]
    correct = is_correct(logits, labels, probe.multi_label)
    if probe.multi_label:
        # The question is if the label's class is in the image; the prediction is the likelier of yes and no.
        of_label = class_probability(logits, labels, multi_label=True)
        probabilities = torch.where(correct == 1, of_label, 1 - of_label)
        predictions = [
            probe.class_name(label) if found else f"no {probe.class_name(label)}"
            for label, found in zip(labels.tolist(), correct.tolist(), strict=True)
        ]
    else:
        predicted = predicted_class(logits)
        probabilities = class_probability(logits, predicted)
        predictions = [probe.class_name(label) for label in predicted.tolist()]
    return [
        Caption(
            probe.names[number],
            probe.class_name(int(labels[i])) if labelled else None,
            predictions[i] if is_answer else NO_ANSWER,
            bool(correct[i]) if labelled and is_answer else None,
            _known(probabilities[i]),
            explained="",
            explained_probability=None,
        )
        for i, (number, is_answer) in enumerate(zip(numbers.tolist(), (~probabilities.isnan()).tolist(), strict=True))
    ]


def caption_set(interventions: Interventions, answers: Answers, name: str) -> dict[int, Caption]:
    """Make the caption of each image of a set that was asked: its place in the set -> its caption.

    Args:
        interventions: of the answers.
        answers: of a network.
        name: of the set.
    """
    places = answers.places[name]
    numbers = interventions.numbers_of(name)[places]
    found = caption_answers(interventions.probe, answers.logits[name], numbers) if len(places) else []
    return dict(zip(places.tolist(), found, strict=True))


def _known(probability: Tensor) -> float | None:
    return None if probability.isnan() else float(probability)


def _explained(probe: ProbeSet, cams: CAMs, i: int, contrast: bool) -> str:
    """Return the name of the class that a map explains, such as ``"heart"``, or ``"heart, not moon"``."""
    own = int(cams.targets[i])
    if not contrast:
        return probe.class_name(own)
    other = int(rival_class(cams.logits[i : i + 1], cams.targets[i : i + 1]))
    return f"{probe.class_name(own)}, not {probe.class_name(other)}"
