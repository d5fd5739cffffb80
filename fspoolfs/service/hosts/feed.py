"""Reads along in the journal of a shared pool, so that the objects in memory follow other hosts.

Records count once they are stable: the storage then is what they say. A host that has missed more
than the journal keeps looks at all that the pool holds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar
from uuid import UUID

import trio

from fspoolfs.backends import layout
from fspoolfs.backends.root import RootDirectory, SharedDirectory
from fspoolfs.errors import FspoolError
from fspoolfs.model.states import PoolState
from fspoolfs.service import catalogue, refreshing
from fspoolfs.service.context import Context
from fspoolfs.service.hosts.membership import Membership
from fspoolfs.service.hosts.mirroring import Mirror
from fspoolfs.service.intents import Intent
from fspoolfs.service.jobs import Job
from fspoolfs.service.journal import Record
from fspoolfs.service.objects import Attached, Pool, Snapshot

T = TypeVar("T")
log = logging.getLogger(__name__)

#: Seconds between two looks at the journal: the first after something has happened in the pool, and the
#: last while nothing does.
SHORTEST, LONGEST = 0.5, 4.0
_GROWTH = 1.3


class Feed:
    """What one attached pool hears of other hosts. The event loop's."""

    def __init__(self, pool: Pool, attached: Attached, membership: Membership, context: Context) -> None:
        self._pool = pool
        self._attached = attached
        self._membership = membership
        self._context = context
        self._mirror = Mirror(pool, attached, context)
        self._interval = SHORTEST
        self._wake = trio.Event()
        #: Records that have been read and are not stable yet.
        self._held: list[Record] = []
        #: The items whose snapshots are not known any more, and whether nothing is.
        self._unread: set[UUID] = set()
        self._lost = False
        membership.committer.hear = self.hear

    async def follow(self) -> None:
        """Look at the journal again and again; until cancelled."""
        while True:
            with trio.move_on_after(self._interval):
                await self._wake.wait()
            self._wake = trio.Event()
            if self._pool.state is not PoolState.ACTIVE:
                continue
            self._interval = min(self._interval * _GROWTH, LONGEST)
            try:
                await self._look()
                await self._catch_up()
            except (OSError, FspoolError) as error:
                log.warning("pool %s: what other hosts do cannot be read: %s", self._pool.name, error)
                self._context.suspect(self._pool)

    async def _look(self) -> None:
        reader, root = self._membership.reader, self._attached.root
        assert isinstance(root, SharedDirectory)
        shared: SharedDirectory = root

        def read() -> Sequence[Record] | None:
            found = reader.rejoin(shared)
            reader.abandon()
            return found

        found = await trio.to_thread.run_sync(read, limiter=self._attached.limiter, abandon_on_cancel=True)
        read_on = [*self._held, *found] if found is not None else list(reader.pending)
        self._held = [record for record in read_on if record.number > reader.stable]
        stable = [record for record in read_on if record.number <= reader.stable]
        self.hear(None if found is None else stable, reader.stable)

    def hear(self, records: Sequence[Record] | None, last: int) -> None:
        """Take in what others have written, up to the record `last`; `None` is more than can be told."""
        committer = self._membership.committer
        if records is None and last > committer.seen:
            self._lost = True
            self._wake.set()
        known, committer.seen = committer.seen, max(committer.seen, last)
        if last > known:
            self._interval = SHORTEST
        for record in records or ():
            if known < record.number and record.payload and not committer.turns.is_own(record.number):
                intent = Intent.decode(record.payload)
                committer.count(record, intent)
                if self._mirror.take_in(intent):
                    self._unread.add(intent.uuid)
                    self._wake.set()

    async def _catch_up(self) -> None:
        """Read what no record tells."""
        root = self._attached.root
        if self._lost:
            self._lost = False
            await refreshing.refresh(self._pool, self._context, Job("refresh", f"pool {self._pool.name}"))
            trash = await self._in_thread(lambda: catalogue.load_trash(root))
            self._mirror.replace_trash(trash)
            self._unread |= {item.uuid for item in self._attached.items.values() if item.snapshots}
            self._unread |= set(await self._in_thread(lambda: catalogue.load_snapshots(root)))
        unread, self._unread = self._unread, set()
        for uuid in unread:
            self._mirror.replace_snapshots(uuid, await self._in_thread(partial(_read, root, uuid)))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._attached.limiter, abandon_on_cancel=True)


def _read(root: RootDirectory, uuid: UUID) -> list[Snapshot]:
    """The snapshots of one item as the storage has them."""
    try:
        entries = sorted(root.names(layout.snapshots(uuid)))
    except FileNotFoundError:
        return []
    return [snapshot for snapshot in map(Snapshot.parse, entries) if snapshot is not None]
