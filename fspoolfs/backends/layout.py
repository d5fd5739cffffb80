"""The names of fspoolfs' own files beneath a pool's root.

Everything lies in one directory that belongs to the daemon (mode 0700), so that item users neither
see nor reach it.
"""

from __future__ import annotations

from uuid import UUID

OWN = ".fspool"
IDENTITY = f"{OWN}/pool.xml"
JOURNAL = f"{OWN}/journal"
INDEX = f"{OWN}/index.json"
ITEMS = f"{OWN}/items"
TRASH = f"{OWN}/trash"
STAGING = f"{OWN}/staging"
PURGE = f"{OWN}/purge"
SNAPSHOTS = f"{OWN}/snapshots"
#: Of pools that several hosts share: whose turn it is, who they are, and which items they use.
LOCK = f"{OWN}/lock"
HOSTS = f"{OWN}/hosts"
USES = f"{OWN}/uses"
SWEEP_LOCK = f"{OWN}/sweep.lock"
#: Of pools whose storage has no locks for that: the one host that has it active.
OWNER = f"{OWN}/owner"

DIRECTORIES = (ITEMS, TRASH, STAGING, PURGE, SNAPSHOTS)

#: Mode of the directories above snapshots: others pass through and list nothing.
PASSABLE = 0o711


def definition(name: str) -> str:
    """Where the definition of item `name` is stored."""
    return f"{ITEMS}/{name}.xml"


def trashed_data(uuid: UUID) -> str:
    return f"{TRASH}/{uuid}"


def staging(uuid: UUID) -> str:
    """Where a clone grows before it is renamed into its place."""
    return f"{STAGING}/{uuid}"


def rollback(uuid: UUID) -> str:
    """Where what an item is rolled back to waits for taking its place."""
    return f"{STAGING}/{uuid}.rollback"


def purge(uuid: UUID) -> str:
    """Where storage waits to be removed; nothing in there is ever looked at again."""
    return f"{PURGE}/{uuid}"


def snapshots(uuid: UUID) -> str:
    """Where the snapshots of an item are, whatever it is called and wherever it lies."""
    return f"{SNAPSHOTS}/{uuid}"


def snapshot(uuid: UUID, entry: str) -> str:
    """The directory of one snapshot; `entry` is its name with its time, see `service.snapshotting`."""
    return f"{snapshots(uuid)}/{entry}"


def host_record(host: UUID) -> str:
    """What a host says of itself while it has the pool active."""
    return f"{HOSTS}/{host}"


def host_lock(host: UUID) -> str:
    """What a host keeps locked for as long as it has the pool attached."""
    return f"{HOSTS}/{host}.lock"


def uses(item: UUID) -> str:
    """The directory of those who use an item: a file for each host."""
    return f"{USES}/{item}"


def use(item: UUID, host: UUID) -> str:
    """How one host uses an item."""
    return f"{uses(item)}/{host}"


def rollback_lock(item: UUID) -> str:
    """What whoever rolls an item back keeps locked."""
    return f"{OWN}/rollback-{item}.lock"
