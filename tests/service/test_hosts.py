"""Several hosts with one pool: what one does the others see, and no two do the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from fspoolfs.backends import layout
from fspoolfs.errors import BusyError, ExistsError, FspoolError
from fspoolfs.model.definitions import Permissions, TrashPolicy
from fspoolfs.service.facade import Service
from fspoolfs.service.hosts.presence import Presence
from fspoolfs.service.objects import Pool
from service.scenes import ROOT, Users, item
from service.sharing import FENCED, SINGLE, UNFENCED, Hosts, eventually_true
from support.keepers import end_keepers


@pytest.fixture(autouse=True)
def ended_keepers(tmp_path: Path) -> Iterator[None]:
    yield
    end_keepers(tmp_path)


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path, FENCED)


@asynccontextmanager
async def two(
    hosts: Hosts, *, users: Users | None = None, **more: object
) -> AsyncIterator[tuple[tuple[Service, Pool], tuple[Service, Pool]]]:
    """Two hosts with the pool active; `users` are those of the second one."""
    async with hosts.host("one") as first, hosts.host("two", users=users) as second:
        yield (first, await hosts.pool(first, **more)), (second, await hosts.pool(second, **more))


def names(pool: Pool) -> list[str]:
    return sorted(pool.items)


async def test_what_one_host_makes_the_other_one_sees(hosts: Hosts) -> None:
    async with two(hosts) as ((first, here), (_, there)):
        await first.items.create(here, item("web"), ROOT, adopt=False)
        await eventually_true(lambda: "web" in there.items, what="the item appears")
        await first.items.rename(here, "web", "www")
        await eventually_true(lambda: names(there) == ["www"], what="the item has its new name")
        await first.items.set_permissions(here, here.items["www"], Permissions(mode=0o700), ROOT)
        await eventually_true(
            lambda: there.items["www"].definition.permissions.mode == 0o700, what="the mode is known"
        )
        await first.trash.delete(here, "www")
        await eventually_true(lambda: not there.items and "www" in there.trash, what="it is in the trash")
        await first.trash.undelete(here, "www", "web")
        await eventually_true(lambda: names(there) == ["web"] and not there.trash, what="it is back")
        await first.trash.delete(here, "web")
        await first.trash.purge(here, "web")
        await eventually_true(lambda: not there.items and not there.trash, what="it is gone")


async def test_the_other_host_can_go_on_with_it(hosts: Hosts) -> None:
    async with two(hosts) as ((first, here), (second, there)):
        await first.items.create(here, item("web"), ROOT, adopt=False)
        await eventually_true(lambda: "web" in there.items, what="the item appears")
        await second.items.rename(there, "web", "www")
        await second.trash.delete(there, "www")
        await eventually_true(lambda: not here.items and "www" in here.trash, what="it is in the trash")
        await first.trash.undelete(here, "www", "again")
        await eventually_true(lambda: names(there) == ["again"], what="it is back")


async def test_of_two_that_make_the_same_item_one_succeeds(hosts: Hosts) -> None:
    async with two(hosts) as ((first, here), (second, there)):
        results: list[FspoolError | None] = []

        async def create(service: Service, pool: Pool, name: str) -> None:
            try:
                await service.items.create(pool, item(name), ROOT, adopt=False)
            except FspoolError as error:
                results.append(error)
            else:
                results.append(None)

        for number in range(20):
            results.clear()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(create, first, here, f"item{number}")
                nursery.start_soon(create, second, there, f"item{number}")
            assert results.count(None) == 1
            assert [type(error) for error in results if error is not None] == [ExistsError]
        await eventually_true(lambda: names(here) == names(there), what="both know the same items")
        assert len(here.items) == 20
        assert {one.uuid for one in here.items.values()} == {one.uuid for one in there.items.values()}


async def test_of_two_that_change_the_same_item_one_succeeds(hosts: Hosts) -> None:
    async with two(hosts) as ((first, here), (second, there)):
        await first.items.create(here, item("web"), ROOT, adopt=False)
        await eventually_true(lambda: "web" in there.items, what="the item appears")
        errors: list[FspoolError] = []

        async def quietly(action: object) -> None:
            try:
                await action  # type: ignore[misc]
            except FspoolError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(quietly, first.items.rename(here, "web", "one"))
            nursery.start_soon(quietly, second.items.rename(there, "web", "two"))
        assert [type(error) for error in errors] == [BusyError]
        await eventually_true(lambda: names(here) == names(there), what="both know the same name")
        assert names(here) in (["one"], ["two"])


async def test_a_host_that_starts_later_finds_all(hosts: Hosts) -> None:
    async with hosts.host("one") as first:
        here = await hosts.pool(first)
        for number in range(5):
            await first.items.create(here, item(f"item{number}"), ROOT, adopt=False)
        async with hosts.host("two") as second:
            there = await hosts.pool(second)
            assert names(there) == names(here)


async def test_snapshots_are_seen_and_used_elsewhere(hosts: Hosts) -> None:
    async with two(hosts) as ((first, here), (second, there)):
        await first.items.create(here, item("web"), ROOT, adopt=False)
        (hosts.root / "web/file").write_text("before")
        await first.snapshots.take(here, here.items["web"], "v1")
        await eventually_true(
            lambda: "web" in there.items and "v1" in there.items["web"].snapshots, what="seen"
        )
        (hosts.root / "web/file").write_text("after")
        await second.snapshots.roll_back(there, there.items["web"], "v1")
        assert (hosts.root / "web/file").read_text() == "before"
        await eventually_true(
            lambda: len(here.items["web"].snapshots) == 2, what="what was replaced is seen as a snapshot"
        )
        await second.snapshots.delete(there, there.items["web"], "v1")
        await eventually_true(lambda: "v1" not in here.items["web"].snapshots, what="it is gone here, too")


async def test_an_item_in_use_on_another_host_stays(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fspoolfs.service.hosts.renewal.RENEWAL", 0.1)
    users = Users()
    async with two(hosts, users=users) as ((first, here), (_, there)):
        await first.items.create(here, item("web"), ROOT, adopt=False)
        await first.items.create(here, item("other"), ROOT, adopt=False)
        await first.snapshots.take(here, here.items["web"], "v1")
        await eventually_true(lambda: len(there.items) == 2, what="the items appear")
        users.use("web", pid=12, command="runc")
        uses = hosts.root / layout.uses(here.items["web"].uuid)
        await eventually_true(uses.exists, what="the use is published")
        for refused in (
            first.trash.delete(here, "web"),
            first.items.rename(here, "web", "www"),
            first.snapshots.roll_back(here, here.items["web"], "v1"),
        ):
            with pytest.raises(BusyError, match=r"in use on host .* by process 12 \(runc\)"):
                await refused
        await first.trash.delete(here, "other")
        users.found.clear()
        await eventually_true(lambda: not uses.exists(), what="the use has ended")
        await first.trash.delete(here, "web")


async def test_what_a_lost_host_used_is_free_where_the_servers_fence(hosts: Hosts, tmp_path: Path) -> None:
    async with hosts.host("one") as first:
        here = await hosts.pool(first)
        await first.items.create(here, item("web"), ROOT, adopt=False)
        users = Users()
        users.use("web")
        async with hosts.host("two", users=users) as second:
            await hosts.pool(second)
            uses = hosts.root / layout.uses(here.items["web"].uuid)
            await eventually_true(uses.exists, what="the use is published")
        with pytest.raises(BusyError, match="in use on host"):  # its daemon has ended, its mounts have not
            await first.trash.delete(here, "web")
        end_keepers(tmp_path / "two")
        await first.trash.delete(here, "web")
        assert not uses.exists()


async def test_what_a_lost_host_used_is_not_free_before_a_person_says_so(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, UNFENCED)
    async with hosts.host("one") as first:
        here = await hosts.pool(first)
        await first.items.create(here, item("web"), ROOT, adopt=False)
        users = Users()
        users.use("web")
        async with hosts.host("two", users=users) as second:
            await hosts.pool(second)
            uses = hosts.root / layout.uses(here.items["web"].uuid)
            await eventually_true(uses.exists, what="the use is published")
            other = str(second.lifecycle.ourselves.host.id)
        end_keepers(tmp_path / "two")
        with pytest.raises(BusyError, match=r"write `fence .*` into the pool's status"):
            await first.trash.delete(here, "web")
        await first.lifecycle.fence(here, ROOT, other)
        await first.trash.delete(here, "web")


async def test_a_fenced_host_that_lives_changes_nothing(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, UNFENCED)
    async with two(hosts) as ((first, here), (second, there)):
        await first.lifecycle.fence(here, ROOT, str(second.lifecycle.ourselves.host.id))
        with pytest.raises(FspoolError, match=r"was fenced|is failed"):
            await second.items.create(there, item("late"), ROOT, adopt=False)
        assert not (hosts.root / "late").exists()


async def test_a_sign_of_life_in_the_moment_of_a_fencing_does_not_undo_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = Hosts(tmp_path, UNFENCED)
    async with two(hosts) as ((_, here), (second, there)):
        fencing, fenced = here.active().membership, there.active().membership
        assert fencing is not None
        assert fenced is not None
        write = Presence._write_record

        def write_late(presence: Presence) -> None:
            fencing.presence.drop(second.lifecycle.ourselves.host)
            write(presence)

        monkeypatch.setattr(Presence, "_write_record", write_late)
        with pytest.raises(FspoolError, match="was fenced"):
            await trio.to_thread.run_sync(fenced.presence.renew, {})
        monkeypatch.undo()
        with pytest.raises(FspoolError, match="was fenced"):
            fenced.presence.check()


async def test_where_nothing_is_locked_between_hosts_there_is_one_at_a_time(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, SINGLE)
    async with hosts.host("one") as first, hosts.host("two") as second:
        here = await hosts.pool(first)
        await first.items.create(here, item("web"), ROOT, adopt=False)
        await second.pools.define(here.definition, ROOT)
        there = second.pools.find("tank")
        with pytest.raises(BusyError, match="no locks between hosts"):
            await second.lifecycle.start(there, ROOT)
        await first.lifecycle.stop(here, ROOT)
        await second.lifecycle.start(there, ROOT)
        assert names(there) == ["web"]


async def test_one_that_was_lost_can_be_fenced_while_the_pool_is_inactive(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, SINGLE)
    async with hosts.host("one") as first:
        here = await hosts.pool(first)
        number = str(first.lifecycle.ourselves.host.id)
    async with hosts.host("two") as second:
        await second.pools.define(here.definition, ROOT)
        there = second.pools.find("tank")
        with pytest.raises(BusyError):
            await second.lifecycle.start(there, ROOT)
        await second.lifecycle.fence(there, ROOT, number)
        await second.lifecycle.start(there, ROOT)
        assert there.state == "active"


async def test_stopping_leaves_nothing_of_the_host(hosts: Hosts) -> None:
    async with two(hosts) as ((first, here), (second, there)):
        await second.lifecycle.stop(there, ROOT)
        left = {path.name for path in (hosts.root / layout.HOSTS).iterdir()}
        number = str(first.lifecycle.ourselves.host.id)
        assert left == {number, f"{number}.lock"}
        await first.lifecycle.stop(here, ROOT)
        assert list((hosts.root / layout.HOSTS).iterdir()) == []


async def test_no_more_trash_than_there_was(hosts: Hosts) -> None:
    async with two(hosts, trash=TrashPolicy(retention=0)) as ((first, here), (second, there)):
        for number in range(10):
            await first.items.create(here, item(f"a{number}"), ROOT, adopt=False)
            await second.items.create(there, item(f"b{number}"), ROOT, adopt=False)
        await eventually_true(lambda: len(here.items) == len(there.items) == 20, what="all are known")
        for number in range(10):
            await first.trash.delete(here, f"b{number}")
            await second.trash.delete(there, f"a{number}")
        await eventually_true(lambda: not here.items and not there.items, what="all are gone")
        purge = hosts.root / layout.PURGE
        await eventually_true(lambda: not list(purge.iterdir()), what="nothing is left to be removed")
