"""Items: create, adopt, define, change, rename. `via_tree` marks what the kernel asked for itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import trio

from fspoolfs import names
from fspoolfs.errors import AccessError, ExistsError, InvalidError, StorageError
from fspoolfs.model import changes as model_changes
from fspoolfs.model.definitions import ItemDefinition, Permissions
from fspoolfs.model.states import ItemState, ItemVerb, enter_item
from fspoolfs.service import access
from fspoolfs.service.access import Caller
from fspoolfs.service.changes import CreateItem, UpdateItem, as_refusal
from fspoolfs.service.clones import Clones
from fspoolfs.service.context import Context
from fspoolfs.service.item_work import ItemWork
from fspoolfs.service.moves import RenameItem
from fspoolfs.service.objects import Attached, Item, Pool


class Items(ItemWork):
    """Operations on the items of active pools."""

    def __init__(self, context: Context, clones: Clones) -> None:
        super().__init__(context)
        self._clones = clones

    async def create(
        self, pool: Pool, wanted: ItemDefinition, caller: Caller, *, adopt: bool, via_tree: bool = False
    ) -> Item:
        """Create the item, or with `adopt` take over the directory that is already there.

        Raises `ExistsError`, `AccessError`, `UnsupportedError`, `StorageError`, or
        `InProgressError` when it goes on in the background.
        """
        attached = pool.active()
        if not via_tree:
            access.check_create(pool.name, pool.definition.permissions, caller)
        if wanted.origin is not None:
            definition = self._clones.complete_clone(pool, wanted, caller)
            return await self._clones.clone(pool, definition, caller)
        definition = self.complete(pool, wanted, caller)
        if definition.idmap is not None:
            await self._check_idmap(attached, definition)
        item, lease = await self.reserve(pool, attached, definition)

        def done(error: Exception | None) -> None:
            lease.release()
            self.created(
                pool, attached, item, change.definition, error, via_tree=via_tree and not change.late
            )

        change = CreateItem(
            attached.filesystem,
            definition,
            adopter=caller if adopt else None,
            unset=wanted.permissions,
            on_done=done,
        )
        await self.commit(pool, attached, change, new=definition)
        return item

    async def define(self, pool: Pool, wanted: ItemDefinition, caller: Caller) -> Item:
        """Create the item, or change the one of that name to what `wanted` says."""
        if wanted.name not in pool.items:
            return await self.create(pool, wanted, caller, adopt=True)
        return await self.redefine(pool, pool.items[wanted.name], wanted, caller)

    async def redefine(self, pool: Pool, item: Item, wanted: ItemDefinition, caller: Caller) -> Item:
        """Change `item` to what a document says; what it does not say stays as it is."""
        if item.unreadable:
            return await self._mend(pool, item, wanted, caller)

        def merged(old: ItemDefinition) -> ItemDefinition:
            _check_same_name(old, wanted)
            if wanted.pool not in (None, pool.name):
                raise InvalidError(f"item {old.name} names pool {wanted.pool} as its source, not {pool.name}")
            return self._merge(old, wanted)

        return await self._change(pool, item, merged, caller)

    async def _change(
        self,
        pool: Pool,
        item: Item,
        make: Callable[[ItemDefinition], ItemDefinition],
        caller: Caller,
        *,
        verb: ItemVerb = ItemVerb.DEFINE,
    ) -> Item:
        """Give `item` the definition that `make` makes of the one it has when its turn has come."""
        attached = pool.active()
        lease = await self.lock(pool, attached, item)
        try:
            before = item.state
            # What has failed for its limits alone is mended by others.
            state = before if item.unlimited is None else ItemState.READY
            working = enter_item(item.name, state, verb)
            old = item.definition
            new = make(old)
            changed = model_changes.item_changes(old, new)
            if changed == ("capacity",):  # a document may say no more than the file `capacity` does
                working = enter_item(item.name, state, ItemVerb.RESIZE)
            access.check_redefine(pool.definition.permissions, old, new, changed, caller)
        except BaseException:
            lease.release()
            raise
        if not changed and item.unlimited is None:
            lease.release()
            return item
        if "idmap" in changed:
            try:
                await self._change_idmap(pool, attached, new)
            except BaseException:
                lease.release()
                raise
        item.state = working

        def done(error: Exception | None) -> None:
            lease.release()
            item.state = before if error is not None else ItemState.READY
            if error is not None:
                item.error = as_refusal(error)
                return
            item.definition, item.error = new, None
            item.problem = item.unlimited = None
            item.changed = int(time.time())
            self.publish("item-changed", pool, item.name, changed=" ".join(changed))

        change = UpdateItem(attached.filesystem, old, new, on_done=done)
        await self.commit(pool, attached, change, old=old, new=new)
        return item

    async def _check_idmap(self, attached: Attached, definition: ItemDefinition) -> None:
        """Try what the document asks for. Raises `UnsupportedError` where the storage cannot."""
        idmap = definition.idmap
        assert idmap is not None
        mappings, what = self.context.mappings, f"define item {definition.name}"
        await trio.to_thread.run_sync(
            lambda: mappings.check(attached, what, idmap), limiter=attached.limiter, abandon_on_cancel=True
        )

    async def _change_idmap(self, pool: Pool, attached: Attached, new: ItemDefinition) -> None:
        """The mount with the old map goes; the next look at the link makes another one."""
        if new.idmap is not None:
            await self._check_idmap(attached, new)
        uuid, mappings = new.uuid, self.context.mappings
        assert uuid is not None
        await trio.to_thread.run_sync(lambda: mappings.hide(pool.name, uuid), limiter=attached.limiter)

    async def mapped(self, pool: Pool, item: Item) -> str:
        """Where the item's directory is with mapped ids, mounted there if it is not yet."""
        attached = pool.active()
        self.check_present(pool, attached, item)
        definition, mappings = item.definition, self.context.mappings
        try:
            return await trio.to_thread.run_sync(
                lambda: mappings.show(pool.name, attached, definition),
                limiter=attached.limiter,
                abandon_on_cancel=True,
            )
        except OSError as error:
            raise StorageError.from_os(f"map the ids of item {item.name}", error) from error

    async def _mend(self, pool: Pool, item: Item, wanted: ItemDefinition, caller: Caller) -> Item:
        """Define `item`, whose stored definition cannot be read, anew: its directory is adopted again."""
        attached = pool.active()
        access.check_create(pool.name, pool.definition.permissions, caller)
        _check_same_name(item.definition, wanted)
        lease = await self.lock(pool, attached, item)
        try:
            working = enter_item(item.name, item.state, ItemVerb.ADOPT)
            same_uuid = wanted.uuid in (None, item.uuid)
            definition = self.complete(pool, replace(wanted, uuid=None) if same_uuid else wanted, caller)
            if same_uuid:
                definition = replace(definition, uuid=item.uuid)
            attached.locations.check(definition.location, item.name, besides=item.name)
        except BaseException:
            lease.release()
            raise
        item.state = working
        guessed = item.definition.location
        if definition.location != guessed:
            attached.locations.add(definition.location, item.name)

        def done(error: Exception | None) -> None:
            lease.release()
            if error is not None:
                item.state, item.error = ItemState.FAILED, as_refusal(error)
                if definition.location != guessed:
                    attached.locations.remove(definition.location)
                return
            if definition.location != guessed:
                attached.locations.remove(guessed)
            item.definition, item.state = change.definition, ItemState.READY
            item.error, item.problem, item.unreadable = None, None, False
            item.changed = int(time.time())
            self.publish("item-changed", pool, item.name)

        change = CreateItem(
            attached.filesystem,
            definition,
            adopter=caller,
            unset=wanted.permissions,
            mends=True,
            on_done=done,
        )
        await self.commit(pool, attached, change, old=item.definition, new=definition)
        return item

    def _merge(self, old: ItemDefinition, wanted: ItemDefinition) -> ItemDefinition:
        """`wanted`, with what can never change or was not said taken from `old`."""
        said = wanted.permissions
        path = names.check_item_path(wanted.path) if wanted.path is not None else old.path
        return replace(
            wanted,
            uuid=wanted.uuid or old.uuid,
            pool=None,
            path=old.path if path in (old.path, f"/{old.location}") else path,
            origin=wanted.origin or old.origin,
            permissions=Permissions(
                mode=old.permissions.mode if said.mode is None else said.mode,
                owner=old.permissions.owner if said.owner is None else said.owner,
                group=old.permissions.group if said.group is None else said.group,
            ),
        )

    async def set_permissions(self, pool: Pool, item: Item, permissions: Permissions, caller: Caller) -> None:
        """What chmod and chown of the item's directory do; `None` leaves a value."""

        def with_permissions(old: ItemDefinition) -> ItemDefinition:
            return self._merge(old, replace(old, permissions=permissions))

        await self._change(pool, item, with_permissions, caller)

    async def set_capacity(self, pool: Pool, item: Item, capacity: int | None, caller: Caller) -> None:
        """`None` lifts the limit, and with it a soft limit that is a part of it."""
        if not access.owns_pool(pool.definition.permissions, caller):
            raise AccessError(f"the capacity of item {item.name} is the pool owner's to change")

        def resized(old: ItemDefinition) -> ItemDefinition:
            meaningless = capacity is None and old.soft is not None and old.soft.percent is not None
            return replace(old, capacity=capacity, soft=None if meaningless else old.soft)

        await self._change(pool, item, resized, caller, verb=ItemVerb.RESIZE)

    async def rename(self, pool: Pool, name: str, new_name: str, *, via_tree: bool = False) -> None:
        """Raises `ExistsError` when the new name is taken, `BusyError` when the item is in use."""
        attached = pool.active()
        new_name = names.check_name(new_name)
        item = self.find(pool, name)
        if name == new_name:
            return
        lease = await self.lock(pool, attached, item, new_name)
        try:
            working = enter_item(item.name, item.state, ItemVerb.RENAME)
            if new_name in attached.items:
                raise ExistsError(f"item {new_name} exists already in pool {pool.name}")
            old = item.definition
            new = replace(old, name=new_name)
            attached.locations.check(new.location, new_name, besides=name)
        except BaseException:
            lease.release()
            raise
        # Holds the name and the place that the item is about to take.
        placeholder = Item(new, ItemState.CREATING)
        item.state = working
        attached.put(placeholder)

        def done(error: Exception | None) -> None:
            lease.release()
            attached.drop(placeholder)
            item.state = ItemState.READY
            if error is not None:
                item.error = as_refusal(error)
                return
            attached.drop(item)
            item.definition, item.error = new, None
            item.changed = int(time.time())
            attached.put(item)
            self.publish("item-renamed", pool, new_name, via_tree=via_tree and not change.late, old=name)

        change = RenameItem(
            attached.filesystem,
            old,
            new,
            in_use=self.in_use(pool, attached, f"rename item {name}", item.uuid),
            on_done=done,
        )
        await self.commit(pool, attached, change, old=old, new=new)


def _check_same_name(old: ItemDefinition, wanted: ItemDefinition) -> None:
    if wanted.name != old.name:
        raise InvalidError(f"the document defines item {wanted.name}, not {old.name}; rename it with mv")
