"""Filling a new file with what an open one holds: shared where the storage can, else its data.

Holes stay holes. Names, owners and other attributes are not this module's business.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

from fspoolfs.progress import Progress
from fspoolfs.system import files, syscalls

#: The most that is copied between two looks at the cancellation, in bytes.
PIECE = 64 << 20
#: What passes through this process at once where the kernel cannot copy, in bytes.
_BUFFER = 1 << 20
#: st_blocks counts in units of 512 bytes: stat(3type).
_SECTOR = 512

# "Never on this storage", and "not this file" (a swap file, btrfs without checksums).
_NEVER = frozenset((errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.ENOSYS))
_NOT_THIS = frozenset((errno.EINVAL, errno.ETXTBSY))


class Transfer:
    """Copies contents of files, and remembers what this pair of storages cannot do.

    `between` is called after each piece, which may come long before the end of a file.
    """

    def __init__(self, progress: Progress, between: Callable[[], None]) -> None:
        self._progress = progress
        self._between = between
        self._reflink = True
        self._in_kernel = True

    def copy(self, source: int, target: int, size: int) -> None:
        """Give the empty regular file `target` the size and content of `source`, which was `size` long.

        What is added to `source` meanwhile is left out; where it shrinks, the copy ends.
        """
        if size == 0:
            return
        if self._clone(source, target):
            self._progress.advance(size)
            return
        info = os.fstat(source)
        if info.st_blocks * _SECTOR >= info.st_size:
            self._copy_range(source, target, 0, info.st_size)
        else:
            for start, end in _extents(source, info.st_size):
                self._copy_range(source, target, start, end)
        size = min(info.st_size, os.fstat(source).st_size)
        if os.fstat(target).st_size != size:
            os.ftruncate(target, size)

    def _clone(self, source: int, target: int) -> bool:
        if not self._reflink:
            return False
        try:
            syscalls.clone_file(target, source)
        except OSError as error:
            if error.errno in _NEVER:
                self._reflink = False
            elif error.errno not in _NOT_THIS:
                raise
            return False
        return True

    def _copy_range(self, source: int, target: int, start: int, end: int) -> None:
        while start < end:
            count = self._copy_piece(source, target, start, min(PIECE, end - start))
            if count == 0:
                return
            start += count
            self._progress.advance(count)
            self._between()

    def _copy_piece(self, source: int, target: int, offset: int, size: int) -> int:
        """Bytes copied; 0 at the end of `source`."""
        if self._in_kernel:
            try:
                count = os.copy_file_range(source, target, size, offset, offset)
            except OSError as error:
                if error.errno in _NEVER:
                    self._in_kernel = False
                elif error.errno not in _NOT_THIS:
                    raise
            else:
                # Some file systems answer 0 for what they cannot copy: read(2) tells the end.
                if count:
                    return count
        data = os.pread(source, min(size, _BUFFER), offset)
        files.write_all(target, data, offset)
        return len(data)


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file of `size` bytes holds data: (start, end). Without SEEK_DATA, everywhere."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
            hole = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left, or the file shrank
                return
            if error.errno != errno.EINVAL:
                raise
            start, hole = end, size
        end = min(hole, size)
        if start < end:
            yield start, end
