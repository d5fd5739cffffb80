"""Pools that grow and shrink: the definition, the storage, and what becomes of both when one is refused."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from fspoolfs.backends.registry import SIMULATED, Registry
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.simulator import SimulatedHost, SimulatedSource
from fspoolfs.errors import (
    BusyError,
    FspoolError,
    InProgressError,
    InvalidError,
    StorageError,
    UnsupportedError,
)
from fspoolfs.model.definitions import PoolDefinition, TrashPolicy
from fspoolfs.progress import Progress
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Pool
from service.conftest import Running
from service.scenes import ROOT, active_pool, dir_pool, item, running_pool

SIZE, LARGER = 1 << 20, 2 << 20


class GrowingSource(SimulatedSource):
    """Storage that has a capacity, and grows when it is told to."""

    def __init__(self, host: SimulatedHost) -> None:
        super().__init__(host)
        self.bytes = SIZE
        self.refusal: Exception | None = None

    def check(self, definition: PoolDefinition) -> None:
        """Every capacity is one."""

    def size(self, definition: PoolDefinition) -> int | None:
        return self.bytes

    def grow(
        self, definition: PoolDefinition, root: RootDirectory, capacity: int, progress: Progress
    ) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.bytes = capacity


@pytest.fixture
def source(host: SimulatedHost) -> GrowingSource:
    return GrowingSource(host)


@pytest.fixture
def registry(source: GrowingSource) -> Registry:
    return Registry([source], [SIMULATED])


async def stored(service: Service, pool: Pool) -> int | None:
    definitions, _ = service.store.load()
    return next(one.capacity for one in definitions if one.name == pool.name)


@pytest.mark.parametrize("said", [SIZE, None])
async def test_storage_follows_a_larger_capacity(
    running: Running, source: GrowingSource, registry: Registry, said: int | None
) -> None:
    async with running(registry=registry) as service:
        pool = await active_pool(service, capacity=said)
        await service.pools.set_capacity(pool, LARGER, ROOT)
        assert source.bytes == LARGER
        assert (pool.definition.capacity, pool.pending) == (LARGER, None)
        assert await stored(service, pool) == LARGER
        await service.pools.define(dir_pool("tank", capacity=2 * LARGER), ROOT)
        assert source.bytes == 2 * LARGER


@pytest.mark.parametrize(
    "refusal", [OSError(errno.ENOSPC, "no space"), UnsupportedError("pool tank: it cannot")]
)
async def test_definition_goes_back_when_the_storage_refuses(
    running: Running, source: GrowingSource, registry: Registry, refusal: Exception
) -> None:
    async with running(registry=registry) as service:
        pool = await active_pool(service, capacity=SIZE)
        source.refusal = refusal
        with pytest.raises((StorageError, UnsupportedError)) as caught:
            await service.pools.set_capacity(pool, LARGER, ROOT)
        assert caught.value is pool.error
        assert pool.definition.capacity == SIZE
        assert await stored(service, pool) == SIZE
        source.refusal = None
        await service.pools.set_capacity(pool, LARGER, ROOT)
        assert source.bytes == LARGER


async def test_what_waits_for_the_next_start_keeps_waiting(
    running: Running, source: GrowingSource, registry: Registry
) -> None:
    async with running(registry=registry) as service:
        pool = await active_pool(service, capacity=SIZE)
        await service.pools.define(dir_pool("tank", capacity=SIZE, target="/storage/elsewhere"), ROOT)
        await service.pools.set_capacity(pool, LARGER, ROOT)
        assert source.bytes == LARGER
        assert pool.pending is not None
        assert (pool.pending.capacity, pool.pending.target) == (LARGER, "/storage/elsewhere")


@pytest.mark.parametrize("active", [True, False])
async def test_smaller_capacity_is_refused_where_storage_only_grows(
    running: Running, registry: Registry, active: bool
) -> None:
    async with running(registry=registry) as service:
        pool = await active_pool(service, capacity=SIZE)
        if not active:
            await service.lifecycle.stop(pool, ROOT)
        with pytest.raises(UnsupportedError, match="cannot shrink"):
            await service.pools.set_capacity(pool, SIZE - 1, ROOT)
        with pytest.raises(UnsupportedError, match="write a size"):
            await service.pools.set_capacity(pool, None, ROOT)
        assert pool.definition.capacity == SIZE


class ShrinkingSource(GrowingSource):
    """The same, and it can become smaller while its pool is `active` or not."""

    def __init__(self, host: SimulatedHost) -> None:
        super().__init__(host)
        self.active = True

    def check_shrink(self, definition: PoolDefinition, capacity: int, *, active: bool) -> None:
        if active != self.active:
            raise UnsupportedError("not now")

    def shrink(
        self, definition: PoolDefinition, root: RootDirectory | None, capacity: int, progress: Progress
    ) -> None:
        assert (root is not None) == self.active
        assert definition.capacity == self.bytes, "the definition follows the storage"
        self.grow(definition, root, capacity, progress)  # type: ignore[arg-type]


@pytest.mark.parametrize("active", [True, False])
async def test_definition_follows_storage_that_shrinks(
    running: Running, host: SimulatedHost, active: bool
) -> None:
    source = ShrinkingSource(host)
    source.active = active
    async with running(registry=Registry([source], [SIMULATED])) as service:
        pool = await active_pool(service, capacity=SIZE)
        for state in (True, False):
            if not state:
                await service.lifecycle.stop(pool, ROOT)
            if state is not active:
                with pytest.raises(UnsupportedError, match="not now"):
                    await service.pools.set_capacity(pool, SIZE - 1, ROOT)
                continue
            source.refusal = OSError(errno.ENOSPC, "full")
            with pytest.raises(StorageError):
                await service.pools.set_capacity(pool, SIZE - 1, ROOT)
            assert (pool.definition.capacity, await stored(service, pool)) == (SIZE, SIZE)
            source.refusal = None
            await service.pools.set_capacity(pool, SIZE - 1, ROOT)
            assert source.bytes == SIZE - 1
            assert (pool.definition.capacity, await stored(service, pool)) == (SIZE - 1, SIZE - 1)
            source.bytes = SIZE
            pool.definition = replace(pool.definition, capacity=SIZE)


async def test_document_that_shrinks_changes_nothing_else(running: Running, host: SimulatedHost) -> None:
    async with running(registry=Registry([ShrinkingSource(host)], [SIMULATED])) as service:
        pool = await active_pool(service, capacity=SIZE)
        before = pool.definition
        with pytest.raises(InvalidError, match="nothing else"):
            await service.pools.define(
                dir_pool("tank", capacity=SIZE - 1, trash=TrashPolicy(retention=1)), ROOT
            )
        assert (pool.definition, pool.pending) == (before, None)


async def test_inactive_pool_is_left_to_its_next_start(
    running: Running, source: GrowingSource, registry: Registry
) -> None:
    async with running(registry=registry) as service:
        pool = await active_pool(service, capacity=SIZE)
        await service.lifecycle.stop(pool, ROOT)
        await service.pools.set_capacity(pool, LARGER, ROOT)
        assert (source.bytes, pool.definition.capacity) == (SIZE, LARGER)


async def test_pool_does_not_grow_beside_another_job(
    running: Running, host: SimulatedHost, registry: Registry
) -> None:
    async with running(registry=registry, grace=0.05) as service:
        pool = await active_pool(service, capacity=SIZE)
        with host.faults.hang("verify"):
            with pytest.raises(InProgressError):
                await service.lifecycle.refresh(pool, ROOT)
            with pytest.raises(BusyError, match="refresh is under way"):
                await service.pools.set_capacity(pool, LARGER, ROOT)
            assert pool.definition.capacity == SIZE


async def test_directory_has_no_capacity_to_change(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service)
        with pytest.raises(UnsupportedError, match="cannot change its capacity"):
            await service.pools.set_capacity(pool, LARGER, ROOT)


class MountingSource(GrowingSource):
    """Storage that is mounted, and may be in use."""

    def __init__(self, host: SimulatedHost) -> None:
        super().__init__(host)
        self.attached = 0
        self.refuses = False

    def attach(self, definition: PoolDefinition, progress: Progress) -> RootDirectory:
        self.attached = 1
        return super().attach(definition, progress)

    def detach(self, definition: PoolDefinition, *, force: bool) -> None:
        if self.refuses and not force:
            raise BusyError("it is in use")
        self.attached = 0

    def holders(self, definition: PoolDefinition) -> list[object]:
        return []


async def test_a_pool_that_the_storage_does_not_let_go_is_active_again(
    running: Running, host: SimulatedHost
) -> None:
    source = MountingSource(host)
    async with running(registry=Registry([source], [SIMULATED])) as service:
        pool = await active_pool(service)
        await service.items.create(pool, item("web"), ROOT, adopt=False)
        number = pool.items["web"].number
        source.refuses = True
        for _ in range(2):
            with pytest.raises(BusyError):
                await service.lifecycle.stop(pool, ROOT)
            assert (pool.state, source.attached) == ("active", 1)
            assert pool.items["web"].number == number
        source.refuses = False
        await service.lifecycle.stop(pool, ROOT)
        assert (pool.state, source.attached) == ("inactive", 0)


async def test_pool_that_is_forgotten_leaves_nothing_mounted(running: Running, host: SimulatedHost) -> None:
    source = MountingSource(host)
    async with running(registry=Registry([source], [SIMULATED])) as service:
        pool = await active_pool(service)
        source.refuses = True
        host.faults.fail("verify", errno.EIO)
        with pytest.raises(FspoolError):
            await service.lifecycle.stop(pool, ROOT)
        assert pool.state == "failed"
        await service.lifecycle.undefine(pool, ROOT)
        assert source.attached == 0


async def test_start_that_was_announced_is_taken_up_by_the_next_daemon(
    running: Running, host: SimulatedHost
) -> None:
    registry = Registry([MountingSource(host)], [SIMULATED])
    async with running(registry=registry) as service:
        pool = await active_pool(service)
        await service.lifecycle.stop(pool, ROOT)
        # As a daemon leaves it that dies before the start has come to its end.
        assert service.store.announce_start(pool.name)
        assert not service.store.announce_start(pool.name)
    async with running(registry=registry) as service:
        assert (await running_pool(service)).state == "active"


async def test_start_that_fails_is_not_taken_up(running: Running, host: SimulatedHost) -> None:
    registry = Registry([MountingSource(host)], [SIMULATED])
    async with running(registry=registry) as service:
        await service.pools.define(dir_pool("tank"), ROOT)
        pool = service.pools.find("tank")
        with pytest.raises(FspoolError):
            await service.lifecycle.start(pool, ROOT)
        assert service.store.left_active() == frozenset()
