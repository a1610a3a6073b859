"""Tags: the names under which the images, scalars and texts of a run are logged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from gradcam_callback.formatting import is_word
from gradcam_callback.layer_names import pick_layers
from gradcam_callback.writers import Charts

DEFAULT_PREFIX = "gradcam"

# Scalars of the whole probe set.
PROBE_ACCURACY = "probe_accuracy"
SWAP_ACCURACY = "swap_accuracy"
SWAP_ACCURACY_LOW, SWAP_ACCURACY_HIGH = "swap_accuracy_low", "swap_accuracy_high"
SWAP_DROP = "swap_drop"
SWAP_CONTROL_ACCURACY = "swap_control_accuracy"
BACKGROUND_GAP, BACKGROUND_GAP_LOW, BACKGROUND_GAP_HIGH = "background_gap", "background_gap_low", "background_gap_high"
PASTING_COST = "pasting_cost"
BACKGROUND_ACCURACY = "background_accuracy"
FOREGROUND_ACCURACY = "foreground_accuracy"
FRAME_ACCURACY, FRAME_CONTROL_ACCURACY, FRAME_DROP = "frame_accuracy", "frame_control_accuracy", "frame_drop"
FRAME_GAP, FRAME_GAP_LOW, FRAME_GAP_HIGH = "frame_gap", "frame_gap_low", "frame_gap_high"
FAITHFULNESS, ROAD = "faithfulness", "road"

# Scalars of one layer, ``<metric>/<layer>``.
RELEVANCE_MASS, LIFT, POINTING_GAME = "relevance_mass", "lift", "pointing_game"
ENTROPY, STRENGTH, EMPTY, DRIFT = "entropy", "strength", "empty", "drift"
BORDER_MASS, CENTRE_DISTANCE = "border_mass", "centre_distance"

# The accuracies that a verdict compares, with masks or without, and the gap with its interval.
FRAME_ACCURACIES = (FRAME_CONTROL_ACCURACY, FRAME_ACCURACY)
ACCURACIES = (PROBE_ACCURACY, SWAP_CONTROL_ACCURACY, SWAP_ACCURACY, *FRAME_ACCURACIES)
BACKGROUND_GAPS = (BACKGROUND_GAP, BACKGROUND_GAP_LOW, BACKGROUND_GAP_HIGH)
FRAME_GAPS = (FRAME_GAP, FRAME_GAP_LOW, FRAME_GAP_HIGH)
MASK_METRICS = (RELEVANCE_MASS, LIFT, POINTING_GAME)
MASKLESS_METRICS = (BORDER_MASS, CENTRE_DISTANCE)
MAP_METRICS = (ENTROPY, STRENGTH, EMPTY, DRIFT)
SWAP_SCALARS = (SWAP_ACCURACY, SWAP_ACCURACY_LOW, SWAP_ACCURACY_HIGH, SWAP_DROP)
CONTROL_SCALARS = (SWAP_CONTROL_ACCURACY, *BACKGROUND_GAPS, PASTING_COST)
FRAME_SCALARS = (*FRAME_ACCURACIES, FRAME_DROP, *FRAME_GAPS)
NEED_MASKS = (*MASK_METRICS, BACKGROUND_ACCURACY, FOREGROUND_ACCURACY, *SWAP_SCALARS, *CONTROL_SCALARS)

# Images, and the choices of ``views``.
OVERVIEW, PROBE, LAYER, EVOLUTION = "overview", "probe", "layer", "evolution"
ANIMATION, DEPTH_PROFILE, COUNTERFACTUALS, MASKS = "animation", "depth_profile", "counterfactuals", "masks"
VIEWS = (OVERVIEW, PROBE, LAYER, EVOLUTION, ANIMATION, DEPTH_PROFILE, COUNTERFACTUALS, MASKS)
# The Focus tab shows layers and epochs better than images can, so these views have to be asked for.
DEFAULT_VIEWS = (OVERVIEW, PROBE, COUNTERFACTUALS, MASKS)
# The views that a writer without room for all of them gets at every entry all the same.
EVERY_ENTRY = (OVERVIEW, MASKS)
THINNED = tuple(view for view in VIEWS if view not in EVERY_ENTRY)
# The views that show several epochs.
OVER_EPOCHS = (EVOLUTION, ANIMATION)

# The text of the verdict.
VERDICT = "verdict"

# Control characters and halves of surrogate pairs. Quotes and backslashes: TensorBoard's data server fails on any key
# that JSON writes with a backslash. Parts that a path would lose: ``.``, ``..`` and empty ones. The start of an escape.
_UNWRITABLE = re.compile(
    r"""[\x00-\x1f\x7f-\x9f\ud800-\udfff"\\] | (?:^|(?<=/))\.{1,2}(?=/|$) | ^/ | /(?=/|$) | %(?=[0-9A-F]{2})""",
    re.VERBOSE,
)


def name_by_class(name: str) -> str:
    """Return the name of a metric that is logged for each class."""
    return f"{name}_by_class"


def name_by_image(name: str) -> str:
    """Return the name of a metric that is logged for each probe image."""
    return f"{name}_by_image"


@lru_cache(maxsize=8192)
def join(*parts: str) -> str:
    """Join parts to a name: ``join("lift", "block5_conv3")`` -> ``"lift/block5_conv3"``."""
    # Cached, so that all entries of a long history share their strings.
    return "/".join(parts)


def sheet_of_counterfactuals(number: int) -> tuple[str, ...]:
    """Return the parts of the tag of a sheet; the first sheet is number 1."""
    return (COUNTERFACTUALS,) if number == 1 else (COUNTERFACTUALS, str(number))


class Tags:
    """Tags below one prefix.

    Args:
        prefix: the first part of every tag, such as ``"gradcam"`` or ``"gradcam/test"``.

    Examples:
        >>> from gradcam_callback.run.tags import Tags
        >>> Tags("gradcam_2")("lift", "block5_conv3")
        'gradcam_2/lift/block5_conv3'
        >>> Tags()("probe", "two\\nlines")
        'gradcam/probe/two%0Alines'
    """

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        self.prefix = prefix

    def __call__(self, *parts: str) -> str:
        """Return ``<prefix>/<part>/<part>``.

        Characters that no log can hold, such as a line break, are escaped as in a URL (``%0A``). Different parts give
        different tags.
        """
        return _tag(self.prefix, parts)

    def tag_all(self, scalars: Mapping[str, float]) -> dict[str, float]:
        """Return the scalars under their tags."""
        return {self(name): value for name, value in scalars.items()}

    def below(self, stage: str) -> Tags:
        """Return the tags of a stage that is no part of a training, such as ``gradcam/test/...``."""
        return Tags(join(self.prefix, stage))

    def charts(self, loggable: Sequence[str]) -> Charts:
        """Return the charts of TensorBoard's Custom Scalars: those that a person watches, with few lines in each.

        TensorBoard draws all lines of a run in one colour, so that more of them cannot be told apart.

        Args:
            loggable: the names of all scalars that an entry may have, in the order of the layers.
        """
        charts: Charts = {}
        accuracies = [self._exactly(name) for name in ACCURACIES if name in loggable]
        if accuracies:
            # Runs with and without masks may be shown together, and have no lines in common but the first.
            by_frames = any(name in loggable for name in FRAME_ACCURACIES)
            charts["accuracies by frames" if by_frames else "accuracies"] = ("Multiline", accuracies)
        for gap in (BACKGROUND_GAPS, FRAME_GAPS):
            if gap[0] in loggable:
                charts[f"{gap[0].replace('_', ' ')} with its 95 % interval"] = ("Margin", [self(name) for name in gap])
        for metric in (LIFT, BORDER_MASS, DRIFT):
            layers = [name.removeprefix(f"{metric}/") for name in loggable if name.startswith(f"{metric}/")]
            lines = [self._exactly(join(metric, layer)) for layer in pick_layers(layers)]
            if lines:
                charts[f"{metric.replace('_', ' ')} by layer"] = ("Multiline", lines)
        return charts

    def _exactly(self, name: str) -> str:
        # TensorBoard reads the tags of a Multiline chart as regular expressions.
        return f"^{re.escape(self(name))}$"


def names_by_layer(layers: Sequence[str], masks: bool) -> Iterator[str]:
    """Yield the name of every scalar by layer that an entry may have.

    Args:
        layers: the chosen layers.
        masks: True if any probe image has a mask.
    """
    metrics = (*MAP_METRICS, *(MASK_METRICS if masks else MASKLESS_METRICS))
    yield from (join(metric, layer) for metric in metrics for layer in layers)


def check_prefix(prefix: str) -> str:
    """Return a prefix that can stand in a tag as it is.

    Raises:
        ValueError: it is empty, or holds characters that a tag cannot have.
    """
    if not isinstance(prefix, str) or not prefix or _UNWRITABLE.search(prefix):
        raise ValueError(
            f"Expected `tag_prefix` to be a name such as 'gradcam', but got {prefix!r}. Use letters, digits, '_' and "
            "'-', and '/' only between them."
        )
    return prefix


def resolve_views(views: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of the views to log.

    Args:
        views: some of `VIEWS`, one of them, or ``"all"``.

    Raises:
        ValueError: an unknown view.
    """
    chosen = VIEWS if is_word(views, ["all"]) else (views,) if isinstance(views, str) else tuple(views)
    if not all(is_word(view, VIEWS) for view in chosen):
        choices = ", ".join(map(repr, VIEWS))
        raise ValueError(f"Expected `views` to be 'all' or some of {choices}, but got {views!r}. Correct the name.")
    return chosen


@lru_cache(maxsize=8192)
def _tag(prefix: str, parts: tuple[str, ...]) -> str:
    return "/".join([prefix, *(_UNWRITABLE.sub(_escape, part) for part in parts)])


def _escape(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode(errors="surrogatepass"))
