"""A service on simulated storage, without a mount: what most tests of this folder run on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from fspoolfs.backends.cgroups import Groups
from fspoolfs.backends.registry import Registry, simulated_registry
from fspoolfs.backends.simulated_cgroups import SimulatedGroups
from fspoolfs.backends.simulator import SimulatedHost
from fspoolfs.service.access import Caller
from fspoolfs.service.facade import Service
from fspoolfs.service.usage import NoUses, UseFinder

ROOT = Caller(uid=0, gid=0)

Running = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture
def host() -> SimulatedHost:
    return SimulatedHost()


@pytest.fixture
def running(host: SimulatedHost, tmp_path: Path) -> Running:
    """Start a service on `host` (or another machine); leaving the context stops it cleanly."""

    @asynccontextmanager
    async def start(
        machine: SimulatedHost | None = None,
        *,
        state: str = "state",
        finder: UseFinder | None = None,
        grace: float = 5.0,
        stall_time: float = 10.0,
        registry: Registry | None = None,
        groups: Groups | None = None,
    ) -> AsyncIterator[Service]:
        async with trio.open_nursery() as nursery:
            service = Service(
                state=tmp_path / state,
                storage=Path("/storage"),
                registry=registry or simulated_registry(machine or host),
                finder=finder or NoUses(),
                mounter=None,
                groups=groups or SimulatedGroups(),
                nursery=nursery,
                grace=grace,
                stall_time=stall_time,
            )
            await service.start()
            try:
                yield service
            finally:
                with trio.CancelScope(shield=True):
                    await service.stop()
                nursery.cancel_scope.cancel()

    return start
