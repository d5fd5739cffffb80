"""The control groups of items, kept as they are to be: put, lifted, removed now or when they are empty.

Blocking, in threads. A group is removed with its item, and never while anybody is in it. One that is
in use when nobody wants it any more is removed as soon as it is empty.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from fspoolfs.backends.cgroups import Groups, Place
from fspoolfs.backends.root import RootDirectory
from fspoolfs.errors import BusyError, FspoolError, NotFoundError, StorageError
from fspoolfs.model.infos import Feature
from fspoolfs.model.limits import Limits
from fspoolfs.system import processes
from fspoolfs.system.processes import Process

log = logging.getLogger(__name__)


class GroupKeeper:
    """Wraps `Groups` for all threads of this daemon, which take turns."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self._lock = threading.Lock()
        #: Groups that nobody wants any more, and that were in use when they were looked at.
        self._left: set[Place] = set()

    @property
    def has_left(self) -> bool:
        """Whether there is anything for `sweep`."""
        return bool(self._left)

    def take_in(self, known: Mapping[str, str]) -> None:
        """Take what an earlier daemon has left of pools, whose names are `known` by uuid, as not wanted.

        Groups of other pools are another daemon's. What is wanted after all is put again.
        """
        for (uuid, pool), items in self.groups.items().items():
            if known.get(uuid) == pool:
                self._left.update(Place(uuid, pool, item) for item in items)

    def features(self) -> Sequence[Feature]:
        with self._lock:
            return self.groups.features()

    def features_of(self, root: RootDirectory | None) -> Sequence[Feature]:
        with self._lock:
            return self.groups.features_of(root)

    def check(self, item: str, limits: Limits, root: RootDirectory | None) -> None:
        with self._lock, _told(item):
            self.groups.check(item, limits, root)

    def put(self, place: Place, limits: Limits, root: RootDirectory | None) -> None:
        """Let these limits and no others be in force. Raises `FspoolError`."""
        with self._lock, _told(place.item):
            self._left.discard(place)
            self.groups.put(place, limits, root)

    def lift(self, place: Place, root: RootDirectory | None) -> None:
        """Let nothing be limited any more, and remove the group, now or when it is empty."""
        with self._lock, _told(place.item):
            self.groups.put(place, (), root)
            self._let_go(place)

    def remove(self, place: Place) -> None:
        """Remove the group. Raises `BusyError` naming who is in it."""
        with self._lock, _told(place.item):
            self.groups.remove(place)

    def let_go(self, places: Iterable[Place]) -> None:
        """Remove groups that nobody wants any more, each now or when it is empty."""
        with self._lock:
            for place in places:
                self._let_go(place)

    def _let_go(self, place: Place) -> None:
        self._left.add(place)
        try:
            self.groups.remove(place)
        except BusyError:
            return
        except (OSError, FspoolError) as error:
            log.warning("item %s: its control group cannot be removed: %s", place.item, error)
        self._left.discard(place)

    def sweep(self, uuid: str = "") -> list[Place]:
        """Remove what is empty by now, of one pool or of all; what is not."""
        with self._lock:
            for place in [one for one in self._left if uuid in ("", one.uuid)]:
                self._let_go(place)
            return [one for one in self._left if uuid in ("", one.uuid)]

    def check_unused(self, what: str, places: Iterable[Place]) -> None:
        """Raise `BusyError` naming who is in one of these groups."""
        for place in places:
            with _told(place.item):
                used = self.groups.pids(place)
            if used:
                raise BusyError(f"{what}: {self.groups.in_use(place, used)}")

    def enter(self, place: Place, process: Process, number: int) -> None:
        """Move `process`, which who asks calls `number`, into the group."""
        with self._lock, _told(place.item):
            if place in self._left:
                raise NotFoundError(f"item {place.item} has no limits any more")
            # Not before: until then the number may have become another process's.
            if not process.is_alive():
                raise processes.no_process(number)
            self.groups.enter(place, process.pid)


@contextmanager
def _told(item: str) -> Iterator[None]:
    """The kernel's answers as sentences."""
    try:
        yield
    except OSError as error:
        raise StorageError.from_os(f"the control group of item {item}", error) from error
