"""The numbers of a pool's file system, no older than a second where the storage answers."""

from __future__ import annotations

import logging

import trio

from fspoolfs.model.infos import SpaceInfo
from fspoolfs.model.states import PoolState
from fspoolfs.service.objects import Pool

log = logging.getLogger(__name__)

#: Seconds for which the numbers are not asked for again.
FRESH = 1.0
#: Seconds after which storage that does not answer is left alone; the last numbers are told.
PATIENCE = 1.0


class Spaces:
    """Asks for each pool's numbers, one question at a time."""

    def __init__(self) -> None:
        self._asked: dict[int, float] = {}

    async def of(self, pool: Pool) -> SpaceInfo | None:
        """`None` when the pool is not active or its storage has never answered."""
        attached = pool.attached
        if attached is not None and pool.state is PoolState.STALLED:
            return pool.space
        if attached is None or pool.state is not PoolState.ACTIVE:
            return None
        now = trio.current_time()
        if now - self._asked.get(pool.number, -FRESH) >= FRESH:
            self._asked[pool.number] = now
            with trio.move_on_after(PATIENCE):
                try:
                    pool.space = await trio.to_thread.run_sync(
                        attached.root.space, limiter=pool.limiter, abandon_on_cancel=True
                    )
                except OSError as error:
                    log.warning("pool %s: its space cannot be told: %s", pool.name, error)
                    pool.space = None
        return pool.space
