"""How much items may hold: what is refused about it, and what a pool has promised altogether.

What a limit does to those who write into an item is the storage's part, and who may choose one is
decided in `fspoolfs.service.access`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.errors import BusyError, UnsupportedError
from fspoolfs.model.definitions import ItemDefinition, Quota
from fspoolfs.service.counting import counter_of
from fspoolfs.service.objects import Item


class Promise(NamedTuple):
    """The sum of all capacities in bytes, and how many items have none."""

    size: int
    unlimited: int


def promised(items: Iterable[Item]) -> Promise:
    """What these items may come to hold together, known without asking the storage."""
    capacities = [item.definition.capacity for item in items]
    unlimited = capacities.count(None)
    return Promise(sum(one for one in capacities if one is not None), unlimited)


def check(filesystem: FileSystem, definition: ItemDefinition) -> None:
    """Raise `UnsupportedError` for a limit that would be stored and mean nothing."""
    filesystem.check(definition)
    if definition.soft is not None and counter_of(filesystem, filesystem.features()) is None:
        raise UnsupportedError(
            f"item {definition.name}: the {filesystem.name} file system does not count what an item holds, "
            "so nobody would be told at the soft limit; leave the attribute 'soft' out of <capacity>, or put "
            "the item into a pool whose features say that it counts usage"
        )


def check_quotas(filesystem: FileSystem, what: str, quotas: Iterable[Quota]) -> None:
    """Raise `UnsupportedError` for a sum of capacities where no capacity is enforced."""
    able = {feature.name: feature for feature in filesystem.features()}.get("quota")
    if able is not None and not able.usable and any(quota.size is not None for quota in quotas):
        raise UnsupportedError(
            f"{what}: a quota of bytes is a sum of capacities, and this storage enforces none: "
            f"{able.reason}; a quota of items alone can be kept"
        )


def check_fits(filesystem: FileSystem, what: str, old: ItemDefinition, new: ItemDefinition) -> None:
    """Refuse limits below what the item holds already. In the committer's thread.

    `BusyError`, as a memory cgroup refuses a limit below what is in use: the value is a good one,
    and is taken as soon as the item holds less. Where the storage does not count, it has the say.
    """
    less = _smaller(old.capacity, new.capacity), _smaller(old.files, new.files)
    counter = counter_of(filesystem, filesystem.features()) if any(less) else None
    if counter is None:
        return
    usage = counter.usages([old.location]).get(old.location)
    if usage is None:
        return
    for smaller, held, limit, unit, name in (
        (less[0], usage.allocation, new.capacity, "bytes", "capacity"),
        (less[1], usage.inodes, new.files, "files and directories", "files limit"),
    ):
        if smaller and limit is not None and held is not None and held > limit:
            raise BusyError(
                f"{what}: it holds {held} {unit}, more than the {name} of {limit} that was asked for; remove "
                f"something from it, or ask for at least {held}"
            )


def _smaller(old: int | None, new: int | None) -> bool:
    return new is not None and (old is None or new < old)
