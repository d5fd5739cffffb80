"""The life cycle of a pool: build, start, stop, destroy, delete, refresh. Each is a job."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import MappingProxyType

import trio

from fspoolfs.backends.registry import Registry
from fspoolfs.backends.source import BuildMode, Remote, Unmounting
from fspoolfs.errors import (
    AccessError,
    BusyError,
    FspoolError,
    TimeLimitError,
    UnsupportedError,
)
from fspoolfs.model.infos import MountUse
from fspoolfs.model.states import ItemState, PoolState, PoolVerb, enter_pool
from fspoolfs.progress import Progress
from fspoolfs.service import closing, opening, refreshing, usage
from fspoolfs.service.access import Caller
from fspoolfs.service.advice import as_refusal
from fspoolfs.service.companion import Companion
from fspoolfs.service.consumers import Consumers
from fspoolfs.service.context import Context
from fspoolfs.service.events import Event
from fspoolfs.service.exposure import Exposure
from fspoolfs.service.hosts import fencing
from fspoolfs.service.hosts.joining import Ourselves
from fspoolfs.service.jobs import Job
from fspoolfs.service.objects import Attached, Item, Pool
from fspoolfs.service.pools import Pools
from fspoolfs.service.store import Store

log = logging.getLogger(__name__)

#: Definitions that a start had to parse for which it is worth to leave an index at once.
MANY = 1000
_NEW: Mapping[str, Item] = MappingProxyType({})


class Lifecycle:
    """Carries out the verbs of a pool's `status`."""

    def __init__(
        self,
        context: Context,
        store: Store,
        registry: Registry,
        pools: Pools,
        companion: Companion,
        exposure: Exposure,
        consumers: Consumers,
        ourselves: Ourselves,
        nursery: trio.Nursery,
    ) -> None:
        self.ourselves = ourselves
        self._context = context
        self._store = store
        self._registry = registry
        self._pools = pools
        self._exposure = exposure
        self._consumers = consumers
        self._nursery = nursery
        self._companion = companion

    # -- verbs ------------------------------------------------------------------------------------

    async def build(self, pool: Pool, caller: Caller, mode: BuildMode) -> None:
        self._check_backend(pool)

        async def work(job: Job) -> None:
            if mode is BuildMode.OVERWRITE:
                # Before what it was is gone: a start after a crash is not to miss it.
                await trio.to_thread.run_sync(self._store.forget_start, pool.name)
            await self._build(pool, job, mode)

        await self._run(pool, PoolVerb.BUILD, caller, work, after=PoolState.INACTIVE)

    async def start(self, pool: Pool, caller: Caller, *, build: bool = False) -> None:
        self._check_backend(pool)

        async def work(job: Job) -> None:
            if build:
                await self._build(pool, job, BuildMode.NO_OVERWRITE)
            await self._start(pool, job)

        await self._run(
            pool,
            PoolVerb.START,
            caller,
            work,
            after=PoolState.ACTIVE,
            failed=PoolState.FAILED,
            then=self._companion.begin,
        )

    async def stop(self, pool: Pool, caller: Caller) -> None:
        async def work(job: Job) -> None:
            await self._check_unused(pool)
            items = dict(pool.items)
            try:
                await self._stop(pool, force=False)
            except BusyError as error:
                refusal = await self._named(pool, error)
                await self._start(pool, job, again=items)
                raise refusal from error

        await self._run(pool, PoolVerb.STOP, caller, work, after=PoolState.INACTIVE)

    async def destroy(self, pool: Pool, caller: Caller) -> None:
        async def work(job: Job) -> None:
            await self._stop(pool, force=True)

        await self._run(pool, PoolVerb.DESTROY, caller, work, after=PoolState.INACTIVE)

    async def delete(self, pool: Pool, caller: Caller) -> None:
        """Undo `build`; a deletion that was begun is finished after a crash."""

        async def work(job: Job) -> None:
            source = self._registry.source_for(pool.definition)

            def remove() -> None:
                self._store.begin_deletion(pool.name)
                try:
                    opening.purge_leftovers(source, self._registry, pool.definition)
                    source.delete(pool.definition)
                except FspoolError:
                    self._store.end_deletion(pool.name)  # refused, nothing was touched
                    raise
                self._store.forget_start(pool.name)
                self._store.end_deletion(pool.name)

            await self._context.in_thread(pool, lambda progress: remove(), job.progress)

        await self._run(pool, PoolVerb.DELETE, caller, work, after=PoolState.INACTIVE)

    async def undefine(self, pool: Pool, caller: Caller, *, via_tree: bool = False) -> None:
        """Forget the definition; a pool that failed while it was active is let go first."""
        if pool.state is PoolState.FAILED and (pool.attached is not None or self._may_be_mounted(pool)):
            await self.destroy(pool, caller)
        await self._consumers.forget(pool)
        await self._pools.undefine(pool, caller, via_tree=via_tree)

    def _may_be_mounted(self, pool: Pool) -> bool:
        """Whether a stop that failed may have left something of the pool behind."""
        if pool.unreadable is not None:
            return False
        try:
            return isinstance(self._registry.source_for(pool.definition), Unmounting)
        except UnsupportedError:
            return False

    async def refresh(self, pool: Pool, caller: Caller) -> None:
        """Look again at what the storage holds."""

        async def work(job: Job) -> None:
            await refreshing.refresh(pool, self._context, job)

        await self._run(pool, PoolVerb.REFRESH, caller, work, after=PoolState.ACTIVE)

    async def fence(self, pool: Pool, caller: Caller, host: str) -> None:
        """Put another host out of the pool, because a person says that it is off."""

        async def work(job: Job) -> None:
            await fencing.fence(self._context, self._registry, pool, host, self.ourselves, job)

        await self._run(pool, PoolVerb.FENCE, caller, work, after=pool.state)

    def _check_backend(self, pool: Pool) -> None:
        """Raise `UnsupportedError` when nothing here can serve the pool; its state stays as it is."""
        self._registry.source_for(pool.pending or pool.definition)

    async def _run(
        self,
        pool: Pool,
        verb: PoolVerb,
        caller: Caller,
        work: Callable[[Job], Awaitable[None]],
        *,
        after: PoolState,
        failed: PoolState | None = None,
        then: Callable[[Pool, Attached], None] | None = None,
    ) -> None:
        """Run `work` as the pool's job; the state is `after` when it succeeds.

        When it fails the state is `failed`, or the one before.
        """
        if not caller.administers:
            raise AccessError(f"user {caller.uid} may not {verb} pool {pool.name}")
        self._pools.check_known(pool)
        if pool.unreadable is not None:
            raise pool.unreadable
        working = enter_pool(pool.name, pool.state, verb)
        if pool.job is not None and pool.job.running:
            raise BusyError(f"pool {pool.name}: {pool.job.verb} is under way")
        before, attached, job = pool.state, pool.attached, Job(verb, f"pool {pool.name}")
        wanted = pool.wanted
        pool.wanted = wanted and verb in (PoolVerb.START, PoolVerb.REFRESH)
        pool.job = job
        self._context.set_state(pool, working)

        async def kept(job: Job) -> None:
            try:
                await work(job)
            except BaseException as error:
                pool.error = as_refusal(verb, pool, error)
                # Nobody who wants it destroyed wants it back.
                pool.wanted = wanted and verb is not PoolVerb.DESTROY
                lost = before in (PoolState.ACTIVE, PoolState.STALLED) and pool.attached is None
                if lost or failed is PoolState.FAILED:
                    pool.problem = pool.error
                self._context.set_state(pool, PoolState.FAILED if lost else failed or before)
                if pool.attached is not None and pool.attached is not attached:  # taken up again
                    self._companion.begin(pool, pool.attached)
                self._context.suspect(pool)
                if isinstance(error, OSError):
                    raise pool.error from error  # which says what to do
                raise
            pool.error = None
            pool.wanted = after is PoolState.ACTIVE
            self._context.set_state(pool, after)
            if then is not None and pool.attached is not None:
                then(pool, pool.attached)

        await self._context.run_job(pool, job, kept)

    # -- build and start --------------------------------------------------------------------------

    async def _build(self, pool: Pool, job: Job, mode: BuildMode) -> None:
        definition = pool.pending or pool.definition
        source = self._registry.source_for(definition)

        def build() -> None:
            source.check(definition)
            source.build(definition, mode, job.progress)

        await self._context.in_thread(pool, lambda progress: build(), job.progress)

    async def _start(self, pool: Pool, job: Job, *, again: Mapping[str, Item] = _NEW) -> None:
        """Attach and take in what is there; the items of `again` are for the kernel what they were."""
        if pool.attached is not None:  # it failed while it was active
            # What is remote may answer again: it is taken up with all that uses it, if it does.
            keep = isinstance(pool.attached.source, Remote) and pool.pending is None
            await self._stop(pool, force=True, detach=not keep)
        definition, token = pool.definition, trio.lowlevel.current_trio_token()
        mounts = isinstance(self._registry.source_for(definition), Unmounting)

        def open_known(progress: Progress) -> tuple[opening.Opened, bool]:
            """What was found, and whether the host remembers all of this start already."""
            known = self._store.was_started(pool.name, pool.target)
            announced = mounts and self._store.announce_start(pool.name)
            try:
                opened = opening.open_pool(
                    definition, self._registry, token, progress, ourselves=self.ourselves, known=known
                )
            except (OSError, FspoolError):
                if announced:
                    self._store.set_active(pool.name, active=False)
                raise
            return opened, known and mounts and not self._store.is_being_deleted(pool.name)

        opened, remembered = await self._context.in_thread(pool, open_known, job.progress)
        pool.attached = opened.attached
        pool.space = opened.space
        for item in opened.items:
            if item.name in again:
                item.number = again[item.name].number
            opened.attached.put(item)
        opened.attached.trash.update(opened.trash)
        await self._consumers.take_up(pool, opened.attached)
        if any(item.snapshots for item in opened.items):
            await self._context.in_thread(
                pool, lambda progress: self._exposure.expose(pool.name, opened.attached), job.progress
            )
        definitions = [item.definition for item in opened.items if item.state is ItemState.READY]
        if any(one.idmap is not None for one in definitions):
            mappings = self._context.mappings
            await self._context.in_thread(
                pool, lambda progress: mappings.begin(pool.name, opened.attached, definitions), job.progress
            )
        if not remembered:
            await trio.to_thread.run_sync(self._remember_start, pool)
        if opened.rubbish:
            opened.attached.rubbish.set()
        if opened.parsed > MANY:
            self._companion.save_index_soon(pool, opened.attached)

    def _remember_start(self, pool: Pool) -> None:
        # Who starts a pool no longer wants the deletion of it that has failed.
        self._store.end_deletion(pool.name)
        self._store.remember_start(pool.name, pool.target)
        self._store.set_active(pool.name, active=True)

    # -- stop -------------------------------------------------------------------------------------

    async def _check_unused(self, pool: Pool) -> None:
        """Raise `BusyError` naming who mounts something of the pool, or which job works in it."""
        for item in pool.items.values():
            if item.job is not None and item.job.running:
                raise BusyError(f"stop pool {pool.name}: {item.job.verb} of {item.job.subject} is under way")
        if pool.attached is None:
            return
        await self._consumers.check_unused(pool)
        attached = pool.attached

        def look() -> list[MountUse]:
            return usage.of_pool(self._context.finder.uses(attached.root.path, once=True))

        mounted: list[MountUse] | None = None
        try:
            # The threads of the pool may all wait for a server.
            with trio.move_on_after(self._context.grace):
                mounted = await trio.to_thread.run_sync(look, abandon_on_cancel=True)
        except FileNotFoundError:
            # The root was moved away or removed: nothing at its path is in the way of letting it go.
            return
        if mounted is None:
            raise TimeLimitError(
                f"stop pool {pool.name}: its storage does not answer, and who uses it cannot be told; write "
                "destroy into status"
            )
        if mounted:
            raise usage.refuse(f"stop pool {pool.name}", mounted)

    async def _named(self, pool: Pool, refusal: BusyError) -> BusyError:
        """What the storage refuses because it is used, with who does that.

        Asked for only then: a look at all that all processes have open takes longer than a stop.
        """
        source, definition = self._registry.source_for(pool.definition), pool.definition
        if not isinstance(source, Unmounting):
            return refusal
        held = await trio.to_thread.run_sync(source.holders, definition, abandon_on_cancel=True)
        advice = "end that, or write destroy into status"
        return usage.refuse(f"stop pool {pool.name}", held, advice=advice) if held else refusal

    async def _stop(self, pool: Pool, *, force: bool, detach: bool = True) -> None:
        """Close and detach. Whatever fails, the pool is no longer attached afterwards."""
        attached, definition = pool.attached, pool.definition
        groups = self._consumers.places(pool)
        if attached is not None:
            await closing.close(self._context, self._companion, pool, attached, force=force, leaves=True)
            pool.forget()
            self._context.events.publish(Event(kind="pool-emptied", pool=pool.name))

        def unmount() -> None:
            if attached is not None:
                attached.source.detach(definition, force=force)
                return
            # A stop before this one that the storage has refused may have left it attached.
            with suppress(UnsupportedError):
                self._registry.source_for(definition).detach(definition, force=force)

        def let_go() -> None:
            """All in one thread: to change it would take as long as most of these."""
            self._exposure.withdraw(pool.name)
            self._context.mappings.withdraw(pool.name)
            self._context.finder.forget()
            try:
                if detach:
                    unmount()
            finally:
                self._consumers.withdraw(groups)
            self._store.set_active(pool.name, active=False)

        await trio.to_thread.run_sync(let_go, abandon_on_cancel=True)
        await self._pools.bring_pending_into_force(pool)

    # -- the daemon's end -------------------------------------------------------------------------

    async def close_all(self) -> None:
        """Before the daemon ends: leave every active pool synced, and attached as it is."""
        async with trio.open_nursery() as nursery:
            for pool in self._pools:
                if pool.attached is not None:
                    nursery.start_soon(self._close_one, pool, pool.attached)

    async def _close_one(self, pool: Pool, attached: Attached) -> None:
        await closing.close(self._context, self._companion, pool, attached, force=False)
