"""Definitions: what a person wants a pool or an item to be. Frozen; observed facts live in infos.

Sizes are bytes. Paths of items count from the pool's root and start with a slash. `None` always
means "not said" and never zero.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from uuid import UUID


class PoolType(enum.StrEnum):
    """The `type` attribute of an `<fspool>`: where its root comes from."""

    DIR = "dir"
    VOLUME = "volume"
    NETWORK = "network"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """Owner, group and mode of a directory; `None` leaves the choice to the default.

    In documents an owner or group of -1 is libvirt's spelling of `None`.
    """

    mode: int | None = None
    owner: int | None = None
    group: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A server of a network source; `port` is `None` for the protocol's usual one."""

    name: str
    port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """What a server is asked to let us in with: a name, and the paths of files on this host.

    `secret` is a key or a password's file, which only root may read, `hosts` what the server is
    recognised by, `config` a configuration of the protocol. What a file holds is never here. `type`
    is the protocol that they are for.
    """

    type: str
    username: str | None = None
    secret: str | None = None
    hosts: str | None = None
    config: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSource:
    """Where the root comes from. Which fields are set depends on the pool's type.

    volume: `pool` and `volume` (with an optional `provider`), or `device`; network: `hosts`,
    `directory` and `auth`. `format` is the file system or protocol, `options` are mount options.
    """

    pool: str | None = None
    provider: str | None = None
    volume: str | None = None
    device: str | None = None
    hosts: tuple[Host, ...] = ()
    directory: str | None = None
    format: str | None = None
    options: str | None = None
    auth: Auth | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftLimit:
    """From which usage on people are told of an item: `percent` of its capacity, or `size` in bytes.

    Exactly one of the two is set. Nothing is refused because of it.
    """

    percent: int | None = None
    size: int | None = None

    def bytes_of(self, capacity: int | None) -> int | None:
        """The limit in bytes, rounded up; `None` for a part of a capacity that there is not."""
        if self.percent is None:
            return self.size
        return None if capacity is None else -(-capacity * self.percent // 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolDefaults:
    """What an item gets that does not say otherwise, such as one made by a bare mkdir.

    The fields are those of `ItemDefinition`.
    """

    capacity: int | None = None
    soft: SoftLimit | None = None
    files: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How much the items of a user, of a group, or of the whole pool may come to hold together.

    `size` is the sum of their capacities in bytes, `items` their number; at least one is set, and of
    `user` and `group` at most one.
    """

    user: int | None = None
    group: int | None = None
    size: int | None = None
    items: int | None = None

    @property
    def subject(self) -> str:
        """Whose quota it is, for a person."""
        if self.user is not None:
            return f"user {self.user}"
        return "the pool" if self.group is None else f"group {self.group}"

    @property
    def key(self) -> tuple[str, int | None]:
        """The same for the quotas and the items of one subject: see `quota_keys`."""
        if self.user is not None:
            return ("user", self.user)
        return ("pool", None) if self.group is None else ("group", self.group)


#: How long a deleted item stays in the trash when the definition is silent, in seconds.
DEFAULT_RETENTION = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class TrashPolicy:
    """How long deleted items are kept, in seconds; 0 purges at once, in the background."""

    retention: int = DEFAULT_RETENTION


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolDefinition:
    """An `<fspool>` document.

    A document may leave out `uuid` and `target`; a stored definition has both (see `complete`).
    `metadata` is the `<metadata>` element as it was written, serialised.
    """

    name: str
    type: PoolType
    uuid: UUID | None = None
    capacity: int | None = None
    source: PoolSource = field(default_factory=PoolSource)
    target: str | None = None
    permissions: Permissions = field(default_factory=Permissions)
    defaults: PoolDefaults = field(default_factory=PoolDefaults)
    quotas: tuple[Quota, ...] = ()
    trash: TrashPolicy = field(default_factory=TrashPolicy)
    metadata: str | None = None


@dataclass(frozen=True, slots=True, order=True)
class IdRange:
    """`count` ids from `start` on, as they are stored, appear as those from `target` on."""

    start: int
    target: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMap:
    """Whose files an item's appear to be to those who use it through its mapped directory.

    Ids that no range holds appear as nobody's. There is a range of users and one of groups at least.
    """

    users: tuple[IdRange, ...]
    groups: tuple[IdRange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemOrigin:
    """What an item is a clone of: another item of the pool, or one of that item's snapshots."""

    fs: str
    snapshot: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemDefinition:
    """An `<fs>` document.

    `capacity` limits its bytes, `files` how many files and directories it may hold; at the limit
    `soft` people are told. `path` is set only when the document names one; an item without lies at
    /NAME and moves when it is renamed.
    `limits` are cgroup interface files and their values, in document order.
    """

    name: str
    uuid: UUID | None = None
    pool: str | None = None
    capacity: int | None = None
    soft: SoftLimit | None = None
    files: int | None = None
    path: str | None = None
    permissions: Permissions = field(default_factory=Permissions)
    limits: tuple[tuple[str, str], ...] = ()
    idmap: IdMap | None = None
    origin: ItemOrigin | None = None
    metadata: str | None = None

    @property
    def location(self) -> str:
        """The item's directory, counted from the pool's root, without the leading slash."""
        return self.name if self.path is None else self.path.lstrip("/")

    @property
    def soft_bytes(self) -> int | None:
        """The usage in bytes from which on people are told."""
        return None if self.soft is None else self.soft.bytes_of(self.capacity)


def quota_keys(item: ItemDefinition) -> tuple[tuple[str, int | None], ...]:
    """The keys of all quotas in whose sums what the item may hold has a part."""
    permissions = item.permissions
    return (("pool", None), ("user", permissions.owner), ("group", permissions.group))
