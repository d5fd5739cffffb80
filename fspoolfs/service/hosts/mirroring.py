"""Takes what other hosts have changed into the objects in memory, as the journal or the storage tells it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from uuid import UUID

from fspoolfs.backends import layout
from fspoolfs.errors import FspoolError
from fspoolfs.model.states import ItemState
from fspoolfs.service import trashcan
from fspoolfs.service.context import Context
from fspoolfs.service.events import Event
from fspoolfs.service.intents import Intent, Outcome
from fspoolfs.service.objects import Attached, Item, Pool, Snapshot, TrashEntry

log = logging.getLogger(__name__)

_ENDED = (Outcome.PURGED, Outcome.ABORTED)


class Mirror:
    """The objects of one attached pool. The event loop's."""

    def __init__(self, pool: Pool, attached: Attached, context: Context) -> None:
        self._pool = pool
        self._attached = attached
        self._context = context

    def take_in(self, intent: Intent) -> bool:
        """Make true in memory what is true in the storage; whether snapshots have to be looked at."""
        if intent.outcome is Outcome.PLACED:
            return self._place(intent)
        if intent.outcome in _ENDED:
            self._remove(intent.uuid)
            return False
        if intent.outcome is Outcome.TRASHED:
            self._trash(intent)
        return True

    # -- items ------------------------------------------------------------------------------------

    def _place(self, intent: Intent) -> bool:
        definition, attached = intent.definition, self._attached
        item, trashed = self._attached.find(intent.uuid), self._find_trashed(intent.uuid)
        if item is None:
            item = Item(definition, ItemState.READY, changed=int(time.time()))
            if trashed is not None:
                item.snapshots = trashed.snapshots
                self._forget_trashed(trashed, "trash-restored")
            attached.put(item)
            self._publish("item-created", item.name)
            return bool(intent.was_path)
        old = item.definition
        if old == definition and not intent.restored:
            return False
        attached.drop(item)
        item.definition, item.changed = definition, int(time.time())
        if item.state in (ItemState.MISSING, ItemState.FAILED):
            item.state, item.error, item.problem, item.unreadable = ItemState.READY, None, None, False
            item.unlimited = None  # what is told next is heard by who brings limits into force
        attached.put(item)
        if old.name != definition.name:
            self._publish("item-renamed", item.name, old=old.name)
        else:
            self._publish("item-rolled-back" if intent.restored else "item-changed", item.name)
        return bool(intent.restored)

    def _trash(self, intent: Intent) -> None:
        item = self._attached.find(intent.uuid)
        if item is not None:
            self._drop(item)
        known = self._find_trashed(intent.uuid)
        if known is not None and known.record == intent.record:
            return
        try:
            file = intent.record.removeprefix(f"{layout.TRASH}/")
            entry = trashcan.entry_of(file, intent.definition, self._attached.trash)
        except FspoolError as error:
            log.error("pool %s: %s", self._pool.name, error)
            return
        entry.snapshots = item.snapshots if item is not None else entry.snapshots
        self._attached.trash[entry.name] = entry
        self._attached.reconsider.set()

    def _remove(self, uuid: UUID) -> None:
        item, entry = self._attached.find(uuid), self._find_trashed(uuid)
        if item is not None:
            self._drop(item)
        if entry is not None and not entry.busy:
            self._forget_trashed(entry, "trash-purged")

    def _drop(self, item: Item) -> None:
        self._attached.drop(item)
        self._publish("item-deleted", item.name, number=item.number)

    def _forget_trashed(self, entry: TrashEntry, kind: str) -> None:
        if self._attached.trash.get(entry.name) is entry:
            del self._attached.trash[entry.name]
            self._publish(kind, entry.name, number=entry.number)

    def replace_trash(self, found: Mapping[str, TrashEntry]) -> None:
        """Let the trash be what the storage has; entries that are on their way stay."""
        now = {entry.record: entry for entry in found.values()}
        for entry in list(self._attached.trash.values()):
            if now.pop(entry.record, None) is None and not entry.busy:
                self._forget_trashed(entry, "trash-purged")
        for entry in now.values():
            self._attached.trash.setdefault(entry.name, entry)

    # -- snapshots --------------------------------------------------------------------------------

    def replace_snapshots(self, uuid: UUID, found: Sequence[Snapshot]) -> None:
        """Let the snapshots of an item be those that the storage has; one that is being made stays."""
        item = self._attached.find(uuid)
        entry = self._find_trashed(uuid)
        if entry is not None:
            entry.snapshots = {one.name: one for one in found}
        if item is None:
            return
        now = {one.entry: one for one in found}
        for known in list(item.snapshots.values()):
            if now.pop(known.entry, None) is None and known.job is None:
                item.drop_snapshot(known.name)
                self._publish("snapshot-deleted", item.name, number=known.number, snapshot=known.name)
        for one in now.values():
            item.put_snapshot(one)
            self._publish("snapshot-created", item.name, snapshot=one.name)

    # -- help -------------------------------------------------------------------------------------

    def _find_trashed(self, uuid: UUID) -> TrashEntry | None:
        return next((entry for entry in self._attached.trash.values() if entry.uuid == uuid), None)

    def _publish(self, kind: str, item: str, *, number: int = 0, **details: str) -> None:
        self._context.events.publish(
            Event(kind=kind, pool=self._pool.name, item=item, number=number, details=dict(details))
        )
