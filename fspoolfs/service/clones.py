"""The long work on items: cloning one, counting what one holds. Each is a job."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from uuid import UUID

import trio

from fspoolfs.backends import layout
from fspoolfs.backends.filesystem import Cloner, Measurer
from fspoolfs.errors import AccessError, FspoolError, QuotaError, StorageError, UnsupportedError
from fspoolfs.model.definitions import ItemDefinition, ItemOrigin, Permissions, PoolDefaults
from fspoolfs.model.states import ItemVerb, enter_item
from fspoolfs.progress import Progress
from fspoolfs.service import access, group_steps, limits
from fspoolfs.service.access import Caller
from fspoolfs.service.changes import CreateItem
from fspoolfs.service.item_work import ItemWork
from fspoolfs.service.jobs import Job
from fspoolfs.service.objects import Attached, Item, Measured, Pool
from fspoolfs.service.rollback import sync_copy
from fspoolfs.service.snapshots import made_snapshot

log = logging.getLogger(__name__)


class Clones(ItemWork):
    """Jobs that read or write everything in an item."""

    async def clone_item(
        self, pool: Pool, item: Item, new_name: str, snapshot: str | None, caller: Caller
    ) -> None:
        """Make a new item that holds what `item` holds."""
        self.check_present(pool, pool.active(), item)
        access.check_create(pool.name, pool.definition.permissions, caller)
        wanted = ItemDefinition(
            name=new_name,
            origin=ItemOrigin(fs=item.name, snapshot=snapshot),
        )
        await self.clone(pool, self.complete_clone(pool, wanted, caller), caller)

    def complete_clone(self, pool: Pool, wanted: ItemDefinition, caller: Caller) -> ItemDefinition:
        """The definition of a clone as it will be stored; what it leaves out is as with its origin.

        So a clone may be as large as its origin without that being the pool owner's choice.
        """
        assert wanted.origin is not None
        source = self.find(pool, wanted.origin.fs)
        self._check_may_read(source, caller)
        origin, said = source.definition, wanted.permissions
        inherited = replace(
            wanted,
            metadata=origin.metadata if wanted.metadata is None else wanted.metadata,
            permissions=Permissions(
                mode=origin.permissions.mode if said.mode is None else said.mode,
                owner=origin.permissions.owner if said.owner is None else said.owner,
                group=origin.permissions.group if said.group is None else said.group,
            ),
        )
        sizes = PoolDefaults(capacity=origin.capacity, soft=origin.soft, files=origin.files)
        return self.complete(pool, inherited, caller, given=sizes, given_limits=origin.limits)

    async def clone(self, pool: Pool, definition: ItemDefinition, caller: Caller) -> Item:
        attached = pool.active()
        assert definition.origin is not None
        assert definition.uuid is not None
        source = self.find(pool, definition.origin.fs)
        wanted = definition.origin.snapshot
        snapshot = made_snapshot(source, wanted) if wanted is not None else None
        self._check_may_read(source, caller)
        enter_item(source.name, source.state, ItemVerb.CLONE)
        filesystem = attached.filesystem
        if not isinstance(filesystem, Cloner):
            raise UnsupportedError(f"the {filesystem.name} file system of pool {pool.name} cannot clone")
        cloner: Cloner = filesystem
        item, lease = await self.reserve(pool, attached, definition)
        try:
            # Before the copying, which may take long; once more when it is put in its place.
            attached.accounts.claim(definition, f"clone item {source.name} to {definition.name}")
        except QuotaError:
            lease.release()
            attached.drop(item)
            raise
        job = Job("clone", f"item {source.name} to {item.name}")
        item.job = job
        source.begin_reading(job)
        staging = layout.staging(item.uuid)

        def copy(progress: Progress) -> None:
            limits.check(filesystem, definition)
            if step is not None:
                step.check()
            # A rename may have come first.
            origin = layout.snapshot(source.uuid, snapshot.entry) if snapshot else source.definition.location
            cloner.clone(origin, staging, definition, progress)
            # What was copied is made durable before the definition says that it is there.
            sync_copy(filesystem)

        def done(error: Exception | None) -> None:
            lease.release()
            self.created(pool, attached, item, change.definition, error, via_tree=False)

        change = CreateItem(filesystem, definition, staged=True, on_done=done)
        step = group_steps.step(self.context.groups, pool, attached, None, definition)

        async def work(job: Job) -> None:
            try:
                await self.context.in_thread(pool, copy, job.progress)
            except BaseException as error:
                with trio.CancelScope(shield=True):
                    await self._discard_clone(pool, attached, definition.uuid)
                attached.accounts.settle(item.uuid, done=False)
                done(error if isinstance(error, Exception) else FspoolError("ended with the daemon"))
                raise
            finally:
                source.end_reading(job)
            try:
                await self.context.commit(pool, attached, change, step=step, patient=True)
            except FspoolError:
                # A broken journal may hold the record after all: then the next start needs the copy.
                if attached.committer.broken is None:
                    await self._discard_clone(pool, attached, definition.uuid)
                raise

        await self.context.run_job(pool, job, work, item=item.name)
        return item

    async def _discard_clone(self, pool: Pool, attached: Attached, uuid: UUID | None) -> None:
        assert uuid is not None

        def discard() -> None:
            try:
                attached.filesystem.move(layout.staging(uuid), layout.purge(uuid))
            except FileNotFoundError:
                pass
            except OSError as error:
                log.error("%s", StorageError.from_os(f"discard a clone in pool {pool.name}", error))

        with trio.move_on_after(self.context.grace):
            await trio.to_thread.run_sync(discard, abandon_on_cancel=True)
        attached.rubbish.set()

    async def measure(self, pool: Pool, item: Item) -> None:
        """Count what the item holds, as a job."""
        attached = pool.active()
        self.check_present(pool, attached, item)
        enter_item(item.name, item.state, ItemVerb.MEASURE)
        filesystem = attached.filesystem
        if not isinstance(filesystem, Measurer):
            raise UnsupportedError(f"the {filesystem.name} file system of pool {pool.name} counts by itself")
        measurer: Measurer = filesystem
        location = item.definition.location
        job = Job("measure", f"item {item.name}")
        self.begin_job(item, job)

        async def work(job: Job) -> None:
            found = await self.context.in_thread(
                pool, lambda progress: measurer.measure(location, progress), job.progress
            )
            item.measured = Measured(found, time.time())

        await self.context.run_job(pool, job, work, item=item.name)

    def _check_may_read(self, item: Item, caller: Caller) -> None:
        """Cloning reads everything in an item, so it is for its owner and who administers."""
        if not caller.administers and caller.uid != item.definition.permissions.owner:
            raise AccessError(f"user {caller.uid} may not clone item {item.name}: it belongs to another user")
