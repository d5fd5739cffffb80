"""The contract of an attached root: the few file operations that everything else is built on.

`RootDirectory` is what a source hands out when it attaches. The real one
(`fspoolfs.system.paths.HostRoot`) resolves every path beneath the root's descriptor and follows no
symbolic link; the simulator's keeps a tree in memory and can be told to fail. Definitions, the
journal, trash and recovery are written against this contract alone, so they behave alike on both.

Paths are relative to the root, with slashes, without a leading one; "" is the root itself. Every
method blocks and is called from worker threads only. Failures are `OSError`, as the system calls
have them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from fspoolfs.model.infos import FileInfo, SpaceInfo, UsageInfo
from fspoolfs.progress import Progress


class LogFile(Protocol):
    """A file of fixed size, allocated when it was opened, that is written in place."""

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`."""

    def write(self, offset: int, data: bytes) -> None:
        """Write `data` at `offset`, inside the file's size; not durable before `sync`."""

    def sync(self) -> None:
        """Make durable what was written (fdatasync(2)), also before the file was opened."""

    def close(self) -> None: ...


class Lock(Protocol):
    """A file that is locked for whoever asks in the same way, on whichever host."""

    #: Its descriptor: a process that inherits it keeps the lock.
    fd: int

    def read(self, size: int) -> bytes:
        """The first `size` bytes of the file."""

    def write(self, data: bytes) -> None:
        """Make `data` the file's content."""

    def release(self) -> None:
        """Give the lock back; once."""


class RootDirectory(Protocol):
    """File operations beneath an attached root."""

    @property
    def path(self) -> str:
        """The root's absolute path on this host."""

    def location(self, inside: str) -> str:
        """The absolute path of `inside`, for a person or a symbolic link."""

    def trust(self, path: str) -> None:
        """Keep the directory `path` at hand: only this program writes there, and often."""

    def stat(self, path: str) -> FileInfo:
        """lstat(2)."""

    def entries(self, path: str) -> Iterator[tuple[str, FileInfo]]:
        """Each entry of a directory with its lstat(2), in no order; entries that vanish are left out."""

    def names(self, path: str) -> list[str]:
        """The entries' names, in no order. Names that are not UTF-8 carry surrogates."""

    def directories(self, path: str) -> set[str]:
        """The names of the entries that are directories; links to one are not."""

    def read(self, path: str, *, limit: int) -> bytes:
        """A regular file's content; EFBIG above `limit` bytes."""

    def write(self, path: str, data: bytes, *, replace: bool, durable: bool) -> None:
        """Create a file of mode 0600 with `data`; EEXIST without `replace`, else atomic (rename(2)).

        Durable: file and directory are synced before it returns.
        """

    def make_directory(self, path: str, *, mode: int) -> None:
        """mkdir(2) with exactly `mode`, whatever the umask; parents must exist."""

    def set_attributes(self, path: str, *, mode: int | None, owner: int | None, group: int | None) -> None:
        """chown(2), then chmod(2), of a directory; `None` leaves a value as it is."""

    def rename(self, source: str, target: str) -> None:
        """rename(2) that never replaces: EEXIST when `target` is there."""

    def exchange(self, one: str, other: str) -> None:
        """Swap two directories in one step (renameat2(2)); EINVAL where the storage cannot."""

    def sync_directory(self, path: str) -> None:
        """Make durable which entries a directory has, and what was renamed into it (fsync(2))."""

    def remove_file(self, path: str) -> None:
        """unlink(2)."""

    def remove_directory(self, path: str) -> None:
        """rmdir(2)."""

    def remove_tree(self, path: str, progress: Progress) -> None:
        """Remove a directory and all in it, never leaving it through a link or a mount."""

    def copy_tree(self, source: str, target: str, progress: Progress, *, existing: bool = False) -> None:
        """Copy a directory to the new directory `target`, by reflink where the storage can.

        Keeps owner, mode, times, xattrs, hard links, holes and special files. With `existing` the
        target is there already, and empty.
        """

    def measure(self, path: str, progress: Progress) -> UsageInfo:
        """Walk a directory and count what it holds."""

    def open_log(self, path: str, *, size: int) -> LogFile:
        """Open a log file of `size` bytes, allocated and zeroed durably when it is new.

        What was written to one that is there may not be durable before the first sync.
        """

    def sync(self) -> None:
        """Make everything durable that was done before (syncfs(2))."""

    def space(self) -> SpaceInfo:
        """The file system's numbers."""

    def close(self) -> None:
        """Give up descriptors; the root stays attached."""


@runtime_checkable
class HostDirectories(Protocol):
    """What a root on a real file system can do beside: hand out descriptors for what Python lacks."""

    @property
    def path(self) -> str:
        """The root's absolute path on this host."""

    def open_directory(self, path: str) -> int:
        """A descriptor (O_RDONLY) of a directory beneath the root, for the caller to close."""

    def filesystem_magic(self) -> int:
        """f_type of statfs(2): which kind of file system the root is on."""


class LockKeeper(Protocol):
    """Lets a lock outlive this process: until the host dies, or it is let go."""

    def keep(self, lock: Lock, note: Path) -> None:
        """Have `lock` kept by something that lives on, which the file `note` tells from then on."""

    def is_kept(self, note: Path) -> bool:
        """Whether what `note` tells still has its lock."""

    def let_go(self, note: Path) -> None:
        """Give that lock back; that there is none is no error."""


@runtime_checkable
class SharedDirectory(RootDirectory, Protocol):
    """Implemented by roots on which several hosts may work, as far as the storage has locks for them."""

    @property
    def keeper(self) -> LockKeeper:
        """What keeps locks of this root while no daemon runs."""

    def try_lock(self, path: str) -> Lock | None:
        """Lock a file, made if it is missing; `None` while somebody else has it locked.

        Raises `OSError` where the storage has no locks.
        """

    def reopen_log(self, path: str, *, size: int, known: bool = False) -> LogFile:
        """The log file as whoever wrote last has left it; nobody is kept from opening it, too.

        `known`: it has been opened before and had that size.
        """
