"""Turns: a time in which one host alone changes what is in a shared pool.

At the begin of one, what the others have journalled since is read, and what a host has left that died
in its turn is finished. At the end everything is on the storage and the journal says so, so that the
next one has nothing to replay. All of it happens in the committer's thread.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.root import SharedDirectory
from fspoolfs.service import recovery
from fspoolfs.service.hosts.lock import PoolLock
from fspoolfs.service.hosts.presence import Presence
from fspoolfs.service.journal import Journal, Record

log = logging.getLogger(__name__)

#: How many of this host's turns are remembered for telling its records from those of others.
_REMEMBERED = 4096


class Turns:
    """The turns of this host in one attached pool."""

    def __init__(
        self,
        name: str,
        root: SharedDirectory,
        filesystem: FileSystem,
        lock: PoolLock,
        presence: Presence,
        journal: Journal,
    ) -> None:
        """`journal` is up to date and closed, as a turn leaves it."""
        self._name = name
        self._root = root
        self._filesystem = filesystem
        self._lock = lock
        self._presence = presence
        self._journal = journal
        #: The first and the last number of each turn of this host, the latest last.
        self._own: deque[list[int]] = deque(maxlen=_REMEMBERED)

    def begin(self) -> Sequence[Record] | None:
        """Wait for the turn; what others have journalled meanwhile. `None` when that is too much to be told.

        Raises `FspoolError` or `OSError`, and has no turn then.
        """
        self._lock.acquire()
        try:
            self._presence.check()
            found = self._journal.rejoin(self._root)
            try:
                self._finish_interrupted()
            except BaseException:
                self._journal.abandon()
                raise
        except BaseException:
            self._lock.release()
            raise
        self._own.append([self._journal.last + 1, 0])
        return found

    def _finish_interrupted(self) -> None:
        """Make true what the journal of a host says that died in its turn."""
        pending = [record for record in self._journal.pending if record.payload]
        if not pending:
            return
        log.warning("pool %s: a host was lost in the midst of its work, which is finished here", self._name)
        self._journal.sync()
        for item, trouble in recovery.recover(self._root, self._filesystem, pending, alone=False).items():
            log.error("pool %s: item %s: %s", self._name, item, trouble)
        self._journal.stabilise(self._journal.last)
        self._journal.append(b"")
        self._journal.sync()

    def check(self) -> None:
        """Raise `FspoolError` when others have put this host out in the midst of its turn."""
        self._presence.check()

    def end(self) -> None:
        """Let others have their turn. The caller has marked the journal, or could not."""
        self._own[-1][1] = self._journal.last
        try:
            self._journal.abandon()
        finally:
            self._lock.release()

    def is_own(self, number: int) -> bool:
        """Whether this host wrote the record; also asked by another thread than the turns'."""
        for first, last in reversed(self._own):
            if number >= first:
                return last == 0 or number <= last
        return False
