"""What a daemon does by itself when it starts: a few pools at once, and none waits for one that hangs."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

import trio
import trio.testing

from fspoolfs.backends.simulator import SimulatedHost
from fspoolfs.service.facade import Service
from fspoolfs.service.resuming import AT_ONCE

from .conftest import Running
from .scenes import LIMIT, ROOT, active_pool, place, until


async def test_a_daemon_starts_some_pools_at_once_and_what_hangs_delays_no_other(
    running: Running, host: SimulatedHost
) -> None:
    names = await many(running, 3 * AT_ONCE)
    # In all of the first places somebody hangs.
    hung = names[:AT_ONCE]
    with ExitStack() as stack:
        handles = [stack.enter_context(host.faults.hang("attach", path=place(name))) for name in hung]
        async with running(grace=0.05) as service:
            pools = {name: service.pools.find(name) for name in names}
            await all_active(service, names[AT_ONCE:])
            assert {pools[name].state for name in hung} == {"starting"}
            for handle in handles:
                handle.release()
            await all_active(service, names)


async def test_no_more_pools_than_some_are_attached_at_once(running: Running, host: SimulatedHost) -> None:
    names = await many(running, 2 * AT_ONCE)
    with host.faults.hang("attach") as hang:
        async with running() as service:
            assert await trio.to_thread.run_sync(hang.wait_until_entered, LIMIT)
            await trio.testing.wait_all_tasks_blocked()
            states = Counter(str(service.pools.find(name).state) for name in names)
            assert states == {"starting": AT_ONCE, "inactive": AT_ONCE}
            hang.release()
            await all_active(service, names)


async def test_a_pool_that_waits_for_its_turn_can_be_started_or_forgotten(
    running: Running, host: SimulatedHost
) -> None:
    names = await many(running, AT_ONCE + 2)
    with host.faults.hang("attach") as hang:
        async with running() as service, trio.open_nursery() as nursery:
            assert await trio.to_thread.run_sync(hang.wait_until_entered, LIMIT)
            await trio.testing.wait_all_tasks_blocked()
            forgotten, started = (pool for pool in service.pools if pool.state == "inactive")
            await service.lifecycle.undefine(forgotten, ROOT)
            nursery.start_soon(service.lifecycle.start, started, ROOT)
            await until(service, lambda: started.state == "starting", what="it does not wait")
            hang.release()
            await all_active(service, [name for name in names if name != forgotten.name])
            assert started.error is None
            assert forgotten.error is None


async def all_active(service: Service, names: list[str]) -> None:
    await until(
        service,
        lambda: all(service.pools.find(name).state == "active" for name in names),
        what="the pools are active",
    )


async def many(running: Running, count: int) -> list[str]:
    """Pools that the daemon before has left active, by the order of their starts."""
    names = [f"pool{number:03}" for number in range(count)]
    async with running() as service:
        for name in names:
            await active_pool(service, name)
    return names
