"""Files of the host's own state directory: each is there whole and durable, or not at all.

For directories that only the daemon writes; paths are plain and absolute. What lies beneath a
pool's root is the work of `fspoolfs.system.paths`.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress

from fspoolfs.errors import BusyError
from fspoolfs.system import files

_MARK = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: A process id and a newline.
_PID_SIZE = 32


def write_file(
    path: str, data: bytes, mode: int = 0o600, *, durable: bool = True, temporary: str = ""
) -> None:
    """Create or replace `path` with `data`, durably. Raises `OSError`; then the old file stands.

    A crash may leave a file beside it: of a random name, or called `temporary`, where nobody else
    writes one of that name. What is not `durable` is whole as long as the host runs.
    """
    directory, name = os.path.split(path)
    dir_fd = os.open(directory, _DIRECTORY)
    try:
        if temporary:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=dir_fd)
        files.replace_file(dir_fd, name, data, mode=mode, durable=durable, temporary=temporary)
    finally:
        os.close(dir_fd)


def mark(path: str) -> None:
    """Make the empty file `path`, durably, unless it is there. A crash leaves nothing beside it."""
    directory, name = os.path.split(path)
    dir_fd = os.open(directory, _DIRECTORY)
    try:
        os.close(os.open(name, _MARK, 0o600, dir_fd=dir_fd))
        os.fsync(dir_fd)
    finally:
        os.close(dir_fd)


def remove_file(path: str) -> None:
    """Remove `path` durably. Raises `FileNotFoundError` when it is not there."""
    directory, name = os.path.split(path)
    dir_fd = os.open(directory, _DIRECTORY)
    try:
        os.unlink(name, dir_fd=dir_fd)
        os.fsync(dir_fd)
    finally:
        os.close(dir_fd)


def read_file(path: str, limit: int) -> bytes:
    """The content of a regular file; EFBIG above `limit` bytes, ELOOP for a symbolic link."""
    return files.read_file(None, path, limit=limit)


class LockFile:
    """A lock that one process of the host holds until it ends, however it ends (flock(2)).

    The file stays when the lock is released: removing it would let two processes lock two files of
    one name.
    """

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self.path = path

    @classmethod
    def acquire(cls, path: str) -> LockFile:
        """Lock `path`, making it if needed; it then holds our process id.

        Raises `BusyError` naming the process that has it; `OSError` when the file cannot be opened.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            files.write_all(fd, f"{os.getpid()}\n".encode("ascii"), 0)
        except OSError as error:
            holder = _holder(fd)
            os.close(fd)
            if error.errno == errno.EWOULDBLOCK:
                raise BusyError(f"{path} is locked by {holder}") from None
            raise
        return cls(fd, path)

    @staticmethod
    def holder(path: str) -> str:
        """Who has `path` locked, as in "process 42"; empty where nobody has. Changes nothing.

        For as long as it looks, nobody else gets the lock.
        """
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return ""
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _holder(fd)
        finally:
            os.close(fd)
        return ""

    def release(self) -> None:
        """Unlock. Repeating it changes nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _holder(fd: int) -> str:
    text = os.pread(fd, _PID_SIZE, 0).decode("ascii", "replace").strip()
    # Between the lock and the writing of its number a process has no name yet.
    return f"process {text}" if text.isdigit() else "another process"
