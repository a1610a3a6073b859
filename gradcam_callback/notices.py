"""The classes of what the package warns of, for ``warnings.filterwarnings``."""


class GradCAMWarning(UserWarning):
    """Something of ours was lost or had to be done otherwise, and what; training goes on untouched."""


class ShortcutWarning(UserWarning):
    """The network's answers depend on the background: a shortcut is suspected; said once per run."""
