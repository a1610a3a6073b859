"""The focus of a layer: how much of its maps lies on the objects."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from gradcam_callback.measures.metrics import mask_area, relevance_mass


@dataclass(frozen=True)
class Focus:
    """The part of one layer's maps that lies on the objects.

    Images whose map is empty are left out of both means, so that `lift` is their ratio.

    Attributes:
        layer: its name.
        mass: the mean relevance mass, 0..1; NaN if every map is empty.
        area: the mean mask area, 0..1, of the same images; NaN if every map is empty.
        first_lift: the lift at the first entry of the run; None at the first entry, or if it was undefined there.
    """

    layer: str
    mass: float
    area: float
    first_lift: float | None = None

    @classmethod
    def from_maps(cls, layer: str, maps: Tensor, masks: Tensor) -> Focus:
        """Measure the focus of a layer.

        Args:
            layer: its name.
            maps: ``(M, h, w)``, of the images with a mask.
            masks: ``(M, H, W)`` bool, True on the object.
        """
        mass, area = relevance_mass(maps, masks), mask_area(masks)
        defined = ~mass.isnan()
        return cls(layer, float(mass[defined].mean()), float(area[defined].mean()))

    @property
    def lift(self) -> float:
        """Return ``mass / area``: 1 is chance, below 1 the maps avoid the objects; NaN if every map is empty."""
        return self.mass / self.area

    @property
    def is_empty(self) -> bool:
        """Return True if every map of the layer is empty."""
        return math.isnan(self.mass)

    @property
    def lost_share_of_lift(self) -> float:
        """Return the share of the first entry's lift that is gone, 0..1; 0 if it has grown or is undefined."""
        if not self.first_lift or self.is_empty:
            return 0.0
        return max(0.0, 1 - self.lift / self.first_lift)
