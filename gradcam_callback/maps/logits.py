"""Predictions, their probabilities and their correctness, from logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def predicted_class(logits: Tensor) -> Tensor:
    """Return the class with the highest logit for each image.

    Args:
        logits: ``(N, K)``. A single logit (``K = 1``) predicts class 1 if it is positive, else class 0.

    Returns:
        ``(N,)`` int64.
    """
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)


def rival_class(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the class with the highest logit but for a given one, for each image.

    Args:
        logits: ``(N, K)``. A single logit (``K = 1``) knows two classes only.
        classes: ``(N,)`` int64, the given ones.

    Returns:
        ``(N,)`` int64.
    """
    return 1 - classes if logits.shape[1] == 1 else logits.scatter(1, classes[:, None], -torch.inf).argmax(dim=1)


def class_probability(logits: Tensor, classes: Tensor, multi_label: bool = False) -> Tensor:
    """Return the probability of one given class per image.

    Args:
        logits: ``(N, K)``.
        classes: ``(N,)`` int64.
        multi_label: True if an image may have several labels. Each logit then has its own sigmoid.

    Returns:
        ``(N,)`` float32 in 0..1: from softmax, or from the sigmoid of a single logit (``K = 1``).
    """
    if logits.shape[1] == 1:
        # sigmoid(-x) = 1 - sigmoid(x), so the sign chooses between class 1 and class 0.
        return (logits[:, 0].float() * (2 * classes - 1)).sigmoid()
    probabilities = logits.float().sigmoid() if multi_label else logits.float().softmax(dim=1)
    return probabilities.gather(1, classes[:, None])[:, 0]


def is_correct(logits: Tensor, labels: Tensor, multi_label: bool = False) -> Tensor:
    """Return 1 for each image whose prediction agrees with its label, and 0 for each other one.

    Args:
        logits: ``(N, K)``.
        labels: ``(N,)`` int64.
        multi_label: True if an image may have several labels. A prediction is then correct if the label's own logit
            is positive; otherwise, if the label is the predicted class.

    Returns:
        ``(N,)`` float64; NaN for logits that give no probability, as they are no answer: a NaN would be the predicted
        class wherever it stands.
    """
    if multi_label and logits.shape[1] > 1:
        asked, agrees = labels, torch.gather(logits, 1, labels[:, None])[:, 0] > 0
    else:
        asked = predicted_class(logits)
        agrees = asked == labels
    return agrees.double().masked_fill(class_probability(logits, asked, multi_label).isnan(), math.nan)


def agreement_by_chance(labels: Tensor, predicted: Tensor) -> float:
    """Return how often predictions would agree with the labels if they were shuffled.

    It is the agreement by chance of Cohen 1960, "A coefficient of agreement for nominal scales". A network that always
    says the most frequent class agrees with the labels no more often than this.

    Args:
        labels: ``(N,)`` int64.
        predicted: ``(N,)`` int64, the predicted classes.

    Returns:
        0..1; NaN without images.
    """
    return float((labels[:, None] == predicted).double().mean())


def false_yes_rate(logits: Tensor, present: Tensor) -> float:
    """Return how often a network says yes to a class that an image does not hold.

    A network that says yes to everything is correct for all labels, see `is_correct`.

    Args:
        logits: ``(N, K)``.
        present: ``(N, L)`` bool, the classes of each image. A head may have been made for more classes, or for fewer.

    Returns:
        0..1, or NaN if every image holds all classes.
    """
    shared = min(logits.shape[1], present.shape[1])
    return float((logits[:, :shared] > 0)[~present[:, :shared]].float().mean())
