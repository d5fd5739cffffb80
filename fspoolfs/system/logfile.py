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
#: What an open file answers that its server does not know any more.
_FORGOTTEN = frozenset((errno.EIO, errno.ESTALE, errno.EBADF))
#: File systems of servers: FUSE, and NFS_SUPER_MAGIC of include/uapi/linux/magic.h
_OF_SERVERS = frozenset((syscalls.FUSE_MAGIC, 0x6969))
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

    def __init__(
        self, descriptor: Descriptor, size: int, directory: Descriptor, name: str, *, is_new: bool
    ) -> None:
        self._descriptor = descriptor
        self._size = size
        #: Where it is called `name`; synced with the file the first time, where it may be new to the disk.
        self._directory = directory
        self._name = name
        self._is_new = is_new
        #: Whether something was written that is not synced yet.
        self._dirty = False

    @classmethod
    def open(cls, dir_fd: int, name: str, *, size: int, alone: bool = True) -> HostLog:
        """Open `name` in `dir_fd`, which allows fsync(2); make or extend it to `size` bytes.

        New space is written with zeros, since space that is only allocated (fallocate(2)) has its
        first write recorded in the file system's journal. Where there is too little of it the file keeps
        the size that it had. A longer file stays as it is. One that has
        its size is not synced before the first `sync`: whoever gave it that may have been killed before
        he did so himself, but as long as nothing is written nobody relies on it. Raises
        `BusyError` while somebody else has it open: two programs would write over each other. Who is
        not `alone` sees to that himself, and gets what is in the file now, not in this host's cache.
        """
        descriptor = Descriptor(os.open(name, _OPEN, 0o600, dir_fd=dir_fd))
        fd = descriptor.fd
        if alone:
            _lock(fd)
        else:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        present = files.require_regular(fd, name).st_size
        directory = Descriptor(os.dup(dir_fd))
        if present >= size:
            return cls(descriptor, present, directory, name, is_new=True)
        _extend(fd, present, size)
        os.fsync(fd)
        os.fsync(dir_fd)
        return cls(descriptor, size, directory, name, is_new=False)

    @classmethod
    def open_again(cls, dir_fd: int, name: str, *, size: int) -> HostLog:
        """What `open` has opened before for who is not `alone`; servers take long to be asked about it."""
        descriptor = Descriptor(os.open(name, _OPEN, 0o600, dir_fd=dir_fd))
        os.posix_fadvise(descriptor.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return cls(descriptor, size, Descriptor(os.dup(dir_fd)), name, is_new=True)

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
        was_dirty, self._dirty = self._dirty, True
        try:
            files.write_all(self._descriptor.fd, data, offset)
        except OSError as error:
            # A server that was started anew knows no file that was open. What it has synced is there;
            # of anything else nobody could tell.
            if was_dirty or error.errno not in _FORGOTTEN or not self._reopen():
                raise
            files.write_all(self._descriptor.fd, data, offset)

    def _reopen(self) -> bool:
        """Open the same file again, on storage that is a server's; False where it is not."""
        if syscalls.filesystem_magic(self._directory.fd) not in _OF_SERVERS:
            return False
        self._descriptor.retire()  # and with it the lock
        opened = Descriptor(os.open(self._name, _OPEN & ~os.O_CREAT, dir_fd=self._directory.fd))
        _lock(opened.fd)
        if files.require_regular(opened.fd, self._name).st_size < self._size:
            return False
        self._descriptor, self._is_new = opened, True
        return True

    def sync(self) -> None:
        """fdatasync(2); the first time all that there is of the file, its name included."""
        if self._is_new:
            os.fsync(self._descriptor.fd)
            os.fsync(self._directory.fd)
            self._is_new = False
        else:
            os.fdatasync(self._descriptor.fd)
        self._dirty = False

    def close(self) -> None:
        """Let go of the file; later calls fail with EBADF or EINVAL."""
        self._directory.retire()
        self._descriptor.retire()
