"""Serve the page on which a person masks photographs, until they stop it."""

from __future__ import annotations

import shlex
import webbrowser
from contextlib import suppress
from pathlib import Path

from gradcam_callback.masking.background import Background
from gradcam_callback.masking.session import MaskingSession, Status

# Of more photographs than this, maps take long, and a person looks at few of them.
WATCHED = 16


def mask_by_hand(folder: Path, browser: bool = True) -> None:
    """Serve the page for a folder of photographs until Ctrl-C, and say what to do next.

    Args:
        folder: holds photographs, or one folder per class. It gets the masks.
        browser: False only prints the address.

    Raises:
        ValueError: the folder holds no photographs, or its names clash.
        OSError: the folder is none.
    """
    session = MaskingSession(folder)
    # werkzeug comes with TensorBoard. Nothing else needs it, so no other command loads it.
    from gradcam_callback.masking.server import Server

    # werkzeug ends at Ctrl-C, but it may come a moment before or after its loop, too.
    with suppress(KeyboardInterrupt), Background(session) as background:
        server = Server(session, background)
        print(f"{session.done} of {len(session)} photographs in {str(folder)!r} are done. Mask the others here:")
        print(server.address, flush=True)
        if not browser or not webbrowser.open(server.address):
            print("Open this address in a browser.")
        print("Stop with Ctrl-C. What you have accepted is saved at once.", flush=True)
        server.run()
    print(f"\n{conclude(session)}")


def conclude(session: MaskingSession) -> str:
    """Say how many photographs are done, and what to do next."""
    folder, nothing = session.folder, session.count(Status.NOTHING)
    said = f"{session.done} of {len(session)} photographs are done"
    said += f", {nothing} of them without an object." if nothing else "."
    if session.unseen:
        said += f" Masks of --auto cannot acquit a network until they are accepted on the page: {session.unseen}."
    if session.done < len(session) or session.unseen:
        said += f" Go on with: python -m gradcam_callback masks {shlex.quote(str(folder))}"
    if session.count(Status.DONE) == 0:
        return said
    if session.has_classes and len(session) > WATCHED:
        probe = f'ProbeSet.from_folder("{folder}", transform=...).watch({WATCHED})'
        return f"{said}\nUse the masks with: GradCAMCallback(probe={probe}), which makes maps of {WATCHED} images only"
    if session.has_classes:
        return f'{said}\nUse the masks with: GradCAMCallback(probe="{folder}")'
    return (
        f"{said}\nTo use the masks, make one folder per class in {str(folder)!r}, and move the photographs into them "
        f'with their masks. Then: GradCAMCallback(probe="{folder}")'
    )
