"""The lock of a shared pool: whoever has it may change what is in there."""

from __future__ import annotations

import errno
import logging
import time

from fspoolfs.backends import layout
from fspoolfs.backends.root import Lock, SharedDirectory
from fspoolfs.errors import BusyError, StorageError, UnsupportedError
from fspoolfs.service.hosts.identity import Host

log = logging.getLogger(__name__)

#: Seconds that another host's turn is waited for. One that is longer belongs to a host that hangs, or
#: that the servers have not given up yet.
PATIENCE = 8.0
#: Seconds between two attempts: short at first, since a turn usually is.
_FIRST, _LONGEST = 0.002, 0.04
_NOTE = 512
#: What file systems answer that know no locks.
_NO_LOCKS = frozenset((errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS))


class PoolLock:
    """Used by one thread at a time. `name` is the pool's."""

    def __init__(self, name: str, root: SharedDirectory, host: Host, *, patience: float = PATIENCE) -> None:
        self._name = name
        self._root = root
        self._host = host
        self._patience = patience
        self._held: Lock | None = None

    def acquire(self) -> None:
        """Wait for the lock. Raises `BusyError` naming the host that does not give it back."""
        deadline, pause = time.monotonic() + self._patience, _FIRST
        while (lock := self._try()) is None:
            if time.monotonic() > deadline:
                raise BusyError(
                    f"pool {self._name}: {self._holder()} has the pool's lock for more than "
                    f"{self._patience:g} seconds; wait for it, or, if that host is off for good, write "
                    "`fence HOST` into status"
                )
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST)
        self._held = lock
        note = self._host.encode()
        if lock.read(_NOTE) != note:
            lock.write(note)

    def _try(self) -> Lock | None:
        try:
            return self._root.try_lock(layout.LOCK)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise UnsupportedError(
                    f"pool {self._name}: {self._root.path} has no locks, which hosts need that share a "
                    "pool; mount it with locks"
                ) from error
            raise StorageError.from_os(f"take the lock of pool {self._name}", error) from error

    def release(self) -> None:
        """Let others have it; that it is not held is no error."""
        held, self._held = self._held, None
        if held is None:
            return
        try:
            held.release()
        except OSError as error:
            # The file is closed all the same; a server that was not told lets go with the mount's session.
            log.warning("pool %s: the server was not told that its lock is free: %s", self._name, error)

    def _holder(self) -> str:
        try:
            return f"host {Host.decode(self._root.read(layout.LOCK, limit=_NOTE)).name}"
        except (OSError, ValueError):
            return "another host"
