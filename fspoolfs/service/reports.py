"""The `info` and `features` texts: "key: value" lines for a person."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from fspoolfs import units
from fspoolfs.backends import layout
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.model.infos import Backing, Feature, SpaceInfo, UsageInfo
from fspoolfs.model.states import ItemState, PoolState
from fspoolfs.service import limits
from fspoolfs.service.accounts import Standing
from fspoolfs.service.objects import Item, Pool, Snapshot, TrashEntry

#: The states in which an item has a problem.
_TROUBLE = (ItemState.FAILED, ItemState.MISSING)
#: Those in which a pool has one.
_LOST = (PoolState.FAILED, PoolState.STALLED)
_SIZES = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: int) -> str:
    """A number of bytes for a person, as virsh prints it: "1.50 GiB"."""
    amount, unit = float(count), 0
    while amount >= 1024 and unit < len(_SIZES) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.2f} {_SIZES[unit]}" if unit else f"{count} bytes"


def when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def moment(milliseconds: int) -> str:
    """A time since the epoch as ISO 8601 has it."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def lines(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{key + ':':<16}{value}\n" for key, value in pairs if value)


def pool_info(pool: Pool, space: SpaceInfo | None, backing: Backing | None) -> str:
    """What `virsh pool-info` tells, and what is particular to these pools."""
    definition = pool.definition
    retention = definition.trash.retention
    return lines(
        [
            ("Name", pool.name),
            ("UUID", str(pool.uuid)),
            ("Type", definition.type.value),
            ("State", pool.state.value),
            ("Problem", pool.problem.sentence if pool.problem and pool.state in _LOST else ""),
            ("Autostart", "yes" if pool.autostart else "no"),
            ("Pending", "a new definition waits for the next start, see pending.xml" if pool.pending else ""),
            ("Target", pool.target),
            ("File system", pool.attached.filesystem.name if pool.attached else ""),
            ("Capacity", size(space.capacity) if space else ""),
            ("Allocation", size(space.allocation) if space else ""),
            ("Available", size(space.available) if space else ""),
            ("Volume", _volume(backing) if backing else ""),
            ("Items", str(len(pool.items)) if pool.attached else ""),
            ("Promised", _promise(pool, space) if pool.attached else ""),
            *(
                ("Quota", standing(one))
                for one in (pool.attached.accounts.standings() if pool.attached else ())
            ),
            ("Trash", f"{len(pool.trash)} items" if pool.attached else ""),
            ("Trash keeps", units.format_duration(retention) if retention else "nothing"),
            ("Purging", pool.purging.amount() if pool.purging and pool.purging.running else ""),
        ]
    )


def _volume(backing: Backing) -> str:
    """What the volume takes below: "1.20 GiB of 10.00 GiB taken on /var, where 3.00 GiB are free"."""
    return (
        f"{size(backing.allocation)} of {size(backing.size)} taken on {backing.store}, where "
        f"{size(backing.available)} are free"
    )


def _promise(pool: Pool, space: SpaceInfo | None) -> str:
    """What the items may come to hold together: "12.00 GiB, 120% of the capacity; 3 without a capacity"."""
    promise = limits.promised(pool.items.values())
    if not promise.size:
        return ""
    percent = f", {percentage(promise.size, space.capacity)} of the capacity" if space else ""
    rest = f"; {promise.unlimited} without a capacity" if promise.unlimited else ""
    return f"{size(promise.size)}{percent}{rest}"


def standing(one: Standing) -> str:
    """How a quota stands: "user 1000: 2.00 GiB of 10.00 GiB, 8.00 GiB left; 3 of 5 items"."""
    quota, parts = one.quota, []
    if quota.size is not None:
        left = quota.size - one.size
        rest = f"{size(left)} left" if left >= 0 else f"{size(-left)} too much"
        parts.append(f"{size(one.size)} of {size(quota.size)}, {rest}")
    if one.unlimited:
        parts.append(f"{one.unlimited} without a capacity")
    if quota.items is not None:
        parts.append(f"{one.items} of {quota.items} items")
    return f"{quota.subject}: {'; '.join(parts)}"


def percentage(part: int, whole: int) -> str:
    """Whole percent, rounded down: 100% is not said of what is almost full."""
    return f"{part * 100 // whole}%" if whole else "more"


def item_info(pool: Pool, item: Item, counted: UsageInfo | None) -> str:
    """`counted` is what the storage says now that the item holds, `None` where it does not say."""
    definition = item.definition
    permissions = definition.permissions
    origin = definition.origin
    return lines(
        [
            ("Name", item.name),
            ("UUID", str(item.uuid)),
            ("Pool", pool.name),
            ("State", item.state.value),
            ("Problem", item.problem.sentence if item.problem and item.state in _TROUBLE else ""),
            ("Job", item.job.line() if item.job is not None and item.job.running else ""),
            ("Path", data_path(pool, item)),
            ("Owner", "" if permissions.owner is None else f"{permissions.owner}:{permissions.group}"),
            ("Mode", "" if permissions.mode is None else f"{permissions.mode:04o}"),
            ("Capacity", "none" if definition.capacity is None else size(definition.capacity)),
            ("Soft limit", _soft_limit(item)),
            ("Files", _files(definition, counted)),
            ("Allocation", _allocation(item, counted)),
            ("Limits", ", ".join(f"{file} {value}" for file, value in definition.limits)),
            ("Snapshots", str(len(item.snapshots)) if item.snapshots else ""),
            ("Clone of", origin.fs + (f" at {origin.snapshot}" if origin.snapshot else "") if origin else ""),
        ]
    )


def _soft_limit(item: Item) -> str:
    soft, limit = item.definition.soft, item.definition.soft_bytes
    if soft is None or limit is None:
        return ""
    part = "" if soft.percent is None else f" ({soft.percent}%)"
    return f"{size(limit)}{part}{', reached' if item.above_soft else ''}"


def _files(definition: ItemDefinition, counted: UsageInfo | None) -> str:
    """How many files and directories there are, and how many there may be."""
    held = str(counted.inodes) if counted is not None and counted.inodes is not None else ""
    most = "" if definition.files is None else f"at most {definition.files}"
    return ", ".join(filter(None, (held, most)))


def _allocation(item: Item, counted: UsageInfo | None) -> str:
    measured, capacity = item.measured, item.definition.capacity
    if counted is not None:
        part = f", {percentage(counted.allocation, capacity)} of the capacity" if capacity else ""
        return f"{size(counted.allocation)}{part}"
    if measured is None:
        return "unknown (write measure into status to count it)"
    return (
        f"{size(measured.usage.allocation)} in {measured.usage.inodes or 0} files and directories, "
        f"measured {when(measured.time)}"
    )


def trash_info(pool: Pool, entry: TrashEntry) -> str:
    retention = pool.definition.trash.retention
    return lines(
        [
            ("Name", entry.definition.name),
            ("UUID", str(entry.uuid)),
            ("Pool", pool.name),
            ("Deleted", when(entry.deleted)),
            ("Purged after", when(entry.deleted + retention)),
            ("Snapshots", str(len(entry.snapshots)) if entry.snapshots else ""),
            ("Problem", entry.error.sentence if entry.error else ""),
        ]
    )


def snapshot_info(pool: Pool, item: Item, snapshot: Snapshot) -> str:
    job = snapshot.job
    return lines(
        [
            ("Name", snapshot.name),
            ("Item", item.name),
            ("Pool", pool.name),
            ("Created", when(snapshot.created / 1000)),
            ("State", f"being made: {job.line()}" if job is not None else "ready"),
            ("Path", snapshot_path(pool, item, snapshot)),
        ]
    )


def snapshot_path(pool: Pool, item: Item, snapshot: Snapshot) -> str:
    """The absolute path under which a snapshot's directory can be read."""
    attached = pool.attached
    inside = snapshot.place or layout.snapshot(item.uuid, snapshot.entry)
    if attached is None or attached.exposed is None or not inside.startswith(f"{layout.SNAPSHOTS}/"):
        return f"{pool.target.rstrip('/')}/{inside}"
    return f"{attached.exposed}{inside.removeprefix(layout.SNAPSHOTS)}"


def features(found: Iterable[Feature]) -> str:
    return "".join(f"{one.name}: {_answer(one)}\n" for one in found)


def _answer(feature: Feature) -> str:
    if not feature.usable:
        return f"no ({feature.reason})"
    return f"yes ({feature.note})" if feature.note else "yes"


def data_path(pool: Pool, item: Item) -> str:
    """The absolute path of the item's directory."""
    return f"{pool.target.rstrip('/')}/{item.definition.location}"
