"""The life of a pool: its verbs, what the host remembers of it, and conflicts between pools."""

from __future__ import annotations

import errno
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio
import trio.testing

from fspoolfs.backends import layout
from fspoolfs.backends.simulator import SimulatedHost
from fspoolfs.backends.source import BuildMode
from fspoolfs.errors import (
    AccessError,
    BusyError,
    ExistsError,
    FspoolError,
    InactiveError,
    InProgressError,
    NotEmptyError,
    NotFoundError,
    StorageError,
)
from fspoolfs.model.definitions import Permissions, PoolDefinition, PoolSource, PoolType, TrashPolicy
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Pool
from fspoolfs.service.store import Store

from .conftest import Running
from .scenes import (
    ALICE,
    LIMIT,
    ROOT,
    FirstHangs,
    active_pool,
    dir_pool,
    furnished_pool,
    hang,
    item,
    look,
    patiently,
    place,
    running_pool,
    storage,
    until,
)


async def test_a_pool_goes_through_its_life(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        states = []
        service.events.listen(
            lambda event: states.append(event.details["state"]) if event.kind == "pool-state" else None
        )
        pool = await service.pools.define(dir_pool("tank"), ROOT)
        assert (pool.state, pool.target) == ("inactive", place("tank"))
        lifecycle = service.lifecycle
        await lifecycle.build(pool, ROOT, BuildMode.NO_OVERWRITE)
        await lifecycle.start(pool, ROOT)
        await lifecycle.refresh(pool, ROOT)
        await lifecycle.stop(pool, ROOT)
        await lifecycle.delete(pool, ROOT)
        assert place("tank") not in host.trees
        assert states == [
            *("building", "inactive", "starting", "active", "stopping", "inactive", "deleting", "inactive"),
        ]
        await service.pools.undefine(pool, ROOT)
        assert service.pools.get("tank") is None


async def test_verbs_are_refused_in_the_wrong_state(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service)
        lifecycle = service.lifecycle
        for request in (
            lifecycle.start(pool, ROOT),
            lifecycle.build(pool, ROOT, BuildMode.OVERWRITE),
            lifecycle.delete(pool, ROOT),
            service.pools.undefine(pool, ROOT),
        ):
            with pytest.raises(BusyError, match="pool tank is active"):
                await request
        await lifecycle.stop(pool, ROOT)
        for request in (
            lifecycle.stop(pool, ROOT),
            lifecycle.destroy(pool, ROOT),
            lifecycle.refresh(pool, ROOT),
        ):
            with pytest.raises(InactiveError, match="pool tank is inactive"):
                await request


async def test_verbs_are_for_those_who_administer(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service, permissions=Permissions(mode=0o777, owner=1001))
        lifecycle = service.lifecycle
        for request in (
            lifecycle.stop(pool, ALICE),
            lifecycle.destroy(pool, ALICE),
            lifecycle.refresh(pool, ALICE),
            service.pools.undefine(pool, ALICE),
            service.pools.define(dir_pool("mine"), ALICE),
            service.pools.redefine(pool, dir_pool("tank"), ALICE),
            service.pools.set_autostart(pool, ALICE, autostart=True),
        ):
            with pytest.raises(AccessError, match="user 1001 may not"):
                await request


async def test_one_verb_at_a_time(running: Running) -> None:
    faults = FirstHangs()
    async with running(SimulatedHost(faults=faults), grace=0.05) as service:
        pool = await service.pools.define(dir_pool("tank"), ROOT)

        async def build(service: Service, pool: Pool) -> None:
            await service.lifecycle.build(pool, ROOT, BuildMode.NO_OVERWRITE)

        with await hang(service, pool, faults, "build", build):
            assert pool.state == "building"
            with pytest.raises(BusyError):
                await service.lifecycle.start(pool, ROOT)
            with pytest.raises(BusyError):
                await service.pools.define(dir_pool("tank", trash=TrashPolicy(retention=0)), ROOT)
            with pytest.raises(BusyError):
                await service.pools.undefine(pool, ROOT)
        await until(service, lambda: pool.state == "inactive", what="it is built")
        await patiently(service, pool, service.lifecycle.start(pool, ROOT))
        assert pool.state == "active"


async def test_a_verb_that_takes_long_goes_on_and_its_end_is_told(running: Running) -> None:
    faults = FirstHangs()
    async with running(SimulatedHost(faults=faults), grace=0.05) as service:
        pool = await active_pool(service)
        await patiently(service, pool, service.lifecycle.stop(pool, ROOT))
        ends: list[dict[str, str | int]] = []
        service.events.listen(lambda event: ends.append(event.details) if event.kind == "job-done" else None)

        async def start(service: Service, pool: Pool) -> None:
            await service.lifecycle.start(pool, ROOT)

        with await hang(service, pool, faults, "attach", start):
            assert pool.job is not None
            assert pool.job.line() == "attaching"
        await until(service, lambda: bool(ends), what="the end is told")
        assert ends == [{"job": "start"}]
        assert pool.state == "active"


async def test_a_pool_without_its_directory_does_not_start_and_says_what_to_do(running: Running) -> None:
    async with running() as service:
        pool = await service.pools.define(dir_pool("tank"), ROOT)
        with pytest.raises(NotFoundError, match="build the pool first"):
            await service.lifecycle.start(pool, ROOT)
        assert pool.state == "failed"
        assert "build the pool first" in str(pool.error)
        await service.lifecycle.start(pool, ROOT, build=True)
        assert (pool.state, pool.error) == ("active", None)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EROFS, "remount the file system that holds /storage/pools/tank for writing"),
        (errno.EACCES, "the right to enter /storage/pools/tank and to write there"),
        (errno.ENOSPC, "make room on the file system that holds /storage/pools/tank"),
        (errno.EIO, r"the kernel's log \(dmesg\)"),
        (errno.ENOTCONN, "mend what is wrong with /storage/pools/tank"),
    ],
)
async def test_a_start_that_the_storage_refuses_says_what_to_do(
    running: Running, host: SimulatedHost, number: int, advice: str
) -> None:
    async with running() as service:
        pool = await active_pool(service)
        await service.lifecycle.stop(pool, ROOT)
        host.faults.fail("open_log", number)
        with pytest.raises(StorageError, match=f"{advice}.*, then start the pool again") as caught:
            await service.lifecycle.start(pool, ROOT)
        assert caught.value.errno == number


async def test_delete_refuses_when_something_would_be_lost(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        await service.lifecycle.stop(pool, ROOT)
        with pytest.raises(NotEmptyError):
            await service.lifecycle.delete(pool, ROOT)
        assert (pool.state, place("tank") in host.trees) == ("inactive", True)
        await service.lifecycle.start(pool, ROOT)
        assert set(pool.items) == {"web", "other"}


async def test_stopping_and_undefining_keep_everything(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        before, uuid = look(host, pool), pool.uuid
        await service.lifecycle.stop(pool, ROOT)
        assert (pool.items, pool.trash) == ({}, {})
        await service.pools.undefine(pool, ROOT)
        again = await service.pools.define(dir_pool("tank", uuid=uuid), ROOT)
        await service.lifecycle.start(again, ROOT)
        assert look(host, again) == before


async def test_a_root_that_carries_another_pool_is_not_taken(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        await service.lifecycle.stop(pool, ROOT)
        await service.pools.undefine(pool, ROOT)
        other = await service.pools.define(dir_pool("lake", target=place("tank")), ROOT)
        with pytest.raises(ExistsError, match="carries pool tank with uuid"):
            await service.lifecycle.start(other, ROOT)
        assert other.state == "failed"


# -- pools that fail ------------------------------------------------------------------------------


async def fail_while_active(service: Service, host: SimulatedHost, pool: Pool) -> None:
    """Take the root away, and let a change notice it."""
    host.trees.pop(pool.target)
    host.faults.fail("make_directory", errno.EIO)
    with pytest.raises(FspoolError, match="Input/output error"):
        await service.items.create(pool, item("new"), ROOT, adopt=False)
    await until(service, lambda: pool.state == "failed", what="the pool says failed")


async def test_an_active_pool_whose_root_is_gone_fails_and_can_be_started_again(
    running: Running, host: SimulatedHost, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        tree = host.trees[pool.target]
        await fail_while_active(service, host, pool)
        assert "no longer what was attached" in str(pool.error)
        with pytest.raises(InactiveError, match="pool tank is failed: start it first"):
            await service.items.create(pool, item("new"), ROOT, adopt=False)
        with pytest.raises(NotFoundError):
            await service.lifecycle.start(pool, ROOT)
        host.trees[pool.target] = tree
        await service.lifecycle.start(pool, ROOT)
        assert set(pool.items) == {"web", "other"}
    assert "pool tank has failed" in caplog.text


async def test_a_failed_pool_can_be_stopped(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        await fail_while_active(service, host, pool)
        await service.lifecycle.stop(pool, ROOT)
        assert (pool.state, pool.attached) == ("inactive", None)


async def test_a_failed_pool_that_is_undefined_leaves_nothing_running(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        await fail_while_active(service, host, pool)
        await service.lifecycle.undefine(pool, ROOT)
        assert pool.attached is None
        # It has said that it is done a moment before it ends.
        await until(
            service,
            lambda: "commit-tank" not in {one.name for one in threading.enumerate()},
            what="its thread has ended",
        )


STALE_REQUESTS: dict[str, Callable[[Service, Pool], Awaitable[None]]] = {
    "start": lambda service, pool: service.lifecycle.start(pool, ROOT, build=True),
    "build": lambda service, pool: service.lifecycle.build(pool, ROOT, BuildMode.NO_OVERWRITE),
    "delete": lambda service, pool: service.lifecycle.delete(pool, ROOT),
    "autostart": lambda service, pool: service.pools.set_autostart(pool, ROOT, autostart=True),
    "redefine": lambda service, pool: service.pools.redefine(pool, dir_pool("tank"), ROOT),
    "undefine": lambda service, pool: service.pools.undefine(pool, ROOT),
}


@pytest.mark.parametrize("request_name", STALE_REQUESTS)
async def test_who_still_knows_a_pool_that_was_undefined_can_do_nothing_with_it(
    request_name: str, running: Running, tmp_path: Path
) -> None:
    async with running() as service:
        pool = await service.pools.define(dir_pool("tank"), ROOT)
        await service.pools.undefine(pool, ROOT)
        with pytest.raises(NotFoundError):
            await STALE_REQUESTS[request_name](service, pool)
        assert list(service.pools) == []
        assert pool.attached is None
    assert [path for path in (tmp_path / "state").rglob("*") if path.is_file()] == []


async def test_a_service_that_ends_leaves_hanging_storage_behind(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    faults = FirstHangs()
    machine = SimulatedHost(faults=faults)

    async def create(service: Service, pool: Pool) -> None:
        await service.items.create(pool, item("new"), ROOT, adopt=False)

    with trio.fail_after(LIMIT):
        async with running(machine, grace=0.05) as service:
            pool = await active_pool(service)
            handle = await hang(service, pool, faults, "log_sync", create)
    handle.release()
    assert "its storage does not answer" in caplog.text


async def test_autostart_of_a_pool_that_cannot_start_fails_it_alone(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        await active_pool(service, "good")
        await active_pool(service, "bad")
    host.trees.pop(place("bad"))
    async with running() as service:
        assert (await running_pool(service, "good")).state == "active"
        assert (await running_pool(service, "bad")).state == "failed"


async def test_autostart_of_a_pool_that_nothing_here_can_serve_says_so(running: Running) -> None:
    source = PoolSource(pool="images", volume="v")
    async with running() as service:
        wanted = PoolDefinition(name="disk", type=PoolType.VOLUME, source=source, target="/disk")
        pool = await service.pools.define(wanted, ROOT)
        await service.pools.set_autostart(pool, ROOT, autostart=True)
    async with running() as service:
        pool = service.pools.find("disk")
        await until(service, lambda: pool.error is not None, what="the pool says why")
        assert "no backend" in str(pool.error)


async def test_a_pool_that_was_started_is_not_deleted_by_the_next_daemon(
    running: Running, host: SimulatedHost
) -> None:
    """A deletion that had failed in its midst would be taken up again."""
    async with running() as service:
        pool = await active_pool(service)
        await service.lifecycle.stop(pool, ROOT)
        host.faults.fail("delete", errno.EIO)
        with pytest.raises(StorageError):
            await service.lifecycle.delete(pool, ROOT)
        await service.lifecycle.start(pool, ROOT)
    async with running() as service:
        assert (await running_pool(service)).state == "active"
        assert place("tank") in host.trees


async def test_a_pool_in_the_host_s_hands_is_the_same_on_another(
    running: Running, host: SimulatedHost
) -> None:
    """Its storage alone is carried over; the state directory is new."""
    async with running(state="here") as service:
        pool = await furnished_pool(service)
        before, uuid = look(host, pool), pool.uuid
    async with running(state="there") as service:
        pool = await service.pools.define(dir_pool("tank", uuid=uuid), ROOT)
        await service.lifecycle.start(pool, ROOT)
        assert look(host, pool) == before
        assert storage(host).names(layout.OWN)


async def test_destroying_ends_the_work_that_is_under_way(running: Running) -> None:
    faults = FirstHangs()
    async with running(SimulatedHost(faults=faults), grace=0.05) as service:
        pool = await furnished_pool(service)

        async def clone(service: Service, pool: Pool) -> None:
            await service.clones.clone_item(pool, pool.items["web"], "copy", None, ROOT)

        with await hang(service, pool, faults, "copy_tree", clone):
            copy = pool.items["copy"]
            try:
                await service.lifecycle.destroy(pool, ROOT)
            except InProgressError:
                await until(service, lambda: pool.state == "inactive", what="it is destroyed")
        assert copy.job is not None
        with trio.fail_after(LIMIT):
            await copy.job.finished.wait()
        assert copy.job.error is not None


def test_many_starts_are_announced_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    store.prepare()
    names = [f"p{number}" for number in range(100)]
    with ThreadPoolExecutor(8) as threads:
        for announced in (True, False):
            assert list(threads.map(store.announce_start, names)) == [announced] * len(names)
    assert store.left_active() == frozenset(names)
