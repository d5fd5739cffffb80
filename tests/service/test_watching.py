"""Soft limits: who is told, when, and how often; and the metrics of items."""

from __future__ import annotations

import errno

import pytest
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import wait_all_tasks_blocked

from fspoolfs.backends.registry import Registry
from fspoolfs.backends.simulator import SimulatedHost, SimulatedSource
from fspoolfs.model.definitions import PoolDefaults, SoftLimit
from fspoolfs.service import watching
from fspoolfs.service.events import Event
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Pool

from .conftest import Running
from .scenes import ROOT, Recorder, active_pool, dir_pool, item, running_pool, storage, until

KiB = 1 << 10
MiB = 1 << 20
EIGHTY = SoftLimit(percent=80)
#: So long that nothing is looked at by itself while a test runs.
NEVER = 1e6


@pytest.fixture
def faults() -> Recorder:
    return Recorder()


@pytest.fixture
def host(faults: Recorder) -> SimulatedHost:
    return SimulatedHost(faults=faults)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Looks follow each other closely."""
    monkeypatch.setattr(watching, "INTERVAL", 0.01)
    monkeypatch.setattr(watching, "GAP", 0.0)
    return monkeypatch


@pytest.fixture
def seldom(often: pytest.MonkeyPatch) -> None:
    """Nothing is looked at but for a definition that changed."""
    often.setattr(watching, "INTERVAL", NEVER)


class Told:
    """What is told of soft limits: kind, item, usage, limit."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.all: list[tuple[str, str, str | int, str | int]] = []
        service.events.listen(self._hear)

    def _hear(self, event: Event) -> None:
        if event.kind.endswith("-soft-limit"):
            assert event.pool == "tank"
            kind = event.kind.split("-")[1]
            self.all.append((kind, event.item, event.details["usage"], event.details["limit"]))

    async def wait(self, number: int) -> None:
        await until(self._service, lambda: len(self.all) >= number, what=f"{number} times told of limits")

    async def nothing_more(self, faults: Recorder) -> None:
        """Several looks bring no other event."""
        before, looks = len(self.all), faults.calls["counted"]
        await until(self._service, lambda: faults.calls["counted"] >= looks + 3, what="it is looked again")
        assert len(self.all) == before


async def limited_pool(service: Service, *names: str, **more: object) -> Pool:
    """A pool with items of 100 KiB, of which people are told at 80 KiB."""
    pool = await active_pool(service, defaults=PoolDefaults(capacity=100 * KiB, soft=EIGHTY), **more)
    for name in names:
        await service.items.create(pool, item(name), ROOT, adopt=False)
    return pool


def put(host: SimulatedHost, path: str, size: int) -> None:
    storage(host).write(path, bytes(size), replace=True, durable=False)


async def test_crossing_a_soft_limit_is_told_once_each_way(
    running: Running, host: SimulatedHost, faults: Recorder
) -> None:
    async with running() as service:
        told = Told(service)
        await limited_pool(service, "web", "db")
        put(host, "web/a", 72 * KiB)
        await told.nothing_more(faults)
        assert told.all == []
        put(host, "web/b", 4 * KiB)
        await told.wait(1)
        put(host, "web/c", 4 * KiB)
        await told.nothing_more(faults)
        storage(host).remove_file("web/a")
        await told.wait(2)
        await told.nothing_more(faults)
        assert told.all == [
            ("above", "web", 80 * KiB, 80 * KiB),
            ("below", "web", 12 * KiB, 80 * KiB),
        ]


async def test_a_line_of_events_says_usage_and_limit(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        told = Told(service)
        await limited_pool(service, "web")
        put(host, "web/a", 90 * KiB)
        await told.wait(1)
        last = service.events.read(service.events.start, 1 << 20).splitlines()[-1]
        assert b'"event": "item-above-soft-limit", "pool": "tank", "item": "web"' in last
        assert b'"usage": 98304, "limit": 81920}' in last


@pytest.mark.usefixtures("seldom")
async def test_a_changed_definition_is_looked_at_at_once(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        told = Told(service)
        pool = await active_pool(service)
        web = await service.items.create(pool, item("web"), ROOT, adopt=False)
        put(host, "web/a", 92 * KiB)
        size = SoftLimit(size=64 * KiB)
        definitions = (
            item("web", soft=size),
            item("web", capacity=200 * KiB, soft=EIGHTY),
            item("web", capacity=120 * KiB, soft=EIGHTY),
            item("web", capacity=120 * KiB),
        )
        for number, wanted in enumerate(definitions, start=1):
            await service.items.redefine(pool, web, wanted, ROOT)
            await told.wait(number)
        assert told.all == [
            ("above", "web", 96 * KiB, 64 * KiB),
            ("below", "web", 96 * KiB, 160 * KiB),
            ("above", "web", 96 * KiB, 96 * KiB),
            ("below", "web", 96 * KiB, "none"),
        ]
        assert web.above_soft is None


@pytest.mark.usefixtures("seldom")
async def test_a_lower_capacity_lowers_its_part(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        told = Told(service)
        pool = await limited_pool(service, "web")
        put(host, "web/a", 72 * KiB)
        await service.items.set_capacity(pool, pool.items["web"], 90 * KiB, ROOT)
        await told.wait(1)
        await service.items.set_capacity(pool, pool.items["web"], None, ROOT)
        await told.wait(2)
        assert told.all == [("above", "web", 76 * KiB, 72 * KiB), ("below", "web", 76 * KiB, "none")]


async def test_nothing_is_counted_while_no_item_has_a_soft_limit(
    running: Running, host: SimulatedHost, faults: Recorder
) -> None:
    async with running() as service:
        pool = await active_pool(service)
        for name in ("web", "db"):
            await service.items.create(pool, item(name, capacity=MiB), ROOT, adopt=False)
        await service.items.set_capacity(pool, pool.items["web"], 2 * MiB, ROOT)
        faults.calls.clear()
        await wait_all_tasks_blocked(0.05)
        await service.items.redefine(pool, pool.items["db"], item("db"), ROOT)
        await wait_all_tasks_blocked(0.05)
        assert faults.calls["counted"] == 0


async def test_looks_keep_their_distance_however_many_definitions_change(
    running: Running, often: pytest.MonkeyPatch, faults: Recorder
) -> None:
    often.setattr(watching, "INTERVAL", NEVER)
    often.setattr(watching, "GAP", NEVER)
    async with running() as service:
        await limited_pool(service, *(f"i{number}" for number in range(20)))
        await wait_all_tasks_blocked()
        # The first look may have come to see the first of them.
        assert faults.calls["counted"] <= 1


async def test_an_item_that_is_gone_is_not_told_of(
    running: Running, host: SimulatedHost, faults: Recorder
) -> None:
    async with running() as service:
        told = Told(service)
        pool = await limited_pool(service, "web", "db")
        put(host, "web/a", 90 * KiB)
        await told.wait(1)
        await service.trash.delete(pool, "web")
        await told.nothing_more(faults)
        assert b"fspoolfs_item" in service.metrics.text()
        assert b'item="web"' not in service.metrics.text()


async def test_a_renamed_item_stays_above(running: Running, host: SimulatedHost, faults: Recorder) -> None:
    async with running() as service:
        told = Told(service)
        pool = await limited_pool(service, "web")
        put(host, "web/a", 90 * KiB)
        await told.wait(1)
        await service.items.rename(pool, "web", "shop")
        await told.nothing_more(faults)
        storage(host).remove_file("shop/a")
        await told.wait(2)
        assert told.all[1][:2] == ("below", "shop")


async def test_a_stopped_pool_is_not_watched_and_one_started_again_is(
    running: Running, host: SimulatedHost, faults: Recorder
) -> None:
    async with running() as service:
        told = Told(service)
        pool = await limited_pool(service, "web")
        put(host, "web/a", 90 * KiB)
        await told.wait(1)
        await service.lifecycle.stop(pool, ROOT)
        faults.calls.clear()
        await wait_all_tasks_blocked(0.05)
        assert faults.calls["counted"] == 0
        assert b"fspoolfs_item_" not in b"".join(
            line for line in service.metrics.text().splitlines() if not line.startswith(b"#")
        )
        await service.lifecycle.start(pool, ROOT)
        await told.wait(2)
        assert [one[0] for one in told.all] == ["above", "above"]


async def test_a_new_service_tells_of_what_it_finds_above(running: Running, host: SimulatedHost) -> None:
    async with running() as service:
        await limited_pool(service, "web")
        put(host, "web/a", 90 * KiB)
    async with running() as service:
        told = Told(service)
        pool = await running_pool(service)
        await told.wait(1)
        assert pool.items["web"].above_soft is True


async def test_counters_that_cannot_be_read_end_nothing(
    running: Running, host: SimulatedHost, faults: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as service:
        told = Told(service)
        pool = await limited_pool(service, "web")
        put(host, "web/a", 90 * KiB)
        await told.wait(1)
        faults.fail("counted", errno.EIO, times=3)
        await told.nothing_more(faults)
        assert pool.state == "active"
        assert "pool tank: what its items hold cannot be told" in caplog.text
        storage(host).remove_file("web/a")
        await told.wait(2)


async def test_one_pool_that_hangs_keeps_no_other_from_being_watched(
    running: Running, host: SimulatedHost, faults: Recorder
) -> None:
    async with running() as service:
        told = Told(service)
        await active_pool(service, "lake", defaults=PoolDefaults(soft=SoftLimit(size=MiB)))
        lake = service.pools.find("lake")
        hang = faults.hang("counted")
        await service.items.create(lake, item("hung"), ROOT, adopt=False)
        await until(service, lambda: hang.wait_until_entered(0), what="a look hangs")
        faults._hangs.clear()
        await limited_pool(service, "web")
        put(host, "web/a", 90 * KiB)
        await told.wait(1)
        hang.release()


async def test_where_nothing_is_counted_nothing_is_watched(
    running: Running, host: SimulatedHost, faults: Recorder
) -> None:
    async with running() as service:
        pool = await limited_pool(service, "web")
        await service.lifecycle.stop(pool, ROOT)
    async with running(registry=Registry([SimulatedSource(host)])) as service:
        pool = service.pools.find("tank")
        await service.lifecycle.start(pool, ROOT)
        faults.calls.clear()
        await wait_all_tasks_blocked(0.05)
        assert faults.calls["counted"] == 0
        assert pool.items["web"].definition.soft == EIGHTY


# -- metrics --------------------------------------------------------------------------------------


def samples(service: Service) -> dict[tuple[str, str, str], float]:
    """Name without its prefix, pool, item → value."""
    return {
        (
            sample.name.removeprefix("fspoolfs_"),
            sample.labels.get("pool", ""),
            sample.labels.get("item", ""),
        ): (sample.value)
        for family in text_string_to_metric_families(service.metrics.text().decode())
        for sample in family.samples
    }


async def test_metrics_tell_what_each_item_may_hold_and_holds(running: Running, host: SimulatedHost) -> None:
    name = 'a"b\\c{d}=e,f'
    async with running() as service:
        told = Told(service)
        pool = await limited_pool(service, "web", name)
        await service.pools.define(dir_pool("tank"), ROOT)
        await service.items.create(pool, item("open"), ROOT, adopt=False)
        put(host, "web/a", 90 * KiB)
        await told.wait(1)
        await service.counts.refresh(service.pools)
        found = samples(service)
        assert found["pool_promised_bytes", "tank", ""] == 200 * KiB
        for one, held, above in (("web", 96 * KiB, 1), (name, 4 * KiB, 0)):
            assert found["item_capacity_bytes", "tank", one] == 100 * KiB
            assert found["item_soft_limit_bytes", "tank", one] == 80 * KiB
            assert found["item_allocation_bytes", "tank", one] == held
            assert found["item_above_soft_limit", "tank", one] == above
        assert [key[0] for key in found if key[2] == "open"] == ["item_allocation_bytes"]


@pytest.mark.usefixtures("seldom")
async def test_counters_are_asked_for_at_most_once_a_second(running: Running, faults: Recorder) -> None:
    async with running() as service:
        await active_pool(service)
        pool = await active_pool(service, "lake")
        await service.items.create(pool, item("web"), ROOT, adopt=False)
        for _ in range(5):
            await service.counts.refresh(service.pools)
        assert faults.calls["counted"] == 1
        assert pool.items["web"].counted is not None


async def test_items_that_are_not_counted_have_no_series_of_what_they_hold(
    running: Running, host: SimulatedHost
) -> None:
    async with running(registry=Registry([SimulatedSource(host)])) as service:
        pool = await active_pool(service)
        await service.items.create(pool, item("web"), ROOT, adopt=False)
        await service.counts.refresh(service.pools)
        assert [key for key in samples(service) if key[2] == "web"] == []
