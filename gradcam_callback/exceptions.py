"""Warning classes of the package, for ``warnings.filterwarnings``."""


class GradCAMWarning(UserWarning):
    """A warning that maps, images or scalars were lost, or that a fallback was used. The training itself continues.

    Examples:
        A model with memory for two images at once:

        >>> import warnings, torch
        >>> from gradcam_callback import GradCAM
        >>> class Small(torch.nn.Sequential):
        ...     def forward(self, images):
        ...         if len(images) > 2:
        ...             raise torch.OutOfMemoryError("out of memory")
        ...         return super().forward(images)
        >>> model = Small(torch.nn.Conv2d(3, 2, 8), torch.nn.Flatten())
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     maps = GradCAM(model, "0")(torch.rand(8, 3, 8, 8)).maps["0"]
        >>> len(maps), {warning.category.__name__ for warning in caught}
        (8, {'GradCAMWarning'})
    """


class ShortcutWarning(UserWarning):
    """A warning that the predictions seem to depend on the background. It appears once per run.

    Examples:
        Silence this warning alone, if the background may decide:

        >>> import warnings
        >>> from gradcam_callback import GradCAMWarning, ShortcutWarning
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warnings.simplefilter("ignore", ShortcutWarning)
        ...     warnings.warn("a shortcut is suspected", ShortcutWarning)
        ...     warnings.warn("maps lost", GradCAMWarning)
        >>> [str(warning.message) for warning in caught]
        ['maps lost']
    """
