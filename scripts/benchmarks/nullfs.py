"""The floor: a control tree that does nothing, as cheaply as pyfuse3 allows.

It has the shape of the real one (`pools/NAME/status`, `pools/NAME/items/NAME`) and asks the kernel
for the same kind of caching: names and directories for long, files not at all. Everything lives in
memory, nothing is checked, nothing is stored. Run as a program: MOUNTPOINT [--items COUNT].
"""

from __future__ import annotations

import argparse
import errno
import itertools
import stat
from collections.abc import Sequence
from pathlib import Path

import pyfuse3

from benchmarks.fusefs import attributes, roomy_statvfs, serve

_STATUS = b"active\n"
_POOL = b"tank"

_Entries = dict[bytes, pyfuse3.EntryAttributes]


class NullTree(pyfuse3.Operations):
    """Directories in memory, all of whose files read "active"."""

    supports_dot_lookup = False

    def __init__(self, *, items: int) -> None:
        super().__init__()
        self._numbers = itertools.count(pyfuse3.ROOT_INODE)
        self._attributes: dict[int, pyfuse3.EntryAttributes] = {}
        self._children: dict[int, _Entries] = {}
        self._listings: dict[int, list[tuple[bytes, pyfuse3.EntryAttributes]]] = {}
        self._handles = itertools.count(1)
        self._status_handle = pyfuse3.FileInfo(fh=0, direct_io=True, keep_cache=False)
        self._pools = self._add_directory(self._add_directory(None, b""), b"pools")
        full = self._add_pool(_POOL)
        for number in range(items):
            self._add_directory(full, b"item%d" % number)

    def _add_directory(self, parent: int | None, name: bytes, mode: int = 0o755) -> int:
        inode = next(self._numbers)
        self._attributes[inode] = attributes(inode, stat.S_IFDIR | mode)
        self._children[inode] = {}
        if parent is not None:
            self._children[parent][name] = self._attributes[inode]
        return inode

    def _add_pool(self, name: bytes) -> int:
        """A new pool; the inode of its `items`."""
        pool = self._add_directory(self._pools, name)
        status = next(self._numbers)
        self._attributes[status] = attributes(status, stat.S_IFREG | 0o644, timeout=0)
        self._children[pool][b"status"] = self._attributes[status]
        return self._add_directory(pool, b"items")

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        try:
            return self._children[parent_inode][name]
        except KeyError:
            raise pyfuse3.FUSEError(errno.ENOENT) from None

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        try:
            return self._attributes[inode]
        except KeyError:
            raise pyfuse3.FUSEError(errno.ENOENT) from None

    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if parent_inode == self._pools:
            self._add_pool(name)
        else:
            self._add_directory(parent_inode, name, mode)
        return self._children[parent_inode][name]

    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        # Inode numbers are never used again, so nothing has to wait for the kernel to forget this one.
        inode = self._children[parent_inode].pop(name).st_ino
        del self._children[inode], self._attributes[inode]

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        handle = next(self._handles)
        self._listings[handle] = list(self._children[inode].items())
        return handle

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._listings[fh]
        for place in range(start_id, len(listing)):
            if not pyfuse3.readdir_reply(token, *listing[place], place + 1):
                return

    async def releasedir(self, fh: int) -> None:
        del self._listings[fh]

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return self._status_handle

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return _STATUS[off : off + size]

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return len(buf)

    async def flush(self, fh: int) -> None:
        """Answered, since an ENOSYS would make the kernel leave it out for good."""

    async def release(self, fh: int) -> None:
        """The handle is shared and stays."""

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        return roomy_statvfs()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mountpoint", type=Path)
    parser.add_argument(
        "--items", type=int, default=0, help=f"items that pool {_POOL.decode()} has from the start"
    )
    options = parser.parse_args(arguments)
    serve(NullTree(items=options.items), options.mountpoint, name="nullfs")


if __name__ == "__main__":
    main()
