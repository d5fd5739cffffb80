"""Pools as definitions: define, redefine, undefine, autostart, and the conflicts between them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID, uuid4

import trio

from fspoolfs import names
from fspoolfs.backends import place as places
from fspoolfs.backends.registry import Registry
from fspoolfs.errors import (
    AccessError,
    ExistsError,
    FspoolError,
    InvalidError,
    NotFoundError,
    StorageError,
    UnsupportedError,
)
from fspoolfs.model import changes
from fspoolfs.model.definitions import PoolDefinition, PoolSource, PoolType
from fspoolfs.model.states import PoolState, PoolVerb, enter_pool
from fspoolfs.service import identity, limits, placement, resizing
from fspoolfs.service.access import Caller
from fspoolfs.service.context import Context
from fspoolfs.service.events import Event
from fspoolfs.service.objects import Pool
from fspoolfs.service.store import Store

T = TypeVar("T")
log = logging.getLogger(__name__)


class Pools:
    """The pools of this daemon, by name."""

    def __init__(
        self, context: Context, store: Store, registry: Registry, *, state: Path, storage: Path
    ) -> None:
        self._context = context
        self._store = store
        self._registry = registry
        self._state = state
        self._storage = storage
        self._by_name: dict[str, Pool] = {}
        #: Definitions change one at a time, so that conflicts are seen.
        self._defining = trio.Lock()

    def __iter__(self) -> Iterator[Pool]:
        return iter(self._by_name.values())

    def get(self, name: str) -> Pool | None:
        return self._by_name.get(name)

    def find(self, name: str) -> Pool:
        """Raises `NotFoundError`."""
        pool = self._by_name.get(name)
        if pool is None:
            raise NotFoundError(f"there is no pool {name}")
        return pool

    def check_known(self, pool: Pool) -> None:
        """Raise `NotFoundError` when `pool` was undefined; an open file can still lead to it."""
        if self._by_name.get(pool.name) is not pool:
            raise NotFoundError(f"pool {pool.name} was undefined")

    async def load(self) -> None:
        """Take in what the state directory holds. One bad file hides no other pool."""
        definitions, unreadable = await trio.to_thread.run_sync(self._store.load)
        autostarted = await trio.to_thread.run_sync(self._store.autostarted)
        async with trio.open_nursery() as nursery:
            for definition in definitions:
                pool = Pool(definition, autostart=definition.name in autostarted)
                pool.changed = int(time.time())
                self._by_name[pool.name] = pool
                nursery.start_soon(self._load_rest, pool)
        for name, error in unreadable.items():
            log.error("%s", error)
            stub = PoolDefinition(
                name=name, type=PoolType.DIR, uuid=uuid4(), target=self._default_target(name)
            )
            pool = Pool(stub, autostart=False)
            pool.state = PoolState.FAILED
            pool.error = pool.problem = pool.unreadable = error
            self._by_name[name] = pool

    async def _load_rest(self, pool: Pool) -> None:
        await self._locate(pool)
        try:
            pending = await trio.to_thread.run_sync(self._store.load_pending, pool.name)
            if pending is not None:
                await self._finish_redefinition(pool, pending)
        except FspoolError as error:
            log.error("pool %s: its pending definition is dropped: %s", pool.name, error)

    async def _finish_redefinition(self, pool: Pool, pending: PoolDefinition) -> None:
        """Make what can change live follow from `pending`, which a crash may have kept from it."""
        planned = changes.pool_changes(pool.definition, pending)
        saved = (pool.definition, pending)
        pool.definition, pool.pending = planned.live, planned.pending
        if (pool.definition, pool.pending) != saved:
            await self._save(pool)

    # -- define -----------------------------------------------------------------------------------

    async def define(
        self, wanted: PoolDefinition, caller: Caller, *, via_tree: bool = False, new: bool = False
    ) -> Pool:
        """Define the pool, or change the one of that name; with `new` the latter is refused.

        Raises `ExistsError` for a name, uuid, source or root that is taken, naming by whom, and
        `InvalidError` or `UnsupportedError` for what its source can never serve.
        """
        _check_administers(caller, f"define pool {wanted.name}")
        name = names.check_name(wanted.name)
        async with self._defining:
            old = self._by_name.get(name)
            if old is None or old.unreadable is not None:
                return await self._define_new(wanted, via_tree=via_tree)
            if new:
                raise ExistsError(f"pool {name} is defined already")
            before = old.definition
            follow = await self._redefine(old, wanted)
        if isinstance(follow, resizing.Shrinking):
            await resizing.shrink(self._context, old, self._save, follow)
            self._publish("pool-changed", old, changed="capacity")
        elif follow:
            await resizing.grow(self._context, old, self._save, before)
        return old

    async def set_capacity(self, pool: Pool, capacity: int | None, caller: Caller) -> None:
        """What a write into the pool's `capacity` does: a definition that differs in that alone."""
        self.check_known(pool)
        resizing.check_resizable(self._registry, pool)
        if capacity is None:
            raise UnsupportedError(f"pool {pool.name} is a volume, which always has a capacity; write a size")
        await self.define(replace(pool.pending or pool.definition, capacity=capacity), caller)

    async def redefine(self, pool: Pool, wanted: PoolDefinition, caller: Caller) -> None:
        """What a write into the pool's own `config.xml` does."""
        self.check_known(pool)
        if wanted.name != pool.name:
            raise InvalidError(f"the document defines pool {wanted.name}, not {pool.name}")
        await self.define(wanted, caller)

    async def _define_new(self, wanted: PoolDefinition, *, via_tree: bool) -> Pool:
        target = names.check_target_path(wanted.target or self._default_target(wanted.name))
        uuid = wanted.uuid or await self._found_uuid(wanted, target) or uuid4()
        pool = Pool(replace(wanted, uuid=uuid, target=target))
        await self._locate(pool, checked=True)
        self._check_conflicts(pool)
        pool.changed = int(time.time())
        await self._save(pool)
        before = self._by_name.get(pool.name)
        self._by_name[pool.name] = pool
        if before is not None:
            self._publish("pool-undefined", pool, number=before.number)
        self._publish("pool-defined", pool, via_tree=via_tree)
        return pool

    async def _found_uuid(self, wanted: PoolDefinition, target: str) -> UUID | None:
        """The uuid that the storage already carries for a pool of this name.

        So a pool whose definition was lost is defined anew without knowing its uuid.
        """
        placed = replace(wanted, target=target)

        def look() -> UUID | None:
            try:
                return identity.peek(self._registry.source_for(placed), placed)
            except UnsupportedError:
                return None

        return await self._in_time(look, f"look for a pool at {target}")

    async def _redefine(self, pool: Pool, wanted: PoolDefinition) -> bool | resizing.Shrinking:
        """Whether the storage of the pool has to grow now, or how it is to shrink first."""
        enter_pool(pool.name, pool.state, PoolVerb.DEFINE)
        target = names.check_target_path(wanted.target) if wanted.target else pool.target
        latest = pool.pending or pool.definition
        wanted = replace(wanted, target=target, uuid=wanted.uuid or pool.uuid)
        current, shrinking = await self._with_capacity(pool, wanted)
        if shrinking is not None:
            return shrinking
        planned = changes.pool_changes(current, wanted)
        if wanted == latest and pool.pending is None:
            return False
        grows = resizing.is_growth(pool, planned.live)
        probe = Pool(wanted)
        await self._locate(probe, checked=True)
        self._check_conflicts(probe, besides=pool)
        if pool.attached is not None and wanted.quotas != pool.definition.quotas:
            limits.check_quotas(pool.attached.filesystem, f"define pool {pool.name}", wanted.quotas)
        before = (pool.definition, pool.pending)
        if pool.state in (PoolState.ACTIVE, PoolState.STALLED):
            pool.definition, pool.pending = planned.live, planned.pending
        else:
            pool.definition, pool.pending = wanted, None
        try:
            await self._save(pool)
        except BaseException:
            pool.definition, pool.pending = before
            raise
        if pool.pending is None:
            pool.identity, pool.real_target = probe.identity, probe.real_target
        pool.changed = int(time.time())
        if pool.attached is not None:
            pool.attached.accounts.limit(pool.definition.quotas)
            pool.attached.reconsider.set()
        self._publish("pool-changed", pool, changed=" ".join(planned.changed))
        return grows

    async def _with_capacity(
        self, pool: Pool, wanted: PoolDefinition
    ) -> tuple[PoolDefinition, resizing.Shrinking | None]:
        """The definition of `pool` with the capacity that its storage has, where another one is wanted.

        Beside it, what a smaller one asks for. Raises like `resizing.plan_shrinking`.
        """
        known = pool.definition
        if wanted.capacity in (None, known.capacity) or wanted.source != known.source:
            return known, None

        def look() -> tuple[PoolDefinition, resizing.Shrinking | None]:
            sized = known
            if known.capacity is None:
                sized = replace(known, capacity=resizing.storage_size(self._registry, known))
            return sized, resizing.plan_shrinking(self._registry, pool, sized, wanted)

        found = await self._in_time(look, f"look at the volume of pool {pool.name}")
        return found or (known, None)

    async def bring_pending_into_force(self, pool: Pool) -> None:
        """What the end of being active does with a definition that had to wait for it."""
        if pool.pending is None:
            return
        pool.definition, pool.pending = pool.pending, None
        await self._locate(pool)
        await self._save(pool)
        self._publish("pool-changed", pool)

    async def undefine(self, pool: Pool, caller: Caller, *, via_tree: bool = False) -> None:
        """Forget the definition; storage and data stay as they are."""
        _check_administers(caller, f"undefine pool {pool.name}")
        async with self._defining:
            self.check_known(pool)
            enter_pool(pool.name, pool.state, PoolVerb.UNDEFINE)
            await self._on_host(partial(self._store.remove, pool.name), f"undefine pool {pool.name}")
            del self._by_name[pool.name]
            self._publish("pool-undefined", pool, via_tree=via_tree, number=pool.number)

    async def set_autostart(self, pool: Pool, caller: Caller, *, autostart: bool) -> None:
        _check_administers(caller, f"set autostart of pool {pool.name}")
        self.check_known(pool)
        await self._on_host(
            partial(self._store.set_autostart, pool.name, autostart=autostart),
            f"set autostart of pool {pool.name}",
        )
        pool.autostart = autostart
        pool.changed = int(time.time())

    # -- conflicts --------------------------------------------------------------------------------

    async def _locate(self, pool: Pool, *, checked: bool = False) -> None:
        """Find out what the pool must share with no other.

        With `checked`, also refuse what could never be built or started, before it is stored.
        """

        def look() -> tuple[str, str]:
            if pool.definition.type is PoolType.NETWORK:
                real = places.unvisited(pool.target)
            else:
                real = os.path.realpath(pool.target)
            if checked:
                state, storage = os.path.realpath(self._state), os.path.realpath(self._storage)
                placement.check_apart(pool.name, real, state=state, storage=storage)
                self._registry.check(pool.definition)
            try:
                source = self._registry.source_for(pool.definition)
            except UnsupportedError:
                # Whoever has the backend may want the definition; building it here says what is missing.
                return _written_identity(pool.definition), real
            if checked:
                source.check(pool.definition)
            return source.identity(pool.definition), real

        fallback = (_written_identity(pool.definition), pool.target)
        try:
            found = await self._in_time(look, f"look at the target of pool {pool.name}")
        except OSError as error:
            log.warning("pool %s: its target cannot be looked at: %s", pool.name, error)
            found = None
        pool.identity, pool.real_target = found or fallback

    def _check_conflicts(self, pool: Pool, *, besides: Pool | None = None) -> None:
        for other in self._by_name.values():
            if other is besides or other.name == pool.name:
                continue
            if other.uuid == pool.uuid:
                raise ExistsError(f"pool {pool.name}: uuid {pool.uuid} is pool {other.name}'s")
            is_same = bool(other.identity) and other.identity == pool.identity
            # One may have been looked at when the storage told more than the names.
            if is_same or _names_same_volume(other.definition.source, pool.definition.source):
                raise ExistsError(f"pool {pool.name}: its source is pool {other.name}'s already")
            mine, theirs = f"{pool.real_target}/", f"{other.real_target}/"
            if mine.startswith(theirs) or theirs.startswith(mine):
                raise ExistsError(
                    f"pool {pool.name}: its target {pool.target} and that of pool {other.name}, "
                    f"{other.target}, are the same or lie inside one another"
                )

    def _default_target(self, name: str) -> str:
        return str(self._storage / "pools" / name)

    # -- help -------------------------------------------------------------------------------------

    async def _in_time(self, look: Callable[[], T], what: str) -> T | None:
        """Run a look at storage that may hang; `None` when it does not end in time."""
        with trio.move_on_after(self._context.grace):
            return await trio.to_thread.run_sync(look, abandon_on_cancel=True)
        log.warning("%s: no answer in time", what)
        return None

    async def _save(self, pool: Pool) -> None:
        await self._on_host(
            partial(self._store.save, pool.definition, pool.pending),
            f"save the definition of pool {pool.name}",
        )

    async def _on_host(self, write: Callable[[], None], what: str) -> None:
        try:
            await trio.to_thread.run_sync(write)
        except OSError as error:
            raise StorageError.from_os(what, error) from error

    def _publish(
        self, kind: str, pool: Pool, *, via_tree: bool = False, number: int = 0, **details: str
    ) -> None:
        self._context.events.publish(
            Event(kind=kind, pool=pool.name, details=dict(details), via_tree=via_tree, number=number)
        )


def _written_identity(definition: PoolDefinition) -> str:
    """What the definition alone says of its source, for a pool that nothing here can serve."""
    source = definition.source
    match definition.type:
        case PoolType.DIR:
            return f"dir:{os.path.normpath(definition.target or '')}"
        case PoolType.VOLUME:
            return f"volume:{source.device or f'{source.provider}/{source.pool}/{source.volume}'}"
        case PoolType.NETWORK:
            hosts = ",".join(f"{host.name}:{host.port or ''}" for host in source.hosts)
            return f"network:{source.format}:{hosts}:{source.directory}"


def _names_same_volume(one: PoolSource, other: PoolSource) -> bool:
    if one.volume is None and one.device is None:
        return False
    return (
        one.volume == other.volume
        and one.pool == other.pool
        and one.provider == other.provider
        and one.device == other.device
    )


def _check_administers(caller: Caller, what: str) -> None:
    if not caller.administers:
        raise AccessError(f"user {caller.uid} may not {what}: that is for root and the daemon's user")
