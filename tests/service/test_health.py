"""Remote storage that ceases to answer: pools that stall, are refused in time, and come back."""

from __future__ import annotations

import errno
import threading

import pytest
import trio

from fspoolfs.backends.registry import SIMULATED, Registry
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.simulator import Faults, SimulatedHost, SimulatedSource
from fspoolfs.errors import FspoolError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.model.states import PoolState
from fspoolfs.progress import Progress
from fspoolfs.service import reviving
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Pool
from service.conftest import ROOT, Running
from service.scenes import active_pool, item, until

STALL_TIME = 0.3


class FarSource(SimulatedSource):
    """Simulated storage of another host: `answers` while it is set; `away` and `lost` are errno, or 0."""

    def __init__(self, host: SimulatedHost) -> None:
        super().__init__(host)
        self.answers = threading.Event()
        self.answers.set()
        self.away = 0
        self.lost = 0
        self.asked = 0
        self.dead = False

    def ping(self, definition: PoolDefinition, root: RootDirectory) -> None:
        self.asked += 1
        self.answers.wait()
        if self.dead:
            raise FspoolError("its program has ended", errno=errno.ENOTCONN)

    def attach(self, definition: PoolDefinition, progress: Progress) -> RootDirectory:
        if self.away:
            raise FspoolError("its server is away", errno=self.away)
        return super().attach(definition, progress)

    def verify(self, definition: PoolDefinition, root: RootDirectory) -> None:
        if self.lost:
            raise FspoolError("its mount has vanished", errno=self.lost)
        super().verify(definition, root)


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def source(faults: Faults) -> FarSource:
    return FarSource(SimulatedHost(faults=faults))


@pytest.fixture
def registry(source: FarSource, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(reviving, "LONGEST", STALL_TIME)
    return Registry([source], [SIMULATED])


async def becomes(service: Service, pool: Pool, state: PoolState) -> None:
    await until(service, lambda: pool.state is state, what=f"the pool is {state}")


async def test_silent_storage_stalls_its_pool_until_it_answers(
    running: Running, registry: Registry, source: FarSource
) -> None:
    async with running(registry=registry, stall_time=STALL_TIME) as service:
        pool = await active_pool(service)
        await service.items.create(pool, item("web"), ROOT, adopt=False)
        told: list[object] = []
        service.events.listen(lambda event: told.append(event.details.get("state")))
        source.answers.clear()
        await becomes(service, pool, PoolState.STALLED)
        assert pool.error is pool.problem is not None
        assert pool.problem.errno == errno.ETIMEDOUT
        with pytest.raises(FspoolError, match="has not answered") as refused:
            await service.items.create(pool, item("more"), ROOT, adopt=False)
        assert refused.value.errno == errno.ETIMEDOUT
        assert set(pool.items) == {"web"}, "it is still listed"
        with pytest.raises(FspoolError, match="does not answer"):
            await service.lifecycle.refresh(pool, ROOT)
        asked = source.asked
        await trio.sleep(STALL_TIME)
        assert source.asked == asked, "one question at a time, however long it takes"
        source.answers.set()
        await becomes(service, pool, PoolState.ACTIVE)
        assert pool.problem is None
        await service.items.create(pool, item("more"), ROOT, adopt=False)
        assert told[:2] == ["stalled", "active"]


async def test_what_waits_for_silent_storage_is_timed_out_and_done_later(
    running: Running, registry: Registry, source: FarSource, faults: Faults
) -> None:
    async with running(registry=registry, stall_time=STALL_TIME, grace=STALL_TIME) as service:
        pool = await active_pool(service)
        with faults.hang("log_sync"):
            source.answers.clear()
            with pytest.raises(FspoolError, match="may still be done") as refused:
                await service.items.create(pool, item("web"), ROOT, adopt=False)
            assert refused.value.errno == errno.ETIMEDOUT
        source.answers.set()
        await until(service, lambda: pool.items["web"].state == "ready", what="it is made at last")


async def test_a_stalled_pool_is_stopped_without_waiting(
    running: Running, registry: Registry, source: FarSource, faults: Faults
) -> None:
    async with running(registry=registry, stall_time=STALL_TIME) as service:
        pool = await active_pool(service)
        source.answers.clear()
        await becomes(service, pool, PoolState.STALLED)
        with faults.hang("log_sync"), faults.hang("sync"):
            await service.lifecycle.destroy(pool, ROOT)
        assert pool.state is PoolState.INACTIVE
        source.answers.set()


@pytest.mark.parametrize("how", ["vanished", "dead", "dead while stalled"])
async def test_a_pool_that_lost_its_mount_is_started_again(
    running: Running, registry: Registry, source: FarSource, how: str
) -> None:
    async with running(registry=registry, stall_time=STALL_TIME) as service:
        pool = await active_pool(service)
        await service.items.create(pool, item("web"), ROOT, adopt=False)
        source.away = errno.ETIMEDOUT
        if how == "vanished":
            source.lost = errno.ESTALE
            service.context.suspect(pool)
        elif how == "dead while stalled":
            source.answers.clear()
            await becomes(service, pool, PoolState.STALLED)
        source.dead = how != "vanished"
        source.answers.set()
        await becomes(service, pool, PoolState.FAILED)
        source.lost, source.away, source.dead = 0, 0, False
        await becomes(service, pool, PoolState.ACTIVE)
        assert set(pool.items) == {"web"}


async def test_a_pool_whose_server_is_away_at_first_is_started_later(
    running: Running, registry: Registry, source: FarSource
) -> None:
    async with running(registry=registry, stall_time=STALL_TIME) as service:
        await active_pool(service)
    source.away = errno.ETIMEDOUT
    async with running(registry=registry, stall_time=STALL_TIME) as service:
        pool = service.pools.find("tank")
        await becomes(service, pool, PoolState.FAILED)
        source.away = 0
        await becomes(service, pool, PoolState.ACTIVE)


@pytest.mark.parametrize("verb", ["destroy", "refused", "by hand"])
async def test_what_nobody_wants_active_is_left_alone(
    running: Running, registry: Registry, source: FarSource, verb: str
) -> None:
    async with running(registry=registry, stall_time=STALL_TIME) as service:
        if verb == "by hand":
            pool = await active_pool(service)
            await service.lifecycle.stop(pool, ROOT)
            source.away = errno.ETIMEDOUT
            with pytest.raises(FspoolError, match="is away"):
                await service.lifecycle.start(pool, ROOT)
        else:
            pool = await active_pool(service)
            source.lost = source.away = errno.ESTALE if verb == "destroy" else errno.EEXIST
            service.context.suspect(pool)
            await becomes(service, pool, PoolState.FAILED)
            if verb == "destroy":
                await service.lifecycle.destroy(pool, ROOT)
        state, source.lost, source.away = pool.state, 0, 0
        await trio.sleep(3 * STALL_TIME)
        assert pool.state is state is not PoolState.ACTIVE
