"""Pools on clusters: items beside the bare calls, listing from a second host, and a cluster that hangs."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.beside_floor import SUBJECT, row
from benchmarks.clients import make_items
from benchmarks.errors import BenchError
from benchmarks.listing import list_long
from benchmarks.processes import private_bytes
from benchmarks.run import Run
from benchmarks.sampling import Contender, interleave
from benchmarks.sites import LOCAL, Site, missing, opened
from benchmarks.table import Goal, Row, Unit
from benchmarks.trees import cat

_TWICE_THE_FLOOR = Goal(high=2.0)
_NEAR_THE_DIRECTORY = Goal(high=1.5)
_NOT_SLOWER = Goal(high=1.1)

_SITES = ("ceph", "moosefs")
_FLOOR = "the bare calls"
#: As long as a small item's definition.
_RECORD = b"x" * 700
#: Seconds after which a host's turn in the pool is over: what follows has to take one of its own.
_TURN = 0.15
#: How many changes are a row of them, which share a turn.
_ROW = 10
#: Seconds in which the other host hears of everything, a pool stalls, and is active again.
_LIMIT = 120.0
#: Seconds in which an idle pool's requests are counted, and before that, in which it becomes idle.
_COUNTED, _SETTLING = 20.0, 10.0


def measure_network(run: Run) -> Iterator[Row]:
    """On each cluster that this machine has the programs for."""
    for name in _SITES:
        if lacks := missing(name):
            yield Row(name=f"{name}: left out, needs {lacks}", value=0, unit=Unit.SECONDS)
            continue
        with opened(name, run) as site, site.reach():
            yield from _measure_items(run, site)
            yield from _measure_changes(run, site)
            yield from _measure_requests(site)
            yield from _measure_memory(site)
            yield from _measure_list(run, site)
            yield from _measure_stall(run, site)


class _Bare:
    """What an item cannot do without, by hand, in a directory on the same mount."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._place = site.root(0) / "bare"
        self._place.mkdir()
        self._parts: dict[str, list[float]] = {}

    def make(self, name: str) -> None:
        """mkdir(2), the limit, and a definition in a new file, fsync(2)."""
        directory = f"{self._place}/{name}"
        began = time.perf_counter()
        os.mkdir(directory)
        made = time.perf_counter()
        self._site.limit(directory)
        limited = time.perf_counter()
        descriptor = os.open(f"{directory}.xml", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            os.write(descriptor, _RECORD)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        ended = time.perf_counter()
        for part, seconds in (
            ("mkdir", made - began),
            (self._site.limit_name, limited - made),
            ("definition in a new file, synced", ended - limited),
        ):
            self._parts.setdefault(part, []).append(seconds)

    def parts(self) -> Iterator[tuple[str, float]]:
        for part, seconds in self._parts.items():
            yield part, statistics.median(seconds)


def _measure_items(run: Run, site: Site) -> Iterator[Row]:
    """One by one, each in a turn of its own and with the pool to itself; then in rows, which share turns."""
    items, bare = site.items(0), _Bare(site)
    alone = [
        Contender(name=SUBJECT, prepare=_pause, act=lambda turn: os.mkdir(f"{items}/alone{turn}")),
        Contender(name=_FLOOR, prepare=_pause, act=lambda turn: bare.make(f"alone{turn}")),
    ]
    if (null := site.null_limit) is not None:
        alone.append(Contender(name=site.limit_name, act=lambda turn: null()))
    medians = interleave(alone, turns=run.effort.network_turns)
    parts = dict(bare.parts())
    name, floor = f"{site.name}: mkdir of an item with a capacity", medians[_FLOOR]
    against = f"floor: {' + '.join(parts)}"
    yield row(name, medians[SUBJECT], against, floor, _TWICE_THE_FLOOR)
    if site.limit_name in medians:
        own = floor - medians[site.limit_name]
        yield row(name, medians[SUBJECT], f"the same without the start of {site.limit_name}", own)
    for part, seconds in parts.items():
        yield Row(name=f"- bare {part}", value=seconds, unit=Unit.SECONDS)

    def in_a_row(make: Callable[[str], object]) -> Callable[[int], None]:
        def act(turn: int) -> None:
            for number in range(_ROW):
                make(f"row{turn}-{number}")

        return act

    medians = interleave(
        [
            Contender(name=SUBJECT, prepare=_pause, act=in_a_row(lambda name: os.mkdir(f"{items}/{name}"))),
            Contender(name=_FLOOR, prepare=_pause, act=in_a_row(bare.make)),
        ],
        turns=max(2, run.effort.network_turns // 4),
    )
    yield row(
        f"{name}, {_ROW} in a row, each", medians[SUBJECT] / _ROW, against, medians[_FLOOR] / _ROW,
        _TWICE_THE_FLOOR,
    )  # fmt: skip


def _pause(turn: int) -> None:
    time.sleep(_TURN)


def _measure_changes(run: Run, site: Site) -> Iterator[Row]:
    """For information: what two hosts cost each other, and the other changes, each in a turn of its own."""
    items, turns = site.items(0), run.effort.network_turns
    for turn in range(-1, turns):
        os.mkdir(f"{items}/renamed{turn}")
        os.mkdir(f"{items}/deleted{turn}")
    os.mkdir(f"{items}/web")
    _wait(lambda: (site.items(1) / "web").is_dir(), "the other host has heard of all items")
    medians = interleave(
        [
            Contender(
                name="mkdir, two hosts in turns",
                act=lambda turn: os.mkdir(f"{site.items(turn % 2)}/both{turn}"),
            )
        ],
        turns=turns,
    ) | interleave(
        [
            Contender(
                name="rename",
                prepare=_pause,
                act=lambda turn: os.rename(f"{items}/renamed{turn}", f"{items}/other{turn}"),
            ),
            Contender(
                name="rmdir into the trash",
                prepare=_pause,
                act=lambda turn: os.rmdir(f"{items}/deleted{turn}"),
            ),
            Contender(
                name="snapshot", prepare=_pause, act=lambda turn: os.mkdir(f"{items}/web/snapshots/v{turn}")
            ),
        ],
        turns=turns,
    )
    for what, seconds in medians.items():
        yield Row(name=f"{site.name}: {what}", value=seconds, unit=Unit.SECONDS)


def _measure_requests(site: Site) -> Iterator[Row]:
    """What the servers are asked, by their own counts: by one more idle host, and for a row of items."""
    idle = _idle_rates(site)
    (site.pool(1) / "status").write_text("stop\n")
    one = _idle_rates(site)
    (site.pool(1) / "status").write_text("start\n")
    for server, rate in idle.items():
        yield Row(
            name=f"{site.name}: requests to the {server} in 1,000 s by one more host, idle",
            value=1000 * (rate - one[server]),
            unit=Unit.COUNT,
        )
    before, began = site.counters(), time.perf_counter()
    count = 5 * _ROW
    for number in range(count):
        os.mkdir(f"{site.items(0)}/counted{number}")
    time.sleep(_TURN)
    after, elapsed = site.counters(), time.perf_counter() - began
    for server, rate in idle.items():
        yield Row(
            name=f"{site.name}: requests to the {server} for 100 items in a row",
            value=100 * (after[server] - before[server] - rate * elapsed) / count,
            unit=Unit.COUNT,
        )


def _measure_memory(site: Site) -> Iterator[Row]:
    """What the program takes on a host that keeps the mount of one pool, and the start of that."""
    yield Row(
        name=f"{site.name}: start of a pool on a further host", value=site.starts[-1], unit=Unit.SECONDS
    )
    for pid, line in site.clients[0].host.processes().items():
        program = Path(line.split()[0]).name
        if program in ("ceph-fuse", "mfsmount"):
            memory = private_bytes(Path(f"/proc/{pid}"))
            yield Row(name=f"{site.name}: memory of {program}, one pool", value=memory, unit=Unit.BYTES)


def _idle_rates(site: Site) -> dict[str, float]:
    """Requests in a second, by server, while nobody asks for anything."""
    time.sleep(_SETTLING)
    before, began = site.counters(), time.perf_counter()
    time.sleep(_COUNTED)
    after, elapsed = site.counters(), time.perf_counter() - began
    return {server: (after[server] - before[server]) / elapsed for server in before}


def _measure_list(run: Run, site: Site) -> Iterator[Row]:
    """Items that one host makes, listed on the other one: as they are in the tree, and the directory."""
    count = run.effort.network_items
    seconds = make_items(site.items(0), prefix="listed", count=count)
    yield Row(
        name=f"{site.name}: making {count:,} items, 8 clients", value=count / seconds, unit=Unit.PER_SECOND
    )
    began = time.perf_counter()
    wanted = len(os.listdir(site.items(0)))
    _wait(lambda: len(os.listdir(site.items(1))) == wanted, "the other host lists all items")
    yield Row(
        name=f"{site.name}: after that, until the other host lists them all",
        value=time.perf_counter() - began,
        unit=Unit.SECONDS,
    )
    tree, directory = site.items(1), site.root(1)
    first = {name: list_long(place) for name, place in ((SUBJECT, tree), (_FLOOR, directory))}
    name, against = f"ls -ln of {count:,} items from a second host", "the directory on that host's mount"
    yield row(f"{site.name}: first {name}", first[SUBJECT], against, first[_FLOOR])
    medians = interleave(
        [
            Contender(name=SUBJECT, act=lambda turn: list_long(tree)),
            Contender(name=_FLOOR, act=lambda turn: list_long(directory)),
        ],
        turns=run.effort.network_lists,
    )
    yield row(f"{site.name}: {name}", medians[SUBJECT], against, medians[_FLOOR], _NEAR_THE_DIRECTORY)


def _measure_stall(run: Run, site: Site) -> Iterator[Row]:
    """cat status of a pool in a directory: before, while the silence is not noticed, and when it is."""
    times: dict[str, list[float]] = {"before": [], "silent": [], "stalled": []}
    status = str(site.pool(0, LOCAL) / "status")

    def sample(state: str) -> None:
        for _ in range(run.effort.stall_calls):
            began = time.perf_counter()
            cat(status)
            times[state].append(time.perf_counter() - began)

    for turn in range(run.effort.stall_rounds):
        sample("before")
        with _silent(site):
            item = site.items(0) / f"stalled{turn}"
            waiting = subprocess.Popen(["mkdir", item], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            sample("silent")
            _wait(lambda: site.status(0) == "stalled", "the pool is stalled")
            sample("stalled")
        waiting.wait(_LIMIT)  # however that ends
        _wait(lambda: {site.status(0), site.status(1)} == {"active"}, "the pool is active again")
        time.sleep(_SETTLING)
    before = statistics.median(times["before"])
    for state, what in (("silent", "has just fallen silent"), ("stalled", "is stalled")):
        yield row(
            f"{site.name}: cat status of another pool while this one {what}",
            statistics.median(times[state]), "the same before", before, _NOT_SLOWER,
        )  # fmt: skip


@contextmanager
def _silent(site: Site) -> Iterator[None]:
    """No server answers while the context lasts."""
    site.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        site.signal(signal.SIGCONT)


def _wait(ready: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + _LIMIT
    while not ready():
        if time.monotonic() > limit:
            raise BenchError(f"not after {_LIMIT:.0f} s: {what}")
        time.sleep(0.02)
