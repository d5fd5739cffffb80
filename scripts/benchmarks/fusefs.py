"""What the benchmark's own file systems share: entry attributes, and serving until SIGTERM."""

from __future__ import annotations

import gc
import os
import signal
import time
from pathlib import Path

import pyfuse3
import trio

#: Seconds for which the kernel may keep names and attributes of what changes only through the mount.
LONG = 3600


def attributes(
    inode: int, mode: int, *, uid: int = 0, gid: int = 0, timeout: float = LONG
) -> pyfuse3.EntryAttributes:
    """Attributes of a new inode; `timeout` is the seconds that the kernel may keep them."""
    entry = pyfuse3.EntryAttributes()
    now = time.time_ns()
    entry.st_ino = inode
    entry.st_mode = mode
    entry.st_uid, entry.st_gid = uid, gid
    entry.st_nlink = 1
    entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = now
    entry.entry_timeout = LONG
    entry.attr_timeout = timeout
    return entry


def roomy_statvfs() -> pyfuse3.StatvfsData:
    """A file system with room for whatever is asked of it."""
    space = pyfuse3.StatvfsData()
    space.f_bsize = space.f_frsize = 4096
    space.f_blocks = space.f_bfree = space.f_bavail = 1 << 28
    space.f_files = space.f_ffree = space.f_favail = 1 << 28
    space.f_namemax = os.pathconf("/", "PC_NAME_MAX")
    return space


def serve(operations: pyfuse3.Operations, mountpoint: Path, *, name: str) -> None:
    """Mount `operations` at `mountpoint` and answer until SIGTERM; then unmount."""
    options = {*pyfuse3.default_options, "allow_other", f"fsname={name}"}
    pyfuse3.init(operations, os.fspath(mountpoint), options)
    # What is there now stays: the collector need not walk it again and again.
    gc.freeze()
    try:
        trio.run(_main)
    finally:
        pyfuse3.close(unmount=True)


async def _main() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_terminate_on_signal)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()


async def _terminate_on_signal() -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            pyfuse3.terminate()
