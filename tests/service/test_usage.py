"""Who uses an item: which mounts count, how they are told, and what they keep from happening."""

from __future__ import annotations

import errno

import pytest

from fspoolfs.errors import BusyError
from fspoolfs.model.definitions import TrashPolicy
from fspoolfs.model.infos import MountUse
from fspoolfs.service import usage

from .conftest import Running
from .scenes import ROOT, Users, active_pool, furnished_pool, item


def use(inside: str, pid: int = 7) -> MountUse:
    return MountUse(pid=pid, command="busybox", inside=inside, target="/data")


def test_a_mount_of_the_directory_or_of_something_in_it_uses_an_item() -> None:
    uses = [use("web"), use("web/logs"), use("web2"), use("we"), use(""), use("a/web")]
    assert usage.of_location(uses, "web") == [use("web"), use("web/logs")]


def test_a_user_is_told_by_pid_command_and_mount_point() -> None:
    assert usage.describe(use("web")) == "7 busybox /data"


def test_a_refusal_names_three_and_counts_the_rest() -> None:
    error = usage.refuse("delete item web", [use("web", pid) for pid in range(1, 6)])
    assert error.errno == errno.EBUSY
    assert error.sentence == (
        "delete item web: in use by process 1 (busybox) at /data, process 2 (busybox) at /data, "
        "process 3 (busybox) at /data and 2 more; the file `users` lists all"
    )


async def test_an_item_in_use_is_neither_deleted_nor_renamed_nor_its_pool_stopped(running: Running) -> None:
    users = Users()
    async with running(finder=users) as service:
        pool = await furnished_pool(service)
        users.use("web/logs")
        with pytest.raises(BusyError, match=r"delete item web: in use by process 4711 \(busybox\)"):
            await service.trash.delete(pool, "web")
        with pytest.raises(BusyError, match="rename item web: in use by process 4711"):
            await service.items.rename(pool, "web", "shop")
        with pytest.raises(BusyError, match="stop pool tank: in use by process 4711"):
            await service.lifecycle.stop(pool, ROOT)
        assert pool.state == "active"
        assert set(pool.items) == {"web", "other"}
        assert {one.state.value for one in pool.items.values()} == {"ready"}
        assert set(pool.trash) == {"old"}
        users.found.clear()
        await service.items.rename(pool, "web", "shop")
        await service.trash.delete(pool, "shop")
        await service.lifecycle.stop(pool, ROOT)


async def test_others_are_not_held_up_by_an_item_in_use(running: Running) -> None:
    users = Users()
    async with running(finder=users) as service:
        pool = await furnished_pool(service)
        users.use("web")
        await service.items.rename(pool, "other", "another")
        await service.trash.delete(pool, "another")
        await service.items.create(pool, item("new"), ROOT, adopt=False)


async def test_an_item_that_lies_elsewhere_is_renamed_in_use(running: Running) -> None:
    """Its directory does not move, so nobody notices."""
    users = Users()
    async with running(finder=users) as service:
        pool = await active_pool(service)
        await service.items.create(pool, item("web", path="/customers/a"), ROOT, adopt=False)
        users.use("customers/a")
        await service.items.rename(pool, "web", "shop")
        with pytest.raises(BusyError):
            await service.trash.delete(pool, "shop")


async def test_a_pool_in_use_is_destroyed_all_the_same(running: Running) -> None:
    users = Users()
    async with running(finder=users) as service:
        pool = await furnished_pool(service)
        users.use("web")
        await service.lifecycle.destroy(pool, ROOT)
        assert pool.state == "inactive"
        await service.lifecycle.start(pool, ROOT)
        assert set(pool.items) == {"web", "other"}


async def test_an_item_in_use_is_not_deleted_where_nothing_is_kept_either(running: Running) -> None:
    users = Users()
    async with running(finder=users) as service:
        pool = await active_pool(service, trash=TrashPolicy(retention=0))
        await service.items.create(pool, item("web"), ROOT, adopt=False)
        users.use("web")
        with pytest.raises(BusyError):
            await service.trash.delete(pool, "web")
        assert pool.items["web"].state == "ready"
