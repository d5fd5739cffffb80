"""Locks that hold between hosts where the file system's do: whole files, exclusive (flock(2)).

A lock belongs to an open file and goes with it, however the process ends; another process that has
inherited the file keeps it.
"""

from __future__ import annotations

import fcntl
import os

_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class FileLock:
    """A lock that is held; keeps `fspoolfs.backends.root.Lock`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def take(cls, dir_fd: int, name: str) -> FileLock | None:
        """Lock the file `name`, made if it is missing; `None` while somebody else has it locked.

        Whoever removes the file takes the lock from its holder: a new file has a lock of its own.
        Raises `OSError` (ENOLCK, EOPNOTSUPP) where the file system has no locks.
        """
        while True:
            fd = os.open(name, _OPEN, 0o600, dir_fd=dir_fd)
            try:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(fd)
                    return None
                if _is_still(fd, dir_fd, name):
                    return cls(fd)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # it was removed meanwhile

    def read(self, size: int) -> bytes:
        """The first `size` bytes of the file."""
        return os.pread(self.fd, size, 0)

    def write(self, data: bytes) -> None:
        """Make `data` the file's content."""
        os.pwrite(self.fd, data, 0)
        os.ftruncate(self.fd, len(data))

    def release(self) -> None:
        """Give it back; once."""
        os.close(self.fd)


def _is_still(fd: int, dir_fd: int, name: str) -> bool:
    try:
        there = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    own = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)
