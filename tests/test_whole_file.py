"""A file is written whole or not at all, also if the process is killed on the way."""

import os
import subprocess
import sys

import pytest

from gradcam_callback.whole_file import write_whole

KILLED = """
import os, sys
from pathlib import Path
from gradcam_callback.whole_file import write_whole
os.fsync = lambda file: os._exit(9)
write_whole(Path(sys.argv[1]), b"new", synced=True)
"""


def test_what_a_killed_process_leaves_is_written_again(tmp_path):
    path = tmp_path / "history.json"
    write_whole(path, b"old")
    for _ in range(2):
        killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
        assert killed.returncode == 9 and path.read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 2, "one hidden file, however often"
    write_whole(path, b"newer")
    assert os.listdir(tmp_path) == ["history.json"] and path.read_bytes() == b"newer"


def test_a_failure_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / ("ö" * 120)  # with anything behind it, the name would be too long
    write_whole(path, b"old")

    def fail(*_):
        raise OSError("full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="full"):
        write_whole(path, b"new", synced=True)
    assert os.listdir(tmp_path) == [path.name] and path.read_bytes() == b"old"
