"""The command `wait`: for whoever needs pools that are just being started, such as a service at boot."""

from __future__ import annotations

import os
import select
import time
from typing import Final

import click

from fspoolfs.cli.client import Place, explained
from fspoolfs.cli.params import PoolName, the_pool, tree
from fspoolfs.cli.style import Command
from fspoolfs.errors import FspoolError, TimeLimitError
from fspoolfs.model.states import PoolState

#: More than a status ever is, in bytes.
_STATUS: Final = 1024
#: Seconds after which a status is looked at although nobody has told of a change.
_STEP: Final = 1.0


@click.command("wait", cls=Command)
@click.argument("pools", metavar="[POOL]...", nargs=-1, type=PoolName())
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up after so long.")
def wait(*, pools: tuple[str, ...], timeout: float | None) -> None:
    """Return when the pools are active; without POOL, when all are that have autostart.

    A pool that has failed, or is not active after the time that is given, ends it with status 1.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    found = tree()
    wanted = [the_pool(name) for name in pools] if pools else [found.pool(name) for name in found.pools()]
    for pool in wanted:
        if pools or pool.value("autostart") == "1":
            _wait_for(pool, deadline)


def _wait_for(pool: Place, deadline: float | None) -> None:
    """Raises `TimeLimitError`, and `FspoolError` for a pool that has failed."""
    try:
        descriptor = os.open(pool.path / "status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise explained(error, pool.what) from error
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | select.POLLPRI)
        while True:
            state = os.pread(descriptor, _STATUS, 0).decode().split()[0]
            if state == PoolState.ACTIVE:
                return
            if state == PoolState.FAILED:
                raise FspoolError(pool.last_error() or f"{pool.what} has failed; its info says why")
            left = _STEP if deadline is None else min(_STEP, deadline - time.monotonic())
            if left <= 0:
                raise TimeLimitError(f"{pool.what} is still {state}")
            poll.poll(left * 1000)
    except OSError as error:
        raise explained(error, pool.what) from error
    finally:
        os.close(descriptor)
