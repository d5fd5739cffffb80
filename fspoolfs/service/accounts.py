"""What the items of a pool, of a user, of a group may come to hold together, and the quotas of that.

A change that would add to a sum claims it before it is journalled, in the committer's thread, which
carries changes out one after the other; what the change comes to is told when it is settled. In
between an item counts as the larger of what it was and what it is to be, so that nobody gets what a
change that fails would have to give back. Where hosts share the pool, the changes of others are
noted at the begin of each turn, before anything is claimed in it.

What is in the trash has no part in a sum of capacities, and is counted among the items.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from uuid import UUID

from fspoolfs.errors import QuotaError
from fspoolfs.model.definitions import ItemDefinition, Quota


class Standing(NamedTuple):
    """How much of a quota is taken: bytes and items; `unlimited` items have no capacity at all."""

    quota: Quota
    size: int
    items: int
    unlimited: int


class Accounts:
    """The sums of one attached pool. Threads may share it."""

    def __init__(self, quotas: tuple[Quota, ...] = ()) -> None:
        self._lock = threading.Lock()
        self._quotas = quotas
        self._there: dict[UUID, ItemDefinition] = {}
        self._trashed: dict[UUID, ItemDefinition] = {}
        #: What changes under way have claimed for an item.
        self._claimed: dict[UUID, ItemDefinition] = {}
        #: By quota; kept only while there are some.
        self._sizes: Counter[Quota] = Counter()
        self._items: Counter[Quota] = Counter()

    # -- what a pool says and what it holds -------------------------------------------------------

    def limit(self, quotas: tuple[Quota, ...]) -> None:
        """Let other quotas hold from now on; what is above one already stays."""
        with self._lock:
            self._quotas = quotas
            self._sum_up()

    def renew(self, items: Iterable[ItemDefinition], trash: Iterable[ItemDefinition]) -> None:
        """Let the pool hold what its storage says; what changes under way have claimed stays."""
        with self._lock:
            self._there = {_uuid(one): one for one in items}
            self._trashed = {_uuid(one): one for one in trash}
            self._sum_up()

    def note(self, definition: ItemDefinition) -> None:
        """An item is there, by a change that asked nobody here."""
        uuid = _uuid(definition)
        with self._changing(uuid):
            self._trashed.pop(uuid, None)
            self._there[uuid] = definition

    def note_trashed(self, definition: ItemDefinition) -> None:
        """An item is in the trash now."""
        uuid = _uuid(definition)
        with self._changing(uuid):
            self._there.pop(uuid, None)
            self._trashed[uuid] = definition

    def forget(self, uuid: UUID) -> None:
        """Of an item nothing is left."""
        with self._changing(uuid):
            self._there.pop(uuid, None)
            self._trashed.pop(uuid, None)

    # -- changes ----------------------------------------------------------------------------------

    def claim(self, definition: ItemDefinition, what: str) -> None:
        """Take what the item is to be allowed to hold; `what` is being done. May be repeated.

        Raises `QuotaError` where that is more than a quota leaves, and claims nothing then.
        """
        uuid = _uuid(definition)
        with self._changing(uuid):
            self._claimed.pop(uuid, None)
            old, was = self._there.get(uuid), self._there.get(uuid) or self._trashed.get(uuid)
            for quota in self._quotas:
                if quota.covers(definition):
                    self._check_size(quota, definition, old, what)
                    self._check_items(quota, definition, was, what)
            self._claimed[uuid] = definition

    def settle(self, uuid: UUID, *, done: bool) -> None:
        """A change of the item has ended, and what it claimed holds or is given back."""
        with self._changing(uuid):
            claimed = self._claimed.pop(uuid, None)
            if claimed is not None and done:
                self._trashed.pop(uuid, None)
                self._there[uuid] = claimed

    def _check_size(self, quota: Quota, new: ItemDefinition, old: ItemDefinition | None, what: str) -> None:
        covered = old is not None and quota.covers(old)
        before = old.capacity if covered and old is not None else 0
        if quota.size is None or new.capacity == before:
            return
        if new.capacity is None:
            raise QuotaError(
                f"{what}: {quota.subject} has a quota, and an item without a capacity could grow beyond it; "
                "give the item a capacity, or the pool <defaults> with one"
            )
        taken = self._sizes[quota]  # of all others: see `_changing`
        if new.capacity > (before or 0) and taken + new.capacity > quota.size:
            left = max(0, quota.size - taken - (before or 0))
            raise QuotaError(
                f"{what}: the quota of {quota.subject} is {quota.size} bytes, of which "
                f"{taken + (before or 0)} are promised to items, so that {left} are left; "
                f"{new.capacity - (before or 0)} more were asked for"
            )

    def _check_items(self, quota: Quota, new: ItemDefinition, was: ItemDefinition | None, what: str) -> None:
        if quota.items is None or (was is not None and quota.covers(was)):
            return
        count = self._items[quota]
        if count >= quota.items:
            raise QuotaError(
                f"{what}: the quota of {quota.subject} is {quota.items} items, and there are {count}, "
                "those in the trash included; delete some, and purge them from the trash"
            )

    # -- sums -------------------------------------------------------------------------------------

    def standings(self) -> list[Standing]:
        """Where each quota stands."""
        with self._lock:
            unlimited = Counter(
                quota
                for quota in self._quotas
                for one in self._there.values()
                if one.capacity is None and quota.size is not None and quota.covers(one)
            )
            return [
                Standing(quota, self._sizes[quota], self._items[quota], unlimited[quota])
                for quota in self._quotas
            ]

    @contextmanager
    def _changing(self, uuid: UUID) -> Iterator[None]:
        """Hold the lock; the sums follow what is done to one item."""
        with self._lock:
            for quota in self._quotas:
                self._add(quota, uuid, -1)
            try:
                yield
            finally:
                for quota in self._quotas:
                    self._add(quota, uuid, 1)

    def _sum_up(self) -> None:
        self._sizes.clear()
        self._items.clear()
        for quota in self._quotas:
            for uuid in self._there.keys() | self._trashed.keys() | self._claimed.keys():
                self._add(quota, uuid, 1)

    def _add(self, quota: Quota, uuid: UUID, sign: int) -> None:
        size, items = self._part(quota, uuid)
        self._sizes[quota] += sign * size
        self._items[quota] += sign * items

    def _part(self, quota: Quota, uuid: UUID) -> tuple[int, int]:
        """What one item has of a quota: bytes, and 1 where it is counted."""
        live = [
            one
            for one in (self._there.get(uuid), self._claimed.get(uuid))
            if one is not None and quota.covers(one)
        ]
        trashed = self._trashed.get(uuid)
        counted = bool(live) or (trashed is not None and quota.covers(trashed))
        return max((one.capacity or 0 for one in live), default=0), int(counted)


def _uuid(definition: ItemDefinition) -> UUID:
    assert definition.uuid is not None, "an item that is counted has a uuid"
    return definition.uuid
