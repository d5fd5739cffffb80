"""Several services on one directory, as hosts have them that share a pool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from fspoolfs.backends.directory import DirectorySource
from fspoolfs.backends.registry import Registry
from fspoolfs.backends.simulated_cgroups import SimulatedGroups
from fspoolfs.backends.source import Sharing
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Pool
from service.scenes import LIMIT, LOOK, ROOT, Users, dir_pool, patiently


class SharedDirectories(DirectorySource):
    """A directory of the host, as if an engine had mounted it here."""

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing

    def sharing(self, definition: PoolDefinition) -> Sharing:
        return self._sharing


FENCED = Sharing(single="", fences=True)
UNFENCED = Sharing(single="", fences=False)
SINGLE = Sharing(single="it has no locks between hosts", fences=False)


class Hosts:
    """Makes hosts below a test's directory; `root` is what they share."""

    def __init__(self, tmp_path: Path, sharing: Sharing) -> None:
        self._path = tmp_path
        self._sharing = sharing
        self.root = tmp_path / "export"

    @asynccontextmanager
    async def host(
        self, name: str, *, users: Users | None = None, groups: SimulatedGroups | None = None
    ) -> AsyncIterator[Service]:
        """A running service; it ends as a daemon does, with its pools attached."""
        async with trio.open_nursery() as nursery:
            service = Service(
                state=self._path / name,
                storage=self._path / "storage",
                registry=Registry([SharedDirectories(self._sharing)]),
                finder=users or Users(),
                mounter=None,
                groups=groups or SimulatedGroups(),
                nursery=nursery,
                grace=30.0,
            )
            await service.start()
            try:
                yield service
            finally:
                with trio.CancelScope(shield=True):
                    await service.stop()
                nursery.cancel_scope.cancel()

    async def pool(self, service: Service, **more: object) -> Pool:
        """The shared pool, active in `service`."""
        await service.pools.define(dir_pool("tank", target=str(self.root), **more), ROOT)
        pool = service.pools.find("tank")
        await patiently(service, pool, service.lifecycle.start(pool, ROOT, build=True))
        assert pool.state == "active", pool.error
        return pool


async def eventually_true(condition: Callable[[], bool], *, what: str) -> None:
    """Wait for what another host's daemon is to notice by itself."""
    with trio.move_on_after(LIMIT):
        while not condition():  # noqa: ASYNC110 - another host sends no event to this one
            await trio.sleep(LOOK)
    assert condition(), what
