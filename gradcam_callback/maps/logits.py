"""What a network's logits say: which class, how surely, and whether that is right."""

from __future__ import annotations

import torch
from torch import Tensor


def predicted_class(logits: Tensor) -> Tensor:
    """``(N, K)`` logits -> ``(N,)`` the class that each predicts; of a single logit 1 where it is positive, else 0."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)


def class_probability(logits: Tensor, classes: Tensor, multi_label: bool = False) -> Tensor:
    """``(N, K)`` logits and ``(N,)`` classes -> ``(N,)`` probabilities 0..1.

    Softmax; the sigmoid of a single logit, and of each where several labels may hold at once.
    """
    if logits.shape[1] == 1:
        return (logits[:, 0].float() * (2 * classes - 1)).sigmoid()
    of_all = logits.float().sigmoid() if multi_label else logits.float().softmax(dim=1)
    return of_all.gather(1, classes[:, None])[:, 0]


def is_correct(logits: Tensor, labels: Tensor, multi_label: bool = False) -> Tensor:
    """``(N, K)`` logits and ``(N,)`` labels -> ``(N,)`` bool.

    Whether the label is the predicted class; where several labels may hold at once, whether its own logit is positive.
    """
    if multi_label and logits.shape[1] > 1:
        return torch.gather(logits, 1, labels[:, None])[:, 0] > 0
    return predicted_class(logits) == labels
