"""A command as a person sees it."""

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios


def on_a_terminal(command, folder):
    """What a command prints where its errors and progress go to a terminal, and what is seen there."""
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=theirs, timeout=120)
    os.close(theirs)
    seen = b""
    # Where the other end is closed, there is an error after what was written.
    with contextlib.suppress(OSError):
        while more := os.read(terminal, 65536):
            seen += more
    os.close(terminal)
    assert done.returncode == 0, seen
    return done.stdout, seen.decode()
