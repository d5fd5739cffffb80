"""Deleting items: into the trash, back, and out of it for good."""

from __future__ import annotations

import time
from dataclasses import replace

from fspoolfs import names
from fspoolfs.backends import layout
from fspoolfs.errors import BusyError
from fspoolfs.model.states import ItemState, ItemVerb, enter_item
from fspoolfs.service import trashcan
from fspoolfs.service.changes import as_refusal
from fspoolfs.service.item_work import ItemWork
from fspoolfs.service.moves import DeleteItem, PurgeTrash, UndeleteItem
from fspoolfs.service.objects import Pool


class Trash(ItemWork):
    """Operations that take items away and bring them back."""

    async def delete(self, pool: Pool, name: str, *, via_tree: bool = False) -> None:
        """Move the item into the trash; where the pool keeps none, purge it in the background."""
        attached = pool.active()
        item = self.find(pool, name)
        lease = await self.lock(pool, attached, item)
        before = item.state
        try:
            self.check_unread(item, "delete")
            working = enter_item(item.name, before, ItemVerb.DELETE)
        except BaseException:
            lease.release()
            raise
        item.state = working
        keep = pool.definition.trash.retention > 0
        entry = trashcan.new_entry(item.definition, int(time.time()), attached.trash)
        entry.snapshots = item.snapshots
        if keep:
            # It keeps the name while the change is under way.
            entry.busy = True
            attached.trash[entry.name] = entry

        def done(error: Exception | None) -> None:
            lease.release()
            if error is not None:
                attached.trash.pop(entry.name, None)
                item.state, item.error = before, as_refusal(error)
                return
            entry.busy = False
            attached.drop(item)
            if not change.kept:
                attached.trash.pop(entry.name, None)
                attached.rubbish.set()
            self.gone(pool, "item-deleted", name, item.number, via_tree=via_tree and not change.late)

        change = DeleteItem(
            attached.filesystem,
            entry,
            keep=keep,
            as_written=before is not ItemState.FAILED,
            in_use=self.in_use(
                pool, attached, f"delete item {name}", entry.uuid, besides=layout.snapshots(entry.uuid)
            ),
            on_done=done,
        )
        await self.commit(pool, attached, change, old=item.definition)

    async def undelete(self, pool: Pool, trash_name: str, name: str, *, via_tree: bool = False) -> None:
        """Bring an item back from the trash under `name`."""
        attached = pool.active()
        name = names.check_name(name)
        entry = self.find_trashed(pool, trash_name)
        new = replace(entry.definition, name=name)
        item, lease = await self.reserve(pool, attached, new)
        item.snapshots = entry.snapshots
        if attached.trash.get(trash_name) is not entry:
            lease.release()
            attached.drop(item)
            raise BusyError(f"{trash_name} is being taken out of the trash of pool {pool.name} already")
        del attached.trash[trash_name]

        def done(error: Exception | None) -> None:
            lease.release()
            if error is not None:
                attached.drop(item)
                attached.trash[trash_name] = entry
                entry.error = as_refusal(error)
                return
            item.state = ItemState.READY
            asked = via_tree and not change.late
            self.gone(pool, "trash-restored", trash_name, entry.number, via_tree=asked)
            self.publish("item-created", pool, name, via_tree=asked)

        change = UndeleteItem(
            attached.filesystem,
            entry,
            new,
            on_done=done,
        )
        await self.commit(pool, attached, change, new=new)

    async def purge(self, pool: Pool, trash_name: str, *, via_tree: bool = False) -> None:
        """Take a deleted item out of the trash for good; its storage goes in the background."""
        attached = pool.active()
        entry = self.find_trashed(pool, trash_name)
        del attached.trash[trash_name]

        def done(error: Exception | None) -> None:
            if error is not None:
                attached.trash[trash_name] = entry
                entry.error = as_refusal(error)
                return
            attached.rubbish.set()
            self.gone(pool, "trash-purged", trash_name, entry.number, via_tree=via_tree and not change.late)

        change = PurgeTrash(
            attached.filesystem,
            entry,
            on_done=done,
        )
        await self.commit(pool, attached, change)
