"""What pools take of the storage that their volumes lie on, and whether that can keep what was promised.

A volume may take less than it is large until something is written into it. Where the volumes on one
storage were promised more, beyond what they take already, than is free there, one event warns, and one
tells when it is over. All volumes count, those of inactive pools too. Looks now and then and soon after
a pool has changed, in one thread; while no pool has a volume it sleeps. Never refuses anything.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import trio

from fspoolfs.backends.registry import Registry
from fspoolfs.backends.source import Backed, Source
from fspoolfs.errors import FspoolError, UnsupportedError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.model.infos import Backing
from fspoolfs.service.context import Context
from fspoolfs.service.events import Event
from fspoolfs.service.objects import Pool
from fspoolfs.service.pools import Pools

log = logging.getLogger(__name__)

#: Seconds between two looks while there are volumes.
INTERVAL = 30.0
#: The least time between two looks, in seconds, however often pools change.
GAP = 1.0
#: Seconds that whoever asks for one pool's numbers waits for storage that does not answer.
PATIENCE = 1.0

_CHANGES = frozenset({"pool-defined", "pool-changed", "pool-state", "pool-undefined"})


@dataclass(frozen=True, slots=True)
class Store:
    """The storage below volumes, in bytes: promised to them beyond what they take, and free."""

    promised: int
    available: int

    @property
    def overcommitted(self) -> bool:
        return self.promised > self.available


class Backings:
    """Knows the backing of each pool that has one, as last seen."""

    def __init__(self, context: Context, registry: Registry, pools: Pools) -> None:
        self._context = context
        self._registry = registry
        self._pools = pools
        self._seen: dict[str, Backing] = {}
        #: By name, as last seen.
        self.stores: dict[str, Store] = {}
        self._wake = trio.Event()
        context.events.listen(self._hear)

    def _hear(self, event: Event) -> None:
        if event.kind in _CHANGES:
            self._wake.set()

    def seen(self, pool: Pool) -> Backing | None:
        """What was seen last; `None` for a pool that is all there is of its storage, or is not built."""
        return self._seen.get(pool.name)

    async def of(self, pool: Pool) -> Backing | None:
        """The same, seen now where the storage answers in time."""
        source = self._source(pool.definition)
        if source is None:
            return None
        with trio.move_on_after(PATIENCE):
            found = await trio.to_thread.run_sync(
                _look, [(pool.name, pool.definition, source)], limiter=pool.limiter, abandon_on_cancel=True
            )
            self._seen.pop(pool.name, None)
            self._seen.update(found)
        return self.seen(pool)

    def _source(self, definition: PoolDefinition) -> Backed | None:
        try:
            source: Source = self._registry.source_for(definition)
        except UnsupportedError:
            return None
        return source if _is_backed(type(source)) and isinstance(source, Backed) else None

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            self._wake = trio.Event()
            begun = trio.current_time()
            busy = await self._look()
            with trio.move_on_after(INTERVAL if busy else math.inf):
                await self._wake.wait()
            await trio.sleep_until(begun + GAP)

    async def _look(self) -> bool:
        """One look at all volumes; whether there are any."""
        wanted = [
            (pool.name, pool.definition, source)
            for pool in self._pools
            if pool.unreadable is None and (source := self._source(pool.definition)) is not None
        ]
        # A storage that hangs holds this one thread, and nothing else waits for it.
        self._seen = await trio.to_thread.run_sync(_look, wanted, abandon_on_cancel=True) if wanted else {}
        before, self.stores = self.stores, _stores(self._seen.values())
        for name in before.keys() | self.stores.keys():
            self._judge(name, before.get(name), self.stores.get(name))
        return bool(wanted)

    def _judge(self, name: str, before: Store | None, now: Store | None) -> None:
        warned = before is not None and before.overcommitted
        warns = now is not None and now.overcommitted
        if warns is warned:
            return
        details: dict[str, str | int] = {"store": name}
        if now is not None:
            details |= {"promised": now.promised, "available": now.available}
        if warns:
            log.warning("the volumes on %s were promised more than is free there: %s", name, details)
        kind = "storage-overcommitted" if warns else "storage-sufficient"
        self._context.events.publish(Event(kind=kind, pool="", details=details))


@cache
def _is_backed(kind: type[Source]) -> bool:
    """Looked up once for each kind, not for each of ten thousand pools."""
    return issubclass(kind, Backed)


def _stores(backings: Iterable[Backing]) -> dict[str, Store]:
    promised: defaultdict[str, int] = defaultdict(int)
    available: dict[str, int] = {}
    for one in backings:
        promised[one.store] += max(0, one.size - one.allocation)
        available[one.store] = one.available
    return {name: Store(promised[name], available[name]) for name in promised}


def _look(wanted: Iterable[tuple[str, PoolDefinition, Backed]]) -> dict[str, Backing]:
    found = {}
    for name, definition, source in wanted:
        try:
            backing = source.backing(definition)
        except (OSError, FspoolError) as error:
            log.debug("pool %s: what its volume takes cannot be told: %s", name, error)
            continue
        if backing is not None:
            found[name] = backing
    return found
