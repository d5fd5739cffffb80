"""Snapshots of items: taking, renaming, deleting them, and rolling an item back to one.

A snapshot is one directory, named after its time and its name, among those of its item's uuid. So
taking, renaming and deleting one are each one rename that a sync of the directory makes durable,
nothing is written about them, and they follow their item wherever it goes. Rolling back exchanges
two directories and therefore goes through the committer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from uuid import uuid4

import trio

from fspoolfs import names
from fspoolfs.backends import layout
from fspoolfs.backends.filesystem import SnapshotPlaces, Snapshotter
from fspoolfs.backends.root import RootDirectory
from fspoolfs.errors import (
    BusyError,
    ExistsError,
    FspoolError,
    InProgressError,
    NotFoundError,
    UnansweredError,
    UnsupportedError,
)
from fspoolfs.model.states import ItemState, ItemVerb, enter_item
from fspoolfs.progress import Progress
from fspoolfs.service.changes import as_refusal
from fspoolfs.service.context import Context
from fspoolfs.service.exposure import Exposure
from fspoolfs.service.hosts.exclusion import RollbackExclusion
from fspoolfs.service.item_work import ItemWork
from fspoolfs.service.jobs import Job
from fspoolfs.service.locks import Lease
from fspoolfs.service.objects import Attached, Item, Pool, Snapshot
from fspoolfs.service.rollback import RollbackItem, make_room

log = logging.getLogger(__name__)


class Snapshots(ItemWork):
    """Operations on the snapshots of items."""

    def __init__(self, context: Context, exposure: Exposure) -> None:
        super().__init__(context)
        self._exposure = exposure

    async def take(self, pool: Pool, item: Item, name: str, *, via_tree: bool = False) -> Snapshot:
        """Keep what `item` holds now as snapshot `name`.

        Returns once it is made, or, where it is a copy that takes long, once the name is taken: the
        snapshot's job tells how far it is. Raises `ExistsError`, `UnsupportedError`, `StorageError`.
        """
        attached = pool.active()
        name = names.check_name(name)
        snapshotter = _snapshotter(pool, attached)
        lease = await self.lock(pool, attached, item)
        try:
            enter_item(item.name, item.state, ItemVerb.SNAPSHOT)
            _check_free(item, name)
            job = Job("snapshot", f"item {item.name} as {name}")
            if not snapshotter.instant_snapshots:
                self.begin_job(item, job)
        except BaseException:
            lease.release()
            raise
        snapshot = Snapshot(name, time.time_ns() // 1_000_000, job=job)
        item.put_snapshot(snapshot)
        item.begin_reading(job)
        if not snapshotter.instant_snapshots:
            lease.release()  # a copy takes long, and the item can be changed meanwhile
        uuid = item.uuid

        target, staging = layout.snapshot(uuid, snapshot.entry), layout.staging(uuid4())

        def copy(progress: Progress) -> None:
            location = item.definition.location  # a rename may have come first
            _copy(attached.root, snapshotter, location, staging, progress)

        def place(progress: Progress) -> None:
            self._exposure.expose(pool.name, attached)
            make_room(attached.root, target)
            if snapshotter.instant_snapshots:
                snapshotter.snapshot(item.definition.location, target, progress)
                elsewhere = content(attached, target)
                # Its own directory may be called otherwise later.
                snapshot.place = "" if elsewhere == target else elsewhere
            else:
                _show_copy(attached.root, staging, target)

        async def work(job: Job) -> None:
            try:
                if not snapshotter.instant_snapshots:
                    await self.context.in_thread(pool, copy, job.progress)
                await self.do_with_snapshots(pool, attached, item, job, place)
            except BaseException as error:
                item.drop_snapshot(name)
                attached.rubbish.set()
                if isinstance(error, Exception):
                    item.error = as_refusal(error)
                self._tell_gone(pool, item, snapshot, "snapshot-failed")
                raise
            finally:
                item.end_reading(job)
                lease.release()
            snapshot.job = None
            self._tell(pool, item, snapshot, "snapshot-created", via_tree=via_tree and not late)

        late = False
        try:
            if snapshotter.instant_snapshots:
                await self.context.run_quietly(pool, job, work)
            else:
                await self.context.run_job(pool, job, work, item=item.name)
        except InProgressError as error:
            late = True
            if isinstance(error, UnansweredError):
                raise
        return snapshot

    async def rename(
        self, pool: Pool, item: Item, name: str, new_name: str, *, via_tree: bool = False
    ) -> None:
        """Raises `ExistsError` when the new name is taken, `BusyError` while it is being made or used."""
        attached = pool.active()
        new_name = names.check_name(new_name)
        if name == new_name:
            return
        lease = await self.lock(pool, attached, item)
        try:
            snapshot = made_snapshot(item, name)
            _check_free(item, new_name)
        except BaseException:
            lease.release()
            raise
        target = layout.snapshot(item.uuid, Snapshot(new_name, snapshot.created).entry)

        def done(*, asked: bool) -> None:
            item.drop_snapshot(name)
            snapshot.name = new_name
            item.put_snapshot(snapshot)
            self._tell(pool, item, snapshot, "snapshot-renamed", via_tree=via_tree and asked, old=name)

        await self._move(pool, attached, item, snapshot, "rename", target, lease, done)

    async def delete(self, pool: Pool, item: Item, name: str, *, via_tree: bool = False) -> None:
        """Remove a snapshot; its storage goes in the background. Raises `BusyError` while it is used.

        One that is still being copied is given up.
        """
        attached = pool.active()
        lease = await self.lock(pool, attached, item)
        try:
            snapshot = find_snapshot(item, name)
            if snapshot.job is not None:
                snapshot.job.progress.cancel()
            _check_made(item, snapshot)
        except BaseException:
            lease.release()
            raise

        def done(*, asked: bool) -> None:
            item.drop_snapshot(name)
            attached.rubbish.set()
            self._tell_gone(pool, item, snapshot, "snapshot-deleted", via_tree=via_tree and asked)

        await self._move(pool, attached, item, snapshot, "delete", layout.purge(uuid4()), lease, done)

    async def _move(
        self,
        pool: Pool,
        attached: Attached,
        item: Item,
        snapshot: Snapshot,
        verb: str,
        target: str,
        lease: Lease,
        done: Callable[..., None],
    ) -> None:
        """Move a snapshot's directory durably; what follows from it is `done` whenever that ends."""
        subject = f"snapshot {snapshot.name} of item {item.name}"
        directory, source = layout.snapshots(item.uuid), layout.snapshot(item.uuid, snapshot.entry)
        check = self.in_use(pool, attached, f"{verb} {subject}", item.uuid)

        def move(progress: Progress) -> None:
            check(source)
            if (place := content(attached, source)) != source:
                check(place)
            attached.filesystem.move(source, target)
            attached.root.sync_directory(directory)

        async def work(job: Job) -> None:
            try:
                await self.do_with_snapshots(pool, attached, item, job, move)
                done(asked=not late)
            finally:
                lease.release()

        late = False
        try:
            await self.context.run_quietly(pool, Job(verb, subject), work)
        except InProgressError:
            late = True
            raise

    async def roll_back(self, pool: Pool, item: Item, name: str) -> None:
        """Let `item` hold what snapshot `name` holds; what it held is kept as a snapshot.

        Owner, mode and limits stay the item's. A missing item's directory comes back. Raises
        `BusyError` while the item is used.
        """
        attached = pool.active()
        lease = await self.lock(pool, attached, item)
        before = item.state
        try:
            snapshot = made_snapshot(item, name)
            self.check_unread(item, "rollback")
            working = enter_item(item.name, before, ItemVerb.ROLLBACK)
            job = Job("rollback", f"item {item.name} to {name}")
            self.begin_job(item, job)
        except BaseException:
            lease.release()
            raise
        item.state = working
        kept = Snapshot(_free_name(item), time.time_ns() // 1_000_000)

        def done(error: Exception | None) -> None:
            lease.release()
            if error is not None:
                item.state, item.error = before, as_refusal(error)
                return
            item.state, item.error, item.measured = ItemState.READY, None, None
            item.problem = None
            if before is not ItemState.MISSING:
                item.put_snapshot(kept)
                self._tell(pool, item, kept, "snapshot-created")
            self._tell(pool, item, snapshot, "item-rolled-back")

        async def work(job: Job) -> None:
            change = RollbackItem(
                attached.filesystem,
                item.definition,
                kept=layout.snapshot(item.uuid, kept.entry),
                in_use=self.in_use(pool, attached, f"roll back item {item.name}", item.uuid),
                on_done=done,
            )
            source = layout.snapshot(item.uuid, snapshot.entry)

            def restore(progress: Progress) -> None:
                exclusion.begin()
                self._exposure.expose(pool.name, attached)
                change.restore(source, progress)

            exclusion = RollbackExclusion(attached, item.definition)
            try:
                await self.context.in_thread(pool, restore, job.progress)
            except BaseException as error:
                with trio.CancelScope(shield=True):
                    if exclusion.begun:
                        await self._give_up(attached, change)
                    await exclusion.end()
                done(error if isinstance(error, Exception) else FspoolError("ended with the daemon"))
                raise
            try:
                await self.context.commit(pool, attached, change, patient=True)
            except FspoolError:
                # A broken journal may hold the record after all: then the next start needs the copy.
                if attached.committer.broken is None:
                    await self._give_up(attached, change)
                raise
            finally:
                await exclusion.end()

        await self.context.run_job(pool, job, work, item=item.name)

    async def _give_up(self, attached: Attached, change: RollbackItem) -> None:
        """Let what was prepared for a rollback be removed."""
        with trio.move_on_after(self.context.grace):
            await trio.to_thread.run_sync(change.discard, abandon_on_cancel=True)
        attached.rubbish.set()

    async def locate(self, pool: Pool, item: Item, snapshot: Snapshot) -> None:
        """Bring up to date where what a snapshot holds can be read; what cannot be told stays as it was."""
        attached = pool.attached
        if attached is None or snapshot.job is not None:
            return
        if not isinstance(attached.filesystem, SnapshotPlaces):
            return
        path = layout.snapshot(item.uuid, snapshot.entry)
        with trio.move_on_after(self.context.grace):
            try:
                snapshot.place = await self.context.in_thread(
                    pool, lambda _: content(attached, path), Progress()
                )
            except (OSError, FspoolError) as error:
                log.info("pool %s: snapshot %s of item %s: %s", pool.name, snapshot.name, item.name, error)

    def _tell(
        self, pool: Pool, item: Item, snapshot: Snapshot, kind: str, *, via_tree: bool = False, **details: str
    ) -> None:
        self.publish(kind, pool, item.name, via_tree=via_tree, snapshot=snapshot.name, **details)

    def _tell_gone(
        self, pool: Pool, item: Item, snapshot: Snapshot, kind: str, *, via_tree: bool = False
    ) -> None:
        self.gone(pool, kind, item.name, snapshot.number, via_tree=via_tree, snapshot=snapshot.name)


def content(attached: Attached, path: str) -> str:
    """Where what the snapshot at `path` holds can be read, below the root. Blocks."""
    filesystem = attached.filesystem
    return filesystem.place(path) if isinstance(filesystem, SnapshotPlaces) else path


def find_snapshot(item: Item, name: str) -> Snapshot:
    """Raises `NotFoundError`."""
    snapshot = item.snapshots.get(name)
    if snapshot is None:
        raise NotFoundError(f"item {item.name} has no snapshot {name}")
    return snapshot


def made_snapshot(item: Item, name: str) -> Snapshot:
    """A snapshot that is there and whole. Raises `NotFoundError`, `BusyError`."""
    snapshot = find_snapshot(item, name)
    _check_made(item, snapshot)
    return snapshot


def _check_made(item: Item, snapshot: Snapshot) -> None:
    if snapshot.job is None:
        return
    ending = (
        " and is cancelled" if snapshot.job.progress.cancelled else "; the file `job` tells how far it is"
    )
    raise BusyError(f"snapshot {snapshot.name} of item {item.name} is still being made{ending}")


def _check_free(item: Item, name: str) -> None:
    if name in item.snapshots:
        raise ExistsError(f"item {item.name} has a snapshot {name} already")


def _free_name(item: Item) -> str:
    """What a rollback calls the snapshot of what it replaces."""
    stamped = f"before-rollback-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    free, count = stamped, 2
    while free in item.snapshots:
        free, count = f"{stamped}-{count}", count + 1
    return free


def _snapshotter(pool: Pool, attached: Attached) -> Snapshotter:
    filesystem = attached.filesystem
    if not isinstance(filesystem, Snapshotter):
        raise UnsupportedError(f"the {filesystem.name} file system of pool {pool.name} keeps no snapshots")
    return filesystem


def _copy(
    root: RootDirectory, snapshotter: Snapshotter, source: str, staging: str, progress: Progress
) -> None:
    """Copy into staging, durably."""
    with _given_up(root, staging):
        snapshotter.snapshot(source, staging, progress)
        root.sync()


def _show_copy(root: RootDirectory, staging: str, target: str) -> None:
    """Let the whole copy appear at `target`."""
    with _given_up(root, staging):
        root.rename(staging, target)
    root.sync_directory(target.rpartition("/")[0])


@contextmanager
def _given_up(root: RootDirectory, staging: str) -> Iterator[None]:
    """Put what lies in staging among what is purged when the context fails."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # the next start finds it in staging; the first error is the one to tell
            root.rename(staging, layout.purge(uuid4()))
        raise
