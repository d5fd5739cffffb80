"""Storage that can hang: a small file system in memory, for a pool to lie on.

It hangs when its process is stopped (SIGSTOP) and goes on when that is continued; killed, it makes
every request fail that waits for it, so that no client stays in uninterruptible sleep. It has what
a pool's root needs (no links, no extended attributes) and never frees an inode, since it lives for
a few seconds. Run as a program: MOUNTPOINT.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import stat
import time
from collections.abc import Sequence
from pathlib import Path

import pyfuse3

from benchmarks.fusefs import attributes, roomy_statvfs, serve


class _Node:
    """One inode: a directory has `children`, a file `content`; the file handle of either is its inode."""

    __slots__ = ("attributes", "children", "content")

    def __init__(self, entry: pyfuse3.EntryAttributes) -> None:
        self.attributes = entry
        self.children: dict[bytes, _Node] = {}
        self.content = bytearray()

    def resize(self, size: int) -> None:
        del self.content[size:]
        self.content.extend(bytes(size - len(self.content)))
        self.attributes.st_size = size


class MemoryTree(pyfuse3.Operations):
    """Files and directories in memory."""

    supports_dot_lookup = False

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count(pyfuse3.ROOT_INODE)
        self._nodes: dict[int, _Node] = {}
        self._add(stat.S_IFDIR | 0o755, uid=0, gid=0)

    def _add(self, mode: int, *, uid: int, gid: int) -> _Node:
        inode = next(self._numbers)
        # Nothing is cached, so that whoever asks after this storage hangs with it.
        node = _Node(attributes(inode, mode, uid=uid, gid=gid, timeout=0))
        node.attributes.entry_timeout = 0
        self._nodes[inode] = node
        return node

    def _add_child(self, parent: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext) -> _Node:
        children = self._nodes[parent].children
        if name in children:
            raise pyfuse3.FUSEError(errno.EEXIST)
        children[name] = self._add(mode, uid=ctx.uid, gid=ctx.gid)
        return children[name]

    def _child(self, parent: int, name: bytes) -> _Node:
        try:
            return self._nodes[parent].children[name]
        except KeyError:
            raise pyfuse3.FUSEError(errno.ENOENT) from None

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._child(parent_inode, name).attributes

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._nodes[inode].attributes

    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        node = self._nodes[inode]
        entry = node.attributes
        if fields.update_size:
            node.resize(attr.st_size)
        if fields.update_mode:
            entry.st_mode = attr.st_mode
        if fields.update_uid:
            entry.st_uid = attr.st_uid
        if fields.update_gid:
            entry.st_gid = attr.st_gid
        if fields.update_mtime:
            entry.st_mtime_ns = attr.st_mtime_ns
        entry.st_ctime_ns = time.time_ns()
        return entry

    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._add_child(parent_inode, name, stat.S_IFDIR | mode, ctx).attributes

    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        if self._child(parent_inode, name).children:
            raise pyfuse3.FUSEError(errno.ENOTEMPTY)
        del self._nodes[parent_inode].children[name]

    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._child(parent_inode, name)
        del self._nodes[parent_inode].children[name]

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        if flags not in (0, pyfuse3.RENAME_NOREPLACE):
            raise pyfuse3.FUSEError(errno.EINVAL)
        moved, target = self._child(parent_inode_old, name_old), self._nodes[parent_inode_new].children
        if name_new in target:
            if flags:
                raise pyfuse3.FUSEError(errno.EEXIST)
            if target[name_new].children:
                raise pyfuse3.FUSEError(errno.ENOTEMPTY)
        del self._nodes[parent_inode_old].children[name_old]
        target[name_new] = moved

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        entry = self._add_child(parent_inode, name, stat.S_IFREG | mode, ctx).attributes
        return pyfuse3.FileInfo(fh=entry.st_ino), entry

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=inode)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return bytes(self._nodes[fh].content[off : off + size])

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        node = self._nodes[fh]
        node.resize(max(len(node.content), off + len(buf)))
        node.content[off : off + len(buf)] = buf
        node.attributes.st_mtime_ns = time.time_ns()
        return len(buf)

    async def flush(self, fh: int) -> None:
        """Memory has nothing to flush."""

    async def fsync(self, fh: int, datasync: bool) -> None:
        """Memory has nothing to write."""

    async def release(self, fh: int) -> None:
        """A handle is an inode and stays."""

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        return inode

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        # The inode is the position: it stays right when entries come and go between two calls.
        later = [entry for entry in self._nodes[fh].children.items() if entry[1].attributes.st_ino > start_id]
        for name, node in sorted(later, key=lambda entry: entry[1].attributes.st_ino):
            if not pyfuse3.readdir_reply(token, name, node.attributes, node.attributes.st_ino):
                return

    async def releasedir(self, fh: int) -> None:
        """A handle is an inode and stays."""

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Memory has nothing to write."""

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        return roomy_statvfs()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mountpoint", type=Path)
    serve(MemoryTree(), parser.parse_args(arguments).mountpoint, name="hanging")


if __name__ == "__main__":
    main()
