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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from uuid import UUID

from fspoolfs.errors import QuotaError
from fspoolfs.model.definitions import ItemDefinition, Quota, quota_keys


class Standing(NamedTuple):
    """How much of a quota is taken: bytes and items; `unlimited` items have no capacity at all."""

    quota: Quota
    size: int
    items: int
    unlimited: int


#: Whose sum: see `quota_keys`.
_Key = tuple[str, int | None]


class _Sum:
    """What the items of one subject may come to hold, how many there are, and how many have no capacity."""

    __slots__ = ("items", "size", "unlimited")

    def __init__(self) -> None:
        self.size = self.items = self.unlimited = 0

    def add(self, part: _Part, sign: int) -> None:
        self.size += sign * part.size
        self.items += sign
        self.unlimited += sign * part.unlimited


class _Part(NamedTuple):
    """What one item has of a sum."""

    size: int
    unlimited: int


_IN_TRASH = _Part(0, 0)
_NOTHING = _Sum()


class Accounts:
    """The sums of one attached pool. Threads may share it.

    Kept by owner and group, however many quotas there are, and only while there is one.
    """

    def __init__(self, quotas: tuple[Quota, ...] = ()) -> None:
        self._lock = threading.Lock()
        self._quotas = quotas
        #: By the number of the item's uuid, whose hash costs nothing.
        self._there: dict[int, ItemDefinition] = {}
        self._trashed: dict[int, ItemDefinition] = {}
        #: What changes under way have claimed for an item.
        self._claimed: dict[int, ItemDefinition] = {}
        self._sums: dict[_Key, _Sum] = {}

    # -- what a pool says and what it holds -------------------------------------------------------

    def limit(self, quotas: tuple[Quota, ...]) -> None:
        """Let other quotas hold from now on; what is above one already stays."""
        with self._lock:
            self._quotas = quotas
            self._sum_up()

    def renew(self, items: Iterable[ItemDefinition], trash: Iterable[ItemDefinition]) -> None:
        """Let the pool hold what its storage says; what changes under way have claimed stays."""
        with self._lock:
            self._there = {_number(one): one for one in items}
            self._trashed = {_number(one): one for one in trash}
            self._sum_up()

    def note(self, definition: ItemDefinition) -> None:
        """An item is there, by a change that asked nobody here."""
        number = _number(definition)
        with self._changing(number):
            self._trashed.pop(number, None)
            self._there[number] = definition

    def note_trashed(self, definition: ItemDefinition) -> None:
        """An item is in the trash now."""
        number = _number(definition)
        with self._changing(number):
            self._there.pop(number, None)
            self._trashed[number] = definition

    def forget(self, uuid: UUID) -> None:
        """Of an item nothing is left."""
        with self._changing(uuid.int):
            self._there.pop(uuid.int, None)
            self._trashed.pop(uuid.int, None)

    # -- changes ----------------------------------------------------------------------------------

    def claim(self, definition: ItemDefinition, what: str) -> None:
        """Take what the item is to be allowed to hold; `what` is being done. May be repeated.

        Raises `QuotaError` where that is more than a quota leaves, and claims nothing then.
        """
        number = _number(definition)
        with self._changing(number):
            self._claimed.pop(number, None)
            old, was = self._there.get(number), self._there.get(number) or self._trashed.get(number)
            keys = quota_keys(definition)
            for quota in self._quotas:
                if quota.key in keys:
                    self._check_size(quota, definition, old, what)
                    self._check_items(quota, definition, was, what)
            self._claimed[number] = definition

    def settle(self, uuid: UUID, *, done: bool) -> None:
        """A change of the item has ended, and what it claimed holds or is given back."""
        number = uuid.int
        with self._changing(number):
            claimed = self._claimed.pop(number, None)
            if claimed is not None and done:
                self._trashed.pop(number, None)
                self._there[number] = claimed

    def _check_size(self, quota: Quota, new: ItemDefinition, old: ItemDefinition | None, what: str) -> None:
        before = old.capacity if old is not None and quota.key in quota_keys(old) else 0
        if quota.size is None or new.capacity == before:
            return
        if new.capacity is None:
            raise QuotaError(
                f"{what}: {quota.subject} has a quota, and an item without a capacity could grow beyond it; "
                "give the item a capacity, or the pool <defaults> with one"
            )
        taken = self._sum(quota).size  # of all others: see `_changing`
        if new.capacity > (before or 0) and taken + new.capacity > quota.size:
            left = max(0, quota.size - taken - (before or 0))
            raise QuotaError(
                f"{what}: the quota of {quota.subject} is {quota.size} bytes, of which "
                f"{taken + (before or 0)} are promised to items, so that {left} are left; "
                f"{new.capacity - (before or 0)} more were asked for"
            )

    def _check_items(self, quota: Quota, new: ItemDefinition, was: ItemDefinition | None, what: str) -> None:
        if quota.items is None or (was is not None and quota.key in quota_keys(was)):
            return
        count = self._sum(quota).items
        if count >= quota.items:
            raise QuotaError(
                f"{what}: the quota of {quota.subject} is {quota.items} items, and there are {count}, "
                "those in the trash included; delete some, and purge them from the trash"
            )

    # -- sums -------------------------------------------------------------------------------------

    def standings(self) -> list[Standing]:
        """Where each quota stands."""
        with self._lock:
            sums = [(quota, self._sum(quota)) for quota in self._quotas]
            return [
                Standing(quota, one.size, one.items, one.unlimited if quota.size is not None else 0)
                for quota, one in sums
            ]

    def _sum(self, quota: Quota) -> _Sum:
        return self._sums.get(quota.key, _NOTHING)

    @contextmanager
    def _changing(self, number: int) -> Iterator[None]:
        """Hold the lock; the sums are those of all other items meanwhile, and follow what is done."""
        with self._lock:
            if not self._quotas:
                yield
                return
            self._add(number, -1)
            try:
                yield
            finally:
                self._add(number, 1)

    def _sum_up(self) -> None:
        self._sums.clear()
        if not self._quotas:
            return
        mixed = self._trashed.keys() | self._claimed.keys()
        # Most are what they are, and belong to few: their sums are put together before they are added.
        alike: dict[tuple[int | None, int | None], _Sum] = {}
        example: dict[tuple[int | None, int | None], ItemDefinition] = {}
        for number, one in self._there.items():
            if number not in mixed:
                whose = (one.permissions.owner, one.permissions.group)
                if whose not in alike:
                    alike[whose], example[whose] = _Sum(), one
                alike[whose].add(_Part(one.capacity or 0, int(one.capacity is None)), 1)
        for whose, found in alike.items():
            for key in quota_keys(example[whose]):
                known = self._sums.setdefault(key, _Sum())
                known.size += found.size
                known.items += found.items
                known.unlimited += found.unlimited
        for number in mixed:
            self._add(number, 1)

    def _add(self, number: int, sign: int) -> None:
        for key, part in self._parts(number).items():
            if key not in self._sums:
                self._sums[key] = _Sum()
            self._sums[key].add(part, sign)

    def _parts(self, number: int) -> dict[_Key, _Part]:
        """What one item has of each sum: the larger of what it is and what is claimed for it."""
        parts: dict[_Key, _Part] = {}
        if (trashed := self._trashed.get(number)) is not None:
            parts.update((key, _IN_TRASH) for key in quota_keys(trashed))
        for one in (self._there.get(number), self._claimed.get(number)):
            if one is not None:
                part = _Part(one.capacity or 0, int(one.capacity is None))
                for key in quota_keys(one):
                    parts[key] = max(part, parts.get(key, _IN_TRASH))
        return parts


def _number(definition: ItemDefinition) -> int:
    assert definition.uuid is not None, "an item that is counted has a uuid"
    return definition.uuid.int
