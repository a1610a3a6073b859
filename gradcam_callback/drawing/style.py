"""The style of the panels: the size of a heatmap, its colours and the quality of the files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

from gradcam_callback.drawing.heatmap import check_colormap
from gradcam_callback.formatting import is_word

# The default size of a cell, the largest where few images or layers leave room, and the step between them, in pixels.
# Cells of these sizes lie on the grid of JPEG's squares, with the gaps between them.
USUAL, LARGEST, STEP = 76, 156, 16


# Frozen, as panels are laid out once for a style.
@dataclass(frozen=True)
class Style:
    """The style of all panels, strips and animations of a callback.

    Attributes:
        cell: longer side of one heatmap in a panel, in pixels, 16 or more. Strips and animations follow this size.
            None, the default, is 76, and up to 156 in panels of few layers or few images. A size that is given stays.
        colormap: name of a matplotlib colour map. Perceptually uniform colour maps, such as ``"inferno"`` and
            ``"viridis"``, show no edges that are not in the map; ``"jet"`` does.
        scaling: the value of the hottest colour. ``"map"`` takes the maximum of each map, which shows the shape of
            the focus. ``"run"`` takes the maximum of the layer in the run so far, which also shows the strength.
        quality: 1..95, the quality of JPEG files. TensorBoard gets WebP files that look the same.
        focus_cells: longer side of a map in the Focus tab and the report, in cells, 4 or more. Larger maps are averaged
            over areas. Of 224 px, 56 cells show the first three blocks more finely. They take about three times the
            room of 28.

    Raises:
        ValueError: If an attribute has another value.

    Examples:
        >>> from gradcam_callback import Style
        >>> Style(cell=112, colormap="viridis", quality=85)
        Style(cell=112, colormap='viridis', scaling='map', quality=85, focus_cells=28)
        >>> Style(cell=8)
        Traceback (most recent call last):
            ...
        ValueError: Expected `Style.cell` to be an integer of 16 or more, but got 8. Pass a size in pixels, such as 76.
    """

    cell: int | None = None
    colormap: str = "inferno"
    scaling: str = "map"
    quality: int = 60
    focus_cells: int = 28

    def __post_init__(self) -> None:
        """Validate the attributes."""
        if self.cell is not None and (not isinstance(self.cell, Integral) or self.cell < 16):
            raise ValueError(
                f"Expected `Style.cell` to be an integer of 16 or more, but got {self.cell!r}. "
                "Pass a size in pixels, such as 76."
            )
        check_colormap(self.colormap, "Style.colormap")
        if not is_word(self.scaling, ("map", "run")):
            raise ValueError(
                f"Expected `Style.scaling` to be 'map' or 'run', but got {self.scaling!r}. "
                "Pass 'map' to see the shape of each map, or 'run' to see its strength, too."
            )
        # Pillow takes 96..100, too, but these give much larger files that look the same.
        if not isinstance(self.quality, Integral) or not 1 <= self.quality <= 95:
            raise ValueError(
                f"Expected `Style.quality` to be an integer from 1 to 95, but got {self.quality!r}. "
                "Pass 60 for small files or 85 for fine ones."
            )
        if not isinstance(self.focus_cells, Integral) or self.focus_cells < 4:
            raise ValueError(
                f"Expected `Style.focus_cells` to be an integer of 4 or more, but got {self.focus_cells!r}. "
                "Pass 28, or 56 for finer maps of the first blocks."
            )

    @property
    def cell_size(self) -> int:
        """Return ``cell``, or the default size."""
        return USUAL if self.cell is None else self.cell

    def choose_cell(self, fits: Callable[[int], bool]) -> int:
        """Return ``cell``, or if it is None, the largest size that fits into a panel.

        Args:
            fits: tells if cells of a size fit. The default size is taken if no larger one fits.
        """
        larger = range(LARGEST, USUAL, -STEP) if self.cell is None else ()
        return next((size for size in larger if fits(size)), self.cell_size)
