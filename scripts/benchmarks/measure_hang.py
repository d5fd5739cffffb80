"""A pool whose storage hangs, and what another pool's clients notice of it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.errors import BenchError
from benchmarks.mounts import Mount, mount_at
from benchmarks.processes import Server
from benchmarks.run import Run
from benchmarks.table import Goal, Row, Unit
from benchmarks.trees import cat

_POOL = "hung"
_NOT_SLOWER = Goal(high=1.1)
_LIMIT = 30.0
_CONNECTIONS = Path("/sys/fs/fuse/connections")
_CALM, _HUNG = "calm", "hung"


def measure_hang(run: Run) -> Iterator[Row]:
    """cat status and mkdir in one pool, while a mkdir in another pool hangs in a request to its storage."""
    with run.subject() as tree, _storage(run) as (storage, server):
        tree.define_pool(storage.target / "root", name=_POOL)
        waiting = _requests_of(storage)
        times: dict[tuple[str, str], list[float]] = {}
        status, items = tree.status(), tree.items()
        acts: dict[str, Callable[[str], object]] = {
            "cat status": lambda name: cat(status),
            "mkdir of an item": lambda name: os.mkdir(f"{items}/{name}"),
        }

        def sample(state: str, turn: int) -> None:
            for what, act in acts.items():
                taken = times.setdefault((what, state), [])
                for number in range(run.effort.hang_calls):
                    began = time.perf_counter()
                    act(f"{state}{turn}-{number}")
                    taken.append(time.perf_counter() - began)

        for turn in range(run.effort.hang_turns):
            sample(_CALM, turn)
            with _hanging_mkdir(tree.items(_POOL) / f"item{turn}", server, waiting):
                sample(_HUNG, turn)
    for what, goal in zip(acts, (_NOT_SLOWER, None), strict=True):
        yield Row(
            name=f"{what} while another pool hangs",
            value=statistics.median(times[what, _HUNG]),
            unit=Unit.SECONDS,
            against="while none hangs",
            reference=statistics.median(times[what, _CALM]),
            goal=goal,
        )


@contextmanager
def _storage(run: Run) -> Iterator[tuple[Mount, Server]]:
    """A mounted file system in memory, and the process that can be stopped to make it hang."""
    place = run.scratch.directory("hanging")
    log = run.scratch.path / f"{place.name}.log"
    argv = (sys.executable, "-m", "benchmarks.hanging", place)
    with Server(argv, log=log, name="the hanging storage") as server:
        server.wait_until(lambda: mount_at(place) is not None, what="it is mounted", seconds=_LIMIT)
        mount = mount_at(place)
        if mount is None:
            raise BenchError(f"{place} is not mounted any more")
        yield mount, server


def _requests_of(mount: Mount) -> Callable[[], bool]:
    """Whether a request to a FUSE mount is waiting, as the kernel counts them: fuse's control file system."""
    if not any(_CONNECTIONS.iterdir()):
        subprocess.run(["mount", "-t", "fusectl", "fusectl", _CONNECTIONS], check=True)
    waiting = _CONNECTIONS / mount.device.partition(":")[2] / "waiting"
    return lambda: int(waiting.read_text()) > 0


@contextmanager
def _hanging_mkdir(item: Path, server: Server, waiting: Callable[[], bool]) -> Iterator[None]:
    """While the context lasts, the storage is stopped and a client's mkdir waits for it."""
    client = multiprocessing.get_context("fork").Process(target=os.mkdir, args=(item,), daemon=True)
    server.signal(signal.SIGSTOP)
    try:
        client.start()
        server.wait_until(waiting, what="a request waits", seconds=_LIMIT)
        yield
        if not client.is_alive():
            raise BenchError(f"mkdir {item} did not hang")
    finally:
        server.signal(signal.SIGCONT)
        client.join(_LIMIT)
    if client.exitcode != 0:
        raise BenchError(f"mkdir {item} failed after the storage went on")
