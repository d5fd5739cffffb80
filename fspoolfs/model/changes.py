"""What a new definition changes, and when: at once, at the pool's next start, or never.

Compares definitions and says so. Never looks at storage and never applies anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from fspoolfs.errors import ImmutableError
from fspoolfs.model.definitions import ItemDefinition, PoolDefinition

_POOL_FIELDS: Final = (
    *("type", "capacity", "source", "target"),
    *("permissions", "defaults", "quotas", "trash", "metadata"),
)
_ITEM_FIELDS: Final = ("capacity", "soft", "files", "permissions", "limits", "idmap", "metadata")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolChanges:
    """What becomes of an active pool that is defined anew.

    `live` holds at once: the old definition with those fields of the new one that need no restart.
    `pending` is the whole new definition where something waits for the next start, else `None`.
    `changed` names the fields in which the new definition differs, live or not, for events.
    """

    live: PoolDefinition
    pending: PoolDefinition | None
    changed: tuple[str, ...]


def complete_item(new: ItemDefinition, old: ItemDefinition) -> ItemDefinition:
    """`new` with what never changes taken from `old` where it is left out.

    A path that only spells out where the item lies by its name is left out too: such an item goes
    on moving with its name.
    """
    same_place = new.path is None or new.location == old.location
    return replace(
        new,
        uuid=new.uuid if new.uuid is not None else old.uuid,
        pool=new.pool if new.pool is not None else old.pool,
        path=old.path if same_place else new.path,
        origin=new.origin if new.origin is not None else old.origin,
    )


def pool_changes(old: PoolDefinition, new: PoolDefinition) -> PoolChanges:
    """What `new` changes in the active pool that `old` defines.

    A uuid or target that `new` leaves out stays. Permissions, defaults, quotas, trash, metadata and
    a larger capacity hold at once; all else waits. Raises `ImmutableError` for another name or uuid.
    """
    if new.name != old.name:
        raise ImmutableError(
            f"the document defines pool {new.name}, not {old.name}; a pool keeps its name, define another one"
        )
    if old.uuid is not None and new.uuid not in (None, old.uuid):
        raise ImmutableError(
            f"pool {old.name} has the uuid {old.uuid} for good; leave <uuid> out or repeat it"
        )
    wanted = replace(new, uuid=new.uuid or old.uuid, target=new.target or old.target)
    live = replace(
        old,
        uuid=wanted.uuid,
        capacity=new.capacity if _grows(old.capacity, new.capacity) else old.capacity,
        permissions=new.permissions,
        defaults=new.defaults,
        quotas=new.quotas,
        trash=new.trash,
        metadata=new.metadata,
    )
    changed = tuple(field for field in _POOL_FIELDS if getattr(wanted, field) != getattr(old, field))
    return PoolChanges(live=live, pending=None if wanted == live else wanted, changed=changed)


def _grows(old: int | None, new: int | None) -> bool:
    """Whether it is known that `new` is larger; a capacity that was not said may be any."""
    return old is not None and new is not None and new > old


def item_changes(old: ItemDefinition, new: ItemDefinition) -> tuple[str, ...]:
    """The fields of the item that `new` changes, in document order.

    Raises `ImmutableError` for another name, uuid, pool, path or origin; one of the last four that
    `new` leaves out stays.
    """
    wanted = complete_item(new, old)
    if wanted.name != old.name:
        raise ImmutableError(f"the document defines item {new.name}, not {old.name}; rename it with mv")
    for field in ("uuid", "pool"):
        known = getattr(old, field)
        if known is not None and getattr(wanted, field) != known:
            raise ImmutableError(f"item {old.name} has {field} {known} for good; leave it out or repeat it")
    if wanted.origin != old.origin:
        raise ImmutableError(f"what item {old.name} was cloned from is settled; leave it out or repeat it")
    if wanted.path != old.path:
        raise ImmutableError(
            f"item {old.name} lies at /{old.location} for good, not at {new.path}; "
            "leave <path> out or repeat it"
        )
    return tuple(field for field in _ITEM_FIELDS if getattr(wanted, field) != getattr(old, field))
