"""Warnings and errors of the package, and the one place that turns an error of the user's code into a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


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


class MapError(ValueError):
    """An error that says why a model cannot be explained as asked: its layers, its outputs or the targets."""


class UserCodeError(ValueError):
    """An error in code of yours, such as a dataset, a hook or a ``forward``. The original error is its ``__cause__``.

    Before the training it is raised. Later it becomes a `GradCAMWarning`.

    Examples:
        >>> import torch
        >>> from gradcam_callback import ProbeSet, UserCodeError
        >>> class Broken(torch.utils.data.Dataset):
        ...     def __len__(self):
        ...         return 2
        ...     def __getitem__(self, index):
        ...         raise OSError("truncated file")
        >>> try:
        ...     ProbeSet.from_dataset(Broken())
        ... except UserCodeError as error:
        ...     print(type(error.__cause__).__name__, "|", str(error)[:40])
        OSError | Expected item 1 of the dataset to load,
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error says that a device or the host ran out of memory."""
    # torch is not imported here. For the host's memory it raises a plain RuntimeError; only the text tells.
    is_of_torch = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or is_of_torch


@contextmanager
def blame(expected: str, hint: str) -> Iterator[None]:
    """Turn any error of the block into a `UserCodeError` that names the code and says what to do.

    A lack of memory passes as it is, since it does not tell of a mistake. So do errors that already say what to do.

    Args:
        expected: completes "Expected ...", such as ``"item 3 of your validation dataset to load"``.
        hint: what the user can do.

    Raises:
        UserCodeError: the block raised an error.
    """
    try:
        yield
    except (MapError, UserCodeError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        text = str(error).strip().rstrip(".")
        raised = f"{type(error).__name__}: {text}" if text else type(error).__name__
        raise UserCodeError(f"Expected {expected}, but it raised {raised}. {hint}") from error
