"""The crash contract once more: a second crash, while the first one's traces are made good."""

from __future__ import annotations

import random

import pytest

from fspoolfs.backends.simulator import SimulatedCrash, SimulatedHost
from fspoolfs.errors import FspoolError

from .conftest import Running
from .test_crash import (
    Operation,
    _quiet_crashes,  # noqa: F401  (a fixture)
    after_restart,
    attempt,
    create,
    delete,
    pool_is_active,
    prepared,
    rename,
    undelete,
    whole_run,
)

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.mark.parametrize("operation", [create, rename, delete, undelete], ids=lambda one: one.__name__)
async def test_a_power_cut_while_what_a_killed_daemon_left_is_finished(
    operation: Operation, running: Running
) -> None:
    """The records to replay may be in the cache alone then, and what is replayed may come to the disk."""
    seen, changes = await whole_run(running, operation)
    for at in range(1, changes + 1):
        state = f"{at}"
        machine = await prepared(running, state)
        await attempt(running, machine, state, operation, at, after=True)
        for second in range(1, 100):
            found = machine.killed()
            if not await recovering(running, found, state, second):
                break
            now = await after_restart(running, found.power_cut(random.Random(second)), state)
            assert now in seen, (at, second)


async def recovering(running: Running, machine: SimulatedHost, state: str, at: int) -> bool:
    """Start the service, the machine crashing at change number `at`; whether it came to that."""
    machine.faults.crash_at(at, after=True)
    try:
        async with running(machine, state=state) as service:
            await pool_is_active(service, service.pools.find("tank"))
            crashed = machine.faults.crashed
            machine.faults.crash()
    except BaseExceptionGroup as group:
        _, rest = group.split((SimulatedCrash, FspoolError))
        assert rest is None, rest
        return True
    return crashed
