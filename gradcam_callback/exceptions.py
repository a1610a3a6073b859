"""The classes of what the package warns of, for ``warnings.filterwarnings``."""


class GradCAMWarning(UserWarning):
    """Something of ours was lost or had to be done otherwise, and what; training goes on untouched.

    Examples:
        Memory for two images at once:

        >>> import warnings, torch
        >>> from gradcam_callback import GradCAM
        >>> class Small(torch.nn.Sequential):
        ...     def forward(self, images):
        ...         if len(images) > 2:
        ...             raise torch.OutOfMemoryError("out of memory")
        ...         return super().forward(images)
        >>> model = Small(torch.nn.Conv2d(3, 2, 8), torch.nn.Flatten())
        >>> with warnings.catch_warnings(record=True) as heard:
        ...     warnings.simplefilter("always")
        ...     maps = GradCAM(model, "0")(torch.rand(8, 3, 8, 8)).maps["0"]
        >>> len(maps), {warning.category.__name__ for warning in heard}
        (8, {'GradCAMWarning'})
    """


class ShortcutWarning(UserWarning):
    """The network's answers depend on the background: a shortcut is suspected; said once per run.

    Examples:
        It can be silenced alone, where the background may well decide:

        >>> import warnings
        >>> from gradcam_callback import GradCAMWarning, ShortcutWarning
        >>> with warnings.catch_warnings(record=True) as heard:
        ...     warnings.simplefilter("always")
        ...     warnings.simplefilter("ignore", ShortcutWarning)
        ...     warnings.warn("a shortcut is suspected", ShortcutWarning)
        ...     warnings.warn("maps lost", GradCAMWarning)
        >>> [str(warning.message) for warning in heard]
        ['maps lost']
    """
