"""Looking at a directory tree in memory: paths, entries, contents, what is used.

The errors are those of the real system calls. Nothing here changes a tree; what does inherits from
`TreeView` and is in `fspoolfs.backends.memory_tree`.
"""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace

from fspoolfs.backends.memory_quota import Account
from fspoolfs.backends.memory_state import ROOT_INODE, Entry, State
from fspoolfs.model.infos import FileInfo, SpaceInfo, UsageInfo

#: The longest name of an entry, in bytes: NAME_MAX of <linux/limits.h>.
NAME_MAX = 255


def failure(number: int, path: str) -> OSError:
    """What a system call that fails with `number` raises."""
    return OSError(number, os.strerror(number), path)


def components(path: str) -> list[str]:
    """The names on the way to `path`.

    Raises `OSError`: EINVAL for a path that is absolute or could leave the root; ENAMETOOLONG.
    """
    names = path.split("/") if path else []
    if not {"", ".", ".."}.isdisjoint(names) or "\0" in path:
        raise failure(errno.EINVAL, path)
    if any(len(os.fsencode(name)) > NAME_MAX for name in names):
        raise failure(errno.ENAMETOOLONG, path)
    return names


class TreeView:
    """A file system as programs see it. Thread-safe: each method is atomic."""

    def __init__(self, state: State, *, capacity: int) -> None:
        self.capacity = capacity
        self._lock = threading.RLock()
        self._now = state

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

    def account(self, path: str) -> Account | None:
        """Limits and counters of a directory as they are; `None` for one that is not counted by itself."""
        with self._lock:
            self._children(path)
            account = self._now.accounts.get(self._resolve(path))
            return None if account is None else replace(account)

    def space(self) -> SpaceInfo:
        with self._lock:
            used = self._now.used
            return SpaceInfo(capacity=self.capacity, allocation=used, available=max(0, self.capacity - used))

    # Helpers; the lock is held.

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
