"""The directories above an item's place: made for it, and gone with it unless they are somebody's."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from fspoolfs.backends.memory import MemoryRoot, MemoryTree
from fspoolfs.backends.simulator import SimulatedHost
from fspoolfs.errors import BusyError, StorageError
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Pool
from fspoolfs.service.vacating import vacate

from .conftest import Running
from .scenes import ROOT, Recorder, Users, active_pool, item, place, storage


async def deep_item(service: Service, pool: Pool, name: str = "x") -> None:
    await service.items.create(pool, item(name, path=f"/a/b/{name}"), ROOT, adopt=False)


def above(host: SimulatedHost) -> list[str]:
    """Which of the directories above the item are there."""
    return [path for path in ("a", "a/b") if _is_there(storage(host), path)]


def _is_there(root: MemoryRoot, path: str) -> bool:
    try:
        root.stat(path)
    except FileNotFoundError:
        return False
    return True


async def test_they_go_with_the_item_and_the_pool_can_be_deleted(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool = await active_pool(service)
        await deep_item(service, pool)
        await service.trash.delete(pool, "x")
        assert above(host) == []
        await service.trash.purge(pool, "x")
        await service.lifecycle.stop(pool, ROOT)
        await service.lifecycle.delete(pool, ROOT)
        assert place("tank") not in host.trees


async def test_they_come_back_with_the_item(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await active_pool(service)
        await deep_item(service, pool)
        storage(host).write("a/b/x/file", b"data", replace=False, durable=False)
        await service.trash.delete(pool, "x")
        await service.trash.undelete(pool, "x", "x")
        assert storage(host).names("a/b/x") == ["file"]


async def test_they_stay_while_another_item_lies_there(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await active_pool(service)
        await deep_item(service, pool)
        await deep_item(service, pool, "y")
        await service.trash.delete(pool, "x")
        assert storage(host).names("a/b") == ["y"]
        await service.trash.delete(pool, "y")
        assert above(host) == []


def _chmod(root: MemoryRoot) -> None:
    root.set_attributes("a/b", mode=0o750, owner=None, group=None)


def _give_away(root: MemoryRoot) -> None:
    root.set_attributes("a/b", mode=None, owner=1001, group=None)


def _put_something_there(root: MemoryRoot) -> None:
    root.write("a/b/note", b"", replace=False, durable=False)


@pytest.mark.parametrize("touch", [_chmod, _give_away, _put_something_there])
async def test_what_somebody_has_put_his_hand_to_stays(
    running: Running, host: SimulatedHost, touch: Callable[[MemoryRoot], None]
) -> None:
    async with running() as service:
        pool = await active_pool(service)
        await deep_item(service, pool)
        touch(storage(host))
        await service.trash.delete(pool, "x")
        assert above(host) == ["a", "a/b"]


async def test_what_somebody_has_mounted_stays(running: Running, host: SimulatedHost) -> None:
    """A container that shows all of a customer's items is to see the next one, too."""
    users = Users()
    async with running(finder=users) as service:
        pool = await active_pool(service)
        await deep_item(service, pool)
        users.use("a")
        await service.trash.delete(pool, "x")
        assert above(host) == ["a"]


async def test_a_creation_that_is_undone_leaves_none(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await active_pool(service)
        for operation, path in (("write", ".fspool/items/x.xml"), ("make_directory", "a/b")):
            host.faults.fail(operation, errno.ENOSPC, path=path)
            with pytest.raises(StorageError):
                await deep_item(service, pool)
            assert above(host) == []
        await deep_item(service, pool)


async def test_an_undelete_that_is_undone_leaves_none(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await active_pool(service)
        await deep_item(service, pool)
        await service.trash.delete(pool, "x")
        host.faults.fail("make_directory", errno.ENOSPC, path="a/b")
        with pytest.raises(StorageError):
            await service.trash.undelete(pool, "x", "x")
        assert above(host) == []
        await service.trash.undelete(pool, "x", "x")


async def test_storage_that_keeps_them_does_not_fail_the_deletion(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool = await active_pool(service)
        await deep_item(service, pool)
        host.faults.fail("remove_directory", errno.EIO)
        await service.trash.delete(pool, "x")
        assert (set(pool.items), set(pool.trash), above(host)) == (set(), {"x"}, ["a", "a/b"])


async def test_an_item_in_the_root_costs_no_call(running: Running) -> None:
    calls = Recorder()
    async with running(SimulatedHost(faults=calls)) as service:
        pool = await active_pool(service)
        await service.items.create(pool, item("web"), ROOT, adopt=False)
        root = pool.active().root
        calls.calls.clear()
        vacate(root, "web")
        vacate(root, ".fspool/trash/x")
        assert not calls.calls


def test_nothing_is_removed_that_is_an_item_by_now() -> None:
    root = storage_with("a/b")
    vacate(root, "a/b/c", besides={"a/b"})
    assert root.names("a") == ["b"]
    vacate(root, "a/b/c", besides={"a"})
    assert (root.names(""), root.names("a")) == (["a"], [])


def test_a_use_of_a_directory_ends_the_way_up() -> None:
    def refuse(location: str) -> None:
        raise BusyError(location)

    root = storage_with("a/b")
    vacate(root, "a/b/c", in_use=refuse)
    assert root.names("a") == ["b"]


def storage_with(path: str) -> MemoryRoot:
    """A root with the directory `path` and those above it."""
    root = MemoryRoot(MemoryTree(), "/tank")
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        root.make_directory("/".join(parts[:count]), mode=0o755)
    return root
