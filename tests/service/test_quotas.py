"""Quotas: what the items of a pool, a user, a group may come to hold together, whatever is done."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

from fspoolfs.backends.registry import Registry
from fspoolfs.backends.simulator import SimulatedHost, SimulatedSource
from fspoolfs.errors import FspoolError, QuotaError, UnsupportedError
from fspoolfs.model.definitions import ItemOrigin, Permissions, PoolDefaults, Quota
from fspoolfs.service import reports
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Item, Pool
from support.keepers import end_keepers

from .conftest import Running
from .scenes import ALICE, BOB, ROOT, active_pool, dir_pool, item, look, patiently, running_pool
from .sharing import FENCED, Hosts, eventually_true

GiB = 1 << 30
OPEN = Permissions(mode=0o777)
#: Alice may have 10 GiB; what is made without a word gets 4.
ALICES = {
    "permissions": OPEN,
    "defaults": PoolDefaults(capacity=4 * GiB),
    "quotas": (Quota(user=1001, size=10 * GiB),),
}


async def make(service: Service, pool: Pool, name: str, size: int | None = None, owner: int = 1001) -> Item:
    wanted = item(name, capacity=size, permissions=Permissions(owner=owner, group=owner))
    return await service.items.create(pool, wanted, ROOT, adopt=False)


def taken(pool: Pool) -> list[tuple[str, int, int]]:
    """Whose quotas there are, and how many bytes and items are taken of them."""
    return [(one.quota.subject, one.size, one.items) for one in pool.active().accounts.standings()]


async def furnished(service: Service) -> Pool:
    """Alice has 8 of 10 GiB in `a` and `b`, and 4 in the trash; `bobs` has 6."""
    pool = await active_pool(service, **ALICES)
    await make(service, pool, "old")
    await service.trash.delete(pool, "old")
    for name in ("a", "b"):
        await make(service, pool, name)
    await make(service, pool, "bobs", 6 * GiB, owner=1002)
    return pool


Request = Callable[[Service, Pool], Awaitable[object]]

#: What would take more than the 2 GiB that are left.
TOO_MUCH: dict[str, Request] = {
    "mkdir": lambda service, pool: service.items.create(pool, item("c"), ALICE, adopt=False),
    "mkdir by root": lambda service, pool: make(service, pool, "c", 3 * GiB),
    "define": lambda service, pool: service.items.define(
        pool, item("c", capacity=3 * GiB, permissions=Permissions(owner=1001)), ROOT
    ),
    "resize": lambda service, pool: service.items.set_capacity(pool, pool.items["a"], 7 * GiB, ROOT),
    "redefine": lambda service, pool: service.items.define(pool, item("a", capacity=7 * GiB), ROOT),
    "clone": lambda service, pool: service.clones.clone_item(pool, pool.items["a"], "c", None, ALICE),
    "clone by a document": lambda service, pool: service.items.define(
        pool, item("c", origin=ItemOrigin(fs="a")), ALICE
    ),
    "undelete": lambda service, pool: service.trash.undelete(pool, "old", "old"),
    "chown": lambda service, pool: service.items.set_permissions(
        pool, pool.items["bobs"], Permissions(owner=1001), ROOT
    ),
    "lift the capacity": lambda service, pool: service.items.set_capacity(pool, pool.items["a"], None, ROOT),
}


@pytest.mark.parametrize("what", TOO_MUCH)
async def test_what_would_exceed_a_user_s_quota_is_refused_and_changes_nothing(
    what: str, running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool = await furnished(service)
        before = look(host, pool), taken(pool)
        with pytest.raises(QuotaError, match="user 1001") as refused:
            await TOO_MUCH[what](service, pool)
        assert refused.value.errno == errno.EDQUOT
        assert (look(host, pool), taken(pool)) == before
        assert taken(pool) == [("user 1001", 8 * GiB, 3)]


@pytest.mark.parametrize("what", [one for one in TOO_MUCH if one != "lift the capacity"])
async def test_the_same_is_done_where_the_quota_leaves_it(what: str, running: Running) -> None:
    async with running() as service:
        pool = await furnished(service)
        await service.pools.define(
            dir_pool("tank", **ALICES | {"quotas": (Quota(user=1001, size=14 * GiB),)}), ROOT
        )
        await patiently(service, pool, TOO_MUCH[what](service, pool))
        assert taken(pool)[0][1] > 8 * GiB


async def test_a_refusal_says_whose_sum_how_much_is_taken_and_what_is_left(running: Running) -> None:
    async with running() as service:
        pool = await furnished(service)
        with pytest.raises(QuotaError) as refused:
            await make(service, pool, "c", 3 * GiB)
        assert refused.value.sentence == (
            f"create item c: the quota of user 1001 is {10 * GiB} bytes, of which {8 * GiB} are promised to "
            f"items, so that {2 * GiB} are left; {3 * GiB} more were asked for"
        )
        with pytest.raises(QuotaError, match=f"so that {2 * GiB} are left; {3 * GiB} more were asked for"):
            await service.items.set_capacity(pool, pool.items["a"], 7 * GiB, ROOT)


async def test_what_is_given_back_can_be_taken_again(running: Running) -> None:
    async with running() as service:
        pool = await furnished(service)
        await service.items.set_capacity(pool, pool.items["a"], 6 * GiB, ROOT)
        assert taken(pool) == [("user 1001", 10 * GiB, 3)]
        await service.items.set_capacity(pool, pool.items["a"], 1 * GiB, ROOT)
        await service.items.rename(pool, "a", "renamed")
        await make(service, pool, "c", 5 * GiB)
        await service.trash.delete(pool, "b")
        await service.items.set_permissions(pool, pool.items["c"], Permissions(owner=1002), ROOT)
        assert taken(pool) == [("user 1001", 1 * GiB, 3)]
        await service.trash.purge(pool, "old")
        assert taken(pool) == [("user 1001", 1 * GiB, 2)]


async def test_a_change_that_fails_gives_back_what_it_claimed(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await furnished(service)
        before = taken(pool)
        host.faults.fail("make_directory", errno.EIO)
        with pytest.raises(FspoolError):
            await make(service, pool, "c", 2 * GiB)
        assert taken(pool) == before


async def test_of_many_at_once_as_many_succeed_as_have_room(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service, **ALICES)
        results: list[FspoolError | None] = []

        async def create(name: str) -> None:
            try:
                await service.items.create(pool, item(name), ALICE, adopt=False)
            except FspoolError as error:
                results.append(error)
            else:
                results.append(None)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(create, f"item{number}")
        assert results.count(None) == 2
        assert {type(error) for error in results if error is not None} == {QuotaError}
        async with trio.open_nursery() as nursery:
            for one in list(pool.items.values()):
                nursery.start_soon(_quietly, service.items.set_capacity(pool, one, 6 * GiB, ROOT))
        assert taken(pool) == [("user 1001", 10 * GiB, 2)]


async def _quietly(action: Awaitable[object]) -> None:
    try:
        await action
    except QuotaError:
        return


@pytest.mark.parametrize(
    ("quota", "owner", "fits"),
    [
        (Quota(size=GiB), 1001, False),
        (Quota(size=GiB), 1002, False),
        (Quota(user=1001, size=GiB), 1002, True),
        (Quota(user=0, size=GiB), 0, False),
        (Quota(group=55, size=GiB), 1001, False),
        (Quota(group=56, size=GiB), 1001, True),
    ],
)
async def test_a_quota_is_the_pool_s_a_user_s_or_a_group_s(
    quota: Quota, owner: int, fits: bool, running: Running
) -> None:
    async with running() as service:
        pool = await active_pool(service, quotas=(quota,))
        wanted = item("web", capacity=2 * GiB, permissions=Permissions(owner=owner, group=55))
        if fits:
            await service.items.create(pool, wanted, ROOT, adopt=False)
            return
        with pytest.raises(QuotaError):
            await service.items.create(pool, wanted, ROOT, adopt=False)


async def test_an_item_without_a_capacity_would_exceed_any_sum(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service, permissions=OPEN, quotas=(Quota(user=1001, size=GiB),))
        with pytest.raises(
            QuotaError, match="an item without a capacity could grow beyond it; give the item"
        ):
            await service.items.create(pool, item("web"), ALICE, adopt=False)
        await service.items.create(pool, item("web"), BOB, adopt=False)
        with pytest.raises(QuotaError):
            await service.items.set_permissions(pool, pool.items["web"], Permissions(owner=1001), ROOT)


async def test_a_directory_taken_over_counts_for_the_owner_that_it_has(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool = await active_pool(service, quotas=(Quota(user=1001, size=GiB),))
        root = pool.active().root
        root.make_directory("found", mode=0o755)
        root.set_attributes("found", mode=None, owner=1001, group=1001)
        with pytest.raises(QuotaError):
            await service.items.define(pool, item("found", capacity=2 * GiB), ROOT)
        assert not pool.items
        await service.items.define(pool, item("found", capacity=GiB), ROOT)
        assert taken(pool) == [("user 1001", GiB, 1)]


async def test_items_are_counted_with_those_in_the_trash(running: Running) -> None:
    """Else a user could fill a pool with what he deletes."""
    async with running() as service:
        pool = await active_pool(service, permissions=OPEN, quotas=(Quota(user=1001, items=2),))
        for name in ("a", "b"):
            await service.items.create(pool, item(name), ALICE, adopt=False)
        await service.trash.delete(pool, "a")
        with pytest.raises(QuotaError, match="is 2 items, and there are 2, those in the trash included"):
            await service.items.create(pool, item("c"), ALICE, adopt=False)
        await service.items.create(pool, item("c"), BOB, adopt=False)
        await service.trash.undelete(pool, "a", "a")
        await service.trash.delete(pool, "a")
        await service.trash.purge(pool, "a")
        await service.items.create(pool, item("d"), ALICE, adopt=False)


async def test_quotas_hold_across_restarts_and_crashes(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        before = taken(await furnished(service))
    async with running(host.power_cut()) as service:
        pool = await running_pool(service)
        assert taken(pool) == before
        with pytest.raises(QuotaError):
            await make(service, pool, "c", 3 * GiB)


async def test_quotas_change_while_the_pool_is_active(running: Running) -> None:
    async with running() as service:
        pool = await furnished(service)
        for size, fits in ((7 * GiB, False), (12 * GiB, True)):
            await service.pools.define(
                dir_pool("tank", **ALICES | {"quotas": (Quota(size=size), Quota(user=1001, size=size))}), ROOT
            )
            assert pool.pending is None
            # Nobody loses what he has; only more of it is refused.
            await service.items.set_permissions(pool, pool.items["a"], Permissions(mode=0o700), ROOT)
            await service.items.set_capacity(pool, pool.items["a"], 3 * GiB, ROOT)
            if not fits:
                with pytest.raises(QuotaError):
                    await service.items.set_capacity(pool, pool.items["a"], 4 * GiB, ROOT)
        await service.pools.define(dir_pool("tank", **ALICES | {"quotas": ()}), ROOT)
        await make(service, pool, "c", 100 * GiB)


async def test_a_sum_that_nothing_enforces_is_refused(running: Running, host: SimulatedHost) -> None:
    async with running(registry=Registry([SimulatedSource(host)])) as service:
        pool = await active_pool(service)
        with pytest.raises(UnsupportedError, match="this storage enforces none"):
            await service.pools.define(dir_pool("tank", quotas=(Quota(size=GiB),)), ROOT)
        assert pool.definition.quotas == ()
        await service.pools.define(dir_pool("tank", quotas=(Quota(items=1),)), ROOT)
        await service.items.create(pool, item("a"), ROOT, adopt=False)
        with pytest.raises(QuotaError, match="the quota of the pool is 1 items"):
            await service.items.create(pool, item("b"), ROOT, adopt=False)


async def test_info_and_metrics_tell_how_quotas_stand(running: Running) -> None:
    async with running() as service:
        pool = await furnished(service)
        quotas = (Quota(size=8 * GiB, items=5), Quota(user=1001, size=10 * GiB))
        await service.pools.define(dir_pool("tank", **ALICES | {"quotas": quotas}), ROOT)
        told = [line for line in reports.pool_info(pool, None, None).splitlines() if line.startswith("Quota")]
        assert told == [
            "Quota:          the pool: 14.00 GiB of 8.00 GiB, 6.00 GiB too much; 4 of 5 items",
            "Quota:          user 1001: 8.00 GiB of 10.00 GiB, 2.00 GiB left",
        ]
        metrics = service.metrics.text().decode()
        assert 'fspoolfs_pool_quota{kind="bytes",pool="tank",subject="user 1001"} 1.073741824e+10' in metrics
        assert 'fspoolfs_pool_quota_taken{kind="items",pool="tank",subject="the pool"} 4.0' in metrics


async def test_what_a_refresh_finds_is_counted(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await furnished(service)
        root = pool.active().root
        root.remove_file(".fspool/items/a.xml")
        await service.lifecycle.refresh(pool, ROOT)
        assert taken(pool) == [("user 1001", 4 * GiB, 2)]


# -- several hosts --------------------------------------------------------------------------------


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    yield Hosts(tmp_path, FENCED)
    end_keepers(tmp_path)


async def test_hosts_that_share_a_pool_share_its_quotas(hosts: Hosts) -> None:
    quotas = (Quota(items=7),)
    async with hosts.host("one") as first, hosts.host("two") as second:
        here, there = await hosts.pool(first, quotas=quotas), await hosts.pool(second, quotas=quotas)
        made: list[str] = []

        async def create(service: Service, pool: Pool, prefix: str) -> None:
            for number in range(10):
                try:
                    await service.items.create(pool, item(f"{prefix}{number}"), ROOT, adopt=False)
                except QuotaError:
                    continue
                made.append(f"{prefix}{number}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(create, first, here, "here")
            nursery.start_soon(create, second, there, "there")
        assert len(made) == 7
        await eventually_true(lambda: len(here.items) == len(there.items) == 7, what="both know all items")
        assert taken(here)[0][2] == taken(there)[0][2] == 7
        name = next(one for one in made if one in here.items)
        await first.trash.delete(here, name)
        with pytest.raises(QuotaError):
            await second.items.create(there, item("more"), ROOT, adopt=False)
        await first.trash.purge(here, name)
        await second.items.create(there, item("more"), ROOT, adopt=False)


async def test_a_host_that_missed_too_much_counts_anew(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    quotas = (Quota(items=9),)
    async with hosts.host("one") as first, hosts.host("two") as second:
        here, there = await hosts.pool(first, quotas=quotas), await hosts.pool(second, quotas=quotas)
        for number in range(8):
            await first.items.create(here, item(f"item{number}"), ROOT, adopt=False)
        shared = there.active().membership
        assert shared is not None
        begin = shared.committer.turns.begin
        monkeypatch.setattr(shared.committer.turns, "begin", lambda: begin() and None)
        with pytest.raises(FspoolError, match="changed a lot on other hosts"):
            await second.items.create(there, item("one"), ROOT, adopt=False)
        monkeypatch.undo()
        assert taken(there)[0][2] == 8
        await eventually_true(lambda: len(there.items) == 8, what="all is read anew")
        await second.items.create(there, item("one"), ROOT, adopt=False)
        with pytest.raises(QuotaError):
            await second.items.create(there, item("more"), ROOT, adopt=False)


async def test_info_tells_of_what_other_hosts_have_taken(hosts: Hosts) -> None:
    quotas = (Quota(items=7),)
    async with hosts.host("one") as first, hosts.host("two") as second:
        here, there = await hosts.pool(first, quotas=quotas), await hosts.pool(second, quotas=quotas)
        await first.items.create(here, item("web"), ROOT, adopt=False)
        await eventually_true(lambda: taken(there) == [("the pool", 0, 1)], what="it is counted there")
        await first.trash.delete(here, "web")
        await first.trash.purge(here, "web")
        await eventually_true(lambda: taken(there) == [("the pool", 0, 0)], what="it is gone there")
