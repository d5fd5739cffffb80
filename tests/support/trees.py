"""Trees of files for the tests."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


def make_chain(top: Path, depth: int, *, files: bool = False, mode: int = 0o777) -> int:
    """Directories called `d`, each in the one before, below `top`; with `files` there is one at each level.

    Returns a descriptor of the deepest, which may lie far beyond what a path can name.
    """
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        if files:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
        os.mkdir("d", mode=mode, dir_fd=fd)
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    return fd


def check_trash(directory: Path, uuids: Collection[str]) -> None:
    """The trash in `directory` of a real pool holds the data and one record of each uuid, nothing else."""
    files = set(os.listdir(directory))
    records = {file for file in files if file.endswith(".xml")}
    assert files - records == set(uuids)
    assert sorted(file.partition(".")[0] for file in records) == sorted(uuids)
