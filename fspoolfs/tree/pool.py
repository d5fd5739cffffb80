"""The directory of one pool, and the directory of its items."""

from __future__ import annotations

import stat
from collections.abc import Awaitable, Callable, Sequence

from fspoolfs import units
from fspoolfs.backends.source import BuildMode
from fspoolfs.errors import ImmutableError, NotFoundError
from fspoolfs.model import documents, formatting
from fspoolfs.model.definitions import ItemDefinition, Permissions, PoolType
from fspoolfs.model.infos import SpaceInfo
from fspoolfs.service import access, inventory, reports
from fspoolfs.service.access import Caller
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Pool
from fspoolfs.tree import values
from fspoolfs.tree.item import ItemDirectory
from fspoolfs.tree.node import OWNER, Attributes, Directory, File, Link, Style, Subject, table
from fspoolfs.tree.trash import TrashDirectory


class PoolDirectory(Directory):
    """`pools/NAME/`."""

    __slots__ = ("_parent", "pool", "service")
    scratch = True

    def __init__(self, parent: Directory, service: Service, pool: Pool) -> None:
        super().__init__(pool.number)
        self._parent = parent
        self.service = service
        self.pool = pool

    @property
    def path(self) -> str:
        return f"/pools/{self.pool.name}"

    @property
    def parent(self) -> Directory:
        return self._parent

    def attributes(self) -> Attributes:
        return Attributes(mode=stat.S_IFDIR | 0o755, uid=OWNER[0], gid=OWNER[1], time=self.pool.changed)

    def subdirectory(self, name: str) -> Directory | None:
        if name == "items":
            return ItemsDirectory(self)
        if name == "trash":
            return TrashDirectory(self, self.service, self.pool)
        return None

    def subdirectories(self) -> Sequence[str]:
        return ("items", "trash")

    @property
    def subject(self) -> Subject:
        return self.pool


async def _define(directory: PoolDirectory, data: bytes, caller: Caller) -> None:
    await directory.service.pools.redefine(directory.pool, documents.parse_pool(data), caller)


async def _status(directory: PoolDirectory, data: bytes, caller: Caller) -> None:
    lifecycle, pool = directory.service.lifecycle, directory.pool

    async def build(arguments: list[str]) -> None:
        mode = values.one_of("build", arguments, tuple(BuildMode))
        await lifecycle.build(pool, caller, BuildMode(mode or BuildMode.NO_OVERWRITE))

    async def start(arguments: list[str]) -> None:
        chosen = values.one_of("start", arguments, ("build",))
        await lifecycle.start(pool, caller, build=bool(chosen))

    async def fence(arguments: list[str]) -> None:
        await lifecycle.fence(pool, caller, values.one_argument("fence", arguments, "HOST"))

    def plain(verb: str, act: Callable[[Pool, Caller], Awaitable[None]]) -> values.Verb:
        async def run(arguments: list[str]) -> None:
            values.no_arguments(verb, arguments)
            await act(pool, caller)

        return run

    await values.run_verb(
        data,
        {
            "build": build,
            "start": start,
            "stop": plain("stop", lifecycle.stop),
            "destroy": plain("destroy", lifecycle.destroy),
            "delete": plain("delete", lifecycle.delete),
            "refresh": plain("refresh", lifecycle.refresh),
            "fence": fence,
        },
    )


async def _set_capacity(directory: PoolDirectory, data: bytes, caller: Caller) -> None:
    capacity = units.parse_capacity(" ".join(values.words(data)))
    await directory.service.pools.set_capacity(directory.pool, capacity, caller)


async def _autostart(directory: PoolDirectory, data: bytes, caller: Caller) -> None:
    await directory.service.pools.set_autostart(directory.pool, caller, autostart=values.flag(data))


async def _cancel(directory: PoolDirectory, data: bytes, caller: Caller) -> None:
    await values.cancel(data, [directory.pool.job, directory.pool.purging])


def _space(pick: Callable[[SpaceInfo], int]) -> Callable[[PoolDirectory], Awaitable[str]]:
    async def ask(directory: PoolDirectory) -> str:
        space = await directory.service.spaces.of(directory.pool)
        return values.number(pick(space) if space else None)

    return ask


async def _capacity(directory: PoolDirectory) -> str:
    """A volume's is its own size, which can be written; a file system on it always has a little less."""
    definition = directory.pool.definition
    if definition.type is PoolType.VOLUME and definition.capacity is not None:
        return values.number(definition.capacity)
    return await _space(lambda space: space.capacity)(directory)


async def _info(directory: PoolDirectory) -> str:
    service, pool = directory.service, directory.pool
    return reports.pool_info(pool, await service.spaces.of(pool), await service.backings.of(pool))


def _features(directory: PoolDirectory) -> str:
    attached = directory.pool.attached
    if attached is None:
        return "unknown: the pool is not active\n"
    return f"filesystem: {attached.filesystem.name}\n{reports.features(attached.features)}"


async def _hosts(directory: PoolDirectory) -> str:
    return await directory.service.hosts(directory.pool)


def _pending(directory: PoolDirectory) -> str:
    pending = directory.pool.pending
    return formatting.format_pool(pending).decode() if pending is not None else ""


PoolDirectory.table = table(
    File[PoolDirectory](
        name="config.xml",
        mode=0o644,
        style=Style.DOCUMENT,
        show=lambda at: formatting.format_pool(at.pool.definition).decode(),
        store=_define,
    ),
    File[PoolDirectory](
        name="pending.xml",
        show=_pending,
        present=lambda at: at.pool.pending is not None,
    ),
    File[PoolDirectory](
        name="status",
        mode=0o644,
        show=lambda at: values.status(at.pool.state, at.pool.job, at.pool.purging),
        store=_status,
        polled=True,
    ),
    File[PoolDirectory](
        name="job",
        mode=0o644,
        style=Style.PROGRESS,
        jobs=lambda at: [at.pool.job, at.pool.purging],
        store=_cancel,
    ),
    File[PoolDirectory](name="info", ask=_info),
    File[PoolDirectory](name="uuid", show=lambda at: f"{at.pool.uuid}\n"),
    File[PoolDirectory](name="capacity", mode=0o644, ask=_capacity, store=_set_capacity),
    File[PoolDirectory](name="allocation", ask=_space(lambda space: space.allocation)),
    File[PoolDirectory](name="available", ask=_space(lambda space: space.available)),
    File[PoolDirectory](
        name="autostart",
        mode=0o644,
        show=lambda at: f"{int(at.pool.autostart)}\n",
        store=_autostart,
    ),
    File[PoolDirectory](name="features", show=_features),
    File[PoolDirectory](name="listing", ask=lambda at: inventory.listing(at.pool, at.service.counts)),
    File[PoolDirectory](name="hosts", ask=_hosts, present=lambda at: at.pool.is_shared),
    File[PoolDirectory](name="last_error", show=lambda at: values.sentence(at.pool.error)),
    Link[PoolDirectory](name="root", target=lambda at: at.pool.target),
)


class ItemsDirectory(Directory):
    """`pools/NAME/items/`: mkdir creates an item, rmdir deletes it, mv renames it."""

    __slots__ = ("_pool_directory",)
    bounded = True

    def __init__(self, parent: PoolDirectory) -> None:
        super().__init__(parent.pool.items_number)
        self._pool_directory = parent

    @property
    def pool(self) -> Pool:
        return self._pool_directory.pool

    @property
    def path(self) -> str:
        return f"/pools/{self.pool.name}/items"

    @property
    def parent(self) -> Directory:
        return self._pool_directory

    def attributes(self) -> Attributes:
        mode, uid, gid = access.pool_permissions(self.pool.definition.permissions)
        return Attributes(mode=stat.S_IFDIR | mode, uid=uid, gid=gid, time=self.pool.changed)

    def subdirectory(self, name: str) -> ItemDirectory | None:
        item = self.pool.items.get(name)
        return ItemDirectory(self, self._pool_directory.service, self.pool, item) if item else None

    def subdirectories(self) -> Sequence[str]:
        return list(self.pool.items)

    async def make(self, name: str, mode: int, caller: Caller) -> Directory:
        service = self._pool_directory.service
        wanted = ItemDefinition(name=name, permissions=Permissions(mode=stat.S_IMODE(mode)))
        item = await service.items.create(self.pool, wanted, caller, adopt=False, via_tree=True)
        return ItemDirectory(self, service, self.pool, item)

    async def remove(self, name: str, caller: Caller) -> None:
        await self._pool_directory.service.trash.delete(self.pool, name, via_tree=True)

    async def rename(self, name: str, target: Directory, new_name: str, caller: Caller) -> None:
        if not isinstance(target, ItemsDirectory) or target.pool is not self.pool:
            raise ImmutableError(f"item {name} cannot leave pool {self.pool.name} by being renamed")
        if name not in self.pool.items:
            raise NotFoundError(f"there is no item {name} in pool {self.pool.name}")
        await self._pool_directory.service.items.rename(self.pool, name, new_name, via_tree=True)

    async def set_permissions(self, permissions: Permissions, caller: Caller) -> None:
        raise ImmutableError(
            f"{self.path}: owner and mode are the pool's permissions; change them in its config.xml"
        )
