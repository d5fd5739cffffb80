"""The root of the control tree, and the directory of all pools."""

from __future__ import annotations

from collections.abc import Sequence

from fspoolfs import __version__
from fspoolfs.errors import FspoolError, NotFoundError
from fspoolfs.model import documents
from fspoolfs.model.definitions import PoolDefinition, PoolType
from fspoolfs.service import reports
from fspoolfs.service.access import Caller
from fspoolfs.service.facade import Service
from fspoolfs.tree import values
from fspoolfs.tree.node import Directory, File, Style, Subject, table
from fspoolfs.tree.pool import PoolDirectory

#: The numbers of the two directories that are always there; objects' own start above.
ROOT_NUMBER = 0
POOLS_NUMBER = 1


class Root(Directory):
    """`/`: documents in, events and metrics out."""

    __slots__ = ("service",)

    def __init__(self, service: Service) -> None:
        super().__init__(ROOT_NUMBER)
        self.service = service

    @property
    def path(self) -> str:
        return "/"

    @property
    def parent(self) -> Directory:
        return self

    def subdirectory(self, name: str) -> Directory | None:
        return PoolsDirectory(self) if name == "pools" else None

    def subdirectories(self) -> Sequence[str]:
        return ("pools",)

    @property
    def subject(self) -> Subject:
        return self.service


async def _define(root: Root, data: bytes, caller: Caller) -> None:
    await root.service.define(documents.parse(data), caller)


async def _features(root: Root) -> str:
    found = [*root.service.registry.features(), *await root.service.consumers.features()]
    return reports.features(found)


async def _metrics(root: Root) -> bytes:
    await root.service.counts.refresh(root.service.pools)
    return root.service.metrics.text()


Root.table = table(
    # Anyone may write a document; who may define what is decided when it is known.
    File[Root](name="define", mode=0o666, style=Style.DOCUMENT, show=lambda root: "", store=_define),
    File[Root](name="events", style=Style.EVENTS, size=lambda root: root.service.events.end, polled=True),
    File[Root](name="features", ask=_features),
    File[Root](name="last_error", show=lambda root: values.sentence(root.service.error)),
    File[Root](name="metrics", ask=_metrics),
    File[Root](name="version", show=lambda root: f"{__version__}\n"),
)


class PoolsDirectory(Directory):
    """`pools/`: mkdir defines a pool of type dir, rmdir undefines one."""

    __slots__ = ("root",)

    def __init__(self, root: Root) -> None:
        super().__init__(POOLS_NUMBER)
        self.root = root

    @property
    def path(self) -> str:
        return "/pools"

    @property
    def parent(self) -> Directory:
        return self.root

    def subdirectory(self, name: str) -> PoolDirectory | None:
        pool = self.root.service.pools.get(name)
        return PoolDirectory(self, self.root.service, pool) if pool is not None else None

    def subdirectories(self) -> Sequence[str]:
        return [pool.name for pool in self.root.service.pools]

    async def make(self, name: str, mode: int, caller: Caller) -> Directory:
        pool = await self.root.service.pools.define(
            PoolDefinition(name=name, type=PoolType.DIR), caller, via_tree=True, new=True
        )
        return PoolDirectory(self, self.root.service, pool)

    async def remove(self, name: str, caller: Caller) -> None:
        found = self.subdirectory(name)
        if found is None:
            raise NotFoundError(f"there is no pool {name}")
        try:
            await self.root.service.lifecycle.undefine(found.pool, caller, via_tree=True)
        except FspoolError as error:
            found.note(error)
            raise
