"""Boxes on a photograph of 60 x 40 pixels."""

from gradcam_callback.probes.masks import from_boxes

WIDTH, HEIGHT = 60, 40


def box(x1, y1, x2, y2):
    return from_boxes([x1, y1, x2, y2], HEIGHT, WIDTH)


def overlap(one, other):
    return float((one & other).sum() / (one | other).sum())
