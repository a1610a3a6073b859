"""Run a command on a terminal, as a user sees it."""

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios


def on_a_terminal(command, folder):
    """Run a command whose errors and progress bars go to a terminal.

    Args:
        command: with its arguments.
        folder: in which it runs.

    Returns:
        Its output as bytes, and the text on the terminal.
    """
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=theirs, timeout=120)
    os.close(theirs)
    seen = b""
    # After the last text, reading fails because the other end is closed.
    with contextlib.suppress(OSError):
        while more := os.read(terminal, 65536):
            seen += more
    os.close(terminal)
    assert done.returncode == 0, seen
    return done.stdout, seen.decode()
