"""What volumes take of the storage below, and the warning when it cannot keep what was promised."""

from __future__ import annotations

import json

import pytest

from fspoolfs.backends.registry import SIMULATED, Registry
from fspoolfs.backends.simulator import SimulatedHost, SimulatedSource
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.model.infos import Backing
from fspoolfs.service import backings, reports
from fspoolfs.service.facade import Service
from service.conftest import Running
from service.scenes import ROOT, active_pool, dir_pool, until

MIB = 1 << 20
OVER = ["storage-overcommitted", "storage-sufficient"]


class BackedSource(SimulatedSource):
    """Pools on volumes of 100 MiB, each on the storage that `stores` names for it."""

    def __init__(self, host: SimulatedHost) -> None:
        super().__init__(host)
        self.stores: dict[str, str] = {}
        self.available = 1000 * MIB
        self.broken = False

    def backing(self, definition: PoolDefinition) -> Backing | None:
        if self.broken:
            raise OSError("the disk is gone")
        store = self.stores.get(definition.name)
        if store is None:
            return None
        return Backing(store=store, size=100 * MIB, allocation=40 * MIB, available=self.available)


@pytest.fixture
def source(host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> BackedSource:
    monkeypatch.setattr(backings, "INTERVAL", 0.02)
    monkeypatch.setattr(backings, "GAP", 0.01)
    return BackedSource(host)


def warnings(service: Service) -> list[dict[str, object]]:
    text = service.events.read(0, 1 << 20).decode()
    return [
        event for line in text.splitlines() if (event := json.loads(line))["event"].startswith("storage-")
    ]


def said(service: Service) -> list[object]:
    return [event["event"] for event in warnings(service)]


async def test_one_event_warns_and_one_tells_that_it_is_over(running: Running, source: BackedSource) -> None:
    source.stores = {"one": "/disk", "two": "/disk", "three": "/other"}
    async with running(registry=Registry([source], [SIMULATED])) as service:
        for name in source.stores:
            await service.pools.define(dir_pool(name), ROOT)
        await until(service, lambda: len(service.backings.stores) == 2, what="both storages are known")
        assert service.backings.stores["/disk"] == backings.Store(120 * MIB, 1000 * MIB)
        assert warnings(service) == []
        source.available = 100 * MIB
        await until(service, lambda: said(service) == ["storage-overcommitted"], what="it is warned")
        warning = warnings(service)[0]
        assert warning["store"] == "/disk"
        assert (warning["promised"], warning["available"]) == (120 * MIB, 100 * MIB)
        assert "pool" not in warning
        await service.pools.undefine(service.pools.find("two"), ROOT)
        await until(service, lambda: said(service) == OVER, what="it is over")


async def test_storage_that_is_gone_is_no_warning_and_ends_nothing(
    running: Running, source: BackedSource
) -> None:
    source.stores, source.available = {"one": "/disk"}, 0
    async with running(registry=Registry([source], [SIMULATED])) as service:
        await service.pools.define(dir_pool("one"), ROOT)
        await until(service, lambda: said(service) == ["storage-overcommitted"], what="it is warned")
        source.broken = True
        await until(service, lambda: said(service) == OVER, what="it is over")
        source.broken = False
        await until(service, lambda: len(warnings(service)) == 3, what="it is warned again")


async def test_info_and_metrics_tell_what_a_volume_takes(running: Running, source: BackedSource) -> None:
    source.stores = {"tank": "/disk"}
    async with running(registry=Registry([source], [SIMULATED])) as service:
        pool = await active_pool(service)
        found = await service.backings.of(pool)
        text = reports.pool_info(pool, None, found)
        assert "Volume:         40.00 MiB of 100.00 MiB taken on /disk, where 1000.00 MiB are free" in text
        await until(service, lambda: "/disk" in service.backings.stores, what="the storage is known")
        metrics = service.metrics.text().decode()
        assert 'fspoolfs_pool_volume_bytes{kind="allocation",pool="tank"} 4.194304e+07' in metrics
        assert 'fspoolfs_storage_promised_bytes{store="/disk"}' in metrics
        source.stores = {}
        assert await service.backings.of(pool) is None


async def test_pools_that_are_all_there_is_of_their_storage_have_none(running: Running) -> None:
    async with running() as service:
        pool = await active_pool(service)
        assert await service.backings.of(pool) is None
        assert service.backings.stores == {}
