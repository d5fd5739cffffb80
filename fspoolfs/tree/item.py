"""The directory of one item."""

from __future__ import annotations

import stat
from dataclasses import replace

import trio

from fspoolfs import names, units
from fspoolfs.backends import layout
from fspoolfs.errors import InvalidError
from fspoolfs.model import documents, formatting
from fspoolfs.model.definitions import Permissions
from fspoolfs.service import access, reports, usage
from fspoolfs.service.access import Caller
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Item, Pool
from fspoolfs.tree import values
from fspoolfs.tree.node import OWNER, Attributes, Directory, File, Link, Style, Subject, table
from fspoolfs.tree.snapshots import SnapshotsDirectory


class ItemDirectory(Directory):
    """`pools/NAME/items/ITEM/`."""

    __slots__ = ("_parent", "item", "pool", "service")
    scratch = True

    def __init__(self, parent: Directory, service: Service, pool: Pool, item: Item) -> None:
        super().__init__(item.number)
        self._parent = parent
        self.service = service
        self.pool = pool
        self.item = item

    @property
    def path(self) -> str:
        return f"/pools/{self.pool.name}/items/{self.item.name}"

    @property
    def parent(self) -> Directory:
        return self._parent

    @property
    def owner(self) -> tuple[int, int]:
        """The item's owner and group."""
        permissions = self.item.definition.permissions
        return (
            OWNER[0] if permissions.owner is None else permissions.owner,
            OWNER[1] if permissions.group is None else permissions.group,
        )

    @property
    def pool_owner(self) -> tuple[int, int]:
        return access.pool_permissions(self.pool.definition.permissions)[1:]

    def attributes(self) -> Attributes:
        mode = self.item.definition.permissions.mode
        uid, gid = self.owner
        return Attributes(
            mode=stat.S_IFDIR | (access.DEFAULT_MODE if mode is None else mode),
            uid=uid,
            gid=gid,
            time=self.item.changed,
        )

    def subdirectory(self, name: str) -> Directory | None:
        if name == "snapshots":
            return SnapshotsDirectory(self, self.service, self.pool, self.item)
        return None

    def subdirectories(self) -> tuple[str, ...]:
        return ("snapshots",)

    @property
    def subject(self) -> Subject:
        return self.item

    async def set_permissions(self, permissions: Permissions, caller: Caller) -> None:
        await self.service.items.set_permissions(self.pool, self.item, permissions, caller)


async def _define(directory: ItemDirectory, data: bytes, caller: Caller) -> None:
    await directory.service.items.redefine(directory.pool, directory.item, documents.parse_item(data), caller)


async def _status(directory: ItemDirectory, data: bytes, caller: Caller) -> None:
    service, pool, item = directory.service, directory.pool, directory.item

    async def clone(arguments: list[str]) -> None:
        if len(arguments) not in (1, 2):
            raise InvalidError("clone takes the new item's name and, if wanted, a snapshot's")
        snapshot = arguments[1] if len(arguments) == 2 else None
        await service.clones.clone_item(pool, item, names.check_name(arguments[0]), snapshot, caller)

    async def measure(arguments: list[str]) -> None:
        values.no_arguments("measure", arguments)
        await service.clones.measure(pool, item)

    async def rollback(arguments: list[str]) -> None:
        if len(arguments) != 1:
            raise InvalidError("rollback takes a snapshot's name")
        await service.snapshots.roll_back(pool, item, arguments[0])

    await values.run_verb(data, {"clone": clone, "measure": measure, "rollback": rollback})


async def _set_capacity(directory: ItemDirectory, data: bytes, caller: Caller) -> None:
    capacity = units.parse_capacity(" ".join(values.words(data)))
    await directory.service.items.set_capacity(directory.pool, directory.item, capacity, caller)


async def _cancel(directory: ItemDirectory, data: bytes, caller: Caller) -> None:
    await values.cancel(data, [directory.item.job])


async def _allocation(directory: ItemDirectory) -> str:
    """What the storage counts, or what was measured last, or that nobody knows."""
    item = directory.item
    counted = await directory.service.counts.of(directory.pool, item)
    known = counted or (item.measured.usage if item.measured else None)
    return values.number(known.allocation if known else None)


async def _available(directory: ItemDirectory) -> str:
    """What is left below the item's capacity, or in the pool where it has none."""
    service, pool, capacity = directory.service, directory.pool, directory.item.definition.capacity
    space = await service.spaces.of(pool)
    if space is None or capacity is None:
        return values.number(space.available if space else None)
    counted = await service.counts.of(pool, directory.item)
    room = None if counted is None else max(0, capacity - counted.allocation)
    return values.number(None if room is None else min(room, space.available))


async def _info(directory: ItemDirectory) -> str:
    pool, item = directory.pool, directory.item
    return reports.item_info(pool, item, await directory.service.counts.of(pool, item))


async def _users(directory: ItemDirectory) -> str:
    """A line each; those on other hosts end with the host's name."""
    attached, item = directory.pool.active(), directory.item
    places = (item.definition.location, layout.snapshots(item.uuid))

    def find() -> list[str]:
        found = directory.service.context.finder.uses(attached.root.path)
        here = [usage.describe(use) for use in usage.of_location(found, *places)]
        if attached.membership is None:
            return here
        elsewhere = attached.membership.presence.used_elsewhere(item.uuid)
        return [*here, *(f"{usage.describe(use)} on {host}" for host, use in elsewhere)]

    lines = await trio.to_thread.run_sync(find, limiter=directory.pool.limiter, abandon_on_cancel=True)
    return "".join(f"{line}\n" for line in lines)


async def _group(directory: ItemDirectory) -> str:
    return f"{await directory.service.consumers.path(directory.pool, directory.item)}\n"


async def _members(directory: ItemDirectory) -> str:
    found = await directory.service.consumers.members(directory.pool, directory.item)
    return "".join(f"{pid}\n" for pid in found)


async def _enter(directory: ItemDirectory, data: bytes, caller: Caller) -> None:
    number = values.process_id(data)
    await directory.service.consumers.enter(directory.pool, directory.item, number, caller)


def _is_limited(directory: ItemDirectory) -> bool:
    return bool(directory.item.definition.limits)


def _capacity(directory: ItemDirectory) -> str:
    capacity = directory.item.definition.capacity
    return "none\n" if capacity is None else f"{capacity}\n"


def _config(directory: ItemDirectory) -> str:
    definition = replace(directory.item.definition, pool=directory.pool.name)
    return formatting.format_item(definition).decode()


def _owner(directory: ItemDirectory) -> tuple[int, int]:
    return directory.owner


def _pool_owner(directory: ItemDirectory) -> tuple[int, int]:
    return directory.pool_owner


ItemDirectory.table = table(
    File[ItemDirectory](
        name="config.xml",
        mode=0o644,
        style=Style.DOCUMENT,
        show=_config,
        store=_define,
        whose=_owner,
    ),
    File[ItemDirectory](
        name="status",
        mode=0o644,
        show=lambda at: values.status(at.item.state, at.item.job),
        store=_status,
        whose=_owner,
        polled=True,
    ),
    File[ItemDirectory](
        name="job",
        mode=0o644,
        style=Style.PROGRESS,
        jobs=lambda at: [at.item.job],
        store=_cancel,
        whose=_owner,
    ),
    File[ItemDirectory](name="info", ask=_info, whose=_owner),
    File[ItemDirectory](name="uuid", show=lambda at: f"{at.item.uuid}\n", whose=_owner),
    # Its size is not the item owner's to choose: the file belongs to the pool's owner.
    File[ItemDirectory](name="capacity", mode=0o644, show=_capacity, store=_set_capacity, whose=_pool_owner),
    File[ItemDirectory](name="allocation", ask=_allocation, whose=_owner),
    File[ItemDirectory](name="available", ask=_available, whose=_owner),
    File[ItemDirectory](name="users", ask=_users, whose=_owner),
    File[ItemDirectory](name="cgroup", ask=_group, whose=_owner, present=_is_limited),
    File[ItemDirectory](
        name="cgroup.procs", mode=0o644, ask=_members, store=_enter, whose=_owner, present=_is_limited
    ),
    File[ItemDirectory](name="last_error", show=lambda at: values.sentence(at.item.error), whose=_owner),
    Link[ItemDirectory](name="data", target=lambda at: reports.data_path(at.pool, at.item)),
    Link[ItemDirectory](
        name="idmapped",
        target=lambda at: at.service.context.mappings.place(at.pool.name, at.item.uuid),
        ask=lambda at: at.service.items.mapped(at.pool, at.item),
        present=lambda at: at.item.definition.idmap is not None,
    ),
)
