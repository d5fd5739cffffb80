"""All of the service behind one object, as the control tree uses it."""

from __future__ import annotations

from pathlib import Path

import trio

from fspoolfs.backends.cgroups import Groups
from fspoolfs.backends.registry import Registry
from fspoolfs.errors import FspoolError, InvalidError
from fspoolfs.model.definitions import ItemDefinition, PoolDefinition
from fspoolfs.service.access import Caller
from fspoolfs.service.backings import Backings
from fspoolfs.service.clones import Clones
from fspoolfs.service.companion import Companion
from fspoolfs.service.consumers import Consumers
from fspoolfs.service.context import Context
from fspoolfs.service.counting import Counts
from fspoolfs.service.events import EventLog
from fspoolfs.service.exposure import Exposure, Mounter
from fspoolfs.service.group_keeper import GroupKeeper
from fspoolfs.service.health import Health
from fspoolfs.service.hosts.joining import Ourselves
from fspoolfs.service.hosts.presence import Present
from fspoolfs.service.items import Items
from fspoolfs.service.jobs import JobRunner
from fspoolfs.service.lifecycle import Lifecycle
from fspoolfs.service.mapping import IdMapper, Mappings
from fspoolfs.service.metrics import Metrics
from fspoolfs.service.objects import Pool
from fspoolfs.service.pools import Pools
from fspoolfs.service.resuming import Resuming
from fspoolfs.service.reviving import FIRST, Reviving
from fspoolfs.service.snapshots import Snapshots
from fspoolfs.service.space import Spaces
from fspoolfs.service.store import Store
from fspoolfs.service.trash import Trash
from fspoolfs.service.usage import UseFinder
from fspoolfs.service.watching import Watcher

#: Seconds after which a pool is stalled whose remote storage does not answer.
STALL_TIME = 10.0


class Service:
    """Pools, items, and what is told of them. Times are in seconds: `grace` see `Context`, `stall_time`
    see `Health`.
    """

    def __init__(
        self,
        *,
        state: Path,
        storage: Path,
        registry: Registry,
        finder: UseFinder,
        mounter: Mounter | None,
        mapper: IdMapper | None = None,
        groups: Groups,
        nursery: trio.Nursery,
        grace: float,
        stall_time: float = STALL_TIME,
    ) -> None:
        self._nursery = nursery
        self.events = EventLog()
        self.context = Context(
            events=self.events,
            runner=JobRunner(nursery),
            finder=finder,
            mappings=Mappings(state / "idmapped", mapper),
            groups=GroupKeeper(groups),
            grace=grace,
        )
        self.registry = registry
        self.store = Store(state)
        self.pools = Pools(self.context, self.store, registry, state=state, storage=storage)
        self.consumers = Consumers(self.context.groups, self.pools, nursery)
        self.events.listen(self.consumers.hear)
        self.trash = Trash(self.context)
        self.clones = Clones(self.context)
        exposure = Exposure(state / "snapshots", mounter)
        self.snapshots = Snapshots(self.context, exposure)
        self.items = Items(self.context, self.clones)
        self.counts = Counts()
        self.lifecycle = Lifecycle(
            self.context,
            self.store,
            registry,
            self.pools,
            Companion(
                self.context,
                self.trash,
                Watcher(self.context, self.counts),
                Health(self.context, stall_time=stall_time),
                nursery,
            ),
            exposure,
            self.consumers,
            Ourselves(state),
            nursery,
        )
        self._resuming = Resuming(self.lifecycle, self.store, self.pools, nursery)
        self._reviving = Reviving(
            self.context, self.lifecycle, self.pools, registry, nursery, first=min(FIRST, stall_time)
        )
        self.spaces = Spaces()
        self.backings = Backings(self.context, registry, self.pools)
        self.metrics = Metrics(self.pools, self.backings, self.events)
        #: The last failed request that concerned no pool, for the tree's root.
        self.error: FspoolError | None = None

    async def start(self) -> None:
        """Take in what the host remembers, and start the pools that are to be active."""
        await trio.to_thread.run_sync(self.store.prepare)
        self._nursery.start_soon(self.context.deadlines.watch)
        await self.pools.load()
        await self.consumers.begin()
        await self._resuming.begin()
        self._nursery.start_soon(self.backings.watch)

    async def stop(self) -> None:
        """Leave the storage of every pool synced, and attached as it is."""
        self.context.suspect = lambda pool: None  # nobody is left to look
        await self.lifecycle.close_all()

    async def hosts(self, pool: Pool) -> str:
        """Who has a shared pool active: name, number, and whether that is alive, lost, or here.

        Raises `trio.TooSlowError` where the storage does not answer.
        """
        attached = pool.active()
        if attached.membership is None:
            return ""
        presence = attached.membership.presence

        def look() -> list[Present]:
            return presence.all()

        with trio.fail_after(self.context.grace):
            found = await trio.to_thread.run_sync(look, limiter=attached.limiter, abandon_on_cancel=True)
        return "".join(f"{one.host.name} {one.host.id} {presence.describe(one)}\n" for one in found)

    async def define(self, definition: PoolDefinition | ItemDefinition, caller: Caller) -> None:
        """What a document written into the root's `define` does."""
        if isinstance(definition, PoolDefinition):
            await self.pools.define(definition, caller)
            return
        if definition.pool is None:
            raise InvalidError(
                f"item {definition.name} names no pool: add <source fspool='NAME'/>, or write into the "
                "item's own config.xml"
            )
        pool = self.pools.find(definition.pool)
        try:
            await self.items.define(pool, definition, caller)
        except FspoolError as error:
            pool.error = error
            raise
