"""The other part of the floor: what the disk's own file system takes for the bare calls."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

#: The two forms of one synced write, as the table names them.
APPEND = "synced record in a preallocated file"
CREATE = "synced record in a new file"

#: As long as a small item's definition, which is what one operation has to make durable.
_RECORD = b"x" * 700
_LOG_BYTES = 1 << 20
_CONTENT = b"c" * 4096

_libc = ctypes.CDLL(None, use_errno=True)


class BareStorage:
    """Bare system calls in one directory; a context that keeps the preallocated log open."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        (directory / "trash").mkdir()
        self._log = os.open(directory / "log", os.O_CREAT | os.O_RDWR, 0o600)
        # Written, not only allocated: the first write into an unwritten extent changes metadata too.
        os.pwrite(self._log, bytes(_LOG_BYTES), 0)
        os.fsync(self._log)

    def __enter__(self) -> BareStorage:
        return self

    def __exit__(self, *details: object) -> None:
        os.close(self._log)

    def make(self, turn: int) -> None:
        """A mkdir(2), not synced."""
        os.mkdir(f"{self._directory}/made{turn}")

    def prepare_move(self, turn: int) -> None:
        os.mkdir(f"{self._directory}/full{turn}")
        fill(f"{self._directory}/full{turn}")

    def move(self, turn: int) -> None:
        """A rename(2) of a directory with content into another directory, not synced."""
        os.rename(f"{self._directory}/full{turn}", f"{self._directory}/trash/{turn}")

    def append(self, turn: int) -> None:
        """A record written into a preallocated file, fdatasync(2)."""
        os.pwrite(self._log, _RECORD, (turn + 1) * len(_RECORD) % (_LOG_BYTES - len(_RECORD)))
        os.fdatasync(self._log)

    def create(self, turn: int, *, series: str) -> None:
        """A record written into a new file, fsync(2)."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        descriptor = os.open(f"{self._directory}/{series}{turn}", flags, 0o600)
        try:
            os.write(descriptor, _RECORD)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def fill(directory: str) -> None:
    """Content for an item that is to be deleted: a file of 4 KiB and a directory."""
    os.mkdir(f"{directory}/directory")
    descriptor = os.open(f"{directory}/file", os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(descriptor, _CONTENT)
    finally:
        os.close(descriptor)


def sync(place: Path) -> None:
    """syncfs(2) of the file system at `place`, without a process for it."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(place))
    finally:
        os.close(descriptor)
