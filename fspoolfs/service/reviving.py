"""Starts pools again that are meant to be active and have lost their server, with growing pauses.

Only those of remote storage, and only for what a server that was away leaves: a pool that is refused
for another reason waits for a person.
"""

from __future__ import annotations

import errno
import logging

import trio

from fspoolfs.backends.registry import Registry
from fspoolfs.backends.source import Remote
from fspoolfs.errors import FspoolError
from fspoolfs.model.states import PoolState
from fspoolfs.service.access import DAEMON
from fspoolfs.service.context import Context
from fspoolfs.service.events import Event
from fspoolfs.service.lifecycle import Lifecycle
from fspoolfs.service.objects import Pool
from fspoolfs.service.pools import Pools

log = logging.getLogger(__name__)

#: Seconds before the first attempt, and the longest pause between two; each is twice the one before.
FIRST, LONGEST = 5.0, 60.0
#: What a server that is away, or was, makes of what is asked of it.
_AWAY = frozenset(
    {
        *(errno.ETIMEDOUT, errno.ESTALE, errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNREFUSED),
        *(errno.EIO, errno.ENODEV, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ECONNRESET),
        errno.ESHUTDOWN,
    }
)


class Reviving:
    """Hears of pools that have failed."""

    def __init__(
        self,
        context: Context,
        lifecycle: Lifecycle,
        pools: Pools,
        registry: Registry,
        nursery: trio.Nursery,
        *,
        first: float,
    ) -> None:
        self._lifecycle = lifecycle
        self._pools = pools
        self._registry = registry
        self._nursery = nursery
        self._first = first
        self._reviving: set[int] = set()
        context.events.listen(self._hear)

    def _hear(self, event: Event) -> None:
        pool = self._pools.get(event.pool) if event.kind == "pool-state" else None
        if pool is not None and pool.number not in self._reviving and self._is_lost(pool):
            self._reviving.add(pool.number)
            self._nursery.start_soon(self._revive, pool)

    def _is_lost(self, pool: Pool) -> bool:
        """Whether it should be active, and would be if its server had answered."""
        if pool.state is not PoolState.FAILED or not pool.wanted or self._pools.get(pool.name) is not pool:
            return False
        if pool.unreadable is not None or pool.problem is None or pool.problem.errno not in _AWAY:
            return False
        try:
            return isinstance(self._registry.source_for(pool.definition), Remote)
        except FspoolError:
            return False

    async def _revive(self, pool: Pool) -> None:
        pause = self._first
        try:
            while self._is_lost(pool):
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST)
                if not self._is_lost(pool):
                    break
                try:
                    await self._lifecycle.start(pool, DAEMON)
                except FspoolError as error:
                    log.info("pool %s is not active again yet: %s", pool.name, error)
                if pool.job is not None:
                    await pool.job.finished.wait()
        finally:
            self._reviving.discard(pool.number)
