"""The trash: deleting, bringing back, purging, and what happens when these meet."""

from __future__ import annotations

import errno
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import trio
import trio.testing

from fspoolfs.backends import layout
from fspoolfs.backends.simulator import SimulatedHost
from fspoolfs.errors import BusyError, ExistsError, FspoolError, InvalidError, NotFoundError
from fspoolfs.model.definitions import TrashPolicy
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Pool

from .conftest import Running
from .scenes import (
    LIMIT,
    ROOT,
    FirstHangs,
    Users,
    active_pool,
    furnished_pool,
    item,
    leftovers,
    look,
    running_pool,
    storage,
    until,
)


async def test_a_deleted_item_lies_in_the_trash_with_its_data(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        uuid = pool.items["web"].uuid
        await service.trash.delete(pool, "web")
        assert "web" not in pool.items
        assert pool.trash["web"].uuid == uuid
        assert storage(host).names(layout.trashed_data(uuid)) == ["web.txt"]
        assert leftovers(host, pool) == []


async def test_it_comes_back_under_its_name_or_another_as_the_same_item(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        before = pool.items["web"].definition
        await service.trash.delete(pool, "web")
        await service.trash.undelete(pool, "web", "web")
        assert pool.items["web"].definition == before
        await service.trash.delete(pool, "web")
        await service.trash.undelete(pool, "web", "shop")
        assert pool.items["shop"].definition == replace(before, name="shop")
        assert storage(host).names("shop") == ["web.txt"]
        assert leftovers(host, pool) == []


async def test_the_trash_outlives_the_service(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        await service.trash.delete(pool, "web")
        before, deleted = look(host, pool), pool.trash["web"].deleted
    async with running() as service:
        pool = await running_pool(service)
        assert look(host, pool) == before
        assert pool.trash["web"].deleted == deleted


async def test_items_deleted_under_one_name_are_told_apart_by_the_time(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service)
        uuids = []
        for _ in range(4):
            uuids.append((await service.items.create(pool, item("web"), ROOT, adopt=False)).uuid)
            await service.trash.delete(pool, "web")
        names = list(pool.trash)
        assert names[0] == "web"
        assert all(re.fullmatch(r"web@\d{8}-\d{6}(-\d+)?", name) for name in names[1:])
        assert [entry.uuid for entry in pool.trash.values()] == uuids
        await service.trash.undelete(pool, names[2], "web")
        assert pool.items["web"].uuid == uuids[2]


@pytest.mark.parametrize(
    ("name", "number"), [("other", errno.EEXIST), ("a/b", errno.EINVAL), (".fspool", errno.EINVAL)]
)
async def test_it_comes_back_under_no_name_that_is_taken_or_bad(
    name: str, number: int, running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        before = look(host, pool)
        with pytest.raises(FspoolError) as caught:
            await service.trash.undelete(pool, "old", name)
        assert caught.value.errno == number
        assert look(host, pool) == before
        await service.trash.undelete(pool, "old", "old")


async def test_it_does_not_come_back_over_a_directory_that_is_no_item(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        before = look(host, pool)
        with pytest.raises(ExistsError, match="something is already at /found"):
            await service.trash.undelete(pool, "old", "found")
        assert look(host, pool) == before
        assert "something is already" in str(pool.trash["old"].error)


async def test_what_is_purged_is_gone_with_its_data(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        await service.trash.purge(pool, "old")
        assert pool.trash == {}
        with pytest.raises(NotFoundError):
            await service.trash.purge(pool, "old")
        await until(service, lambda: not storage(host).names(layout.PURGE), what="its data is removed")
        assert leftovers(host, pool) == []


async def test_where_nothing_is_kept_deleting_purges(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await furnished_pool(service, retention=0)
        await service.trash.delete(pool, "web")
        assert "web" not in pool.trash
        await until(service, lambda: not storage(host).names(layout.PURGE), what="its data is removed")


async def test_what_has_been_kept_long_enough_is_purged_at_the_start(
    running: Running, host: SimulatedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as service:
        await furnished_pool(service, retention=3600)
    now = __import__("time").time()
    monkeypatch.setattr("fspoolfs.service.sweeper.time.time", lambda: now + 3500)
    async with running() as service:
        pool = await running_pool(service)
        await trio.testing.wait_all_tasks_blocked()
        assert set(pool.trash) == {"old"}
    monkeypatch.setattr("fspoolfs.service.sweeper.time.time", lambda: now + 3700)
    async with running() as service:
        pool = await running_pool(service)
        await until(service, lambda: not pool.trash, what="the trash is empty")
        await until(service, lambda: not storage(host).names(layout.PURGE), what="its data is removed")


async def test_a_missing_item_is_deleted_without_a_trace(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        storage(host).rename("web", "moved-away")
        await service.trash.delete(pool, "web")
        assert "web" not in pool.items
        assert "web" not in pool.trash
        assert storage(host).names("moved-away") == ["web.txt"]


# -- requests that meet ---------------------------------------------------------------------------


async def at_once(
    service: Service, pool: Pool, faults: FirstHangs, *requests: Callable[[], Awaitable[object]]
) -> list[FspoolError | None]:
    """Let `requests` wait together behind a change that hangs; how each ended, `None` for success."""
    ends: list[FspoolError | None] = [None] * len(requests)

    async def make(number: int, request: Callable[[], Awaitable[object]]) -> None:
        try:
            await request()
        except FspoolError as error:
            ends[number] = error

    async def block() -> None:
        await service.items.create(pool, item("blocker"), ROOT, adopt=False)

    with faults.arm("log_sync") as hang:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(block)
            assert await trio.to_thread.run_sync(hang.wait_until_entered, LIMIT)
            for number, request in enumerate(requests):
                nursery.start_soon(make, number, request)
                await trio.testing.wait_all_tasks_blocked()
            hang.release()
    return ends


async def check_after_restart(running: Running, machine: SimulatedHost, before: object) -> None:
    async with running(machine) as service:
        pool = await running_pool(service)
        assert look(machine, pool) == before
        assert leftovers(machine, pool) == []


async def test_an_item_that_is_being_deleted_is_purged_whole_or_not_at_all(running: Running) -> None:
    faults = FirstHangs()
    machine = SimulatedHost(faults=faults)
    async with running(machine) as service:
        pool = await furnished_pool(service)
        await at_once(
            service,
            pool,
            faults,
            lambda: service.trash.delete(pool, "web"),
            lambda: service.trash.purge(pool, "web"),
        )
        before = look(machine, pool)
        assert leftovers(machine, pool) == []
    await check_after_restart(running, machine, before)


async def test_an_item_whose_deletion_is_refused_cannot_be_brought_back(running: Running) -> None:
    faults, users = FirstHangs(), Users()
    machine = SimulatedHost(faults=faults)
    async with running(machine, finder=users) as service:
        pool = await furnished_pool(service)
        users.use("web")
        deleted, undeleted = await at_once(
            service,
            pool,
            faults,
            lambda: service.trash.delete(pool, "web"),
            lambda: service.trash.undelete(pool, "web", "back"),
        )
        assert isinstance(deleted, BusyError)
        assert undeleted is not None
        before = look(machine, pool)
        assert {"web", "other", "blocker"} == set(pool.items)
        assert set(pool.trash) == {"old"}
        assert leftovers(machine, pool) == []
    # Killed instead of stopped, so that the journal is replayed.
    await check_after_restart(running, machine.killed(), before)


async def test_an_item_is_brought_back_by_one_of_those_who_try(running: Running) -> None:
    faults = FirstHangs()
    machine = SimulatedHost(faults=faults)
    async with running(machine) as service:
        pool = await furnished_pool(service)
        ends = await at_once(
            service,
            pool,
            faults,
            lambda: service.trash.undelete(pool, "old", "one"),
            lambda: service.trash.undelete(pool, "old", "two"),
            lambda: service.trash.purge(pool, "old"),
        )
        assert ends.count(None) == 1
        assert ("one" in pool.items) + ("two" in pool.items) == 1
        assert leftovers(machine, pool) == []


async def test_a_name_is_free_again_as_soon_as_its_item_is_deleted(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service, trash=TrashPolicy(retention=0))
        for _ in range(5):
            await service.items.create(pool, item("web"), ROOT, adopt=False)
            await service.trash.delete(pool, "web")
        assert pool.items == {}


async def test_a_name_in_the_trash_that_is_unknown_is_an_error(running: Running) -> None:
    async with running() as service:
        pool = await furnished_pool(service)
        for request in (service.trash.undelete(pool, "no", "back"), service.trash.purge(pool, "no")):
            with pytest.raises(NotFoundError, match="nothing called no in the trash of pool tank"):
                await request
        with pytest.raises(NotFoundError, match="no item no in pool tank"):
            await service.trash.delete(pool, "no")
        with pytest.raises(InvalidError):
            await service.trash.undelete(pool, "old", "")
