"""Who uses a directory: the mounts that show it, in every mount namespace of the host.

A container keeps an item busy in a mount namespace of its own, where nothing that is done to the
item here tells it or is refused by it; only /proc shows it. Reading all of /proc for every removal
is too slow, so a reading is kept for a moment and checked for whatever could have changed it. This
module looks and never unmounts.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace

from fspoolfs.errors import BusyError
from fspoolfs.model.infos import UNTOLD, MountUse
from fspoolfs.system.descriptors import Descriptor
from fspoolfs.system.mounttable import MountTable, open_directory

#: How long a reading is kept, in seconds. It bounds what no check sees, a process that was there
#: before and makes itself a namespace without creating another process, and how long a namespace
#: whose processes have ended is kept alive by our looking at it.
LIFETIME = 1.0
#: How many processes may have been created since, to be looked at one by one.
_YOUNG = 64


class MountWatch:
    """Finds mounts of a directory. Threads may share it."""

    def __init__(self, showing: tuple[str, str] | None = None, *, own: str | None = None) -> None:
        """`showing` is what is mounted in the first directory in any case: the second one of a root.

        Mounts below `own` are not looked for: they are those of who asks.
        """
        self._showing = showing
        self._own = None if own is None else f"{own}/"
        self._lock = threading.Lock()
        self._table: MountTable | None = None
        self._expires = 0.0
        self._last_pid = 0
        self._loadavg: Descriptor | None = None
        self._reaper: threading.Thread | None = None
        self._forgotten = threading.Event()

    def uses(self, root_path: str, *, once: bool = False, lately: bool = False) -> list[MountUse]:
        """Every mount that shows the directory `root_path` or something in it, in any namespace.

        When a file system is attached at `root_path`, that mount and its copies in other namespaces
        do not count, but mounts of directories in it that were removed do, with `inside` empty.
        Names in the answer may hold any character but NUL. Blocks shortly. Raises `OSError` when
        `root_path` cannot be opened, `BusyError` when it is being mounted or moved at this moment.
        `once`: who asks is about to `forget`, and what has to be read is not kept for the next look.
        `lately`: what was so within the last second will do, which spares one reading for each of many
        pools, also while mounts come and go.
        """
        # Before the lock: a root whose server does not answer is to keep nobody else waiting.
        directory = open_directory(root_path)
        with self._lock:
            if lately and (found := self._found_lately(root_path, directory)) is not None:
                return self._answer(found)
            if self._is_current():
                found = self._table.uses(root_path, directory) if self._table is not None else None
                # That a process has ended shows nowhere: only a fresh reading may say "in use".
                if found is not None and not self._answer(found):
                    return []
            found = (MountTable.read() if once else self._scan()).uses(root_path, directory)
        if found is None:
            raise BusyError(f"{root_path} is being mounted or moved; try again")
        return self._answer(found)

    def _found_lately(self, root_path: str, directory: Descriptor) -> list[MountUse] | None:
        """What the kept reading says; `None` where there is none, or it does not know the directory."""
        table = self._table
        if table is None or time.monotonic() >= self._expires:
            return None
        return table.uses(root_path, directory)

    def _answer(self, found: list[MountUse]) -> list[MountUse]:
        return [self._told(use) for use in found if not self._is_own(use)]

    def _is_own(self, use: MountUse) -> bool:
        """Whether it is a mount of who asks, or its copy in a copied namespace.

        A container may have something bound at the very same path, in a directory of its own.
        """
        if self._own is None or not use.target.startswith(self._own):
            return False
        above = os.path.dirname(use.target)
        try:
            there, here = os.stat(f"/proc/{use.pid}/root{above}"), os.stat(above)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def _told(self, use: MountUse) -> MountUse:
        """With what is known of a mount that does not tell it itself."""
        if use.inside != UNTOLD or self._showing is None or os.path.dirname(use.target) != self._showing[0]:
            return use
        return replace(use, inside=self._showing[1])

    def forget(self) -> None:
        """Close all descriptors. To be called before a file system is unmounted that should end."""
        with self._lock:
            self._drop()

    def _is_current(self) -> bool:
        """Whether the kept reading still tells the truth. Costs microseconds."""
        table = self._table
        if table is None or time.monotonic() >= self._expires or table.changed():
            return False
        last = self._read_last_pid()
        if last == self._last_pid:
            return True
        # Numbers are given out in a row. Processes are looked at again each time while the reading
        # lives, since they make their namespace some time after they were created.
        young = range(self._last_pid + 1, last + 1)
        return 0 < len(young) <= _YOUNG and all(table.knows(pid) for pid in young)

    def _scan(self) -> MountTable:
        self._drop()
        self._watch_age()
        # Before the reading, so that whoever is created during it is looked at.
        self._last_pid = self._read_last_pid()
        self._expires = time.monotonic() + LIFETIME
        table = MountTable.read()
        if table.watchable:
            self._table = table
        return table

    def _drop(self) -> None:
        self._table = None
        self._loadavg = None
        self._forgotten.set()

    def _read_last_pid(self) -> int:
        """The number given out last in our pid namespace: the last field of proc_loadavg(5).

        The count of forks in /proc/stat tells the same but costs a walk over all interrupts.
        """
        if self._loadavg is None:
            self._loadavg = Descriptor(os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC))
        return int(os.pread(self._loadavg.fd, 128, 0).rsplit(b" ", 1)[1])

    def _watch_age(self) -> None:
        """Have the reading dropped when its time is over, even when nobody asks again."""
        self._forgotten.clear()
        if self._reaper is None:
            self._reaper = threading.Thread(target=self._reap, name="mount-watch", daemon=True)
            self._reaper.start()

    def _reap(self) -> None:
        while True:
            self._forgotten.wait(max(0.0, self._expires - time.monotonic()))
            with self._lock:
                if self._table is None or time.monotonic() >= self._expires:
                    self._drop()
                    self._reaper = None
                    return
