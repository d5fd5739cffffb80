"""A host that shares a pool dies at every place in its work, and another one takes over.

As `test_crash`, whose operations these are; the heir knows nothing but what is in the storage.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fspoolfs.backends.registry import SIMULATED, Registry
from fspoolfs.backends.simulator import SimulatedHost
from fspoolfs.model.definitions import PoolDefinition, PoolType
from fspoolfs.service.facade import Service
from service.conftest import ROOT, Running
from service.shared_simulation import SharedSimulation
from service.test_crash import (
    FORGETTING,
    OPERATIONS,
    Operation,
    Seen,
    _quiet_crashes,
    attempt,
    check_nothing_is_left_over,
    look,
    prepared,
    whole_run,
)

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

__all__ = ["_quiet_crashes"]

#: One of so many places is taken: what a place of this host's own work does is tested at every one.
STEP = 3


@pytest.fixture
def sharing(running: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """As `running`, with a pool that other hosts could have active; nothing happens there by itself."""

    async def nothing(*arguments: object) -> None:
        """What would change the storage at any time."""

    monkeypatch.setattr("fspoolfs.service.companion.renew", nothing)
    monkeypatch.setattr("fspoolfs.service.hosts.feed.Feed.follow", nothing)

    @asynccontextmanager
    async def start(machine: SimulatedHost, *, state: str) -> AsyncIterator[Service]:
        async with running(
            registry=Registry([SharedSimulation(machine)], [SIMULATED]), state=state
        ) as service:
            yield service

    return start


async def taken_over(sharing: Running, machine: SimulatedHost, state: str) -> Seen:
    """What a host finds that has never had the pool."""
    async with sharing(machine, state=state) as service:
        await service.pools.define(PoolDefinition(name="tank", type=PoolType.DIR), ROOT)
        pool = service.pools.find("tank")
        await service.lifecycle.start(pool, ROOT)
        check_nothing_is_left_over(machine, pool)
        return look(machine, pool)


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power-cut"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.__name__)
async def test_another_host_finds_an_operation_whole_or_not_at_all(
    operation: Operation, power: bool, sharing: Running
) -> None:
    seen, changes = await whole_run(sharing, operation)
    assert changes >= 2
    for at in range(1 + power, changes + 1, STEP):
        after = bool(at % 2) is power
        state = f"{at}"
        machine = await prepared(sharing, state)
        succeeded = await attempt(sharing, machine, state, operation, at, after=after)
        found = machine.power_cut(random.Random(at)) if power else machine.killed()
        now = await taken_over(sharing, found, f"{state}-heir")
        again = await taken_over(sharing, found, f"{state}-next")
        if operation in FORGETTING:
            seen, now, again = [one.items_only() for one in seen], now.items_only(), again.items_only()
        assert now in seen, (at, after)
        if succeeded:
            assert now == seen[-1], (at, after)
        assert again == now, (at, after)
