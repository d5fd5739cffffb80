"""Whole files through one directory's descriptor: read them, create them, replace them.

The last step of everything that `paths` and `atomic` do with small files. Knows entries of an open
directory only, resolves no paths and follows no links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat

# O_NONBLOCK: a fifo in the place of a file must not hold the thread.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def failure(number: int, path: str) -> OSError:
    """The `OSError` that the system call would have raised for `path`."""
    return OSError(number, os.strerror(number), path)


def require_regular(fd: int, name: str) -> os.stat_result:
    """The stat of `fd`. Raises EISDIR for a directory, EINVAL for other things that are no file."""
    info = os.fstat(fd)
    if stat.S_ISREG(info.st_mode):
        return info
    raise failure(errno.EISDIR if stat.S_ISDIR(info.st_mode) else errno.EINVAL, name)


def read_file(dir_fd: int | None, name: str, *, limit: int) -> bytes:
    """The content of a regular file; EFBIG above `limit` bytes, ELOOP for a symbolic link."""
    fd = os.open(name, _READ, dir_fd=dir_fd)
    try:
        info = require_regular(fd, name)
        if info.st_size > limit:
            raise failure(errno.EFBIG, name)
        data = bytearray()
        # One byte more than there should be tells the end of the file, and one that grew.
        while piece := os.read(fd, max(info.st_size - len(data), 0) + 1):
            data += piece
            if len(data) > limit:
                raise failure(errno.EFBIG, name)
        return bytes(data)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """pwrite(2) until all is written."""
    written = os.pwrite(fd, data, offset) if data else 0
    while written < len(data):
        written += os.pwrite(fd, memoryview(data)[written:], offset + written)


def create_file(dir_fd: int, name: str, data: bytes, *, mode: int, durable: bool) -> None:
    """Create `name` with `data`; EEXIST when it is there. Nothing is left of a failed attempt.

    Durable: file and directory are synced; `dir_fd` must then be open for reading.
    """
    _fill(dir_fd, name, data, mode=mode, sync=durable)
    if durable:
        try:
            os.fsync(dir_fd)
        except OSError:
            _unlink_quietly(dir_fd, name)
            raise


def replace_file(
    dir_fd: int, name: str, data: bytes, *, mode: int, durable: bool, temporary: str = ""
) -> None:
    """Put a new file in the place of `name`: readers see the old content or the new one, whole.

    Durable as with `create_file`; the file is synced before it takes the name. It is called
    `temporary` until then, for a caller who removes what a crash has left of that.
    """
    temporary = temporary or f".{secrets.token_hex(8)}"
    _fill(dir_fd, temporary, data, mode=mode, sync=durable)
    try:
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError:
        _unlink_quietly(dir_fd, temporary)
        raise
    if durable:
        os.fsync(dir_fd)


def _fill(dir_fd: int, name: str, data: bytes, *, mode: int, sync: bool) -> None:
    fd = os.open(name, _CREATE, mode, dir_fd=dir_fd)
    try:
        try:
            write_all(fd, data, 0)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
    except OSError:
        _unlink_quietly(dir_fd, name)
        raise


def _unlink_quietly(dir_fd: int, name: str) -> None:
    """Remove what a failed write left; that failure is the one to tell."""
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=dir_fd)
