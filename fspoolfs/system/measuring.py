"""Counting what a directory tree occupies, on a tree that its owner may be changing."""

from __future__ import annotations

import errno
import os

from fspoolfs.errors import StorageError
from fspoolfs.model.infos import UsageInfo
from fspoolfs.progress import Progress
from fspoolfs.system import syscalls, walking
from fspoolfs.system.walking import Descent, Place

#: st_blocks counts in units of 512 bytes, whatever the file system's block size is: stat(3type).
_SECTOR = 512

#: What is not there to be counted: gone, swapped for something else, a mount, or not ours to read.
_UNCOUNTED = walking.NOT_A_DIRECTORY | {errno.ENOENT, errno.EXDEV, errno.EACCES}


def measure(dir_fd: int, name: str, progress: Progress) -> UsageInfo:
    """Bytes on disk and inodes of the directory `name` in `dir_fd` ("." for itself) and all in it.

    Each inode counts once, holes not at all; links are not followed, mount points not entered. What
    vanishes on the way is left out, and so is what this process may not read, which for root is
    nothing. Raises `OSError` when the directory itself cannot be opened, `StorageError` when reading
    fails, and with EBUSY when directories are moved away under the walk.
    """
    progress.begin("measuring", unit="files")
    with Descent(dir_fd, name) as descent:
        return _Count(descent, progress).run()


class _Count:
    """One count."""

    def __init__(self, descent: Descent, progress: Progress) -> None:
        self._descent = descent
        self._progress = progress
        self._blocks = 0
        self._inodes = 0
        # Only inodes with several names can be met twice.
        self._met: set[tuple[int, int]] = set()

    def run(self) -> UsageInfo:
        try:
            self._walk()
        except OSError as error:
            what = f"measure {self._descent.describe()}"
            if error.errno == errno.ESTALE:
                raise StorageError(f"{what}: it was moved meanwhile; try again", errno=errno.EBUSY) from error
            raise StorageError.from_os(what, error) from error
        return UsageInfo(allocation=self._blocks * _SECTOR, inodes=self._inodes)

    def _walk(self) -> None:
        descent = self._descent
        self._read()
        while True:
            pending = descent.here.pending
            if pending:
                self._visit(pending.pop())
            elif descent.at_top:
                return
            else:
                descent.leave()

    def _visit(self, name: str) -> None:
        try:
            self._descent.enter(name)
        except OSError as error:
            if error.errno not in _UNCOUNTED:
                raise
            return
        self._read()

    def _read(self) -> None:
        """Count `here` and what in it is no directory."""
        here = self._descent.here
        self._add(here.info)
        before = self._inodes
        for name in walking.split(here):
            self._count(here, name)
        self._progress.advance(1 + self._inodes - before)

    def _count(self, here: Place, name: str) -> None:
        try:
            info = os.stat(name, dir_fd=here.fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _UNCOUNTED:
                raise
            return
        if info.st_dev != here.device and _is_mount_point(here, name):
            return
        if info.st_nlink > 1:
            identity = (info.st_dev, info.st_ino)
            if identity in self._met:
                return
            self._met.add(identity)
        self._add(info)

    def _add(self, info: os.stat_result) -> None:
        self._blocks += info.st_blocks
        self._inodes += 1


def _is_mount_point(here: Place, name: str) -> bool:
    """Whether something is mounted on a file; overlayfs too gives files a device of their own."""
    try:
        os.close(syscalls.openat2(here.fd, name, os.O_PATH | os.O_NOFOLLOW, 0, walking.INSIDE))
    except OSError as error:
        return error.errno == errno.EXDEV
    return False
