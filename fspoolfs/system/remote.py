"""Roots on servers that syncfs(2) does not reach: what was written is remembered, and synced one by one.

The kernel passes syncfs on to no server of FUSE but its own (fuse_sync_fs() of fs/fuse/inode.c), so that
what a client still has is not made durable by it. What else is written there in bulk, copies, is synced by
whoever makes it. Files are remembered by their paths: one that is kept open cannot be removed or replaced
on some servers without leaving another one behind (.fuse_hidden of libfuse).
"""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from fspoolfs.system import syscalls
from fspoolfs.system.descriptors import Descriptor
from fspoolfs.system.paths import HostRoot

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: For writing: some servers sync what this host has written only through such an open file.
_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: How many files are synced side by side.
_THREADS = 8


def root_of(path: str, descriptor: Descriptor) -> HostRoot:
    """The root behind a descriptor, which is to be seen at `path`."""
    remote = syscalls.filesystem_magic(descriptor.fd) == syscalls.FUSE_MAGIC
    return RemoteRoot(path, descriptor) if remote else HostRoot(path, descriptor)


def open_root(path: str) -> HostRoot:
    """The same of the directory at the absolute `path`."""
    return root_of(path, Descriptor(os.open(path, _DIRECTORY)))


class RemoteRoot(HostRoot):
    """A root whose `sync` asks for each file that was written, and each directory that was trusted."""

    def __init__(self, path: str, descriptor: Descriptor) -> None:
        super().__init__(path, descriptor)
        self._lock = threading.Lock()
        self._unsynced: set[str] = set()

    def write(self, path: str, data: bytes, *, replace: bool, durable: bool) -> None:
        super().write(path, data, replace=replace, durable=durable)
        with self._lock:
            if durable:
                self._unsynced.discard(path)
            else:
                self._unsynced.add(path)

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        with self._lock:
            if source in self._unsynced:
                self._unsynced.remove(source)
                self._unsynced.add(target)

    def remove_file(self, path: str) -> None:
        super().remove_file(path)
        with self._lock:
            self._unsynced.discard(path)

    def sync(self) -> None:
        """Make durable what was written before, and the names in the root and in our own directories."""
        super().sync()
        with self._lock:
            paths, self._unsynced = self._unsynced, set()
        try:
            with ThreadPoolExecutor(_THREADS, "syncing") as pool:
                for done in [pool.submit(self._sync_file, path) for path in paths]:
                    done.result()
            for directory in ("", *self.trusted):
                self._sync_names(directory)
        except BaseException:
            with self._lock:
                self._unsynced |= paths
            raise

    def _sync_file(self, path: str) -> None:
        with suppress(FileNotFoundError), self._entry(path) as entry:
            fd = os.open(entry.name, _FILE, dir_fd=entry.dir_fd)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def _sync_names(self, path: str) -> None:
        try:
            self.sync_directory(path)
        except OSError as error:
            # fsync(2): EINVAL means that this file does not take it, as directories of some servers; a
            # directory that was removed has no names.
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
