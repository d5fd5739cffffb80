"""The trash of a pool, and the directory of one deleted item in it."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import replace

from fspoolfs.errors import ExistsError, ImmutableError
from fspoolfs.model import formatting
from fspoolfs.service import access, reports
from fspoolfs.service.access import Caller
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Pool, TrashEntry
from fspoolfs.tree import values
from fspoolfs.tree.node import OWNER, Attributes, Directory, File, Subject, table


class TrashDirectory(Directory):
    """`pools/NAME/trash/`: rmdir purges now, mv into items/ brings back."""

    __slots__ = ("_parent", "pool", "service")
    bounded = True

    def __init__(self, parent: Directory, service: Service, pool: Pool) -> None:
        super().__init__(pool.trash_number)
        self._parent = parent
        self.service = service
        self.pool = pool

    @property
    def path(self) -> str:
        return f"/pools/{self.pool.name}/trash"

    @property
    def parent(self) -> Directory:
        return self._parent

    def attributes(self) -> Attributes:
        mode, uid, gid = access.pool_permissions(self.pool.definition.permissions)
        return Attributes(mode=stat.S_IFDIR | mode, uid=uid, gid=gid, time=self.pool.changed)

    def subdirectory(self, name: str) -> TrashEntryDirectory | None:
        entry = self.pool.trash.get(name)
        return TrashEntryDirectory(self, entry) if entry is not None else None

    def subdirectories(self) -> Sequence[str]:
        return list(self.pool.trash)

    async def make(self, name: str, mode: int, caller: Caller) -> Directory:
        raise ImmutableError(f"{self.path}: items come here by being deleted, not by mkdir")

    async def remove(self, name: str, caller: Caller) -> None:
        await self.service.trash.purge(self.pool, name, via_tree=True)

    async def rename(self, name: str, target: Directory, new_name: str, caller: Caller) -> None:
        if target.number != self.pool.items_number:
            raise ImmutableError(
                f"{self.path}/{name} can only be moved back into items/ of pool {self.pool.name}"
            )
        if target.subdirectory(new_name) is not None:
            raise ExistsError(f"item {new_name} exists already in pool {self.pool.name}")
        await self.service.trash.undelete(self.pool, name, new_name, via_tree=True)


class TrashEntryDirectory(Directory):
    """`trash/NAME/`: what a deleted item was."""

    __slots__ = ("_parent", "entry")
    #: Moved into items/, the kernel believes it to be the item.
    volatile = True

    def __init__(self, parent: TrashDirectory, entry: TrashEntry) -> None:
        super().__init__(entry.number)
        self._parent = parent
        self.entry = entry

    @property
    def pool(self) -> Pool:
        return self._parent.pool

    @property
    def path(self) -> str:
        return f"{self._parent.path}/{self.entry.name}"

    @property
    def parent(self) -> Directory:
        return self._parent

    def attributes(self) -> Attributes:
        permissions = self.entry.definition.permissions
        # Its owner may move it, for which the kernel wants him to be able to write in it.
        return Attributes(
            mode=stat.S_IFDIR | 0o755,
            uid=OWNER[0] if permissions.owner is None else permissions.owner,
            gid=OWNER[1] if permissions.group is None else permissions.group,
            time=self.entry.deleted,
        )

    @property
    def subject(self) -> Subject:
        return self.entry


TrashEntryDirectory.table = table(
    File[TrashEntryDirectory](
        name="config.xml",
        show=lambda at: formatting.format_item(replace(at.entry.definition, pool=at.pool.name)).decode(),
    ),
    File[TrashEntryDirectory](name="info", show=lambda at: reports.trash_info(at.pool, at.entry)),
    File[TrashEntryDirectory](name="uuid", show=lambda at: f"{at.entry.uuid}\n"),
    File[TrashEntryDirectory](name="last_error", show=lambda at: values.sentence(at.entry.error)),
)
