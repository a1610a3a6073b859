"""The classes of what the package warns of, for ``warnings.filterwarnings``."""


class GradCAMWarning(UserWarning):
    """Something of ours was lost or had to be done otherwise, and what; training goes on untouched."""
