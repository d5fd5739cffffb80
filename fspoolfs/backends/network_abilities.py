"""What an export that is mounted can do, tried out on it, for the pool's `features`."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress

from fspoolfs.backends import layout
from fspoolfs.backends.network.engine import Engine
from fspoolfs.model.infos import Feature
from fspoolfs.system import syscalls
from fspoolfs.system.filelock import FileLock
from fspoolfs.system.paths import HostRoot

#: What file systems answer that have no such thing.
_LACKS = frozenset(
    (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK, errno.EPERM, errno.EACCES, errno.EIO)
)


def tried(engine: Engine, root: HostRoot) -> Sequence[Feature]:
    """One feature each; tries leave nothing behind. Raises `OSError` when the server fails otherwise."""
    how = (
        "a lost one is fenced by the servers" if engine.fences else "a lost one has to be fenced by a person"
    )
    where, directories = root.open_directory(layout.OWN), root.open_directory(layout.STAGING)
    try:
        return (
            Feature(name="hosts", reason=engine.single_host, note=f"several at once; {how}"),
            Feature(name="locks", reason=_why_not(lambda: _lock(where), "the export has no locks")),
            Feature(
                name="xattrs", reason=_why_not(lambda: _attribute(where), "files keep no extended attributes")
            ),
            Feature(
                name="exchange",
                reason=_why_not(
                    lambda: _exchange(directories),
                    "two directories are exchanged in two steps; in a rollback the item is away for a moment",
                ),
            ),
        )
    finally:
        os.close(where)
        os.close(directories)


def _why_not(attempt: Callable[[], None], reason: str) -> str:
    try:
        attempt()
    except OSError as error:
        if error.errno not in _LACKS:
            raise
        return reason
    return ""


def _name() -> str:
    # Files whose names begin with a dot, and what is in staging, go with a later start, should this one be
    # killed.
    return f".probe-{secrets.token_hex(6)}"


def _lock(where: int) -> None:
    name = _name()
    try:
        held = FileLock.take(where, name)
        assert held is not None, "nobody else knows the name"
        try:
            if (again := FileLock.take(where, name)) is not None:
                again.release()
                raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        finally:
            held.release()
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=where)


def _attribute(where: int) -> None:
    name = _name()
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=where)
    try:
        os.setxattr(fd, "user.fspoolfs.probe", b"1")
    finally:
        os.close(fd)
        with suppress(FileNotFoundError):  # a host that starts takes it for an interrupted write
            os.unlink(name, dir_fd=where)


def _exchange(where: int) -> None:
    one, other = _name(), _name()
    made: list[str] = []
    try:
        for name in (one, other):
            os.mkdir(name, 0o700, dir_fd=where)
            made.append(name)
        syscalls.rename_exchange(one, other, source_fd=where, target_fd=where)
    finally:
        for name in made:
            os.rmdir(name, dir_fd=where)
