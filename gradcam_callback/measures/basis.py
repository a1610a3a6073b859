"""What tells the object from the background, and with it what a verdict may claim, and when."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gradcam_callback.measures.rounding import rounded

MASKS, AUTOMATIC_MASKS, FRAME = "masks", "automatic masks", "frame"
# Masks of which some are plain boxes. A verdict calls this basis masks, too.
BOXES = "boxes"
# A gap has to be larger than so many of the images that it is measured on, but never than this share of them. Of 16
# images, some are wrong by chance, and the same ones may be so in two epochs: docs/study.md.
FEW_IMAGES, LARGEST_LIMIT = 3, 0.5


@dataclass(frozen=True)
class Limits:
    """The limits above which a fall of the accuracy says that the background decides.

    Attributes:
        sure: of the lower bound of its interval.
        size: of the fall itself, and of that of the epoch before, so that a single epoch raises no suspicion.
        sign: of a smaller fall. It raises no suspicion, but the next entry asks about more images.
    """

    sure: float
    size: float
    sign: float


@dataclass(frozen=True)
class Basis:
    """The limits and the words of one basis.

    Attributes:
        gap: limits for the background gap.
        drop: limits for the fall without a control. Cutting and pasting costs accuracy, too, so they are larger.
        suspicion: the headline's first words if a shortcut is suspected.
        no_sign: the same if nothing was found. Only masks that a person has seen may acquit.
        no_sign_yet: the same if a part of the images was asked, which is too little to tell.
        of_same_class: where objects are put for the control.
        of_other_class: where they are put for the test.
        what_decides: the subject of the sentence on the gap.
        pasting: what costs accuracy in the control, too.
        look_first: what to look at if this cost is large.
        two_images: what each class needs for a control.
        choose: how to choose images from a dataset. It takes the number of images per class.
        more_images: what to do if so few images may say it by chance. It takes the same number.
        unseen: a sentence on the cues that are not tested, for a verdict that finds nothing.
        caution: a sentence on what this basis cannot know; empty for masks.
        doubt: a sentence on what else may explain a suspicion; empty if nothing is known.
        acquits: True if it may be said for certain that there is no sign of a shortcut.
    """

    gap: Limits
    drop: Limits
    suspicion: str
    no_sign: str
    no_sign_yet: str
    of_same_class: str
    of_other_class: str
    what_decides: str
    pasting: str
    look_first: str
    two_images: str
    choose: str
    more_images: str
    unseen: str
    caution: str
    doubt: str = ""
    acquits: bool = False

    def gap_of(self, n: int | None) -> Limits:
        """Return the limits for a gap that is measured on n images; None takes many."""
        if n is None:
            return self.gap
        return replace(self.gap, size=max(self.gap.size, min(rounded(FEW_IMAGES / max(n, 1)), LARGEST_LIMIT)))


# Said wherever a verdict by the frame stands, and when a training begins.
NO_MASKS = (
    'No masks: whether the background decides is known from the frame only. Pass masks="auto", or draw masks: '
    "python -m gradcam_callback masks probe/"
)

_CHOOSE = "ProbeSet.from_dataset(val_dataset, per_class={0}).watch(16)"
_CHOOSE_AUTO = 'ProbeSet.from_dataset(val_dataset, per_class={0}, masks="auto").watch(16)'
# Nobody has more images than there are.
ELSE = "If the validation data have fewer, validate on more."

_MASKS = Basis(
    # Set before the study on photographs, which would choose others for automatic masks: docs/photograph-study.md.
    gap=Limits(sure=0.0, size=0.08, sign=0.04),
    drop=Limits(sure=0.15, size=0.3, sign=0.15),
    suspicion="SHORTCUT SUSPECTED",
    no_sign="NO SIGN OF A SHORTCUT",
    no_sign_yet="NO SIGN OF A SHORTCUT so far",
    of_same_class="on other backgrounds of their class",
    of_other_class="on backgrounds of other classes",
    what_decides="The choice of the background",
    pasting="Cutting and pasting alone",
    look_first="look first if the masks and the painted backgrounds among the counterfactuals are good",
    two_images="two or more probe images with a mask",
    choose=_CHOOSE,
    more_images="More images decide it: about {0} of each class with a mask. From a dataset that has them, "
    f"{_CHOOSE}. {ELSE}",
    unseen="A cue on the objects themselves, such as a logo, goes along with them, so it is not tested.",
    caution="",
    acquits=True,
)
BASES = {
    MASKS: _MASKS,
    BOXES: replace(
        _MASKS,
        no_sign="NO SIGN OF A SHORTCUT, as far as boxes can tell",
        no_sign_yet="NO SIGN OF A SHORTCUT so far, as far as boxes can tell",
        acquits=False,
        caution="Some masks are boxes, which carry old background along, so this reads too kindly. With "
        'masks="auto", from_dataset and from_folder find the objects inside of them.',
    ),
    AUTOMATIC_MASKS: replace(
        _MASKS,
        no_sign="NO SIGN OF A SHORTCUT, as far as automatic masks can tell",
        no_sign_yet="NO SIGN OF A SHORTCUT so far, as far as automatic masks can tell",
        choose=_CHOOSE_AUTO,
        more_images=f"More images decide it: probe={_CHOOSE_AUTO}. {ELSE}",
        acquits=False,
        unseen="A cue on the objects, or one that their masks include, such as a logo, goes along with them, so it is "
        "not tested.",
        caution="This is measured by automatic masks; look at gradcam/masks.",
    ),
    FRAME: replace(
        _MASKS,
        suspicion="SHORTCUT SUSPECTED, the frame of the picture decides",
        no_sign="NOT KNOWN, only the frame of the picture was tried and does not decide",
        no_sign_yet="NOT KNOWN, only the frame of the picture was tried, and in a part",
        of_same_class="in other frames of their class",
        of_other_class="in frames of other classes",
        what_decides="The choice of the frame around the centre of the image",
        pasting="Another frame alone",
        look_first="the network needs more of the image than its centre, so little is known",
        two_images="two or more probe images",
        more_images=f"More images decide it: probe={_CHOOSE}. {ELSE}",
        acquits=False,
        unseen="A cue in the centre, or of the whole image, such as a tint, is not tested.",
        caution=NO_MASKS,
        doubt="A small object, or one off the centre, may lie in the frame, and then decides itself: only masks tell.",
    ),
}
