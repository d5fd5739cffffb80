"""What every operation on items needs: names and places reserved, locks, the committer, events."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from uuid import UUID, uuid4

import trio

from fspoolfs import names
from fspoolfs.errors import (
    BusyError,
    ExistsError,
    InactiveError,
    InProgressError,
    InvalidError,
    NotFoundError,
)
from fspoolfs.model.definitions import ItemDefinition, PoolDefaults
from fspoolfs.model.limits import Limits
from fspoolfs.model.states import ItemState
from fspoolfs.progress import Progress
from fspoolfs.service import access, group_steps, usage
from fspoolfs.service.access import Caller
from fspoolfs.service.changes import ItemChange, NoteSnapshots
from fspoolfs.service.context import Context
from fspoolfs.service.events import Event
from fspoolfs.service.jobs import Job
from fspoolfs.service.locks import Lease
from fspoolfs.service.objects import Attached, Item, Pool, TrashEntry


class ItemWork:
    """The common ground of `Items`, `Trash` and `Clones`."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def complete(
        self,
        pool: Pool,
        wanted: ItemDefinition,
        caller: Caller,
        *,
        given: PoolDefaults | None = None,
        given_limits: Limits = (),
    ) -> ItemDefinition:
        """The definition as it will be stored: owner, mode and uuid filled in, and how much it may hold.

        The latter is what is `given`: the pool's defaults, where nothing else is. Limits are those that
        the document says, or `given_limits`.
        """
        given = given or pool.definition.defaults
        name = names.check_name(wanted.name)
        if wanted.pool not in (None, pool.name):
            raise InvalidError(f"item {name} names pool {wanted.pool} as its source, not {pool.name}")
        path = names.check_item_path(wanted.path) if wanted.path is not None else None
        if wanted.uuid is not None:
            self._check_uuid_free(pool, wanted.uuid)
        access.check_sizes(pool.definition.permissions, wanted, given, caller)
        access.check_idmap(None, wanted, caller)
        access.check_limits(pool.definition.permissions, wanted, given_limits, caller)
        return replace(
            wanted,
            name=name,
            uuid=wanted.uuid or uuid4(),
            pool=None,
            path=None if path == f"/{name}" else path,
            capacity=given.capacity if wanted.capacity is None else wanted.capacity,
            soft=given.soft if wanted.soft is None else wanted.soft,
            files=given.files if wanted.files is None else wanted.files,
            limits=wanted.limits or given_limits,
            permissions=access.new_item_permissions(pool.definition.permissions, wanted.permissions, caller),
        )

    def _check_uuid_free(self, pool: Pool, uuid: UUID) -> None:
        for item in pool.items.values():
            if item.uuid == uuid:
                raise ExistsError(f"uuid {uuid} is item {item.name}'s in pool {pool.name}")
        for entry in pool.trash.values():
            if entry.uuid == uuid:
                raise ExistsError(f"uuid {uuid} is that of {entry.name} in the trash of pool {pool.name}")

    async def reserve(self, pool: Pool, attached: Attached, definition: ItemDefinition) -> tuple[Item, Lease]:
        """Take the name and the place for an item that is being made."""
        lease = await self.acquire(pool, attached, definition.name)
        try:
            if definition.name in attached.items:
                raise ExistsError(f"item {definition.name} exists already in pool {pool.name}")
            attached.locations.check(definition.location, definition.name)
        except BaseException:
            lease.release()
            raise
        item = Item(definition, ItemState.CREATING, changed=int(time.time()))
        attached.put(item)
        return item, lease

    def created(
        self,
        pool: Pool,
        attached: Attached,
        item: Item,
        definition: ItemDefinition,
        error: Exception | None,
        *,
        via_tree: bool,
    ) -> None:
        if error is not None:
            attached.drop(item)
            self.gone(pool, "item-failed", item.name, item.number, reason=str(error))
            return
        item.definition = definition
        item.state = ItemState.READY
        self.publish("item-created", pool, item.name, via_tree=via_tree)

    def find(self, pool: Pool, name: str) -> Item:
        item = pool.items.get(name)
        if item is None:
            raise NotFoundError(f"there is no item {name} in pool {pool.name}")
        return item

    def find_trashed(self, pool: Pool, name: str) -> TrashEntry:
        entry = pool.trash.get(name)
        if entry is None:
            raise NotFoundError(f"there is nothing called {name} in the trash of pool {pool.name}")
        if entry.busy:
            raise BusyError(f"{name} is still on its way into the trash of pool {pool.name}")
        return entry

    async def acquire(self, pool: Pool, attached: Attached, *names: str) -> Lease:
        """Wait for other changes of these items.

        Raises `BusyError` when they take too long, `InactiveError` when the pool was stopped.
        """
        if not any(attached.locks.held(name) for name in names):
            return await attached.locks.acquire(*names)
        with trio.move_on_after(self.context.grace):
            lease = await attached.locks.acquire(*names)
            try:
                if pool.active() is not attached:
                    raise InactiveError(f"pool {pool.name} was stopped meanwhile")
            except BaseException:
                lease.release()
                raise
            return lease
        if pool.attached is attached and self.context.is_silent(pool):
            raise self.context.unanswered(pool, InProgressError(""))
        raise BusyError(f"pool {pool.name}: a change of {' or '.join(names)} has not ended yet")

    async def lock(self, pool: Pool, attached: Attached, item: Item, *others: str) -> Lease:
        lease = await self.acquire(pool, attached, item.name, *others)
        try:
            self.check_present(pool, attached, item)
        except BaseException:
            lease.release()
            raise
        return lease

    def check_present(self, pool: Pool, attached: Attached, item: Item) -> None:
        """Raise `NotFoundError` when `item` is gone; an open file can still lead to it."""
        if attached.items.get(item.name) is not item:
            raise NotFoundError(f"item {item.name} is no longer in pool {pool.name}")

    def check_unread(self, item: Item, verb: str) -> None:
        """Raise `BusyError` while a job reads what the item holds, which must not go away."""
        if item.readers:
            job = item.readers[0]
            raise BusyError(
                f"{verb} of item {item.name} is refused: {job.verb} of {job.subject} is under way"
            )

    def begin_job(self, item: Item, job: Job) -> None:
        """Let `job` be the one that the item's files tell of. Raises `BusyError` while another runs."""
        if item.job is not None and item.job.running:
            raise BusyError(f"item {item.name}: {item.job.verb} is under way")
        item.job = job

    def in_use(
        self, pool: Pool, attached: Attached, what: str, item: UUID, *, besides: str = ""
    ) -> Callable[[str], None]:
        """A check, for worker threads, that no one has mounted a directory of `item`, on any host.

        `besides` is another directory that must not be mounted either.
        """
        root, finder, shared = attached.root.path, self.context.finder, attached.membership
        mappings = self.context.mappings

        def check(location: str) -> None:
            uses = finder.uses(root)
            found = usage.of_location(uses, location, *filter(None, (besides,)))
            if found:
                raise usage.refuse(what, found)
            if shared is not None:
                usage.refuse_elsewhere(what, shared.presence.used_elsewhere(item), (location, besides))
            # It comes back, of what is there then, when somebody looks for it.
            mappings.hide(pool.name, item)

        return check

    async def do_with_snapshots(
        self, pool: Pool, attached: Attached, item: Item, job: Job, work: Callable[[Progress], None]
    ) -> None:
        """Do what changes which snapshots an item has: where hosts share the pool, in this one's turn."""
        if attached.membership is None:
            await self.context.in_thread(pool, work, job.progress)
            return
        change = NoteSnapshots(attached.filesystem, item.definition, job.subject, partial(work, job.progress))
        await self.context.commit(pool, attached, change, patient=True)

    async def commit(
        self,
        pool: Pool,
        attached: Attached,
        change: ItemChange,
        *,
        old: ItemDefinition | None = None,
        new: ItemDefinition | None = None,
    ) -> None:
        """See `Context.commit`; `old` and `new` are what defines the item before and after."""
        step = group_steps.step(self.context.groups, pool, attached, old, new)
        await self.context.commit(pool, attached, change, step=step)

    def publish(self, kind: str, pool: Pool, item: str, *, via_tree: bool = False, **details: str) -> None:
        self.context.events.publish(
            Event(kind=kind, pool=pool.name, item=item, details=dict(details), via_tree=via_tree)
        )

    def gone(
        self, pool: Pool, kind: str, item: str, number: int, *, via_tree: bool = False, **details: str
    ) -> None:
        """Publish the end of an object, whose identity was `number`."""
        self.context.events.publish(
            Event(
                kind=kind, pool=pool.name, item=item, details=dict(details), via_tree=via_tree, number=number
            )
        )
