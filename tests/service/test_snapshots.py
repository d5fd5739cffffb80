"""Snapshots of items: taken, renamed, deleted, rolled back to, cloned, and gone along with their item."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import pytest

from fspoolfs.backends import layout
from fspoolfs.backends.simulator import SimulatedHost
from fspoolfs.errors import (
    AccessError,
    BusyError,
    ExistsError,
    FspoolError,
    InvalidError,
    NotFoundError,
    StorageError,
)
from fspoolfs.model.definitions import ItemOrigin, Permissions
from fspoolfs.service import reports
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Item, Pool

from .conftest import Running
from .scenes import ALICE, BOB, ROOT, FirstHangs, Users, furnished_pool, item, running_pool, storage, until


def put(host: SimulatedHost, path: str, data: bytes) -> None:
    storage(host).write(path, data, replace=True, durable=False)


def get(host: SimulatedHost, path: str) -> bytes:
    return storage(host).read(path, limit=1 << 20)


def place(of: Item, name: str) -> str:
    """Where snapshot `name` lies beneath the pool's root."""
    return layout.snapshot(of.uuid, of.snapshots[name].entry)


async def scene(service: Service, host: SimulatedHost) -> tuple[Pool, Item]:
    """Item `web` with snapshot `one`, changed since."""
    pool = await furnished_pool(service)
    web = pool.items["web"]
    await service.snapshots.take(pool, web, "one")
    put(host, "web/web.txt", b"changed")
    put(host, "web/new.txt", b"new")
    return pool, web


async def test_a_snapshot_holds_what_the_item_held(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        _, web = await scene(service, host)
        assert storage(host).names(place(web, "one")) == ["web.txt"]
        assert get(host, f"{place(web, 'one')}/web.txt") == b"data"


async def test_snapshots_are_there_after_a_restart_and_a_rename(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool, web = await scene(service, host)
        await service.snapshots.take(pool, web, "two")
        await service.items.rename(pool, "web", "shop")
        created = {name: one.created for name, one in pool.items["shop"].snapshots.items()}
    async with running() as service:
        pool = await running_pool(service)
        found = pool.items["shop"].snapshots
        assert {name: one.created for name, one in found.items()} == created
        assert list(found) == ["one", "two"]
        assert pool.items["other"].snapshots == {}


async def test_a_rollback_brings_the_content_back_and_keeps_what_it_replaces(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool, web = await scene(service, host)
        await service.snapshots.roll_back(pool, web, "one")
        assert storage(host).names("web") == ["web.txt"]
        assert get(host, "web/web.txt") == b"data"
        (kept,) = web.snapshots.keys() - {"one"}
        assert kept.startswith("before-rollback-")
        assert get(host, f"{place(web, kept)}/new.txt") == b"new"
        await service.snapshots.roll_back(pool, web, kept)
        assert get(host, "web/web.txt") == b"changed"
        assert len(web.snapshots) == 3
        assert storage(host).names(layout.STAGING) == []


async def test_a_rollback_leaves_owner_and_mode_to_the_definition(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool, web = await scene(service, host)
        await service.items.set_permissions(pool, web, Permissions(mode=0o711, owner=7), ROOT)
        await service.snapshots.roll_back(pool, web, "one")
        info = storage(host).stat("web")
        assert (info.mode & 0o7777, info.owner) == (0o711, 7)


async def test_a_missing_item_comes_back_from_a_snapshot_and_is_not_deleted_with_it(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool, web = await scene(service, host)
        storage(host).rename("web", "lost")
        await service.lifecycle.refresh(pool, ROOT)
        assert web.state == "missing"
        with pytest.raises(FspoolError, match="snapshots of it are left") as refused:
            await service.trash.delete(pool, "web")
        assert refused.value.errno == errno.ENOTEMPTY
        await service.snapshots.roll_back(pool, web, "one")
        assert web.state == "ready"
        assert get(host, "web/web.txt") == b"data"
        assert list(web.snapshots) == ["one"]


async def test_snapshots_go_into_the_trash_and_back_with_their_item(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool, _ = await scene(service, host)
        await service.trash.delete(pool, "web")
        assert "Snapshots:      1" in reports.trash_info(pool, pool.trash["web"])
    async with running() as service:
        pool = await running_pool(service)
        await service.trash.undelete(pool, "web", "shop")
        await service.snapshots.roll_back(pool, pool.items["shop"], "one")
        assert get(host, "shop/web.txt") == b"data"


async def test_purging_an_item_removes_its_snapshots(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool, _ = await scene(service, host)
        await service.trash.delete(pool, "web")
        await service.trash.purge(pool, "web")
        await until(
            service,
            lambda: not storage(host).names(layout.SNAPSHOTS) and not storage(host).names(layout.PURGE),
            what="nothing of it is left",
        )


async def test_nothing_is_left_of_an_item_whose_snapshots_were_deleted_before(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool, web = await scene(service, host)
        await service.snapshots.delete(pool, web, "one")
        await service.trash.delete(pool, "web")
        await service.trash.purge(pool, "web")
        await until(service, lambda: not storage(host).names(layout.PURGE), what="it is removed")
        assert storage(host).names(layout.SNAPSHOTS) == []


async def test_a_deleted_snapshot_is_gone_and_its_name_free(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool, web = await scene(service, host)
        await service.snapshots.delete(pool, web, "one")
        assert web.snapshots == {}
        await until(service, lambda: not storage(host).names(layout.PURGE), what="it is removed")
        await service.snapshots.take(pool, web, "one")
        assert get(host, f"{place(web, 'one')}/web.txt") == b"changed"


async def test_a_renamed_snapshot_keeps_its_time_and_content(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool, web = await scene(service, host)
        created = web.snapshots["one"].created
        await service.snapshots.rename(pool, web, "one", "first")
        assert list(web.snapshots) == ["first"]
        assert web.snapshots["first"].created == created
        assert get(host, f"{place(web, 'first')}/web.txt") == b"data"


Request = Callable[[Service, Pool, Item], Awaitable[object]]


@pytest.mark.parametrize(
    ("request_made", "refusal"),
    [
        (lambda service, pool, web: service.snapshots.take(pool, web, "one"), ExistsError),
        (lambda service, pool, web: service.snapshots.take(pool, web, "../x"), InvalidError),
        (lambda service, pool, web: service.snapshots.rename(pool, web, "none", "two"), NotFoundError),
        (lambda service, pool, web: service.snapshots.rename(pool, web, "one", ".two"), InvalidError),
        (lambda service, pool, web: service.snapshots.delete(pool, web, "none"), NotFoundError),
        (lambda service, pool, web: service.snapshots.roll_back(pool, web, "none"), NotFoundError),
        (
            lambda service, pool, web: service.clones.clone_item(pool, web, "copy", "none", ROOT),
            NotFoundError,
        ),
    ],
    ids=[
        "taken",
        "bad name",
        "rename none",
        "bad new name",
        "delete none",
        "roll back to none",
        "clone none",
    ],
)
async def test_what_cannot_be_done_is_refused_and_changes_nothing(
    request_made: Request, refusal: type[FspoolError], running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool, web = await scene(service, host)
        with pytest.raises(refusal):
            await request_made(service, pool, web)
        assert list(web.snapshots) == ["one"]
        assert sorted(pool.items) == ["other", "web"]
        assert get(host, "web/web.txt") == b"changed"


@pytest.mark.parametrize("where", ["item", "snapshot"])
async def test_what_somebody_uses_stays_where_it_is(
    where: str, running: Running, host: SimulatedHost
) -> None:
    users = Users()
    async with running(finder=users) as service:
        pool, web = await scene(service, host)
        users.use("web/logs" if where == "item" else f"{place(web, 'one')}/logs")
        refused: list[Awaitable[object]] = [service.trash.delete(pool, "web")]
        if where == "item":
            refused.append(service.snapshots.roll_back(pool, web, "one"))
        else:
            refused.append(service.snapshots.delete(pool, web, "one"))
            refused.append(service.snapshots.rename(pool, web, "one", "two"))
        for request in refused:
            with pytest.raises(BusyError, match="process 4711"):
                await request
        assert list(web.snapshots) == ["one"]
        assert web.state == "ready"
        assert get(host, "web/web.txt") == b"changed"


async def test_our_own_showing_of_the_snapshots_keeps_no_pool_from_stopping(running: Running) -> None:
    users = Users()
    async with running(finder=users) as service:
        pool = await furnished_pool(service)
        users.use(layout.SNAPSHOTS)
        await service.lifecycle.stop(pool, ROOT)


async def test_a_clone_of_a_snapshot_holds_what_that_holds(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool, web = await scene(service, host)
        await service.clones.clone_item(pool, web, "copy", "one", ROOT)
        assert storage(host).names("copy") == ["web.txt"]
        assert pool.items["copy"].definition.origin == ItemOrigin(fs="web", snapshot="one")
        assert pool.items["copy"].snapshots == {}
        await service.items.define(pool, item("other2", origin=ItemOrigin(fs="web", snapshot="one")), ROOT)
        assert get(host, "other2/web.txt") == b"data"


async def test_a_copy_that_takes_long_goes_on_and_keeps_the_item_from_going_away(running: Running) -> None:
    faults = FirstHangs()
    machine = SimulatedHost(faults=faults)
    async with running(machine, grace=0.05) as service:
        pool = await furnished_pool(service)
        web = pool.items["web"]
        hang = faults.arm("copy_tree")
        snapshot = await service.snapshots.take(pool, web, "one")
        assert snapshot.job is not None
        assert "being made" in reports.snapshot_info(pool, web, snapshot)
        for refused in (
            service.trash.delete(pool, "web"),
            service.snapshots.roll_back(pool, web, "one"),
            service.snapshots.rename(pool, web, "one", "two"),
        ):
            with pytest.raises(BusyError):
                await refused
        await service.items.set_permissions(pool, web, Permissions(mode=0o700), ROOT)
        hang.release()
        await until(service, lambda: web.snapshots["one"].job is None, what="the snapshot is made")
        await service.trash.delete(pool, "web")


async def test_a_copy_that_fails_or_is_cancelled_leaves_nothing(running: Running) -> None:
    faults = FirstHangs()
    machine = SimulatedHost(faults=faults)
    async with running(machine, grace=0.05) as service:
        pool = await furnished_pool(service)
        web = pool.items["web"]
        faults.fail("copy_tree", errno.ENOSPC)
        with pytest.raises(StorageError):
            await service.snapshots.take(pool, web, "one")
        assert web.snapshots == {}
        hang = faults.arm("copy_tree")
        await service.snapshots.take(pool, web, "one")
        with pytest.raises(BusyError, match="is cancelled"):
            await service.snapshots.delete(pool, web, "one")
        hang.release()
        await until(service, lambda: not web.snapshots, what="the snapshot was given up")
        await until(
            service,
            lambda: not storage(machine).names(layout.STAGING) and not storage(machine).names(layout.PURGE),
            what="nothing of it is left",
        )
        assert storage(machine).names("web") == ["web.txt"]


async def test_only_who_may_read_an_item_clones_its_snapshots(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool, web = await scene(service, host)
        await service.pools.define(
            pool.definition.__class__(
                name="tank", type=pool.definition.type, permissions=Permissions(mode=0o1777)
            ),
            ROOT,
        )
        await service.items.set_permissions(pool, web, Permissions(owner=ALICE.uid, group=ALICE.gid), ROOT)
        await service.clones.clone_item(pool, web, "copy", "one", ALICE)
        with pytest.raises(AccessError):
            await service.clones.clone_item(pool, web, "copy2", "one", BOB)
