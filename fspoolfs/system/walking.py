"""Going down and up in directory trees that other users own and may be changing.

A `Descent` is a chain of open directories. It never follows a symbolic link and never crosses a
mount point, bind mounts included; btrfs subvolumes belong to the tree. Depth costs memory only:
the deepest `OPEN_LEVELS` directories keep their descriptors, those above are reached again through
".." and recognised by device and inode number. It reads directories and changes nothing, not even when
they were read last, where it may.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from types import TracebackType

from fspoolfs.system import syscalls

#: How many directories of one chain are open at once.
OPEN_LEVELS = 32

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: How one entry of a directory is opened: whatever it is, never what is mounted there.
INSIDE = syscalls.RESOLVE_SAFE | syscalls.RESOLVE_NO_XDEV

#: What opening a directory answers when it is none any more: a link, another file, gone.
NOT_A_DIRECTORY = frozenset((errno.ELOOP, errno.ENOTDIR))

#: How much of a deep place's path a message shows, in characters.
_SHOWN = 300


class Place:
    """One directory of a chain. `pending` are the names of subdirectories that wait for a visit."""

    __slots__ = ("device", "fd", "info", "inode", "name", "pending")

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.info = os.fstat(fd)
        self.device = self.info.st_dev
        self.inode = self.info.st_ino
        self.pending: list[str] = []

    @property
    def is_open(self) -> bool:
        return self.fd >= 0

    def close(self) -> None:
        if self.is_open:
            os.close(self.fd)
            self.fd = -1


class Descent:
    """The chain of open directories from a tree's top to where the walk is.

    A context manager: leaving it closes what is open. Meant for one thread.
    """

    def __init__(self, dir_fd: int, name: str) -> None:
        """Open the top: the directory `name` in `dir_fd`, "." for itself. Raises like `enter`."""
        self._chain = [_open(dir_fd, name)]

    def __enter__(self) -> Descent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for place in self._chain:
            place.close()

    @property
    def here(self) -> Place:
        """Where the walk is; always open."""
        return self._chain[-1]

    @property
    def at_top(self) -> bool:
        return len(self._chain) == 1

    def enter(self, name: str) -> None:
        """Go down into a subdirectory.

        Raises `OSError`: EXDEV for a mount point, one of `NOT_A_DIRECTORY` for what is none.
        """
        self._chain.append(_open(self.here.fd, name))
        if len(self._chain) > OPEN_LEVELS:
            self._chain[-OPEN_LEVELS - 1].close()

    def parent(self) -> Place:
        """The directory above, open.

        Raises `OSError` with ESTALE when `here` has been moved away from it.
        """
        parent = self._chain[-2]
        if not parent.is_open:
            fd = os.open("..", _DIRECTORY, dir_fd=self.here.fd)
            info = os.fstat(fd)
            if (info.st_dev, info.st_ino) != (parent.device, parent.inode):
                os.close(fd)
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), self.describe())
            parent.fd = fd
        return parent

    def leave(self) -> Place:
        """Go up; answers the directory that was left, closed. Raises like `parent`."""
        self.parent()
        left = self._chain.pop()
        left.close()
        return left

    def describe(self, name: str = "") -> str:
        """The path from the top, of `here` or of its entry `name`, for a message."""
        names = [place.name for place in self._chain]
        if name:
            names.append(name)
        text = "/".join(names)
        if len(text) <= _SHOWN:
            return text
        half = _SHOWN // 2
        return f"{text[:half]}…{text[-half:]}"

    def path(self) -> tuple[str, ...]:
        """The names from below the top to `here`."""
        return tuple(place.name for place in self._chain[1:])


def _open(dir_fd: int, name: str) -> Place:
    try:
        fd = syscalls.openat2(dir_fd, name, _DIRECTORY | os.O_NOATIME, 0, INSIDE)
    except PermissionError:
        # O_NOATIME is for the owner and for root: open(2).
        fd = syscalls.openat2(dir_fd, name, _DIRECTORY, 0, INSIDE)
    try:
        return Place(name, fd)
    except OSError:
        os.close(fd)
        raise


def split(place: Place) -> Iterator[str]:
    """The entries of `place` that are no directories; the directories' names go to `pending`.

    An entry whose kind cannot be told counts as no directory. Streams: a directory costs memory
    for its subdirectories only.
    """
    with os.scandir(place.fd) as entries:
        for entry in entries:
            if is_directory(entry):
                place.pending.append(entry.name)
            else:
                yield entry.name


def is_directory(entry: os.DirEntry[str]) -> bool:
    """Whether a directory entry is a directory itself, as far as that can be told."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
