"""How a daemon's own costs grow with its pools and items, beside what docs/scale.md computes for them.

Pools and items are the simulator's, so that no storage is measured with them. Pools that several hosts
share are directories of this host, bound to their targets: the locks, the journal and the renewals are the
same as with a cluster, whose own answers are left out here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.beside_floor import row
from benchmarks.clients import make_items
from benchmarks.processes import private_bytes
from benchmarks.run import Run
from benchmarks.table import Goal, Row, Unit
from benchmarks.trees import ControlTree
from support.keepers import end_keepers

#: What docs/scale.md computes with: bytes, and seconds of a processor in each second, of a daemon without
#: pools and for each pool. A shared one is beside that.
BASE, IDLE = 45e6, 0.2e-3
POOL_BYTES, POOL_SECONDS = 150e3, 60e-6
SHARED_BYTES, SHARED_SECONDS = 160e3, 1.2e-3
#: What the simulated storage adds: a pool's journal, as programs see it and as the disk has it, and an item's
#: directory and definition, which storage of other kinds has elsewhere.
SIMULATED_BYTES = 2 * (4 << 20)
SIMULATED_ITEM_BYTES = 5e3

#: As computed, as far as a shared machine can tell.
_AS_COMPUTED = Goal(low=0.5, high=1.5)
#: Times pass faster and slower on such a machine; they are computed from the least number in the same run.
_AS_THE_FIRST = Goal(high=2.0)
_SETTLING = 5.0


def measure_growth(run: Run) -> Iterator[Row]:
    """Idle pools, items, then idle pools that are shared, each time more of them."""
    effort, each = run.effort, 0.0
    for count in effort.growth_pools:
        if (lacking := count * SIMULATED_BYTES - _spare_bytes()) > 0:
            yield Row(name=f"{count:,} pools: left out, memory that lacks", value=lacking, unit=Unit.BYTES)
            continue
        with _simulated(run) as tree:
            began = time.perf_counter()
            for number in range(count):
                tree.add_pool(f"p{number}")
            taken = time.perf_counter() - began
            each = each or taken / count
            name = f"{count:,} pools: defined, built and started"
            yield row(name, taken, "as the fewest", count * each, _AS_THE_FIRST)
            memory = BASE + count * (POOL_BYTES + SIMULATED_BYTES)
            yield from _idle(run, tree, f"{count:,} pools", count * POOL_SECONDS, memory)
    for count in effort.growth_items:
        with _simulated(run) as tree:
            tree.add_pool()
            before = tree.server.own_resident_bytes()
            make_items(tree.items(), prefix="item", count=count)
            yield _row(
                f"{count:,} items: resident memory",
                tree.server.own_resident_bytes() - before,
                count * SIMULATED_ITEM_BYTES,
                Unit.BYTES,
            )
    starts: list[float] = []
    for count in effort.growth_shared:
        yield from _measure_shared(run, count, starts)


@contextmanager
def _simulated(run: Run) -> Iterator[ControlTree]:
    tree = run.install().start("--sim")
    with tree.server:
        tree.wait_until_mounted()
        yield tree


def _measure_shared(run: Run, count: int, starts: list[float]) -> Iterator[Row]:
    """`starts` are the seconds that each pool took to start, for the numbers of pools before."""
    installation, names = run.install(), [f"p{number}" for number in range(count)]
    try:
        tree = installation.start()
        with tree.server:
            tree.wait_until_mounted()
            for name in names:
                _share(tree, name, run.scratch.directory("export"))
            _stop(tree, names)
        tree = installation.start()
        with tree.server:
            tree.wait_until_mounted()
            up = time.perf_counter() - tree.server.began
            for name in names:
                tree.wait_until_active(name)
            taken = time.perf_counter() - tree.server.began
            starts.append((taken - up) / count)
            name = f"{count:,} shared pools: start until all are active"
            yield row(name, taken, "as the fewest", up + count * starts[0], _AS_THE_FIRST)
            yield from _idle(
                run, tree, f"{count:,} shared pools", count * SHARED_SECONDS, BASE + count * SHARED_BYTES
            )
            yield from _processes(tree, f"{count:,} shared pools")
            _stop(tree, names)
    finally:
        end_keepers(installation.state)


def _share(tree: ControlTree, name: str, directory: Path) -> None:
    (tree.mount / "define").write_text(
        f"<fspool type='network'><name>{name}</name><source><dir path='{directory}'/></source></fspool>\n"
    )
    (tree.pool(name) / "autostart").write_text("1\n")
    tree.start_pool(name)


def _stop(tree: ControlTree, names: Sequence[str]) -> None:
    for name in names:
        Path(tree.status(name)).write_text("stop\n")


def _idle(run: Run, tree: ControlTree, what: str, seconds: float, memory: float) -> Iterator[Row]:
    """What a daemon takes of a processor in one second in which nobody asks for anything, and its memory."""
    time.sleep(_SETTLING)  # what follows a start: a first look at the journals, soon and then more seldom
    before, began = tree.server.cpu_seconds(), time.perf_counter()
    time.sleep(run.effort.growth_seconds)
    used = (tree.server.cpu_seconds() - before) / (time.perf_counter() - began)
    yield _row(f"{what}: processor per second, idle", used, IDLE + seconds)
    yield _row(f"{what}: resident memory", tree.server.own_resident_bytes(), memory, Unit.BYTES)


def _processes(tree: ControlTree, what: str) -> Iterator[Row]:
    own, *keepers = tree.server.processes()
    yield Row(name=f"{what}: threads", value=len(list((own / "task").iterdir())), unit=Unit.COUNT)
    yield Row(name=f"{what}: descriptors", value=len(list((own / "fd").iterdir())), unit=Unit.COUNT)
    memory = sum(private_bytes(keeper) for keeper in keepers)
    yield Row(name=f"{what}: memory of {len(keepers):,} keepers", value=memory, unit=Unit.BYTES)


def _spare_bytes() -> int:
    """Half of the memory that is available, proc_meminfo(5): others are to have theirs."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 512
    return 0


def _row(name: str, value: float, computed: float, unit: Unit = Unit.SECONDS) -> Row:
    return Row(
        name=name, value=value, unit=unit, against="as computed", reference=computed, goal=_AS_COMPUTED
    )
