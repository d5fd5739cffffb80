"""Pytest plugin: an asynchronous test that hangs is cancelled, and tells where each of its tasks waited.

The limit for every test (`timeout` in pyproject.toml) strikes from outside, which leaves Trio unusable
for the tests after it; this one is shorter, and Trio's own.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator, Sequence

import pytest
import trio

#: Seconds that an asynchronous test may take.
LIMIT = 90.0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("trio"):
            item.add_marker(pytest.mark.trio(run=run_in_time), append=False)


def run_in_time(
    main: Callable[[], Awaitable[None]],
    *,
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> None:
    """`trio.run`, but a failure of the test when `main` does not end within `LIMIT` seconds."""
    # On a test's own clock the limit could come at once.
    limited = functools.partial(_in_time, main) if clock is None else main
    trio.run(limited, clock=clock, instruments=instruments)


async def _in_time(main: Callable[[], Awaitable[None]]) -> None:
    tasks: list[str] = []
    this = trio.lowlevel.current_task()
    with trio.CancelScope() as scope:

        async def watch() -> None:
            await trio.sleep(LIMIT)
            tasks.extend(_waiting(this))
            scope.cancel()

        trio.lowlevel.spawn_system_task(watch)
        await main()
    if scope.cancelled_caught:
        pytest.fail("\n".join([f"did not end within {LIMIT:g} s; its tasks waited:", *tasks]), pytrace=False)


def _waiting(task: trio.lowlevel.Task) -> Iterator[str]:
    """Where `task` and its children wait, as in a traceback."""
    yield task.name
    for frame, line in task.iter_await_frames():
        if frame.f_globals["__name__"].partition(".")[0] not in {"trio", "pytest_trio"}:
            yield f"  {frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _waiting(child)
