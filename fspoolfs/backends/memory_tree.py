"""A directory tree in memory, with the errors of the real system calls and a durable side.

The tree has two states: the one that programs see, and the one that is on the disk. Every change
is applied to the first at once and waits, in order, to reach the second; syncing a file or the
whole tree lets the needed ones through. `power_cut` tells what a machine would find after it lost
power here. What is modelled is the weakest that ordered journals promise: syncing a file brings it,
its entry and the way to it onto the disk, and nothing else that happened before.

There are directories and regular files; no links, no special files, no extended attributes. Access
is not checked: the callers are the superuser.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import time
from collections.abc import Callable

from fspoolfs.backends.memory_state import (
    BLOCK,
    SECTOR,
    Entry,
    Exchange,
    Fill,
    Key,
    Make,
    Move,
    Operation,
    Remove,
    SetAttributes,
    SetLimits,
    State,
    blocks,
    copy_sectors,
    inside,
    needed_for,
)
from fspoolfs.backends.memory_view import TreeView, components, failure

#: How many bytes a tree takes when nobody says otherwise.
DEFAULT_CAPACITY = 1 << 40


class MemoryTree(TreeView):
    """One file system. Thread-safe: each method is atomic.

    `capacity` is in bytes; what exceeds it fails with ENOSPC, and what exceeds the limits of a
    directory with EDQUOT. New entries belong to the user that
    runs the program. `clock` gives nanoseconds since the epoch.
    """

    def __init__(
        self,
        *,
        capacity: int = DEFAULT_CAPACITY,
        clock: Callable[[], int] = time.time_ns,
        state: State | None = None,
    ) -> None:
        new = State.new(mode=0o755, owner=os.geteuid(), group=os.getegid(), time_ns=clock())
        super().__init__(state or new, capacity=capacity)
        self._clock = clock
        self._disk = self._now.copy()
        #: What `_now` has and `_disk` has not, in order.
        self._waiting: list[Operation] = []
        #: For each file that is written in place, the sectors that are not on the disk.
        self._dirty: dict[int, set[int]] = {}
        #: The files whose making or filling is among `_waiting`.
        self._unsettled: set[int] = set()
        self._last_inode = max(self._now.nodes)

    # Changing.

    def unused_name(self, path: str) -> str:
        """A hidden path beside `path`, different each time."""
        with self._lock:
            directory, slash, _ = path.rpartition("/")
            self._last_inode += 1
            return f"{directory}{slash}.{self._last_inode}"

    def make_directory(self, path: str, *, mode: int) -> None:
        """mkdir(2) with exactly `mode`."""
        self._make(path, stat.S_IFDIR | stat.S_IMODE(mode))

    def make_file(self, path: str, *, mode: int) -> None:
        """A new, empty file: open(2) with O_EXCL."""
        self._make(path, stat.S_IFREG | stat.S_IMODE(mode))

    def _make(self, path: str, mode: int) -> None:
        with self._lock:
            entry = self._place(path)
            if entry[1] in self._now.children(entry[0]):
                raise failure(errno.EEXIST, path)
            account = self._now.nodes[entry[0]].account
            self._reserve(BLOCK if stat.S_ISDIR(mode) else 0, path, account, inodes=1)
            self._last_inode += 1
            if stat.S_ISREG(mode):
                self._unsettled.add(self._last_inode)
            self._do(Make(entry, self._last_inode, mode, os.geteuid(), os.getegid(), self._clock()))

    def fill(self, path: str, content: bytes) -> None:
        """Let a file hold `content`."""
        with self._lock:
            inode = self._resolve(path)
            old = self._file(inode, path)
            self._reserve(blocks(len(content)) - blocks(len(old)), path, self._now.nodes[inode].account)
            self._unsettled.add(inode)
            self._do(Fill(inode, content, self._clock()))

    def set_attributes(
        self,
        path: str,
        *,
        mode: int | None = None,
        owner: int | None = None,
        group: int | None = None,
        mtime_ns: int | None = None,
    ) -> None:
        """chmod(2), chown(2) and utimensat(2) of a directory in one."""
        with self._lock:
            self._children(path)
            bits = None if mode is None else stat.S_IMODE(mode)
            self._do(SetAttributes(self._resolve(path), bits, owner, group, mtime_ns, self._clock()))

    def set_limits(self, path: str, *, capacity: int | None, files: int | None) -> None:
        """Count a directory by itself, and let it grow no further than this; `None` is no limit."""
        with self._lock:
            self._children(path)
            self._do(SetLimits(self._resolve(path), capacity, files))

    def move(self, source: str, target: str, *, replace: bool) -> None:
        """rename(2); with `replace` only a file takes the place of a file."""
        with self._lock:
            old, new = self._place(source), self._place(target)
            inode = self._now.children(old[0]).get(old[1])
            if inode is None:
                raise failure(errno.ENOENT, source)
            replaced = self._now.children(new[0]).get(new[1])
            if replaced is not None and not replace:
                raise failure(errno.EEXIST, target)
            if replaced is not None and self._now.nodes[replaced].children is not None:
                raise failure(errno.EISDIR, target)
            if replaced == inode:
                return
            self._check_same_account(inode, new, target)
            above = self._way(components(target)[:-1])
            if any(node == inode for _, node in above):
                raise failure(errno.EINVAL, target)
            self._do(Move(old, new, inode, replaced, tuple(entry for entry, _ in above), self._clock()))
            if replaced is not None:
                self._forget(replaced)

    def exchange(self, one: str, other: str) -> None:
        """renameat2(2) with RENAME_EXCHANGE; EINVAL when one is beneath the other."""
        with self._lock:
            entries = (self._place(one), self._place(other))
            inodes = (self._resolve(one), self._resolve(other))
            above = [step for path in (one, other) for step in self._way(components(path)[:-1])]
            if any(node in inodes for _, node in above):
                raise failure(errno.EINVAL, other)
            self._check_same_account(inodes[0], entries[1], other)
            self._check_same_account(inodes[1], entries[0], one)
            self._do(Exchange(*entries, inodes, tuple(entry for entry, _ in above), self._clock()))

    def remove_file(self, path: str) -> None:
        """unlink(2)."""
        with self._lock:
            inode = self._resolve(path)
            self._file(inode, path)
            self._remove(path, inode)

    def remove_directory(self, path: str) -> None:
        """rmdir(2)."""
        with self._lock:
            if self._children(path):
                raise failure(errno.ENOTEMPTY, path)
            self._remove(path, self._resolve(path))

    def _remove(self, path: str, inode: int) -> None:
        self._do(Remove(self._place(path), inode, self._clock()))
        self._forget(inode)

    # Files that are written in place.

    def inode(self, path: str) -> int:
        """The inode number of a regular file, for the three methods below; EISDIR, ENOENT."""
        with self._lock:
            inode = self._resolve(path)
            self._file(inode, path)
            return inode

    def read_at(self, inode: int, offset: int, size: int) -> bytes:
        with self._lock:
            return bytes(self._file(inode, "")[offset : offset + size])

    def write_at(self, inode: int, offset: int, data: bytes) -> None:
        """pwrite(2) inside the file's size; EFBIG outside."""
        with self._lock:
            content = self._file(inode, "")
            end = offset + len(data)
            if end > len(content):
                raise failure(errno.EFBIG, "")
            content[offset:end] = data
            if data:
                sectors = range(offset // SECTOR, (end - 1) // SECTOR + 1)
                self._dirty.setdefault(inode, set()).update(sectors)

    def sync_content(self, inode: int) -> None:
        """fdatasync(2)."""
        with self._lock:
            self._file(inode, "")
            if inode in self._unsettled:
                self._bring_to_disk([inode, inside(inode)])
                self._unsettled.remove(inode)
            copy_sectors(self._now, self._disk, inode, self._dirty.pop(inode, set()))

    # What is on the disk.

    def sync_file(self, path: str) -> None:
        """fsync(2) of a file and of its directory: it, its entry and the way to it are durable."""
        with self._lock:
            way = self._way(components(path))
            self._bring_to_disk([key for step in way for key in step])
            self.sync_content(way[-1][1])

    def sync_directory(self, path: str) -> None:
        """fsync(2) of a directory: the way to it and all its entries, added or gone, are durable."""
        with self._lock:
            directory = self._resolve(path)
            way = [key for step in self._way(components(path)) for key in step]
            entries = [
                key
                for operation in self._waiting
                for key in operation.writes()
                if isinstance(key, tuple) and key[0] == directory
            ]
            self._bring_to_disk([*way, *entries])

    def sync(self) -> None:
        """syncfs(2)."""
        with self._lock:
            for operation in self._waiting:
                operation.apply(self._disk)
            self._waiting.clear()
            self._unsettled.clear()
            for inode, sectors in self._dirty.items():
                copy_sectors(self._now, self._disk, inode, sectors)
            self._dirty.clear()

    @property
    def waiting(self) -> int:
        """How many changes of metadata are not durable."""
        with self._lock:
            return len(self._waiting)

    def power_cut(self, keep: random.Random | None = None) -> MemoryTree:
        """The tree that is found when the power fails now.

        It holds what is durable. With `keep`, also as much of the rest as chance has it: the first
        of the waiting changes, in order, where new files can be short, and any of the sectors that
        were written in place. This tree stays as it is.
        """
        with self._lock:
            state = self._disk.copy()
            if keep is not None:
                for operation in self._waiting[: keep.randint(0, len(self._waiting))]:
                    operation.torn(keep).apply(state)
                for inode, sectors in self._dirty.items():
                    written = {sector for sector in sorted(sectors) if keep.random() < 0.5}
                    copy_sectors(self._now, state, inode, written)
            return MemoryTree(capacity=self.capacity, clock=self._clock, state=state)

    # Helpers; the lock is held.

    def _do(self, operation: Operation) -> None:
        operation.apply(self._now)
        self._waiting.append(operation)

    def _forget(self, inode: int) -> None:
        """A file is gone: nothing of its content will be synced."""
        self._dirty.pop(inode, None)
        self._unsettled.discard(inode)

    def _bring_to_disk(self, keys: list[Key]) -> None:
        needed, self._waiting = needed_for(keys, self._waiting)
        for operation in needed:
            operation.apply(self._disk)

    def _reserve(self, size: int, path: str, account: int, *, inodes: int = 0) -> None:
        if size > 0 and self._now.used + size > self.capacity:
            raise failure(errno.ENOSPC, path)
        limits = self._now.accounts.get(account)
        if limits is not None and not limits.takes(size, inodes):
            raise failure(errno.EDQUOT, path)

    def _check_same_account(self, inode: int, place: Entry, path: str) -> None:
        """EXDEV for what would take its charge along into another account, as a kernel has it.

        A directory that is counted by itself may go wherever nothing is.
        """
        own = 0 if inode in self._now.accounts else self._now.nodes[inode].account
        if own != self._now.nodes[place[0]].account:
            raise failure(errno.EXDEV, path)
