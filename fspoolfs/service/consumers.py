"""Those who use items, and the limits that they are under: a control group for each item with limits.

A change of an item takes its group along (`fspoolfs.service.group_steps`). All else is made true by
looking: at the start of a pool, when other hosts or somebody behind the daemon's back have changed
definitions, and after a crash.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import trio

from fspoolfs.backends.cgroups import Place
from fspoolfs.errors import FspoolError, NotFoundError
from fspoolfs.model.infos import Feature
from fspoolfs.model.states import ItemState
from fspoolfs.service.access import Caller
from fspoolfs.service.events import Event
from fspoolfs.service.group_keeper import GroupKeeper
from fspoolfs.service.group_steps import place_of, root_of
from fspoolfs.service.objects import Attached, Item, Pool
from fspoolfs.service.pools import Pools
from fspoolfs.system import processes

log = logging.getLogger(__name__)

#: Seconds between two looks whether groups that nobody wants any more are empty.
SWEEP_INTERVAL = 15.0
#: The events after which an item may have other limits than are in force.
_CHANGES = frozenset({"item-created", "item-changed", "item-renamed", "item-deleted", "item-rolled-back"})


class Consumers:
    """The groups of all pools. The event loop's; what blocks runs in threads."""

    def __init__(self, keeper: GroupKeeper, pools: Pools, nursery: trio.Nursery) -> None:
        self._keeper = keeper
        self._pools = pools
        self._nursery = nursery

    # -- what is in force ---------------------------------------------------------------------------

    async def begin(self) -> None:
        """Take in what an earlier daemon has left, and look after it."""
        known = {str(pool.uuid): pool.name for pool in self._pools if pool.unreadable is None}
        try:
            await trio.to_thread.run_sync(self._keeper.take_in, known)
        except OSError as error:
            log.warning("what control groups there are cannot be read: %s", error)
        self._nursery.start_soon(self._sweep_regularly)

    async def _sweep_regularly(self) -> None:
        while True:
            # Not at once: pools that are being started want theirs again.
            await trio.sleep(SWEEP_INTERVAL)
            if self._keeper.has_left:
                await trio.to_thread.run_sync(self._keeper.sweep)

    async def take_up(self, pool: Pool, attached: Attached) -> None:
        """Let the limits of all items of a pool that is being started be in force.

        An item whose limits cannot be has failed; it keeps its data, and another definition mends it.
        """
        await self._put(pool, attached, [item for item in attached.items.values() if item.definition.limits])

    async def _put(self, pool: Pool, attached: Attached, items: Sequence[Item]) -> None:
        wanted = [(place_of(pool, item.name), item.definition.limits) for item in items]
        if not wanted:
            return

        def put() -> list[FspoolError | None]:
            errors: list[FspoolError | None] = []
            for place, limits in wanted:
                try:
                    self._keeper.check(place.item, limits, root_of(attached))
                    self._keeper.put(place, limits, root_of(attached))
                    errors.append(None)
                except FspoolError as error:
                    errors.append(error)
            return errors

        errors = await trio.to_thread.run_sync(put, limiter=attached.limiter)
        for item, (_, limits), error in zip(items, wanted, errors, strict=True):
            if error is None:
                attached.limited[item.name] = limits
                if item.unlimited is not None:
                    item.state, item.unlimited, item.problem = ItemState.READY, None, None
            elif item.state in (ItemState.READY, ItemState.FAILED):
                log.error("pool %s: %s", pool.name, error)
                item.state = ItemState.FAILED
                item.error = item.problem = item.unlimited = error

    def hear(self, event: Event) -> None:
        """An event's listener: what other hosts or a refresh have changed comes into force."""
        pool = self._pools.get(event.pool) if event.kind in _CHANGES else None
        attached = pool.attached if pool is not None else None
        if pool is None or attached is None:
            return
        for name in filter(None, (event.item, str(event.details.get("old", "")))):
            item = attached.items.get(name)
            wanted = item.definition.limits if item is not None else ()
            if wanted != attached.limited.get(name, ()):
                self._nursery.start_soon(self._follow, pool, attached, name)

    async def _follow(self, pool: Pool, attached: Attached, name: str) -> None:
        # A change of this host's own that is under way brings the group along, and is not to be overtaken.
        lease = await attached.locks.acquire(name)
        try:
            item = attached.items.get(name)
            if pool.attached is not attached:
                return
            if item is not None and item.definition.limits:
                await self._put(pool, attached, [item])
            elif attached.limited.pop(name, None) is not None:
                await self._lift(pool, attached, name)
        finally:
            lease.release()

    async def _lift(self, pool: Pool, attached: Attached, name: str) -> None:
        place, root = place_of(pool, name), root_of(attached)
        try:
            await trio.to_thread.run_sync(self._keeper.lift, place, root, limiter=attached.limiter)
        except FspoolError as error:
            log.warning("pool %s: %s", pool.name, error)

    # -- what goes ----------------------------------------------------------------------------------

    async def check_unused(self, pool: Pool) -> None:
        """Raise `BusyError` naming who is under the limits of an item of the pool."""
        places = self.places(pool)
        if places:
            await trio.to_thread.run_sync(self._keeper.check_unused, f"stop pool {pool.name}", places)

    def places(self, pool: Pool) -> Sequence[Place]:
        """The groups that a pool has while it is active."""
        return [place_of(pool, name) for name in pool.attached.limited] if pool.attached is not None else []

    def withdraw(self, places: Iterable[Place]) -> None:
        """The pool is active no more. Who is under its limits stays so. Blocks."""
        self._keeper.let_go(places)

    async def forget(self, pool: Pool) -> None:
        """Raise `BusyError` where groups of a pool that is to be undefined are still in use."""
        if pool.unreadable is not None or not self._keeper.has_left:
            return

        def look() -> None:
            self._keeper.check_unused(f"undefine pool {pool.name}", self._keeper.sweep(str(pool.uuid)))

        await trio.to_thread.run_sync(look)

    # -- what people see and do ---------------------------------------------------------------------

    async def features(self) -> Sequence[Feature]:
        """Whether there can be groups on this host, and which limits."""
        return await trio.to_thread.run_sync(self._keeper.features)

    async def features_of(self, attached: Attached) -> Sequence[Feature]:
        """What limits of input and output there can be on the pool's devices."""
        return await trio.to_thread.run_sync(
            self._keeper.features_of, root_of(attached), limiter=attached.limiter, abandon_on_cancel=True
        )

    async def path(self, pool: Pool, item: Item) -> str:
        """Where the group is, as /proc/PID/cgroup says it."""
        return await trio.to_thread.run_sync(self._keeper.groups.path, place_of(pool, item.name))

    async def members(self, pool: Pool, item: Item) -> Sequence[int]:
        """Who is in the group, or in one below it."""
        return await trio.to_thread.run_sync(self._keeper.groups.pids, place_of(pool, item.name))

    async def enter(self, pool: Pool, item: Item, number: int, caller: Caller) -> None:
        """Put a process, by the number that the caller knows it by, under the item's limits.

        0 is the caller. Raises `AccessError` for another user's process, `NotFoundError` for none.
        """
        attached = pool.active()
        if item.unlimited is not None:
            raise item.unlimited
        if attached.items.get(item.name) is not item or item.name not in attached.limited:
            raise NotFoundError(f"item {item.name} has no limits")
        place = place_of(pool, item.name)

        def move() -> None:
            with processes.named(number, caller.pid) as process:
                processes.check_may_move(process, caller.uid)
                self._keeper.enter(place, process, number)

        await trio.to_thread.run_sync(move)
