"""What items hold, as the storage counts it: one item now, or all of a pool in one pass.

Where the storage does not count nothing is known here, and nothing is ever walked; that is what the
verb `measure` is for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import trio

from fspoolfs.backends.filesystem import FileSystem, Usage
from fspoolfs.errors import FspoolError
from fspoolfs.model.infos import Feature, UsageInfo
from fspoolfs.model.states import PoolState
from fspoolfs.service.objects import Attached, Item, Pool

log = logging.getLogger(__name__)

#: Seconds for which the counters of a whole pool are not asked for again by those who only look.
FRESH = 1.0
#: Seconds after which storage that does not answer is left alone.
PATIENCE = 1.0


def counter_of(filesystem: FileSystem, features: Iterable[Feature]) -> Usage | None:
    """`filesystem` where it counts what items hold, on its very root."""
    if isinstance(filesystem, Usage) and any(one.name == "usage" and one.usable for one in features):
        return filesystem
    return None


class Counts:
    """Asks the storage of each pool for its counters."""

    def __init__(self) -> None:
        self._asked: dict[int, float] = {}

    async def of(self, pool: Pool, item: Item) -> UsageInfo | None:
        """What an item holds now; `None` where that is not counted, or not answered in a moment."""
        attached = pool.attached
        counter = counter_of(attached.filesystem, attached.features) if attached is not None else None
        if counter is None:
            return None
        with trio.move_on_after(PATIENCE):
            try:
                return await trio.to_thread.run_sync(
                    counter.usage, item.definition.location, limiter=pool.limiter, abandon_on_cancel=True
                )
            except (OSError, FspoolError) as error:
                log.info("pool %s: what item %s holds cannot be told: %s", pool.name, item.name, error)
        return None

    async def refresh(self, pools: Iterable[Pool]) -> None:
        """Bring `Item.counted` of all items up to date, where the numbers are older than a second.

        Storage that does not answer leaves the last numbers, and holds up no other.
        """
        async with trio.open_nursery() as nursery:
            for pool in pools:
                nursery.start_soon(self._refresh, pool)

    async def _refresh(self, pool: Pool) -> None:
        now = trio.current_time()
        if pool.attached is None or pool.state is not PoolState.ACTIVE:
            self._asked.pop(pool.number, None)
        elif now - self._asked.get(pool.number, -FRESH) >= FRESH:
            self._asked[pool.number] = now
            with trio.move_on_after(PATIENCE):
                await self.count(pool, pool.attached, list(pool.items.values()))

    async def count(self, pool: Pool, attached: Attached, items: Sequence[Item]) -> None:
        """Bring `Item.counted` of `items` up to date, as long as that takes."""
        counter = counter_of(attached.filesystem, attached.features)
        if counter is None or not items:
            return
        places = [item.definition.location for item in items]
        try:
            found = await trio.to_thread.run_sync(
                counter.usages, places, limiter=attached.limiter, abandon_on_cancel=True
            )
        except (OSError, FspoolError) as error:
            log.warning("pool %s: what its items hold cannot be told: %s", pool.name, error)
            found = {}
        for item, place in zip(items, places, strict=True):
            item.counted = found.get(place)
