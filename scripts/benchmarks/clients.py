"""Many clients at once: forked processes that begin together at a barrier."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from benchmarks.errors import BenchError

#: Seconds that clients have to come to the barrier, and to finish their work.
_BARRIER_LIMIT = 60.0
_WORK_LIMIT = 1800.0

_FORK = multiprocessing.get_context("fork")


def wall_seconds(jobs: Sequence[Callable[[], None]]) -> float:
    """Run each job in a process of its own; seconds from the first one's begin to the last one's end.

    Raises `BenchError` if one of them fails; its traceback is on standard error.
    """
    barrier = _FORK.Barrier(len(jobs))
    spans: SimpleQueue[tuple[float, float]] = _FORK.SimpleQueue()
    clients = [_FORK.Process(target=_client, args=(job, barrier, spans), daemon=True) for job in jobs]
    for client in clients:
        client.start()
    for client in clients:
        client.join(_WORK_LIMIT)
        if client.exitcode != 0:
            raise BenchError(f"a client ended with {client.exitcode}")
    begins, ends = zip(*(spans.get() for _ in jobs), strict=True)
    return float(max(ends) - min(begins))


def _client(job: Callable[[], None], barrier: Barrier, spans: SimpleQueue[tuple[float, float]]) -> None:
    gc.disable()
    barrier.wait(_BARRIER_LIMIT)
    # CLOCK_MONOTONIC, clock_gettime(2): one clock for all processes.
    began = time.perf_counter()
    job()
    spans.put((began, time.perf_counter()))


def maker(directory: Path, *, prefix: str, count: int) -> Callable[[], None]:
    """A job that makes `count` directories whose names begin with `prefix`."""

    def make() -> None:
        for number in range(count):
            os.mkdir(f"{directory}/{prefix}{number}")

    return make


def make_items(directory: Path, *, prefix: str, count: int, clients: int = 8) -> float:
    """Make `count` items with several clients; seconds that it took. `clients` must divide `count`."""
    share, rest = divmod(count, clients)
    if rest:
        raise ValueError(f"{clients} clients cannot share {count} items evenly")
    return wall_seconds(
        [maker(directory, prefix=f"{prefix}{client}-", count=share) for client in range(clients)]
    )
