"""Requests on items that meet each other, or the end of their pool."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
import trio.testing

from fspoolfs.backends.simulator import SimulatedHost
from fspoolfs.errors import (
    BusyError,
    ExistsError,
    FspoolError,
    InProgressError,
)
from fspoolfs.model.definitions import Permissions
from fspoolfs.model.states import PoolState
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Pool

from .conftest import Running
from .scenes import (
    LIMIT,
    ROOT,
    FirstHangs,
    active_pool,
    furnished_pool,
    hang,
    item,
    leftovers,
    patiently,
    until,
)


async def create_blocker(service: Service, pool: Pool) -> None:
    await service.items.create(pool, item("blocker"), ROOT, adopt=False)


async def test_one_of_many_who_create_an_item_succeeds(running: Running) -> None:
    async with running() as service:
        pool, ends = await active_pool(service), []

        async def create() -> None:
            try:
                await service.items.create(pool, item("web"), ROOT, adopt=False)
                ends.append(0)
            except ExistsError as error:
                ends.append(error.errno)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(create)
        assert sorted(ends) == [0, *[errno.EEXIST] * 9]


async def test_many_changes_share_few_syncs(running: Running) -> None:
    faults = FirstHangs()
    machine = SimulatedHost(faults=faults)
    async with running(machine) as service:
        pool = await active_pool(service)
        before = machine.faults.mutations
        async with trio.open_nursery() as nursery:
            for number in range(50):
                wanted = item(f"i{number}")
                nursery.start_soon(lambda one: service.items.create(pool, one, ROOT, adopt=False), wanted)
        # One journal record, one directory and two steps of a definition each; the rest are syncs.
        assert machine.faults.mutations - before - 50 * 5 <= 20


@pytest.mark.parametrize("request_name", ["rename", "delete", "change"])
async def test_a_request_that_waited_while_the_pool_was_stopped_leaves_the_item_free(
    request_name: str, running: Running
) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        locks = pool.active().locks
        lease = await locks.acquire("web")
        requests: dict[str, Callable[[], Awaitable[object]]] = {
            "rename": lambda: service.items.rename(pool, "web", "shop"),
            "delete": lambda: service.trash.delete(pool, "web"),
            "change": lambda: service.items.redefine(
                pool, pool.items["web"], item("web", permissions=Permissions(mode=0o700)), ROOT
            ),
        }

        async def wait() -> None:
            with pytest.raises(FspoolError):
                await requests[request_name]()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            # The state as a verb sees it that is refused later, such as a stop of a pool in use.
            pool.state = PoolState.STOPPING
            lease.release()
        pool.state = PoolState.ACTIVE
        assert not locks.held("web")
        assert pool.items["web"].state == "ready"
        assert set(pool.items) == {"web", "other"}
        with trio.fail_after(LIMIT):
            await service.items.rename(pool, "web", "shop")


async def test_a_place_that_a_rename_is_about_to_take_is_taken(running: Running) -> None:
    faults = FirstHangs()
    machine = SimulatedHost(faults=faults)
    async with running(machine, grace=0.05) as service:
        pool = await furnished_pool(service)

        async def rename(service: Service, pool: Pool) -> None:
            await service.items.rename(pool, "web", "shop")

        with await hang(service, pool, faults, "log_sync", rename):
            with pytest.raises(ExistsError):
                await service.items.create(pool, item("new", path="/shop"), ROOT, adopt=False)
            with pytest.raises(ExistsError):
                await service.items.create(pool, item("inner", path="/shop/inner"), ROOT, adopt=False)
        await until(service, lambda: pool.items["shop"].state == "ready", what="it is renamed")
        assert leftovers(machine, pool) == []


async def test_a_clone_that_ends_after_its_pool_was_destroyed_leaves_the_name_free(running: Running) -> None:
    faults = FirstHangs()
    machine = SimulatedHost(faults=faults)
    async with running(machine, grace=0.05) as service:
        pool = await furnished_pool(service)

        async def clone(service: Service, pool: Pool) -> None:
            await service.clones.clone_item(pool, pool.items["web"], "copy", None, ROOT)

        with await hang(service, pool, faults, "sync", clone):
            job = pool.items["copy"].job
            assert job is not None
            with pytest.raises(BusyError, match="clone of item web to copy is under way"):
                await service.lifecycle.stop(pool, ROOT)
            with suppress(InProgressError):
                await service.lifecycle.destroy(pool, ROOT)
            await until(service, lambda: pool.state is PoolState.INACTIVE, what="the pool is destroyed")
        with trio.fail_after(LIMIT):
            await job.finished.wait()
        assert job.error is not None
        await patiently(service, pool, service.lifecycle.start(pool, ROOT))
        assert set(pool.items) == {"web", "other"}
        with trio.fail_after(LIMIT):
            again = service.clones.clone_item(pool, pool.items["web"], "copy", None, ROOT)
            await patiently(service, pool, again)
        assert pool.items["copy"].state == "ready"
        assert leftovers(machine, pool) == []
