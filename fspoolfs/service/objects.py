"""Pools, items and trash entries as the daemon holds them: a definition, a state, and what runs.

These are caches of what the storage and the state directory say. They are touched by the event
loop alone; threads work on what they are handed.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from uuid import UUID

import trio

from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.source import Source
from fspoolfs.errors import ExistsError, FspoolError, InactiveError, TimeLimitError
from fspoolfs.model.definitions import ItemDefinition, PoolDefinition
from fspoolfs.model.infos import Feature, SpaceInfo, UsageInfo
from fspoolfs.model.limits import Limits
from fspoolfs.model.states import ItemState, PoolState
from fspoolfs.service.accounts import Accounts
from fspoolfs.service.committer import Committer
from fspoolfs.service.hosts.membership import Membership, Tenancy
from fspoolfs.service.jobs import Job
from fspoolfs.service.locks import KeyedLocks

#: Identities of objects for as long as the daemon runs; none is ever given twice. They come in
#: pairs: the odd one is for the directory of an object's own kind inside it, as an item's snapshots.
_numbers = itertools.count(16, 2)
#: How many requests of one pool may be in worker threads at once; a hung pool blocks no more.
THREADS_PER_POOL = 8


def new_number() -> int:
    """An identity that nothing else has or will have."""
    return next(_numbers)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a `measure` found, and when (seconds since the epoch)."""

    usage: UsageInfo
    time: float


class Item:
    """One item. `number` is its identity in the control tree, `changed` a time for stat(2).

    `error` is the last failed request, `problem` why it is missing or has failed: asking for
    something that such an item refuses does not make the reason forgotten.
    """

    __slots__ = (
        "above_soft",
        "changed",
        "counted",
        "definition",
        "error",
        "job",
        "measured",
        "number",
        "problem",
        "readers",
        "snapshots",
        "state",
        "unlimited",
        "unreadable",
    )

    def __init__(self, definition: ItemDefinition, state: ItemState, *, changed: int = 0) -> None:
        self.definition = definition
        self.state = state
        self.changed = changed
        self.number = new_number()
        self.error: FspoolError | None = None
        self.problem: FspoolError | None = None
        #: Whether its stored definition cannot be read; a new one mends that.
        self.unreadable = False
        #: Why its limits are not in force, where it has failed for that; another definition mends it.
        self.unlimited: FspoolError | None = None
        self.job: Job | None = None
        self.measured: Measured | None = None
        #: By name. Most items have none and share one that stays empty: see `put_snapshot`.
        self.snapshots: Mapping[str, Snapshot] = _NOTHING
        #: The jobs that read what it holds; until they have ended it can be renamed, but not deleted.
        self.readers: tuple[Job, ...] = ()
        #: What the storage counted when it was last looked at.
        self.counted: UsageInfo | None = None
        #: Whether it held its soft limit or more when that was last looked at; `None` without one.
        self.above_soft: bool | None = None

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def uuid(self) -> UUID:
        assert self.definition.uuid is not None, "a stored definition has a uuid"
        return self.definition.uuid

    def begin_reading(self, job: Job) -> None:
        """`job` reads what the item holds from now on."""
        self.readers = (*self.readers, job)

    def end_reading(self, job: Job) -> None:
        self.readers = tuple(reader for reader in self.readers if reader is not job)

    def put_snapshot(self, snapshot: Snapshot) -> None:
        self.snapshots = {**self.snapshots, snapshot.name: snapshot}

    def drop_snapshot(self, name: str) -> None:
        """Forget a snapshot, if there is one of that name."""
        self.snapshots = {key: one for key, one in self.snapshots.items() if key != name} or _NOTHING

    @property
    def snapshots_number(self) -> int:
        """The identity of the directory of its snapshots."""
        return self.number + 1


class Snapshot:
    """What an item held at one moment. `created` is in milliseconds since the epoch."""

    __slots__ = ("created", "error", "job", "name", "number", "place")

    def __init__(self, name: str, created: int, *, job: Job | None = None) -> None:
        self.name = name
        self.created = created
        #: Where what it holds was seen last, below the pool's root; "" where that is its directory.
        self.place = ""
        #: The copying that makes it; `None` once it is there.
        self.job = job
        self.number = new_number()
        self.error: FspoolError | None = None

    @property
    def entry(self) -> str:
        """The name of its directory, which is all that is stored of it."""
        return f"{self.created}.{self.name}"

    @classmethod
    def parse(cls, entry: str) -> Snapshot | None:
        """The snapshot whose directory is called `entry`; `None` where that is none's."""
        created, _, name = entry.partition(".")
        return cls(name, int(created)) if created.isascii() and created.isdigit() and name else None


class TrashEntry:
    """A deleted item that is not purged yet; `name` is unique in its pool's trash.

    `deleted` is in seconds since the epoch; `record` is the file, beneath the pool's root, that
    holds the definition.
    """

    __slots__ = ("busy", "definition", "deleted", "error", "name", "number", "record", "snapshots")

    def __init__(self, name: str, definition: ItemDefinition, deleted: int, record: str) -> None:
        self.name = name
        self.definition = definition
        self.deleted = deleted
        self.record = record
        #: Whether it is on its way into the trash and cannot be taken out yet.
        self.busy = False
        self.number = new_number()
        self.error: FspoolError | None = None
        self.snapshots: Mapping[str, Snapshot] = _NOTHING

    @property
    def uuid(self) -> UUID:
        assert self.definition.uuid is not None, "a stored definition has a uuid"
        return self.definition.uuid


class Locations:
    """The directories that items occupy, so that none lies inside another."""

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}
        #: How many items lie somewhere below a directory.
        self._above: Counter[str] = Counter()

    def check(self, location: str, name: str, *, besides: str = "") -> None:
        """Raise `ExistsError` if an item other than `besides` is at, above or below `location`."""
        for place in itertools.chain((location,), _parents(location)):
            owner = self._owners.get(place)
            if owner is not None and owner != besides:
                raise ExistsError(f"item {name} cannot be at /{location}: item {owner} is at /{place}")
        if self._above[location]:
            raise ExistsError(f"item {name} cannot be at /{location}: other items lie inside that directory")

    def add(self, location: str, name: str) -> None:
        self._owners[location] = name
        if "/" in location:  # most lie in the root itself
            self._above.update(_parents(location))

    def remove(self, location: str) -> None:
        if self._owners.pop(location, None) is not None:
            for parent in _parents(location):
                self._above[parent] -= 1
                if not self._above[parent]:
                    del self._above[parent]


def _parents(location: str) -> list[str]:
    parts = location.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


@dataclass(slots=True, kw_only=True, eq=False)
class Attached:
    """What a pool has from one start to the stop that follows, and never shares with the next.

    Work that outlives the stop (storage that hung, say) ends up here, where nobody looks any more.
    """

    root: RootDirectory
    source: Source
    filesystem: FileSystem
    features: tuple[Feature, ...]
    committer: Committer
    #: This host's place among those that can have the pool active, and what it shares with the others:
    #: `None` where there can be no other, and where there is none at a time.
    tenancy: Tenancy | None = None
    membership: Membership | None = None
    items: dict[str, Item] = field(default_factory=dict)
    trash: dict[str, TrashEntry] = field(default_factory=dict)
    #: What its items may come to hold, by whose they are.
    accounts: Accounts = field(default_factory=Accounts)
    locations: Locations = field(default_factory=Locations)
    #: The limits that are in force for users of items, by the item's name; most have none.
    limited: dict[str, Limits] = field(default_factory=dict)
    locks: KeyedLocks = field(default_factory=KeyedLocks)
    limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(THREADS_PER_POOL))
    #: Where the host shows the snapshots for reading; `None` until there is one.
    exposed: str | None = None
    #: When remote storage has answered last, by trio's clock; `None` for this host's own.
    heard: float | None = None
    #: Set when something waits to be removed.
    rubbish: trio.Event = field(default_factory=trio.Event)
    #: Set when the trash may have to be emptied sooner than was thought.
    reconsider: trio.Event = field(default_factory=trio.Event)
    _by_uuid: dict[UUID, Item] = field(default_factory=dict, init=False)
    _observers: list[set[str]] = field(default_factory=list, init=False)

    @contextmanager
    def observed(self) -> Iterator[Set[str]]:
        """The names under which items have come or gone since it was entered."""
        touched: set[str] = set()
        self._observers.append(touched)
        try:
            yield touched
        finally:
            self._observers = [others for others in self._observers if others is not touched]

    def put(self, item: Item) -> None:
        """Take `item` in under its name and at its place."""
        self.items[item.name] = item
        # What holds a new name for an item is not the item.
        self._by_uuid.setdefault(item.uuid, item)
        self.locations.add(item.definition.location, item.name)
        for touched in self._observers:
            touched.add(item.name)

    def drop(self, item: Item) -> None:
        """Forget `item`, if it is still the one of its name."""
        if self.items.get(item.name) is item:
            del self.items[item.name]
            if self._by_uuid.get(item.uuid) is item:
                del self._by_uuid[item.uuid]
            self.locations.remove(item.definition.location)
            for touched in self._observers:
                touched.add(item.name)

    def find(self, uuid: UUID) -> Item | None:
        """The item whose uuid it is, whatever its name is by now."""
        return self._by_uuid.get(uuid)


class Pool:
    """One pool. `pending` is the definition that the next start brings into force.

    `error` is the last failed request, `problem` why it has failed.
    """

    def __init__(self, definition: PoolDefinition, *, autostart: bool = False) -> None:
        self.definition = definition
        self.pending: PoolDefinition | None = None
        self.autostart = autostart
        self.state = PoolState.INACTIVE
        self.error: FspoolError | None = None
        self.problem: FspoolError | None = None
        #: Why its stored definition cannot be read; nothing but a new definition helps.
        self.unreadable: FspoolError | None = None
        #: What no other pool may share: see `Source.identity`; and the real path of its target.
        self.identity = ""
        self.real_target = ""
        self.job: Job | None = None
        #: A purge in the background; it never stands in the way of a verb.
        self.purging: Job | None = None
        self.attached: Attached | None = None
        #: Whether it is to be active: what has failed is then started again where that may help.
        self.wanted = False
        self.space: SpaceInfo | None = None
        self.number = new_number()
        self.items_number = new_number()
        self.trash_number = new_number()
        self.changed = 0
        self._limiter = trio.CapacityLimiter(THREADS_PER_POOL)

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def uuid(self) -> UUID:
        assert self.definition.uuid is not None, "a stored definition has a uuid"
        return self.definition.uuid

    @property
    def target(self) -> str:
        assert self.definition.target is not None, "a stored definition has a target"
        return self.definition.target

    @property
    def items(self) -> Mapping[str, Item]:
        """By name; none while it is not attached."""
        return self.attached.items if self.attached is not None else _NOTHING

    @property
    def trash(self) -> Mapping[str, TrashEntry]:
        """By name in the trash; none while it is not attached."""
        return self.attached.trash if self.attached is not None else _NOTHING

    @property
    def limiter(self) -> trio.CapacityLimiter:
        """For the threads that work on its storage."""
        return self.attached.limiter if self.attached is not None else self._limiter

    @property
    def is_shared(self) -> bool:
        """Whether other hosts may have it active at the same time."""
        return self.attached is not None and self.attached.membership is not None

    def active(self) -> Attached:
        """What it is attached to. Raises `InactiveError` when it is not active, `TimeLimitError` when "
        "stalled."""
        if self.state is PoolState.STALLED and self.attached is not None:
            told = self.problem or f"pool {self.name} is stalled: its storage does not answer"
            raise TimeLimitError(str(told))
        if self.state is not PoolState.ACTIVE or self.attached is None:
            raise InactiveError(f"pool {self.name} is {self.state}: start it first")
        return self.attached

    def forget(self) -> None:
        """Let go of everything that belongs to an attached root."""
        self.attached = None
        self.space = None


_NOTHING: Mapping[str, Any] = MappingProxyType({})
