"""What the daemon does by itself when it starts: finish deletions, and start what is to be active."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable

import trio

from fspoolfs.errors import FspoolError
from fspoolfs.model.states import PoolState
from fspoolfs.service.access import DAEMON, Caller
from fspoolfs.service.lifecycle import Lifecycle
from fspoolfs.service.objects import Pool
from fspoolfs.service.pools import Pools
from fspoolfs.service.store import Store

log = logging.getLogger(__name__)

#: Pools that are worked on at once. Their threads wait for storage, not for a processor; more of them
#: keep the daemon from answering.
AT_ONCE = 16


class Resuming:
    """Goes on in the background, a few pools at a time.

    One that hangs has its place for the grace time, and no longer: whatever its verb still does then
    keeps nobody waiting.
    """

    def __init__(self, lifecycle: Lifecycle, store: Store, pools: Pools, nursery: trio.Nursery) -> None:
        self._lifecycle = lifecycle
        self._store = store
        self._pools = pools
        self._nursery = nursery
        self._places = trio.CapacityLimiter(AT_ONCE)

    async def begin(self) -> None:
        """Begin with all of it."""
        for name in await trio.to_thread.run_sync(self._store.deletions):
            pool = self._pools.get(name)
            if pool is not None:
                self._nursery.start_soon(self._quietly, self._lifecycle.delete, pool)
            else:
                await trio.to_thread.run_sync(self._store.end_deletion, name)
        left_active = await trio.to_thread.run_sync(self._store.left_active)
        for pool in self._pools:
            if pool.name not in left_active:
                await self._pools.bring_pending_into_force(pool)
            if pool.unreadable is None and (pool.autostart or pool.name in left_active):
                self._nursery.start_soon(self._quietly, self._lifecycle.start, pool)

    async def _quietly(self, verb: Callable[[Pool, Caller], Awaitable[None]], pool: Pool) -> None:
        async with self._places:
            if pool.state is not PoolState.INACTIVE or self._pools.get(pool.name) is not pool:
                return  # somebody has asked for something meanwhile
            if verb == self._lifecycle.start:
                pool.wanted = True
            try:
                await verb(pool, DAEMON)
            except FspoolError as error:
                if error.errno != errno.EINPROGRESS:
                    log.error("%s", error)
                    pool.error = error  # of a verb that was refused before it became a job, too
