"""Storage that fails, at every call of every operation; on simulated storage.

Each operation is run once to count the calls that it makes, and then again and again with one of them
failing. It must then have happened whole or not at all, and what it said must be true.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
import trio.testing

from fspoolfs.backends import layout
from fspoolfs.backends.simulator import SimulatedHost
from fspoolfs.backends.source import BuildMode
from fspoolfs.errors import FspoolError, InProgressError
from fspoolfs.model.definitions import Permissions
from fspoolfs.model.states import PoolState
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Pool

from .conftest import Running
from .scenes import (
    LIMIT,
    ROOT,
    FirstHangs,
    Recorder,
    Seen,
    active_pool,
    furnished_pool,
    hang,
    item,
    leftovers,
    look,
    patiently,
    running_pool,
    until,
)

ERRNOS = [errno.ENOSPC, errno.EIO, errno.EROFS]


async def create(service: Service, pool: Pool) -> None:
    await service.items.create(pool, item("new"), ROOT, adopt=False)


async def create_deep(service: Service, pool: Pool) -> None:
    await service.items.create(pool, item("new", path="/customers/a/new"), ROOT, adopt=False)


async def create_for_somebody(service: Service, pool: Pool) -> None:
    permissions = Permissions(mode=0o700, owner=1001, group=1001)
    await service.items.create(pool, item("new", permissions=permissions), ROOT, adopt=False)


async def adopt(service: Service, pool: Pool) -> None:
    await service.items.define(pool, item("found", permissions=Permissions(mode=0o700)), ROOT)


async def change(service: Service, pool: Pool) -> None:
    changed = item("web", permissions=Permissions(mode=0o700))
    await service.items.redefine(pool, pool.items["web"], changed, ROOT)


async def rename(service: Service, pool: Pool) -> None:
    await service.items.rename(pool, "web", "shop")


async def delete(service: Service, pool: Pool) -> None:
    await service.trash.delete(pool, "web")


async def undelete(service: Service, pool: Pool) -> None:
    await service.trash.undelete(pool, "old", "back")


async def purge(service: Service, pool: Pool) -> None:
    await service.trash.purge(pool, "old")


async def clone(service: Service, pool: Pool) -> None:
    await service.clones.clone_item(pool, pool.items["web"], "copy", None, ROOT)


async def measure(service: Service, pool: Pool) -> None:
    await service.clones.measure(pool, pool.items["web"])


async def refresh(service: Service, pool: Pool) -> None:
    await service.lifecycle.refresh(pool, ROOT)


Operation = Callable[[Service, Pool], Awaitable[None]]
OPERATIONS: list[Operation] = [
    create,
    create_deep,
    create_for_somebody,
    adopt,
    change,
    rename,
    delete,
    undelete,
    purge,
    clone,
    measure,
]


class Bench:
    """Runs one operation on copies of one machine, each with another fault."""

    def __init__(self, running: Running, machine: SimulatedHost) -> None:
        self._running = running
        self._machine = machine

    @classmethod
    async def furnish(cls, running: Running) -> Bench:
        machine = SimulatedHost()
        async with running(machine) as service:
            await furnished_pool(service)
        return cls(running, machine)

    def copy(self) -> SimulatedHost:
        """The machine as it was furnished; all was synced when its service stopped."""
        machine = self._machine.power_cut()
        machine.faults = Recorder()
        return machine

    async def whole_run(self, operation: Operation) -> tuple[Seen, Seen, Counter[str]]:
        """What is seen before and after, and how often the operation makes each call."""
        machine = self.copy()
        assert isinstance(machine.faults, Recorder)
        async with self._running(machine) as service:
            pool = await running_pool(service)
            before, begun = look(machine, pool), Counter(machine.faults.calls)
            await operation(service, pool)
            return before, look(machine, pool), machine.faults.calls - begun

    async def attempt(
        self, operation: Operation, call: str, number: int, *, after: int, times: int | None
    ) -> tuple[FspoolError | None, PoolState, Seen, Seen]:
        """How it ended, and what is seen then and after the storage is mended and the pool restarted."""
        machine = self.copy()
        async with self._running(machine) as service:
            pool = await running_pool(service)
            machine.faults.fail(call, number, after=after, times=times)
            refusal = None
            try:
                await operation(service, pool)
            except FspoolError as error:
                refusal = error
            await trio.testing.wait_all_tasks_blocked()
            if pool.attached is not None and pool.attached.committer.broken is not None:
                await until(service, lambda: pool.state is PoolState.FAILED, what=f"failed after: {refusal}")
            state, now = pool.state, look(machine, pool)
        mended = machine.killed()
        async with self._running(mended) as service:
            pool = await running_pool(service)
            assert pool.state is PoolState.ACTIVE, pool.error
            assert leftovers(mended, pool) == [], (call, number, after, times)
            return refusal, state, now, look(mended, pool)


@pytest.mark.parametrize("times", [1, None], ids=["once", "for-good"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.__name__)
async def test_an_operation_whose_storage_fails_changes_nothing_or_the_pool_has_failed(
    operation: Operation, times: int | None, running: Running
) -> None:
    bench = await Bench.furnish(running)
    before, after, calls = await bench.whole_run(operation)
    assert calls
    for call, count in calls.items():
        for position in range(count):
            for number in ERRNOS:
                case = f"{call} number {position + 1}: {errno.errorcode[number]}"
                refusal, state, now, later = await bench.attempt(
                    operation, call, number, after=position, times=times
                )
                if refusal is None:
                    # The fault did no harm, or came when all was done: then it is done for good.
                    assert state is PoolState.FAILED or now == after, case
                    assert later == after, case
                else:
                    assert refusal.errno in (number, errno.EIO), case
                    assert os.strerror(number) in refusal.sentence, case
                    assert state is PoolState.FAILED or now == before, case
                    assert later == before or (state is PoolState.FAILED and later == after), case


async def start(service: Service, pool: Pool) -> None:
    await service.lifecycle.start(pool, ROOT)


async def stop(service: Service, pool: Pool) -> None:
    await service.lifecycle.stop(pool, ROOT)


async def destroy(service: Service, pool: Pool) -> None:
    await service.lifecycle.destroy(pool, ROOT)


async def build(service: Service, pool: Pool) -> None:
    await service.lifecycle.build(pool, ROOT, BuildMode.NO_OVERWRITE)


@pytest.mark.parametrize("number", ERRNOS, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize(
    ("operation", "at_rest"), [(start, True), (build, True), (stop, False), (destroy, False)]
)
async def test_a_pool_whose_life_cycle_fails_says_why_and_can_be_started_again(
    operation: Operation, at_rest: bool, number: int, running: Running
) -> None:
    bench = await Bench.furnish(running)
    machine = bench.copy()
    faults = machine.faults
    assert isinstance(faults, Recorder)
    async with running(machine) as service:
        pool = await running_pool(service)
        before = look(machine, pool)
        if at_rest:
            await service.lifecycle.stop(pool, ROOT)
        faults.calls.clear()
        await operation(service, pool)
        calls = Counter(faults.calls)
        if pool.state is not PoolState.ACTIVE:
            await service.lifecycle.start(pool, ROOT)
        for call, count in calls.items():
            for position in range(count):
                case = f"{call} number {position + 1}"
                if at_rest:
                    await service.lifecycle.stop(pool, ROOT)
                faults.fail(call, number, after=position)
                refused = None
                try:
                    await operation(service, pool)
                except FspoolError as error:
                    refused = error
                if refused is not None:
                    assert os.strerror(number) in refused.sentence, case
                    assert os.strerror(number) in str(pool.error), case
                if pool.state is PoolState.ACTIVE and operation is not start:
                    assert refused is not None, case
                    # Whoever is told that the pool is active can use it.
                    with trio.fail_after(LIMIT):
                        await service.items.create(pool, item("probe"), ROOT, adopt=False)
                        await service.trash.delete(pool, "probe")
                        await service.trash.purge(pool, "probe")
                elif pool.state is PoolState.ACTIVE and refused is None:
                    # One file that cannot be read hides what it describes, until the next start.
                    await service.lifecycle.stop(pool, ROOT)
                if pool.state is not PoolState.ACTIVE:
                    await service.lifecycle.start(pool, ROOT)
                assert look(machine, pool) == before, case
                assert leftovers(machine, pool) == [], case


async def test_a_pool_that_cannot_write_its_journal_takes_no_more_changes_until_it_is_started(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        host.faults.fail("log_sync", errno.EIO)
        with pytest.raises(FspoolError, match="write the journal"):
            await create(service, pool)
        await until(service, lambda: pool.state is PoolState.FAILED, what="the pool says failed")
        with pytest.raises(FspoolError, match="start it first"):
            await rename(service, pool)
        await service.lifecycle.start(pool, ROOT)
        await rename(service, pool)
        assert set(pool.items) == {"shop", "other"} or set(pool.items) == {"shop", "other", "new"}
        assert leftovers(host, pool) == []


async def test_an_item_whose_definition_cannot_be_read_fails_alone(
    running: Running, host: SimulatedHost, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        await service.lifecycle.stop(pool, ROOT)
        host.trees[pool.target].remove_file(layout.INDEX)
        host.faults.fail("read", errno.EIO, path=layout.definition("web"))
        await service.lifecycle.start(pool, ROOT)
        assert {one.name: one.state.value for one in pool.items.values()} == {
            "web": "failed",
            "other": "ready",
        }
        assert "Input/output error" in str(pool.items["web"].error)
        await service.lifecycle.refresh(pool, ROOT)
        assert pool.items["web"].state == "ready"
    assert "item web" in caplog.text


# -- storage that hangs ---------------------------------------------------------------------------


@pytest.fixture
def hanging() -> FirstHangs:
    return FirstHangs()


@pytest.mark.parametrize("call", ["stat", "log_write", "log_sync", "make_directory", "write"])
async def test_a_hanging_pool_delays_no_other(call: str, running: Running, hanging: FirstHangs) -> None:
    async with running(SimulatedHost(faults=hanging), grace=0.1) as service:
        slow, quick = await active_pool(service, "slow"), await active_pool(service, "quick")
        with await hang(service, slow, hanging, call, create):
            with trio.fail_after(LIMIT):
                await patiently(service, quick, service.items.create(quick, item("web"), ROOT, adopt=False))
                await patiently(service, quick, service.lifecycle.stop(quick, ROOT))
                await patiently(service, quick, service.lifecycle.start(quick, ROOT))
                assert set(quick.items) == {"web"}
                assert await service.spaces.of(quick) is not None
            assert slow.items["new"].state == "creating"
        await until(service, lambda: slow.items["new"].state == "ready", what="the slow one is done at last")


@pytest.mark.parametrize("call", ["space", "entries", "remove_tree", "copy_tree", "measure"])
async def test_long_work_that_hangs_leaves_its_pool_usable(
    call: str, running: Running, hanging: FirstHangs
) -> None:
    work: dict[str, Operation] = {
        "space": refresh,
        "entries": refresh,
        "remove_tree": purge_and_wait,
        "copy_tree": clone,
        "measure": measure,
    }
    async with running(SimulatedHost(faults=hanging), grace=0.1) as service:
        pool = await furnished_pool(service)
        with await hang(service, pool, hanging, call, work[call]), trio.fail_after(LIMIT):
            with suppress(InProgressError):
                await create(service, pool)
            with suppress(InProgressError):
                await rename(service, pool)
            await until(service, lambda: {"new", "shop"} <= ready(pool), what="both are done")


def ready(pool: Pool) -> set[str]:
    return {name for name, one in pool.items.items() if one.state == "ready"}


async def patiently_ended(service: Service, pool: Pool) -> None:
    """Destroy a pool in which something hangs."""
    with suppress(InProgressError):
        await service.lifecycle.destroy(pool, ROOT)
    await until(service, lambda: pool.state is PoolState.INACTIVE, what="the pool is destroyed")


async def purge_and_wait(service: Service, pool: Pool) -> None:
    await purge(service, pool)
    await until(service, lambda: pool.purging is not None, what="the purge has begun")
    assert pool.purging is not None
    await pool.purging.outcome(0.1)


@pytest.mark.parametrize("operation", [create, change, rename, delete, undelete, purge])
@pytest.mark.parametrize("call", ["log_sync", "stat"])
async def test_a_destroyed_pool_is_not_touched_by_what_hung_in_it(
    operation: Operation, call: str, running: Running, hanging: FirstHangs
) -> None:
    machine = SimulatedHost(faults=hanging)
    async with running(machine, grace=0.1) as service:
        pool = await furnished_pool(service)
        with await hang(service, pool, hanging, call, operation):
            await patiently_ended(service, pool)
            await patiently(service, pool, service.lifecycle.start(pool, ROOT))
            before = look(machine, pool)
            threads = [one for one in threading.enumerate() if one.name == "commit-tank"]
        for thread in threads:
            await trio.to_thread.run_sync(thread.join, LIMIT)
        await trio.testing.wait_all_tasks_blocked()
        assert look(machine, pool) == before
        assert leftovers(machine, pool) == []
        with trio.fail_after(LIMIT):
            await patiently(service, pool, service.items.create(pool, item("probe"), ROOT, adopt=False))
        assert "probe" in pool.items
    async with running(machine) as service:
        pool = await running_pool(service)
        assert pool.state is PoolState.ACTIVE, pool.error
        assert leftovers(machine, pool) == []
