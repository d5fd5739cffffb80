"""Capacity, files and soft limits of items: given, chosen, changed, refused, counted, promised."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from fspoolfs.backends.registry import Registry
from fspoolfs.backends.simulator import SimulatedHost, SimulatedSource
from fspoolfs.errors import AccessError, BusyError, FspoolError, UnsupportedError
from fspoolfs.model.definitions import (
    ItemDefinition,
    ItemOrigin,
    Permissions,
    PoolDefaults,
    SoftLimit,
)
from fspoolfs.model.states import ITEM_TABLE, ItemState, ItemVerb, Refusal
from fspoolfs.service import reports
from fspoolfs.service.facade import Service
from fspoolfs.service.limits import Promise, promised
from fspoolfs.service.objects import Item, Pool

from .conftest import Running
from .scenes import ALICE, BOB, ROOT, active_pool, dir_pool, item, look, running_pool, storage

MiB = 1 << 20
GiB = 1 << 30
EIGHTY = SoftLimit(percent=80)
WHOLE = PoolDefaults(capacity=4 * MiB, soft=EIGHTY, files=100)


async def make(service: Service, pool: Pool, name: str, **more: object) -> Item:
    return await service.items.create(pool, item(name, **more), ROOT, adopt=False)


def put(host: SimulatedHost, path: str, size: int) -> None:
    storage(host).write(path, bytes(size), replace=True, durable=False)


def sizes(one: Item | ItemDefinition) -> PoolDefaults:
    definition = one.definition if isinstance(one, Item) else one
    return PoolDefaults(capacity=definition.capacity, soft=definition.soft, files=definition.files)


def info(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


async def item_info(service: Service, pool: Pool, one: Item) -> dict[str, str]:
    return info(reports.item_info(pool, one, await service.counts.of(pool, one)))


# -- given by the pool, chosen by its owner -------------------------------------------------------


async def test_a_bare_mkdir_gets_what_the_pool_gives(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await active_pool(service, defaults=WHOLE)
        assert sizes(await make(service, pool, "web")) == WHOLE
        with pytest.raises(OSError, match="quota"):
            put(host, "web/large", 5 * MiB)


async def test_what_an_item_says_goes_before_what_the_pool_gives(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service, defaults=WHOLE)
        one = await make(service, pool, "web", capacity=GiB, soft=SoftLimit(size=MiB))
        assert sizes(one) == PoolDefaults(capacity=GiB, soft=SoftLimit(size=MiB), files=100)


@pytest.mark.parametrize(
    ("more", "words"),
    [({"capacity": GiB}, "capacity"), ({"files": 7}, "files limit"), ({"soft": EIGHTY}, "soft limit")],
)
async def test_only_the_pool_s_owner_chooses_how_much_an_item_may_hold(
    more: dict[str, object], words: str, running: Running
) -> None:
    async with running() as service:
        pool = await active_pool(service, permissions=Permissions(mode=0o777, owner=1001))
        with pytest.raises(AccessError, match=f"the {words} of item web is the pool owner's to choose"):
            await service.items.create(pool, item("web", **more), BOB, adopt=False)
        bobs = await service.items.create(pool, item("web"), BOB, adopt=False)
        with pytest.raises(AccessError, match=f"the {words} of item web is the pool owner's to change"):
            await service.items.define(pool, item("web", **more), BOB)
        await service.items.define(pool, item("web", **more), ALICE)
        assert sizes(bobs) == sizes(item("web", **more))


async def test_repeating_what_the_pool_gives_anyway_is_for_everybody(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service, defaults=WHOLE, permissions=Permissions(mode=0o777))
        wanted = item("web", capacity=4 * MiB, soft=EIGHTY, files=100)
        assert sizes(await service.items.create(pool, wanted, BOB, adopt=False)) == WHOLE


async def test_limits_outlive_the_service(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await active_pool(service, defaults=WHOLE)
        await make(service, pool, "web")
    async with running(host.power_cut()) as service:
        pool = await running_pool(service)
        assert sizes(pool.items["web"]) == WHOLE


# -- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"capacity": GiB}, "no capacity can be enforced"),
        ({"files": 7}, "no number of files can be enforced"),
        ({"soft": SoftLimit(size=GiB)}, "nobody would be told at the soft limit"),
    ],
)
async def test_what_nothing_keeps_is_refused_and_not_stored(
    more: dict[str, object], words: str, running: Running, host: SimulatedHost
) -> None:
    async with running(registry=Registry([SimulatedSource(host)])) as service:
        pool = await active_pool(service)
        web = await make(service, pool, "web")
        before = look(host, pool)
        for request in (
            service.items.create(pool, item("new", **more), ROOT, adopt=False),
            service.items.define(pool, item("web", **more), ROOT),
            service.items.define(pool, item("new", origin=ItemOrigin(fs="web"), **more), ROOT),
        ):
            with pytest.raises(UnsupportedError, match=words):
                await request
        assert look(host, pool) == before
        assert sizes(web) == PoolDefaults()


async def test_a_directory_taken_over_is_counted_and_limited(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await active_pool(service)
        storage(host).make_directory("found", mode=0o755)
        put(host, "found/file", MiB)
        found = await service.items.define(pool, item("found", capacity=2 * MiB), ROOT)
        counted = await service.counts.of(pool, found)
        assert counted is not None
        assert counted.allocation > MiB
        with pytest.raises(OSError, match="quota"):
            put(host, "found/more", MiB)


async def test_taking_a_directory_over_that_fails_leaves_no_limit(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool = await active_pool(service)
        storage(host).make_directory("found", mode=0o755)
        host.faults.fail("write", errno.ENOSPC, path=".fspool/items/found.xml")
        with pytest.raises(FspoolError, match="No space left"):
            await service.items.define(pool, item("found", capacity=MiB), ROOT)
        put(host, "found/large", 5 * MiB)


# -- resized --------------------------------------------------------------------------------------


async def test_a_capacity_grows_shrinks_and_is_lifted(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await active_pool(service)
        web = await make(service, pool, "web", capacity=MiB)
        with pytest.raises(OSError, match="quota"):
            put(host, "web/file", 2 * MiB)
        await service.items.set_capacity(pool, web, 3 * MiB, ROOT)
        put(host, "web/file", 2 * MiB)
        await service.items.set_capacity(pool, web, None, ROOT)
        put(host, "web/more", 8 * MiB)
        assert web.definition.capacity is None


def by_file(capacity: int) -> Callable[[Service, Pool, Item], object]:
    return lambda service, pool, one: service.items.set_capacity(pool, one, capacity, ROOT)


def by_document(**more: object) -> Callable[[Service, Pool, Item], object]:
    return lambda service, pool, one: service.items.redefine(pool, one, item("web", **more), ROOT)


@pytest.mark.parametrize(
    ("request_made", "words"),
    [
        (by_file(MiB), "holds 2101248 bytes, more than the capacity of 1048576 .*ask for at least 2101248"),
        (by_document(capacity=MiB), "more than the capacity of 1048576"),
        (by_document(capacity=GiB, files=2), "holds 3 files and directories, more than the files limit of 2"),
    ],
)
@pytest.mark.parametrize("before", [None, GiB])
async def test_no_limit_goes_below_what_is_there(
    before: int | None,
    request_made: Callable[[Service, Pool, Item], object],
    words: str,
    running: Running,
    host: SimulatedHost,
) -> None:
    async with running() as service:
        pool = await active_pool(service)
        web = await make(service, pool, "web", capacity=before)
        for name in ("a", "b"):
            put(host, f"web/{name}", MiB)
        old = web.definition
        with pytest.raises(BusyError, match=words) as caught:
            await request_made(service, pool, web)  # type: ignore[misc]
        assert caught.value.errno == errno.EBUSY
        assert (web.definition, web.state) == (old, "ready")
        storage(host).remove_file("web/a")
        storage(host).remove_file("web/b")
        await request_made(service, pool, web)  # type: ignore[misc]


async def test_an_item_above_its_limit_can_still_be_changed_otherwise(
    running: Running, host: SimulatedHost
) -> None:
    """Only a smaller limit is asked about; a mode, or a limit that grows without sufficing, is not."""
    async with running() as service:
        pool = await active_pool(service)
        web = await make(service, pool, "web")
        put(host, "web/a", 8 * MiB)
        storage(host).set_limits("web", capacity=MiB, files=None)
        web.definition = item("web", uuid=web.uuid, capacity=MiB, permissions=web.definition.permissions)
        await service.items.set_permissions(pool, web, Permissions(mode=0o700), ROOT)
        await service.items.set_capacity(pool, web, 2 * MiB, ROOT)


@pytest.mark.parametrize(("soft", "left"), [(EIGHTY, None), (SoftLimit(size=MiB), SoftLimit(size=MiB))])
async def test_a_lifted_capacity_takes_a_part_of_it_along(
    soft: SoftLimit, left: SoftLimit | None, running: Running
) -> None:
    async with running() as service:
        pool = await active_pool(service)
        web = await make(service, pool, "web", capacity=GiB, soft=soft)
        await service.items.set_capacity(pool, web, None, ROOT)
        assert sizes(web) == PoolDefaults(soft=left)


async def test_resizing_is_refused_by_its_own_row_of_the_table(
    running: Running, host: SimulatedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as service:
        pool = await active_pool(service)
        web = await make(service, pool, "web", capacity=GiB)
        row = {**ITEM_TABLE[ItemVerb.RESIZE], ItemState.READY: Refusal.BROKEN}
        monkeypatch.setitem(ITEM_TABLE, ItemVerb.RESIZE, row)  # type: ignore[arg-type]
        with pytest.raises(BusyError, match="item web is ready: resize is refused"):
            await service.items.set_capacity(pool, web, MiB, ROOT)
        with pytest.raises(BusyError, match="resize is refused"):
            await service.items.define(pool, item("web", capacity=MiB), ROOT)
        await service.items.define(pool, item("web", files=100, capacity=MiB), ROOT)


# -- counted --------------------------------------------------------------------------------------


async def test_what_an_item_holds_is_known_at_once(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        pool = await active_pool(service)
        web = await make(service, pool, "web", capacity=4 * MiB, soft=EIGHTY, files=100)
        put(host, "web/file", MiB - 4096)
        told = await item_info(service, pool, web)
        assert told["Capacity"] == "4.00 MiB"
        assert told["Soft limit"] == "3.20 MiB (80%)"
        assert told["Files"] == "2, at most 100"
        assert told["Allocation"] == "1.00 MiB, 25% of the capacity"
        open_one = await make(service, pool, "open")
        told = await item_info(service, pool, open_one)
        assert (told["Capacity"], told["Files"], told["Allocation"]) == ("none", "1", "4.00 KiB")
        assert "Soft limit" not in told


async def test_nothing_is_known_where_nothing_is_counted(running: Running, host: SimulatedHost) -> None:
    async with running(registry=Registry([SimulatedSource(host)])) as service:
        pool = await active_pool(service)
        web = await make(service, pool, "web")
        assert await service.counts.of(pool, web) is None
        told = await item_info(service, pool, web)
        assert told["Allocation"] == "unknown (write measure into status to count it)"
        assert "Files" not in told
        await service.clones.measure(pool, web)
        assert "in 1 files and directories, measured" in (await item_info(service, pool, web))["Allocation"]


async def test_storage_that_fails_or_hangs_is_not_waited_for(
    running: Running, host: SimulatedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fspoolfs.service.counting.PATIENCE", 0.05)
    async with running() as service:
        pool = await active_pool(service)
        web = await make(service, pool, "web")
        host.faults.fail("counted", errno.EIO)
        assert await service.counts.of(pool, web) is None
        with host.faults.hang("counted"):
            assert await service.counts.of(pool, web) is None
            await service.counts.refresh(service.pools)
        monkeypatch.undo()
        assert await service.counts.of(pool, web) is not None


# -- promised -------------------------------------------------------------------------------------


async def test_a_pool_tells_what_it_has_promised(running: Running) -> None:
    async with running(SimulatedHost(capacity=10 * GiB)) as service:
        pool = await active_pool(service)

        async def told() -> str | None:
            return info(reports.pool_info(pool, await service.spaces.of(pool), None)).get("Promised")

        await make(service, pool, "open")
        assert await told() is None
        for name in ("a", "b"):
            await make(service, pool, name, capacity=6 * GiB)
        assert promised(pool.items.values()) == Promise(12 * GiB, 1)
        assert await told() == "12.00 GiB, 120% of the capacity; 1 without a capacity"
        await service.trash.delete(pool, "open")
        assert await told() == "12.00 GiB, 120% of the capacity"
        await service.lifecycle.stop(pool, ROOT)
        assert await told() is None


# -- cloned ---------------------------------------------------------------------------------------


async def test_a_clone_by_definition_is_as_its_origin_where_it_says_nothing(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service, permissions=Permissions(mode=0o777, owner=1001))
        permissions = Permissions(mode=0o711, owner=1002, group=1002)
        metadata = "<metadata><a/></metadata>"
        base = await make(
            service,
            pool,
            "base",
            permissions=permissions,
            metadata=metadata,
            capacity=GiB,
            soft=EIGHTY,
            files=100,
        )
        for caller, name in ((ROOT, "roots"), (BOB, "bobs")):
            copy = await service.items.define(pool, item(name, origin=ItemOrigin(fs="base")), caller)
            assert copy.definition.permissions == permissions
            assert copy.definition.metadata == metadata
            assert sizes(copy) == sizes(base)
            assert (copy.definition.path, copy.uuid == base.uuid) == (None, False)
        wanted = item(
            "own",
            origin=ItemOrigin(fs="base"),
            capacity=2 * GiB,
            permissions=Permissions(mode=0o700),
            metadata="<metadata/>",
        )
        own = await service.items.define(pool, wanted, ROOT)
        assert own.definition.permissions == Permissions(mode=0o700, owner=1002, group=1002)
        assert (own.definition.metadata, own.definition.capacity) == ("<metadata/>", 2 * GiB)


async def test_a_clone_by_definition_has_its_origin_s_sizes_and_not_the_pool_s(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service)
        await make(service, pool, "base")
        await service.pools.define(dir_pool("tank", defaults=WHOLE), ROOT)
        copy = await service.items.define(pool, item("copy", origin=ItemOrigin(fs="base")), ROOT)
        assert sizes(copy) == PoolDefaults()
        await service.clones.clone_item(pool, copy, "copy2", None, ROOT)
        assert sizes(pool.items["copy2"]) == PoolDefaults()


async def test_a_clone_s_size_is_its_origin_s_or_the_pool_owner_s_to_choose(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service, permissions=Permissions(mode=0o777, owner=1001))
        await make(service, pool, "base", permissions=Permissions(owner=1002, group=1002), capacity=GiB)
        origin = ItemOrigin(fs="base")
        with pytest.raises(AccessError, match="the capacity of item big is the pool owner's to choose"):
            await service.items.define(pool, item("big", origin=origin, capacity=2 * GiB), BOB)
        same = await service.items.define(pool, item("same", origin=origin, capacity=GiB), BOB)
        assert same.definition.capacity == GiB
        with pytest.raises(AccessError, match="may not clone item base"):
            await service.items.define(pool, item("stolen", origin=origin), ALICE)


async def test_a_clone_that_is_too_small_for_its_origin_is_refused_and_leaves_nothing(
    running: Running, host: SimulatedHost
) -> None:
    async with running() as service:
        pool = await active_pool(service)
        await make(service, pool, "base")
        put(host, "base/file", 4 * MiB)
        with pytest.raises(FspoolError, match="quota exceeded") as caught:
            await service.items.define(pool, item("small", origin=ItemOrigin(fs="base"), capacity=MiB), ROOT)
        assert caught.value.errno == errno.EDQUOT
        assert set(pool.items) == {"base"}
