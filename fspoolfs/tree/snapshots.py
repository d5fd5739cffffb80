"""The directory of an item's snapshots, and the directory of one of them."""

from __future__ import annotations

from collections.abc import Sequence

from fspoolfs.errors import ExistsError, ImmutableError
from fspoolfs.service import reports
from fspoolfs.service.access import Caller
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Item, Pool, Snapshot
from fspoolfs.service.snapshots import find_snapshot
from fspoolfs.tree.node import Attributes, Directory, File, Link, table


class SnapshotsDirectory(Directory):
    """`snapshots/` of an item: mkdir takes one, rmdir deletes it, mv renames it."""

    __slots__ = ("_parent", "item", "pool", "service")
    bounded = True

    def __init__(self, parent: Directory, service: Service, pool: Pool, item: Item) -> None:
        super().__init__(item.snapshots_number)
        self._parent = parent
        self.service = service
        self.pool = pool
        self.item = item

    @property
    def path(self) -> str:
        return f"{self._parent.path}/snapshots"

    @property
    def parent(self) -> Directory:
        return self._parent

    def attributes(self) -> Attributes:
        return self._parent.attributes()

    def subdirectory(self, name: str) -> SnapshotDirectory | None:
        snapshot = self.item.snapshots.get(name)
        return SnapshotDirectory(self, snapshot) if snapshot is not None else None

    def subdirectories(self) -> Sequence[str]:
        return list(self.item.snapshots)

    async def make(self, name: str, mode: int, caller: Caller) -> Directory:
        snapshot = await self.service.snapshots.take(self.pool, self.item, name, via_tree=True)
        return SnapshotDirectory(self, snapshot)

    async def remove(self, name: str, caller: Caller) -> None:
        await self.service.snapshots.delete(self.pool, self.item, name, via_tree=True)

    async def rename(self, name: str, target: Directory, new_name: str, caller: Caller) -> None:
        find_snapshot(self.item, name)
        if not isinstance(target, SnapshotsDirectory) or target.item is not self.item:
            raise ImmutableError(f"{self.path}/{name} cannot leave its item; clone it instead")
        if new_name in self.item.snapshots and new_name != name:
            raise ExistsError(f"item {self.item.name} has a snapshot {new_name} already")
        await self.service.snapshots.rename(self.pool, self.item, name, new_name, via_tree=True)


class SnapshotDirectory(Directory):
    """`snapshots/NAME/`."""

    __slots__ = ("_parent", "snapshot")

    def __init__(self, parent: SnapshotsDirectory, snapshot: Snapshot) -> None:
        super().__init__(snapshot.number)
        self._parent = parent
        self.snapshot = snapshot

    @property
    def pool(self) -> Pool:
        return self._parent.pool

    @property
    def item(self) -> Item:
        return self._parent.item

    @property
    def service(self) -> Service:
        return self._parent.service

    @property
    def path(self) -> str:
        return f"{self._parent.path}/{self.snapshot.name}"

    @property
    def parent(self) -> Directory:
        return self._parent

    def attributes(self) -> Attributes:
        above = self._parent.attributes()
        return Attributes(mode=above.mode, uid=above.uid, gid=above.gid, time=self.snapshot.created // 1000)


def _owner(directory: SnapshotDirectory) -> tuple[int, int]:
    above = directory.attributes()
    return above.uid, above.gid


async def _locate(at: SnapshotDirectory) -> str:
    await at.service.snapshots.locate(at.pool, at.item, at.snapshot)
    return reports.snapshot_path(at.pool, at.item, at.snapshot)


async def _info(at: SnapshotDirectory) -> str:
    await at.service.snapshots.locate(at.pool, at.item, at.snapshot)
    return reports.snapshot_info(at.pool, at.item, at.snapshot)


SnapshotDirectory.table = table(
    File[SnapshotDirectory](name="created", show=lambda at: f"{reports.moment(at.snapshot.created)}\n"),
    File[SnapshotDirectory](name="info", ask=_info),
    Link[SnapshotDirectory](
        name="data", target=lambda at: reports.snapshot_path(at.pool, at.item, at.snapshot), ask=_locate
    ),
)
