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
import threading
import time
from collections.abc import Callable

from fspoolfs.backends.memory_paths import components, failure
from fspoolfs.backends.memory_state import (
    BLOCK,
    ROOT_INODE,
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
    State,
    blocks,
    copy_sectors,
    inside,
    needed_for,
)
from fspoolfs.model.infos import FileInfo, SpaceInfo, UsageInfo

#: How many bytes a tree takes when nobody says otherwise.
DEFAULT_CAPACITY = 1 << 40


class MemoryTree:
    """One file system. Thread-safe: each method is atomic.

    `capacity` is in bytes; what exceeds it fails with ENOSPC. New entries belong to the user that
    runs the program. `clock` gives nanoseconds since the epoch.
    """

    def __init__(
        self,
        *,
        capacity: int = DEFAULT_CAPACITY,
        clock: Callable[[], int] = time.time_ns,
        state: State | None = None,
    ) -> None:
        self.capacity = capacity
        self._clock = clock
        self._lock = threading.RLock()
        self._now = state or State.new(mode=0o755, owner=os.geteuid(), group=os.getegid(), time_ns=clock())
        self._disk = self._now.copy()
        #: What `_now` has and `_disk` has not, in order.
        self._waiting: list[Operation] = []
        #: For each file that is written in place, the sectors that are not on the disk.
        self._dirty: dict[int, set[int]] = {}
        #: The files whose making or filling is among `_waiting`.
        self._unsettled: set[int] = set()
        self._last_inode = max(self._now.nodes)

    # Looking.

    def info(self, path: str) -> FileInfo:
        """lstat(2)."""
        with self._lock:
            return self._describe(self._resolve(path))

    def listing(self, path: str) -> dict[str, FileInfo]:
        """The entries of a directory."""
        with self._lock:
            return {name: self._describe(inode) for name, inode in self._children(path).items()}

    def names(self, path: str) -> list[str]:
        """The names of a directory's entries."""
        with self._lock:
            return list(self._children(path))

    def below(self, path: str) -> list[str]:
        """`path` and the paths of everything in it, each directory before what it holds."""
        with self._lock:
            found = [path]
            for place in found:
                inode = self._resolve(place)
                if self._now.nodes[inode].children is not None:
                    found.extend(f"{place}/{name}" if place else name for name in self._now.children(inode))
            return found

    def collect(self, path: str) -> list[tuple[str, FileInfo, bytes | None]]:
        """A directory and all in it at one moment, like `below`; files with their content."""
        with self._lock:
            self._children(path)
            found: list[tuple[str, FileInfo, bytes | None]] = []
            for place in self.below(path):
                inode = self._resolve(place)
                content = self._now.nodes[inode].content
                found.append((place, self._describe(inode), None if content is None else bytes(content)))
            return found

    def content(self, path: str, *, limit: int | None = None) -> bytes:
        """What a regular file holds; EISDIR for a directory, EFBIG above `limit` bytes."""
        with self._lock:
            content = self._file(self._resolve(path), path)
            if limit is not None and len(content) > limit:
                raise failure(errno.EFBIG, path)
            return bytes(content)

    def usage(self, path: str) -> UsageInfo:
        """What a directory holds, itself included."""
        with self._lock:
            self._children(path)
            nodes = [self._now.nodes[self._resolve(place)] for place in self.below(path)]
            return UsageInfo(allocation=sum(node.blocks for node in nodes), inodes=len(nodes))

    def space(self) -> SpaceInfo:
        with self._lock:
            used = self._now.used
            return SpaceInfo(capacity=self.capacity, allocation=used, available=max(0, self.capacity - used))

    def unused_name(self, path: str) -> str:
        """A hidden path beside `path`, different each time."""
        with self._lock:
            directory, slash, _ = path.rpartition("/")
            self._last_inode += 1
            return f"{directory}{slash}.{self._last_inode}"

    # Changing.

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
            if stat.S_ISDIR(mode):
                self._reserve(BLOCK, path)
            self._last_inode += 1
            if stat.S_ISREG(mode):
                self._unsettled.add(self._last_inode)
            self._do(Make(entry, self._last_inode, mode, os.geteuid(), os.getegid(), self._clock()))

    def fill(self, path: str, content: bytes) -> None:
        """Let a file hold `content`."""
        with self._lock:
            inode = self._resolve(path)
            old = self._file(inode, path)
            self._reserve(blocks(len(content)) - blocks(len(old)), path)
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

    def _reserve(self, size: int, path: str) -> None:
        if self._now.used + size > self.capacity:
            raise failure(errno.ENOSPC, path)

    def _way(self, names: list[str]) -> list[tuple[Entry, int]]:
        """Each entry on the way along `names`, and the inode that it refers to."""
        way: list[tuple[Entry, int]] = []
        inode = ROOT_INODE
        for name in names:
            children = self._now.nodes[inode].children
            if children is None:
                raise failure(errno.ENOTDIR, "/".join(names))
            if name not in children:
                raise failure(errno.ENOENT, "/".join(names))
            way.append(((inode, name), children[name]))
            inode = children[name]
        return way

    def _resolve(self, path: str) -> int:
        way = self._way(components(path))
        return way[-1][1] if way else ROOT_INODE

    def _place(self, path: str) -> Entry:
        """Where the entry for `path` is or would be; EINVAL for the root, which has none."""
        names = components(path)
        if not names:
            raise failure(errno.EINVAL, path)
        way = self._way(names[:-1])
        parent = way[-1][1] if way else ROOT_INODE
        if self._now.nodes[parent].children is None:
            raise failure(errno.ENOTDIR, path)
        return (parent, names[-1])

    def _children(self, path: str) -> dict[str, int]:
        inode = self._resolve(path)
        children = self._now.nodes[inode].children
        if children is None:
            raise failure(errno.ENOTDIR, path)
        return children

    def _file(self, inode: int, path: str) -> bytearray:
        node = self._now.nodes.get(inode)
        if node is None:
            raise failure(errno.ESTALE, path)
        if node.content is None:
            raise failure(errno.EISDIR, path)
        return node.content

    def _describe(self, inode: int) -> FileInfo:
        node = self._now.nodes[inode]
        return FileInfo(
            mode=node.mode,
            owner=node.owner,
            group=node.group,
            inode=inode,
            size=node.size,
            mtime_ns=node.mtime_ns,
            ctime_ns=node.ctime_ns,
        )
