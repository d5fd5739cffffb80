"""Items' control groups on a simulated hierarchy: they follow the definitions, through every crash."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from fspoolfs.backends.cgroups import Place
from fspoolfs.backends.simulated_cgroups import SimulatedGroups
from fspoolfs.backends.simulator import SimulatedCrash, SimulatedHost
from fspoolfs.errors import AccessError, BusyError, FspoolError, StorageError, UnsupportedError
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.service import committer
from fspoolfs.service.access import Caller
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Item, Pool

from .conftest import ROOT, Running
from .scenes import ALICE, active_pool, item, running_pool, until
from .sharing import eventually_true
from .test_crash import _quiet_crashes

__all__ = ["_quiet_crashes"]

LIMITS = (("pids.max", "20"),)
OTHERS = (("memory.max", "1000000"), ("io.max", "rbps=1"))
WEB = ("tank", "web")


@pytest.fixture
def groups() -> SimulatedGroups:
    return SimulatedGroups()


async def limited(service: Service, pool: Pool, name: str = "web") -> Item:
    return await service.items.create(pool, item(name, limits=LIMITS), ROOT, adopt=False)


async def redefine(service: Service, pool: Pool, limits: tuple[tuple[str, str], ...]) -> None:
    await service.items.redefine(pool, pool.items["web"], item("web", limits=limits), ROOT)


def wanted(pool: Pool) -> dict[tuple[str, str], tuple[tuple[str, str], ...]]:
    """What the definitions say."""
    return {
        (pool.name, one.name): one.definition.limits for one in pool.items.values() if one.definition.limits
    }


async def test_a_group_comes_changes_and_goes_with_its_item(
    running: Running, groups: SimulatedGroups
) -> None:
    async with running(groups=groups) as service:
        pool = await active_pool(service)
        await service.items.create(pool, item("free"), ROOT, adopt=False)
        assert groups.limits == {}
        await limited(service, pool)
        assert groups.limits == {WEB: LIMITS}
        await redefine(service, pool, OTHERS)
        assert groups.limits == {WEB: OTHERS}
        await service.items.rename(pool, "web", "shop")
        assert groups.limits == {("tank", "shop"): OTHERS}
        await service.clones.clone_item(pool, pool.items["shop"], "copy", None, ROOT)
        assert groups.limits == {("tank", "shop"): OTHERS, ("tank", "copy"): OTHERS}
        await service.trash.delete(pool, "copy")
        await service.trash.delete(pool, "shop")
        assert groups.limits == {}
        await service.trash.undelete(pool, "shop", "web")
        assert groups.limits == {WEB: OTHERS}
        await service.snapshots.take(pool, pool.items["web"], "kept")
        await service.snapshots.roll_back(pool, pool.items["web"], "kept")
        assert groups.limits == {WEB: OTHERS}
        await redefine(service, pool, ())
        assert groups.limits == {}


async def test_groups_go_with_a_stop_and_come_with_a_start(running: Running, groups: SimulatedGroups) -> None:
    async with running(groups=groups) as service:
        pool = await active_pool(service)
        await limited(service, pool)
        await service.lifecycle.stop(pool, ROOT)
        assert groups.limits == {}
        await service.lifecycle.start(pool, ROOT)
        assert groups.limits == {WEB: LIMITS}


async def delete(service: Service, pool: Pool) -> None:
    await service.trash.delete(pool, "web")


async def rename(service: Service, pool: Pool) -> None:
    await service.items.rename(pool, "web", "shop")


async def stop(service: Service, pool: Pool) -> None:
    await service.lifecycle.stop(pool, ROOT)


@pytest.mark.parametrize("operation", [delete, rename, stop])
async def test_a_group_in_use_keeps_its_item(
    running: Running, groups: SimulatedGroups, operation: Callable[[Service, Pool], Awaitable[None]]
) -> None:
    async with running(groups=groups) as service:
        pool = await active_pool(service)
        await limited(service, pool)
        groups.members[WEB] = [os.getpid()]
        with pytest.raises(BusyError, match=f"process {os.getpid()} "):
            await operation(service, pool)
        assert wanted(pool) == groups.limits == {WEB: LIMITS}
        assert (pool.state, pool.items["web"].state) == ("active", "ready")
        groups.members.clear()
        await operation(service, pool)
        assert WEB not in groups.limits


async def test_lifted_limits_hold_no_more_and_the_group_goes_when_it_is_empty(
    running: Running, groups: SimulatedGroups
) -> None:
    async with running(groups=groups) as service:
        pool = await active_pool(service)
        await limited(service, pool)
        groups.members[WEB] = [os.getpid()]
        await redefine(service, pool, ())
        assert groups.limits == {WEB: ()}
        await service.trash.delete(pool, "web")
        assert groups.limits == {WEB: ()}
        groups.members.clear()
        assert service.context.groups.sweep() == []
        assert groups.limits == {}


async def test_a_pool_that_is_destroyed_leaves_its_consumers_limited(
    running: Running, groups: SimulatedGroups
) -> None:
    async with running(groups=groups) as service:
        pool = await active_pool(service)
        await limited(service, pool)
        groups.members[WEB] = [os.getpid()]
        await service.lifecycle.destroy(pool, ROOT)
        assert groups.limits == {WEB: LIMITS}
        with pytest.raises(BusyError, match=r"undefine pool tank: item web has process"):
            await service.lifecycle.undefine(pool, ROOT)
        groups.members.clear()
        await service.lifecycle.undefine(pool, ROOT)
        assert groups.limits == {}


async def test_what_cannot_be_limited_is_refused_and_nothing_changes(
    running: Running, groups: SimulatedGroups
) -> None:
    groups.absent = {"memory.max": "the controller memory is missing"}
    async with running(groups=groups) as service:
        pool = await active_pool(service)
        await limited(service, pool)
        with pytest.raises(UnsupportedError, match="the controller memory is missing"):
            await redefine(service, pool, OTHERS)
        with pytest.raises(UnsupportedError, match="the controller memory is missing"):
            await service.items.create(pool, item("new", limits=OTHERS), ROOT, adopt=False)
        assert list(pool.items) == ["web"]
        assert wanted(pool) == groups.limits == {WEB: LIMITS}
        # The kernel may refuse what seemed possible.
        groups.absent, groups.refused = {}, {"memory.max": OSError(errno.ENOMEM, "")}
        with pytest.raises(StorageError):
            await redefine(service, pool, OTHERS)
        assert wanted(pool) == groups.limits == {WEB: LIMITS}
        with pytest.raises(StorageError):
            await service.items.create(pool, item("new", limits=OTHERS), ROOT, adopt=False)
        assert groups.limits == {WEB: LIMITS}


async def test_storage_that_refuses_a_change_leaves_the_limits_as_they_were(
    running: Running, groups: SimulatedGroups, host: SimulatedHost
) -> None:
    async with running(groups=groups) as service:
        pool = await active_pool(service)
        await limited(service, pool)
        operations: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("write", lambda: redefine(service, pool, OTHERS)),
            ("rename", lambda: delete(service, pool)),
            ("rename", lambda: rename(service, pool)),
        ]
        for call, operation in operations:
            host.faults.fail(call, errno.ENOSPC)
            with pytest.raises(StorageError):
                await operation()
            assert wanted(pool) == groups.limits == {WEB: LIMITS}


async def test_an_item_whose_limits_cannot_be_in_force_any_more_fails_and_is_mended(
    running: Running, groups: SimulatedGroups, host: SimulatedHost, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(groups=groups) as service:
        pool = await active_pool(service)
        await limited(service, pool)
        await service.items.create(pool, item("other"), ROOT, adopt=False)
    groups.absent = {"pids.max": "the controller pids is missing"}
    async with running(host.killed(), groups=groups) as service:
        pool = await running_pool(service)
        web = pool.items["web"]
        assert (pool.state, web.state, pool.items["other"].state) == ("active", "failed", "ready")
        assert web.problem is not None
        assert "the controller pids is missing" in str(web.problem)
        with pytest.raises(UnsupportedError, match="pids is missing"):
            await service.consumers.enter(pool, web, 0, Caller(uid=0, gid=0, pid=os.getpid()))
        with pytest.raises(UnsupportedError):
            await redefine(service, pool, LIMITS)
        assert web.state == "failed"
        groups.absent = {}
        await service.lifecycle.refresh(pool, ROOT)
        await until(service, lambda: web.state == "ready" and web.unlimited is None, what="it is in force")
        assert groups.limits[WEB] == LIMITS
        groups.absent = {"pids.max": "the controller pids is missing"}
        await redefine(service, pool, (("io.max", "rbps=1"),))
        assert (web.state, web.problem) == ("ready", None)
        assert groups.limits[WEB] == (("io.max", "rbps=1"),)
    assert "the controller pids is missing" in caplog.text


async def test_what_another_has_changed_in_the_storage_comes_into_force(
    running: Running, groups: SimulatedGroups
) -> None:
    async with running(groups=groups) as service:
        pool = await active_pool(service)
        await limited(service, pool)
        root = pool.active().root
        stored = root.read(".fspool/items/web.xml", limit=10_000)
        root.write(".fspool/items/web.xml", stored.replace(b">20<", b">30<"), replace=True, durable=True)
        await service.lifecycle.refresh(pool, ROOT)
        await until(service, lambda: groups.limits == {WEB: (("pids.max", "30"),)}, what="it is in force")
        root.remove_file(".fspool/items/web.xml")
        await service.lifecycle.refresh(pool, ROOT)
        await until(service, lambda: groups.limits == {}, what="it is gone")


async def test_a_process_is_put_under_the_limits_by_root_and_by_its_owner(
    running: Running, groups: SimulatedGroups
) -> None:
    async with running(groups=groups) as service:
        pool = await active_pool(service)
        web = await limited(service, pool)
        us = os.getpid()
        await service.consumers.enter(pool, web, us, Caller(uid=0, gid=0, pid=us))
        assert await service.consumers.members(pool, web) == [us]
        with pytest.raises(AccessError, match=f"may not move process {us}"):
            await service.consumers.enter(pool, web, us, Caller(uid=ALICE.uid, gid=0, pid=us))
        with pytest.raises(FspoolError) as refusal:
            await service.consumers.enter(pool, web, 4_194_303, Caller(uid=0, gid=0, pid=us))
        assert refusal.value.errno == errno.ESRCH


async def test_only_the_pools_owner_chooses_limits_but_a_clone_has_its_origins(
    running: Running, groups: SimulatedGroups
) -> None:
    async with running(groups=groups) as service:
        pool = await active_pool(service)
        await service.items.create(
            pool,
            ItemDefinition(name="web", limits=LIMITS, permissions=pool.definition.permissions),
            ROOT,
            adopt=False,
        )
        assert pool.items["web"].definition.limits == LIMITS
        with pytest.raises(AccessError, match="cgroup limit of item mine is the pool owner's"):
            service.items.complete(pool, item("mine", limits=LIMITS), ALICE)
        inherited = service.items.complete(pool, item("mine"), ALICE, given_limits=LIMITS)
        assert inherited.limits == LIMITS


OPERATIONS: list[Callable[[Service, Pool], Awaitable[object]]] = [
    lambda service, pool: limited(service, pool, "new"),
    lambda service, pool: redefine(service, pool, OTHERS),
    lambda service, pool: redefine(service, pool, ()),
    rename,
    delete,
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=["create", "change", "lift", "rename", "delete"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_after_every_crash_groups_are_those_of_the_definitions(
    running: Running,
    operation: Callable[[Service, Pool], Awaitable[object]],
    after: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A thread that has outlived the crash notices it when it syncs, and before the next test begins.
    monkeypatch.setattr(committer, "SETTLE_TIME", 0.05)
    for at in itertools.count(1):
        machine, state = SimulatedHost(), f"state{at}"
        groups = SimulatedGroups(faults=machine.faults)
        is_over = False
        try:
            async with running(machine, groups=groups, state=state) as service:
                pool = await active_pool(service)
                await limited(service, pool)
                machine.faults.crash_at(at, after=after)
                with suppress(FspoolError):
                    await operation(service, pool)
                is_over = not machine.faults.crashed
        except BaseExceptionGroup as group:
            assert group.split(SimulatedCrash)[1] is None  # noqa: PT017 - what was asked for
        if is_over:
            assert at > 2
            break
        found = machine.killed()
        groups.faults = found.faults
        # Of a pool that nobody knows here nothing is touched.
        groups.put(Place("theirs", "foreign", "item"), LIMITS, None)
        async with running(found, groups=groups, state=state) as service:
            pool = await running_pool(service)
            service.context.groups.sweep()
            assert groups.limits == {**wanted(pool), ("foreign", "item"): LIMITS}, at
    await eventually_true(
        lambda: not any(thread.name.startswith("commit-") for thread in threading.enumerate()),
        what="no thread of a dead service is left",
    )
