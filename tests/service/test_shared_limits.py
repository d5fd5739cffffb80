"""Limits of a pool that several hosts share: each applies them to its own processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fspoolfs.backends.simulated_cgroups import SimulatedGroups
from fspoolfs.service.facade import Service
from fspoolfs.service.objects import Pool
from service.scenes import ROOT, item
from service.sharing import FENCED, Hosts, eventually_true
from support.keepers import end_keepers

LIMITS, OTHERS = (("pids.max", "20"),), (("pids.max", "30"),)
WEB, SHOP = ("tank", "web"), ("tank", "shop")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    yield Hosts(tmp_path, FENCED)
    end_keepers(tmp_path)


async def limit(service: Service, pool: Pool, limits: tuple[tuple[str, str], ...]) -> None:
    await service.items.define(pool, item("web", limits=limits), ROOT)


async def test_limits_that_one_host_defines_are_in_force_on_all(hosts: Hosts) -> None:
    groups = SimulatedGroups()
    async with hosts.host("one") as first, hosts.host("two", groups=groups) as second:
        here, there = await hosts.pool(first), await hosts.pool(second)
        await limit(first, here, LIMITS)
        await eventually_true(lambda: groups.limits == {WEB: LIMITS}, what="they are in force")
        await limit(first, here, OTHERS)
        await eventually_true(lambda: groups.limits == {WEB: OTHERS}, what="others are in force")
        await first.items.rename(here, "web", "shop")
        await eventually_true(lambda: groups.limits == {SHOP: OTHERS}, what="the group has the new name")
        await second.trash.delete(there, "shop")
        assert groups.limits == {}


async def test_a_host_that_cannot_limit_has_the_item_failed(
    hosts: Hosts, caplog: pytest.LogCaptureFixture
) -> None:
    groups = SimulatedGroups(absent={"pids.max": "there is no controller pids"})
    async with hosts.host("one") as first, hosts.host("two", groups=groups) as second:
        here, there = await hosts.pool(first), await hosts.pool(second)
        await limit(first, here, LIMITS)
        await eventually_true(
            lambda: "web" in there.items and there.items["web"].state == "failed", what="the item has failed"
        )
        assert "there is no controller pids" in str(there.items["web"].problem)
        assert here.items["web"].state == "ready"
        await limit(first, here, ())
        await eventually_true(lambda: there.items["web"].state == "ready", what="the item is mended")
        assert there.items["web"].unlimited is None
    assert "there is no controller pids" in caplog.text
