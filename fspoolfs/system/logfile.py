"""A file of fixed size that is written in place, so that a sync of it needs no journal commit."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress

from fspoolfs.errors import BusyError
from fspoolfs.system import files, syscalls
from fspoolfs.system.descriptors import Descriptor

_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: What file systems answer that know no locks.
_NO_LOCKS = frozenset((errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS))
#: And those that cannot allocate space, such as zfs.
_NO_ALLOCATION = frozenset((errno.EOPNOTSUPP, errno.ENOSYS))
#: Zeros written at once, in bytes.
_PIECE = 1 << 20


def _lock(fd: int) -> None:
    """Until `fd` is closed, however the process ends (flock(2)); where there are no locks, none is had."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BusyError(
            "another daemon has this pool active; stop it there, since only one may work on it"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _extend(fd: int, present: int, size: int) -> None:
    """Zeros up to `size` bytes, or nothing where there is no space for all of them.

    posix_fallocate(3) would write to every block first where the file system cannot allocate space.
    """
    try:
        syscalls.fallocate(fd, present, size - present)
    except OSError as error:
        if error.errno not in _NO_ALLOCATION:
            raise
    try:
        for offset in range(present, size, _PIECE):
            files.write_all(fd, bytes(min(_PIECE, size - offset)), offset)
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, present)
        raise


class HostLog:
    """An open log file; keeps `fspoolfs.backends.root.LogFile`."""

    def __init__(self, descriptor: Descriptor, size: int, directory: Descriptor | None = None) -> None:
        """`directory` is the one to sync with the file the first time, if it may be new to the disk."""
        self._descriptor = descriptor
        self._size = size
        self._directory = directory

    @classmethod
    def open(cls, dir_fd: int, name: str, *, size: int) -> HostLog:
        """Open `name` in `dir_fd`, which allows fsync(2); make or extend it to `size` bytes.

        New space is written with zeros, since space that is only allocated (fallocate(2)) has its
        first write recorded in the file system's journal. Where there is too little of it the file keeps
        the size that it had. A longer file stays as it is. One that has
        its size is not synced before the first `sync`: whoever gave it that may have been killed before
        he did so himself, but as long as nothing is written nobody relies on it. Raises
        `BusyError` while somebody else has it open: two programs would write over each other.
        """
        descriptor = Descriptor(os.open(name, _OPEN, 0o600, dir_fd=dir_fd))
        fd = descriptor.fd
        _lock(fd)
        present = files.require_regular(fd, name).st_size
        if present >= size:
            return cls(descriptor, present, Descriptor(os.dup(dir_fd)))
        _extend(fd, present, size)
        os.fsync(fd)
        os.fsync(dir_fd)
        return cls(descriptor, size)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; fewer only at the end of the file."""
        data = os.pread(self._descriptor.fd, size, offset)
        while data and len(data) < size:
            piece = os.pread(self._descriptor.fd, size - len(data), offset + len(data))
            if not piece:
                break
            data += piece
        return data

    def write(self, offset: int, data: bytes) -> None:
        """Write `data` at `offset`. Raises EFBIG beyond the end: the file never grows here."""
        if offset + len(data) > self._size:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        files.write_all(self._descriptor.fd, data, offset)

    def sync(self) -> None:
        """fdatasync(2); the first time all that there is of the file, its name included."""
        directory = self._directory
        if directory is None:
            os.fdatasync(self._descriptor.fd)
            return
        os.fsync(self._descriptor.fd)
        os.fsync(directory.fd)
        self._directory = None

    def close(self) -> None:
        """Let go of the file; later calls fail with EBADF or EINVAL."""
        self._descriptor.retire()
        if (directory := self._directory) is not None:
            directory.retire()
