"""Which project id an item gets: one that no file of the file system carries.

The kernel is asked, so nothing is remembered that could be wrong: an id is free when no inode carries
it, deleted ones that are still open included. Ids are never taken from a list of items, which does
not know what was moved out of one.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fspoolfs.errors import BusyError, StorageError
from fspoolfs.system import quota

#: From where to where ids are taken. Incus counts from 10001 on, systemd has 2147483648 to
#: 4294967294, and people who number by hand begin at 1.
FIRST = 1 << 30
LAST = (1 << 31) - 1

#: How often another id is tried when another program takes the same one at the same time.
_ATTEMPTS = 100


class ProjectIds:
    """The ids of one file system; all pools on it share this object, so that no two choose the same."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Each id is used once before the first is used again: who looks at old numbers sees no others.
        self._next = FIRST
        self._retiring: set[int] = set()

    def give(self, directory: int) -> int:
        """Put the empty directory, an open descriptor, into a project of its own; the project's id."""
        with self._lock:
            for _ in range(_ATTEMPTS):
                number, is_limited = self._find_free(directory)
                self._next = number + 1
                if is_limited:
                    # A removal was interrupted after the last file and before the limits were lifted.
                    quota.set_limits(directory, number, space=0, inodes=0)
                quota.set_project(directory, number)
                # Another program may have done the same since it was found free.
                if quota.counters(directory, number).inodes <= 1:
                    return number
            quota.set_project(directory, 0, inherits=False)
        raise BusyError("another program takes every project id that is free; stop it and try again")

    @contextmanager
    def retiring(self, root: int, number: int) -> Iterator[None]:
        """The last files of project `number` are removed in here, and then its limits are lifted.

        Until then nobody gets the id, though nothing carries it any more.
        """
        with self._lock:
            self._retiring.add(number)
        try:
            yield
            quota.set_limits(root, number, space=0, inodes=0)
        finally:
            with self._lock:
                self._retiring.discard(number)

    def _find_free(self, fd: int) -> tuple[int, bool]:
        """An id that nothing carries, and whether it has limits all the same."""
        number = self._next if self._next <= LAST else FIRST
        has_wrapped = number == FIRST
        while True:
            found = quota.next_counters(fd, number)
            if found is not None and found.id != number:
                found = None
            if number not in self._retiring and (found is None or not found.is_used):
                return number, found is not None and found.is_limited
            number += 1
            if number > LAST:
                if has_wrapped:
                    raise StorageError(
                        "every project id is in use; delete items and purge them first", errno=errno.ENOSPC
                    )
                number, has_wrapped = FIRST, True


_devices: dict[int, ProjectIds] = {}
_devices_lock = threading.Lock()


def of_filesystem(fd: int) -> ProjectIds:
    """The ids of the file system that `fd` is on."""
    with _devices_lock:
        return _devices.setdefault(os.fstat(fd).st_dev, ProjectIds())
