"""The Focus tab of TensorBoard: shows what `gradcam_callback` has logged.

TensorBoard loads this package at its start, so the package imports TensorBoard and the standard library only. The page
in ``page/`` is also the page that ``python -m gradcam_callback report`` writes.
"""
