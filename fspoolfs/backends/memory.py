"""A pool's root in memory: what the simulator attaches, and what tests of the service run on.

`MemoryRoot` keeps the contract of `fspoolfs.backends.root` over a `MemoryTree`. It takes the steps
that the real root takes, one atomic change after the other, and tells an `Interceptor` about each
call and each change; that is where faults come from. It stores nothing itself: several roots may be
open on one tree, one after the other or at once.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Protocol

from fspoolfs.backends.memory_tree import MemoryTree
from fspoolfs.backends.memory_view import failure
from fspoolfs.model.infos import FileInfo, SpaceInfo, UsageInfo
from fspoolfs.progress import Progress

__all__ = ["OPERATIONS", "Interceptor", "MemoryLog", "MemoryRoot", "MemoryTree"]

#: The calls that an `Interceptor` is told of.
OPERATIONS = frozenset(
    {
        "stat",
        "entries",
        "names",
        "directories",
        "read",
        "write",
        "make_directory",
        "set_attributes",
        "set_limits",
        "counted",
        "rename",
        "exchange",
        "sync_directory",
        "remove_file",
        "remove_directory",
        "remove_tree",
        "copy_tree",
        "measure",
        "open_log",
        "log_read",
        "log_write",
        "log_sync",
        "sync",
        "space",
    }
)
#: The mode of a copied directory until all is in it.
_UNFINISHED = 0o700


class Interceptor(Protocol):
    """Sees what is done to a root and can get in its way."""

    def enter(self, operation: str, path: str) -> None:
        """A call begins, one of `OPERATIONS`; may wait, and may raise what the call then raises."""

    def change(self) -> AbstractContextManager[None]:
        """Surrounds one atomic change; raising at its start prevents it."""


class _Bystander:
    """Lets everything happen."""

    def enter(self, operation: str, path: str) -> None:
        return

    def change(self) -> AbstractContextManager[None]:
        return nullcontext()


class _Gate:
    """An interceptor that lets nothing through once it is closed, not even what waited in the other."""

    def __init__(self, other: Interceptor) -> None:
        self._other = other
        self._closed = False

    def close(self) -> None:
        self._closed = True

    def enter(self, operation: str, path: str) -> None:
        self._other.enter(operation, path)
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), path)

    def change(self) -> AbstractContextManager[None]:
        return self._other.change()


class MemoryLog:
    """A file of a `MemoryTree` that is written in place; `durable` if it is known to be, name and all."""

    def __init__(self, tree: MemoryTree, path: str, interceptor: Interceptor, *, durable: bool) -> None:
        self._tree = tree
        self._path = path
        self._durable = durable
        self._inode = tree.inode(path)
        self._interceptor = _Gate(interceptor)

    def read(self, offset: int, size: int) -> bytes:
        self._interceptor.enter("log_read", self._path)
        return self._tree.read_at(self._inode, offset, size)

    def write(self, offset: int, data: bytes) -> None:
        self._interceptor.enter("log_write", self._path)
        with self._interceptor.change():
            self._tree.write_at(self._inode, offset, data)

    def sync(self) -> None:
        self._interceptor.enter("log_sync", self._path)
        with self._interceptor.change():
            if self._durable:
                self._tree.sync_content(self._inode)
            else:
                self._tree.sync_file(self._path)
        self._durable = True

    def close(self) -> None:
        """Later calls fail with EBADF."""
        self._interceptor.close()


class MemoryRoot:
    """`RootDirectory` on `tree`, which says that it lies at `path`."""

    def __init__(self, tree: MemoryTree, path: str, *, interceptor: Interceptor | None = None) -> None:
        self.tree = tree
        self._path = path
        self._interceptor = _Gate(interceptor or _Bystander())

    @property
    def path(self) -> str:
        return self._path

    def location(self, inside: str) -> str:
        return f"{self._path.rstrip('/')}/{inside}" if inside else self._path

    def trust(self, path: str) -> None:
        """Everything is at hand; what others could write to is refused all the same."""
        self.tree.names(path)
        info = self.tree.info(path)
        if info.owner != os.geteuid() or info.mode & 0o022:
            raise failure(errno.EPERM, path)

    def stat(self, path: str) -> FileInfo:
        self._interceptor.enter("stat", path)
        return self.tree.info(path)

    def entries(self, path: str) -> Iterator[tuple[str, FileInfo]]:
        self._interceptor.enter("entries", path)
        yield from self.tree.listing(path).items()

    def names(self, path: str) -> list[str]:
        self._interceptor.enter("names", path)
        return self.tree.names(path)

    def directories(self, path: str) -> set[str]:
        self._interceptor.enter("directories", path)
        return {name for name, info in self.tree.listing(path).items() if stat.S_ISDIR(info.mode)}

    def read(self, path: str, *, limit: int) -> bytes:
        self._interceptor.enter("read", path)
        return self.tree.content(path, limit=limit)

    def write(self, path: str, data: bytes, *, replace: bool, durable: bool) -> None:
        self._interceptor.enter("write", path)
        self._write(path, data, replace=replace, durable=durable)

    def _write(self, path: str, data: bytes, *, replace: bool, durable: bool) -> None:
        """The file, or a temporary one beside it; its content; the name. A failure leaves nothing."""
        change = self._interceptor.change
        target = self.tree.unused_name(path) if replace else path
        with change():
            self.tree.make_file(target, mode=0o600)
        try:
            with change():
                self.tree.fill(target, data)
            if durable:
                with change():
                    self.tree.sync_file(target)
            if replace:
                with change():
                    self.tree.move(target, path, replace=True)
        except OSError:
            with suppress(FileNotFoundError):
                self.tree.remove_file(target)
            raise
        if durable and replace:
            with change():
                self.tree.sync_file(path)

    def make_directory(self, path: str, *, mode: int) -> None:
        self._interceptor.enter("make_directory", path)
        with self._interceptor.change():
            self.tree.make_directory(path, mode=mode)

    def set_attributes(self, path: str, *, mode: int | None, owner: int | None, group: int | None) -> None:
        self._interceptor.enter("set_attributes", path)
        with self._interceptor.change():
            self.tree.set_attributes(path, mode=mode, owner=owner, group=group)

    def set_limits(self, path: str, *, capacity: int | None, files: int | None) -> None:
        """See `MemoryTree.set_limits`."""
        self._interceptor.enter("set_limits", path)
        with self._interceptor.change():
            self.tree.set_limits(path, capacity=capacity, files=files)

    def counted(self, paths: Sequence[str]) -> dict[str, UsageInfo]:
        """What directories hold, in one pass; those that are not counted by themselves are left out."""
        self._interceptor.enter("counted", "")
        found: dict[str, UsageInfo] = {}
        for path in paths:
            with suppress(FileNotFoundError, NotADirectoryError):
                account = self.tree.account(path)
                if account is not None:
                    found[path] = account.info()
        return found

    def rename(self, source: str, target: str) -> None:
        self._interceptor.enter("rename", source)
        with self._interceptor.change():
            self.tree.move(source, target, replace=False)

    def exchange(self, one: str, other: str) -> None:
        self._interceptor.enter("exchange", one)
        with self._interceptor.change():
            self.tree.exchange(one, other)

    def sync_directory(self, path: str) -> None:
        self._interceptor.enter("sync_directory", path)
        with self._interceptor.change():
            self.tree.sync_directory(path)

    def remove_file(self, path: str) -> None:
        self._interceptor.enter("remove_file", path)
        with self._interceptor.change():
            self.tree.remove_file(path)

    def remove_directory(self, path: str) -> None:
        self._interceptor.enter("remove_directory", path)
        with self._interceptor.change():
            self.tree.remove_directory(path)

    def remove_tree(self, path: str, progress: Progress) -> None:
        self._interceptor.enter("remove_tree", path)
        progress.begin("purging", unit="files")
        for place in reversed(self.tree.below(path)):
            with self._interceptor.change():
                self._remove(place)
            progress.advance()

    def _remove(self, path: str) -> None:
        """Remove an entry that may have vanished since it was listed."""
        try:
            if stat.S_ISDIR(self.tree.info(path).mode):
                self.tree.remove_directory(path)
            else:
                self.tree.remove_file(path)
        except FileNotFoundError:
            return

    def copy_tree(self, source: str, target: str, progress: Progress, *, existing: bool = False) -> None:
        self._interceptor.enter("copy_tree", source)
        if not source or f"{target}/".startswith(f"{source}/"):
            raise failure(errno.EINVAL, target)
        if existing and self.tree.names(target):
            raise failure(errno.ENOTEMPTY, target)
        directories: list[tuple[str, FileInfo]] = []
        progress.begin(progress.phase or "copying", unit="bytes", total=self.tree.usage(source).allocation)
        for place, info, content in self.tree.collect(source):
            copy = target + place[len(source) :]
            if content is None:
                if copy != target or not existing:
                    with self._interceptor.change():
                        self.tree.make_directory(copy, mode=_UNFINISHED)
                directories.append((copy, info))
            else:
                self._make_copy(copy, info, content)
            progress.advance(len(content or b""))
        # Only now does nothing more touch their times.
        for copy, info in reversed(directories):
            with self._interceptor.change():
                self.tree.set_attributes(
                    copy, mode=info.mode, owner=info.owner, group=info.group, mtime_ns=info.mtime_ns
                )

    def _make_copy(self, target: str, info: FileInfo, content: bytes) -> None:
        """The mode goes along; files belong to whoever runs the program, as all here do."""
        with self._interceptor.change():
            self.tree.make_file(target, mode=info.mode)
        with self._interceptor.change():
            self.tree.fill(target, content)

    def measure(self, path: str, progress: Progress) -> UsageInfo:
        self._interceptor.enter("measure", path)
        progress.begin("measuring", unit="files")
        usage = self.tree.usage(path)
        progress.advance(usage.inodes or 0)
        return usage

    def open_log(self, path: str, *, size: int) -> MemoryLog:
        self._interceptor.enter("open_log", path)
        change = self._interceptor.change
        try:
            content = self.tree.content(path)
        except FileNotFoundError:
            content = b""
            with change():
                self.tree.make_file(path, mode=0o600)
        made = len(content) < size
        if made:
            with change():
                self.tree.fill(path, content.ljust(size, b"\0"))
            with change():
                self.tree.sync_file(path)
        return MemoryLog(self.tree, path, self._interceptor, durable=made)

    def sync(self) -> None:
        self._interceptor.enter("sync", "")
        with self._interceptor.change():
            self.tree.sync()

    def space(self) -> SpaceInfo:
        self._interceptor.enter("space", "")
        return self.tree.space()

    def close(self) -> None:
        """Later calls fail with EBADF."""
        self._interceptor.close()
