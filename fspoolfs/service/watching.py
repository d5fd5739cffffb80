"""Tells when an item comes to its soft limit, and when it falls below again: one event each time.

Beside each active pool whose storage counts runs `Watcher.watch`. It looks every few seconds at the
counters of the items that have a soft limit, in one pass, and soon after one of them was changed.
While no item has one it sleeps, and nothing wakes it but such a definition. Never refuses anything.
"""

from __future__ import annotations

import math

import trio

from fspoolfs.model.states import PoolState
from fspoolfs.service.context import Context
from fspoolfs.service.counting import Counts, counter_of
from fspoolfs.service.events import Event
from fspoolfs.service.objects import Attached, Item, Pool

#: Seconds between two looks at the counters.
INTERVAL = 5.0
#: The least time between two looks, in seconds, however often definitions change.
GAP = 0.5


class Watcher:
    """Watches the soft limits of all pools; a pool is watched for as long as `watch` runs."""

    def __init__(self, context: Context, counts: Counts) -> None:
        self._context = context
        self._counts = counts
        #: By the name of each pool that is watched: it, and what is set to have it looked at.
        self._watched: dict[str, tuple[Pool, trio.Event]] = {}
        context.events.listen(self._hear)

    def _hear(self, event: Event) -> None:
        """Wake the watch of a pool for an item that has a soft limit now, or had one."""
        if event.kind not in ("item-created", "item-changed") or event.pool not in self._watched:
            return
        pool, wake = self._watched[event.pool]
        item = pool.items.get(event.item)
        if item is not None and (item.definition.soft is not None or item.above_soft is not None):
            wake.set()

    async def watch(self, pool: Pool, attached: Attached) -> None:
        """Until cancelled; ends at once where the storage does not count."""
        if counter_of(attached.filesystem, attached.features) is None:
            return
        try:
            while True:
                wake = trio.Event()
                self._watched[pool.name] = (pool, wake)
                begun = trio.current_time()
                busy = await self._look(pool, attached)
                with trio.move_on_after(INTERVAL if busy else math.inf):
                    await wake.wait()
                await trio.sleep_until(begun + GAP)
        finally:
            if self._watched.get(pool.name, (None,))[0] is pool:
                del self._watched[pool.name]

    async def _look(self, pool: Pool, attached: Attached) -> bool:
        """One pass over the items with a soft limit; whether there are any."""
        concerned = [
            item
            for item in attached.items.values()
            if item.definition.soft is not None or item.above_soft is not None
        ]
        if concerned and pool.state is PoolState.ACTIVE:
            await self._counts.count(pool, attached, concerned)
            for item in concerned:
                if attached.items.get(item.name) is item:
                    self._judge(pool, item)
        return bool(concerned)

    def _judge(self, pool: Pool, item: Item) -> None:
        limit, usage = item.definition.soft_bytes, item.counted
        if limit is None:
            above = None
        elif usage is None:
            return
        else:
            above = usage.allocation >= limit
        if bool(above) is not bool(item.above_soft):
            self._context.events.publish(
                Event(
                    kind="item-above-soft-limit" if above else "item-below-soft-limit",
                    pool=pool.name,
                    item=item.name,
                    details={
                        "usage": "unknown" if usage is None else usage.allocation,
                        "limit": "none" if limit is None else limit,
                    },
                )
            )
        item.above_soft = above
