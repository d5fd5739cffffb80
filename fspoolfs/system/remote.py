"""Roots on servers that syncfs(2) does not reach: what was written is kept open, and synced one by one.

The kernel passes syncfs on to no server of FUSE but its own (fuse_sync_fs() of fs/fuse/inode.c), so that
what a client still has is not made durable by it. What else is written there in bulk, copies, is synced by
whoever makes it.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from fspoolfs.system import syscalls
from fspoolfs.system.descriptors import Descriptor
from fspoolfs.system.paths import HostRoot

#: FUSE_SUPER_MAGIC, include/uapi/linux/magic.h
_FUSE = 0x65735546
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: How many files are kept open before they are synced at once, and how many are synced side by side.
_KEPT, _THREADS = 64, 8


def root_of(path: str, descriptor: Descriptor) -> HostRoot:
    """The root behind a descriptor, which is to be seen at `path`."""
    remote = syscalls.filesystem_magic(descriptor.fd) == _FUSE
    return RemoteRoot(path, descriptor) if remote else HostRoot(path, descriptor)


def open_root(path: str) -> HostRoot:
    """The same of the directory at the absolute `path`."""
    return root_of(path, Descriptor(os.open(path, _DIRECTORY)))


class RemoteRoot(HostRoot):
    """A root whose `sync` asks for each file that was written, and each directory that was trusted."""

    def __init__(self, path: str, descriptor: Descriptor) -> None:
        super().__init__(path, descriptor)
        self._lock = threading.Lock()
        self._unsynced: list[Descriptor] = []
        self._keep_unsynced = self._keep

    def _keep(self, fd: int) -> None:
        with self._lock:
            self._unsynced.append(Descriptor(fd))
            full = len(self._unsynced) >= _KEPT
        if full:
            self._sync_files()

    def _sync_files(self) -> None:
        with self._lock:
            files, self._unsynced = self._unsynced, []
        with ThreadPoolExecutor(_THREADS, "syncing") as pool:
            for done in [pool.submit(os.fsync, file.fd) for file in files]:
                done.result()

    def sync(self) -> None:
        """Make durable what was written before, and the names in the root and in our own directories."""
        super().sync()
        self._sync_files()
        for path in ("", *self.trusted):
            directory = Descriptor(self.open_directory(path))
            os.fsync(directory.fd)

    def close(self) -> None:
        super().close()
        with self._lock:
            files, self._unsynced = self._unsynced, []
        for file in files:
            with suppress(OSError):
                file.retire()
